//! Keys, values and items of batches as JSON.
//!
//! Bytes that are not UTF-8 travel as base64, under the names `key_b64` and `value_b64`, as in the files
//! of `pinion export`. A member that is not known is an error.

use std::fmt;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pinion_client::{Ttl, Version};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, Visitor};
use serde_json::{Map, Value, json};

use super::batch_document::BatchDocument;

/// A value to be put: `{"value": "text"}` or `{"value_b64": "..."}`, with `"ttl"` if it has one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueDocument {
    value: Option<String>,
    value_b64: Option<String>,
    ttl: Option<Time>,
}

/// One operation of a batch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ItemDocument {
    op: Op,
    key: Option<String>,
    key_b64: Option<String>,
    value: Option<String>,
    value_b64: Option<String>,
    ttl: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Get,
    Put,
    Delete,
}

/// Seconds, or a text like `"30s"`.
#[derive(Debug)]
enum Time {
    Seconds(f64),
    Text(String),
}

// By hand: what serde derives for such a choice first reads all that stands there into a tree of its own,
// which is many times as large as the text.
impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TimeVisitor)
    }
}

struct TimeVisitor;

impl Visitor<'_> for TimeVisitor {
    type Value = Time;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seconds or a text such as \"30s\"")
    }

    fn visit_f64<E: Error>(self, seconds: f64) -> Result<Time, E> {
        Ok(Time::Seconds(seconds))
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<Time, E> {
        Ok(Time::Seconds(seconds as f64))
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<Time, E> {
        Ok(Time::Seconds(seconds as f64))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
        Ok(Time::Text(text.to_owned()))
    }
}

/// One operation of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) key: Bytes,
    pub(crate) action: Action,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Get,
    Put { value: Bytes, ttl: Ttl },
    Delete,
}

/// The value and TTL of a PUT's JSON body.
pub(crate) fn value(text: &[u8]) -> Result<(Bytes, Ttl), String> {
    let document: ValueDocument = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let value = one("value", document.value, document.value_b64)?.ok_or("has no value")?;
    Ok((value, time(document.ttl)?))
}

/// The items of a batch in one JSON document: `{"items": [...]}`.
pub(crate) fn items(text: &[u8], items_max: usize) -> Result<Vec<Item>, String> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let items = BatchDocument { items_max }.deserialize(&mut reader).map_err(|error| error.to_string())?;
    reader.end().map_err(|error| error.to_string())?;
    Ok(items)
}

/// Bytes that the items of a batch take up at most once they are read, beside the text.
///
/// Keys and values are never longer than they stand there; what is around them is.
pub(crate) fn parsed_bytes_max(text: &[u8], items_max: usize) -> usize {
    // Every item has one.
    let braces = text.iter().filter(|byte| **byte == b'{').count();
    // A list that grows by doubling, and the shorter one before it.
    text.len() + 3 * size_of::<Item>() * braces.min(items_max)
}

/// The items of a batch, one per line; blank lines are skipped.
pub(crate) fn lines(text: &[u8], items_max: usize) -> Result<Vec<Item>, String> {
    let mut items = Vec::new();
    for (line, number) in text.split(|byte| *byte == b'\n').zip(1..) {
        if line.trim_ascii().is_empty() {
            continue;
        }
        check_count(items.len() + 1, items_max)?;
        let in_line = |why: String| format!("line {number}: {why}");
        let document = serde_json::from_slice(line).map_err(|error| in_line(error.to_string()))?;
        items.push(item(document).map_err(in_line)?);
    }
    Ok(items)
}

pub(super) fn check_count(items: usize, items_max: usize) -> Result<(), String> {
    if items > items_max { Err(format!("a batch has at most {items_max} items")) } else { Ok(()) }
}

pub(super) fn item(document: ItemDocument) -> Result<Item, String> {
    let key = one("key", document.key, document.key_b64)?.ok_or("has no key")?;
    let value = one("value", document.value, document.value_b64)?;
    let action = match (document.op, value) {
        (Op::Put, Some(value)) => Action::Put { value, ttl: time(document.ttl)? },
        (Op::Put, None) => return Err("a put has a value".into()),
        (_, Some(_)) => return Err("only a put has a value".into()),
        (_, None) if document.ttl.is_some() => return Err("only a put has a ttl".into()),
        (Op::Get, None) => Action::Get,
        (Op::Delete, None) => Action::Delete,
    };
    Ok(Item { key, action })
}

/// A member that stands as text or as base64.
fn one(name: &str, text: Option<String>, base64: Option<String>) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (Some(_), Some(_)) => Err(format!("has both {name} and {name}_b64")),
        (Some(text), None) => Ok(Some(text.into())),
        (None, Some(base64)) => {
            let bytes = STANDARD.decode(base64).map_err(|error| format!("{name}_b64: {error}"))?;
            Ok(Some(bytes.into()))
        }
        (None, None) => Ok(None),
    }
}

fn time(time: Option<Time>) -> Result<Ttl, String> {
    match time {
        None => Ok(Ttl::Default),
        Some(Time::Seconds(seconds)) => {
            Ttl::try_from_secs_f64(seconds).map_err(|error| format!("ttl is {error}"))
        }
        Some(Time::Text(text)) => text.parse().map_err(|error| format!("ttl is {error}")),
    }
}

/// Bytes under their name, or under that of their base64.
pub(crate) fn insert_bytes(members: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => members.insert(name.into(), json!(text)),
        Err(_) => members.insert(format!("{name}_b64"), json!(STANDARD.encode(bytes))),
    };
}

/// What is left until an expiry, in seconds to the millisecond by this machine's clock; at least one
/// millisecond, so that a value at its end is not taken for one that lives for ever.
pub(crate) fn seconds_left(expiry: SystemTime) -> f64 {
    let left = expiry.duration_since(SystemTime::now()).unwrap_or_default();
    (left.as_secs_f64() * 1_000.0).round().max(1.0) / 1_000.0
}

/// A version, and what is left of a life in seconds if it ends.
pub(crate) fn insert_version(members: &mut Map<String, Value>, version: Version, expiry: Option<SystemTime>) {
    members.insert("version".into(), json!(version.to_string()));
    if let Some(expiry) = expiry {
        members.insert("ttl".into(), json!(seconds_left(expiry)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn values_are_text_or_base64() {
        let after = Ttl::After(Duration::from_millis(1_500));
        assert_eq!(value(br#"{"value":"v"}"#), Ok((Bytes::from("v"), Ttl::Default)));
        assert_eq!(value(br#"{"value_b64":"/w==","ttl":1.5}"#), Ok((Bytes::from_static(b"\xff"), after)));
        assert_eq!(value(br#"{"value":"","ttl":"1500ms"}"#), Ok((Bytes::new(), after)));
        for bad in [
            "",
            "{}",
            "[]",
            "\"v\"",
            r#"{"value":1}"#,
            r#"{"value":"v","value_b64":""}"#,
            r#"{"value":"v","tll":1}"#,
            r#"{"value_b64":"?"}"#,
            r#"{"value":"v","ttl":0}"#,
            r#"{"value":"v","ttl":-1}"#,
            r#"{"value":"v","ttl":"soon"}"#,
            r#"{"value":"v","ttl":1e400}"#,
        ] {
            assert!(value(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn items_are_named_by_their_place() {
        let text = "{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\"}\n\n{\"op\":\"get\",\"key_b64\":\"/w==\"}\r\n\
            {\"op\":\"delete\",\"key\":\"b\"}";
        let found = lines(text.as_bytes(), 3).unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!((&found[1].key[..], &found[1].action), (&b"\xff"[..], &Action::Get));
        assert!(lines(text.as_bytes(), 2).unwrap_err().contains("at most 2"));
        let list = format!("{{\"items\":[{}]}}", text.replace("\n\n", ",").replace("\r\n", ","));
        assert_eq!(items(list.as_bytes(), 3).unwrap(), found);
        for (bad, place) in [
            ("{\"op\":\"get\",\"key\":\"a\"}\n{\"op\":\"put\",\"key\":\"a\"}", "line 2"),
            ("{\"op\":\"get\",\"key\":\"a\",\"value\":\"x\"}", "only a put"),
            ("{\"op\":\"get\",\"key\":\"a\",\"ttl\":1}", "only a put"),
            ("{\"op\":\"take\",\"key\":\"a\"}", "line 1"),
            ("\n\nx", "line 3"),
        ] {
            assert!(lines(bad.as_bytes(), 9).unwrap_err().contains(place), "{bad}");
        }
        assert!(items(b"{\"items\":[{\"op\":\"get\"}]}", 9).unwrap_err().contains("item 0"));
        for bad in ["{}", "[]", "{\"items\":[]} x", "{\"items\":[],\"items\":[]}", "{\"items\":[],\"x\":1}"] {
            assert!(items(bad.as_bytes(), 9).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_list_that_is_too_long_is_not_read_to_its_end() {
        let item = "{\"op\":\"get\",\"key\":\"\"}";
        let text = format!("{{\"items\":[{item},{item},{item},nonsense");
        assert!(items(text.as_bytes(), 2).unwrap_err().contains("at most 2"));
        assert!(items(text.as_bytes(), 3).unwrap_err().contains("expected"));
        let room = parsed_bytes_max(text.as_bytes(), 9) - text.len();
        assert!(room >= 3 * size_of::<Item>() && room < 9 * 3 * size_of::<Item>());
        assert_eq!(parsed_bytes_max(&[b'{'; 100], 0), 100);
    }

    #[test]
    fn a_time_is_not_a_tree() {
        let text = |ttl: &str| format!("{{\"value\":\"v\",\"ttl\":{ttl}}}");
        for bad in ["[1]", "{\"a\":1}", "true", "null1"] {
            assert!(value(text(bad).as_bytes()).is_err(), "{bad}");
        }
        assert_eq!(value(text("2").as_bytes()).unwrap().1, Ttl::After(Duration::from_secs(2)));
        assert_eq!(value(text("null").as_bytes()).unwrap().1, Ttl::Default);
    }
}
