//! `/version`: which builds these are.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use serde_json::{Map, Value, json};

use crate::handle::App;
use crate::request::JSON;

/// What is told of the node, by its own names.
const OF_NODE: [&str; 5] = ["version", "node_id", "incarnation", "protocol_lowest", "protocol_highest"];

/// The gateway's version, and the node's if it has answered.
pub(crate) async fn get(State(app): State<Arc<App>>) -> Response {
    let node = app.node.info().await.map_or(Value::Null, |info| {
        let members = OF_NODE.iter().map(|name| ((*name).to_owned(), info.value[*name].clone()));
        Value::Object(Map::from_iter(members))
    });
    let document = json!({ "gateway": env!("CARGO_PKG_VERSION"), "node": node });
    let mut response = Response::new(Body::from(document.to_string()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}
