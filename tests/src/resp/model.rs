//! What a server should answer: commands on strings, one after the other, on a map.
//!
//! Written from the documentation of the commands, not from a server's code. Time stands still here:
//! commands with an expiry are not known.

use std::collections::BTreeMap;

use super::{Args, Reply};

/// A map of strings.
#[derive(Debug, Clone, Default)]
pub struct Model {
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Model {
    /// How many keys there are.
    pub fn keys(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.values.keys()
    }

    /// What a command is answered with.
    ///
    /// # Panics
    /// When the command is not known here.
    pub fn apply(&mut self, args: &Args) -> Reply {
        let name = String::from_utf8_lossy(&args[0]).to_uppercase();
        let count = |number: usize| Reply::Integer(number as i64);
        match (name.as_str(), &args[1..]) {
            ("PING", []) => Reply::Simple(b"PONG".to_vec()),
            ("ECHO", [bytes]) => Reply::bulk(bytes),
            ("GET", [key]) => Reply::value(self.values.get(key)),
            ("STRLEN", [key]) => count(self.values.get(key).map_or(0, Vec::len)),
            ("EXISTS", keys) => count(keys.iter().filter(|key| self.values.contains_key(*key)).count()),
            ("MGET", keys) => {
                Reply::Array(keys.iter().map(|key| Reply::value(self.values.get(key))).collect())
            }
            ("GETRANGE", [key, start, end]) => {
                let value = self.values.get(key).map_or(&[][..], Vec::as_slice);
                Reply::bulk(range(value, number(start), number(end)))
            }
            ("SET", [key, value]) => {
                self.values.insert(key.clone(), value.clone());
                Reply::ok()
            }
            ("SET", [key, value, options @ ..]) => self.set(key, value, options),
            ("SETNX", [key, value]) => {
                let new = !self.values.contains_key(key);
                self.values.entry(key.clone()).or_insert_with(|| value.clone());
                Reply::Integer(i64::from(new))
            }
            ("GETSET", [key, value]) => Reply::value(self.values.insert(key.clone(), value.clone()).as_ref()),
            ("GETDEL", [key]) => Reply::value(self.values.remove(key).as_ref()),
            ("DEL" | "UNLINK", keys) => {
                count(keys.iter().filter(|key| self.values.remove(*key).is_some()).count())
            }
            ("MSET", pairs) => {
                for pair in pairs.chunks(2) {
                    self.values.insert(pair[0].clone(), pair[1].clone());
                }
                Reply::ok()
            }
            ("APPEND", [key, bytes]) => {
                let value = self.values.entry(key.clone()).or_default();
                value.extend_from_slice(bytes);
                count(value.len())
            }
            ("SETRANGE", [key, offset, bytes]) => {
                let offset = number(offset) as usize;
                if !bytes.is_empty() {
                    let value = self.values.entry(key.clone()).or_default();
                    value.resize(value.len().max(offset + bytes.len()), 0);
                    value[offset..offset + bytes.len()].copy_from_slice(bytes);
                }
                count(self.values.get(key).map_or(0, Vec::len))
            }
            ("INCR", [key]) => self.add(key, 1),
            ("DECR", [key]) => self.add(key, -1),
            ("INCRBY", [key, amount]) => self.add(key, number(amount)),
            ("DECRBY", [key, amount]) => self.add(key, -number(amount)),
            ("DBSIZE", []) => count(self.values.len()),
            ("TYPE", [key]) => {
                Reply::Simple(if self.values.contains_key(key) { "string" } else { "none" }.into())
            }
            (name, args) => panic!("the model does not know {name} with {} arguments", args.len()),
        }
    }

    fn set(&mut self, key: &[u8], value: &[u8], options: &[Vec<u8>]) -> Reply {
        let old = self.values.get(key).cloned();
        let (mut holds, mut get) = (true, false);
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match option.as_slice() {
                b"NX" => holds = old.is_none(),
                b"XX" => holds = old.is_some(),
                b"IFEQ" => holds = old.as_ref() == options.next(),
                b"GET" => get = true,
                b"KEEPTTL" => {}
                other => panic!("the model does not know the option {other:?}"),
            }
        }
        if holds {
            self.values.insert(key.to_vec(), value.to_vec());
        }
        match (get, holds) {
            (true, _) => Reply::value(old.as_ref()),
            (false, true) => Reply::ok(),
            (false, false) => Reply::Null,
        }
    }

    fn add(&mut self, key: &[u8], amount: i64) -> Reply {
        let present = self.values.get(key).map_or(Some(0), |value| integer(value));
        let Some(present) = present else {
            return Reply::Error("ERR value is not an integer or out of range".into());
        };
        match present.checked_add(amount) {
            Some(sum) => {
                self.values.insert(key.to_vec(), sum.to_string().into_bytes());
                Reply::Integer(sum)
            }
            None => Reply::Error("ERR increment or decrement would overflow".into()),
        }
    }
}

/// What a test gives as a number.
fn number(text: &[u8]) -> i64 {
    integer(text).expect("the model is asked with numbers")
}

/// An integer in the only way to write it.
fn integer(text: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn range(value: &[u8], start: i64, end: i64) -> &[u8] {
    let bytes = value.len() as i64;
    let from_front = |index: i64| if index < 0 { bytes + index } else { index };
    if start < 0 && end < 0 && start > end {
        return &[];
    }
    let (start, end) = (from_front(start).max(0), from_front(end).max(0).min(bytes - 1));
    value.get(start as usize..(end + 1).max(start) as usize).unwrap_or_default()
}
