//! What must be true of an answer, whatever was asked.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, X_CONTENT_TYPE_OPTIONS};
use hyper::{Method, Response, StatusCode};
use serde_json::Value;

use super::Gate;
use super::raw::{Pieces, Request};
use crate::trials::Counts;

/// Codes of problems that a peer can bring about at a node that is well, with their statuses.
const CODES: &[(&str, u16)] = &[
    ("bad_host", 400),
    ("bad_batch", 400),
    ("bad_condition", 400),
    ("bad_cursor", 400),
    ("bad_encoding", 400),
    ("bad_json", 400),
    ("bad_key", 400),
    ("bad_namespace", 400),
    ("bad_parameter", 400),
    ("bad_request", 400),
    ("body_broken", 400),
    ("unknown_parameter", 400),
    ("invalid", 400),
    ("no_such_address", 404),
    ("no_such_key", 404),
    ("no_such_namespace", 404),
    ("bad_method", 405),
    ("namespace_exists", 409),
    ("too_many_namespaces", 409),
    ("condition_failed", 412),
    ("too_large", 413),
    ("bad_type", 415),
    ("unknown_host", 421),
];

/// The header that names a trace.
const TRACE_PARENT: &str = "traceparent";

/// Problems that any address may answer with: those found before it is looked at, and by it.
const OF_ANY_ADDRESS: &[&str] = &["bad_host", "unknown_host", "no_such_address", "bad_method"];

/// What the gateway says of itself.
#[derive(Debug)]
pub(super) struct Judge {
    /// The statuses of each address and method.
    listed: BTreeMap<(String, String), BTreeSet<String>>,
}

/// What was asked.
#[derive(Debug)]
pub(super) struct Asked {
    method: Method,
    path: String,
    breaks: bool,
    body: Vec<u8>,
    /// Of the trace that it says it belongs to.
    traces: Vec<Vec<u8>>,
}

impl Asked {
    pub(super) fn of(request: &Request) -> Self {
        Self {
            method: request.method().clone(),
            path: request.uri().path().to_owned(),
            breaks: request.body().breaks(),
            body: request.body().bytes(),
            traces: request
                .headers()
                .get_all(TRACE_PARENT)
                .iter()
                .map(|trace| trace.as_bytes().to_vec())
                .collect(),
        }
    }

    /// The address as the description has it.
    fn pattern(&self) -> &str {
        if let Some(name) = self.path.strip_prefix("/namespaces/").filter(|name| !name.is_empty()) {
            return if name.contains('/') { "nowhere" } else { "/namespaces/{name}" };
        }
        match self.path.strip_prefix("/kv/") {
            Some(key) if !key.is_empty() => "/kv/{key}",
            _ => &self.path,
        }
    }
}

impl Judge {
    /// Asks the gateway what it lists.
    pub(super) fn of(gate: &Gate) -> Self {
        let mut request = Request::new(Pieces::whole(Bytes::new()));
        *request.uri_mut() = hyper::Uri::from_static("http://localhost/openapi.json");
        let answer = gate.answer(request);
        let document: Value = serde_json::from_slice(answer.body()).expect("the description is JSON");
        let mut listed = BTreeMap::new();
        for (path, methods) in document["paths"].as_object().expect("paths") {
            for (method, operation) in methods.as_object().expect("methods") {
                let statuses = operation["responses"].as_object().map(|all| all.keys().cloned().collect());
                listed.insert((path.clone(), method.to_ascii_uppercase()), statuses.unwrap_or_default());
            }
        }
        Self { listed }
    }

    /// # Panics
    /// When an answer is not as it must be.
    pub(super) fn judge(&self, asked: &Asked, answer: &Response<Bytes>, counts: &mut Counts) {
        let status = answer.status();
        assert!(!status.is_server_error(), "{answer:?}");
        let listed = self.listed_for(asked);
        let is_head = asked.method == Method::HEAD;
        check_headers(answer, is_head);
        if let Some(trace) = answer.headers().get(TRACE_PARENT) {
            let [told] = &asked.traces[..] else { panic!("a trace of nothing: {answer:?}") };
            let (told, trace) = (told.get(2..55), trace.as_bytes());
            assert!(trace.len() == 55 && trace.starts_with(b"00-") && told == trace.get(2..), "{answer:?}");
            counts.add("traces taken", 1);
        }
        if status.is_client_error() {
            if is_head {
                return counts.add("refused without a word", 1);
            }
            let code = code_of(answer);
            let general = OF_ANY_ADDRESS.contains(&code);
            let told =
                listed.is_some_and(|listed| listed.contains(status.as_str()) || listed.contains("default"));
            assert!(
                general || told,
                "{status} {code} is not listed for {} {}",
                asked.method,
                asked.pattern()
            );
            assert!(code != "body_broken" || asked.breaks, "{answer:?}");
            counts.add(code, 1);
            return;
        }
        let listed = listed.unwrap_or_else(|| panic!("{answer:?} where nothing is listed"));
        assert!(
            listed.contains(status.as_str()),
            "{status} is not listed for {} {}",
            asked.method,
            asked.pattern()
        );
        counts.add(if status == StatusCode::NOT_MODIFIED { "not modified" } else { "accepted" }, 1);
        if is_head
            || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED | StatusCode::CREATED)
        {
            assert!(answer.body().is_empty(), "{answer:?}");
            return;
        }
        match text(answer.headers(), CONTENT_TYPE.as_str()) {
            "application/octet-stream" => {}
            "application/json" => check_document(asked, &json(answer.body()), counts),
            "application/x-ndjson" => {
                let lines = answer.body().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                let items: Vec<Value> = lines.map(json).collect();
                check_items(asked, &items, counts);
            }
            kind => assert!(kind.starts_with("text/") && !answer.body().is_empty(), "{answer:?}"),
        }
    }

    fn listed_for(&self, asked: &Asked) -> Option<&BTreeSet<String>> {
        let of = |method: &str| self.listed.get(&(asked.pattern().to_owned(), method.to_owned()));
        // HEAD comes with every GET.
        of(asked.method.as_str()).or_else(|| of("GET").filter(|_| asked.method == Method::HEAD))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(bytes)))
}

/// What every answer has beside its body.
fn check_headers(answer: &Response<Bytes>, is_head: bool) {
    let headers = answer.headers();
    for value in headers.values() {
        assert!(value.to_str().is_ok(), "{answer:?}");
    }
    let id = text(headers, "x-request-id");
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    assert!((1..=64).contains(&id.len()) && id.bytes().all(plain), "{answer:?}");
    assert_eq!(text(headers, X_CONTENT_TYPE_OPTIONS.as_str()), "nosniff");
    assert!(headers.contains_key(CACHE_CONTROL), "{answer:?}");
    if !is_head && headers.contains_key(CONTENT_LENGTH) {
        assert_eq!(text(headers, CONTENT_LENGTH.as_str()), answer.body().len().to_string());
    }
}

/// The code of a problem, which must be well-formed.
fn code_of(answer: &Response<Bytes>) -> &'static str {
    assert_eq!(text(answer.headers(), CONTENT_TYPE.as_str()), "application/problem+json", "{answer:?}");
    let document = json(answer.body());
    check_problem(&document, answer.status().as_u16())
}

fn check_problem(document: &Value, status: u16) -> &'static str {
    assert_eq!(document["status"], status, "{document}");
    for member in ["title", "detail"] {
        assert!(document[member].as_str().is_some_and(|text| !text.is_empty()), "{document}");
    }
    assert_eq!(document["outcome"], "not_applied", "{document}");
    let code = document["code"].as_str().expect("a problem has a code");
    let known = CODES.iter().find(|(known, of)| (*known, *of) == (code, status));
    known.unwrap_or_else(|| panic!("not a code that a peer can bring about: {document}")).0
}

fn check_document(asked: &Asked, document: &Value, counts: &mut Counts) {
    assert!(document.is_object(), "{document}");
    if matches!(asked.pattern(), "/kv" | "/kv:batch") {
        check_items(asked, document["items"].as_array().expect("items"), counts);
    }
}

/// The results of a batch, or the records of a page.
fn check_items(asked: &Asked, items: &[Value], counts: &mut Counts) {
    for item in items {
        assert!(item["key"].is_string() != item["key_b64"].is_string(), "{item}");
        if asked.pattern() == "/kv:batch" {
            let status = item["status"].as_u64().expect("a result has a status");
            assert!(matches!(status, 200 | 204 | 400..500), "{item}");
            if item["problem"].is_object() {
                check_problem(&item["problem"], status as u16);
            }
        }
    }
    if asked.pattern() == "/kv:batch" {
        let written = asked.body.iter().filter(|byte| **byte == b'{').count();
        assert!(items.len() <= written, "{} results of {written} items", items.len());
        counts.add("results of batches", items.len() as u64);
    } else {
        counts.add("records of pages", items.len() as u64);
    }
}
