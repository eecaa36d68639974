//! Batches: every item has its result, in its order.

use pinion_tests::process::Rig;
use serde_json::{Value, json};

use crate::site::Site;

const NDJSON: [(&str, &str); 1] = [("content-type", "application/x-ndjson")];
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

#[test]
fn items_take_effect_in_their_order() {
    let site = Site::start();
    let batch = [
        json!({"op": "get", "key": "a"}),
        json!({"op": "put", "key": "a", "value": "1"}),
        json!({"op": "put", "key": "b", "value_b64": "/w==", "ttl": "1h"}),
        json!({"op": "get", "key": "a"}),
        json!({"op": "get", "key": "b"}),
        json!({"op": "delete", "key": "a"}),
        json!({"op": "get", "key": "a"}),
    ];
    let text: String = batch.iter().map(|item| format!("{item}\n")).collect();
    let answer = site.send("POST", "/kv:batch", &NDJSON, text.as_bytes());
    assert_eq!((answer.status, answer.header("content-type")), (200, Some(NDJSON[0].1)));
    let results = lines(answer.text());
    let statuses: Vec<u64> = results.iter().map(|result| result["status"].as_u64().unwrap()).collect();
    assert_eq!(statuses, [404, 204, 204, 200, 200, 204, 404]);
    assert_eq!((&results[3]["value"], &results[4]["value_b64"]), (&json!("1"), &json!("/w==")));
    assert_eq!(results[1]["version"], results[2]["version"], "neighbouring writes have one stamp");
    assert_eq!(results[1]["version"], results[3]["version"]);
    assert!(results[4]["ttl"].as_f64().is_some_and(|left| left > 3_000.0));

    let list = json!({"items": batch}).to_string();
    let answer = site.send("POST", "/kv:batch", &JSON, list.as_bytes());
    let items = answer.json()["items"].as_array().unwrap().clone();
    assert_eq!(items.len(), 7);
    assert_eq!((&items[0]["key"], &items[6]["status"]), (&json!("a"), &json!(404)));
    let other = [JSON[0], ("accept", "application/x-ndjson")];
    assert_eq!(lines(site.send("POST", "/kv:batch", &other, list.as_bytes()).text()).len(), 7);
    assert_eq!(site.send("POST", "/kv:batch", &JSON, br#"{"items":[]}"#).json(), json!({"items": []}));
    site.stop();
}

#[test]
fn what_breaks_a_limit_is_refused_whole() {
    let site = Site::start();
    let good = "{\"op\":\"put\",\"key\":\"good\",\"value\":\"v\"}\n";
    let post =
        |headers: &[(&str, &str)], text: &str| site.send("POST", "/kv:batch", headers, text.as_bytes());
    assert_eq!((post(&[], good).status, post(&[("content-type", "text/plain")], good).status), (415, 415));
    for (bad, place) in [("{\"op\":\"put\",\"key\":\"x\"}", "line 2"), ("nonsense", "line 2")] {
        let answer = post(&NDJSON, &format!("{good}{bad}"));
        assert_eq!(answer.problem(), "bad_batch");
        assert!(answer.json()["detail"].as_str().unwrap().contains(place), "{answer:?}");
    }
    assert_eq!(post(&NDJSON, &format!("{good}{{\"op\":\"get\",\"key\":\"\"}}")).problem(), "bad_key");
    let large =
        format!("{good}{{\"op\":\"put\",\"key\":\"l\",\"value\":\"{}\"}}", "x".repeat((256 << 10) + 1));
    assert_eq!(post(&NDJSON, &large).status, 413);
    assert_eq!(post(&NDJSON, &good.repeat(1_025)).problem(), "bad_batch");
    assert_eq!(post(&NDJSON, &"x".repeat(2 << 20)).status, 413, "the body itself");
    assert_eq!(site.get("/kv/good").status, 404, "nothing was done");
    assert_eq!(post(&NDJSON, &good.repeat(1_024)).status, 200);
    site.stop();
}

#[test]
fn a_full_answer_says_what_was_not_read() {
    let site = Site::start();
    for key in 0..12 {
        assert_eq!(site.put(&format!("/kv/{key}"), &vec![b'x'; 200 << 10]).status, 204);
    }
    let text: String = (0..60).map(|key| format!("{{\"op\":\"get\",\"key\":\"{}\"}}\n", key % 12)).collect();
    let results = lines(site.send("POST", "/kv:batch", &NDJSON, text.as_bytes()).text());
    assert_eq!(results.len(), 60);
    let read = results.iter().take_while(|result| result["status"] == 200).count();
    assert!((6..60).contains(&read), "{read}");
    assert!(results[read..].iter().all(|result| result["problem"]["code"] == "too_large"));
    site.stop();
}

#[test]
fn what_is_parsed_is_paid_for() {
    let site = Site::with(Rig::with_shards(1), |config| {
        config.limits.buffer_bytes_max = 100 << 10;
    });
    let post = |bytes: usize| {
        let item = json!({"op": "put", "key": "k", "value": "x".repeat(bytes)}).to_string();
        site.send("POST", "/kv:batch", &NDJSON, item.as_bytes())
    };
    // There is room for the text, and not for the text and what it says.
    let full = post(60 << 10);
    assert_eq!((full.status, full.problem()), (503, "buffers_full".to_owned()));
    assert_eq!(site.get("/kv/k").status, 404, "nothing was done");
    assert_eq!(post(40 << 10).status, 200);
    assert_eq!(site.get("/kv/k").body.len(), 40 << 10);
    site.stop();
}
