//! Cutting received chunks into commands.
//!
//! A command is an array of strings, `*2 $3 GET $1 k` with line ends between, or a line of words. One
//! that lies inside a chunk is handed out in place; only one that spans chunks is gathered, once, in
//! memory that grows by what was received and never by what a length claims. Reading goes on where it
//! stood when the chunk ended, so that a command in many pieces costs no more than in one.
//!
//! Limits: [`ARGS_MAX`] arguments, [`LINE_BYTES_MAX`] bytes of a line, and the caller's limit on the
//! bytes of a command. Failure: the border of the next command is lost, and the same error comes ever
//! after. Its text is what Redis 7 says.

use super::inline::{self, Part};
use super::number::parse_integer;
use super::reply;
use crate::assembler::GATHERED_BYTES_KEPT_MAX;

/// The most arguments of a command, its name included.
pub const ARGS_MAX: usize = 1 << 20;

/// The longest line in bytes: an inline command, or the length of what follows.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// Places of arguments that stay allocated between commands.
const SPANS_KEPT_MAX: usize = 4_096;

/// Why a connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The number of arguments makes no sense.
    #[error("Protocol error: invalid multibulk length")]
    BadCount,
    /// The length of an argument makes no sense, or is over the limit.
    #[error("Protocol error: invalid bulk length")]
    BadLength,
    /// Something else stands where an argument should begin.
    #[error("Protocol error: expected '$', got '{}'", char::from(*.0))]
    NoArgument(u8),
    /// The line with the number of arguments does not end.
    #[error("Protocol error: too big mbulk count string")]
    LongCount,
    /// The line with the length of an argument does not end.
    #[error("Protocol error: too big bulk count string")]
    LongLength,
    /// An inline command does not end.
    #[error("Protocol error: too big inline request")]
    LongLine,
    /// A quote in an inline command is not closed.
    #[error("Protocol error: unbalanced quotes in request")]
    OpenQuote,
    /// All arguments together are over the limit.
    #[error("Protocol error: the command is longer than {max} bytes")]
    TooLarge {
        /// The limit in bytes.
        max: u32,
    },
}

impl CommandError {
    /// The text to answer. Not always text: it may quote what was received.
    pub fn text(&self) -> Vec<u8> {
        match self {
            Self::NoArgument(byte) => [b"Protocol error: expected '$', got '", &[*byte][..], b"'"].concat(),
            other => other.to_string().into_bytes(),
        }
    }
}

/// Where an argument lies in its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u32,
    bytes: u32,
}

/// A command with at least one argument, its name.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    bytes: &'a [u8],
    spans: &'a [Span],
}

impl<'a> Command<'a> {
    /// The first argument.
    #[inline]
    pub fn name(&self) -> &'a [u8] {
        self.arg(0)
    }

    /// How many arguments there are, the name included.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "a command has a name")]
    pub const fn len(&self) -> usize {
        self.spans.len()
    }

    /// An argument; empty beyond the last.
    #[inline]
    pub fn arg(&self, index: usize) -> &'a [u8] {
        self.get(index).unwrap_or_default()
    }

    /// An argument, if there is one.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let Span { start, bytes } = *self.spans.get(index)?;
        self.bytes.get(start as usize..start as usize + bytes as usize)
    }

    /// The arguments from `index` on.
    pub fn args_from(&self, index: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + Clone + use<'a> {
        let bytes = self.bytes;
        let spans = self.spans.get(index..).unwrap_or_default();
        spans.iter().map(move |span| &bytes[span.start as usize..span.start as usize + span.bytes as usize])
    }

    /// The whole command as an array of strings, to be sent on.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

/// Appends a command as an array of strings.
pub fn append_command<'a>(out: &mut Vec<u8>, args: impl ExactSizeIterator<Item = &'a [u8]>) {
    reply::array(out, args.len());
    args.for_each(|arg| reply::bulk(out, arg));
}

/// How far reading a command has come.
#[derive(Debug, Clone, Copy, Default)]
struct Progress {
    /// Everything before was understood.
    at: usize,
    /// Everything before does not end the line that begins at `at`.
    searched: usize,
    /// Arguments to come; 0 before their number has been read.
    args_left: u32,
    /// Bytes of the argument to come, if its length has been read.
    argument: Option<u32>,
}

/// What [`Commands::go_on`] came to.
#[derive(Clone, Copy)]
enum Step {
    /// So many more bytes belong to the command, or the least there is of it: one.
    More(usize),
    /// The command ends here.
    Array(usize),
    /// An inline command ends here; its words have been written out as an array.
    Inline(usize),
    /// Nothing was said up to here.
    Nothing(usize),
}

/// Where the command handed out last lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Handed {
    /// In the caller's chunk, or there was none.
    InPlace,
    /// In [`Commands::gathered`], which is emptied before anything else is read.
    Gathered,
    /// In [`Commands::inline`].
    Inline,
}

/// What [`Commands::find`] came to.
enum Found<'c> {
    /// A command, here in the chunk.
    InPlace(&'c [u8]),
    /// A command, where [`Commands::handed`] says.
    Handed,
    /// The chunk was used up.
    Nothing,
}

/// Cuts the bytes of one connection into commands.
#[derive(Debug)]
pub struct Commands {
    bytes_max: u32,
    /// The front of a command whose end has not arrived, or the one handed out last.
    gathered: Vec<u8>,
    handed: Handed,
    /// Whether what was handed out last comes again.
    again: bool,
    progress: Progress,
    spans: Vec<Span>,
    /// The inline command handed out last, as an array.
    inline: Vec<u8>,
    failed: Option<CommandError>,
    gathered_commands: u64,
}

impl Commands {
    /// A cutter at the start of a command, for commands of at most so many bytes.
    pub const fn new(bytes_max: u32) -> Self {
        Self {
            bytes_max,
            gathered: Vec::new(),
            handed: Handed::InPlace,
            again: false,
            progress: Progress { at: 0, searched: 0, args_left: 0, argument: None },
            spans: Vec::new(),
            inline: Vec::new(),
            failed: None,
            gathered_commands: 0,
        }
    }

    /// The next whole command; takes its bytes from the front of `chunk`. `None` when `chunk` has been
    /// used up: receive more. Call until then.
    ///
    /// # Errors
    /// The border of the next command is lost; the same error comes ever after.
    pub fn next_command<'f, 'c: 'f>(
        &'f mut self,
        chunk: &mut &'c [u8],
    ) -> Result<Option<Command<'f>>, CommandError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        if !std::mem::take(&mut self.again) {
            self.begin_anew();
            match self.find(chunk)? {
                Found::InPlace(bytes) => return Ok(Some(Command { bytes, spans: &self.spans })),
                Found::Handed => {}
                Found::Nothing => return Ok(None),
            }
        }
        let bytes = if self.handed == Handed::Inline { &self.inline } else { &self.gathered };
        Ok(Some(Command { bytes, spans: &self.spans }))
    }

    /// Has the command handed out last handed out again by the next call. False if that lay in the
    /// caller's chunk: then the next chunk must begin with it.
    pub fn again(&mut self) -> bool {
        self.again = self.handed != Handed::InPlace;
        self.again
    }

    /// Bytes that wait for the rest of their command, and what was noted of where its arguments lie.
    pub fn waiting_bytes(&self) -> usize {
        if self.handed == Handed::Gathered || self.gathered.is_empty() {
            return 0;
        }
        self.gathered.len() + size_of_val(&self.spans[..])
    }

    /// Commands that spanned chunks and were copied.
    pub const fn gathered_commands(&self) -> u64 {
        self.gathered_commands
    }

    /// Forgets what was handed out.
    fn begin_anew(&mut self) {
        match std::mem::replace(&mut self.handed, Handed::InPlace) {
            Handed::InPlace => {}
            Handed::Gathered => {
                self.gathered.clear();
                if self.gathered.capacity() > GATHERED_BYTES_KEPT_MAX {
                    self.gathered = Vec::new();
                }
            }
            Handed::Inline => self.inline = Vec::new(),
        }
        if self.gathered.is_empty() {
            self.spans.clear();
            if self.spans.capacity() > SPANS_KEPT_MAX {
                self.spans = Vec::new();
            }
        }
    }

    /// Reads until a command is whole or the chunk is used up.
    fn find<'c>(&mut self, chunk: &mut &'c [u8]) -> Result<Found<'c>, CommandError> {
        loop {
            let in_place = self.gathered.is_empty();
            let step = if in_place {
                self.go_on(chunk)?
            } else {
                let front = std::mem::take(&mut self.gathered);
                let step = self.go_on(&front);
                self.gathered = front;
                step?
            };
            match step {
                Step::More(_) if chunk.is_empty() => return Ok(Found::Nothing),
                // All of a chunk that was read in vain belongs to one command.
                Step::More(missing) => self.take(chunk, if in_place { chunk.len() } else { missing }),
                Step::Nothing(end) | Step::Array(end) | Step::Inline(end) => {
                    self.progress = Progress::default();
                    let bytes = if in_place {
                        let (bytes, rest) = chunk.split_at(end);
                        *chunk = rest;
                        bytes
                    } else {
                        debug_assert_eq!(end, self.gathered.len(), "no more was taken than was missing");
                        &[]
                    };
                    self.gathered_commands += u64::from(!in_place && !matches!(step, Step::Nothing(_)));
                    match step {
                        Step::Array(_) if in_place => return Ok(Found::InPlace(bytes)),
                        Step::Array(_) => {
                            self.handed = Handed::Gathered;
                            return Ok(Found::Handed);
                        }
                        _ => self.gathered.clear(),
                    }
                    if matches!(step, Step::Inline(_)) {
                        self.handed = Handed::Inline;
                        return Ok(Found::Handed);
                    }
                }
            }
        }
    }

    /// Moves bytes from the chunk behind what was gathered.
    fn take(&mut self, chunk: &mut &[u8], wanted: usize) {
        let (taken, rest) = chunk.split_at(wanted.min(chunk.len()));
        let have = self.gathered.len() + taken.len();
        if have > self.gathered.capacity() {
            // Doubling keeps the copies linear; at most twice what has been received.
            self.gathered.reserve_exact(2 * have - self.gathered.len());
        }
        self.gathered.extend_from_slice(taken);
        *chunk = rest;
    }

    /// Reads on in `bytes`, which begin with the command. Remembers failure.
    fn go_on(&mut self, bytes: &[u8]) -> Result<Step, CommandError> {
        let step = match bytes.first() {
            Some(b'*') => self.array(bytes),
            Some(_) => self.line(bytes),
            None => Ok(Step::More(1)),
        };
        step.inspect_err(|error| self.failed = Some(*error))
    }

    fn array(&mut self, bytes: &[u8]) -> Result<Step, CommandError> {
        if self.progress.args_left == 0 {
            let Some(line) = self.header(bytes, CommandError::LongCount)? else {
                return Ok(Step::More(1));
            };
            match parse_integer(&line[1..]) {
                Some(..=0) => return Ok(Step::Nothing(self.progress.at)),
                Some(count) if count <= ARGS_MAX as i64 => self.progress.args_left = count as u32,
                _ => return Err(CommandError::BadCount),
            }
        }
        loop {
            let length = match self.progress.argument {
                Some(length) => length,
                None => {
                    let Some(line) = self.header(bytes, CommandError::LongLength)? else {
                        return Ok(Step::More(1));
                    };
                    // An empty line: the line end itself stands there.
                    let (kind, digits) = line.split_first().unwrap_or((&b'\r', &[]));
                    if *kind != b'$' {
                        return Err(CommandError::NoArgument(*kind));
                    }
                    let length = parse_integer(digits).and_then(|length| u32::try_from(length).ok());
                    let length = length.filter(|length| *length <= self.bytes_max);
                    *self.progress.argument.insert(length.ok_or(CommandError::BadLength)?)
                }
            };
            let start = self.progress.at;
            let end = start + length as usize + 2;
            if end > self.bytes_max as usize {
                return Err(CommandError::TooLarge { max: self.bytes_max });
            }
            if bytes.len() < end {
                return Ok(Step::More(end - bytes.len()));
            }
            self.spans.push(Span { start: start as u32, bytes: length });
            self.progress.at = end;
            self.progress.searched = end;
            self.progress.argument = None;
            self.progress.args_left -= 1;
            if self.progress.args_left == 0 {
                return Ok(Step::Array(end));
            }
        }
    }

    /// The line at the front of what is not understood yet, without its end; `None` if it has not come.
    fn header<'b>(&mut self, bytes: &'b [u8], long: CommandError) -> Result<Option<&'b [u8]>, CommandError> {
        let progress = &mut self.progress;
        let from = progress.searched.max(progress.at);
        let found = bytes.get(from..).and_then(|rest| rest.iter().position(|byte| *byte == b'\r'));
        // The byte after it belongs to the line's end, whatever it is.
        match found.map(|found| from + found) {
            Some(end) if end - progress.at > LINE_BYTES_MAX => Err(long),
            Some(end) if end + 1 < bytes.len() => {
                let line = &bytes[progress.at..end];
                progress.at = end + 2;
                progress.searched = progress.at;
                Ok(Some(line))
            }
            Some(end) => {
                progress.searched = end;
                Ok(None)
            }
            None if bytes.len() - progress.at.min(bytes.len()) > LINE_BYTES_MAX => Err(long),
            None => {
                progress.searched = bytes.len();
                Ok(None)
            }
        }
    }

    /// An inline command.
    fn line(&mut self, bytes: &[u8]) -> Result<Step, CommandError> {
        let from = self.progress.searched;
        let found = bytes.get(from..).and_then(|rest| rest.iter().position(|byte| *byte == b'\n'));
        let Some(end) = found.map(|found| from + found) else {
            self.progress.searched = bytes.len();
            if bytes.len() > LINE_BYTES_MAX {
                return Err(CommandError::LongLine);
            }
            return Ok(Step::More(1));
        };
        if end > LINE_BYTES_MAX {
            return Err(CommandError::LongLine);
        }
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        let mut words: Vec<Vec<u8>> = Vec::new();
        let balanced = inline::split(line, |part| match part {
            Part::Begin => words.push(Vec::new()),
            Part::Byte(byte) => words.last_mut().expect("a word has begun").push(byte),
            Part::End => {}
        });
        if !balanced {
            return Err(CommandError::OpenQuote);
        }
        if words.is_empty() {
            return Ok(Step::Nothing(end + 1));
        }
        self.inline = Vec::new();
        append_command(&mut self.inline, words.iter().map(Vec::as_slice));
        self.spans.clear();
        let mut at = self.inline.len();
        // From the last to the first: each ends two bytes before what follows it.
        for word in words.iter().rev() {
            let start = at - 2 - word.len();
            self.spans.push(Span { start: start as u32, bytes: word.len() as u32 });
            at = start - 3 - decimal_digits(word.len());
        }
        self.spans.reverse();
        Ok(Step::Inline(end + 1))
    }
}

/// How many digits a length has.
const fn decimal_digits(number: usize) -> usize {
    match number.checked_ilog10() {
        Some(log) => log as usize + 1,
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(commands: &mut Commands, mut chunk: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, CommandError> {
        let mut found = Vec::new();
        while let Some(command) = commands.next_command(&mut chunk)? {
            found.push(command.args_from(0).map(<[u8]>::to_vec).collect());
        }
        assert!(chunk.is_empty(), "a chunk is used up before more is wanted");
        Ok(found)
    }

    fn whole(bytes: &[u8]) -> Result<Vec<Vec<Vec<u8>>>, CommandError> {
        all(&mut Commands::new(1 << 20), bytes)
    }

    const STREAM: &[u8] = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\nPING\r\n\r\n*0\r\n*-1\r\n*1\r\n$0\r\n\r\n  SET 'a b'  \"\\x0a\"\n*3\r\n$3\r\nSET\r\n$2\r\n\r\n\r\n$12\r\n*1\r\n$4\r\nPING\r\n";

    #[test]
    fn commands_are_the_same_at_every_split() {
        let expected = whole(STREAM).unwrap();
        let texts: Vec<Vec<&[u8]>> =
            expected.iter().map(|args| args.iter().map(Vec::as_slice).collect()).collect();
        assert_eq!(
            texts,
            [
                vec![&b"GET"[..], b"k"],
                vec![b"PING"],
                vec![b""],
                vec![b"SET", b"a b", b"\n"],
                vec![b"SET", b"\r\n", b"*1\r\n$4\r\nPING"],
            ]
        );
        for split in 0..=STREAM.len() {
            let mut commands = Commands::new(1 << 20);
            let mut found = all(&mut commands, &STREAM[..split]).unwrap();
            found.extend(all(&mut commands, &STREAM[split..]).unwrap());
            assert_eq!(found, expected, "split at {split}");
            assert_eq!(commands.waiting_bytes(), 0);
        }
        let mut commands = Commands::new(1 << 20);
        let mut found = Vec::new();
        for byte in STREAM {
            found.extend(all(&mut commands, &[*byte]).unwrap());
        }
        assert_eq!(found, expected);
    }

    #[test]
    fn a_command_inside_a_chunk_is_not_copied_and_can_be_handed_out_again() {
        let mut commands = Commands::new(1 << 20);
        let mut rest = STREAM;
        let command = commands.next_command(&mut rest).unwrap().unwrap();
        assert!(STREAM.as_ptr_range().contains(&command.arg(1).as_ptr()));
        assert_eq!((command.len(), command.get(2), command.arg(2)), (2, None, &b""[..]));
        assert!(!commands.again(), "it lies in the chunk");
        let (front, back) = STREAM.split_at(7);
        let mut commands = Commands::new(1 << 20);
        assert!(commands.next_command(&mut &*front).unwrap().is_none());
        assert_eq!(commands.waiting_bytes(), 7);
        let mut rest = back;
        for round in 0..3 {
            let command = commands.next_command(&mut rest).unwrap().unwrap();
            assert_eq!((command.name(), command.arg(1)), (&b"GET"[..], &b"k"[..]));
            assert_eq!(command.bytes(), &STREAM[..20]);
            assert!(round == 2 || commands.again());
        }
        assert_eq!(commands.gathered_commands(), 1);
        for _ in 0..2 {
            let inline = commands.next_command(&mut rest).unwrap().unwrap();
            assert_eq!(inline.bytes(), b"*1\r\n$4\r\nPING\r\n");
            assert!(commands.again());
        }
    }

    #[test]
    fn what_is_no_command_is_refused_as_redis_does() {
        let long = vec![b'1'; LINE_BYTES_MAX + 1];
        let with = |front: &[u8]| [front, &long].concat();
        let cases: [(Vec<u8>, CommandError); 14] = [
            (b"*x\r\n".to_vec(), CommandError::BadCount),
            (b"*\r\n".to_vec(), CommandError::BadCount),
            (b"*1048577\r\n".to_vec(), CommandError::BadCount),
            (b"*99999999999999999999\r\n".to_vec(), CommandError::BadCount),
            (b"*1\r\n:1\r\n".to_vec(), CommandError::NoArgument(b':')),
            (b"*1\r\n\r\n".to_vec(), CommandError::NoArgument(b'\r')),
            (b"*1\r\n$-1\r\n".to_vec(), CommandError::BadLength),
            (b"*1\r\n$a\r\n".to_vec(), CommandError::BadLength),
            (b"*1\r\n$1048577\r\n".to_vec(), CommandError::BadLength),
            (b"*2\r\n$3\r\nGET\r\n$1048576\r\n".to_vec(), CommandError::TooLarge { max: 1 << 20 }),
            (with(b"*"), CommandError::LongCount),
            (with(b"*1\r\n$"), CommandError::LongLength),
            (with(b"GET "), CommandError::LongLine),
            (b"SET \"a\r\n".to_vec(), CommandError::OpenQuote),
        ];
        for (bytes, error) in cases {
            let mut commands = Commands::new(1 << 20);
            assert_eq!(all(&mut commands, &bytes).unwrap_err(), error);
            assert_eq!(all(&mut commands, b"PING\r\n").unwrap_err(), error, "failure stays");
            let mut commands = Commands::new(1 << 20);
            let in_pieces = bytes.iter().find_map(|byte| all(&mut commands, &[*byte]).err());
            assert_eq!(in_pieces, Some(error), "byte by byte");
        }
    }

    #[test]
    fn memory_follows_what_was_received_not_what_was_claimed() {
        let mut commands = Commands::new(1 << 20);
        let mut received = 0;
        let claim = b"*1000000\r\n$1000000\r\n";
        for byte in claim.iter().chain(&[7; 50_000]) {
            assert!(commands.next_command(&mut &[*byte][..]).unwrap().is_none());
            received += 1;
            assert!(commands.gathered.capacity() <= 2 * received);
            assert!(commands.spans.capacity() <= received);
        }
        let rest = vec![0; 1_000_000 - 50_000 + 2];
        assert!(commands.next_command(&mut &rest[..]).unwrap().is_none(), "999,999 are to come");
        let mut commands = Commands::new(1 << 20);
        assert!(commands.next_command(&mut &b"*1\r\n$100000\r\n"[..]).unwrap().is_none());
        let rest = vec![b'x'; 100_002];
        assert_eq!(commands.next_command(&mut &rest[..]).unwrap().unwrap().name().len(), 100_000);
        assert!(commands.next_command(&mut &b"PING\r\n"[..]).unwrap().is_some());
        assert!(commands.gathered.capacity() <= GATHERED_BYTES_KEPT_MAX, "big memory is given back");
    }
}
