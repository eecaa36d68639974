//! Whether runs may be compared at all.
//!
//! Targets and machines may differ: that is what is compared. The work may not.

use crate::error::{Error, Result};
use crate::report::RunReport;

/// Its name, and how a run has it.
type Aspect = (&'static str, fn(&RunReport) -> String);

/// What must be the same in all runs of both sets.
const SAME: [Aspect; 6] = [
    ("workload", |run| run.workload.clone()),
    ("phase", |run| run.phase.clone()),
    ("rate", |run| {
        run.rate_per_second.map_or_else(|| "as many as possible".to_owned(), |rate| rate.to_string())
    }),
    ("threads", |run| run.threads.to_string()),
    ("connections", |run| run.connections.to_string()),
    ("depth", |run| run.depth.to_string()),
];

/// # Errors
/// [`Error::Incomparable`]: the first difference that forbids it.
pub(super) fn check(a: &[RunReport], b: &[RunReport]) -> Result<()> {
    let refuse = |why: String| Err(Error::Incomparable(why));
    if a.len() != b.len() {
        return refuse(format!("A has {} runs and B has {}: they are compared in pairs", a.len(), b.len()));
    }
    let Some(first) = a.first() else {
        return refuse("there are no runs".to_owned());
    };
    for (set, index, run) in numbered(a, b) {
        for (what, value) in SAME {
            let (here, there) = (value(run), value(first));
            if here != there {
                return refuse(format!("{what}: {there} in run 1 of A, {here} in run {index} of {set}"));
            }
        }
        if run.operations == 0 {
            return refuse(format!("run {index} of {set} has no operation that succeeded"));
        }
    }
    for (index, (a, b)) in a.iter().zip(b).enumerate() {
        // Of the pair only: rounds of a set may differ, by their seed for instance.
        if let Some((name, [a, b])) = different_property(a, b) {
            let index = index + 1;
            return refuse(format!("property {name}: {a} in run {index} of A, {b} in run {index} of B"));
        }
    }
    Ok(())
}

fn numbered<'r>(
    a: &'r [RunReport],
    b: &'r [RunReport],
) -> impl Iterator<Item = (char, usize, &'r RunReport)> {
    let number = |set: char, runs: &'r [RunReport]| {
        runs.iter().enumerate().map(move |(index, run)| (set, index + 1, run))
    };
    number('A', a).chain(number('B', b))
}

/// Its name, and its value in both, or that it is absent.
fn different_property<'r>(a: &'r RunReport, b: &'r RunReport) -> Option<(&'r str, [&'r str; 2])> {
    let value = |run: &'r RunReport, name: &str| {
        let found = run.properties.iter().find(|property| property.0 == name);
        found.map_or("not given", |property| property.1.as_str())
    };
    let names = a.properties.iter().chain(&b.properties).map(|property| property.0.as_str());
    names.map(|name| (name, [value(a, name), value(b, name)])).find(|(_, [a, b])| a != b)
}
