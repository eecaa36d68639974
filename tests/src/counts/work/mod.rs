//! The work whose instructions are counted: set up, made warm, then done once under the marks.
//!
//! Each piece runs in a process of its own (the class `counted-work`, the seed is its number), on the
//! main thread, and does the same in every run: the worlds follow from fixed seeds. It says on standard
//! output where the functions are whose calls are counted, waits for a line on standard input, and at
//! the end says how many requests the marked part held.

mod direct;
mod served;

use std::io::{BufRead, stdin};

use super::marks::Marks;
use crate::metered::Meter;
use crate::trials::{Class, Counts, Trials};

/// The work itself.
pub const COUNTED_WORK: Class = Class {
    name: "counted-work",
    about: "work under the marks that the class counts steps through; not to be run by itself",
    unit: "works",
    submission: 1,
    full: 1,
    release: 1,
    run,
};

/// A piece of work.
#[derive(Debug)]
pub(super) struct Work {
    /// What it is, and how figures are called that come of it.
    pub(super) name: &'static str,
    /// Does it; how many requests were marked.
    run: fn(Marks) -> u64,
}

/// Does nothing, so that what the marks cost is known.
pub(super) const NOTHING: Work = Work { name: "nothing", run: |marks| marked(marks, 8, || ()) };

/// Makes a copy of [`KNOWN_BYTES`] in each of [`KNOWN_REQUESTS`] requests, and one allocation.
pub(super) const KNOWN: Work = Work { name: "known", run: direct::known };

/// Bytes that each request of [`KNOWN`] copies.
pub(super) const KNOWN_BYTES: usize = 1_000;
/// Requests of [`KNOWN`].
pub(super) const KNOWN_REQUESTS: u64 = 3;

/// All there is to count.
pub(super) const WORKS: &[Work] = &[
    Work { name: "frames: request in", run: direct::request_in },
    Work { name: "frames: value out", run: direct::value_out },
    Work { name: "engine: get in memtable", run: direct::get_in_memtable },
    Work { name: "engine: get in row cache", run: direct::get_in_row_cache },
    Work { name: "engine: get in cached block", run: direct::get_in_block },
    Work { name: "engine: put alone", run: direct::put_alone },
    Work { name: "engine: put in 16", run: direct::put_in_16 },
    Work { name: "engine: scan of 16", run: direct::scan },
    Work { name: "server: get alone", run: served::get_alone },
    Work { name: "server: get in 16", run: served::get_in_16 },
    Work { name: "server: put alone", run: served::put_alone },
    Work { name: "server: put in 16", run: served::put_in_16 },
    Work { name: "server: scan of 16", run: served::scan },
];

/// What a process of this class says first: where these functions are, in this order.
pub(super) const FUNCTIONS: [&str; 7] =
    ["memcpy", "memmove", "malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"];

/// How many of [`FUNCTIONS`] copy; the others allocate.
pub(super) const COPYING: usize = 2;

/// What stands before the number of requests in what it says last.
pub(super) const REQUESTS: &str = "requests: ";

/// The number by which a process is told which work to do.
pub(super) fn number(work: &Work) -> usize {
    all().position(|other| other.name == work.name).expect("the work is listed")
}

fn all() -> impl Iterator<Item = &'static Work> {
    [&NOTHING, &KNOWN].into_iter().chain(WORKS)
}

fn run(trials: &Trials) -> Counts {
    let number = usize::try_from(trials.first_seed).expect("works are few");
    let work = all().nth(number).unwrap_or_else(|| panic!("there is no work of number {number}"));
    let functions = [
        libc::memcpy as *const () as usize,
        libc::memmove as *const () as usize,
        libc::malloc as *const () as usize,
        libc::calloc as *const () as usize,
        libc::realloc as *const () as usize,
        libc::posix_memalign as *const () as usize,
        libc::aligned_alloc as *const () as usize,
    ];
    const _: () = assert!(FUNCTIONS.len() == 7);
    println!("{}", functions.map(|address| format!("{address:x}")).join(" "));
    // Until it is stepped through.
    let told = stdin().lock().lines().next();
    assert!(matches!(told, Some(Ok(_))), "this class is run by the class counts");
    println!("{REQUESTS}{}", (work.run)(Marks));
    let mut counts = Counts::default();
    counts.add("works", 1);
    counts
}

/// Does something so many times, each under marks of its own.
fn marked<T>(marks: Marks, times: u64, mut each: impl FnMut() -> T) -> u64 {
    marks.arm();
    for _ in 0..times {
        // What it gives is dropped under the marks too.
        marks.inside(|| drop(each()));
    }
    marks.disarm();
    times
}
