//! How an engine in this process is set up. Says nothing to a server, which has settings of its own.

use super::properties::Properties;
use super::wrong;
use crate::error::Result;

/// The order in which a scan reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanOrder {
    /// As records are placed: for Pinion by partition, then key, as Cassandra's binding of YCSB scans by
    /// token.
    Placement,
    /// By key.
    Keys,
}

/// What was asked for; the rest is the engine's own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Setup {
    /// Memory for write buffers and caches together, in MiB.
    pub memory_mib: Option<u64>,
    /// Shards of a directory that is new.
    pub shards: Option<u16>,
    /// Whether files are read and written past the page cache.
    pub direct_io: Option<bool>,
    /// The order in which a scan reads.
    pub scan_order: Option<ScanOrder>,
}

impl Setup {
    pub(super) fn of(from: &Properties) -> Result<Self> {
        let number = |name: &str, most: u64| match from.number(name, 0_u64)? {
            0 if from.text(name).is_none() => Ok(None),
            value if (1..=most).contains(&value) => Ok(Some(value)),
            other => Err(wrong(name, &other.to_string(), &format!("1 to {most}"))),
        };
        Ok(Self {
            memory_mib: number("memorymib", 1 << 24)?,
            shards: number("shards", 1024)?.and_then(|shards| u16::try_from(shards).ok()),
            direct_io: from.text("directio").map(|_| from.flag("directio", true)).transpose()?,
            scan_order: match from.text("scanorder") {
                None => None,
                Some("placement") => Some(ScanOrder::Placement),
                Some("keys") => Some(ScanOrder::Keys),
                Some(other) => return Err(wrong("scanorder", other, "placement or keys")),
            },
        })
    }
}
