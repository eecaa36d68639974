//! How every test that asks a shard in the world is told of a write's end: one type for all of them,
//! because the engine is compiled once for each type of waiter.

use pinion_engine::{Answer, Result, Teller, Waiter, Written};

/// A waiter of a test.
pub enum Told {
    /// Somebody awaits the answer.
    Answer(Teller),
    /// To be called with the answer.
    Call(Box<dyn FnOnce(Result<Written>)>),
}

impl Told {
    /// Calls `told` with the answer.
    pub fn call(told: impl FnOnce(Result<Written>) + 'static) -> Self {
        Self::Call(Box::new(told))
    }
}

impl Waiter for Told {
    fn complete(self, result: Result<Written>) {
        match self {
            Self::Answer(teller) => teller.complete(result),
            Self::Call(told) => told(result),
        }
    }
}

/// A waiter, and the future of what it is told.
pub fn answer() -> (Told, Answer) {
    let (teller, answer) = pinion_engine::answer();
    (Told::Answer(teller), answer)
}
