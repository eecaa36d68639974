//! Runs a roof program by hand: `roof PORT CPU REQUEST_BYTES RESPONSE_BYTES [LOG]`.
//!
//! With LOG, a path that does not exist, the durable one; else the echo. Runs until killed.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use pinion_bench::roof::{self, Options};

fn main() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize| -> io::Result<usize> {
        let word = words.get(at).map_or("", String::as_str);
        word.parse().map_err(|_| io::Error::other("usage: roof PORT CPU REQUEST_BYTES RESPONSE_BYTES [LOG]"))
    };
    let options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], number(0)? as u16)),
        cpu: Some(number(1)?),
        request_bytes: number(2)?,
        response_bytes: number(3)?,
    };
    let bound = |addr| println!("listening on {addr}");
    let stop = AtomicBool::new(false);
    match words.get(4) {
        Some(log) => roof::log::serve(&options, Path::new(log), bound, &stop),
        None => roof::echo::serve(&options, bound, &stop),
    }
}
