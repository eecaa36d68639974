//! The whole server: from the bytes of a connection to the bytes of its answers.

use pinion_tests::metered::server::{Ask, Command, with_connection, with_server};

use crate::counting::Count;
use crate::{GROWTH_PER_OPERATION_MAX, per_operation};

const KEYS: u64 = 256;
const DEPTH: u64 = 16;
/// Rounds of one window of requests each: before the counting, and counted.
const WARM_UP: u64 = 100;
const COUNTED: u64 = 500;

#[test]
fn gets_and_puts_through_the_server_allocate_next_to_nothing() {
    let count = Count::default();
    with_server(&count, async |rig| {
        let mut counted = async |ask| {
            rig.ask(ask, WARM_UP, DEPTH, KEYS).await;
            let before = count.get();
            rig.ask(ask, COUNTED, DEPTH, KEYS).await;
            count.get() - before
        };
        // The arena's chunks and the log's segments, as in the engine alone.
        let puts = counted(Ask::Put).await;
        assert!(per_operation("PUT", puts, COUNTED * DEPTH) <= GROWTH_PER_OPERATION_MAX / 10.0);
        let gets = counted(Ask::Get).await;
        assert_eq!((per_operation("GET", gets, COUNTED * DEPTH), gets), (0.0, 0));
    });
}

#[test]
fn commands_through_the_server_allocate_next_to_nothing() {
    let count = Count::default();
    with_connection(&count, async |rig| {
        let mut counted = async |command| {
            rig.command(command, WARM_UP, DEPTH, KEYS).await;
            let before = count.get();
            rig.command(command, COUNTED, DEPTH, KEYS).await;
            count.get() - before
        };
        // As of frames: the arena's chunks and the log's segments.
        let sets = counted(Command::Set).await;
        assert!(per_operation("SET", sets, COUNTED * DEPTH) <= GROWTH_PER_OPERATION_MAX / 10.0);
        let gets = counted(Command::Get).await;
        assert_eq!((per_operation("GET over RESP", gets, COUNTED * DEPTH), gets), (0.0, 0));
    });
}
