//! Disks that fail requests.

use pinion_tests::trials::Class;

#[test]
fn failing_requests_are_told_or_mended_and_nothing_is_lost() {
    let counts = Class::submit("real-faults");
    assert!(counts.get("faults") + counts.get("skipped") >= 16);
}
