//! Overload of a real server, in short: what the class `overload` asserts in a minute on a machine
//! of its own is asserted here with bounds that hold beside other work.

use pinion_tests::overload::{Bounds, tenfold};

/// Two blocks of the class.
const SECONDS: u64 = 18;

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
