//! What a request costs, in counts: see `pinion_tests::counts`.

use pinion_tests::counts::COUNTS;
use pinion_tests::trials::Class;

#[test]
fn no_request_costs_more_than_its_bounds() {
    let counts = Class::submit(COUNTS.name);
    // The log's syncs are counted everywhere; what ptrace is needed for is skipped where it is refused.
    assert!(counts.get("figures within their bounds") >= 2, "{counts}");
}
