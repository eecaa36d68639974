//! `{"items": [...]}`: a batch in one JSON document, read item by item.
//!
//! A list that is longer than a batch may be is left at once: what is read of it stays small beside the
//! text, whatever the text says.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::document::{Item, ItemDocument, check_count, item};

/// Reads a batch of at most `items_max` items.
#[derive(Debug, Clone, Copy)]
pub(super) struct BatchDocument {
    pub(super) items_max: usize,
}

/// Reads its list.
#[derive(Debug, Clone, Copy)]
struct List {
    items_max: usize,
}

impl<'de> DeserializeSeed<'de> for BatchDocument {
    type Value = Vec<Item>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Item>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for BatchDocument {
    type Value = Vec<Item>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a list of items")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Vec<Item>, A::Error> {
        let mut items = None;
        while let Some(name) = members.next_key::<String>()? {
            if name != "items" {
                return Err(A::Error::unknown_field(&name, &["items"]));
            }
            if items.is_some() {
                return Err(A::Error::duplicate_field("items"));
            }
            items = Some(members.next_value_seed(List { items_max: self.items_max })?);
        }
        items.ok_or_else(|| A::Error::missing_field("items"))
    }
}

impl<'de> DeserializeSeed<'de> for List {
    type Value = Vec<Item>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<Item>, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List {
    type Value = Vec<Item>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of items")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<Item>, A::Error> {
        let mut items = Vec::new();
        while let Some(document) = list.next_element::<ItemDocument>()? {
            check_count(items.len() + 1, self.items_max).map_err(A::Error::custom)?;
            let in_list = |why| A::Error::custom(format!("item {}: {why}", items.len()));
            let item = item(document).map_err(in_list)?;
            items.push(item);
        }
        Ok(items)
    }
}
