//! Cutting received chunks into frames.
//!
//! A frame that lies inside one chunk is handed out in place. Only a frame that spans chunks is
//! gathered, once, in the assembler's own buffer, which grows by what was received and never by
//! what a header claims: a peer that announces a long frame and sends nothing costs nothing.

use crate::error::ProtocolError;
use crate::header::{HEADER_BYTES, Header, PREFACE_BYTES, Preface};

/// What the assembler's buffer keeps allocated between gathered frames, in bytes.
pub const GATHERED_BYTES_KEPT_MAX: usize = 64 << 10;

/// A whole frame, borrowed from the chunk or from the assembler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its header.
    pub header: Header,
    /// What the header has beyond what every header has; mostly nothing. See [`crate::Extension`].
    pub extension: &'a [u8],
    /// What follows the header.
    pub body: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Of the bytes of a whole frame.
    #[inline]
    fn of(header: Header, frame: &'a [u8]) -> Self {
        let (front, body) = frame.split_at(usize::from(header.header_bytes));
        Self { header, extension: &front[HEADER_BYTES..], body }
    }
}

/// Cuts the bytes of one connection into frames.
///
/// ```
/// # use pinion_protocol::{Frames, ProtocolError};
/// # fn on_receive(frames: &mut Frames, chunk: &[u8]) -> Result<(), ProtocolError> {
/// let mut rest = chunk;
/// while let Some(frame) = frames.next_frame(&mut rest)? {
///     println!("opcode {}: {} bytes", frame.header.opcode, frame.body.len());
/// }
/// assert!(rest.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Frames {
    frame_bytes_max: u32,
    /// The front of a frame or preface whose end has not arrived, or the frame handed out last.
    gathered: Vec<u8>,
    /// Whether `gathered` was handed out: it is emptied before anything else is read.
    handed_out: bool,
    /// Why the connection cannot go on.
    failed: Option<ProtocolError>,
    gathered_frames: u64,
}

impl Frames {
    /// An assembler at the start of a frame, or of the preface (see [`Frames::next_preface`]).
    pub const fn new(frame_bytes_max: u32) -> Self {
        Self { frame_bytes_max, gathered: Vec::new(), handed_out: false, failed: None, gathered_frames: 0 }
    }

    /// The next whole frame; takes its bytes from the front of `chunk`. `None` when `chunk` has been
    /// used up: receive more. Call until then.
    ///
    /// # Errors
    /// [`ProtocolError::BadHeader`] or [`ProtocolError::FrameTooLarge`]: the border of the next
    /// frame is lost; the same error comes ever after. See [`Frames::failed_header`].
    pub fn next_frame<'f, 'c: 'f>(
        &'f mut self,
        chunk: &mut &'c [u8],
    ) -> Result<Option<Frame<'f>>, ProtocolError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.empty_handed_out();
        if self.gathered.is_empty() {
            if let Some(frame) = self.next_in_place(chunk) {
                return Ok(Some(frame));
            }
            let wanted = self.header(chunk)?.map_or(HEADER_BYTES, |header| header.frame_bytes as usize);
            self.gather(chunk, wanted);
            return Ok(None);
        }
        if self.gathered.len() < HEADER_BYTES {
            self.gather(chunk, HEADER_BYTES);
        }
        let front = std::mem::take(&mut self.gathered);
        let header = self.header(&front);
        self.gathered = front;
        let Some(header) = header? else { return Ok(None) };
        self.gather(chunk, header.frame_bytes as usize);
        if self.gathered.len() < header.frame_bytes as usize {
            return Ok(None);
        }
        self.handed_out = true;
        self.gathered_frames += 1;
        Ok(Some(Frame::of(header, &self.gathered)))
    }

    /// The next frame if it lies whole in `chunk`, where it stays: several can be looked at before
    /// the first is dealt with. `None`: whatever comes next is for [`Frames::next_frame`].
    #[inline]
    pub fn next_in_place<'c>(&self, chunk: &mut &'c [u8]) -> Option<Frame<'c>> {
        if !(self.gathered.is_empty() || self.handed_out) || self.failed.is_some() {
            return None;
        }
        let header = Header::read(chunk).ok().flatten()?;
        if header.frame_bytes > self.frame_bytes_max {
            return None;
        }
        let (frame, rest) = chunk.split_at_checked(header.frame_bytes as usize)?;
        *chunk = rest;
        Some(Frame::of(header, frame))
    }

    /// The preface at the start of a connection; takes its bytes from the front of `chunk`. `None`
    /// when more are needed. Call before [`Frames::next_frame`], on the server's side only.
    ///
    /// # Errors
    /// [`ProtocolError::BadPreface`]: close.
    pub fn next_preface(&mut self, chunk: &mut &[u8]) -> Result<Option<Preface>, ProtocolError> {
        self.gather(chunk, PREFACE_BYTES);
        let preface = Preface::read(&self.gathered)?;
        if preface.is_some() {
            self.gathered.clear();
        }
        Ok(preface)
    }

    /// The header that could not be accepted, when enough of it can be trusted to answer by its
    /// request id: after [`ProtocolError::FrameTooLarge`].
    pub fn failed_header(&self) -> Option<Header> {
        match self.failed {
            Some(ProtocolError::FrameTooLarge { .. }) => Header::read(&self.gathered).ok().flatten(),
            _ => None,
        }
    }

    /// The header of the frame that waits for its rest, if all of it has come.
    pub fn waiting_header(&self) -> Option<Header> {
        if self.handed_out { None } else { Header::read(&self.gathered).ok().flatten() }
    }

    /// Bytes that wait for the rest of their frame.
    pub fn waiting_bytes(&self) -> usize {
        if self.handed_out { 0 } else { self.gathered.len() }
    }

    /// Frames that spanned chunks and were copied.
    pub const fn gathered_frames(&self) -> u64 {
        self.gathered_frames
    }

    /// Changes the limit, from the next header on (a client learns the server's in HELLO).
    pub fn set_frame_bytes_max(&mut self, frame_bytes_max: u32) {
        self.frame_bytes_max = frame_bytes_max;
    }

    /// The header at the front of `bytes`, within the limit. Remembers failure.
    fn header(&mut self, bytes: &[u8]) -> Result<Option<Header>, ProtocolError> {
        let error = match Header::read(bytes) {
            Ok(Some(header)) if header.frame_bytes > self.frame_bytes_max => {
                self.gathered = bytes[..HEADER_BYTES].to_vec();
                ProtocolError::FrameTooLarge { bytes: header.frame_bytes, max: self.frame_bytes_max }
            }
            Ok(header) => return Ok(header),
            Err(error) => error,
        };
        self.failed = Some(error.clone());
        Err(error)
    }

    /// Moves bytes from `chunk` until `wanted` are gathered or the chunk is used up.
    fn gather(&mut self, chunk: &mut &[u8], wanted: usize) {
        let missing = wanted.saturating_sub(self.gathered.len());
        let (taken, rest) = chunk.split_at(missing.min(chunk.len()));
        let have = self.gathered.len() + taken.len();
        if have > self.gathered.capacity() {
            // Doubling keeps the copies linear; never beyond the frame, and at most twice what
            // has been received.
            let reserved = (2 * have).min(wanted) - self.gathered.len();
            self.gathered.reserve_exact(reserved);
        }
        self.gathered.extend_from_slice(taken);
        *chunk = rest;
    }

    fn empty_handed_out(&mut self) {
        if self.handed_out {
            self.handed_out = false;
            self.gathered.clear();
            if self.gathered.capacity() > GATHERED_BYTES_KEPT_MAX {
                self.gathered = Vec::new();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Request;

    fn ping(bytes: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        Request::Ping(bytes).encode(1, 0, 0, &mut frame).unwrap();
        frame
    }

    #[test]
    fn a_frame_inside_a_chunk_is_not_copied() {
        let mut stream = ping(b"one");
        stream.extend(ping(b"two"));
        stream.extend(&ping(b"three")[..20]);
        let mut frames = Frames::new(1 << 20);
        let mut rest = stream.as_slice();
        for _ in 0..2 {
            let frame = frames.next_frame(&mut rest).unwrap().unwrap();
            assert!(stream.as_ptr_range().contains(&frame.body.as_ptr()));
        }
        assert_eq!(frames.next_frame(&mut rest), Ok(None));
        assert_eq!((frames.waiting_bytes(), frames.gathered_frames()), (20, 0));
        assert_eq!(frames.waiting_header(), None);
        let tail = ping(b"three");
        let mut rest = &tail[20..];
        assert_eq!(frames.next_frame(&mut &rest[..15]), Ok(None));
        assert_eq!(frames.waiting_header().map(|header| header.request_id), Some(1));
        rest = &rest[15..];
        assert!(frames.next_frame(&mut rest).unwrap().is_some());
        assert_eq!((frames.waiting_bytes(), frames.gathered_frames()), (0, 1));
        assert_eq!(frames.waiting_header(), None);
    }

    #[test]
    fn frames_in_place_end_where_something_else_begins() {
        let mut stream = ping(b"one");
        stream.extend(ping(b"two"));
        let whole = stream.len();
        stream.extend(&ping(b"three")[..20]);
        let mut frames = Frames::new(100);
        let mut rest = stream.as_slice();
        let taken: Vec<_> = std::iter::from_fn(|| frames.next_in_place(&mut rest)).collect();
        assert_eq!(taken.iter().map(|frame| &frame.body[8..]).collect::<Vec<_>>(), [b"one", b"two"]);
        assert_eq!(rest.len(), stream.len() - whole);
        assert_eq!(frames.next_frame(&mut rest), Ok(None));
        let tail = ping(b"three");
        let mut rest = &tail[20..];
        assert_eq!(frames.next_in_place(&mut rest), None, "it began in another chunk");
        assert!(frames.next_frame(&mut rest).unwrap().is_some());
        assert!(frames.next_in_place(&mut stream.as_slice()).is_some());
        let long = ping(&[0; 100]);
        assert_eq!(frames.next_in_place(&mut long.as_slice()), None);
        frames.next_frame(&mut long.as_slice()).unwrap_err();
        assert_eq!(frames.next_in_place(&mut stream.as_slice()), None, "the border is lost");
    }

    #[test]
    fn memory_follows_what_was_received_not_what_was_claimed() {
        let mut frame = ping(&[7; 60_000]);
        frame[..4].copy_from_slice(&(1u32 << 20).to_le_bytes());
        let mut frames = Frames::new(1 << 20);
        for (index, byte) in frame.iter().enumerate() {
            assert_eq!(frames.next_frame(&mut &[*byte][..]), Ok(None));
            assert!(frames.gathered.capacity() <= 2 * (index + 1));
        }
        let zeros = vec![0; 1 << 20];
        let mut rest = &zeros[frame.len()..];
        assert!(frames.next_frame(&mut rest).unwrap().is_some());
        assert!(frames.gathered.capacity() <= 1 << 20);
        assert_eq!(frames.next_frame(&mut &[][..]), Ok(None));
        assert!(frames.gathered.capacity() <= GATHERED_BYTES_KEPT_MAX, "big memory is given back");
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_by_its_header() {
        let frame = ping(&[7; 100]);
        for split in [0, 5, 31] {
            let mut frames = Frames::new(100);
            assert_eq!(frames.next_frame(&mut &frame[..split]), Ok(None));
            let error = frames.next_frame(&mut &frame[split..]).unwrap_err();
            assert_eq!(error, ProtocolError::FrameTooLarge { bytes: 140, max: 100 });
            assert_eq!(frames.next_frame(&mut &[][..]), Err(error));
            assert_eq!(frames.failed_header().unwrap().request_id, 1);
        }
    }

    #[test]
    fn a_preface_may_come_in_pieces() {
        let mut stream = Preface::OURS.to_bytes().to_vec();
        stream.extend(ping(b"x"));
        let mut frames = Frames::new(100);
        assert_eq!(frames.next_preface(&mut &stream[..3]), Ok(None));
        let mut rest = &stream[3..];
        assert_eq!(frames.next_preface(&mut rest), Ok(Some(Preface::OURS)));
        assert_eq!(frames.next_frame(&mut rest).unwrap().unwrap().body[8..], *b"x");
        assert_eq!(Frames::new(100).next_preface(&mut &b"GET"[..]), Err(ProtocolError::BadPreface));
    }
}
