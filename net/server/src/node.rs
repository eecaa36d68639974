//! A node from start to stop, as one of its cores sees it.
//!
//! Start: core 0 opens (or formats) the data directory and reads the catalogue, then tells the
//! others; each opens its shards; when all are ready, all accept. A core that fails tells the
//! others, so that no half-started node answers. Each core holds a share of the directory's lock
//! from before it opens its shards until it returns, so that no other process has the directory
//! before the last core has ended, in whatever order and for whatever reason they end.
//!
//! Stop: at the first [`CoreMessage::shutdown`] a core stops accepting, refuses new requests and
//! lets those under way end. When every core has come that far, connections end once their answers
//! have left, and shards are closed. A core that is ready but has not heard that all are stops in
//! the same way: others may serve already and ask it for what it owns. Each step waits at most
//! `drain_ms_max`. A second shutdown returns at once, and so does the first before the core is
//! ready, when no core serves nor will: recovery replays what was acknowledged.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use pinion_engine::{DataDir, FormatOptions, Identity, Options, Origin, Shard};
use pinion_env::{Listener, NodeEnv, TaskClass};
use xxhash_rust::xxh3::xxh3_64;

use crate::config::ServerConfig;
use crate::connection::Connection;
use crate::core::{Core, CoreShard, Phase};
use crate::counters::add;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::message::{CoreMessage, Message, NodeFacts, ServerEnv};
use crate::namespaces::CatalogueQueue;
use crate::opening;

/// How often a stopping core looks whether it may go on.
const STOP_STEP: Duration = Duration::from_millis(1);

/// How long accepting rests after an error (when descriptors ran out, for example).
const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Messages handled before other tasks get their turn.
const MESSAGES_IN_A_ROW_MAX: u32 = 64;

/// Partitions that a shard has at least.
const SHARD_PARTITIONS_MIN: u32 = 16;

/// What a node found when it started, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSummary {
    /// Cores it runs on.
    pub cores: u16,
    /// Cores that carry no data because there are fewer shards.
    pub surplus_cores: u16,
    /// Shards of the data directory.
    pub shards: u16,
    /// Partitions of the data directory.
    pub partitions: u32,
    /// How often the node has been started.
    pub incarnation: u64,
    /// Live namespaces.
    pub namespaces: u32,
}

/// Runs one core of a node until it is told to stop. Call it once on every core, with equal
/// configurations. `ready` is called on core 0 once every core takes connections.
///
/// # Errors
/// The configuration, the data directory or a shard is bad; another core could not start; or the
/// node was stopped at once.
pub async fn serve_core<E: ServerEnv>(
    env: E,
    config: Arc<ServerConfig>,
    ready: impl FnOnce(&NodeSummary),
) -> Result<()> {
    let mut mail = Mail { env: env.clone(), early: VecDeque::new() };
    match start(&env, &config, &mut mail).await {
        Ok(Some(started)) => serve(started, mail, ready).await,
        Ok(None) => {
            // Those that are ready wait for all to say so before they end.
            tell_others(&env, || Message::Drained);
            Ok(())
        }
        Err(error) => {
            if !matches!(error, Error::OtherCore { .. }) {
                let (core, reason) = (env.core() as u16, Arc::from(error.to_string()));
                tell_others(&env, || Message::Failed { core, reason: Arc::clone(&reason) });
            }
            Err(error)
        }
    }
}

/// A core that is ready to accept.
struct Started<E: ServerEnv> {
    core: Rc<Core<E>>,
    /// Keeps it locked.
    directory: Arc<DataDir>,
}

/// What core 0 finds in the data directory.
struct Opened<E: ServerEnv> {
    facts: Arc<NodeFacts>,
    directory: Arc<DataDir>,
    catalogue: CatalogueQueue<E>,
}

/// Everything up to accepting; `None` if the node was told to stop meanwhile.
async fn start<E: ServerEnv>(
    env: &E,
    config: &Arc<ServerConfig>,
    mail: &mut Mail<E>,
) -> Result<Option<Started<E>>> {
    config.check()?;
    let index = env.core() as u16;
    let (facts, directory, catalogue) = if index == 0 {
        let Some(opened) = mail.unless_stopped(open_data(env, config)).await? else { return Ok(None) };
        let Opened { facts, directory, catalogue } = opened;
        tell_others(env, || Message::Start { facts: Arc::clone(&facts), directory: Arc::clone(&directory) });
        (facts, directory, Some(catalogue))
    } else {
        let Some((facts, directory)) = mail.start().await? else { return Ok(None) };
        (facts, directory, None)
    };
    let Identity { shards, partitions, .. } = facts.identity;
    let layout = Layout { cores: env.cores() as u16, shards, partitions };
    let options = config.options_for(shards)?;
    let Some(open) = mail.unless_stopped(open_shards(env, &facts, layout, &options)).await? else {
        return Ok(None);
    };
    let core = Core::new(env.clone(), Arc::clone(config), options, facts, layout, open, catalogue);
    Ok(Some(Started { core, directory }))
}

/// Opens or formats the data directory and reads the catalogue.
async fn open_data<E: ServerEnv>(env: &E, config: &ServerConfig) -> Result<Opened<E>> {
    let shards_max = u16::try_from(config.partitions / SHARD_PARTITIONS_MIN).unwrap_or(u16::MAX);
    let cores = u16::try_from(env.cores()).unwrap_or(u16::MAX);
    let shards = config.shards.unwrap_or(cores.min(shards_max));
    if shards == 0 || shards > shards_max {
        return Err(Error::BadConfig(format!(
            "{shards} shards do not fit {} partitions: from 1 to {shards_max} do",
            config.partitions
        )));
    }
    let format = FormatOptions { partitions: config.partitions, shards };
    let data = DataDir::open_or_format(env, &config.data, format).await?;
    let catalogue = CatalogueQueue::open(env, &data).await?;
    let meta = data.meta();
    let facts = NodeFacts {
        identity: meta.identity(0),
        node_id: meta.node.to_le_bytes(),
        incarnation: meta.incarnation,
        shard_dirs: (0..meta.shards).map(|shard| data.shard_dir(shard)).collect(),
        namespaces: catalogue.table(),
    };
    Ok(Opened { facts: Arc::new(facts), directory: Arc::new(data), catalogue })
}

/// Opens the shards of this core, one after the other.
async fn open_shards<E: ServerEnv>(
    env: &E,
    facts: &NodeFacts,
    layout: Layout,
    options: &Options,
) -> Result<Vec<CoreShard<E>>> {
    let mut open = Vec::new();
    for shard in layout.shards_of(env.core() as u16) {
        let identity = Identity { shard, ..facts.identity };
        let dir = facts.shard_dirs[usize::from(shard)].clone();
        let opened = Shard::open(env.clone(), dir, identity, origin(facts, shard), options.clone()).await?;
        opened.set_live_namespaces(facts.namespaces.ids().clone());
        open.push(opened);
    }
    Ok(open)
}

/// Who issues the stamps of a shard: 15 bits of the node and the shard's number.
fn origin(facts: &NodeFacts, shard: u16) -> Origin {
    let node = (xxh3_64(&facts.node_id) as u32) & 0x7FFF;
    Origin(node << 16 | u32::from(shard))
}

/// Tells the other cores what a core that is not ready has to say.
fn tell_others<E: ServerEnv>(env: &E, message: impl Fn() -> Message<<E as NodeEnv>::Handoff>) {
    for other in (0..env.cores()).filter(|other| *other != env.core()) {
        // Nobody serves before all are ready: there have been signals and a few of these, and the
        // queue has room.
        let _ = env.send(other, CoreMessage(message()));
    }
}

/// The messages of a core while it starts.
struct Mail<E: ServerEnv> {
    env: E,
    /// Came before they could be handled.
    early: VecDeque<Message<<E as NodeEnv>::Handoff>>,
}

impl<E: ServerEnv> Mail<E> {
    /// Runs a part of the start; `None` if the node was told to stop meanwhile.
    async fn unless_stopped<T>(&mut self, part: impl Future<Output = Result<T>>) -> Result<Option<T>> {
        let mut part = pin!(part);
        poll_fn(|context| {
            while let Poll::Ready(CoreMessage(message)) = self.env.poll_message(context) {
                match message {
                    Message::Shutdown => return Poll::Ready(Ok(None)),
                    Message::Failed { core, reason } => return Poll::Ready(Err(other_core(core, &reason))),
                    message => self.early.push_back(message),
                }
            }
            part.as_mut().poll(context).map(|result| result.map(Some))
        })
        .await
    }

    /// Waits until core 0 has opened the data directory; `None` if told to stop.
    async fn start(&mut self) -> Result<Option<(Arc<NodeFacts>, Arc<DataDir>)>> {
        loop {
            match self.next().await {
                Message::Start { facts, directory } => return Ok(Some((facts, directory))),
                Message::Shutdown => return Ok(None),
                Message::Failed { core, reason } => return Err(other_core(core, &reason)),
                message => self.early.push_back(message),
            }
        }
    }

    async fn next(&self) -> Message<<E as NodeEnv>::Handoff> {
        poll_fn(|context| self.env.poll_message(context)).await.0
    }
}

fn other_core(core: u16, reason: &str) -> Error {
    Error::OtherCore { core: usize::from(core), reason: reason.to_owned() }
}

/// Handles messages until the core has stopped.
async fn serve<E: ServerEnv>(
    started: Started<E>,
    mut mail: Mail<E>,
    ready: impl FnOnce(&NodeSummary),
) -> Result<()> {
    // Held to the end, with its lock.
    let Started { core, directory: _directory } = started;
    let mut ready = Some(ready);
    let mut ready_cores = 0;
    let outcome = Rc::new(RefCell::new(Ok(())));
    core.post(0, Message::Ready);
    for handled in 1_u32.. {
        if handled % MESSAGES_IN_A_ROW_MAX == 0 {
            core.env.yield_now().await;
        }
        let message = match mail.early.pop_front() {
            Some(message) => message,
            None => mail.next().await,
        };
        match message {
            Message::Shutdown if core.phase.get() != Phase::Serving => return Err(Error::Aborted),
            Message::Shutdown => begin_to_stop(&core, &outcome),
            Message::Failed { core, reason } => return Err(other_core(core, &reason)),
            // Told to stop before it served: nothing begins here any more.
            Message::Ready | Message::Go if core.phase.get() != Phase::Serving => {}
            Message::Ready => {
                ready_cores += 1;
                if ready_cores == core.layout.cores {
                    (0..core.layout.cores).for_each(|other| core.post(other, Message::Go));
                }
            }
            Message::Go => {
                accept(&core);
                if let Some(ready) = ready.take().filter(|_| core.index == 0) {
                    ready(&core.summary());
                }
            }
            Message::Connection(connection) => {
                add(&core.counters.connections_adopted, 1);
                let socket = core.env.adopt(connection.handoff);
                opening::start(&core, socket, Some((connection.received, connection.passed)));
            }
            Message::Request(request) => core.on_forwarded(request),
            Message::Answer { token, frame, took } => {
                core.tick();
                core.on_answer(token, frame, took);
            }
            Message::Namespaces { table } => {
                let sequence = table.sequence;
                core.obey(table);
                core.post(0, Message::NamespacesSeen { sequence });
            }
            Message::NamespacesSeen { sequence } => {
                if let Some(catalogue) = &core.catalogue {
                    catalogue.seen(sequence);
                }
            }
            Message::ReportWanted { core: asker, token, about } => {
                let report = core.report(about);
                core.post(asker, Message::Report { token, report });
            }
            Message::Report { token, report } => core.on_report(token, report),
            Message::Drained => core.drained_cores.set(core.drained_cores.get() + 1),
            Message::Finished => break,
            Message::Start { .. } => {}
        }
    }
    outcome.replace(Ok(()))
}

/// Takes connections until the listener is closed.
fn accept<E: ServerEnv>(core: &Rc<Core<E>>) {
    let core = Rc::clone(core);
    core.env.clone().spawn(TaskClass::Foreground, async move {
        loop {
            match poll_fn(|context| core.listener.poll_accept(context)).await {
                Ok(socket) => {
                    add(&core.counters.connections_accepted, 1);
                    opening::start(&core, socket, None);
                }
                Err(error) => {
                    add(&core.counters.accept_errors, 1);
                    tracing::warn!(core = core.index, %error, "a connection could not be accepted");
                    core.env.sleep(ACCEPT_REST).await;
                }
            }
        }
    });
}

fn begin_to_stop<E: ServerEnv>(core: &Rc<Core<E>>, outcome: &Rc<RefCell<Result<()>>>) {
    core.phase.set(Phase::Stopping);
    core.listener.close();
    let (core, outcome) = (Rc::clone(core), Rc::clone(outcome));
    core.env.clone().spawn(TaskClass::Foreground, async move {
        let stopped = stop(&core).await;
        *outcome.borrow_mut() = stopped;
        core.post(core.index, Message::Finished);
    });
}

/// Stops in step with the other cores.
async fn stop<E: ServerEnv>(core: &Rc<Core<E>>) -> Result<()> {
    let cores = core.layout.cores;
    wait_for(core, || core.requests() == 0 && core.awaited.count() == 0).await;
    (0..cores).for_each(|other| core.post(other, Message::Drained));
    wait_for(core, || core.drained_cores.get() >= cores).await;
    core.phase.set(Phase::Ending);
    core.connections.for_each(Connection::touch);
    wait_for(core, || core.connections.open() == 0).await;
    core.connections.for_each(Connection::doom);
    let mut result = Ok(());
    for (number, shard) in core.shards() {
        if let Err(error) = shard.close().await {
            tracing::error!(shard = number, %error, "the shard was not closed cleanly");
            result = Err(Error::Engine(error));
        }
    }
    // What still waits for room in another core's queue would end with this one.
    wait_for(core, || core.outboxes.are_empty()).await;
    result
}

/// Waits until `done`, but not longer than `drain_ms_max`.
async fn wait_for<E: ServerEnv>(core: &Core<E>, done: impl Fn() -> bool) {
    let limit = Duration::from_millis(u64::from(core.limits().drain_ms_max));
    let until = core.env.now().after(limit);
    while !done() && core.env.now() < until {
        core.env.sleep(STOP_STEP).await;
    }
}

impl<E: ServerEnv> Core<E> {
    fn summary(&self) -> NodeSummary {
        NodeSummary {
            cores: self.layout.cores,
            surplus_cores: self.layout.surplus_cores(),
            shards: self.layout.shards,
            partitions: self.layout.partitions,
            incarnation: self.facts.incarnation,
            namespaces: self.namespaces.borrow().live().len() as u32,
        }
    }
}
