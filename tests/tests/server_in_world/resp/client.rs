//! A client of RESP in a world.

use std::io;

use pinion_tests::resp::{Args, Reply, decode, encode};
use pinion_tests::world::{ByteStream, SimSocket};

use crate::client::TestNode;

/// A connection that speaks RESP.
pub(crate) struct RespClient {
    stream: ByteStream<SimSocket>,
    pub(crate) resp3: bool,
    received: Vec<u8>,
}

impl RespClient {
    /// Connects; the first command opens.
    pub(crate) async fn connect(node: &TestNode) -> Self {
        Self { stream: node.connect_bare().await.stream, resp3: false, received: Vec::new() }
    }

    /// Connects until a connection is taken in by this core, as the node's counters say.
    pub(crate) async fn connect_to(node: &TestNode, core: u16) -> Self {
        loop {
            let mut client = Self::connect(node).await;
            let id = client.call(&["CLIENT", "ID"]).await;
            let Reply::Integer(id) = id else { panic!("{id:?}") };
            // Every core numbers its clients in steps of as many as there are cores.
            if (id - 1) as u64 % 2 == u64::from(core) {
                return client;
            }
        }
    }

    pub(crate) async fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).await.expect("the node reads");
    }

    /// Fails when the node closes before it has read all.
    pub(crate) async fn try_send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Sends commands in one go.
    pub(crate) async fn send(&mut self, commands: &[Args]) {
        let mut bytes = Vec::new();
        commands.iter().for_each(|args| encode(args, &mut bytes));
        self.send_bytes(&bytes).await;
    }

    /// The next reply; `None` when the node closes.
    pub(crate) async fn try_receive(&mut self) -> Option<Reply> {
        loop {
            if !self.received.is_empty()
                && let Some((reply, bytes)) = decode(self.resp3, &self.received)
            {
                self.received.drain(..bytes);
                return Some(reply);
            }
            let byte = self.stream.read_exact(1).await.ok()?;
            self.received.extend(byte);
        }
    }

    /// The next reply.
    pub(crate) async fn receive(&mut self) -> Reply {
        self.try_receive().await.expect("the node does not close the connection")
    }

    /// So many replies.
    pub(crate) async fn receive_all(&mut self, count: usize) -> Vec<Reply> {
        let mut replies = Vec::new();
        for _ in 0..count {
            replies.push(self.receive().await);
        }
        replies
    }

    /// Sends a command and waits for its reply.
    pub(crate) async fn call(&mut self, args: &[&str]) -> Reply {
        self.call_bytes(args.iter().map(|arg| arg.as_bytes().to_vec()).collect()).await
    }

    /// As [`RespClient::call`] with arguments of any bytes.
    pub(crate) async fn call_bytes(&mut self, args: Args) -> Reply {
        self.send(&[args]).await;
        self.receive().await
    }
}
