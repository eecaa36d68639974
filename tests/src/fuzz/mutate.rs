//! Small changes to bytes that mean something.
//!
//! A mutation works on the tail of a buffer (from `from` on), so that one buffer can take a whole
//! stream of mutated pieces. Most changes hit the front of the piece, where heads and lengths are;
//! integers are set to the values at which length checks go wrong: limits, neighbours of limits,
//! powers of two, and the piece's own length and what remains of it.

use crate::world::Random;

/// How far from the front most changes are made, in bytes: header and head of a message.
const FRONT_BYTES: usize = 96;

/// The longest stretch that is inserted, removed or copied by one change.
const STRETCH_BYTES_MAX: usize = 24;

/// A number of the kind that finds mistakes; `length` is that of the piece it will stand in.
pub fn number(random: &mut Random, length: usize) -> u64 {
    let length = length as u64;
    match random.below(12) {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => length,
        4 => length.wrapping_sub(1 + random.below(48)),
        5 => length + 1 + random.below(48),
        6 => 1 << random.below(64),
        7 => (1 << random.below(64)) - 1,
        8 => u64::from(u32::MAX) - random.below(48),
        9 => u64::from(u16::MAX) - random.below(3),
        10 => random.below(256),
        _ => random.word(),
    }
}

/// Changes `bytes[from..]` once. `donor` is another piece, to take stretches from.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>, from: usize, donor: &[u8]) {
    let length = bytes.len() - from;
    if length == 0 {
        bytes.push(random.word() as u8);
        return;
    }
    let at = from + place(random, length);
    match random.below(16) {
        0..3 => bytes[at] ^= 1 << random.below(8),
        3 => bytes[at] = random.word() as u8,
        4 => bytes[at] = number(random, length) as u8,
        5 | 6 => put(bytes, at, &(number(random, length) as u16).to_le_bytes()),
        7 | 8 => put(bytes, at, &(number(random, length) as u32).to_le_bytes()),
        9 => put(bytes, at, &number(random, length).to_le_bytes()),
        10 => {
            // One more or less: counts and lengths that almost fit.
            let step = [1, 2, 255, 254][random.below(4) as usize];
            bytes[at] = bytes[at].wrapping_add(step);
        }
        11 => drop(bytes.drain(at..at + stretch(random, bytes.len() - at))),
        12 => {
            let inserted = random.word().to_le_bytes();
            let count = stretch(random, inserted.len());
            bytes.splice(at..at, inserted[..count].iter().copied());
        }
        13 if !donor.is_empty() => {
            let start = random.below(donor.len() as u64) as usize;
            let count = stretch(random, donor.len() - start);
            put(bytes, at, &donor[start..start + count]);
        }
        13 | 14 => {
            let fill = [0, 0xFF, b'a'][random.below(3) as usize];
            let count = stretch(random, bytes.len() - at);
            bytes[at..at + count].fill(fill);
        }
        _ => resize(random, bytes, from, at),
    }
}

/// Makes the piece longer or shorter at `at` and adds the difference to an integer before, which may
/// be the length that the difference belongs to.
fn resize(random: &mut Random, bytes: &mut Vec<u8>, from: usize, at: usize) {
    let count = stretch(random, bytes.len() - at);
    let difference = if random.one_in(2) {
        bytes.extend_from_within(at..at + count);
        count as u16
    } else {
        bytes.truncate(bytes.len() - count);
        (count as u16).wrapping_neg()
    };
    let length = bytes.len() - from;
    if length >= 2 {
        let field = from + place(random, length - 1);
        let value = u16::from_le_bytes([bytes[field], bytes[field + 1]]).wrapping_add(difference);
        put(bytes, field, &value.to_le_bytes());
    }
}

/// Where to change a piece: mostly near its front.
fn place(random: &mut Random, length: usize) -> usize {
    let within = if random.one_in(4) { length } else { length.min(FRONT_BYTES) };
    random.below(within as u64) as usize
}

fn stretch(random: &mut Random, left: usize) -> usize {
    (1 + random.below(STRETCH_BYTES_MAX as u64) as usize).min(left)
}

/// As much of `source` as there is room for.
fn put(bytes: &mut [u8], at: usize, source: &[u8]) {
    let count = source.len().min(bytes.len() - at);
    bytes[at..at + count].copy_from_slice(&source[..count]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutations_change_the_tail_only_and_reach_all_of_it() {
        let mut random = Random::new(3);
        let mut changed = [false; 200];
        let (mut longer, mut shorter) = (0, 0);
        for _ in 0..20_000 {
            let mut bytes = vec![0x55; 210];
            mutate(&mut random, &mut bytes, 10, &[0xAA; 40]);
            assert_eq!(bytes[..10], [0x55; 10]);
            longer += u32::from(bytes.len() > 210);
            shorter += u32::from(bytes.len() < 210);
            for (at, byte) in bytes[10..].iter().take(200).enumerate() {
                changed[at] |= *byte != 0x55;
            }
        }
        assert!(changed.iter().all(|changed| *changed));
        assert!(longer > 100 && shorter > 100, "{longer} {shorter}");
        let mut empty = Vec::new();
        mutate(&mut random, &mut empty, 0, &[]);
        assert_eq!(empty.len(), 1);
    }
}
