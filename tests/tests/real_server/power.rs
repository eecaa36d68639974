//! Disks that lose their power under a running server.

use pinion_tests::trials::Class;

#[test]
fn every_acknowledged_write_survives_every_power_cut() {
    let counts = Class::submit("power-cut");
    assert!(counts.get("cuts") + counts.get("skipped") >= 50);
}

#[test]
fn every_acknowledged_write_survives_torn_and_dropped_sectors() {
    let counts = Class::submit("torn");
    assert!(counts.get("cuts") + counts.get("skipped") >= 20);
    // Cuts that find nothing unsynced show nothing: five sectors for each, in the middle.
    assert!(counts.get("unsynced sectors dropped") >= 5 * counts.get("cuts"));
}
