//! The hot paths allocate nothing: sockets, log writes, table reads, messages and yields, once warm.
//!
//! A task that only yields keeps the core awake meanwhile: going to sleep allocates inside glommio
//! (one read of the eventfd), a fixed amount per sleep.

#![expect(unsafe_code, reason = "an allocator that counts")]

mod rig;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;

use pinion_runtime::RealEnv;
use pinion_runtime::env::{
    AlignedBuf, Env, File, Listener, NodeEnv, OpenMode, PAGE_BYTES, Socket, TaskClass, WriteMode,
};
use rig::{Message, config, deadline, message, run_one, serve, until_stopped};

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// Counts the allocations of each thread.
struct Counting;

// SAFETY: everything is passed on to the system's allocator; counting touches a thread-local that
// needs neither initialisation nor destruction.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: passed on to the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: passed on to the caller.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: passed on to the caller.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Rounds before the counting starts, and rounds that are counted.
const WARM_UP: usize = 200;
const COUNTED: usize = 1000;

/// Keeps the core awake until the value is dropped.
fn keep_awake(env: &RealEnv<Message>) -> Rc<()> {
    let alive = Rc::new(());
    let (watched, inner) = (Rc::downgrade(&alive), env.clone());
    env.spawn(TaskClass::Background, async move {
        while watched.strong_count() > 0 {
            inner.yield_now().await;
        }
    });
    alive
}

#[test]
fn files_and_messages() {
    let _deadline = deadline("allocations of files");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("log");
    run_one(move |env| {
        let path = path.clone();
        async move {
            let _awake = keep_awake(&env);
            let file = env.open(&path, OpenMode::CreateNew).await.unwrap();
            let mut log = AlignedBuf::zeroed(PAGE_BYTES);
            let mut block = AlignedBuf::zeroed(PAGE_BYTES);
            for round in 0..WARM_UP + COUNTED {
                if round == WARM_UP {
                    ALLOCATIONS.set(0);
                }
                let (outcome, back) = file.write(0, log, 0..PAGE_BYTES, WriteMode::Durable).await;
                outcome.unwrap();
                log = back;
                let (outcome, back) = file.read(0, block, PAGE_BYTES).await;
                outcome.unwrap();
                block = back;
                assert!(env.send(0, Message::Number(1)).is_ok());
                assert!(matches!(message(&env).await, Message::Number(1)));
            }
            assert_eq!(ALLOCATIONS.get(), 0);
        }
    });
}

#[test]
fn sockets() {
    let _deadline = deadline("allocations of sockets");
    let server = serve(config(1), |env| async move {
        let awake = keep_awake(&env);
        let listener = env.listener();
        let socket = poll_fn(|context| listener.poll_accept(context)).await.unwrap();
        socket.start_streaming();
        let mut buffers = vec![Vec::with_capacity(1024), Vec::with_capacity(1024)];
        let mut rounds = 0;
        while let Some(chunk) = poll_fn(|context| socket.poll_receive(context)).await.unwrap() {
            if rounds == WARM_UP {
                ALLOCATIONS.set(0);
            }
            rounds += 1;
            let (head, tail) = chunk.split_at(chunk.len() / 2);
            buffers[0].extend_from_slice(head);
            buffers[1].extend_from_slice(tail);
            drop(chunk);
            socket.start_send(buffers);
            let (outcome, back) = poll_fn(|context| socket.poll_sent(context)).await;
            outcome.unwrap();
            buffers = back;
            buffers.iter_mut().for_each(Vec::clear);
        }
        assert!(rounds >= WARM_UP + COUNTED);
        assert_eq!(ALLOCATIONS.get(), 0);
        drop(awake);
        until_stopped(env).await;
    });
    let mut stream = TcpStream::connect(server.addr).unwrap();
    for _ in 0..WARM_UP + COUNTED {
        let mut back = [0; 64];
        stream.write_all(&[1; 64]).unwrap();
        stream.read_exact(&mut back).unwrap();
    }
    drop(stream);
    server.stop();
}
