//! SERVER_INFO: what the cores of a node have counted and seen, as JSON text.
//!
//! The core that is asked sends every core a message, adds up what comes back, and writes the
//! text. Names and structure are for people and diagnosis; they may grow, and latencies are in
//! nanoseconds.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hdrhistogram::Histogram;
use pinion_engine::{QuarantinedTable, ShardStats};
use pinion_protocol::resp::reply;
use pinion_protocol::{ErrorCode, Response, Section, VERSION_HIGHEST, VERSION_LOWEST};

use crate::buckets;
use crate::core::{Core, Ticket};
use crate::counters::{OperationClass, empty_histogram};
use crate::forward::Waiting;
use crate::json::JsonWriter;
use crate::message::{About, CoreReport, Message, Report, ServerEnv, Token};
use crate::refusal::Refusal;
use crate::resp::{self, Sections, SlowLogAsked};
use crate::watch::{self, ClientsReport, HotReport, Listener, SlowReport, UsageReport};

/// Percentiles that are reported, with their names.
const PERCENTILES: [(&str, f64); 5] =
    [("p50", 50.0), ("p90", 90.0), ("p99", 99.0), ("p99.9", 99.9), ("p99.99", 99.99)];

/// A histogram of a core's.
type OfCore = fn(&CoreReport) -> &Histogram<u64>;

/// What is timed beside operations: how long requests waited to be dealt with, turns of connections that held
/// their core for long, and how long commits of the log took.
const DELAYS: [(&str, OfCore); 3] = [
    ("queue_delay", |report| &report.latencies.queue_delay),
    ("stall", |report| &report.latencies.stall),
    ("commit", |report| &report.commit),
];

/// What the reports of all cores become.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    /// A section of SERVER_INFO.
    Json(Section),
    /// Sections of RESP's INFO.
    Info(Sections),
    /// RESP's SLOWLOG.
    SlowLog(SlowLogAsked),
    /// RESP's CLIENT LIST.
    ClientList,
}

impl Wanted {
    /// What the cores are asked.
    const fn about(self) -> About {
        match self {
            Self::Json(Section::All) | Self::Info(_) => About::Counts,
            Self::SlowLog(SlowLogAsked::Reset) => About::ForgottenSlow,
            Self::Json(Section::SlowOperations) | Self::SlowLog(_) => About::SlowOperations,
            Self::Json(Section::HotKeys) => About::HotKeys,
            Self::Json(Section::Clients) | Self::ClientList => About::Clients,
        }
    }
}

/// The reports of all cores, by core; only the kind that was asked for.
#[derive(Default)]
struct Gathered {
    counts: Vec<CoreReport>,
    slow: Vec<SlowReport>,
    hot: Vec<HotReport>,
    clients: Vec<ClientsReport>,
}

/// A SERVER_INFO or the like whose reports are coming in.
pub(crate) struct Reports {
    ticket: Ticket,
    wanted: Wanted,
    gathered: RefCell<Gathered>,
    missing: Cell<u16>,
}

/// Answers SERVER_INFO; `section` is a [`Section`]'s number.
pub(crate) fn gather<E: ServerEnv>(core: &Rc<Core<E>>, ticket: Ticket, section: u8) {
    let Some(section) = Section::from_u8(section) else {
        let message = "this server has no such section of its information";
        return core.refuse(&ticket, &Refusal::new(ErrorCode::Unsupported, message.into()));
    };
    gather_for(core, ticket, Wanted::Json(section));
}

/// Asks all cores for their reports, and answers when they are there.
pub(crate) fn gather_for<E: ServerEnv>(core: &Rc<Core<E>>, ticket: Ticket, wanted: Wanted) {
    let cores = core.layout.cores;
    if core.awaited.count() + u32::from(cores) > core.limits().core_forwards_max.max(u32::from(cores)) {
        return core.refuse_overloaded(&ticket, "too many requests are being forwarded");
    }
    let about = wanted.about();
    let reports =
        Rc::new(Reports { ticket, wanted, gathered: RefCell::default(), missing: Cell::new(cores) });
    for other in (0..cores).filter(|other| *other != core.index) {
        let token = core.awaited.insert(Waiting::Report(Rc::clone(&reports)), None);
        core.post(other, Message::ReportWanted { core: core.index, token, about });
    }
    reports.take(core, core.report(about));
}

impl Reports {
    fn take<E: ServerEnv>(&self, core: &Core<E>, report: Report) {
        let mut gathered = self.gathered.borrow_mut();
        match report {
            Report::Counts(report) => gathered.counts.push(*report),
            Report::Slow(report) => gathered.slow.push(report),
            Report::Hot(report) => gathered.hot.push(report),
            Report::Clients(report) => gathered.clients.push(report),
        }
        self.missing.set(self.missing.get() - 1);
        if self.missing.get() == 0 {
            gathered.counts.sort_by_key(|report| report.core);
            gathered.clients.sort_by_key(|report| report.core);
            self.answer(core, &gathered);
        }
    }

    fn answer<E: ServerEnv>(&self, core: &Core<E>, gathered: &Gathered) {
        let Gathered { counts, slow, hot, clients } = gathered;
        let (ticket, version) = (&self.ticket, self.ticket.resp_version());
        let json = |text: String| core.answer_with(ticket, &Response::ServerInfo(&text));
        let lines = |text: String| core.answer(ticket, |out| reply::verbatim(out, &text, version));
        match self.wanted {
            Wanted::Json(Section::All) => json(text(core, counts)),
            Wanted::Json(Section::SlowOperations) => json(watch::slow_text(core, slow)),
            Wanted::Json(Section::HotKeys) => json(watch::hot_text(core, hot)),
            Wanted::Json(Section::Clients) => json(watch::clients_text(core, clients)),
            Wanted::Info(sections) => lines(resp::info_text(core, counts, sections)),
            Wanted::ClientList => lines(resp::client_lines(clients)),
            Wanted::SlowLog(asked) => {
                core.answer(ticket, |out| resp::put_slow_log(out, asked, slow, core.layout.cores));
            }
        }
    }
}

impl<E: ServerEnv> Core<E> {
    /// Another core's report has come.
    pub(crate) fn on_report(&self, token: Token, report: Report) {
        if let Some(Waiting::Report(reports)) = self.awaited.take(token) {
            reports.take(self, report);
        }
    }

    /// What this core has to tell.
    pub(crate) fn report(&self, about: About) -> Report {
        match about {
            About::Counts => Report::Counts(Box::new(self.counts())),
            About::SlowOperations => Report::Slow(self.slow_report()),
            About::ForgottenSlow => {
                self.forget_slow();
                Report::Slow(self.slow_report())
            }
            About::HotKeys => Report::Hot(self.hot_report()),
            About::Clients => Report::Clients(self.clients_report()),
        }
    }

    /// What this core has counted.
    fn counts(&self) -> CoreReport {
        let (mut shards, mut quarantine, mut commits) = (Vec::new(), Vec::new(), Vec::new());
        for (number, shard) in self.shards() {
            let stats = shard.stats();
            shards.push((number, numbers(&stats)));
            commits.push(stats.commit_times);
            quarantine.extend(stats.quarantine.into_iter().map(|table| (number, table)));
        }
        let (busy_ns, idle_ns) = self.busy_and_idle_ns();
        CoreReport {
            core: self.index,
            connections: u64::from(self.connections.open()),
            requests: u64::from(self.requests()),
            answer_bytes: self.pressure.answer_bytes(),
            gathered_bytes: self.pressure.gathered_bytes(),
            counters: self.counters.values(),
            runtime: self.env.counters(),
            latencies: self.latencies.copy(),
            commit: buckets::histogram(&commits),
            usage: self.watch.usage.report(),
            busy_ns,
            idle_ns,
            shards,
            quarantine,
        }
    }
}

/// A shard's numbers by name, in a fixed order, but for its levels.
fn numbers(stats: &ShardStats) -> Vec<(&'static str, u64)> {
    let mut numbers = stats.counters.entries();
    let log = &stats.log;
    numbers.extend([
        ("failed", u64::from(stats.failed.is_some())),
        ("disk_full_now", u64::from(stats.disk_full)),
        ("log_commits", log.commits),
        ("log_records", log.records),
        ("log_logged_bytes", log.logged_bytes),
        ("log_written_bytes", log.written_bytes),
        ("log_syncs", log.syncs),
        ("log_segments_made", log.segments_made),
        ("log_segments_recycled", log.segments_recycled),
        ("log_segments_removed", log.segments_removed),
        ("log_segment_waits", log.segment_waits),
        ("log_space_waits", log.space_waits),
        ("log_queued_bytes", log.queued_bytes),
        ("tables", stats.levels.iter().map(|level| level.tables).sum()),
        ("table_bytes", stats.levels.iter().map(|level| level.bytes).sum()),
        ("table_records", stats.levels.iter().map(|level| level.records).sum()),
        ("table_tombstones", stats.levels.iter().map(|level| level.tombstones).sum()),
        ("largest_level_bytes", stats.largest_level_bytes),
        ("quarantined_tables", stats.quarantine.len() as u64),
        ("quarantined_bytes", stats.quarantine.iter().map(|table| table.file_bytes).sum()),
        ("runs", stats.runs),
        ("compaction_debt_bytes", stats.compaction_debt_bytes),
        ("pending_operations", stats.pending_operations),
        ("memtable_bytes", stats.memtable_bytes),
        ("memtable_records", stats.memtable_records),
        ("index_bytes", stats.index_bytes),
        ("block_cache_bytes", stats.block_cache_bytes),
        ("row_cache_bytes", stats.row_cache_bytes),
    ]);
    numbers
}

fn text<E: ServerEnv>(core: &Core<E>, reports: &[CoreReport]) -> String {
    let mut json = JsonWriter::default();
    json.begin_object(None);
    json.string("version", env!("CARGO_PKG_VERSION"));
    json.string("node_id", &hex(&core.facts.node_id));
    json.number("incarnation", core.facts.incarnation);
    json.number("protocol_lowest", VERSION_LOWEST);
    json.number("protocol_highest", VERSION_HIGHEST);
    json.number("cores", core.layout.cores);
    json.number("surplus_cores", core.layout.surplus_cores());
    json.number("shards", core.layout.shards);
    json.number("partitions", core.layout.partitions);
    json.number("namespaces", core.namespaces.borrow().live().len() as u64);
    json.number("connections", reports.iter().map(|report| report.connections).sum::<u64>());
    json.number("requests", reports.iter().map(|report| report.requests).sum::<u64>());
    json.number("answer_bytes", reports.iter().map(|report| report.answer_bytes).sum::<u64>());
    json.number("gathered_bytes", reports.iter().map(|report| report.gathered_bytes).sum::<u64>());
    put_limits(&mut json, core);
    put_sums(&mut json, "counters", reports.iter().map(|report| &report.counters));
    put_sums(&mut json, "runtime", reports.iter().map(|report| &report.runtime));
    put_sums(
        &mut json,
        "storage",
        reports.iter().flat_map(|report| &report.shards).map(|(_, numbers)| numbers),
    );
    json.begin_array("quarantine");
    for (shard, table) in reports.iter().flat_map(|report| &report.quarantine) {
        put_quarantined(&mut json, *shard, table);
    }
    json.end_array();
    let sums: Vec<_> = OperationClass::ALL
        .into_iter()
        .map(|class| (class.name(), sum_of(reports, |report| &report.latencies.classes[class as usize])))
        .collect();
    json.begin_object(Some("latency_ns"));
    sums.iter().for_each(|(name, sum)| put_latency(&mut json, name, sum));
    json.end_object();
    // The same histograms for programs: how many requests took up to each bound and longer than the one before.
    json.begin_object(Some("latency_buckets"));
    json.numbers("bounds_ns", &buckets::BOUNDS_NS);
    sums.iter().for_each(|(name, sum)| json.numbers(name, &buckets::counts(sum)));
    json.end_object();
    let delays = DELAYS.map(|(name, of)| (name, sum_of(reports, of)));
    put_delays(&mut json, delays.each_ref().map(|(name, sum)| (*name, sum)));
    json.begin_object(Some("delay_buckets"));
    json.numbers("bounds_ns", &buckets::BOUNDS_NS);
    delays.iter().for_each(|(name, sum)| json.numbers(name, &buckets::counts(sum)));
    json.end_object();
    let times = |of: fn(&CoreReport) -> u64| reports.iter().map(of).sum();
    put_utilisation(&mut json, times(|report| report.busy_ns), times(|report| report.idle_ns));
    put_usage(&mut json, core, &UsageReport::sum(reports.iter().map(|report| &report.usage)));
    json.begin_array("per_core");
    for report in reports {
        put_core(&mut json, report);
    }
    json.end_array();
    json.end_object();
    json.finish()
}

/// A damaged table, and where its damage is.
fn put_quarantined(json: &mut JsonWriter, shard: u16, table: &QuarantinedTable) {
    json.begin_object(None);
    json.number("shard", shard);
    json.number("level", table.level as u64);
    json.number("file_bytes", table.file_bytes);
    json.string("file", &table.damage.file.display().to_string());
    json.number("offset", table.damage.offset);
    json.string("what", table.damage.what);
    json.string("expected", &table.damage.expected);
    json.string("found", &table.damage.found);
    json.end_object();
}

fn put_core(json: &mut JsonWriter, report: &CoreReport) {
    json.begin_object(None);
    json.number("core", report.core);
    json.number("connections", report.connections);
    json.number("requests", report.requests);
    json.number("answer_bytes", report.answer_bytes);
    json.number("gathered_bytes", report.gathered_bytes);
    put_sums(json, "counters", std::iter::once(&report.counters));
    put_sums(json, "runtime", std::iter::once(&report.runtime));
    json.begin_object(Some("latency_ns"));
    for (class, histogram) in OperationClass::ALL.into_iter().zip(&report.latencies.classes) {
        put_latency(json, class.name(), histogram);
    }
    json.end_object();
    put_delays(json, DELAYS.map(|(name, of)| (name, of(report))));
    put_utilisation(json, report.busy_ns, report.idle_ns);
    json.begin_array("shards");
    for (number, numbers) in &report.shards {
        json.begin_object(None);
        json.number("shard", *number);
        for (name, value) in numbers {
            json.number(name, *value);
        }
        json.end_object();
    }
    json.end_array();
    json.end_object();
}

/// A histogram of all cores together.
fn sum_of(reports: &[CoreReport], of: impl Fn(&CoreReport) -> &Histogram<u64>) -> Histogram<u64> {
    let mut sum = empty_histogram();
    for report in reports {
        // All have the same bounds, so this cannot fail; a report too few is no tragedy.
        let _ = sum.add(of(report));
    }
    sum
}

fn put_delays(json: &mut JsonWriter, delays: [(&str, &Histogram<u64>); DELAYS.len()]) {
    for (name, histogram) in delays {
        put_latency(json, &format!("{name}_ns"), histogram);
    }
}

fn put_utilisation(json: &mut JsonWriter, busy_ns: u64, idle_ns: u64) {
    json.begin_object(Some("utilisation"));
    json.number("busy_ns", busy_ns);
    json.number("idle_ns", idle_ns);
    json.end_object();
}

/// What each listener and each namespace was used for. The bounds of buckets are those of `latency_buckets`.
fn put_usage<E: ServerEnv>(json: &mut JsonWriter, core: &Core<E>, usage: &UsageReport) {
    json.begin_object(Some("by_listener"));
    for (listener, counts) in Listener::ALL.into_iter().zip(&usage.listeners) {
        json.begin_object(Some(listener.name()));
        json.number("requests", counts.requests());
        json.number("errors", counts.errors.iter().sum::<u64>());
        json.begin_object(Some("errors_by_operation"));
        for (class, errors) in OperationClass::ALL.into_iter().zip(counts.errors) {
            json.number(class.name(), errors);
        }
        json.end_object();
        json.begin_object(Some("latency_buckets"));
        for (class, times) in OperationClass::ALL.into_iter().zip(&counts.times) {
            json.numbers(class.name(), times.values());
        }
        json.end_object();
        json.end_object();
    }
    json.end_object();
    json.begin_array("by_namespace");
    for counts in &usage.namespaces {
        json.begin_object(None);
        match counts.id {
            Some(id) => json.string("name", &core.namespace_name(id)),
            // No namespace can be called so.
            None => json.string("name", "*"),
        }
        json.number("reads", counts.reads.sum());
        json.number("writes", counts.writes.sum());
        json.number("scans", counts.scans);
        json.number("errors", counts.errors);
        json.numbers("read_ns_buckets", counts.reads.values());
        json.numbers("write_ns_buckets", counts.writes.values());
        json.end_object();
    }
    json.end_array();
}

fn put_limits<E: ServerEnv>(json: &mut JsonWriter, core: &Core<E>) {
    let (limits, options) = (core.limits(), &core.options);
    json.begin_object(Some("limits"));
    json.number("connections_max", limits.connections_max);
    json.number("connection_requests_max", limits.connection_requests_max);
    json.number("connection_out_bytes_max", limits.connection_out_bytes_max);
    json.number("core_out_bytes_max", limits.core_out_bytes_max);
    json.number("send_stall_ms_max", limits.send_stall_ms_max);
    json.number("frame_bytes_max", limits.frame_bytes_max);
    json.number("core_gather_bytes_max", limits.core_gather_bytes_max);
    json.number("core_requests_max", limits.core_requests_max);
    json.number("core_reads_max", limits.core_reads_max);
    json.number("core_forwards_max", limits.core_forwards_max);
    json.number("value_bytes_max", options.value_bytes_max);
    json.number("batch_ops_max", options.batch_ops_max);
    json.number("batch_bytes_max", options.batch_bytes_max);
    json.number("memtable_bytes", options.memtable_bytes);
    json.number("block_cache_bytes", options.block_cache_bytes);
    json.number("row_cache_bytes", options.row_cache_bytes);
    json.number("disk_reserve_bytes", options.disk_reserve_bytes);
    json.end_object();
}

/// Adds up lists of equal names.
fn put_sums<'a>(
    json: &mut JsonWriter,
    name: &str,
    lists: impl Iterator<Item = &'a Vec<(&'static str, u64)>> + Clone,
) {
    json.begin_object(Some(name));
    for (index, (name, _)) in lists.clone().next().into_iter().flatten().enumerate() {
        let values = lists.clone().filter_map(|list| list.get(index)).map(|(_, value)| *value);
        json.number(name, values.fold(0, u64::saturating_add));
    }
    json.end_object();
}

fn put_latency(json: &mut JsonWriter, name: &str, histogram: &Histogram<u64>) {
    json.begin_object(Some(name));
    json.number("count", histogram.len());
    json.number("mean", histogram.mean() as u64);
    for (name, percentile) in PERCENTILES {
        json.number(name, histogram.value_at_percentile(percentile));
    }
    json.number("max", histogram.max());
    json.end_object();
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_equal_names_are_added_up() {
        let lists = [vec![("a", 1), ("b", u64::MAX)], vec![("a", 2), ("b", 1)]];
        let mut json = JsonWriter::default();
        json.begin_object(None);
        put_sums(&mut json, "sum", lists.iter());
        put_sums(&mut json, "none", lists[..0].iter());
        json.end_object();
        assert_eq!(json.finish(), format!("{{\"sum\":{{\"a\":3,\"b\":{}}},\"none\":{{}}}}", u64::MAX));
    }

    #[test]
    fn a_damaged_table_is_told_with_file_and_offset() {
        let damage = pinion_engine::Corruption {
            file: "shard-3/table/07.table".into(),
            offset: 8192,
            what: "checksum of a block",
            expected: "0x1".into(),
            found: "0x2".into(),
        };
        let table = QuarantinedTable { level: 6, file_bytes: 4096, damage: damage.into() };
        let mut json = JsonWriter::default();
        put_quarantined(&mut json, 3, &table);
        let text = json.finish();
        for part in ["\"shard\":3,\"level\":6", "\"file\":\"shard-3/table/07.table\",\"offset\":8192"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn percentiles_of_an_empty_histogram_are_zero() {
        let mut json = JsonWriter::default();
        json.begin_object(None);
        put_latency(&mut json, "read", &empty_histogram());
        json.end_object();
        assert!(json.finish().contains("\"count\":0,\"mean\":0,\"p50\":0"));
    }
}
