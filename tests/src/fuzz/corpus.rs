//! Inputs kept as files, by target: `tests/corpora/<target>/<name>.hex`.
//!
//! A file is hexadecimal, blanks and line ends anywhere, and may end in a comment line that begins
//! with `#` and says what it is. Text, so that a review sees what was added.

use std::fs;
use std::path::{Path, PathBuf};

/// One kept input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its file name.
    pub name: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// All inputs kept for a target, sorted by name.
///
/// # Panics
/// When the directory is missing or a file is not hexadecimal: the repository is broken.
pub fn kept(target: &str) -> Vec<Kept> {
    read_directory(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora").join(target))
}

/// The golden frames of the protocol.
///
/// # Panics
/// As [`kept`].
pub fn golden_frames() -> Vec<Kept> {
    read_directory(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../net/protocol/golden"))
}

fn read_directory(directory: &Path) -> Vec<Kept> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.expect("a directory of the repository can be read").path()).collect();
    paths.sort();
    paths
        .iter()
        .filter(|path| path.extension().is_some_and(|end| end == "hex"))
        .map(|path| read(path))
        .collect()
}

fn read(path: &Path) -> Kept {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let bytes = from_hex(&text).unwrap_or_else(|| panic!("{} is not hexadecimal", path.display()));
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Kept { name, bytes }
}

/// The bytes of a hexadecimal text.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let digits: Vec<u8> = lines.flat_map(str::bytes).filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| (byte as char).to_digit(16).map(|value| value as u8);
    let (pairs, rest) = digits.as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

/// The text of some bytes, 32 a line.
pub fn to_hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n";
    bytes.chunks(32).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hexadecimal_comes_back() {
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        assert_eq!(from_hex("# why\n0a 0B\n"), Some(vec![10, 11]));
        assert_eq!(from_hex("0"), None);
        assert_eq!(from_hex("zz"), None);
    }
}
