//! Bytes for people and for programs: raw into a pipe, readable on a terminal.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;

/// Prints a value: its bytes into a pipe or file, escaped and with a newline to a terminal.
pub(super) fn value(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if out.is_terminal() {
        writeln!(out, "{}", escape(bytes))?;
    } else {
        out.write_all(bytes)?;
    }
    out.flush()
}

/// Printable text as it is; everything else as `\n`, `\t`, `\r`, `\\` or `\xNN`. One line, and
/// never a control sequence of a terminal.
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\n' => text.push_str("\\n"),
                '\t' => text.push_str("\\t"),
                '\r' => text.push_str("\\r"),
                '\\' => text.push_str("\\\\"),
                letter if letter.is_control() => {
                    let mut utf8 = [0; 4];
                    letter.encode_utf8(&mut utf8).bytes().for_each(|byte| push_hex(&mut text, byte));
                }
                letter => text.push(letter),
            }
        }
        chunk.invalid().iter().for_each(|byte| push_hex(&mut text, *byte));
    }
    text
}

fn push_hex(text: &mut String, byte: u8) {
    write!(text, "\\x{byte:02x}").expect("writing to a string does not fail");
}

/// Seconds from now until an expiry, by this machine's clock; 0 when it has passed.
pub(super) fn seconds_left(expiry: SystemTime) -> f64 {
    expiry.duration_since(SystemTime::now()).map_or(0.0, |left| left.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_could_act_on_is_escaped() {
        assert_eq!(escape("plain é".as_bytes()), "plain é");
        assert_eq!(escape(b"a\tb\nc\\d\r"), "a\\tb\\nc\\\\d\\r");
        assert_eq!(escape(b"\x1b[2J\xff\x00"), "\\x1b[2J\\xff\\x00");
        assert_eq!(escape("\u{9b}2J".as_bytes()), "\\xc2\\x9b2J");
    }
}
