//! Writing JSON text: objects, arrays, strings and numbers, enough for server info.

use std::fmt::Write;

/// Appends JSON to a string. Commas are placed by the writer; the caller pairs begins and ends.
#[derive(Debug, Default)]
pub(crate) struct JsonWriter {
    text: String,
}

impl JsonWriter {
    pub(crate) fn finish(self) -> String {
        self.text
    }

    /// Opens an object; as a member if `name` is given.
    pub(crate) fn begin_object(&mut self, name: Option<&str>) {
        self.lead(name);
        self.text.push('{');
    }

    pub(crate) fn end_object(&mut self) {
        self.text.push('}');
    }

    /// Opens an array member.
    pub(crate) fn begin_array(&mut self, name: &str) {
        self.lead(Some(name));
        self.text.push('[');
    }

    pub(crate) fn end_array(&mut self) {
        self.text.push(']');
    }

    pub(crate) fn number(&mut self, name: &str, value: impl Into<u64>) {
        self.lead(Some(name));
        write!(self.text, "{}", value.into()).expect("writing to a string never fails");
    }

    /// A member that is a list of numbers.
    pub(crate) fn numbers(&mut self, name: &str, values: &[u64]) {
        self.begin_array(name);
        let values: Vec<String> = values.iter().map(u64::to_string).collect();
        self.text.push_str(&values.join(","));
        self.end_array();
    }

    pub(crate) fn string(&mut self, name: &str, value: &str) {
        self.lead(Some(name));
        self.quoted(value);
    }

    /// A member that is a number from 0 to 1.
    pub(crate) fn fraction(&mut self, name: &str, value: f64) {
        self.lead(Some(name));
        write!(self.text, "{value:.6}").expect("writing to a string never fails");
    }

    /// A member that is not known.
    pub(crate) fn null(&mut self, name: &str) {
        self.lead(Some(name));
        self.text.push_str("null");
    }

    fn lead(&mut self, name: Option<&str>) {
        if !matches!(self.text.as_bytes().last(), None | Some(b'{' | b'[' | b':')) {
            self.text.push(',');
        }
        if let Some(name) = name {
            self.quoted(name);
            self.text.push(':');
        }
    }

    fn quoted(&mut self, value: &str) {
        self.text.push('"');
        for character in value.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                control if control < ' ' => {
                    write!(self.text, "\\u{:04x}", u32::from(control))
                        .expect("writing to a string never fails");
                }
                other => self.text.push(other),
            }
        }
        self.text.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_separated_and_strings_escaped() {
        let mut json = JsonWriter::default();
        json.begin_object(None);
        json.string("a\"b", "c\\d\n");
        json.number("n", 7_u64);
        json.begin_array("list");
        json.begin_object(None);
        json.end_object();
        json.begin_object(None);
        json.number("yes", 1_u16);
        json.end_object();
        json.end_array();
        json.numbers("m", &[1, 2]);
        json.fraction("f", 0.25);
        json.null("z");
        json.end_object();
        assert_eq!(
            json.finish(),
            "{\"a\\\"b\":\"c\\\\d\\u000a\",\"n\":7,\"list\":[{},{\"yes\":1}],\"m\":[1,2],\"f\":0.250000,\"z\":null}"
        );
    }
}
