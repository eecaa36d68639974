//! The one binary of Pinion.

fn main() {}
