//! The query of a request.
//!
//! A name that is not known or comes twice is an error: a misspelt `ttl` must not become a value that
//! lives for ever.

use pinion_client::{Durability, Ttl};

use super::percent;
use crate::problem::Problem;

/// Longest name of a namespace.
const NAMESPACE_BYTES_MAX: usize = 64;

/// Names and values, decoded.
#[derive(Debug, Default)]
pub(crate) struct Query {
    pairs: Vec<(String, Vec<u8>)>,
}

impl Query {
    /// Parses what stands behind the question mark.
    pub(crate) fn parse(text: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
        for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if !known.contains(&name) {
                let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
                let detail = format!("unknown query parameter {name:?}; this address takes {known}");
                return Err(Problem::bad_request("unknown_parameter", detail));
            }
            if pairs.iter().any(|(found, _)| found == name) {
                let detail = format!("the query parameter {name} comes twice");
                return Err(Problem::bad_request("bad_parameter", detail));
            }
            pairs.push((name.to_owned(), percent::decode_form(value)?));
        }
        Ok(Self { pairs })
    }

    /// Any bytes.
    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.pairs.iter().find(|(found, _)| found == name).map(|(_, value)| &value[..])
    }

    fn text(&self, name: &str) -> Result<Option<&str>, Problem> {
        let Some(bytes) = self.bytes(name) else { return Ok(None) };
        std::str::from_utf8(bytes).map(Some).map_err(|_| bad(name, "is not UTF-8"))
    }

    /// `ns`: a name that a namespace can have.
    pub(crate) fn namespace(&self) -> Result<Option<&str>, Problem> {
        let name = self.text("ns")?;
        name.map(check_namespace).transpose()
    }

    /// `ttl`, or another name of a time.
    pub(crate) fn ttl(&self, name: &str) -> Result<Ttl, Problem> {
        let Some(text) = self.text(name)? else { return Ok(Ttl::Default) };
        text.parse().map_err(|error| bad(name, &format!("is {error}")))
    }

    /// `durability`: `sync` or `buffered`.
    pub(crate) fn durability(&self) -> Result<Durability, Problem> {
        match self.text("durability")? {
            None | Some("sync") => Ok(Durability::Sync),
            Some("buffered") => Ok(Durability::Buffered),
            Some(_) => Err(bad("durability", "is sync or buffered")),
        }
    }

    /// `limit`: from 1 to `max`.
    pub(crate) fn limit(&self, default: u32, max: u32) -> Result<u32, Problem> {
        let Some(text) = self.text("limit")? else { return Ok(default.min(max)) };
        let number = text.parse().ok().filter(|number| (1..=max).contains(number));
        number.ok_or_else(|| bad("limit", &format!("is a number from 1 to {max}")))
    }

    /// `true`, or the name alone; `false` or absent.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name)? {
            None | Some("false") => Ok(false),
            Some("" | "true") => Ok(true),
            Some(_) => Err(bad(name, "is true or false")),
        }
    }
}

/// Refuses a name that no namespace can have.
pub(crate) fn check_namespace(name: &str) -> Result<&str, Problem> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if (1..=NAMESPACE_BYTES_MAX).contains(&name.len()) && name.bytes().all(fits) {
        return Ok(name);
    }
    let detail = "the name of a namespace is 1 to 64 of A-Z a-z 0-9 _ . -";
    Err(Problem::bad_request("bad_namespace", detail))
}

fn bad(name: &str, why: &str) -> Problem {
    Problem::bad_request("bad_parameter", format!("{name} {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["ns", "ttl", "durability", "limit", "start", "keys_only"];

    fn parse(text: &str) -> Result<Query, Problem> {
        Query::parse(Some(text), KNOWN)
    }

    #[test]
    fn values_are_any_bytes() {
        let query = parse("start=%ff%00+%2B&&keys_only").unwrap();
        assert_eq!(query.bytes("start"), Some(&b"\xff\0 +"[..]));
        assert_eq!((query.flag("keys_only").unwrap(), query.bytes("ns")), (true, None));
        assert!(Query::parse(None, KNOWN).unwrap().pairs.is_empty());
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bad in ["tll=3", "ttl=1&ttl=2", "start=%f", "start=%zz", "=1", "a=b"] {
            assert_eq!(parse(bad).unwrap_err().status(), 400, "{bad}");
        }
        assert!(parse("durability=fast").unwrap().durability().is_err());
        assert!(parse("ns=a/b").unwrap().namespace().is_err());
        assert!(parse("ttl=0").unwrap().ttl("ttl").is_err());
        for bad in ["limit=0", "limit=11", "limit=x", "limit=", "limit=-1"] {
            assert!(parse(bad).unwrap().limit(5, 10).is_err(), "{bad}");
        }
        assert_eq!(parse("limit=10").unwrap().limit(5, 10).unwrap(), 10);
        assert_eq!(parse("").unwrap().limit(5, 3).unwrap(), 3);
    }
}
