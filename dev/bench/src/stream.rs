//! The stream's machine: a publish decided and stored, a delivery acknowledged.

use std::hint::black_box;

use bytes::Bytes;
use hw_kit::{LogIndex, Seq, Time};
use hw_store::Record;
use hw_stream::command::{Command, ConsumerAction, Settlement, Verdict};
use hw_stream::stream::{StreamLimits, check};
use hw_stream::{Stream, StreamConfig};

use crate::subject;

const MESSAGES: u64 = 10_000;

fn stream() -> Stream {
    let config = r#"{"name":"S","subjects":["plant.>"],"storage":"file"}"#;
    let config: StreamConfig = serde_json::from_str(config).unwrap_or_default();
    let Ok(config) = check(&config, StreamLimits::default(), false) else {
        unreachable!("the configuration is valid")
    };
    Stream::new(config, Time(1))
}

/// Publishes as the log holds them, every tenth with an id.
fn publishes() -> Vec<Bytes> {
    let encode = |at: u64| {
        let header = if at.is_multiple_of(10) {
            format!("NATS/1.0\r\nNats-Msg-Id: {at}\r\n\r\n")
        } else {
            String::new()
        };
        let record =
            Record::join(subject(at).as_bytes(), header.as_bytes(), &[b'x'; 128]).unwrap_or_default();
        let mut bytes = Vec::new();
        Command::Publish { ts: Time(at as i64 + 2), record }.encode(&mut bytes);
        bytes.into()
    };
    (0..MESSAGES).map(encode).collect()
}

fn apply(stream: &mut Stream, index: &mut u64, command: Command) {
    *index += 1;
    let mut effects = Vec::new();
    black_box(stream.apply(LogIndex(*index), command, &mut effects));
    black_box(effects);
}

fn apply_all(stream: &mut Stream, index: &mut u64, publishes: &[Bytes]) {
    for bytes in publishes {
        if let Ok(command) = Command::decode(bytes) {
            apply(stream, index, command);
        }
    }
    assert_eq!(stream.messages().len(), MESSAGES);
}

/// 10,000 publishes read from the log and applied.
pub(crate) fn publish() -> Box<dyn FnMut()> {
    let (mut stream, mut index, publishes) = (stream(), 0, publishes());
    Box::new(move || apply_all(&mut stream, &mut index, &publishes))
}

/// 10,000 deliveries and their acknowledgements, 100 with each command.
pub(crate) fn ack() -> Box<dyn FnMut()> {
    let (mut stream, mut index) = (stream(), 0);
    apply_all(&mut stream, &mut index, &publishes());
    let name = Bytes::from_static(b"c");
    let config =
        Bytes::from_static(br#"{"durable_name":"c","ack_policy":"explicit","max_ack_pending":1000}"#);
    let (action, pedantic) = (ConsumerAction::default(), false);
    let put = Command::PutConsumer { ts: Time(20_000), name: name.clone(), action, pedantic, config };
    apply(&mut stream, &mut index, put);
    Box::new(move || {
        for first in (1..=MESSAGES).step_by(100) {
            let (ts, consumer) = (Time(30_000), name.clone());
            let seqs = (first..first + 100).map(Seq).collect();
            apply(&mut stream, &mut index, Command::Delivered { ts, consumer: consumer.clone(), seqs });
            let ack = |seq| Settlement { seq: Seq(seq), consumer_seq: seq, verdict: Verdict::Ack };
            let acks = (first..first + 100).map(ack).collect();
            apply(&mut stream, &mut index, Command::Settled { ts, consumer, acks });
        }
        assert_eq!(
            stream.consumer(b"c").map(|consumer| consumer.ack_floor().stream_seq),
            Some(Seq(MESSAGES))
        );
    })
}
