//! The environment trait beside a bare ring: the same operations of one file, in the same thread, on
//! the same cpu, by [`Env`] and [`File`] of the real runtime and by an io_uring with nothing around it.
//!
//! Reads of a hole cost the kernel next to nothing and end at once: they show what the way through the
//! trait takes (future, slab, driver, wake-up). With reads of data and synced writes one sees what is
//! left of that beside a device; these are as noisy as the device is. With 32 at a time the trait has 32
//! tasks, as a core has one for each get that must read.
//!
//! Sockets are compared by `engine/runtime/examples/echo` and `pinion bench hot`. Tasks and messages
//! have no bare counterpart that would be worth a comparison: without an executor they are a queue.
//!
//! Files are made where `PINION_BENCH_DIR` says; if it is not set, below cargo's target directory.

use std::cell::{Cell, RefCell};
use std::fs::{self, OpenOptions};
use std::future::poll_fn;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pinion_bench::roof::limits::Direct;
use pinion_runtime::env::{
    AlignedBuf, Env as _, File as _, NodeEnv as _, OpenMode, PAGE_BYTES, TaskClass, WriteMode,
};
use pinion_runtime::{RealEnv, RealFile, Remote, Runtime, RuntimeConfig, online_cpus};

const PAGES: u64 = 4096;
const SOUND: &str = "the file system does not fail";

#[derive(Debug, Clone, Copy)]
enum Way {
    Trait,
    BareRing,
}

#[derive(Debug, Clone, Copy)]
enum Operation {
    Read,
    SyncedWrite,
}

/// Operations on pages of a file, some at a time.
#[derive(Debug, Clone)]
struct Work {
    path: PathBuf,
    operation: Operation,
    depth: usize,
    times: u64,
}

/// What the core is asked.
enum Job {
    Time(Way, Work, mpsc::Sender<Duration>),
    End,
}

impl Work {
    /// The place of an operation: all over the file.
    fn offset(number: u64) -> u64 {
        number.wrapping_mul(2_654_435_761) % PAGES * PAGE_BYTES as u64
    }

    async fn by_trait(self, env: &RealEnv<Job>) -> Duration {
        let file = Rc::new(env.open(&self.path, OpenMode::ReadWrite).await.expect(SOUND));
        let lanes =
            Rc::new(Lanes { next: Cell::new(0), busy: Cell::new(self.depth), waiting: RefCell::default() });
        let buffers: Vec<_> = (0..self.depth).map(|_| AlignedBuf::zeroed(PAGE_BYTES)).collect();
        let start = Instant::now();
        for buffer in buffers {
            let lane = Rc::clone(&lanes).run(Rc::clone(&file), self.operation, self.times, buffer);
            if self.depth == 1 {
                lane.await;
            } else {
                env.spawn(TaskClass::Foreground, lane);
            }
        }
        lanes.ended().await;
        start.elapsed()
    }

    fn by_ring(self) -> Duration {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_DIRECT);
        let mut ring =
            Direct::new(options.open(&self.path).expect(SOUND), self.depth, PAGE_BYTES).expect(SOUND);
        let mut free: Vec<usize> = (0..self.depth).collect();
        let mut begun = 0;
        let start = Instant::now();
        while begun < self.times || free.len() < self.depth {
            while begun < self.times
                && let Some(place) = free.pop()
            {
                match self.operation {
                    Operation::Read => ring.read(place, Self::offset(begun)),
                    Operation::SyncedWrite => ring.write_synced(place, Self::offset(begun)),
                }
                begun += 1;
            }
            ring.wait(&mut free).expect(SOUND);
        }
        start.elapsed()
    }
}

/// What the tasks of one measurement share.
struct Lanes {
    next: Cell<u64>,
    busy: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

impl Lanes {
    async fn run(
        self: Rc<Self>,
        file: Rc<RealFile>,
        operation: Operation,
        times: u64,
        mut buffer: AlignedBuf,
    ) {
        while self.next.get() < times {
            let offset = Work::offset(self.next.get());
            self.next.set(self.next.get() + 1);
            buffer = match operation {
                Operation::Read => {
                    let (read, buffer) = file.read(offset, buffer, PAGE_BYTES).await;
                    assert_eq!(read.expect(SOUND), PAGE_BYTES);
                    buffer
                }
                Operation::SyncedWrite => {
                    let (written, buffer) =
                        file.write(offset, buffer, 0..PAGE_BYTES, WriteMode::Durable).await;
                    written.expect(SOUND);
                    buffer
                }
            };
        }
        self.busy.set(self.busy.get() - 1);
        if let Some(waiting) = self.waiting.take() {
            waiting.wake();
        }
    }

    async fn ended(&self) {
        poll_fn(|context| {
            if self.busy.get() == 0 {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// One core that does what it is asked, either way.
async fn serve(env: RealEnv<Job>) {
    while let Job::Time(way, work, told) = poll_fn(|context| env.poll_message(context)).await {
        let took = match way {
            Way::Trait => work.by_trait(&env).await,
            // The core does nothing else meanwhile.
            Way::BareRing => work.by_ring(),
        };
        told.send(took).expect("the bench waits for it");
    }
}

fn time(core: &Remote<Job>, way: Way, work: Work) -> Duration {
    let (told, took) = mpsc::channel();
    assert!(core.send(0, Job::Time(way, work, told)).is_ok(), "one job at a time");
    took.recv().expect("the core answers")
}

fn compare(c: &mut Criterion) {
    let parent = std::env::var_os("PINION_BENCH_DIR").unwrap_or_else(|| env!("CARGO_TARGET_TMPDIR").into());
    fs::create_dir_all(&parent).expect(SOUND);
    let dir = tempfile::Builder::new().prefix("env-").tempdir_in(parent).expect(SOUND);
    let (hole, data) = files(dir.path());
    let runtime =
        Runtime::new(RuntimeConfig::new(vec![online_cpus()[0]])).expect("the machine can run a core");
    let core = runtime.remote();
    let thread = thread::spawn(move || runtime.run(serve).expect("the core starts"));

    let operations = [
        ("read 4 KiB of a hole", &hole, Operation::Read, 1),
        ("read 4 KiB of a hole, 32 at a time", &hole, Operation::Read, 32),
        ("read 4 KiB", &data, Operation::Read, 1),
        ("read 4 KiB, 32 at a time", &data, Operation::Read, 32),
        ("write 4 KiB synced", &data, Operation::SyncedWrite, 1),
    ];
    for (name, path, operation, depth) in operations {
        let mut group = c.benchmark_group(name);
        group.throughput(Throughput::Elements(1));
        for (name, way) in [("trait", Way::Trait), ("bare ring", Way::BareRing)] {
            group.bench_function(name, |b| {
                b.iter_custom(|times| time(&core, way, Work { path: path.clone(), operation, depth, times }));
            });
        }
    }
    assert!(core.send(0, Job::End).is_ok());
    thread.join().expect("the core has ended");
}

/// A file without content, and one with.
fn files(dir: &Path) -> (PathBuf, PathBuf) {
    let (hole, data) = (dir.join("hole"), dir.join("data"));
    let file = fs::File::create_new(&hole).expect(SOUND);
    file.set_len(PAGES * PAGE_BYTES as u64).expect(SOUND);
    fs::write(&data, vec![7; PAGES as usize * PAGE_BYTES]).expect(SOUND);
    fs::File::open(&data).and_then(|file| file.sync_all()).expect(SOUND);
    (hole, data)
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2)).sample_size(40);
    targets = compare
}
criterion_main!(benches);
