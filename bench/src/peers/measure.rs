//! One measurement: the load tool as a process of its own.
//!
//! A process of its own, because an engine inside the generator brings threads, memory and files of its
//! own: with the process all of them end, and what the system counts of it is of one round. It also makes
//! every round a command that anybody can repeat.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use crate::error::Error;
use crate::load::pin_to_cpu;
use crate::ratio::stop::Running;
use crate::report::RunReport;

/// How much of what a failed measurement wrote is repeated, in bytes.
const COMPLAINT_BYTES_MAX: usize = 1000;
/// Unit of a file's blocks, whatever the file system's.
const BLOCK_BYTES: u64 = 512;

/// This program, and where measurements leave their reports.
#[derive(Debug)]
pub(super) struct Tool<'p> {
    /// The program, and what comes before the commands of the load tool on its command line.
    pub(super) program: &'p (PathBuf, Vec<String>),
    /// The directory of all that is made.
    pub(super) scratch: PathBuf,
    /// A directory for reports.
    pub(super) reports: PathBuf,
    pub(super) running: Running,
}

impl Tool<'_> {
    /// The command line of a measurement, to be repeated.
    pub(super) fn command(&self, words: &[String]) -> Vec<String> {
        let program = self.program.0.display().to_string();
        self.shown(&[&[program], self.program.1.as_slice(), words].concat())
    }

    /// A command line without the paths of this machine: the program by its name, `DIR` for the directory
    /// of the comparison.
    pub(super) fn shown(&self, words: &[String]) -> Vec<String> {
        let scratch = self.scratch.display().to_string();
        let mut words: Vec<String> = words.iter().map(|word| word.replace(&scratch, "DIR")).collect();
        if let Some(program) = words.first_mut()
            && let Some((_, name)) = program.rsplit_once('/')
        {
            *program = name.to_owned();
        }
        words
    }

    /// Runs the load tool with these words, on one cpu or wherever the system likes. Its report and what
    /// it said stay under this name.
    ///
    /// # Errors
    /// Why there is no sound result, in words: the tool failed, ended early, or an answer was not right.
    pub(super) fn measure(
        &self,
        words: &[String],
        cpu: Option<usize>,
        name: &str,
    ) -> Result<RunReport, String> {
        let (json, log) =
            (self.reports.join(format!("{name}.json")), self.reports.join(format!("{name}.log")));
        let mut arguments: Vec<OsString> = self.program.1.iter().chain(words).map(OsString::from).collect();
        arguments.extend(["--json".into(), json.clone().into()]);
        let complaints = File::create(&log).map_err(|error| Error::file(&log)(error).to_string())?;
        let mut command = Command::new(&self.program.0);
        command.args(&arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(complaints);
        let process = self.start(&mut command, &self.program.0, cpu)?;
        let waited = Running::wait(process);
        let ended = self.running.end(process);
        waited.map_err(|error| format!("waiting for process {process}: {error}"))?;
        let Ok(text) = fs::read_to_string(&json) else {
            let status = ended.map_or_else(|| "it is gone".to_owned(), |status| status.to_string());
            return Err(format!("{status}: {}", end_of(&log)));
        };
        let report: RunReport =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", json.display()))?;
        match flaw(&report) {
            Some(flaw) => Err(flaw),
            None => Ok(report),
        }
    }

    /// Starts a process on one cpu, or wherever the system likes. [`Running::end`] it.
    ///
    /// # Errors
    /// It cannot be started, in words.
    pub(super) fn start(
        &self,
        command: &mut Command,
        program: &Path,
        cpu: Option<usize>,
    ) -> Result<u32, String> {
        // A process starts on the cpus of the thread that starts it; ours goes with this thread.
        let process = thread::scope(|scope| {
            let start = || {
                if let Some(cpu) = cpu {
                    pin_to_cpu(cpu).map_err(|error| Error::Cpu { cpu, error })?;
                }
                self.running.start(command, Error::file(program), |child| child.id())
            };
            scope.spawn(start).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        process.map_err(|error| error.to_string())
    }
}

/// Why a report is no sound result, if it is none.
pub(super) fn flaw(report: &RunReport) -> Option<String> {
    let sum = |count: fn(&crate::report::KindReport) -> u64| report.kinds.iter().map(count).sum::<u64>();
    let (failed, missing) = (sum(|kind| kind.failed), sum(|kind| kind.not_found));
    if let Some(ended) = &report.ended {
        return Some(format!("it ended early: {ended}"));
    }
    if failed > 0 {
        let said = report.warnings.iter().find(|warning| warning.starts_with("not every operation"));
        return Some(format!("{failed} operations failed; {}", said.map_or("", String::as_str)));
    }
    if missing > 0 {
        return Some(format!("{missing} records were not found"));
    }
    (report.operations == 0).then(|| "nothing was done in the measured time".to_owned())
}

/// The last lines of a file, in one.
pub(super) fn end_of(path: &Path) -> String {
    let said = fs::read(path).unwrap_or_default();
    let end = String::from_utf8_lossy(&said[said.len().saturating_sub(COMPLAINT_BYTES_MAX)..]).into_owned();
    let lines: Vec<&str> = end.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "it said nothing".to_owned() } else { lines.join("; ") }
}

/// Waits until what was written to the files of a directory is on the device.
///
/// # Errors
/// The system's, with the file's name; files may vanish meanwhile.
pub(super) fn sync_files(dir: &Path) -> Result<(), String> {
    let failed = |path: &Path, error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(Error::file(path)(error).to_string()),
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) => return failed(dir, error),
    };
    for entry in entries.filter_map(Result::ok) {
        let path = entry.path();
        let synced = match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                sync_files(&path)?;
                continue;
            }
            Ok(kind) if kind.is_file() => File::open(&path).and_then(|file| file.sync_data()),
            other => other.map(drop),
        };
        synced.or_else(|error| failed(&path, error))?;
    }
    Ok(())
}

/// What a directory takes of its device, in bytes, what cannot be read left out.
pub(super) fn directory_bytes(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => directory_bytes(&entry.path()),
        Ok(meta) => meta.blocks() * BLOCK_BYTES,
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(of).sum()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::peers::tests::report;

    fn measure(script: &str, dir: &Path) -> Result<RunReport, String> {
        // What follows the script are its arguments: $1 is --json, $2 the file.
        let program = ("/bin/sh".into(), ["-c", script, "sh"].map(str::to_owned).to_vec());
        tool(&program, dir).measure(&[], Some(0), "get-1")
    }

    fn tool<'p>(program: &'p (PathBuf, Vec<String>), dir: &Path) -> Tool<'p> {
        Tool { program, scratch: dir.to_owned(), reports: dir.to_owned(), running: Running::default() }
    }

    #[test]
    fn commands_are_shown_without_the_paths_of_a_machine() {
        let program = (PathBuf::from("/somewhere/pinion"), vec!["bench".to_owned()]);
        let tool = tool(&program, Path::new("/else/peers-1"));
        let words = ["run", "--target", "engine:/else/peers-1/engine/data"].map(str::to_owned);
        assert_eq!(tool.command(&words).join(" "), "pinion bench run --target engine:DIR/engine/data");
        assert_eq!(tool.shown(&["redis-server".to_owned()]), ["redis-server"]);
    }

    #[test]
    fn a_report_is_taken_where_the_tool_was_told_to_leave_it() {
        let dir = tempfile::tempdir().unwrap();
        let sound = dir.path().join("sound");
        fs::write(&sound, serde_json::to_string(&report(100.0)).unwrap()).unwrap();
        let script = format!("test \"$1\" = --json && cp {} \"$2\"", sound.display());
        assert_eq!(measure(&script, dir.path()).unwrap(), report(100.0));
    }

    #[test]
    fn what_went_wrong_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let error = measure("echo there is no such target >&2; exit 3", dir.path()).unwrap_err();
        assert!(error.contains("exit status: 3: there is no such target"), "{error}");
        let error = measure("echo nonsense > \"$2\"", dir.path()).unwrap_err();
        assert!(error.contains("get-1.json"), "{error}");
        let mut log = File::create(dir.path().join("log")).unwrap();
        log.write_all(b"  \n").unwrap();
        assert_eq!(end_of(&dir.path().join("log")), "it said nothing");
    }

    #[test]
    fn reports_with_flaws_are_no_results() {
        assert_eq!(flaw(&report(100.0)), None);
        let with = |change: fn(&mut RunReport)| {
            let mut report = report(100.0);
            change(&mut report);
            flaw(&report).unwrap()
        };
        assert_eq!(with(|report| report.ended = Some("no answer".into())), "it ended early: no answer");
        assert_eq!(with(|report| report.kinds[0].not_found = 2), "2 records were not found");
        assert!(with(|report| report.kinds[0].failed = 3).starts_with("3 operations failed"));
        assert!(with(|report| report.operations = 0).contains("nothing was done"));
    }

    #[test]
    fn a_directory_takes_what_its_files_take() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        assert_eq!(directory_bytes(&dir.path().join("missing")), 0);
        fs::create_dir(dir.path().join("below")).unwrap();
        let file = File::create(dir.path().join("below/file")).unwrap();
        (&file).write_all(&[1; 100_000]).unwrap();
        sync_files(dir.path()).unwrap();
        sync_files(&dir.path().join("missing")).unwrap();
        let bytes = directory_bytes(dir.path());
        assert!((100_000..200_000).contains(&bytes), "{bytes}");
    }
}
