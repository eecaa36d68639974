//! Power cuts and stops of the disk while a node runs on it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use pinion_env::{AlignedBuf, Env, File, OpenMode, PAGE_BYTES, TaskClass, WriteMode};

use super::super::{Operation, PowerCut};
use super::{counted, page};
use crate::world::{NodeConfig, NodeId, SimEnv, World};

/// Writes pages of 1, 2, 3, ... one after the other and says in `acknowledged` how many are durable.
async fn append(env: SimEnv, acknowledged: Rc<Cell<u64>>) {
    let file = env.open(Path::new("log"), OpenMode::CreateNew).await.unwrap();
    env.sync_dir(Path::new("")).await.unwrap();
    for number in 0..200 {
        let written =
            file.write(number * PAGE_BYTES as u64, page(number as u8 + 1), 0..PAGE_BYTES, WriteMode::Durable);
        written.await.0.unwrap();
        acknowledged.set(number + 1);
    }
}

fn start(world: &World) -> (NodeId, Rc<Cell<u64>>) {
    let acknowledged = Rc::new(Cell::new(0));
    let count = Rc::clone(&acknowledged);
    let node = world.start_node(NodeConfig::default(), move |env| append(env, Rc::clone(&count)));
    (node, acknowledged)
}

#[test]
fn acknowledged_writes_survive_power_cuts_and_the_one_under_way_may_tear() {
    let mut torn = 0;
    for seed in 0..200 {
        let world = World::new(seed);
        let (node, acknowledged) = start(&world);
        world.run_until(world.sleep(Duration::from_micros(world.random().below(10_000))));
        world.power_cut(node);
        let content = world.disk(node).read(Path::new("log")).unwrap_or_default();
        let (pages, _) = content.as_chunks::<PAGE_BYTES>();
        let whole =
            pages.iter().zip(1..).take_while(|(page, byte)| **page == [*byte; PAGE_BYTES]).count() as u64;
        assert!(whole >= acknowledged.get(), "{whole} of {acknowledged:?} (seed {seed})");
        assert!(pages.len() as u64 <= acknowledged.get() + 1);
        torn += u64::from((pages.len() as u64) > whole);
    }
    assert!(torn > 10, "{torn}");
}

#[test]
fn a_kill_leaves_pending_what_a_later_cut_takes() {
    let world = World::new(1);
    let node = world.start_node(NodeConfig::default(), |env: SimEnv| async move {
        let file = env.open(Path::new("file"), OpenMode::CreateNew).await.unwrap();
        env.sync_dir(Path::new("")).await.unwrap();
        file.write(0, page(1), 0..PAGE_BYTES, WriteMode::Unsynced).await.0.unwrap();
        env.sleep(Duration::from_secs(60)).await;
    });
    world.run_until(world.sleep(Duration::from_secs(1)));
    world.crash(node);
    let disk = world.disk(node);
    assert_eq!(disk.read(Path::new("file")).unwrap(), [1; PAGE_BYTES]);
    world.power_cut_as(node, &PowerCut::drop_all());
    assert!(disk.read(Path::new("file")).unwrap().is_empty());
    for (name, times) in [("kill", 1), ("power cut", 1), ("sector dropped", 8), ("size cut", 1)] {
        assert_eq!(counted(&disk, name), times, "{name}");
    }
    assert_eq!(world.fault_counts(), disk.fault_counts());
}

#[test]
fn a_sync_covers_what_was_finished_when_it_began() {
    let mut seen = BTreeSet::new();
    for seed in 0..100 {
        let world = World::new(seed);
        let node = world.start_node(NodeConfig::default(), |env: SimEnv| async move {
            let file = Rc::new(env.open(Path::new("file"), OpenMode::CreateNew).await.unwrap());
            env.sync_dir(Path::new("")).await.unwrap();
            for number in 0..2 {
                let written = file.write(number * 4096, page(9), 0..PAGE_BYTES, WriteMode::Durable);
                written.await.0.unwrap();
            }
            file.write(0, page(1), 0..PAGE_BYTES, WriteMode::Unsynced).await.0.unwrap();
            for number in 1..3 {
                let late = Rc::clone(&file);
                env.spawn(TaskClass::Background, async move {
                    late.write(number * 4096, page(2), 0..PAGE_BYTES, WriteMode::Unsynced).await.0.unwrap();
                });
            }
            env.sleep(Duration::from_nanos(env.random() % 120_000)).await;
            file.sync().await.unwrap();
            env.sleep(Duration::from_secs(60)).await;
        });
        world.run_until(world.sleep(Duration::from_secs(1)));
        world.power_cut_as(node, &PowerCut::drop_all());
        let left = world.disk(node).read(Path::new("file")).unwrap();
        seen.insert(left.chunks(PAGE_BYTES).map(|page| page[0]).collect::<Vec<_>>());
    }
    // What was finished before is there; of the late ones one, the other, both or none were in time.
    let expected = [vec![1, 9], vec![1, 2], vec![1, 9, 2], vec![1, 2, 2]];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn the_disk_stops_at_an_exact_operation() {
    let mut seen = BTreeSet::new();
    for operations in 1..=20 {
        let world = World::new(7);
        let (node, acknowledged) = start(&world);
        assert!(world.run_until(world.stop_disk_at(node, operations)));
        let disk = world.disk(node);
        assert_eq!((disk.operations(), disk.is_stopped()), (operations, true));
        world.run_until(world.sleep(Duration::from_secs(1)));
        assert_eq!(disk.operations(), operations, "nothing ends while the disk stands still");
        // Open, directory sync, then one write after the other.
        assert_eq!(disk.operations_of(Operation::Write), operations.saturating_sub(2));
        assert_eq!(acknowledged.get(), operations.saturating_sub(2));
        world.power_cut_as(node, &PowerCut { under_way_begun: 256, ..PowerCut::keep_all() });
        let left = disk.read(Path::new("log")).unwrap().len() / PAGE_BYTES;
        assert_eq!(left as u64, operations.saturating_sub(1), "the one that was held has begun");
        seen.insert(left);
        world.restart_node(node, NodeConfig::default(), |env: SimEnv| async move {
            assert!(!env.list(Path::new("")).await.unwrap().is_empty(), "the disk goes on");
        });
        world.run_until(world.ended(node));
    }
    assert_eq!(seen.len(), 20);

    let world = World::new(7);
    let (node, _) = start(&world);
    assert!(!world.run_until(world.stop_disk_at(node, 1000)), "the node ended first");
}

#[test]
fn a_seed_is_a_history_with_its_cuts() {
    let history = |seed| {
        let world = World::new(seed);
        let (node, _) = start(&world);
        for _ in 0..3 {
            world.run_until(world.sleep(Duration::from_millis(2)));
            world.power_cut(node);
            world.restart_node(node, NodeConfig::default(), |env: SimEnv| async move {
                let file = match env.open(Path::new("log"), OpenMode::ReadWrite).await {
                    Ok(file) => file,
                    Err(_) => env.open(Path::new("log"), OpenMode::CreateNew).await.unwrap(),
                };
                for number in 0..50 {
                    let buffer = AlignedBuf::zeroed(4 * PAGE_BYTES);
                    file.read(0, buffer, 4 * PAGE_BYTES).await.0.unwrap();
                    file.write(number * 4096, page(9), 0..4096, WriteMode::Unsynced).await.0.unwrap();
                }
            });
        }
        world.power_cut(node);
        (world.trace_hash(), world.fault_counts())
    };
    let all: Vec<_> = (0..10).map(history).collect();
    assert_eq!(all, (0..10).map(history).collect::<Vec<_>>());
    assert_eq!(all.iter().map(|(hash, _)| hash).collect::<BTreeSet<_>>().len(), 10);
}
