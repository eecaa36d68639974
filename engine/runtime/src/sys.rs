//! The few system calls that std does not offer, as safe functions.
//!
//! Each is one call with its arguments checked by type; none keeps memory of ours after it returns.
#![expect(unsafe_code, reason = "system calls without a safe wrapper in std")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

/// The CPUs this process may run on, ascending.
pub fn online_cpus() -> Vec<usize> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: the kernel writes at most the given size into `set`, which is zeroed before, so it is
    // initialised whatever the outcome.
    let (result, set) = unsafe {
        let result = libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr());
        (result, set.assume_init())
    };
    if result != 0 {
        return vec![0];
    }
    let cpus_max = 8 * size_of::<libc::cpu_set_t>();
    // SAFETY: the index stays below the number of bits of the set.
    (0..cpus_max).filter(|cpu| unsafe { libc::CPU_ISSET(*cpu, &set) }).collect()
}

/// Nanoseconds of the monotonic clock: the same for all threads of the machine.
pub(crate) fn monotonic_nanos() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// Milliseconds since 1970 as of the kernel's last tick, at most 10 ms ago: about a quarter of the price
/// of the exact time, which nobody asks for.
pub(crate) fn coarse_wall_ms() -> u64 {
    clock(libc::CLOCK_REALTIME_COARSE) / 1_000_000
}

/// CPU time used by the calling thread.
pub(crate) fn thread_cpu_time() -> Duration {
    Duration::from_nanos(clock(libc::CLOCK_THREAD_CPUTIME_ID))
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the kernel to fill.
    let result = unsafe { libc::clock_gettime(id, &mut time) };
    debug_assert_eq!(result, 0, "these clocks exist on every Linux");
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// Random bits from the kernel; from the clock should the kernel refuse.
pub(crate) fn entropy() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: the kernel writes at most the given length into `bytes`.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if got == bytes.len() as isize { u64::from_ne_bytes(bytes) } else { monotonic_nanos() }
}

/// A blocking event counter, closed on exec.
pub(crate) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the descriptor is new and owned by nobody else.
    unsafe {
        let fd = libc::eventfd(0, libc::EFD_CLOEXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// Owns a descriptor that a completion of the ring returned.
///
/// The caller passes a descriptor that the kernel has just made for us and that nobody owns yet.
pub(crate) fn own(fd: RawFd) -> OwnedFd {
    assert!(fd >= 0, "a descriptor is not negative");
    // SAFETY: the only callers pass the result of a completed accept or open, once.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Sets how many connections may wait to be accepted.
pub(crate) fn set_backlog(socket: BorrowedFd<'_>, connections: i32) -> io::Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::listen(socket.as_raw_fd(), connections) })
}

/// Sends small writes at once instead of waiting for more (TCP_NODELAY). Accepted sockets inherit
/// it from the listening one.
pub(crate) fn set_no_delay(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)
}

/// Breaks the connection if the peer takes nothing for this long.
pub(crate) fn set_user_timeout(socket: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    set_option(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, millis)
}

/// Ends a connection in both directions, or listening: peers see it at once, whoever still holds the
/// descriptor. Says nothing if it has ended already.
pub(crate) fn shut_down(socket: RawFd) {
    // SAFETY: no pointers; callers hold the descriptor open.
    unsafe { libc::shutdown(socket, libc::SHUT_RDWR) };
}

fn set_option(socket: BorrowedFd<'_>, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer and length describe `value`, which the kernel only reads.
    check(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    })
}

/// Sizes of the file system that `path` lives on: (total bytes, bytes available to this user).
pub(crate) fn file_system_bytes(path: &Path) -> io::Result<(u64, u64)> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut stat = MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` ends with a zero byte and `stat` has the size the call fills; it is zeroed
    // before, hence initialised.
    let (result, stat) = unsafe {
        let result = libc::statvfs(path.as_ptr(), stat.as_mut_ptr());
        (result, stat.assume_init())
    };
    check(result)?;
    let unit = stat.f_frsize;
    Ok((stat.f_blocks.saturating_mul(unit), stat.f_bavail.saturating_mul(unit)))
}

/// Raises the soft limit of locked memory to the hard one if it is below `need`, and returns what
/// holds then, in bytes.
pub(crate) fn raise_memlock(need: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the kernel to fill.
    check(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) })?;
    if limit.rlim_cur < need && limit.rlim_max > limit.rlim_cur {
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
        // SAFETY: the kernel only reads `raised`.
        if unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raised) } == 0 {
            return Ok(raised.rlim_cur);
        }
    }
    Ok(limit.rlim_cur)
}

fn check(result: i32) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_answers() {
        assert!(!online_cpus().is_empty());
        assert!(monotonic_nanos() > 0);
        assert_ne!(entropy(), entropy());
        let (total, available) = file_system_bytes(Path::new("/")).unwrap();
        assert!(total >= available);
        assert!(raise_memlock(0).is_ok());
        eventfd().unwrap();
    }
}
