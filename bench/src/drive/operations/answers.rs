//! Answers to the requests of operations: counted, timed, and compared with what must be there.

use std::cmp::Reverse;

use super::{Operations, Step, Then, stamp};
use crate::drive::Phase;
use crate::drive::speech::Answer;
use crate::error::{Error, Result};
use crate::workload::Kind;
use crate::workload::record::Stamp;

/// Rest of a refused request when the target does not say, in milliseconds; it doubles up to a bound.
const REST_MS: u64 = 2;
const REST_MS_MAX: u64 = 250;

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
    /// [`Error::Answer`]: nothing was asked.
    pub(in crate::drive) fn answered(&mut self, index: usize, answer: &Answer, bytes: &[u8]) -> Result<Then> {
        let now_ns = self.now_ns;
        let slot = &mut self.slots[index];
        let Some(kind) = slot.kind else { return Err(Error::Answer("an answer to nothing".to_owned())) };
        let (since_due_ns, since_step_ns) =
            (now_ns.saturating_sub(slot.due_ns), now_ns.saturating_sub(slot.step_ns));
        match answer {
            Answer::Refused { retry_after_ms, .. } => {
                self.tally.refused(kind);
                let rest_ms =
                    (REST_MS << slot.refusals.min(8)).min(REST_MS_MAX).max(u64::from(*retry_after_ms));
                slot.refusals += 1;
                let jitter_ns = self.random.below(rest_ms * 500_000);
                self.rests.push(Reverse((now_ns + rest_ms * 1_000_000 + jitter_ns, index)));
                return Ok(Then::Rests);
            }
            Answer::Failed { is_unknown, message } => {
                let (number, version, is_unknown) = (slot.number, slot.version, *is_unknown);
                self.failed(kind, || message.clone());
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
                self.settle(kind, number, version, Settled::Applied);
            }
            Answer::Scanned(_) => self.ok(kind, since_due_ns),
        }
        Ok(Then::Ends)
    }

    /// What is wrong with a value, if something is.
    fn flaw(&self, index: usize, value: &[u8]) -> Option<String> {
        let slot = &self.slots[index];
        let ledger = self.job.shared.ledger.as_ref()?;
        let number = slot.number;
        let Some(stamp) = Stamp::of(value) else {
            return Some(format!("record {number} holds {} bytes without a sound stamp", value.len()));
        };
        if stamp.number != number {
            return Some(format!("record {number} holds the value of record {}", stamp.number));
        }
        if stamp.version < slot.floor {
            let floor = slot.floor;
            return Some(format!("record {number} has version {}, {floor} was acknowledged", stamp.version));
        }
        let ceiling = ledger.ceiling(number)?;
        (stamp.version > ceiling)
            .then(|| format!("record {number} has version {}, none was written", stamp.version))
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
