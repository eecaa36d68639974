//! `pinion scan`
//!
//! A record is a line, in a pipe as on a terminal: key and value escaped, with a tab between. For
//! exact bytes there is `--json`, whose lines `pinion import` reads.

use std::ffi::OsString;
use std::io::{self, BufWriter, Write};
use std::os::unix::ffi::OsStrExt;

use pinion_client::ScanRange;

use super::failure::Result;
use super::format::{NdjsonWriter, RecordWriter};
use super::{ServerOptions, output};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Only keys that start with this, in key order
    #[arg(conflicts_with_all = ["start", "end", "tag"])]
    prefix: Option<OsString>,

    /// From this key on, in key order
    #[arg(long, value_name = "KEY")]
    start: Option<OsString>,

    /// Up to, not including, this key, in key order
    #[arg(long, value_name = "KEY")]
    end: Option<OsString>,

    /// Only the keys with this {tag}, in key order
    #[arg(long)]
    tag: Option<OsString>,

    /// In the opposite order
    #[arg(long)]
    reverse: bool,

    /// At most this many records
    #[arg(long, value_name = "COUNT")]
    limit: Option<u64>,

    /// Without values
    #[arg(long)]
    keys_only: bool,

    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Without any bound: the whole namespace in placement order, which costs least.
    fn range(&self) -> ScanRange {
        let mut range = match (&self.prefix, &self.tag) {
            (Some(prefix), _) => ScanRange::prefix(prefix.as_bytes()),
            (None, Some(tag)) => ScanRange::tag(tag.as_bytes()),
            (None, None) if self.start.is_some() || self.end.is_some() => ScanRange::prefix(""),
            (None, None) => ScanRange::all(),
        };
        match (&self.start, &self.end) {
            (None, None) => {}
            (Some(start), None) => range = range.within(start.as_bytes()..),
            (None, Some(end)) => range = range.within(..end.as_bytes()),
            (Some(start), Some(end)) => range = range.within(start.as_bytes()..end.as_bytes()),
        }
        if self.reverse {
            range = range.reverse();
        }
        if self.keys_only {
            range = range.keys_only();
        }
        match self.limit {
            Some(records) => range.limit(records),
            None => range,
        }
    }
}

pub(super) fn run(server: &ServerOptions, arguments: &Arguments) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    let scan = server.client()?.scan(arguments.range());
    if arguments.json && !arguments.keys_only {
        let mut out = NdjsonWriter::new(out);
        for record in scan {
            out.write(&record?)?;
        }
        return Ok(out.finish()?);
    }
    for record in scan {
        let record = record?;
        if arguments.json {
            NdjsonWriter::new(&mut out).write_key(&record.key)?;
        } else if arguments.keys_only {
            writeln!(out, "{}", output::escape(&record.key))?;
        } else {
            writeln!(out, "{}\t{}", output::escape(&record.key), output::escape(&record.value))?;
        }
    }
    Ok(out.flush()?)
}
