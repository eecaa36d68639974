//! GETs that come together: their memory is asked for before the first is answered.
//!
//! What `group` does for frames, in small: the places in the index, then the headers, then the records
//! of some GETs at the front of a chunk. Hints that change nothing but time.

use pinion_engine::Ahead;

use crate::coordinator::Place;
use crate::core::{Core, CoreShard};
use crate::message::ServerEnv;

/// GETs that are looked at before the first of them is answered.
const GETS_MAX: usize = 16;

/// How a GET begins that a client's library writes.
const GET: &[u8] = b"*2\r\n$3\r\nGET\r\n$";

/// Most digits of the length of a key.
const DIGITS_MAX: usize = 4;

/// Asks for the memory of the GETs at the front of `bytes`, if there are several; answers how many bytes
/// they are.
pub(super) fn look_ahead<E: ServerEnv>(core: &Core<E>, bytes: &[u8]) -> usize {
    let Some(namespace) = core.resp.namespace.get() else { return 0 };
    let mut gets: [Option<(&CoreShard<E>, u64, Ahead)>; GETS_MAX] = [const { None }; GETS_MAX];
    let (mut count, mut used) = (0, 0);
    for slot in &mut gets {
        let Some((key, bytes)) = get(&bytes[used..]) else { break };
        (count, used) = (count + 1, used + bytes);
        let key = core.key(namespace, key);
        if let Place::Here(shard) = core.place(key.partition) {
            shard.look_ahead(key.hash);
            *slot = Some((shard, key.hash, Ahead::default()));
        }
    }
    if count > 1 {
        for (_, shard) in core.shards() {
            let here = gets.iter_mut().flatten().filter(|(of, ..)| std::ptr::eq(*of, shard));
            shard.look_ahead_headers(here.map(|(_, hash, ahead)| (*hash, ahead)));
        }
        gets.iter().flatten().for_each(|(shard, hash, ahead)| shard.look_ahead_record(*hash, *ahead));
    }
    used
}

/// The key of a GET that lies whole at the front of `bytes`, and how many bytes it is.
#[inline]
fn get(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (front, rest) = bytes.split_at_checked(GET.len())?;
    if !front.eq_ignore_ascii_case(GET) {
        return None;
    }
    let digits = rest.iter().take(DIGITS_MAX + 1).position(|byte| !byte.is_ascii_digit())?;
    let length = rest[..digits].iter().fold(0, |length, digit| length * 10 + usize::from(digit - b'0'));
    let start = digits + 2;
    let key = rest.get(start..start + length)?;
    let bytes = GET.len() + start + length + 2;
    (bytes <= GET.len() + rest.len()).then_some((key, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_get_is_known_by_its_bytes() {
        let whole = b"*2\r\n$3\r\nget\r\n$3\r\nkey\r\n*2\r\n";
        assert_eq!(get(whole), Some((&b"key"[..], whole.len() - 4)));
        for end in 0..whole.len() - 4 {
            assert_eq!(get(&whole[..end]), None, "{end}");
        }
        for other in [
            &b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"[..],
            b"*2\r\n$3\r\nGET\r\n$99999\r\nk",
            b"GET k\r\n",
        ] {
            assert_eq!(get(other), None);
        }
    }
}
