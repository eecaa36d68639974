//! What went wrong, as `application/problem+json` (RFC 9457).
//!
//! Beside the standard members: `code`, a word that programs can rely on; `outcome`, what is known of the
//! write (`applied`, `not_applied` or `unknown`); `retry_after_ms` where another try may help, also as
//! `Retry-After` in seconds; `version`, the one found when a condition failed.

use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use pinion_client::{Error, ErrorCode, Outcome, Version};
use serde_json::{Map, Value, json};

/// The content type of a problem.
const PROBLEM_JSON: &str = "application/problem+json";
/// When to come again if nobody said.
pub(crate) const RETRY_DEFAULT: Duration = Duration::from_secs(1);

/// An answer that is an error.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    status: StatusCode,
    code: String,
    detail: String,
    outcome: Outcome,
    retry_after: Option<Duration>,
    /// Of a failed condition: the version found, if there is any.
    found: Option<Option<Version>>,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code: code.to_owned(),
            detail: detail.into(),
            outcome: Outcome::NotApplied,
            retry_after: None,
            found: None,
        }
    }

    pub(crate) fn bad_request(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "no_such_key", detail)
    }

    pub(crate) fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail)
    }

    pub(crate) fn misdirected(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::MISDIRECTED_REQUEST, "unknown_host", detail)
    }

    pub(crate) fn condition_failed(found: Option<Version>) -> Self {
        let detail = match found {
            Some(version) => format!("the version is {version}"),
            None => "the key is absent".to_owned(),
        };
        let found = Some(found);
        Self { found, ..Self::new(StatusCode::PRECONDITION_FAILED, "condition_failed", detail) }
    }

    /// Nothing can be done now; a moment later it may.
    pub(crate) fn unavailable(code: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail).retry_after(RETRY_DEFAULT)
    }

    /// The gateway is at one of its limits.
    pub(crate) fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "busy", detail).retry_after(RETRY_DEFAULT)
    }

    /// A part that there was no time for.
    pub(crate) fn no_time_left() -> Self {
        Self::new(StatusCode::GATEWAY_TIMEOUT, "deadline", "deadline exceeded before it was begun")
    }

    pub(crate) fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// The document.
    pub(crate) fn document(&self) -> Value {
        let mut members = Map::new();
        members.insert("title".into(), json!(self.status.canonical_reason().unwrap_or("Error")));
        members.insert("status".into(), json!(self.status.as_u16()));
        members.insert("code".into(), json!(self.code));
        members.insert("detail".into(), json!(self.detail));
        members.insert("outcome".into(), json!(outcome_name(self.outcome)));
        if let Some(wait) = self.retry_after {
            members
                .insert("retry_after_ms".into(), json!(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)));
        }
        if let Some(found) = self.found {
            members.insert("version".into(), json!(found.map(|version| version.to_string())));
        }
        Value::Object(members)
    }
}

fn outcome_name(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Applied => "applied",
        Outcome::NotApplied => "not_applied",
        Outcome::Unknown => "unknown",
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.document().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if let Some(wait) = self.retry_after {
            headers.insert(RETRY_AFTER, retry_after(wait));
        }
        response
    }
}

/// A wait in whole seconds, and never none: that would ask for a try at once.
pub(crate) fn retry_after(wait: Duration) -> HeaderValue {
    let seconds = wait.as_millis().div_ceil(1_000).clamp(1, u128::from(u32::MAX));
    HeaderValue::from(u32::try_from(seconds).unwrap_or(u32::MAX))
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        if let Error::ConditionFailed { current } = error {
            return Self::condition_failed(current);
        }
        let (status, code) = status_and_code(&error);
        let mut problem = Self::new(status, &code, error.to_string());
        problem.outcome = error.outcome();
        if problem.outcome == Outcome::Unknown {
            // Whatever happened on the way: nobody knows whether the write is there.
            problem.status = StatusCode::GATEWAY_TIMEOUT;
        }
        let later = matches!(problem.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
        if later || error.is_retryable() && problem.outcome == Outcome::NotApplied {
            let wait = error.retry_after();
            problem.retry_after = Some(if wait.is_zero() { RETRY_DEFAULT } else { wait });
        }
        problem
    }
}

/// Of an error whose write is not in doubt.
fn status_and_code(error: &Error) -> (StatusCode, String) {
    let (status, code) = match error {
        Error::Connect { .. } => (StatusCode::SERVICE_UNAVAILABLE, "no_connection"),
        Error::Disconnected { .. } => (StatusCode::SERVICE_UNAVAILABLE, "disconnected"),
        Error::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, "deadline"),
        Error::ConditionFailed { .. } => (StatusCode::PRECONDITION_FAILED, "condition_failed"),
        Error::NoSuchNamespace(_) => (StatusCode::NOT_FOUND, "no_such_namespace"),
        Error::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid"),
        Error::Busy => (StatusCode::TOO_MANY_REQUESTS, "busy"),
        Error::Server { code, .. } => return (status_of(*code), code.name().to_ascii_lowercase()),
        Error::Closed => (StatusCode::SERVICE_UNAVAILABLE, "closed"),
        Error::Protocol { .. } => (StatusCode::BAD_GATEWAY, "protocol"),
        _ => (StatusCode::BAD_GATEWAY, "unknown_error"),
    };
    (status, code.to_owned())
}

fn status_of(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorCode::BadRequest | ErrorCode::BadCursor => StatusCode::BAD_REQUEST,
        ErrorCode::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::Deadline => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::Unsupported => StatusCode::NOT_IMPLEMENTED,
        ErrorCode::NoSuchNamespace => StatusCode::NOT_FOUND,
        ErrorCode::ConditionFailed => StatusCode::PRECONDITION_FAILED,
        ErrorCode::NamespaceExists | ErrorCode::TooManyNamespaces => StatusCode::CONFLICT,
        ErrorCode::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::Damaged => StatusCode::INTERNAL_SERVER_ERROR,
        ErrorCode::TooManyConnections
        | ErrorCode::StampTooOld
        | ErrorCode::StampAhead
        | ErrorCode::NotLinearizable
        | ErrorCode::WrongNode
        | ErrorCode::MapChanged
        | ErrorCode::ShuttingDown
        | ErrorCode::StorageFailed => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_GATEWAY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: ErrorCode, outcome: Outcome, retry_ms: u64) -> Problem {
        let retry_after = Duration::from_millis(retry_ms);
        Error::Server { code, outcome, retry_after, message: "m".into() }.into()
    }

    #[test]
    fn what_may_pass_says_when_to_come_again() {
        let response = server(ErrorCode::Overloaded, Outcome::NotApplied, 1_200).into_response();
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[RETRY_AFTER], "2");
        for code in [ErrorCode::ShuttingDown, ErrorCode::StorageFailed, ErrorCode::TooManyConnections] {
            let response = server(code, Outcome::NotApplied, 0).into_response();
            assert_eq!((response.status().as_u16(), &response.headers()[RETRY_AFTER] == "1"), (503, true));
        }
        let full = server(ErrorCode::DiskFull, Outcome::NotApplied, 0);
        assert_eq!((full.status().as_u16(), full.document()["retry_after_ms"].as_u64()), (507, Some(1_000)));
    }

    #[test]
    fn every_error_in_doubt_is_a_504_that_says_so() {
        for code in ErrorCode::ALL {
            let problem = server(*code, Outcome::Unknown, 0);
            if *code != ErrorCode::ConditionFailed {
                assert_eq!(problem.status(), 504, "{code:?}");
                assert_eq!(problem.document()["outcome"], "unknown");
                assert!(!problem.into_response().headers().contains_key(RETRY_AFTER));
            }
            let status = server(*code, Outcome::NotApplied, 0).status();
            assert!(status.is_client_error() || status.is_server_error(), "{code:?}");
            assert_ne!(status, StatusCode::BAD_GATEWAY, "{code:?} has a status of its own");
        }
        let lost = Error::Disconnected { outcome: Outcome::Unknown, reason: "r".into() };
        assert_eq!(Problem::from(lost).status(), 504);
    }

    #[test]
    fn a_failed_condition_tells_what_is_there() {
        let problem = Problem::from(Error::ConditionFailed { current: Some(Version([1; 16])) });
        assert_eq!(problem.status(), 412);
        assert_eq!(problem.document()["version"], "01".repeat(16));
        assert_eq!(Problem::condition_failed(None).document()["version"], Value::Null);
    }
}
