//! `pinion bench flame`: where a profile's time goes, as a drawing.
//!
//! Takes what `perf script` printed, or stacks that were folded before, counts equal stacks together,
//! and draws them as a flame graph (Gregg 2016, "The Flame Graph"): a box for each function, as wide as
//! the samples in which it is on the stack, above the function that called it. Colours tell the rooms
//! of Pinion, the kernel and the libraries apart. Beside a second profile, colours tell what takes a
//! larger (red) or smaller (blue) share than there.
//!
//! | file | subject |
//! |---|---|
//! | `script` | the text of `perf script`: samples, and waits between switches |
//! | `profile` | counted stacks, and their text, one line each |
//! | `room` | whose code a function is |
//! | `tree` | stacks that begin alike, joined; two profiles compared |
//! | `svg` | the drawing |
//!
//! Limits: functions have the names that perf gives them, and of inlined ones nothing is seen. The
//! comparison is drawn with the widths of the first profile: what is only in the other is not there
//! (exchange them to see it).

mod profile;
mod room;
mod script;
mod svg;
mod tree;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

pub use profile::Profile;
pub use room::Room;

use crate::error::{Error, Result};
use tree::Tree;

/// What to draw.
#[derive(Debug, Clone)]
pub struct FlamePlan {
    /// The profile: text of `perf script`, or folded stacks.
    pub input: PathBuf,
    /// The profile that it is compared with.
    pub other: Option<PathBuf>,
    /// The drawing.
    pub out: PathBuf,
    /// Where the folded stacks go, too.
    pub folded: Option<PathBuf>,
    /// Above the drawing.
    pub title: String,
    /// What the numbers of the profile count.
    pub unit: String,
}

/// What was drawn: how much of it is whose.
#[derive(Debug, Clone, PartialEq)]
pub struct Shares {
    total: u64,
    unit: String,
    /// By the function that ran or waited itself, not by what it called; largest first.
    by_room: Vec<(Room, u64)>,
}

/// Reads, draws and writes.
///
/// # Errors
/// [`Error::File`] of a file; [`Error::Usage`] when a profile cannot be understood or is empty.
pub fn run(plan: &FlamePlan) -> Result<Shares> {
    let profile = read(&plan.input)?;
    let other = plan.other.as_deref().map(read).transpose()?;
    if let Some(path) = &plan.folded {
        fs::write(path, profile.to_string()).map_err(Error::file(path))?;
    }
    let tree = Tree::new(&profile, other.as_ref());
    let drawing = svg::draw(&tree, &plan.title, &plan.unit);
    fs::write(&plan.out, drawing).map_err(Error::file(&plan.out))?;
    Ok(Shares { total: profile.total(), unit: plan.unit.clone(), by_room: profile.by_room() })
}

fn read(path: &Path) -> Result<Profile> {
    let bytes = fs::read(path).map_err(Error::file(path))?;
    // Names of processes may be anything.
    let profile = Profile::parse(&String::from_utf8_lossy(&bytes))
        .map_err(|what| Error::Usage(format!("{}: {what}", path.display())))?;
    if profile.total() == 0 {
        return Err(Error::Usage(format!("{}: there are no samples in it", path.display())));
    }
    Ok(profile)
}

impl fmt::Display for Shares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.total, self.unit)?;
        for (room, own) in &self.by_room {
            write!(f, "\n{:>6.1} %  {}", 100.0 * *own as f64 / self.total as f64, room.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_compared_and_drawn() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "p;pinion_engine::get 3\np;do_syscall_64_[k] 1\n").unwrap();
        fs::write(at("b"), "p;pinion_engine::get 1\n").unwrap();
        let plan = FlamePlan {
            input: at("a"),
            other: Some(at("b")),
            out: at("x.svg"),
            folded: Some(at("folded")),
            title: "t".to_owned(),
            unit: "samples".to_owned(),
        };
        let shares = run(&plan).unwrap();
        assert_eq!(shares.to_string(), "4 samples\n  75.0 %  engine\n  25.0 %  kernel");
        assert!(fs::read_to_string(at("x.svg")).unwrap().starts_with("<svg"));
        assert_eq!(read(&at("folded")).unwrap(), read(&at("a")).unwrap());
        fs::write(at("empty"), "# nothing\n").unwrap();
        for wrong in ["empty", "missing"] {
            assert!(run(&FlamePlan { input: at(wrong), ..plan.clone() }).is_err(), "{wrong}");
        }
    }
}
