//! Requests for many keys.

use super::*;
use crate::batch::WriteBatch;
use crate::core::fanout::{BatchParts, ManyReads, ReadPart};
use crate::error::{Error, Outcome};
use crate::record::Entry;

fn entry(value: &Bytes) -> Option<Option<Entry>> {
    Some(Some(Entry { value: value.clone(), version: Version([1; 16]), expiry: None }))
}

#[test]
fn many_keys_are_read_from_their_cores_until_all_have_answers() {
    let keys: Vec<Bytes> = (0..20).map(|index| Bytes::from(format!("key{index}"))).collect();
    let mut reads = ManyReads::new(keys.clone(), &map().limits).unwrap();
    let mut rounds = 0;
    loop {
        let parts = reads.parts(&map());
        if parts.is_empty() {
            break;
        }
        rounds += 1;
        assert!(parts.len() <= 2, "one request for each core");
        for (positions, operation) in parts.into_iter().map(ReadPart::split) {
            let Operation::GetMany { keys: asked, .. } = operation else { panic!("not a read") };
            assert!(asked.len() <= 4);
            let core = map().core_of(&asked[0]);
            assert!(asked.iter().all(|key| map().core_of(key) == core));
            // The server answers half of them and has no room for the rest.
            let half = asked.len().div_ceil(2);
            let entries =
                asked.iter().enumerate().map(|(index, key)| if index < half { entry(key) } else { None });
            reads.received(&positions, Reply::Entries(entries.collect())).unwrap();
        }
    }
    assert!(rounds >= 5);
    let values: Vec<_> = reads.finish().into_iter().map(|entry| entry.unwrap().value).collect();
    assert_eq!(values, keys);
}

#[test]
fn an_answer_without_progress_is_an_error() {
    let mut reads = ManyReads::new(vec![Bytes::from_static(b"k")], &map().limits).unwrap();
    let (positions, _) = reads.parts(&map()).remove(0).split();
    assert!(reads.received(&positions, Reply::Entries(vec![None])).is_err());
    assert!(reads.received(&positions, Reply::Entries(vec![])).is_err());
    assert!(ManyReads::new(vec![Bytes::new()], &map().limits).is_err());
}

#[test]
fn a_batch_is_cut_by_core_with_one_stamp_and_its_results_return_in_order() {
    let mut session = session(Instant::now(), 1);
    let stamp = session.clock.issue(Instant::now());
    let batch = WriteBatch::new().put("a", "1").delete("b").put("c", "3").put("d", "4");
    let parts = BatchParts::new(batch, stamp, &map()).unwrap();
    let count = parts.count();
    let mut answers = Vec::new();
    for (positions, operation) in parts.parts {
        assert_eq!(operation.stamp(), stamp);
        let status = |position: &usize| {
            Ok(crate::Written { version: Version([*position as u8; 16]), expiry: None, superseded: false })
        };
        let reply = Reply::Batch(positions.iter().map(status).collect());
        answers.push((positions, Ok(reply)));
    }
    let results = BatchParts::merge(count, answers);
    let versions: Vec<_> = results.iter().map(|result| result.as_ref().unwrap().version.0[0]).collect();
    assert_eq!(versions, [0, 1, 2, 3]);

    let failed = BatchParts::merge(2, vec![(vec![1], Err(Error::Busy))]);
    let outcomes: Vec<_> = failed.iter().map(|result| result.as_ref().unwrap_err().outcome()).collect();
    assert_eq!(outcomes, [Outcome::Unknown, Outcome::NotApplied]);
}

#[test]
fn a_batch_over_a_limit_is_refused_whole() {
    let many = (0..5).fold(WriteBatch::new(), |batch, index| batch.delete(format!("k{index}")));
    assert!(matches!(BatchParts::new(many, None, &map()), Err(Error::Invalid(_))));
    let big = WriteBatch::new().put("k", vec![0; 1000]);
    assert!(matches!(BatchParts::new(big, None, &map()), Err(Error::Invalid(_))));
    let empty_key = WriteBatch::new().put("", "v");
    assert!(matches!(BatchParts::new(empty_key, None, &map()), Err(Error::Invalid(_))));
}
