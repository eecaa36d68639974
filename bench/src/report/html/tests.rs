//! What a browser would stumble over, and what a reader would miss.

use super::super::tests::report;
use super::*;

/// Panics where a tag is not closed by its like.
fn assert_balanced(page: &str) {
    let mut open = Vec::new();
    for tag in page.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("a tag ends");
        let name = tag.trim_start_matches('/').split([' ', '\n']).next().unwrap();
        if tag.starts_with('!') || tag.ends_with('/') || name == "meta" {
            continue;
        }
        match tag.starts_with('/') {
            true => assert_eq!(open.pop(), Some(name), "</{name}> closes what is not open"),
            false => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?} are not closed");
}

#[test]
fn a_page_is_whole_and_has_everything() {
    let page = page(&report());
    assert_balanced(&page);
    for part in [
        "<title>Workload a on pinion://127.0.0.1:7600: 500 ops/s</title>",
        "<b>500</b><span>ops/s</span>",
        "<b>990 µs</b><span>READ p99</span>",
        "closed loop",
        "<th scope=\"row\">p99.9</th><td class=\"n\">999</td><td class=\"n\">1,999</td>",
        "<th scope=\"row\">p99.99</th><td class=\"n\">–</td><td class=\"n\">–</td>",
        "<th scope=\"row\">failed</th><td class=\"n\">0</td><td class=\"n bad\">2</td>",
        "Latency by percentile",
        "Throughput over time",
        "Latency over time",
        "<td class=\"n\">1,000</td><td class=\"n\">3,500</td><td class=\"n\">2,500</td>",
        "<td class=\"n\">−3</td>",
        "<th scope=\"row\">recordcount</th><td>1000</td>",
        "2025-12-31 23:59:59 UTC",
    ] {
        assert!(page.contains(part), "{part} is missing in\n{page}");
    }
    assert!(!page.contains("unchanged"), "a counter that did not change is not shown");
    assert!(!page.contains("class=\"warnings\""), "nothing to warn of");
    assert!(!page.contains("http"), "nothing is fetched");
}

#[test]
fn text_from_outside_is_no_markup() {
    let mut report = report();
    let nasty = "<script>alert('&\"')</script>\0".to_owned();
    report.workload.clone_from(&nasty);
    report.target.clone_from(&nasty);
    report.phase.clone_from(&nasty);
    report.tool_version.clone_from(&nasty);
    report.warnings.push(nasty.clone());
    report.ended = Some(nasty.clone());
    report.kinds[0].name.clone_from(&nasty);
    for facts in [&mut report.properties, &mut report.target_facts, &mut report.machine_facts] {
        facts.push((nasty.clone(), nasty.clone()));
    }
    report.target_counters.push((nasty, 1, 2));
    let page = page(&report);
    assert_balanced(&page);
    assert!(!page.contains("<script") && !page.contains('\0'));
    let escaped = "&lt;script&gt;alert(&#39;&amp;&quot;&#39;)&lt;/script&gt;\u{fffd}";
    assert_eq!(page.matches(escaped).count(), 18);
}

#[test]
fn a_run_that_ended_at_once_has_a_page_too() {
    let mut report = report();
    report.kinds.clear();
    report.intervals.clear();
    report.target_counters.clear();
    report.properties.clear();
    (report.seconds, report.operations, report.ops_per_second) = (0.0, 0, 0.0);
    report.ended = Some("the target refused the connection".to_owned());
    let page = page(&report);
    assert_balanced(&page);
    assert!(page.contains("No operation was counted."));
    assert!(page.contains("ended before its first second"));
    assert!(page.contains("<strong>Ended early:</strong> the target refused the connection"));
    assert!(!page.contains("<svg"));
}

#[test]
fn odd_runs_are_drawn_without_a_number_that_is_none() {
    let mut report = report();
    report.intervals.truncate(1);
    report.kinds[1].ok = 0;
    report.kinds[0].ok = 1;
    report.rate_per_second = Some(0.0);
    let one = page(&report);
    report.intervals[0].ops_per_second = 0.0;
    (report.intervals[0].p50_us, report.intervals[0].p99_us, report.intervals[0].p999_us) = (0.0, 0.0, 0.0);
    let none = page(&report);
    for page in [one, none] {
        assert_balanced(&page);
        assert!(!page.contains("NaN") && !page.contains("inf "), "{page}");
    }
}

#[test]
fn a_curve_ends_with_the_rarest_operation() {
    let report = report();
    let line = curve_of((0, &report.kinds[0]));
    assert_eq!(line.points.first(), Some(&(0.0, report.kinds[0].latency.min_us)));
    assert_eq!(line.points.last(), Some(&(99.9, report.kinds[0].latency.max_us)));
    assert!(line.points.is_sorted_by(|a, b| a.0 <= b.0));
}
