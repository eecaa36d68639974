//! Overload and abuse of a real server.

use pinion_tests::overload::{Bounds, soak, tenfold};
use pinion_tests::trials::Class;

/// Two blocks of the class `overload`.
const SECONDS: u64 = 18;

/// Of the class `soak`, whose own size with a submission, three minutes, is too long for this suite.
const SOAK_SECONDS: u64 = 20;

/// What the class asserts in a minute on a machine of its own is asserted here with bounds that hold
/// beside other work.
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

#[test]
fn memory_descriptors_and_files_stay_flat() {
    let counts = soak(SOAK_SECONDS);
    println!("soak: {counts}");
    assert!(counts.get("connections") > 3 && counts.get("namespaces made and dropped") > 0, "{counts}");
}
