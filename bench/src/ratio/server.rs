//! A server as a child process: started on its cpu, found by what it announces, killed at the end. It
//! can be stopped in between, so that it does not disturb what is measured meanwhile.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::stop::Running;
use crate::error::{Error, Result};
use crate::load::pin_to_cpu;
use crate::output::note;

/// How long a server may take to say where it listens.
const START_MAX: Duration = Duration::from_secs(60);
/// How much of what a failed server wrote is repeated, in bytes.
const COMPLAINT_BYTES_MAX: usize = 2000;

/// A directory of our own, removed with everything in it when dropped.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    /// # Errors
    /// [`Error::File`]: there is something of that name, or it cannot be made.
    pub(crate) fn create(path: PathBuf) -> Result<Self> {
        fs::create_dir(&path).map_err(Error::file(&path))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Leaves it where it is.
    pub(crate) fn keep(mut self) -> PathBuf {
        std::mem::take(&mut self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.0.as_os_str().is_empty()
            && let Err(error) = fs::remove_dir_all(&self.0)
        {
            note(format_args!("{}: {error}\n", self.0.display()));
        }
    }
}

/// A running server process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    running: Running,
    process: u32,
    address: SocketAddr,
}

impl Server {
    /// Starts `program` on one cpu and waits until a line of its output says where it listens. What it
    /// writes to standard error goes into the file `log`.
    ///
    /// # Errors
    /// [`Error::Server`] with the end of what it wrote when no address comes; [`Error::File`] when there
    /// is no such program; [`Error::Cpu`]; [`Error::Stopped`].
    pub(crate) fn start(
        program: &Path,
        args: &[OsString],
        cpu: usize,
        log: &Path,
        running: &Running,
    ) -> Result<Self> {
        Self::start_announced_by(program, args, cpu, log, running, announced)
    }

    /// Like [`Server::start`], for a server with other words: `address_in` finds the address in the line
    /// after which the server answers.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub(crate) fn start_announced_by(
        program: &Path,
        args: &[OsString],
        cpu: usize,
        log: &Path,
        running: &Running,
        address_in: impl Fn(&str) -> Option<SocketAddr> + Send + 'static,
    ) -> Result<Self> {
        let complaints = File::create(log).map_err(Error::file(log))?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(complaints);
        // Only what is measured runs. By the environment: older builds know no such flag.
        command.env("PINION_HTTP", "none");
        // A process starts on the cpus of the thread that starts it; ours goes with this thread.
        let spawned = thread::scope(|scope| {
            let spawn = || {
                pin_to_cpu(cpu).map_err(|error| Error::Cpu { cpu, error })?;
                running.start(&mut command, Error::file(program), |child| (child.id(), child.stdout.take()))
            };
            scope.spawn(spawn).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        let (process, output) = spawned?;
        // From here on it is ended whatever happens.
        let mut server = Self { running: running.clone(), process, address: ([0, 0, 0, 0], 0).into() };
        let output = output.expect("its output was asked for");
        let (sender, receiver) = mpsc::channel();
        // Goes on after the address, so that the server never waits for a reader. Ends with it.
        thread::spawn(move || {
            let mut lines = BufReader::new(output).lines().map_while(std::io::Result::ok);
            let mut said = Vec::new();
            for line in lines.by_ref() {
                if let Some(address) = address_in(&line) {
                    // Nobody waits any more if it came too late.
                    let _ = sender.send(Ok(address));
                    break;
                }
                said.extend(line.bytes().chain([b'\n']));
                said.drain(..said.len().saturating_sub(COMPLAINT_BYTES_MAX));
            }
            lines.for_each(drop);
            // Nobody waits if the address came.
            let _ = sender.send(Err(said));
        });
        let said = match receiver.recv_timeout(START_MAX) {
            Ok(Ok(address)) => {
                server.address = address;
                return Ok(server);
            }
            Ok(Err(said)) => said,
            Err(_) => Vec::new(),
        };
        drop(server);
        let complaints = fs::read(log).unwrap_or_default();
        let end = &complaints[complaints.len().saturating_sub(COMPLAINT_BYTES_MAX)..];
        let (program, said) = (program.display(), [said.as_slice(), end].concat());
        let said = String::from_utf8_lossy(&said);
        Err(Error::Server(format!("{program} {args:?} did not say where it listens\n{}", said.trim_end())))
    }

    /// Takes the cpu from it until [`Server::resume`].
    pub(crate) fn pause(&self) {
        self.running.signal(self.process, Signal::STOP);
    }

    /// Lets it go on.
    pub(crate) fn resume(&self) {
        self.running.signal(self.process, Signal::CONT);
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) const fn process(&self) -> u32 {
        self.process
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.running.end(self.process);
    }
}

/// The address in a line such as `listening on 127.0.0.1:7600`; other lines may name addresses at
/// which nobody answers yet.
fn announced(line: &str) -> Option<SocketAddr> {
    let (_, address) = line.split_once("listening on ")?;
    address.split([' ', ',', ';']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_a_line() {
        let found = |line| announced(line).map(|address: SocketAddr| address.to_string());
        assert_eq!(found("listening on 127.0.0.1:7600, 1 core"), Some("127.0.0.1:7600".to_owned()));
        assert_eq!(found("INFO listening on [::1]:80"), Some("[::1]:80".to_owned()));
        assert_eq!(found("starting on 127.0.0.1:1"), None);
        assert_eq!(found("listening on nothing"), None);
    }

    #[test]
    fn a_server_is_killed_when_dropped_and_its_complaint_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        let shell = |script: &str| {
            let args = ["-c", script].map(OsString::from);
            Server::start(Path::new("/bin/sh"), &args, 0, &log, &Running::default())
        };
        let server =
            shell("echo starting; echo listening on 127.0.0.1:9; exec cat /dev/zero > /dev/null").unwrap();
        assert_eq!(server.address().port(), 9);
        let process = PathBuf::from(format!("/proc/{}", server.process()));
        let status = fs::read_to_string(process.join("status")).unwrap();
        assert!(status.contains("Cpus_allowed_list:\t0\n"), "{status}");
        server.pause();
        drop(server);
        assert!(!process.exists());
        let error = shell("echo no port; echo no memory >&2").unwrap_err().to_string();
        assert!(error.contains("no port") && error.contains("no memory"), "{error}");
    }

    #[test]
    fn scratch_is_new_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("scratch");
        let scratch = Scratch::create(path.clone()).unwrap();
        assert!(matches!(Scratch::create(path.clone()), Err(Error::File { .. })));
        fs::write(scratch.path().join("file"), b"x").unwrap();
        drop(scratch);
        assert!(!path.exists());
        assert_eq!(Scratch::create(path.clone()).unwrap().keep(), path);
        assert!(path.exists());
    }
}
