//! `/openapi.json` says what the gateway does: every status that it lists is seen here, every method that it
//! lists is one that the router takes, and nothing is seen that it does not list.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use pinion_gateway::{Config, Gateway};
use serde_json::Value;

use crate::http::Answer;
use crate::site::{Site, send};

const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");
const GET_ITEM: &[u8] = b"{\"op\":\"get\",\"key\":\"k\"}";

/// Requests that are good, one for each operation.
const GOOD: &[(&str, &str)] = &[
    ("GET", "/kv/k"),
    ("HEAD", "/kv/k"),
    ("PUT", "/kv/k"),
    ("DELETE", "/kv/k"),
    ("GET", "/kv"),
    ("POST", "/kv:batch"),
    ("GET", "/namespaces"),
    ("PUT", "/namespaces/n"),
    ("DELETE", "/namespaces/n"),
    ("GET", "/healthz"),
    ("GET", "/livez"),
    ("GET", "/readyz"),
    ("GET", "/version"),
    ("GET", "/metrics"),
    ("GET", "/admin/v1/status"),
    ("GET", "/admin/v1/slowlog"),
    ("GET", "/admin/v1/hotkeys"),
    ("GET", "/admin/v1/clients"),
    ("GET", "/openapi.json"),
    ("GET", "/"),
];

type Operation = (String, String);

/// What was asked and answered so far.
#[derive(Default)]
struct Seen {
    statuses: RefCell<BTreeMap<Operation, BTreeSet<String>>>,
    failures: RefCell<BTreeSet<Failure>>,
}

/// An answer that is an error: to what, its status, the type of its body, and whether it says when to come again.
type Failure = (Operation, String, Option<String>, bool);

impl Seen {
    fn ask(
        &self,
        at: SocketAddr,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let answer = send(at, method, target, headers, body);
        let operation = (pattern(target).to_owned(), method.to_ascii_lowercase());
        let status = answer.status.to_string();
        if answer.status >= 400 && method != "HEAD" {
            let (kind, again) = (answer.header("content-type"), answer.header("retry-after").is_some());
            let failure = (operation.clone(), status.clone(), kind.map(str::to_owned), again);
            self.failures.borrow_mut().insert(failure);
        }
        self.statuses.borrow_mut().entry(operation).or_default().insert(status);
        answer
    }

    /// Asks and compares.
    fn expect(
        &self,
        at: SocketAddr,
        status: u16,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let answer = self.ask(at, method, target, headers, body);
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
    }

    fn all_good(&self, at: SocketAddr) {
        for (method, target) in GOOD {
            let headers = if *method == "POST" { &[NDJSON][..] } else { &[] };
            self.ask(at, method, target, headers, if *method == "POST" { GET_ITEM } else { b"" });
        }
    }
}

/// The address that a target belongs to.
fn pattern(target: &str) -> &str {
    let path = target.split('?').next().unwrap_or_default();
    match path {
        _ if path.starts_with("/kv/") => "/kv/{key}",
        _ if path.starts_with("/namespaces/") => "/namespaces/{name}",
        _ => path,
    }
}

/// Operations and their statuses, as the document has them.
fn listed(document: &Value) -> BTreeMap<Operation, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in
            methods.as_object().expect("methods").iter().filter(|(name, _)| *name != "parameters")
        {
            let statuses = operation["responses"].as_object().expect("responses").keys();
            let statuses = statuses.filter(|status| *status != "default").cloned().collect();
            found.insert((path.clone(), method.clone()), statuses);
        }
    }
    found
}

#[test]
fn the_description_and_the_gateway_agree() {
    let seen = Seen::default();
    let site = Site::start();
    let at = site.address();
    let document = seen.ask(at, "GET", "/openapi.json", &[], b"").json();
    assert_references_resolve(&document, &document);

    seen.expect(at, 201, "PUT", "/kv/k", &[("if-none-match", "*")], b"v");
    seen.expect(at, 204, "PUT", "/kv/k", &[], b"v");
    let value = seen.ask(at, "GET", "/kv/k", &[], b"");
    let tag = value.header("etag").expect("a tag").to_owned();
    let (long, large) = (format!("/kv/{}", "k".repeat(5_000)), vec![0; (256 << 10) + 1]);
    for method in ["GET", "HEAD"] {
        seen.expect(at, 200, method, "/kv/k", &[], b"");
        seen.expect(at, 304, method, "/kv/k", &[("if-none-match", &tag)], b"");
    }
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        seen.expect(at, 400, method, "/kv/k?x=y", &[], b"");
        seen.expect(at, 404, method, "/kv/k?ns=nowhere", &[], b"");
        seen.expect(at, 412, method, "/kv/k", &[("if-match", "\"x\"")], b"");
        seen.expect(at, 413, method, &long, &[], b"");
    }
    seen.expect(at, 413, "PUT", "/kv/k", &[], &large);
    seen.expect(at, 204, "DELETE", "/kv/k", &[], b"");

    seen.expect(at, 200, "GET", "/kv", &[], b"");
    seen.expect(at, 400, "GET", "/kv?limit=0", &[], b"");
    seen.expect(at, 404, "GET", "/kv?ns=nowhere", &[], b"");
    seen.expect(at, 200, "POST", "/kv:batch", &[NDJSON], GET_ITEM);
    seen.expect(at, 400, "POST", "/kv:batch", &[NDJSON], b"x");
    seen.expect(at, 415, "POST", "/kv:batch", &[], GET_ITEM);
    seen.expect(at, 413, "POST", "/kv:batch", &[NDJSON], &vec![b' '; 4 << 20]);
    // A batch that cannot find its namespace has that as the result of each of its parts.
    let parts = seen.ask(at, "POST", "/kv:batch?ns=nowhere", &[NDJSON], GET_ITEM);
    assert_eq!((parts.status, &parts.json()["status"]), (200, &404.into()));

    seen.expect(at, 200, "GET", "/namespaces", &[], b"");
    seen.expect(at, 400, "GET", "/namespaces?x=y", &[], b"");
    seen.expect(at, 201, "PUT", "/namespaces/n", &[], b"");
    seen.expect(at, 204, "PUT", "/namespaces/n?default_ttl=1h", &[], b"");
    seen.expect(at, 204, "DELETE", "/namespaces/n", &[], b"");
    seen.expect(at, 404, "DELETE", "/namespaces/n", &[], b"");
    for method in ["PUT", "DELETE"] {
        seen.expect(at, 400, method, "/namespaces/n?x=y", &[], b"");
    }
    seen.all_good(at);

    // A node that hangs, and a gateway that does not wait for it long.
    let hasty = site.another(|config| config.deadline = Duration::from_millis(500));
    site.server.pause();
    seen.all_good(hasty.address());
    for section in ["status", "slowlog", "hotkeys", "clients"] {
        // What was told just before is shown for a moment.
        while seen.ask(hasty.address(), "GET", &format!("/admin/v1/{section}"), &[], b"").status == 200 {
            std::thread::sleep(crate::site::LOOK_DELAY);
        }
    }
    site.server.resume();
    hasty.stop_and_wait();

    // A node that is not there, and a gateway that has no room for what is wide.
    let config = Config::new("127.0.0.1:0".parse().unwrap(), "127.0.0.1:1");
    let alone = Gateway::start(config).expect("a gateway");
    seen.all_good(alone.address());
    seen.expect(alone.address(), 503, "GET", "/healthz", &[], b"");
    alone.stop_and_wait();
    let narrow = site.another(|config| config.limits.wide_requests_max = 0);
    for (method, target) in [("GET", "/kv"), ("POST", "/kv:batch")] {
        seen.expect(narrow.address(), 429, method, target, &[NDJSON], GET_ITEM);
    }
    narrow.stop_and_wait();

    for ((path, method), status, kind, again) in seen.failures.into_inner() {
        let described = &document["paths"][&path][&method]["responses"][&status];
        let reference = described["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        let described = reference.map_or(described, |pointer| document.pointer(pointer).expect("resolves"));
        let kinds: Vec<&str> =
            described["content"].as_object().into_iter().flatten().map(|(kind, _)| &kind[..]).collect();
        assert_eq!(kinds, Vec::from_iter(kind.as_deref()), "{method} {path}: {status}");
        let may_say = described["headers"]["Retry-After"].is_object();
        let always = matches!(&status[..], "429" | "503");
        assert!(again && may_say || !again && !always, "{method} {path}: {status}");
    }
    let (listed, seen) = (listed(&document), seen.statuses.into_inner());
    assert_eq!(listed, seen, "what is described, and what was seen");

    // The router takes the methods that are listed, and no others.
    for path in document["paths"].as_object().expect("paths").keys() {
        let target = path.replace("{key}", "k").replace("{name}", "n");
        let answer = site.send("PATCH", &target, &[], b"");
        assert_eq!(answer.status, 405, "{target}");
        let allow = answer.header("allow").expect("what is allowed").to_ascii_lowercase();
        let mut allowed: BTreeSet<&str> = allow.split(',').map(str::trim).collect();
        let ours = listed.keys().filter(|(found, _)| found == path).map(|(_, method)| &method[..]);
        let ours: BTreeSet<&str> = ours.collect();
        if !ours.contains("head") {
            // HEAD comes with every GET.
            allowed.remove("head");
        }
        assert_eq!(allowed, ours, "{path}");
    }
    site.stop();
}

/// Every `$ref` names something that is there.
fn assert_references_resolve(part: &Value, document: &Value) {
    match part {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get("$ref") {
                let pointer = reference.strip_prefix('#').expect("a reference into the document");
                assert!(document.pointer(pointer).is_some(), "{reference}");
            }
            members.values().for_each(|part| assert_references_resolve(part, document));
        }
        Value::Array(items) => items.iter().for_each(|part| assert_references_resolve(part, document)),
        _ => {}
    }
}
