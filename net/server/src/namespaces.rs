//! Namespaces: what every core knows of the catalogue, and how core 0 changes it.
//!
//! Changes go one by one: the file is written and synced, every core is told and says that it
//! obeys, then the client is answered. So when a client hears that a namespace is dropped, no core
//! answers reads of it any more, and when it hears that one was created, every core knows it.
//!
//! Failure: a change that cannot be written is answered as unknown and leaves the cores as they
//! were; the next start reads whichever copy of the file is whole.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};

use pinion_engine::{Catalogue, CatalogueError, CatalogueFile, DataDir, LiveNamespaces, NamespaceId};
use pinion_env::TaskClass;
use pinion_protocol::{
    ErrorCode, ListBuf, NamespaceInfo, NamespaceState, Namespaces, Outcome, Request, Response,
};

use crate::core::{Core, Ticket};
use crate::message::{Message, ServerEnv};
use crate::refusal::Refusal;

/// A live namespace as the cores know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Namespace {
    pub(crate) id: u32,
    pub(crate) name: String,
    pub(crate) default_ttl_ms: u64,
}

/// The catalogue as the cores know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NamespaceTable {
    /// Grows with every change.
    pub(crate) sequence: u64,
    /// The live ones, by id.
    live: Vec<Namespace>,
    /// What shards know of them.
    ids: LiveNamespaces,
}

impl NamespaceTable {
    fn of(catalogue: &Catalogue) -> Self {
        let mut live: Vec<_> = catalogue
            .list()
            .iter()
            .map(|entry| Namespace {
                id: entry.id.0,
                name: entry.name.clone(),
                default_ttl_ms: entry.default_ttl_ms,
            })
            .collect();
        live.sort_by_key(|entry| entry.id);
        Self { sequence: catalogue.sequence(), live, ids: catalogue.live_namespaces() }
    }

    /// The default TTL of a live namespace in milliseconds, 0 = none; `None` if there is no such.
    pub(crate) fn default_ttl_ms(&self, id: u32) -> Option<u64> {
        // Ids are given out in order: as long as none was dropped the guess is right.
        let entry = match self.live.get(id as usize).filter(|entry| entry.id == id) {
            Some(entry) => entry,
            None => &self.live[self.live.binary_search_by_key(&id, |entry| entry.id).ok()?],
        };
        Some(entry.default_ttl_ms)
    }

    /// The id of the live namespace of a name.
    pub(crate) fn id_of(&self, name: &str) -> Option<u32> {
        self.live.iter().find(|entry| entry.name == name).map(|entry| entry.id)
    }

    /// The live namespaces, by id.
    pub(crate) fn live(&self) -> &[Namespace] {
        &self.live
    }

    /// What shards know of them: the records of all others are to be removed.
    pub(crate) const fn ids(&self) -> &LiveNamespaces {
        &self.ids
    }
}

/// A change of the catalogue that waits for its turn.
enum Change {
    Create { name: String, default_ttl_ms: u64 },
    Drop { name: String },
    Set { name: String, default_ttl_ms: u64 },
}

/// The catalogue's file on core 0, and the changes that wait for it.
pub(crate) struct CatalogueQueue<E: ServerEnv> {
    file: CatalogueFile<E>,
    catalogue: RefCell<Catalogue>,
    waiting: RefCell<VecDeque<(Ticket, Change)>>,
    running: Cell<bool>,
    /// Cores that have not yet said that they obey the newest table.
    unseen: Cell<u16>,
    waker: RefCell<Option<Waker>>,
}

/// Answers NAMESPACE_LIST with what this core obeys.
pub(crate) fn list<E: ServerEnv>(core: &Core<E>, ticket: Ticket) {
    let table = Arc::clone(&core.namespaces.borrow());
    let mut list = ListBuf::<Namespaces>::new();
    for entry in table.live() {
        let info = NamespaceInfo {
            id: entry.id,
            state: NamespaceState::Live,
            default_ttl_ms: entry.default_ttl_ms,
            name: &entry.name,
        };
        if let Err(error) = list.push(&info) {
            return core.refuse(&ticket, &Refusal::protocol(&error));
        }
    }
    core.answer_with(&ticket, &Response::NamespaceList(list.list()));
}

/// Takes in NAMESPACE_CREATE, NAMESPACE_DROP or NAMESPACE_SET, on core 0.
pub(crate) fn change<E: ServerEnv>(core: &Rc<Core<E>>, ticket: Ticket, request: &Request<'_>) {
    let change = match *request {
        Request::NamespaceCreate(options) => {
            Change::Create { name: options.name.to_owned(), default_ttl_ms: options.default_ttl_ms }
        }
        Request::NamespaceDrop(name) => Change::Drop { name: name.to_owned() },
        Request::NamespaceSet(options) => {
            Change::Set { name: options.name.to_owned(), default_ttl_ms: options.default_ttl_ms }
        }
        _ => return core.refuse(&ticket, &Refusal::bad_request("not a change of the catalogue")),
    };
    let Some(queue) = &core.catalogue else {
        return core.refuse(&ticket, &Refusal::bad_request("the catalogue is kept by core 0"));
    };
    if queue.waiting.borrow().len() >= core.limits().catalogue_changes_max as usize {
        return core.refuse_overloaded(&ticket, "too many changes of the catalogue are waiting");
    }
    queue.waiting.borrow_mut().push_back((ticket, change));
    if !queue.running.replace(true) {
        let task_core = Rc::clone(core);
        core.env.spawn(TaskClass::Foreground, async move {
            if let Some(queue) = &task_core.catalogue {
                queue.run(&task_core).await;
            }
        });
    }
}

impl<E: ServerEnv> CatalogueQueue<E> {
    /// Reads the catalogue of the data directory.
    pub(crate) async fn open(env: &E, data: &DataDir) -> pinion_engine::Result<Self> {
        let (file, catalogue) = data.catalogue(env).await?;
        Ok(Self {
            file,
            catalogue: RefCell::new(catalogue),
            waiting: RefCell::default(),
            running: Cell::new(false),
            unseen: Cell::new(0),
            waker: RefCell::default(),
        })
    }

    /// The catalogue as cores know it.
    pub(crate) fn table(&self) -> Arc<NamespaceTable> {
        Arc::new(NamespaceTable::of(&self.catalogue.borrow()))
    }

    /// Another core obeys the table of this sequence.
    pub(crate) fn seen(&self, sequence: u64) {
        if sequence == self.catalogue.borrow().sequence() {
            self.unseen.set(self.unseen.get().saturating_sub(1));
            if let Some(waker) = self.waker.take() {
                waker.wake();
            }
        }
    }

    /// Carries out what waits, one by one.
    async fn run(&self, core: &Core<E>) {
        loop {
            let Some((ticket, change)) = self.waiting.borrow_mut().pop_front() else { break };
            match self.carry_out(core, &ticket, &change).await {
                Ok(id) => {
                    let response = match change {
                        Change::Create { .. } => Response::NamespaceCreate(id),
                        Change::Drop { .. } => Response::NamespaceDrop(id),
                        Change::Set { .. } => Response::NamespaceSet(id),
                    };
                    core.answer_with(&ticket, &response);
                }
                Err(refusal) => core.refuse(&ticket, &refusal),
            }
        }
        self.running.set(false);
    }

    /// Writes a change, tells the cores, and waits until all obey it. Answers the namespace's id.
    async fn carry_out(
        &self,
        core: &Core<E>,
        ticket: &Ticket,
        change: &Change,
    ) -> Result<u32, Refusal<'static>> {
        if core.is_late(ticket, core.env.now()) {
            return Err(Refusal::DEADLINE);
        }
        let mut catalogue = self.catalogue.borrow().clone();
        let id = match change {
            Change::Create { name, default_ttl_ms } => catalogue.create(name, *default_ttl_ms),
            Change::Drop { name } => catalogue.drop_namespace(name),
            Change::Set { name, default_ttl_ms } => catalogue
                .set_ttl(name, *default_ttl_ms)
                .map(|()| catalogue.get(name).map_or(NamespaceId::default(), |entry| entry.id)),
        }
        .map_err(|error| refusal(&error))?;
        self.file.store(&catalogue).await.map_err(|error| {
            let mut refusal = Refusal::engine(&error).into_owned();
            refusal.outcome = Outcome::Unknown;
            refusal
        })?;
        *self.catalogue.borrow_mut() = catalogue;

        let table = self.table();
        self.unseen.set(core.layout.cores - 1);
        for other in 1..core.layout.cores {
            core.post(other, Message::Namespaces { table: Arc::clone(&table) });
        }
        core.obey(table);
        poll_fn(|context| {
            if self.unseen.get() == 0 {
                return Poll::Ready(());
            }
            *self.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
        Ok(id.0)
    }
}

fn refusal(error: &CatalogueError) -> Refusal<'static> {
    let code = match error {
        CatalogueError::Exists(_) => ErrorCode::NamespaceExists,
        CatalogueError::NotFound(_) => ErrorCode::NoSuchNamespace,
        CatalogueError::TooMany | CatalogueError::NoNumbers => ErrorCode::TooManyNamespaces,
        CatalogueError::BadName | CatalogueError::Default => ErrorCode::BadRequest,
    };
    Refusal::new(code, error.to_string().into())
}

impl<E: ServerEnv> Core<E> {
    /// Goes by a new table from now on.
    pub(crate) fn obey(&self, table: Arc<NamespaceTable>) {
        for (_, shard) in self.shards() {
            shard.set_live_namespaces(table.ids().clone());
        }
        self.resp.obey(&self.config.resp, &table);
        self.watch.usage.keep_live(|id| table.default_ttl_ms(id).is_some());
        *self.namespaces.borrow_mut() = table;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_live_namespaces_are_found() {
        let namespace =
            |id: u32| Namespace { id, name: format!("n{id}"), default_ttl_ms: u64::from(id) * 10 };
        let live = vec![namespace(0), namespace(1), namespace(7), namespace(9)];
        let table = NamespaceTable { sequence: 1, live, ids: LiveNamespaces::default() };
        for id in [0, 1, 7, 9] {
            assert_eq!(table.default_ttl_ms(id), Some(u64::from(id) * 10));
        }
        for id in [2, 3, 8, u32::MAX] {
            assert_eq!(table.default_ttl_ms(id), None);
        }
    }
}
