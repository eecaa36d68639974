//! What must be true of one frame, whatever it holds.

use std::io::Write;

use pinion_protocol::{
    Batch, CLIENT_NAME_BYTES_MAX, CURSOR_BYTES_MAX, Condition, ERROR_MESSAGE_BYTES_MAX, Extension,
    HEADER_BYTES, Header, KeyRequest, List, ListBuf, ListKind, MultiGet, NAMESPACE_NAME_BYTES_MAX, Opcode,
    PING_BYTES_MAX, ProposedStamp, ProtocolError, Put, Request, Response, Scan,
};

use super::messages::NODE;
use crate::trials::Counts;

/// What a stretch of frames has met, counted without allocating.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Frames that were cut out of a stream.
    pub cut: u64,
    /// Of them, requests that were accepted.
    pub requests: u64,
    /// Of them, answers that were accepted.
    pub answers: u64,
    /// Of them, those whose body was refused both ways.
    pub refused: u64,
    /// Streams that ended at a header that makes no sense.
    pub bad_headers: u64,
    /// Streams that ended at a frame that is longer than allowed.
    pub too_long: u64,
    /// Frames that spanned chunks.
    pub gathered: u64,
    /// Streams.
    pub streams: u64,
    /// Accepted answers of a kind that this side would not send.
    pub newer_answers: u64,
    /// Prefaces.
    pub prefaces: u64,
    /// Sealed cursors that were opened.
    pub cursors: u64,
    /// Headers that were longer than they need be, and made sense.
    pub extensions: u64,
    /// Of them, those with a trace.
    pub traces: u64,
}

impl Tally {
    /// Frames that were judged: decoded, or refused by their header.
    pub fn frames(&self) -> u64 {
        self.cut + self.bad_headers + self.too_long
    }

    /// Adds all of it to a run's counts.
    pub fn add_to(&self, counts: &mut Counts) {
        let named = [
            ("frames", self.frames()),
            ("requests accepted", self.requests),
            ("answers accepted", self.answers),
            ("bodies refused", self.refused),
            ("headers refused", self.bad_headers),
            ("frames too long", self.too_long),
            ("frames gathered over chunks", self.gathered),
            ("streams", self.streams),
            ("answers only a newer server sends", self.newer_answers),
            ("prefaces", self.prefaces),
            ("cursors opened", self.cursors),
            ("headers extended", self.extensions),
            ("traces", self.traces),
        ];
        for (name, count) in named {
            counts.add(name, count);
        }
    }
}

/// Judges frames one after the other; its buffers are reused.
#[derive(Debug, Default)]
pub(super) struct Judge {
    again: Vec<u8>,
    third: Vec<u8>,
    list: Vec<u8>,
}

impl Judge {
    /// Decodes the frame both ways and checks what comes out.
    ///
    /// # Panics
    /// When a promise is broken.
    pub(super) fn frame(&mut self, header: &Header, body: &[u8], tally: &mut Tally) {
        let request = Request::decode(header, body);
        let answer = Response::decode(header, body);
        assert!(request.is_err() || answer.is_err(), "a frame is a request or an answer");
        self.short_cuts_agree(header, body, &request);
        match (&request, &answer) {
            (Err(request), Err(answer)) => {
                tally.refused += 1;
                let border_lost = request.is_fatal() || answer.is_fatal();
                assert!(!border_lost, "a bad body costs the connection: {request}, {answer}");
                // Which code is answered must be known for each of them.
                assert_ne!(request.code().to_u16(), 0);
            }
            (Ok(request), _) => {
                tally.requests += 1;
                self.request(header, body, request, tally);
            }
            (_, Ok(answer)) => {
                tally.answers += 1;
                self.answer(header, body, answer, tally);
            }
        }
    }

    /// A header's extension is damaged, or says the same whatever else is in it.
    ///
    /// # Panics
    /// When a promise is broken.
    pub(super) fn extension(&mut self, extension: &[u8], tally: &mut Tally) {
        let Ok(read) = Extension::read(extension) else { return };
        tally.extensions += u64::from(!extension.is_empty());
        let Some(trace) = read.trace else { return };
        tally.traces += 1;
        self.again.clear();
        write!(self.again, "{trace}").expect("memory takes all of it");
        assert_eq!(str::from_utf8(&self.again).map(str::parse), Ok(Ok(trace)));
        self.again.clear();
        let fields = (1, 0, 0);
        Request::NamespaceList.encode_traced(fields, &trace, &mut self.again).expect("a trace fits");
        let header = Header::read(&self.again).expect("our own header").expect("is whole");
        let alone = &self.again[HEADER_BYTES..usize::from(header.header_bytes)];
        assert_eq!(Extension::read(alone), Ok(read));
    }

    fn short_cuts_agree(&self, header: &Header, body: &[u8], long: &Result<Request<'_>, ProtocolError>) {
        let short = KeyRequest::decode_get(header, body);
        match long {
            Ok(Request::Get(get)) if !header.is_extended() => assert_eq!(short.as_ref(), Some(get)),
            _ => assert_eq!(short, None),
        }
        if header.opcode == Opcode::Put.to_u8() {
            match (Put::decode(header, body), long) {
                (Ok(short), Ok(Request::Put(long))) => assert_eq!(short, *long),
                (Err(short), Err(long)) => assert_eq!(short, *long),
                (short, long) => panic!("{short:?} is not {long:?}"),
            }
        }
    }

    /// An accepted request is canonical and keeps the limits that need no server.
    fn request(&mut self, header: &Header, body: &[u8], request: &Request<'_>, tally: &mut Tally) {
        assert_eq!((request.opcode().to_u8(), header.flags), (header.opcode, 0));
        self.again.clear();
        request
            .encode(header.request_id, header.epoch, header.deadline_us, &mut self.again)
            .expect("what was decoded can be encoded");
        let plain = Header {
            frame_bytes: (HEADER_BYTES + body.len()) as u32,
            header_bytes: HEADER_BYTES as u16,
            ..*header
        };
        assert_eq!(Header::read(&self.again), Ok(Some(plain)));
        assert_eq!(&self.again[HEADER_BYTES..], body, "an accepted request is canonical");
        match request {
            Request::Hello(hello) => assert!(hello.client_name.len() <= CLIENT_NAME_BYTES_MAX),
            Request::Ping(bytes) => assert!(bytes.len() <= PING_BYTES_MAX),
            Request::NamespaceCreate(options) | Request::NamespaceSet(options) => check_name(options.name),
            Request::NamespaceDrop(name) => check_name(name),
            Request::MultiGet(MultiGet { keys, .. }) => self.list(*keys, body, true),
            Request::Batch(Batch { operations, stamp, .. }) => {
                check_stamp(*stamp);
                self.list(*operations, body, true);
            }
            Request::Put(put) => check_stamp(put.write.stamp),
            Request::Delete(write) => check_stamp(write.stamp),
            Request::Update(update) => check_stamp(update.write.stamp),
            Request::PutIf(Put { write, .. }, condition) | Request::DeleteIf(write, condition) => {
                check_stamp(write.stamp);
                let absent = matches!(condition, Condition::Version(version) if version.is_absent());
                assert!(!absent, "a condition on no version");
            }
            Request::Scan(scan) => self.cursor(scan, tally),
            _ => {}
        }
    }

    /// A cursor that opens is one that this scan would seal.
    fn cursor(&mut self, scan: &Scan<'_>, tally: &mut Tally) {
        assert!(scan.cursor.len() <= CURSOR_BYTES_MAX);
        match scan.open_cursor(NODE) {
            Ok(None) => assert!(scan.cursor.is_empty()),
            Ok(Some(position)) => {
                tally.cursors += 1;
                self.again.clear();
                scan.seal_cursor(NODE, position, &mut self.again).expect("it was sealed before");
                assert_eq!(self.again, scan.cursor);
                assert_eq!(scan.open_cursor(NODE ^ 1), Err(ProtocolError::BadCursor), "another node's");
            }
            Err(error) => assert_eq!(error, ProtocolError::BadCursor),
        }
    }

    /// An accepted answer may say more than we understand, but what we understand of it is stable.
    fn answer(&mut self, header: &Header, body: &[u8], answer: &Response<'_>, tally: &mut Tally) {
        match answer {
            Response::Hello(reply) => self.list(reply.shard_cores, body, true),
            Response::MultiGet(reply) => self.list(reply.values, body, false),
            Response::Batch(reply) => self.list(reply.results, body, false),
            Response::Scan(reply) => self.list(reply.records, body, false),
            Response::NamespaceList(list) => self.list(*list, body, false),
            _ => {}
        }
        self.again.clear();
        if let Err(error) = answer.encode(header.request_id, header.epoch, &mut self.again) {
            assert!(matches!(error, ProtocolError::TooLarge { .. }), "{error}");
            assert!(self.again.is_empty(), "a refused answer leaves nothing");
            tally.newer_answers += 1;
            return;
        }
        assert!(self.again.len() <= HEADER_BYTES + body.len(), "an answer grows by being understood");
        let known = Header::read(&self.again).expect("our own header").expect("is whole");
        assert_eq!((known.frame_bytes as usize, known.opcode), (self.again.len(), answer.opcode()));
        let second = Response::decode(&known, &self.again[HEADER_BYTES..]).expect("our own answer");
        if let Response::Error { error, .. } = answer
            && error.message.len() > ERROR_MESSAGE_BYTES_MAX
        {
            tally.newer_answers += 1;
            return;
        }
        assert_eq!(second, *answer);
        self.third.clear();
        second.encode(header.request_id, header.epoch, &mut self.third).expect("it was encoded before");
        assert_eq!(self.third, self.again);
    }

    /// A list holds what it counts and no more than the body. With `canonical`, its entries encode to
    /// the same bytes.
    fn list<K: ListKind>(&mut self, list: List<'_, K>, body: &[u8], canonical: bool) {
        assert!(list.as_bytes().len() <= body.len());
        let mut copy = ListBuf::<K>::with_buffer(std::mem::take(&mut self.list));
        let mut count = 0;
        for item in &list {
            copy.push(&item).expect("what was read can be written");
            count += 1;
        }
        assert_eq!(count, list.len(), "a list ends before its count");
        if canonical {
            assert_eq!(copy.list().as_bytes(), list.as_bytes());
        }
        self.list = copy.into_buffer();
    }
}

fn check_name(name: &str) {
    assert!((1..=NAMESPACE_NAME_BYTES_MAX).contains(&name.len()) && name.is_ascii());
}

fn check_stamp(stamp: Option<ProposedStamp>) {
    assert!(stamp.is_none_or(|stamp| stamp.origin & ProposedStamp::ORIGIN_CLIENT_BIT != 0));
}
