//! Waiting for several futures at once.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Completes when all its parts have; their outputs in their order. Every part is polled at each
/// wake-up, which is right for as many parts as a server has cores.
pub(crate) struct All<F: Future> {
    parts: Vec<Part<F>>,
}

enum Part<F: Future> {
    Running(Pin<Box<F>>),
    Done(Option<F::Output>),
}

impl<F: Future> All<F> {
    pub(crate) fn new(parts: impl IntoIterator<Item = F>) -> Self {
        Self { parts: parts.into_iter().map(|part| Part::Running(Box::pin(part))).collect() }
    }
}

// The parts are pinned in boxes of their own; outputs are only moved.
impl<F: Future> Unpin for All<F> {}

impl<F: Future> Future for All<F> {
    type Output = Vec<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut pending = false;
        for part in &mut self.parts {
            if let Part::Running(future) = part {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *part = Part::Done(Some(output)),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            return Poll::Pending;
        }
        let take = |part: &mut Part<F>| match part {
            Part::Done(output) => output.take(),
            Part::Running(_) => None,
        };
        Poll::Ready(self.parts.iter_mut().filter_map(take).collect())
    }
}
