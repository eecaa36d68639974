//! The unmodified server on a node of a world: started, stopped, and started again on its disk.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use pinion_env::{Env, NodeEnv};
use pinion_server::{CoreMessage, ServerConfig, serve_core};

use crate::world::{NodeConfig, NodeId, SimEnv, SimHandoff, World};

/// The environment of a server's core.
pub type ServerEnv = SimEnv<CoreMessage<SimHandoff>>;

/// What each core's `serve_core` returned.
pub type ServerResults = Rc<RefCell<Vec<pinion_server::Result<()>>>>;

/// A node that serves.
#[derive(Debug, Clone)]
pub struct ServedNode {
    /// Its number in the world.
    pub node: NodeId,
    /// What it is started with.
    pub config: ServerConfig,
    /// The machine; a start replaces the number of cores.
    pub machine: NodeConfig,
    /// What its cores have returned since the last start, in the order in which they ended.
    pub results: ServerResults,
    cores: Rc<RefCell<Vec<ServerEnv>>>,
}

impl ServedNode {
    /// Starts a new node of a world.
    pub fn start(world: &World, config: ServerConfig, machine: NodeConfig) -> Self {
        let (cores, results) = (Rc::default(), Rc::default());
        let node = world.start_node(machine, main(&config, &cores, &results));
        Self { node, config, machine, results, cores }
    }

    /// Starts it again on its disk, with this many cores. It must not be running.
    pub fn restart(&self, world: &World, cores: usize) {
        self.cores.borrow_mut().clear();
        self.results.borrow_mut().clear();
        let main = main(&self.config, &self.cores, &self.results);
        world.restart_node(self.node, NodeConfig { cores, ..self.machine }, main);
    }

    /// What SIGTERM does. Done when [`World::ended`] says so.
    pub fn shut_down(&self) {
        (0..self.cores.borrow().len()).for_each(|core| self.shut_down_core(core));
    }

    /// What SIGTERM does to one core: they are told one after the other.
    pub fn shut_down_core(&self, core: usize) {
        // A core that has ended takes no messages.
        let _ = self.cores.borrow()[core].send(core, CoreMessage::shutdown());
    }

    /// Whether another process would find the data directory locked.
    ///
    /// # Panics
    /// When the disk fails, or the node has ended.
    pub async fn is_locked(&self) -> bool {
        let env = self.cores.borrow()[0].clone();
        let lock = env.lock(&self.config.data.join("LOCK")).await;
        lock.expect("the file has been made").is_none()
    }

    /// Holds back what core `from` sends core `to`: see [`SimEnv::hold_messages`].
    pub fn hold_messages(&self, from: usize, to: usize) {
        self.cores.borrow()[from].hold_messages(to);
    }

    /// Lets it arrive.
    pub fn release_messages(&self, from: usize, to: usize) {
        self.cores.borrow()[from].release_messages(to);
    }

    /// How many messages from core `from` to core `to` have not been taken.
    pub fn untaken_messages(&self, from: usize, to: usize) -> usize {
        self.cores.borrow()[from].untaken_messages(to)
    }
}

fn main(
    config: &ServerConfig,
    cores: &Rc<RefCell<Vec<ServerEnv>>>,
    results: &ServerResults,
) -> impl Fn(ServerEnv) -> Pin<Box<dyn Future<Output = ()>>> + use<> {
    let (config, cores, results) = (Arc::new(config.clone()), Rc::clone(cores), Rc::clone(results));
    move |env| {
        cores.borrow_mut().push(env.clone());
        let (config, results) = (Arc::clone(&config), Rc::clone(&results));
        Box::pin(async move {
            let result = serve_core(env, config, |_| {}).await;
            results.borrow_mut().push(result);
        })
    }
}
