//! The plain Python client, written from PROTOCOL.md alone, against a real server.

use std::path::Path;
use std::process::Command;

use pinion_tests::process::Rig;

#[test]
fn the_plain_python_client_puts_gets_and_scans() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/pinion_client.py");
    if !Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success()) {
        println!("skipped: there is no python3");
        return;
    }
    let rig = Rig::new();
    let server = rig.start();
    server.client().put("selftest/stays", "as it is").expect("a put is acknowledged");
    let output = Command::new("python3").arg(&script).args([server.address(), "selftest"]).output();
    let output = output.expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stdout.starts_with(b"ok "), "{}", String::from_utf8_lossy(&output.stdout));
    server.stop();
}
