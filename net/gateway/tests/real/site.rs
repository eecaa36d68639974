//! A server of its own for a test, with a gateway in this process before it.

use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use pinion_gateway::{Config, Gateway};
use pinion_tests::process::{Rig, Server};

use crate::http::{Answer, Line, request};

/// The time between two looks at what must become true.
pub(crate) const LOOK_DELAY: Duration = Duration::from_millis(1);

pub(crate) struct Site {
    pub(crate) gateway: Gateway,
    pub(crate) server: Server,
    pub(crate) rig: Rig,
}

impl Site {
    pub(crate) fn start() -> Self {
        Self::with(Rig::new(), |_| {})
    }

    pub(crate) fn with(rig: Rig, change: impl FnOnce(&mut Config)) -> Self {
        let server = rig.start();
        Self { gateway: gateway(&server, change), server, rig }
    }

    /// Another gateway before the same server.
    pub(crate) fn another(&self, change: impl FnOnce(&mut Config)) -> Gateway {
        gateway(&self.server, change)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    pub(crate) fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        send(self.address(), method, target, headers, body)
    }

    pub(crate) fn get(&self, target: &str) -> Answer {
        self.send("GET", target, &[], b"")
    }

    pub(crate) fn put(&self, target: &str, value: &[u8]) -> Answer {
        self.send("PUT", target, &[], value)
    }

    pub(crate) fn stop(self) {
        self.gateway.stop_and_wait();
        self.server.stop();
        drop(self.rig);
    }
}

/// A gateway that has found its node.
fn gateway(server: &Server, change: impl FnOnce(&mut Config)) -> Gateway {
    let mut config = Config::new("127.0.0.1:0".parse().expect("an address"), server.address());
    change(&mut config);
    let gateway = Gateway::start(config).expect("a gateway");
    while send(gateway.address(), "GET", "/readyz", &[], b"").status != 200 {
        thread::sleep(LOOK_DELAY);
    }
    gateway
}

/// One request over a connection of its own.
pub(crate) fn send(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut line = Line::open(address);
    line.try_write(&request(method, target, headers, body));
    line.answer(method).expect("an answer")
}
