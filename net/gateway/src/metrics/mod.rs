//! `/metrics`: everything that is counted, in Prometheus' text format (0.0.4).
//!
//! What the node counts comes from its server info, as it is: counters that a later node adds are shown
//! without a change here. Base units (seconds, bytes), `_total` on counters, labels for what can be added up:
//! `core`, `shard`, `op`, `listener`, `namespace`. The gateway adds what it counts itself. A node that does
//! not answer is `pinion_up 0`, not an error: the gateway's own numbers are still good.

mod exposition;
mod gateway;
mod node;
mod usage;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderValue};

use self::exposition::{Exposition, Kind};
use crate::handle::App;
use crate::problem::Problem;

/// The content type of the text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

pub(crate) async fn get(State(app): State<Arc<App>>) -> Result<Response, Problem> {
    let info = app.node.info().await;
    let mut out = Exposition::default();
    out.family("pinion_up", Kind::Gauge, "Whether the node answered");
    out.sample("pinion_up", &[], u8::from(info.is_ok()));
    if let Ok(info) = info {
        node::write(&info.value, &mut out);
    }
    gateway::write(&app.traffic, &mut out);
    let text = app.budget.pay(Bytes::from(out.finish()))?;
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(TEXT));
    Ok(response)
}
