//! Keys and values: one at a time, in batches, in pages.

pub(crate) mod batch;
pub(crate) mod cursor;
pub(crate) mod list;
pub(crate) mod one;
mod preconditions;

use std::time::{Duration, SystemTime};

use hyper::header::{CACHE_CONTROL, ETAG, HeaderMap, HeaderName, HeaderValue, LAST_MODIFIED};
use pinion_client::{Limits, Version};

use crate::problem::Problem;
use crate::request::{document, percent, tags};

/// Seconds that a value still lives; absent if it does not expire.
pub(crate) const TTL_HEADER: HeaderName = HeaderName::from_static("pinion-ttl");
/// `true` on the answer to a write whose key had a newer value already.
pub(crate) const SUPERSEDED_HEADER: HeaderName = HeaderName::from_static("pinion-superseded");
/// Where the next page of a scan begins; absent at the end.
pub(crate) const CURSOR_HEADER: HeaderName = HeaderName::from_static("pinion-cursor");

/// What stands before the key in an address.
const KEY_PREFIX: &str = "/kv/";

/// The key of an address: everything behind the prefix, slashes included.
fn key_of(path: &str, limits: &Limits) -> Result<Vec<u8>, Problem> {
    let key = percent::decode(path.strip_prefix(KEY_PREFIX).unwrap_or_default())?;
    check_key(&key, limits).map(|()| key)
}

fn check_key(key: &[u8], limits: &Limits) -> Result<(), Problem> {
    let (bytes, max) = (key.len(), limits.key_bytes_max);
    match bytes {
        0 => Err(Problem::bad_request("bad_key", "a key has at least one byte")),
        _ if bytes > max => {
            Err(Problem::too_large(format!("a key of {bytes} bytes: keys have at most {max}")))
        }
        _ => Ok(()),
    }
}

fn check_value(value: &[u8], limits: &Limits) -> Result<(), Problem> {
    let (bytes, max) = (value.len(), limits.value_bytes_max);
    if bytes > max {
        let detail = format!("a value of {bytes} bytes: this node takes at most {max}");
        return Err(Problem::too_large(detail));
    }
    Ok(())
}

/// When a value was written.
fn modified(version: Version) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_millis(version.written_ms()))
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// What a value's answer tells beside it.
fn describe(headers: &mut HeaderMap, version: Version, expiry: Option<SystemTime>) {
    let mut set = |name: HeaderName, text: String| {
        // All are made of digits, letters and quotes.
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(name, value);
        }
    };
    set(ETAG, tags::show(version));
    set(LAST_MODIFIED, httpdate::fmt_http_date(modified(version)));
    if let Some(expiry) = expiry {
        set(TTL_HEADER, format!("{:.3}", document::seconds_left(expiry)));
    }
    // May be kept, but asked for before it is used: that is what the tag is for.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
}
