//! Pages of scans: in key order, every record once.

use serde_json::Value;

use crate::site::Site;

fn keys(page: &Value) -> Vec<String> {
    let items = page["items"].as_array().expect("items");
    items.iter().map(|item| item["key"].as_str().expect("a key").to_owned()).collect()
}

#[test]
fn pages_follow_each_other_in_key_order() {
    let site = Site::start();
    let client = site.server.client();
    for number in 0..250 {
        client.put(format!("user:{number:03}"), format!("v{number}")).expect("a put");
    }
    client.put("zebra", "z").expect("a put");
    let mut found = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = site.get(&format!("/kv?prefix=user:&limit=33{cursor}"));
        assert_eq!(page.status, 200, "{page:?}");
        let document = page.json();
        assert_eq!(document["cursor"].as_str(), page.header("pinion-cursor"));
        found.extend(keys(&document));
        match document["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let expected: Vec<String> = (0..250).map(|number| format!("user:{number:03}")).collect();
    assert_eq!(found, expected);

    let page = site.get("/kv?start=user:010&end=user:012").json();
    assert_eq!(keys(&page), ["user:010", "user:011"]);
    assert_eq!((&page["items"][0]["value"], &page["cursor"]), (&"v10".into(), &Value::Null));
    let page = site.get("/kv?prefix=z&keys_only=true").json();
    assert_eq!((keys(&page), page["items"][0].get("value")), (vec!["zebra".to_owned()], None));
    assert_eq!(keys(&site.get("/kv").json()).len(), 100, "the default limit");
    assert_eq!(keys(&site.get("/kv?limit=251").json()).len(), 251);
    assert_eq!(site.get("/kv?limit=251").header("pinion-cursor"), None, "all that there is");
    assert_eq!(keys(&site.get("/kv?prefix=none").json()).len(), 0);

    let page = site.send("GET", "/kv?prefix=user:&limit=2", &[("accept", "application/x-ndjson")], b"");
    assert_eq!(page.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(page.text().lines().count(), 2);
    let next = page.header("pinion-cursor").expect("a cursor");
    assert_eq!(keys(&site.get(&format!("/kv?prefix=user:&limit=1&cursor={next}")).json()), ["user:002"]);

    for (bad, code) in [
        ("limit=0", "bad_parameter"),
        ("limit=1001", "bad_parameter"),
        ("cursor=x", "bad_cursor"),
        ("reverse=true", "unknown_parameter"),
        ("ns=nowhere", "no_such_namespace"),
    ] {
        assert_eq!(site.get(&format!("/kv?{bad}")).problem(), code, "{bad}");
    }
    site.stop();
}

#[test]
fn a_page_ends_early_when_it_is_large_enough() {
    let site = Site::start();
    let client = site.server.client();
    for number in 0..20 {
        client.put([b'k', number], vec![number; 100 << 10]).expect("a put");
    }
    let (mut count, mut pages, mut cursor) = (0, 0, String::new());
    loop {
        let page = site.get(&format!("/kv?limit=1000{cursor}"));
        assert!(page.body.len() < 2 << 20);
        count += page.json()["items"].as_array().unwrap().len();
        pages += 1;
        match page.header("pinion-cursor") {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(count, 20);
    assert!(pages > 1);
    site.stop();
}
