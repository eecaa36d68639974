//! Answers that are one JSON document.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::header::CONTENT_TYPE;

use crate::request::JSON;

/// A good answer; the status may be changed.
pub(crate) fn json(text: impl Into<Body>) -> Response {
    ([(CONTENT_TYPE, JSON)], text.into()).into_response()
}
