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
    // Cuts that find nothing unsynced show nothing, and a fifth of all show what waited as if it were synced.
    // How many sectors one drops varies a thousandfold: their sum says nothing about the others.
    assert!(4 * counts.get("cuts that dropped sectors") >= counts.get("cuts"), "{counts}");
}
