//! The rules of the repository, as a test: what the compiler and clippy cannot see.
//!
//! Every test reads the source tree that this crate was built from and lists all offenders at once.
//! Rules about code look at code only: comments and literals are blanked first. A rule that stands in
//! the way is changed here, with its reason, not worked around elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our crates a crate may depend on (architecture: "who may know whom").
const ARROWS: &[(&str, &[&str])] = &[
    ("pinion-env", &[]),
    ("pinion-protocol", &[]),
    ("pinion-runtime", &["pinion-env"]),
    ("pinion-engine", &["pinion-env"]),
    ("pinion-cluster", &["pinion-protocol"]),
    ("pinion-client", &["pinion-protocol"]),
    ("pinion-gateway", &["pinion-client"]),
    ("pinion-server", &["pinion-engine", "pinion-cluster", "pinion-protocol", "pinion-env"]),
    ("pinion-bench", &["pinion-client", "pinion-protocol", "pinion-engine", "pinion-runtime"]),
    (
        "pinion",
        &[
            "pinion-server",
            "pinion-gateway",
            "pinion-bench",
            "pinion-client",
            "pinion-engine",
            "pinion-runtime",
        ],
    ),
];

/// The crate that may depend on everything.
const TESTS_CRATE: &str = "pinion-tests";

/// Crates that only some of ours may name: crate, its path in code, where.
const RESERVED: &[(&str, &str, &[&str])] = &[
    ("glommio", "glommio::", &["engine/runtime/"]),
    ("io-uring", "io_uring::", &["engine/runtime/", "bench/"]),
];

/// Files and directories that may hold unsafe code: the ring, the bare programs that measure what
/// the machine can do, one instruction, and buffers that share a mapping.
const UNSAFE_PLACES: &[&str] =
    &["engine/runtime/", "bench/src/", "engine/env/src/prefetch.rs", "engine/env/src/pages.rs"];

/// Code that has no place here, whatever lints say.
const BANNED: &[&str] = &["#[allow(", "#![allow(", "todo!", "unimplemented!", "dbg!"];

/// Longest source file, in lines.
const FILE_LINES_MAX: usize = 700;

/// Most dependencies that one comment may give the reason of.
const BLOCK_DEPENDENCIES_MAX: usize = 5;

/// Directories that hold nothing written by us.
const SKIPPED: &[&str] = &["target", ".git", "pinion-data", "node_modules"];

#[test]
fn crates_know_only_whom_they_may() {
    let mut offenders = Vec::new();
    for (path, manifest) in manifests() {
        let name = value_of(&manifest, "[package]", "name").expect("every member is a package");
        let allowed = ARROWS.iter().find(|(known, _)| *known == name).map(|(_, allowed)| *allowed);
        if allowed.is_none() && name != TESTS_CRATE {
            offenders.push(format!("{path}: {name} has no place in the list of arrows"));
        }
        // Not those of tests: they may look at anything.
        let all = dependencies(&manifest, |title| !title.contains("dev-dependencies"));
        for dependency in all.into_iter().filter(|found| is_ours(found)) {
            if allowed.is_some_and(|allowed| !allowed.contains(&dependency.as_str())) {
                offenders.push(format!("{path}: {name} -> {dependency}"));
            }
        }
        if value_of(&manifest, "[lints]", "workspace").is_none() {
            offenders.push(format!("{path}: does not take the workspace's lints"));
        }
    }
    report("crate arrows", offenders);
}

#[test]
fn glommio_and_io_uring_stay_in_their_rooms() {
    let mut offenders = Vec::new();
    let may = |path: &str, rooms: &[&str]| rooms.iter().any(|room| path.starts_with(room));
    for (path, manifest) in manifests() {
        let all = dependencies(&manifest, |_| true);
        for (name, _, rooms) in RESERVED.iter().filter(|(_, _, rooms)| !may(&path, rooms)) {
            if all.iter().any(|dependency| dependency == name) {
                offenders.push(format!("{path}: {name} belongs to {rooms:?}"));
            }
        }
    }
    for (path, text) in rust_files() {
        for (number, line) in code_lines(&text) {
            for (name, used, rooms) in RESERVED.iter().filter(|(_, _, rooms)| !may(&path, rooms)) {
                if contains_word(&line, used) {
                    offenders.push(format!("{path}:{number}: {name} belongs to {rooms:?}"));
                }
            }
        }
    }
    report("reserved crates", offenders);
}

#[test]
fn banned_code_and_stray_unsafe_are_absent() {
    let mut offenders = Vec::new();
    for (path, text) in rust_files() {
        let may_be_unsafe = UNSAFE_PLACES.iter().any(|place| path.starts_with(place));
        for (number, line) in code_lines(&text) {
            for banned in BANNED.iter().filter(|banned| contains_word(&line, banned)) {
                offenders.push(format!("{path}:{number}: {banned}"));
            }
            if !may_be_unsafe && line.split(|c: char| !is_word(c)).any(|word| word == "unsafe") {
                offenders.push(format!("{path}:{number}: unsafe outside of {UNSAFE_PLACES:?}"));
            }
        }
    }
    report("banned code", offenders);
}

#[test]
fn files_are_short_and_say_what_they_are() {
    let mut offenders = Vec::new();
    for (path, text) in rust_files() {
        let lines = text.lines().count();
        if lines > FILE_LINES_MAX {
            offenders.push(format!("{path}: {lines} lines, at most {FILE_LINES_MAX}"));
        }
        if !text.starts_with("//!") {
            offenders.push(format!("{path}: does not open with //!"));
        }
    }
    report("source files", offenders);
}

#[test]
fn text_has_no_tabs_and_no_trailing_blanks() {
    let mut offenders = Vec::new();
    for (path, text) in files(is_text) {
        for (line, number) in text.split('\n').zip(1..) {
            if line.contains('\t') {
                offenders.push(format!("{path}:{number}: a tab"));
            }
            if line.ends_with([' ', '\r']) {
                offenders.push(format!("{path}:{number}: blanks at the end"));
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            offenders.push(format!("{path}: no newline at the end"));
        }
    }
    report("blanks", offenders);
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = read(&root().join("Cargo.toml"));
    let mut offenders = Vec::new();
    let mut covered = 0;
    let mut lines = section(&manifest, "[workspace.dependencies]");
    lines.retain(|line| !is_ours(line.split([' ', '=', '.']).next().unwrap_or_default()));
    for line in lines {
        if line.starts_with('#') {
            covered = BLOCK_DEPENDENCIES_MAX;
        } else if line.is_empty() {
            covered = 0;
        } else if key_of(&line).is_some() {
            if covered == 0 {
                offenders.push(format!("Cargo.toml: no reason above `{line}`"));
            }
            covered = covered.saturating_sub(1);
        }
    }
    // One version and one reason for each: members only refer to the workspace's list.
    for (path, manifest) in manifests() {
        let mut inside = false;
        for line in manifest.lines() {
            if line.starts_with('[') {
                inside = line.contains("dependencies");
            } else if inside && key_of(line).is_some() && !line.replace(' ', "").contains("workspace=true") {
                offenders.push(format!("{path}: `{line}` does not come from the workspace"));
            }
        }
    }
    report("dependencies", offenders);
}

#[test]
fn blanking_leaves_code_only() {
    let source = "let a = \"un\\\"safe\"; // todo!\nlet b = r#\"dbg!\"# /* x /* y */ z */; 'l: loop {}\nlet c = '\"'; d";
    let lines: Vec<String> = code_lines(source).map(|(_, line)| line).collect();
    assert_eq!(lines.len(), 3);
    for hidden in ["safe", "todo", "dbg", "x", "y", "z"] {
        assert!(lines.iter().all(|line| !line.contains(hidden)), "{hidden} in {lines:?}");
    }
    assert!(lines[0].starts_with("let a = "));
    assert!(lines[1].contains("'l: loop {}"));
    assert!(lines[2].ends_with("; d"));
    assert!(contains_word("x = dbg!(1)", "dbg!") && !contains_word("my_dbg!(1)", "dbg!"));
}

fn report(rule: &str, offenders: Vec<String>) {
    assert!(offenders.is_empty(), "{rule}: {} offenders\n  {}", offenders.len(), offenders.join("\n  "));
}

fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().expect("this crate is a directory of the workspace").to_owned()
}

/// The manifests of the members that are there: path in the repository, content.
fn manifests() -> BTreeMap<String, String> {
    let mut found = files(|path| path.ends_with("Cargo.toml"));
    let workspace = found.remove("Cargo.toml").expect("the workspace has a manifest");
    found.retain(|_, manifest| manifest.contains("[package]"));
    assert!(!found.is_empty() && workspace.contains("[workspace]"), "this is not the source tree");
    found
}

fn rust_files() -> BTreeMap<String, String> {
    files(|path| path.ends_with(".rs"))
}

fn is_text(path: &str) -> bool {
    let extensions = [".rs", ".toml", ".md", ".sh", ".py", ".yml", ".yaml"];
    extensions.iter().any(|extension| path.ends_with(extension)) || path.starts_with(".ci/")
}

/// All files that are wanted, by their path in the repository. Golden and generated data is not text.
fn files(wanted: impl Fn(&str) -> bool) -> BTreeMap<String, String> {
    let root = root();
    let mut found = BTreeMap::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        let entries = fs::read_dir(&directory).expect("the source tree can be read");
        for entry in entries.map(|entry| entry.expect("the source tree can be read")) {
            let path = entry.path();
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                if !SKIPPED.iter().any(|skipped| entry.file_name() == *skipped) {
                    directories.push(path);
                }
                continue;
            }
            let inside = path.strip_prefix(&root).expect("found below the root").to_string_lossy();
            if kind.is_file() && wanted(&inside) {
                found.insert(inside.clone().into_owned(), read(&path));
            }
        }
    }
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn is_ours(dependency: &str) -> bool {
    dependency.starts_with("pinion-")
}

/// The lines of a section, trimmed, without its title.
fn section(manifest: &str, title: &str) -> Vec<String> {
    let after = manifest.lines().skip_while(|line| line.trim() != title).skip(1);
    after.take_while(|line| !line.starts_with('[')).map(|line| line.trim().to_owned()).collect()
}

fn value_of(manifest: &str, title: &str, key: &str) -> Option<String> {
    let line = section(manifest, title).into_iter().find(|line| key_of(line) == Some(key))?;
    line.split_once('=').map(|(_, value)| value.trim().trim_matches('"').to_owned())
}

/// The key of a `key = value` or `key.part = value` line.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.split_once('=')?;
    let key = key.trim().split('.').next()?.trim_matches('"');
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (!key.is_empty() && key.chars().all(plain)).then_some(key)
}

/// The names in the dependency sections that are wanted by their title.
fn dependencies(manifest: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines().map(str::trim) {
        if let Some(title) = line.strip_prefix('[') {
            inside = title.contains("dependencies") && wanted(title);
            // [dependencies.name]
            let name = title.split_once("dependencies.").map(|(_, name)| name.trim_end_matches(']'));
            names.extend(name.filter(|_| inside).map(str::to_owned));
        } else if inside {
            names.extend(key_of(line).map(str::to_owned));
        }
    }
    names
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `wanted` is in the line and does not begin inside of a word.
fn contains_word(line: &str, wanted: &str) -> bool {
    line.match_indices(wanted).any(|(at, _)| !line[..at].ends_with(is_word))
}

/// Numbered lines of Rust with comments and the content of literals left out.
fn code_lines(source: &str) -> impl Iterator<Item = (usize, String)> {
    let code = blank(source);
    let lines: Vec<String> = code.lines().map(str::to_owned).collect();
    (1..).zip(lines)
}

fn blank(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let hidden = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_bytes(rest)
        } else if c == '"' {
            string_bytes(rest, '"')
        } else if c == 'r' && (code.ends_with('b') || !code.ends_with(is_word)) {
            raw_string_bytes(rest)
        } else if c == '\'' {
            character_bytes(rest)
        } else {
            0
        };
        if hidden == 0 {
            code.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        }
        code.push(' ');
        code.extend(rest[..hidden].chars().filter(|c| *c == '\n'));
        rest = &rest[hidden..];
    }
    code
}

/// Length of a block comment, which may hold others.
fn block_comment_bytes(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let here = &text.as_bytes()[at..];
        if here.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if here.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string_bytes(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    text.len()
}

/// Length of `r"..."`, `r#"..."#` and so on; 0 for a name that begins with r.
fn raw_string_bytes(text: &str) -> usize {
    let hashes = text[1..].bytes().take_while(|byte| *byte == b'#').count();
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    let content = 2 + hashes;
    text[content..].find(&end).map_or(text.len(), |at| content + at + end.len())
}

/// Length of a character literal; 0 for a lifetime or a label.
fn character_bytes(text: &str) -> usize {
    let mut characters = text.chars().skip(1);
    let (first, second) = (characters.next(), characters.next());
    if first == Some('\\') || second == Some('\'') { string_bytes(text, '\'') } else { 0 }
}
