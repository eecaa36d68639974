//! The client commands of the binary against a real server: what they print and how they end.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};

use pinion_tests::process::{Rig, Server, pinion};

fn run(server: &Server, arguments: &[&str], input: &[u8]) -> Output {
    let mut command = pinion(arguments);
    command.args(["--connect", server.address()]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the binary was built");
    child.stdin.take().expect("it is a pipe").write_all(input).expect("it is read");
    child.wait_with_output().expect("a child can be waited for")
}

#[test]
fn the_first_five_minutes_work() {
    let rig = Rig::new();
    let server = rig.start();
    assert!(run(&server, &["put", "greeting", "hello"], b"").status.success());
    let got = run(&server, &["get", "greeting"], b"");
    assert_eq!((got.status.code(), &got.stdout[..]), (Some(0), &b"hello"[..]));
    let missing = run(&server, &["get", "nothing"], b"");
    assert_eq!((missing.status.code(), &missing.stdout[..]), (Some(1), &b""[..]));
    assert!(run(&server, &["put", "bytes", "-"], &[0, 255, 10]).status.success());
    assert_eq!(run(&server, &["get", "bytes"], b"").stdout, [0, 255, 10]);
    assert!(run(&server, &["delete", "greeting"], b"").status.success());
    assert_eq!(run(&server, &["get", "greeting"], b"").status.code(), Some(1));
    let status = run(&server, &["status", "--json"], b"");
    let info: serde_json::Value = serde_json::from_slice(&status.stdout).expect("status --json is JSON");
    assert!(status.status.success() && info.is_object(), "{info}");
    server.stop();
}

#[test]
fn what_is_imported_is_exported() {
    let rig = Rig::new();
    let server = rig.start();
    let lines: Vec<String> = (0..700)
        .map(|number| {
            format!(r#"{{"key":"import/{number}","value":"line\n\"{}\"","ttl":86400}}"#, number * number)
        })
        .chain([r#"{"key_b64":"AP8=","value_b64":"/wA="}"#.to_owned()])
        .collect();
    let file = rig.beside("in.ndjson");
    fs::write(&file, lines.join("\n") + "\n").expect("the test's directory can be written");
    let path = file.to_str().expect("the path is text");
    // Safely repeatable.
    for _ in 0..2 {
        let imported = run(&server, &["import", path], b"");
        assert!(imported.status.success(), "{}", String::from_utf8_lossy(&imported.stderr));
    }
    let exported = run(&server, &["export", "-"], b"");
    assert!(exported.status.success(), "{}", String::from_utf8_lossy(&exported.stderr));
    assert_eq!(records(&exported.stdout), records(fs::read(&file).expect("it is there").as_slice()));

    // Malformed lines are counted and named, the others are loaded.
    let broken = run(&server, &["import", "-"], b"{\"key\":\"good\",\"value\":\"1\"}\nnonsense\n");
    let said = String::from_utf8_lossy(&broken.stderr).into_owned();
    assert!(broken.status.code() == Some(1) && said.contains('2'), "{said}");
    assert_eq!(run(&server, &["get", "good"], b"").stdout, b"1");
    server.stop();

    let gone = rig.start();
    let address = gone.address().to_owned();
    gone.kill();
    let output = pinion(&["get", "good", "--connect", &address, "--timeout", "200ms"]).output();
    assert_eq!(output.expect("the binary was built").status.code(), Some(3));
}

/// Key and value, as text or base64, of each line.
fn records(ndjson: &[u8]) -> BTreeMap<String, String> {
    let lines = ndjson.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let field = |record: &serde_json::Value, name: &str| {
        let found =
            [name.to_owned(), format!("{name}_b64")].into_iter().find(|name| record[name].is_string());
        found.map(|name| format!("{name} {}", record[name.as_str()])).expect("each line has it")
    };
    lines
        .map(|line| serde_json::from_slice(line).expect("each line is JSON"))
        .map(|record: serde_json::Value| (field(&record, "key"), field(&record, "value")))
        .collect()
}
