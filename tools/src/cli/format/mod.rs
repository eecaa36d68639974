//! The formats of import and export: records as lines of JSON or as rows of a table.
//!
//! All of them carry any bytes: what is not UTF-8 travels as base64 in `key_b64` and `value_b64`.
//! `ttl` is the remaining life in seconds, absent for records that do not expire.

mod delimited;
mod ndjson;

use std::io::{self, Read, Write};
use std::path::Path;

use pinion_client::{ScanRecord, Ttl};

pub(super) use self::delimited::{DelimitedReader, DelimitedWriter};
pub(super) use self::ndjson::{NdjsonReader, NdjsonWriter};
use super::output;

/// The longest line or row that is read, in bytes: the largest value a server can be set to, as
/// base64 or with every byte escaped, and room.
pub(super) const ROW_BYTES_MAX: u64 = 112 << 20;

/// A format of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// One JSON object per line
    Ndjson,
    /// Comma-separated values with a header row
    Csv,
    /// Tab-separated values with a header row
    Tsv,
}

impl Format {
    /// By the end of a file's name; lines of JSON where it does not say.
    pub(super) fn of_path(path: &Path) -> Self {
        match path.extension().and_then(|end| end.to_str()) {
            Some(end) if end.eq_ignore_ascii_case("csv") => Self::Csv,
            Some(end) if end.eq_ignore_ascii_case("tsv") => Self::Tsv,
            _ => Self::Ndjson,
        }
    }

    /// Reads records.
    pub(super) fn reader(self, input: impl Read + 'static) -> Box<dyn RecordReader> {
        match self {
            Self::Ndjson => Box::new(NdjsonReader::new(input)),
            Self::Csv => Box::new(DelimitedReader::new(input, b',')),
            Self::Tsv => Box::new(DelimitedReader::new(input, b'\t')),
        }
    }

    /// Writes records.
    pub(super) fn writer<'a>(self, output: impl Write + 'a) -> Box<dyn RecordWriter + 'a> {
        match self {
            Self::Ndjson => Box::new(NdjsonWriter::new(output)),
            Self::Csv => Box::new(DelimitedWriter::new(output, b',')),
            Self::Tsv => Box::new(DelimitedWriter::new(output, b'\t')),
        }
    }
}

/// A record as it stands in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    pub(super) ttl: Option<Ttl>,
}

/// A row of a file: its line and what it holds, or why it holds no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) line: u64,
    pub(super) record: Result<Record, String>,
}

/// Reads a file row by row.
pub(super) trait RecordReader {
    /// The next row; `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read any further.
    fn read(&mut self) -> io::Result<Option<Row>>;
}

/// Writes a file row by row.
pub(super) trait RecordWriter {
    /// Appends a record.
    fn write(&mut self, record: &ScanRecord) -> io::Result<()>;

    /// Hands everything to the output.
    fn finish(&mut self) -> io::Result<()>;
}

/// The fields of a row, put together.
fn record(
    key: Option<Vec<u8>>,
    key_base64: Option<&str>,
    value: Option<Vec<u8>>,
    value_base64: Option<&str>,
    ttl: Option<f64>,
) -> Result<Record, String> {
    let one = |name: &str, plain: Option<Vec<u8>>, encoded: Option<&str>| match (plain, encoded) {
        (Some(bytes), None) => Ok(bytes),
        (None, Some(encoded)) => from_base64(encoded).map_err(|error| format!("{name}_b64: {error}")),
        (Some(_), Some(_)) => Err(format!("has both {name} and {name}_b64")),
        (None, None) => Err(format!("has no {name}")),
    };
    Ok(Record {
        key: one("key", key, key_base64)?,
        value: one("value", value, value_base64)?,
        ttl: ttl.map(Ttl::try_from_secs_f64).transpose().map_err(|error| format!("ttl is {error}"))?,
    })
}

fn from_base64(text: &str) -> Result<Vec<u8>, String> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).map_err(|error| error.to_string())
}

fn to_base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

/// The remaining life of a record in seconds, to the millisecond; at least one, so that a record
/// at its end is not made to live for ever.
fn ttl_seconds(record: &ScanRecord) -> Option<f64> {
    record.expiry.map(|expiry| ((output::seconds_left(expiry) * 1_000.0).round() / 1_000.0).max(0.001))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use pinion_client::Version;

    use super::*;

    fn scanned(key: &[u8], value: &[u8], expiry: Option<SystemTime>) -> ScanRecord {
        let bytes = |bytes: &[u8]| bytes.to_vec().into();
        ScanRecord { key: bytes(key), value: bytes(value), version: Version([1; 16]), expiry }
    }

    fn read_all(format: Format, text: &[u8]) -> Vec<Row> {
        let mut reader = format.reader(io::Cursor::new(text.to_vec()));
        std::iter::from_fn(|| reader.read().unwrap()).collect()
    }

    #[test]
    fn every_format_brings_every_byte_back() {
        let all: Vec<u8> = (0..=255).collect();
        let soon = SystemTime::now() + Duration::from_secs(100);
        let records = [
            scanned(b"plain", b"value", None),
            scanned("schl\u{fc}ssel".as_bytes(), b"", None),
            scanned(b"quotes", b"a \"b\", 'c'\t\\ d", None),
            scanned(b"lines", b"one\ntwo\r\nthree\r", Some(soon)),
            scanned(&all, &all, None),
            scanned(b"\"", b"\xff", None),
        ];
        for format in [Format::Ndjson, Format::Csv, Format::Tsv] {
            let mut file = Vec::new();
            let mut writer = format.writer(&mut file);
            records.iter().for_each(|record| writer.write(record).unwrap());
            writer.finish().unwrap();
            drop(writer);
            let rows = read_all(format, &file);
            assert_eq!(rows.len(), records.len(), "{format:?}");
            for (row, record) in rows.into_iter().zip(&records) {
                let read = row.record.unwrap();
                assert_eq!(
                    (&read.key[..], &read.value[..]),
                    (&record.key[..], &record.value[..]),
                    "{format:?}"
                );
                assert_eq!(read.ttl.is_some(), record.expiry.is_some());
                assert!(read.ttl.is_none_or(|ttl| matches!(ttl, Ttl::After(left) if left.as_secs() <= 100)));
            }
        }
    }

    #[test]
    fn malformed_rows_are_named_by_their_line_and_do_not_hide_the_others() {
        let text = b"{\"key\":\"a\",\"value\":\"1\"}\nnonsense\n\n{\"key\":\"b\"}\n\
            {\"key\":\"c\",\"value\":\"3\",\"ttl\":-1}\n{\"key\":\"d\",\"value\":\"4\",\"colour\":1}\n\
            {\"key\":\"e\",\"key_b64\":\"ZQ==\",\"value\":\"5\"}\n{\"key\":\"f\",\"value_b64\":\"?\"}\n\
            {\"key_b64\":\"Zw==\",\"value\":\"7\",\"ttl\":1.5}";
        let rows = read_all(Format::Ndjson, text);
        let good: Vec<_> = rows.iter().filter(|row| row.record.is_ok()).map(|row| row.line).collect();
        let bad: Vec<_> = rows.iter().filter(|row| row.record.is_err()).map(|row| row.line).collect();
        assert_eq!((good, bad), (vec![1, 9], vec![2, 4, 5, 6, 7, 8]));
        assert_eq!(rows[7].record.as_ref().unwrap().key, b"g");

        let rows = read_all(Format::Csv, b"value,key\n1,a\n2,b,extra\n\"3\n3\",c\n4\n");
        let lines: Vec<_> = rows.iter().map(|row| (row.line, row.record.is_ok())).collect();
        assert_eq!(lines, [(2, true), (3, false), (4, true), (6, false)]);
        assert_eq!(rows[2].record.as_ref().unwrap().value, b"3\n3");
    }

    #[test]
    fn a_table_without_its_header_is_refused() {
        for text in [&b"a,1\n"[..], b"key,colour\nk,red\n", b"value\n1\n", b"key,key,value\na,b,c\n"] {
            let mut reader = Format::Csv.reader(io::Cursor::new(text.to_vec()));
            assert_eq!(reader.read().unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn the_format_follows_the_name() {
        assert_eq!(Format::of_path(Path::new("a.CSV")), Format::Csv);
        assert_eq!(Format::of_path(Path::new("a.tsv")), Format::Tsv);
        assert_eq!(Format::of_path(Path::new("-")), Format::Ndjson);
    }
}
