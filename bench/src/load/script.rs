//! What is asked: the frames of one kind of work, made from a template.
//!
//! A request is the protocol's own frame, encoded once; for each request only its id, key and value
//! are put in place, so that the generator spends its cpu on the load and not on itself.

use pinion_protocol::{
    Durability, GetReply, HEADER_BYTES, KeyRequest, NAMESPACE_DEFAULT, Put, Request, Response, Ttl, Value,
    Version, Write, WriteOutcome, Written,
};
use serde::Serialize;

use super::records::Records;
use crate::error::Result;

/// Where a header has its request id.
const REQUEST_ID_AT: usize = 8;

/// One kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Work {
    /// Reads a value.
    Get,
    /// Writes a value, acknowledged when it is on disk.
    Put,
}

/// The sizes of a request and of its answer on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct FrameSizes {
    /// Of a request, in bytes, header included.
    pub request_bytes: usize,
    /// Of the answer to one that succeeds.
    pub response_bytes: usize,
}

/// The requests of one kind of work.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) work: Work,
    pub(crate) records: Records,
    pub(crate) sizes: FrameSizes,
    template: Vec<u8>,
    key_at: usize,
}

impl Script {
    /// # Errors
    /// [`crate::error::Error::Protocol`] when the records do not fit a frame.
    pub(crate) fn new(work: Work, records: Records, durability: Durability) -> Result<Self> {
        let (key, value) = (records.key(0), records.value(0));
        let (namespace, mut template, mut response) = (NAMESPACE_DEFAULT, Vec::new(), Vec::new());
        let version = Version([1; 16]);
        let key_at = match work {
            Work::Get => {
                Request::Get(KeyRequest { namespace, key: &key }).encode(0, 0, 0, &mut template)?;
                let value = Some(Value { version, expiry_ms: 0, bytes: &value });
                Response::Get(GetReply { value, stamp_seen: 1 }).encode(0, 0, &mut response)?;
                template.len() - key.len()
            }
            Work::Put => {
                let write = Write { namespace, key: &key, durability, stamp: None };
                let put = Put { write, ttl: Ttl::NamespaceDefault, value: &value };
                Request::Put(put).encode(0, 0, 0, &mut template)?;
                let outcome = WriteOutcome::Applied;
                let written = Written { outcome, version, stamp_seen: 1, expiry_ms: 0, number: 0 };
                Response::Put(written).encode(0, 0, &mut response)?;
                template.len() - value.len() - key.len()
            }
        };
        debug_assert!(key_at >= HEADER_BYTES && template[key_at..].starts_with(&key));
        let sizes = FrameSizes { request_bytes: template.len(), response_bytes: response.len() };
        Ok(Self { work, records, sizes, template, key_at })
    }

    /// Appends a request for a record.
    pub(crate) fn append(&self, request_id: u64, number: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.template);
        let frame = &mut out[start..];
        frame[REQUEST_ID_AT..REQUEST_ID_AT + 8].copy_from_slice(&request_id.to_le_bytes());
        let (key, value) = match self.work {
            Work::Get => (&mut frame[self.key_at..], None),
            Work::Put => {
                let value_at = self.template.len() - self.records.value_bytes();
                let (front, value) = frame.split_at_mut(value_at);
                (&mut front[self.key_at..], Some(value))
            }
        };
        self.records.set_key(number, key);
        if let Some(value) = value {
            self.records.set_value(number, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use pinion_protocol::Header;

    use super::*;

    #[test]
    fn a_filled_template_is_the_frame_of_its_record() {
        let records = Records::new(100, 32, 512).unwrap();
        for work in [Work::Get, Work::Put] {
            let script = Script::new(work, records.clone(), Durability::Sync).unwrap();
            let mut out = vec![9; 3];
            script.append(0x1122, 77, &mut out);
            let frame = &out[3..];
            assert_eq!(frame.len(), script.sizes.request_bytes);
            let header = Header::read(frame).unwrap().unwrap();
            assert_eq!(header.request_id, 0x1122);
            let (key, value) = (records.key(77), records.value(77));
            match Request::decode(&header, &frame[HEADER_BYTES..]).unwrap() {
                Request::Get(request) if work == Work::Get => assert_eq!(request.key, key),
                Request::Put(put) if work == Work::Put => {
                    assert_eq!((put.write.key, put.value), (key.as_slice(), value.as_slice()));
                    assert_eq!(put.write.durability, Durability::Sync);
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
