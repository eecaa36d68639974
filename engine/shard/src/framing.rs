//! The prelude that every header of the engine's files starts with.
//!
//! Sixteen bytes: checksum u64, magic (four bytes), format version u16, header bytes u16. The
//! checksum is XXH3-64 over everything behind it up to the header's end. These sixteen bytes keep
//! their place in every future version, so that a reader tells a newer file (which it refuses by
//! name) from a damaged one.

use std::path::Path;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::codec::Decoder;
use crate::error::{Corruption, Error};

/// Bytes of the prelude.
pub(crate) const PRELUDE_BYTES: usize = 16;

/// What a header must be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeaderKind {
    /// The file kind, in words.
    pub(crate) name: &'static str,
    pub(crate) magic: [u8; 4],
    pub(crate) version: u16,
    /// Bytes of the whole header in this version.
    pub(crate) bytes: usize,
}

/// Why bytes are not the header that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    /// Fewer bytes than a header has.
    Short {
        bytes: usize,
    },
    Magic {
        found: [u8; 4],
    },
    /// The header says it is longer or shorter than it can be.
    Length {
        found: u16,
    },
    Checksum {
        computed: u64,
        found: u64,
    },
    /// A sound header of another version.
    Version {
        found: u16,
    },
}

impl HeaderKind {
    /// Fills in the prelude of a header whose other fields are written.
    pub(crate) fn seal(&self, header: &mut [u8], seed: u64) {
        debug_assert_eq!(header.len(), self.bytes);
        header[8..12].copy_from_slice(&self.magic);
        header[12..14].copy_from_slice(&self.version.to_le_bytes());
        header[14..16].copy_from_slice(&(self.bytes as u16).to_le_bytes());
        let checksum = xxh3_64_with_seed(&header[8..], seed);
        header[..8].copy_from_slice(&checksum.to_le_bytes());
    }

    /// Checks the header at the front of `bytes` and gives its fields behind the prelude.
    pub(crate) fn open<'a>(&self, bytes: &'a [u8], seed: u64) -> Result<Decoder<'a>, HeaderFault> {
        let short = HeaderFault::Short { bytes: bytes.len() };
        let mut prelude = Decoder::new(bytes);
        let found = prelude.u64().ok_or(short)?;
        let magic = prelude.array().ok_or(short)?;
        let version = prelude.u16().ok_or(short)?;
        let length = prelude.u16().ok_or(short)?;
        if magic != self.magic {
            return Err(HeaderFault::Magic { found: magic });
        }
        let covered = bytes.get(8..usize::from(length)).filter(|covered| covered.len() >= PRELUDE_BYTES - 8);
        let covered = covered.ok_or(HeaderFault::Length { found: length })?;
        let computed = xxh3_64_with_seed(covered, seed);
        if computed != found {
            return Err(HeaderFault::Checksum { computed, found });
        }
        if version != self.version {
            return Err(HeaderFault::Version { found: version });
        }
        if usize::from(length) != self.bytes {
            return Err(HeaderFault::Length { found: length });
        }
        Ok(Decoder::new(&covered[PRELUDE_BYTES - 8..]))
    }

    /// The fault as the error that a reader of `file` answers.
    pub(crate) fn error(&self, fault: HeaderFault, file: &Path, offset: u64) -> Error {
        if let HeaderFault::Version { found } = fault {
            return Error::WrongFormat {
                file: file.to_path_buf(),
                reason: format!(
                    "{} of format version {found}, this build reads version {}: use the build that wrote it",
                    self.name, self.version
                ),
            };
        }
        let (what, expected, found) = self.describe(fault);
        Corruption { file: file.to_path_buf(), offset, what, expected, found }.into()
    }

    /// Which check failed, what was expected, what was found.
    pub(crate) fn describe(&self, fault: HeaderFault) -> (&'static str, String, String) {
        let text = |magic: [u8; 4]| magic.escape_ascii().to_string();
        match fault {
            HeaderFault::Short { bytes } => {
                ("header", format!("{} bytes", self.bytes), format!("{bytes} bytes"))
            }
            HeaderFault::Magic { found } => ("magic", text(self.magic), text(found)),
            HeaderFault::Length { found } => ("header length", self.bytes.to_string(), found.to_string()),
            HeaderFault::Checksum { computed, found } => {
                ("header checksum", format!("{computed:016x}"), format!("{found:016x}"))
            }
            HeaderFault::Version { found } => ("format version", self.version.to_string(), found.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: HeaderKind = HeaderKind { name: "test", magic: *b"TEST", version: 2, bytes: 24 };

    #[test]
    fn every_flipped_bit_of_a_header_is_found() {
        let mut header = [0; 24];
        header[16..].copy_from_slice(&77u64.to_le_bytes());
        KIND.seal(&mut header, 5);
        assert_eq!(KIND.open(&header, 5).unwrap().u64(), Some(77));
        assert!(KIND.open(&header, 6).is_err());
        for bit in 0..header.len() * 8 {
            let mut flipped = header;
            flipped[bit / 8] ^= 1 << (bit % 8);
            let fault = KIND.open(&flipped, 5).unwrap_err();
            assert!(!matches!(fault, HeaderFault::Version { .. }), "bit {bit} looks like a newer file");
        }
        for cut in 0..header.len() {
            assert!(KIND.open(&header[..cut], 5).is_err());
        }
    }

    #[test]
    fn a_newer_header_is_refused_by_name() {
        let newer = HeaderKind { version: 3, bytes: 32, ..KIND };
        let mut header = [0; 32];
        newer.seal(&mut header, 5);
        assert_eq!(KIND.open(&header, 5).unwrap_err(), HeaderFault::Version { found: 3 });
        let error = KIND.error(HeaderFault::Version { found: 3 }, Path::new("f"), 0);
        assert!(matches!(error, Error::WrongFormat { .. }));
    }
}
