//! How far an import or export has come: a bar on a terminal, a line at the end everywhere.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Records between two looks at the bar: it costs more than a record does.
const RECORDS_PER_UPDATE: u64 = 64;

/// Progress of a load or save, shown on standard error.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    started: Instant,
    records: u64,
    bytes: u64,
    /// Bytes of the file that have been read, when it is read.
    read: Option<Arc<AtomicU64>>,
}

impl Progress {
    /// With a remaining time when the length of the input is known.
    pub(super) fn of_input(length: Option<u64>, read: Arc<AtomicU64>) -> Self {
        let bar = match length {
            Some(length) => ProgressBar::new(length)
                .with_style(style("{bar:30} {percent:>3} %  {msg}  {bytes}/{total_bytes}  {eta} left")),
            None => ProgressBar::no_length().with_style(style("{spinner} {msg}  {bytes}  {elapsed}")),
        };
        Self::new(bar, Some(read))
    }

    /// Without an end in sight.
    pub(super) fn of_output() -> Self {
        Self::new(ProgressBar::no_length().with_style(style("{spinner} {msg}  {elapsed}")), None)
    }

    fn new(bar: ProgressBar, read: Option<Arc<AtomicU64>>) -> Self {
        // Hidden by itself where standard error is no terminal.
        bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, started: Instant::now(), records: 0, bytes: 0, read }
    }

    /// A record of this many bytes is done.
    pub(super) fn record(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes += bytes as u64;
        if self.records.is_multiple_of(RECORDS_PER_UPDATE) && !self.bar.is_hidden() {
            if let Some(read) = &self.read {
                self.bar.set_position(read.load(Ordering::Relaxed));
            }
            self.bar.set_message(format!("{} records  {}", HumanCount(self.records), self.rate()));
        }
    }

    /// Tells something without disturbing the bar.
    pub(super) fn say(&self, text: &str) {
        self.bar.suspend(|| eprintln!("pinion: {text}"));
    }

    /// Records that are done.
    pub(super) fn records(&self) -> u64 {
        self.records
    }

    /// Removes the bar and tells the sum.
    pub(super) fn finish(self, done: &str) {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f64();
        let (records, bytes) = (HumanCount(self.records), HumanBytes(self.bytes));
        eprintln!("{done} {records} records ({bytes}) in {seconds:.1} s: {}", self.rate());
    }

    fn rate(&self) -> String {
        let seconds = self.started.elapsed().as_secs_f64().max(0.001);
        format!("{} records/s", HumanCount((self.records as f64 / seconds) as u64))
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates above are sound")
}

/// Counts what is read through it.
pub(super) struct Counted<R> {
    pub(super) input: R,
    pub(super) read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
