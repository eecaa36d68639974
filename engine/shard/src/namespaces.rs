//! Which namespaces live, and which a table holds records of.
//!
//! A namespace's number is never used again. So a number that was given out and is not live is
//! dropped for good, and that is all a shard must know to remove its records wherever they turn up:
//! in a memtable, in a replayed log, in a table. There is no list of namespaces that are still being
//! removed, nothing has to be agreed on when the last record is gone, and a crash leaves nothing
//! behind. No request reaches such records meanwhile: requests name live namespaces or are refused.
//!
//! Limits: a node has at most [`NAMESPACES_MAX`] live namespaces, and no table that was written by
//! the knowledge of them holds more: flushes and compactions leave out what was dropped before they
//! began. A table of a shard that is recovering may; its list says no more than that.

use crate::catalogue::NAMESPACES_MAX;
use crate::codec::Decoder;
use crate::key::NamespaceId;

/// Stands for the number of namespaces in a list that is too long.
const TOO_MANY: u16 = u16::MAX;

/// The namespaces that a shard knows of. The default knows none, and takes none for dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LiveNamespaces {
    /// No number from here on has been given out.
    next: NamespaceId,
    /// Ascending.
    live: Vec<NamespaceId>,
}

impl LiveNamespaces {
    /// Those that live, of all with a number below `next`.
    pub fn new(next: NamespaceId, live: impl IntoIterator<Item = NamespaceId>) -> Self {
        let mut live: Vec<NamespaceId> = live.into_iter().collect();
        live.sort_unstable();
        Self { next, live }
    }

    /// Whether a namespace was there and is no more. Once dropped it stays so.
    pub fn is_dropped(&self, id: NamespaceId) -> bool {
        id < self.next && self.live.binary_search(&id).is_err()
    }
}

/// The namespaces that a table holds records of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableNamespaces {
    /// Ascending; `None` if there are more than [`NAMESPACES_MAX`].
    listed: Option<Vec<NamespaceId>>,
}

impl Default for TableNamespaces {
    fn default() -> Self {
        Self { listed: Some(Vec::new()) }
    }
}

impl FromIterator<NamespaceId> for TableNamespaces {
    fn from_iter<I: IntoIterator<Item = NamespaceId>>(ids: I) -> Self {
        let mut namespaces = Self::default();
        ids.into_iter().for_each(|id| namespaces.insert(id));
        namespaces
    }
}

impl TableNamespaces {
    /// In ascending order; `None` if there are more than [`NAMESPACES_MAX`].
    pub fn listed(&self) -> Option<&[NamespaceId]> {
        self.listed.as_deref()
    }

    /// Adds one.
    pub(crate) fn insert(&mut self, id: NamespaceId) {
        let Some(listed) = &mut self.listed else { return };
        if let Err(place) = listed.binary_search(&id) {
            if listed.len() < NAMESPACES_MAX {
                listed.insert(place, id);
            } else {
                self.listed = None;
            }
        }
    }

    /// Whether a record may be of a dropped namespace. A table that was just written by the same
    /// knowledge says no: its list is not too long then.
    pub(crate) fn may_hold_dropped(&self, known: &LiveNamespaces) -> bool {
        match &self.listed {
            Some(listed) => {
                // Both ascend: one walk, since the picker asks this of every table.
                let mut live = known.live.iter();
                let mut given_out = listed.iter().take_while(|id| **id < known.next);
                given_out.any(|id| live.find(|other| *other >= id) != Some(id))
            }
            None => known.next > NamespaceId::default(),
        }
    }

    /// Whether every record is of a dropped namespace.
    pub(crate) fn are_dropped(&self, known: &LiveNamespaces) -> bool {
        self.listed.as_ref().is_some_and(|listed| listed.iter().all(|id| known.is_dropped(*id)))
    }

    /// Number u16, then that many namespaces u32.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let count = self.listed.as_ref().map_or(TOO_MANY, |listed| listed.len() as u16);
        out.extend_from_slice(&count.to_le_bytes());
        for id in self.listed.iter().flatten() {
            out.extend_from_slice(&id.0.to_le_bytes());
        }
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Option<Self> {
        let count = from.u16()?;
        if count == TOO_MANY {
            return Some(Self { listed: None });
        }
        let listed: Vec<NamespaceId> =
            (0..count).map(|_| from.u32().map(NamespaceId)).collect::<Option<_>>()?;
        let sound = listed.len() <= NAMESPACES_MAX && listed.windows(2).all(|pair| pair[0] < pair[1]);
        sound.then_some(Self { listed: Some(listed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(ids: impl IntoIterator<Item = u32>) -> TableNamespaces {
        ids.into_iter().map(NamespaceId).collect()
    }

    fn known(next: u32, live: &[u32]) -> LiveNamespaces {
        LiveNamespaces::new(NamespaceId(next), live.iter().copied().map(NamespaceId))
    }

    fn decoded(bytes: &[u8]) -> Option<TableNamespaces> {
        TableNamespaces::decode(&mut Decoder::new(bytes))
    }

    #[test]
    fn what_was_given_out_and_is_not_live_is_dropped() {
        let known = known(5, &[3, 0]);
        let dropped: Vec<u32> = (0..8).filter(|id| known.is_dropped(NamespaceId(*id))).collect();
        assert_eq!(dropped, [1, 2, 4]);
        assert!((0..8).all(|id| !LiveNamespaces::default().is_dropped(NamespaceId(id))));
    }

    #[test]
    fn a_table_knows_what_it_holds() {
        let known = known(5, &[0, 3]);
        let says = |ids: &[u32]| {
            let table = table(ids.iter().copied());
            (table.may_hold_dropped(&known), table.are_dropped(&known))
        };
        assert_eq!(says(&[3, 0, 3, 7]), (false, false));
        assert_eq!(says(&[0, 4]), (true, false));
        assert_eq!(says(&[1, 3, 7]), (true, false));
        assert_eq!(says(&[3]), (false, false));
        assert_eq!(says(&[4, 1]), (true, true));
        assert_eq!(table([3, 0, 3, 7]).listed(), Some(&[0, 3, 7].map(NamespaceId)[..]));
    }

    #[test]
    fn a_list_is_bounded_and_comes_back_from_its_bytes() {
        let longest = table(0..NAMESPACES_MAX as u32);
        let too_long = table(0..=NAMESPACES_MAX as u32);
        assert!(longest.listed().is_some() && too_long.listed().is_none());
        for namespaces in [table([7]), longest, too_long.clone()] {
            let mut bytes = Vec::new();
            namespaces.encode(&mut bytes);
            assert_eq!(decoded(&bytes), Some(namespaces));
            assert_eq!(decoded(&bytes[..bytes.len() - 1]), None);
        }
        assert!(!too_long.may_hold_dropped(&LiveNamespaces::default()));
        assert!(too_long.may_hold_dropped(&known(1, &[0])) && !too_long.are_dropped(&known(1, &[0])));
        assert_eq!(decoded(&[2, 0, 1, 0, 0, 0, 1, 0, 0, 0]), None, "one twice");
    }
}
