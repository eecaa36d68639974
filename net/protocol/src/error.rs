//! What can be wrong with bytes from a peer, and the error codes of replies.

/// What is known about a request that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It changed nothing and never will.
    NotApplied,
    /// It may or may not have been, or still be, applied.
    Unknown,
}

impl Outcome {
    pub(crate) const fn to_u8(self) -> u8 {
        match self {
            Self::NotApplied => 0,
            Self::Unknown => 1,
        }
    }

    /// Anything new means that nothing is known.
    pub(crate) const fn from_u8(number: u8) -> Self {
        match number {
            0 => Self::NotApplied,
            _ => Self::Unknown,
        }
    }
}

macro_rules! error_codes {
    ($($(#[$meta:meta])* $code:ident = $number:literal $name:literal,)*) => {
        /// Why a request failed. The numbers are sent.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ErrorCode {
            $($(#[$meta])* $code,)*
            /// A code that this crate does not know.
            Unrecognized(u16),
        }

        impl ErrorCode {
            /// Every code that this crate knows.
            pub const ALL: &[Self] = &[$(Self::$code,)*];

            /// The number that is sent.
            pub const fn to_u16(self) -> u16 {
                match self {
                    $(Self::$code => $number,)*
                    Self::Unrecognized(number) => number,
                }
            }

            /// From the number that was sent.
            pub const fn from_u16(number: u16) -> Self {
                match number {
                    $($number => Self::$code,)*
                    _ => Self::Unrecognized(number),
                }
            }

            /// The name that PROTOCOL.md uses.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$code => $name,)*
                    Self::Unrecognized(_) => "UNRECOGNIZED",
                }
            }
        }
    };
}

error_codes! {
    /// A key, value, batch or frame over its limit, or an empty key.
    TooLarge = 1 "TOO_LARGE",
    /// Bytes that make no sense, or an operation that does not fit the value it found.
    BadRequest = 2 "BAD_REQUEST",
    /// The cursor is damaged or belongs to another scan or node.
    BadCursor = 3 "BAD_CURSOR",
    /// More work is queued than is allowed; the reply says when to try again.
    Overloaded = 4 "OVERLOADED",
    /// The request's time was over.
    Deadline = 5 "DEADLINE",
    /// A protocol version, opcode, operation or option that the server does not know.
    Unsupported = 6 "UNSUPPORTED",
    /// The node has as many connections as it may have.
    TooManyConnections = 7 "TOO_MANY_CONNECTIONS",
    /// No live namespace of that id or name.
    NoSuchNamespace = 8 "NO_SUCH_NAMESPACE",
    /// A conditional write whose condition does not hold; the reply has the current version.
    ConditionFailed = 9 "CONDITION_FAILED",
    /// The proposed stamp is older than the retry window.
    StampTooOld = 10 "STAMP_TOO_OLD",
    /// The proposed stamp is ahead of the server's clock.
    StampAhead = 11 "STAMP_AHEAD",
    /// The disk is (nearly) full: reads go on, writes are refused until space returns.
    DiskFull = 12 "DISK_FULL",
    /// Stored bytes failed a check.
    Damaged = 13 "DAMAGED",
    /// The node cannot answer linearizably at the moment.
    NotLinearizable = 14 "NOT_LINEARIZABLE",
    /// The node does not own the key's partition.
    WrongNode = 15 "WRONG_NODE",
    /// The cluster map changed while the request was under way.
    MapChanged = 16 "MAP_CHANGED",
    /// The node is stopping.
    ShuttingDown = 17 "SHUTTING_DOWN",
    /// A write to the disk failed: the shard acknowledges nothing until the node is restarted.
    StorageFailed = 18 "STORAGE_FAILED",
    /// A live namespace of that name exists.
    NamespaceExists = 19 "NAMESPACE_EXISTS",
    /// The catalogue is full.
    TooManyNamespaces = 20 "TOO_MANY_NAMESPACES",
}

impl ErrorCode {
    /// Whether the same request may succeed later without any change to it. Says nothing about
    /// whether repeating is safe: that depends on the reply's [`Outcome`] and on the request.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::Overloaded
                | Self::Deadline
                | Self::TooManyConnections
                | Self::DiskFull
                | Self::NotLinearizable
                | Self::WrongNode
                | Self::MapChanged
                | Self::ShuttingDown
        )
    }
}

/// Bytes that are not what the protocol says, or a message that cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The connection does not open with this protocol's preface. Close it without an answer.
    #[error("the connection does not open with the preface of this protocol")]
    BadPreface,
    /// The peer speaks no version that we speak. Answer and close.
    #[error(
        "the client speaks protocol versions {lowest} to {highest}, the server {} to {}",
        crate::VERSION_LOWEST,
        crate::VERSION_HIGHEST
    )]
    NoCommonVersion {
        /// The peer's lowest.
        lowest: u16,
        /// The peer's highest.
        highest: u16,
    },
    /// A frame's header contradicts itself. Where the next frame starts is unknown: answer and close.
    #[error("bad frame header: {0}")]
    BadHeader(&'static str),
    /// A frame longer than was agreed. It is not skipped: answer and close.
    #[error("a frame of {bytes} bytes is over the limit of {max} bytes")]
    FrameTooLarge {
        /// The length its header claims.
        bytes: u32,
        /// The limit.
        max: u32,
    },
    /// An opcode that this version does not have.
    #[error("unknown opcode {0}")]
    UnknownOpcode(u8),
    /// A well-formed body that asks for something unknown.
    #[error("unsupported {0}")]
    Unsupported(&'static str),
    /// A body that does not fit its opcode.
    #[error("bad body: {0}")]
    BadBody(&'static str),
    /// A cursor that is damaged or belongs to another scan or node.
    #[error("the cursor is damaged or belongs to another scan")]
    BadCursor,
    /// A field is too large for its message.
    #[error("{what} of {bytes} bytes is over the limit of {max} bytes")]
    TooLarge {
        /// The field.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The limit.
        max: u64,
    },
}

impl ProtocolError {
    /// The code to answer with. The request was not applied.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::BadPreface | Self::BadHeader(_) | Self::BadBody(_) => ErrorCode::BadRequest,
            Self::NoCommonVersion { .. } | Self::UnknownOpcode(_) | Self::Unsupported(_) => {
                ErrorCode::Unsupported
            }
            Self::FrameTooLarge { .. } | Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::BadCursor => ErrorCode::BadCursor,
        }
    }

    /// Whether the connection cannot go on: frame borders are lost or nothing was agreed.
    pub const fn is_fatal(&self) -> bool {
        matches!(
            self,
            Self::BadPreface | Self::NoCommonVersion { .. } | Self::BadHeader(_) | Self::FrameTooLarge { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_their_numbers_in_order() {
        for (index, code) in ErrorCode::ALL.iter().enumerate() {
            assert_eq!(usize::from(code.to_u16()), index + 1);
            assert_eq!(ErrorCode::from_u16(code.to_u16()), *code);
        }
        assert_eq!(ErrorCode::from_u16(999), ErrorCode::Unrecognized(999));
        assert_eq!(ErrorCode::Unrecognized(999).to_u16(), 999);
    }
}
