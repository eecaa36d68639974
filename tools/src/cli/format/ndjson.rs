//! One JSON object per line: `{"key":"k","value":"v","ttl":60}`.
//!
//! Lines that are blank are skipped. A field that is not known makes a line malformed: a misspelt
//! `ttl` must not become a record that lives for ever.

use std::io::{self, BufRead, BufReader, Read, Write};

use pinion_client::ScanRecord;
use serde::Deserialize;

use super::{ROW_BYTES_MAX, RecordReader, RecordWriter, Row, record, to_base64, ttl_seconds};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: Option<String>,
    key_b64: Option<String>,
    value: Option<String>,
    value_b64: Option<String>,
    ttl: Option<f64>,
}

/// Reads lines of JSON.
pub(in super::super) struct NdjsonReader<R> {
    input: BufReader<R>,
    text: Vec<u8>,
    line: u64,
}

impl<R: Read> NdjsonReader<R> {
    pub(in super::super) fn new(input: R) -> Self {
        Self { input: BufReader::with_capacity(1 << 16, input), text: Vec::new(), line: 0 }
    }

    /// Skips what remains of a line that is too long.
    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let buffer = self.input.fill_buf()?;
            let (used, done) = match buffer.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end + 1, true),
                None => (buffer.len(), buffer.is_empty()),
            };
            self.input.consume(used);
            if done {
                return Ok(());
            }
        }
    }
}

impl<R: Read> RecordReader for NdjsonReader<R> {
    fn read(&mut self) -> io::Result<Option<Row>> {
        loop {
            self.text.clear();
            if (&mut self.input).take(ROW_BYTES_MAX).read_until(b'\n', &mut self.text)? == 0 {
                return Ok(None);
            }
            self.line += 1;
            if self.text.len() as u64 == ROW_BYTES_MAX && !self.text.ends_with(b"\n") {
                self.skip_line()?;
                let reason = format!("longer than {ROW_BYTES_MAX} bytes");
                return Ok(Some(Row { line: self.line, record: Err(reason) }));
            }
            if !self.text.trim_ascii().is_empty() {
                return Ok(Some(Row { line: self.line, record: parse(&self.text) }));
            }
        }
    }
}

fn parse(text: &[u8]) -> Result<super::Record, String> {
    let line: Line = serde_json::from_slice(text).map_err(|error| {
        // The line's number is told by whoever asked; the parser counts from the line's start.
        let text = error.to_string();
        text.split(" at line ").next().map(str::to_owned).unwrap_or(text)
    })?;
    record(
        line.key.map(String::into_bytes),
        line.key_b64.as_deref(),
        line.value.map(String::into_bytes),
        line.value_b64.as_deref(),
        line.ttl,
    )
}

/// Writes lines of JSON.
pub(in super::super) struct NdjsonWriter<W> {
    output: W,
}

impl<W: Write> NdjsonWriter<W> {
    pub(in super::super) fn new(output: W) -> Self {
        Self { output }
    }

    /// A line without a value.
    pub(in super::super) fn write_key(&mut self, key: &[u8]) -> io::Result<()> {
        self.output.write_all(b"{")?;
        self.field("key", key)?;
        self.output.write_all(b"}\n")
    }

    fn field(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        match std::str::from_utf8(bytes) {
            Ok(text) => {
                write!(self.output, "\"{name}\":")?;
                Ok(serde_json::to_writer(&mut self.output, text)?)
            }
            Err(_) => write!(self.output, "\"{name}_b64\":\"{}\"", to_base64(bytes)),
        }
    }
}

impl<W: Write> RecordWriter for NdjsonWriter<W> {
    fn write(&mut self, record: &ScanRecord) -> io::Result<()> {
        self.output.write_all(b"{")?;
        self.field("key", &record.key)?;
        self.output.write_all(b",")?;
        self.field("value", &record.value)?;
        if let Some(seconds) = ttl_seconds(record) {
            write!(self.output, ",\"ttl\":{seconds}")?;
        }
        self.output.write_all(b"}\n")
    }

    fn finish(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}
