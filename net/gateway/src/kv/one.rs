//! `/kv/{key}`: one value.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use pinion_client::{Client, Entry, PutOptions, Ttl, Written};
use serde_json::{Map, Value};

use super::preconditions::{ReadConditions, Verdict, of_write};
use super::{SUPERSEDED_HEADER, check_value, describe, key_of};
use crate::handle::App;
use crate::problem::Problem;
use crate::request::document;
use crate::request::query::Query;
use crate::request::{JSON, accepts, has_type};

/// Values are bytes, and nothing else is claimed of them.
const BYTES: &str = "application/octet-stream";
/// A value as JSON is at most this much longer: every byte escaped, and the names.
const JSON_GROWTH: usize = 6;
const JSON_ROOM: usize = 1 << 10;

/// The value, raw or as JSON if that is asked for.
pub(crate) async fn get(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let conditions = ReadConditions::of(request.headers())?;
    let (client, key) = read_of(&app, &request)?;
    let entry = client.get_entry(&key).await?;
    let verdict = conditions.judge(entry.as_ref().map(|entry| entry.version))?;
    let Some(Entry { value, version, expiry }) = entry else { return Err(Problem::not_found("no value")) };
    let mut response = Response::new(Body::empty());
    describe(response.headers_mut(), version, expiry);
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept"));
    if verdict == Verdict::NotModified {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return Ok(response);
    }
    let (kind, bytes) = if accepts(request.headers(), JSON) {
        let mut members = Map::new();
        document::insert_bytes(&mut members, "key", &key);
        document::insert_bytes(&mut members, "value", &value);
        document::insert_version(&mut members, version, expiry);
        (JSON, Bytes::from(Value::Object(members).to_string()))
    } else {
        (BYTES, value)
    };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    *response.body_mut() = Body::from(app.budget.pay(bytes)?);
    Ok(response)
}

/// What GET tells beside the value, without reading it.
pub(crate) async fn head(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let conditions = ReadConditions::of(request.headers())?;
    let (client, key) = read_of(&app, &request)?;
    let stat = client.stat(&key).await?;
    let verdict = conditions.judge(stat.as_ref().map(|stat| stat.version))?;
    let Some(stat) = stat else { return Err(Problem::not_found("no value")) };
    let mut response = Response::new(Body::empty());
    describe(response.headers_mut(), stat.version, stat.expiry);
    if verdict == Verdict::NotModified {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(stat.value_bytes));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(BYTES));
    }
    Ok(response)
}

/// Sets the value, on a condition if there is one.
pub(crate) async fn put(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let (head, body) = request.into_parts();
    let query = Query::parse(head.uri.query(), &["ns", "ttl", "durability"])?;
    let client = app.client(&query, &head.extensions)?;
    let limits = app.node.limits()?;
    let key = key_of(head.uri.path(), &limits)?;
    let mut options = PutOptions { ttl: query.ttl("ttl")?, durability: query.durability()? };
    let is_json = has_type(&head.headers, JSON);
    let room =
        if is_json { JSON_GROWTH * limits.value_bytes_max + JSON_ROOM } else { limits.value_bytes_max };
    let mut value = app.receive(body, room).await?;
    if is_json {
        let (inner, ttl) = document::value(&value).map_err(|why| Problem::bad_request("bad_json", why))?;
        if ttl != Ttl::Default {
            if query.bytes("ttl").is_some() {
                let detail = "a ttl stands in the query or in the body, not in both";
                return Err(Problem::bad_request("bad_parameter", detail));
            }
            options.ttl = ttl;
        }
        value = app.budget.pay(inner)?;
    }
    check_value(&value, &limits)?;
    let condition = of_write(&head.headers, &client, &key).await?;
    let written = match condition {
        None => client.put_with(&key, value, options).await?,
        Some(condition) => client.put_if_with(&key, value, condition, options).await?,
    };
    // Only a put that asked for an absent key knows that it made one.
    let created = condition == Some(pinion_client::Condition::Absent);
    let status = if created { StatusCode::CREATED } else { StatusCode::NO_CONTENT };
    Ok(acknowledge(status, |headers| describe(headers, written.version, written.expiry), &written))
}

/// Removes the value, whether there is one or not; on a condition if there is one.
pub(crate) async fn delete(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let query = Query::parse(request.uri().query(), &["ns", "durability"])?;
    let client = app.client(&query, request.extensions())?;
    let key = key_of(request.uri().path(), &app.node.limits()?)?;
    let durability = query.durability()?;
    let written = match of_write(request.headers(), &client, &key).await? {
        None => client.delete_with(&key, durability).await?,
        // Acknowledged when it is on disk, which is more than may have been asked for.
        Some(condition) => client.delete_if(&key, condition).await?,
    };
    Ok(acknowledge(StatusCode::NO_CONTENT, |_| {}, &written))
}

fn acknowledge(status: StatusCode, describe: impl FnOnce(&mut HeaderMap), written: &Written) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    describe(response.headers_mut());
    if written.superseded {
        response.headers_mut().insert(SUPERSEDED_HEADER, HeaderValue::from_static("true"));
    }
    response
}

/// What a read names.
fn read_of(app: &App, request: &Request) -> Result<(Client, Vec<u8>), Problem> {
    let query = Query::parse(request.uri().query(), &["ns"])?;
    let client = app.client(&query, request.extensions())?;
    let key = key_of(request.uri().path(), &app.node.limits()?)?;
    Ok((client, key))
}
