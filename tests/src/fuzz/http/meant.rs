//! Requests that mean something, and what must come of them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::Gate;
use super::raw::{Pieces, Request};
use crate::world::Random;

const VALUE_BYTES_MAX: u64 = 2_000;

/// Puts a value under a key that nobody else uses and looks at it in every way there is.
///
/// # Panics
/// When it is not what was put.
pub(super) fn round_trip(gate: &Gate, random: &mut Random, unique: u64) {
    let mut key = unique.to_be_bytes().to_vec();
    key.extend((0..random.below(20)).map(|_| random.word() as u8));
    let value: Vec<u8> = (0..random.below(VALUE_BYTES_MAX)).map(|_| random.word() as u8).collect();
    let address: String = key.iter().map(|byte| format!("%{byte:02x}")).collect();
    let target = format!("/kv/{address}");
    let ask = |method: Method, target: &str, headers: &[(&'static str, &str)], body: &[u8]| {
        let mut request = Request::new(Pieces::whole(body.to_vec()));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().expect("an address");
        for (name, value) in headers.iter().chain(&[("host", "localhost")]) {
            request.headers_mut().insert(*name, value.parse().expect("a header"));
        }
        gate.answer(request)
    };

    // Others may have given the namespace a time after which values expire.
    let put = ask(
        Method::PUT,
        &format!("{target}?durability=buffered&ttl=never"),
        &[("if-none-match", "*")],
        &value,
    );
    assert_eq!(put.status(), StatusCode::CREATED, "{put:?}");
    let tag = put.headers()["etag"].to_str().expect("a tag").to_owned();
    let got = ask(Method::GET, &target, &[], b"");
    assert_eq!((got.status(), &got.body()[..]), (StatusCode::OK, &value[..]), "{target}");
    assert_eq!(got.headers()["etag"], tag, "{target}");
    let known = ask(Method::GET, &target, &[("if-none-match", &tag)], b"");
    assert_eq!((known.status(), known.body().len()), (StatusCode::NOT_MODIFIED, 0), "{target}");

    let item = json!({"op": "get", "key_b64": STANDARD.encode(&key)}).to_string();
    let batch = ask(Method::POST, "/kv:batch", &[("content-type", "application/x-ndjson")], item.as_bytes());
    let result = json(&batch);
    assert_eq!(
        (&result["status"], bytes_of(&result, "value")),
        (&json!(200), Some(value.clone())),
        "{target}"
    );
    let page = ask(Method::GET, &format!("/kv?prefix={address}&limit=1"), &[], b"");
    let page = json(&page);
    let record = &page["items"][0];
    assert_eq!(bytes_of(record, "key"), Some(key), "{page}");
    assert_eq!(bytes_of(record, "value"), Some(value), "{page}");

    let other = ask(Method::DELETE, &target, &[("if-match", "\"x\"")], b"");
    assert_eq!(other.status(), StatusCode::PRECONDITION_FAILED, "{target}");
    let gone = ask(Method::DELETE, &target, &[("if-match", &tag)], b"");
    assert_eq!(gone.status(), StatusCode::NO_CONTENT, "{target}");
    assert_eq!(ask(Method::HEAD, &target, &[], b"").status(), StatusCode::NOT_FOUND, "{target}");
}

fn json(answer: &Response<Bytes>) -> Value {
    serde_json::from_slice(answer.body()).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// A member that stands as text or as base64.
fn bytes_of(members: &Value, name: &str) -> Option<Vec<u8>> {
    if let Some(text) = members[name].as_str() {
        return Some(text.as_bytes().to_vec());
    }
    STANDARD.decode(members[format!("{name}_b64")].as_str()?).ok()
}
