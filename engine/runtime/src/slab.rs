//! Numbered places for operations in flight.
//!
//! A key names a place and the generation of its content, so that a completion that comes late
//! finds nothing instead of somebody else's operation. Places are reused; the slab grows to the
//! largest number of operations that were ever in flight together and stays there.

/// Names one value in a [`Slab`]: generation in the upper half, place in the lower.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key(u64);

impl Key {
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    const fn place(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }

    const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

struct Place<T> {
    generation: u32,
    value: Option<T>,
}

/// Values under keys that are never reused.
pub(crate) struct Slab<T> {
    places: Vec<Place<T>>,
    free: Vec<u32>,
}

/// Keys whose generation would be this one are skipped: the ring uses them for itself.
const RESERVED_GENERATION: u32 = u32::MAX;

impl<T> Slab<T> {
    pub(crate) fn with_capacity(values: usize) -> Self {
        Self { places: Vec::with_capacity(values), free: Vec::with_capacity(values) }
    }

    pub(crate) fn insert(&mut self, value: T) -> Key {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                let place = u32::try_from(self.places.len()).expect("fewer than 2^32 operations in flight");
                self.places.push(Place { generation: 0, value: None });
                place
            }
        };
        let slot = &mut self.places[place as usize];
        slot.value = Some(value);
        Key(u64::from(slot.generation) << 32 | u64::from(place))
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let place = self.places.get_mut(key.place())?;
        if place.generation == key.generation() { place.value.as_mut() } else { None }
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter_map(|place| place.value.as_ref())
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let place = self.places.get_mut(key.place())?;
        if place.generation != key.generation() {
            return None;
        }
        let value = place.value.take()?;
        place.generation = match place.generation.wrapping_add(1) {
            RESERVED_GENERATION => 0,
            next => next,
        };
        self.free.push(key.place() as u32);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_removed_values_find_nothing() {
        let mut slab = Slab::with_capacity(2);
        let first = slab.insert("first");
        assert_eq!(slab.remove(first), Some("first"));
        let second = slab.insert("second");
        assert_eq!(second.place(), first.place());
        assert_eq!(slab.get_mut(first), None);
        assert_eq!(slab.remove(first), None);
        assert_eq!(slab.get_mut(second), Some(&mut "second"));
        assert_eq!(slab.get_mut(Key::from_bits(u64::MAX)), None);
        assert_eq!(slab.values().collect::<Vec<_>>(), [&"second"]);
    }
}
