//! Because it is there, cargo tells this crate in `OUT_DIR` which directory it builds into, which is
//! where the binary that the tests run is. It tells the crate how it is built: what instructions a request
//! takes depends on it.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let level = std::env::var("OPT_LEVEL").unwrap_or_default();
    println!("cargo::rustc-env=PINION_TESTS_OPT_LEVEL={level}");
    // `rustc 1.95.0 (59807616e 2026-04-14)`: the first two words.
    let compiler = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(compiler).arg("--version").output();
    let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
    let version: Vec<&str> = said.split_whitespace().take(2).collect();
    println!("cargo::rustc-env=PINION_TESTS_COMPILER={}", version.join(" "));
}
