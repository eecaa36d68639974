//! What the gateway counts about itself.

use std::collections::BTreeMap;

use super::exposition::{Exposition, Kind};
use crate::traffic::{BOUNDS_US, Numbers, Traffic};

pub(super) fn write(traffic: &Traffic, out: &mut Exposition) {
    let [open, accepted, refused, gave_way] = traffic.connections();
    for (name, kind, help, number) in [
        ("pinion_gateway_connections", Kind::Gauge, "Connections over HTTP that are open", open),
        (
            "pinion_gateway_connections_accepted_total",
            Kind::Counter,
            "Connections over HTTP accepted",
            accepted,
        ),
        (
            "pinion_gateway_connections_refused_total",
            Kind::Counter,
            "Connections refused while all others had requests under way",
            refused,
        ),
        (
            "pinion_gateway_connections_gave_way_total",
            Kind::Counter,
            "Connections without a request that were closed for others",
            gave_way,
        ),
    ] {
        out.family(name, kind, help);
        out.sample(name, &[], number);
    }
    let rows = traffic.rows();
    let name = "pinion_gateway_requests_total";
    out.family(name, Kind::Counter, "Requests over HTTP by what they asked and got");
    let mut merged: BTreeMap<(&str, &str), Numbers> = BTreeMap::new();
    for (line, numbers) in &rows {
        let status = line.status.to_string();
        out.sample(
            name,
            &[("route", line.route), ("method", line.method), ("status", &status)],
            numbers.requests,
        );
        merged.entry((line.route, line.method)).or_default().add(numbers);
    }
    let name = "pinion_gateway_request_duration_seconds";
    out.family(name, Kind::Histogram, "From a request's head until its answer is ready");
    let bounds = BOUNDS_US.map(|bound| bound as f64 / 1e6);
    for ((route, method), numbers) in merged {
        let labels = [("route", route), ("method", method)];
        out.histogram(name, &labels, &bounds, &numbers.buckets, Some(numbers.nanos as f64 / 1e9));
    }
}
