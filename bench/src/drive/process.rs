//! What the system counts of this process: the same for every engine in it.

use std::fs;

/// Bytes that went to devices and came from them, as the kernel accounts them: logs, tables and
/// whatever else an engine writes, each byte as often as it was written.
pub(super) fn counters() -> Vec<(String, u64)> {
    // Kernels may be built without it.
    parse(&fs::read_to_string("/proc/self/io").unwrap_or_default())
}

fn parse(text: &str) -> Vec<(String, u64)> {
    let lines = text.lines().filter_map(|line| line.split_once(": "));
    lines
        .filter(|(name, _)| ["read_bytes", "write_bytes"].contains(name))
        .filter_map(|(name, value)| Some((format!("process.{name}"), value.trim().parse().ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_devices_are_found() {
        let text = "rchar: 4292\nwchar: 0\nread_bytes: 12\nwrite_bytes: 34\ncancelled_write_bytes: 56\n";
        let expected = [("process.read_bytes".to_owned(), 12), ("process.write_bytes".to_owned(), 34)];
        assert_eq!(parse(text), expected);
        assert_eq!(parse(""), []);
    }
}
