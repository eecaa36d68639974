//! Frames and messages of the native protocol; no I/O.
