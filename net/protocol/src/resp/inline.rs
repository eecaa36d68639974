//! Inline commands: a line of words, as typed by a person.
//!
//! Words are parted by blanks. In double quotes `\n \r \t \b \a \xHH` and any escaped character stand
//! for themselves' meaning; in single quotes only `\'` does. A closing quote ends its word.

/// Splits a line into words: `word` is called when one begins, `byte` with each of its bytes, `end` when
/// it ends. False if quotes are not balanced.
pub(super) fn split(line: &[u8], mut take: impl FnMut(Part)) -> bool {
    let mut rest = line;
    loop {
        while let [b' ' | b'\t' | b'\r' | b'\n' | 0x0B | 0x0C, after @ ..] = rest {
            rest = after;
        }
        if rest.is_empty() || rest[0] == 0 {
            return true;
        }
        take(Part::Begin);
        match word(rest, &mut take) {
            Some(after) => rest = after,
            None => return false,
        }
        take(Part::End);
    }
}

/// What a line is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A word begins.
    Begin,
    /// A byte of it.
    Byte(u8),
    /// It ends.
    End,
}

/// Takes one word; answers what follows it, `None` if a quote stays open or is followed by more.
fn word<'a>(mut rest: &'a [u8], take: &mut impl FnMut(Part)) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] | [b' ' | b'\n' | b'\r' | b'\t' | 0, ..] => return Some(rest),
            [b'"', after @ ..] => return closed(quoted(after, take)?),
            [b'\'', after @ ..] => return closed(single_quoted(after, take)?),
            [byte, after @ ..] => {
                take(Part::Byte(*byte));
                rest = after;
            }
        }
    }
}

/// A closing quote is followed by a blank or nothing.
fn closed(rest: &[u8]) -> Option<&[u8]> {
    match rest {
        [] | [b' ' | b'\t' | b'\r' | b'\n' | 0x0B | 0x0C, ..] => Some(rest),
        _ => None,
    }
}

fn quoted<'a>(mut rest: &'a [u8], take: &mut impl FnMut(Part)) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                let digit = |byte: u8| (byte as char).to_digit(16).unwrap_or_default() as u8;
                take(Part::Byte(digit(*high) << 4 | digit(*low)));
                after
            }
            [b'\\', escaped, after @ ..] if *escaped != 0 => {
                take(Part::Byte(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                }));
                after
            }
            [b'"', after @ ..] => return Some(after),
            [] | [0, ..] => return None,
            [byte, after @ ..] => {
                take(Part::Byte(*byte));
                after
            }
        };
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], take: &mut impl FnMut(Part)) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\\', b'\'', after @ ..] => {
                take(Part::Byte(b'\''));
                after
            }
            [b'\'', after @ ..] => return Some(after),
            [] | [0, ..] => return None,
            [byte, after @ ..] => {
                take(Part::Byte(*byte));
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Option<Vec<Vec<u8>>> {
        let mut words: Vec<Vec<u8>> = Vec::new();
        let balanced = split(line.as_bytes(), |part| match part {
            Part::Begin => words.push(Vec::new()),
            Part::Byte(byte) => words.last_mut().unwrap().push(byte),
            Part::End => {}
        });
        balanced.then_some(words)
    }

    #[test]
    fn lines_are_split_as_redis_splits_them() {
        let cases: [(&str, &[&[u8]]); 9] = [
            ("", &[]),
            (" \t ", &[]),
            ("GET key", &[b"GET", b"key"]),
            ("  SET  a\tb \r", &[b"SET", b"a", b"b"]),
            (r#"SET k "a b""#, &[b"SET", b"k", b"a b"]),
            (r#""\x00\xfF\n\r\t\b\a\\\"\q" x"#, &[b"\x00\xFF\n\r\t\x08\x07\\\"q", b"x"]),
            (r#"'a\'b\n"' ''"#, &[br#"a'b\n""#, b""]),
            (r#"a"b c""#, &[b"ab c"]),
            (r#""\xZ1""#, &[b"xZ1"]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line).unwrap(), expected, "{line:?}");
        }
        for open in [r#"""#, r#""a"#, r#"'a"#, r#""a"b"#, r#"'a'b"#, r#""a\""#, r#"x "y"z"#] {
            assert_eq!(words(open), None, "{open:?}");
        }
    }
}
