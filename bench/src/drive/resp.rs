//! RESP2, as a load speaks it to Redis and what is like it.
//!
//! Answers come in the order of the commands, so a queue tells whose each is. Redis has no order of
//! keys: as YCSB's binding does, inserted keys go into a sorted set beside (all with the score 0, which
//! orders them by their bytes), and a scan reads keys from there and their values with MGET.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use super::batch::Record;
use super::speech::{Answer, Answers, Ask, AskOptions, append_record};
use crate::error::{Error, Result};

/// The key of the sorted set.
const INDEX: &[u8] = b"_keys";
/// The longest answer that is believed, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// The longest answer to PING that is read to its end.
const GREETING_BYTES_MAX: usize = 512;

#[derive(Debug)]
pub(super) struct Resp {
    options: AskOptions,
    /// Whose the next answers are, and what they will be.
    asked: VecDeque<(usize, Expected)>,
    /// Of scans whose values are asked for: their keys, if records are handed on.
    scanned: VecDeque<Vec<Vec<u8>>>,
    /// The beginning of an answer whose end has not come.
    partial: Vec<u8>,
    /// Why the index did not take a key: the write that follows has failed then.
    unindexed: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expected {
    Value,
    Written,
    /// Of a command whose answer says nothing more: an error there is one of the write that follows.
    Indexed,
    Keys,
    Values,
}

/// One answer.
#[derive(Debug, PartialEq, Eq)]
enum Reply<'a> {
    Simple,
    Number,
    Null,
    Bulk(&'a [u8]),
    Error(&'a [u8]),
    Array(Vec<Reply<'a>>),
}

impl<'a> Reply<'a> {
    fn bulk(&self) -> Option<&'a [u8]> {
        if let Self::Bulk(bytes) = self { Some(*bytes) } else { None }
    }
}

impl Resp {
    pub(super) fn greet(socket: &mut TcpStream, options: AskOptions) -> Result<Self> {
        socket.write_all(b"*1\r\n$4\r\nPING\r\n")?;
        let mut answer = Vec::new();
        let mut chunk = [0; GREETING_BYTES_MAX];
        while !answer.ends_with(b"\r\n") && answer.len() < GREETING_BYTES_MAX {
            match socket.read(&mut chunk) {
                // The kernel interrupts reads that have a time limit to end what a closed ring left.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Ok(0) => {
                    return Err(Error::Refused("it closed the connection instead of greeting".to_owned()));
                }
                result => answer.extend_from_slice(&chunk[..result?]),
            }
        }
        if answer != b"+PONG\r\n" {
            let said = String::from_utf8_lossy(&answer).trim().to_owned();
            return Err(Error::Refused(format!("PING was answered by {said:?}")));
        }
        Ok(Self::new(options))
    }

    const fn new(options: AskOptions) -> Self {
        Self {
            options,
            asked: VecDeque::new(),
            scanned: VecDeque::new(),
            partial: Vec::new(),
            unindexed: None,
        }
    }

    pub(super) fn ask(&mut self, slot: usize, ask: Ask<'_>, out: &mut Vec<u8>) {
        match ask {
            Ask::Get { key } => {
                command(&[b"GET", key], out);
                self.asked.push_back((slot, Expected::Value));
            }
            Ask::Put { key, value, is_new } => {
                if is_new && self.options.scanned {
                    command(&[b"ZADD", INDEX, b"0", key], out);
                    self.asked.push_back((slot, Expected::Indexed));
                }
                match self.options.ttl_ms {
                    0 => command(&[b"SET", key, value], out),
                    ttl_ms => command(&[b"SET", key, value, b"PX", ttl_ms.to_string().as_bytes()], out),
                }
                self.asked.push_back((slot, Expected::Written));
            }
            Ask::PutMany { records, are_new } => {
                if are_new && self.options.scanned {
                    let mut words: Vec<&[u8]> = vec![b"ZADD", INDEX];
                    words.extend(records.iter().flat_map(|Record { key, .. }| [&b"0"[..], key]));
                    command(&words, out);
                    self.asked.push_back((slot, Expected::Indexed));
                }
                let mut words: Vec<&[u8]> = vec![b"MSET"];
                words.extend(records.iter().flat_map(|Record { key, value }| [key.as_slice(), value]));
                command(&words, out);
                self.asked.push_back((slot, Expected::Written));
            }
            Ask::Delete { key } => {
                if self.options.scanned {
                    command(&[b"ZREM", INDEX, key], out);
                    self.asked.push_back((slot, Expected::Indexed));
                }
                command(&[b"DEL", key], out);
                self.asked.push_back((slot, Expected::Written));
            }
            Ask::Scan { start, limit } => {
                let from = [b"[", start].concat();
                let limit = limit.to_string();
                command(&[b"ZRANGEBYLEX", INDEX, &from, b"+", b"LIMIT", b"0", limit.as_bytes()], out);
                self.asked.push_back((slot, Expected::Keys));
            }
        }
    }

    pub(super) fn receive(&mut self, chunk: &[u8], answers: &mut Answers, out: &mut Vec<u8>) -> Result<()> {
        let mut gathered = std::mem::take(&mut self.partial);
        let is_gathering = !gathered.is_empty();
        if is_gathering {
            gathered.extend_from_slice(chunk);
        }
        let bytes = if is_gathering { gathered.as_slice() } else { chunk };
        let mut rest = bytes;
        while let Some(reply) = take_reply(&mut rest)? {
            self.answered(&reply, answers, out)?;
        }
        if rest.len() > ANSWER_BYTES_MAX {
            return Err(Error::Answer(format!("an answer of more than {ANSWER_BYTES_MAX} bytes")));
        }
        let used = bytes.len() - rest.len();
        self.partial = if is_gathering {
            gathered.drain(..used);
            gathered
        } else {
            rest.to_vec()
        };
        Ok(())
    }

    fn answered(&mut self, reply: &Reply<'_>, answers: &mut Answers, out: &mut Vec<u8>) -> Result<()> {
        let Some((slot, expected)) = self.asked.pop_front() else {
            return Err(Error::Answer("an answer to nothing that was asked".to_owned()));
        };
        match (expected, reply) {
            (Expected::Value, Reply::Bulk(value)) => answers.push_value(slot, value),
            (Expected::Value, Reply::Null) => answers.push(slot, Answer::Absent),
            (Expected::Written, Reply::Simple | Reply::Number) => answers.push(
                slot,
                match self.unindexed.take() {
                    None => Answer::Done,
                    Some(message) => Answer::Failed { is_unknown: true, message },
                },
            ),
            (Expected::Indexed, Reply::Number) => {}
            (Expected::Keys, Reply::Array(keys)) if keys.is_empty() => answers.push_scanned(slot, 0, &[]),
            (Expected::Keys, Reply::Array(keys)) => {
                let keys: Vec<&[u8]> = keys.iter().filter_map(Reply::bulk).collect();
                command(&[&[&b"MGET"[..]], keys.as_slice()].concat(), out);
                if self.options.verified {
                    self.scanned.push_back(keys.into_iter().map(<[u8]>::to_vec).collect());
                }
                self.asked.push_back((slot, Expected::Values));
            }
            (Expected::Values, Reply::Array(values)) => {
                let found = values.iter().filter_map(Reply::bulk).count();
                let keys = self.scanned.pop_front().unwrap_or_default();
                let mut records = Vec::new();
                for (key, value) in keys.iter().zip(values) {
                    // An index may know of a record that is not there yet, or no more.
                    value.bulk().into_iter().for_each(|value| append_record(key, value, &mut records));
                }
                answers.push_scanned(slot, found as u64, &records);
            }
            // The command that follows is answered too, and its answer ends the operation.
            (Expected::Indexed, Reply::Error(message)) => {
                self.unindexed = Some(String::from_utf8_lossy(message).into_owned());
            }
            (expected, Reply::Error(message)) => {
                self.unindexed = None;
                if expected == Expected::Values {
                    self.scanned.pop_front();
                }
                answers.push(slot, refusal(String::from_utf8_lossy(message).into_owned()));
            }
            (expected, reply) => {
                return Err(Error::Answer(format!("{expected:?} was answered by {reply:?}")));
            }
        }
        Ok(())
    }
}

/// What an error says: what Redis says while it cannot take writes (they were not applied), what Pinion says
/// when it has too much to do, or anything else.
fn refusal(message: String) -> Answer {
    let begins_with = |words: &[&str]| words.iter().any(|word| message.starts_with(word));
    if begins_with(&["LOADING", "BUSY", "OOM", "TRYAGAIN"]) {
        return Answer::Refused { retry_after_ms: 0, message };
    }
    // Pinion says of each error what has become of the write.
    if begins_with(&["OVERLOADED"]) && message.ends_with("(not applied)") {
        let advice = message.split_once("try again after ").and_then(|(_, rest)| rest.split_once(' '));
        let retry_after_ms = advice.and_then(|(millis, _)| millis.parse().ok()).unwrap_or(0);
        return Answer::Refused { retry_after_ms, message };
    }
    Answer::Failed { is_unknown: message.ends_with("(outcome unknown)"), message }
}

fn command(words: &[&[u8]], out: &mut Vec<u8>) {
    let written = write!(out, "*{}\r\n", words.len()).and_then(|()| {
        words.iter().try_for_each(|word| {
            write!(out, "${}\r\n", word.len())?;
            out.write_all(word)?;
            out.write_all(b"\r\n")
        })
    });
    written.expect("memory takes everything");
}

/// The next whole answer; none if its end has not come.
fn take_reply<'a>(from: &mut &'a [u8]) -> Result<Option<Reply<'a>>> {
    let mut rest = *from;
    let reply = parse(&mut rest, 0)?;
    if reply.is_some() {
        *from = rest;
    }
    Ok(reply)
}

fn parse<'a>(from: &mut &'a [u8], depth: usize) -> Result<Option<Reply<'a>>> {
    let Some(end) = from.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let (line, rest) = (&from[..end], &from[end + 2..]);
    let wrong =
        || Error::Answer(format!("no RESP: {:?}", String::from_utf8_lossy(&line[..line.len().min(80)])));
    let (kind, text) = line.split_first().ok_or_else(wrong)?;
    let number =
        || std::str::from_utf8(text).ok().and_then(|text| text.parse::<i64>().ok()).ok_or_else(wrong);
    *from = rest;
    Ok(Some(match kind {
        b'+' => Reply::Simple,
        b'-' => Reply::Error(text),
        b':' => {
            number()?;
            Reply::Number
        }
        b'$' => match usize::try_from(number()?) {
            Err(_) => Reply::Null,
            Ok(bytes) if bytes > ANSWER_BYTES_MAX => return Err(wrong()),
            Ok(bytes) => {
                let Some((value, rest)) = rest.split_at_checked(bytes + 2) else { return Ok(None) };
                *from = rest;
                Reply::Bulk(&value[..bytes])
            }
        },
        b'*' if depth < 4 => match usize::try_from(number()?) {
            Err(_) => Reply::Null,
            Ok(count) => {
                let mut items = Vec::new();
                for _ in 0..count {
                    let Some(item) = parse(from, depth + 1)? else { return Ok(None) };
                    items.push(item);
                }
                Reply::Array(items)
            }
        },
        _ => return Err(wrong()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::{ScanOrder, WriteDurability};

    fn resp(scanned: bool) -> Resp {
        let (durability, scan_order) = (WriteDurability::Sync, ScanOrder::Keys);
        Resp::new(AskOptions { durability, ttl_ms: 0, scanned, scan_order, verified: true })
    }

    #[test]
    fn answers_cut_anywhere_are_put_together() {
        let answer = b"$5\r\nva\r\nl\r\n$-1\r\n+OK\r\n-ERR no\r\n";
        for cut in 0..answer.len() {
            let (mut resp, mut answers, mut out) = (resp(false), Answers::default(), Vec::new());
            for slot in 0..2 {
                resp.ask(slot, Ask::Get { key: b"k" }, &mut out);
            }
            for slot in 2..4 {
                resp.ask(slot, Ask::Put { key: b"k", value: b"v", is_new: true }, &mut out);
            }
            out.clear();
            resp.receive(&answer[..cut], &mut answers, &mut out).unwrap();
            resp.receive(&answer[cut..], &mut answers, &mut out).unwrap();
            let failed = Answer::Failed { is_unknown: false, message: "ERR no".to_owned() };
            let expected = [(0, Answer::Value(0..5)), (1, Answer::Absent), (2, Answer::Done), (3, failed)];
            assert_eq!(
                (answers.list.as_slice(), answers.bytes.as_slice()),
                (&expected[..], &b"va\r\nl"[..]),
                "{cut}"
            );
        }
    }

    #[test]
    fn a_scan_reads_keys_and_then_values() {
        let (mut resp, mut answers, mut out) = (resp(true), Answers::default(), Vec::new());
        resp.ask(0, Ask::Put { key: b"k", value: b"v", is_new: true }, &mut out);
        assert!(out.starts_with(b"*4\r\n$4\r\nZADD\r\n$5\r\n_keys\r\n$1\r\n0\r\n$1\r\nk\r\n*3\r\n$3\r\nSET"));
        resp.ask(1, Ask::Scan { start: b"k", limit: 2 }, &mut out);
        out.clear();
        resp.receive(b":1\r\n+OK\r\n*2\r\n$1\r\nk\r\n$1\r\nm\r\n", &mut answers, &mut out).unwrap();
        assert_eq!(
            (answers.list.as_slice(), out.as_slice()),
            (&[(0, Answer::Done)][..], &b"*3\r\n$4\r\nMGET\r\n$1\r\nk\r\n$1\r\nm\r\n"[..])
        );
        resp.receive(b"*2\r\n$1\r\nv\r\n$-1\r\n", &mut answers, &mut out).unwrap();
        assert_eq!(answers.list[1], (1, Answer::Scanned(1, 0..10)));
        assert_eq!(answers.bytes, b"\x01\0\0\0k\x01\0\0\0v");
        assert!(resp.receive(b"+OK\r\n", &mut answers, &mut out).is_err());
    }

    #[test]
    fn what_was_not_applied_for_now_is_a_refusal() {
        let refused =
            |retry_after_ms, message: &str| Answer::Refused { retry_after_ms, message: message.to_owned() };
        let failed = |is_unknown, message: &str| Answer::Failed { is_unknown, message: message.to_owned() };
        for expected in [
            refused(0, "OOM command not allowed when used memory > 'maxmemory'."),
            refused(12, "OVERLOADED too much; try again after 12 ms (not applied)"),
            refused(0, "OVERLOADED too much (not applied)"),
            failed(true, "OVERLOADED too much (outcome unknown)"),
            failed(false, "DISKFULL no room (not applied)"),
            failed(false, "ERR no"),
        ] {
            let (Answer::Refused { message, .. } | Answer::Failed { message, .. }) = &expected else {
                panic!("{expected:?}")
            };
            assert_eq!(refusal(message.clone()), expected);
        }
    }

    #[test]
    fn what_is_no_resp_is_an_error() {
        for wrong in [&b"hello\r\n"[..], b"$x\r\n", b"\r\n", b"$999999999999\r\n"] {
            assert!(take_reply(&mut { wrong }).is_err());
        }
    }
}
