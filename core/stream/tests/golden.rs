//! States of streams as earlier versions wrote them: every later one opens them and knows what they know.
//! `HEADWATER_GOLDEN=NAME` writes a new one from today's program; those that are there stay as they are.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)] // Golden files are files.

use std::path::PathBuf;

use bytes::Bytes;
use hw_kit::{LogIndex, Seq, Time};
use hw_store::Record;
use hw_stream::stream::{StreamLimits, StreamRestore, check};
use hw_stream::{Answer, Command, Stream, StreamConfig};

const SECOND: i64 = 1_000_000_000;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Publishes one message with an id at a second; its sequence, and whether it was a duplicate.
fn publish(stream: &mut Stream, second: i64, id: &str) -> (Seq, bool) {
    let header = format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n");
    let record = Record::join(b"s.a", header.as_bytes(), id.as_bytes()).expect("it is short");
    let command = Command::Publish { ts: Time(second * SECOND), record };
    let index = LogIndex(stream.applied().0 + 1);
    match stream.apply(index, command, &mut Vec::new()) {
        Answer::Published(Ok(stored)) => (stored.seq, stored.duplicate),
        other => panic!("{other:?}"),
    }
}

/// A stream in memory that has seen some ids within its window of two minutes, one a second.
fn written() -> Stream {
    let config: StreamConfig = serde_json::from_str(
        r#"{"name":"S","subjects":["s.*"],"storage":"memory","duplicate_window":120000000000}"#,
    )
    .expect("a configuration");
    let config = check(&config, StreamLimits::default(), false).expect("it is valid");
    let mut stream = Stream::new(config, Time(SECOND));
    for at in 1..=200 {
        assert_eq!(publish(&mut stream, at, &format!("id-{at}")), (Seq(at as u64), false));
    }
    stream
}

#[test]
fn duplicates_are_known_from_states_of_all_versions() {
    if let Ok(name) = std::env::var("HEADWATER_GOLDEN") {
        let mut bytes = Vec::new();
        written().snapshot(&mut bytes);
        std::fs::write(folder().join(name), bytes).expect("the folder is there");
    }
    let mut files = 0;
    for entry in std::fs::read_dir(folder()).expect("the folder is there") {
        let path = entry.expect("an entry").path();
        let bytes = Bytes::from(std::fs::read(&path).expect("it is a file"));
        let (mut stream, _) =
            StreamRestore::open(&bytes).expect("its version is known").finish(None).expect("whole");
        files += 1;
        assert_eq!(stream.fingerprint(), written().fingerprint(), "{path:?}");
        // 81 and before have left the window at 201.
        assert_eq!(publish(&mut stream, 201, "id-82"), (Seq(82), true), "{path:?}");
        assert_eq!(publish(&mut stream, 201, "id-200"), (Seq(200), true), "{path:?}");
        assert_eq!(publish(&mut stream, 201, "id-81"), (Seq(201), false), "{path:?}");
        assert_eq!(publish(&mut stream, 201, "id-new"), (Seq(202), false), "{path:?}");
        // And once more through today's bytes.
        let mut bytes = Vec::new();
        stream.snapshot(&mut bytes);
        let (mut stream, _) =
            StreamRestore::open(&bytes.into()).expect("its own bytes").finish(None).expect("whole");
        assert_eq!(publish(&mut stream, 202, "id-83"), (Seq(83), true), "{path:?}");
        assert_eq!(publish(&mut stream, 202, "id-new"), (Seq(202), true), "{path:?}");
        assert_eq!(publish(&mut stream, 202, "id-82"), (Seq(203), false), "{path:?}");
    }
    assert!(files >= 1, "no golden state");
}
