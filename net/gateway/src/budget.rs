//! Bytes that all bodies and answers may take up together.
//!
//! A body is paid for as it arrives and an answer before it is sent; both are given back when they are
//! gone. Whoever finds nothing left is answered at once: many slow peers cannot make memory grow.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// What is left of the bytes.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
}

/// A part of the budget; given back when dropped.
#[derive(Debug)]
pub(crate) struct Share {
    permit: OwnedSemaphorePermit,
}

impl Budget {
    pub(crate) fn new(bytes_max: u32) -> Self {
        Self { bytes: Arc::new(Semaphore::new(usize::try_from(bytes_max).unwrap_or(usize::MAX))) }
    }

    /// A part of so many bytes.
    pub(crate) fn take(&self, bytes: usize) -> Result<Share, Problem> {
        let full = || Problem::unavailable("buffers_full", "too many bytes wait to be received or sent");
        let count = u32::try_from(bytes).map_err(|_| full())?;
        let permit = Arc::clone(&self.bytes).try_acquire_many_owned(count).map_err(|_| full())?;
        Ok(Share { permit })
    }

    /// Receives a body of at most `bytes_max` bytes within `time`.
    ///
    /// # Errors
    /// 413 before anything is read if its length is told and too much; 408; 503 when nothing is left of the
    /// budget; 400 when the connection breaks.
    pub(crate) async fn receive(
        &self,
        body: Body,
        bytes_max: usize,
        time: Duration,
    ) -> Result<Bytes, Problem> {
        let told = body.size_hint().lower();
        if told > bytes_max as u64 {
            return Err(over(told, bytes_max));
        }
        tokio::time::timeout(time, self.gather(body, bytes_max)).await.unwrap_or_else(|_| {
            let detail = format!("the body did not come within {} s", time.as_secs_f64());
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail))
        })
    }

    async fn gather(&self, mut body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
        let mut share = self.take(0)?;
        let (mut first, mut all) = (Bytes::new(), Vec::new());
        while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
            let broken = |_| Problem::bad_request("body_broken", "the body ended before it was complete");
            let Ok(chunk) = frame.map_err(broken)?.into_data() else { continue };
            share.join(self.take(chunk.len())?);
            let length = first.len() + all.len() + chunk.len();
            if length > bytes_max {
                return Err(over(length as u64, bytes_max));
            }
            // Most bodies come whole, and are not copied.
            if length == chunk.len() {
                first = chunk;
                continue;
            }
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&chunk);
        }
        Ok(share.pay(if first.is_empty() { all.into() } else { first }))
    }

    /// The same bytes, paid for until the last of them is dropped: a value or body that waits to be sent.
    pub(crate) fn pay(&self, bytes: impl Into<Bytes>) -> Result<Bytes, Problem> {
        let bytes = bytes.into();
        Ok(self.take(bytes.len())?.pay(bytes))
    }
}

impl Share {
    /// Adds another part to this one.
    pub(crate) fn join(&mut self, other: Self) {
        self.permit.merge(other.permit);
    }

    /// Lets bytes keep it for as long as there is a handle to them.
    pub(crate) fn pay(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Paid { bytes, _share: self })
    }
}

fn over(bytes: u64, bytes_max: usize) -> Problem {
    Problem::too_large(format!("a body of {bytes} bytes is over the limit of {bytes_max} bytes"))
}

/// Bytes and what was paid for them.
struct Paid {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Paid {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll};

    use hyper::body::Frame;

    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn what_is_gone_is_given_back() {
        let budget = Budget::new(100);
        let bytes = budget.pay(vec![0; 60]).unwrap();
        let part = bytes.slice(1..2);
        drop(bytes);
        assert_eq!(budget.take(41).unwrap_err().status(), 503);
        drop(part);
        assert!(budget.take(100).is_ok());
    }

    #[test]
    fn bodies_are_received_within_their_limits() {
        let budget = Budget::new(100);
        let time = Duration::from_secs(60);
        let receive = |bytes: usize, max| block_on(budget.receive(Body::from(vec![7; bytes]), max, time));
        assert_eq!(receive(50, 50).unwrap().len(), 50);
        assert_eq!(receive(51, 50).unwrap_err().status(), 413);
        assert_eq!(receive(0, 50).unwrap().len(), 0);
        assert_eq!(receive(101, 200).unwrap_err().status(), 503);
        assert!(budget.take(100).is_ok(), "nothing is kept of what was refused");
    }

    #[test]
    fn a_body_that_does_not_come_is_not_waited_for() {
        struct Never;
        impl HttpBody for Never {
            type Data = Bytes;
            type Error = std::convert::Infallible;
            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
                Poll::Pending
            }
        }
        let refused = block_on(Budget::new(9).receive(Body::new(Never), 9, Duration::from_millis(1)));
        assert_eq!(refused.unwrap_err().status(), 408);
    }
}
