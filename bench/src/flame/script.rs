//! The text of `perf script -F comm,tid,time,event,ip,sym,dso`, with call chains.
//!
//! A sample is a line with thread, time and event, then a line for each frame, innermost first. Two
//! kinds of profile come in this form:
//!
//! - of running: each sample counts one;
//! - of waiting (`sched:sched_switch` recorded with `--switch-events`): a sample is where a thread left
//!   its cpu, `PERF_RECORD_SWITCH IN` when it came back; the wait counts in whole microseconds. Waits
//!   that had not ended count nothing.
//!
//! Frames keep where they come from as a suffix, since folded stacks have names only: `_[k]` kernel,
//! `_[l]` shared library.
//!
//! Limits: frames without a name are one `[unknown]` however many follow each other: without frame
//! pointers they are not calls, but what happened to lie on the stack.

use std::collections::HashMap;

use super::profile::Profile;

/// What perf calls the event of a thread that leaves its cpu.
const LEAVES: &str = "sched:sched_switch";
/// What perf calls the records of switches.
const SWITCH: &str = "PERF_RECORD_SWITCH";
/// A function of the kernel.
pub(super) const KERNEL_SUFFIX: &str = "_[k]";
/// A function of a shared library.
pub(super) const LIBRARY_SUFFIX: &str = "_[l]";
/// Where a thread stands that may run, but whose cpu another one has.
const PREEMPTED: &str = "[waits for a cpu]";

/// The first line of a sample.
#[derive(Debug, PartialEq)]
struct Head<'t> {
    comm: &'t str,
    thread: u32,
    us: u64,
    event: &'t str,
    /// The one frame of a sample without call chain; the kind of a switch.
    rest: &'t str,
}

/// Where a thread left its cpu.
struct Wait {
    since_us: u64,
    stack: Vec<String>,
}

/// Whether the text is of perf, by its first line that says something.
pub(super) fn is_script(text: &str) -> bool {
    let first = text.lines().find(|line| !line.trim().is_empty() && !line.starts_with('#'));
    first.is_some_and(|line| Head::parse(line).is_some())
}

/// Counts the stacks of all samples.
///
/// # Errors
/// The number of a line that is no part of a sample, and the line.
pub(super) fn parse(text: &str) -> Result<Profile, String> {
    let mut profile = Profile::default();
    let mut waits: HashMap<u32, Wait> = HashMap::new();
    let mut lines = text.lines().zip(1..).filter(|(line, _)| !line.starts_with('#')).peekable();
    while let Some((line, number)) = lines.next() {
        if line.trim().is_empty() {
            continue;
        }
        let head = Head::parse(line).ok_or_else(|| format!("line {number} begins no sample: {line}"))?;
        let mut stack: Vec<String> = frame(head.rest).into_iter().collect();
        while let Some((line, number)) = lines.next_if(|(line, _)| Head::parse(line).is_none()) {
            if line.trim().is_empty() {
                break;
            }
            let frame = frame(line).ok_or_else(|| format!("line {number} is no frame: {line}"))?;
            if frame != "[unknown]" || stack.last() != Some(&frame) {
                stack.push(frame);
            }
        }
        stack.push(head.comm.replace(';', ","));
        // Outermost first from here on.
        stack.reverse();
        if head.event == SWITCH {
            if head.rest.starts_with("IN") {
                if let Some(wait) = waits.remove(&head.thread) {
                    profile.add(&wait.stack, head.us.saturating_sub(wait.since_us));
                }
            } else if head.rest.contains("preempt")
                && let Some(wait) = waits.get_mut(&head.thread)
            {
                wait.stack.push(PREEMPTED.to_owned());
            }
        } else if head.event.starts_with(LEAVES) {
            waits.insert(head.thread, Wait { since_us: head.us, stack });
        } else {
            profile.add(&stack, 1);
        }
    }
    Ok(profile)
}

impl<'t> Head<'t> {
    /// `comm tid [cpu] seconds: period event:`; perf leaves out what was not asked for, comm may hold
    /// blanks, and tid may be `pid/tid`.
    fn parse(line: &'t str) -> Option<Self> {
        let mut words = words(line).peekable();
        let mut last: Option<(usize, &str)> = None;
        let (thread, time) = loop {
            let (start, word) = words.next()?;
            if word.starts_with('[') && word.ends_with(']') {
                continue;
            }
            if let (Some(us), Some((at, thread))) = (micros(word), last) {
                let thread = thread.rsplit('/').next()?.parse().ok()?;
                break ((at, thread), (start + word.len(), us));
            }
            last = Some((start, word));
        };
        let comm = line[..thread.0].trim();
        let split = |text: &'t str| text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let (mut event, mut rest) = split(line[time.0..].trim());
        // A period may come before the event.
        if !event.is_empty() && event.bytes().all(|byte| byte.is_ascii_digit()) {
            (event, rest) = split(rest.trim_start());
        }
        let (thread, us, rest) = (thread.1, time.1, rest.trim_start());
        (!comm.is_empty()).then_some(Self { comm, thread, us, event, rest })
    }
}

/// Words and where they begin.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    line.split_whitespace().map(|word| (word.as_ptr() as usize - line.as_ptr() as usize, word))
}

/// `seconds.fraction:`, as microseconds.
fn micros(word: &str) -> Option<u64> {
    let (seconds, fraction) = word.strip_suffix(':')?.split_once('.')?;
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let (seconds, fraction): (u64, u64) = (seconds.parse().ok()?, digits.parse().ok()?);
    Some(seconds * 1_000_000 + fraction)
}

/// `address name+offset (file)`: the name as folded stacks have it.
fn frame(line: &str) -> Option<String> {
    let (address, rest) = line.trim().split_once(char::is_whitespace)?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let (name, file) = rest.strip_suffix(')').and_then(split_file)?;
    let name = name.trim();
    let name = name.rsplit_once("+0x").map_or(name, |(name, _)| name);
    let name = without_hash(name).replace(';', ",");
    let base = file.rsplit('/').next().unwrap_or(file);
    // The upper half of the addresses is the kernel's.
    let kernel = address >> 63 == 1;
    let library = base.contains(".so") || base == "[vdso]";
    Some(match name.as_str() {
        "[unknown]" if kernel => format!("[kernel]{KERNEL_SUFFIX}"),
        "[unknown]" if library => format!("[{base}]{LIBRARY_SUFFIX}"),
        "[unknown]" => name,
        _ if kernel => name + KERNEL_SUFFIX,
        _ if library => name + LIBRARY_SUFFIX,
        _ => name,
    })
}

/// Splits `name (file` at the parenthesis that the end of the line closes; a deleted file has one of
/// its own.
fn split_file(text: &str) -> Option<(&str, &str)> {
    let mut depth = 1;
    for (at, byte) in text.bytes().enumerate().rev() {
        match byte {
            b')' => depth += 1,
            b'(' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&text[..at], &text[at + 1..]));
        }
    }
    None
}

/// Without the hash that tells versions of a crate apart: it changes with each build, and would keep
/// profiles of two builds from being compared.
fn without_hash(name: &str) -> &str {
    match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUNNING: &str = "\
# a comment
pinion-0 4711 16696.834741:    1001001 cpu-clock: \n\
\t           83182 memcpy+0x2 (/usr/lib/x86_64-linux-gnu/libc.so.6)\n\
\t           15594 pinion_engine::get::h0123456789abcdef+0x3e (/opt/pinion (deleted))\n\
\t            aaaa <[u8; 4] as core::fmt::Debug>::fmt (/opt/pinion)\n\
\t              16 [unknown] ([unknown])\n\
\t              17 [unknown] ([unknown])\n\
\n\
a b 4711/4712 [001] 16696.9: cycles:P: \n\
\tffffffff82265ec8 __schedule+0x1 ([kernel.kallsyms])\n\
\tffffffffc0065ec8 [unknown] ([nf_tables])\n\
\t            7af0 [unknown] (/lib/libz.so)\n\
\n\
pinion-0 4711 16697.000000:          1 cpu-clock: \n\
        cafe 4711 16697.000001: cpu-clock:      7fc9d07c1114 strcmp (/lib/ld.so.2)\n\
\n";

    #[test]
    fn samples_become_stacks_from_the_outside() {
        assert!(is_script(RUNNING) && !is_script("a;b 1\n"));
        let folded = parse(RUNNING).unwrap().to_string();
        let lines: Vec<&str> = folded.lines().collect();
        assert_eq!(
            lines,
            [
                "a b;[libz.so]_[l];[kernel]_[k];__schedule_[k] 1",
                "cafe;strcmp_[l] 1",
                "pinion-0 1",
                "pinion-0;[unknown];<[u8, 4] as core::fmt::Debug>::fmt;pinion_engine::get;memcpy_[l] 1",
            ]
        );
    }

    #[test]
    fn waits_last_from_switch_to_switch() {
        let text = "\
p 1 10.000100: sched:sched_switch: \n\
\tffffffff82265ec8 schedule ([kernel.kallsyms])\n\
\t            7af0 main (/opt/pinion)\n\
\n\
p 1 10.000101: PERF_RECORD_SWITCH OUT        \n\
p 2 10.000102: PERF_RECORD_SWITCH IN         \n\
p 1 10.000600: PERF_RECORD_SWITCH IN         \n\
p 1 10.001000: sched:sched_switch: \n\
\tffffffff82265ec8 schedule ([kernel.kallsyms])\n\
\n\
p 1 10.001000: PERF_RECORD_SWITCH OUT preempt\n\
p 1 10.001007: PERF_RECORD_SWITCH IN         \n\
p 1 10.001010: sched:sched_switch: \n\
\tffffffff82265ec8 schedule ([kernel.kallsyms])\n\
\n";
        let folded = parse(text).unwrap().to_string();
        assert_eq!(folded, "p;main;schedule_[k] 500\np;schedule_[k];[waits for a cpu] 7\n");
    }

    #[test]
    fn what_is_no_sample_is_an_error_with_its_line() {
        let error = parse("p 1 10.5: cycles: \n\t 1 f (/bin/p)\n\nwhat is this\n").unwrap_err();
        assert_eq!(error, "line 4 begins no sample: what is this");
        assert!(parse("p 1 10.5: cycles: \n\t 1 f\n").unwrap_err().starts_with("line 2 is no frame"));
        for wrong in ["", "p", "p 1", "1 10.5:", "p x 10.5: cycles:", "\t 1 f (/bin/p)"] {
            assert_eq!(Head::parse(wrong), None, "{wrong}");
        }
        for wrong in ["\tq f (/bin/p)", "\t1 f", "\t1 f )", "\t"] {
            assert_eq!(frame(wrong), None, "{wrong}");
        }
    }
}
