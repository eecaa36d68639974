//! Several reads in flight at once, for one task.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use crate::error::Result;

/// Runs all to their end; answers the first error in their order, whichever came first in time.
pub(super) async fn together<F: Future<Output = Result<()>>>(mut running: Vec<Pin<Box<F>>>) -> Result<()> {
    let mut ended: Vec<Option<Result<()>>> = running.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, ended) in running.iter_mut().zip(&mut ended) {
            if ended.is_none()
                && let Poll::Ready(result) = future.as_mut().poll(context)
            {
                *ended = Some(result);
            }
        }
        if ended.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    ended.into_iter().flatten().collect()
}
