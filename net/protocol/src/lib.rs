//! Frames and messages of the native protocol, and the grammar of RESP ([`resp`]); no I/O.
//!
//! `PROTOCOL.md` beside this crate documents every byte and is the law for clients in other
//! languages; golden frames pin it. The crate reads bytes in place: a [`Request`] or [`Response`]
//! borrows its keys and values from the frame it was decoded from, and writing appends to a
//! caller's buffer. [`Frames`] cuts received chunks into frames and copies only a frame that spans
//! chunks.
//!
//! Limits: nothing here allocates by a length that a peer claims, only by bytes that were received
//! or that the caller hands in; lists are checked once when decoded and cannot fail afterwards.
//! Failure: bad bytes give a [`ProtocolError`], which names the error code to answer and whether
//! the connection can go on.
//!
//! ```
//! use pinion_protocol::{Frames, KeyRequest, Request, FRAME_BYTES_MAX_DEFAULT};
//!
//! let mut out = Vec::new();
//! Request::Get(KeyRequest { namespace: 0, key: b"k" }).encode(1, 0, 0, &mut out)?;
//!
//! let mut frames = Frames::new(FRAME_BYTES_MAX_DEFAULT);
//! let mut chunk = out.as_slice();
//! let frame = frames.next_frame(&mut chunk)?.expect("one whole frame was fed");
//! let request = Request::decode(&frame.header, frame.body)?;
//! assert_eq!(request, Request::Get(KeyRequest { namespace: 0, key: b"k" }));
//! # Ok::<(), pinion_protocol::ProtocolError>(())
//! ```

mod assembler;
mod entries;
mod error;
mod header;
mod heads;
mod list;
pub mod placement;
mod request;
pub mod resp;
mod response;
mod scan;
mod trace;
mod types;
mod write;

pub use assembler::{Frame, Frames, GATHERED_BYTES_KEPT_MAX};
pub use entries::{
    BatchOperation, Keys, NamespaceInfo, Namespaces, OperationResult, OperationResults, Operations, Record,
    Records, ShardCores, Value, ValueItem, Values,
};
pub use error::{ErrorCode, Outcome, ProtocolError};
pub use header::{
    FLAG_ERROR, FLAG_MORE, FLAG_RESPONSE, HEADER_BYTES, Header, Opcode, PREFACE_BYTES, PREFACE_MAGIC, Preface,
};
pub use list::{List, ListBuf, ListIter, ListKind};
pub use request::{Hello, KeyRequest, MultiGet, NamespaceOptions, Request};
pub use response::{
    BatchReply, ErrorReply, GetReply, HelloReply, MultiGetReply, Response, Stat, StatReply, Written,
    encode_error, encode_value_head, encode_written,
};
pub use scan::{CURSOR_BYTES_MAX, Direction, Scan, ScanKind, ScanReply};
pub use trace::{Extension, TraceParent};
pub use types::{Condition, Durability, NamespaceState, ProposedStamp, Section, Ttl, Version, WriteOutcome};
pub use write::{Batch, Put, Update, UpdateOperation, Write};

/// The lowest version of the protocol that this crate speaks.
pub const VERSION_LOWEST: u16 = 1;
/// The highest version of the protocol that this crate speaks.
pub const VERSION_HIGHEST: u16 = 1;

/// The features that this crate knows: none yet. HELLO agrees on the bits that both sides know.
pub const FEATURES: u64 = 0;

/// The longest frame unless configured, in bytes: a value of the largest configurable size
/// (16 MiB), its key, and room.
pub const FRAME_BYTES_MAX_DEFAULT: u32 = 20 << 20;

/// The longest name of a namespace, in bytes; its bytes are `A-Z a-z 0-9 _ . -`.
pub const NAMESPACE_NAME_BYTES_MAX: usize = 64;

/// The longest name a client gives itself in HELLO, in bytes of UTF-8.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;

/// The longest body that PING echoes, in bytes.
pub const PING_BYTES_MAX: usize = 64 << 10;

/// The longest message of an error reply, in bytes of UTF-8; longer ones are cut.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 1024;

/// The namespace that always exists; its name is `default`.
pub const NAMESPACE_DEFAULT: u32 = 0;
