//! Replies: written by us, decoded by the oracle, in both versions.

use pinion_protocol::resp::{RespVersion, reply};
use proptest::collection::vec;
use proptest::prelude::*;
use redis_protocol::{resp2, resp3};

/// Every reply there is.
#[derive(Debug, Clone)]
enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Null,
    Verbatim(String),
    Array(Vec<Reply>),
    Set(Vec<i64>),
    Map(Vec<(i64, Reply)>),
}

fn line() -> impl Strategy<Value = String> {
    "[A-Z]{1,5} [ -~]{0,20}"
}

fn replies() -> impl Strategy<Value = Reply> {
    let leaf = prop_oneof![
        line().prop_map(Reply::Simple),
        line().prop_map(Reply::Error),
        any::<i64>().prop_map(Reply::Integer),
        vec(any::<u8>(), 0..60).prop_map(Reply::Bulk),
        Just(Reply::Null),
        "[ -~\r\n]{0,30}".prop_map(Reply::Verbatim),
        vec(any::<i64>(), 0..5).prop_map(|mut members| {
            members.sort_unstable();
            members.dedup();
            Reply::Set(members)
        }),
    ];
    leaf.prop_recursive(3, 24, 5, |inner| {
        let pairs = vec((any::<i64>(), inner.clone()), 0..4).prop_map(|mut pairs| {
            pairs.sort_by_key(|(key, _)| *key);
            pairs.dedup_by_key(|(key, _)| *key);
            Reply::Map(pairs)
        });
        prop_oneof![vec(inner, 0..5).prop_map(Reply::Array), pairs]
    })
}

fn put(out: &mut Vec<u8>, value: &Reply, version: RespVersion) {
    match value {
        Reply::Simple(text) => reply::simple(out, text),
        Reply::Error(text) => reply::error(out, text.as_bytes()),
        Reply::Integer(number) => reply::integer(out, *number),
        Reply::Bulk(bytes) => reply::bulk(out, bytes),
        Reply::Null => reply::null(out, version),
        Reply::Verbatim(text) => reply::verbatim(out, text, version),
        Reply::Array(all) => {
            reply::array(out, all.len());
            all.iter().for_each(|value| put(out, value, version));
        }
        Reply::Set(all) => {
            reply::set(out, all.len(), version);
            all.iter().for_each(|number| reply::integer(out, *number));
        }
        Reply::Map(pairs) => {
            reply::map(out, pairs.len(), version);
            for (key, value) in pairs {
                reply::integer(out, *key);
                put(out, value, version);
            }
        }
    }
}

fn in_resp2(value: &Reply) -> resp2::types::OwnedFrame {
    use resp2::types::OwnedFrame as Frame;
    match value {
        Reply::Simple(text) => Frame::SimpleString(text.clone().into_bytes()),
        Reply::Error(text) => Frame::Error(text.clone()),
        Reply::Integer(number) => Frame::Integer(*number),
        Reply::Bulk(bytes) => Frame::BulkString(bytes.clone()),
        Reply::Null => Frame::Null,
        Reply::Verbatim(text) => Frame::BulkString(text.clone().into_bytes()),
        Reply::Array(all) => Frame::Array(all.iter().map(in_resp2).collect()),
        Reply::Set(all) => Frame::Array(all.iter().map(|number| Frame::Integer(*number)).collect()),
        Reply::Map(pairs) => Frame::Array(
            pairs.iter().flat_map(|(key, value)| [Frame::Integer(*key), in_resp2(value)]).collect(),
        ),
    }
}

fn in_resp3(value: &Reply) -> resp3::types::OwnedFrame {
    use resp3::types::{OwnedFrame as Frame, VerbatimStringFormat};
    let number = |data: i64| Frame::Number { data, attributes: None };
    match value {
        Reply::Simple(text) => Frame::SimpleString { data: text.clone().into_bytes(), attributes: None },
        Reply::Error(text) => Frame::SimpleError { data: text.clone(), attributes: None },
        Reply::Integer(data) => number(*data),
        Reply::Bulk(bytes) => Frame::BlobString { data: bytes.clone(), attributes: None },
        Reply::Null => Frame::Null,
        Reply::Verbatim(text) => Frame::VerbatimString {
            data: text.clone().into_bytes(),
            format: VerbatimStringFormat::Text,
            attributes: None,
        },
        Reply::Array(all) => Frame::Array { data: all.iter().map(in_resp3).collect(), attributes: None },
        Reply::Set(all) => Frame::Set { data: all.iter().copied().map(number).collect(), attributes: None },
        Reply::Map(pairs) => Frame::Map {
            data: pairs.iter().map(|(key, value)| (number(*key), in_resp3(value))).collect(),
            attributes: None,
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_024, ..ProptestConfig::default() })]

    #[test]
    fn replies_are_what_the_oracle_reads(all in vec(replies(), 1..4)) {
        let (mut two, mut three) = (Vec::new(), Vec::new());
        for value in &all {
            put(&mut two, value, RespVersion::Two);
            put(&mut three, value, RespVersion::Three);
        }
        let (mut two, mut three) = (&two[..], &three[..]);
        for value in &all {
            let (frame, bytes) = resp2::decode::decode(two).unwrap().unwrap();
            prop_assert_eq!(frame, in_resp2(value));
            two = &two[bytes..];
            let (frame, bytes) = resp3::decode::complete::decode(three).unwrap().unwrap();
            prop_assert_eq!(frame, in_resp3(value));
            three = &three[bytes..];
        }
        prop_assert!(two.is_empty() && three.is_empty());
    }
}

#[test]
fn an_error_is_one_line_whatever_it_quotes() {
    let mut out = Vec::new();
    reply::error(&mut out, b"ERR unknown command 'a\r\nb'");
    assert_eq!(out, b"-ERR unknown command 'a  b'\r\n");
}
