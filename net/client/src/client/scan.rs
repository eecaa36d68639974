//! A scan of the asynchronous client: a stream of records that fetches pages ahead.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;

use super::Client;
use super::many::All;
use crate::core::operation::{Operation, Page, Reply};
use crate::core::scan::ScanState;
use crate::error::{Error, Result};
use crate::scan::{ScanRange, ScanRecord};

type Fetch = Pin<Box<dyn Future<Output = Vec<(usize, Result<Page>)>> + Send>>;

/// The records of a scan, in its order. Pages are fetched as they are needed, each while the one
/// before is being read; at most two pages per shard are in memory. Ends after the first error.
/// Dropping it ends the scan.
#[must_use = "a stream does nothing until it is polled"]
pub struct ScanStream {
    phase: Phase,
}

enum Phase {
    Refused(Error),
    Running { client: Client, state: Box<ScanState>, fetch: Option<Fetch> },
    Over,
}

impl ScanStream {
    pub(super) fn new(client: Client, range: ScanRange) -> Self {
        let phase = match client.inner.shared.plan_scan(range) {
            Ok(state) => Phase::Running { client, state: Box::new(state), fetch: None },
            Err(error) => Phase::Refused(error),
        };
        Self { phase }
    }

    /// The next record; `None` at the end.
    ///
    /// # Errors
    /// Whatever fetching a page failed with, retries included.
    pub async fn next(&mut self) -> Option<Result<ScanRecord>> {
        poll_fn(|context| self.poll_record(context)).await
    }

    fn poll_record(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<ScanRecord>>> {
        loop {
            match &mut self.phase {
                Phase::Over => return Poll::Ready(None),
                Phase::Refused(error) => {
                    let error = error.clone();
                    self.phase = Phase::Over;
                    return Poll::Ready(Some(Err(error)));
                }
                Phase::Running { client, state, fetch } => {
                    if fetch.is_none() {
                        let requests = state.requests();
                        if !requests.is_empty() {
                            let mut pages: Fetch = Box::pin(pages(client.clone(), requests));
                            // The first poll sends the requests; the answers come while the
                            // caller reads what is here.
                            match pages.as_mut().poll(context) {
                                Poll::Pending => *fetch = Some(pages),
                                Poll::Ready(answers) => match take(state, answers) {
                                    Ok(()) => continue,
                                    Err(error) => {
                                        self.phase = Phase::Over;
                                        return Poll::Ready(Some(Err(error)));
                                    }
                                },
                            }
                        }
                    }
                    if let Some(record) = state.pop() {
                        return Poll::Ready(Some(Ok(record)));
                    }
                    let Some(pages) = fetch else {
                        self.phase = Phase::Over;
                        return Poll::Ready(None);
                    };
                    let Poll::Ready(answers) = pages.as_mut().poll(context) else { return Poll::Pending };
                    *fetch = None;
                    if let Err(error) = take(state, answers) {
                        self.phase = Phase::Over;
                        return Poll::Ready(Some(Err(error)));
                    }
                }
            }
        }
    }
}

impl Stream for ScanStream {
    type Item = Result<ScanRecord>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_record(context)
    }
}

impl std::fmt::Debug for ScanStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ScanStream").finish_non_exhaustive()
    }
}

async fn pages(client: Client, requests: Vec<(usize, Operation)>) -> Vec<(usize, Result<Page>)> {
    let fetch = |(lane, operation)| {
        let client = client.clone();
        async move { (lane, client.on_namespace(operation).await.and_then(Reply::page)) }
    };
    All::new(requests.into_iter().map(fetch)).await
}

fn take(state: &mut ScanState, answers: Vec<(usize, Result<Page>)>) -> Result<()> {
    answers.into_iter().try_for_each(|(lane, page)| state.received(lane, page?))
}
