//! Stamps: the version of a record, and the hybrid logical clock that issues them.
//!
//! A stamp is a hybrid logical time (Kulkarni et al., "Logical Physical Clocks", 2014: 48 bits of
//! milliseconds and a 16-bit counter) and the origin that issued it. The greater stamp wins,
//! whatever order records arrive in. The clock never runs back: it starts at the ceiling that the
//! shard's log carries (see `log`), so a wall clock set back while the node was down neither
//! reissues a stamp nor revives an expired record.

/// Who issued a stamp. Servers use node and core; clients set the top bit and 31 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Origin(pub u32);

impl Origin {
    /// Marks origins chosen by clients.
    pub const CLIENT_BIT: u32 = 1 << 31;

    /// Whether a client chose it.
    pub const fn is_client(self) -> bool {
        self.0 & Self::CLIENT_BIT != 0
    }
}

/// The version of a record. Ordered by time, then origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Stamp {
    /// 48 bits of milliseconds since 1970 above 16 bits of counter.
    pub time: HybridTime,
    /// Who issued it.
    pub origin: Origin,
}

impl Stamp {
    /// Bytes of the encoded form: time (u64), origin (u32), little-endian.
    pub const BYTES: usize = 12;

    /// Less than every stamp that is issued.
    pub const ZERO: Self = Self { time: HybridTime(0), origin: Origin(0) };

    /// The milliseconds from which an expiry is counted.
    pub const fn millis(self) -> u64 {
        self.time.millis()
    }

    /// The encoded form.
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.time.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.origin.0.to_le_bytes());
        bytes
    }

    /// From the encoded form.
    pub fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
        Self {
            time: HybridTime(u64::from_le_bytes([a, b, c, d, e, f, g, h])),
            origin: Origin(u32::from_le_bytes([i, j, k, l])),
        }
    }
}

/// 48 bits of milliseconds since 1970 above a 16-bit counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct HybridTime(pub u64);

impl HybridTime {
    const COUNTER_BITS: u32 = 16;

    /// Later than any that is ever issued (some 4,400 years after 1970), with room to go on counting.
    /// Stored times beyond it were not written by an engine.
    pub const LAST: Self = Self(u64::MAX >> 1);

    /// The first time of a millisecond.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis << Self::COUNTER_BITS)
    }

    /// The milliseconds.
    pub const fn millis(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }

    /// The next time; runs into the next millisecond when the counter is full.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The hybrid logical clock of one shard.
#[derive(Debug, Clone)]
pub struct HybridClock {
    latest: HybridTime,
    origin: Origin,
}

impl HybridClock {
    /// A clock that starts no earlier than `floor`.
    pub const fn new(origin: Origin, floor: HybridTime) -> Self {
        Self { latest: floor, origin }
    }

    /// A stamp greater than all issued and observed before.
    pub fn issue(&mut self, wall_ms: u64) -> Stamp {
        let wall = HybridTime::from_millis(wall_ms);
        self.latest = if wall > self.latest { wall } else { self.latest.next() };
        Stamp { time: self.latest, origin: self.origin }
    }

    /// Takes notice of a time seen elsewhere: later stamps are greater.
    pub fn observe(&mut self, time: HybridTime) {
        self.latest = self.latest.max(time);
    }

    /// The clock's time; never less than any stamp issued or observed. Expiry is judged by it.
    pub fn now(&mut self, wall_ms: u64) -> HybridTime {
        self.latest = self.latest.max(HybridTime::from_millis(wall_ms));
        self.latest
    }

    /// The latest time without looking at the wall clock.
    pub const fn latest(&self) -> HybridTime {
        self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_grow_when_the_wall_clock_is_set_back() {
        let mut clock = HybridClock::new(Origin(1), HybridTime(0));
        let first = clock.issue(1_000);
        let second = clock.issue(10);
        let third = clock.issue(1_001);
        assert!(first < second && second < third);
        assert_eq!(third.millis(), 1_001);
        clock.observe(HybridTime::from_millis(5_000));
        assert!(clock.issue(1_002).time > HybridTime::from_millis(5_000));
    }

    #[test]
    fn a_stamp_survives_encoding() {
        let stamp = Stamp { time: HybridTime(0x0102_0304_0506_0708), origin: Origin(0x8000_0001) };
        assert_eq!(Stamp::from_bytes(stamp.to_bytes()), stamp);
        assert!(stamp.origin.is_client());
    }
}
