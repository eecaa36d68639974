//! Plain reading and writing over a [`Socket`] of either world, for tests that speak a protocol.

use std::future::poll_fn;
use std::io::{self, ErrorKind};

use pinion_env::Socket;

/// A socket and what has been received and not been read. Chunk borders do not show.
#[derive(Debug)]
pub struct ByteStream<S> {
    socket: S,
    received: Vec<u8>,
    streaming: bool,
}

impl<S: Socket> ByteStream<S> {
    /// Reads and writes a socket.
    pub fn new(socket: S) -> Self {
        Self { socket, received: Vec::new(), streaming: false }
    }

    /// Sends bytes and waits until all of them are sent.
    ///
    /// # Errors
    /// The peer has gone.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.start_send(vec![bytes.to_vec()]);
        poll_fn(|context| self.socket.poll_sent(context)).await.0
    }

    /// The next `bytes` bytes; what comes after them is kept.
    ///
    /// # Errors
    /// `UnexpectedEof` when the peer closes before; what had come stays readable by
    /// [`ByteStream::read_to_end`].
    pub async fn read_exact(&mut self, bytes: usize) -> io::Result<Vec<u8>> {
        while self.received.len() < bytes {
            if !self.receive().await? {
                return Err(io::Error::from(ErrorKind::UnexpectedEof));
            }
        }
        Ok(self.received.drain(..bytes).collect())
    }

    /// Everything until the peer closes.
    ///
    /// # Errors
    /// The connection was reset.
    pub async fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        while self.receive().await? {}
        Ok(std::mem::take(&mut self.received))
    }

    /// The socket itself. Bytes that were received and not read are lost.
    pub fn into_socket(self) -> S {
        self.socket
    }

    /// Takes one more chunk; false at the end of the stream.
    async fn receive(&mut self) -> io::Result<bool> {
        if !std::mem::replace(&mut self.streaming, true) {
            self.socket.start_streaming();
        }
        match poll_fn(|context| self.socket.poll_receive(context)).await? {
            Some(chunk) => {
                self.received.extend_from_slice(&chunk);
                Ok(true)
            }
            None => Ok(false),
        }
    }
}
