//! The filter of one part: most lookups of absent keys end here, without a read.
//!
//! Binary fuse filters (Graf and Lemire, "Binary Fuse Filters", 2022) over the hashes of the keys
//! of one part. Eight bits per fingerprint answer "maybe" for 0.39 % of absent keys at about ten
//! bits per key, sixteen bits for 0.0015 % at about twenty. Construction is one call that cannot
//! be sliced, hence the bound on a part. It may fail, though with distinct hashes it practically
//! does not: then the part has no filter, which is counted, and every lookup goes on to the index.

use xorf::{BinaryFuse8, BinaryFuse16, Descriptor, Filter as _};

use super::format::Damage;
use crate::codec::Decoder;

/// Bytes in front of the fingerprints.
const HEADER_BYTES: usize = 32;
/// Version of the encoding and of the hash and fingerprint functions behind it.
const FILTER_VERSION: u8 = 1;

/// Bits per fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterWidth {
    /// For the last level, which holds most keys.
    Eight,
    /// For the levels above, where a false "maybe" costs a read that finds nothing.
    Sixteen,
}

/// A filter in memory.
#[derive(Debug)]
pub(crate) enum Filter {
    Eight(BinaryFuse8),
    Sixteen(BinaryFuse16),
}

/// Builds the filter of some hashes and encodes it, or says that it could not. Sorts `hashes` and
/// removes what is there twice.
pub(crate) fn build(width: FilterWidth, hashes: &mut Vec<u64>) -> Option<Vec<u8>> {
    hashes.sort_unstable();
    hashes.dedup();
    let keys = hashes.len() as u32;
    match width {
        FilterWidth::Eight => {
            let filter = BinaryFuse8::try_from(hashes.as_slice()).ok()?;
            let mut out = header(8, keys, &filter.descriptor, filter.fingerprints.len());
            out.extend_from_slice(&filter.fingerprints);
            Some(out)
        }
        FilterWidth::Sixteen => {
            let filter = BinaryFuse16::try_from(hashes.as_slice()).ok()?;
            let mut out = header(16, keys, &filter.descriptor, filter.fingerprints.len());
            out.extend(filter.fingerprints.iter().flat_map(|fingerprint| fingerprint.to_le_bytes()));
            Some(out)
        }
    }
}

fn header(bits: u8, keys: u32, descriptor: &Descriptor, fingerprints: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + fingerprints * usize::from(bits / 8));
    out.extend_from_slice(&[FILTER_VERSION, bits, 0, 0]);
    out.extend_from_slice(&keys.to_le_bytes());
    out.extend_from_slice(&descriptor.seed.to_le_bytes());
    out.extend_from_slice(&descriptor.segment_length.to_le_bytes());
    out.extend_from_slice(&descriptor.segment_length_mask.to_le_bytes());
    out.extend_from_slice(&descriptor.segment_count_length.to_le_bytes());
    out.extend_from_slice(&(fingerprints as u32).to_le_bytes());
    out
}

impl Filter {
    /// Reads an encoded filter; checks that no lookup can reach outside of it.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Damage> {
        let short = || Damage::new(0, "filter length", HEADER_BYTES, bytes.len());
        let mut fields = Decoder::new(bytes);
        let [version, bits, _, _] = fields.array::<4>().ok_or_else(short)?;
        let _keys = fields.u32().ok_or_else(short)?;
        let descriptor = Descriptor {
            seed: fields.u64().ok_or_else(short)?,
            segment_length: fields.u32().ok_or_else(short)?,
            segment_length_mask: fields.u32().ok_or_else(short)?,
            segment_count_length: fields.u32().ok_or_else(short)?,
        };
        let count = fields.u32().ok_or_else(short)?;
        let fingerprints = fields.rest();
        if version != FILTER_VERSION || !matches!(bits, 8 | 16) {
            let expected = format!("version {FILTER_VERSION} with 8 or 16 bits");
            return Err(Damage::new(
                0,
                "filter kind",
                expected,
                format!("version {version} with {bits} bits"),
            ));
        }
        let expected = u64::from(count) * u64::from(bits / 8);
        if fingerprints.len() as u64 != expected {
            return Err(Damage::new(28, "fingerprint bytes", expected, fingerprints.len()));
        }
        if !fits(&descriptor, count) {
            let found = format!("{descriptor:?} over {count}");
            return Err(Damage::new(8, "filter layout", "segments that cover the fingerprints", found));
        }
        Ok(if bits == 8 {
            Self::Eight(BinaryFuse8 { descriptor, fingerprints: fingerprints.into() })
        } else {
            let (pairs, _) = fingerprints.as_chunks::<2>();
            let fingerprints = pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
            Self::Sixteen(BinaryFuse16 { descriptor, fingerprints })
        })
    }

    /// Whether the key with this hash may be there. Never false for one that is.
    pub(crate) fn may_contain(&self, hash: u64) -> bool {
        match self {
            Self::Eight(filter) => filter.contains(&hash),
            Self::Sixteen(filter) => filter.contains(&hash),
        }
    }

    /// Memory in bytes.
    pub(crate) fn resident_bytes(&self) -> usize {
        size_of::<Self>()
            + match self {
                Self::Eight(filter) => filter.fingerprints.len(),
                Self::Sixteen(filter) => filter.fingerprints.len() * 2,
            }
    }
}

/// Whether every lookup stays within `count` fingerprints: it takes one place in each of three
/// neighbouring segments, the first of them below `segment_count_length`.
fn fits(descriptor: &Descriptor, count: u32) -> bool {
    let Descriptor { segment_length, segment_length_mask, segment_count_length, .. } = *descriptor;
    segment_length.is_power_of_two()
        && segment_length_mask == segment_length - 1
        && segment_count_length > 0
        && segment_count_length.is_multiple_of(segment_length)
        && u64::from(segment_count_length) + 2 * u64::from(segment_length) <= u64::from(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::{NamespaceId, key_hash};

    fn hashes(from: u32, count: u32) -> Vec<u64> {
        (from..from + count).map(|number| key_hash(NamespaceId(0), &number.to_le_bytes())).collect()
    }

    #[test]
    fn filters_know_all_their_keys_and_few_others() {
        for (width, rate_max) in [(FilterWidth::Eight, 0.0055), (FilterWidth::Sixteen, 0.0002)] {
            for count in [1, 2, 3, 7, 100, 2500, 4095, 4096, 8192] {
                let mut given = hashes(0, count);
                given.push(given[0]);
                let encoded = build(width, &mut given).unwrap();
                let filter = Filter::decode(&encoded).unwrap();
                assert!(hashes(0, count).iter().all(|hash| filter.may_contain(*hash)));
                let strangers = hashes(1 << 20, 200_000);
                let wrong = strangers.iter().filter(|hash| filter.may_contain(**hash)).count();
                // Of a handful of keys most fingerprints are unused zeros, which say "maybe" more often.
                if count >= 100 {
                    assert!((wrong as f64) < rate_max * 200_000.0, "{width:?} {count}: {wrong}");
                }
            }
        }
    }

    #[test]
    fn part_sizes_build_without_fail() {
        for count in (3900..4097).step_by(7) {
            assert!(build(FilterWidth::Eight, &mut hashes(count, count)).is_some());
        }
    }

    #[test]
    fn a_damaged_filter_is_refused_and_never_reaches_outside() {
        for width in [FilterWidth::Eight, FilterWidth::Sixteen] {
            let encoded = build(width, &mut hashes(0, 50)).unwrap();
            for length in 0..encoded.len() {
                assert!(Filter::decode(&encoded[..length]).is_err());
            }
            for at in 0..HEADER_BYTES {
                for mask in 1..=255 {
                    let mut damaged = encoded.clone();
                    damaged[at] ^= mask;
                    if let Ok(filter) = Filter::decode(&damaged) {
                        hashes(0, 100).iter().for_each(|hash| _ = filter.may_contain(*hash));
                    }
                }
            }
        }
    }
}
