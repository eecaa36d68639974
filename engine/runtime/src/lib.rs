//! The real environment: glommio executors and one io_uring per core.
