//! `If-Match`, `If-None-Match` and their kin: what must be true of a value.
//!
//! On reads they decide between 200, 304 and 412. On writes they become the condition that the owning
//! core judges in one step with the write; nothing is read first, unless several tags would do.

use hyper::HeaderMap;
use hyper::header::{IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use pinion_client::{Client, Condition, Version};

use super::modified;
use crate::problem::Problem;
use crate::request::tags::Tags;

/// What a read must find.
#[derive(Debug)]
pub(super) struct ReadConditions {
    wanted: Option<Tags>,
    known: Option<Tags>,
    /// Seconds since 1970.
    known_since: Option<u64>,
}

/// What a read does with what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    NotModified,
}

impl ReadConditions {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let known = Tags::of(headers, &IF_NONE_MATCH)?;
        // A tag is the better witness (RFC 9110, 13.2.2); a date that makes no sense is not looked at.
        let since = headers.get(IF_MODIFIED_SINCE).filter(|_| known.is_none());
        let since = since.and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
        Ok(Self { wanted: Tags::of(headers, &IF_MATCH)?, known, known_since: since.map(seconds) })
    }

    pub(super) fn judge(&self, found: Option<Version>) -> Result<Verdict, Problem> {
        if let Some(wanted) = &self.wanted
            && !found.is_some_and(|version| wanted.has_strong(version))
        {
            return Err(Problem::condition_failed(found));
        }
        let Some(version) = found else { return Err(Problem::not_found("the key has no value")) };
        let known = match &self.known {
            Some(tags) => tags.has(version),
            None => self.known_since.is_some_and(|since| seconds(modified(version)) <= since),
        };
        Ok(if known { Verdict::NotModified } else { Verdict::Send })
    }
}

/// The condition of a write; `None` if it has none.
pub(super) async fn of_write(
    headers: &HeaderMap,
    client: &Client,
    key: &[u8],
) -> Result<Option<Condition>, Problem> {
    let bad = |detail: &str| Err(Problem::bad_request("bad_condition", detail));
    if headers.contains_key(IF_UNMODIFIED_SINCE) {
        // To pass over it would be to lose an update that it was meant to save.
        return bad("a write is judged by If-Match, not by dates, of which many versions share one");
    }
    match (Tags::of(headers, &IF_MATCH)?, Tags::of(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(None),
        (Some(Tags::Any), None) => Ok(Some(Condition::Present)),
        (None, Some(Tags::Any)) => Ok(Some(Condition::Absent)),
        (Some(wanted), None) => {
            if let Some(version) = wanted.only() {
                return Ok(Some(Condition::Version(version)));
            }
            // Versions are never given twice, so the one that is there now is the only one that can be.
            let found = client.stat(key).await?.map(|stat| stat.version);
            match found.filter(|version| wanted.has_strong(*version)) {
                Some(version) => Ok(Some(Condition::Version(version))),
                None => Err(Problem::condition_failed(found)),
            }
        }
        (None, Some(_)) => bad("a write takes If-None-Match: * and no tags"),
        (Some(_), Some(_)) => bad("a write takes If-Match or If-None-Match, not both"),
    }
}

fn seconds(time: std::time::SystemTime) -> u64 {
    time.duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn judge(headers: &[(HeaderName, &str)], found: Option<Version>) -> Result<Verdict, u16> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_str(value).unwrap());
        }
        ReadConditions::of(&map).unwrap().judge(found).map_err(|problem| problem.status().as_u16())
    }

    #[test]
    fn tags_decide_before_dates() {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&(784_111_777_500_u64 << 16).to_le_bytes());
        let version = Version(bytes);
        let tag = format!("\"{version}\"");
        let (same, before) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:49:36 GMT");
        let found = Some(version);
        assert_eq!(judge(&[], found), Ok(Verdict::Send));
        assert_eq!(judge(&[], None), Err(404));
        assert_eq!(judge(&[(IF_NONE_MATCH, &tag)], found), Ok(Verdict::NotModified));
        assert_eq!(judge(&[(IF_NONE_MATCH, "\"x\""), (IF_MODIFIED_SINCE, same)], found), Ok(Verdict::Send));
        assert_eq!(judge(&[(IF_MODIFIED_SINCE, same)], found), Ok(Verdict::NotModified));
        assert_eq!(judge(&[(IF_MODIFIED_SINCE, before)], found), Ok(Verdict::Send));
        assert_eq!(judge(&[(IF_MODIFIED_SINCE, "yesterday")], found), Ok(Verdict::Send));
        assert_eq!(judge(&[(IF_MATCH, &tag)], found), Ok(Verdict::Send));
        assert_eq!(judge(&[(IF_MATCH, "\"x\"")], found), Err(412));
        assert_eq!(judge(&[(IF_MATCH, "*")], None), Err(412));
        assert_eq!(judge(&[(IF_NONE_MATCH, "*")], found), Ok(Verdict::NotModified));
    }
}
