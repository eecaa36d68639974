//! `pinion serve` and `pinion gateway`: the gateway as users start it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use pinion_tests::process::{Rig, pinion};
use rustix::process::{Pid, Signal, kill_process};

use crate::http::{Line, request};
use crate::site::send;

#[test]
fn serve_answers_http_beside_its_cores_and_stops_with_them() {
    let rig = Rig::new().flag("http", "127.0.0.1:0");
    let server = rig.start();
    let address = server.start_line("  http    http://").trim_end_matches('/').parse().expect("an address");
    while send(address, "GET", "/readyz", &[], b"").status != 200 {
        std::thread::sleep(crate::site::LOOK_DELAY);
    }
    assert_eq!(send(address, "PUT", "/kv/k", &[], b"v").status, 204);
    assert_eq!(server.client().get("k").expect("a get").as_deref(), Some(&b"v"[..]));
    // It runs on a thread of its own, free to run on any CPU that the process may use.
    let allowed = |name: &str| {
        let mut found = Vec::new();
        for thread in std::fs::read_dir(format!("/proc/{}/task", server.pid())).expect("a process") {
            let text = std::fs::read_to_string(thread.expect("a thread").path().join("status"));
            let text = text.unwrap_or_default();
            if text.starts_with(&format!("Name:\t{name}\n")) {
                found
                    .push(text.lines().find(|line| line.starts_with("Cpus_allowed_list")).map(str::to_owned));
            }
        }
        found
    };
    let gateway = allowed("gateway");
    assert_eq!(gateway.len(), 1);
    assert_eq!(gateway, allowed("signals"), "pinned to no core");

    // A request under way when the signal comes is finished first.
    let mut half = Line::open(address);
    half.write(
        b"PUT /kv/late HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n",
    );
    assert_eq!(half.answer("PUT").expect("to go on").status, 100);
    let mut idle = Line::open(address);
    idle.write(&request("GET", "/version", &[], b""));
    assert_eq!(idle.answer("GET").expect("an answer").status, 200);
    server.terminate();
    assert!(idle.ends(), "a connection without a request is closed");
    half.write(b"late");
    assert_eq!(half.answer("PUT").expect("an answer").status, 204);
    let (status, log) = server.wait();
    assert!(status.success(), "{log}");
    let server = rig.start();
    assert_eq!(server.client().get("late").expect("a get").as_deref(), Some(&b"late"[..]));
    server.stop();
}

#[test]
fn an_address_that_others_can_reach_is_refused() {
    let refused = Rig::with_shards(1).flag("http", "0.0.0.0:0").try_start().expect_err("it must not start");
    assert!(refused.to_string().contains("--insecure"), "{refused}");
    let refused = pinion(&["gateway", "--http", "0.0.0.0:0"]).output().expect("the binary was built");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--insecure"));
}

#[test]
fn a_gateway_stands_alone_before_a_node() {
    let rig = Rig::with_shards(1);
    let server = rig.start();
    let mut child = pinion(&["gateway", "--http", "127.0.0.1:0", "--seeds", server.address()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    out.read_line(&mut line).expect("a line");
    let address = line.trim_end().strip_prefix("listening on ").expect("where").parse().expect("an address");
    while send(address, "GET", "/readyz", &[], b"").status != 200 {
        std::thread::sleep(crate::site::LOOK_DELAY);
    }
    assert_eq!(send(address, "PUT", "/kv/k", &[], b"v").status, 204);
    kill_process(Pid::from_child(&child), Signal::TERM).expect("a child can be signalled");
    assert!(child.wait().expect("a child ends").success());
    assert_eq!(server.client().get("k").expect("a get").as_deref(), Some(&b"v"[..]));
    server.stop();
}
