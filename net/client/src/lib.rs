//! The compact client crate users embed.
