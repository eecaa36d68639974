//! What is served as it is: the console and the description of all addresses.

use axum::body::Body;
use axum::response::Response;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_FRAME_OPTIONS};

use crate::request::JSON;

const CONSOLE: &str = include_str!("console.html");
const OPENAPI: &str = include_str!("openapi.json");

/// The page may run its own script and ask this gateway, and nothing else.
const CONSOLE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// `/`: a page that shows how the node is doing.
pub(crate) async fn console() -> Response {
    let mut response = page("text/html; charset=utf-8", CONSOLE);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONSOLE_POLICY));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

/// `/openapi.json`.
pub(crate) async fn openapi() -> Response {
    page(JSON, OPENAPI)
}

fn page(kind: &'static str, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
