//! Rows of a table, separated by commas or tabs, quoted as in RFC 4180.
//!
//! The first row names the columns, in any order, out of `key`, `value`, `ttl`, `key_b64` and
//! `value_b64`. Where a row has both forms of a column, the one that is not empty counts. A row of
//! the wrong width is malformed; a row beyond [`ROW_BYTES_MAX`] ends the reading, because where the
//! next one starts is not known then (a quote is missing).

use std::cell::Cell;
use std::io::{self, Read, Write};
use std::rc::Rc;

use csv::ByteRecord;
use pinion_client::ScanRecord;

use super::{ROW_BYTES_MAX, Record, RecordReader, RecordWriter, Row, record, to_base64, ttl_seconds};

const COLUMNS: [&str; 5] = ["key", "value", "ttl", "key_b64", "value_b64"];

/// Reads rows.
pub(in super::super) struct DelimitedReader<R> {
    rows: csv::Reader<Metered<R>>,
    /// Where each of [`COLUMNS`] stands, once the header has been read.
    columns: Option<[Option<usize>; 5]>,
    /// Bytes that may be read before the next row is complete.
    allowance: Rc<Cell<u64>>,
    row: ByteRecord,
}

impl<R: Read> DelimitedReader<R> {
    pub(in super::super) fn new(input: R, delimiter: u8) -> Self {
        let allowance = Rc::new(Cell::new(ROW_BYTES_MAX));
        let input = Metered { input, allowance: Rc::clone(&allowance) };
        let rows = csv::ReaderBuilder::new().delimiter(delimiter).buffer_capacity(1 << 16).from_reader(input);
        Self { rows, columns: None, allowance, row: ByteRecord::new() }
    }
}

impl<R: Read> RecordReader for DelimitedReader<R> {
    fn read(&mut self) -> io::Result<Option<Row>> {
        let columns = match self.columns {
            Some(columns) => columns,
            None => *self.columns.insert(header(self.rows.byte_headers().map_err(csv_error)?)?),
        };
        self.allowance.set(ROW_BYTES_MAX);
        match self.rows.read_byte_record(&mut self.row) {
            Ok(false) => Ok(None),
            Ok(true) => {
                let line = self.row.position().map_or(0, csv::Position::line);
                Ok(Some(Row { line, record: parse(&self.row, &columns) }))
            }
            Err(error) => match error.kind() {
                csv::ErrorKind::UnequalLengths { pos, expected_len, len } => Ok(Some(Row {
                    line: pos.as_ref().map_or(0, csv::Position::line),
                    record: Err(format!("has {len} fields, not {expected_len}")),
                })),
                _ => Err(csv_error(error)),
            },
        }
    }
}

/// Where the columns are.
fn header(names: &ByteRecord) -> io::Result<[Option<usize>; 5]> {
    let mut columns = [None; 5];
    for (position, name) in names.iter().enumerate() {
        let column = COLUMNS.iter().position(|column| column.as_bytes() == name);
        match column {
            Some(column) if columns[column].is_none() => columns[column] = Some(position),
            _ => return Err(bad_header(&format!("{:?} is not a column", String::from_utf8_lossy(name)))),
        }
    }
    let [key, value, _, key_base64, value_base64] = columns;
    if key.or(key_base64).is_none() || value.or(value_base64).is_none() {
        return Err(bad_header("there is no key or no value"));
    }
    Ok(columns)
}

fn bad_header(why: &str) -> io::Error {
    let columns = COLUMNS.join(", ");
    let text = format!("the first row must name the columns, each once, out of {columns}: {why}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn parse(row: &ByteRecord, columns: &[Option<usize>; 5]) -> Result<Record, String> {
    let [key, value, ttl, key_base64, value_base64] = columns.map(|column| column.and_then(|at| row.get(at)));
    let text = |name: &str, bytes: Option<&[u8]>| match bytes {
        None | Some([]) => Ok(None),
        Some(bytes) => std::str::from_utf8(bytes)
            .map(|text| Some(text.to_owned()))
            .map_err(|_| format!("{name} is not text")),
    };
    let ttl = match text("ttl", ttl)? {
        Some(ttl) => Some(ttl.trim().parse::<f64>().map_err(|_| "ttl is not a number".to_owned())?),
        None => None,
    };
    let (key_base64, value_base64) = (text("key_b64", key_base64)?, text("value_b64", value_base64)?);
    // An empty plain field beside an encoded one stands for "not used".
    let plain = |field: Option<&[u8]>, encoded: &Option<String>| {
        field.filter(|bytes| encoded.is_none() || !bytes.is_empty()).map(<[u8]>::to_vec)
    };
    let empty_value = value_base64.is_none().then(Vec::new);
    record(
        plain(key, &key_base64),
        key_base64.as_deref(),
        plain(value, &value_base64).or(empty_value),
        value_base64.as_deref(),
        ttl,
    )
}

fn csv_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        kind => io::Error::new(io::ErrorKind::InvalidData, format!("{kind:?}")),
    }
}

/// Refuses to read on when a row has used up its allowance.
struct Metered<R> {
    input: R,
    allowance: Rc<Cell<u64>>,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.allowance.get() == 0 {
            let text = format!("a row is longer than {ROW_BYTES_MAX} bytes; is a quote missing?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let read = self.input.read(buffer)?;
        self.allowance.set(self.allowance.get().saturating_sub(read as u64));
        Ok(read)
    }
}

/// Writes rows, after one that names the columns.
pub(in super::super) struct DelimitedWriter<W: Write> {
    rows: csv::Writer<W>,
    begun: bool,
}

impl<W: Write> DelimitedWriter<W> {
    pub(in super::super) fn new(output: W, delimiter: u8) -> Self {
        let rows =
            csv::WriterBuilder::new().delimiter(delimiter).buffer_capacity(1 << 16).from_writer(output);
        Self { rows, begun: false }
    }

    fn begin(&mut self) -> io::Result<()> {
        if !self.begun {
            self.begun = true;
            self.rows.write_record(COLUMNS).map_err(csv_error)?;
        }
        Ok(())
    }
}

impl<W: Write> RecordWriter for DelimitedWriter<W> {
    fn write(&mut self, record: &ScanRecord) -> io::Result<()> {
        self.begin()?;
        let (key, key_base64) = forms(&record.key);
        let (value, value_base64) = forms(&record.value);
        let ttl = ttl_seconds(record).map_or_else(String::new, |seconds| seconds.to_string());
        let row = [key, value, ttl.as_bytes(), key_base64.as_bytes(), value_base64.as_bytes()];
        self.rows.write_record(row).map_err(csv_error)
    }

    fn finish(&mut self) -> io::Result<()> {
        self.begin()?;
        self.rows.flush()
    }
}

/// The plain and the encoded field of some bytes: one of them is empty.
fn forms(bytes: &[u8]) -> (&[u8], String) {
    if std::str::from_utf8(bytes).is_ok() { (bytes, String::new()) } else { (&[], to_base64(bytes)) }
}
