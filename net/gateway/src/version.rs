//! `/version`: which builds these are.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde_json::{Map, Value, json};

use crate::answer;
use crate::handle::App;

/// What is told of the node, by its own names.
const OF_NODE: [&str; 5] = ["version", "node_id", "incarnation", "protocol_lowest", "protocol_highest"];

/// The gateway's version, and the node's if it has answered.
pub(crate) async fn get(State(app): State<Arc<App>>) -> Response {
    let node = app.node.info().await.map_or(Value::Null, |info| {
        let members = OF_NODE.iter().map(|name| ((*name).to_owned(), info.value[*name].clone()));
        Value::Object(Map::from_iter(members))
    });
    let document = json!({ "gateway": env!("CARGO_PKG_VERSION"), "node": node });
    answer::json(document.to_string())
}
