//! The configuration file of `serve`, in TOML.
//!
//! Every key is optional and has the name of the flag without dashes; `[engine]` and `[limits]`
//! hold what has no flag. A key that is not known is an error that names it and its line, so that a
//! slip of the pen does not pass for a setting. Sizes are numbers of bytes or texts like `"64MiB"`.

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use pinion_engine::Options;
use pinion_server::Limits;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, Visitor};

use super::cores::Cores;
use super::settings::Acknowledged;
use crate::logs::LogFormat;
use crate::size::ByteSize;

/// Largest configuration file in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What a configuration file says.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct FileSettings {
    pub(crate) data: Option<PathBuf>,
    pub(crate) listen: Option<String>,
    pub(crate) http: Option<String>,
    pub(crate) http_hosts: Option<Vec<String>>,
    pub(crate) cores: Option<Cores>,
    pub(crate) memory: Option<Amount<u64>>,
    pub(crate) shards: Option<u16>,
    pub(crate) partitions: Option<u32>,
    pub(crate) value_bytes_max: Option<Amount<u32>>,
    pub(crate) insecure: Option<bool>,
    pub(crate) resp_namespace: Option<String>,
    pub(crate) resp_durability: Option<Acknowledged>,
    pub(crate) resp_sweeping: Option<bool>,
    pub(crate) slow_us: Option<u32>,
    pub(crate) log_format: Option<LogFormat>,
    pub(crate) log_repeats: Option<u32>,
    pub(crate) engine: EngineSettings,
    pub(crate) limits: LimitSettings,
}

impl FileSettings {
    /// Reads a file.
    ///
    /// # Errors
    /// One text for people: the file cannot be read, or the line and key that are wrong.
    pub(crate) fn read(path: &Path) -> Result<Self, String> {
        let cannot = |error: &dyn fmt::Display| format!("cannot read {}: {error}", path.display());
        let bytes = std::fs::metadata(path).map_err(|error| cannot(&error))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(cannot(&format_args!("{bytes} bytes are too many for a configuration file")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| cannot(&error))?;
        toml::from_str(&text)
            .map_err(|error| format!("in {}: {}", path.display(), error.to_string().trim_end()))
    }
}

macro_rules! settings {
    ($(#[$doc:meta])* $name:ident of $target:ty { $($field:ident: $number:ty),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct $name { $($field: Option<Amount<$number>>),* }

        impl $name {
            /// Replaces what the file sets.
            pub(crate) fn apply(&self, target: &mut $target) {
                $(if let Some(Amount(value)) = self.$field { target.$field = value; })*
            }
        }
    };
}

settings! {
    /// Sizes and limits of every shard; what is not set follows from `memory`.
    EngineSettings of Options {
        batch_ops_max: u32,
        batch_bytes_max: u32,
        log_segment_bytes: u32,
        log_queue_bytes_max: u32,
        log_block_bytes_max: u32,
        log_spare_segments_max: u32,
        pending_ops_max: u32,
        manifest_edit_bytes: u32,
        memtable_bytes: u64,
        table_bytes: u64,
        table_write_bytes: u32,
        level_base_bytes: u64,
        level_growth: u32,
        runs_max: u32,
        runs_percent: u32,
        block_cache_bytes: u64,
        row_cache_bytes: u64,
        retry_window_ms_max: u64,
        deadline_ms_max: u64,
        stamp_ahead_ms_max: u64,
        disk_reserve_bytes: u64,
        scan_records_max: u32,
        scan_bytes_max: u32,
        sweep_interval_ms: u64,
    }
}

settings! {
    /// Limits of the server.
    LimitSettings of Limits {
        connections_max: u32,
        connection_requests_max: u32,
        connection_out_bytes_max: u32,
        core_out_bytes_max: u64,
        send_stall_ms_max: u32,
        frame_bytes_max: u32,
        core_gather_bytes_max: u64,
        core_requests_max: u32,
        core_reads_max: u32,
        core_forwards_max: u32,
        catalogue_changes_max: u32,
        hello_ms_max: u32,
        drain_ms_max: u32,
        overload_retry_ms: u32,
        resp_cursors_max: u32,
    }
}

/// A number, or a size as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Amount<T>(pub(crate) T);

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Amount<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ByteSize(bytes) = deserializer.deserialize_any(NumberOrText(PhantomData))?;
        T::try_from(bytes).map(Self).map_err(|_| D::Error::custom(format!("{bytes} is too large here")))
    }
}

impl<'de> Deserialize<'de> for Cores {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText(PhantomData))
    }
}

/// Reads whatever reads its own text, written as a number or as text.
struct NumberOrText<T>(PhantomData<T>);

impl<T: FromStr<Err = String>> Visitor<'_> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or a text")
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<T, E> {
        self.visit_str(&value.to_string())
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<T, E> {
        value.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_sets_what_it_names() {
        let settings: FileSettings = toml::from_str(
            "data = \"/d\"\ncores = \"0,1\"\nmemory = \"1GiB\"\ninsecure = true\n\
             [engine]\nmemtable_bytes = \"1MiB\"\nruns_max = 3\n[limits]\ndrain_ms_max = 5\n",
        )
        .unwrap();
        assert_eq!(settings.data.as_deref(), Some(Path::new("/d")));
        assert_eq!(settings.cores, Some(Cores::Cpus(vec![0, 1])));
        assert_eq!(settings.memory, Some(Amount(1 << 30)));
        assert_eq!(settings.insecure, Some(true));
        let mut options = Options::default();
        settings.engine.apply(&mut options);
        assert_eq!((options.memtable_bytes, options.runs_max), (1 << 20, 3));
        let mut limits = Limits::default();
        settings.limits.apply(&mut limits);
        assert_eq!(limits, Limits { drain_ms_max: 5, ..Limits::default() });
        assert_eq!(toml::from_str::<FileSettings>("cores = 2").unwrap().cores, Some(Cores::Count(2)));
    }

    #[test]
    fn errors_name_the_key_and_its_line() {
        for (text, line, word) in [
            ("data = \"d\"\nmemroy = 1\n", "line 2", "memroy"),
            ("[engine]\nmemtable_bytes = 1\ntable_size = 2\n", "line 3", "table_size"),
            ("[limits]\nconnections_max = -1\n", "line 2", "-1"),
            ("[limits]\nconnections_max = \"5GiB\"\n", "line 2", "too large"),
            ("memory = \"lots\"\n", "line 1", "lots"),
            ("data = \n", "line 1", ""),
        ] {
            let error = toml::from_str::<FileSettings>(text).unwrap_err().to_string();
            assert!(error.contains(line) && error.contains(word), "{text:?}: {error}");
        }
    }
}
