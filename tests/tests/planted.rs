//! Bugs planted into a scratch copy of the repository are caught: what shows that the other tests can
//! fail. `cargo run -p pinion-tests -- planted --size full` plants all of them.

use pinion_tests::trials::Class;

#[test]
fn planted_bugs_are_caught() {
    let counts = Class::submit("planted");
    assert!(counts.get("caught") >= 1 && counts.get("classes passed on sound code") >= 1);
}
