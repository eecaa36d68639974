//! Storage histories: simulated crashes of the engine, in the size of a submission. Beside them, because
//! they need the processor and it needs minutes of the clock, the soak of a real server.

use pinion_tests::trials::Class;

#[test]
fn no_crash_loses_what_was_acknowledged() {
    Class::submit("storage-crash");
}

#[test]
fn a_crash_at_every_file_operation_loses_nothing_either() {
    Class::submit("storage-sweep");
}

#[test]
fn failing_and_lying_disks_lose_nothing_and_no_answer_is_wrong() {
    Class::submit("sim-faults");
}

#[test]
fn histories_that_failed_once_pass() {
    pinion_tests::storage::run_failed_once();
}

#[test]
fn memory_descriptors_and_files_stay_flat() {
    let counts = Class::submit("soak");
    assert!(counts.get("connections") > 3 && counts.get("namespaces made and dropped") > 0, "{counts}");
}
