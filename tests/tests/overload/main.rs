//! Overload and abuse of a real server.

use pinion_tests::overload::{Bounds, tenfold};
use pinion_tests::trials::Class;

/// As long as the class `overload` takes with a submission.
const SECONDS: u64 = 60;

/// What the class asserts on a machine of its own is asserted here with bounds that hold beside other
/// work.
#[test]
fn ten_times_the_load_is_held_back_and_the_rest_is_served() {
    let counts = tenfold(SECONDS, &Bounds::ROBUST);
    println!("overload: {counts}");
    let (offered, accepted) = (counts.get("offered"), counts.get("accepted"));
    let given_up = counts.get("held back by in-flight") + counts.get("held back by retry-after");
    assert!(given_up > accepted, "nothing was overloaded: {counts}");
    // Every request that was sent has come to one of two ends.
    assert_eq!(offered - given_up, accepted + counts.get("refused by the server"));
}

#[test]
fn abuse_is_bounded_and_others_are_served() {
    let counts = Class::submit("abuse");
    assert_eq!(counts.get("scenes"), 10);
    assert_eq!(counts.get("idle connections") + 2 * counts.get("skipped"), 20_000);
}
