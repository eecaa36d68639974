//! `pinion import`
//!
//! A thread reads and parses; one task sends, with many puts in flight. Of two rows with the same
//! key the later one wins: a key is not sent again while it is on its way. Malformed rows, and
//! rows that the server's limits refuse, are reported with their line and counted; everything else
//! that fails ends the import. Importing the same file again is always safe: it puts the same
//! values under the same keys.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use pinion_client::{Client, Error, ErrorCode, PutOptions, Ttl};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::ServerOptions;
use super::failure::{Failure, Result};
use super::format::{Format, Record, Row};
use super::progress::{Counted, Progress};
use super::put::DurabilityOption;

/// Rows that are parsed ahead.
const ROWS_AHEAD_MAX: usize = 256;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file to load; `-` = standard input
    file: PathBuf,

    /// The file's format; by default told by its name
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Let records expire after this long, or `never`, that say nothing about it
    #[arg(long, value_name = "DURATION")]
    ttl: Option<Ttl>,

    /// Requests on their way at once
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4096))]
    in_flight: u32,

    #[command(flatten)]
    durability: DurabilityOption,
}

pub(super) fn run(server: &ServerOptions, arguments: &Arguments) -> Result<()> {
    let (input, length) = open(&arguments.file)?;
    let format = arguments.format.unwrap_or_else(|| Format::of_path(&arguments.file));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::System(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        let client = server.builder().build().await?;
        let read = Arc::new(AtomicU64::new(0));
        let progress = Progress::of_input(length, Arc::clone(&read));
        let rows = parse_ahead(format, Counted { input, read });
        let mut options = PutOptions::default().durability(arguments.durability.durability());
        if let Some(ttl) = arguments.ttl {
            options = options.ttl(ttl);
        }
        let mut import = Import {
            client,
            options,
            in_flight_max: arguments.in_flight as usize,
            puts: JoinSet::new(),
            keys: HashSet::new(),
            progress,
            refused: 0,
            failure: None,
        };
        import.run(rows, &arguments.file).await;
        import.end()
    })
}

fn open(path: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>)> {
    if path.as_os_str() == "-" {
        return Ok((Box::new(io::stdin()), None));
    }
    let file = File::open(path).map_err(|error| Failure::file(path, &error))?;
    let length = file.metadata().ok().filter(std::fs::Metadata::is_file).map(|metadata| metadata.len());
    Ok((Box::new(file), length))
}

/// Parses on a thread of its own, so that a slow input does not stop the answers.
fn parse_ahead(format: Format, input: Counted<Box<dyn Read + Send>>) -> mpsc::Receiver<io::Result<Row>> {
    let (sender, rows) = mpsc::channel(ROWS_AHEAD_MAX);
    std::thread::spawn(move || {
        let mut reader = format.reader(input);
        while let Some(row) = reader.read().transpose() {
            let over = row.is_err();
            if sender.blocking_send(row).is_err() || over {
                return;
            }
        }
    });
    rows
}

/// An import under way.
struct Import {
    client: Client,
    options: PutOptions,
    in_flight_max: usize,
    puts: JoinSet<Put>,
    /// The keys of `puts`.
    keys: HashSet<Bytes>,
    progress: Progress,
    /// Rows that were not imported.
    refused: u64,
    /// What ended the import early.
    failure: Option<Failure>,
}

/// A put that has its result.
struct Put {
    line: u64,
    key: Bytes,
    bytes: usize,
    result: Result<(), Error>,
}

impl Import {
    async fn run(&mut self, mut rows: mpsc::Receiver<io::Result<Row>>, path: &Path) {
        while self.failure.is_none() {
            let Some(row) = rows.recv().await else { break };
            match row {
                Ok(Row { line, record: Ok(record) }) => self.send(line, record).await,
                Ok(Row { line, record: Err(reason) }) => self.refuse(line, &reason),
                Err(error) => self.failure = Some(Failure::file(path, &error)),
            }
        }
        while self.finish_one().await {}
    }

    async fn send(&mut self, line: u64, record: Record) {
        let key = Bytes::from(record.key);
        while self.puts.len() >= self.in_flight_max || self.keys.contains(&key) {
            self.finish_one().await;
        }
        self.keys.insert(key.clone());
        let (client, mut options, bytes) =
            (self.client.clone(), self.options, key.len() + record.value.len());
        if let Some(ttl) = record.ttl {
            options = options.ttl(ttl);
        }
        self.puts.spawn(async move {
            let result = client.put_with(&key, record.value, options).await.map(|_| ());
            Put { line, key, bytes, result }
        });
    }

    /// Takes the result of a put; false when there is none on its way.
    async fn finish_one(&mut self) -> bool {
        let put = match self.puts.join_next().await {
            None => return false,
            Some(Ok(put)) => put,
            Some(Err(error)) => {
                self.failure.get_or_insert(Failure::System(format!("a put ended without a result: {error}")));
                return true;
            }
        };
        self.keys.remove(&put.key);
        match put.result {
            Ok(()) => self.progress.record(put.bytes),
            Err(error) if is_about_the_record(&error) => self.refuse(put.line, &error.to_string()),
            Err(error) => {
                self.failure.get_or_insert(Failure::Server(error));
            }
        }
        true
    }

    fn refuse(&mut self, line: u64, reason: &str) {
        self.refused += 1;
        self.progress.say(&format!("line {line}: {reason}"));
    }

    fn end(self) -> Result<()> {
        let Self { progress, refused, failure, .. } = self;
        let imported = progress.records();
        progress.finish("imported");
        match failure {
            Some(failure) => {
                eprintln!(
                    "pinion: the import stopped; the {imported} records above are stored. \
                     Running it again is safe."
                );
                Err(failure)
            }
            None if refused > 0 => Err(Failure::Refused(format!("{refused} lines were not imported"))),
            None => Ok(()),
        }
    }
}

/// Whether another record may fare better.
fn is_about_the_record(error: &Error) -> bool {
    matches!(error, Error::Invalid(_)) || error.code() == Some(ErrorCode::TooLarge)
}
