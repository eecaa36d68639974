//! `/admin/v1/status`: what the node and the gateway say about themselves; the console reads it.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use serde_json::json;

use crate::answer;
use crate::handle::App;
use crate::problem::Problem;

/// The node's information with the time when it was asked, and the gateway's own numbers.
pub(crate) async fn get(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let node = app.node.info().await?;
    let [open, accepted, refused, gave_way] = app.traffic.connections();
    let (requests, errors) = app.traffic.totals();
    let document = json!({
        "time_ms": node.taken_ms(),
        "gateway": {
            "version": env!("CARGO_PKG_VERSION"),
            "connections": open,
            "connections_accepted": accepted,
            "connections_refused": refused,
            "connections_gave_way": gave_way,
            "requests": requests,
            "server_errors": errors,
        },
        "node": node.value,
    });
    let text = app.budget.pay(Bytes::from(document.to_string()))?;
    Ok(answer::json(text))
}
