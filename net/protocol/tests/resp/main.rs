//! RESP against somebody else's implementation: what it encodes is read as it was meant, however it is
//! cut into chunks, and what is written here it decodes to the same.

#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]

mod commands;
mod replies;
