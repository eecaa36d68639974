//! One value: what is written is read, and conditions decide.

use crate::site::Site;

#[test]
fn a_value_is_written_read_and_removed() {
    let site = Site::start();
    assert_eq!(site.get("/kv/hello").problem(), "no_such_key");
    let put = site.put("/kv/hello", b"world");
    assert_eq!((put.status, put.body.len()), (204, 0));
    let tag = put.header("etag").expect("a tag").to_owned();
    let got = site.get("/kv/hello");
    assert_eq!((got.status, got.text()), (200, "world"));
    assert_eq!(got.header("etag"), Some(&tag[..]));
    assert_eq!(got.header("content-type"), Some("application/octet-stream"));
    assert_eq!(got.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(got.header("pinion-ttl"), None);
    let date = got.header("last-modified").expect("a date");
    let modified = httpdate(date);
    let now = std::time::SystemTime::now();
    assert!(now.duration_since(modified).is_ok_and(|age| age.as_secs() < 120), "{date}");

    let head = site.send("HEAD", "/kv/hello", &[], b"");
    assert_eq!((head.status, head.header("content-length")), (200, Some("5")));
    assert_eq!(head.header("etag"), Some(&tag[..]));
    assert_eq!(site.send("HEAD", "/kv/nothing", &[], b"").status, 404);

    // Every byte, slashes, and names that would be other addresses.
    let all: Vec<u8> = (0..=255).collect();
    let key: String = all.iter().map(|byte| format!("%{byte:02X}")).collect();
    assert_eq!(site.put(&format!("/kv/{key}"), &all).status, 204);
    assert_eq!(site.get(&format!("/kv/{key}")).body, all);
    assert_eq!(site.server.client().get(&all).expect("a get").as_deref(), Some(&all[..]));
    for key in ["a/b/c", "/", "//x", "%2F..", "kv:batch", "a?ttl=30s", "{tag}x", ""] {
        let put = site.put(&format!("/kv/{key}"), key.as_bytes());
        assert_eq!(put.status, if key.is_empty() { 404 } else { 204 }, "{key}");
    }
    assert_eq!(site.server.client().get("a/b/c").expect("a get").as_deref(), Some(&b"a/b/c"[..]));
    assert_eq!(site.put("/kv/%zz", b"").problem(), "bad_encoding");
    assert_eq!(site.put("/kv/empty", b"").status, 204);
    assert_eq!(site.get("/kv/empty").header("content-length"), Some("0"));

    assert_eq!(site.send("DELETE", "/kv/hello", &[], b"").status, 204);
    assert_eq!(site.send("DELETE", "/kv/hello", &[], b"").status, 204);
    assert_eq!(site.get("/kv/hello").status, 404);
    site.stop();
}

#[test]
fn lives_and_namespaces_and_durability_are_chosen() {
    let site = Site::start();
    let put = site.put("/kv/k?ttl=90s&durability=buffered", b"v");
    let left: f64 = put.header("pinion-ttl").expect("a ttl").parse().expect("seconds");
    assert!((80.0..=90.0).contains(&left), "{left}");
    assert!(site.get("/kv/k").header("pinion-ttl").is_some());
    assert_eq!(site.put("/kv/k?ttl=never", b"v").header("pinion-ttl"), None);
    // A value whose time is over is gone.
    assert_eq!(site.put("/kv/short?ttl=1ms", b"v").status, 204);
    while site.get("/kv/short").status != 404 {
        std::thread::sleep(crate::site::LOOK_DELAY);
    }
    for bad in ["ttl=soon", "tll=1", "ttl=0", "durability=none", "ns=a%20b", "ttl=1&ttl=2"] {
        assert_eq!(site.put(&format!("/kv/k?{bad}"), b"v").status, 400, "{bad}");
    }

    assert_eq!(site.get("/kv/k?ns=other").problem(), "no_such_namespace");
    assert_eq!(site.send("PUT", "/namespaces/other?default_ttl=1h", &[], b"").status, 201);
    assert_eq!(site.get("/kv/k?ns=other").problem(), "no_such_key");
    assert_eq!(site.put("/kv/k?ns=other", b"there").status, 204);
    assert_eq!(site.get("/kv/k?ns=other").text(), "there");
    assert!(site.get("/kv/k?ns=other").header("pinion-ttl").is_some(), "the namespace's");
    assert_eq!(site.get("/kv/k").text(), "v");
    assert_eq!(site.send("PUT", "/namespaces/other", &[], b"").status, 204);
    let list = site.get("/namespaces").json();
    let names: Vec<&str> =
        list["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["default", "other"]);
    assert_eq!(site.send("DELETE", "/namespaces/other", &[], b"").status, 204);
    assert_eq!(site.send("DELETE", "/namespaces/other", &[], b"").problem(), "no_such_namespace");
    assert_eq!(site.send("PUT", "/namespaces/a%2Fb", &[], b"").problem(), "bad_namespace");
    // One that was made again under its name is another.
    assert_eq!(site.send("PUT", "/namespaces/other", &[], b"").status, 201);
    assert_eq!(site.get("/kv/k?ns=other").problem(), "no_such_key");
    site.stop();
}

#[test]
fn conditions_decide_in_one_step() {
    let site = Site::start();
    let put = |headers: &[(&str, &str)], value: &str| site.send("PUT", "/kv/k", headers, value.as_bytes());
    let created = put(&[("if-none-match", "*")], "1");
    assert_eq!(created.status, 201);
    let first = created.header("etag").expect("a tag").to_owned();
    let again = put(&[("if-none-match", "*")], "2");
    assert_eq!(again.problem(), "condition_failed");
    assert_eq!(again.json()["version"], first.trim_matches('"'));
    let second = put(&[("if-match", &first)], "2").header("etag").expect("a tag").to_owned();
    assert_eq!(put(&[("if-match", &first)], "3").status, 412);
    assert_eq!(put(&[("if-match", "\"x\"")], "3").status, 412);
    assert_eq!(put(&[("if-match", &format!("W/{second}"))], "3").status, 412, "weak tags prove nothing");
    assert_eq!(put(&[("if-match", &format!("\"x\", {second}"))], "3").status, 204);
    assert_eq!(put(&[("if-match", "*")], "4").status, 204);
    for bad in [("if-match", "x"), ("if-none-match", &second), ("if-unmodified-since", "now")] {
        assert_eq!(put(&[bad], "5").problem(), "bad_condition", "{bad:?}");
    }

    let get = |headers: &[(&str, &str)]| site.send("GET", "/kv/k", headers, b"");
    let whole = get(&[]);
    let tag = whole.header("etag").expect("a tag").to_owned();
    assert_eq!(whole.text(), "4");
    let known = get(&[("if-none-match", &format!("W/{tag}"))]);
    assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, Some(&tag[..])));
    let date = whole.header("last-modified").expect("a date").to_owned();
    assert_eq!(get(&[("if-modified-since", &date)]).status, 304);
    assert_eq!(get(&[("if-match", &second)]).status, 412);
    assert_eq!(site.send("HEAD", "/kv/k", &[("if-none-match", &tag)], b"").status, 304);

    let delete = |headers: &[(&str, &str)]| site.send("DELETE", "/kv/k", headers, b"");
    assert_eq!(delete(&[("if-match", &second)]).status, 412);
    assert_eq!(delete(&[("if-match", &tag)]).status, 204);
    let absent = delete(&[("if-match", "*")]);
    assert_eq!((absent.status, &absent.json()["version"]), (412, &serde_json::Value::Null));
    site.stop();
}

#[test]
fn values_travel_as_json_where_their_type_says_so() {
    let site = Site::start();
    let json = [("content-type", "application/json; charset=utf-8")];
    let put = |text: &str| site.send("PUT", "/kv/k", &json, text.as_bytes());
    assert_eq!(put(r#"{"value":"gr\u00fcn","ttl":60}"#).status, 204);
    assert_eq!(site.get("/kv/k").text(), "gr\u{fc}n");
    let accept = [("accept", "text/html, application/json")];
    let got = site.send("GET", "/kv/k", &accept, b"");
    assert_eq!(got.header("content-type"), Some("application/json"));
    let document = got.json();
    assert_eq!((&document["key"], &document["value"]), (&"k".into(), &"gr\u{fc}n".into()));
    assert!(document["ttl"].as_f64().is_some_and(|left| left > 0.0 && left <= 60.0));
    assert_eq!(put(r#"{"value_b64":"/w=="}"#).status, 204);
    assert_eq!(site.get("/kv/k").body, b"\xff");
    assert_eq!(site.send("GET", "/kv/k", &accept, b"").json()["value_b64"], "/w==");
    for bad in [r#"{"value":1}"#, r#"{"val":"x"}"#, "x", r#"{"value":"x","ttl":"x"}"#] {
        assert_eq!(put(bad).problem(), "bad_json", "{bad}");
    }
    let twice = site.send("PUT", "/kv/k?ttl=1s", &json, br#"{"value":"x","ttl":1}"#);
    assert_eq!(twice.problem(), "bad_parameter");
    site.stop();
}

#[test]
fn sizes_are_judged_before_anything_is_sent() {
    let site = Site::start();
    let limit = 256 << 10;
    assert_eq!(site.put("/kv/k", &vec![7; limit]).status, 204);
    assert_eq!(site.get("/kv/k").body.len(), limit);
    assert_eq!(site.put("/kv/k", &vec![7; limit + 1]).problem(), "too_large");
    let value = "x".repeat(limit + 1);
    let document = format!("{{\"value\":\"{value}\"}}");
    let answer = site.send("PUT", "/kv/k", &[("content-type", "application/json")], document.as_bytes());
    assert_eq!((answer.status, answer.problem()), (413, "too_large".to_owned()));
    assert_eq!(site.put(&format!("/kv/{}", "k".repeat(4_096)), b"v").status, 204);
    assert_eq!(site.put(&format!("/kv/{}", "k".repeat(4_097)), b"v").status, 413);
    assert_eq!(site.get(&format!("/kv/{}", "%00".repeat(4_096))).status, 404);
    site.stop();
}

/// The time of a date as HTTP writes it, which is all that is read here.
fn httpdate(text: &str) -> std::time::SystemTime {
    httpdate::parse_http_date(text).unwrap_or_else(|_| panic!("{text} is no date"))
}
