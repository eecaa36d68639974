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

#[test]
fn no_command_breaks_its_reader() {
    let counts = Class::submit("fuzz-commands");
    let share = |name: &str| counts.get(name) * 1000 / counts.get("commands");
    assert!(share("intact") > 200 && share("read") > 200 && share("refused") > 20, "{counts}");
    assert!(counts.get("kept inputs replayed") > 0, "{counts}");
}

#[test]
fn no_request_breaks_the_gateway() {
    let counts = Class::submit("fuzz-http");
    let share = |name: &str| counts.get(name) * 1000 / counts.get("requests");
    // What means something is told from what does not, and both are met.
    assert!(
        share("accepted") > 150 && share("no requests to hyper") < 400 && share("traces taken") > 2,
        "{counts}"
    );
    for code in [
        "bad_host",
        "unknown_host",
        "no_such_address",
        "bad_method",
        "bad_encoding",
        "bad_parameter",
        "unknown_parameter",
        "bad_namespace",
        "bad_cursor",
        "bad_condition",
        "bad_json",
        "bad_batch",
        "bad_type",
        "body_broken",
        "too_large",
        "no_such_key",
        "no_such_namespace",
        "condition_failed",
    ] {
        assert!(counts.get(code) > 5, "{code}: {counts}");
    }
    assert!(counts.get("results of batches") > 500 && counts.get("records of pages") > 1_000, "{counts}");
    assert!(counts.get("round trips") > 200 && counts.get("kept inputs replayed") > 10, "{counts}");
}

#[test]
fn no_damage_of_one_place_makes_an_answer_wrong() {
    let counts = Class::submit("bit-flips");
    for name in ["flips of the sweep", "flips anywhere", "misdirected blocks", "stale blocks"] {
        assert!(counts.get(name) > 0, "{name}: {counts}");
    }
    // Some damage is refused at once, some met by an answer, some lies where nothing reads.
    for name in ["refused at opening", "answers that were errors", "opened again after working on"] {
        assert!(counts.get(name) > 100, "{name}: {counts}");
    }
    assert!(counts.get("answers right") > 2 * counts.get("answers that were errors"), "{counts}");
    // The rule that lets the last write go applies to the last block of one of the directories only.
    let lost = counts.get("unproven last writes lost");
    assert!(lost > 0 && lost < counts.get("answers right") / 100, "{counts}");
    assert_eq!(counts.get("answers of deceived shards"), 0, "{counts}");
}

#[test]
fn no_file_makes_the_engine_panic() {
    let counts = Class::submit("fuzz-files");
    let kinds =
        ["blocks changed and sealed", "blocks changed", "sizes changed", "files replaced", "files added"];
    for name in kinds.into_iter().chain(["refused at opening", "answers that were errors", "answers right"]) {
        assert!(counts.get(name) > 100, "{name}: {counts}");
    }
    assert!(
        counts.get("answers of deceived shards") > 1_000,
        "sealed blocks are refused too early: {counts}"
    );
    assert!(counts.get("kept inputs replayed") > 20, "{counts}");
}
