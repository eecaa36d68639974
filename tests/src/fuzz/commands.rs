//! Bytes of RESP: the class `fuzz-commands`.
//!
//! A seed is a stretch of [`COMMANDS_PER_SEED`] commands, strung to streams: as they are, typed inline,
//! mutated, or garbage. What must be true of the reader of commands:
//!
//! * nothing panics, and what waits in it is never more than [`TIMES_RECEIVED_MAX`] what was received;
//! * the cuts of a stream into chunks do not matter: the same commands come out, and the same error;
//! * an intact command is read as it was meant, and what is sent on of it is the same command;
//! * after an error the same error comes ever after.
//!
//! A server meets such streams in the class `fuzz-frames`, on some of its hostile connections.

use pinion_protocol::resp::{CommandError, Commands};

use super::corpus::{self, Kept};
use super::mutate::mutate;
use crate::resp::{Args, Draws, encode};
use crate::trials::{Class, Counts, Trials};
use crate::world::Random;

/// The class.
pub const FUZZ_COMMANDS: Class = Class {
    name: "fuzz-commands",
    about: "mutated commands and garbage, through the reader of RESP",
    unit: "commands",
    submission: 2_000_000,
    full: 20_000_000,
    release: 200_000_000,
    run,
};

/// Commands that one seed tries, at least.
const COMMANDS_PER_SEED: u64 = 4_096;

/// Commands of a stream, at most.
const STREAM_COMMANDS_MAX: u64 = 12;

/// Bytes of a command, at most: small enough to be met.
const COMMAND_BYTES_MAX: u32 = 4_096;

/// What waits is the bytes, and 8 for each argument, which has at least 6 of them.
const TIMES_RECEIVED_MAX: usize = 3;

/// The count is in commands, rounded up to whole seeds.
fn run(trials: &Trials) -> Counts {
    let kept = corpus::kept("commands");
    for Kept { bytes, .. } in &kept {
        for size in [usize::MAX, 1, 7, 33] {
            same(bytes, &read(bytes, || usize::MAX), &read(bytes, || size));
        }
    }
    let seeds = Trials { count: trials.count.div_ceil(COMMANDS_PER_SEED), ..trials.clone() };
    let mut counts = seeds.each_seed(|seed, counts| {
        let mut random = Random::labelled(seed, 0xC033A);
        let mut draws = Draws::new(seed, 9);
        let mut tried = 0;
        while tried < COMMANDS_PER_SEED {
            tried += stretch(&mut random, &mut draws, counts);
        }
        counts.add("commands", tried);
    });
    counts.add("kept inputs replayed", kept.len() as u64);
    counts
}

/// A stream of commands, some of them not what they were.
pub fn stream(random: &mut Random, draws: &mut Draws) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..1 + random.below(STREAM_COMMANDS_MAX) {
        let from = bytes.len();
        match random.below(8) {
            0 => inline(random, &draws.any().args, &mut bytes),
            1 => bytes.extend((0..random.below(60)).map(|_| random.word() as u8)),
            _ => encode(&draws.any().args, &mut bytes),
        }
        if random.one_in(3) {
            for _ in 0..1 + random.below(3) {
                mutate(random, &mut bytes, from, b"*-1\r\n$0\r\n\r\n*3\r\n$99999999999\r\n\"\\x0");
            }
        }
    }
    bytes
}

/// As a person types it, in quotes where need be.
fn inline(random: &mut Random, args: &Args, out: &mut Vec<u8>) {
    for arg in args {
        if random.one_in(4) || arg.is_empty() || !arg.iter().all(u8::is_ascii_alphanumeric) {
            out.push(b'"');
            arg.iter().for_each(|byte| out.extend(format!("\\x{byte:02x}").bytes()));
            out.push(b'"');
        } else {
            out.extend_from_slice(arg);
        }
        out.push(b' ');
    }
    out.extend_from_slice(if random.one_in(2) { b"\r\n" } else { b"\n" });
}

/// Reads a stream in two ways, or an intact one against what was meant; how many commands were tried.
fn stretch(random: &mut Random, draws: &mut Draws, counts: &mut Counts) -> u64 {
    if random.one_in(4) {
        let (mut bytes, mut meant): (Vec<u8>, Vec<Args>) = Default::default();
        for drawn in draws.any_stream() {
            match random.below(6) {
                0 => inline(random, &drawn.args, &mut bytes),
                _ => encode(&drawn.args, &mut bytes),
            }
            meant.push(drawn.args);
        }
        let found = read(&bytes, || 1 + random.below(200) as usize);
        assert_eq!(found, (meant, None), "{}", corpus::to_hex(&bytes));
        counts.add("intact", found.0.len() as u64);
        return found.0.len() as u64;
    }
    let bytes = stream(random, draws);
    let whole = read(&bytes, || usize::MAX);
    same(&bytes, &whole, &read(&bytes, || 1));
    same(&bytes, &whole, &read(&bytes, || 1 + random.below(40) as usize));
    let (commands, error) = whole;
    counts.add("read", commands.len() as u64);
    counts.add("refused", u64::from(error.is_some()));
    commands.len() as u64 + 1
}

type Found = (Vec<Args>, Option<CommandError>);

fn same(bytes: &[u8], one: &Found, other: &Found) {
    assert_eq!(one, other, "the cuts matter of the stream\n{}", corpus::to_hex(bytes));
}

/// What is read of a stream in chunks of these sizes.
fn read(bytes: &[u8], mut size: impl FnMut() -> usize) -> Found {
    let (mut commands, mut found) = (Commands::new(COMMAND_BYTES_MAX), Vec::new());
    let (mut rest, mut received) = (bytes, 0);
    while !rest.is_empty() {
        let (mut chunk, behind) = rest.split_at(size().min(rest.len()));
        rest = behind;
        received += chunk.len();
        loop {
            match commands.next_command(&mut chunk) {
                Ok(Some(command)) => {
                    let args: Args = command.args_from(0).map(<[u8]>::to_vec).collect();
                    let mut again = Commands::new(u32::MAX);
                    let read = again.next_command(&mut command.bytes()).expect("it was read before");
                    let read: Args = read.expect("it is whole").args_from(0).map(<[u8]>::to_vec).collect();
                    assert_eq!(read, args);
                    found.push(args);
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(commands.next_command(&mut &b"PING\r\n"[..]).err(), Some(error));
                    return (found, Some(error));
                }
            }
        }
        assert!(chunk.is_empty(), "a chunk is used up before more is wanted");
        assert!(commands.waiting_bytes() <= TIMES_RECEIVED_MAX * received, "more waits than was received");
    }
    (found, None)
}
