//! What a power cut leaves of bytes, against a model of what each sector may hold.

use std::collections::BTreeSet;
use std::path::Path;

use pinion_env::{AlignedBuf, OpenMode, PAGE_BYTES, WriteMode};

use super::super::content::SyncMark;
use super::super::{Disk, PowerCut};
use super::counted;
use crate::world::random::Random;

const SECTOR: usize = 512;
const SECTORS: usize = 64;

/// What a sector may hold after a cut: its durable content, and everything written since.
#[derive(Clone, Default)]
struct Sector {
    /// Number of the write and the byte that it wrote, oldest first; the first one is durable.
    versions: Vec<(u32, u8)>,
}

impl Sector {
    fn is_durable_up_to(&mut self, write: u32) {
        let covered = self.versions.iter().filter(|(number, _)| *number <= write).count();
        self.versions.drain(..covered.saturating_sub(1));
    }
}

/// Writes, durable and not, and syncs that overlap them; then cuts, again and again.
#[test]
fn a_cut_leaves_nothing_older_than_durable_and_nothing_foreign() {
    let mut older_kept = 0;
    let mut newest_lost = 0;
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let disk = Disk::new(1 << 20, 512, Random::new(!seed));
        let file = disk.open(Path::new("file"), OpenMode::CreateNew).unwrap();
        let whole = AlignedBuf::zeroed(SECTORS * SECTOR);
        disk.write_at(&file, 0, &whole, 0..SECTORS * SECTOR, WriteMode::Durable).unwrap();
        disk.sync_dir(Path::new(""), disk.begin_sync_dir()).unwrap();
        let mut model = vec![Sector { versions: vec![(0, 0)] }; SECTORS];
        let mut syncs: Vec<(SyncMark, u32)> = Vec::new();
        for write in 1..=200_u32 {
            match random.below(10) {
                0 => syncs.push((file.borrow_mut().begin_sync(), write)),
                1 => {
                    let Some((mark, begun)) = syncs.pop() else { continue };
                    disk.sync(&file, mark).unwrap();
                    model.iter_mut().for_each(|sector| sector.is_durable_up_to(begun));
                }
                2 if random.one_in(4) => {
                    syncs.clear();
                    let mut cut = PowerCut::draw(&mut random);
                    (cut.sector_torn, cut.sector_garbled) = (0, 0);
                    cut.name_dropped = 0;
                    disk.cut(&cut);
                    let left = disk.read(Path::new("file")).unwrap();
                    for (sector, bytes) in model.iter_mut().zip(left.chunks(SECTOR)) {
                        assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a torn sector (seed {seed})");
                        let known = sector.versions.iter().any(|(_, byte)| *byte == bytes[0]);
                        assert!(known, "{} of {:?} (seed {seed})", bytes[0], sector.versions);
                        let newest = sector.versions.last().unwrap().1;
                        newest_lost += u64::from(bytes[0] != newest);
                        older_kept += u64::from(bytes[0] != newest && bytes[0] != sector.versions[0].1);
                        sector.versions = vec![(write, bytes[0])];
                    }
                }
                drawn => {
                    let first = random.below(SECTORS as u64) as usize;
                    let last = (first + random.below(12) as usize).min(SECTORS - 1);
                    let byte = if random.one_in(8) { 0 } else { random.word() as u8 };
                    let mut buffer = AlignedBuf::zeroed(2 * PAGE_BYTES);
                    buffer.fill(byte);
                    let range = 0..(last - first + 1) * SECTOR;
                    let durable = drawn < 5;
                    let mode = if durable { WriteMode::Durable } else { WriteMode::Unsynced };
                    disk.write_at(&file, (first * SECTOR) as u64, &buffer, range, mode).unwrap();
                    for sector in &mut model[first..=last] {
                        sector.versions.push((write, byte));
                        if durable {
                            sector.versions.drain(..sector.versions.len() - 1);
                        }
                    }
                }
            }
        }
    }
    assert!(newest_lost > 1000 && older_kept > 100, "{newest_lost} {older_kept}");
}

#[test]
fn pending_sectors_are_kept_dropped_torn_or_garbled_one_by_one() {
    let cut = PowerCut { sector_dropped: 64, sector_torn: 64, sector_garbled: 64, ..PowerCut::keep_all() };
    let mut patterns = BTreeSet::new();
    for seed in 0..50 {
        let disk = Disk::new(1 << 20, 512, Random::new(seed));
        let file = disk.open(Path::new("file"), OpenMode::CreateNew).unwrap();
        disk.sync_dir(Path::new(""), disk.begin_sync_dir()).unwrap();
        let mut buffer = AlignedBuf::zeroed(PAGE_BYTES);
        buffer.fill(1);
        disk.write_at(&file, 0, &buffer, 0..PAGE_BYTES, WriteMode::Durable).unwrap();
        buffer.fill(2);
        disk.write_at(&file, 512, &buffer, 0..6 * 512, WriteMode::Unsynced).unwrap();
        disk.cut(&cut);
        let left = disk.read(Path::new("file")).unwrap();
        let mut pattern = String::new();
        for bytes in left.chunks(512) {
            let olds = bytes.iter().filter(|byte| **byte == 1).count();
            let news = bytes.iter().filter(|byte| **byte == 2).count();
            pattern.push(match (olds, news) {
                (512, 0) => 'd',
                (0, 512) => 'k',
                (old, new) if old + new == 512 => 't',
                _ => 'g',
            });
        }
        assert!(pattern.starts_with('d') && pattern.ends_with('d'), "the neighbours are durable: {pattern}");
        patterns.insert(pattern);
        let outcomes = ["sector kept", "sector dropped", "sector torn", "sector garbled"];
        assert_eq!(outcomes.map(|name| counted(&disk, name)).iter().sum::<u64>(), 6);
    }
    assert!(patterns.len() > 40, "{patterns:?}");
    let all = patterns.into_iter().collect::<String>();
    assert!(['d', 'k', 't', 'g'].iter().all(|outcome| all.contains(*outcome)));
}
