//! `pinion doctor`: looks at everything that may stand in the way of `serve` with the same
//! settings, and says what to do. Exit codes: 0 a node can start; 1 it cannot; 2 bad settings.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use crate::checks::{self, Check, Level};
use crate::serve::{ServeArgs, Settings};

/// Exit code for settings that make no sense.
const EXIT_SETTINGS: u8 = 2;

/// Prints every check; fails if one of them did.
pub(crate) fn run(args: ServeArgs) -> ExitCode {
    let settings = match Settings::gather(args) {
        Ok(settings) => settings,
        Err(text) => {
            eprintln!("error: {text}");
            return ExitCode::from(EXIT_SETTINGS);
        }
    };
    let checks = checks::all(&settings);
    let mut out = std::io::stdout().lock();
    let text = report(&checks, out.is_terminal());
    // Whoever reads our output may be gone; the exit code still tells.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    if checks.iter().any(|check| check.level == Level::Fail) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn report(checks: &[Check], colour: bool) -> String {
    let mut text = String::new();
    for check in checks {
        let (word, code) = match check.level {
            Level::Ok => ("ok  ", "32"),
            Level::Warn => ("warn", "33"),
            Level::Fail => ("fail", "31"),
        };
        let word = if colour { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() };
        text.push_str(&format!("{word}  {:<18}{}\n", check.subject, check.text));
    }
    let count = |level| checks.iter().filter(|check| check.level == level).count();
    let (warnings, failures) = (count(Level::Warn), count(Level::Fail));
    let verdict = if failures == 0 { "a node can start" } else { "a node cannot start" };
    text.push_str(&format!("{verdict}: {failures} failed, {warnings} warnings\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_counts_and_judges() {
        let check = |level| Check { subject: "thing", level, text: "text".into() };
        let good = report(&[check(Level::Ok), check(Level::Warn)], false);
        assert!(good.ends_with("a node can start: 0 failed, 1 warnings\n"));
        assert!(good.starts_with("ok    thing             text\n"));
        assert!(report(&[check(Level::Fail)], true).contains("a node cannot start: 1 failed"));
    }
}
