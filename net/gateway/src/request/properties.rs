//! Properties of everything that is parsed by hand: no input makes it panic, and what can be written can
//! be read back. Inputs are drawn near to what is valid, so that they get past the first byte.

use proptest::prelude::*;

use super::document::{Action, insert_bytes, items, lines, value};
use super::query::Query;
use super::{percent, tags};
use crate::kv::cursor;

const KNOWN: &[&str] = &["ns", "ttl", "durability", "limit", "prefix", "keys_only"];

/// Percent-encodes every byte but letters and digits, or every byte.
fn encode(bytes: &[u8], all: bool) -> String {
    let plain = |byte: u8| !all && byte.is_ascii_alphanumeric();
    let show = |byte: &u8| if plain(*byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") };
    bytes.iter().map(show).collect()
}

proptest! {
    #[test]
    fn any_bytes_can_be_written_in_an_address(bytes in any::<Vec<u8>>(), all in any::<bool>()) {
        prop_assert_eq!(percent::decode(&encode(&bytes, all)).ok(), Some(bytes.clone()));
        prop_assert_eq!(percent::decode_form(&encode(&bytes, all)).ok(), Some(bytes));
    }

    #[test]
    fn no_address_makes_the_parser_panic(text in "[%+&=0-9a-fA-Fz\u{e9}]{0,40}") {
        let decoded = percent::decode(&text);
        prop_assert_eq!(decoded.is_ok(), well_formed(&text));
    }

    #[test]
    fn no_query_makes_the_parser_panic(
        pairs in prop::collection::vec(("(ns|ttl|durability|limit|prefix|keys_only|x)?", "=?", ".{0,12}"), 0..6),
    ) {
        let text: Vec<String> = pairs.iter().map(|(name, is, value)| format!("{name}{is}{value}")).collect();
        if let Ok(query) = Query::parse(Some(&text.join("&")), KNOWN) {
            let _ = (query.namespace(), query.ttl("ttl"), query.durability(), query.flag("keys_only"));
            if let Ok(limit) = query.limit(10, 100) {
                prop_assert!((1..=100).contains(&limit));
            }
        }
    }

    #[test]
    fn times_that_are_read_are_longer_than_none(text in "[0-9.]{0,20}(ms|s|m|h|d|never|x)?") {
        if let Ok(pinion_client::Ttl::After(duration)) = text.parse() {
            prop_assert!(!duration.is_zero());
        }
    }

    #[test]
    fn no_tags_make_the_parser_panic(text in "([*,W/\" ]|\"[0-9a-f]{32}\"|[a-z\u{e9}]){0,12}") {
        let _ = tags::parse(&text);
    }

    #[test]
    fn tags_are_read_as_they_are_shown(bytes in any::<[u8; 16]>()) {
        let version = pinion_client::Version(bytes);
        prop_assert!(tags::parse(&tags::show(version)).is_some_and(|tags| tags.has_strong(version)));
    }

    #[test]
    fn items_are_read_as_they_are_written(
        pairs in prop::collection::vec((any::<Vec<u8>>(), prop::option::of(any::<Vec<u8>>())), 0..8),
    ) {
        let written: Vec<String> = pairs.iter().map(|(key, value)| {
            let mut members = serde_json::Map::new();
            members.insert("op".into(), if value.is_some() { "put" } else { "get" }.into());
            insert_bytes(&mut members, "key", key);
            if let Some(value) = value {
                insert_bytes(&mut members, "value", value);
            }
            serde_json::Value::Object(members).to_string()
        }).collect();
        let found = lines(written.join("\n").as_bytes(), 8);
        let listed = items(format!("{{\"items\":[{}]}}", written.join(",")).as_bytes(), 8);
        prop_assert_eq!(&found, &listed);
        let found = found.map_err(TestCaseError::fail)?;
        prop_assert_eq!(found.len(), pairs.len());
        for (item, (key, value)) in found.iter().zip(&pairs) {
            prop_assert_eq!(&item.key[..], &key[..]);
            match (&item.action, value) {
                (Action::Put { value: found, .. }, Some(value)) => prop_assert_eq!(&found[..], &value[..]),
                (action, value) => prop_assert!(*action == Action::Get && value.is_none()),
            }
        }
    }

    #[test]
    fn no_document_makes_the_parser_panic(
        text in r#"(\{|\}|"op"|"key"|"key_b64"|"value"|"ttl"|"items"|:|,|\[|\]|"get"|"put"|"/w=="|1e9|-1|null|\n){0,24}"#,
    ) {
        let _ = (value(text.as_bytes()), items(text.as_bytes(), 4));
        if let Ok(found) = lines(text.as_bytes(), 4) {
            prop_assert!(found.len() <= 4);
        }
    }

    #[test]
    fn cursors_come_back_and_others_are_refused(key in any::<Vec<u8>>(), noise in any::<Vec<u8>>()) {
        prop_assert_eq!(cursor::parse(cursor::show(&key).as_bytes()).ok(), Some(key));
        let _ = cursor::parse(&noise);
    }
}

/// Whether every `%` is followed by two hexadecimal digits, judged in another way.
fn well_formed(text: &str) -> bool {
    text.split('%')
        .skip(1)
        .all(|after| after.len() >= 2 && after.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}
