//! INFO: what the cores have counted, in the names of Redis that its tools and clients read.
//!
//! Counted as SERVER_INFO is, by a report of every core. Numbers of keys are estimates: records of
//! tables less tombstones, and those of memtables; overwritten and expired ones count too, and so does
//! every namespace. DBSIZE counts.

use std::fmt::Write;
use std::rc::Rc;

use pinion_protocol::resp::Command;

use crate::core::{Core, Ticket};
use crate::info;
use crate::message::{CoreReport, ServerEnv};
use crate::resp::connection::REDIS_VERSION;

/// The sections that there are, in their order.
const SECTIONS: [&str; 8] =
    ["server", "clients", "memory", "persistence", "stats", "replication", "cluster", "keyspace"];

/// Which sections are wanted: a bit of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sections(u8);

impl Sections {
    const ALL: Self = Self(u8::MAX);

    /// Those that INFO names; all if it names none.
    fn of(command: &Command<'_>) -> Self {
        if command.len() == 1 {
            return Self::ALL;
        }
        let mut wanted = 0;
        for name in command.args_from(1) {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            if ["all", "default", "everything"].into_iter().any(is) {
                return Self::ALL;
            }
            for (bit, section) in SECTIONS.iter().enumerate() {
                wanted |= u8::from(is(section)) << bit;
            }
        }
        Self(wanted)
    }

    fn has(self, section: &str) -> bool {
        SECTIONS.iter().position(|known| *known == section).is_some_and(|bit| self.0 >> bit & 1 == 1)
    }
}

/// Answers INFO when all cores have reported.
pub(super) fn gather<E: ServerEnv>(core: &Rc<Core<E>>, ticket: Ticket, command: &Command<'_>) {
    info::gather_for(core, ticket, info::Wanted::Info(Sections::of(command)));
}

/// What INFO answers.
pub(crate) fn text<E: ServerEnv>(core: &Core<E>, reports: &[CoreReport], wanted: Sections) -> String {
    let sums = Sums(reports);
    let mut text = String::new();
    let mut section = |name: &str, fields: &[(&str, String)]| {
        if !wanted.has(&name.to_ascii_lowercase()) {
            return;
        }
        let gap = if text.is_empty() { "" } else { "\r\n" };
        let written = write!(text, "{gap}# {name}\r\n")
            .and_then(|()| fields.iter().try_for_each(|(name, value)| write!(text, "{name}:{value}\r\n")));
        written.expect("writing to a string never fails");
    };
    let number = |value: u64| value.to_string();
    let word = |value: &str| value.to_owned();
    let uptime_s = core.env.now().since(core.resp.started).as_secs();
    section(
        "Server",
        &[
            ("redis_version", word(REDIS_VERSION)),
            ("pinion_version", word(env!("CARGO_PKG_VERSION"))),
            ("redis_mode", word("standalone")),
            ("os", word("Linux")),
            ("arch_bits", word("64")),
            ("run_id", info::hex(&core.facts.node_id)),
            ("server_time_usec", number(core.env.wall_ms() * 1_000)),
            ("uptime_in_seconds", number(uptime_s)),
            ("uptime_in_days", number(uptime_s / 86_400)),
            ("pinion_cores", number(u64::from(core.layout.cores))),
            ("pinion_shards", number(u64::from(core.layout.shards))),
        ],
    );
    let clients: u64 = reports.iter().map(|report| report.connections).sum();
    section(
        "Clients",
        &[
            ("connected_clients", number(clients)),
            ("maxclients", number(u64::from(core.limits().connections_max))),
            ("blocked_clients", number(0)),
            ("tracking_clients", number(0)),
        ],
    );
    let caches = ["memtable_bytes", "index_bytes", "block_cache_bytes", "row_cache_bytes"];
    let waiting: u64 = reports.iter().map(|report| report.answer_bytes + report.gathered_bytes).sum();
    let used = caches.iter().map(|name| sums.storage(name)).sum::<u64>() + waiting;
    section(
        "Memory",
        &[
            ("used_memory", number(used)),
            ("used_memory_dataset", number(sums.storage("memtable_bytes"))),
            ("maxmemory", number(0)),
            ("maxmemory_policy", word("noeviction")),
            ("mem_clients_normal", number(waiting)),
        ],
    );
    let failed = sums.storage("failed") > 0;
    section(
        "Persistence",
        &[
            ("loading", number(0)),
            ("rdb_bgsave_in_progress", number(0)),
            ("rdb_last_bgsave_status", word("ok")),
            ("aof_enabled", number(1)),
            ("aof_rewrite_in_progress", number(0)),
            ("aof_last_write_status", word(if failed { "err" } else { "ok" })),
            ("aof_current_size", number(sums.storage("log_written_bytes"))),
        ],
    );
    section(
        "Stats",
        &[
            ("total_connections_received", number(sums.counter("connections_accepted"))),
            ("total_commands_processed", number(sums.counter("commands") + sums.counter("frames"))),
            ("total_net_input_bytes", number(sums.counter("received_bytes"))),
            ("total_net_output_bytes", number(sums.counter("sent_bytes"))),
            ("rejected_connections", number(sums.counter("connections_refused"))),
            ("evicted_keys", number(0)),
            ("keyspace_hits", number(sums.storage("gets_found"))),
            ("keyspace_misses", number(sums.storage("gets_missing"))),
            ("pubsub_channels", number(0)),
            ("pubsub_patterns", number(0)),
            ("total_error_replies", number(sums.counter("errors"))),
        ],
    );
    section(
        "Replication",
        &[("role", word("master")), ("connected_slaves", number(0)), ("master_repl_offset", number(0))],
    );
    section("Cluster", &[("cluster_enabled", number(0))]);
    let keys = sums.storage("table_records").saturating_sub(sums.storage("table_tombstones"));
    let keys = keys + sums.storage("memtable_records");
    // How many of them expire is not counted, and `expires` cannot be left out: clients cut the line up.
    let keyspace = [("db0", format!("keys={keys},expires=0,avg_ttl=0"))];
    section("Keyspace", if keys > 0 { &keyspace[..] } else { &[] });
    text
}

/// Numbers of all cores together.
struct Sums<'a>(&'a [CoreReport]);

impl Sums<'_> {
    fn counter(&self, name: &str) -> u64 {
        self.0.iter().flat_map(|report| &report.counters).filter(|(known, _)| *known == name).map(value).sum()
    }

    fn storage(&self, name: &str) -> u64 {
        let shards = self.0.iter().flat_map(|report| &report.shards);
        shards.flat_map(|(_, numbers)| numbers).filter(|(known, _)| *known == name).map(value).sum()
    }
}

fn value((_, value): &(&'static str, u64)) -> u64 {
    *value
}
