//! What a node is started with, from flags, environment and file.
//!
//! Flags win over the environment (`PINION_...`), the environment over the file, the file over the
//! defaults. clap joins the first two; [`Settings::gather`] adds the others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

use pinion_engine::{DEFAULT_NAMESPACE, Durability, Meta, Options, PARTITIONS_MIN};
use pinion_gateway::Config as GatewayConfig;
use pinion_server::{EngineSizes, Limits, RespConfig, SLOW_US_DEFAULT, ServerConfig};

use super::cores::Cores;
use super::file::{Amount, EngineSettings, FileSettings};
use super::memory;
use crate::logs::{LogFormat, REPEATS_DEFAULT};
use crate::size::ByteSize;

/// Where data lives unless told otherwise.
const DATA_DEFAULT: &str = "./pinion-data";
/// Where a node listens unless told otherwise.
const LISTEN_DEFAULT: &str = "127.0.0.1:7600";
/// The address that stands for serving no HTTP.
const NO_HTTP: &str = "none";
/// Partitions of a new directory unless told otherwise.
const PARTITIONS_DEFAULT: u32 = 1_024;
/// Partitions that a shard has at least.
const SHARD_PARTITIONS_MIN: u32 = 16;
/// A node takes this part of the memory it may use unless told otherwise.
const MEMORY_PART: u64 = 4;

/// The settings that have a flag.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct ServeArgs {
    /// Data directory; formatted at the first start [default: ./pinion-data]
    #[arg(long, env = "PINION_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Address to listen on; port 0 lets the system choose [default: 127.0.0.1:7600]
    #[arg(long, env = "PINION_LISTEN", value_name = "HOST:PORT")]
    pub(crate) listen: Option<String>,
    /// Address to serve HTTP on (REST, metrics, a page to look at), or none; port 0 lets the system choose
    /// [default: 127.0.0.1:7601]
    #[arg(long, env = "PINION_HTTP", value_name = "HOST:PORT|none")]
    pub(crate) http: Option<String>,
    /// Names that HTTP requests may be sent to, beside localhost and addresses in numbers; * = any
    #[arg(long, env = "PINION_HTTP_HOSTS", value_name = "NAME,...", value_delimiter = ',')]
    pub(crate) http_hosts: Option<Vec<String>>,
    /// How many cores, or which CPUs (0,2-5) [default: every CPU]
    #[arg(long, env = "PINION_CORES", value_name = "N|LIST")]
    pub(crate) cores: Option<Cores>,
    /// Memory for memtables and caches, 2GiB for example; at least 64 MiB per shard [default: a
    /// quarter of what this process may use]
    #[arg(long, env = "PINION_MEMORY", value_name = "SIZE")]
    pub(crate) memory: Option<ByteSize>,
    /// Shards of a new data directory, fixed from then on [default: one per core]
    #[arg(long, env = "PINION_SHARDS", value_name = "N")]
    pub(crate) shards: Option<u16>,
    /// Partitions of a new data directory, fixed from then on: a power of two from 64 to 16384
    /// [default: 1024]
    #[arg(long, env = "PINION_PARTITIONS", value_name = "N")]
    pub(crate) partitions: Option<u32>,
    /// Largest value, up to 16MiB [default: 1MiB]
    #[arg(long, env = "PINION_VALUE_BYTES_MAX", value_name = "SIZE")]
    pub(crate) value_bytes_max: Option<ByteSize>,
    /// Namespace of connections that speak RESP (redis-cli) [default: default]
    #[arg(long, env = "PINION_RESP_NAMESPACE", value_name = "NAME")]
    pub(crate) resp_namespace: Option<String>,
    /// When writes over RESP are acknowledged [default: sync]
    #[arg(long, env = "PINION_RESP_DURABILITY", value_name = "WHEN")]
    pub(crate) resp_durability: Option<Acknowledged>,
    /// Allow KEYS and FLUSHALL over RESP, which work on every key [default: false]
    #[arg(
        long,
        env = "PINION_RESP_SWEEPING",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) resp_sweeping: Option<bool>,
    /// Requests that take at least so many microseconds are remembered and logged as slow; 0 = none
    /// [default: 10000]
    #[arg(long, env = "PINION_SLOW_US", value_name = "US")]
    pub(crate) slow_us: Option<u32>,
    /// What a line of the logs on standard error looks like [default: text]
    #[arg(long, env = "PINION_LOG_FORMAT", value_name = "FORMAT")]
    pub(crate) log_format: Option<LogFormat>,
    /// Lines that one place in the code may log in ten seconds; more are counted and left out; 0 = all are
    /// written [default: 50]
    #[arg(long, env = "PINION_LOG_REPEATS", value_name = "N")]
    pub(crate) log_repeats: Option<u32>,
    /// Configuration file (TOML)
    #[arg(long, env = "PINION_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Listen on an address that others can reach: there is no authentication and no encryption
    #[arg(
        long,
        env = "PINION_INSECURE",
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub(crate) insecure: Option<bool>,
}

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Acknowledged {
    /// When its bytes are on disk
    Sync,
    /// When it is queued: a crash may lose it
    Buffered,
}

/// What a node is started with.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) data: PathBuf,
    pub(crate) listen: SocketAddr,
    /// Where HTTP is served, if it is.
    pub(crate) http: Option<SocketAddr>,
    http_hosts: Vec<String>,
    pub(crate) insecure: bool,
    /// The CPU of each core.
    pub(crate) cpus: Vec<usize>,
    pub(crate) memory: ByteSize,
    /// Whether the memory was chosen by us.
    pub(crate) memory_is_default: bool,
    shards: Option<u16>,
    partitions: u32,
    value_bytes_max: Option<u32>,
    engine: EngineSettings,
    pub(crate) limits: Limits,
    resp: RespConfig,
    slow_us: u32,
    pub(crate) log_format: LogFormat,
    pub(crate) log_repeats: u32,
}

impl Settings {
    /// Joins flags, environment and file.
    ///
    /// # Errors
    /// One text for people.
    pub(crate) fn gather(args: ServeArgs) -> Result<Self, String> {
        let file = args.config.as_deref().map(FileSettings::read).transpose()?.unwrap_or_default();
        let listen = args.listen.or(file.listen).unwrap_or_else(|| LISTEN_DEFAULT.to_owned());
        let http = args.http.or(file.http).unwrap_or_else(|| pinion_gateway::LISTEN_DEFAULT.to_owned());
        let memory = args.memory.or(file.memory.map(|Amount(bytes)| ByteSize(bytes)));
        let value_bytes_max = match args.value_bytes_max {
            Some(ByteSize(bytes)) => Some(u32::try_from(bytes).map_err(|_| {
                format!("--value-bytes-max of {bytes} is too large: at most 16MiB are possible")
            })?),
            None => file.value_bytes_max.map(|Amount(bytes)| bytes),
        };
        let mut limits = Limits::default();
        file.limits.apply(&mut limits);
        let namespace = args.resp_namespace.or(file.resp_namespace);
        let namespace = namespace.unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
        let durability = match args.resp_durability.or(file.resp_durability) {
            None | Some(Acknowledged::Sync) => Durability::Sync,
            Some(Acknowledged::Buffered) => Durability::Buffered,
        };
        let sweeping = args.resp_sweeping.or(file.resp_sweeping).unwrap_or(false);
        Ok(Self {
            data: args.data.or(file.data).unwrap_or_else(|| DATA_DEFAULT.into()),
            listen: address(&listen)?,
            http: if http == NO_HTTP { None } else { Some(address(&http)?) },
            http_hosts: args.http_hosts.or(file.http_hosts).unwrap_or_default(),
            insecure: args.insecure.or(file.insecure).unwrap_or(false),
            cpus: Cores::cpus(args.cores.or(file.cores).as_ref())?,
            memory: memory.unwrap_or_else(|| ByteSize(memory::allowed_bytes() / MEMORY_PART)),
            memory_is_default: memory.is_none(),
            shards: args.shards.or(file.shards),
            partitions: args.partitions.or(file.partitions).unwrap_or(PARTITIONS_DEFAULT),
            value_bytes_max,
            engine: file.engine,
            limits,
            resp: RespConfig { namespace, durability, sweeping },
            log_format: args.log_format.or(file.log_format).unwrap_or_default(),
            log_repeats: args.log_repeats.or(file.log_repeats).unwrap_or(REPEATS_DEFAULT),
            slow_us: args.slow_us.or(file.slow_us).unwrap_or(SLOW_US_DEFAULT),
        })
    }

    /// Refuses an address that others can reach, unless that is asked for.
    ///
    /// # Errors
    /// What to do instead.
    pub(crate) fn check_listen(&self) -> Result<(), String> {
        if let Some(gateway) = self.gateway(self.listen) {
            gateway.check().map_err(|error| error.to_string())?;
        }
        if self.insecure || self.listen.ip().is_loopback() {
            return Ok(());
        }
        Err(format!(
            "{} can be reached by others, and there is no authentication and no encryption yet: everyone who \
             reaches it can read and change everything. Listen on 127.0.0.1 (behind an SSH tunnel or a VPN if \
             need be), or say --insecure if the network keeps strangers out",
            self.listen
        ))
    }

    /// The gateway beside the cores, which listen on `node`; `None` = no HTTP.
    pub(crate) fn gateway(&self, node: SocketAddr) -> Option<GatewayConfig> {
        // A node that listens on every address listens on loopback.
        let ip = match node.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let mut config = GatewayConfig::new(self.http?, SocketAddr::new(ip, node.port()).to_string());
        config.insecure = self.insecure;
        config.hosts.clone_from(&self.http_hosts);
        Some(config)
    }

    /// How many shards the node has: those of the directory, or those it will be formatted with.
    pub(crate) fn shards(&self, meta: Option<&Meta>) -> u16 {
        let cores = u16::try_from(self.cpus.len()).unwrap_or(u16::MAX);
        let shards_max = self.partitions.max(PARTITIONS_MIN) / SHARD_PARTITIONS_MIN;
        let chosen = || cores.min(u16::try_from(shards_max).unwrap_or(u16::MAX));
        meta.map_or_else(|| self.shards.unwrap_or_else(chosen), |meta| meta.shards)
    }

    /// What was asked for a new directory and is not so in this one, for a warning.
    pub(crate) fn ignored(&self, meta: Option<&Meta>) -> Option<String> {
        let meta = meta?;
        let asked = self.shards.filter(|shards| *shards != meta.shards)?;
        Some(format!("--shards {asked} is ignored: the data directory was formatted with {}", meta.shards))
    }

    /// The engine's options for each of `shards` shards.
    ///
    /// # Errors
    /// Too little memory, or sizes that contradict each other.
    pub(crate) fn options(&self, shards: u16) -> Result<Options, pinion_engine::Error> {
        let mut options = Options::for_memory(self.memory.0 / u64::from(shards.max(1)))?;
        if let Some(bytes) = self.value_bytes_max {
            options.value_bytes_max = bytes;
        }
        self.engine.apply(&mut options);
        options.check()?;
        Ok(options)
    }

    /// The server's configuration.
    pub(crate) fn server_config(&self, shards: u16, options: Options) -> ServerConfig {
        let mut config = ServerConfig::new(&self.data, EngineSizes::Each(Box::new(options)));
        config.shards = Some(shards);
        config.partitions = self.partitions;
        config.limits = self.limits;
        config.resp = self.resp.clone();
        config.slow_us = self.slow_us;
        config
    }
}

pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let bad =
        |why: &str| format!("cannot listen on `{text}`: {why}; write HOST:PORT, 127.0.0.1:7600 for example");
    let mut found = text.to_socket_addrs().map_err(|error| bad(&error.to_string()))?;
    found.next().ok_or_else(|| bad("the name has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gather(listen: &str) -> Settings {
        let args = ServeArgs {
            listen: Some(listen.into()),
            cores: Some(Cores::Count(1)),
            memory: Some(ByteSize(256 << 20)),
            ..ServeArgs::default()
        };
        Settings::gather(args).unwrap()
    }

    #[test]
    fn only_loopback_is_listened_on_unasked() {
        for loopback in ["127.0.0.1:0", "127.1.2.3:7600", "[::1]:7600"] {
            gather(loopback).check_listen().unwrap();
        }
        for open in ["0.0.0.0:7600", "192.0.2.1:7600", "[::]:7600"] {
            let mut settings = gather(open);
            assert!(settings.check_listen().unwrap_err().contains("--insecure"));
            settings.insecure = true;
            settings.check_listen().unwrap();
        }
        assert!(address("7600").is_err());
    }

    #[test]
    fn http_is_served_on_loopback_unless_told_otherwise() {
        let gateway = |http: Option<&str>, listen: &str| {
            let mut settings = gather(listen);
            if let Some(http) = http {
                let args = ServeArgs {
                    http: Some(http.into()),
                    insecure: Some(true),
                    cores: Some(Cores::Count(1)),
                    ..ServeArgs::default()
                };
                settings = Settings::gather(args).unwrap();
                settings.listen = address(listen).unwrap();
            }
            settings.gateway(settings.listen)
        };
        let config = gateway(None, "127.0.0.1:7600").unwrap();
        assert_eq!(config.listen.to_string(), pinion_gateway::LISTEN_DEFAULT);
        assert_eq!(config.seeds, ["127.0.0.1:7600"]);
        assert!(gateway(Some("none"), "127.0.0.1:7600").is_none());
        let open = gateway(Some("0.0.0.0:80"), "0.0.0.0:1").unwrap();
        assert_eq!((open.insecure, &open.seeds[0][..]), (true, "127.0.0.1:1"));
        assert_eq!(gateway(Some("[::1]:80"), "[::]:1").unwrap().seeds, ["[::1]:1"]);
        let mut settings = gather("127.0.0.1:0");
        settings.http = Some("192.0.2.1:7601".parse().unwrap());
        assert!(settings.check_listen().unwrap_err().contains("--insecure"));
    }

    #[test]
    fn memory_is_shared_by_the_shards() {
        let settings = gather("127.0.0.1:0");
        settings.options(4).unwrap();
        assert!(settings.options(5).unwrap_err().to_string().contains("64 MiB per shard"));
        assert_eq!(settings.shards(None), 1);
        settings.server_config(1, settings.options(1).unwrap()).check().unwrap();
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(
            file.path(),
            "memory = \"1GiB\"\npartitions = 64\nvalue_bytes_max = \"2MiB\"\nlog_format = \"json\"\n",
        )
        .unwrap();
        let args = ServeArgs {
            config: Some(file.path().to_owned()),
            memory: Some(ByteSize(128 << 20)),
            ..ServeArgs::default()
        };
        let settings = Settings::gather(args).unwrap();
        assert_eq!((settings.memory, settings.partitions), (ByteSize(128 << 20), 64));
        assert_eq!((settings.log_format, settings.log_repeats), (LogFormat::Json, REPEATS_DEFAULT));
        assert_eq!(settings.options(1).unwrap().value_bytes_max, 2 << 20);
        let config = settings.server_config(1, settings.options(1).unwrap());
        assert_eq!((config.resp, config.slow_us), (RespConfig::default(), SLOW_US_DEFAULT));
        let text = "resp_namespace = \"n\"\nresp_durability = \"buffered\"\nslow_us = 7\n";
        std::fs::write(file.path(), text).unwrap();
        let args = ServeArgs {
            config: Some(file.path().to_owned()),
            memory: Some(ByteSize(128 << 20)),
            resp_sweeping: Some(true),
            resp_namespace: Some("other".into()),
            ..ServeArgs::default()
        };
        let settings = Settings::gather(args).unwrap();
        let config = settings.server_config(1, settings.options(1).unwrap());
        let (resp, slow_us) = (config.resp, config.slow_us);
        let (namespace, durability) = ("other".to_owned(), Durability::Buffered);
        assert_eq!((resp, slow_us), (RespConfig { namespace, durability, sweeping: true }, 7));
        let missing = ServeArgs { config: Some("/nonexistent.toml".into()), ..ServeArgs::default() };
        assert!(Settings::gather(missing).unwrap_err().contains("/nonexistent.toml"));
    }
}
