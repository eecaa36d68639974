//! The list of classes: what there is to run, and in which sizes.

use super::Class;

/// Every class, in the order of the guarantees table in README.md.
pub const CLASSES: &[Class] = &[];
