//! Every fault there is, under a node that uses every operation; rates, draws, and the trace.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use pinion_env::{AlignedBuf, Env, File, OpenMode, PAGE_BYTES, WriteMode};

use super::super::faults::POINTS;
use super::super::{Fault, Faults, Operation};
use super::page;
use crate::world::{NodeConfig, Random, SimEnv, World};

/// Uses every operation at least once and collects what they answered.
async fn everything(env: SimEnv, answers: Rc<RefCell<Vec<io::Result<()>>>>) {
    let note = |answer: io::Result<()>| {
        // What is missing is missing because of an earlier failure.
        if answer.as_ref().err().is_none_or(|error| error.kind() != io::ErrorKind::NotFound) {
            answers.borrow_mut().push(answer);
        }
    };
    note(env.create_dir(Path::new("data")).await);
    note(env.lock(Path::new("LOCK")).await.map(drop));
    note(env.space(Path::new("")).await.map(drop));
    note(env.list(Path::new("")).await.map(drop));
    let created = env.open(Path::new("file"), OpenMode::CreateNew).await;
    if let Ok(file) = &created {
        for (number, byte) in [(0, 1), (1, 2), (0, 3), (2, 4)] {
            let mode = if byte == 4 { WriteMode::Unsynced } else { WriteMode::Durable };
            let written = file.write(number * PAGE_BYTES as u64, page(byte), 0..PAGE_BYTES, mode);
            note(written.await.0);
        }
        note(file.sync().await);
        note(file.bytes().await.map(drop));
        for number in 0..2 {
            let read = file.read(number * PAGE_BYTES as u64, AlignedBuf::zeroed(PAGE_BYTES), PAGE_BYTES);
            note(read.await.0.map(drop));
        }
    }
    note(created.map(drop));
    note(env.sync_dir(Path::new("")).await);
    note(env.rename(Path::new("file"), Path::new("renamed")).await);
    note(env.open(Path::new("renamed"), OpenMode::Read).await.map(drop));
    let left = env.list(Path::new("")).await.unwrap_or_default();
    if left.iter().any(|entry| entry.name == "renamed") {
        note(env.remove(Path::new("renamed")).await);
    }
}

/// What a run gave: trace hash, failed operations, counts, virtual time.
fn run(
    seed: u64,
    order: impl Fn(&World, crate::world::NodeId),
) -> (u64, usize, Vec<(&'static str, u64)>, u64) {
    let world = World::new(seed);
    let answers = Rc::new(RefCell::new(Vec::new()));
    let collected = Rc::clone(&answers);
    let node = world.start_node(NodeConfig::default(), move |env| everything(env, Rc::clone(&collected)));
    order(&world, node);
    world.run_until(world.ended(node));
    let failed = answers.borrow().iter().filter(|answer| answer.is_err()).count();
    (world.trace_hash(), failed, world.fault_counts(), world.now().nanos())
}

#[test]
fn every_fault_happens_is_counted_and_is_in_the_trace() {
    let (honest_hash, failed, counts, honest_nanos) = run(1, |_, _| {});
    assert_eq!(failed, 0);
    assert!(counts.iter().all(|(_, times)| *times == 0));
    for (operation, fault, name) in POINTS {
        // A misdirected write needs another page to go to, a stale read one that was written twice.
        let nth = if (*operation, *fault) == (Operation::Write, Fault::Misdirected) { 2 } else { 1 };
        let (hash, failed, counts, nanos) =
            run(1, |world, node| world.disk(node).fail_nth(*operation, nth, *fault));
        let happened: Vec<_> = counts.iter().filter(|(_, times)| *times > 0).collect();
        assert_eq!(happened, [&(*name, 1)], "{name}");
        assert_ne!(hash, honest_hash, "{name}");
        let reported = matches!(fault, Fault::Error | Fault::Torn | Fault::Full | Fault::Unreadable);
        assert_eq!(failed, usize::from(reported), "{name}");
        if *fault == Fault::Slow {
            assert!(nanos > honest_nanos + 1_000_000, "{name}");
        }
    }
}

#[test]
fn names_of_counts_are_unique() {
    let world = World::new(1);
    let node = world.start_node(NodeConfig::default(), |_: SimEnv| async {});
    let counts = world.disk(node).fault_counts();
    assert_eq!(counts.iter().map(|(name, _)| name).collect::<BTreeSet<_>>().len(), counts.len());
}

#[test]
fn draws_reach_every_fault_but_lies_and_differ() {
    let mut random = Random::new(1);
    let mut seen = BTreeSet::new();
    let mut draws = BTreeSet::new();
    for seed in 0..300 {
        let faults = Faults::draw(&mut random);
        draws.insert(format!("{faults:?}"));
        for variant in 0..8 {
            let (_, _, counts, _) =
                run(seed * 8 + variant, |world, node| world.disk(node).set_faults(faults.clone()));
            seen.extend(counts.iter().filter(|(_, times)| *times > 0).map(|(name, _)| *name));
        }
    }
    assert!(draws.len() > 250);
    let lies = ["durable write ended early", "skipped sync", "skipped directory sync"];
    let missing: Vec<_> =
        POINTS.iter().map(|(_, _, name)| *name).filter(|name| !seen.contains(name)).collect();
    assert_eq!(missing, lies);
}

#[test]
fn faults_follow_the_seed() {
    let history = |seed| {
        let faults = Faults::draw(&mut Random::new(seed));
        run(seed, |world, node| world.disk(node).set_faults(faults.clone()))
    };
    assert_eq!((0..40).map(history).collect::<Vec<_>>(), (0..40).map(history).collect::<Vec<_>>());
}

#[test]
fn rates_are_rates_and_end() {
    let faults = Faults::none().with(Operation::Write, Fault::Error, 4);
    let (mut failed, mut written) = (0, 0);
    for seed in 0..200 {
        let (_, errors, counts, _) = run(seed, |world, node| world.disk(node).set_faults(faults.clone()));
        assert_eq!(errors as u64, counts.iter().map(|(_, times)| times).sum::<u64>());
        failed += errors;
        written += 4;
    }
    assert!((written / 5..written / 3).contains(&failed), "{failed} of {written}");
    let (_, errors, _, _) = run(1, |world, node| {
        world.disk(node).set_faults(faults.clone());
        world.disk(node).set_faults(Faults::none());
    });
    assert_eq!(errors, 0);
}

#[test]
fn a_paused_node_stands_still_while_its_operations_end() {
    let world = World::new(3);
    let turns = Rc::new(RefCell::new(0_u64));
    let count = Rc::clone(&turns);
    let node = world.start_node(NodeConfig::default(), move |env: SimEnv| {
        let count = Rc::clone(&count);
        async move {
            let file = env.open(Path::new("file"), OpenMode::CreateNew).await.unwrap();
            loop {
                file.write(0, page(1), 0..PAGE_BYTES, WriteMode::Durable).await.0.unwrap();
                *count.borrow_mut() += 1;
            }
        }
    });
    let other = world.start_node(NodeConfig::default(), |env: SimEnv| async move {
        env.sleep(Duration::from_secs(2)).await;
    });
    world.run_until(world.sleep(Duration::from_millis(10)));
    world.pause(node);
    let (turns_then, operations_then) = (*turns.borrow(), world.disk(node).operations());
    assert!(turns_then > 10);
    world.run_until(world.ended(other));
    assert_eq!(*turns.borrow(), turns_then);
    assert!(world.disk(node).operations() <= operations_then + 1, "only what was under way ends");
    world.resume(node);
    world.run_until(world.sleep(Duration::from_millis(10)));
    assert!(*turns.borrow() > turns_then + 10);
    world.pause(node);
    world.power_cut(node);
    world.restart_node(node, NodeConfig::default(), |env: SimEnv| async move {
        env.yield_now().await;
    });
    world.run_until(world.ended(node));
}
