//! What a run has counted, by name.

use std::collections::BTreeMap;
use std::fmt;

/// Named sums, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    /// Adds to a count.
    pub fn add(&mut self, name: &str, more: u64) {
        match self.0.get_mut(name) {
            Some(count) => *count += more,
            None => {
                self.0.insert(name.to_owned(), more);
            }
        }
    }

    /// A count; 0 if nothing was added to it.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Adds all counts of another run.
    pub fn merge(&mut self, other: &Self) {
        for (name, more) in &other.0 {
            self.add(name, *more);
        }
    }

    /// Names and counts, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count))
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, count)) in self.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{count} {name}")?;
        }
        Ok(())
    }
}
