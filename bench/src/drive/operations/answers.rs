//! Answers to the requests of operations: counted, timed, and compared with what must be there.

use super::{Operations, Step, Then, stamp};
use crate::drive::Phase;
use crate::drive::shared::Ledger;
use crate::drive::speech::{Answer, records};
use crate::error::{Error, Result};
use crate::rests::Refusal;
use crate::workload::Kind;
use crate::workload::record::Stamp;

/// What has become of a write.
#[derive(Debug, Clone, Copy)]
enum Settled {
    Applied,
    NotApplied,
    Unknown,
}

impl Operations {
    /// Takes the answer to the present request of a slot; a value is in `bytes`.
    ///
    /// # Errors
    /// [`Error::Answer`]: nothing was asked. [`Error::Overloaded`]: the target has refused everything for too
    /// long, see [`Rests`](crate::rests::Rests).
    pub(in crate::drive) fn answered(&mut self, index: usize, answer: &Answer, bytes: &[u8]) -> Result<Then> {
        let now_ns = self.now_ns;
        let slot = &mut self.slots[index];
        let Some(kind) = slot.kind else { return Err(Error::Answer("an answer to nothing".to_owned())) };
        let (since_due_ns, since_step_ns) =
            (now_ns.saturating_sub(slot.due_ns), now_ns.saturating_sub(slot.step_ns));
        slot.sent_ns = None;
        if !matches!(answer, Answer::Refused { .. }) {
            self.rests.progress();
        }
        match answer {
            Answer::Refused { retry_after_ms, message } => {
                self.tally.refused(kind);
                let refusal = Refusal { retry_after_ms: *retry_after_ms, message };
                self.rests.refused(index, slot.refusals, refusal, now_ns)?;
                slot.refusals = slot.refusals.saturating_add(1);
                return Ok(Then::Rests);
            }
            Answer::Failed { is_unknown, message } => {
                let (number, version, is_unknown) = (slot.number, slot.version, *is_unknown);
                self.failed(kind, || message.clone());
                self.end_batch(index);
                self.settle(
                    kind,
                    number,
                    version,
                    if is_unknown { Settled::Unknown } else { Settled::NotApplied },
                );
            }
            Answer::Absent => {
                let (number, version, floor) = (slot.number, slot.version, slot.floor);
                let workload = &self.job.plan.workload;
                let loaded = number < workload.insert_start + workload.insert_count;
                if floor > 0 {
                    self.failed(kind, || {
                        format!("record {number} is missing, version {floor} was acknowledged")
                    });
                } else if loaded && self.job.shared.ledger.is_some() {
                    self.failed(kind, || format!("record {number}, which was loaded, is missing"));
                } else {
                    self.tally.not_found(kind);
                }
                self.settle(kind, number, version, Settled::NotApplied);
            }
            Answer::Value(range) => {
                let value = &bytes[range.clone()];
                if let Some(flaw) = self.flaw(index, value) {
                    let (number, version) = (self.slots[index].number, self.slots[index].version);
                    self.failed(kind, || flaw);
                    self.settle(kind, number, version, Settled::NotApplied);
                    return Ok(Then::Ends);
                }
                let slot = &mut self.slots[index];
                if matches!(kind, Kind::Read | Kind::Verify) {
                    self.ok(kind, since_due_ns);
                    return Ok(Then::Ends);
                }
                // The second half of an update.
                let stamp = stamp(slot);
                slot.value.clear();
                let form = &self.job.plan.workload.value;
                form.append_updated(value, &mut self.random, stamp, &mut slot.value);
                (slot.step, slot.step_ns, slot.refusals) = (Step::Put, now_ns, 0);
                slot.sent_ns = Some(now_ns);
                if kind == Kind::ReadModifyWrite && !self.is_late {
                    self.tally.ok(Kind::Read, since_due_ns);
                }
                return Ok(Then::Asks);
            }
            Answer::Done => {
                let (number, version) = (slot.number, slot.version);
                if kind == Kind::ReadModifyWrite && !self.is_late {
                    self.tally.ok(Kind::Update, since_step_ns);
                }
                self.ok(kind, since_due_ns);
                self.end_batch(index);
                self.settle(kind, number, version, Settled::Applied);
            }
            Answer::Scanned(_, range) => match self.flaw_of_scan(index, &bytes[range.clone()]) {
                Some(flaw) => self.failed(kind, || flaw),
                None => self.ok(kind, since_due_ns),
            },
        }
        Ok(Then::Ends)
    }

    /// The other records of a write of many count as inserted, like the first.
    fn end_batch(&self, index: usize) {
        let slot = &self.slots[index];
        if slot.step == Step::PutMany && slot.kind == Some(Kind::Insert) && self.job.phase == Phase::Run {
            let others = slot.batch.numbers().iter().skip(1);
            others.for_each(|number| self.job.shared.inserts.acknowledge(*number));
        }
    }

    /// What is wrong with the records of a scan, if something is: its first record must be among them, in
    /// the version that may be read, and every record must hold a value of its own.
    fn flaw_of_scan(&self, index: usize, scanned: &[u8]) -> Option<String> {
        let slot = &self.slots[index];
        let ledger = self.job.shared.ledger.as_ref()?;
        let workload = &self.job.plan.workload;
        let mut has_first = false;
        let mut own = Vec::new();
        for (key, value) in records(scanned) {
            if key == slot.key {
                has_first = true;
                if let Some(flaw) = flaw(ledger, slot.number, slot.floor, value) {
                    return Some(flaw);
                }
                continue;
            }
            let shown = || String::from_utf8_lossy(key).into_owned();
            let Some(stamp) = Stamp::of(value) else {
                return Some(format!("a scan shows {} with a value without a sound stamp", shown()));
            };
            own.clear();
            workload.key.append(stamp.number, &mut own);
            if own != key {
                return Some(format!("a scan shows {} with the value of record {}", shown(), stamp.number));
            }
            // Others may have written it since the scan began, so that the least version is not known.
            if let Some(flaw) = flaw(ledger, stamp.number, 0, value) {
                return Some(flaw);
            }
        }
        let is_loaded = slot.number < workload.insert_start + workload.insert_count;
        (!has_first && (slot.floor > 0 || is_loaded))
            .then(|| format!("a scan does not show record {}, its first", slot.number))
    }

    /// What is wrong with a value, if something is.
    fn flaw(&self, index: usize, value: &[u8]) -> Option<String> {
        let slot = &self.slots[index];
        flaw(self.job.shared.ledger.as_ref()?, slot.number, slot.floor, value)
    }

    fn ok(&mut self, kind: Kind, latency_ns: u64) {
        if self.is_late {
            return;
        }
        self.tally.ok(kind, latency_ns);
        self.second.latency_ns.saturating_record(latency_ns);
    }

    fn failed(&mut self, kind: Kind, message: impl FnOnce() -> String) {
        self.tally.failed(kind, message);
        self.second.failed += 1;
    }

    /// Notes what has become of a write.
    fn settle(&self, kind: Kind, number: u64, version: u64, settled: Settled) {
        // A load asks for none of them.
        if kind == Kind::Insert && self.job.phase == Phase::Run {
            self.job.shared.inserts.acknowledge(number);
        }
        let Some(ledger) = self.job.shared.ledger.as_ref().filter(|_| version > 0) else { return };
        match settled {
            Settled::Applied => ledger.acknowledge(number, version),
            Settled::NotApplied => ledger.give_up(number),
            Settled::Unknown => {}
        }
    }
}

/// What is wrong with the value of a record that must have at least version `floor`, if something is.
fn flaw(ledger: &Ledger, number: u64, floor: u64, value: &[u8]) -> Option<String> {
    let Some(stamp) = Stamp::of(value) else {
        return Some(format!("record {number} holds {} bytes without a sound stamp", value.len()));
    };
    if stamp.number != number {
        return Some(format!("record {number} holds the value of record {}", stamp.number));
    }
    if stamp.version < floor {
        return Some(format!("record {number} has version {}, {floor} was acknowledged", stamp.version));
    }
    let ceiling = ledger.ceiling(number)?;
    (stamp.version > ceiling)
        .then(|| format!("record {number} has version {}, none was written", stamp.version))
}
