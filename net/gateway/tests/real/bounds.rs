//! Bounds: what is too much, too slow or meant for somebody else is turned away, and others are served.

use std::time::Instant;

use pinion_tests::process::{PATIENCE, Rig};

use crate::http::{Line, request};
use crate::site::{LOOK_DELAY, Site};

/// More than there are connections for.
const PEERS: usize = 40;
/// A time that no test takes.
const NEVER_MS: u32 = 3_600_000;
/// What a slow peer sends of a request.
const HALF_A_HEAD: &[u8] = b"GET /version HTTP/1.1\r\nhost: local";

#[test]
fn only_names_that_are_ours_are_answered() {
    let site = Site::with(Rig::with_shards(1), |config| config.hosts = vec!["db.example".into()]);
    let get = |host: &str| site.send("GET", "/version", &[("host", host)], b"");
    for good in ["localhost", "127.0.0.1:7601", "[::1]", "db.example:80", "DB.EXAMPLE."] {
        assert_eq!(get(good).status, 200, "{good}");
    }
    for bad in ["evil.example", "localhost.evil.example", "db.example.evil.example"] {
        assert_eq!((get(bad).status, get(bad).problem()), (421, "unknown_host".to_owned()), "{bad}");
    }
    let mut line = Line::open(site.address());
    line.write(b"GET /version HTTP/1.1\r\n\r\n");
    assert_eq!(line.answer("GET").unwrap().problem(), "bad_host");
    let mut line = Line::open(site.address());
    line.write(b"GET /version HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n");
    assert_eq!(line.answer("GET").unwrap().problem(), "bad_host");
    let mut line = Line::open(site.address());
    line.write(b"GET http://evil.example/version HTTP/1.1\r\nhost: localhost\r\n\r\n");
    assert_eq!(line.answer("GET").unwrap().status, 421);
    // No other origin is let in.
    let answer = site.send("GET", "/kv/k", &[("origin", "https://evil.example")], b"");
    assert!(!answer.headers.iter().any(|(name, _)| name.starts_with("access-control-")));
    let preflight =
        site.send("OPTIONS", "/kv/k", &[("origin", "x"), ("access-control-request-method", "PUT")], b"");
    assert_eq!((preflight.status, preflight.header("access-control-allow-origin")), (405, None));
    site.stop();
}

#[test]
fn requests_have_names() {
    let site = Site::with(Rig::with_shards(1), |_| {});
    let named = site.send("GET", "/version", &[("x-request-id", "my-id.7")], b"");
    assert_eq!(named.header("x-request-id"), Some("my-id.7"));
    let first = site.get("/version").header("x-request-id").unwrap().to_owned();
    let bad = site.send("GET", "/version", &[("x-request-id", "a b")], b"");
    assert!(bad.header("x-request-id").is_some_and(|id| id != "a b" && id != first));
    assert_eq!(site.get("/nowhere").problem(), "no_such_address");
    let wrong = site.send("POST", "/kv/k", &[], b"");
    assert_eq!((wrong.status, wrong.problem()), (405, "bad_method".to_owned()));
    let mut allowed: Vec<&str> = wrong.header("allow").expect("what is allowed").split(',').collect();
    allowed.sort_unstable();
    assert_eq!(allowed, ["DELETE", "GET", "HEAD", "PUT"]);
    site.stop();
}

#[test]
fn slow_peers_are_cut_off() {
    let site = Site::with(Rig::with_shards(1), |config| {
        // Longer than a loaded machine takes between two of our own requests.
        config.limits.head_ms_max = 2_000;
        config.limits.body_ms_max = 2_000;
    });
    // Over a connection that stays, requests follow each other.
    let mut kept = Line::open(site.address());
    for _ in 0..3 {
        kept.write(&request("GET", "/version", &[], b""));
        assert_eq!(kept.answer("GET").unwrap().status, 200);
    }
    let mut slow = Line::open(site.address());
    slow.try_write(HALF_A_HEAD);
    assert!(slow.ends(), "half a head is not waited for");
    assert!(kept.ends(), "nor is a request that does not come");

    let mut half = Line::open(site.address());
    half.write(b"PUT /kv/k HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhalf");
    let answer = half.answer("PUT").unwrap();
    assert_eq!((answer.status, answer.problem()), (408, "body_timeout".to_owned()));
    assert_eq!(site.get("/kv/k").status, 404);
    site.stop();
}

#[test]
fn peers_that_send_no_request_keep_nobody_out() {
    let site = Site::with(Rig::with_shards(1), |config| {
        config.limits.connections_max = 6;
        config.limits.connections_reserved = 2;
        config.limits.head_ms_max = NEVER_MS;
    });
    let mut idle = Line::open(site.address());
    idle.write(&request("GET", "/version", &[], b""));
    assert_eq!(idle.answer("GET").unwrap().status, 200);
    let mut slow: Vec<Line> = (0..PEERS).map(|_| Line::open(site.address())).collect();
    slow.iter_mut().for_each(|line| line.try_write(HALF_A_HEAD));
    assert_eq!(site.put("/kv/k", b"v").status, 204);
    assert_eq!((site.get("/kv/k").status, site.get("/healthz").status), (200, 200));
    assert!(idle.ends() && slow[0].ends(), "who has waited longest gives way");
    let newest = slow.last_mut().expect("there are some");
    newest.write(b"host\r\n\r\n");
    assert_eq!(newest.answer("GET").expect("who has come last is waited for").status, 200);
    let told = site.get("/admin/v1/status").json()["gateway"].clone();
    assert!(told["connections"].as_u64() <= Some(8), "{told}");
    assert!(told["connections_gave_way"].as_u64() >= Some(PEERS as u64 + 1 - 8), "{told}");
    assert_eq!(told["connections_refused"], 0, "{told}");
    site.stop();
}

#[test]
fn requests_under_way_leave_room_for_who_looks_after_the_node() {
    let limited = |connections_reserved: u32| {
        Site::with(Rig::with_shards(1), |config| {
            config.limits.connections_max = 2;
            config.limits.connections_reserved = connections_reserved;
            config.limits.body_ms_max = NEVER_MS;
        })
    };
    let without_body = |site: &Site| {
        let mut line = Line::open(site.address());
        line.write(
            b"PUT /kv/k HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n",
        );
        assert_eq!(line.answer("PUT").expect("to go on").status, 100);
        line
    };
    let site = limited(1);
    let mut slow = [without_body(&site), without_body(&site)];
    for _ in 0..3 {
        let refused = site.get("/kv/k");
        assert_eq!((refused.status, refused.problem()), (503, "too_many_connections".to_owned()));
        assert_eq!(refused.header("retry-after"), Some("1"));
        for target in ["/healthz", "/livez", "/readyz", "/metrics", "/admin/v1/status"] {
            assert_eq!(site.get(target).status, 200, "{target}");
        }
    }
    for line in &mut slow {
        line.write(b"v");
        assert_eq!(line.answer("PUT").unwrap().status, 204);
    }
    assert_eq!(site.get("/kv/k").text(), "v");
    site.stop();

    // Without that room, nobody gives way for a newcomer.
    let site = limited(0);
    let slow = [without_body(&site), without_body(&site)];
    let refused = Line::open(site.address()).answer("GET").expect("an answer before it was asked");
    assert_eq!((refused.status, refused.problem()), (503, "too_many_connections".to_owned()));
    drop(slow);
    site.stop();
}

/// These never get as far as the routes.
#[test]
fn heads_that_make_no_sense_are_answered_without_a_body() {
    let site = Site::with(Rig::with_shards(1), |config| config.limits.head_bytes_max = 256 << 10);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70 << 10));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "x: 1\r\n".repeat(100));
    for (head, status) in [("no request\r\n\r\n", 400), (&long[..], 414), (&many[..], 431)] {
        let mut line = Line::open(site.address());
        line.write(head.as_bytes());
        let answer = line.answer("GET").expect("an answer");
        assert_eq!((answer.status, answer.body.len(), answer.header("content-type")), (status, 0, None));
        assert!(line.ends());
    }
    site.stop();
}

#[test]
fn heads_and_buffers_are_bounded() {
    let site = Site::with(Rig::with_shards(1), |config| config.limits.buffer_bytes_max = 100 << 10);
    let long = "x".repeat(200 << 10);
    assert_eq!(site.send("GET", "/version", &[("x-long", &long)], b"").status, 431);
    let mut many = b"GET /version HTTP/1.1\r\nhost: localhost\r\n".to_vec();
    (0..100).for_each(|number| many.extend(format!("x-{number}: 1\r\n").bytes()));
    let mut line = Line::open(site.address());
    line.write(&[&many[..], b"\r\n"].concat());
    assert_eq!(line.answer("GET").unwrap().status, 431);
    assert_eq!(site.put("/kv/k", &vec![0; 90 << 10]).status, 204);
    let full = site.put("/kv/k", &vec![0; 110 << 10]);
    assert_eq!((full.status, full.problem()), (503, "buffers_full".to_owned()));
    assert_eq!(full.header("retry-after"), Some("1"));
    // What is too large by its own account is not asked for.
    let mut line = Line::open(site.address());
    line.write(
        b"PUT /kv/k HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 999999\r\n\r\n",
    );
    assert_eq!(line.answer("PUT").unwrap().problem(), "too_large");
    let mut line = Line::open(site.address());
    line.write(b"PUT /kv/k HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n");
    assert_eq!(line.answer("PUT").unwrap().status, 100);
    line.write(b"v");
    assert_eq!(line.answer("PUT").unwrap().status, 204);
    let mut line = Line::open(site.address());
    line.write(b"PUT /kv/c HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n");
    assert_eq!(line.answer("PUT").unwrap().status, 204);
    assert_eq!(site.get("/kv/c").text(), "abc");
    site.stop();
}

#[test]
fn a_peer_that_takes_nothing_of_its_answer_is_cut_off() {
    let site = Site::with(Rig::with_shards(1), |config| {
        config.limits.connections_max = 1;
        config.limits.stall_ms_max = 100;
    });
    while site.put("/kv/k", &vec![7; 200 << 10]).status != 204 {
        // The connection before it may not be over yet.
        std::thread::sleep(LOOK_DELAY);
    }
    // Asks for more than sockets hold, and reads the first answer only.
    let deaf = loop {
        let mut line = Line::open(site.address());
        line.try_write(&request("GET", "/kv/k", &[], b"").repeat(200));
        if line.answer("GET").is_some_and(|answer| answer.status == 200) {
            break line;
        }
    };
    let begun = Instant::now();
    while site.get("/version").status != 200 {
        assert!(begun.elapsed() < PATIENCE, "the only connection is never given back");
        std::thread::sleep(LOOK_DELAY);
    }
    drop(deaf);
    site.stop();
}
