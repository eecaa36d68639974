//! One connection that sends frames as it is told: for what the client crate would never send.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use pinion_protocol::{
    ErrorCode, FEATURES, FRAME_BYTES_MAX_DEFAULT, Frames, Hello, Outcome, Preface, Request, Response,
    Version, WriteOutcome,
};

use super::PATIENCE;

/// What a request came to, as far as tests look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawAnswer {
    /// The value of a GET.
    Value(Option<Vec<u8>>),
    /// What became of a write.
    Written {
        /// Applied or not.
        outcome: WriteOutcome,
        /// The version that stands.
        version: Version,
    },
    /// An error.
    Error {
        /// Which.
        code: ErrorCode,
        /// What it says of the write.
        outcome: Outcome,
    },
    /// Anything else.
    Other,
}

/// A connection after its HELLO. One request at a time.
#[derive(Debug)]
pub struct RawConnection {
    stream: TcpStream,
    frames: Frames,
    request_id: u64,
    /// The server's hybrid time at HELLO.
    pub stamp: u64,
}

impl RawConnection {
    /// Connects to any core.
    ///
    /// # Panics
    /// When there is no server that answers HELLO.
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
        let frames = Frames::new(FRAME_BYTES_MAX_DEFAULT);
        let mut connection = Self { stream, frames, request_id: 0, stamp: 0 };
        connection.stream.write_all(&Preface::OURS.to_bytes()).expect("the server reads");
        let hello = Request::Hello(Hello { wanted_core: None, features: FEATURES, client_name: "raw" });
        connection.stamp = connection.exchange(&hello, |response| match response {
            Response::Hello(reply) => reply.stamp,
            other => panic!("HELLO was answered by {other:?}"),
        });
        connection
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Panics
    /// When the connection ends instead.
    pub fn call(&mut self, request: &Request<'_>) -> RawAnswer {
        self.exchange(request, |response| match response {
            Response::Get(reply) => RawAnswer::Value(reply.value.map(|value| value.bytes.to_vec())),
            Response::Error { error, .. } => RawAnswer::Error { code: error.code, outcome: error.outcome },
            Response::Put(written) | Response::Delete(written) => {
                RawAnswer::Written { outcome: written.outcome, version: written.version }
            }
            _ => RawAnswer::Other,
        })
    }

    /// Sends a request and does not wait.
    ///
    /// # Errors
    /// The server takes no more.
    pub fn send(&mut self, request: &Request<'_>) -> std::io::Result<()> {
        self.request_id += 1;
        let mut frame = Vec::new();
        request.encode(self.request_id, 0, 0, &mut frame).expect("requests of tests fit");
        self.stream.write_all(&frame)
    }

    fn exchange<T>(&mut self, request: &Request<'_>, then: impl FnOnce(Response<'_>) -> T) -> T {
        self.send(request).expect("the server reads");
        let mut chunk = vec![0; 64 << 10];
        loop {
            let received = match self.stream.read(&mut chunk) {
                // With a timeout a read is not taken up again after a signal.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received.expect("the server answers"),
            };
            assert!(received > 0, "the server closed the connection");
            let mut rest = &chunk[..received];
            if let Some(frame) = self.frames.next_frame(&mut rest).expect("the server sends frames") {
                assert_eq!(frame.header.request_id, self.request_id);
                return then(Response::decode(&frame.header, frame.body).expect("the server sends answers"));
            }
        }
    }
}
