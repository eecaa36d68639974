//! `/healthz`, `/livez`, `/readyz`: how the node is doing, for whoever starts, stops and watches it.
//!
//! Every core is asked over its own connection, so that one that hangs is named; a shard that failed is
//! known from the node's information. What each address makes of it:
//! - `/livez` fails for what a restart of the node mends: a core that does not answer, a shard that
//!   acknowledges nothing any more. A node that is still starting is alive.
//! - `/readyz` fails as well while the node has not answered yet, and when the gateway is stopping.
//! - `/healthz` fails for anything that somebody should look at: a full disk and damaged tables, too.
//!
//! To fail is 503 with `Retry-After`. The document is of one form then and when all is well, no problem
//! document: probes go by the status, and people by the names of cores and shards in it.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use hyper::StatusCode;
use hyper::header::RETRY_AFTER;
use pinion_client::Client;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::answer;
use crate::handle::App;
use crate::problem::{RETRY_DEFAULT, retry_after};

/// A core that does not answer for so long is called stalled.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// How long findings are shown again before the cores are asked anew.
const FRESH: Duration = Duration::from_millis(250);

/// The newest findings.
#[derive(Debug, Default)]
pub(crate) struct Health {
    kept: Mutex<Option<(Instant, Findings)>>,
}

type Findings = Arc<Vec<Finding>>;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    gravity: Gravity,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gravity {
    /// Requests are answered, but somebody should look at it.
    Warning,
    /// Nothing can be said before the node has answered.
    Starting,
    /// A restart is needed.
    Broken,
}

pub(crate) async fn healthz(State(app): State<Arc<App>>) -> Response {
    answer(&app, Gravity::Warning).await
}

pub(crate) async fn readyz(State(app): State<Arc<App>>) -> Response {
    answer(&app, Gravity::Starting).await
}

pub(crate) async fn livez(State(app): State<Arc<App>>) -> Response {
    answer(&app, Gravity::Broken).await
}

/// Fails for findings of at least this gravity.
async fn answer(app: &App, least: Gravity) -> Response {
    let mut findings = app.health.findings(app).await.to_vec();
    if app.is_stopping() {
        findings.push(Finding { gravity: Gravity::Starting, text: "the gateway is stopping".into() });
    }
    let fails = findings.iter().any(|finding| finding.gravity >= least);
    let texts: Vec<&str> = findings.iter().map(|finding| &finding.text[..]).collect();
    let document = json!({ "status": if fails { "failing" } else { "ok" }, "findings": texts });
    let mut response = answer::json(document.to_string());
    if fails {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.headers_mut().insert(RETRY_AFTER, retry_after(RETRY_DEFAULT));
    }
    response
}

impl Health {
    /// Asks, unless somebody just did.
    async fn findings(&self, app: &App) -> Findings {
        let mut kept = self.kept.lock().await;
        if let Some((taken, findings)) = &*kept
            && taken.elapsed() < FRESH
        {
            return Arc::clone(findings);
        }
        let findings = Arc::new(look(app).await);
        *kept = Some((Instant::now(), Arc::clone(&findings)));
        findings
    }
}

async fn look(app: &App) -> Vec<Finding> {
    let starting = || Finding { gravity: Gravity::Starting, text: "the node has not answered yet".into() };
    let Ok(client) = app.node.client() else { return vec![starting()] };
    let Ok(cores) = client.cores() else { return vec![starting()] };
    let broken = |text: String| Finding { gravity: Gravity::Broken, text };
    let silent = silent_cores(client, cores).await;
    if !silent.is_empty() {
        return silent.into_iter().map(|core| broken(format!("core {core} does not answer"))).collect();
    }
    match timeout(STALLED_AFTER, app.node.info()).await {
        Ok(Ok(info)) => in_info(&info.value),
        _ => vec![broken("the node does not tell its state".into())],
    }
}

/// The cores that do not answer in time.
async fn silent_cores(client: &Client, cores: u16) -> Vec<u16> {
    let mut asked = JoinSet::new();
    for core in 0..cores {
        let client = client.clone();
        asked.spawn(async move { (core, timeout(STALLED_AFTER, client.ping_core(core)).await) });
    }
    let mut silent = Vec::new();
    while let Some(answer) = asked.join_next().await {
        if let Ok((core, answer)) = answer
            && !matches!(answer, Ok(Ok(_)))
        {
            silent.push(core);
        }
    }
    silent.sort_unstable();
    silent
}

/// What the node's information has to say.
fn in_info(info: &Value) -> Vec<Finding> {
    let mut findings = Vec::new();
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    for core in list(info, "per_core") {
        for shard in list(&core, "shards") {
            let is_set = |name: &str| shard[name].as_u64().is_some_and(|number| number > 0);
            if is_set("failed") {
                let text = format!(
                    "shard {} on core {} met a failed write and acknowledges nothing until the node is restarted",
                    shard["shard"], core["core"]
                );
                findings.push(Finding { gravity: Gravity::Broken, text });
            }
            if is_set("disk_full_now") {
                let text = format!("the disk of shard {} is full: writes are refused", shard["shard"]);
                findings.push(Finding { gravity: Gravity::Warning, text });
            }
        }
    }
    for table in list(info, "quarantine") {
        let text = format!("shard {} has a damaged table: {}", table["shard"], table["file"]);
        findings.push(Finding { gravity: Gravity::Warning, text });
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_that_failed_are_named() {
        let shard = |number: u64, failed: u64, full: u64| json!({ "shard": number, "failed": failed, "disk_full_now": full });
        let info = json!({
            "per_core": [
                { "core": 0, "shards": [shard(0, 0, 0), shard(2, 1, 0)] },
                { "core": 1, "shards": [shard(1, 0, 1)] },
            ],
            "quarantine": [{ "shard": 1, "file": "07.table" }],
        });
        let found = in_info(&info);
        let gravities: Vec<Gravity> = found.iter().map(|finding| finding.gravity).collect();
        assert_eq!(gravities, [Gravity::Broken, Gravity::Warning, Gravity::Warning]);
        assert!(found[0].text.starts_with("shard 2 on core 0"));
        assert!(found[2].text.contains("07.table"));
        assert!(in_info(&json!({})).is_empty());
    }
}
