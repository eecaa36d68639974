//! Reading requests: what of them is parsed by hand, and refused with a word on how to mend it.

mod batch_document;
pub(crate) mod document;
pub(crate) mod percent;
#[cfg(test)]
mod properties;
pub(crate) mod query;
pub(crate) mod tags;

use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName};

/// Values and batches as JSON.
pub(crate) const JSON: &str = "application/json";
/// One JSON object per line.
pub(crate) const NDJSON: &str = "application/x-ndjson";

/// Whether the request's body is of this type.
pub(crate) fn has_type(headers: &HeaderMap, wanted: &str) -> bool {
    lists(headers, &CONTENT_TYPE, wanted)
}

/// Whether the peer names this type among those it accepts. `*/*` names none.
pub(crate) fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    lists(headers, &ACCEPT, wanted)
}

fn lists(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    let fields = headers.get_all(name).iter().filter_map(|field| field.to_str().ok());
    fields.flat_map(|field| field.split(',')).any(|item| {
        let kind = item.split(';').next().unwrap_or_default();
        kind.trim().eq_ignore_ascii_case(wanted)
    })
}
