//! The list of parts: for each part its first separator and where its index and filter stand.

use super::BlockHandle;
use super::format::Damage;
use crate::codec::{Decoder, put_position};
use crate::key::OwnedPosition;

/// Parts a table may have: far more than tables are large, few enough to bound a damaged count.
const PARTS_MAX: usize = 1 << 20;

/// One line of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartEntry {
    pub(crate) records: u32,
    pub(crate) index: BlockHandle,
    /// `None`: the filter could not be built.
    pub(crate) filter: Option<BlockHandle>,
    /// Not greater than the first record of the part, greater than all records before it.
    pub(crate) separator: OwnedPosition,
}

/// Appends the encoded list.
pub(crate) fn encode(parts: &[PartEntry], out: &mut Vec<u8>) {
    out.extend_from_slice(&(parts.len() as u32).to_le_bytes());
    for part in parts {
        let filter = part.filter.unwrap_or(BlockHandle { page: 0, pages: 0 });
        let numbers = [part.records, part.index.page, part.index.pages, filter.page, filter.pages];
        for number in numbers {
            out.extend_from_slice(&number.to_le_bytes());
        }
        put_position(out, &part.separator.borrow());
    }
}

/// Reads an encoded list.
pub(crate) fn decode(bytes: &[u8]) -> Result<Vec<PartEntry>, Damage> {
    let short = || Damage::new(0, "list of parts", "whole entries", format!("{} bytes", bytes.len()));
    let mut fields = Decoder::new(bytes);
    let count = fields.u32().ok_or_else(short)? as usize;
    if !(1..=PARTS_MAX).contains(&count) {
        return Err(Damage::new(0, "parts", format!("1 to {PARTS_MAX}"), count));
    }
    let mut parts = Vec::new();
    for _ in 0..count {
        let mut number = || fields.u32().ok_or_else(short);
        let records = number()?;
        let index = BlockHandle { page: number()?, pages: number()? };
        let filter = BlockHandle { page: number()?, pages: number()? };
        let separator = fields.position().ok_or_else(short)?;
        parts.push(PartEntry { records, index, filter: (filter.pages > 0).then_some(filter), separator });
    }
    if !fields.rest().is_empty() {
        return Err(short());
    }
    if !parts.is_sorted_by(|left, right| left.separator < right.separator) {
        return Err(Damage::new(4, "parts", "ascending separators", "not"));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_survives_encoding() {
        let part = |page: u32, filter| PartEntry {
            records: page,
            index: BlockHandle { page, pages: 2 },
            filter,
            separator: OwnedPosition { user: page.to_be_bytes().into(), ..OwnedPosition::default() },
        };
        let parts = vec![part(3, None), part(9, Some(BlockHandle { page: 11, pages: 1 }))];
        let mut bytes = Vec::new();
        encode(&parts, &mut bytes);
        assert_eq!(decode(&bytes).unwrap(), parts);
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err());
        }
        for at in 0..bytes.len() {
            bytes[at] ^= 0x80;
            _ = decode(&bytes);
            bytes[at] ^= 0x80;
        }
    }
}
