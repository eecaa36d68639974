//! One connection from its acceptance to its end.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::handle::Front;
use crate::places::Place;
use crate::stall::Impatient;

/// Headers of a request.
const HEADERS_MAX: usize = 64;

/// What a connection is told that nobody gives a place to, as far as its socket takes it at once.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    content-type: application/problem+json\r\nretry-after: 1\r\nconnection: close\r\ncontent-length: 130\r\n\r\n\
    {\"title\":\"Service Unavailable\",\"status\":503,\"code\":\"too_many_connections\",\
    \"detail\":\"too many connections\",\"outcome\":\"not_applied\"}";

/// Answers one connection's requests until it ends or the gateway stops.
pub(crate) async fn serve(
    socket: TcpStream,
    place: Place,
    front: Arc<Front>,
    mut stopping: watch::Receiver<bool>,
) {
    // Answers are written whole; waiting for more helps nobody.
    let _ = socket.set_nodelay(true);
    let limits = front.app.config.limits;
    let stall = Duration::from_millis(u64::from(limits.stall_ms_max));
    let _open = front.app.traffic.opened();
    let place = Arc::new(place);
    let service = service_fn(|request: Request<Incoming>| {
        let (front, place) = (Arc::clone(&front), Arc::clone(&place));
        async move {
            let asked = place.begin(front.is_overseer(&request));
            let response = front.answer(request.map(Body::new), asked).await;
            place.answered();
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(u64::from(limits.head_ms_max)))
        .max_buf_size(usize::try_from(limits.head_bytes_max).unwrap_or(usize::MAX))
        .max_headers(HEADERS_MAX)
        .serve_connection(Impatient::new(socket, stall, Arc::clone(&place)), service);
    let mut connection = pin!(connection);
    let mut gave_up = pin!(place.gave_up());
    let unless_given_up = poll_fn(|context| {
        if gave_up.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        connection.as_mut().poll(context).map(Some)
    });
    let ended = match unless_stopped(&mut stopping, unless_given_up).await {
        Some(Some(ended)) => ended,
        Some(None) => return tracing::debug!("a connection over HTTP gave way to another"),
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!("a connection over HTTP ended: {error}");
    }
}

/// Turns a connection away without waiting for anything.
pub(crate) fn refuse(socket: &TcpStream) {
    // Just accepted: its send buffer is empty and takes this. If not, the peer sees it closed.
    let _ = socket.try_write(FULL);
}

/// What a future gives; `None` if the gateway is told to stop first.
pub(crate) async fn unless_stopped<T>(
    stopping: &mut watch::Receiver<bool>,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut stopped = pin!(stopping.wait_for(|stop| *stop));
    let mut future = pin!(future);
    poll_fn(|context| {
        if stopped.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_full_gateway_says_is_well_formed() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        let document: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(document["status"], 503);
    }
}
