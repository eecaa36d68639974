//! Steps through a process, instruction by instruction, and counts.
//!
//! By ptrace, which needs neither a hardware counter (virtual machines have none) nor a program that
//! may be missing, and is exact: the same binary gives the same count every time. A step costs some ten
//! microseconds, so only the marked part is stepped through, and that part is small.
//!
//! Counted are the instructions of the program's own code, by their address. Those of the C library are
//! not: which of its variants of memcpy runs is a matter of the CPU's model, and how often it loops one
//! of alignment. Instead its calls are counted: how many bytes memcpy and memmove were asked to copy, and
//! how often memory was asked for. Copies that the compiler makes itself, up to about 128 bytes, are
//! among the instructions. So the figures are those of a compiler, a build profile and an instruction
//! set, not those of a machine.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::marks::{BEGIN, END};
use super::work::{COPYING, COUNTED_WORK, FUNCTIONS, NOTHING, REQUESTS, Work, number};

/// Steps after which something is wrong with the work: minutes.
const STEPS_MAX: u64 = 5_000_000;

/// What the marked part of a process did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Steps {
    /// Instructions of its own code.
    pub(super) instructions: u64,
    /// Calls of memcpy and memmove by its own code.
    pub(super) copies: u64,
    /// Bytes that they were asked to copy.
    pub(super) copied_bytes: u64,
    /// Times that its own code asked for memory.
    pub(super) allocations: u64,
    /// Marked segments.
    pub(super) segments: u64,
    /// Requests, as the work says.
    pub(super) requests: u64,
}

/// Counts work done by `program`, which is this crate's command; or says why that cannot be done here.
pub(super) struct Stepper {
    program: std::path::PathBuf,
    instructions_per_segment: u64,
}

impl Stepper {
    /// Finds out whether processes can be stepped through here, and what the marks cost.
    pub(super) fn new(program: std::path::PathBuf) -> Result<Self, String> {
        if !cfg!(all(target_arch = "x86_64", target_env = "gnu")) {
            return Err("instructions are counted on x86_64 with the GNU C library only".to_owned());
        }
        let mut stepper = Self { program, instructions_per_segment: 0 };
        let nothing = stepper.count(&NOTHING)?;
        assert_eq!(nothing.segments, nothing.requests, "each piece of nothing is a segment");
        assert!(nothing.instructions.is_multiple_of(nothing.segments), "marks cost the same: {nothing:?}");
        stepper.instructions_per_segment = nothing.instructions / nothing.segments;
        Ok(stepper)
    }

    /// What the marked part of this work does, without what the marks cost.
    ///
    /// # Errors
    /// Why no process can be stepped through here.
    ///
    /// # Panics
    /// When the work fails.
    pub(super) fn count(&self, work: &Work) -> Result<Steps, String> {
        let mut command = Command::new(&self.program);
        command.args([COUNTED_WORK.name, "--count", "1", "--workers", "1", "--seed"]);
        command.arg(number(work).to_string());
        command.env_remove("PINION_SEED").stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}", self.program.display()));
        let mut traced = Traced { child, alive: true };
        let mut said = BufReader::new(traced.child.stdout.take().expect("standard output is a pipe"));
        let mut first = String::new();
        said.read_line(&mut first).expect("the work can be heard");
        let code = Code::of(&traced, &first)?;
        let pid = traced.pid();
        ptrace::seize(pid, ptrace::Options::PTRACE_O_EXITKILL)
            .map_err(|error| format!("ptrace is refused here: {error}"))?;
        let mut go = traced.child.stdin.take().expect("standard input is a pipe");
        go.write_all(b"go\n").expect("the work waits for it");
        let mut steps = follow(&mut traced, &code, work.name)?;
        let mut rest = String::new();
        said.read_to_string(&mut rest).expect("the work can be heard");
        let requests = rest.lines().find_map(|line| line.strip_prefix(REQUESTS));
        steps.requests = requests.and_then(|number| number.parse().ok()).expect("the work says its requests");
        let marks = steps.segments * self.instructions_per_segment;
        steps.instructions = steps.instructions.checked_sub(marks).expect("marks cost what they cost");
        Ok(steps)
    }
}

/// A child that is killed when it is dropped alive.
struct Traced {
    child: Child,
    /// It has not been waited for.
    alive: bool,
}

impl Traced {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        if self.alive {
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// Where the program's own code is, and the functions whose calls are counted.
struct Code {
    own: Range<u64>,
    copying: BTreeSet<u64>,
    allocating: BTreeSet<u64>,
}

impl Code {
    fn of(traced: &Traced, addresses: &str) -> Result<Self, String> {
        let addresses: Vec<u64> =
            addresses.split_whitespace().filter_map(|text| u64::from_str_radix(text, 16).ok()).collect();
        assert_eq!(addresses.len(), FUNCTIONS.len(), "the work says where functions are");
        let process = format!("/proc/{}", traced.child.id());
        let program = fs::read_link(format!("{process}/exe")).map_err(|error| error.to_string())?;
        let maps = fs::read_to_string(format!("{process}/maps")).map_err(|error| error.to_string())?;
        let own =
            own_code(&maps, &program.to_string_lossy()).ok_or("the program's code is not to be found")?;
        if let Some(at) = addresses.iter().position(|address| own.contains(address)) {
            return Err(format!("{} is part of the program: its steps cannot be told apart", FUNCTIONS[at]));
        }
        let (copying, allocating) = addresses.split_at(COPYING);
        let set = |addresses: &[u64]| addresses.iter().copied().collect();
        Ok(Self { own, copying: set(copying), allocating: set(allocating) })
    }
}

/// The executable part of a program, from `/proc/<pid>/maps`.
fn own_code(maps: &str, program: &str) -> Option<Range<u64>> {
    let line = maps.lines().find(|line| line.ends_with(program) && line.contains(" r-xp "))?;
    let (from, to) = line.split_whitespace().next()?.split_once('-')?;
    Some(u64::from_str_radix(from, 16).ok()?..u64::from_str_radix(to, 16).ok()?)
}

/// Lets the process run outside of its marks and steps through it inside, to its end.
fn follow(traced: &mut Traced, code: &Code, name: &str) -> Result<Steps, String> {
    let pid = traced.pid();
    let (begin, end) = (BEGIN.as_raw(), END.as_raw());
    let mut counting = Counting { steps: Steps::default(), at: 0 };
    let mut inside = false;
    let failed = |error: Errno| format!("ptrace fails: {error}");
    loop {
        let status = waitpid(pid, Some(WaitPidFlag::__WALL)).map_err(failed)?;
        // What the process is to be told when it goes on.
        let mut signal = None;
        match status {
            WaitStatus::Exited(_, exit) => {
                traced.alive = false;
                assert_eq!(exit, 0, "{name}: the work failed");
                return Ok(counting.steps);
            }
            WaitStatus::Signaled(_, by, _) => {
                traced.alive = false;
                panic!("{name}: the work was ended by {by}");
            }
            WaitStatus::Stopped(_, by) if by as i32 == begin => {
                inside = true;
                counting.steps.segments += 1;
            }
            WaitStatus::Stopped(_, by) if by as i32 == end => inside = false,
            WaitStatus::Stopped(_, Signal::SIGTRAP) if inside => {
                counting.step(code, &Registers::of(pid).map_err(failed)?);
                assert!(counting.steps.instructions < STEPS_MAX, "{name}: no end after {STEPS_MAX} steps");
            }
            WaitStatus::Stopped(_, by) => signal = Some(by),
            // Stops that are none of ours.
            _ => {}
        }
        let gone_on = if inside { ptrace::step(pid, signal) } else { ptrace::cont(pid, signal) };
        gone_on.map_err(failed)?;
    }
}

/// What is known of a process at a step.
struct Registers {
    /// Where it is.
    instruction: u64,
    /// The third argument, if it is at the start of a function.
    third_argument: u64,
}

impl Registers {
    #[cfg(all(target_arch = "x86_64", target_env = "gnu"))]
    fn of(pid: Pid) -> Result<Self, Errno> {
        let registers = ptrace::getregs(pid)?;
        Ok(Self { instruction: registers.rip, third_argument: registers.rdx })
    }

    #[cfg(not(all(target_arch = "x86_64", target_env = "gnu")))]
    fn of(_: Pid) -> Result<Self, Errno> {
        Err(Errno::ENOSYS)
    }
}

struct Counting {
    steps: Steps,
    /// Where the process was one step before.
    at: u64,
}

impl Counting {
    /// The process is about to execute an instruction.
    fn step(&mut self, code: &Code, registers: &Registers) {
        let here = registers.instruction;
        let from = std::mem::replace(&mut self.at, here);
        if code.own.contains(&here) {
            // An instruction that repeats itself (`rep movs`) stops after every round.
            self.steps.instructions += u64::from(here != from);
        } else if code.own.contains(&from) {
            // A call has just left the program's own code.
            if code.copying.contains(&here) {
                self.steps.copies += 1;
                self.steps.copied_bytes += registers.third_argument;
            }
            self.steps.allocations += u64::from(code.allocating.contains(&here));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPS: &str = "\
55d0c0000000-55d0c0010000 r--p 00000000 fe:00 12   /target/debug/pinion-tests
55d0c0010000-55d0c0800000 r-xp 00010000 fe:00 12   /target/debug/pinion-tests
7f0000000000-7f0000100000 r-xp 00028000 fe:00 13   /usr/lib/libc.so.6
";

    #[test]
    fn own_code_is_the_executable_part_of_the_program() {
        assert_eq!(own_code(MAPS, "/target/debug/pinion-tests"), Some(0x55d0_c001_0000..0x55d0_c080_0000));
        assert_eq!(own_code(MAPS, "/target/debug/other"), None);
    }

    #[test]
    fn own_instructions_and_calls_out_of_them_count() {
        let code = Code { own: 100..200, copying: [1_000].into(), allocating: [2_000].into() };
        let mut counting = Counting { steps: Steps::default(), at: 0 };
        // In, a repeated instruction, memcpy and what it does, back, malloc which calls memcpy, back.
        for here in [100, 101, 101, 101, 102, 1_000, 1_001, 1_000, 103, 2_000, 1_000, 104] {
            counting.step(&code, &Registers { instruction: here, third_argument: 64 });
        }
        let Steps { instructions, copies, copied_bytes, allocations, .. } = counting.steps;
        assert_eq!((instructions, copies, copied_bytes, allocations), (5, 1, 64, 1));
    }
}
