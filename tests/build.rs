//! Does nothing. Because it is there, cargo tells this crate in `OUT_DIR` which directory it builds
//! into, which is where the binary that the tests run is.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
}
