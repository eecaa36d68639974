//! The load generator: a closed loop on a bare io_uring.
//!
//! One thread, on one cpu, holds all connections; each has `depth` requests in flight and asks again
//! for each answer it reads. That finds the ceiling of a server, not the latency at a given rate:
//! when the server is slow, a closed loop asks less.
//!
//! The same generator speaks to Pinion and to the bare servers that are its roof (see [`Dialect`]),
//! so that their ratio says something about the servers only. It adds as little as it can: one
//! system call and one clock reading per turn, one send per connection and turn, frames from a
//! template. Every answer is checked.
//!
//! | file | subject |
//! |---|---|
//! | `kernel` | ring, cpu, clock: all that is unsafe |
//! | `records` | keys and values by number, and the order of asking |
//! | `script` | the frames of requests |
//! | `talk` | one connection: requests in flight, right and wrong answers |
//! | `tally` | counts, latencies, the report |
//! | `session` | preface and HELLO |

mod kernel;
mod records;
mod script;
mod session;
mod talk;
mod tally;
#[cfg(test)]
mod tests;

use std::fs;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use pinion_protocol::Durability;

use kernel::LANES_MAX;
use records::Order;
pub(crate) use records::{Random, Records};
use script::Script;
pub(crate) use session::{GREETING_MAX, greet};
use talk::{Resting, Talk, Turn};
use tally::{Span, Tally};

use crate::error::{Error, Result};
use crate::rests::Rests;

pub use records::{KEY_BYTES_MIN, VALUE_BYTES_MIN};
pub use script::{FrameSizes, Work};
pub use talk::Dialect;
pub use tally::{Flaws, Latency, Report};

pub(crate) use kernel::{Ring, Waited, pin_to_cpu, pin_to_cpus, thread_cpu_time};
pub(crate) use tally::latency_histogram;

/// Most connections of a load.
pub const CONNECTIONS_MAX: usize = LANES_MAX;
/// Most requests in flight on a connection.
pub const DEPTH_MAX: usize = 1024;

/// No answer on any connection for so long is a failure.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// Requests in flight on a connection while the records are written and read once.
const PREPARING_DEPTH: usize = 16;

/// A load.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub target: SocketAddr,
    /// How it answers.
    pub dialect: Dialect,
    /// What is asked.
    pub work: Work,
    /// Connections, 1 to [`CONNECTIONS_MAX`].
    pub connections: usize,
    /// Requests in flight on each, 1 to [`DEPTH_MAX`].
    pub depth: usize,
    /// How many records there are.
    pub keys: u64,
    /// Bytes of each key, at least [`KEY_BYTES_MIN`].
    pub key_bytes: usize,
    /// Bytes of each value, at least [`VALUE_BYTES_MIN`].
    pub value_bytes: usize,
    /// Of the order in which records are asked for.
    pub seed: u64,
    /// Whether every record is written and read once before (native dialect only).
    pub prepare: bool,
    /// How long the load runs before it is measured.
    pub warmup: Duration,
    /// How long it is measured.
    pub measure: Duration,
    /// The cpu of the generator; `None` = wherever the system likes.
    pub cpu: Option<usize>,
    /// The server's process, to tell how busy it was.
    pub server_process: Option<u32>,
}

impl Plan {
    /// The sizes of its frames.
    ///
    /// # Errors
    /// [`Error::Usage`] when keys or values are too small or too large.
    pub fn frames(&self) -> Result<FrameSizes> {
        let records = Records::new(self.keys, self.key_bytes, self.value_bytes)?;
        Ok(Script::new(self.work, records, Durability::Sync)?.sizes)
    }

    fn check(&self) -> Result<()> {
        let within = |what: &str, value: usize, max: usize| match value {
            0 => Err(Error::Usage(format!("there must be at least one {what}"))),
            _ if value > max => Err(Error::Usage(format!("{what}: {value} is over the limit of {max}"))),
            _ => Ok(()),
        };
        within("connection", self.connections, CONNECTIONS_MAX)?;
        within("request in flight", self.depth, DEPTH_MAX)?;
        if self.measure.is_zero() {
            return Err(Error::Usage("there must be some time to measure".to_owned()));
        }
        Ok(())
    }
}

/// Runs a load to its end, on a thread of its own.
///
/// # Errors
/// See [`Error`]. Answers that were errors, or not right, are no error here: they are in the report.
pub fn run(plan: &Plan) -> Result<Report> {
    plan.check()?;
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("load".to_owned());
        let generator = thread.spawn_scoped(scope, || {
            if let Some(cpu) = plan.cpu {
                pin_to_cpu(cpu).map_err(|error| Error::Cpu { cpu, error })?;
            }
            generate(plan)
        })?;
        generator.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn generate(plan: &Plan) -> Result<Report> {
    let records = Records::new(plan.keys, plan.key_bytes, plan.value_bytes)?;
    let count = records.count();
    let mut refused_preparing = 0;
    if plan.prepare && plan.dialect == Dialect::Native {
        let written = Script::new(Work::Put, records.clone(), Durability::Buffered)?;
        let read = Script::new(Work::Get, records.clone(), Durability::Sync)?;
        let mut load = Load::connect(plan, PREPARING_DEPTH, &read)?;
        for (what, script) in [("filling", written), ("reading back", read)] {
            load.drive(&script, Order::Each { next: 0, count }, None)?;
            if let Some(first) = &load.tally.flaws().first {
                return Err(Error::Refused(format!("{what}: {first}")));
            }
        }
        refused_preparing = load.tally.refusals();
    }
    let script = Script::new(plan.work, records, Durability::Sync)?;
    let mut load = Load::connect(plan, plan.depth, &script)?;
    let order = Order::Uniform { random: Random::new(plan.seed), count };
    let report = load.drive(&script, order, Some(plan))?;
    let report = report.expect("a drive with a plan ends with its report");
    Ok(Report { refused_preparing, ..report })
}

/// Connections, driven together.
struct Load {
    ring: Ring,
    talks: Vec<Talk>,
    tally: Tally,
    clock: Instant,
}

/// How far a measured drive is.
enum Stage {
    Warming { until_ns: u64 },
    Measuring { from_ns: u64, generator_cpu: Duration, server_cpu: Option<Duration> },
    Over,
}

impl Load {
    fn connect(plan: &Plan, depth: usize, script: &Script) -> Result<Self> {
        let (mut sockets, mut talks) = (Vec::new(), Vec::new());
        for _ in 0..plan.connections {
            let (socket, frames) = session::open(plan.target, plan.dialect, depth)?;
            sockets.push(socket);
            talks.push(Talk::new(plan.dialect, depth, frames));
        }
        let ring = Ring::new(sockets, depth * script.sizes.response_bytes)?;
        Ok(Self { ring, talks, tally: Tally::new(), clock: Instant::now() })
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.clock.elapsed().as_nanos()).expect("a run takes less than 500 years")
    }

    /// Asks in this order until it ends or, with a plan, its time is over; returns when all answers
    /// are there. What is refused is asked again, but not after the time of a plan.
    fn drive(&mut self, script: &Script, mut order: Order, plan: Option<&Plan>) -> Result<Option<Report>> {
        let mut now_ns = self.now_ns();
        let mut rests = Rests::new(plan.map_or(0, |plan| plan.seed));
        let mut heard_ns = now_ns;
        for (lane, talk) in self.talks.iter_mut().enumerate() {
            let (order, tally, rests) = (&mut order, &mut self.tally, &mut rests);
            let turn = &mut Turn { script, order, tally, rests, lane, now_ns };
            self.ring.write(lane, |out| talk.ask(turn, out));
        }
        let mut stage = plan
            .map_or(Stage::Over, |plan| Stage::Warming { until_ns: now_ns + plan.warmup.as_nanos() as u64 });
        let mut report = None;
        loop {
            let due_by_ns = if matches!(order, Order::Ended) { u64::MAX } else { now_ns };
            while let Some(Resting { lane, slot }) = rests.take_due(due_by_ns) {
                let (order, tally, rests) = (&mut order, &mut self.tally, &mut rests);
                let turn = &mut Turn { script, order, tally, rests, lane, now_ns };
                self.ring.write(lane, |out| self.talks[lane].ask_again(slot, turn, out));
            }
            if matches!(stage, Stage::Over) && self.talks.iter().all(|talk| talk.busy() == 0) {
                return Ok(report);
            }
            let silent_ns = heard_ns + SILENCE_MAX.as_nanos() as u64;
            let until_ns = rests.next_due_ns().map_or(silent_ns, |due_ns| due_ns.min(silent_ns));
            let waited = self.ring.wait(Duration::from_nanos(until_ns.saturating_sub(now_ns)))?;
            now_ns = self.now_ns();
            if waited == Waited::Woken {
                heard_ns = now_ns;
            } else if now_ns >= silent_ns {
                return Err(Error::Silent(SILENCE_MAX.as_secs()));
            }
            let (talks, tally) = (&mut self.talks, &mut self.tally);
            self.ring.handle(|lane, bytes, out| {
                let (order, rests) = (&mut order, &mut rests);
                talks[lane].receive(bytes, &mut Turn { script, order, tally, rests, lane, now_ns }, out)
            })?;
            let Some(plan) = plan else { continue };
            let server_cpu = || plan.server_process.and_then(process_cpu_time);
            match stage {
                Stage::Warming { until_ns } if now_ns >= until_ns => {
                    self.tally.restart();
                    stage = Stage::Measuring {
                        from_ns: now_ns,
                        generator_cpu: kernel::thread_cpu_time(),
                        server_cpu: server_cpu(),
                    };
                }
                Stage::Measuring { from_ns, generator_cpu, server_cpu: server_cpu_before }
                    if now_ns - from_ns >= plan.measure.as_nanos() as u64 =>
                {
                    let span = Span {
                        wall: Duration::from_nanos(now_ns - from_ns),
                        generator_cpu: kernel::thread_cpu_time().saturating_sub(generator_cpu),
                        server_cpu: server_cpu()
                            .zip(server_cpu_before)
                            .map(|(after, before)| after.saturating_sub(before)),
                    };
                    let size = (plan.connections, plan.depth);
                    report = Some(self.tally.report(plan.work, size, script.sizes.request_bytes, span));
                    order = Order::Ended;
                    stage = Stage::Over;
                }
                Stage::Warming { .. } | Stage::Measuring { .. } | Stage::Over => {}
            }
        }
    }
}

/// The cpu time of all threads of a process, the kernel's work for it included: the first number of
/// each thread's schedstat, in nanoseconds.
pub(crate) fn process_cpu_time(process: u32) -> Option<Duration> {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{process}/task")).ok()? {
        // A thread may end between the two readings.
        let Ok(text) = fs::read_to_string(thread.ok()?.path().join("schedstat")) else { continue };
        nanos += text.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanos))
}
