//! Checks of the kernel, the process's limits and the port.

use std::fs;
use std::net::{SocketAddr, TcpListener};

use pinion_runtime::{Runtime, RuntimeConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::Check;

/// The oldest kernel with everything the ring needs.
const KERNEL_MIN: (u32, u32) = (6, 1);
/// Open files beside connections: tables, log segments, rings.
const FILES_BESIDE_CONNECTIONS: u64 = 2_048;
/// With fewer open files than this nothing useful is left.
const FILES_MIN: u64 = 256;

/// The kernel's version.
pub(super) fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let (major, minor) = KERNEL_MIN;
    match version(release) {
        Some(version) if version >= KERNEL_MIN => Check::ok("kernel", format!("Linux {release}")),
        Some(_) => Check::fail(
            "kernel",
            format!("Linux {release} is too old: {major}.{minor} or newer is needed; upgrade the kernel"),
        ),
        None => {
            Check::warn("kernel", format!("`{release}` tells no version; Linux {major}.{minor} is needed"))
        }
    }
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Locked memory, io_uring and the CPUs, as the runtime finds them.
pub(super) fn runtime(cpus: &[usize]) -> Check {
    match Runtime::<()>::new(RuntimeConfig::new(cpus.to_vec())) {
        Ok(_) => Check::ok("io_uring", format!("allowed; {} cores can start", cpus.len())),
        Err(error) => {
            let setting = match fs::read_to_string("/proc/sys/kernel/io_uring_disabled") {
                Ok(value) if value.trim() != "0" => {
                    format!(" (kernel.io_uring_disabled is {})", value.trim())
                }
                _ => String::new(),
            };
            Check::fail("io_uring", format!("{error}{setting}"))
        }
    }
}

/// Raises the limit of open files as far as this process may, and says what holds.
pub(super) fn open_files(connections_max: u32) -> Check {
    let subject = "open files";
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Refused at worst; then what holds now is judged.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let have = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let wanted = u64::from(connections_max) + FILES_BESIDE_CONNECTIONS;
    let advice = "raise the limit (ulimit -n, LimitNOFILE= of a systemd unit, --ulimit nofile= of Docker)";
    if have < FILES_MIN {
        return Check::fail(subject, format!("only {have} files may be open: {advice}"));
    }
    if have < wanted {
        let text =
            format!("{have} may be open, {connections_max} connections and the tables may need {wanted}");
        return Check::warn(subject, format!("{text}: {advice}"));
    }
    Check::ok(subject, format!("{have} may be open"))
}

/// Whether the address is free. `ours`: a node runs on the data directory and may be who listens.
pub(super) fn port(subject: &'static str, flag: &str, address: SocketAddr, ours: bool) -> Check {
    match TcpListener::bind(address) {
        Ok(_) => Check::ok(subject, format!("{address} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && ours => {
            Check::warn(subject, format!("{address} is in use, probably by the node that is running"))
        }
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Check::fail(
            subject,
            format!(
                "{address} is in use by another process: stop it (`ss -ltnp` names it) or choose another port \
                 with {flag}"
            ),
        ),
        Err(error) => Check::fail(subject, format!("cannot listen on {address}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Level;

    #[test]
    fn kernel_versions_are_read() {
        assert_eq!(version("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(version("5.15.153.1-microsoft-standard-WSL2"), Some((5, 15)));
        assert_eq!(version("linux"), None);
        assert_eq!(kernel().level, Level::Ok);
    }

    #[test]
    fn a_busy_port_is_named() {
        let busy = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = busy.local_addr().unwrap();
        assert_eq!(port("address", "--listen", address, false).level, Level::Fail);
        assert!(port("address", "--listen", address, false).text.contains(&address.port().to_string()));
        assert_eq!(port("address", "--listen", address, true).level, Level::Warn);
    }
}
