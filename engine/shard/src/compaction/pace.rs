//! How fast compaction goes, and when writes have to wait for it.
//!
//! Compaction spends credits, in bytes read. Every byte that is written earns as many as the write
//! amplification the levels are expected to cost; an idle device earns a small rate on top, so that
//! what is due gets done when nobody writes. So compaction neither falls behind slowly nor takes
//! the device for itself in bursts. Above *soft* debt the earnings rise in proportion, up to four
//! times at *hard* debt; from there compaction goes as fast as it can. The number of runs
//! above each other counts like debt, whatever their size, because reads look at each of them.
//!
//! Above hard debt writes are refused, with the time after which trying again makes sense. Not all
//! of them: what compaction reads earns room for writes at the same exchange rate, so the rate of
//! accepted writes glides to what compaction sustains instead of stopping and starting. At twice the
//! hard debt every write is refused. Nothing ever sleeps.
//!
//! Pure: time is passed in, from a clock that never runs back.

use std::time::Duration;

use pinion_env::Monotonic;

/// How a shard paces compaction.
#[derive(Debug, Clone, Copy)]
pub struct PaceOptions {
    /// Bytes that compaction is expected to read for each byte written.
    pub amplification: u32,
    /// Bytes per second that compaction may read on top, whatever is written.
    pub idle_bytes_per_second: u64,
    /// Debt in bytes above which compaction gets a larger share.
    pub soft_debt_bytes: u64,
    /// Debt in bytes above which writes are refused; greater than `soft_debt_bytes`.
    pub hard_debt_bytes: u64,
    /// Runs above each other that count like soft debt.
    pub runs_soft: usize,
    /// Runs above each other that count like hard debt; greater than `runs_soft`.
    pub runs_hard: usize,
    /// Credits kept for later, in bytes: what a burst of compaction may read.
    pub credits_max: u64,
}

impl Default for PaceOptions {
    fn default() -> Self {
        Self {
            amplification: 20,
            idle_bytes_per_second: 16 << 20,
            soft_debt_bytes: 1 << 30,
            hard_debt_bytes: 8 << 30,
            runs_soft: 6,
            runs_hard: 16,
            credits_max: 64 << 20,
        }
    }
}

/// Whether compaction may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// It may take its next step.
    Go,
    /// Ask again after this time, or when something was written.
    Wait(Duration),
}

/// Whether a write may enter the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Accept,
    /// Not now.
    Refuse {
        /// When to try again, in milliseconds.
        retry_after_ms: u32,
    },
}

/// Room for writes above hard debt never exceeds this, in bytes.
const ROOM_BYTES_MAX: i64 = 4 << 20;
/// Earnings at hard debt, times those below soft debt.
const EARNINGS_MAX: u64 = 4;
const WAIT_MS_MAX: u64 = 100;
const RETRY_MS_MIN: u64 = 10;
const RETRY_MS_MAX: u64 = 1_000;
/// Over which the speed of compaction is measured.
const SPEED_WINDOW: Duration = Duration::from_millis(250);

/// Credits of compaction and verdicts on writes. See the module's header.
#[derive(Debug)]
pub struct Pace {
    options: PaceOptions,
    /// What it was told is due.
    told_bytes: u64,
    /// The number of runs above each other as debt.
    runs_bytes: u64,
    /// The greater of the two.
    debt_bytes: u64,
    /// What writes and idle time earn with this debt, in thousandths: 1000 up to soft debt, rising evenly to
    /// [`EARNINGS_MAX`] times that at hard debt.
    earnings_thousandths: u64,
    /// In bytes; below 0 when a step cost more than there was.
    credits: i64,
    /// Bytes that may be written above hard debt.
    room: i64,
    /// When idle earnings were last counted.
    earned_at: Monotonic,
    window_start: Monotonic,
    window_bytes: u64,
    bytes_per_second: u64,
}

impl Pace {
    /// Starts with a full purse.
    pub fn new(options: PaceOptions, now: Monotonic) -> Self {
        Self {
            options,
            told_bytes: 0,
            runs_bytes: 0,
            debt_bytes: 0,
            earnings_thousandths: 1000,
            credits: signed(options.credits_max),
            room: 0,
            earned_at: now,
            window_start: now,
            window_bytes: 0,
            bytes_per_second: 0,
        }
    }

    /// Tells what is due now: after every flush and every job.
    pub fn set_debt(&mut self, debt_bytes: u64) {
        self.told_bytes = debt_bytes;
        self.weigh();
    }

    /// Tells how many runs there are above each other: after every flush and every job.
    pub fn set_runs(&mut self, runs: usize) {
        let options = &self.options;
        let span = options.hard_debt_bytes.saturating_sub(options.soft_debt_bytes);
        let runs_span = options.runs_hard.saturating_sub(options.runs_soft).max(1);
        self.runs_bytes = runs.checked_sub(options.runs_soft).map_or(0, |over| {
            let over = u128::from(span) * over as u128 / runs_span as u128;
            options.soft_debt_bytes.saturating_add(u64::try_from(over).unwrap_or(u64::MAX))
        });
        self.weigh();
    }

    fn weigh(&mut self) {
        self.debt_bytes = self.told_bytes.max(self.runs_bytes);
        let over = self.debt_bytes.saturating_sub(self.options.soft_debt_bytes);
        let span = self.options.hard_debt_bytes.saturating_sub(self.options.soft_debt_bytes).max(1);
        let rise = u128::from(over.min(span)) * u128::from((EARNINGS_MAX - 1) * 1000) / u128::from(span);
        self.earnings_thousandths = 1000 + rise as u64;
    }

    /// The debt it goes by, in bytes.
    pub const fn debt_bytes(&self) -> u64 {
        self.debt_bytes
    }

    /// How urgent compaction is, in thousandths: 0 up to soft debt, rising evenly to 1000 at hard debt.
    pub const fn urgency(&self) -> u32 {
        ((self.earnings_thousandths - 1000) / (EARNINGS_MAX - 1)) as u32
    }

    /// Whether a write of `bytes` may enter the log. An accepted one earns compaction its credits.
    pub fn admit(&mut self, bytes: u64) -> Verdict {
        if self.debt_bytes >= self.options.hard_debt_bytes {
            if self.room <= 0 || self.debt_bytes / 2 >= self.options.hard_debt_bytes {
                return Verdict::Refuse { retry_after_ms: self.retry_after_ms() };
            }
            // One write may be larger than the room: it is paid back before the next.
            self.room = self.room.saturating_sub(signed(bytes));
        }
        let earned = bytes.saturating_mul(u64::from(self.options.amplification));
        self.earn(earned.saturating_mul(self.earnings_thousandths) / 1000);
        Verdict::Accept
    }

    /// Whether compaction may take its next step. Each step is then reported by [`Pace::spend`].
    pub fn permit(&mut self, now: Monotonic) -> Permit {
        let idle = now.since(self.earned_at);
        self.earned_at = now;
        self.earn(self.idle_earnings(idle));
        if self.credits > 0 || self.debt_bytes >= self.options.hard_debt_bytes {
            return Permit::Go;
        }
        let missing = (1 - self.credits).unsigned_abs();
        let per_second = self.idle_earnings(Duration::from_secs(1)).max(1);
        let millis = missing.saturating_mul(1000).div_ceil(per_second).clamp(1, WAIT_MS_MAX);
        Permit::Wait(Duration::from_millis(millis))
    }

    /// Tells that compaction has read `bytes`.
    pub fn spend(&mut self, now: Monotonic, bytes: u64) {
        // At hard debt the purse may be empty all the time: it does not owe more than one purse.
        let floor = -signed(self.options.credits_max);
        self.credits = self.credits.saturating_sub(signed(bytes)).max(floor);
        let earned = signed(bytes / u64::from(self.options.amplification.max(1)));
        self.room = self.room.saturating_add(earned).min(ROOM_BYTES_MAX);
        self.window_bytes = self.window_bytes.saturating_add(bytes);
        let window = now.since(self.window_start);
        if window >= SPEED_WINDOW {
            let per_second = u128::from(self.window_bytes) * 1000 / window.as_millis().max(1);
            self.bytes_per_second = u64::try_from(per_second).unwrap_or(u64::MAX);
            self.window_start = now;
            self.window_bytes = 0;
        }
    }

    fn earn(&mut self, bytes: u64) {
        self.credits = self.credits.saturating_add(signed(bytes)).min(signed(self.options.credits_max));
    }

    fn idle_earnings(&self, time: Duration) -> u64 {
        let per_second =
            u128::from(self.options.idle_bytes_per_second) * u128::from(self.earnings_thousandths);
        u64::try_from(per_second * time.as_micros() / 1_000_000_000).unwrap_or(u64::MAX)
    }

    /// When compaction, at its present speed, will have worked the excess off or made room.
    fn retry_after_ms(&self) -> u32 {
        let excess = self.debt_bytes - self.options.hard_debt_bytes;
        let owed = self.room.min(0).unsigned_abs().saturating_mul(u64::from(self.options.amplification));
        let speed = self.bytes_per_second.max(1 << 20);
        let millis = u128::from(excess.max(owed)) * 1000 / u128::from(speed);
        millis.clamp(u128::from(RETRY_MS_MIN), u128::from(RETRY_MS_MAX)) as u32
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: PaceOptions = PaceOptions {
        amplification: 10,
        idle_bytes_per_second: 1_000_000,
        soft_debt_bytes: 10_000_000,
        hard_debt_bytes: 20_000_000,
        runs_soft: 6,
        runs_hard: 16,
        credits_max: 1_000_000,
    };

    const START: Monotonic = Monotonic::from_nanos(7);

    fn at(millis: u64) -> Monotonic {
        START.after(Duration::from_millis(millis))
    }

    /// Spends steps of 10 kB as long as it may; answers how many bytes.
    fn spend_all(pace: &mut Pace, now: Monotonic) -> u64 {
        let mut spent = 0;
        while pace.permit(now) == Permit::Go && spent < 1 << 30 {
            pace.spend(now, 10_000);
            spent += 10_000;
        }
        spent
    }

    #[test]
    fn writes_earn_their_amplification() {
        let mut pace = Pace::new(OPTIONS, START);
        assert_eq!(spend_all(&mut pace, START), 1_000_000);
        assert!(matches!(pace.permit(START), Permit::Wait(_)));
        assert_eq!(pace.admit(50_000), Verdict::Accept);
        let spent = spend_all(&mut pace, START);
        assert!((490_000..=510_000).contains(&spent), "{spent}");
    }

    #[test]
    fn idle_time_earns_and_waiting_is_bounded() {
        let mut pace = Pace::new(OPTIONS, START);
        spend_all(&mut pace, START);
        let Permit::Wait(wait) = pace.permit(START) else { panic!("the purse is empty") };
        assert!(wait <= Duration::from_millis(WAIT_MS_MAX));
        let spent = spend_all(&mut pace, at(500));
        assert!((480_000..=510_000).contains(&spent), "{spent}");
        // A purse, not a bank: an hour earns no more than it holds.
        assert!(spend_all(&mut pace, at(3_600_000)) <= 1_010_000);
    }

    #[test]
    fn urgency_rises_evenly_from_soft_to_hard_debt() {
        let mut pace = Pace::new(OPTIONS, START);
        let mut urgency = |debt| {
            pace.set_debt(debt);
            pace.urgency()
        };
        assert_eq!([0, 10_000_000, 15_000_000].map(&mut urgency), [0, 0, 500]);
        assert_eq!([20_000_000, u64::MAX, 11_000_000].map(&mut urgency), [1000, 1000, 100]);
    }

    #[test]
    fn soft_debt_raises_earnings_evenly() {
        let mut last = 0;
        for debt in [0, 10_000_000, 12_000_000, 15_000_000, 19_999_999] {
            let mut pace = Pace::new(OPTIONS, START);
            spend_all(&mut pace, START);
            pace.set_debt(debt);
            assert_eq!(pace.admit(20_000), Verdict::Accept);
            let spent = spend_all(&mut pace, START);
            assert!(spent >= last);
            last = spent;
        }
        assert!((780_000..=810_000).contains(&last), "four times at hard debt: {last}");
    }

    #[test]
    fn above_hard_debt_writes_get_what_compaction_earns() {
        let mut pace = Pace::new(OPTIONS, START);
        pace.set_debt(25_000_000);
        let Verdict::Refuse { retry_after_ms } = pace.admit(1) else { panic!("no room yet") };
        assert!((RETRY_MS_MIN as u32..=RETRY_MS_MAX as u32).contains(&retry_after_ms));
        // Compaction goes on without credits and makes room: a tenth of what it reads.
        let (mut accepted, mut read) = (0, 0);
        for step in 0..1000 {
            assert_eq!(pace.permit(at(step)), Permit::Go);
            pace.spend(at(step), 100_000);
            read += 100_000;
            while pace.admit(1_000) == Verdict::Accept {
                accepted += 1_000;
            }
        }
        assert!(accepted >= read / 11 && accepted <= read / 9, "{accepted} of {read}");
        pace.set_debt(40_000_000);
        pace.spend(at(2_000), 100_000);
        assert!(matches!(pace.admit(1), Verdict::Refuse { .. }), "no room at all at twice the hard debt");
        pace.set_debt(19_000_000);
        assert_eq!(pace.admit(1), Verdict::Accept);
    }

    #[test]
    fn runs_count_like_debt() {
        let mut pace = Pace::new(OPTIONS, START);
        for (runs, debt) in [(0, 0), (5, 0), (6, 10_000_000), (11, 15_000_000), (16, 20_000_000)] {
            pace.set_runs(runs);
            assert_eq!(pace.debt_bytes(), debt);
        }
        assert!(matches!(pace.admit(1), Verdict::Refuse { .. }));
        pace.set_runs(3);
        pace.set_debt(7);
        assert_eq!((pace.debt_bytes(), pace.admit(1)), (7, Verdict::Accept));
    }
}
