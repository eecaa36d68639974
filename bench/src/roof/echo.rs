//! The bare echo server: a response for each request, at once.
//!
//! The roof of everything that is answered from memory.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;

use io_uring::squeue;

use super::{Options, Peer, Ready, Wire, Work};

struct Echo;

impl Work for Echo {
    fn received(&mut self, peer: Peer, _bytes: &[u8], requests: usize, ready: &mut Ready) {
        ready.push(peer, requests);
    }

    fn turn(&mut self) -> Option<squeue::Entry> {
        None
    }

    fn completed(&mut self, _result: i32, _ready: &mut Ready) -> io::Result<()> {
        Ok(())
    }
}

/// Serves on the calling thread until `stop` is set; tells the address it is bound to.
///
/// # Errors
/// When it cannot listen or make its ring.
pub fn serve(options: &Options, bound: impl FnOnce(SocketAddr), stop: &AtomicBool) -> io::Result<()> {
    let mut wire = Wire::new(options)?;
    bound(wire.local_addr()?);
    wire.run(&mut Echo, stop)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::sync::atomic::Ordering;
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn responses_have_their_own_size() {
        static STOP: AtomicBool = AtomicBool::new(false);
        let options = Options {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            cpu: None,
            request_bytes: 10,
            response_bytes: 7,
        };
        let (addr, bound) = mpsc::channel();
        let server = thread::spawn(move || serve(&options, |it| addr.send(it).unwrap(), &STOP));
        let mut stream = TcpStream::connect(bound.recv().unwrap()).unwrap();
        // Two and a half requests, then the rest.
        stream.write_all(&[1; 25]).unwrap();
        let mut responses = [0; 14];
        stream.read_exact(&mut responses).unwrap();
        stream.write_all(&[1; 5]).unwrap();
        stream.read_exact(&mut responses[..7]).unwrap();
        drop(stream);
        STOP.store(true, Ordering::Relaxed);
        server.join().unwrap().unwrap();
    }
}
