//! Kills a server with SIGKILL again and again under concurrent synced writers.

use pinion_tests::trials::Class;

#[test]
fn every_acknowledged_write_survives_every_kill() {
    let counts = Class::submit("kill");
    assert!(counts.get("kills") >= 50 && counts.get("acknowledged writes") > counts.get("kills"));
}
