//! Streams of frames, and the pieces in which they arrive.

use pinion_protocol::{Frames, HEADER_BYTES, PREFACE_BYTES, PREFACE_MAGIC, Preface, ProtocolError};

use super::judge::{Judge, Tally};
use super::messages;
use crate::fuzz::corpus::Kept;
use crate::fuzz::mutate::{mutate, number};
use crate::world::Random;

/// Frames strung to one stream, at most.
const STREAM_FRAMES_MAX: u64 = 24;

/// The limit on frames of most streams, in bytes.
const FRAME_BYTES_MAX: u32 = 1 << 20;

/// Bytes of garbage at most, where a frame is nothing but garbage.
const GARBAGE_BYTES_MAX: u64 = 160;

/// The longest frame that is drawn as often as others.
const SMALL_BYTES_MAX: usize = 600;

/// One frame in so many is a large one.
const LARGE_ONE_IN: u64 = 512;

/// Makes streams out of valid messages, mutated ones, and garbage.
#[derive(Debug)]
pub struct Streams {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
    /// Kept inputs, valid or not: never called intact.
    odd: Vec<Vec<u8>>,
    stream: Vec<u8>,
    frame_bytes_max: u32,
    opens_with_preface: bool,
    /// Every frame of the stream is as it was encoded.
    intact: bool,
}

impl Streams {
    /// Draws the messages that this generator works with, beside the kept ones.
    ///
    /// # Panics
    /// When a message does not survive being encoded and decoded.
    pub fn new(random: &mut Random, kept: &[Kept]) -> Self {
        let drawn = messages::draw(random);
        let (small, large) = drawn.into_iter().partition(|frame| frame.len() <= SMALL_BYTES_MAX);
        let odd = kept.iter().map(|kept| kept.bytes.clone()).filter(|bytes| bytes.len() <= SMALL_BYTES_MAX);
        Self {
            small,
            large,
            odd: odd.collect(),
            stream: Vec::new(),
            frame_bytes_max: FRAME_BYTES_MAX,
            opens_with_preface: false,
            intact: true,
        }
    }

    /// The stream drawn last.
    pub fn bytes(&self) -> &[u8] {
        &self.stream
    }

    /// The limit under which it is to be read.
    pub fn frame_bytes_max(&self) -> u32 {
        self.frame_bytes_max
    }

    /// Draws the next stream.
    pub fn next_stream(&mut self, random: &mut Random) {
        self.stream.clear();
        self.intact = true;
        self.frame_bytes_max = match random.below(8) {
            0 => 64 + random.below(512) as u32,
            _ => FRAME_BYTES_MAX,
        };
        self.opens_with_preface = random.one_in(8);
        if self.opens_with_preface {
            self.stream.extend_from_slice(&Preface::OURS.to_bytes());
            if random.one_in(2) {
                let at = random.below(PREFACE_BYTES as u64) as usize;
                self.stream[at] = number(random, PREFACE_BYTES) as u8;
            }
        }
        let all_intact = random.one_in(8);
        for _ in 0..1 + random.below(STREAM_FRAMES_MAX) {
            self.append_frame(random, all_intact);
        }
        if random.one_in(8) {
            let cut = random.below(self.stream.len() as u64) as usize;
            self.stream.truncate(cut);
        }
    }

    fn append_frame(&mut self, random: &mut Random, intact: bool) {
        let start = self.stream.len();
        if !intact && random.one_in(64) {
            self.intact = false;
            return self.append_garbage(random, start);
        }
        let odd = !intact && random.one_in(8);
        self.intact &= !odd;
        let frame = match odd {
            true => pick(random, &self.odd, &[]),
            false => pick(random, &self.small, &self.large),
        };
        self.stream.extend_from_slice(frame);
        let changes = match random.below(8) {
            _ if intact => 0,
            0 => 0,
            1..5 => 1,
            _ => 2 + random.below(3),
        };
        if changes == 0 {
            return;
        }
        self.intact = false;
        for _ in 0..changes {
            match random.below(8) {
                0 => self.change_header(random, start),
                // Behind the header: what is in it is changed on purpose only.
                _ => {
                    let donor = pick(random, &self.small, &[]);
                    let from = (start + HEADER_BYTES).min(self.stream.len());
                    mutate(random, &mut self.stream, from, donor);
                }
            }
        }
        if !random.one_in(16) {
            fix_length(&mut self.stream[start..]);
        }
    }

    fn append_garbage(&mut self, random: &mut Random, start: usize) {
        for _ in 0..random.below(GARBAGE_BYTES_MAX / 8) {
            self.stream.extend_from_slice(&random.word().to_le_bytes());
        }
        if random.one_in(2) && self.stream.len() >= start + HEADER_BYTES {
            // A header that is accepted before a body of garbage.
            let header = &mut self.stream[start..start + HEADER_BYTES];
            header[4..6].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
            header[6] = random.below(20) as u8;
            header[7] = random.below(4) as u8;
            header[28..].fill(0);
            fix_length(&mut self.stream[start..]);
        }
    }

    /// Sets one field of the header.
    fn change_header(&mut self, random: &mut Random, start: usize) {
        let length = self.stream.len() - start;
        let Some(header) = self.stream.get_mut(start..start + HEADER_BYTES) else { return };
        match random.below(8) {
            0 | 1 => header[6] = random.below(20) as u8,
            2 => header[7] = random.below(8) as u8,
            3 => header[7] ^= 1,
            4 => header[..4].copy_from_slice(&(number(random, length) as u32).to_le_bytes()),
            5 => {
                let longer = HEADER_BYTES as u64 + random.below(12) - 2;
                header[4..6].copy_from_slice(&(longer as u16).to_le_bytes());
            }
            6 => header[4..6].copy_from_slice(&(number(random, length) as u16).to_le_bytes()),
            _ => header[random.below(HEADER_BYTES as u64) as usize] = random.word() as u8,
        }
    }
}

fn pick<'a>(random: &mut Random, small: &'a [Vec<u8>], large: &'a [Vec<u8>]) -> &'a [u8] {
    let from = if !large.is_empty() && random.one_in(LARGE_ONE_IN) { large } else { small };
    &from[random.below(from.len() as u64) as usize]
}

/// Makes the header say how long the frame is.
fn fix_length(frame: &mut [u8]) {
    let length = (frame.len() as u32).to_le_bytes();
    if let Some(field) = frame.get_mut(..4) {
        field.copy_from_slice(&length);
    }
}

/// Where a stream is cut into chunks.
#[derive(Debug, Default)]
pub struct Chunks {
    /// The ends of all chunks, ascending; the last is the stream's.
    ends: Vec<usize>,
}

impl Chunks {
    /// Draws the places for a stream of so many bytes: mostly whole, else a few or very many.
    pub fn draw(&mut self, random: &mut Random, bytes: usize) {
        self.ends.clear();
        let step = match random.below(8) {
            0 => 4,
            1 => 48,
            2 | 3 => 400,
            _ => bytes.max(1) as u64,
        };
        let mut end = 0;
        loop {
            end += if step == bytes.max(1) as u64 { bytes.max(1) } else { 1 + random.below(step) as usize };
            if end >= bytes {
                self.ends.push(bytes);
                return;
            }
            self.ends.push(end);
        }
    }

    /// Chunks of one size.
    pub fn each(bytes: usize, size: usize) -> Self {
        let size = size.clamp(1, bytes.max(1));
        let mut ends: Vec<usize> = (1..=bytes / size).map(|chunk| chunk * size).collect();
        if ends.last() != Some(&bytes) {
            ends.push(bytes);
        }
        Self { ends }
    }

    /// The chunks of a stream.
    pub fn of<'a>(&self, stream: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        let mut start = 0;
        self.ends.iter().map(move |end| &stream[std::mem::replace(&mut start, *end)..*end])
    }
}

/// Feeds the stream drawn last.
pub(super) fn feed(streams: &Streams, chunks: &Chunks, random: &mut Random, tally: &mut Tally) {
    let way = Way {
        preface: streams.opens_with_preface,
        in_place: random.one_in(2),
        frame_bytes_max: streams.frame_bytes_max,
    };
    let refused = tally.refused;
    feed_stream(&streams.stream, chunks, way, tally);
    assert!(!streams.intact || tally.refused == refused, "an intact message was refused");
}

/// Feeds a kept input.
pub(super) fn feed_kept(name: &str, bytes: &[u8], size: usize, tally: &mut Tally) {
    for in_place in [false, true] {
        let way = Way {
            preface: bytes.starts_with(&PREFACE_MAGIC[..1]) && name.starts_with("preface"),
            in_place,
            frame_bytes_max: FRAME_BYTES_MAX,
        };
        feed_stream(bytes, &Chunks::each(bytes.len(), size), way, tally);
    }
}

/// How a stream is read.
#[derive(Debug, Clone, Copy)]
struct Way {
    /// As a server does: preface first.
    preface: bool,
    /// Whether frames that lie whole in a chunk are asked for first, as the server's look-ahead does.
    in_place: bool,
    frame_bytes_max: u32,
}

/// Where a plain walk over a stream finds frames, and how it ends.
///
/// This is the second opinion on what [`Frames`] does: no state, no chunks, nothing shared with it.
pub fn cut(stream: &[u8], frame_bytes_max: u32, mut frame: impl FnMut(&[u8], &[u8])) -> End {
    let mut rest = stream;
    loop {
        let Some(header) = rest.first_chunk::<HEADER_BYTES>() else { return End::Waits(rest.len()) };
        let frame_bytes = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let header_bytes = u32::from(u16::from_le_bytes([header[4], header[5]]));
        if (header_bytes as usize) < HEADER_BYTES || frame_bytes < header_bytes || header[28..] != [0; 4] {
            return End::BadHeader;
        }
        if frame_bytes > frame_bytes_max {
            return End::TooLong;
        }
        if (rest.len() as u64) < u64::from(frame_bytes) {
            return End::Waits(rest.len());
        }
        let (whole, behind) = rest.split_at(frame_bytes as usize);
        frame(&whole[..HEADER_BYTES], &whole[header_bytes as usize..]);
        rest = behind;
    }
}

/// How a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// So many bytes wait for more.
    Waits(usize),
    /// The header makes no sense.
    BadHeader,
    /// The frame is longer than allowed.
    TooLong,
}

thread_local! {
    static JUDGE: std::cell::RefCell<Judge> = std::cell::RefCell::new(Judge::default());
}

fn feed_stream(stream: &[u8], chunks: &Chunks, way: Way, tally: &mut Tally) {
    JUDGE.with_borrow_mut(|judge| {
        tally.streams += 1;
        let mut frames = Frames::new(way.frame_bytes_max);
        let mut awaits_preface = way.preface;
        // Where the next frame starts in the stream, by the frames that came out.
        let mut at = 0;
        let mut received = 0;
        let mut ended = None;
        'chunks: for mut chunk in chunks.of(stream) {
            received += chunk.len();
            if awaits_preface {
                match preface(stream, &mut frames, &mut chunk, received) {
                    Some(true) => (awaits_preface, at) = (false, PREFACE_BYTES),
                    Some(false) => {
                        tally.prefaces += 1;
                        return;
                    }
                    None => continue,
                }
                tally.prefaces += 1;
            }
            loop {
                let whole = if way.in_place { frames.next_in_place(&mut chunk) } else { None };
                let next = match whole {
                    Some(frame) => Ok(Some(frame)),
                    None => frames.next_frame(&mut chunk),
                };
                match next {
                    Ok(Some(frame)) => {
                        let end = at + frame.header.frame_bytes as usize;
                        let whole = stream.get(at..end).expect("a frame of bytes that came");
                        assert!(end <= received, "a frame before its end has come");
                        assert_eq!(frame.body, &whole[usize::from(frame.header.header_bytes)..]);
                        at = end;
                        tally.cut += 1;
                        let extension = &whole[HEADER_BYTES..usize::from(frame.header.header_bytes)];
                        assert_eq!(frame.extension, extension);
                        judge.extension(frame.extension, tally);
                        judge.frame(&frame.header, frame.body, tally);
                    }
                    Ok(None) => break,
                    Err(error) => {
                        assert_eq!(frames.next_frame(&mut chunk), Err(error.clone()), "failure stays");
                        assert!(frames.next_in_place(&mut chunk).is_none(), "failure stays");
                        assert!(error.is_fatal());
                        ended = Some(error);
                        break 'chunks;
                    }
                }
            }
            assert!(chunk.is_empty(), "a chunk is used up before more is wanted");
            assert_eq!(frames.waiting_bytes(), received - at, "what waits is what was received and not cut");
        }
        tally.gathered += frames.gathered_frames();
        if awaits_preface {
            return;
        }
        same_as_walk(stream, at, way, &frames, ended.as_ref());
        tally.bad_headers += u64::from(matches!(ended, Some(ProtocolError::BadHeader(_))));
        tally.too_long += u64::from(matches!(ended, Some(ProtocolError::FrameTooLarge { .. })));
    });
}

/// Takes the preface. `Some(true)`: it is ours to go on with; `Some(false)`: the connection ends.
fn preface(stream: &[u8], frames: &mut Frames, chunk: &mut &[u8], received: usize) -> Option<bool> {
    let expected = stream.first_chunk::<PREFACE_BYTES>();
    match frames.next_preface(chunk) {
        Ok(Some(preface)) => {
            assert_eq!(expected, Some(&preface.to_bytes()));
            let common = preface.lowest <= 1 && preface.highest >= 1;
            assert_eq!(preface.negotiate().is_ok(), common, "{preface:?}");
            Some(true)
        }
        Ok(None) => {
            assert!(received < PREFACE_BYTES);
            None
        }
        Err(error) => {
            assert_eq!(error, ProtocolError::BadPreface);
            let magic = stream.iter().zip(&PREFACE_MAGIC).any(|(found, wanted)| found != wanted);
            let upside_down = expected.is_some_and(|bytes| {
                u16::from_le_bytes([bytes[4], bytes[5]]) > u16::from_le_bytes([bytes[6], bytes[7]])
            });
            assert!(magic || upside_down, "a good preface was refused");
            Some(false)
        }
    }
}

/// The assembler has stopped where a plain walk stops, for the same reason.
fn same_as_walk(stream: &[u8], at: usize, way: Way, frames: &Frames, ended: Option<&ProtocolError>) {
    let start = if way.preface { PREFACE_BYTES } else { 0 };
    let mut walked = start;
    let end = cut(&stream[start..], way.frame_bytes_max, |header, _| {
        let bytes = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        walked += bytes as usize;
    });
    assert_eq!(at, walked, "the assembler cut other frames than a plain walk");
    match (end, ended) {
        (End::Waits(bytes), None) => assert_eq!(frames.waiting_bytes(), bytes),
        (End::BadHeader, Some(ProtocolError::BadHeader(_))) => assert_eq!(frames.failed_header(), None),
        (End::TooLong, Some(ProtocolError::FrameTooLarge { bytes, max })) => {
            assert!(bytes > max && *max == way.frame_bytes_max);
            let header = frames.failed_header().expect("a frame that is only too long has an id");
            assert_eq!(header.request_id.to_le_bytes(), stream[at + 8..at + 16]);
        }
        (end, ended) => panic!("a plain walk ends with {end:?}, the assembler with {ended:?}"),
    }
}
