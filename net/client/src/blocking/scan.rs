//! A scan of the blocking client: an iterator that fetches pages.

use super::Client;
use crate::core::operation::Reply;
use crate::core::scan::ScanState;
use crate::error::{Error, Result};
use crate::scan::{ScanRange, ScanRecord};

/// The records of a scan, in its order. Ends after the first error. At most two pages per shard are
/// in memory.
#[derive(Debug)]
#[must_use = "an iterator does nothing until it is asked"]
pub struct Scan {
    client: Client,
    state: Result<ScanState, Option<Error>>,
}

impl Scan {
    pub(super) fn new(client: Client, range: ScanRange) -> Self {
        let state = client.inner.shared.plan_scan(range).map_err(Some);
        Self { client, state }
    }

    /// Fetches the pages that are needed now; whether there are any.
    fn fetch(client: &Client, state: &mut ScanState) -> Result<bool> {
        let requests = state.requests();
        let any = !requests.is_empty();
        let (lanes, operations): (Vec<_>, Vec<_>) = requests.into_iter().unzip();
        for (lane, reply) in lanes.into_iter().zip(client.all_on_namespace(operations)?) {
            state.received(lane, reply.and_then(Reply::page)?)?;
        }
        Ok(any)
    }
}

impl Iterator for Scan {
    type Item = Result<ScanRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let state = match &mut self.state {
                Ok(state) => state,
                Err(error) => return error.take().map(Err),
            };
            if let Some(record) = state.pop() {
                return Some(Ok(record));
            }
            match Self::fetch(&self.client, state) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => {
                    self.state = Err(None);
                    return Some(Err(error));
                }
            }
        }
    }
}
