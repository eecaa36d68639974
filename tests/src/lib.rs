//! The in-memory world, crash rigs and end-to-end tests.
