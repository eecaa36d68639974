//! What a power cut does: chances, drawn anew for each cut.
//!
//! A generator that treats every cut alike hides whole classes of bugs (everything lost, nothing
//! lost, only names lost), so each cut draws its own chances first and then decides by them.

use crate::world::random::Random;

/// Chances are out of this many.
pub(super) const CERTAIN: u16 = 256;

/// How a power cut deals with what was not yet durable. Chances are out of 256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerCut {
    /// That an operation under way at the cut had begun: its parts are then as pending as others.
    pub under_way_begun: u16,
    /// That a pending sector keeps what was durable before.
    pub sector_dropped: u16,
    /// That a pending sector is left with old bytes on one side and new ones on the other.
    pub sector_torn: u16,
    /// That a pending sector is left with random bytes.
    pub sector_garbled: u16,
    /// That a file loses some or all of a growth that was not synced; if certain, then all of it.
    pub size_cut: u16,
    /// That a creation, rename or removal that was not synced has not happened.
    pub name_dropped: u16,
    /// Whether names are lost as a journal loses them: one loss takes all later changes along.
    pub names_in_order: bool,
}

impl PowerCut {
    /// Nothing is lost: a device with a battery, and a kernel that had written everything back.
    pub fn keep_all() -> Self {
        Self {
            under_way_begun: CERTAIN,
            sector_dropped: 0,
            sector_torn: 0,
            sector_garbled: 0,
            size_cut: 0,
            name_dropped: 0,
            names_in_order: true,
        }
    }

    /// All that was not durable is gone.
    pub fn drop_all() -> Self {
        Self {
            under_way_begun: 0,
            sector_dropped: CERTAIN,
            size_cut: CERTAIN,
            name_dropped: CERTAIN,
            ..Self::keep_all()
        }
    }

    /// Some cut; about a quarter of them keep or drop everything.
    pub fn draw(random: &mut Random) -> Self {
        let names_in_order = random.one_in(2);
        let mut cut = match random.below(8) {
            0 => Self { under_way_begun: chance(random), ..Self::keep_all() },
            1 => Self { under_way_begun: chance(random), ..Self::drop_all() },
            2 => Self { size_cut: chance(random), name_dropped: chance(random), ..Self::keep_all() },
            3 => Self { name_dropped: 0, size_cut: 0, under_way_begun: CERTAIN, ..Self::drop_all() },
            style => {
                // Damage to single sectors is rarer than their loss in some, and all there is in others.
                let sector_torn = if style == 4 { 0 } else { chance(random) / 2 };
                let sector_garbled = if style <= 5 { 0 } else { chance(random) / 4 };
                Self {
                    under_way_begun: chance(random),
                    sector_dropped: chance(random),
                    sector_torn,
                    sector_garbled,
                    size_cut: chance(random),
                    name_dropped: chance(random),
                    names_in_order,
                }
            }
        };
        cut.names_in_order = names_in_order;
        cut
    }

    pub(super) fn happens(chance: u16, random: &mut Random) -> bool {
        match chance {
            0 => false,
            CERTAIN.. => true,
            _ => random.below(u64::from(CERTAIN)) < u64::from(chance),
        }
    }
}

/// A chance of any size; none and certainty are drawn more often than others.
fn chance(random: &mut Random) -> u16 {
    match random.below(8) {
        0 => 0,
        1 => CERTAIN,
        _ => random.below(u64::from(CERTAIN)) as u16,
    }
}
