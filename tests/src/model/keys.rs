//! Keys that are hard on order, prefixes and placement.
//!
//! Most share a tag, and so a partition: that makes them neighbours in every table.

use std::collections::BTreeSet;

use pinion_engine::KEY_BYTES_MAX;

use super::plan::KeyShape;
use crate::world::Random;

/// Bytes at which signs, ends and separators go wrong.
const EDGES: [u8; 8] = [0x00, 0x01, 0x7f, 0x80, 0xfe, 0xff, b'{', b'}'];

/// The keys of one history, all different.
pub(super) fn draw_keys(random: &mut Random) -> Vec<KeyShape> {
    let wanted = if random.one_in(3) { random.between(3, 12) } else { random.between(12, 60) } as usize;
    // Long keys fill tables fast: only some histories have them, and not many.
    let long = random.one_in(4);
    let families: Vec<u64> = (0..7).filter(|_| random.one_in(2)).collect();
    let mut seen = BTreeSet::new();
    let mut keys = Vec::new();
    for attempt in 0..wanted * 4 {
        if keys.len() == wanted {
            break;
        }
        let key = if long && attempt % 6 == 0 {
            long_key(random)
        } else if families.is_empty() {
            short_key(random, 0)
        } else {
            let family = families[random.below(families.len() as u64) as usize];
            short_key(random, family)
        };
        if seen.insert(key.bytes()) {
            keys.push(key);
        }
    }
    keys
}

fn short_key(random: &mut Random, family: u64) -> KeyShape {
    let number = random.below(120);
    let shape = |head: &[u8], fill: u8, count: u64, tail: &[u8]| KeyShape {
        head: head.to_vec(),
        fill,
        count: count as u16,
        tail: tail.to_vec(),
    };
    match family {
        0 => shape(format!("key-{number:03}").as_bytes(), 0, 0, b""),
        1 => shape(format!("{{t{}}}/{number:03}", number % 3).as_bytes(), 0, 0, b""),
        2 => shape(b"{t}", 0x00, number % 9, edge_tail(random, 2)),
        3 => shape(b"{t}", 0xff, number % 9, edge_tail(random, 2)),
        // The first ten bytes decide most comparisons of positions.
        4 => shape(b"{t}", b'a', 5 + number % 5, edge_tail(random, 3)),
        5 => shape(b"a-prefix-that-all-of-them-share/{t}/", b'x', number % 40, edge_tail(random, 2)),
        _ => {
            let mut bytes: Vec<u8> = (0..random.between(1, 3)).map(|_| edge(random)).collect();
            bytes.truncate(3);
            shape(&bytes, 0, 0, b"")
        }
    }
}

/// Keys about as long as is allowed, one of them a prefix of the other now and then.
fn long_key(random: &mut Random) -> KeyShape {
    let fill = if random.one_in(2) { edge(random) } else { b'l' };
    let tail = edge_tail(random, 3).to_vec();
    let most = KEY_BYTES_MAX - 3 - tail.len();
    let count = match random.below(4) {
        0 => most,
        1 => most - random.below(3) as usize,
        2 => 240 + random.below(30) as usize,
        _ => 1000,
    };
    KeyShape { head: b"{t}".to_vec(), fill, count: count as u16, tail }
}

fn edge(random: &mut Random) -> u8 {
    EDGES[random.below(EDGES.len() as u64) as usize]
}

/// Up to so many bytes from the edges.
fn edge_tail(random: &mut Random, most: usize) -> &'static [u8] {
    const TAILS: [&[u8]; 9] =
        [b"", b"\x00", b"\xff", b"\x01", b"\x00\x00", b"\xff\xff", b"\x00\xff", b"\xff\x00", b"\x00\x00\x00"];
    let fitting: Vec<&'static [u8]> = TAILS.into_iter().filter(|tail| tail.len() <= most).collect();
    fitting[random.below(fitting.len() as u64) as usize]
}
