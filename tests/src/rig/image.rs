//! Disks of our own: image files on loop devices with ext4 on them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::machine::{complain, run, while_busy};
use super::place::Place;

/// The ext4 ioctl `EXT4_IOC_SHUTDOWN` with its flag `EXT4_GOING_FLAGS_NOLOGFLUSH`: from now on
/// everything fails, and nothing that is not on the device gets there. An ioctl is unsafe in Rust,
/// so a child process calls it; perl is part of every Debian, python of most other machines.
const SHUTDOWN: &[(&str, &[&str])] = &[
    ("perl", &["-e", "open(my $d, '<', $ARGV[0]) && ioctl($d, 0x8004587d, pack('L', 2)) || die \"$!\\n\""]),
    (
        "python3",
        &[
            "-c",
            "import fcntl,os,struct,sys\n\
             fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))",
        ],
    ),
];

/// A file on a loop device; detached when dropped.
#[derive(Debug)]
pub(super) struct LoopDevice(String);

impl LoopDevice {
    /// Attaches a file, without the page cache between if that is possible.
    pub(super) fn attach(file: &Path, sector_bytes: u32) -> Result<Self, String> {
        let sector = format!("--sector-size={sector_bytes}");
        let attach = |more: &[&str]| {
            run(Command::new("losetup").args(["--find", "--show", &sector]).args(more).arg(file))
        };
        // Another process may take the device that was found first.
        while_busy(|| attach(&["--direct-io=on"]).or_else(|_| attach(&[]))).map(Self)
    }

    pub(super) fn path(&self) -> &str {
        &self.0
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        complain(while_busy(|| run(Command::new("losetup").arg("--detach").arg(&self.0))));
    }
}

/// Puts ext4 onto a device.
pub(super) fn format(device: &LoopDevice) -> Result<(), String> {
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-E", "nodiscard"]).arg(device.path()))
        .map(drop)
}

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub(super) struct Mount(PathBuf);

impl Mount {
    /// Mounts the ext4 on a device. Replays its journal if it was not unmounted in order.
    pub(super) fn new(device: &LoopDevice, at: PathBuf) -> Result<Self, String> {
        run(Command::new("mount").args(["-t", "ext4", device.path()]).arg(&at))?;
        Ok(Self(at))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The power fails: what has not reached the device is gone, and nothing reaches it any more.
    pub(super) fn shut_down(&self) -> Result<(), String> {
        let mut reasons = Vec::new();
        for (program, arguments) in SHUTDOWN {
            match run(Command::new(program).args(*arguments).arg(&self.0)) {
                Ok(_) => return Ok(()),
                Err(reason) => reasons.push(reason),
            }
        }
        Err(reasons.join("; "))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmount = |more: &[&str]| run(Command::new("umount").args(more).arg(&self.0));
        complain(while_busy(|| unmount(&[])).or_else(|_| unmount(&["--lazy"])));
    }
}

/// An ext4 in an image file in memory, which can lose its power.
#[derive(Debug)]
pub(super) struct ImageDisk {
    // Dropped in this order.
    mount: Option<Mount>,
    device: LoopDevice,
    at: PathBuf,
    place: Place,
}

impl ImageDisk {
    /// An empty disk, or why there is none.
    pub(super) fn new(bytes: u64, sector_bytes: u32) -> Result<Self, String> {
        let place = Place::new()?;
        let image = place.path("image");
        File::create(&image).and_then(|file| file.set_len(bytes)).map_err(|error| error.to_string())?;
        let at = place.directory("disk")?;
        let device = LoopDevice::attach(&image, sector_bytes)?;
        format(&device)?;
        let mount = Some(Mount::new(&device, at.clone())?);
        Ok(Self { mount, device, at, place })
    }

    pub(super) fn mount(&self) -> &Mount {
        self.mount.as_ref().expect("it is mounted but for a moment in `remount`")
    }

    pub(super) fn device(&self) -> &LoopDevice {
        &self.device
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The power returns.
    pub(super) fn remount(&mut self) -> Result<(), String> {
        self.mount = None;
        self.mount = Some(Mount::new(&self.device, self.at.clone())?);
        Ok(())
    }

    /// Whether a disk can be made, written, cut off and mounted again here.
    pub(super) fn try_out(bytes: u64) -> Result<(), String> {
        let mut disk = Self::new(bytes, 512)?;
        fs::write(disk.mount().path().join("file"), "written").map_err(|error| error.to_string())?;
        disk.mount().shut_down()?;
        let written = fs::write(disk.mount().path().join("after"), "the cut");
        if written.is_ok() {
            return Err("a disk that was cut off can still be written".to_owned());
        }
        disk.remount()?;
        fs::write(disk.mount().path().join("after"), "the cut").map_err(|error| error.to_string())
    }
}
