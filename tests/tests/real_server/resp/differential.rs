//! The same commands, asked of a real Redis and of us.
//!
//! Streams are drawn from seeds and sent as pipelines. What differs on purpose is told here, command by
//! command, and documented in `net/protocol/RESP.md`; IFEQ, which Redis 7 lacks, is compared with a model in the
//! simulated world.

use std::collections::BTreeSet;

use pinion_tests::process::Rig;
use pinion_tests::resp::{Args, Drawn, Draws, Reply, RespConnection, words};

use super::redis::Redis;

const SEEDS: u64 = 60;
const STREAMS: usize = 12;
/// Iterations in small steps take a while; every other of these speaks RESP3.
const MATCHES_ONE_IN: u64 = 15;

#[test]
fn commands_answer_as_those_of_redis() {
    let Some(redis) = Redis::start() else { return };
    let rig = Rig::new().flag("resp-sweeping", true);
    let server = rig.start();
    let mut compared = 0;
    for seed in 0..SEEDS {
        let mut theirs = redis.connect();
        let mut ours = RespConnection::connect(server.address());
        if seed % 2 == 1 {
            theirs.speak_resp3();
            ours.speak_resp3();
        }
        for connection in [&mut theirs, &mut ours] {
            assert_eq!(connection.call(words(["FLUSHALL"])), Reply::ok());
        }
        let mut draws = Draws::new(seed, 2 + seed % 7);
        for _ in 0..STREAMS {
            let stream = draws.any_stream();
            let commands: Vec<Args> = stream.iter().map(|drawn| drawn.args.clone()).collect();
            theirs.send(&commands);
            ours.send(&commands);
            for drawn in &stream {
                same(seed, drawn, &theirs.receive(), &ours.receive());
                compared += 1;
            }
        }
        same_keys(seed, &mut theirs, &mut ours);
        if seed % MATCHES_ONE_IN == 0 {
            compared += same_matches(seed, &mut theirs, &mut ours);
        }
    }
    println!("{compared} replies compared");
    server.stop();
}

fn same(seed: u64, drawn: &Drawn, theirs: &Reply, ours: &Reply) {
    let name = drawn.args[0].to_ascii_uppercase();
    let alike = match (theirs, ours) {
        (Reply::Integer(theirs), Reply::Integer(ours)) => theirs.abs_diff(*ours) <= drawn.tolerance as u64,
        // Our pages end where shards do.
        (Reply::Array(theirs), Reply::Array(ours)) if name == b"SCAN" => theirs[1] == ours[1],
        _ => theirs == ours,
    };
    assert!(
        alike,
        "seed {seed}: {} is answered\n  {theirs:?} by Redis,\n  {ours:?} by us",
        shown(&drawn.args)
    );
}

fn shown(args: &Args) -> String {
    args.iter().map(|arg| format!("{} ", arg.escape_ascii())).collect()
}

/// Both hold the same keys, values and expiries.
fn same_keys(seed: u64, theirs: &mut RespConnection, ours: &mut RespConnection) {
    let keys = |connection: &mut RespConnection| {
        let mut keys = connection.call(words(["KEYS", "*"])).members().to_vec();
        keys.sort();
        keys
    };
    let all = keys(theirs);
    assert_eq!(keys(ours), all, "seed {seed}");
    for key in all {
        let Reply::Bulk(key) = key else { panic!("{key:?}") };
        for (name, tolerance) in [("GET", 0), ("PEXPIRETIME", 30_000)] {
            let drawn = Drawn { args: vec![name.into(), key.clone()], tolerance };
            same(seed, &drawn, &theirs.call(drawn.args.clone()), &ours.call(drawn.args.clone()));
        }
    }
}

/// Names that patterns take apart.
const NAMES: &[&[u8]] = &[
    b"a",
    b"ab",
    b"abc",
    b"a*c",
    b"a?c",
    b"a\\c",
    b"b",
    b"[x]",
    b"x",
    b"^",
    b"a-c",
    b"-",
    b"]",
    b"\xff\x00a",
];

const PATTERNS: &[&[u8]] = &[
    b"*", b"a*", b"*c", b"a?c", b"a\\*c", b"a\\?c", b"a\\\\c", b"[ab]", b"[a-c]*", b"[^a]*", b"[c-a]?",
    b"\\[x\\]", b"[x]", b"[\\]]", b"[a", b"[", b"a[", b"[]", b"[^", b"\\", b"a\\", b"**b**", b"??", b"",
    b"\xff*", b"[-]", b"[^-]",
];

/// KEYS and whole iterations of SCAN find the same keys; how many were compared.
fn same_matches(seed: u64, theirs: &mut RespConnection, ours: &mut RespConnection) -> usize {
    let put = std::iter::once(&b"MSET"[..]).chain(NAMES.iter().flat_map(|name| [*name, b"v"]));
    let put: Args = put.map(<[u8]>::to_vec).collect();
    for connection in [&mut *theirs, &mut *ours] {
        assert_eq!(connection.call(put.clone()), Reply::ok());
    }
    let scanned = |connection: &mut RespConnection, options: &[&[u8]]| {
        let (mut cursor, mut found) = (b"0".to_vec(), BTreeSet::new());
        loop {
            let args = [b"SCAN", &cursor[..]].into_iter().chain(options.iter().copied());
            let reply = connection.call(args.map(<[u8]>::to_vec).collect());
            let [Reply::Bulk(next), keys] = reply.members() else { panic!("{reply:?}") };
            // Redis may tell one twice.
            found.extend(keys.members().iter().cloned());
            if next == b"0" {
                return found;
            }
            cursor = next.clone();
        }
    };
    for (number, pattern) in PATTERNS.iter().enumerate() {
        let keys = |connection: &mut RespConnection| {
            let reply = connection.call(vec![b"KEYS".to_vec(), pattern.to_vec()]);
            reply.members().iter().cloned().collect::<BTreeSet<_>>()
        };
        let expected = keys(theirs);
        assert_eq!(keys(ours), expected, "seed {seed}: KEYS {}", pattern.escape_ascii());
        let count: &[u8] = [&b"1"[..], b"3", b"1000"][(seed as usize + number) % 3];
        for kind in [None, Some(&b"string"[..]), Some(b"list")] {
            let mut options: Vec<&[u8]> = vec![b"MATCH", pattern, b"COUNT", count];
            options.extend(kind.iter().flat_map(|kind| [&b"type"[..], kind]));
            let expected = scanned(theirs, &options);
            assert_eq!(scanned(ours, &options), expected, "seed {seed}: SCAN {}", pattern.escape_ascii());
        }
    }
    4 * PATTERNS.len()
}

/// Bytes that are no commands, or hardly any.
const PROTOCOL: &[&[u8]] = &[
    b"PING\r\n",
    b"PING\n",
    b"  ping   \"hi there\"  \r\n",
    b"ECHO \"\\x41\\n\\\"'\" \r\n",
    b"ECHO 'it\\'s \\n'\r\n",
    b"\r\n\r\nPING\r\n",
    b"*0\r\nPING\r\n",
    b"*-1\r\nPING\r\n",
    b"*1\r\n$4\r\nPINGxxPING\r\n",
    b"*1\r\n$0\r\n\r\n",
    b"\"\"\r\n",
    b"ECHO \"open\r\n",
    b"ECHO 'open\r\n",
    b"ECHO \"a\"b\r\n",
    b"*x\r\n",
    b"*1x\r\n",
    b"*+1\r\n",
    b"*01\r\n",
    b"*\r\n",
    b"*99999999999\r\n",
    b"*1\r\n:4\r\nPING\r\n",
    b"*1\r\n\r\n",
    b"*1\r\n$x\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$99999999999\r\n",
    b"*2\r\n$4\r\nECHO\r\n+no\r\n",
];

#[test]
fn bytes_are_read_as_redis_reads_them() {
    let Some(redis) = Redis::start() else { return };
    let rig = Rig::new();
    let server = rig.start();
    for bytes in PROTOCOL {
        let ask = |mut connection: RespConnection| {
            // At once: what comes after the end of a connection cannot be sent.
            connection.send_bytes(&[*bytes, b"PING\r\nQUIT\r\n"].concat());
            let mut replies = Vec::new();
            // A connection that ends with bytes that were not read is reset.
            while let Ok(Some(reply)) = connection.try_receive() {
                replies.push(reply);
            }
            replies
        };
        let (theirs, ours) = (ask(redis.connect()), ask(RespConnection::connect(server.address())));
        assert_eq!(ours, theirs, "{}", bytes.escape_ascii());
    }
    server.stop();
}
