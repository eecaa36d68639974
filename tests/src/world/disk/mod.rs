//! The disk of a node: directories and files in memory, kept across kills and power cuts of the node.
//!
//! What is modelled, and why so:
//!
//! * a kill of the process ([`World::crash`](super::World::crash)) loses nothing that was finished:
//!   the kernel has it. A power cut ([`World::power_cut`](super::World::power_cut)) loses what no sync
//!   has made durable, by chances drawn anew for each cut ([`PowerCut`]);
//! * bytes are pending per 512 B sector until a durable write of them ends, or a sync that began after
//!   their write ended. A cut keeps, drops, tears or garbles each pending sector on its own: NVMe
//!   devices promise atomicity of their own block only and destage their volatile cache in any order.
//!   A durable write (`RWF_DSYNC`) under way is pending in the same way, sector by sector;
//! * a grown size is durable with a durable write up to it or a sync. After a cut the file may be
//!   shorter, or as long with zeros where the data was dropped (ext4 without ordered data, xfs);
//! * names are durable only by a sync of their directory, which is all that POSIX promises. A sync of
//!   the file does not do it (it happens to on ext4), nor does a sync of the parent for what lies in
//!   a new directory. A cut keeps a prefix of the pending changes, as journals do, or any consistent
//!   subset of them. A rename stays atomic. One between directories is durable with either of them;
//! * what no cut touches: bytes that were durable and are not being written. Devices that lose those
//!   are broken, and tests break them on purpose.
//!
//! Faults ([`Fault`]) come by rates or exactly ([`Disk::set_faults`], [`Disk::fail_nth`]); each is
//! counted when it happens, as is each outcome of a cut ([`Disk::fault_counts`]), and the trace has
//! it. A failed sync is final for what it was to cover, as on Linux since 4.13: the pages count as
//! clean, the next sync says that all is well, and a cut may lose them.
//!
//! Not modelled: sectors damaged beside those being written (a device block larger than a sector),
//! memory-mapped files, holes (a file takes space for its whole size), directories that are removed
//! or renamed (the environment has neither), limits on the number of files, permissions.
//!
//! Alignment is checked as direct I/O does, and space runs out at a size: growing beyond it fails
//! with `StorageFull` and changes nothing, overwriting goes on. Pages of zeros take no memory, so a
//! pre-filled log segment costs nothing. Paths are relative to one root; `..` is refused.
//!
//! The methods of [`Disk`] that tests see bypass the node: they look at files, or damage them,
//! durably and without virtual time passing.

mod content;
mod cut;
mod faults;
mod faulty;
mod operations;
mod power;
mod tally;
mod tree;

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::task::Waker;

use pinion_env::{PAGE_BYTES, Space};

use super::random::Random;
use faults::Orders;
use operations::inside;
use tally::Tally;
use tree::Tree;

pub use cut::PowerCut;
pub use faults::{Fault, Faults, Filter, Injected};
pub use tally::Operation;

pub(super) use content::Inode;
pub(super) use tally::Outcome;

/// A node's disk.
#[derive(Debug)]
pub struct Disk {
    tree: RefCell<Tree>,
    space: RefCell<Space>,
    random: RefCell<Random>,
    tally: RefCell<Tally>,
    power: Cell<Power>,
    /// The disk stops when so many operations have ended.
    stop_at: Cell<Option<u64>>,
    stop_waiters: RefCell<Vec<Waker>>,
    orders: RefCell<Orders>,
    /// Whether any fault is asked for: the only thing that a disk without faults looks at.
    armed: Cell<bool>,
    /// The last fault, until the trace has it.
    unnoted: Cell<Option<u64>>,
    /// Whether old content is kept for stale reads.
    keeps_old: Cell<bool>,
    /// The last files that are gone, for stale reads.
    removed: RefCell<VecDeque<Inode>>,
}

/// Whether operations have their effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    On,
    /// Nothing that is under way ends; the cut is still to come.
    Stopped,
    /// The cut goes on: what was under way becomes pending, nothing becomes durable.
    Fading,
}

/// What a test sees of a disk.
impl Disk {
    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        self.tree.borrow().files().map(|(path, _)| path.clone()).collect()
    }

    /// The whole content of a file, as the node would read it.
    ///
    /// # Errors
    /// No such file.
    pub fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let inode = self.file(path)?;
        let content = inode.borrow();
        let mut whole = vec![0; content.bytes() as usize];
        content.read(0, &mut whole);
        Ok(whole)
    }

    /// Puts bytes at an offset of a file, growing it if need be; alignment and space do not matter.
    ///
    /// # Errors
    /// No such file.
    pub fn overwrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let inode = self.file(path)?;
        let mut content = inode.borrow_mut();
        let end = content.bytes().max(offset + bytes.len() as u64);
        self.resize(&mut content, end);
        content.write_durable(offset, bytes);
        Ok(())
    }

    /// Makes a file shorter, or longer by zeros.
    ///
    /// # Errors
    /// No such file.
    pub fn truncate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let inode = self.file(path)?;
        let mut content = inode.borrow_mut();
        self.resize(&mut content, bytes);
        content.write_durable(bytes, &[]);
        Ok(())
    }

    /// Removes a file behind the node's back.
    ///
    /// # Errors
    /// No such file.
    pub fn delete(&self, path: &Path) -> io::Result<()> {
        let inode = self.file(path)?;
        self.unlink(&inode);
        self.tree.borrow_mut().forget(&inside(path)?, &inode);
        Ok(())
    }

    /// Flips one bit of a file: of the byte at `offset` the bit `bit`, from 0 to 7.
    ///
    /// # Errors
    /// No such file, or it ends before.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let inode = self.file(path)?;
        let mut content = inode.borrow_mut();
        if offset >= content.bytes() {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
        }
        content.flip(offset, u64::from(bit));
        Ok(())
    }

    /// Makes the 4 KiB page at an offset of a file unreadable until it is written again.
    ///
    /// # Errors
    /// No such file.
    pub fn make_unreadable(&self, path: &Path, offset: u64) -> io::Result<()> {
        self.file(path)?.borrow_mut().make_unreadable(offset);
        Ok(())
    }

    /// Changes the size of the disk. It may become smaller than what it holds: nothing grows then.
    pub fn set_total_bytes(&self, total_bytes: u64) {
        let used = self.used_bytes();
        let mut space = self.space.borrow_mut();
        space.total_bytes = total_bytes;
        space.available_bytes = total_bytes.saturating_sub(used);
    }

    /// Bytes taken by files, in whole pages.
    pub fn used_bytes(&self) -> u64 {
        self.tree.borrow().files().map(|(_, inode)| inode.borrow().allocated_bytes()).sum()
    }

    /// An empty disk that draws what it must from a stream of its own.
    ///
    /// # Panics
    /// When the block is not a power of two from 512 to [`PAGE_BYTES`].
    pub(super) fn new(total_bytes: u64, block_bytes: u32, random: Random) -> Self {
        let fits = block_bytes.is_power_of_two() && (512..=PAGE_BYTES as u32).contains(&block_bytes);
        assert!(fits, "a block of {block_bytes} bytes");
        let space = Space { total_bytes, available_bytes: total_bytes, block_bytes };
        Self {
            tree: RefCell::new(Tree::new()),
            space: RefCell::new(space),
            random: RefCell::new(random),
            tally: RefCell::default(),
            power: Cell::new(Power::On),
            stop_at: Cell::new(None),
            stop_waiters: RefCell::default(),
            orders: RefCell::default(),
            armed: Cell::new(false),
            unnoted: Cell::new(None),
            keeps_old: Cell::new(false),
            removed: RefCell::default(),
        }
    }
}
