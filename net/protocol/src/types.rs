//! The small values that requests and replies share.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::error::ProtocolError;

/// The version of a record as clients see it: 16 bytes, compared only for equality. When it was written
/// can be read from it; which of two is newer cannot.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Version(pub [u8; 16]);

impl Version {
    /// No record: all bytes zero.
    pub const ABSENT: Self = Self([0; 16]);

    /// Whether it says that there is no record.
    pub fn is_absent(&self) -> bool {
        *self == Self::ABSENT
    }

    /// When the record was written, in milliseconds since 1970 by the clock of whoever chose its stamp.
    /// For people: stamps of equal milliseconds differ.
    pub fn written_ms(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_le_bytes([a, b, c, d, e, f, g, h]) >> 16
    }
}

/// From the 32 hexadecimal digits that it is shown as.
impl FromStr for Version {
    type Err = ProtocolError;

    fn from_str(text: &str) -> Result<Self, ProtocolError> {
        let bad = ProtocolError::BadBody("a version is written as 32 hexadecimal digits");
        // The parser of numbers takes a sign.
        if text.len() != 32 || text.starts_with('+') {
            return Err(bad);
        }
        u128::from_str_radix(text, 16).map(|number| Self(number.to_be_bytes())).map_err(|_| bad)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Version({self})")
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// When a write is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Durability {
    /// After its bytes are on disk.
    #[default]
    Sync,
    /// When it is queued for the disk: a crash may lose the last moments.
    Buffered,
}

impl Durability {
    pub(crate) const fn to_u8(self) -> u8 {
        match self {
            Self::Sync => 0,
            Self::Buffered => 1,
        }
    }

    pub(crate) const fn from_u8(number: u8) -> Result<Self, ProtocolError> {
        match number {
            0 => Ok(Self::Sync),
            1 => Ok(Self::Buffered),
            _ => Err(ProtocolError::Unsupported("durability")),
        }
    }
}

/// How long a written record lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Ttl {
    /// As long as its namespace says.
    #[default]
    NamespaceDefault,
    /// For ever, whatever the namespace says.
    Never,
    /// Milliseconds, counted from the record's stamp.
    Millis(NonZeroU64),
}

impl Ttl {
    /// A time in milliseconds; 0 = never expires.
    pub const fn from_millis(ttl_ms: u64) -> Self {
        match NonZeroU64::new(ttl_ms) {
            Some(ttl_ms) => Self::Millis(ttl_ms),
            None => Self::Never,
        }
    }

    /// The time in milliseconds when `default_ttl_ms` is the namespace's; 0 = never expires.
    pub const fn millis_or(self, default_ttl_ms: u64) -> u64 {
        match self {
            Self::NamespaceDefault => default_ttl_ms,
            Self::Never => 0,
            Self::Millis(ttl_ms) => ttl_ms.get(),
        }
    }

    /// Whether it is given, and the milliseconds.
    pub(crate) const fn to_wire(self) -> (bool, u64) {
        match self {
            Self::NamespaceDefault => (false, 0),
            Self::Never => (true, 0),
            Self::Millis(ttl_ms) => (true, ttl_ms.get()),
        }
    }

    pub(crate) const fn from_wire(given: bool, ttl_ms: u64) -> Result<Self, ProtocolError> {
        match (given, ttl_ms) {
            (true, _) => Ok(Self::from_millis(ttl_ms)),
            (false, 0) => Ok(Self::NamespaceDefault),
            (false, _) => Err(ProtocolError::BadBody("a TTL without its flag")),
        }
    }
}

/// A stamp that the client chose for its write, so that a retry is the same write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProposedStamp {
    /// Hybrid time: 48 bits of milliseconds since 1970 above a 16-bit counter.
    pub time: u64,
    /// Who chose it: the top bit set, the other 31 random per client.
    pub origin: u32,
}

impl ProposedStamp {
    /// Set in the origin of every stamp that a client chose.
    pub const ORIGIN_CLIENT_BIT: u32 = 1 << 31;

    /// Both numbers as they stand in a head, zeros without a stamp.
    pub(crate) fn to_wire(stamp: Option<Self>) -> (u64, u32) {
        stamp.map_or((0, 0), |stamp| (stamp.time, stamp.origin))
    }

    pub(crate) const fn from_wire(
        given: bool,
        time: u64,
        origin: u32,
    ) -> Result<Option<Self>, ProtocolError> {
        if !given {
            return if time == 0 && origin == 0 {
                Ok(None)
            } else {
                Err(ProtocolError::BadBody("a stamp without its flag"))
            };
        }
        if origin & Self::ORIGIN_CLIENT_BIT == 0 {
            return Err(ProtocolError::BadBody("the stamp's origin lacks the client bit"));
        }
        Ok(Some(Self { time, origin }))
    }
}

/// What must be true of the key for a conditional write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Condition {
    /// No visible record.
    Absent,
    /// A visible record.
    Present,
    /// A visible record of exactly this version; never [`Version::ABSENT`].
    Version(Version),
}

impl Condition {
    pub(crate) const fn to_wire(self) -> (u8, [u8; 16]) {
        match self {
            Self::Absent => (1, [0; 16]),
            Self::Present => (2, [0; 16]),
            Self::Version(version) => (3, version.0),
        }
    }

    pub(crate) fn from_wire(kind: u8, version: [u8; 16]) -> Result<Self, ProtocolError> {
        let version = Version(version);
        match (kind, version.is_absent()) {
            (1, true) => Ok(Self::Absent),
            (2, true) => Ok(Self::Present),
            (3, false) => Ok(Self::Version(version)),
            (1..=3, _) => Err(ProtocolError::BadBody("the version does not fit the condition")),
            _ => Err(ProtocolError::Unsupported("condition")),
        }
    }
}

/// What became of a write that did not fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WriteOutcome {
    /// It stands (or stood, before a later write).
    Applied,
    /// An equal or newer stamp already stands: nothing was changed. After a retry with the same
    /// stamp this is success.
    Superseded,
    /// An update that needs a record found none: nothing was changed.
    Missing,
}

impl WriteOutcome {
    pub(crate) const fn to_u8(self) -> u8 {
        match self {
            Self::Applied => 0,
            Self::Superseded => 1,
            Self::Missing => 2,
        }
    }

    pub(crate) const fn from_u8(number: u8) -> Result<Self, ProtocolError> {
        match number {
            0 => Ok(Self::Applied),
            1 => Ok(Self::Superseded),
            2 => Ok(Self::Missing),
            _ => Err(ProtocolError::Unsupported("write outcome")),
        }
    }
}

/// The state of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NamespaceState {
    /// In use.
    Live,
    /// Dropped: refused to requests, its records are being removed.
    Dropped,
}

impl NamespaceState {
    pub(crate) const fn to_u8(self) -> u8 {
        match self {
            Self::Live => 1,
            Self::Dropped => 2,
        }
    }

    pub(crate) const fn from_u8(number: u8) -> Result<Self, ProtocolError> {
        match number {
            1 => Ok(Self::Live),
            2 => Ok(Self::Dropped),
            _ => Err(ProtocolError::Unsupported("namespace state")),
        }
    }
}

/// A part of what a server says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Section {
    /// Counters, latencies and settings.
    #[default]
    All,
    /// The operations that took longest lately.
    SlowOperations,
    /// The keys that are accessed most.
    HotKeys,
    /// The open connections.
    Clients,
}

impl Section {
    /// The number that is sent.
    pub const fn to_u8(self) -> u8 {
        match self {
            Self::All => 0,
            Self::SlowOperations => 1,
            Self::HotKeys => 2,
            Self::Clients => 3,
        }
    }

    /// From the number that was sent.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::All),
            1 => Some(Self::SlowOperations),
            2 => Some(Self::HotKeys),
            3 => Some(Self::Clients),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_their_numbers() {
        for number in 0..=u8::MAX {
            let section = Section::from_u8(number);
            assert_eq!(section.is_some(), number < 4);
            assert!(section.is_none_or(|section| section.to_u8() == number));
        }
    }

    #[test]
    fn versions_are_read_as_they_are_shown() {
        let version = Version([1, 0, 0xd4, 0xe2, 0xad, 0xf8, 0xa1, 0x01, 0xdc, 0xe2, 0xe0, 0xe5, 0, 0, 0, 0]);
        assert_eq!(version.to_string().parse(), Ok(version));
        assert_eq!(version.written_ms(), 0x01a1_f8ad_e2d4);
        for bad in ["", "0100d4e2adf8a101dce2e0e50000000", "+100d4e2adf8a101dce2e0e500000000", "g"] {
            assert!(bad.parse::<Version>().is_err(), "{bad}");
        }
    }
}
