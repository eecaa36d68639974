//! `/namespaces`: the namespaces of the node.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use hyper::StatusCode;
use pinion_client::{ErrorCode, Namespace, Ttl};
use serde_json::{Value, json};

use crate::answer;
use crate::handle::App;
use crate::problem::Problem;
use crate::request::percent;
use crate::request::query::{Query, check_namespace};

/// All of them, with those whose space is still being given back.
pub(crate) async fn list(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    let mut namespaces = app.node_client(request.extensions())?.namespaces().await?;
    namespaces.sort_by_key(|namespace| namespace.id);
    let items: Vec<Value> = namespaces.iter().map(document).collect();
    Ok(answer::json(json!({ "items": items }).to_string()))
}

fn document(namespace: &Namespace) -> Value {
    json!({
        "id": namespace.id,
        "name": namespace.name,
        "default_ttl": namespace.default_ttl.map(|ttl| ttl.as_secs_f64()),
        "dropped": namespace.dropped,
    })
}

/// Creates a namespace, or changes the default TTL of one that is there.
pub(crate) async fn put(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    let query = Query::parse(request.uri().query(), &["default_ttl"])?;
    let default_ttl: Option<Duration> = match query.ttl("default_ttl")? {
        Ttl::After(duration) => Some(duration),
        Ttl::Default | Ttl::Never => None,
    };
    let name = name_of(&request)?;
    let client = app.node_client(request.extensions())?;
    let status = match client.create_namespace(&name, default_ttl).await {
        Ok(_) => StatusCode::CREATED,
        Err(error) if error.code() == Some(ErrorCode::NamespaceExists) => {
            client.set_namespace(&name, default_ttl).await?;
            StatusCode::NO_CONTENT
        }
        Err(error) => return Err(error.into()),
    };
    Ok(empty(status))
}

/// Drops a namespace with all its records.
pub(crate) async fn delete(State(app): State<Arc<App>>, request: Request) -> Result<Response, Problem> {
    Query::parse(request.uri().query(), &[])?;
    let name = name_of(&request)?;
    app.node_client(request.extensions())?.drop_namespace(&name).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

fn name_of(request: &Request) -> Result<String, Problem> {
    let last = request.uri().path().rsplit('/').next().unwrap_or_default();
    let name = String::from_utf8(percent::decode(last)?).unwrap_or_default();
    check_namespace(&name).map(str::to_owned)
}

fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
