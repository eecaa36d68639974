//! Restarts with other settings than those a directory was filled with.

use std::collections::BTreeMap;

use pinion_client::ScanRange;
use pinion_tests::process::{Rig, Server};

#[test]
fn fewer_cores_than_shards_have_everything() {
    let mut rig = Rig::new();
    let server = rig.start();
    let client = server.client();
    let records: BTreeMap<Vec<u8>, Vec<u8>> = (0..500_u32)
        .map(|number| (format!("key {number}").into_bytes(), number.to_le_bytes().repeat(50)))
        .collect();
    for (key, value) in &records {
        client.put(key, value.clone()).expect("a put is acknowledged");
    }
    assert_eq!(Server::number(&client, &["cores"]), 2);
    server.kill();

    rig.cores = 1;
    for cores in [1, 2] {
        rig.cores = cores;
        let server = rig.start();
        let client = server.client();
        assert_eq!(Server::number(&client, &["cores"]), cores as u64);
        assert_eq!(Server::number(&client, &["shards"]), 2);
        let found: BTreeMap<Vec<u8>, Vec<u8>> = client
            .scan(ScanRange::all())
            .map(|record| record.expect("a scan"))
            .map(|record| (record.key.to_vec(), record.value.to_vec()))
            .collect();
        assert_eq!(found, records);
        for (key, value) in &records {
            assert_eq!(client.get(key).expect("a get").as_deref(), Some(&value[..]));
        }
        server.stop();
    }
}

/// Recovery fills a memtable and goes on while that is flushed. The log ends soon after, so the flush may
/// outlast it and go on in service.
#[test]
fn a_start_that_still_flushes_serves() {
    let value = vec![7_u8; 64 << 10];
    for rest in [2, 8, 16] {
        let mut rig = Rig::with_shards(1).engine("memtable_bytes", "\"16MiB\"");
        let server = rig.start();
        let client = server.client();
        let keys: Vec<String> = (0..64 + rest).map(|number| format!("key {number}")).collect();
        for key in &keys {
            client.put(key, value.clone()).expect("a put is acknowledged");
        }
        assert_eq!(Server::storage(&client, "flushes"), 0);
        server.kill();
        rig = rig.engine("memtable_bytes", "\"4MiB\"");
        let server = rig.start();
        let client = server.client();
        for key in &keys {
            assert_eq!(client.get(key).expect("a get").as_deref(), Some(&value[..]));
        }
        server.kill();
    }
}

#[test]
fn more_cores_than_shards_serve_and_say_so() {
    let mut rig = Rig::new();
    rig.shards = 1;
    let server = rig.start();
    let client = server.client();
    client.put("key", "value").expect("a put is acknowledged");
    assert_eq!(Server::number(&client, &["surplus_cores"]), 1);
    server.stop();
}

#[test]
fn the_shards_of_a_directory_are_fixed() {
    let mut rig = Rig::new();
    rig.start().stop();
    rig.shards = 1;
    let server = rig.flag("memory", "128MiB").start();
    server.wait_for_log("--shards 1 is ignored");
    assert_eq!(Server::number(&server.client(), &["shards"]), 2);
}
