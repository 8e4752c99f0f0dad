//! Atomic batches: what is kept, what ends a batch, what comes out of it.

use hw_kit::Span;

use super::*;
use crate::Command;
use crate::command::encode_batch;

const LIMITS: BatchLimits =
    BatchLimits { messages: 3, per_stream: 2, total: 3, timeout: Span(10), command_bytes: 30 };
const ROOM: BatchRoom = BatchRoom { open: 0, bytes_left: 1000 };

fn header(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        headers::push(&mut block, name, value.as_bytes());
    }
    block
}

fn send(batches: &mut AtomicBatches, id: &str, fields: &[(&str, &str)], room: BatchRoom) -> AtomicStep {
    let mut all = vec![("Nats-Batch-Id", id)];
    all.extend_from_slice(fields);
    let header = header(&all);
    assert_eq!(batch_id(&header), Some(id.as_bytes()));
    let message = AtomicMessage { subject: b"s", header: &header, payload: b"p", has_level: true };
    batches.handle(Time(1), id.as_bytes(), &message, (&LIMITS, room))
}

fn refused(error: PublishError, abandoned: Option<Abandoned>) -> AtomicStep {
    AtomicStep::Refused(error, abandoned)
}

#[test]
fn a_batch_comes_out_whole_and_in_parts() {
    for (commit, count) in [("1", 3), ("eob", 2)] {
        let mut batches = AtomicBatches::default();
        let seq = |n| [("Nats-Batch-Sequence", n)];
        assert_eq!(send(&mut batches, "b", &seq("1"), ROOM), AtomicStep::Staged);
        assert_eq!(send(&mut batches, "b", &seq("2"), ROOM), AtomicStep::Staged);
        assert!(batches.bytes() > 0);
        let last = [("Nats-Batch-Sequence", "3"), ("Nats-Batch-Commit", commit)];
        let AtomicStep::Complete(batch) = send(&mut batches, "b", &last, ROOM) else { panic!("{commit}") };
        assert_eq!((batch.count, batches.len(), batches.bytes()), (count, 0, 0));
        // A part is closed once it is long enough.
        assert_eq!(batch.parts.len(), count as usize);
        let mut messages = Vec::new();
        for part in &batch.parts {
            let mut bytes = Vec::new();
            encode_batch(&mut bytes, Time(1), part);
            let Ok(Command::PublishBatch { messages: some, .. }) = Command::decode(&bytes.into()) else {
                panic!("a part is what a command holds")
            };
            messages.extend(some);
        }
        assert_eq!(messages.len() as u64, count);
        let commits: Vec<_> =
            messages.iter().filter_map(|record| field(record.header(), COMMIT.as_bytes())).collect();
        assert_eq!(commits, [b"1"], "the last message says so");
        assert!(field(messages[messages.len() - 1].header(), COMMIT.as_bytes()).is_some());
    }
}

/// Asked from nats-server 2.15.1.
#[test]
fn refusals() {
    use Abandoned::{Incomplete, Large};
    use PublishError as E;
    type Row<'a> = (&'a [(&'a str, &'a str)], AtomicStep, bool);
    let seq = "Nats-Batch-Sequence";
    let rows: [Row<'_>; 8] = [
        (&[], refused(E::BatchSequenceMissing, None), true),
        (&[(seq, "-1")], refused(E::BatchSequenceMissing, None), true),
        (&[(seq, "2"), (COMMIT, "maybe")], refused(E::BatchCommit, None), false),
        (&[(seq, "1")], refused(E::BatchIncomplete, Some(Incomplete)), false),
        (&[(seq, "3")], refused(E::BatchIncomplete, Some(Incomplete)), false),
        (&[(seq, "0")], refused(E::BatchIncomplete, Some(Incomplete)), false),
        (&[(seq, "4")], refused(E::BatchTooLarge(3), Some(Large)), false),
        (&[(seq, "4"), (COMMIT, "eob")], refused(E::BatchIncomplete, Some(Incomplete)), false),
    ];
    for (fields, expected, goes_on) in rows {
        let mut batches = AtomicBatches::default();
        assert_eq!(send(&mut batches, "b", &[(seq, "1")], ROOM), AtomicStep::Staged);
        assert_eq!(send(&mut batches, "b", fields, ROOM), expected, "{fields:?}");
        let next = send(&mut batches, "b", &[(seq, "2")], ROOM);
        let expected = if goes_on { AtomicStep::Staged } else { refused(E::BatchIncomplete, None) };
        assert_eq!(next, expected, "after {fields:?}");
    }
    let mut batches = AtomicBatches::default();
    let eob = send(&mut batches, "b", &[(seq, "1"), (COMMIT, "eob")], ROOM);
    assert_eq!(eob, refused(E::BatchIncomplete, Some(Incomplete)));
    assert_eq!(send(&mut batches, "b", &[(seq, "4")], ROOM), refused(E::BatchTooLarge(3), None));
    assert_eq!(send(&mut batches, &"x".repeat(65), &[(seq, "1")], ROOM), refused(E::BatchId, None));
    let message = AtomicMessage { subject: b"s", header: b"", payload: b"", has_level: false };
    let old = batches.handle(Time(1), b"b", &message, (&LIMITS, ROOM));
    assert_eq!(old, refused(E::ApiLevel, Some(Abandoned::Unsupported)));
    assert_eq!(batch_id(&header(&[("Nats-Batch-Id", "")])), None);
}

#[test]
fn limits_and_silence() {
    let (mut batches, first) = (AtomicBatches::default(), [("Nats-Batch-Sequence", "1")]);
    let too_many = refused(PublishError::TooManyBatches, None);
    for id in ["a", "b"] {
        assert_eq!(send(&mut batches, id, &first, ROOM), AtomicStep::Staged);
    }
    assert_eq!(send(&mut batches, "c", &first, ROOM), too_many);
    assert_eq!(batches.next_deadline(&LIMITS), Some(Time(11)));
    assert!(batches.handle_timeout(Time(10), &LIMITS).is_empty());
    assert_eq!(batches.handle_timeout(Time(11), &LIMITS), ["a", "b"]);
    assert_eq!((batches.len(), batches.bytes(), batches.next_deadline(&LIMITS)), (0, 0, None));
    assert_eq!(send(&mut batches, "c", &first, BatchRoom { open: 3, ..ROOM }), too_many);
    let full = refused(PublishError::TooManyBatches, Some(Abandoned::Large));
    assert_eq!(send(&mut batches, "c", &first, BatchRoom { bytes_left: 5, ..ROOM }), full);
    assert_eq!((batches.len(), batches.bytes()), (0, 0));
}
