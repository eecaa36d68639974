//! Entity tags (RFC 9110, 8.8.3) and the conditions that name them.
//!
//! A tag is a version in quotes. Any other tag is well-formed and simply not that of any value.

use hyper::HeaderMap;
use hyper::header::HeaderName;
use pinion_client::Version;

use crate::problem::Problem;

/// The tags of an `If-Match` or `If-None-Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tags {
    /// `*`: whatever is there.
    Any,
    /// One of these.
    These(Vec<Tag>),
}

/// A tag that may be that of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag {
    version: Version,
    weak: bool,
}

impl Tags {
    /// Reads a header, if it is there.
    pub(crate) fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Problem> {
        let mut fields = headers.get_all(name).iter().peekable();
        if fields.peek().is_none() {
            return Ok(None);
        }
        let bad = || {
            let detail = format!("{name} is * or a list of tags in quotes, such as an answer's ETag");
            Problem::bad_request("bad_condition", detail)
        };
        let mut all = Vec::new();
        for field in fields {
            all.push(field.to_str().map_err(|_| bad())?);
        }
        parse(&all.join(",")).map(Some).ok_or_else(bad)
    }

    /// Whether one of them is this version; weak ones are no proof of it.
    pub(crate) fn has_strong(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|tag| !tag.weak && tag.version == version),
        }
    }

    /// The version that alone would do, if there is exactly one.
    pub(crate) fn only(&self) -> Option<Version> {
        match self {
            Self::These(tags) if tags.len() == 1 => {
                tags.first().filter(|tag| !tag.weak).map(|tag| tag.version)
            }
            _ => None,
        }
    }

    /// Whether one of them is this version, weak or not.
    pub(crate) fn has(&self, version: Version) -> bool {
        match self {
            Self::Any => true,
            Self::These(tags) => tags.iter().any(|tag| tag.version == version),
        }
    }
}

/// Reads the text of a header.
pub(super) fn parse(text: &str) -> Option<Tags> {
    if text.trim() == "*" {
        return Some(Tags::Any);
    }
    let (mut tags, mut count) = (Vec::new(), 0_u32);
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        // Lists may have empty elements.
        if let Some(after) = rest.strip_prefix(',') {
            rest = after.trim_start();
            continue;
        }
        let (weak, quoted) = match rest.strip_prefix("W/") {
            Some(after) => (true, after),
            None => (false, rest),
        };
        let (opaque, after) = quoted.strip_prefix('"')?.split_once('"')?;
        if let Ok(version) = opaque.parse() {
            tags.push(Tag { version, weak });
        }
        count += 1;
        rest = after.trim_start();
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
    (count > 0).then_some(Tags::These(tags))
}

/// The tag of a version.
pub(crate) fn show(version: Version) -> String {
    format!("\"{version}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_what_is_no_version_matches_nothing() {
        let version = Version([0xab; 16]);
        let tag = show(version);
        assert_eq!(parse(" * "), Some(Tags::Any));
        for (text, strong, weak) in [
            (tag.clone(), true, true),
            (format!("W/{tag}"), false, true),
            (format!("\"x\" , {tag}"), true, true),
            ("\"x\"".to_owned(), false, false),
            (format!(",{tag},,"), true, true),
        ] {
            let tags = parse(&text).unwrap();
            assert_eq!((tags.has_strong(version), tags.has(version)), (strong, weak), "{text}");
        }
        for bad in ["", ",", "abc", "\"abc", "*, \"a\"", "\"a\" \"b\"", "w/\"a\""] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
