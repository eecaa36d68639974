//! Files of reports: one as an object of JSON, or several, one after the other (as `cat` puts them) or as a list.

use std::fs;
use std::path::Path;

use serde_json::{Deserializer, Value};

use crate::error::{Error, Result};
use crate::report::RunReport;

/// The runs of a file, in its order; at least one.
///
/// # Errors
/// [`Error::File`]: it cannot be read. [`Error::Report`]: it does not hold reports of this version.
pub fn read_runs(path: &Path) -> Result<Vec<RunReport>> {
    let bytes = fs::read(path).map_err(Error::file(path))?;
    runs(&bytes).map_err(|problem| Error::Report { path: path.to_owned(), problem })
}

fn runs(bytes: &[u8]) -> Result<Vec<RunReport>, String> {
    let mut values = Vec::new();
    for value in Deserializer::from_slice(bytes).into_iter() {
        match value.map_err(|error| format!("not JSON: {error}"))? {
            Value::Array(list) => values.extend(list),
            value => values.push(value),
        }
    }
    if values.is_empty() {
        return Err("no report is in it".to_owned());
    }
    let number = |(index, value)| run(value).map_err(|problem| format!("report {}: {problem}", index + 1));
    values.into_iter().enumerate().map(number).collect()
}

fn run(value: Value) -> Result<RunReport, String> {
    let Some(version) = value.get("report_version") else {
        return Err("not the report of a run: it has no report_version".to_owned());
    };
    // Asked first: what else is wrong with another version says nothing.
    if version.as_u64() != Some(u64::from(RunReport::VERSION)) {
        return Err(format!("report_version {version}; this build reads {}", RunReport::VERSION));
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_file_holds_one_run_or_several() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runs.json");
        let one = serde_json::to_string(&report()).unwrap();
        for (text, count) in
            [(one.clone(), 1), (format!("[{one}, {one}]"), 2), (format!("{one}\n{one}\n"), 2)]
        {
            fs::write(&path, text).unwrap();
            assert_eq!(read_runs(&path).unwrap(), vec![report(); count]);
        }
        fs::write(&path, "{").unwrap();
        let error = read_runs(&path).unwrap_err();
        assert!(error.to_string().contains("runs.json: not JSON: "), "{error}");
        assert!(matches!(read_runs(&directory.path().join("none")), Err(Error::File { .. })));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said() {
        let wrong = |edit: fn(&mut Value)| {
            let mut value = serde_json::to_value(report()).unwrap();
            edit(&mut value);
            runs(Value::Array(vec![serde_json::to_value(report()).unwrap(), value]).to_string().as_bytes())
                .unwrap_err()
        };
        assert_eq!(
            wrong(|value| value["report_version"] = 2.into()),
            "report 2: report_version 2; this build reads 1"
        );
        assert_eq!(
            wrong(|value| value["depth"] = "deep".into()),
            "report 2: invalid type: string \"deep\", expected u32"
        );
        assert_eq!(
            wrong(|value| *value = 7.into()),
            "report 2: not the report of a run: it has no report_version"
        );
        for empty in [&b"[]"[..], b""] {
            assert_eq!(runs(empty).unwrap_err(), "no report is in it");
        }
    }
}
