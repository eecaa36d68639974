//! Disks that lose their power under a running server.

use pinion_tests::trials::Class;

#[test]
fn every_acknowledged_write_survives_every_power_cut() {
    let counts = Class::submit("power-cut");
    assert!(counts.get("cuts") + counts.get("skipped") >= 50);
}
