//! Several futures polled by one task until all have ended.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use crate::error::Result;

/// Runs all to their end; answers the first error in their order, whichever came first in time.
pub(crate) async fn together<F: Future<Output = Result<()>>>(mut running: Vec<Pin<Box<F>>>) -> Result<()> {
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

/// Runs both to their end.
pub(crate) async fn both<A, B>(first: impl Future<Output = A>, second: impl Future<Output = B>) -> (A, B) {
    let (mut first, mut second) = (pin!(first), pin!(second));
    let (mut first_ended, mut second_ended) = (None, None);
    poll_fn(|context| {
        if first_ended.is_none()
            && let Poll::Ready(output) = first.as_mut().poll(context)
        {
            first_ended = Some(output);
        }
        if second_ended.is_none()
            && let Poll::Ready(output) = second.as_mut().poll(context)
        {
            second_ended = Some(output);
        }
        match (first_ended.take(), second_ended.take()) {
            (Some(first), Some(second)) => Poll::Ready((first, second)),
            unfinished => {
                (first_ended, second_ended) = unfinished;
                Poll::Pending
            }
        }
    })
    .await
}
