//! Bytes from a disk: the classes `bit-flips` and `fuzz-files`.
//!
//! Both take a small data directory that a real shard has written ([`image`]), change bytes of it,
//! put it on the disk of a world, and open it with the unmodified engine ([`trial`]). They differ in
//! what is changed and in what may come out:
//!
//! * [`flips`]: one place is not what was written there: a flipped bit, a block that landed in
//!   another's place, or one that kept its older content. Every answer is right, or an error that
//!   names file and offset.
//! * [`files`]: everything else that could stand in a file: mutated blocks whose checksums are
//!   right, other sizes, other files. Nothing panics, hangs, or takes memory that the files' size
//!   does not explain.
//!
//! [`pieces`] knows where blocks stand and how they are sealed; it is written after
//! `engine/FORMAT.md` and shares no code with the engine.

pub mod files;
pub mod flips;
pub mod image;
pub mod pieces;
pub mod recipe;
pub mod trial;
