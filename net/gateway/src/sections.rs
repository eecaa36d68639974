//! `/admin/v1/slowlog`, `/admin/v1/hotkeys`, `/admin/v1/clients`: lists that the node keeps, as it tells them.
//!
//! They are asked for by themselves, because they are longer than the counters and read more rarely.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use hyper::StatusCode;
use pinion_client::Section;
use serde_json::{Value, json};

use crate::answer;
use crate::handle::App;
use crate::problem::Problem;

/// Operations that took long, the newest first.
pub(crate) async fn slow_operations(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    section(&app, Section::SlowOperations).await
}

/// Keys that are asked for most, the hottest first.
pub(crate) async fn hot_keys(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    section(&app, Section::HotKeys).await
}

/// Connections to the node.
pub(crate) async fn clients(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    section(&app, Section::Clients).await
}

/// A section with the time when the node was asked.
async fn section(app: &App, section: Section) -> Result<Response, Problem> {
    let info = app.node.section(section).await?;
    let Value::Object(mut members) = info.value.clone() else {
        let detail = "the node's information is not a JSON object";
        return Err(Problem::new(StatusCode::BAD_GATEWAY, "protocol", detail));
    };
    members.insert("time_ms".into(), json!(info.taken_ms()));
    let text = app.budget.pay(Bytes::from(Value::Object(members).to_string()))?;
    Ok(answer::json(text))
}
