//! Calls: what is tried again, with which stamp, and what is left unknown.

use super::*;
use crate::Condition;
use crate::batch::BatchOperation;
use crate::core::call::{Call, Step};
use crate::core::operation::Route;
use crate::error::{Error, Outcome};

struct Caller {
    now: Instant,
    session: Session,
    call: Call,
}

impl Caller {
    fn new(operation: Operation) -> Self {
        Self::with_tokens(operation, 100)
    }

    fn with_tokens(operation: Operation, tokens: u32) -> Self {
        let now = Instant::now();
        let call = Call::new(operation, now + Duration::from_secs(60), 3);
        Self { now, session: session(now, tokens), call }
    }

    /// Makes a try; the time of the stamp that it carries.
    fn attempt(&mut self) -> Option<u64> {
        self.call.operation(&mut self.session, self.now).stamp().map(|stamp| stamp.time)
    }

    fn finish(&mut self, result: Result<Reply>) -> Step {
        let step = self.call.finish(&mut self.session, self.now, result);
        if let Step::Send(at) = step {
            self.now = at;
        }
        step
    }

    fn retried(&mut self, result: Result<Reply>) -> bool {
        matches!(self.finish(result), Step::Send(_))
    }

    fn error(&mut self, result: Result<Reply>) -> Error {
        match self.finish(result) {
            Step::Done(Err(error)) => error,
            step => panic!("not an error: {step:?}"),
        }
    }
}

fn lost(outcome: Outcome) -> Result<Reply> {
    Err(Error::Disconnected { outcome, reason: "test".into() })
}

fn refused(code: ErrorCode, retry_after: Duration) -> Result<Reply> {
    Err(Error::Server { code, outcome: Outcome::NotApplied, retry_after, message: String::new() })
}

fn written(superseded: bool) -> Reply {
    Reply::Written(crate::Written { version: Version([1; 16]), expiry: None, superseded })
}

fn put_if(key: &'static str) -> Operation {
    let write = Write::new(key.as_bytes(), Durability::Sync);
    Operation::PutIf { write, value: Bytes::new(), ttl: Ttl::Default, condition: Condition::Absent }
}

#[test]
fn a_retried_put_carries_the_stamp_of_its_first_try() {
    let mut caller = Caller::new(put("k"));
    let stamp = caller.attempt();
    assert!(stamp.is_some());
    assert!(caller.retried(lost(Outcome::Unknown)));
    assert_eq!(caller.attempt(), stamp);
    // Superseded after a try in doubt: by its own first try, or by a later write. Both are success.
    assert!(matches!(caller.finish(Ok(written(true))), Step::Done(Ok(_))));
}

#[test]
fn a_put_superseded_on_its_first_try_is_sent_once_more_with_a_newer_stamp() {
    let mut caller = Caller::new(put("k"));
    let first = caller.attempt().unwrap();
    caller.session.clock.observe(first + 1_000);
    assert!(caller.retried(Ok(written(true))));
    assert!(caller.attempt().unwrap() > first + 1_000);
    let Step::Done(Ok(Reply::Written(written))) = caller.finish(Ok(written(true))) else {
        panic!("a second time is the answer");
    };
    assert!(written.superseded);
}

#[test]
fn a_put_not_in_doubt_may_still_be_renewed_after_a_refusal() {
    let mut caller = Caller::new(put("k"));
    let first = caller.attempt();
    assert!(caller.retried(refused(ErrorCode::Overloaded, Duration::ZERO)));
    assert_eq!(caller.attempt(), first);
    assert!(caller.retried(Ok(written(true))));
    assert!(caller.attempt() > first);
}

#[test]
fn a_conditional_write_is_tried_again_only_if_it_was_not_applied() {
    let mut caller = Caller::new(put_if("k"));
    assert_eq!(caller.attempt(), None, "the server stamps what depends on what it finds");
    let before = caller.now;
    assert!(caller.retried(refused(ErrorCode::Overloaded, Duration::from_millis(300))));
    assert!(caller.now >= before + Duration::from_millis(300), "waits as long as the server asks");
    caller.attempt();
    assert_eq!(caller.error(lost(Outcome::Unknown)).outcome(), Outcome::Unknown);
}

#[test]
fn what_an_earlier_try_left_unknown_stays_unknown() {
    let mut caller = Caller::new(put("k"));
    caller.attempt();
    assert!(caller.retried(lost(Outcome::Unknown)));
    caller.attempt();
    let error = caller.error(refused(ErrorCode::StorageFailed, Duration::ZERO));
    assert_eq!(error.outcome(), Outcome::Unknown);

    let mut caller = Caller::new(put("k"));
    caller.attempt();
    let error = caller.error(refused(ErrorCode::StorageFailed, Duration::ZERO));
    assert_eq!(error.outcome(), Outcome::NotApplied);
}

#[test]
fn tries_are_counted_and_end_before_the_deadline() {
    let mut caller = Caller::new(get("k"));
    for _ in 0..3 {
        caller.attempt();
        assert!(caller.retried(lost(Outcome::NotApplied)));
    }
    caller.attempt();
    assert!(!caller.retried(lost(Outcome::NotApplied)));

    let mut caller = Caller::new(get("k"));
    caller.attempt();
    assert!(!caller.retried(refused(ErrorCode::Overloaded, Duration::from_secs(61))));
}

#[test]
fn an_empty_budget_stops_retries_of_what_was_sent() {
    let mut caller = Caller::with_tokens(get("k"), 1);
    caller.attempt();
    assert!(caller.retried(refused(ErrorCode::Overloaded, Duration::ZERO)));
    caller.attempt();
    assert!(!caller.retried(refused(ErrorCode::Overloaded, Duration::ZERO)));

    let mut caller = Caller::with_tokens(get("k"), 0);
    caller.attempt();
    assert!(caller.retried(Err(Error::Busy)), "it never reached the server");
}

#[test]
fn a_stamp_is_not_retried_beyond_the_servers_window() {
    let mut caller = Caller::new(put("k"));
    caller.attempt();
    caller.now += Duration::from_secs(11);
    assert_eq!(caller.error(lost(Outcome::Unknown)).outcome(), Outcome::Unknown);
}

#[test]
fn a_refused_stamp_is_replaced_unless_in_doubt() {
    let mut caller = Caller::new(put("k"));
    let old = caller.attempt();
    assert!(caller.retried(refused(ErrorCode::StampTooOld, Duration::ZERO)));
    assert!(caller.attempt() > old);
    assert!(caller.retried(refused(ErrorCode::StampAhead, Duration::ZERO)));
    assert_eq!(caller.attempt(), None, "the server chooses");
    assert_eq!(caller.error(lost(Outcome::Unknown)).outcome(), Outcome::Unknown);

    let mut caller = Caller::new(put("k"));
    caller.attempt();
    assert!(caller.retried(lost(Outcome::Unknown)));
    caller.attempt();
    let error = caller.error(refused(ErrorCode::StampTooOld, Duration::ZERO));
    assert_eq!(error.outcome(), Outcome::Unknown);
}

#[test]
fn only_the_superseded_operations_of_a_batch_are_sent_once_more() {
    let operation = |key: &'static str| BatchOperation {
        key: Bytes::from_static(key.as_bytes()),
        value: Some(Bytes::new()),
        ttl: Ttl::Default,
    };
    let batch = Operation::Batch {
        namespace: 0,
        durability: Durability::Sync,
        stamp: None,
        operations: vec![operation("a"), operation("b"), operation("c")],
        route: Route::Any,
    };
    let mut caller = Caller::new(batch);
    let first = caller.attempt();
    let status =
        |byte, superseded| Ok(crate::Written { version: Version([byte; 16]), expiry: None, superseded });
    let statuses = vec![status(1, false), status(2, true), status(3, false)];
    assert!(caller.retried(Ok(Reply::Batch(statuses))));
    let again = caller.call.operation(&mut caller.session, caller.now);
    assert!(again.stamp().map(|stamp| stamp.time) > first);
    let Operation::Batch { operations, .. } = again else { panic!("a batch stays one") };
    assert_eq!(operations.iter().map(|operation| &operation.key[..]).collect::<Vec<_>>(), [b"b"]);
    let Step::Done(Ok(Reply::Batch(all))) = caller.finish(Ok(Reply::Batch(vec![status(9, false)]))) else {
        panic!("the batch is over");
    };
    let versions: Vec<_> = all.into_iter().map(|status| status.unwrap().version.0[0]).collect();
    assert_eq!(versions, [1, 9, 3]);
}

#[test]
fn the_wire_and_the_call_agree_end_to_end() {
    let mut pair = Pair::greeted(4);
    let mut caller = Caller::new(put("k"));
    let mut stamps = Vec::new();
    for code in [ErrorCode::Overloaded, ErrorCode::ShuttingDown] {
        let operation = caller.call.operation(&mut caller.session, caller.now);
        pair.submit("put", operation);
        let seen = pair.seen();
        stamps.push(seen[0].stamp);
        pair.answer(seen[0].request_id, &error(code));
        let (_, result) = pair.one_finished();
        assert!(caller.retried(result));
    }
    assert_eq!(stamps[0], stamps[1]);
    let operation = caller.call.operation(&mut caller.session, caller.now);
    pair.submit("put", operation);
    let id = pair.seen()[0].request_id;
    pair.answer(id, &Response::Put(applied(WriteOutcome::Applied)));
    assert!(matches!(caller.finish(pair.one_finished().1), Step::Done(Ok(_))));
    assert_eq!(pair.connection.take_stamp_seen(), 5_000 << 16);
}
