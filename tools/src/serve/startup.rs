//! What a node prints when it starts.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use pinion_engine::Options;
use pinion_server::NodeSummary;

use super::Settings;
use crate::size::ByteSize;

/// Memtables of a shard: one written to and two being flushed.
const MEMTABLES: u64 = 3;

/// The start-up lines.
#[derive(Debug)]
pub(crate) struct Banner {
    data: PathBuf,
    cpus: Vec<usize>,
    memory: ByteSize,
    options: Options,
    address: SocketAddr,
    http: Option<SocketAddr>,
}

impl Banner {
    pub(crate) fn new(
        settings: &Settings,
        options: &Options,
        address: SocketAddr,
        http: Option<SocketAddr>,
    ) -> Self {
        Self {
            data: settings.data.clone(),
            cpus: settings.cpus.clone(),
            memory: settings.memory,
            options: options.clone(),
            address,
            http,
        }
    }

    /// Before recovery, which may take its time.
    pub(crate) fn starting(&self) {
        print(&format!("Pinion {}\n  data    {}\n", env!("CARGO_PKG_VERSION"), self.data.display()));
    }

    /// When every core takes connections.
    pub(crate) fn ready(&self, summary: &NodeSummary) {
        print(&self.text(summary));
    }

    fn text(&self, summary: &NodeSummary) -> String {
        let NodeSummary { cores, surplus_cores, shards, partitions, incarnation, namespaces } = summary;
        let cpus: Vec<String> = self.cpus.iter().map(usize::to_string).collect();
        let surplus = match surplus_cores {
            0 => String::new(),
            _ => format!("; {surplus_cores} carry no data, for there are fewer shards"),
        };
        let all = |bytes: u64| ByteSize(bytes * u64::from(*shards));
        let memtables = all(MEMTABLES * self.options.memtable_bytes);
        let blocks = all(self.options.block_cache_bytes);
        let rows = all(self.options.row_cache_bytes);
        let http = self.http.map_or_else(String::new, |http| format!("  http    http://{http}/\n"));
        let rest = ByteSize(self.memory.0.saturating_sub(memtables.0 + blocks.0 + rows.0));
        format!(
            "  layout  {shards} shards, {partitions} partitions, {namespaces} namespaces, start number {incarnation}\n\
             \x20 cores   {cores} on CPUs {}{surplus}\n\
             \x20 memory  {}: memtables {memtables}, block cache {blocks}, row cache {rows}, index and buffers {rest}\n{http}\
             listening on {}\n",
            cpus.join(","),
            self.memory,
            self.address,
        )
    }
}

/// Whoever reads our output may be gone; that is no reason to stop.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_says_where() {
        let banner = Banner {
            data: "d".into(),
            cpus: vec![0, 1],
            memory: ByteSize(256 << 20),
            options: Options::for_memory(128 << 20).unwrap(),
            address: "127.0.0.1:7600".parse().unwrap(),
            http: Some("127.0.0.1:7601".parse().unwrap()),
        };
        let summary = NodeSummary {
            cores: 2,
            surplus_cores: 0,
            shards: 2,
            partitions: 1_024,
            incarnation: 1,
            namespaces: 1,
        };
        let text = banner.text(&summary);
        assert!(text.ends_with("\n  http    http://127.0.0.1:7601/\nlistening on 127.0.0.1:7600\n"));
        assert!(text.contains("2 shards") && text.contains("CPUs 0,1") && text.contains("256 MiB"));
        assert!(!text.contains("carry no data"));
    }
}
