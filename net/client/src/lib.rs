//! The compact client crate users embed.
//!
//! ```
//! # fn main() -> Result<(), pinion_client::Error> {
//! #     let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
//! #     let rig = pinion_tests::process::Rig::with_shards(1);
//! #     let server = rig.start();
//! #     runtime.expect("a runtime can be made").block_on(example(server.address()))
//! # }
//! # async fn example(address: &str) -> Result<(), pinion_client::Error> {
//! use std::time::Duration;
//! use pinion_client::{Client, Condition, PutOptions, ScanRange};
//!
//! let client = Client::builder()
//!     .connect(address) // "127.0.0.1:7600"
//!     .deadline(Duration::from_secs(1))
//!     .build()
//!     .await?;
//!
//! client.put("user:1", "Ada").await?;
//! assert_eq!(client.get("user:1").await?.as_deref(), Some(&b"Ada"[..]));
//!
//! // A value that goes away by itself.
//! client.put_with("session:7", "token", PutOptions::default().ttl(Duration::from_secs(60))).await?;
//!
//! // Change a value only if nobody else has.
//! if let Some((value, version)) = client.get_with_version("user:1").await? {
//!     let longer = [&value[..], b" Lovelace"].concat();
//!     client.put_if("user:1", longer, Condition::Version(version)).await?;
//! }
//!
//! let mut users = client.scan(ScanRange::prefix("user:"));
//! while let Some(record) = users.next().await {
//!     println!("{:?}", record?.key);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`Client`] runs on tokio; [`blocking::Client`] needs no runtime. Both keep one pipelined
//! connection per core of the server and send each request to the core that owns its key.
//!
//! # Retries and what an error means
//!
//! A call is tried again only where that is safe: reads; puts, deletes and batches, because every
//! try carries the same stamp and the server keeps only one; conditional writes and updates only
//! when it is known that they were not applied. All tries of a call share its deadline, and all
//! calls of a client share a budget of retries. What remains is an [`Error`], which says whether the
//! write happened ([`Error::outcome`]) and whether another try may help ([`Error::is_retryable`]).
//!
//! # Time
//!
//! Stamps follow the server's time, carried on by this machine's monotonic clock; its wall clock is
//! never asked, so it may be wrong. Expiry is judged by the server.

mod batch;
pub mod blocking;
mod builder;
mod client;
mod core;
mod error;
mod record;
mod scan;
mod ttl;

pub use pinion_protocol::{Condition, Durability, ErrorCode, Section, TraceParent, Version};

pub use self::core::map::Limits;
pub use batch::{BatchResults, WriteBatch};
pub use builder::{ADDRESS_DEFAULT, Builder, NAMESPACE_DEFAULT};
pub use client::{Client, ScanStream};
pub use error::{Error, Outcome, Result};
pub use record::{Entry, Namespace, PutOptions, Stat, Written};
pub use scan::{ScanRange, ScanRecord};
pub use ttl::{NotATtl, Ttl};
