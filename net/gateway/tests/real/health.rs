//! What is told of a node that is well, away, or hanging.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use pinion_gateway::{Config, Gateway};
use pinion_tests::process::Rig;

use crate::site::{LOOK_DELAY, Site, send};

#[test]
fn a_node_that_is_away_is_waited_for() {
    // Nobody listens where nobody listens any more.
    let nowhere = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let rig = Rig::with_shards(1);
    let server = rig.start();
    let mut config = Config::new("127.0.0.1:0".parse().unwrap(), nowhere.to_string());
    let gateway = Gateway::start(config.clone()).unwrap();
    let get = |target: &str| send(gateway.address(), "GET", target, &[], b"");
    assert_eq!((get("/livez").status, get("/readyz").status, get("/healthz").status), (200, 503, 503));
    let unready = get("/readyz");
    assert!(unready.text().contains("has not answered yet"));
    assert_eq!((unready.header("retry-after"), get("/livez").header("retry-after")), (Some("1"), None));
    let refused = get("/kv/k");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.problem(), "starting");
    assert_eq!(get("/version").json()["node"], serde_json::Value::Null);
    gateway.stop_and_wait();

    // Seeds are tried in turn.
    config.seeds.push(server.address().to_owned());
    let gateway = Gateway::start(config).unwrap();
    let get = |target: &str| send(gateway.address(), "GET", target, &[], b"");
    while get("/readyz").status != 200 {
        thread::sleep(LOOK_DELAY);
    }
    assert_eq!(get("/version").json()["node"]["version"], env!("CARGO_PKG_VERSION"));
    gateway.stop_and_wait();
    server.stop();
}

#[test]
fn cores_that_hang_are_named_and_writes_in_doubt_say_so() {
    let mut site = Site::start();
    assert_eq!((site.get("/livez").status, site.get("/healthz").status), (200, 200));
    assert_eq!(site.put("/kv/k", b"v").status, 204);
    let hasty = site.another(|config| config.deadline = Duration::from_millis(300));
    let patient = std::mem::replace(&mut site.gateway, hasty);
    site.server.pause();
    let write = site.put("/kv/k", b"w");
    assert_eq!((write.status, write.problem()), (504, "deadline".to_owned()));
    assert_eq!(write.json()["outcome"], "unknown");
    let read = site.get("/kv/k");
    assert_eq!((read.status, &read.json()["outcome"]), (504, &"not_applied".into()));
    let batch = site.send(
        "POST",
        "/kv:batch",
        &[("content-type", "application/x-ndjson")],
        b"{\"op\":\"put\",\"key\":\"a\",\"value\":\"1\"}\n{\"op\":\"get\",\"key\":\"a\"}\n",
    );
    let results: Vec<serde_json::Value> =
        batch.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&results[0]["status"], &results[0]["problem"]["outcome"]), (&504.into(), &"unknown".into()));
    assert_eq!(results[1]["problem"]["outcome"], "not_applied");
    // What was seen before may be shown for a moment.
    while site.get("/livez").status == 200 {
        thread::sleep(LOOK_DELAY);
    }
    let live = site.get("/livez");
    assert_eq!(
        (live.header("retry-after"), live.header("content-type")),
        (Some("1"), Some("application/json"))
    );
    for core in ["core 0 does not answer", "core 1 does not answer"] {
        assert!(live.text().contains(core), "{live:?}");
    }
    assert_eq!((site.get("/readyz").status, site.get("/healthz").status), (503, 503));
    site.server.resume();
    while site.get("/readyz").status != 200 {
        thread::sleep(LOOK_DELAY);
    }
    let value = send(patient.address(), "GET", "/kv/k", &[], b"");
    assert!(matches!(value.text(), "v" | "w"), "one of the two that it can be");
    patient.stop_and_wait();

    let (gateway, server) = (site.gateway, site.server);
    server.kill();
    let refused = loop {
        let answer = send(gateway.address(), "PUT", "/kv/k", &[], b"x");
        // The try that meets the broken connection may be in doubt.
        if answer.status != 504 {
            break answer;
        }
    };
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    gateway.stop_and_wait();
}
