//! Cores: messages, sleeping, yielding, off-core jobs, starting and refusing to start.

mod rig;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use pinion_runtime::env::{Env, NodeEnv, TaskClass};
use pinion_runtime::{RealEnv, Runtime, RuntimeConfig, RuntimeError};
use rig::{Message, config, deadline, message, run_one};

fn number(message: Message) -> u64 {
    match message {
        Message::Number(number) => number,
        _ => unreachable!("this test sends numbers"),
    }
}

#[test]
fn messages_bounce_between_sleeping_cores() {
    let _deadline = deadline("ping-pong");
    const ROUNDS: u64 = 20_000;
    let runtime = Runtime::<Message>::new(config(2)).unwrap();
    runtime
        .run(|env| async move {
            let other = 1 - env.core();
            if env.core() == 0 {
                assert!(env.send(other, Message::Number(0)).is_ok());
            }
            loop {
                let round = number(message(&env).await);
                if round < ROUNDS {
                    assert!(env.send(other, Message::Number(round + 1)).is_ok());
                }
                // The last two rounds end one core each.
                if round + 1 >= ROUNDS {
                    return;
                }
            }
        })
        .unwrap();
}

#[test]
fn a_round_that_a_task_makes_long_is_counted() {
    let _deadline = deadline("rounds");
    run_one(|env| async move {
        let long = |env: &RealEnv<Message>| -> u64 {
            let counters = env.counters();
            counters.iter().find(|(name, _)| *name == "rounds_over_10ms").map(|(_, count)| *count).unwrap()
        };
        // Whatever runs counts, not only what a connection has asked for.
        let before = long(&env);
        for class in [TaskClass::Foreground, TaskClass::Background] {
            let (busy, ended) = (env.clone(), Rc::new(Cell::new(false)));
            let end = Rc::clone(&ended);
            env.spawn(class, async move {
                busy.yield_now().await;
                let until = busy.now().after(Duration::from_millis(10));
                while busy.now() < until {}
                end.set(true);
            });
            while !ended.get() {
                env.sleep(Duration::from_micros(1)).await;
            }
        }
        env.sleep(Duration::from_micros(1)).await;
        assert!(long(&env) >= before + 2, "{:?}", env.counters());
    });
}

#[test]
fn messages_of_a_sender_stay_in_order_and_the_queue_is_bounded() {
    let _deadline = deadline("order");
    const MESSAGES: u64 = 200_000;
    let mut config = config(2);
    config.message_queue_max = 16;
    Runtime::<Message>::new(config)
        .unwrap()
        .run(|env| async move {
            if env.core() == 0 {
                for next in 0..MESSAGES {
                    let mut waiting = Message::Number(next);
                    while let Err(back) = env.send(1, waiting) {
                        waiting = back;
                        env.yield_now().await;
                    }
                }
            } else {
                for next in 0..MESSAGES {
                    assert_eq!(number(message(&env).await), next);
                }
            }
            assert!(env.send(2, Message::Stop).is_err());
        })
        .unwrap();
}

#[test]
fn any_thread_and_the_core_itself_can_send() {
    let _deadline = deadline("remote");
    let runtime = Runtime::<Message>::new(config(1)).unwrap();
    let remote = runtime.remote();
    let sender = thread::spawn(move || {
        for next in 0..1000 {
            let mut waiting = Message::Number(next);
            while let Err(back) = remote.send(0, waiting) {
                waiting = back;
                thread::yield_now();
            }
        }
    });
    runtime
        .run(|env| async move {
            let mut sum = 0;
            for _ in 0..1000 {
                sum += number(message(&env).await);
            }
            assert_eq!(sum, 999 * 1000 / 2);
            assert!(env.send(0, Message::Number(7)).is_ok());
            assert_eq!(number(message(&env).await), 7);
        })
        .unwrap();
    sender.join().unwrap();
}

/// A loop of `sleep(0)` lets everything else go on: tasks, timers, off-core jobs, messages.
#[test]
fn sleeping_for_no_time_yields() {
    let _deadline = deadline("sleep(0)");
    run_one(|env| async move {
        let done = Rc::new(Cell::new(0));
        for class in [TaskClass::Foreground, TaskClass::Flush, TaskClass::Background] {
            let (env, done) = (env.clone(), Rc::clone(&done));
            env.clone().spawn(class, async move {
                env.yield_now().await;
                env.sleep(Duration::from_millis(2)).await;
                assert_eq!(env.off_core(|| 6 * 7).await, 42);
                assert!(env.send(0, Message::Number(1)).is_ok());
                done.set(done.get() + 1);
            });
        }
        while done.get() < 3 {
            env.sleep(Duration::ZERO).await;
        }
        for _ in 0..3 {
            assert_eq!(number(message(&env).await), 1);
        }
    });
}

#[test]
fn clocks_advance_and_random_numbers_differ() {
    let _deadline = deadline("clocks");
    run_one(|env| async move {
        let start = env.now();
        env.sleep(Duration::from_millis(3)).await;
        assert!(env.now().since(start) >= Duration::from_millis(3));
        assert!(env.wall_ms() > 1_600_000_000_000);
        assert!(env.cpu_time() > Duration::ZERO);
        assert_ne!(env.random(), env.random());
    });
}

/// Sleeps of all lengths, later ones begun before earlier ones end, some given up.
#[test]
fn every_sleep_ends() {
    let _deadline = deadline("sleeps");
    run_one(|env| async move {
        let left = Rc::new(Cell::new(100));
        for _ in 0..left.get() {
            let (inner, left) = (env.clone(), Rc::clone(&left));
            env.spawn(TaskClass::Foreground, async move {
                for _ in 0..20 {
                    let start = inner.now();
                    let length = Duration::from_micros(inner.random() % 5000);
                    let mut given_up = Box::pin(inner.sleep(Duration::from_secs(3600)));
                    let mut sleep = Box::pin(inner.sleep(length));
                    poll_fn(|context| {
                        assert!(given_up.as_mut().poll(context).is_pending());
                        sleep.as_mut().poll(context)
                    })
                    .await;
                    assert!(inner.now().since(start) >= length);
                }
                left.set(left.get() - 1);
            });
        }
        while left.get() > 0 {
            env.sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn more_off_core_jobs_than_places_all_run() {
    let _deadline = deadline("off core");
    const JOBS: u64 = 3000;
    run_one(|env| async move {
        let sum = Rc::new(Cell::new(0));
        let left = Rc::new(Cell::new(JOBS));
        for job in 0..JOBS {
            let (inner, sum, left) = (env.clone(), Rc::clone(&sum), Rc::clone(&left));
            env.spawn(TaskClass::Background, async move {
                let result = inner.off_core(move || job).await;
                sum.set(sum.get() + result);
                left.set(left.get() - 1);
            });
        }
        // A job nobody waits for runs all the same.
        drop(env.off_core(|| ()));
        while left.get() > 0 {
            env.sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(sum.get(), JOBS * (JOBS - 1) / 2);
    });
}

#[test]
fn runtimes_refuse_what_cannot_work() {
    let _deadline = deadline("refusals");
    let refused = |config| Runtime::<()>::new(config).unwrap_err();
    assert!(matches!(refused(RuntimeConfig::new(vec![])), RuntimeError::BadConfig { .. }));
    assert!(matches!(refused(RuntimeConfig::new(vec![4000])), RuntimeError::BadCpu { cpu: 4000, .. }));
    let mut odd = config(1);
    odd.receive_buffers = 100;
    assert!(matches!(refused(odd), RuntimeError::BadConfig { .. }));

    let mut first = config(1);
    first.listen = Some(SocketAddr::from(([127, 0, 0, 1], 0)));
    let running = Runtime::<()>::new(first).unwrap();
    let addr = running.local_addr().unwrap();
    let mut second = config(1);
    second.listen = Some(addr);
    match refused(second.clone()) {
        RuntimeError::PortInUse { addr: busy } => assert_eq!(busy, addr),
        other => panic!("{other}"),
    }
    drop(running);
    Runtime::<()>::new(second).unwrap();
}

#[test]
fn cores_start_and_end_many_times() {
    let _deadline = deadline("restarts");
    for _ in 0..20 {
        Runtime::<Message>::new(config(3)).unwrap().run(|env| async move { env.yield_now().await }).unwrap();
    }
}
