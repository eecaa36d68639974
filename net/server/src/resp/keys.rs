//! Commands about all keys: SCAN, DBSIZE, KEYS, FLUSHALL.
//!
//! SCAN goes through the shards in order, a page at a time, on the core that its cursor names; every key
//! that lives through the scan is answered, none twice unless it was removed and written again. The
//! others are asked of every core at once, each for what it owns. DBSIZE walks for at most
//! [`WALK_TIME_MAX`], and then answers what the part that was walked suggests: keys are spread over
//! partitions by their hash. KEYS and FLUSHALL work as long as there are keys, and so there is a setting
//! that allows them.
//!
//! Limits: a page of SCAN is one of the engine's; a reply of KEYS fits a frame. Each walk takes one of
//! the places for reads.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use pinion_engine::{
    BatchOperation, Error, Lifetime, NamespaceId, OwnedPosition, Partition, RecordView, ScanKind, ScanRange,
    ScanSink, answer,
};
use pinion_env::{Monotonic, TaskClass};
use pinion_protocol::resp::{Command, append_command, parse_integer, reply};

use crate::core::{Core, CoreShard, ReplyTo, Ticket};
use crate::counters::add;
use crate::message::ServerEnv;
use crate::pressure::AnswerBytes;
use crate::refusal::Refusal;
use crate::resp::cursors::{Cursor, Entry};
use crate::resp::failure::{self, PartsFailed};
use crate::resp::table::{Name, Spec};
use crate::resp::{glob, many, outcome};
use crate::write::WriteWaiter;

/// How long DBSIZE walks.
const WALK_TIME_MAX: Duration = Duration::from_secs(1);

/// Keys of a page of SCAN unless COUNT says otherwise.
const COUNT_DEFAULT: i64 = 10;

/// What is said of a cursor that is not known.
const UNKNOWN_CURSOR: &str = "ERR unknown cursor: the scan has ended, was left alone for too long, or began \
                              before a restart; begin anew with 0";

/// How often FLUSHALL tries to remove the same keys while the shard is busy.
const TRIES_MAX: u32 = 1_000;

/// Carries out, or passes on, a command about all keys.
pub(super) fn carry_out<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: Ticket,
    spec: &Spec,
    command: &Command<'_>,
    namespace: u32,
) {
    let sweep = match spec.is {
        Name::Scan => return scan(core, ticket, command, namespace),
        Name::DbSize => Sweep::Count,
        Name::Keys | Name::FlushAll if !core.config.resp.sweeping => {
            let text = format!(
                "ERR {} is turned off, for it works on every key: allow it with `serve --resp-sweeping` (not \
                 applied)",
                spec.name.to_uppercase()
            );
            return core.fail(&ticket, text);
        }
        Name::Keys => Sweep::List(command.arg(1).to_vec()),
        _ => {
            let option = command.get(1).unwrap_or(b"sync");
            let known = option.eq_ignore_ascii_case(b"sync") || option.eq_ignore_ascii_case(b"async");
            if !known || command.len() > 2 {
                return core.fail(&ticket, failure::SYNTAX);
            }
            Sweep::Remove
        }
    };
    sweep_all(core, ticket, sweep, command, namespace);
}

/// What is done to all keys.
enum Sweep {
    Count,
    /// Those that fit the pattern are listed.
    List(Vec<u8>),
    Remove,
}

/// A sweep whose parts are coming in.
struct Sweeping<E: ServerEnv> {
    core: Rc<Core<E>>,
    ticket: Ticket,
    sweep: Sweep,
    namespace: u32,
    /// Keys found.
    count: Cell<u64>,
    /// Those to be listed, as strings of RESP.
    listed: RefCell<Vec<u8>>,
    /// What `listed` holds counts as waiting answers.
    held: AnswerBytes<E>,
    /// Parts under way.
    waiting: Cell<u32>,
    failed: PartsFailed,
}

/// Asks every core for its share, or does this core's if another one asks.
fn sweep_all<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: Ticket,
    sweep: Sweep,
    command: &Command<'_>,
    namespace: u32,
) {
    let others = match ticket.reply {
        ReplyTo::Connection(_) => core.layout.cores.min(core.layout.shards),
        ReplyTo::Core { .. } => 0,
    };
    if core.awaited.count() + u32::from(others) > core.limits().core_forwards_max.max(u32::from(others)) {
        return core.refuse_overloaded(&ticket, "too many requests are being forwarded");
    }
    let Some(place) = core.begin_read(&ticket) else { return };
    let sweeping = Rc::new(Sweeping {
        core: Rc::clone(core),
        ticket,
        sweep,
        namespace,
        count: Cell::new(0),
        listed: RefCell::new(core.take_buffer()),
        held: AnswerBytes::new(core),
        waiting: Cell::new(1),
        failed: PartsFailed::default(),
    });
    for other in (0..others).filter(|other| *other != core.index) {
        sweeping.waiting.set(sweeping.waiting.get() + 1);
        let part = Rc::clone(&sweeping);
        core.forward_command_part(
            other,
            &ticket,
            |out| append_command(out, command.args_from(0)),
            None,
            Box::new(move |core, answer| {
                part.answered(&answer);
                core.give_buffer(answer);
                part.part_done();
            }),
        );
    }
    core.env.clone().spawn(TaskClass::Foreground, async move {
        sweeping.walk().await;
        drop(place);
        sweeping.part_done();
    });
}

impl<E: ServerEnv> Sweeping<E> {
    /// Takes another core's share.
    fn answered(&self, answer: &[u8]) {
        let fail = || self.failed.answered(answer);
        match &self.sweep {
            Sweep::Count => match many::integer(answer).and_then(|count| u64::try_from(count).ok()) {
                Some(count) => self.count.set(self.count.get() + count),
                None => fail(),
            },
            Sweep::List(_) => match listed(answer) {
                Some((count, keys)) if self.has_room(keys.len()) => {
                    self.count.set(self.count.get() + count);
                    self.listed.borrow_mut().extend_from_slice(keys);
                }
                Some(_) => self.fail_too_large(),
                None => fail(),
            },
            // It may have had no keys; that is not told.
            Sweep::Remove if answer.starts_with(b"+") => self.failed.changed(),
            Sweep::Remove => fail(),
        }
    }

    /// Walks the shards of this core.
    async fn walk(&self) {
        let until = self.core.env.now().after(WALK_TIME_MAX);
        let shards: Vec<CoreShard<E>> = self.core.shards().map(|(_, shard)| shard.clone()).collect();
        let partitions = |shard: u16| {
            let (first, last) = self.core.layout.partitions_of(shard);
            u64::from(last - first) + 1
        };
        let all: u64 = self.core.shards().map(|(number, _)| partitions(number)).sum();
        let numbers: Vec<u16> = self.core.shards().map(|(number, _)| number).collect();
        let (mut walked, mut counted) = (0, 0);
        for (number, shard) in numbers.into_iter().zip(&shards) {
            match self.walk_shard(shard, until, &mut counted).await {
                Ok(None) => walked += partitions(number),
                Ok(Some(reached)) => {
                    let (first, _) = self.core.layout.partitions_of(number);
                    walked += u64::from(reached.0 - first);
                    let estimate = u128::from(counted) * u128::from(all) / u128::from(walked.max(1));
                    counted = u64::try_from(estimate).unwrap_or(u64::MAX);
                    break;
                }
                Err(refusal) => return self.failed.refuse(&refusal),
            }
            if self.failed.any() {
                return;
            }
        }
        self.count.set(self.count.get().saturating_add(counted));
    }

    /// Walks a shard and adds what it finds to `count`; answers the partition that was reached when the
    /// time was over, if it was.
    async fn walk_shard(
        &self,
        shard: &CoreShard<E>,
        until: Monotonic,
        count: &mut u64,
    ) -> Result<Option<Partition>, Refusal<'static>> {
        let mut resume: Option<OwnedPosition> = None;
        let mut keys = Keys::default();
        loop {
            let mut page = PageKeys { keys: &mut keys, counted: 0, sweep: &self.sweep };
            let range = range(self.namespace, resume.take(), self.core.options.scan_records_max);
            let ended = shard.scan(&range, &mut page).await;
            let counted = page.counted;
            let ended = ended.map_err(|error| Refusal::engine(&error).into_owned())?;
            if self.core.namespaces.borrow().default_ttl_ms(self.namespace).is_none() {
                return Err(Refusal::no_such_namespace());
            }
            match &self.sweep {
                Sweep::Count => *count += counted,
                Sweep::List(_) => {
                    if !self.has_room(keys.bytes) {
                        self.fail_too_large();
                        return Ok(None);
                    }
                    *count += keys.all.len() as u64;
                    let mut listed = self.listed.borrow_mut();
                    keys.all.drain(..).for_each(|user| reply::bulk(&mut listed, &user));
                }
                Sweep::Remove => self.remove(shard, &keys).await?,
            }
            keys.clear();
            resume = ended;
            let Some(position) = &resume else { return Ok(None) };
            if matches!(self.sweep, Sweep::Count) && self.core.env.now() >= until {
                return Ok(Some(position.partition));
            }
        }
    }

    /// Removes keys, as many at a time as a batch may have.
    async fn remove(&self, shard: &CoreShard<E>, keys: &Keys) -> Result<(), Refusal<'static>> {
        let options = outcome::options(&self.core, &self.ticket);
        let mut rest = &keys.all[..];
        while !rest.is_empty() {
            let (mut bytes, mut operations) = (0, Vec::new());
            for user in rest.iter().take(self.core.options.batch_ops_max as usize) {
                bytes += user.len();
                if bytes > self.core.options.batch_bytes_max as usize && !operations.is_empty() {
                    break;
                }
                let key = self.core.key(self.namespace, user);
                operations.push(BatchOperation { key, value: None, lifetime: Lifetime::Forever });
            }
            let mut tries = 0;
            loop {
                let (teller, answer) = answer();
                shard.write_batch(&operations, options, WriteWaiter::Told(teller));
                match answer.await {
                    Ok(_) => break self.failed.changed(),
                    Err(Error::Overloaded { retry_after_ms }) if tries < TRIES_MAX => {
                        tries += 1;
                        self.core.env.sleep(Duration::from_millis(u64::from(retry_after_ms.max(1)))).await;
                    }
                    Err(error) => return Err(Refusal::engine(&error).into_owned()),
                }
            }
            rest = &rest[operations.len()..];
        }
        Ok(())
    }

    /// Whether so many more bytes of keys fit a reply.
    fn has_room(&self, bytes: usize) -> bool {
        let sum = self.listed.borrow().len() + bytes;
        sum <= self.core.limits().frame_bytes_max as usize && self.held.grow(bytes)
    }

    fn fail_too_large(&self) {
        let what = "the keys are more bytes than one reply may have: use SCAN";
        self.failed.refuse(&Refusal::bad_request(what));
    }

    /// One part less is under way; answers after the last.
    fn part_done(&self) {
        self.waiting.set(self.waiting.get() - 1);
        if self.waiting.get() > 0 {
            return;
        }
        let listed = self.listed.take();
        match (self.failed.take(), &self.sweep) {
            (Some(line), _) => {
                add(&self.core.counters.errors, 1);
                self.core.answer(&self.ticket, |out| out.extend_from_slice(&line));
            }
            (None, Sweep::Count) => {
                let count = i64::try_from(self.count.get()).unwrap_or(i64::MAX);
                self.core.answer(&self.ticket, |out| reply::integer(out, count));
            }
            (None, Sweep::List(_)) => self.core.answer(&self.ticket, |out| {
                reply::array(out, self.count.get() as usize);
                out.extend_from_slice(&listed);
            }),
            (None, Sweep::Remove) => self.core.answer(&self.ticket, |out| reply::simple(out, "OK")),
        }
        self.core.give_buffer(listed);
    }
}

/// The count and the members of an array of strings.
fn listed(answer: &[u8]) -> Option<(u64, &[u8])> {
    let end = answer.iter().position(|byte| *byte == b'\r')?;
    let count = parse_integer(answer.get(1..end)?)?;
    (answer.first() == Some(&b'*')).then_some(())?;
    Some((u64::try_from(count).ok()?, answer.get(end + 2..)?))
}

/// All partitions of a shard, in order.
fn range(namespace: u32, resume: Option<OwnedPosition>, records_max: u32) -> ScanRange {
    ScanRange {
        namespace: NamespaceId(namespace),
        kind: ScanKind::Placed { first: Partition(0), last: Partition(u16::MAX) },
        start: Vec::new(),
        end: None,
        resume,
        reverse: false,
        records_max,
    }
}

/// Keys of a page.
#[derive(Default)]
struct Keys {
    all: Vec<Vec<u8>>,
    bytes: usize,
}

impl Keys {
    fn clear(&mut self) {
        self.all.clear();
        self.bytes = 0;
    }
}

/// Gathers a page of a sweep.
struct PageKeys<'a> {
    keys: &'a mut Keys,
    counted: u64,
    sweep: &'a Sweep,
}

impl ScanSink for PageKeys<'_> {
    fn push(&mut self, user: &[u8], _: RecordView<'_>) -> bool {
        self.counted += 1;
        let wanted = match self.sweep {
            Sweep::Count => false,
            Sweep::List(pattern) => glob::fits(pattern, user),
            Sweep::Remove => true,
        };
        if wanted {
            self.keys.bytes += user.len() + 16;
            self.keys.all.push(user.to_vec());
        }
        true
    }
}

/// What SCAN is asked for beside its cursor.
struct Asked {
    pattern: Option<Vec<u8>>,
    /// No key is of another type than strings.
    none: bool,
    count: u32,
}

/// SCAN: answers a page, or sends the command to the core that has it.
fn scan<E: ServerEnv>(core: &Rc<Core<E>>, ticket: Ticket, command: &Command<'_>, namespace: u32) {
    let number = std::str::from_utf8(command.arg(1)).ok().and_then(|text| text.parse::<u64>().ok());
    let Some(number) = number else { return core.fail(&ticket, "ERR invalid cursor") };
    let asked = match asked(command) {
        Ok(asked) => asked,
        Err(text) => return core.fail(&ticket, text),
    };
    let unknown = || core.fail(&ticket, UNKNOWN_CURSOR);
    let Some(cursor) = Cursor::of(number) else { return unknown() };
    let owner = match cursor {
        Cursor::Shard(shard) if shard < core.layout.shards => core.layout.core_of(shard),
        Cursor::Entry(entry) if entry.core < core.layout.cores => entry.core,
        _ => return unknown(),
    };
    if owner != core.index {
        return match ticket.reply {
            ReplyTo::Connection(_) => core.forward_command(owner, ticket, command.bytes(), None),
            ReplyTo::Core { .. } => unknown(),
        };
    }
    let (shard, entry, resume) = match cursor {
        Cursor::Shard(shard) => (shard, None, None),
        Cursor::Entry(entry) => match core.resp.cursors.borrow_mut().position(entry) {
            Some(position) => {
                let shard = position.partition.shard(core.layout.shards, core.layout.partitions);
                (shard, Some(entry), Some(position))
            }
            None => return unknown(),
        },
    };
    let Some(found) = core.shard(shard).cloned() else { return unknown() };
    let Some(place) = core.begin_read(&ticket) else { return };
    let core = Rc::clone(core);
    core.env.clone().spawn(TaskClass::Foreground, async move {
        let from = Begin { number: shard, shard: found, entry, resume };
        page(&core, &ticket, from, &asked, namespace).await;
        drop(place);
    });
}

fn asked(command: &Command<'_>) -> Result<Asked, &'static str> {
    let mut asked = Asked { pattern: None, none: false, count: COUNT_DEFAULT as u32 };
    let mut args = command.args_from(2);
    while let Some(option) = args.next() {
        let is = |name: &str| option.eq_ignore_ascii_case(name.as_bytes());
        let Some(argument) = args.next() else { return Err(failure::SYNTAX) };
        if is("count") {
            let count = parse_integer(argument).ok_or(failure::NOT_AN_INTEGER)?;
            if count < 1 {
                return Err(failure::SYNTAX);
            }
            asked.count = u32::try_from(count).unwrap_or(u32::MAX);
        } else if is("match") {
            asked.pattern = (argument != b"*").then(|| argument.to_vec());
        } else if is("type") {
            asked.none = !argument.eq_ignore_ascii_case(b"string");
        } else {
            return Err(failure::SYNTAX);
        }
    }
    Ok(asked)
}

/// Where a page begins.
struct Begin<E: ServerEnv> {
    number: u16,
    shard: CoreShard<E>,
    entry: Option<Entry>,
    resume: Option<OwnedPosition>,
}

async fn page<E: ServerEnv>(
    core: &Rc<Core<E>>,
    ticket: &Ticket,
    from: Begin<E>,
    asked: &Asked,
    namespace: u32,
) {
    let mut sink = PageSink {
        held: AnswerBytes::new(core),
        keys: core.take_buffer(),
        count: 0,
        seen: 0,
        bytes_max: core.options.scan_bytes_max as usize,
        asked,
    };
    let range = range(namespace, from.resume, asked.count.min(core.options.scan_records_max));
    let ended = match from.shard.scan(&range, &mut sink).await {
        Ok(ended) => ended,
        Err(error) => return core.refuse(ticket, &Refusal::engine(&error)),
    };
    if core.namespaces.borrow().default_ttl_ms(namespace).is_none() {
        return core.refuse(ticket, &Refusal::no_such_namespace());
    }
    let PageSink { held, keys, count, .. } = sink;
    let next = match ended {
        Some(position) => {
            let random = core.env.random();
            core.resp.cursors.borrow_mut().remember(core.index, from.entry, position, random).number()
        }
        // Through the last shard: that is the end, and the number of a beginning.
        None if from.number + 1 == core.layout.shards => 0,
        None => Cursor::Shard(from.number + 1).number(),
    };
    drop(held);
    core.answer(ticket, |out| {
        reply::array(out, 2);
        reply::bulk(out, next.to_string().as_bytes());
        reply::array(out, count);
        out.extend_from_slice(&keys);
    });
    core.give_buffer(keys);
}

/// Gathers a page of SCAN.
struct PageSink<'a, E: ServerEnv> {
    /// What `keys` holds counts as waiting answers.
    held: AnswerBytes<E>,
    /// Strings of RESP.
    keys: Vec<u8>,
    count: usize,
    /// Keys looked at.
    seen: usize,
    bytes_max: usize,
    asked: &'a Asked,
}

impl<E: ServerEnv> ScanSink for PageSink<'_, E> {
    fn push(&mut self, user: &[u8], _: RecordView<'_>) -> bool {
        let full = self.keys.len() + user.len() > self.bytes_max || !self.held.grow(user.len());
        if full && self.seen > 0 {
            return false;
        }
        self.seen += 1;
        let fits = self.asked.pattern.as_ref().is_none_or(|pattern| glob::fits(pattern, user));
        if fits && !self.asked.none {
            reply::bulk(&mut self.keys, user);
            self.count += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_back() {
        assert_eq!(listed(b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"), Some((2, &b"$1\r\na\r\n$1\r\nb\r\n"[..])));
        assert_eq!(listed(b"*0\r\n"), Some((0, &b""[..])));
        assert_eq!(listed(b"-ERR no\r\n"), None);
    }
}
