//! Keys as people are shown them: their front, in printable characters.

use std::fmt::Write;

/// Bytes of a key that are kept.
pub(crate) const FRONT_BYTES_MAX: usize = 128;

/// The front of a key, and how long it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct KeyFront {
    front: Vec<u8>,
    bytes: usize,
}

impl KeyFront {
    pub(crate) fn of(key: &[u8]) -> Self {
        let mut this = Self::default();
        this.set(key);
        this
    }

    /// No key yet, with memory for the longest front.
    pub(super) fn with_room() -> Self {
        Self { front: Vec::with_capacity(FRONT_BYTES_MAX), bytes: 0 }
    }

    /// Another key, in the same memory.
    pub(crate) fn set(&mut self, key: &[u8]) {
        self.front.clear();
        self.front.extend_from_slice(&key[..key.len().min(FRONT_BYTES_MAX)]);
        self.bytes = key.len();
    }

    /// Bytes of the whole key.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// What is kept of it.
    pub(crate) fn front(&self) -> &[u8] {
        &self.front
    }

    /// What is kept of it as text: a byte that is not printable ASCII, and the backslash, as `\xHH`.
    pub(crate) fn text(&self) -> String {
        printable(&self.front)
    }
}

/// Bytes as text: one that is not printable ASCII, and the backslash, as `\xHH`.
pub(super) fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' => text.push_str("\\x5c"),
            b' '..=b'~' => text.push(char::from(*byte)),
            _ => write!(text, "\\x{byte:02x}").expect("writing to a string never fails"),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_shown_in_printable_characters() {
        assert_eq!(KeyFront::of(b"user:1 ~").text(), "user:1 ~");
        assert_eq!(KeyFront::of(b"a\\b\x00\xff\x7f").text(), "a\\x5cb\\x00\\xff\\x7f");
        let long = KeyFront::of(&[b'x'; 4_096]);
        assert_eq!((long.text().len(), long.bytes()), (FRONT_BYTES_MAX, 4_096));
    }
}
