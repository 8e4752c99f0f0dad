//! Commands and what must come of them. The expected answers were observed on nats-server 2.15.1.

mod batches;
mod schedules;
mod unlogged;

use hw_kit::Span;

use super::*;
use crate::command::{Settlement, Verdict};
use crate::outcome::{PublishError, Stored};

const SECOND: i64 = 1_000_000_000;

/// A stream under test: every command takes a millisecond.
struct Run {
    stream: Stream,
    index: u64,
    now: Time,
    fx: Vec<Effect>,
}

fn run(config: &str) -> Run {
    let config: StreamConfig = serde_json::from_str(config).expect(config);
    let config = check(&config, StreamLimits::default(), false).expect("the configuration is valid");
    Run { stream: Stream::new(config, Time(SECOND)), index: 0, now: Time(SECOND), fx: Vec::new() }
}

/// A header block from `A: b|C: d`.
fn header(fields: &str) -> String {
    match fields {
        "" => String::new(),
        fields => format!("NATS/1.0\r\n{}\r\n\r\n", fields.replace('|', "\r\n")),
    }
}

impl Run {
    fn apply(&mut self, command: Command) -> Answer {
        // Everything goes through its bytes, as it does in the log.
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        let command = Command::decode(&bytes.into()).expect("just encoded");
        self.index += 1;
        self.now = self.now + Span::from_millis(1);
        self.fx.clear();
        self.stream.apply(LogIndex(self.index), command, &mut self.fx)
    }

    fn publish(&mut self, subject: &str, fields: &str, payload: &str) -> String {
        let header = header(fields);
        let record = hw_store::Record::join(subject.as_bytes(), header.as_bytes(), payload.as_bytes());
        match self.apply(Command::Publish { ts: self.now, record: record.expect("it is short") }) {
            Answer::Published(Ok(stored)) if stored.duplicate => format!("dup {}", stored.seq),
            Answer::Published(Ok(Stored { seq, val: Some(val), .. })) => format!("{seq} {val}"),
            Answer::Published(Ok(stored)) => stored.seq.to_string(),
            Answer::Published(Err(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn all(&mut self, subjects: &str) {
        for subject in subjects.split(' ') {
            self.publish(subject, "", "");
        }
    }

    fn purge(&mut self, filter: &'static str, seq: u64, keep: u64) -> String {
        let filter = Bytes::from_static(filter.as_bytes());
        match self.apply(Command::Purge { ts: self.now, filter, seq: Seq(seq), keep }) {
            Answer::Purged(Ok(count)) => count.to_string(),
            Answer::Purged(Err(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn delete(&mut self, seq: u64) -> String {
        match self.apply(Command::DeleteMessage { ts: self.now, seq: Seq(seq), erase: true }) {
            Answer::MessageDeleted(Ok(())) => "ok".to_owned(),
            Answer::MessageDeleted(Err(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// Expires at so many seconds from now.
    fn after(&mut self, seconds: f64) {
        self.now = self.now + Span((seconds * SECOND as f64) as i64);
        self.apply(Command::Expire { ts: self.now });
    }

    fn configure(&mut self, config: &str) -> Result<(), ConfigError> {
        let config: StreamConfig = serde_json::from_str(config).expect(config);
        let old = self.stream.config().clone();
        let config = check_update(&old, &config, self.stream.consumers(), StreamLimits::default(), false)?;
        let config = serde_json::to_vec(&config).expect("it was read before").into();
        self.apply(Command::Configure { ts: self.now, revision: self.stream.revision() + 1, config });
        Ok(())
    }

    fn consumer(&mut self, config: &str) -> String {
        let config = Bytes::copy_from_slice(config.as_bytes());
        let value: serde_json::Value = serde_json::from_slice(&config).expect("it is JSON");
        let name = Bytes::copy_from_slice(value["durable_name"].as_str().expect("it has a name").as_bytes());
        let (action, pedantic) = (Default::default(), false);
        match self.apply(Command::PutConsumer { ts: self.now, name, action, pedantic, config }) {
            Answer::ConsumerPut(Ok(put)) => if put.created { "created" } else { "updated" }.to_owned(),
            Answer::ConsumerPut(Err(error)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn deliver(&mut self, consumer: &'static str, seqs: &[u64]) {
        let seqs = seqs.iter().copied().map(Seq).collect();
        let consumer = Bytes::from_static(consumer.as_bytes());
        self.apply(Command::Delivered { ts: self.now, consumer, seqs });
    }

    fn settle(&mut self, consumer: &'static str, seqs: &[u64], verdict: Verdict) {
        let ack = |seq: &u64| Settlement { seq: Seq(*seq), consumer_seq: *seq, verdict: verdict.clone() };
        let acks = seqs.iter().map(ack).collect();
        let consumer = Bytes::from_static(consumer.as_bytes());
        self.apply(Command::Settled { ts: self.now, consumer, acks });
    }

    /// `messages/bytes first..last -deleted`.
    fn state(&self) -> String {
        let s = self.stream.messages().state();
        let gaps: Vec<String> = self.stream.messages().deleted().iter().map(Seq::to_string).collect();
        let gaps = if gaps.is_empty() { String::new() } else { format!(" -{}", gaps.join(",")) };
        format!("{}/{} {}..{}{gaps}", s.messages, s.bytes, s.first_seq, s.last_seq)
    }

    /// Every message: `seq subject header-fields`.
    fn dump(&self) -> Vec<String> {
        let show = |seq: Seq| match self.stream.get(seq) {
            hw_store::messages::Fetch::Message(message) => {
                let header = String::from_utf8_lossy(message.record.header()).into_owned();
                let fields = header.trim_start_matches("NATS/1.0").trim().replace("\r\n", "|");
                let subject = String::from_utf8_lossy(message.record.subject()).into_owned();
                format!("{seq} {subject} {fields}").trim_end().to_owned()
            }
            other => panic!("{seq}: {other:?}"),
        };
        self.stream.messages().seqs().map(show).collect()
    }

    fn sent(&self) -> Vec<String> {
        let show = |effect: &Effect| match effect {
            Effect::Send { to, header, payload, .. } => {
                let header = String::from_utf8_lossy(header).into_owned();
                let stamp = self.stream.clock.to_rfc3339();
                let fields = header.trim_start_matches("NATS/1.0").trim().replace("\r\n", "|");
                let fields = fields.replace(&stamp, "NOW");
                Some(format!("{} {fields} {}", String::from_utf8_lossy(to), String::from_utf8_lossy(payload)))
            }
            _ => None,
        };
        self.fx.iter().filter_map(show).collect()
    }
}

#[test]
fn refusals_come_in_order() {
    // Each row breaks its rule and those of all rows below it: the first one counts.
    let rows = [
        ("", "stream is sealed"),
        ("", "message larger than max_msg_size"),
        ("Nats-Batch-Id: b", "atomic publish is disabled"),
        ("Nats-Incr: 1", "message counters are disabled"),
        ("Nats-Expected-Stream: Q", "expected stream does not match"),
        ("Nats-TTL: 5", "per-message TTL is disabled"),
        ("Nats-Expected-Last-Subject-Sequence-Subject: p.x", ""),
        ("Nats-Expected-Last-Subject-Sequence: 77", "wrong last sequence: 0"),
        ("Nats-Expected-Last-Sequence: 77", "wrong last sequence: 1"),
        ("Nats-Schedule: @every 5s", "message schedules are disabled"),
        ("Nats-Stream-Source: a 1", "stream source header not allowed"),
        ("Nats-Msg-Id: m1", "dup 1"),
        ("Nats-Expected-Last-Msg-Id: zz", "wrong last message id: m1"),
        ("Nats-Rollup: sub", "rollup: rollup not permitted"),
        ("", "maximum messages exceeded"),
    ];
    for (at, (_, expected)) in rows.iter().enumerate().filter(|(_, (_, expected))| !expected.is_empty()) {
        let config = r#"{"name":"P","subjects":["p.>"],"max_msg_size":2000,"max_msgs":1,"discard":"new"}"#;
        let mut run = run(config);
        run.publish("p.a", "Nats-Msg-Id: m1", "");
        if at == 0 {
            run.configure(r#"{"name":"P","subjects":["p.>"],"sealed":true}"#).expect("it can be sealed");
        }
        let fields: Vec<&str> =
            rows[at..].iter().map(|row| row.0).filter(|field| !field.is_empty()).collect();
        let payload = if at <= 1 { "x".repeat(3000) } else { String::new() };
        assert_eq!(run.publish("p.b", &fields.join("|"), &payload), *expected, "row {at}");
        assert_eq!(run.stream.messages().last_seq(), Seq(1));
    }
}

#[test]
fn an_invalid_ttl_is_noticed_last() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"]}"#);
    run.publish("p.a", "Nats-Msg-Id: m1", "");
    for (fields, expected) in [
        ("Nats-TTL: x", "invalid per-message TTL"),
        ("Nats-TTL: x|Nats-Msg-Id: m1", "dup 1"),
        ("Nats-TTL: x|Nats-Expected-Last-Sequence: 9", "wrong last sequence: 1"),
        ("Nats-TTL: x|Nats-Rollup: sub", "rollup: rollup not permitted"),
        ("Nats-TTL: 0", "invalid per-message TTL"),
        ("Nats-TTL: ", "2"),
        ("nats-ttl: x", "3"),
    ] {
        assert_eq!(run.publish("p.a", fields, ""), expected, "{fields}");
    }
}

#[test]
fn headers_have_a_limit() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"]}"#);
    let of = |bytes: usize| format!("X: {}", "y".repeat(bytes - 17));
    assert_eq!(run.publish("p.a", &of(65_535), ""), "1");
    assert_eq!(run.publish("p.a", &of(65_536), ""), "header larger than 65,535 bytes");
    let batch = format!("{}|Nats-Batch-Id: b", of(65_536));
    assert_eq!(run.publish("p.a", &batch, ""), "atomic publish is disabled");
}

#[test]
fn expectations() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"]}"#);
    let wrong = |seq: u64| format!("wrong last sequence: {seq}");
    run.all("p.a p.a");
    for (fields, expected) in [
        ("Nats-Expected-Last-Sequence: 0", wrong(2)),
        ("Nats-Expected-Last-Sequence: 2", "3".into()),
        ("Nats-Expected-Last-Sequence: x", wrong(3)),
        ("Nats-Expected-Last-Sequence: -1", wrong(3)),
        ("Nats-Expected-Last-Sequence: ", "4".into()),
        ("Nats-Expected-Last-Subject-Sequence: 4", "5".into()),
        ("Nats-Expected-Last-Subject-Sequence: x", wrong(5)),
        ("Nats-Expected-Last-Subject-Sequence: ", "6".into()),
        ("Nats-Expected-Last-Subject-Sequence: 1|Nats-Expected-Last-Subject-Sequence-Subject: p.*", wrong(6)),
        (
            "Nats-Expected-Last-Subject-Sequence: 2|Nats-Expected-Last-Subject-Sequence-Subject: p.a",
            "7".into(),
        ),
        ("Nats-Expected-Last-Subject-Sequence: 1|Nats-Expected-Last-Subject-Sequence-Subject: p..", wrong(0)),
        ("Nats-Expected-Last-Subject-Sequence: 0|Nats-Expected-Last-Subject-Sequence-Subject: q", "8".into()),
        ("Nats-Expected-Stream: ", "9".into()),
        ("Nats-Expected-Stream: p", "expected stream does not match".into()),
    ] {
        assert_eq!(run.publish("p.b", fields, ""), expected, "{fields}");
    }
    let alone = run.publish("p.b", "Nats-Expected-Last-Subject-Sequence-Subject: p.a", "");
    assert_eq!(alone, PublishError::ExpectedSubjectAlone.to_string());
}

#[test]
fn message_ids() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"],"duplicate_window":1000000000}"#);
    for (fields, expected) in [
        ("Nats-Expected-Last-Msg-Id: zz", "wrong last message id: "),
        ("Nats-Expected-Last-Msg-Id: ", "1"),
        ("Nats-Msg-Id: A", "2"),
        ("Nats-Expected-Last-Msg-Id: A", "3"),
        ("Nats-Expected-Last-Msg-Id: A", "wrong last message id: "),
        ("Nats-Msg-Id: A|Nats-Expected-Last-Msg-Id: x", "dup 2"),
        ("Nats-Msg-Id: ", "4"),
        ("Nats-Msg-Id: ", "5"),
        ("Nats-Msg-Id: B", "6"),
    ] {
        assert_eq!(run.publish("p.a", fields, ""), expected, "{fields}");
    }
    // Neither deletion nor a restart makes an id new again; time does.
    assert_eq!(run.delete(6), "ok");
    assert_eq!(run.publish("p.a", "Nats-Msg-Id: B", ""), "dup 6");
    assert_eq!(run.purge("", 0, 0), "5");
    let mut run = Run { stream: restored(&run.stream), ..run };
    assert_eq!(run.publish("p.a", "Nats-Msg-Id: B", ""), "dup 6");
    assert_eq!(run.publish("p.a", "Nats-Expected-Last-Msg-Id: B", ""), "7");
    run.after(1.0);
    assert_eq!(run.publish("p.a", "Nats-Msg-Id: B", ""), "8");
}

#[test]
fn rollups() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"],"allow_rollup_hdrs":true}"#);
    for (value, expected) in [
        ("sub", "2/100 2..3"),
        ("SUB", "3/133 2..6 -3,4"),
        ("all", "1/67 9..9"),
        ("ALL", "1/67 12..12"),
        ("foo", "3/133 12..14"),
        ("", "6/263 12..17"),
    ] {
        run.all("p.a p.b");
        let answer = run.publish("p.a", &format!("Nats-Rollup: {value}"), "");
        assert_eq!(answer.starts_with("rollup"), value == "foo");
        assert_eq!(run.state(), expected, "{value}");
    }
    assert_eq!(run.publish("p.a", "Nats-Rollup: foo", ""), "rollup: rollup value invalid: \"foo\"");
}

#[test]
fn limits_discard_old() {
    type Step<'a> = (&'a str, usize, &'a str);
    let cases: [(&str, &[Step<'_>]); 4] = [
        (r#""max_msgs":2"#, &[("p.a", 0, "1/33 1..1"), ("p.b", 0, "2/66 1..2"), ("p.c", 0, "2/66 2..3")]),
        (
            r#""max_bytes":100"#,
            &[
                ("p.a", 10, "1/43 1..1"),
                ("p.b", 10, "2/86 1..2"),
                ("p.c", 200, "0/0 4..3"),
                ("p.d", 10, "1/43 4..4"),
                ("p.e", 67, "1/100 5..5"),
                ("p.e", 68, "0/0 7..6"),
            ],
        ),
        (
            r#""max_msgs_per_subject":2,"max_msgs":3,"max_bytes":120"#,
            &[
                ("p.a", 0, "1/33 1..1"),
                ("p.a", 0, "2/66 1..2"),
                ("p.a", 0, "2/66 2..3"),
                ("p.b", 0, "3/99 2..4"),
                ("p.c", 0, "3/99 3..5"),
            ],
        ),
        (
            r#""max_msgs_per_subject":1,"max_bytes":100"#,
            &[
                ("p.a", 20, "1/53 1..1"),
                ("p.b", 10, "2/96 1..2"),
                ("p.a", 20, "2/96 2..3"),
                ("p.a", 21, "2/97 2..4 -3"),
                ("p.a", 67, "1/100 5..5"),
                ("p.a", 60, "1/93 6..6"),
            ],
        ),
    ];
    for (limits, steps) in cases {
        let mut run = run(&format!(r#"{{"name":"P","subjects":["p.>"],{limits}}}"#));
        for (at, (subject, size, expected)) in steps.iter().enumerate() {
            assert_eq!(run.publish(subject, "", &"x".repeat(*size)), (at + 1).to_string());
            assert_eq!(run.state(), *expected, "{limits}, step {at}");
        }
    }
}

#[test]
fn limits_discard_new() {
    let (full, large) = ("maximum messages exceeded", "maximum bytes exceeded");
    let per_subject = "maximum messages per subject exceeded";
    type Step<'a> = (&'a str, usize, &'a str);
    let cases: [(&str, &[Step<'_>]); 6] = [
        (r#""max_msgs":2"#, &[("p.a", 0, "1"), ("p.b", 0, "2"), ("p.c", 0, full)]),
        (
            r#""max_bytes":100"#,
            &[("p.a", 10, "1"), ("p.b", 10, "2"), ("p.c", 200, large), ("p.d", 10, large)],
        ),
        (
            r#""max_msgs_per_subject":1,"max_msgs":2,"allow_rollup_hdrs":true"#,
            &[
                ("p.a", 0, "1"),
                ("p.b", 0, "2"),
                ("p.a", 0, "3"),
                ("p.c", 0, full),
                ("p.b", 0, "4"),
                ("ROLLUP p.a", 0, "5"),
                ("ROLLUP p.d", 0, full),
            ],
        ),
        (
            r#""max_msgs_per_subject":2,"max_msgs":3,"max_bytes":120"#,
            &[("p.a", 0, "1"), ("p.a", 0, "2"), ("p.a", 0, "3"), ("p.b", 0, "4"), ("p.b", 0, full)],
        ),
        (
            r#""max_msgs_per_subject":1,"max_bytes":100"#,
            &[("p.a", 20, "1"), ("p.b", 10, "2"), ("p.a", 20, "3"), ("p.a", 21, large), ("p.a", 60, large)],
        ),
        (
            r#""max_msgs_per_subject":1,"max_msgs":3,"discard_new_per_subject":true,"allow_rollup_hdrs":true"#,
            &[
                ("p.a", 0, "1"),
                ("p.b", 0, "2"),
                ("p.c", 0, "3"),
                ("p.a", 0, per_subject),
                ("p.d", 0, full),
                ("ROLLUP p.a", 0, "4"),
            ],
        ),
    ];
    for (limits, steps) in cases {
        let mut run = run(&format!(r#"{{"name":"P","subjects":["p.>"],"discard":"new",{limits}}}"#));
        for (at, (subject, size, expected)) in steps.iter().enumerate() {
            let fields = if subject.starts_with("ROLLUP") { "Nats-Rollup: sub" } else { "" };
            let subject = subject.trim_start_matches("ROLLUP ");
            assert_eq!(run.publish(subject, fields, &"x".repeat(*size)), *expected, "{limits}, step {at}");
        }
    }
}

#[test]
fn shrinking_limits_remove_at_once() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"]}"#);
    for n in 0..10 {
        run.publish(&format!("p.{}", n % 3), "", "xxxxxxxxxx");
    }
    for (limits, expected) in [
        (r#""max_msgs":8"#, "8/344 3..10"),
        (r#""max_msgs_per_subject":2"#, "6/258 5..10"),
        (r#""max_bytes":150"#, "3/129 8..10"),
        (r#""max_msgs":2,"discard":"new""#, "3/129 8..10"),
        (r#""max_msg_size":5"#, "3/129 8..10"),
        (r#""description":"unlimited""#, "3/129 8..10"),
    ] {
        run.configure(&format!(r#"{{"name":"P","subjects":["p.>"],{limits}}}"#)).expect(limits);
        assert_eq!(run.state(), expected, "{limits}");
    }
}

#[test]
fn purges() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"]}"#);
    run.all("p.0 p.1 p.2 p.0 p.1 p.2 p.0 p.1 p.2 p.0");
    for (filter, seq, keep, purged, expected) in [
        ("p.1", 0, 1, "2", "8/264 1..10 -2,5"),
        ("p.*", 5, 0, "3", "5/165 6..10"),
        ("p.*", 0, 2, "3", "2/66 9..10"),
        ("zz", 0, 0, "0", "2/66 9..10"),
        ("*.*.", 0, 1, "0", "2/66 9..10"),
        ("", 0, 5, "0", "2/66 9..10"),
        ("", 3, 3, "bad request", "2/66 9..10"),
        ("", 10, 0, "1", "1/33 10..10"),
        ("", 1000, 0, "1", "0/0 1000..999"),
        ("", 0, 0, "0", "0/0 1000..999"),
        ("p.*", 2000, 0, "0", "0/0 1000..999"),
    ] {
        assert_eq!(run.purge(filter, seq, keep), purged, "{filter} {seq} {keep}");
        assert_eq!(run.state(), expected, "{filter} {seq} {keep}");
    }
    assert_eq!(run.publish("p.a", "", ""), "1000");
}

#[test]
fn deletes_and_denials() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"]}"#);
    run.all("p.a p.b p.c");
    assert_eq!(run.delete(2), "ok");
    assert_eq!(run.state(), "2/66 1..3 -2");
    assert_eq!(run.delete(2), "sequence 2 not found");
    assert_eq!(run.delete(77), "sequence is not in the stream's range");
    assert_eq!(run.delete(3), "ok");
    assert_eq!(run.state(), "1/33 1..3 -2,3");
    assert_eq!(run.delete(1), "ok");
    assert_eq!(run.state(), "0/0 4..3");
    run.configure(r#"{"name":"P","subjects":["p.>"],"deny_delete":true,"deny_purge":true}"#).expect("valid");
    assert_eq!(run.delete(9), "message delete not permitted");
    assert_eq!(run.purge("", 0, 0), "stream purge not permitted");
    let sealed = r#"{"name":"P","subjects":["p.>"],"deny_delete":true,"deny_purge":true,"sealed":true}"#;
    run.configure(sealed).expect("valid");
    assert_eq!((run.delete(9), run.purge("", 0, 0)), ("stream is sealed".into(), "stream is sealed".into()));
}

#[test]
fn first_seq_and_empty_numbering() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"],"first_seq":100}"#);
    assert_eq!(run.state(), "0/0 100..99");
    assert_eq!(run.publish("p.a", "", ""), "100");
    assert_eq!(run.state(), "1/33 100..100");
}

#[test]
fn max_age_and_ttl() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"],"max_age":5000000000,"allow_msg_ttl":true}"#);
    run.publish("p.a", "", "");
    run.publish("p.b", "Nats-TTL: 2", "");
    run.publish("p.c", "Nats-TTL: never", "");
    run.publish("p.d", "Nats-TTL: 1h", "");
    let deadline = run.stream.next_deadline().expect("p.b leaves first").since(run.now);
    assert!((Span::from_millis(1900)..Span::from_secs(2)).contains(&deadline), "{deadline:?}");
    run.after(1.9);
    assert_eq!(run.dump().len(), 4);
    run.after(0.2);
    assert_eq!(run.dump(), ["1 p.a", "3 p.c Nats-TTL: never", "4 p.d Nats-TTL: 1h"]);
    let mut run = Run { stream: restored(&run.stream), ..run };
    run.after(3.0);
    assert_eq!(run.dump(), ["3 p.c Nats-TTL: never"]);
    assert_eq!(run.stream.next_deadline(), None);
    run.after(3600.0);
    assert_eq!(run.state(), "1/66 3..4 -4");
}

#[test]
fn markers_follow_the_last_message() {
    let marker = "Nats-Marker-Reason: MaxAge|Nats-TTL: 1s|Nats-Rollup: sub";
    for ttl in ["", "|Nats-TTL: 1"] {
        let age = if ttl.is_empty() { r#","max_age":1000000000"# } else { "" };
        let mut run = run(&format!(
            r#"{{"name":"P","subjects":["p.>"],"subject_delete_marker_ttl":1000000000,"max_msgs_per_subject":5{age}}}"#
        ));
        assert!(run.stream.config().allow_msg_ttl && run.stream.config().allow_rollup_hdrs);
        for (subject, fields) in [
            ("p.a", "KV-Operation: PURGE"),
            ("p.b", "KV-Operation: DEL"),
            ("p.c", "Nats-Marker-Reason: Purge"),
            ("p.e", "X: y"),
        ] {
            run.publish(subject, &format!("{fields}{ttl}"), "");
        }
        run.after(1.1);
        assert_eq!(run.dump(), [format!("5 p.b {marker}"), format!("6 p.e {marker}")], "{ttl}");
        run.after(1.1);
        assert_eq!(run.state(), "0/0 7..6", "a marker has no marker");
    }
}

#[test]
fn short_ttls_are_raised_to_the_markers() {
    for (limit, marker, fields, expected) in [
        (1, 5_000, "X: y|Nats-TTL: 1|Z: z", "X: y|Nats-TTL: 1|Z: z"),
        (2, 5_000, "X: y|Nats-TTL: 1|Z: z", "X: y|Z: z|Nats-TTL: 5"),
        (-1, 5_000, "X: y|Nats-TTL: 1|Z: z", "X: y|Z: z|Nats-TTL: 5"),
        (2, 5_000, "Nats-TTL: never", "Nats-TTL: never"),
        (2, 5_000, "Nats-TTL: 10", "Nats-TTL: 10"),
        (2, 1_500, "Nats-TTL: 1", "Nats-TTL: 1"),
        (2, 90_000, "Nats-TTL: 1", "Nats-TTL: 90"),
    ] {
        let marker = marker * 1_000_000i64;
        let mut run = run(&format!(
            r#"{{"name":"P","subjects":["p.>"],"subject_delete_marker_ttl":{marker},"max_msgs_per_subject":{limit}}}"#
        ));
        run.publish("p.a", fields, "");
        assert_eq!(run.dump(), [format!("1 p.a {expected}")]);
    }
}

#[test]
fn inline_status_is_not_stored() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"]}"#);
    let blocks: [(&[u8], &[u8]); 3] = [
        (b"NATS/1.0 200 OK\r\nA: b\r\n\r\n", b"NATS/1.0\r\nA: b\r\n\r\n"),
        (b"NATS/1.0 503\r\n\r\n", b""),
        (b"garbage", b"garbage"),
    ];
    for (at, (block, expected)) in blocks.into_iter().enumerate() {
        let record = hw_store::Record::join(b"p.a", block, b"body").expect("it is short");
        run.apply(Command::Publish { ts: run.now, record });
        let hw_store::messages::Fetch::Message(message) = run.stream.get(Seq(at as u64 + 1)) else {
            panic!("message {at} was not stored")
        };
        assert_eq!((message.record.header(), message.record.payload()), (expected, &b"body"[..]));
    }
}

#[test]
fn republish_and_transform() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"],"republish":{"src":"p.>","dest":"r.>"}}"#);
    run.publish("p.a.b", "", "hello");
    let first = "r.a.b Nats-Stream: P|Nats-Subject: p.a.b|Nats-Sequence: 1|Nats-Time-Stamp: NOW|Nats-Last-Sequence: 0 hello";
    assert_eq!(run.sent(), [first]);
    run.publish("p.a.b", "A: b", "hi");
    let second = "r.a.b A: b|Nats-Stream: P|Nats-Subject: p.a.b|Nats-Sequence: 2|Nats-Time-Stamp: NOW|Nats-Last-Sequence: 1 hi";
    assert_eq!(run.sent(), [second]);
    run.configure(
        r#"{"name":"P","subjects":["p.>"],"republish":{"src":"p.*.b","dest":"r.{{wildcard(1)}}","headers_only":true}}"#,
    )
    .expect("valid");
    run.publish("p.a.c", "", "x");
    assert_eq!(run.sent(), Vec::<String>::new());
    run.publish("p.a.b", "", "hello");
    let third = "r.a Nats-Stream: P|Nats-Subject: p.a.b|Nats-Sequence: 4|Nats-Time-Stamp: NOW|Nats-Last-Sequence: 2|Nats-Msg-Size: 5 ";
    assert_eq!(run.sent(), [third]);
    run.configure(
        r#"{"name":"P","subjects":["p.>"],"republish":{"src":"p.>","dest":"r.>"},
            "subject_transform":{"src":"p.*.*","dest":"q.{{wildcard(2)}}.{{wildcard(1)}}"}}"#,
    )
    .expect("valid");
    run.publish("p.a.b", "", "1");
    assert_eq!((run.sent(), run.dump().pop()), (Vec::new(), Some("5 q.b.a".to_owned())));
    run.publish("p.a", "", "1");
    assert_eq!((run.sent().len(), run.dump().pop()), (1, Some("6 p.a".to_owned())));
}

#[test]
fn interest_retention() {
    let mut run =
        run(r#"{"name":"P","subjects":["p.>"],"retention":"interest","max_msgs":2,"discard":"new"}"#);
    assert_eq!(run.publish("p.a", "Nats-Msg-Id: A", ""), "1");
    assert_eq!(run.publish("p.a", "Nats-Msg-Id: A", ""), "dup 1");
    assert_eq!(run.state(), "0/0 2..1");
    assert_eq!(
        run.consumer(r#"{"durable_name":"c1","ack_policy":"explicit","filter_subject":"p.b"}"#),
        "created"
    );
    assert_eq!(run.consumer(r#"{"durable_name":"c2","ack_policy":"explicit"}"#), "created");
    run.all("p.a p.b");
    assert_eq!(run.state(), "2/66 2..3");
    assert_eq!(run.publish("p.c", "", ""), "maximum messages exceeded");
    run.deliver("c2", &[2, 3]);
    run.settle("c2", &[2, 3], Verdict::Ack);
    assert_eq!(run.state(), "1/33 3..3", "c1 still needs p.b");
    run.deliver("c1", &[3]);
    run.settle("c1", &[3], Verdict::Term(Bytes::new()));
    assert_eq!(run.state(), "0/0 4..3");
    run.all("p.b");
    run.deliver("c1", &[4]);
    run.settle("c1", &[4], Verdict::Ack);
    assert_eq!(run.state(), "1/33 4..4");
    let mut run = Run { stream: restored(&run.stream), ..run };
    run.apply(Command::DeleteConsumer { ts: run.now, name: Bytes::from_static(b"c2") });
    assert_eq!(run.state(), "0/0 5..4");
    assert_eq!(run.publish("p.a", "", ""), "5");
    assert_eq!(run.state(), "0/0 6..5");
}

#[test]
fn workqueue_retention() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"],"retention":"workqueue"}"#);
    run.all("p.a p.b p.c");
    assert_eq!(run.consumer(r#"{"durable_name":"c1","ack_policy":"explicit"}"#), "created");
    assert!(run.consumer(r#"{"durable_name":"c2","ack_policy":"explicit"}"#).contains("10099"));
    run.deliver("c1", &[1, 2, 3]);
    run.settle("c1", &[2], Verdict::Ack);
    assert_eq!(run.state(), "2/66 1..3 -2");
    run.settle("c1", &[1], Verdict::Exhausted);
    assert_eq!(run.state(), "2/66 1..3 -2", "out of deliveries, but not acknowledged");
    run.apply(Command::DeleteConsumer { ts: run.now, name: Bytes::from_static(b"c1") });
    assert_eq!(run.state(), "2/66 1..3 -2", "work waits for the next consumer");
}

#[test]
fn consumers_have_a_limit() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"],"max_consumers":1}"#);
    let config = r#"{"durable_name":"c1","ack_policy":"explicit"}"#;
    assert_eq!(run.consumer(config), "created");
    assert_eq!(run.consumer(config), "updated");
    let more = run.consumer(r#"{"durable_name":"c2","ack_policy":"explicit"}"#);
    assert_eq!(more, "maximum consumers limit reached");
    assert!(run.consumer("{\"durable_name\":\"c2\",\"x\":1}").contains("10025"));
}

#[test]
fn counters() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"],"allow_msg_counter":true,"allow_rollup_hdrs":true}"#);
    let (invalid, missing) = ("message counter increment is invalid", "message counter increment is missing");
    let large = format!("Nats-Incr: {}", "9".repeat(44));
    let back = format!("Nats-Incr: -1{}", "0".repeat(44));
    let sum = format!("8 1{}4", "0".repeat(43));
    for (fields, payload, expected) in [
        ("Nats-Incr: 1", "", "1 1"),
        ("Nats-Incr: +5", "", "2 6"),
        ("Nats-Incr: -2", "", "3 4"),
        ("Nats-Incr: 0", "", "4 4"),
        ("Nats-Incr: 0x10", "", invalid),
        ("Nats-Incr: x|Nats-Expected-Stream: Q", "x", invalid),
        ("Nats-Incr: 1|Nats-Rollup: sub", "x", "message counter has payload"),
        ("Nats-Incr: 1|Nats-Expected-Stream: P", "", invalid),
        ("Nats-Incr: 1|Nats-Expected-Last-Sequence: 4", "", invalid),
        ("Nats-Incr: 1|Nats-Rollup: sub", "", invalid),
        ("Nats-Incr: 1|Nats-TTL: 5", "", "per-message TTL is disabled"),
        ("Nats-Incr: 1|Nats-TTL: x", "", "invalid per-message TTL"),
        ("Nats-TTL: x", "", missing),
        ("Nats-Incr: ", "", missing),
        ("", "x", missing),
        ("Nats-Expected-Stream: Q", "", "expected stream does not match"),
        ("Nats-Incr: 1|Nats-Msg-Id: m1", "", "5 5"),
        ("Nats-Incr: 1|Nats-Msg-Id: m1", "", "dup 5"),
        ("Nats-Incr: 007", "", "6 12"),
        ("Nats-Incr: -7", "", "7 5"),
        (&large, "", &sum),
        (&back, "", "9 4"),
    ] {
        assert_eq!(run.publish("p.a", fields, payload), expected, "{fields}");
    }
    assert_eq!(run.publish("p.b", "Nats-Incr: 3", ""), "10 3");
    let hw_store::messages::Fetch::Message(last) = run.stream.get(Seq(9)) else { panic!("9 is in memory") };
    assert_eq!(last.record.payload(), br#"{"val":"4"}"#);
    // The last message that is left counts, also after a restart.
    run.delete(9);
    let mut run = Run { stream: restored(&run.stream), ..run };
    run.delete(8);
    assert_eq!(run.publish("p.a", "Nats-Incr: 1", ""), "11 6");
    run.purge("p.a", 0, 0);
    assert_eq!(run.publish("p.a", "Nats-Incr: 1", ""), "12 1");
}

#[test]
fn a_counters_total_is_part_of_its_size() {
    for (limit, first, second) in [(36, false, false), (37, true, false), (39, true, true)] {
        let config =
            format!(r#"{{"name":"P","subjects":["p.>"],"allow_msg_counter":true,"max_msg_size":{limit}}}"#);
        let mut run = run(&config);
        assert_eq!(run.publish("p.a", "Nats-Incr: 1", "") == "1 1", first, "{limit}");
        assert_eq!(run.publish("p.a", "Nats-Incr: 9", "").ends_with("10"), second, "{limit}");
    }
}

#[test]
fn batches_are_read() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"]}"#);
    run.all("p.0.a p.1.b p.2.a p.0.b p.1.a p.2.b p.0.a p.1.b p.2.a p.0.b");
    run.delete(4);
    let read = |batch: Result<BatchRead, BatchRefused>| {
        let mut batch = batch.expect("something matches");
        let mut steps = Vec::new();
        loop {
            match run.stream.batch_step(&mut batch) {
                BatchStep::Message { message, pending, last } => {
                    steps.push(format!("{} {pending} {last}", message.seq));
                }
                BatchStep::End(end) => {
                    let up_to = end.up_to.map_or(String::new(), |seq| format!(" {seq}"));
                    steps.push(format!("EOB {} {}{up_to}", end.pending, end.last));
                    return steps.join(", ");
                }
                BatchStep::Load(_) | BatchStep::Damaged => panic!("all is in memory"),
            }
        }
    };
    let s = &run.stream;
    assert_eq!(read(s.batch_read(Seq(1), "", 3, 0)), "1 8 0, 2 7 1, 3 6 2, EOB 6 3");
    assert_eq!(read(s.batch_read(Seq(3), "", 3, 0)), "3 6 0, 5 5 3, 6 4 5, EOB 4 6");
    assert_eq!(read(s.batch_read(Seq(0), "p.1.*", 2, 0)), "2 2 0, 5 1 2, EOB 1 5");
    assert_eq!(read(s.batch_read(Seq(0), "p.1.*", 9, 0)), "2 2 0, 5 1 2, 8 0 5, EOB 0 8");
    assert_eq!(read(s.batch_read(Seq(1), "", 9, 8)), "1 8 0, 2 7 1, EOB 7 2");
    assert_eq!(s.batch_read(Seq(20), "", 3, 0).err(), Some(BatchRefused::Nothing));
    let now = (Seq(0), Seq(0));
    assert_eq!(read(s.multi_last(&["p.1.*"], now, 0, 0)), "5 1 0, 8 0 5, EOB 0 8 10");
    assert_eq!(read(s.multi_last(&["p.>"], (Seq(0), Seq(5)), 0, 0)), "1 3 0, 2 2 1, 3 1 2, 5 0 3, EOB 0 5 5");
    assert_eq!(read(s.multi_last(&["p.>"], (Seq(7), Seq(0)), 2, 0)), "7 3 0, 8 2 7, EOB 2 8 10");
    assert_eq!(s.multi_last(&["zz"], now, 0, 0).err(), Some(BatchRefused::Nothing));
    assert_eq!(s.multi_last(&["p.>"], (Seq(0), Seq(100)), 0, 0).err(), Some(BatchRefused::Nothing));
    assert_eq!(s.last_by_subject("p.1.*"), Some(Seq(8)));
    assert_eq!(
        (s.next_by_subject(Seq(6), "p.1.*"), s.next_by_subject(Seq(9), "p.1.*")),
        (Some(Seq(8)), None)
    );
}

/// The stream through its snapshot; the messages go over one by one, as those of memory streams do.
fn restored(stream: &Stream) -> Stream {
    let mut bytes = Vec::new();
    stream.snapshot(&mut bytes);
    let mut restore = StreamRestore::open(&bytes.into()).expect("just written");
    for seq in stream.messages().seqs() {
        let hw_store::messages::Fetch::Message(message) = stream.get(seq) else {
            panic!("{seq} is in memory")
        };
        restore.messages.add_message(message).expect("in order");
    }
    let (back, lost) = restore.finish(None).expect("just written");
    assert_eq!(lost, []);
    assert_eq!(back.fingerprint(), stream.fingerprint());
    assert_eq!(back.digest(), stream.digest());
    assert_eq!(back.messages().state(), stream.messages().state());
    back
}

#[test]
fn damaged_snapshots_never_panic() {
    let mut run = run(r#"{"name":"P","subjects":["p.>"],"allow_msg_ttl":true}"#);
    run.publish("p.a", "Nats-Msg-Id: A|Nats-TTL: 5", "x");
    run.consumer(r#"{"durable_name":"c1","ack_policy":"explicit"}"#);
    let mut bytes = Vec::new();
    run.stream.snapshot(&mut bytes);
    for cut in 0..bytes.len() {
        let cut = Bytes::copy_from_slice(&bytes[..cut]);
        assert!(StreamRestore::open(&cut).is_err());
    }
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1 << bit;
            if let Ok(restore) = StreamRestore::open(&bytes.into()) {
                let _ = restore.finish(None); // It may be read as something else.
            }
        }
    }
}

#[test]
fn what_a_limit_had_removed_leaves_again_after_a_repair() {
    let mut run = run(r#"{"name":"S","subjects":["s.>"],"storage":"file","max_msgs_per_subject":1}"#);
    // Two of these had been removed, when their segment was whole.
    for (seq, subject) in [(1, "s.a"), (2, "s.b"), (3, "s.a"), (4, "s.a")] {
        let record = hw_store::Record::join(subject.as_bytes(), b"", b"x").expect("it is short");
        run.stream.messages_mut().append(Seq(seq), Time(SECOND), record);
    }
    run.stream.enforce_again();
    assert_eq!(run.stream.messages().seqs().collect::<Vec<_>>(), [Seq(2), Seq(4)]);
}
