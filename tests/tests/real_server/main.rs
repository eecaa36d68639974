//! Tests of the real binary: real files, sockets, signals and kills.
//!
//! Everything runs on servers of their own in directories of their own. What needs more than a
//! plain user has (a loop device) is tried, and its absence printed.

mod bench;
mod cli;
mod damage;
mod faults;
mod full_disk;
mod idle;
mod kill_loop;
mod late_retry;
mod load;
mod log_file;
mod lone_gets;
mod power;
mod python;
mod refusals;
mod resp;
mod restart;
mod stop;
mod stopped;
