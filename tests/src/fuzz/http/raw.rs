//! A text as a request, the way hyper gives it to the gateway: with a head made of its types, which hold
//! nothing that cannot stand in one, and a body that comes in pieces.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Uri};

use crate::world::Random;

/// A request.
pub type Request = hyper::Request<Pieces>;

/// A body.
#[derive(Debug)]
pub struct Pieces {
    pieces: VecDeque<Bytes>,
    /// Whether its length was told before.
    told: bool,
    /// Whether the connection ends where more should come.
    breaks: bool,
}

/// How a connection broke.
#[derive(Debug)]
pub struct Broken;

/// Headers of a head, as the gateway has hyper count them.
const HEADERS_MAX: usize = 64;

/// Where the body begins; the end if there is none.
pub(super) fn body_at(text: &[u8]) -> usize {
    text.windows(4).position(|end| end == b"\r\n\r\n").map_or(text.len(), |at| at + 4)
}

/// The request that a text is; `None` if hyper would not take it for one.
pub fn read(text: &[u8], random: &mut Random) -> Option<Request> {
    let (head, body) = text.split_at(body_at(text));
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let line = lines.next()?;
    let first = line.iter().position(|byte| *byte == b' ')?;
    let last = line.iter().rposition(|byte| *byte == b' ')?;
    let target = line.get(first + 1..last)?;
    let mut request = hyper::Request::new(Pieces::cut(body, random));
    *request.method_mut() = Method::from_bytes(&line[..first]).ok()?;
    *request.uri_mut() = Uri::try_from(target).ok()?;
    for line in lines.filter(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    (request.headers().len() <= HEADERS_MAX).then_some(request)
}

impl Pieces {
    /// A body that comes whole, and its length is told.
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self { pieces: VecDeque::from([bytes.into()]), told: true, breaks: false }
    }

    fn cut(mut bytes: &[u8], random: &mut Random) -> Self {
        let most = [1, 7, 100, u64::MAX][random.below(4) as usize];
        let mut pieces = VecDeque::new();
        while !bytes.is_empty() {
            let length = (1 + random.below(most)).min(bytes.len() as u64) as usize;
            pieces.push_back(Bytes::copy_from_slice(&bytes[..length]));
            bytes = &bytes[length..];
        }
        Self { pieces, told: random.one_in(2), breaks: random.one_in(32) }
    }

    /// Its bytes.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.pieces.iter().flatten().copied().collect()
    }

    pub(super) fn breaks(&self) -> bool {
        self.breaks
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if std::mem::take(&mut self.breaks) => Poll::Ready(Some(Err(Broken))),
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        let left = self.pieces.iter().map(Bytes::len).sum::<usize>() as u64;
        match (self.told, self.breaks) {
            (false, _) => SizeHint::default(),
            (true, false) => SizeHint::with_exact(left),
            (true, true) => SizeHint::with_exact(left + 1),
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is broken")
    }
}

impl std::error::Error for Broken {}
