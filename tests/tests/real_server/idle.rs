//! An idle server costs nearly nothing: CPU time, not wall time, so a busy machine changes little.

use std::thread;
use std::time::Duration;

use pinion_tests::process::Rig;

/// What is watched, and how often: the best of several windows counts, for the first may still see
/// the end of the start.
const WINDOW: Duration = Duration::from_secs(3);
const WINDOWS: usize = 3;
/// One percent of a core.
const CPU_MAX: Duration = Duration::from_millis(30);

#[test]
fn an_idle_server_uses_less_than_a_hundredth_of_a_core() {
    let rig = Rig::new();
    let server = rig.start();
    let client = server.client();
    for number in 0..100 {
        client.put(format!("key {number}"), "value").expect("a put is acknowledged");
    }
    assert!(server.cpu_time() > Duration::ZERO, "starting and writing have a cost that can be seen");
    // The client stays connected: idle connections count.
    let mut used = Vec::new();
    for _ in 0..WINDOWS {
        let before = server.cpu_time();
        thread::sleep(WINDOW);
        used.push(server.cpu_time() - before);
        if used.last().is_some_and(|used| *used <= CPU_MAX) {
            break;
        }
    }
    println!("CPU time in windows of {WINDOW:?}: {used:?}");
    assert!(used.iter().any(|used| *used <= CPU_MAX), "{used:?} in windows of {WINDOW:?}");
    assert!(client.get("key 1").expect("a get").is_some());
    server.stop();
}
