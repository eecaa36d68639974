//! Fuzzing in the size of a submission, and that its generators are as broad as they must be.

mod memory;

use pinion_tests::trials::Class;

#[test]
fn no_frame_breaks_a_decoder_or_a_server() {
    let counts = Class::submit("fuzz-frames");
    let frames = counts.get("frames");
    let share = |name: &str| counts.get(name) * 1000 / frames;
    // Both the front doors and the rooms behind them are reached.
    assert!(share("requests accepted") > 150 && share("answers accepted") > 150, "{counts}");
    assert!(share("bodies refused") > 150, "{counts}");
    assert!(share("headers refused") > 2 && share("frames too long") > 2, "{counts}");
    assert!(share("frames gathered over chunks") > 20 && share("cursors opened") > 5, "{counts}");
    for name in ["answers only a newer server sends", "prefaces", "servers talked to", "kept inputs replayed"]
    {
        assert!(counts.get(name) > 0, "{name}: {counts}");
    }
    let each = counts.get("answers to hostile connections") / counts.get("hostile connections");
    assert!(each > 2, "hostile connections get {each} answers each: they are refused too early");
}
