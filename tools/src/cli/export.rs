//! `pinion export`
//!
//! Writes every record of the namespace in placement order. A file appears under its name only when
//! it is whole: until then it is `FILE.partial`. Records written meanwhile may or may not be in it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pinion_client::{ScanRange, blocking};

use super::ServerOptions;
use super::failure::{Failure, Result};
use super::format::Format;
use super::progress::Progress;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The file to write; `-` = standard output
    #[arg(default_value = "-")]
    file: PathBuf,

    /// The file's format; by default told by its name
    #[arg(long, value_enum)]
    format: Option<Format>,

    /// Only keys that start with this, in key order
    #[arg(long)]
    prefix: Option<OsString>,
}

pub(super) fn run(server: &ServerOptions, arguments: &Arguments) -> Result<()> {
    let client = server.client()?;
    let format = arguments.format.unwrap_or_else(|| Format::of_path(&arguments.file));
    let range = match &arguments.prefix {
        Some(prefix) => ScanRange::prefix(prefix.as_bytes()),
        None => ScanRange::all(),
    };
    let scan = client.scan(range);
    let path = &arguments.file;
    if path.as_os_str() == "-" {
        let out = io::stdout().lock();
        // A bar would be drawn between the records.
        let progress = (!out.is_terminal()).then(Progress::of_output);
        return save(scan, format, BufWriter::new(out), progress, |error| error.into());
    }
    let partial = partial_path(path);
    let file = File::create(&partial).map_err(|error| Failure::file(&partial, &error))?;
    let failed = |error: io::Error| Failure::file(&partial, &error);
    let saved = save(scan, format, BufWriter::new(&file), Some(Progress::of_output()), failed);
    let renamed =
        saved.and_then(|()| file.sync_all().and_then(|()| fs::rename(&partial, path)).map_err(failed));
    if renamed.is_err() {
        // What there is of it is of no use; that it cannot be removed changes nothing.
        let _ = fs::remove_file(&partial);
    }
    renamed
}

fn save(
    scan: blocking::Scan,
    format: Format,
    out: impl Write,
    mut progress: Option<Progress>,
    failed: impl Fn(io::Error) -> Failure + Copy,
) -> Result<()> {
    let mut writer = format.writer(out);
    for record in scan {
        let record = record?;
        writer.write(&record).map_err(failed)?;
        if let Some(progress) = &mut progress {
            progress.record(record.key.len() + record.value.len());
        }
    }
    writer.finish().map_err(failed)?;
    if let Some(progress) = progress {
        progress.finish("exported");
    }
    Ok(())
}

fn partial_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}
