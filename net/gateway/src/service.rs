//! The gateway without its sockets: requests in, answers out.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;

use axum::BoxError;
use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::{Request, Response};
use tokio::sync::watch;

use crate::config::{Config, Error};
use crate::handle::{App, Front};
use crate::places::Asked;

/// What answers the requests of a [`Gateway`](crate::Gateway), for programs that get them from elsewhere
/// than its sockets.
///
/// Limits of connections and of the time for a head do not apply: there are none here. Runs on the tokio
/// runtime of its caller, with timers and I/O enabled.
#[derive(Debug)]
pub struct Service {
    front: Front,
    // Never told: there is nothing that would have to be ended.
    _stop: watch::Sender<bool>,
}

impl Service {
    /// A service before the node that `config` names. [`Config::listen`] is not listened on.
    ///
    /// # Errors
    /// What [`Config::check`] refuses.
    pub fn new(config: Config) -> Result<Self, Error> {
        config.check()?;
        let (stop, stopping) = watch::channel(false);
        Ok(Self { front: Front::new(Arc::new(App::new(config, stopping))), _stop: stop })
    }

    /// Tries the addresses of the node in turn until one answers. Before that, requests for the node are
    /// answered 503.
    pub async fn connect(&self) {
        self.front.app.node.connect(&self.front.app.config).await;
    }

    /// Answers one request, whose head has been checked for being one by whoever made it.
    pub async fn answer<B>(&self, request: Request<B>) -> Response<Bytes>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let asked = if self.front.is_overseer(&request) { Asked::Overseer } else { Asked::Ordinary };
        let (head, mut body) = self.front.answer(request.map(Body::new), asked).await.into_parts();
        let mut all = Vec::new();
        // Answers are made of bytes that are there: nothing of them fails.
        while let Some(Ok(frame)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            all.extend_from_slice(frame.data_ref().map_or(&[], |bytes| &bytes[..]));
        }
        Response::from_parts(head, all.into())
    }
}
