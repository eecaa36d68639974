//! What a client is told when its request is not answered: from the engine's errors, the
//! protocol's errors and the server's own.

use std::borrow::Cow;

use pinion_engine::{Error as EngineError, HybridTime, Stamp};
use pinion_protocol::{
    ErrorCode, ErrorReply, OperationResult, Outcome, ProtocolError, Version, encode_error,
};

/// Version of the cluster map in every answer: there is no map yet.
pub(crate) const MAP_EPOCH: u64 = 0;

/// An error answer in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal<'a> {
    pub(crate) code: ErrorCode,
    pub(crate) outcome: Outcome,
    pub(crate) retry_after_ms: u32,
    version: Version,
    versions: (u16, u16),
    message: Cow<'a, str>,
}

impl<'a> Refusal<'a> {
    pub(crate) const DEADLINE: Self =
        Self::new(ErrorCode::Deadline, Cow::Borrowed("the deadline passed before the request was started"));
    pub(crate) const SHUTTING_DOWN: Self =
        Self::new(ErrorCode::ShuttingDown, Cow::Borrowed("the node is stopping"));
    pub(crate) const TOO_MANY_CONNECTIONS: Self = Self::new(
        ErrorCode::TooManyConnections,
        Cow::Borrowed("the node has all the connections it may have"),
    );

    /// A request that was not applied.
    pub(crate) const fn new(code: ErrorCode, message: Cow<'a, str>) -> Self {
        Self {
            code,
            outcome: Outcome::NotApplied,
            retry_after_ms: 0,
            version: Version::ABSENT,
            versions: (0, 0),
            message,
        }
    }

    pub(crate) fn overloaded(what: &'a str, retry_after_ms: u32) -> Self {
        Self { retry_after_ms, ..Self::new(ErrorCode::Overloaded, Cow::Borrowed(what)) }
    }

    pub(crate) const fn bad_request(what: &'a str) -> Self {
        Self::new(ErrorCode::BadRequest, Cow::Borrowed(what))
    }

    /// Something went wrong inside, and the request may have been carried out.
    pub(crate) fn unknown(what: &'a str) -> Self {
        Self { outcome: Outcome::Unknown, ..Self::new(ErrorCode::StorageFailed, Cow::Borrowed(what)) }
    }

    pub(crate) fn too_large(what: &str, found: usize, max: u32) -> Self {
        Self::new(ErrorCode::TooLarge, Cow::Owned(format!("{what} of {found} is over the limit of {max}")))
    }

    pub(crate) const fn no_such_namespace() -> Self {
        Self::new(ErrorCode::NoSuchNamespace, Cow::Borrowed("no such namespace, or it was dropped"))
    }

    /// A condition that did not hold; `found` is the version that stood there, zero for none.
    pub(crate) fn condition_failed(found: Stamp) -> Self {
        Self {
            version: version_of(found),
            ..Self::new(ErrorCode::ConditionFailed, Cow::Borrowed("the condition does not hold"))
        }
    }

    /// Bytes that are no request.
    pub(crate) fn protocol(error: &ProtocolError) -> Self {
        let versions = match error {
            ProtocolError::NoCommonVersion { .. } => {
                (pinion_protocol::VERSION_LOWEST, pinion_protocol::VERSION_HIGHEST)
            }
            _ => (0, 0),
        };
        Self { versions, ..Self::new(error.code(), Cow::Owned(error.to_string())) }
    }

    /// What the engine says.
    pub(crate) fn engine(error: &EngineError) -> Self {
        let code = match error {
            EngineError::TooLarge { .. } => ErrorCode::TooLarge,
            EngineError::BadOperation(_) => ErrorCode::BadRequest,
            EngineError::StampTooOld { .. } => ErrorCode::StampTooOld,
            EngineError::StampAhead => ErrorCode::StampAhead,
            EngineError::Overloaded { .. } => ErrorCode::Overloaded,
            EngineError::Deadline => ErrorCode::Deadline,
            EngineError::DiskFull => ErrorCode::DiskFull,
            EngineError::Damaged(_) | EngineError::WrongFormat { .. } => ErrorCode::Damaged,
            EngineError::ShuttingDown => ErrorCode::ShuttingDown,
            _ => ErrorCode::StorageFailed,
        };
        let outcome = match error.outcome() {
            pinion_engine::Outcome::NotApplied => Outcome::NotApplied,
            pinion_engine::Outcome::Unknown => Outcome::Unknown,
        };
        let retry_after_ms = match error {
            EngineError::Overloaded { retry_after_ms } => *retry_after_ms,
            _ => 0,
        };
        Self { outcome, retry_after_ms, ..Self::new(code, Cow::Owned(error.to_string())) }
    }

    /// What another core answered to a part of a request.
    pub(crate) fn answered(error: &ErrorReply<'_>) -> Refusal<'static> {
        Refusal {
            code: error.code,
            outcome: error.outcome,
            retry_after_ms: error.retry_after_ms,
            version: error.version,
            versions: error.versions,
            message: Cow::Owned(error.message.to_owned()),
        }
    }

    /// What another core answered to one operation of a batch, if it failed.
    pub(crate) fn of_result(result: &OperationResult) -> Option<Refusal<'static>> {
        let OperationResult::Failed { code, outcome, retry_after_ms } = *result else { return None };
        let what = Cow::Borrowed("another core has not carried out its part");
        Some(Refusal { outcome, retry_after_ms, ..Refusal::new(code, what) })
    }

    /// What to tell people.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// The same without borrowing.
    pub(crate) fn into_owned(self) -> Refusal<'static> {
        Refusal { message: Cow::Owned(self.message.into_owned()), ..self }
    }

    /// Appends the answer's frame.
    pub(crate) fn put(&self, opcode: u8, request_id: u64, stamp_seen: HybridTime, out: &mut Vec<u8>) {
        let reply = ErrorReply {
            code: self.code,
            outcome: self.outcome,
            retry_after_ms: self.retry_after_ms,
            version: self.version,
            stamp_seen: stamp_seen.0,
            versions: self.versions,
            message: &self.message,
        };
        encode_error(opcode, &reply, request_id, MAP_EPOCH, out);
    }
}

/// A stamp as clients see it.
pub(crate) fn version_of(stamp: Stamp) -> Version {
    let mut bytes = [0; 16];
    bytes[..Stamp::BYTES].copy_from_slice(&stamp.to_bytes());
    Version(bytes)
}

/// The stamp in a version that a client gives back; `None` if this server never issued it.
pub(crate) fn stamp_of(version: Version) -> Option<Stamp> {
    let (stamp, rest) = version.0.split_first_chunk::<{ Stamp::BYTES }>()?;
    rest.iter().all(|byte| *byte == 0).then(|| Stamp::from_bytes(*stamp))
}

#[cfg(test)]
mod tests {
    use pinion_engine::Origin;

    use super::*;

    #[test]
    fn versions_carry_stamps() {
        let stamp = Stamp { time: HybridTime(77), origin: Origin(5) };
        assert_eq!(stamp_of(version_of(stamp)), Some(stamp));
        assert!(version_of(Stamp::ZERO).is_absent());
        assert_eq!(stamp_of(Version([1; 16])), None);
    }

    #[test]
    fn the_engines_doubt_is_passed_on() {
        let unknown = Refusal::engine(&EngineError::StorageFailed("x".into()));
        assert_eq!((unknown.code, unknown.outcome), (ErrorCode::StorageFailed, Outcome::Unknown));
        let busy = Refusal::engine(&EngineError::Overloaded { retry_after_ms: 9 });
        assert_eq!((busy.code, busy.retry_after_ms), (ErrorCode::Overloaded, 9));
        assert_eq!(busy.outcome, Outcome::NotApplied);
    }
}
