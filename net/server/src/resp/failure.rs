//! What goes wrong, in the words of RESP.
//!
//! What Redis refuses too is refused in its words, for clients and people know them. What it knows
//! nothing of begins with a code of its own and ends with what is known of the outcome.

use std::cell::{Cell, RefCell};

use pinion_protocol::resp::reply;
use pinion_protocol::{ErrorCode, Outcome};

use crate::core::{Core, Ticket};
use crate::message::ServerEnv;
use crate::refusal::Refusal;
use crate::watch;

pub(super) const SYNTAX: &str = "ERR syntax error";
pub(super) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
pub(super) const OVERFLOW: &str = "ERR increment or decrement would overflow";
pub(super) const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";
pub(super) const WRONG_PASS: &str = "WRONGPASS invalid username-password pair or user is disabled.";
pub(super) const NO_REPLICA_DECIDES: &str =
    "ERR this command needs one replica that decides, and the namespace has several that do (not applied)";

/// How the line of an error ends whose command has changed nothing.
const NOT_APPLIED: &str = "(not applied)\r\n";

/// How it ends if nobody can tell.
const OUTCOME_UNKNOWN: &str = "(outcome unknown)\r\n";

/// Longest name or argument that an error quotes, in bytes.
const QUOTED_BYTES_MAX: usize = 128;

impl<E: ServerEnv> Core<E> {
    /// Answers a command with an error.
    pub(crate) fn fail(&self, ticket: &Ticket, text: impl AsRef<[u8]>) {
        self.count_error(ticket);
        self.answer_as(ticket, watch::ERR, |out| reply::error(out, text.as_ref()));
    }
}

/// Wrong arguments: how many.
pub(super) fn arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

/// A time to live that makes no sense.
pub(super) fn expire_time(name: &str) -> String {
    format!("ERR invalid expire time in '{name}' command")
}

/// An argument that makes no sense where it stands, between these words.
pub(super) fn about(before: &str, argument: &[u8], after: &str) -> Vec<u8> {
    [before.as_bytes(), text(argument, QUOTED_BYTES_MAX), after.as_bytes()].concat()
}

/// A command that there is none of, with its arguments.
pub(super) fn unknown_command<'a>(name: &[u8], args: impl Iterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut quoted = Vec::new();
    for arg in args {
        if quoted.len() >= QUOTED_BYTES_MAX {
            break;
        }
        let room = QUOTED_BYTES_MAX - quoted.len();
        quoted.extend([&b"'"[..], text(arg, room), b"' "].concat());
    }
    let name = text(name, QUOTED_BYTES_MAX);
    [&b"ERR unknown command '"[..], name, b"', with args beginning with: ", &quoted[..]].concat()
}

/// A subcommand that there is none of.
pub(super) fn unknown_subcommand(command: &str, name: &[u8]) -> Vec<u8> {
    let (name, command) = (text(name, QUOTED_BYTES_MAX), command.to_ascii_uppercase());
    [&b"ERR unknown subcommand '"[..], name, b"'. Try ", command.as_bytes(), b" HELP."].concat()
}

/// As Redis quotes: up to a zero byte.
fn text(bytes: &[u8], bytes_max: usize) -> &[u8] {
    let bytes = &bytes[..bytes.len().min(bytes_max)];
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// Appends a refusal as an error.
pub(crate) fn put_refusal(refusal: &Refusal<'_>, out: &mut Vec<u8>) {
    let code = match refusal.code {
        ErrorCode::Overloaded => "OVERLOADED",
        ErrorCode::Deadline => "DEADLINE",
        ErrorCode::DiskFull => "DISKFULL",
        ErrorCode::Damaged => "DAMAGED",
        ErrorCode::ShuttingDown => "STOPPING",
        ErrorCode::StorageFailed => "STORAGE",
        _ => "ERR",
    };
    let outcome = match refusal.outcome {
        Outcome::NotApplied => "not applied",
        Outcome::Unknown => "outcome unknown",
    };
    let retry = match refusal.retry_after_ms {
        0 => String::new(),
        millis => format!("; try again after {millis} ms"),
    };
    let text = format!("{code} {}{retry} ({outcome})", refusal.message());
    reply::error(out, text.as_bytes());
}

/// Why a command fails whose parts are coming in. The first part that failed says why; that nothing was
/// applied it says only for itself.
#[derive(Debug, Default)]
pub(super) struct PartsFailed {
    line: RefCell<Option<Vec<u8>>>,
    /// Something was applied, or may have been.
    changed: Cell<bool>,
}

impl PartsFailed {
    /// A part has changed something.
    pub(super) fn changed(&self) {
        self.changed.set(true);
    }

    /// A part of this core has failed.
    pub(super) fn refuse(&self, refusal: &Refusal<'_>) {
        let mut line = Vec::new();
        put_refusal(refusal, &mut line);
        self.answered(&line);
    }

    /// Another core's part has failed with this line.
    pub(super) fn answered(&self, line: &[u8]) {
        if !line.ends_with(NOT_APPLIED.as_bytes()) {
            self.changed();
        }
        self.line.borrow_mut().get_or_insert_with(|| line.to_vec());
    }

    /// Whether a part has failed.
    pub(super) fn any(&self) -> bool {
        self.line.borrow().is_some()
    }

    /// The line to answer, if a part has failed.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        let mut line = self.line.take()?;
        if self.changed.get() && line.ends_with(NOT_APPLIED.as_bytes()) {
            line.truncate(line.len() - NOT_APPLIED.len());
            line.extend_from_slice(OUTCOME_UNKNOWN.as_bytes());
        }
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_quoted_is_bounded() {
        let long = [b'x'; 500];
        let said = unknown_command(&long, [&long[..], b"more"].into_iter());
        assert!(said.len() < 2 * QUOTED_BYTES_MAX + 80, "{}", said.len());
        assert!(about("ERR not ", &long, "").len() <= QUOTED_BYTES_MAX + 8);
        assert_eq!(about("ERR not '", b"a\0b", "'"), b"ERR not 'a'");
        let said = unknown_command(b"nope", [&b"a\0b"[..], b"c"].into_iter());
        assert_eq!(said, b"ERR unknown command 'nope', with args beginning with: 'a' 'c' ");
    }

    #[test]
    fn a_refusal_says_what_is_known() {
        let mut out = Vec::new();
        put_refusal(&Refusal::overloaded("too much", 10), &mut out);
        assert_eq!(out, b"-OVERLOADED too much; try again after 10 ms (not applied)\r\n");
        out.clear();
        put_refusal(&Refusal::unknown("lost"), &mut out);
        assert_eq!(out, b"-STORAGE lost (outcome unknown)\r\n");
    }

    #[test]
    fn that_nothing_was_applied_is_said_only_if_no_part_was() {
        let taken = |failed: PartsFailed| String::from_utf8(failed.take().unwrap_or_default()).unwrap();
        let busy = || Refusal::overloaded("too much", 0);
        let failed = PartsFailed::default();
        failed.changed();
        assert!(!failed.any() && failed.take().is_none());
        failed.refuse(&busy());
        assert_eq!(taken(failed), "-OVERLOADED too much (outcome unknown)\r\n");
        let failed = PartsFailed::default();
        failed.refuse(&busy());
        failed.answered(b"-DEADLINE late (not applied)\r\n");
        assert_eq!(taken(failed), "-OVERLOADED too much (not applied)\r\n");
        let failed = PartsFailed::default();
        failed.refuse(&busy());
        failed.answered(b"-STORAGE lost (outcome unknown)\r\n");
        assert_eq!(taken(failed), "-OVERLOADED too much (outcome unknown)\r\n");
    }
}
