//! `POST /kv:batch`: many operations in one request, a result for each.
//!
//! Operations take effect in their order. Neighbouring writes travel as one batch of the client's: one
//! stamp, atomic for the keys of one partition; neighbouring gets as one read of many keys. What would
//! break a limit is refused whole, before anything is done.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use pinion_client::{Client, Durability, Entry, Limits, WriteBatch, Written};
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{check_key, check_value};
use crate::budget::Share;
use crate::handle::App;
use crate::problem::Problem;
use crate::request::document::{self, Action, Item};
use crate::request::query::Query;
use crate::request::{JSON, NDJSON, accepts, has_type};

/// Bytes of a batch as JSON, compared with what they say: room for base64 or for escapes.
const JSON_GROWTH: usize = 2;
/// Bytes of the names and signs around an operation.
const ITEM_ROOM: usize = 128;
/// Bytes of a result beside its key and value, those of a problem included.
const RESULT_ROOM: usize = 512;
/// A key as JSON is at most this much longer: every byte escaped.
const KEY_GROWTH: usize = 6;
/// Keys that are read at once, unless values may be so large that fewer must do.
const READS_MAX: usize = 16;
/// Bytes that one round of reads may bring.
const READ_BYTES_MAX: usize = 16 << 20;

/// Carries out a batch.
pub(crate) async fn post(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let query = Query::parse(head.uri.query(), &["ns", "durability"])?;
    let client = app.client(&query, &head.extensions)?;
    let durability = query.durability()?;
    let limits = app.node.limits()?;
    let is_lines = has_type(&head.headers, NDJSON);
    if !is_lines && !has_type(&head.headers, JSON) {
        let detail = format!("a batch is {JSON} or {NDJSON}: say so in Content-Type");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bad_type", detail));
    }
    let as_lines = if is_lines { !accepts(&head.headers, JSON) } else { accepts(&head.headers, NDJSON) };
    let text = app.receive(body, body_bytes_max(&limits)).await?;
    // Only now: a body that comes slowly must not keep others waiting.
    let _wide = app.wide()?;
    let parse = if is_lines { document::lines } else { document::items };
    let operations_max = limits.batch_operations_max;
    // Kept until the batch is done: what is parsed waits for the node as long as the text would.
    let _parsed = app.budget.take(document::parsed_bytes_max(&text, operations_max))?;
    let items = parse(&text, operations_max).map_err(|why| Problem::bad_request("bad_batch", why))?;
    drop(text);
    for item in &items {
        check_key(&item.key, &limits)?;
        if let Action::Put { value, .. } = &item.action {
            check_value(value, &limits)?;
        }
    }
    let mut results = Results::new(&app, &items, as_lines)?;
    let deadline = Instant::now() + app.config.deadline;
    let is_get = |item: &Item| item.action == Action::Get;
    for run in items.chunk_by(|one, next| is_get(one) == is_get(next)) {
        if is_get(&run[0]) {
            read(&client, run, &limits, deadline, &mut results).await;
        } else {
            write(&client, run, durability, deadline, &mut results).await;
        }
    }
    Ok(results.finish())
}

fn body_bytes_max(limits: &Limits) -> usize {
    JSON_GROWTH * limits.batch_bytes_max + ITEM_ROOM * limits.batch_operations_max
}

async fn read(client: &Client, run: &[Item], limits: &Limits, deadline: Instant, results: &mut Results<'_>) {
    let round = (READ_BYTES_MAX / limits.value_bytes_max.max(1)).clamp(1, READS_MAX);
    for items in run.chunks(round) {
        let answer = match results.no_more(deadline) {
            Some(problem) => Err(problem),
            None => client.get_many(items.iter().map(|item| &item.key)).await.map_err(Problem::from),
        };
        match answer {
            Ok(found) => items.iter().zip(found).for_each(|(item, entry)| results.found(item, entry)),
            Err(problem) => items.iter().for_each(|item| results.failed(item, &problem)),
        }
    }
}

async fn write(
    client: &Client,
    run: &[Item],
    durability: Durability,
    deadline: Instant,
    results: &mut Results<'_>,
) {
    let mut batch = WriteBatch::new().durability(durability);
    for item in run {
        batch = match &item.action {
            Action::Put { value, ttl } => batch.put_with_ttl(&item.key, value.clone(), *ttl),
            _ => batch.delete(&item.key),
        };
    }
    let answer = if deadline <= Instant::now() {
        Err(Problem::no_time_left())
    } else {
        client.batch(batch).await.map_err(Problem::from)
    };
    match answer {
        Ok(answer) => {
            for (item, result) in run.iter().zip(answer.into_vec()) {
                match result {
                    Ok(written) => results.written(item, written),
                    Err(error) => results.failed(item, &error.into()),
                }
            }
        }
        Err(problem) => run.iter().for_each(|item| results.failed(item, &problem)),
    }
}

/// The text of the results as it grows.
///
/// Its room is taken before anything is done, all but that of values: a write must not be done and then
/// have no room for its result.
struct Results<'a> {
    app: &'a App,
    share: Share,
    text: String,
    as_lines: bool,
}

impl<'a> Results<'a> {
    fn new(app: &'a App, items: &[Item], as_lines: bool) -> Result<Self, Problem> {
        let room = items.iter().map(|item| RESULT_ROOM + KEY_GROWTH * item.key.len()).sum();
        Ok(Self { app, share: app.budget.take(room)?, text: String::new(), as_lines })
    }

    /// Why no more is done, if there is a reason.
    fn no_more(&self, deadline: Instant) -> Option<Problem> {
        if deadline <= Instant::now() {
            return Some(Problem::no_time_left());
        }
        let full = self.text.len() >= self.app.config.limits.page_bytes_max as usize;
        full.then(|| Problem::too_large("the answer is full: read the rest with another request"))
    }

    fn found(&mut self, item: &Item, entry: Option<Entry>) {
        let Some(entry) = entry else { return self.push(item, StatusCode::NOT_FOUND, Map::new()) };
        let mut members = Map::new();
        document::insert_bytes(&mut members, "value", &entry.value);
        document::insert_version(&mut members, entry.version, entry.expiry);
        let before = self.text.len();
        self.push(item, StatusCode::OK, members);
        match self.app.budget.take(self.text.len() - before) {
            Ok(share) => self.share.join(share),
            Err(problem) => {
                self.text.truncate(before);
                self.failed(item, &problem);
            }
        }
    }

    fn written(&mut self, item: &Item, written: Written) {
        let mut members = Map::new();
        document::insert_version(&mut members, written.version, written.expiry);
        if written.superseded {
            members.insert("superseded".into(), json!(true));
        }
        self.push(item, StatusCode::NO_CONTENT, members);
    }

    fn failed(&mut self, item: &Item, problem: &Problem) {
        let members = Map::from_iter([("problem".to_owned(), problem.document())]);
        self.push(item, problem.status(), members);
    }

    fn push(&mut self, item: &Item, status: StatusCode, members: Map<String, Value>) {
        let mut all = Map::new();
        document::insert_bytes(&mut all, "key", &item.key);
        all.insert("status".into(), json!(status.as_u16()));
        all.extend(members);
        if !self.as_lines && !self.text.is_empty() {
            self.text.push(',');
        }
        self.text.push_str(&Value::Object(all).to_string());
        if self.as_lines {
            self.text.push('\n');
        }
    }

    fn finish(self) -> Response {
        let (kind, text) = if self.as_lines {
            (NDJSON, self.text)
        } else {
            (JSON, format!("{{\"items\":[{}]}}", self.text))
        };
        let mut response = Response::new(Body::from(self.share.pay(Bytes::from(text))));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        response
    }
}
