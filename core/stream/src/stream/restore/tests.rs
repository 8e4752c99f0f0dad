//! Steps of a restore and the stream that they make.

use hw_kit::LogIndex;

use super::*;
use crate::command::Command;
use crate::config::StreamConfig;
use crate::stream::check::{StreamLimits, check_restored};

const SECOND: i64 = 1_000_000_000;
const NOW: Time = Time(1_000 * SECOND);

fn stream(config: &str) -> Stream {
    let config: StreamConfig = serde_json::from_str(config).expect(config);
    Stream::new(check_restored(&config, StreamLimits::default()).expect("it is valid"), NOW)
}

fn apply(stream: &mut Stream, step: RestoreStep) -> String {
    let mut bytes = Vec::new();
    Command::Restore { ts: NOW, step }.encode(&mut bytes);
    let command = Command::decode(&bytes.into()).expect("just encoded");
    match stream.apply(LogIndex(stream.applied().0 + 1), command, &mut Vec::new()) {
        Answer::Fed(Feeding::Taken) | Answer::ConsumerPut(Ok(_)) => String::new(),
        Answer::Fed(Feeding::Stale) => "stale".to_owned(),
        Answer::Fed(Feeding::Refused(error)) => error.to_string(),
        Answer::ConsumerPut(Err(error)) => error.to_string(),
        other => format!("{other:?}"),
    }
}

/// `seq subject [header=value]`, separated by commas; stored so many seconds after the start as the sequence says.
fn messages(list: &str) -> RestoreStep {
    let one = |text: &str| {
        let mut words = text.splitn(3, ' ');
        let seq: u64 = words.next().and_then(|word| word.parse().ok()).expect("a sequence");
        let subject = words.next().expect("a subject");
        let header = words.next().map_or_else(String::new, |field| {
            let (name, value) = field.split_once('=').expect("name=value");
            format!("NATS/1.0\r\n{name}: {value}\r\n\r\n")
        });
        let payload = b"{\"val\":\"7\"}";
        let record =
            hw_store::Record::join(subject.as_bytes(), header.as_bytes(), payload).expect("it is short");
        Fed { seq: Seq(seq), ts: Time(seq as i64 * SECOND), record }
    };
    RestoreStep::Messages(list.split(", ").map(one).collect())
}

fn begin(first: u64) -> RestoreStep {
    RestoreStep::Begin { first: Seq(first) }
}

fn end(last: u64) -> RestoreStep {
    RestoreStep::End { last: Seq(last), last_ts: Time(7) }
}

fn worker(delivered: (u64, u64), floor: (u64, u64), pending: &[(u64, u64, u32)]) -> RestoreStep {
    let place = |(consumer_seq, stream_seq)| (consumer_seq, Seq(stream_seq));
    let waiting = |&(seq, consumer_seq, count)| (Seq(seq), Delivery { consumer_seq, ts: Time(5), count });
    let pending = pending.iter().map(waiting).collect();
    let progress = Progress { delivered: place(delivered), ack_floor: place(floor), pending };
    let config = Bytes::from(r#"{"durable_name":"W","name":"W","ack_policy":"explicit"}"#);
    RestoreStep::Consumer { name: Bytes::from("W"), progress, config }
}

#[test]
fn messages_come_back_where_they_were() {
    for (config, steps, wanted) in [
        ("", vec![begin(5), messages("5 s.a, 7 s.b"), end(9)], "2 5..9 @0"),
        ("", vec![begin(5), end(9)], "0 10..9 @0"),
        ("", vec![begin(0), end(0)], "0 0..0 @0"),
        (r#","max_msgs":2"#, vec![begin(1), messages("1 a, 2 b, 3 c"), end(3)], "2 2..3 @3"),
        (r#","max_msgs_per_subject":1"#, vec![begin(1), messages("1 a, 2 b, 3 a"), end(3)], "2 2..3 @3"),
        (r#","sealed":true"#, vec![begin(1), messages("1 a"), end(1)], "1 1..1 @1"),
        // Its life is over; its sequence is not given again.
        (
            r#","allow_msg_ttl":true"#,
            vec![begin(1), messages("1 a Nats-TTL=5s, 2 b Nats-TTL=1h"), end(2)],
            "1 2..2 @2",
        ),
    ] {
        let mut stream = stream(&format!(r#"{{"name":"S","subjects":["s.>"]{config}}}"#));
        for step in steps {
            assert_eq!(apply(&mut stream, step), "");
        }
        let state = stream.messages().state();
        let last_ts = if state.last_ts == Time(7) { 0 } else { state.last_ts.0 / SECOND };
        let found = format!("{} {}..{} @{last_ts}", state.messages, state.first_seq, state.last_seq);
        assert_eq!(found, wanted, "{config}");
        let mut bytes = Vec::new();
        stream.snapshot(&mut bytes);
        assert!(crate::stream::StreamRestore::open(&bytes.into()).is_ok());
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let small = r#"{"name":"S","subjects":["s.>"],"max_msg_size":5}"#;
    let queue = r#"{"name":"S","subjects":["s.>"],"retention":"workqueue"}"#;
    let none = Bytes::from(r#"{"durable_name":"X","name":"X","ack_policy":"none"}"#);
    let none = RestoreStep::Consumer { name: Bytes::from("X"), progress: Progress::default(), config: none };
    let lost = RestoreStep::Pending { name: Bytes::from("X"), deliveries: Vec::new() };
    for (config, steps, wanted) in [
        (small, vec![begin(1), messages("1 a")], "message larger than max_msg_size"),
        (queue, vec![begin(1), messages("3 a"), messages("3 a")], "stale"),
        (queue, vec![begin(1), messages("3 a"), begin(1)], "stale"),
        (queue, vec![begin(u64::MAX)], "stale"),
        (queue, vec![begin(1), end(u64::MAX)], "wrong last sequence: 18446744073709551615"),
        (queue, vec![begin(1), none], "requires explicit ack policy on workqueue stream"),
        (
            queue,
            vec![begin(1), worker((0, 0), (0, 0), &[]), worker((0, 0), (0, 0), &[])],
            "consumer already exists",
        ),
        (queue, vec![begin(1), lost], "stale"),
    ] {
        let mut stream = stream(config);
        let answers: Vec<String> = steps.into_iter().map(|step| apply(&mut stream, step)).collect();
        let (last, before) = answers.split_last().expect("there are steps");
        assert!(before.iter().all(String::is_empty) && last.contains(wanted), "{answers:?}, not {wanted}");
    }
}

#[test]
fn a_consumer_goes_on() {
    let mut stream = stream(r#"{"name":"S","subjects":["s.>"],"retention":"workqueue"}"#);
    for step in [
        begin(1),
        worker((6, 5), (1, 1), &[(2, 2, 1), (3, 3, 2), (4, 4, 1)]),
        RestoreStep::Pending {
            name: Bytes::from("W"),
            deliveries: vec![(Seq(5), Delivery { consumer_seq: 5, ts: Time(5), count: 2 })],
        },
        messages("2 s.a, 3 s.a, 5 s.a, 6 s.a, 7 s.a"),
        end(7),
    ] {
        assert_eq!(apply(&mut stream, step), "");
    }
    let consumer = stream.consumer(b"W").expect("it was restored");
    // The fourth message is gone: nobody waits for its acknowledgement.
    let pending: Vec<_> = consumer.pending().iter().map(|(seq, delivery)| (seq.0, delivery.count)).collect();
    assert_eq!(pending, [(2, 1), (3, 2), (5, 2)]);
    let mut matcher = consumer.matcher(stream.messages());
    assert_eq!(consumer.num_pending(stream.messages(), &mut matcher), 2);
    assert_eq!(consumer.delivered().stream_seq, Seq(5));
    assert_eq!((consumer.ack_floor().consumer_seq, consumer.ack_floor().stream_seq), (1, Seq(1)));
}

#[test]
fn a_source_goes_on_whoever_the_origin_is() {
    let mut stream = stream(r#"{"name":"S","sources":[{"name":"O"}]}"#);
    let copies =
        "1 o.a Nats-Stream-Source=O 40 > > o.a XXXXXXXX, 2 o.a Nats-Stream-Source=P 9 > > o.a YYYYYYYY";
    for step in [begin(1), messages(copies), end(2)] {
        assert_eq!(apply(&mut stream, step), "");
    }
    let position = stream.position(b"O > >").expect("the copy says so");
    assert_eq!((position.seq, position.identity.len()), (Seq(40), 0));
    assert_eq!(stream.position(b"P > >"), None);
}

#[test]
fn what_is_said_after_the_end_of_the_stream_is_left_out() {
    let waiting = |seq, consumer_seq| (Seq(seq), Delivery { consumer_seq, ts: Time(1), count: 1 });
    let progress = Progress {
        delivered: (9, Seq(9)),
        ack_floor: (2, Seq(2)),
        pending: vec![waiting(2, 2), waiting(3, 3), waiting(4, 10), waiting(8, 8)],
    };
    let wanted = Progress { delivered: (9, Seq(5)), ack_floor: (2, Seq(2)), pending: vec![waiting(3, 3)] };
    assert_eq!(progress.within(Seq(5)), wanted);
}
