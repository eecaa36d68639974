//! An environment that takes the time of everything that runs on its core.
//!
//! [`TimedEnv`] passes every call on to the environment it wraps. Only [`Env::spawn`] does more: the
//! processor time that the thread spends in each poll of the task is noted, because while one task is
//! polled no other runs and no I/O of the core is looked at. Processor time, not time: what other
//! programs take from the processor is not the task's doing.

use std::future::{Future, poll_fn};
use std::io;
use std::panic::Location;
use std::path::Path;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use pinion_runtime::env::{DirEntry, Env, FileLock, Monotonic, OpenMode, Space, TaskClass, Urgency};

use super::stalls::{Stalls, Work};

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TimedEnv<E> {
    env: E,
    stalls: Rc<Stalls>,
}

impl<E: Env> TimedEnv<E> {
    /// Times the tasks that are spawned on it.
    pub fn new(env: E) -> Self {
        Self { env, stalls: Rc::default() }
    }

    /// What was noted so far.
    pub fn stalls(&self) -> &Stalls {
        &self.stalls
    }

    /// Times a call that the caller makes from a task of its own.
    #[track_caller]
    pub(super) fn time<T>(&self, work: Work, call: impl FnOnce() -> T) -> T {
        time(&self.env, &self.stalls, work, Location::caller(), call)
    }
}

fn time<E: Env, T>(
    env: &E,
    stalls: &Stalls,
    work: Work,
    place: &'static Location<'static>,
    call: impl FnOnce() -> T,
) -> T {
    let started = env.cpu_time();
    let result = call();
    stalls.note(work, place, env.cpu_time().saturating_sub(started));
    result
}

impl<E: Env> Env for TimedEnv<E> {
    type File = E::File;

    fn now(&self) -> Monotonic {
        self.env.now()
    }

    fn cpu_time(&self) -> Duration {
        self.env.cpu_time()
    }

    fn wall_ms(&self) -> u64 {
        self.env.wall_ms()
    }

    fn random(&self) -> u64 {
        self.env.random()
    }

    #[track_caller]
    fn spawn<F>(&self, class: TaskClass, task: F)
    where
        F: Future<Output = ()> + 'static,
    {
        let place = Location::caller();
        let (env, stalls) = (self.env.clone(), Rc::clone(&self.stalls));
        self.env.spawn(class, async move {
            let mut task = pin!(task);
            poll_fn(|context| time(&env, &stalls, class.into(), place, || task.as_mut().poll(context))).await;
        });
    }

    fn urgency(&self) -> Urgency {
        self.env.urgency()
    }

    fn sleep(&self, duration: Duration) -> impl Future<Output = ()> + 'static {
        self.env.sleep(duration)
    }

    fn yield_now(&self) -> impl Future<Output = ()> + 'static {
        self.env.yield_now()
    }

    fn off_core<T, J>(&self, job: J) -> impl Future<Output = T> + 'static
    where
        T: Send + 'static,
        J: FnOnce() -> T + Send + 'static,
    {
        self.env.off_core(job)
    }

    fn open(&self, path: &Path, mode: OpenMode) -> impl Future<Output = io::Result<E::File>> + 'static {
        self.env.open(path, mode)
    }

    fn create_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        self.env.create_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        self.env.rename(from, to)
    }

    fn remove(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        self.env.remove(path)
    }

    fn sync_dir(&self, path: &Path) -> impl Future<Output = io::Result<()>> + 'static {
        self.env.sync_dir(path)
    }

    fn list(&self, path: &Path) -> impl Future<Output = io::Result<Vec<DirEntry>>> + 'static {
        self.env.list(path)
    }

    fn space(&self, path: &Path) -> impl Future<Output = io::Result<Space>> + 'static {
        self.env.space(path)
    }

    fn lock(&self, path: &Path) -> impl Future<Output = io::Result<Option<FileLock>>> + 'static {
        self.env.lock(path)
    }
}
