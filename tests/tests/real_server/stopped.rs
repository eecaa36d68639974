//! Servers that stop for a while, and disks that become slow.

use pinion_tests::trials::Class;

#[test]
fn clients_that_give_up_lose_and_undo_nothing() {
    let counts = Class::submit("stopped");
    assert!(counts.get("pauses") + counts.get("skipped") >= 30);
}
