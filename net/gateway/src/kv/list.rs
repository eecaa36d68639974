//! `GET /kv`: records in key order, a page at a time.

use std::ops::Bound;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use pinion_client::{ScanRange, ScanRecord};
use serde_json::{Map, Value, json};

use super::{CURSOR_HEADER, cursor};
use crate::handle::App;
use crate::problem::Problem;
use crate::request::query::Query;
use crate::request::{JSON, NDJSON, accepts, document};

/// Records of a page unless told otherwise.
const LIMIT_DEFAULT: u32 = 100;

/// A page of records, with the cursor of the next one if there is one.
pub(crate) async fn page(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let names = ["ns", "prefix", "start", "end", "limit", "cursor", "keys_only"];
    let query = Query::parse(request.uri().query(), &names)?;
    let limits = app.config.limits;
    let limit = query.limit(LIMIT_DEFAULT, limits.page_records_max)?;
    let after = query.bytes("cursor").map(cursor::parse).transpose()?;
    let start = match (&after, query.bytes("start")) {
        (Some(key), _) => Bound::Excluded(&key[..]),
        (None, Some(key)) => Bound::Included(key),
        (None, None) => Bound::Unbounded,
    };
    let end = query.bytes("end").filter(|key| !key.is_empty()).map_or(Bound::Unbounded, Bound::Excluded);
    // One more than is sent says whether there are more.
    let mut range = ScanRange::prefix(query.bytes("prefix").unwrap_or_default())
        .within::<&[u8]>((start, end))
        .limit(u64::from(limit) + 1);
    let keys_only = query.flag("keys_only")?;
    if keys_only {
        range = range.keys_only();
    }
    let client = app.client(&query, request.extensions())?;
    let as_lines = accepts(request.headers(), NDJSON);
    let _wide = app.wide()?;

    let deadline = app.deadline();
    let mut stream = client.scan(range);
    let mut page = Page { text: String::new(), records: 0, last: Vec::new(), as_lines };
    let mut share = app.budget.take(0)?;
    let more = loop {
        let Some(record) = app.until(deadline, stream.next()).await? else { break false };
        let record = record?;
        if page.records == limit || page.text.len() >= limits.page_bytes_max as usize {
            break true;
        }
        let before = page.text.len();
        page.push(&record, keys_only);
        share.join(app.budget.take(page.text.len() - before)?);
    };
    let next = more.then(|| cursor::show(&page.last));
    let text = page.finish(next.as_deref());
    let mut response = Response::new(Body::from(share.pay(Bytes::from(text))));
    let kind = if as_lines { NDJSON } else { JSON };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    // Letters, digits, - and _.
    if let Some(Ok(next)) = next.map(HeaderValue::try_from) {
        response.headers_mut().insert(CURSOR_HEADER, next);
    }
    Ok(response)
}

/// The text of a page as it grows.
struct Page {
    text: String,
    records: u32,
    last: Vec<u8>,
    as_lines: bool,
}

impl Page {
    fn push(&mut self, record: &ScanRecord, keys_only: bool) {
        let mut members = Map::new();
        document::insert_bytes(&mut members, "key", &record.key);
        if !keys_only {
            document::insert_bytes(&mut members, "value", &record.value);
        }
        document::insert_version(&mut members, record.version, record.expiry);
        if self.records > 0 && !self.as_lines {
            self.text.push(',');
        }
        self.text.push_str(&Value::Object(members).to_string());
        if self.as_lines {
            self.text.push('\n');
        }
        self.records += 1;
        self.last.clear();
        self.last.extend_from_slice(&record.key);
    }

    fn finish(self, next: Option<&str>) -> String {
        if self.as_lines {
            self.text
        } else {
            format!("{{\"items\":[{}],\"cursor\":{}}}", self.text, json!(next))
        }
    }
}
