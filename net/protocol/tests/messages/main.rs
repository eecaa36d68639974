//! Every message of the protocol: golden frames, round trips, and bytes that are not messages.

mod golden;
mod properties;
mod samples;
