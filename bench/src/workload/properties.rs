//! Properties, as YCSB has them: files of `name=value`, and single ones from the command line.
//!
//! A file is a Java properties file without its rarer rules: a line is `name=value`, `name: value` or
//! `name value`; `#` and `!` begin comments; a backslash at the end continues a line. What comes later
//! wins. A name that nothing asks for is an error, since it is most likely a wrong spelling of one that
//! would have changed the measurement.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Names of YCSB that say nothing to this tool: files of YCSB may hold them.
const IGNORED: [&str; 16] = [
    "workload",
    "db",
    "table",
    "exporter",
    "exportfile",
    "exportmeasurementsinterval",
    "measurementtype",
    "measurement.interval",
    "histogram.buckets",
    "hdrhistogram.percentiles",
    "hdrhistogram.fileoutput",
    "hdrhistogram.output.path",
    "timeseries.granularity",
    "readallfields",
    "core_workload_insertion_retry_limit",
    "core_workload_insertion_retry_interval",
];

/// Names and values.
#[derive(Debug, Default)]
pub struct Properties {
    values: BTreeMap<String, String>,
    asked: RefCell<BTreeSet<String>>,
}

impl Properties {
    /// Takes `name=value`.
    ///
    /// # Errors
    /// [`Error::Usage`] without a `=`.
    pub fn set(&mut self, assignment: &str) -> Result<()> {
        let Some((name, value)) = assignment.split_once('=') else {
            return Err(Error::Usage(format!("a property is name=value, not {assignment:?}")));
        };
        self.put(name.trim(), value.trim());
        Ok(())
    }

    /// Takes a value.
    pub fn put(&mut self, name: &str, value: &str) {
        self.values.insert(name.to_owned(), value.to_owned());
    }

    /// Takes what a file says.
    ///
    /// # Errors
    /// [`Error::File`]; [`Error::Usage`] for a line that is no property.
    pub fn read(&mut self, path: &Path) -> Result<()> {
        let text = fs::read_to_string(path).map_err(Error::file(path))?;
        let mut whole = String::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if whole.is_empty() && (line.is_empty() || line.starts_with(['#', '!'])) {
                continue;
            }
            if let Some(begun) = line.strip_suffix('\\') {
                whole.push_str(begun);
                continue;
            }
            whole.push_str(line);
            let line = std::mem::take(&mut whole);
            let Some(end) = line.find(|letter: char| "=:".contains(letter) || letter.is_whitespace()) else {
                let text =
                    format!("{}, line {}: {line:?} is no property: name=value", path.display(), index + 1);
                return Err(Error::Usage(text));
            };
            let value = line[end..].trim_start();
            let value = value.strip_prefix(['=', ':']).unwrap_or(value);
            self.put(&line[..end], value.trim());
        }
        Ok(())
    }

    /// The value of a name, if there is one.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.asked.borrow_mut().insert(name.to_owned());
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// The value of a name as a number, or what it is without one.
    ///
    /// # Errors
    /// [`Error::Usage`] when it is none.
    pub fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse()
            .map_err(|_| Error::Usage(format!("property {name}: {text:?} is no number that it takes")))
    }

    /// The value of a name as a part of a whole, from 0 to 1.
    ///
    /// # Errors
    /// [`Error::Usage`] when it is none.
    pub fn share(&self, name: &str, default: f64) -> Result<f64> {
        let share = self.number(name, default)?;
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::Usage(format!("property {name}: {share} is not between 0 and 1")));
        }
        Ok(share)
    }

    /// The value of a name as yes or no.
    ///
    /// # Errors
    /// [`Error::Usage`] when it is neither `true` nor `false`.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        match self.text(name) {
            None => Ok(default),
            Some("true") => Ok(true),
            Some("false") => Ok(false),
            Some(other) => Err(Error::Usage(format!("property {name}: {other:?} is neither true nor false"))),
        }
    }

    /// Says which names nobody has asked for.
    ///
    /// # Errors
    /// [`Error::Usage`] when there is one.
    pub fn check_all_known(&self) -> Result<()> {
        let asked = self.asked.borrow();
        let known = |name: &str| asked.contains(name) || IGNORED.contains(&name);
        let Some(unknown) = self.values.keys().find(|name| !known(name)) else { return Ok(()) };
        let nearest = asked
            .iter()
            .min_by_key(|name| distance(name, unknown))
            .filter(|name| distance(name, unknown) <= 3);
        let hint = nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"));
        Err(Error::Usage(format!("there is no property {unknown}{hint}")))
    }

    /// All of them, sorted by name.
    pub fn listed(&self) -> Vec<(String, String)> {
        self.values.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// How many letters have to be changed, added or left out to make one word of the other (Levenshtein
/// 1966).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, other) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *other);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_and_single_properties_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w");
        let text =
            "# of YCSB\n! too\n\nrecordcount=1000\nreadproportion: 0.5\nscan  0.25\nlong=a\\\n  b\nempty=\n";
        fs::write(&path, text).unwrap();
        let mut properties = Properties::default();
        properties.read(&path).unwrap();
        properties.set("recordcount=7").unwrap();
        assert_eq!(properties.number("recordcount", 1_u64).unwrap(), 7);
        assert!((properties.share("readproportion", 0.0).unwrap() - 0.5).abs() < 1e-12);
        assert_eq!(
            (properties.text("scan"), properties.text("long"), properties.text("empty")),
            (Some("0.25"), Some("ab"), None)
        );
        assert!(properties.flag("empty", true).unwrap());
        properties.check_all_known().unwrap();
        fs::write(&path, "a=1\nnonsense\n").unwrap();
        let error = properties.read(&path).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("nonsense"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut properties = Properties::default();
        assert!(properties.set("novalue").is_err());
        for assignment in ["recordcont=5", "workload=site.ycsb.workloads.CoreWorkload"] {
            properties.set(assignment).unwrap();
        }
        assert_eq!(properties.number("recordcount", 3_u64).unwrap(), 3);
        let error = properties.check_all_known().unwrap_err().to_string();
        assert_eq!(error, "there is no property recordcont; did you mean recordcount?");
        properties.put("recordcount", "many");
        assert!(properties.number("recordcount", 3_u64).unwrap_err().to_string().contains("many"));
        properties.put("recordcount", "1.5");
        assert!(
            properties.share("recordcount", 0.0).is_err() && properties.flag("recordcount", true).is_err()
        );
    }
}
