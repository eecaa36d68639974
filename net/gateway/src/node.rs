//! The node behind the gateway: one client, connected when the node first answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use pinion_client::{Client, Limits, NAMESPACE_DEFAULT, Section};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::config::Config;
use crate::problem::Problem;

/// The wait between two rounds of trying all seeds: first and longest.
const CONNECT_DELAY_FIRST: Duration = Duration::from_millis(20);
const CONNECT_DELAY_MAX: Duration = Duration::from_secs(1);
/// How long server info is shown again before the node is asked anew, so that many who look cost the
/// cores no more than one.
const INFO_FRESH: Duration = Duration::from_millis(250);
/// Namespaces whose numbers are remembered: as many as a node can have.
const NAMESPACES_MAX: usize = 256;

/// An answer, and when it came.
type Kept = tokio::sync::Mutex<Option<(Instant, Arc<Info>)>>;

/// The node, once it has answered.
#[derive(Debug, Default)]
pub(crate) struct Node {
    client: OnceLock<Client>,
    namespaces: Mutex<HashMap<String, Client>>,
    /// The newest answer of each section.
    sections: [Kept; 4],
}

/// What the node said about itself.
#[derive(Debug)]
pub(crate) struct Info {
    pub(crate) value: Value,
    /// When it did, by this machine's clock.
    pub(crate) taken: SystemTime,
}

impl Info {
    /// When it was told, in milliseconds since 1970.
    pub(crate) fn taken_ms(&self) -> u64 {
        let time = self.taken.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    }
}

impl Node {
    /// Tries the seeds in turn until one answers. The client looks after its connections from then on.
    pub(crate) async fn connect(&self, config: &Config) {
        let mut delay = CONNECT_DELAY_FIRST;
        loop {
            for seed in &config.seeds {
                let builder = Client::builder()
                    .connect(seed)
                    .deadline(config.deadline)
                    .client_name(concat!("pinion-gateway/", env!("CARGO_PKG_VERSION")));
                match builder.build().await {
                    Ok(client) => {
                        tracing::debug!("the gateway is connected to the node at {seed}");
                        // Only this task sets it, and ends then.
                        let _ = self.client.set(client);
                        return;
                    }
                    Err(error) => tracing::debug!("the node at {seed} does not answer yet: {error}"),
                }
            }
            sleep(delay).await;
            delay = CONNECT_DELAY_MAX.min(delay * 2);
        }
    }

    /// The client, if the node has answered.
    pub(crate) fn client(&self) -> Result<&Client, Problem> {
        let starting = || Problem::unavailable("starting", "the node has not answered yet");
        self.client.get().ok_or_else(starting)
    }

    /// The client for the keys of a namespace.
    pub(crate) fn namespace(&self, name: Option<&str>) -> Result<Client, Problem> {
        let client = self.client()?;
        let Some(name) = name.filter(|name| *name != NAMESPACE_DEFAULT) else { return Ok(client.clone()) };
        // Nothing panics while it holds the lock.
        let mut known = self.namespaces.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= NAMESPACES_MAX && !known.contains_key(name) {
            known.clear();
        }
        let found = known.entry(name.to_owned()).or_insert_with(|| client.with_namespace(name));
        Ok(found.clone())
    }

    /// The largest sizes that the node takes.
    pub(crate) fn limits(&self) -> Result<Limits, Problem> {
        Ok(self.client()?.limits()?)
    }

    /// What the node says about itself, all but its long lists.
    pub(crate) async fn info(&self) -> Result<Arc<Info>, Problem> {
        self.section(Section::All).await
    }

    /// A section of that, at most [`INFO_FRESH`] old. Whoever comes while it is being asked waits for the
    /// same answer.
    pub(crate) async fn section(&self, section: Section) -> Result<Arc<Info>, Problem> {
        let client = self.client()?;
        let mut kept = self.sections[usize::from(section.to_u8())].lock().await;
        if let Some((taken, info)) = &*kept
            && taken.elapsed() < INFO_FRESH
        {
            return Ok(Arc::clone(info));
        }
        let text = client.server_info_section(section).await?;
        let value = serde_json::from_str(&text).map_err(|error| {
            let detail = format!("the node's information is not JSON: {error}");
            Problem::new(hyper::StatusCode::BAD_GATEWAY, "protocol", detail)
        })?;
        let info = Arc::new(Info { value, taken: SystemTime::now() });
        *kept = Some((Instant::now(), Arc::clone(&info)));
        Ok(info)
    }
}
