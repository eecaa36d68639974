//! A real `redis-server`, where one is installed.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use pinion_tests::process::{PATIENCE, temporary_directory};
use pinion_tests::resp::RespConnection;
use tempfile::TempDir;

/// How often it is looked whether the server listens.
const LOOK_DELAY: Duration = Duration::from_millis(2);

/// Whether a program can be run.
pub(super) fn is_installed(program: &str) -> bool {
    let version = Command::new(program).arg("--version").output();
    version.is_ok_and(|output| output.status.success())
}

/// A server of one database that keeps nothing. Dropping it ends it.
#[derive(Debug)]
pub(super) struct Redis {
    process: Child,
    dir: TempDir,
}

impl Redis {
    /// Starts one; `None`, with a printed reason, where none is installed.
    pub(super) fn start() -> Option<Self> {
        if !is_installed("redis-server") {
            println!("skipped: there is no redis-server");
            return None;
        }
        let dir = temporary_directory();
        // A socket in the file system: no port that another may have.
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--databases", "1"])
            .args(["--unixsocket", "socket", "--daemonize", "no"])
            .arg("--dir")
            .arg(dir.path())
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server can be run");
        Some(Self { process, dir })
    }

    /// Connects, when it listens.
    pub(super) fn connect(&self) -> RespConnection {
        let begun = Instant::now();
        loop {
            match RespConnection::connect_unix(&self.dir.path().join("socket")) {
                Ok(connection) => return connection,
                Err(error) => assert!(begun.elapsed() < PATIENCE, "redis-server does not listen: {error}"),
            }
            thread::sleep(LOOK_DELAY);
        }
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}
