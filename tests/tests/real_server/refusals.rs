//! Servers that do not start, and what they say.

use std::fs;
use std::net::TcpListener;

use pinion_tests::process::{Refused, Rig, Server};
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of META's header, checksum in front.
const META_BYTES: usize = 80;

/// The error of a server that does not start.
fn refusal(rig: &Rig) -> Refused {
    let refused = rig.try_start().map(|_| ()).expect_err("the server must not start");
    assert!(refused.status.code().is_some_and(|code| code > 0), "{refused}");
    refused
}

fn says(refused: &Refused, words: &[&str]) {
    let last = refused.log.lines().find(|line| line.starts_with("error: "));
    let last = last.unwrap_or_else(|| panic!("no error in: {refused}"));
    for word in words {
        assert!(refused.log.contains(word), "{word:?} is not in: {last}");
    }
}

#[test]
fn a_foreign_directory_is_left_alone() {
    let rig = Rig::new();
    fs::create_dir(rig.data()).expect("the test's directory can be written");
    fs::write(rig.data().join("letter.txt"), "dear").expect("the test's directory can be written");
    says(&refusal(&rig), &["letter.txt", "no Pinion data directory"]);
    let left: Vec<_> = fs::read_dir(rig.data()).expect("it is still there").collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn a_second_server_on_the_directory_is_refused() {
    let rig = Rig::new();
    let first = rig.start();
    first.client().put("key", "value").expect("a put is acknowledged");
    says(&refusal(&rig), &["locked by another process"]);
    assert_eq!(first.client().get("key").expect("a get").as_deref(), Some(&b"value"[..]));
    let doctor = rig.doctor();
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("a node is running"), "{doctor:?}");
    first.stop();
    rig.start().stop();
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let rig = Rig::new();
    rig.start().stop();
    for name in ["META", "META.2"] {
        let path = rig.data().join(name);
        let mut content = fs::read(&path).expect("there is META");
        content[12..14].copy_from_slice(&2_u16.to_le_bytes());
        let checksum = xxh3_64(&content[8..META_BYTES]);
        content[..8].copy_from_slice(&checksum.to_le_bytes());
        fs::write(&path, content).expect("META can be written");
    }
    says(&refusal(&rig), &["META", "version 2"]);
    assert!(!rig.doctor().status.success());
}

#[test]
fn a_busy_port_is_named() {
    let rig = Rig::new();
    let busy = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let address = busy.local_addr().expect("it is bound").to_string();
    let mut other = rig.on(rig.data());
    other.listen.clone_from(&address);
    says(&refusal(&other), &["in use", &address]);
    let doctor = other.doctor();
    assert!(String::from_utf8_lossy(&doctor.stdout).contains(&address));
    assert_eq!(doctor.status.code(), Some(1));
}

#[test]
fn settings_that_make_no_sense_are_explained() {
    says(&refusal(&Rig::new().flag("memory", "1MiB")), &["64 MiB per shard", "--memory"]);
    let mut open = Rig::new();
    open.listen = "0.0.0.0:0".to_owned();
    says(&refusal(&open), &["--insecure"]);
    drop(open.flag("insecure", "true").start());

    let mut many = Rig::new().flag("partitions", "64").flag("memory", "1GiB");
    many.shards = 5;
    says(&refusal(&many), &["shards", "partitions"]);
    says(&refusal(&Rig::new().flag("partitions", "100")), &["partitions"]);
    says(&refusal(&Rig::new().engine("memtable_size", 1)), &["memtable_size", "line"]);
    says(&refusal(&Rig::new().flag("cores", "100000")), &["--cores"]);
    says(&refusal(&Rig::new().flag("value-bytes-max", "17MiB")), &["value_bytes_max"]);
}

#[test]
fn doctor_finds_nothing_wrong_here() {
    let rig = Rig::new();
    let doctor = rig.doctor();
    let text = String::from_utf8_lossy(&doctor.stdout);
    assert!(doctor.status.success(), "{text}");
    for subject in ["kernel", "io_uring", "open files", "file system", "direct I/O", "free space", "address"]
    {
        assert!(text.contains(subject), "{subject} is not in: {text}");
    }
    assert!(!rig.data().exists(), "doctor changes nothing");
}

#[test]
fn settings_come_from_flags_then_environment_then_file() {
    let rig = Rig::new();
    let config = rig.beside("order.toml");
    let (flag, variable, file) = (rig.beside("flag"), rig.beside("variable"), rig.beside("file"));
    fs::write(
        &config,
        format!("data = {:?}\nlisten = \"127.0.0.1:0\"\nmemory = \"128MiB\"\ncores = 1\n", file),
    )
    .expect("the test's directory can be written");
    for (arguments, variables, used) in [
        (vec![format!("--data={}", flag.display())], true, &flag),
        (Vec::new(), true, &variable),
        (Vec::new(), false, &file),
    ] {
        let mut command = pinion_tests::process::pinion(&["serve"]);
        command.args(arguments).env("PINION_CONFIG", &config);
        if variables {
            command.env("PINION_DATA", &variable);
        }
        let server = Server::spawn(command).ready().unwrap_or_else(|refused| panic!("{refused}"));
        server.client().put("key", "value").expect("a put is acknowledged");
        server.kill();
        assert!(used.join("META").exists());
        fs::remove_dir_all(used).expect("it can be removed");
    }
}
