//! RESP on a real server: against a real Redis, and by the clients that people have.

mod clients;
mod differential;
mod redis;
