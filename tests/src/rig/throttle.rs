//! A slow disk: a control group whose processes may write only so many bytes each second to a device.
//!
//! Direct writes are slowed down precisely. Takes root and version 1 of the block controller.

use std::fs;
use std::path::{Path, PathBuf};

use super::image::LoopDevice;
use super::machine::{complain, while_busy};
use super::place::{Place, THROTTLES};

const WRITE_FILE: &str = "blkio.throttle.write_bps_device";

/// A control group for servers on one disk; removed when dropped.
#[derive(Debug)]
pub(super) struct Throttle {
    group: PathBuf,
    /// `major:minor`.
    device: String,
}

impl Throttle {
    /// A group that limits nothing yet.
    pub(super) fn new(place: &Place, device: &LoopDevice) -> Result<Self, String> {
        let name = device.path().trim_start_matches("/dev/");
        let number = Path::new("/sys/block").join(name).join("dev");
        let said = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
        let device = fs::read_to_string(&number).map_err(|error| said(&number, error))?.trim().to_owned();
        if !Path::new(THROTTLES).join(WRITE_FILE).exists() {
            return Err(format!("there is no {THROTTLES}/{WRITE_FILE}"));
        }
        let group = Path::new(THROTTLES).join(place.name());
        fs::create_dir(&group).map_err(|error| said(&group, error))?;
        Ok(Self { group, device })
    }

    /// Puts a process into the group.
    pub(super) fn add(&self, process: u32) -> Result<(), String> {
        self.set("cgroup.procs", &process.to_string())
    }

    /// Lets the group's processes write so many bytes each second; 0 = as many as they like.
    pub(super) fn limit(&self, bytes_per_second: u64) -> Result<(), String> {
        self.set(WRITE_FILE, &format!("{} {bytes_per_second}", self.device))
    }

    fn set(&self, name: &str, value: &str) -> Result<(), String> {
        let file = self.group.join(name);
        fs::write(&file, value).map_err(|error| format!("{value} into {}: {error}", file.display()))
    }
}

impl Drop for Throttle {
    fn drop(&mut self) {
        // What waits because of the limit keeps its process from ending.
        complain(self.limit(0));
        let remove = || fs::remove_dir(&self.group);
        complain(while_busy(|| remove().map_err(|error| format!("{}: {error}", self.group.display()))));
    }
}
