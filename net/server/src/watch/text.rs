//! Slow operations, hot keys and clients of all cores as JSON text.

use std::cmp::Reverse;
use std::time::Duration;

use super::clients::{ClientReport, ClientsReport};
use super::hot::{HotReport, SAMPLED_ONE_IN};
use super::key::KeyFront;
use super::slow::{SlowOperation, Stages};
use super::{SlowReport, newest_first};
use crate::connection::Speaks;
use crate::core::Core;
use crate::json::JsonWriter;
use crate::message::ServerEnv;

/// Hot keys that are told of all cores together.
const HOT_MAX: usize = 128;

/// Section 1 of server info.
pub(crate) fn slow<E: ServerEnv>(core: &Core<E>, reports: &[SlowReport]) -> String {
    let kept = newest_first(reports);
    let mut json = JsonWriter::default();
    json.begin_object(None);
    json.number("threshold_us", core.config.slow_us);
    json.number("kept", kept.len() as u64);
    json.number("seen", reports.iter().map(|report| report.seen).sum::<u64>());
    json.begin_array("slow");
    for (core_index, operation) in kept {
        put_operation(&mut json, core_index, operation);
    }
    json.end_array();
    json.end_object();
    json.finish()
}

fn put_operation(json: &mut JsonWriter, index: u16, slow: &SlowOperation) {
    json.begin_object(None);
    json.number("time_ms", slow.ended_ms);
    json.number("core", index);
    match slow.shard {
        Some(shard) => json.number("shard", shard),
        None => json.null("shard"),
    }
    json.string("operation", slow.operation);
    json.string("protocol", if slow.is_resp { "resp" } else { "native" });
    put_text(json, "namespace", slow.namespace.clone());
    put_key(json, &slow.key);
    json.number("connection", slow.connection);
    json.string("client", &slow.client);
    json.string("peer", &slow.peer);
    let Stages { total_us, queued_us, forwarded_us, storage_us } = slow.stages;
    json.number("total_us", total_us);
    json.begin_object(Some("stages_us"));
    json.number("queued", queued_us);
    json.number("forwarded", forwarded_us);
    json.number("storage", storage_us);
    json.end_object();
    json.string("outcome", slow.outcome);
    put_text(json, "trace", slow.trace.map(|trace| trace.to_string()));
    json.end_object();
}

/// Section 2 of server info.
pub(crate) fn hot<E: ServerEnv>(core: &Core<E>, reports: &[HotReport]) -> String {
    let samples: u64 = reports.iter().map(|report| report.samples).sum();
    let mut keys: Vec<_> =
        reports.iter().flat_map(|report| report.keys.iter().map(|key| (report.core, key))).collect();
    keys.sort_by_key(|(core, key)| (Reverse(key.samples), *core));
    keys.truncate(HOT_MAX);
    let mut json = JsonWriter::default();
    json.begin_object(None);
    json.number("sampled_one_in", SAMPLED_ONE_IN);
    json.number("since_ms", reports.iter().map(|report| report.since_ms).min().unwrap_or(0));
    json.begin_array("hot");
    for (index, hot) in keys {
        json.begin_object(None);
        json.string("namespace", &core.namespace_name(hot.namespace));
        put_key(&mut json, &hot.key);
        json.number("core", index);
        json.number("accesses", u64::from(hot.samples) * u64::from(SAMPLED_ONE_IN));
        json.fraction("share", f64::from(hot.samples) / samples.max(1) as f64);
        json.end_object();
    }
    json.end_array();
    json.end_object();
    json.finish()
}

/// Section 3 of server info.
pub(crate) fn clients<E: ServerEnv>(core: &Core<E>, reports: &[ClientsReport]) -> String {
    let mut json = JsonWriter::default();
    json.begin_object(None);
    json.number("total", reports.iter().map(|report| u64::from(report.total)).sum::<u64>());
    json.number("shown", reports.iter().map(|report| report.shown.len() as u64).sum::<u64>());
    json.begin_array("clients");
    for report in reports {
        for client in &report.shown {
            put_client(&mut json, core, report.core, client);
        }
    }
    json.end_array();
    json.end_object();
    json.finish()
}

fn put_client<E: ServerEnv>(json: &mut JsonWriter, core: &Core<E>, index: u16, client: &ClientReport) {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    json.begin_object(None);
    json.number("id", client.id);
    json.number("core", index);
    json.string("peer", &client.peer);
    json.string("name", &client.name);
    json.string("protocol", client.speaks.name());
    json.number("age_ms", millis(client.age));
    json.number("idle_ms", millis(client.idle));
    json.number("requests", client.requests);
    json.number("outstanding", client.outstanding);
    json.number("out_bytes", client.out_bytes as u64);
    // A native connection may use any; RESP has the one of its listener.
    let is_resp = matches!(client.speaks, Speaks::Resp2 | Speaks::Resp3);
    put_text(json, "namespace", is_resp.then(|| core.config.resp.namespace.clone()));
    json.end_object();
}

fn put_key(json: &mut JsonWriter, key: &KeyFront) {
    json.string("key", &key.text());
    json.number("key_bytes", key.bytes() as u64);
}

fn put_text(json: &mut JsonWriter, name: &str, text: Option<String>) {
    match text {
        Some(text) => json.string(name, &text),
        None => json.null(name),
    }
}
