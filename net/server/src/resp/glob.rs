//! Patterns of KEYS, SCAN and CONFIG GET: `*`, `?`, `[a-z]`, `[^a]`, and `\` before what stands for itself.
//!
//! One star is remembered at a time: when what follows it does not fit, the last star takes one byte
//! more. That is enough, because whatever a star before it took could as well be taken by the last
//! one; so the time is at most pattern times text, and no pattern makes it explode.

/// Whether a pattern fits all of a text, bytes compared as they are.
pub(crate) fn fits(pattern: &[u8], text: &[u8]) -> bool {
    matches(pattern, text, false)
}

/// As [`fits`], but capitals and small letters are the same.
pub(crate) fn fits_any_case(pattern: &[u8], text: &[u8]) -> bool {
    matches(pattern, text, true)
}

fn matches(pattern: &[u8], text: &[u8], any_case: bool) -> bool {
    let (mut at, mut pattern_at) = (0, 0);
    // After the last star: where the pattern goes on, and the first byte that the star did not take.
    let mut star = None;
    loop {
        if let Some(b'*') = pattern.get(pattern_at) {
            pattern_at += 1;
            star = Some((pattern_at, at));
            continue;
        }
        let fitted = match (pattern.get(pattern_at), text.get(at)) {
            (None, None) => return true,
            (Some(_), Some(byte)) => one(&pattern[pattern_at..], *byte, any_case),
            _ => None,
        };
        match (fitted, &mut star) {
            (Some(used), _) => (at, pattern_at) = (at + 1, pattern_at + used),
            (None, Some((after, taken))) if *taken < text.len() => {
                *taken += 1;
                (at, pattern_at) = (*taken, *after);
            }
            _ => return false,
        }
    }
}

/// Whether what the pattern begins with fits a byte: how much of the pattern that was.
fn one(pattern: &[u8], byte: u8, any_case: bool) -> Option<usize> {
    let fold = |byte: u8| if any_case { byte.to_ascii_lowercase() } else { byte };
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', ..] => class(pattern, byte, fold),
        [b'\\', escaped, ..] => (fold(*escaped) == fold(byte)).then_some(2),
        [literal, ..] => (fold(*literal) == fold(byte)).then_some(1),
        [] => None,
    }
}

/// As [`one`] for a class in brackets. One that is not closed ends with the pattern.
fn class(pattern: &[u8], byte: u8, fold: impl Fn(u8) -> u8) -> Option<usize> {
    let negated = pattern.get(1) == Some(&b'^');
    let mut at = if negated { 2 } else { 1 };
    let mut found = false;
    loop {
        let (low, high, used) = match pattern.get(at..).unwrap_or_default() {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => (*escaped, *escaped, 2),
            [from, b'-', to, ..] => (*from.min(to), *from.max(to), 3),
            [literal, ..] => (*literal, *literal, 1),
        };
        let (low, high) = (fold(low), fold(high));
        found |= (low.min(high)..=low.max(high)).contains(&fold(byte));
        at += used;
    }
    (found != negated).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_those_of_redis() {
        let fitting = [
            ("", ""),
            ("*", ""),
            ("*", "anything"),
            ("a*c", "abbc"),
            ("a*b*c", "axxbyybzzc"),
            ("**x", "yx"),
            ("h?llo", "hello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[a-c]llo", "hbllo"),
            ("h[c-a]llo", "hbllo"),
            (r"h\*llo", "h*llo"),
            (r"[\]a]", "]"),
            ("[a-]", "^"),
            ("[ab", "b"),
            ("*[0-9]", "key:7"),
        ];
        for (pattern, text) in fitting {
            assert!(fits(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        let unfitting = [
            ("", "a"),
            ("a", ""),
            ("?", ""),
            ("h[^e]llo", "hello"),
            ("a*c", "abd"),
            (r"h\*llo", "hxllo"),
            ("KEY", "key"),
            ("[ab]", "c"),
            ("*a*b", "ba"),
        ];
        for (pattern, text) in unfitting {
            assert!(!fits(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
        assert!(fits_any_case(b"MAX*[A-C]", b"maxmemoryb"));
    }

    #[test]
    fn no_pattern_takes_for_ever() {
        let pattern = b"a*".repeat(200);
        let text = [b'a'; 3_000];
        assert!(fits(&pattern, &text));
        assert!(!fits(&[&pattern[..], b"b"].concat(), &text));
    }
}
