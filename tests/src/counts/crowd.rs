//! Connections that ask in groups: all requests of a group are with the server's kernel before the
//! server may look, so that how they are batched is decided by the server and not by who was faster.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use pinion_protocol::{
    FRAME_BYTES_MAX_DEFAULT, Frames, Hello, KeyRequest, Preface, Put, Request, Response, Ttl, WriteOutcome,
};

use crate::process::PATIENCE;

const VALUE: [u8; 512] = [7; 512];

/// What all of a group ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// A value that was put.
    Get,
    /// A synced write.
    Put,
}

/// Connections of one server of one core.
pub(super) struct Crowd {
    members: Vec<Member>,
    /// Requests of one connection in a group.
    depth: usize,
    groups: u64,
    bytes: Vec<u8>,
    chunk: Vec<u8>,
}

struct Member {
    stream: TcpStream,
    frames: Frames,
    /// Requests without an answer.
    missing: usize,
}

impl Crowd {
    /// So many connections, after their HELLO.
    pub(super) fn connect(address: &str, connections: usize, depth: usize) -> Self {
        let members = (0..connections).map(|_| Member::connect(address)).collect();
        Self { members, depth, groups: 0, bytes: Vec::new(), chunk: vec![0; 64 << 10] }
    }

    /// Requests of one group.
    pub(super) fn requests(&self) -> usize {
        self.members.len() * self.depth
    }

    /// Sends a group. The keys of a connection are its own, and the same in every group.
    pub(super) fn send(&mut self, ask: Ask) {
        self.groups += 1;
        for (number, member) in self.members.iter_mut().enumerate() {
            self.bytes.clear();
            for place in 0..self.depth {
                let key = format!("{:032}", number * self.depth + place);
                let request = match ask {
                    Ask::Get => Request::Get(KeyRequest { namespace: 0, key: key.as_bytes() }),
                    Ask::Put => {
                        let write = pinion_protocol::Write {
                            namespace: 0,
                            key: key.as_bytes(),
                            durability: Default::default(),
                            stamp: None,
                        };
                        Request::Put(Put { write, ttl: Ttl::NamespaceDefault, value: &VALUE })
                    }
                };
                request.encode(self.groups, 0, 0, &mut self.bytes).expect("the request fits a frame");
            }
            // A group is far smaller than what a socket takes while nobody reads.
            member.stream.write_all(&self.bytes).expect("the server's socket takes it");
            member.missing = self.depth;
        }
    }

    /// Takes the answers that are there. True when none is missing.
    ///
    /// # Panics
    /// When an answer is not what was asked for, or a connection ends.
    pub(super) fn take_answers(&mut self) -> bool {
        let mut all = true;
        for member in self.members.iter_mut().filter(|member| member.missing > 0) {
            member.take(&mut self.chunk, self.groups);
            all &= member.missing == 0;
        }
        all
    }
}

impl Member {
    fn connect(address: &str) -> Self {
        let mut stream = TcpStream::connect(address).expect("the server listens");
        stream.set_nodelay(true).expect("it is a TCP socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("the timeout is not zero");
        let mut bytes = Preface::OURS.to_bytes().to_vec();
        let hello = Request::Hello(Hello { wanted_core: None, features: 0, client_name: "crowd" });
        hello.encode(0, 0, 0, &mut bytes).expect("the request fits a frame");
        stream.write_all(&bytes).expect("the server reads");
        let mut member = Self { stream, frames: Frames::new(FRAME_BYTES_MAX_DEFAULT), missing: 1 };
        let mut chunk = vec![0; 4_096];
        while member.missing > 0 {
            member.take(&mut chunk, 0);
        }
        // From now on it is looked whether there is something, and not waited.
        member.stream.set_nonblocking(true).expect("a socket can be asked without waiting");
        member
    }

    fn take(&mut self, chunk: &mut [u8], group: u64) {
        while self.missing > 0 {
            let received = match self.stream.read(chunk) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("the server does not answer: {error}"),
            };
            assert!(received > 0, "the server closed the connection");
            let mut rest = &chunk[..received];
            while let Some(frame) = self.frames.next_frame(&mut rest).expect("the server sends frames") {
                assert_eq!(frame.header.request_id, group, "an answer to this group");
                let answer = Response::decode(&frame.header, frame.body).expect("the server sends answers");
                match answer {
                    Response::Get(reply) => {
                        assert_eq!(reply.value.map(|value| value.bytes), Some(&VALUE[..]));
                    }
                    Response::Put(written) => assert_eq!(written.outcome, WriteOutcome::Applied),
                    Response::Hello(_) => {}
                    other => panic!("{other:?}"),
                }
                self.missing -= 1;
            }
        }
    }
}
