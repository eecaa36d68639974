//! Connections: echo in storms, back-pressure, resets, drops, hand-off between cores.

#![expect(clippy::unwrap_used, reason = "in tests a failure is a panic")]

mod rig;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use pinion_runtime::env::{Answer, Env, Listener, NodeEnv, Socket, SocketHandler, TaskClass};
use pinion_runtime::{RealEnv, RealSocket, Runtime};
use rig::{Message, accept_all, config, deadline, echo, message, serve, until_stopped};

async fn echo_server(env: RealEnv<Message>) {
    accept_all(env.clone(), echo).await;
    until_stopped(env).await;
}

fn exchange(stream: &mut TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, bytes);
}

fn storm(addr: SocketAddr, rounds: usize, connections: usize) {
    for round in 0..rounds {
        let mut streams: Vec<_> = (0..connections).map(|_| TcpStream::connect(addr).unwrap()).collect();
        for shot in 0..4u8 {
            for (number, stream) in streams.iter_mut().enumerate() {
                stream.write_all(&[round as u8, number as u8, shot, 7].repeat(16)).unwrap();
            }
            for (number, stream) in streams.iter_mut().enumerate() {
                let mut back = [0; 64];
                stream.read_exact(&mut back).unwrap();
                assert_eq!(back[..4], [round as u8, number as u8, shot, 7]);
            }
        }
    }
}

#[test]
fn storms_of_connections_lose_no_wake_up() {
    let _deadline = deadline("storm");
    let server = serve(config(1), echo_server);
    storm(server.addr, 40, 256);
    server.stop();
}

#[test]
fn storms_on_two_cores_lose_no_wake_up() {
    let _deadline = deadline("storm on two cores");
    let server = serve(config(2), echo_server);
    let addr = server.addr;
    let clients: Vec<_> = (0..2).map(|_| thread::spawn(move || storm(addr, 20, 128))).collect();
    for client in clients {
        client.join().unwrap();
    }
    server.stop();
}

#[test]
fn single_requests_wake_an_idle_core() {
    let _deadline = deadline("ping");
    let server = serve(config(1), echo_server);
    let mut stream = TcpStream::connect(server.addr).unwrap();
    for number in 0..5000u32 {
        exchange(&mut stream, &number.to_le_bytes());
    }
    server.stop();
}

#[test]
fn large_streams_arrive_whole_beside_small_ones() {
    let _deadline = deadline("large");
    let mut config = config(1);
    // So few that connections starve for buffers and chunks get copied.
    config.receive_buffers = 8;
    config.receive_buffer_bytes = 1024;
    let server = serve(config, echo_server);
    let addr = server.addr;
    let clients: Vec<_> = (0..8u8)
        .map(|client| {
            thread::spawn(move || {
                let mut stream = TcpStream::connect(addr).unwrap();
                let mut writer = stream.try_clone().unwrap();
                let bytes: Vec<u8> = (0..1 << 20).map(|at: u32| (at / 251) as u8 ^ client).collect();
                let sent = bytes.clone();
                let writing = thread::spawn(move || writer.write_all(&sent).unwrap());
                let mut back = vec![0; bytes.len()];
                stream.read_exact(&mut back).unwrap();
                assert!(back == bytes);
                writing.join().unwrap();
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    server.stop();
}

#[test]
fn many_buffers_go_out_in_one_send_in_order() {
    let _deadline = deadline("many buffers");
    const BUFFERS: usize = 3000;
    let server = serve(config(1), |env| async move {
        accept_all(env.clone(), |socket| async move {
            let buffers = (0..BUFFERS).map(|number| (number as u32).to_le_bytes().to_vec()).collect();
            socket.start_send(buffers);
            let (outcome, back) = poll_fn(|context| socket.poll_sent(context)).await;
            outcome.unwrap();
            assert_eq!(back.len(), BUFFERS);
            socket.start_send(vec![]);
            poll_fn(|context| socket.poll_sent(context)).await.0.unwrap();
        })
        .await;
        until_stopped(env).await;
    });
    let mut all = Vec::new();
    TcpStream::connect(server.addr).unwrap().read_to_end(&mut all).unwrap();
    let expected: Vec<u8> = (0..BUFFERS as u32).flat_map(u32::to_le_bytes).collect();
    assert!(all == expected);
    server.stop();
}

/// Starts the next send from the end of the one before, without a task: 3, 2, 1, and then nothing.
struct Countdown {
    socket: Weak<RealSocket>,
    ends: Cell<u32>,
}

impl SocketHandler for Countdown {
    fn sent(&self, outcome: io::Result<()>, mut buffers: Vec<Vec<u8>>) {
        outcome.unwrap();
        self.ends.set(self.ends.get() + 1);
        let Some(left) = buffers[0].first_mut() else { return };
        *left -= 1;
        if *left > 0
            && let Some(socket) = self.socket.upgrade()
        {
            socket.start_send(buffers);
        }
    }

    fn arrived(&self, _: &[u8]) -> bool {
        false
    }

    fn answer(&self, _: &[u8]) -> Answer {
        unreachable!("nothing was to be answered")
    }
}

#[test]
fn an_end_of_a_send_is_told_where_it_is_asked_for() {
    let _deadline = deadline("ends of sends");
    let server = serve(config(1), |env| async move {
        accept_all(env.clone(), |socket| async move {
            let socket = Rc::new(socket);
            let end = Rc::new(Countdown { socket: Rc::downgrade(&socket), ends: Cell::new(0) });
            socket.handle_with(end.clone());
            socket.start_send(vec![vec![3]]);
            // The client closes when it has all three.
            let closed = poll_fn(|context| {
                assert!(socket.poll_sent(context).is_pending(), "the end was told already");
                socket.poll_receive(context)
            });
            assert!(closed.await.unwrap().is_none());
            assert_eq!(end.ends.get(), 3);
            // A send of nothing ends at once; with the socket gone nobody is told anything.
            socket.start_send(vec![vec![]]);
            assert_eq!(end.ends.get(), 4);
            drop(socket);
            assert_eq!(Rc::strong_count(&end), 1);
        })
        .await;
        until_stopped(env).await;
    });
    let mut stream = TcpStream::connect(server.addr).unwrap();
    let mut all = [0; 3];
    stream.read_exact(&mut all).unwrap();
    assert_eq!(all, [3, 2, 1]);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut all).unwrap(), 0);
    server.stop();
}

/// Answers a chunk that is one byte, an upper-case letter, with the lower-case one, and a dash never.
#[derive(Default)]
struct Lowering {
    arrived: Cell<u32>,
    offered: RefCell<Vec<u8>>,
}

impl SocketHandler for Lowering {
    fn sent(&self, outcome: io::Result<()>, _: Vec<Vec<u8>>) {
        outcome.unwrap();
    }

    fn arrived(&self, chunk: &[u8]) -> bool {
        self.arrived.set(self.arrived.get() + 1);
        chunk.len() == 1
    }

    fn answer(&self, chunk: &[u8]) -> Answer {
        self.offered.borrow_mut().extend_from_slice(chunk);
        match chunk[0] {
            b'A'..=b'Z' => Answer::Send(vec![chunk.to_ascii_lowercase()]),
            b'-' => Answer::Later,
            _ => Answer::Left,
        }
    }
}

#[test]
fn a_chunk_that_arrives_by_itself_is_answered_without_a_task() {
    let _deadline = deadline("answers at once");
    let server = serve(config(1), |env| async move {
        accept_all(env.clone(), |socket| async move {
            let handler = Rc::new(Lowering::default());
            socket.handle_with(handler.clone());
            socket.start_streaming();
            // What the handler leaves comes here, in order; a chunk of two bytes was not offered.
            let mut taken = Vec::new();
            let mut polls = 0;
            while let Some(chunk) = poll_fn(|context| {
                polls += 1;
                socket.poll_receive(context)
            })
            .await
            .unwrap()
            {
                taken.extend_from_slice(&chunk);
                socket.start_send(vec![chunk.to_vec()]);
            }
            assert_eq!(taken, *b"1XY2");
            assert_eq!(*handler.offered.borrow(), *b"AB1C2D-");
            assert_eq!(handler.arrived.get(), 8);
            // At first, for each chunk and after it, and at the end: the four answers of the handler woke nobody.
            assert_eq!(polls, 1 + 2 * 3 + 1);
        })
        .await;
        until_stopped(env).await;
    });
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.set_nodelay(true).unwrap();
    let asks =
        [("A", "a"), ("B", "b"), ("1", "1"), ("C", "c"), ("XY", "XY"), ("2", "2"), ("D", "d"), ("-", "")];
    for (ask, expected) in asks {
        stream.write_all(ask.as_bytes()).unwrap();
        let mut back = vec![0; expected.len()];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(back, expected.as_bytes());
    }
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    server.stop();
}

/// The server receives nothing while paused; the kernel's buffers fill and the client blocks.
#[test]
fn a_paused_receiver_pushes_back_and_goes_on() {
    let _deadline = deadline("pause");
    const BYTES: usize = 32 << 20;
    let server = serve(config(1), |env| async move {
        let core = env.clone();
        accept_all(env.clone(), move |socket| {
            let env = core.clone();
            async move {
                socket.start_streaming();
                let mut received = 0;
                let mut chunks = 0u32;
                while let Some(chunk) = poll_fn(|context| socket.poll_receive(context)).await.unwrap() {
                    received += chunk.len();
                    chunks += 1;
                    drop(chunk);
                    if chunks.is_multiple_of(64) {
                        socket.pause_receive();
                        env.yield_now().await;
                    }
                }
                assert_eq!(received, BYTES);
                socket.start_send(vec![b"all".to_vec()]);
                poll_fn(|context| socket.poll_sent(context)).await.0.unwrap();
            }
        })
        .await;
        until_stopped(env).await;
    });
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.write_all(&vec![1; BYTES]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "all");
    server.stop();
}

/// Clients that never read cannot keep others from being served, though their unread requests
/// stay in the server's queues.
#[test]
fn slow_readers_do_not_starve_the_others() {
    let _deadline = deadline("slow readers");
    let mut config = config(1);
    config.receive_buffers = 64;
    config.receive_buffer_bytes = 2048;
    let server = serve(config, echo_server);
    let slow: Vec<_> = (0..16)
        .map(|_| {
            let mut stream = TcpStream::connect(server.addr).unwrap();
            stream.set_nonblocking(true).unwrap();
            let mut refused = 0;
            // Until nothing more goes in for a while.
            while refused < 50 {
                match stream.write(&[5; 16384]) {
                    Ok(_) => refused = 0,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        refused += 1;
                        thread::yield_now();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            stream
        })
        .collect();
    let mut quick = TcpStream::connect(server.addr).unwrap();
    for number in 0..100u32 {
        exchange(&mut quick, &number.to_le_bytes().repeat(512));
    }
    drop(slow);
    exchange(&mut quick, b"still there");
    server.stop();
}

#[test]
fn resets_end_tasks_and_nothing_else() {
    let _deadline = deadline("reset");
    let ended = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&ended);
    let server = serve(config(1), move |env| {
        let counter = Arc::clone(&counter);
        async move {
            accept_all(env.clone(), move |socket| {
                let counter = Arc::clone(&counter);
                async move {
                    echo(socket).await;
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
            .await;
            until_stopped(env).await;
        }
    });
    const CLIENTS: usize = 200;
    for _ in 0..CLIENTS {
        let mut stream = TcpStream::connect(server.addr).unwrap();
        stream.write_all(&[9; 4096]).unwrap();
        // Closing with unread bytes resets the connection.
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        drop(stream);
    }
    let mut stream = TcpStream::connect(server.addr).unwrap();
    exchange(&mut stream, b"alive");
    while ended.load(Ordering::Relaxed) < CLIENTS {
        exchange(&mut stream, b"waiting");
    }
    server.stop();
}

/// Dropping a socket at any moment closes the connection and keeps its memory until the kernel is
/// done with it.
#[test]
fn dropped_sockets_close_and_deliver_what_was_sent() {
    let _deadline = deadline("dropped sockets");
    let server = serve(config(1), |env| async move {
        let turn = Rc::new(std::cell::Cell::new(0u32));
        accept_all(env.clone(), move |socket: Rc<RealSocket>| {
            let turn = turn.replace(turn.get() + 1);
            async move {
                if turn % 2 == 1 {
                    socket.start_streaming();
                }
                // Arm a receive, then leave without waiting for it.
                let mut once = false;
                poll_fn(|context| {
                    if std::mem::replace(&mut once, true) {
                        return std::task::Poll::Ready(());
                    }
                    assert!(socket.poll_receive(context).is_pending());
                    context.waker().wake_by_ref();
                    std::task::Poll::Pending
                })
                .await;
                socket.start_send(vec![vec![3; 100_000], b"end".to_vec()]);
            }
        })
        .await;
        until_stopped(env).await;
    });
    for _ in 0..50 {
        let mut all = Vec::new();
        TcpStream::connect(server.addr).unwrap().read_to_end(&mut all).unwrap();
        assert_eq!(all.len(), 100_003);
    }
    server.stop();
}

/// The first chunk names the wanted core; the accepting core hands the connection over and the
/// wanted core answers.
#[test]
fn connections_move_between_cores() {
    let _deadline = deadline("hand-off");
    let server = serve(config(2), |env| async move {
        let listener = env.listener();
        let accepting = env.clone();
        env.spawn(TaskClass::Foreground, async move {
            loop {
                let socket = poll_fn(|context| listener.poll_accept(context)).await.unwrap();
                let hello = poll_fn(|context| socket.poll_receive(context)).await.unwrap().unwrap();
                let wanted = usize::from(hello[0]);
                drop(hello);
                assert!(socket.peer().starts_with("127.0.0.1:"));
                assert!(accepting.send(wanted, Message::Connection(socket.hand_off())).is_ok());
            }
        });
        loop {
            match message(&env).await {
                Message::Stop => return,
                Message::Connection(handoff) => {
                    let socket = Rc::new(env.adopt(handoff));
                    let core = env.core() as u8;
                    env.spawn(TaskClass::Foreground, async move {
                        socket.start_send(vec![vec![core]]);
                        poll_fn(|context| socket.poll_sent(context)).await.0.unwrap();
                        echo(socket).await;
                    });
                }
                Message::Number(_) => unreachable!(),
            }
        }
    });
    let mut streams = Vec::new();
    for number in 0..200 {
        let wanted = number % 2;
        let mut stream = TcpStream::connect(server.addr).unwrap();
        stream.write_all(&[wanted]).unwrap();
        let mut core = [9];
        stream.read_exact(&mut core).unwrap();
        assert_eq!(core[0], wanted);
        exchange(&mut stream, b"hello there");
        streams.push(stream);
    }
    for stream in &mut streams {
        exchange(stream, b"still here");
    }
    server.stop();
}

#[test]
fn a_closed_listener_accepts_no_more() {
    let _deadline = deadline("closed listener");
    let server = serve(config(1), |env| async move {
        let listener = env.listener();
        let socket = poll_fn(|context| listener.poll_accept(context)).await.unwrap();
        listener.close();
        echo(Rc::new(socket)).await;
        until_stopped(env).await;
    });
    let mut first = TcpStream::connect(server.addr).unwrap();
    exchange(&mut first, b"one");
    drop(first);
    server.stop();
}

/// What tasks still held when the mains returned is gone for the outside world.
#[test]
fn the_end_frees_the_port_and_ends_connections() {
    let _deadline = deadline("end");
    let server = serve(config(2), echo_server);
    let addr = server.addr;
    let mut stream = TcpStream::connect(addr).unwrap();
    exchange(&mut stream, b"hello");
    server.stop();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);

    let mut config = config(1);
    config.listen = Some(addr);
    drop(Runtime::<Message>::new(config).unwrap());
}

#[test]
fn a_core_counts_what_its_ring_does() {
    const EXCHANGES: u64 = 20;
    let _deadline = deadline("counters of a ring");
    let server = serve(config(1), |env| async move {
        let listener = env.listener();
        let socket = poll_fn(|context| listener.poll_accept(context)).await.unwrap();
        let before = env.counters();
        echo(Rc::new(socket)).await;
        let after = env.counters();
        let counted = |name: &str| {
            let of = |counters: &[(&str, u64)]| counters.iter().find(|(found, _)| *found == name).unwrap().1;
            of(&after) - of(&before)
        };
        // The client waits for each answer, so each has an enter of its own. What is received needs no
        // entry of its own.
        assert!(counted("ring_entries") >= EXCHANGES, "{after:?}");
        assert!(counted("ring_enters") >= EXCHANGES, "{after:?}");
        assert!(counted("ring_completions") >= 2 * EXCHANGES, "{after:?}");
        assert_eq!(counted("chunks_copied"), 0);
        until_stopped(env).await;
    });
    let mut stream = TcpStream::connect(server.addr).unwrap();
    (0..EXCHANGES).for_each(|number| exchange(&mut stream, &[number as u8; 64]));
    drop(stream);
    server.stop();
}
