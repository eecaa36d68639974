//! Commands: encoded by the oracle, read by us, and back.

use pinion_protocol::resp::{CommandError, Commands, append_command};
use proptest::collection::vec;
use proptest::prelude::*;
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::encode::encode;
use redis_protocol::resp2::types::{OwnedFrame, Resp2Frame};

type Args = Vec<Vec<u8>>;

fn args() -> impl Strategy<Value = Args> {
    let word = prop_oneof![
        4 => vec(any::<u8>(), 0..20),
        1 => vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'$'), Just(b'*')], 0..12),
        1 => vec(any::<u8>(), 0..2_000),
    ];
    vec(word, 1..9)
}

fn encoded(args: &Args) -> Vec<u8> {
    let frame = OwnedFrame::Array(args.iter().cloned().map(OwnedFrame::BulkString).collect());
    let mut bytes = vec![0; frame.encode_len(false)];
    let written = encode(&mut bytes, &frame, false).unwrap();
    bytes.truncate(written);
    bytes
}

/// What a connection reads of the chunks, and how it ends.
fn read<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Args>, Option<CommandError>, usize) {
    let (mut commands, mut found) = (Commands::new(1 << 20), Vec::new());
    for mut chunk in chunks {
        loop {
            match commands.next_command(&mut chunk) {
                Ok(Some(command)) => {
                    let args: Args = command.args_from(0).map(<[u8]>::to_vec).collect();
                    assert_eq!(command.len(), args.len());
                    // What is sent on to another core is the same command.
                    let (frame, bytes) = decode(command.bytes()).unwrap().unwrap();
                    let sent_on = args.iter().cloned().map(OwnedFrame::BulkString).collect();
                    assert_eq!((frame, bytes), (OwnedFrame::Array(sent_on), command.bytes().len()));
                    found.push(args);
                }
                Ok(None) => break,
                Err(error) => return (found, Some(error), 0),
            }
        }
        assert!(chunk.is_empty(), "a chunk is used up before more is wanted");
    }
    let waiting = commands.waiting_bytes();
    (found, None, waiting)
}

/// A stream in pieces of these sizes, over and over.
fn pieces<'a>(mut stream: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let (piece, rest) = stream.split_at((*sizes.next()?).min(stream.len()));
        stream = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn commands_are_read_as_they_were_meant(
        all in vec(args(), 1..12),
        sizes in vec(1_usize..400, 1..6),
    ) {
        let mut stream = Vec::new();
        for args in &all {
            let bytes = encoded(args);
            let mut ours = Vec::new();
            append_command(&mut ours, args.iter().map(Vec::as_slice));
            prop_assert_eq!(&ours, &bytes);
            stream.extend(bytes);
        }
        prop_assert_eq!(read([&stream[..]]), (all.clone(), None, 0));
        prop_assert_eq!(read(pieces(&stream, &sizes)), (all.clone(), None, 0));
        // A stream that is cut off holds whole commands, and waits for one.
        let cut = stream.len() - sizes[0].min(stream.len());
        let (found, error, _) = read(pieces(&stream[..cut], &sizes));
        prop_assert_eq!(error, None);
        prop_assert_eq!(&found[..], &all[..found.len()]);
    }

    #[test]
    fn the_cuts_of_a_stream_do_not_matter_whatever_it_is(
        stream in vec(prop_oneof![
            Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'0'), Just(b'1'), Just(b'2'), Just(b'-'),
            Just(b'"'), Just(b'\''), Just(b'\\'), Just(b' '), Just(b'x'), any::<u8>(),
        ], 0..80),
        sizes in vec(1_usize..20, 1..6),
    ) {
        let whole = read([&stream[..]]);
        prop_assert_eq!(&read(pieces(&stream, &sizes)), &whole);
        prop_assert_eq!(&read(pieces(&stream, &[1])), &whole);
    }
}
