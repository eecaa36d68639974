//! What the node was used for: requests, errors and times by how a connection speaks and by namespace.
//!
//! Beside the operation these are the only labels that peers have a part in. How many namespaces have a row
//! of their own is bounded by the node, and once more here.

use serde_json::Value;

use super::exposition::{Exposition, Kind};
use super::node::{by_operation, counts, list, numbers};

/// Rows of namespaces that are shown, at most: those that the node tells by their names, and the rest.
const NAMESPACES_MAX: usize = 33;

/// Writes both; `bounds` are those of all buckets, in seconds.
pub(super) fn write(info: &Value, bounds: &[f64], out: &mut Exposition) {
    listeners(&info["by_listener"], bounds, out);
    namespaces(list(&info["by_namespace"]), bounds, out);
}

fn listeners(listeners: &Value, bounds: &[f64], out: &mut Exposition) {
    let rows: Vec<(&String, &Value)> = listeners.as_object().into_iter().flatten().collect();
    if rows.is_empty() {
        return;
    }
    let name = "pinion_listener_requests_total";
    out.family(name, Kind::Counter, "Requests by how their connection speaks");
    for (listener, row) in &rows {
        out.sample(name, &[("listener", listener)], number_of(row, "requests"));
    }
    let name = "pinion_listener_errors_total";
    out.family(name, Kind::Counter, "Requests answered with an error, by how their connection speaks");
    for (listener, row) in &rows {
        for (class, errors) in numbers(&row["errors_by_operation"]) {
            out.sample(name, &[("listener", listener), ("op", class)], errors);
        }
    }
    let name = "pinion_listener_request_duration_seconds";
    out.family(name, Kind::Histogram, "As pinion_request_duration_seconds, by how the connection speaks");
    for (listener, row) in &rows {
        for (class, counts) in by_operation(&row["latency_buckets"]) {
            out.histogram(name, &[("listener", listener), ("op", class)], bounds, &counts, None);
        }
    }
}

fn namespaces(rows: &[Value], bounds: &[f64], out: &mut Exposition) {
    let rows: Vec<(&str, &Value)> =
        rows.iter().take(NAMESPACES_MAX).map(|row| (row["name"].as_str().unwrap_or_default(), row)).collect();
    if rows.is_empty() {
        return;
    }
    let name = "pinion_namespace_requests_total";
    out.family(name, Kind::Counter, "Requests by the namespace of their keys");
    for (label, row) in &rows {
        for (number, class) in [("reads", "read"), ("writes", "write"), ("scans", "scan")] {
            out.sample(name, &[("namespace", label), ("op", class)], number_of(row, number));
        }
    }
    let name = "pinion_namespace_errors_total";
    out.family(name, Kind::Counter, "Requests answered with an error, by the namespace of their keys");
    for (label, row) in &rows {
        out.sample(name, &[("namespace", label)], number_of(row, "errors"));
    }
    let name = "pinion_namespace_request_duration_seconds";
    out.family(name, Kind::Histogram, "As pinion_request_duration_seconds, by the namespace of the keys");
    for (label, row) in &rows {
        for class in ["read", "write"] {
            let counts = counts(&row[format!("{class}_ns_buckets")]);
            out.histogram(name, &[("namespace", label), ("op", class)], bounds, &counts, None);
        }
    }
}

fn number_of(row: &Value, name: &str) -> u64 {
    row[name].as_u64().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_row_is_shown_under_a_label_of_its_own() {
        let info = json!({
            "by_listener": {
                "native": {"requests": 5, "errors": 3, "errors_by_operation": {"read": 1, "write": 2}, "latency_buckets": {"read": [1, 1, 1]}},
                "resp": {"requests": 7, "errors": 0, "latency_buckets": {"read": [0, 0, 0]}},
            },
            "by_namespace": [
                {"name": "default", "reads": 1, "writes": 2, "scans": 3, "errors": 4, "read_ns_buckets": [1, 0, 0]},
                {"name": "other", "reads": 9},
                {"name": "*", "reads": 8},
            ],
        });
        let mut out = Exposition::default();
        write(&info, &[0.001, 0.002], &mut out);
        let text = out.finish();
        for line in [
            "pinion_listener_requests_total{listener=\"resp\"} 7",
            "pinion_listener_errors_total{listener=\"native\",op=\"read\"} 1",
            "pinion_listener_errors_total{listener=\"native\",op=\"write\"} 2",
            "pinion_listener_request_duration_seconds_count{listener=\"native\",op=\"read\"} 3",
            "pinion_namespace_requests_total{namespace=\"default\",op=\"scan\"} 3",
            "pinion_namespace_errors_total{namespace=\"default\"} 4",
            "pinion_namespace_request_duration_seconds_bucket{namespace=\"default\",op=\"read\",le=\"0.001\"} 1",
            "pinion_namespace_requests_total{namespace=\"other\",op=\"read\"} 9",
            "pinion_namespace_requests_total{namespace=\"*\",op=\"read\"} 8",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }

    #[test]
    fn labels_are_bounded() {
        let rows: Vec<Value> = (0..1_000).map(|number| json!({"name": number.to_string()})).collect();
        let mut out = Exposition::default();
        write(&json!({ "by_namespace": rows }), &[], &mut out);
        assert_eq!(out.finish().matches("op=\"scan\"").count(), NAMESPACES_MAX);
        let mut nothing = Exposition::default();
        write(&json!({}), &[], &mut nothing);
        assert_eq!(nothing.finish(), "");
    }
}
