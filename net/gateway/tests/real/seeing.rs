//! Metrics, status and the console.

use std::collections::BTreeMap;
use std::process::Command;

use pinion_tests::process::{Rig, Server, temporary_directory};
use serde_json::Value;

use crate::site::{LOOK_DELAY, Site};

/// The samples of a text in Prometheus' format, which is checked on the way.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let (mut types, mut found) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a type");
            assert!(types.insert(name, kind).is_none(), "{name} comes twice");
        } else if !line.starts_with("# HELP ") {
            let (series, value) = line.rsplit_once(' ').expect("a series and a value");
            let name = series.split('{').next().unwrap_or_default();
            let family = ["_bucket", "_sum", "_count"]
                .iter()
                .filter_map(|end| name.strip_suffix(end))
                .find(|family| matches!(types.get(family), Some(&"histogram" | &"summary")))
                .unwrap_or(name);
            let kind = types.get(family).unwrap_or_else(|| panic!("{line} before its type"));
            assert_eq!(*kind == "counter", name.ends_with("_total"), "{line}");
            assert!(!name.ends_with("_ns") && !name.ends_with("_us") && !name.ends_with("_ms"), "{name}");
            let value = value.parse().unwrap_or_else(|_| panic!("no number in {line}"));
            assert!(found.insert(series.to_owned(), value).is_none(), "{series} comes twice");
        }
    }
    found
}

fn sum(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    samples.iter().filter(|(series, _)| series.split('{').next() == Some(name)).map(|(_, value)| value).sum()
}

#[test]
fn metrics_are_what_the_node_counts() {
    let site = Site::start();
    for number in 0..50 {
        assert_eq!(site.put(&format!("/kv/{number}"), b"value").status, 204);
        assert_eq!(site.get(&format!("/kv/{number}")).status, 200);
    }
    assert_eq!(site.get("/kv/nothing").status, 404);
    // What was told a moment ago may be shown once more.
    let found = loop {
        let answer = site.get("/metrics");
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let found = samples(answer.text());
        if sum(&found, "pinion_storage_gets_missing_total") == 1.0 {
            break found;
        }
        std::thread::sleep(LOOK_DELAY);
    };
    assert_eq!((found["pinion_up"], found["pinion_cores"], found["pinion_shards"]), (1.0, 2.0, 2.0));
    assert_eq!(sum(&found, "pinion_storage_writes_total"), 50.0);
    assert_eq!(sum(&found, "pinion_storage_gets_found_total"), 50.0);
    assert_eq!(found["pinion_request_duration_seconds_count{op=\"read\"}"], 51.0);
    assert_eq!(found["pinion_request_duration_seconds_bucket{op=\"read\",le=\"+Inf\"}"], 51.0);
    assert!(found["pinion_request_duration_seconds_sum{op=\"write\"}"] > 0.0);
    assert_eq!(
        sum(&found, "pinion_core_request_duration_seconds_count"),
        sum(&found, "pinion_request_duration_seconds_count")
    );
    assert_eq!(
        found["pinion_gateway_requests_total{route=\"/kv/{key}\",method=\"GET\",status=\"404\"}"],
        1.0
    );
    assert_eq!(
        found["pinion_gateway_request_duration_seconds_count{route=\"/kv/{key}\",method=\"PUT\"}"],
        50.0
    );

    // Everything that the node tells is there, whatever it comes to tell.
    let info = site.get("/admin/v1/status").json()["node"].clone();
    assert_eq!(info["version"], env!("CARGO_PKG_VERSION"));
    let shard = info["per_core"][0]["shards"][0].as_object().expect("a shard");
    for name in shard.keys().filter(|name| *name != "shard") {
        let base = name.replace("_us", "_seconds");
        let known = |series: &String| {
            let metric = series.split('{').next().unwrap_or_default();
            metric == format!("pinion_storage_{base}") || metric == format!("pinion_storage_{base}_total")
        };
        assert!(found.keys().any(known), "{name}");
    }
    for (section, prefix) in [("counters", "core"), ("runtime", "runtime")] {
        for name in info["per_core"][1][section].as_object().expect("counters").keys() {
            let base = name.replace("_ns", "_seconds");
            assert!(found.contains_key(&format!("pinion_{prefix}_{base}_total{{core=\"1\"}}")), "{name}");
        }
    }

    // What the description derives other numbers from is there.
    let document = site.get("/openapi.json").json();
    let told = document["paths"]["/metrics"]["get"]["description"].as_str().expect("a description");
    let named: Vec<_> = told
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("pinion_"))
        .collect();
    assert_eq!(named.len(), 9, "{named:?}");
    for name in named {
        assert!(found.contains_key(&format!("{name}{{core=\"0\",shard=\"0\"}}")), "{name}");
    }

    for core in 0..2 {
        for name in ["busy", "idle"] {
            assert!(
                found.contains_key(&format!("pinion_core_{name}_seconds_total{{core=\"{core}\"}}")),
                "{name}"
            );
        }
    }
    for name in ["pinion_queue_delay_seconds", "pinion_stall_seconds", "pinion_commit_duration_seconds"] {
        assert!(found.contains_key(&format!("{name}_count")), "{name}");
        assert!(found.contains_key(&format!("{name}_bucket{{le=\"+Inf\"}}")), "{name}");
        let summary = name.replace("pinion_", "pinion_core_");
        assert!(found.contains_key(&format!("{summary}_count{{core=\"1\"}}")), "{name}");
    }
    assert_eq!(
        found["pinion_commit_duration_seconds_count"],
        sum(&found, "pinion_storage_log_commits_total")
    );
    assert!(found["pinion_commit_duration_seconds_sum"] > 0.0);
    // The gateway's own looks are requests, too.
    assert!(found["pinion_listener_requests_total{listener=\"native\"}"] >= 101.0);
    assert_eq!(found["pinion_listener_requests_total{listener=\"resp\"}"], 0.0);
    assert_eq!(
        found["pinion_listener_request_duration_seconds_count{listener=\"native\",op=\"read\"}"],
        51.0
    );
    assert_eq!(found["pinion_namespace_requests_total{namespace=\"default\",op=\"read\"}"], 51.0);
    assert_eq!(found["pinion_namespace_requests_total{namespace=\"default\",op=\"write\"}"], 50.0);
    assert_eq!(
        found["pinion_namespace_request_duration_seconds_count{namespace=\"default\",op=\"write\"}"],
        50.0
    );

    let client = site.server.client();
    let before = Server::storage(&client, "writes");
    site.server.pause();
    let away = loop {
        // What was asked just before may be shown for a moment.
        let found = samples(site.get("/metrics").text());
        if found["pinion_up"] == 0.0 {
            break found;
        }
    };
    assert!(!away.contains_key("pinion_cores"));
    assert!(sum(&away, "pinion_gateway_requests_total") > 100.0);
    site.server.resume();
    assert_eq!(Server::storage(&client, "writes"), before);
    site.stop();
}

#[test]
fn what_the_node_keeps_of_operations_keys_and_clients_is_passed_on() {
    // Whatever waits for the disk is slow, and is remembered with its trace.
    let site = Site::with(Rig::new().flag("slow-us", 1), |_| {});
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    assert_eq!(site.put("/kv/h%C3%B6t", b"v").status, 204);
    assert_eq!(site.send("PUT", "/kv/traced", &[("traceparent", parent)], b"v").status, 204);
    let slow = site.get("/admin/v1/slowlog").json();
    assert_eq!(slow["threshold_us"], 1, "{slow}");
    let of = |key: &str| {
        let all = slow["slow"].as_array().expect("operations");
        all.iter().find(|operation| operation["key"] == key).unwrap_or_else(|| panic!("no {key} in {slow}"))
    };
    assert_eq!((&of("traced")["trace"], &of("traced")["operation"]), (&parent.into(), &"put".into()));
    assert_eq!((&of("h\\xc3\\xb6t")["trace"], &of("h\\xc3\\xb6t")["key_bytes"]), (&Value::Null, &4.into()));
    let hot = site.get("/admin/v1/hotkeys").json();
    assert!(hot["hot"].is_array() && hot["sampled_one_in"].is_u64(), "{hot}");
    let clients = site.get("/admin/v1/clients").json();
    let ours = clients["clients"].as_array().expect("clients").iter();
    let ours: Vec<_> = ours.filter(|client| client["protocol"] == "native").collect();
    assert!(
        ours.iter().any(|client| client["name"].as_str().is_some_and(|name| name.contains("gateway"))),
        "{clients}"
    );
    for document in [slow, hot, clients] {
        assert!(document["time_ms"].as_u64() > Some(1_600_000_000_000), "{document}");
    }
    site.stop();
}

#[test]
fn traces_come_back_in_their_form() {
    let site = Site::with(Rig::with_shards(1), |_| {});
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    for (method, target) in [("PUT", "/kv/k"), ("GET", "/kv/k"), ("GET", "/nowhere"), ("DELETE", "/kv/k")] {
        let answer = site.send(method, target, &[("traceparent", parent)], b"");
        assert_eq!(answer.header("traceparent"), Some(parent), "{method} {target}");
        assert!(answer.header("x-request-id").is_some());
    }
    assert_eq!(site.send("PUT", "/kv/k", &[("traceparent", &parent[1..])], b"v").header("traceparent"), None);
    assert_eq!(site.get("/kv/k").header("traceparent"), None);
    site.stop();
}

#[test]
fn the_console_shows_the_node_in_a_browser() {
    let site = Site::with(Rig::new().flag("slow-us", 1), |_| {});
    let page = site.get("/");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.starts_with("default-src 'none'"));
    for outside in ["src=\"http", "url(http", "@import", "<link rel=\"stylesheet\""] {
        assert!(!page.text().contains(outside), "{outside}");
    }
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let browser = names.into_iter().find(|name| Command::new(name).arg("--version").output().is_ok());
    let Some(browser) = browser else {
        println!("SKIP: the console is not looked at in a browser: none of {names:?} is installed");
        return site.stop();
    };
    for number in 0..200 {
        assert_eq!(site.put(&format!("/kv/{number}"), b"value").status, 204);
    }
    let client = site.server.client();
    for _ in 0..20_000 {
        client.get("the<hot>key").expect("a get");
    }
    let profile = temporary_directory();
    let run = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--dump-dom"])
        .args(["--enable-logging=stderr", "--virtual-time-budget=8000", "--window-size=1280,1600"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg(format!("http://{}/#busy", site.address()))
        .output()
        .expect("the browser runs");
    let (dom, log) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(dom.contains("data-state=\"ok\""), "the page did not get its numbers: {log}\n{dom}");
    let complaints: Vec<&str> = log.lines().filter(|line| line.contains(":CONSOLE")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
    for text in [
        "core 0",
        "core 1",
        "write amplification",
        "commit, median and p99",
        "space amplification, about",
        "row cache hits",
        "in memtables",
        "queue",
        "share of its time that a core worked",
        // The lists were had, and are shown as texts.
        "longer than",
        "one access in",
        "the&lt;hot&gt;key",
        "class=\"strip\"",
        env!("CARGO_PKG_VERSION"),
    ] {
        assert!(dom.contains(text), "{text} in {dom}");
    }
    assert!(!dom.contains("NaN") && !dom.contains("undefined") && !dom.contains("Infinity"), "{dom}");
    site.stop();
}
