//! Which CPUs a node runs on.

use std::fmt;
use std::str::FromStr;

use pinion_runtime::online_cpus;

/// The setting `cores`: how many, or which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cores {
    /// The first so many of the CPUs this process may use.
    Count(usize),
    /// These CPUs, one core on each.
    Cpus(Vec<usize>),
}

/// CPUs that a list may name; more than any machine has.
const CPUS_MAX: usize = 4_096;

impl Cores {
    /// The CPU of each core. `None`: every CPU this process may use.
    ///
    /// # Errors
    /// More cores than CPUs. A listed CPU that does not exist is the runtime's to refuse.
    pub(crate) fn cpus(wanted: Option<&Self>) -> Result<Vec<usize>, String> {
        let online = online_cpus();
        match wanted {
            None => Ok(online),
            Some(Self::Cpus(cpus)) => Ok(cpus.clone()),
            Some(Self::Count(count)) if *count <= online.len() => Ok(online[..*count].to_vec()),
            Some(Self::Count(count)) => Err(format!(
                "{count} cores are more than the {} CPUs that this process may use: lower --cores",
                online.len()
            )),
        }
    }
}

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{text}` is neither a number of cores nor a list of CPUs like 0,2-5");
        if let Ok(count) = text.trim().parse::<usize>() {
            return if count == 0 {
                Err("at least one core is needed".into())
            } else {
                Ok(Self::Count(count))
            };
        }
        let mut cpus = Vec::new();
        // A trailing comma makes a list of one CPU.
        for part in text.trim().trim_end_matches(',').split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<usize>().map_err(|_| bad());
            let (first, last) = (number(first)?, number(last)?);
            if first > last || last >= CPUS_MAX || cpus.len() + (last - first) >= CPUS_MAX {
                return Err(bad());
            }
            cpus.extend(first..=last);
        }
        Ok(Self::Cpus(cpus))
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Cpus(cpus) => {
                let cpus: Vec<String> = cpus.iter().map(usize::to_string).collect();
                write!(f, "{}", cpus.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_counts_and_a_list_names() {
        assert_eq!("4".parse(), Ok(Cores::Count(4)));
        assert_eq!("4,".parse(), Ok(Cores::Cpus(vec![4])));
        assert_eq!("0, 2-4".parse(), Ok(Cores::Cpus(vec![0, 2, 3, 4])));
        for text in ["", "0", "-1", "a", "3-1", "1,,2", "0-99999999999"] {
            assert!(text.parse::<Cores>().is_err(), "{text}");
        }
    }

    #[test]
    fn more_cores_than_cpus_are_refused() {
        let online = online_cpus().len();
        assert_eq!(Cores::cpus(None).unwrap().len(), online);
        assert_eq!(Cores::cpus(Some(&Cores::Count(1))).unwrap().len(), 1);
        assert!(Cores::cpus(Some(&Cores::Count(online + 1))).unwrap_err().contains("--cores"));
    }
}
