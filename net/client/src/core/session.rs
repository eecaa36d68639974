//! What all connections and calls of one client share: the server map, the stamp clock, the retry
//! budget and a little randomness. Small and quick, so that a lock around it is never held long.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::map::ServerMap;
use super::random::Random;
use super::retry::RetryBudget;
use super::stamp::StampClock;

/// Shared by everything of one client.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) clock: StampClock,
    pub(crate) budget: RetryBudget,
    pub(crate) random: Random,
    /// The core that the first connection reached: requests that any core answers go there.
    pub(crate) home: u16,
    map: Option<Arc<ServerMap>>,
}

impl Session {
    /// Knows no server yet.
    pub(crate) fn new(mut random: Random, retry_tokens: u32) -> Self {
        Self {
            clock: StampClock::new(random.next()),
            budget: RetryBudget::new(retry_tokens),
            random,
            home: 0,
            map: None,
        }
    }

    /// Takes what a HELLO told.
    pub(crate) fn welcome(&mut self, now: Instant, welcome: &Welcome) {
        self.clock.anchor(now, welcome.stamp);
        if self.map.is_none() || self.home >= welcome.map.cores {
            self.home = welcome.core;
        }
        if self.map.as_deref() != Some(&welcome.map) {
            self.map = Some(Arc::new(welcome.map.clone()));
        }
    }

    /// The newest map; `None` before the first HELLO.
    pub(crate) fn map(&self) -> Option<&Arc<ServerMap>> {
        self.map.as_ref()
    }

    /// How long a stamp of ours stays good.
    pub(crate) fn retry_window(&self) -> Duration {
        self.map.as_ref().map_or(Duration::ZERO, |map| map.retry_window)
    }
}

/// What a HELLO told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Welcome {
    pub(crate) map: ServerMap,
    /// The core that answered.
    pub(crate) core: u16,
    /// The server's hybrid time.
    pub(crate) stamp: u64,
    /// Requests that may be in flight on this connection.
    pub(crate) in_flight_max: u32,
}
