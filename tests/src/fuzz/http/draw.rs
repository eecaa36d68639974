//! Requests near to what means something: good parts, odd parts, and parts of something else.

use crate::fuzz::mutate::number;
use crate::world::Random;

/// Pieces that mutations take from.
pub const BROAD: &[u8] =
    b"%2f%00%ff%zz?ns=nowhere&ttl=1d&cursor=azE&limit=0\r\nif-match: *\r\n\r\n{\"op\":\"put\"\
    ,\"key_b64\":\"/w==\",\"value\":\"\\u0000\",\"ttl\":1e9}\n[[[[{\"items\":[null,";

/// Longest key of odd parts that is drawn, as it is written.
const KEY_BYTES_MAX: u64 = 4_200;

/// Addresses without a part that varies.
const FIXED: &[&str] = &[
    "/",
    "/version",
    "/namespaces",
    "/openapi.json",
    "/metrics",
    "/healthz",
    "/livez",
    "/readyz",
    "/admin/v1/status",
    "/admin/v1/slowlog",
    "/admin/v1/hotkeys",
    "/admin/v1/clients",
];

/// Appends the text of a request.
pub fn draw(random: &mut Random, out: &mut Vec<u8>) {
    let (method, path) = address(random);
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(path.as_bytes());
    query(random, method, &path, out);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let as_lines = random.one_in(2);
    headers(random, method, as_lines, out);
    out.extend_from_slice(b"\r\n");
    if matches!(method, "PUT" | "POST") || random.one_in(16) {
        body(random, method, as_lines, out);
    }
}

fn one<'a>(random: &mut Random, of: &[&'a str]) -> &'a str {
    of[random.below(of.len() as u64) as usize]
}

fn address(random: &mut Random) -> (&'static str, String) {
    let (method, path) = match random.below(16) {
        0..8 => (one(random, &["GET", "HEAD", "PUT", "PUT", "DELETE"]), format!("/kv/{}", key(random))),
        8..10 => ("GET", "/kv".to_owned()),
        10..13 => ("POST", "/kv:batch".to_owned()),
        13 => {
            let name = one(random, &["n", "n%20", "default", "%6e", "", "N.1-_", "caf%c3%a9"]);
            (one(random, &["PUT", "DELETE", "GET"]), format!("/namespaces/{name}"))
        }
        14 => ("GET", one(random, FIXED).to_owned()),
        _ => {
            let odd =
                ["/kv/", "//kv", "/kv%2fk", "/admin/v1", "*", "http://[::1]:1/kv/k", "/KV", "/healthz/"];
            ("GET", one(random, &odd).to_owned())
        }
    };
    if random.one_in(24) {
        return (one(random, &["PATCH", "OPTIONS", "POST", "TRACE", "QUERY"]), path);
    }
    (method, path)
}

/// A key as it stands in an address.
fn key(random: &mut Random) -> String {
    let length = match random.below(16) {
        0 => random.below(KEY_BYTES_MAX),
        // At the limit, and without anything else that is wrong.
        1 => return "k".repeat(4_000 + random.below(200) as usize),
        _ => 1 + random.below(6),
    };
    let mut text = String::new();
    for _ in 0..length {
        match random.below(12) {
            0 => text.push_str(&format!("%{:02x}", random.word() as u8)),
            1 => text.push(['/', '+', ';', '%'][random.below(4) as usize]),
            _ => text.push(char::from(b'a' + random.below(4) as u8)),
        }
    }
    text
}

/// Parameters, mostly of those that the address takes.
///
/// Most writes do not wait for the disk: that would be most of the time that all of this takes.
fn query(random: &mut Random, method: &str, path: &str, out: &mut Vec<u8>) {
    const ALL: &[&str] =
        &["ns", "ttl", "durability", "limit", "prefix", "start", "end", "cursor", "keys_only", "x"];
    let is_write = matches!(method, "PUT" | "POST" | "DELETE");
    let known: &[&str] = match path {
        "/kv" => &["ns", "limit", "limit", "limit", "prefix", "start", "end", "cursor", "keys_only"],
        _ if path.starts_with("/namespaces/") => &["default_ttl"],
        _ if !path.starts_with("/kv") => ALL,
        _ if method == "PUT" => &["ns", "ttl", "ttl"],
        _ => &["ns"],
    };
    let mut sign = b'?';
    if is_write && path.starts_with("/kv") && !random.one_in(16) {
        out.extend_from_slice(b"?durability=buffered");
        sign = b'&';
    }
    for _ in 0..random.below(8).saturating_sub(4) {
        let names = if random.one_in(12) { ALL } else { known };
        let name = one(random, names);
        out.push(sign);
        out.extend_from_slice(name.as_bytes());
        sign = b'&';
        let value: String = match name {
            _ if random.one_in(8) => key(random).chars().take(40).collect(),
            "ns" => one(random, &["default", "n", "nowhere", "a/b", ""]).into(),
            "ttl" | "default_ttl" => time(random),
            "durability" => one(random, &["sync", "buffered", "fast"]).into(),
            "limit" if random.one_in(4) => number(random, 100).to_string(),
            "limit" => (1 + random.below(20)).to_string(),
            "cursor" => one(random, &["azFr", "azE", "azFhYg", "aw", "azF", "====", "%61zFr"]).into(),
            "keys_only" => one(random, &["true", "false", "", "1"]).into(),
            _ => key(random).chars().take(40).collect(),
        };
        if !random.one_in(16) {
            out.push(b'=');
            out.extend_from_slice(value.as_bytes());
        }
    }
}

fn time(random: &mut Random) -> String {
    let number = match random.below(4) {
        0 => number(random, 30).to_string(),
        1 => format!("{}.{}", random.below(100), random.below(1_000)),
        _ => (1 + random.below(100)).to_string(),
    };
    number + one(random, &["s", "ms", "", "h", "d", "m", "w", "e9", "never"])
}

fn headers(random: &mut Random, method: &str, as_lines: bool, out: &mut Vec<u8>) {
    let mut put = |name: &str, value: &str| out.extend(format!("{name}: {value}\r\n").bytes());
    let hosts = [
        "localhost",
        "127.0.0.1:7601",
        "[::1]",
        "pinion.example:80",
        "PINION.example.",
        "evil.example",
        "[",
        "",
    ];
    put("host", hosts[if random.one_in(8) { random.below(8) } else { random.below(5) } as usize]);
    if method == "POST" && !random.one_in(16) {
        let as_json = ["application/json", "Application/JSON; charset=utf-8"];
        put("content-type", if as_lines { "application/x-ndjson" } else { one(random, &as_json) });
    } else if random.one_in(6) {
        put("content-type", one(random, &["application/json", "text/plain", ",", "application/json,x"]));
    }
    if random.one_in(5) {
        let accepted =
            ["application/json", "application/x-ndjson", "*/*", "text/html, application/json;q=0.1", ",;"];
        put("accept", one(random, &accepted));
    }
    for name in ["if-match", "if-none-match"] {
        if random.one_in(8) {
            put(name, &tags(random));
        }
    }
    if random.one_in(24) {
        let dates = ["Sun, 06 Nov 1994 08:49:37 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "yesterday", "\u{e9}"];
        put(one(random, &["if-modified-since", "if-unmodified-since"]), one(random, &dates));
    }
    if random.one_in(8) {
        put("x-request-id", one(random, &["a-1", "a b", "\u{e9}", "", &"x".repeat(65)]));
    }
    if random.one_in(8) {
        let parents = [
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "-",
        ];
        put("traceparent", one(random, &parents));
    }
}

fn tags(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..1 + random.below(3) {
        let version = format!("\"{:016x}{:016x}\"", random.word(), random.word());
        let tag = [&version, "*", "W/", "\"x\"", ",", "\"", "w/\"a\""][random.below(7) as usize];
        text.push_str(tag);
        text.push_str(one(random, &["", ", ", " "]));
    }
    text
}

fn body(random: &mut Random, method: &str, as_lines: bool, out: &mut Vec<u8>) {
    match random.below(8) {
        0 => out.extend((0..random.below(200)).map(|_| random.word() as u8)),
        1 if random.one_in(16) => {
            // A little more than a value or a batch may be.
            let length = number(random, 256 << 10) % (270 << 10);
            out.resize(out.len() + length as usize, b'[');
        }
        2 => document(random, out),
        _ if method == "PUT" => document(random, out),
        _ if as_lines => lines(random, out),
        _ => {
            out.extend_from_slice(b"{\"items\":[");
            for at in 0..random.below(6) {
                if at > 0 {
                    out.push(b',');
                }
                item(random, out);
            }
            out.extend_from_slice(one(random, &["]}", "]}", "],\"x\":1}", "", "]} "]).as_bytes());
        }
    }
}

fn lines(random: &mut Random, out: &mut Vec<u8>) {
    let count = if random.one_in(64) { 1_000 + random.below(30) } else { random.below(6) };
    for _ in 0..count {
        item(random, out);
        out.extend_from_slice(one(random, &["\n", "\r\n", "\n\n"]).as_bytes());
    }
}

fn item(random: &mut Random, out: &mut Vec<u8>) {
    let op = one(random, &["get", "put", "put", "delete"]);
    let mut members = vec![format!("\"op\":\"{}\"", if random.one_in(64) { "take" } else { op })];
    if !random.one_in(64) {
        members.push(text_or_base64(random, "key"));
    }
    if (op == "put") != random.one_in(64) {
        members.push(text_or_base64(random, "value"));
    }
    if op == "put" && random.one_in(8) || random.one_in(64) {
        members.push(time_member(random));
    }
    out.extend_from_slice(format!("{{{}}}", members.join(",")).as_bytes());
}

fn document(random: &mut Random, out: &mut Vec<u8>) {
    let mut members = vec![text_or_base64(random, "value")];
    if random.one_in(3) {
        members.push(time_member(random));
    }
    if random.one_in(16) {
        members.push(text_or_base64(random, "value"));
    }
    out.extend_from_slice(format!("{{{}}}", members.join(",")).as_bytes());
}

fn text_or_base64(random: &mut Random, name: &str) -> String {
    let good = ["a", "b", "\\u0000", "\\ud83d\\ude00", "\u{e9}", "\\n\\\"", "aaaa"];
    match random.below(64) {
        0 => format!("\"{name}_b64\":\"{}\"", one(random, &["", "YQ", "?"])),
        1 => format!("\"{name}\":{}", one(random, &["1", "null", "[]", "{}", "true"])),
        2 => format!("\"{name}\":\"{}\"", one(random, &["", "\\ud83d"])),
        3..16 => format!("\"{name}_b64\":\"{}\"", one(random, &["/w==", "YQ=="])),
        _ => format!("\"{name}\":\"{}\"", one(random, &good)),
    }
}

fn time_member(random: &mut Random) -> String {
    match random.below(4) {
        0 => {
            format!("\"ttl\":{}", one(random, &["1", "0", "-1", "1e400", "0.0001", "null", "[[[[]]]]", "{}"]))
        }
        _ => format!("\"ttl\":\"{}\"", time(random)),
    }
}
