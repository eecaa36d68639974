//! Which address is answered by what.

use std::sync::Arc;

use axum::Router;
use axum::routing::{MethodRouter, get, post, put};
use hyper::{Method, StatusCode};

use crate::handle::App;
use crate::problem::Problem;
use crate::{health, kv, metrics, namespaces, pages, sections, status, version};

/// Every address, as it is counted and documented.
const ROUTES: [&str; 16] = [
    "/",
    "/kv",
    "/kv/{key}",
    "/kv:batch",
    "/namespaces",
    "/namespaces/{name}",
    "/healthz",
    "/livez",
    "/readyz",
    "/version",
    "/metrics",
    "/admin/v1/status",
    "/admin/v1/slowlog",
    "/admin/v1/hotkeys",
    "/admin/v1/clients",
    "/openapi.json",
];
/// For everything else.
const NO_ROUTE: &str = "none";

/// The router.
pub(crate) fn router(app: Arc<App>) -> Router {
    let value: MethodRouter<Arc<App>> =
        get(kv::one::get).head(kv::one::head).put(kv::one::put).delete(kv::one::delete);
    Router::new()
        .route("/kv", get(kv::list::page))
        .route("/kv/{*key}", value)
        .route("/kv:batch", post(kv::batch::post))
        .route("/namespaces", get(namespaces::list))
        .route("/namespaces/{name}", put(namespaces::put).delete(namespaces::delete))
        .route("/healthz", get(health::healthz))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/version", get(version::get))
        .route("/metrics", get(metrics::get))
        .route("/admin/v1/status", get(status::get))
        .route("/admin/v1/slowlog", get(sections::slow_operations))
        .route("/admin/v1/hotkeys", get(sections::hot_keys))
        .route("/admin/v1/clients", get(sections::clients))
        .route("/openapi.json", get(pages::openapi))
        .route("/", get(pages::console))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(app)
}

async fn no_route() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no_such_address",
        "nothing is here; /openapi.json says what is where",
    )
}

async fn no_method() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "bad_method", "this address does not take this method")
}

/// The address that a path belongs to, for counting.
pub(crate) fn name_of_route(path: &str) -> &'static str {
    let pattern = match path.strip_prefix('/').and_then(|rest| rest.split_once('/')) {
        Some(("kv", key)) if !key.is_empty() => "/kv/{key}",
        Some(("namespaces", name)) if !name.is_empty() && !name.contains('/') => "/namespaces/{name}",
        _ => path,
    };
    ROUTES.into_iter().find(|route| *route == pattern).unwrap_or(NO_ROUTE)
}

/// Whether an address is for those who look after the node.
pub(crate) fn is_overseers(route: &str) -> bool {
    matches!(route, "/healthz" | "/livez" | "/readyz" | "/metrics") || route.starts_with("/admin/")
}

/// The method, for counting.
pub(crate) fn name_of_method(method: &Method) -> &'static str {
    let known = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"];
    known.into_iter().find(|name| *name == method.as_str()).unwrap_or("other")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_counted_by_their_address() {
        for (path, route) in [
            ("/kv/a/b", "/kv/{key}"),
            ("/kv/%2f", "/kv/{key}"),
            ("/", "/"),
            ("/admin/v1/status", "/admin/v1/status"),
            ("/kv", "/kv"),
            ("/kv/", NO_ROUTE),
            ("/kv:batch", "/kv:batch"),
            ("/namespaces/a", "/namespaces/{name}"),
            ("/namespaces/a/b", NO_ROUTE),
            ("/namespaces", "/namespaces"),
            ("*", NO_ROUTE),
            ("", NO_ROUTE),
        ] {
            assert_eq!(name_of_route(path), route, "{path}");
            assert_eq!(is_overseers(route), route == "/admin/v1/status", "{path}");
        }
        for path in ["/healthz", "/livez", "/readyz", "/metrics"] {
            assert!(is_overseers(name_of_route(path)), "{path}");
        }
        assert_eq!(name_of_method(&Method::PATCH), "other");
    }
}
