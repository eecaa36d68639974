//! Running out of descriptors: told once per pause, no spinning, and over when there are some again.
//!
//! Alone in its process, whose limit it lowers.

#![expect(unsafe_code, reason = "setting a limit")]

mod rig;

use std::fs::File;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pinion_runtime::env::{Env, Listener, NodeEnv, TaskClass};
use rig::{config, deadline, echo, serve, until_stopped};

const DESCRIPTORS_MAX: u64 = 128;

#[test]
fn accepting_pauses_and_goes_on() {
    let _deadline = deadline("descriptors");
    // Before the accept is armed: the kernel keeps the limit of that moment with it.
    let limit = libc::rlimit { rlim_cur: DESCRIPTORS_MAX, rlim_max: DESCRIPTORS_MAX };
    // SAFETY: the kernel only reads `limit`.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }, 0);
    let errors = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&errors);
    let server = serve(config(1), move |env| {
        let counter = Arc::clone(&counter);
        async move {
            let (inner, listener) = (env.clone(), env.listener());
            env.spawn(TaskClass::Foreground, async move {
                loop {
                    match poll_fn(|context| listener.poll_accept(context)).await {
                        Ok(socket) => inner.spawn(TaskClass::Foreground, echo(Rc::new(socket))),
                        Err(error) => {
                            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
                            counter.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            });
            until_stopped(env).await;
        }
    });
    let exchange = |stream: &mut TcpStream| {
        let mut back = [0; 5];
        stream.write_all(b"hello").unwrap();
        stream.read_exact(&mut back).unwrap();
    };
    // The server is up. Kept, because closing it would give a descriptor back some time later.
    let mut first = TcpStream::connect(server.addr).unwrap();
    exchange(&mut first);

    let mut hoard: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    // One descriptor for the client, none for the server.
    hoard.pop();
    let mut stream = TcpStream::connect(server.addr).unwrap();
    while errors.load(Ordering::Relaxed) < 2 {
        std::thread::yield_now();
    }
    exchange(&mut first);
    drop(hoard);
    exchange(&mut stream);
    // A spinning listener would have failed many thousand times meanwhile.
    assert!(errors.load(Ordering::Relaxed) < 100);
    server.stop();
}
