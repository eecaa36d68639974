//! The node's numbers under Prometheus' names.
//!
//! The node's information has counters by name, for each core and for each shard. Their names are
//! taken over; units at their ends become base units. What is a state and not a count is listed here.

use serde_json::{Map, Value};

use super::exposition::{Exposition, Kind, Label};
use super::usage;

/// Numbers of a shard that go up and down, or that are the largest seen.
const STATES: &[&str] = &[
    "failed",
    "disk_full_now",
    "log_queued_bytes",
    "tables",
    "table_bytes",
    "table_records",
    "table_tombstones",
    "largest_level_bytes",
    "quarantined_tables",
    "quarantined_bytes",
    "runs",
    "compaction_debt_bytes",
    "pending_operations",
    "memtable_bytes",
    "memtable_records",
    "index_bytes",
    "block_cache_bytes",
    "row_cache_bytes",
    "step_records_max",
    "step_bytes_max",
    "filter_keys_max",
];

/// Of the runtime's counters of long rounds.
const LONG_ROUND: &str =
    "Times that a core had not looked for what is new for so long, whatever ran meanwhile";

/// Numbers of which there is something to say.
const EXPLAINED: &[(&str, &str)] = &[
    ("table_bytes", "Bytes of the table files of a shard"),
    (
        "largest_level_bytes",
        "Bytes of a shard's largest level, or of its largest run if that is more: table_bytes divided by \
         this is an estimate of space amplification, which takes all beside it for overwritten",
    ),
    ("rounds_over_100us", LONG_ROUND),
    ("rounds_over_1ms", LONG_ROUND),
    ("rounds_over_10ms", LONG_ROUND),
    ("rounds_over_100ms", LONG_ROUND),
    ("bytes_ingested", "Bytes of keys and values that a shard has taken in since it was opened"),
];

/// Numbers of the node as a whole: the name in its information, the name of the metric, what it is.
const OF_NODE: &[(&str, &str, &str)] = &[
    ("cores", "pinion_cores", "Cores"),
    ("surplus_cores", "pinion_surplus_cores", "Cores that carry no data"),
    ("shards", "pinion_shards", "Shards"),
    ("partitions", "pinion_partitions", "Partitions"),
    ("namespaces", "pinion_namespaces", "Live namespaces"),
    ("incarnation", "pinion_start_number", "How often the node was started"),
];

/// Percentiles of the node's histograms, as it names them.
const QUANTILES: &[(&str, &str)] = &[
    ("p50", "0.5"),
    ("p90", "0.9"),
    ("p99", "0.99"),
    ("p99.9", "0.999"),
    ("p99.99", "0.9999"),
    ("max", "1"),
];

/// Waits that the node measures beside the time of operations: their name in its information, the end of
/// the metric's name, what it is.
const WAITS: &[(&str, &str, &str)] = &[
    ("queue_delay", "queue_delay_seconds", "From the receipt of a request until its core deals with it"),
    ("stall", "stall_seconds", "Turns of connections that held their core for long"),
    (
        "commit",
        "commit_duration_seconds",
        "From the start of a durable write of the log until its core has seen it done",
    ),
];

const NANOS: f64 = 1e-9;

pub(super) fn write(info: &Value, out: &mut Exposition) {
    let label = |name: &str| info[name].as_str().unwrap_or_default();
    out.family("pinion_info", Kind::Gauge, "Which build and node this is");
    out.sample("pinion_info", &[("version", label("version")), ("node", label("node_id"))], 1);
    for (name, metric, help) in OF_NODE {
        if let Some(number) = info[*name].as_u64() {
            out.family(metric, Kind::Gauge, help);
            out.sample(metric, &[], number);
        }
    }
    for (name, limit) in numbers(&info["limits"]) {
        let (base, scale) = base_unit(name);
        let metric = format!("pinion_limit_{base}");
        out.family(&metric, Kind::Gauge, "A setting of the node");
        out.sample(&metric, &[], scaled(limit, scale));
    }
    durations(info, out);
    cores(list(&info["per_core"]), out);
    shards(list(&info["per_core"]), out);
}

/// Latencies of the whole node: by class of operation, of waits, and of what it was used for.
fn durations(info: &Value, out: &mut Exposition) {
    let buckets = &info["latency_buckets"];
    let bounds = bounds_seconds(buckets);
    if !bounds.is_empty() {
        let name = "pinion_request_duration_seconds";
        out.family(name, Kind::Histogram, "From the receipt of a request until its answer is sent");
        for (class, counts) in by_operation(buckets) {
            let sum = sum_seconds(&info["latency_ns"][class]);
            out.histogram(name, &[("op", class)], &bounds, &counts, Some(sum));
        }
    }
    let buckets = &info["delay_buckets"];
    for (class, metric, help) in WAITS {
        let (bounds, counts) = (bounds_seconds(buckets), counts(&buckets[*class]));
        if !bounds.is_empty() && !counts.is_empty() {
            let metric = format!("pinion_{metric}");
            out.family(&metric, Kind::Histogram, help);
            out.histogram(&metric, &[], &bounds, &counts, Some(sum_seconds(&info[format!("{class}_ns")])));
        }
    }
    usage::write(info, &bounds, out);
}

fn cores(cores: &[Value], out: &mut Exposition) {
    let Some(first) = cores.first() else { return };
    let each = |path: &[&str]| -> Vec<(String, u64)> {
        let number = |core: &Value| path.iter().fold(core, |value, name| &value[*name]).as_u64();
        cores.iter().filter_map(|core| Some((core["core"].to_string(), number(core)?))).collect()
    };
    for (name, _) in numbers(first).filter(|(name, _)| *name != "core") {
        let known = if name == "requests" { "requests_in_flight" } else { name };
        let metric = format!("pinion_core_{known}");
        out.family(&metric, Kind::Gauge, "What a core has in hand");
        for (core, number) in each(&[name]) {
            out.sample(&metric, &[("core", &core)], number);
        }
    }
    for (section, prefix, help) in [
        ("counters", "pinion_core", "Counted by the sessions of a core since its start"),
        ("runtime", "pinion_runtime", "Counted by the runtime of a core since its start"),
        ("utilisation", "pinion_core", "Time that a core worked or had nothing to do since its start"),
    ] {
        for (name, _) in numbers(&first[section]) {
            let (base, scale) = base_unit(name);
            let metric = format!("{prefix}_{base}_total");
            out.family(&metric, Kind::Counter, explained(name).unwrap_or(help));
            for (core, number) in each(&[section, name]) {
                out.sample(&metric, &[("core", &core)], scaled(number, scale));
            }
        }
    }
    let name = "pinion_core_request_duration_seconds";
    out.family(name, Kind::Summary, "As pinion_request_duration_seconds, for each core since its start");
    for core in cores {
        let number = core["core"].to_string();
        for (class, times) in core["latency_ns"].as_object().into_iter().flatten() {
            let labels = [("core", &number[..]), ("op", &class[..])];
            summary(name, &labels, times, out);
        }
    }
    for (class, metric, help) in WAITS {
        let member = format!("{class}_ns");
        if first[&member].is_object() {
            let name = format!("pinion_core_{metric}");
            out.family(&name, Kind::Summary, help);
            for core in cores {
                summary(&name, &[("core", &core["core"].to_string())], &core[&member], out);
            }
        }
    }
}

/// A histogram of the node's as it tells it for a core: by its percentiles.
fn summary(name: &str, labels: &[Label<'_>], times: &Value, out: &mut Exposition) {
    for (percentile, quantile) in QUANTILES {
        let nanos = times[*percentile].as_u64().unwrap_or_default();
        out.sample(name, &[labels, &[("quantile", quantile)]].concat(), scaled(nanos, NANOS));
    }
    out.sample(&format!("{name}_sum"), labels, sum_seconds(times));
    out.sample(&format!("{name}_count"), labels, times["count"].as_u64().unwrap_or_default());
}

fn shards(cores: &[Value], out: &mut Exposition) {
    let all: Vec<(String, &Value)> = cores
        .iter()
        .flat_map(|core| list(&core["shards"]).iter().map(|shard| (core["core"].to_string(), shard)))
        .collect();
    let Some((_, first)) = all.first() else { return };
    for (name, _) in numbers(first).filter(|(name, _)| *name != "shard") {
        let (base, scale) = base_unit(name);
        let state = STATES.contains(&name);
        let metric = format!("pinion_storage_{base}{}", if state { "" } else { "_total" });
        let (kind, help) = if state {
            (Kind::Gauge, "How a shard is")
        } else {
            (Kind::Counter, "Counted by a shard since it was opened")
        };
        out.family(&metric, kind, explained(name).unwrap_or(help));
        for (core, shard) in &all {
            let labels = [("core", &core[..]), ("shard", &shard["shard"].to_string())];
            out.sample(&metric, &labels, scaled(shard[name].as_u64().unwrap_or_default(), scale));
        }
    }
}

/// What there is to say of a number.
fn explained(name: &str) -> Option<&'static str> {
    EXPLAINED.iter().find(|(known, _)| *known == name).map(|(_, help)| *help)
}

/// A name in base units, and what its numbers are multiplied by.
fn base_unit(name: &str) -> (String, f64) {
    for (unit, scale) in [("_ns", NANOS), ("_us", 1e-6), ("_ms", 1e-3)] {
        if let Some(base) = name.strip_suffix(unit) {
            return (format!("{base}_seconds"), scale);
        }
        if let Some(base) = name.strip_suffix("_max").and_then(|name| name.strip_suffix(unit)) {
            return (format!("{base}_seconds_max"), scale);
        }
    }
    (name.to_owned(), 1.0)
}

/// Counts stay whole numbers: they are shown without an exponent or a fraction.
fn scaled(number: u64, scale: f64) -> f64 {
    // Dividing by a power of ten rounds once, so that 0.0015 is not 0.0015000000000000002.
    if scale == 1.0 { number as f64 } else { number as f64 / (1.0 / scale).round() }
}

fn sum_seconds(times: &Value) -> f64 {
    let part = |name: &str| times[name].as_u64().unwrap_or_default() as f64;
    part("mean") * part("count") * NANOS
}

pub(super) fn numbers(value: &Value) -> impl Iterator<Item = (&str, u64)> {
    let members = value.as_object().map(Map::iter);
    members.into_iter().flatten().filter_map(|(name, value)| Some((&name[..], value.as_u64()?)))
}

/// Bounds of buckets, in seconds.
fn bounds_seconds(buckets: &Value) -> Vec<f64> {
    counts(&buckets["bounds_ns"]).into_iter().map(|bound| scaled(bound, NANOS)).collect()
}

/// Buckets by class of operation.
pub(super) fn by_operation(buckets: &Value) -> impl Iterator<Item = (&str, Vec<u64>)> {
    let classes = buckets.as_object().into_iter().flatten().filter(|(class, _)| *class != "bounds_ns");
    classes.map(|(class, found)| (&class[..], counts(found)))
}

pub(super) fn counts(value: &Value) -> Vec<u64> {
    list(value).iter().filter_map(Value::as_u64).collect()
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_end_in_base_units() {
        for (name, base, scale) in [
            ("flush_us", "flush_seconds", 1e-6),
            ("queue_delay_ns", "queue_delay_seconds", 1e-9),
            ("send_stall_ms_max", "send_stall_seconds_max", 1e-3),
            ("received_bytes", "received_bytes", 1.0),
        ] {
            assert_eq!(base_unit(name), (base.to_owned(), scale));
        }
        assert_eq!(scaled(1_500_000, NANOS).to_string(), "0.0015");
        assert_eq!(scaled(12_345_678_901, 1.0).to_string(), "12345678901");
    }

    #[test]
    fn every_number_of_the_node_is_shown() {
        let core = |number: u64| {
            json!({
                "core": number, "requests": 2,
                "counters": {"frames": 3}, "runtime": {"busy_ns": 2_500_000_000_u64},
                "latency_ns": {"read": {"count": 2, "mean": 1_000_000, "p50": 900}},
                "queue_delay_ns": {"count": 3, "mean": 2_000, "p99": 4_000},
                "utilisation": {"busy_ns": 1_500_000_000_u64, "idle_ns": 500_000_000},
                "shards": [{"shard": number, "writes": 7, "flush_us": 5, "runs": 1, "largest_level_bytes": 9}],
            })
        };
        let info = json!({
            "version": "1", "node_id": "ab", "cores": 2, "limits": {"send_stall_ms_max": 1_500},
            "latency_ns": {"read": {"count": 4, "mean": 1_000_000}},
            "latency_buckets": {"bounds_ns": [1_000, 2_000], "read": [1, 2, 1]},
            "delay_buckets": {"bounds_ns": [1_000, 2_000], "queue_delay": [6, 0, 0]},
            "queue_delay_ns": {"count": 6, "mean": 2_000},
            "per_core": [core(0), core(1)],
        });
        let mut out = Exposition::default();
        write(&info, &mut out);
        let text = out.finish();
        for line in [
            "pinion_info{version=\"1\",node=\"ab\"} 1",
            "pinion_cores 2",
            "pinion_limit_send_stall_seconds_max 1.5",
            "pinion_request_duration_seconds_bucket{op=\"read\",le=\"0.000002\"} 3",
            "pinion_request_duration_seconds_sum{op=\"read\"} 0.004",
            "pinion_request_duration_seconds_count{op=\"read\"} 4",
            "pinion_core_requests_in_flight{core=\"1\"} 2",
            "pinion_core_frames_total{core=\"0\"} 3",
            "pinion_runtime_busy_seconds_total{core=\"1\"} 2.5",
            "pinion_core_request_duration_seconds{core=\"0\",op=\"read\",quantile=\"0.5\"} 0.0000009",
            "pinion_core_request_duration_seconds_count{core=\"1\",op=\"read\"} 2",
            "pinion_storage_writes_total{core=\"1\",shard=\"1\"} 7",
            "pinion_storage_flush_seconds_total{core=\"0\",shard=\"0\"} 0.000005",
            "# TYPE pinion_storage_runs gauge",
            "# TYPE pinion_storage_largest_level_bytes gauge",
            "pinion_storage_largest_level_bytes{core=\"1\",shard=\"1\"} 9",
            "pinion_queue_delay_seconds_count 6",
            "pinion_core_queue_delay_seconds{core=\"1\",quantile=\"0.99\"} 0.000004",
            "pinion_core_busy_seconds_total{core=\"0\"} 1.5",
            "pinion_core_idle_seconds_total{core=\"0\"} 0.5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        let mut nothing = Exposition::default();
        write(&json!({}), &mut nothing);
        assert!(nothing.finish().starts_with("# HELP pinion_info"));
    }
}
