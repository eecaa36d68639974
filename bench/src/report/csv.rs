//! The seconds of a run as rows, for spreadsheets and plotters.

use csv::WriterBuilder;

use super::RunReport;

/// The fields of an [`Interval`](super::Interval), in its order.
const HEADER: [&str; 7] = ["end_s", "ops_per_second", "failed", "p50_us", "p99_us", "p999_us", "max_us"];

/// A header and one row for each interval.
pub fn intervals(report: &RunReport) -> String {
    // The header is written here and not taken from the first row: a run without rows has one too.
    let mut writer = WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record(HEADER).expect("memory takes everything");
    for interval in &report.intervals {
        writer.serialize(interval).expect("an interval is flat and memory takes everything");
    }
    let bytes = writer.into_inner().expect("memory takes everything");
    String::from_utf8(bytes).expect("numbers and a header of ASCII")
}

#[cfg(test)]
mod tests {
    use super::super::Interval;
    use super::super::tests::report;
    use super::*;

    #[test]
    fn every_interval_is_a_row_that_reads_back() {
        let report = report();
        let text = intervals(&report);
        assert!(text.starts_with("end_s,ops_per_second,failed,p50_us,p99_us,p999_us,max_us\n1.0,400.0,0,"));
        let read: Vec<Interval> =
            csv::Reader::from_reader(text.as_bytes()).deserialize().collect::<Result<_, _>>().unwrap();
        assert_eq!(read, report.intervals);
    }

    #[test]
    fn a_run_without_seconds_has_a_header() {
        let mut report = report();
        report.intervals.clear();
        assert_eq!(intervals(&report).lines().count(), 1);
    }
}
