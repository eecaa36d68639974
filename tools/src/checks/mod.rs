//! What may stand in the way of a node, found out before it starts, in plain words with advice.
//!
//! `serve` runs these checks first: it refuses to start at a failure and logs warnings; `doctor`
//! prints all of them. A check changes nothing but this process's own limits, and leaves nothing
//! on disk.

mod data;
mod machine;

use std::fmt;

use pinion_engine::Options;

use crate::serve::Settings;
use crate::size::ByteSize;

pub(crate) use data::read_meta;

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// As it should be.
    Ok,
    /// A node runs, but something may hurt.
    Warn,
    /// A node does not start.
    Fail,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    pub(crate) subject: &'static str,
    pub(crate) level: Level,
    /// What was found, and unless all is well what to do.
    pub(crate) text: String,
}

impl Check {
    fn ok(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, level: Level::Ok, text: text.into() }
    }

    fn warn(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, level: Level::Warn, text: text.into() }
    }

    fn fail(subject: &'static str, text: impl Into<String>) -> Self {
        Self { subject, level: Level::Fail, text: text.into() }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.subject, self.text)
    }
}

/// What `serve` looks at. The ring, locked memory, CPUs, the port, and what the data directory holds
/// are left to the runtime and the engine, which find them out themselves and give the same advice.
pub(crate) fn before_start(settings: &Settings, shards: u16, options: &Options) -> Vec<Check> {
    let mut checks = vec![machine::kernel(), machine::open_files(settings.limits.connections_max)];
    checks.push(memory(settings));
    checks.extend(data::place(&settings.data, shards, options));
    checks
}

/// Everything, for `doctor`.
pub(crate) fn all(settings: &Settings) -> Vec<Check> {
    let mut checks = vec![
        machine::kernel(),
        machine::runtime(&settings.cpus),
        machine::open_files(settings.limits.connections_max),
        memory(settings),
    ];
    let (contents, meta, locked) = data::contents(&settings.data);
    let shards = settings.shards(meta.as_ref());
    match settings.options(shards) {
        Ok(options) => {
            let text = format!("{} for {shards} shards", settings.memory);
            checks.push(Check::ok("memory per shard", text));
            checks.extend(data::place(&settings.data, shards, &options));
        }
        Err(error) => checks.push(Check::fail("memory per shard", error.to_string())),
    }
    checks.extend(contents);
    match settings.check_listen() {
        Ok(()) => {
            checks.push(machine::port("address", "--listen", settings.listen, locked));
            checks.extend(settings.http.map(|http| machine::port("address of HTTP", "--http", http, locked)));
        }
        Err(text) => checks.push(Check::fail("address", text)),
    }
    checks
}

/// Whether the memory setting fits what this process may use.
fn memory(settings: &Settings) -> Check {
    let allowed = ByteSize(crate::serve::allowed_bytes());
    let (memory, subject) = (settings.memory, "memory");
    if memory.0 > allowed.0 / 10 * 8 {
        return Check::warn(
            subject,
            format!(
                "{memory} of the {allowed} that this process may use leave little for connections and buffers: the \
                 kernel may kill the node; lower --memory"
            ),
        );
    }
    let chosen = if settings.memory_is_default { " (default; --memory sets it)" } else { "" };
    Check::ok(subject, format!("{memory} of {allowed}{chosen}"))
}
