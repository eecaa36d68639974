//! Whose code a function is, by its name.

use super::script::{KERNEL_SUFFIX, LIBRARY_SUFFIX};

/// The rooms of Pinion, and what lies around them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// `pinion-engine`.
    Engine,
    /// `pinion-runtime` and the environment trait.
    Runtime,
    /// `pinion-server`.
    Server,
    /// `pinion-protocol`.
    Protocol,
    /// What is left of Pinion: the binary, client, bench.
    Tools,
    /// The standard library.
    Std,
    /// Other crates.
    Crates,
    /// Shared libraries, libc above all.
    Library,
    /// The kernel.
    Kernel,
    /// Threads, and frames without a name.
    Other,
}

impl Room {
    /// Of a frame in a folded stack.
    pub(super) fn of(frame: &str) -> Self {
        if frame.ends_with(KERNEL_SUFFIX) {
            return Self::Kernel;
        }
        if frame.ends_with(LIBRARY_SUFFIX) {
            return Self::Library;
        }
        // `<crate::Type as Trait>::name` and `<&mut crate::Type>::name` belong to the type's crate.
        let path = frame.trim_start_matches(['<', '&', '*', '(', '[']);
        let path = ["mut ", "dyn ", "const "].iter().fold(path, |path, word| path.trim_start_matches(word));
        let Some((root, _)) = path.split_once("::") else { return Self::Other };
        match root {
            "pinion_engine" => Self::Engine,
            "pinion_runtime" | "pinion_env" => Self::Runtime,
            "pinion_server" => Self::Server,
            "pinion_protocol" => Self::Protocol,
            "std" | "core" | "alloc" => Self::Std,
            _ if root == "pinion" || root.starts_with("pinion_") => Self::Tools,
            _ if root.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') => Self::Crates,
            // A generic parameter or a primitive: the implementation is the trait's, of the library.
            _ => Self::Std,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Engine => "engine",
            Self::Runtime => "runtime",
            Self::Server => "server",
            Self::Protocol => "protocol",
            Self::Tools => "other pinion",
            Self::Std => "std",
            Self::Crates => "crates",
            Self::Library => "libraries",
            Self::Kernel => "kernel",
            Self::Other => "other",
        }
    }

    /// Red, green and blue. Pinion's are strong, all others pale.
    pub(super) const fn colour(self) -> [u8; 3] {
        match self {
            Self::Engine => [102, 187, 106],
            Self::Runtime => [79, 155, 230],
            Self::Server => [171, 120, 216],
            Self::Protocol => [233, 120, 170],
            Self::Tools => [77, 182, 172],
            Self::Std => [200, 210, 180],
            Self::Crates => [180, 215, 225],
            Self::Library => [240, 225, 140],
            Self::Kernel => [240, 175, 120],
            Self::Other => [205, 205, 205],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_the_room() {
        for (name, room) in [
            ("pinion_engine::shard::Shard::get", Room::Engine),
            ("<pinion_env::AlignedBuf as core::ops::Deref>::deref", Room::Runtime),
            ("<&mut pinion_protocol::Frames as x::Y>::next", Room::Protocol),
            ("pinion_server::session::run", Room::Server),
            ("pinion::main", Room::Tools),
            ("pinion_bench::load::run", Room::Tools),
            ("core::ptr::drop_in_place<pinion_engine::Error>", Room::Std),
            ("<T as core::convert::Into<U>>::into", Room::Std),
            ("glommio::executor::run", Room::Crates),
            ("memcpy_[l]", Room::Library),
            ("pinion_engine::no_[k]", Room::Kernel),
            ("[unknown]", Room::Other),
            ("pinion-0", Room::Other),
            ("", Room::Other),
        ] {
            assert_eq!(Room::of(name), room, "{name}");
        }
    }
}
