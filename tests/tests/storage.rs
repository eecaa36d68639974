//! Storage histories: simulated crashes of the engine, in the size of a submission.

use pinion_tests::trials::Class;

#[test]
fn no_crash_loses_what_was_acknowledged() {
    Class::submit("storage-crash");
}
