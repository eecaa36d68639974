//! An echo server on the runtime, and a load to measure it with.
//!
//! ```text
//! echo serve --cpu 0 --port 7700
//! echo load  --cpu 1 --port 7700 --connections 64 --depth 16 --frame 64 --seconds 5
//! ```
//!
//! The server is the shape of Pinion's: one task per connection that takes all chunks there are,
//! builds one buffer of replies and starts one send, receiving on while it is in flight. It is
//! generic over the environment. `load` works against any server that answers with as many bytes.

mod load;

use std::env::args;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::task::Poll;

use pinion_runtime::env::{Listener, NodeEnv, Socket, TaskClass};
use pinion_runtime::{RealEnv, Runtime, RuntimeConfig};

/// Accepts connections and gives each a task.
async fn serve<E: NodeEnv>(env: E) {
    let listener = env.listener();
    loop {
        match poll_fn(|context| listener.poll_accept(context)).await {
            Ok(socket) => env.spawn(TaskClass::Foreground, echo(socket)),
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

/// Sends back what comes.
async fn echo<S: Socket>(socket: S) {
    socket.start_streaming();
    let mut replies = Vec::new();
    // The empty vectors of the last send, for reuse.
    let mut spare = Some((Vec::new(), Vec::new()));
    loop {
        let event = poll_fn(|context| {
            if spare.is_none()
                && let Poll::Ready((outcome, mut buffers)) = socket.poll_sent(context)
            {
                let mut buffer = buffers.pop().unwrap_or_default();
                buffer.clear();
                spare = Some((buffers, buffer));
                if outcome.is_err() {
                    return Poll::Ready(false);
                }
            }
            let mut alive = true;
            let mut any = false;
            loop {
                match socket.poll_receive(context) {
                    Poll::Ready(Ok(Some(chunk))) => {
                        replies.extend_from_slice(&chunk);
                        any = true;
                    }
                    Poll::Ready(_) => {
                        alive = false;
                        break;
                    }
                    Poll::Pending => break,
                }
            }
            match alive {
                false => Poll::Ready(false),
                true if spare.is_some() && (any || !replies.is_empty()) => Poll::Ready(true),
                true => Poll::Pending,
            }
        })
        .await;
        if !event {
            return;
        }
        if let Some((mut buffers, buffer)) = spare.take() {
            buffers.push(std::mem::replace(&mut replies, buffer));
            socket.start_send(buffers);
        }
    }
}

fn main() -> ExitCode {
    let words: Vec<String> = args().collect();
    let option = |name: &str, default: usize| -> usize {
        let at = words.iter().position(|word| word == name);
        at.and_then(|at| words.get(at + 1)?.parse().ok()).unwrap_or(default)
    };
    let addr = SocketAddr::from(([127, 0, 0, 1], option("--port", 7700) as u16));
    match words.get(1).map(String::as_str) {
        Some("serve") => {
            let mut config = RuntimeConfig::new(vec![option("--cpu", 0)]);
            config.listen = Some(addr);
            let served = Runtime::<()>::new(config).and_then(|runtime| runtime.run(serve::<RealEnv<()>>));
            match served {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
        Some("load") => {
            let plan = load::Plan {
                addr,
                cpu: option("--cpu", 1),
                connections: option("--connections", 64),
                depth: option("--depth", 1),
                frame_bytes: option("--frame", 64),
                seconds: option("--seconds", 5) as u64,
            };
            match load::run(&plan) {
                Ok(report) => {
                    println!("{report}");
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    eprintln!("{error}");
                    ExitCode::FAILURE
                }
            }
        }
        _ => {
            eprintln!(
                "usage: echo serve|load [--cpu N] [--port N] [--connections N] [--depth N] [--frame N] [--seconds N]"
            );
            ExitCode::FAILURE
        }
    }
}
