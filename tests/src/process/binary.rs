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
/// When cargo lays out its directory in another way.
pub(crate) fn target_directory() -> PathBuf {
    profile_directory().parent().expect("profiles lie in the target directory").to_owned()
}

/// `target/<profile>`, from where cargo put the output of this crate's build script,
/// `target/<profile>/build/<crate>/out`. Not from where the running program is: that of an example in
/// the documentation is somewhere else.
pub(crate) fn profile_directory() -> PathBuf {
    let build = Path::new(env!("OUT_DIR")).ancestors().find(|dir| dir.ends_with("build"));
    let build = build.expect("cargo runs build scripts in the directory build");
    build.parent().expect("build lies in the profile's directory").to_owned()
}

fn build() -> PathBuf {
    let directory = profile_directory();
    let name = directory.file_name().and_then(|name| name.to_str()).expect("profiles have plain names");
    let profile = if name == "debug" { "dev" } else { name };
    // By its name if this was not started by cargo: a toolchain's own path would leave the compiler to be
    // chosen anew in the directory of each crate.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        // The whole workspace with a test, so that dependencies have the features they were built with for
        // `cargo test --workspace` (those of dev-dependencies among them), and nothing is built again.
        .args(["build", "--quiet", "--workspace", "--bin", "pinion", "--test", "tidy", "--profile", profile])
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"))
        .arg("--target-dir")
        .arg(target_directory())
        .output()
        .expect("cargo runs");
    assert!(built.status.success(), "pinion was not built: {}", String::from_utf8_lossy(&built.stderr));
    directory.join("pinion")
}
