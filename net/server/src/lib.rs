//! A node: sessions, coordinator, shards.
