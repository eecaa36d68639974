//! One connection that never blocks: requests are appended and sent as far as the server takes
//! them; answers are handed out as they come.

use std::io::{self, Read, Write};
use std::net::TcpStream;

use pinion_protocol::{
    ErrorCode, FEATURES, FRAME_BYTES_MAX_DEFAULT, Frames, Header, Hello, Preface, Request, Response,
};

use crate::process::PATIENCE;

/// A connection after its HELLO.
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    frames: Frames,
    out: Vec<u8>,
    /// Bytes of `out` that are sent.
    sent: usize,
    /// Unanswered requests that HELLO allows.
    pub in_flight_max: u32,
}

/// What came in one sip.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sip {
    /// Answers, refusals included.
    pub answers: u64,
    /// Refused as overloaded.
    pub refused: u64,
}

/// Preface and HELLO.
pub fn opening() -> Vec<u8> {
    let mut bytes = Preface::OURS.to_bytes().to_vec();
    let hello = Request::Hello(Hello { wanted_core: None, features: FEATURES, client_name: "line" });
    hello.encode(1, 0, 0, &mut bytes).expect("HELLO fits");
    bytes
}

impl Line {
    /// Connects and waits for the answer to HELLO.
    ///
    /// # Panics
    /// When there is no server that answers HELLO.
    pub fn connect(address: &str) -> Self {
        Self::over(TcpStream::connect(address).expect("the server listens"))
    }

    /// As [`Line::connect`] over a connection that exists.
    ///
    /// # Panics
    /// When HELLO is not answered.
    pub fn over(mut stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("it is a TCP socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
        stream.write_all(&opening()).expect("the server reads");
        let mut frames = Frames::new(FRAME_BYTES_MAX_DEFAULT);
        let mut chunk = [0; 4096];
        let in_flight_max = loop {
            let received = match stream.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                received => received.expect("the server answers HELLO"),
            };
            assert!(received > 0, "the server closed the connection instead of answering HELLO");
            let mut rest = &chunk[..received];
            let Some(frame) = frames.next_frame(&mut rest).expect("the server sends frames") else {
                continue;
            };
            match Response::decode(&frame.header, frame.body).expect("the server sends answers") {
                Response::Hello(reply) => break reply.in_flight_max,
                other => panic!("HELLO was answered by {other:?}"),
            }
        };
        stream.set_nonblocking(true).expect("it is a TCP socket");
        Self { stream, frames, out: Vec::new(), sent: 0, in_flight_max }
    }

    /// Appends a request to what is sent next.
    pub fn push(&mut self, request_id: u64, request: &Request<'_>) {
        request.encode(request_id, 0, 0, &mut self.out).expect("requests of tests fit");
    }

    /// Appends bytes, whatever they are, to what is sent next.
    pub fn push_bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Bytes that are not sent yet.
    pub fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Sends as much as the server takes.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// Sends at most so many bytes, if the server takes any.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush_at_most(&mut self, bytes: usize) -> io::Result<()> {
        let end = self.out.len().min(self.sent + bytes);
        match self.stream.write(&self.out[self.sent..end]) {
            Ok(bytes) => self.sent += bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes the answers that are there and says how many.
    ///
    /// # Panics
    /// When the connection ends, or an answer is an error.
    pub fn answers(&mut self) -> u64 {
        let came = self.answers_or_refusals();
        assert_eq!(came.refused, 0, "refused as overloaded");
        came.answers
    }

    /// As [`Line::answers`]; some may be OVERLOADED.
    ///
    /// # Panics
    /// When the connection ends, or an answer is another error.
    pub fn answers_or_refusals(&mut self) -> Sip {
        let mut came = Sip::default();
        let mut chunk = vec![0; 64 << 10];
        let open = self.receive(&mut chunk, |_, response| {
            came.answers += 1;
            if let Response::Error { error, .. } = response {
                assert_eq!(error.code, ErrorCode::Overloaded, "{}", error.message);
                came.refused += 1;
            }
        });
        assert!(open.expect("the connection lives"), "the server has closed the connection");
        came
    }

    /// Reads once, at most as much as `sip` holds.
    ///
    /// # Panics
    /// When the connection ends, or an answer is an error other than OVERLOADED.
    pub fn sip(&mut self, sip: &mut [u8]) -> Sip {
        let mut came = Sip::default();
        let received = match self.stream.read(sip) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return came,
            Err(error) => panic!("the connection lives: {error}"),
        };
        assert!(received > 0, "the server has closed the connection");
        let mut rest = &sip[..received];
        while let Some(frame) = self.frames.next_frame(&mut rest).expect("the server sends frames") {
            came.answers += 1;
            match Response::decode(&frame.header, frame.body).expect("the server sends answers") {
                Response::Error { error, .. } => {
                    assert_eq!(error.code, ErrorCode::Overloaded, "{}", error.message);
                    came.refused += 1;
                }
                Response::Get(reply) => assert!(reply.value.is_some(), "every key has been written"),
                other => panic!("a GET was answered by opcode {}", other.opcode()),
            }
        }
        came
    }

    /// Hands every answer that is there to `take`; false when the server has closed.
    ///
    /// # Errors
    /// The connection is broken.
    ///
    /// # Panics
    /// When what comes is not the protocol.
    pub fn receive(
        &mut self,
        chunk: &mut [u8],
        mut take: impl FnMut(&Header, Response<'_>),
    ) -> io::Result<bool> {
        loop {
            let received = match self.stream.read(chunk) {
                Ok(0) => return Ok(false),
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(true),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let mut rest = &chunk[..received];
            while let Some(frame) = self.frames.next_frame(&mut rest).expect("the server sends frames") {
                let response = Response::decode(&frame.header, frame.body);
                take(&frame.header, response.expect("the server sends answers"));
            }
            if received < chunk.len() {
                return Ok(true);
            }
        }
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}
