//! Tests of the world itself, through the environment's traits only.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::path::Path;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use pinion_env::{
    AlignedBuf, Env, File, Listener, NodeEnv, OpenMode, PAGE_BYTES, Socket, TaskClass, WriteMode,
    create_dir_all,
};

use super::{ByteStream, NodeConfig, SimEnv, SimHandoff, SimSocket, World};

fn cores(cores: usize) -> NodeConfig {
    NodeConfig { cores, ..NodeConfig::default() }
}

async fn accept<M: Send + 'static>(env: &SimEnv<M>) -> SimSocket {
    let listener = env.listener();
    poll_fn(|context| listener.poll_accept(context)).await.unwrap()
}

/// Sends everything back that arrives, until the peer closes.
async fn echo(socket: SimSocket) {
    socket.start_streaming();
    while let Ok(Some(bytes)) = poll_fn(|context| socket.poll_receive(context)).await.map(copied) {
        socket.start_send(vec![bytes]);
        if poll_fn(|context| socket.poll_sent(context)).await.0.is_err() {
            return;
        }
    }
}

fn copied(chunk: Option<super::SimChunk>) -> Option<Vec<u8>> {
    chunk.map(|chunk| chunk.to_vec())
}

async fn echo_server(env: SimEnv) {
    loop {
        let socket = accept(&env).await;
        env.spawn(TaskClass::Foreground, echo(socket));
    }
}

/// A little of everything; gives the trace hash and when it was done.
fn busy_world(seed: u64) -> (u64, u64) {
    let world = World::new(seed);
    let node = world.start_node(cores(2), |env: SimEnv| async move {
        let name = format!("file-{}", env.core());
        let file = env.open(Path::new(&name), OpenMode::CreateNew).await.unwrap();
        let mut buffer = AlignedBuf::zeroed(PAGE_BYTES);
        buffer[..8].copy_from_slice(&env.random().to_le_bytes());
        file.write(0, buffer, 0..PAGE_BYTES, WriteMode::Durable).await.0.unwrap();
        echo_server(env).await;
    });
    world.run_until(async {
        let clients: Vec<_> = (0..3)
            .map(|client: u8| {
                let outside = world.outside();
                world.spawn(async move {
                    let mut stream = ByteStream::new(outside.connect(node, 7600).await.unwrap());
                    let sent = vec![client; 5000];
                    stream.write_all(&sent).await.unwrap();
                    assert_eq!(stream.read_exact(5000).await.unwrap(), sent);
                })
            })
            .collect();
        for client in clients {
            client.await;
        }
    });
    (world.trace_hash(), world.now().nanos())
}

#[test]
fn a_seed_is_a_history() {
    let first: Vec<_> = (0..8).map(busy_world).collect();
    let again: Vec<_> = (0..8).map(busy_world).collect();
    assert_eq!(first, again);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 8);
}

#[test]
fn sleeps_end_in_order_and_take_no_real_time() {
    let world = World::new(1);
    let woken = Rc::new(RefCell::new(Vec::new()));
    for hours in [3_u64, 1, 2] {
        let (outside, woken) = (world.outside(), Rc::clone(&woken));
        drop(world.spawn(async move {
            let before = outside.now();
            outside.sleep(Duration::from_secs(hours * 3600)).await;
            assert!(outside.now().since(before) >= Duration::from_secs(hours * 3600));
            woken.borrow_mut().push(hours);
        }));
    }
    world.run_until(world.sleep(Duration::from_secs(4 * 3600)));
    assert_eq!(*woken.borrow(), [1, 2, 3]);
}

#[test]
fn the_order_of_tasks_depends_on_the_seed() {
    let order = |seed| {
        let world = World::new(seed);
        let ran = Rc::new(RefCell::new(Vec::new()));
        let log = Rc::clone(&ran);
        let node = world.start_node(cores(4), move |env: SimEnv| {
            let ran = Rc::clone(&log);
            async move {
                env.yield_now().await;
                ran.borrow_mut().push(env.core());
            }
        });
        world.run_until(world.ended(node));
        ran.take()
    };
    assert!((0..20).map(order).collect::<BTreeSet<_>>().len() > 5);
}

#[test]
fn a_loop_of_yields_sees_its_operations_complete() {
    let world = World::new(1);
    let node = world.start_node(cores(1), |env: SimEnv| async move {
        let done = Rc::new(Cell::new(false));
        let (inner, set) = (env.clone(), Rc::clone(&done));
        env.spawn(TaskClass::Background, async move {
            assert_eq!(inner.off_core(|| 6 * 7).await, 42);
            set.set(true);
        });
        while !done.get() {
            env.yield_now().await;
        }
    });
    world.run_until(world.ended(node));
}

#[test]
#[should_panic(expected = "deadlock")]
fn waiting_for_nothing_is_a_deadlock() {
    let world = World::new(1);
    world.run_until(poll_fn::<(), _>(|_| std::task::Poll::Pending));
}

#[test]
fn a_dropped_sleep_does_not_hold_time_up() {
    let world = World::new(1);
    world.run_until(async {
        let mut long = Box::pin(world.sleep(Duration::from_secs(3600)));
        poll_fn(|context| {
            let _ = long.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
        drop(long);
        world.sleep(Duration::from_secs(1)).await;
    });
    assert!(world.now().nanos() < 2_000_000_000);
}

#[test]
fn echoes_come_back_whole_through_small_windows() {
    for seed in 0..30 {
        let world = World::new(seed);
        let node = world.start_node(cores(3), echo_server);
        world.run_until(async {
            let refused = world.connect(node, 1).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            let mut random = world.random();
            for _ in 0..4 {
                let mut stream = ByteStream::new(world.connect(node, 7600).await.unwrap());
                let sent: Vec<u8> = (0..random.between(1, 50_000)).map(|_| random.word() as u8).collect();
                // More than fits into both windows: reading and writing must go on side by side.
                for part in sent.chunks(700) {
                    stream.write_all(part).await.unwrap();
                    assert_eq!(stream.read_exact(part.len()).await.unwrap(), part);
                }
            }
        });
    }
}

#[test]
fn a_receiver_that_does_not_ask_stops_its_sender() {
    let world = World::new(3);
    let node = world.start_node(cores(1), |env: SimEnv| async move {
        let socket = accept(&env).await;
        let first = poll_fn(|context| socket.poll_receive(context)).await.map(copied).unwrap().unwrap();
        env.sleep(Duration::from_secs(60)).await;
        assert!(socket.receive_ready().is_none(), "one chunk was asked for");
        socket.start_streaming();
        let mut bytes = first.len();
        while let Some(chunk) = poll_fn(|context| socket.poll_receive(context)).await.map(copied).unwrap() {
            bytes += chunk.len();
        }
        assert_eq!(bytes, 1 << 20);
    });
    let outside = world.outside();
    let client = world.spawn(async move {
        let mut stream = ByteStream::new(outside.connect(node, 7600).await.unwrap());
        stream.write_all(&vec![1; 1 << 20]).await.unwrap();
        assert!(outside.now().nanos() >= 60_000_000_000, "the window is small");
    });
    world.run_until(async {
        client.await;
        world.ended(node).await;
    });
}

#[test]
fn connections_spread_over_the_accepting_cores() {
    let world = World::new(5);
    let accepted = Rc::new(RefCell::new([0; 3]));
    let counts = Rc::clone(&accepted);
    let node = world.start_node(cores(3), move |env: SimEnv| {
        let counts = Rc::clone(&counts);
        async move {
            if env.core() == 2 {
                env.listener().close();
                return;
            }
            loop {
                let socket = accept(&env).await;
                counts.borrow_mut()[env.core()] += 1;
                env.spawn(TaskClass::Foreground, echo(socket));
            }
        }
    });
    world.run_until(async {
        for _ in 0..40 {
            let mut stream = ByteStream::new(world.connect(node, 7600).await.unwrap());
            stream.write_all(b"x").await.unwrap();
            assert_eq!(stream.read_exact(1).await.unwrap(), b"x");
        }
    });
    let accepted = *accepted.borrow();
    assert!(accepted[0] > 5 && accepted[1] > 5 && accepted[2] == 0, "{accepted:?}");
}

#[test]
fn a_handed_off_socket_goes_on_where_it_was() {
    for seed in 0..20 {
        let world = World::new(seed);
        let node = world.start_node(cores(2), |env: SimEnv<(Vec<u8>, SimHandoff)>| async move {
            if env.core() == 1 {
                env.listener().close();
                let (first, handoff) = poll_fn(|context| env.poll_message(context)).await;
                let socket = env.adopt(handoff);
                socket.start_send(vec![first]);
                poll_fn(|context| socket.poll_sent(context)).await.0.unwrap();
                return echo(socket).await;
            }
            let socket = accept(&env).await;
            let first = poll_fn(|context| socket.poll_receive(context)).await.map(copied).unwrap().unwrap();
            env.send(1, (first, socket.hand_off())).expect("the queue is empty");
        });
        world.run_until(async {
            let mut stream = ByteStream::new(world.connect(node, 7600).await.unwrap());
            let sent: Vec<u8> = (0..900).map(|byte| byte as u8).collect();
            stream.write_all(&sent).await.unwrap();
            assert_eq!(stream.read_exact(900).await.unwrap(), sent);
            drop(stream);
            world.ended(node).await;
        });
    }
}

#[test]
fn a_dropped_hand_off_closes_the_connection() {
    let world = World::new(1);
    let node = world.start_node(cores(1), |env: SimEnv| async move {
        let socket = accept(&env).await;
        drop(poll_fn(|context| socket.poll_receive(context)).await.unwrap());
        drop(socket.hand_off());
        env.sleep(Duration::from_secs(1)).await;
    });
    world.run_until(async {
        let mut stream = ByteStream::new(world.connect(node, 7600).await.unwrap());
        stream.write_all(b"hello").await.unwrap();
        assert_eq!(stream.read_to_end().await.unwrap(), b"");
    });
}

#[test]
#[should_panic(expected = "handed off only before anything was asked")]
fn handing_off_a_streaming_socket_is_refused() {
    let world = World::new(1);
    let node = world.start_node(cores(1), |env: SimEnv| async move {
        let socket = accept(&env).await;
        socket.start_streaming();
        drop(socket.hand_off());
    });
    world.run_until(async {
        let _socket = world.connect(node, 7600).await.unwrap();
        world.ended(node).await;
    });
}

#[test]
fn pieces_can_be_kept_whole() {
    let world = World::new(6);
    world.keep_pieces_whole();
    let node = world.start_node(cores(1), |env: SimEnv| async move {
        let socket = accept(&env).await;
        socket.start_streaming();
        let mut lengths = Vec::new();
        while let Some(chunk) = poll_fn(|context| socket.poll_receive(context)).await.map(copied).unwrap() {
            lengths.push(chunk.len());
        }
        assert_eq!(lengths, [16_384, 3_616, 300]);
    });
    world.run_until(async {
        let mut stream = ByteStream::new(world.connect(node, 7600).await.unwrap());
        stream.write_all(&[1; 20_000]).await.unwrap();
        world.sleep(Duration::from_millis(1)).await;
        stream.write_all(&[2; 300]).await.unwrap();
        drop(stream);
        world.ended(node).await;
    });
}

#[test]
#[should_panic(expected = "held across an await")]
fn holding_a_chunk_across_an_await_is_refused() {
    let world = World::new(1);
    let node = world.start_node(cores(1), |env: SimEnv| async move {
        let socket = accept(&env).await;
        let chunk = poll_fn(|context| socket.poll_receive(context)).await.unwrap();
        env.sleep(Duration::from_millis(1)).await;
        drop(chunk);
    });
    world.run_until(async {
        let mut stream = ByteStream::new(world.connect(node, 7600).await.unwrap());
        stream.write_all(b"hello").await.unwrap();
        world.ended(node).await;
    });
}

#[test]
fn messages_keep_each_senders_order_and_the_queue_is_bounded() {
    let world = World::new(9);
    let config = NodeConfig { messages_max: 10, ..cores(3) };
    let node = world.start_node(config, |env: SimEnv<(usize, u32)>| async move {
        if env.core() == 0 {
            let mut next = [0; 3];
            let mut order = Vec::new();
            while next[1] < 50 || next[2] < 50 {
                let (from, number) = poll_fn(|context| env.poll_message(context)).await;
                assert_eq!(number, next[from]);
                next[from] += 1;
                order.push(from);
            }
            assert!(order.windows(2).any(|pair| pair[0] != pair[1]), "senders overtake each other");
            return;
        }
        let mut refused = 0;
        for number in 0..50 {
            while let Err(message) = env.send(0, (env.core(), number)) {
                assert_eq!(message, (env.core(), number));
                refused += 1;
                env.yield_now().await;
            }
        }
        assert!(refused > 0, "50 messages do not fit into a queue of 10");
    });
    world.run_until(world.ended(node));
}

#[test]
fn messages_held_back_arrive_later_and_in_order_while_others_pass() {
    for seed in 0..10 {
        let world = World::new(seed);
        let node = world.start_node(cores(3), |env: SimEnv<(usize, u32)>| async move {
            let next = || poll_fn(|context| env.poll_message(context));
            match env.core() {
                0 => {
                    assert_eq!(next().await, (2, 0), "what is held back has not arrived");
                    env.send(1, (0, 0)).unwrap();
                    for number in 0..3 {
                        assert_eq!(next().await, (1, number));
                    }
                }
                1 => {
                    env.hold_messages(0);
                    (0..3).for_each(|number| env.send(0, (1, number)).unwrap());
                    env.send(2, (1, 0)).unwrap();
                    assert_eq!(next().await, (0, 0), "core 0 has heard of core 2");
                    assert_eq!(env.untaken_messages(0), 3);
                    env.release_messages(0);
                }
                _ => {
                    assert_eq!(next().await, (1, 0), "only what goes to core 0 is held back");
                    env.send(0, (2, 0)).unwrap();
                }
            }
        });
        world.run_until(world.ended(node));
    }
}

#[test]
fn nothing_runs_on_a_core_whose_main_has_returned() {
    let world = World::new(10);
    let node = world.start_node(cores(2), |env: SimEnv<&'static str>| async move {
        if env.core() == 1 {
            env.sleep(Duration::from_secs(1)).await;
            assert_eq!(poll_fn(|context| env.poll_message(context)).await, "before");
            let nothing = poll_fn(|context| Poll::Ready(env.poll_message(context).is_pending())).await;
            assert!(nothing, "a task went on after its core's main");
            return;
        }
        let task_env = env.clone();
        env.spawn(TaskClass::Foreground, async move {
            task_env.send(1, "before").unwrap();
            task_env.sleep(Duration::from_millis(2)).await;
            task_env.send(1, "after").unwrap();
        });
        env.sleep(Duration::from_millis(1)).await;
    });
    world.run_until(world.ended(node));
}

#[test]
fn files_survive_a_crash_and_locks_do_not() {
    let world = World::new(11);
    let node = world.start_node(cores(1), |env: SimEnv| async move {
        create_dir_all(&env, Path::new("/data/shard")).await.unwrap();
        let _lock = env.lock(Path::new("/data/LOCK")).await.unwrap().unwrap();
        assert!(env.lock(Path::new("/data/LOCK")).await.unwrap().is_none());
        let file = env.open(Path::new("/data/shard/log"), OpenMode::CreateNew).await.unwrap();
        let mut buffer = AlignedBuf::zeroed(2 * PAGE_BYTES);
        buffer.fill(5);
        let (written, buffer) = file.write(0, buffer, PAGE_BYTES..2 * PAGE_BYTES, WriteMode::Unsynced).await;
        written.unwrap();
        assert_eq!(file.bytes().await.unwrap(), PAGE_BYTES as u64);
        file.sync().await.unwrap();
        env.sync_dir(Path::new("/data/shard")).await.unwrap();
        drop(buffer);
        env.sleep(Duration::from_secs(3600)).await;
    });
    world.run_until(world.sleep(Duration::from_secs(1)));
    world.crash(node);
    assert_eq!(world.disk(node).files(), [Path::new("data/LOCK"), Path::new("data/shard/log")]);
    world.restart_node(node, cores(2), |env: SimEnv| async move {
        if env.core() == 1 {
            return;
        }
        assert!(env.lock(Path::new("/data/LOCK")).await.unwrap().is_some());
        let listed = env.list(Path::new("/data/shard")).await.unwrap();
        assert_eq!((listed[0].name.as_str(), listed[0].bytes), ("log", PAGE_BYTES as u64));
        let file = env.open(Path::new("/data/shard/log"), OpenMode::Read).await.unwrap();
        let (read, buffer) = file.read(0, AlignedBuf::zeroed(2 * PAGE_BYTES), 2 * PAGE_BYTES).await;
        assert_eq!(read.unwrap(), PAGE_BYTES);
        assert!(buffer[..PAGE_BYTES].iter().all(|byte| *byte == 5));
        let (denied, _) = file.write(0, buffer, 0..PAGE_BYTES, WriteMode::Durable).await;
        assert_eq!(denied.unwrap_err().kind(), ErrorKind::PermissionDenied);
    });
    world.run_until(world.ended(node));
}

#[test]
fn a_write_under_way_at_a_crash_is_done_or_not() {
    let mut seen = BTreeSet::new();
    for seed in 0..40 {
        let world = World::new(seed);
        let node = world.start_node(cores(1), |env: SimEnv| async move {
            let file = env.open(Path::new("file"), OpenMode::CreateNew).await.unwrap();
            loop {
                let mut buffer = AlignedBuf::zeroed(PAGE_BYTES);
                buffer.fill(1);
                file.write(0, buffer, 0..PAGE_BYTES, WriteMode::Durable).await.0.unwrap();
            }
        });
        let pause = Duration::from_nanos(world.random().below(300_000));
        world.run_until(world.sleep(pause));
        world.crash(node);
        let content = world.disk(node).read(Path::new("file")).unwrap_or_default();
        assert!(content.is_empty() || content == vec![1; PAGE_BYTES]);
        seen.insert(content.len());
    }
    assert_eq!(seen.len(), 2);
}

#[test]
fn a_crash_drops_tasks_and_breaks_connections_off() {
    let world = World::new(13);
    let alive = Rc::new(());
    let held = Rc::clone(&alive);
    let main = move |env: SimEnv| {
        let held = Rc::clone(&held);
        async move {
            echo_server(env).await;
            drop(held);
        }
    };
    let node = world.start_node(cores(2), main.clone());
    let other = world.start_node(cores(1), echo_server);
    world.run_until(async {
        let mut stream = ByteStream::new(world.connect(node, 7600).await.unwrap());
        let mut steady = ByteStream::new(world.connect(other, 7600).await.unwrap());
        stream.write_all(b"before").await.unwrap();
        assert_eq!(stream.read_exact(6).await.unwrap(), b"before");

        world.crash(node);
        world.ended(node).await;
        assert_eq!(Rc::strong_count(&alive), 2, "only the closure itself still holds it");
        stream.read_to_end().await.unwrap();
        let gone = stream.write_all(b"after").await.unwrap_err();
        assert_eq!(gone.kind(), ErrorKind::BrokenPipe);
        let refused = world.connect(node, 7600).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

        steady.write_all(b"still").await.unwrap();
        assert_eq!(steady.read_exact(5).await.unwrap(), b"still");

        world.restart_node(node, cores(1), main.clone());
        let mut stream = ByteStream::new(world.connect(node, 7600).await.unwrap());
        stream.write_all(b"again").await.unwrap();
        assert_eq!(stream.read_exact(5).await.unwrap(), b"again");
    });
    drop(main);
    drop(world);
    assert_eq!(Rc::strong_count(&alive), 1, "a dropped world keeps nothing");
}

#[test]
fn wall_clocks_move_apart_and_time_does_not() {
    let world = World::new(1);
    let node = world.start_node(cores(1), |env: SimEnv| async move {
        let (wall, now) = (env.wall_ms(), env.now());
        env.sleep(Duration::from_secs(10)).await;
        assert!(env.wall_ms() < wall);
        assert!(env.now().since(now) >= Duration::from_secs(10));
    });
    world.run_until(world.sleep(Duration::from_secs(1)));
    world.shift_wall_clock(node, -60_000);
    world.run_until(world.ended(node));
}
