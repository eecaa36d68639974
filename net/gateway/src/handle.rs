//! One request from its head to its answer: what is done with every one of them.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::http::Extensions;
use hyper::service::Service;
use hyper::{Request, StatusCode};
use hyper_util::service::TowerToHyperService;
use pinion_client::{Client, TraceParent};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, timeout_at};

use crate::budget::Budget;
use crate::config::Config;
use crate::health::Health;
use crate::hosts::Hosts;
use crate::node::Node;
use crate::places::Asked;
use crate::problem::Problem;
use crate::request::query::Query;
use crate::routes;
use crate::traffic::{Line, Traffic};

/// Names a request in answers and logs.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest name that a peer may give its request, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 64;
/// Where a request comes from, for those who trace it through many services (W3C Trace Context).
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");

/// What all requests share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) node: Node,
    pub(crate) traffic: Traffic,
    pub(crate) budget: Budget,
    pub(crate) health: Health,
    hosts: Hosts,
    wide: Semaphore,
    stopping: watch::Receiver<bool>,
}

impl App {
    pub(crate) fn new(config: Config, stopping: watch::Receiver<bool>) -> Self {
        Self {
            node: Node::default(),
            traffic: Traffic::default(),
            budget: Budget::new(config.limits.buffer_bytes_max),
            health: Health::default(),
            hosts: Hosts::new(&config.hosts),
            wide: Semaphore::new(usize::try_from(config.limits.wide_requests_max).unwrap_or(usize::MAX)),
            config,
            stopping,
        }
    }

    /// Whether the gateway was told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// The client for the keys of the namespace that a query names, on behalf of a request.
    pub(crate) fn client(&self, query: &Query, request: &Extensions) -> Result<Client, Problem> {
        Ok(traced(self.node.namespace(query.namespace()?)?, request))
    }

    /// The client for what is of no namespace, on behalf of a request.
    pub(crate) fn node_client(&self, request: &Extensions) -> Result<Client, Problem> {
        Ok(traced(self.node.client()?.clone(), request))
    }

    /// A place among the requests that read or write many records.
    pub(crate) fn wide(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.wide.try_acquire().map_err(|_| Problem::busy("too many batches and scans are under way"))
    }

    /// When a request that begins now must be over.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + self.config.deadline
    }

    /// What a read gives, if it does so in time.
    pub(crate) async fn until<T>(
        &self,
        deadline: Instant,
        future: impl Future<Output = T>,
    ) -> Result<T, Problem> {
        timeout_at(deadline, future)
            .await
            .map_err(|_| Problem::new(StatusCode::GATEWAY_TIMEOUT, "deadline", "deadline exceeded"))
    }

    /// Receives the body of a request.
    pub(crate) async fn receive(&self, body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
        let time = Duration::from_millis(u64::from(self.config.limits.body_ms_max));
        self.budget.receive(body, bytes_max, time).await
    }
}

/// The router, and what is done around it.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) app: Arc<App>,
    router: TowerToHyperService<axum::Router>,
    requests: AtomicU64,
    /// Tells the requests of this start from those of others.
    start: u32,
}

impl Front {
    pub(crate) fn new(app: Arc<App>) -> Self {
        let router = TowerToHyperService::new(routes::router(Arc::clone(&app)));
        // Seeded by the operating system.
        let start = (RandomState::new().hash_one(std::process::id()) >> 32) as u32;
        Self { app, router, requests: AtomicU64::new(0), start }
    }

    /// Whether a request is by somebody who looks after the node: see [`crate::places`].
    pub(crate) fn is_overseer<B>(&self, request: &Request<B>) -> bool {
        routes::is_overseers(routes::name_of_route(request.uri().path()))
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, request: Request<Body>, asked: Asked) -> Response {
        let begun = Instant::now();
        let (mut head, body) = request.into_parts();
        let id = self.id_of(&head.headers);
        let method = routes::name_of_method(&head.method);
        let route = routes::name_of_route(head.uri.path());
        let trace = trace_parent(&head.headers);
        if let Some(trace) = trace {
            head.extensions.insert(trace);
        }
        let mut response = match self.app.hosts.check(&head) {
            Err(problem) => problem.into_response(),
            Ok(()) if asked == Asked::Refused => {
                let detail = "too many requests are under way";
                Problem::unavailable("too_many_connections", detail).into_response()
            }
            Ok(()) => match self.router.call(Request::from_parts(head, body)).await {
                Ok(response) => response,
                Err(never) => match never {},
            },
        };
        let status = response.status().as_u16();
        let headers = response.headers_mut();
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        let took = begun.elapsed();
        tracing::debug!(
            request = id.to_str().unwrap_or_default(),
            trace = trace.map(tracing::field::display),
            method,
            route,
            status,
            micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "answered"
        );
        headers.insert(REQUEST_ID, id);
        // Digits, small letters and hyphens.
        if let Some(Ok(trace)) = trace.map(|trace| HeaderValue::try_from(trace.to_string())) {
            headers.insert(TRACE_PARENT, trace);
        }
        self.app.traffic.answered(Line { route, method, status }, took);
        response
    }

    /// The name that the peer gave its request, or a new one.
    fn id_of(&self, headers: &HeaderMap) -> HeaderValue {
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let good = |id: &&HeaderValue| {
            (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(plain)
        };
        if let Some(id) = headers.get(&REQUEST_ID).filter(good) {
            return id.clone();
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:08x}-{number:x}", self.start);
        HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("-"))
    }
}

/// Has the node told of the trace that a request belongs to.
fn traced(client: Client, request: &Extensions) -> Client {
    match request.get::<TraceParent>() {
        Some(trace) => client.with_trace(*trace),
        None => client,
    }
}

/// The trace that a request belongs to, if it says so once and in the form of the standard; everything else
/// is passed over, as the standard asks.
fn trace_parent(headers: &HeaderMap) -> Option<TraceParent> {
    let mut fields = headers.get_all(TRACE_PARENT).iter();
    let field = fields.next()?;
    if fields.next().is_some() {
        return None;
    }
    field.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_taken_in_their_form_only() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let no_trace = format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32));
        let no_parent = format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{}-01", "0".repeat(16));
        let of = |fields: &[&str]| {
            let mut headers = HeaderMap::new();
            fields.iter().for_each(|field| {
                headers.append(TRACE_PARENT, HeaderValue::from_str(field).unwrap());
            });
            trace_parent(&headers).map(|trace| trace.to_string())
        };
        assert_eq!(of(&[parent]).as_deref(), Some(parent));
        // A later version is read as far as it is known, and spoken of in ours.
        assert_eq!(of(&[&format!("cc{}-more", &parent[2..])]).as_deref(), Some(parent));
        let later_without_hyphen = format!("cc{}more", &parent[2..]);
        for bad in [
            "",
            "x",
            &parent[1..],
            &parent[..54],
            &parent.to_uppercase(),
            &format!("ff{}", &parent[2..]),
            &format!("{parent}-more"),
            &later_without_hyphen,
            &no_trace,
            &no_parent,
            &parent.replace('-', "_"),
        ] {
            assert_eq!(of(&[bad]), None, "{bad}");
        }
        assert_eq!(of(&[parent, parent]), None, "two of them");
    }
}
