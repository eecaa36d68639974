//! Batches, and what must be refused.

use std::collections::BTreeMap;

use pinion_engine::{
    BatchOperation, Condition, Durability, Effect, Error, HybridTime, KEY_BYTES_MAX, Key, Lifetime,
    NamespaceId, Operation, Origin, Stamp, WriteOptions, answer,
};
use pinion_env::Env;

use super::plan::{Batch, Life, Proposed, Refused};
use super::reference::{Entry, Place, expiry_ms, lifetime};
use super::run::{Done, PARTITIONS, Proposal, Run, Said, Wrong, ensure, key_of, unexpected};
use super::setup::{BATCH_OPS_MAX, VALUE_BYTES_MAX};

/// How often a batch that is refused for want of room is tried again.
const ATTEMPTS_MAX: usize = 100;

impl Run<'_> {
    pub(super) async fn batch(&mut self, batch: &Batch) -> Done {
        self.counts.add("batches", 1);
        let repeated = match batch.proposed {
            Proposed::Again => self.proposed_batch.clone(),
            _ => None,
        };
        self.counts.add("batches repeated", u64::from(repeated.is_some()));
        let (batch, stamp) = match repeated {
            Some(Proposal { stamp, what }) => (what, Some(stamp)),
            None => {
                let places: Vec<Place> =
                    batch.elements.iter().map(|element| self.place(element.namespace, element.key)).collect();
                (batch.clone(), self.propose(batch.proposed, &places))
            }
        };
        if let Some(stamp) = stamp {
            self.proposed_batch = Some(Proposal { stamp, what: batch.clone() });
        }
        let elements: Vec<(Place, Option<Vec<u8>>, Life)> = batch
            .elements
            .iter()
            .map(|element| {
                let value = element.value.map(super::plan::Value::bytes);
                (self.place(element.namespace, element.key), value, element.life)
            })
            .collect();
        let operations: Vec<BatchOperation<'_>> = elements
            .iter()
            .map(|(place, value, life)| BatchOperation {
                key: key_of(place),
                value: value.as_deref(),
                lifetime: lifetime(*life),
            })
            .collect();
        let durability = if batch.buffered { Durability::Buffered } else { Durability::Sync };
        let options = WriteOptions { durability, stamp, ..WriteOptions::default() };
        let before_ms = self.shard.clock_ms();
        let mut attempts = 0;
        let result = loop {
            let (teller, answer) = answer();
            self.shard.write_batch(&operations, options, teller);
            attempts += 1;
            match answer.await {
                Err(Error::Overloaded { .. }) if attempts < ATTEMPTS_MAX => self.make_room().await?,
                result => break result,
            }
        };
        if let Err(Error::StampTooOld { .. }) = result {
            self.counts.add("batches too old", 1);
            self.said.push(Said::Failed("too old"));
            return self.judge_age(stamp, true, before_ms);
        }
        let written = result.map_err(unexpected)?;
        if stamp.is_some() {
            self.judge_age(stamp, false, before_ms)?;
        }
        let stamp = stamp.unwrap_or(written.stamp);

        // Of several elements on one key the last wins.
        let last: BTreeMap<&Place, usize> =
            elements.iter().enumerate().map(|(index, (place, ..))| (place, index)).collect();
        let mut superseded: Vec<u32> = Vec::new();
        let mut newest = Stamp::ZERO;
        for (place, index) in &last {
            let standing = self.reference.stamp(place);
            newest = newest.max(standing);
            if standing > stamp {
                superseded.push(*index as u32);
            } else if standing < stamp {
                let (_, value, life) = &elements[*index];
                let life = if *life == Life::Keep { Life::Forever } else { *life };
                let expiry_ms = if value.is_some() { expiry_ms(life, stamp, 0) } else { 0 };
                self.reference.set((*place).clone(), Entry { value: value.clone(), expiry_ms, stamp });
                self.unsynced = batch.buffered;
            }
        }
        superseded.sort_unstable();
        self.counts.add(
            "batches partly superseded",
            u64::from(!superseded.is_empty() && superseded.len() < last.len()),
        );
        let (effect, of, name) = if superseded.len() == last.len() {
            self.counts.add("batches superseded", 1);
            (Effect::Superseded, newest, "batch superseded")
        } else {
            (Effect::Applied, stamp, "batch applied")
        };
        self.said.push(Said::Written(name, 0, false, superseded.clone()));
        ensure((written.effect, written.stamp, &written.superseded) == (effect, of, &superseded), || {
            format!("{written:?}, {effect:?} by {of:?} and {superseded:?} superseded is expected")
        })
    }

    /// Asks for something that must be refused and change nothing.
    pub(super) async fn refused(&mut self, refused: Refused) -> Done {
        self.counts.add(&format!("refused: {refused:?}"), 1);
        let place = self.place(0, 0);
        let (long_key, large) = (vec![b'k'; KEY_BYTES_MAX + 1], vec![7; VALUE_BYTES_MAX as usize + 1]);
        let key = key_of(&place);
        let other = |user| Key::new(NamespaceId(0), user, PARTITIONS);
        let put = |value| Operation::Put { value, lifetime: Lifetime::Forever };
        let element = |value| BatchOperation { key, value: Some(value), lifetime: Lifetime::Forever };
        let plain = WriteOptions::default();
        let far_ms = self.shard.clock_ms().max(self.env.wall_ms()) + 10_000;
        let stamped = |millis| {
            let stamp =
                Stamp { time: HybridTime::from_millis(millis), origin: Origin(Origin::CLIENT_BIT | 5) };
            WriteOptions { stamp: Some(stamp), ..plain }
        };
        // Being full is told before most other reasons.
        self.shard.settle().await.map_err(unexpected)?;
        let (teller, answer) = answer();
        let shard = &self.shard;
        match refused {
            Refused::EmptyKey => {
                shard.write(&other(&[]), put(b"x"), plain, teller);
            }
            Refused::LongKey => {
                shard.write(&other(&long_key), put(b"x"), plain, teller);
            }
            Refused::LargeValue => {
                shard.write(&key, put(&large), plain, teller);
            }
            Refused::FarAhead => {
                shard.write(&key, put(b"x"), stamped(far_ms), teller);
            }
            Refused::StampedCondition => {
                let operation = Operation::PutIf {
                    condition: Condition::Absent,
                    value: b"x",
                    lifetime: Lifetime::Forever,
                };
                shard.write(&key, operation, stamped(far_ms - 10_000), teller);
            }
            Refused::EmptyBatch => shard.write_batch(&[], plain, teller),
            Refused::LongBatch => {
                shard.write_batch(&vec![element(b"x"); BATCH_OPS_MAX as usize + 1], plain, teller);
            }
            Refused::LargeBatch => shard.write_batch(&vec![element(&large[1..]); 5], plain, teller),
            Refused::PastDeadline => {
                let deadline = Some(self.env.now());
                shard.write(&key, put(b"x"), WriteOptions { deadline, ..plain }, teller);
            }
        }
        let result = answer.await;
        let right = match (&result, refused) {
            (Err(Error::StampAhead), Refused::FarAhead)
            | (Err(Error::BadOperation(_)), Refused::StampedCondition)
            | (Err(Error::Deadline), Refused::PastDeadline) => true,
            (Err(Error::TooLarge { bytes, max, .. }), _) => bytes > max || *bytes == 0,
            _ => false,
        };
        ensure(right, || format!("{refused:?} is answered by {result:?}"))?;
        self.check_key(&place, true)
            .await
            .map(|_| ())
            .map_err(|Wrong(what)| Wrong(format!("{refused:?} was refused and changed something: {what}")))
    }
}
