//! A comparison as Markdown: a table for each section, and what is needed to believe it.

use std::fmt::{self, Display, Write as _};

use super::outcome::{Figures, Outcome, Ratio, RowOutcome, State};
use super::rows::{STEADY_TIMES, Section};
use crate::ratio::summary::Spread;
use crate::report::figures::{grouped, utc};

impl Display for Outcome<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, machine, started_unix_s, seconds, .. } = self;
        writeln!(f, "# Pinion and its peers\n")?;
        writeln!(
            f,
            "{}, {machine}. {} rounds of each, of {} s after {} s of warming up, the peers of a row in turn; {:.0} \
             minutes in all.\n",
            utc(*started_unix_s),
            plan.rounds,
            plan.measure.as_secs_f64(),
            plan.warmup.as_secs_f64(),
            seconds / 60.0
        )?;
        for (peer, version) in &self.versions {
            writeln!(f, "- {}: {version}", peer.name())?;
        }
        for section in [Section::Network, Section::Engines, Section::Steady] {
            let rows: Vec<&RowOutcome> = self.rows.iter().filter(|row| row.row.section == section).collect();
            if !rows.is_empty() {
                self.section(f, section, &rows)?;
            }
        }
        self.absences(f)?;
        if !self.warnings.is_empty() {
            writeln!(f, "\n## Warnings\n")?;
            self.warnings.iter().try_for_each(|warning| writeln!(f, "- {warning}"))?;
        }
        self.commands(f)
    }
}

impl Outcome<'_> {
    fn section(&self, f: &mut fmt::Formatter<'_>, section: Section, rows: &[&RowOutcome]) -> fmt::Result {
        let plan = self.plan;
        let records = grouped(section.records(plan) as f64);
        let sizes = format!("{records} records of {} + {} bytes", plan.key_bytes, plan.value_bytes);
        let memory = format!("{} MiB", plan.memory_bytes >> 20);
        let cpus: Vec<String> = plan.engine_cpus().iter().map(usize::to_string).collect();
        let cpus = format!("in the process of the load, both on cpus {}", cpus.join(", "));
        match section {
            Section::Network => {
                writeln!(f, "\n## Over the network\n")?;
                writeln!(
                    f,
                    "{sizes}, {} connections; each server on cpu {}, the load on cpu {}, closed loop.\n",
                    plan.connections, plan.server_cpu, plan.generator_cpu
                )?;
                writeln!(
                    f,
                    "| work | server | ops/s | min to max | p50 / p99 / p99.9 us | server cpu % | load cpu % | Pinion \
                     by it |\n|---|---|---|---|---|---|---|---|"
                )?;
            }
            Section::Engines => {
                writeln!(f, "\n## Engine against engine\n")?;
                writeln!(f, "{sizes}, {memory} of memory; {cpus}.\n")?;
                engine_head(f)?;
            }
            Section::Steady => {
                writeln!(f, "\n## Engine against engine, data beyond memory\n")?;
                writeln!(
                    f,
                    "{sizes}, {STEADY_TIMES} times the {memory} of memory; {cpus}. All records were overwritten \
                     once before the overwrites and the gets.\n"
                )?;
                engine_head(f)?;
            }
        }
        let rest = if section == Section::Network { " | | | | |" } else { " | | | | | |" };
        for row in rows {
            let mut title = row.row.title.clone();
            for side in &row.sides {
                write!(f, "| {} | {} |", std::mem::take(&mut title), side.peer.name())?;
                match &side.state {
                    State::Measured(figures) => figures.cells(f, section)?,
                    State::Missing { .. } => writeln!(f, " missing |{rest}")?,
                    State::Failed { .. } => writeln!(f, " failed |{rest}")?,
                }
            }
        }
        Ok(())
    }

    /// What is missing and what failed, each once.
    fn absences(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut missing, mut failed) = (Vec::new(), Vec::new());
        for row in &self.rows {
            for side in &row.sides {
                let (list, line) = match &side.state {
                    State::Missing { what_to_do } => {
                        (&mut missing, format!("- {}: {what_to_do}", side.peer.name()))
                    }
                    State::Failed { why, .. } => {
                        (&mut failed, format!("- {}, {}: {why}", row.row.name, side.peer.name()))
                    }
                    State::Measured(_) => continue,
                };
                if !list.contains(&line) {
                    list.push(line);
                }
            }
        }
        for (title, lines) in [("Missing", missing), ("Failed", failed)] {
            if !lines.is_empty() {
                writeln!(f, "\n## {title}\n")?;
                lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
            }
        }
        Ok(())
    }

    fn commands(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n## Commands\n")?;
        for (peer, command) in &self.servers {
            writeln!(f, "- {}: `{}`", peer.name(), shell(command))?;
        }
        for row in &self.rows {
            // The others differ in their target and in the number of the round.
            let first = row.sides.iter().find_map(|side| match &side.state {
                State::Measured(figures) => figures.rounds.first(),
                State::Missing { .. } | State::Failed { .. } => None,
            });
            if let Some(round) = first {
                writeln!(f, "- {}: `{}`", row.row.name, shell(&round.command))?;
            }
        }
        Ok(())
    }
}

fn engine_head(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "| work | engine | ops/s | min to max | p50 / p99 / p99.9 us | cpu % | written per byte put | space per byte \
         | Pinion by it |\n|---|---|---|---|---|---|---|---|---|"
    )
}

impl Figures {
    fn cells(&self, f: &mut fmt::Formatter<'_>, section: Section) -> fmt::Result {
        let ops = self.ops_per_second;
        let us = [self.p50_us, self.p99_us, self.p999_us].map(|us| latency(us.median)).join(" / ");
        let ratio = self.ratio.map_or_else(String::new, |Ratio { of_medians, min, max }| {
            format!("{of_medians:.2} ({min:.2} to {max:.2})")
        });
        let percent = |spread: Spread| format!("{:.0}", spread.median);
        let target_cpu = self.target_cpu_percent.map(percent).unwrap_or_default();
        let rest = if section == Section::Network {
            percent(self.generator_cpu_percent)
        } else {
            let times =
                |spread: Option<Spread>| spread.map_or_else(String::new, |it| format!("{:.2}", it.median));
            format!("{} | {}", times(self.written_per_byte), times(self.space_per_byte))
        };
        writeln!(
            f,
            " {} | {} to {} | {us} | {target_cpu} | {rest} | {ratio} |",
            grouped(ops.median),
            grouped(ops.min),
            grouped(ops.max)
        )
    }
}

/// Whole microseconds, and a digit of those below ten.
fn latency(us: f64) -> String {
    if us < 9.95 { format!("{us:.1}") } else { grouped(us) }
}

/// A command line as a shell takes it.
fn shell(words: &[String]) -> String {
    let mut line = String::new();
    for word in words {
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,%+@".contains(letter);
        if !line.is_empty() {
            line.push(' ');
        }
        if !word.is_empty() && word.chars().all(is_plain) {
            line.push_str(word);
        } else {
            write!(line, "'{}'", word.replace('\'', "'\\''")).expect("memory takes everything");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::outcome::Rounds;
    use super::super::site::Absence;
    use super::super::tests::{outcome_of, plan, round};
    use super::*;
    use crate::peers::rows::{Peer, chosen};
    use crate::ratio::summary::Machine;

    #[test]
    fn a_table_has_a_line_for_every_peer_measured_or_not() {
        let plan = plan();
        let rows = chosen(&plan).unwrap();
        let measured =
            |rates: &[f64]| Rounds { rounds: rates.iter().map(|rate| round(*rate)).collect(), absence: None };
        let absent = |absence| Rounds { rounds: Vec::new(), absence: Some(absence) };
        let find = |name: &str| rows.iter().find(|row| row.name == name).unwrap();
        let network = [
            measured(&[200_000.0, 240_000.0, 220_000.0]),
            measured(&[100_000.0, 110_000.0, 120_000.0]),
            absent(Absence::Failed("it ended early: no answer".to_owned())),
        ];
        let mut kept = round(1000.0);
        (kept.written_bytes, kept.space_bytes) = (Some(1_088_000), Some(598_400_000));
        let engines = [
            Rounds { rounds: vec![kept], absence: None },
            absent(Absence::Missing("build it".to_owned())),
            measured(&[2000.0]),
        ];
        let rows = vec![outcome_of(find("get-16"), network), outcome_of(find("engine-load"), engines)];
        let warnings = rows.iter().filter_map(RowOutcome::warning).collect();
        let text = Outcome {
            version: "0",
            started_unix_s: 0,
            seconds: 600.0,
            machine: Machine::this(),
            plan: &plan,
            versions: vec![(Peer::RedisAlways, "Redis server v=7".to_owned())],
            servers: vec![(Peer::RedisAlways, ["redis-server", "--save", ""].map(str::to_owned).into())],
            rows,
            warnings,
        }
        .to_string();
        for line in [
            "# Pinion and its peers",
            "- Redis, appendfsync always: Redis server v=7",
            "| GET, depth 16 | Pinion | 220,000 | 200,000 to 240,000 | 500 / 990 / 999 | 180 | 99 |  |",
            "|  | Redis, appendfsync always | 110,000 | 100,000 to 120,000 | 500 / 990 / 999 | 180 | 99 | 2.00 (1.83 to 2.18) |",
            "|  | Redis, appendfsync everysec | failed | | | | | |",
            "| load, buffered, 8 writers | Pinion's engine | 1,000 | 1,000 to 1,000 | 500 / 990 / 999 | 180 | 2.00 | 2.20 |  |",
            "|  | RocksDB | missing | | | | | | |",
            "|  | fjall | 2,000 | 2,000 to 2,000 | 500 / 990 / 999 | 180 |  |  | 0.50 (0.50 to 0.50) |",
            "## Missing\n\n- RocksDB: build it",
            "## Failed\n\n- get-16, Redis, appendfsync everysec: it ended early: no answer",
            "- get-16: the load was busy for 99 % with Pinion, 99 % with Redis, appendfsync always of its cpu: it may \
             be the load that was measured",
            "- Redis, appendfsync always: `redis-server --save ''`",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        // A table is one block of lines, all with as many columns.
        let tables = text.split("\n\n").filter(|block| block.starts_with('|'));
        let columns = |line: &str| line.matches('|').count();
        assert!(
            tables.clone().all(|table| table
                .lines()
                .all(|line| columns(line) == columns(table.lines().next().unwrap()))),
            "{text}"
        );
        assert_eq!(tables.count(), 2);
    }

    #[test]
    fn commands_can_be_given_to_a_shell() {
        let line = |words: &[&str]| shell(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        assert_eq!(line(&["a", "b c", "", "it's", "-p", "x=1"]), "a 'b c' '' 'it'\\''s' -p x=1");
    }
}
