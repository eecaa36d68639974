//! Where the `pinion` binary is: built by the cargo that runs the tests, for the same profile.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Names a binary to use instead of building one.
const BINARY_VARIABLE: &str = "PINION_TEST_BINARY";

/// The binary, built at the first call if anything has changed.
///
/// # Panics
/// When it cannot be built.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os(BINARY_VARIABLE) {
        Some(path) => path.into(),
        None => build(),
    })
}

/// The directory cargo builds into.
///
/// # Panics
/// When this is not a test that cargo has built.
pub(super) fn target_directory() -> PathBuf {
    profile_directory().parent().expect("profiles lie in the target directory").to_owned()
}

/// `target/<profile>`, from this program's own place, `target/<profile>/deps/<test>`.
fn profile_directory() -> PathBuf {
    let test = std::env::current_exe().expect("Linux tells where a program is");
    let deps = test.ancestors().find(|dir| dir.ends_with("deps")).expect("cargo builds tests into deps");
    deps.parent().expect("deps lies in the profile's directory").to_owned()
}

fn build() -> PathBuf {
    let directory = profile_directory();
    let name = directory.file_name().and_then(|name| name.to_str()).expect("profiles have plain names");
    let profile = if name == "debug" { "dev" } else { name };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let built = Command::new(cargo)
        // The whole workspace, so that dependencies have the features they were built with for
        // `cargo test --workspace` and are not built again.
        .args(["build", "--quiet", "--workspace", "--bin", "pinion", "--profile", profile])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .arg("--target-dir")
        .arg(target_directory())
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "pinion was not built: {}", String::from_utf8_lossy(&built.stderr));
    directory.join("pinion")
}
