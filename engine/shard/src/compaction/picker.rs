//! Chooses the next job: a pure function of the version, so that other policies can be simulated
//! and put in its place.
//!
//! In this order: tables that may be dropped whole; the place that is most over its target; tables
//! with records of dropped namespaces; tables full of dead records.
//!
//! What is due of the runs is told by [`super::columns`]: runs are merged with each other, in their place, or go
//! down. A job takes a whole slice: of some runs, of all of them and the base level, or of a level and the next
//! one. So what lies below is rewritten once for much, not once for each table. In shards of 80 to 640 memtables
//! of keys that are overwritten in any order, a byte is written about four to six times, its flush included
//! (`runs_percent` of 25, `runs_max` of 4).
//!
//! Where a slice would be too large a job (`job_bytes_max`: what it reads lies twice on the disk
//! until it ends), as many of its runs as make a job go down, the oldest first. If these are few because tables
//! of small runs reach into other slices, such runs are merged with the next ones, after which they do not. When
//! nothing else is left, tables of the oldest run go down one at a time, and so do those of a level, in turn (a
//! cursor goes round); runs smaller than one table are taken whole and several together, since each of them
//! would meet the same tables below.
//!
//! A table in quarantine is left where it is: it is no source and no target of a merge, so what lies
//! above it there stays above it, and the order of places holds. It may go whole, and out of a run it
//! may be put into a level as it is, since neither reads it. Runs are then merged into a level above
//! it ([`super::levels`]), so that they do not pile up. Only when such levels run out (a table in
//! quarantine in level 1, or in a run above something in level 1 that cannot leave) does what overlaps
//! it stay in runs.

use std::cmp::Reverse;
use std::ops::Range;

use super::columns::{Column, Columns};
use super::levels::{Levels, PickOptions, RunView, Shape, total_bytes, touching};
use super::sweep::{dead_share, is_wholly_dead};
use crate::key::OwnedPosition;
use crate::table::TableMeta;

/// Tables of a job that takes less than a slice. Exceeded only where every table of a place touches more
/// below.
const INPUTS_MAX: usize = 9;

/// What is to be done with a job's tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Remove the sources: all their records are dead and nothing older lies beneath, or all are of
    /// dropped namespaces.
    Drop,
    /// Put the sources into the target level as they are.
    Move,
    /// Write the merged records of sources and targets as new tables of the target level.
    Merge,
}

/// What compaction does next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What to do.
    pub work: Work,
    /// The level of the sources; 0 = runs.
    pub from: usize,
    /// Numbers of the tables that are taken away, newest place first, in order within a place.
    pub sources: Vec<u64>,
    /// The level of the targets and of the result. The same as `from` when tables are rewritten in
    /// their place to get rid of dead records, and when runs are merged with each other.
    pub to: usize,
    /// If `to` is 0: the run that the result belongs to, the newest of those of the sources.
    pub run: u64,
    /// Numbers of the tables of `to` that take part, in order.
    pub targets: Vec<u64>,
    /// Size of all inputs.
    pub bytes: u64,
    /// First position of all inputs.
    pub first: OwnedPosition,
    /// Last position of all inputs; results lie between the two.
    pub last: OwnedPosition,
    /// Where the next job of level `from` goes on: to be handed back in [`PickOptions::cursors`].
    pub cursor: OwnedPosition,
}

/// The next job; none if nothing is due or all that is due is busy.
pub fn pick(levels: &Levels<'_>, options: &PickOptions<'_>) -> Option<Job> {
    let shape = levels.shape(options);
    let columns = Columns::new(levels, shape.base, options);
    let picker = Picker { levels, options, shape, columns };
    picker
        .droppable()
        .or_else(|| picker.most_over_target())
        .or_else(|| picker.sweep_namespaces())
        .or_else(|| picker.sweep())
}

struct Picker<'p, 'a> {
    levels: &'p Levels<'a>,
    options: &'p PickOptions<'p>,
    shape: Shape,
    columns: Columns,
}

impl<'a> Picker<'_, 'a> {
    fn droppable(&self) -> Option<Job> {
        let runs = self.levels.runs.iter().enumerate().map(|(run, view)| (Some(run), 0, &view.tables));
        let levels = self.levels.levels.iter().enumerate().map(|(index, tables)| (None, index + 1, tables));
        for (run, level, tables) in runs.chain(levels) {
            for table in tables.iter().copied() {
                // What lies beneath in a dropped namespace is dropped too.
                let dropped = table.namespaces.are_dropped(self.options.namespaces);
                let dead =
                    || is_wholly_dead(table, self.options) && !self.levels.older_touches(run, level, table);
                if (dropped || dead()) && self.is_idle(&[table]) {
                    return Some(job(Work::Drop, level, &[table], level, &[]));
                }
            }
        }
        None
    }

    fn most_over_target(&self) -> Option<Job> {
        let thousandths = |part: u64, whole: u64| u128::from(part) * 1000 / u128::from(whole.max(1));
        let depth = if self.columns.has_many_runs() { usize::MAX } else { self.columns.depth() };
        let mut scores = vec![(thousandths(depth as u64, self.options.runs_max.max(1) as u64), 0)];
        for level in self.shape.base..self.options.levels_max {
            // A level exactly at its target is fine; runs exactly at theirs are due.
            let stuck = self.options.stuck_bytes(self.levels, level);
            let bytes = (self.levels.level_bytes(level) - stuck).saturating_sub(1);
            scores.push((thousandths(bytes, self.shape.targets[level]), level));
        }
        scores.retain(|(score, _)| *score >= 1000);
        scores.sort_by_key(|(score, level)| (Reverse(*score), *level));
        scores
            .into_iter()
            .find_map(|(_, level)| if level == 0 { self.out_of_runs() } else { self.out_of_level(level) })
    }

    /// Merges runs down, or with each other.
    fn out_of_runs(&self) -> Option<Job> {
        if self.columns.has_many_runs()
            && let Some(job) = self.out_of_oldest_run()
        {
            return Some(job);
        }
        let (heavy, groups, deep) = (self.columns.heavy(), self.columns.groups(), self.columns.deep());
        if heavy.is_empty() && groups.is_empty() && deep.is_empty() {
            return None;
        }
        let across =
            |(column, group): (&Column, Range<usize>)| self.across(column.slice, &column.runs[group]);
        heavy
            .into_iter()
            .find_map(|column| self.column_down(column))
            .or_else(|| groups.into_iter().find_map(across))
            .or_else(|| deep.into_iter().find_map(|column| self.column_down(column)))
            .or_else(|| self.out_of_oldest_run())
    }

    /// Merges down what the oldest runs hold, a part of a slice at a time.
    fn out_of_oldest_run(&self) -> Option<Job> {
        let oldest = self.levels.runs.last()?;
        if total_bytes(&oldest.tables) <= self.options.table_bytes
            && let Some(job) = self.small_runs()
        {
            return Some(job);
        }
        let starts = 0..oldest.tables.len();
        self.best_of(starts.map(|start| self.extended(0, &oldest.tables, start, self.shape.base)))
            .or_else(|| self.put_aside(&oldest.tables))
    }

    /// Merges down a column, or as much of it as makes a job.
    fn column_down(&self, column: &Column) -> Option<Job> {
        let all = 0..self.levels.runs.len();
        let down = self.down(0, &self.reaching(column.slice, all), self.shape.base);
        if let Some(job) = down.filter(|job| job.bytes <= self.options.job_bytes_max) {
            return Some(job);
        }
        // What reaches beyond the slice, as small tables do, needs too much of what lies below.
        let part = self.runs_in(column.slice);
        if part.as_ref().is_some_and(|(_, bytes)| bytes * 2 >= column.bytes()) {
            return part.map(|(job, _)| job);
        }
        // Merged with the next run, they become tables that reach less far.
        let mut pairs = column.runs.windows(2).rev();
        pairs.find_map(|pair| self.narrowed(column.slice, pair)).or_else(|| part.map(|(job, _)| job))
    }

    /// Merges two runs of a slice if the older one's tables reach further than the newer one's.
    fn narrowed(&self, slice: u32, pair: &[(usize, u64)]) -> Option<Job> {
        let width = |(run, _): &(usize, u64)| {
            let tables = self.options.in_slice(slice, &self.levels.runs[*run].tables);
            let ends = tables.first().zip(tables.last());
            ends.map_or(0, |(first, last)| {
                self.options.slices.between(first.first.partition, last.last.partition)
            })
        };
        (width(&pair[1]) > width(&pair[0])).then(|| self.across(slice, pair))?
    }

    /// Merges the runs of a slice that follow each other into the newest of them.
    fn across(&self, slice: u32, runs: &[(usize, u64)]) -> Option<Job> {
        let ((newest, _), (oldest, _)) = (runs.first()?, runs.last()?);
        let sources = self.reaching(slice, *newest..*oldest + 1);
        let run = self.levels.runs[*newest].number;
        let job = Job { run, ..job(Work::Merge, 0, &sources, 0, &[]) };
        let fits = job.bytes <= self.options.job_bytes_max;
        (fits && self.is_free(&sources) && !self.meets(&job)).then_some(job)
    }

    /// The tables of some runs that reach into a slice, and where they reach beyond it, all others that these
    /// runs have there: newest run first.
    fn reaching(&self, slice: u32, runs: Range<usize>) -> Vec<&'a TableMeta> {
        let runs = &self.levels.runs[runs];
        let of_slice = runs.iter().flat_map(|run| self.options.in_slice(slice, &run.tables));
        let mut tables: Vec<&TableMeta> = of_slice.copied().collect();
        loop {
            let first = tables.iter().map(|table| &table.first).min();
            let last = tables.iter().map(|table| &table.last).max();
            let Some((first, last)) = first.zip(last) else { return tables };
            let all = runs.iter().flat_map(|run| touching(&run.tables, first, last));
            let all: Vec<_> = all.copied().collect();
            if all.len() == tables.len() {
                return all;
            }
            tables = all;
        }
    }

    /// Merges down a slice of as many runs as make a job, the oldest first. With it, the bytes of the runs.
    fn runs_in(&self, slice: u32) -> Option<(Job, u64)> {
        let mut best = None;
        // Newest first.
        let mut sources: Vec<&TableMeta> = Vec::new();
        for (index, run) in self.levels.runs.iter().enumerate().rev() {
            // What a table stands above goes down before it, or with it.
            let older = &self.levels.runs[index + 1..];
            let goes = |table: &&&TableMeta| {
                let mut below = older.iter().flat_map(|run| touching(&run.tables, &table.first, &table.last));
                self.is_free(&[**table])
                    && below.all(|below| sources.iter().any(|source| source.number == below.number))
            };
            let going: Vec<_> =
                self.options.in_slice(slice, &run.tables).iter().filter(goes).copied().collect();
            if going.is_empty() {
                continue;
            }
            sources.splice(..0, going);
            match self.down(0, &sources, self.shape.base) {
                Some(job) if job.bytes <= self.options.job_bytes_max => {
                    best = Some((job, total_bytes(&sources)))
                }
                _ => break,
            }
        }
        best
    }

    /// Merges down the slice of a level that holds most.
    fn slice_of_level(&self, level: usize) -> Option<Job> {
        let tables = self.levels.level(level);
        let below = self.levels.level(level + 1);
        let fair = total_bytes(tables) / u64::from(self.options.slices.count());
        let bytes = |slice: u32| total_bytes(self.options.in_slice(slice, tables));
        let mut slices: Vec<u32> = self.slices().filter(|slice| bytes(*slice) >= fair.max(1)).collect();
        slices.sort_by_cached_key(|slice| Reverse(bytes(*slice)));
        slices.into_iter().find_map(|slice| {
            let sources = self.options.in_slice(slice, tables);
            let meets = touching(below, &sources.first()?.first, &sources.last()?.last);
            let fits = total_bytes(sources) + total_bytes(meets) <= self.options.job_bytes_max;
            if fits { self.down(level, sources, level + 1) } else { None }
        })
    }

    fn slices(&self) -> Range<u32> {
        0..self.options.slices.count()
    }

    /// Puts a table in quarantine of the oldest run into the deepest level that it may go to unread.
    fn put_aside(&self, oldest: &[&'a TableMeta]) -> Option<Job> {
        oldest.iter().copied().find_map(|table| {
            let meets =
                |level: &usize| !touching(self.levels.level(*level), &table.first, &table.last).is_empty();
            let blocked = (1..=self.options.levels_max).find(meets);
            let to = blocked.unwrap_or(self.options.levels_max + 1) - 1;
            let job = (to > 0).then(|| job(Work::Move, 0, &[table], to, &[]))?;
            (self.options.quarantines(table) && self.is_idle(&[table]) && !self.meets(&job)).then_some(job)
        })
    }

    /// The oldest runs that together are no larger than a table.
    fn small_runs(&self) -> Option<Job> {
        let mut sources = Vec::new();
        for run in self.levels.runs.iter().rev() {
            let bytes = total_bytes(&sources) + total_bytes(&run.tables);
            let fits = bytes <= self.options.table_bytes
                && sources.len() + run.tables.len() < INPUTS_MAX
                && self.is_free(&run.tables);
            if !sources.is_empty() && !fits {
                break;
            }
            // Newest first.
            sources.splice(..0, run.tables.iter().copied());
        }
        self.down(0, &sources, self.shape.base)
    }

    /// Merges down what a level has too much of.
    fn out_of_level(&self, level: usize) -> Option<Job> {
        if let Some(job) = self.slice_of_level(level) {
            return Some(job);
        }
        let tables = self.levels.level(level);
        let cursor = self.options.cursors.get(level);
        let start = cursor.map_or(0, |cursor| tables.partition_point(|table| table.first <= *cursor));
        let starts = (start..tables.len()).chain(0..start);
        self.best_of(starts.map(|start| self.extended(level, tables, start, level + 1)))
    }

    /// The first job with few enough inputs, else the one with the fewest.
    fn best_of(&self, jobs: impl Iterator<Item = Option<Job>>) -> Option<Job> {
        let inputs = |job: &Job| job.sources.len() + job.targets.len();
        let mut best: Option<Job> = None;
        for job in jobs.flatten() {
            if inputs(&job) <= INPUTS_MAX {
                return Some(job);
            }
            if best.as_ref().is_none_or(|best| inputs(&job) < inputs(best)) {
                best = Some(job);
            }
        }
        best
    }

    /// A job of one table and of its right neighbours as far as they come for free: from a level,
    /// while they touch nothing more below; from a run, while the job stays within its bound.
    fn extended(&self, from: usize, tables: &[&'a TableMeta], start: usize, to: usize) -> Option<Job> {
        let mut best = self.down(from, &tables[start..=start], to)?;
        if best.work != Work::Merge {
            return Some(best);
        }
        for end in start + 2..=tables.len() {
            let Some(wider) = self.down(from, &tables[start..end], to) else { break };
            let inputs = wider.sources.len() + wider.targets.len();
            let free = wider.targets.len() == best.targets.len() || from == 0;
            if inputs > INPUTS_MAX || !free {
                break;
            }
            best = wider;
        }
        Some(best)
    }

    /// The job that takes `sources` to a level: adjacent tables of one place, or tables of runs that stand
    /// above nothing in a run but each other.
    fn down(&self, from: usize, sources: &[&'a TableMeta], to: usize) -> Option<Job> {
        let first = &sources.iter().min_by(|left, right| left.first.cmp(&right.first))?.first;
        let last = &sources.iter().max_by(|left, right| left.last.cmp(&right.last))?.last;
        // All between the first and the last, not only what a source touches: an output may span
        // the gap between two sources.
        let below = self.levels.level(to);
        let mut targets = touching(below, first, last);
        let mut in_order = sources.to_vec();
        in_order.sort_by(|left, right| left.first.cmp(&right.first));
        let disjoint = in_order.windows(2).all(|pair| pair[0].last < pair[1].first);
        let small = total_bytes(sources) < self.options.table_bytes / 4;
        let mut work = Work::Merge;
        if targets.is_empty() && disjoint {
            // Small tables that follow each other grow together instead of piling up.
            let before = below.partition_point(|table| table.last < *first);
            let neighbour = &below[before.saturating_sub(1)..before];
            let grows = |table: &&TableMeta| {
                table.file_bytes < self.options.table_bytes / 2 && !self.options.quarantines(table)
            };
            if small && neighbour.iter().any(grows) {
                targets = neighbour;
            } else {
                work = Work::Move;
            }
        }
        let job = job(work, from, sources, to, targets);
        (self.is_free(sources) && self.is_free(targets) && !self.meets(&job)).then_some(job)
    }

    /// Merges down runs with such tables in them, of these columns.
    fn down_with(&self, wanted: impl Fn(&TableMeta) -> bool, of: impl Fn(&Column) -> bool) -> Option<Job> {
        let holds = |tables: &[&TableMeta]| tables.iter().any(|table| wanted(table));
        let runs = &self.levels.runs;
        let columns = self.columns.all().iter().filter(|column| {
            let in_slice = |run: &RunView<'_>| holds(self.options.in_slice(column.slice, &run.tables));
            of(column) && runs.iter().any(in_slice)
        });
        let mut columns = columns.peekable();
        columns.peek()?;
        columns.find_map(|column| Some(self.runs_in(column.slice)?.0)).or_else(|| self.out_of_oldest_run())
    }

    /// Tables with records of dropped namespaces. Those of a level are rewritten where they are,
    /// neighbours together; runs are merged down until it is their turn, as their order demands.
    fn sweep_namespaces(&self) -> Option<Job> {
        let holds = |table: &&&TableMeta| table.namespaces.may_hold_dropped(self.options.namespaces);
        if let Some(job) =
            self.down_with(|table| table.namespaces.may_hold_dropped(self.options.namespaces), |_| true)
        {
            return Some(job);
        }
        let due = |table: &&&TableMeta| holds(table) && self.is_free(&[**table]);
        self.levels.levels.iter().enumerate().find_map(|(index, tables)| {
            let start = tables.iter().position(|table| due(&table))?;
            let count = tables[start..].iter().take(INPUTS_MAX).take_while(due).count();
            Some(job(Work::Merge, index + 1, &tables[start..start + count], index + 1, &[]))
        })
    }

    /// The table with the largest share of dead records: rewritten where it is if nothing older
    /// lies beneath, else merged one level down, after which it is looked at there.
    fn sweep(&self) -> Option<Job> {
        if let Some(job) =
            self.down_with(|table| dead_share(table, self.options).is_some(), Column::is_worth_a_sweep)
        {
            return Some(job);
        }
        let mut rich = Vec::new();
        for (index, tables) in self.levels.levels.iter().enumerate() {
            let shares =
                tables.iter().filter_map(|table| Some((dead_share(table, self.options)?, index + 1, *table)));
            rich.extend(shares);
        }
        rich.sort_by_key(|(share, level, table)| (Reverse(*share), *level, table.number));
        rich.into_iter().find_map(|(_, level, table)| {
            if self.levels.older_touches(None, level, table) {
                self.down(level, &[table], level + 1)
            } else {
                self.is_free(&[table]).then(|| job(Work::Merge, level, &[table], level, &[]))
            }
        })
    }

    /// Whether all of the tables can be merged now.
    fn is_free(&self, tables: &[&TableMeta]) -> bool {
        self.is_idle(tables) && !tables.iter().any(|table| self.options.quarantines(table))
    }

    /// Whether no job under way uses any of the tables.
    fn is_idle(&self, tables: &[&TableMeta]) -> bool {
        let uses = |job: &Job, number| job.sources.contains(&number) || job.targets.contains(&number);
        !tables.iter().any(|table| self.options.under_way.iter().any(|job| uses(job, table.number)))
    }

    /// Whether a job under way may put tables of the same level where this one puts its own. Jobs
    /// that share no table can still do that: one may reach across a gap that the other fills.
    fn meets(&self, job: &Job) -> bool {
        let meets = |other: &Job| other.to == job.to && other.first <= job.last && job.first <= other.last;
        self.options.under_way.iter().any(meets)
    }
}

fn job(work: Work, from: usize, sources: &[&TableMeta], to: usize, targets: &[&TableMeta]) -> Job {
    let numbers = |tables: &[&TableMeta]| tables.iter().map(|table| table.number).collect();
    let last = |tables: &[&TableMeta]| tables.iter().map(|table| &table.last).max().cloned();
    let first = sources.iter().chain(targets).map(|table| &table.first).min().cloned();
    let cursor = last(sources).unwrap_or_default();
    Job {
        work,
        from,
        sources: numbers(sources),
        to,
        run: 0,
        targets: numbers(targets),
        bytes: total_bytes(sources) + total_bytes(targets),
        first: first.unwrap_or_default(),
        last: last(targets).map_or_else(|| cursor.clone(), |last| last.max(cursor.clone())),
        cursor,
    }
}
