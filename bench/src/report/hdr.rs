//! Histograms for HdrHistogram's own tools: a log of intervals, and the text of one histogram.
//!
//! The seconds of a run keep percentiles only, so the log has one interval for each kind of
//! operation: the whole of the measured time, tagged with the kind's name. Values are nanoseconds;
//! the greatest one of a line is in milliseconds, as Java's writer has it.

use std::io::Cursor;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

use super::RunReport;
use crate::error::{Error, Result};

/// Nanoseconds of a millisecond.
const MAX_DIVISOR: f64 = 1e6;

/// A histogram as the compressed V2 encoding in base64.
pub fn encode(histogram: &Histogram<u64>) -> String {
    let mut bytes = Vec::new();
    // It fails only where a count does not fit into 63 bits.
    V2DeflateSerializer::new().serialize(histogram, &mut bytes).expect("nobody counts to 2^63");
    STANDARD.encode(bytes)
}

/// The histogram of an [`encode`]d text.
///
/// # Errors
/// [`Error::Histogram`]: it is not one.
pub fn decode(text: &str) -> Result<Histogram<u64>> {
    let bytes = STANDARD.decode(text).map_err(|error| Error::Histogram(error.to_string()))?;
    let read = Deserializer::new().deserialize(&mut Cursor::new(bytes));
    read.map_err(|error| Error::Histogram(error.to_string()))
}

/// A log in version 1.3 of the format, whose base is the beginning of the run.
///
/// # Errors
/// [`Error::Histogram`]: the report's histogram of a kind cannot be read.
pub fn log(report: &RunReport) -> Result<String> {
    let began = UNIX_EPOCH + Duration::from_secs(report.started_unix_s);
    let (mut bytes, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!("[workload {} on {}, nanoseconds]", report.workload, report.target))
        .with_start_time(began)
        .with_base_time(began)
        .with_max_value_divisor(MAX_DIVISOR)
        .begin_log_with(&mut bytes, &mut serializer)?;
    let (start, length) = (whole(report.warmup_seconds), whole(report.seconds));
    for kind in &report.kinds {
        let histogram = decode(&kind.latency.hdr_base64)?;
        log.write_histogram(&histogram, start, length, Tag::new(&kind.name))
            .map_err(|error| Error::Histogram(error.to_string()))?;
    }
    Ok(String::from_utf8(bytes).expect("the log is text"))
}

/// What a report calls seconds, even where it was edited to be none.
fn whole(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::super::tests::{report, spread};
    use super::*;

    #[test]
    fn a_histogram_survives_its_text() {
        let histogram = spread(7);
        let text = encode(&histogram);
        assert!(text.starts_with("HISTF"), "the cookie of compressed V2 encodes so: {text}");
        assert_eq!(decode(&text).unwrap(), histogram);
        let empty = Histogram::new_with_bounds(1, 1_000_000_000, 3).unwrap();
        assert_eq!(decode(&encode(&empty)).unwrap(), empty);
        for wrong in ["", "HISTF", "not base64!", &text[..text.len() / 2]] {
            assert!(matches!(decode(wrong), Err(Error::Histogram(_))), "{wrong}");
        }
    }

    #[test]
    fn a_log_has_every_kind_over_the_whole_time() {
        let mut report = report();
        let text = log(&report).unwrap();
        assert!(text.starts_with("#[Histogram log format version 1.3]\n"), "{text}");
        let mut kinds = Vec::new();
        for entry in IntervalLogIterator::new(text.as_bytes()) {
            match entry.unwrap() {
                LogEntry::StartTime(time) | LogEntry::BaseTime(time) => {
                    assert_eq!(time.as_secs(), report.started_unix_s);
                }
                LogEntry::Interval(interval) => {
                    assert_eq!(interval.start_timestamp(), Duration::from_secs(1));
                    assert_eq!(interval.duration(), Duration::from_secs(4));
                    let histogram = decode(interval.encoded_histogram()).unwrap();
                    kinds.push((interval.tag().unwrap().as_str().to_owned(), interval.max(), histogram));
                }
            }
        }
        let names: Vec<&str> = kinds.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["READ", "UPDATE"]);
        assert!((kinds[1].1 - 2.0).abs() < 0.01, "milliseconds: {}", kinds[1].1);
        assert_eq!(kinds[0].2, spread(1));
        report.kinds[0].latency.hdr_base64 = "?".to_owned();
        assert!(matches!(log(&report), Err(Error::Histogram(_))));
    }
}
