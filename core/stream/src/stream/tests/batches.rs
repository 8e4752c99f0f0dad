//! Batches: all or nothing, whatever is wrong, and whatever comes in between.

use super::*;

const ATOMIC: &str = r#"{"name":"S","subjects":["s.>"],"allow_atomic":true,"allow_batched":true,
    "allow_rollup_hdrs":true,"max_msgs_per_subject":-1}"#;

fn record(text: &str) -> hw_store::Record {
    let (subject, fields) = text.split_once(' ').unwrap_or((text, ""));
    hw_store::Record::join(subject.as_bytes(), header(fields).as_bytes(), b"x").expect("it is short")
}

fn records(texts: &[&str]) -> Vec<hw_store::Record> {
    texts.iter().map(|text| record(text)).collect()
}

fn show(result: Result<Stored, PublishError>) -> String {
    match result {
        Ok(stored) => format!("{}{}", stored.seq, if stored.duplicate { " dup" } else { "" }),
        Err(error) => error.to_string(),
    }
}

impl Run {
    fn part(&mut self, texts: &[&str]) {
        let part = Command::BatchPart { ts: self.now, messages: records(texts) };
        assert_eq!(self.apply(part), Answer::Done);
    }

    fn batch(&mut self, texts: &[&str]) -> String {
        match self.apply(Command::PublishBatch { ts: self.now, messages: records(texts) }) {
            Answer::Published(result) => show(result),
            other => panic!("{other:?}"),
        }
    }

    fn run(&mut self, stop: bool, texts: &[&str]) -> Vec<String> {
        match self.apply(Command::PublishRun { ts: self.now, stop, of: None, messages: records(texts) }) {
            Answer::Ran(results) => results.into_iter().map(show).collect(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn one_message_that_is_refused_stores_nothing() {
    for (texts, expected) in [
        (&["s.a", "s.b Nats-Expected-Last-Sequence: 9"][..], "wrong last sequence: 2"),
        (&["s.a", "s.b Nats-Expected-Last-Sequence: 2"], "wrong last sequence"),
        (&["s.a", "s.a Nats-Expected-Last-Subject-Sequence: 1"], "wrong last sequence"),
        (&["s.b", "s.a Nats-Expected-Last-Subject-Sequence: 7"], "wrong last sequence: 1"),
        (&["s.b", "s.c Nats-Expected-Stream: X"], "expected stream does not match"),
        (&["s.b", "s.c Nats-TTL: 5"], "per-message TTL is disabled"),
        (
            &["s.a Nats-Msg-Id: m", "s.a Nats-Msg-Id: m"],
            "atomic publish batch contains a duplicate message id",
        ),
        (&["s.b Nats-Msg-Id: first"], "atomic publish batch contains a duplicate message id"),
        (
            &["s.b", "s.c Nats-Expected-Last-Msg-Id: m"],
            "atomic publish does not support the header Nats-Expected-Last-Msg-Id",
        ),
        (&["s.b", "s.b Nats-Rollup: sub"], "rollup: batch rollup sub invalid"),
        (&["s.b", "s.c Nats-Rollup: all"], "rollup: batch rollup all invalid"),
        (&["s.b Nats-Incr: 1"], "message counters are disabled"),
        (&["s.b", "s.c Nats-Schedule: @every 1s"], "message schedules are disabled"),
        (&[], "atomic publish batch is incomplete"),
    ] {
        let mut run = run(ATOMIC);
        run.publish("s.a", "Nats-Msg-Id: first", "x");
        let before = run.dump();
        assert_eq!(run.batch(texts), expected, "{texts:?}");
        assert_eq!(run.dump(), before, "{texts:?}");
        assert_eq!(run.publish("s.a", "", "x"), "2", "{texts:?}");
        // Nor are its ids remembered.
        assert_eq!(run.publish("s.a", "Nats-Msg-Id: m", "x"), "3", "{texts:?}");
    }
}

#[test]
fn a_batch_is_stored_with_everything_that_it_means() {
    let mut run = run(ATOMIC);
    run.all("s.a s.b");
    assert_eq!(run.batch(&["s.c Nats-Msg-Id: m", "s.a Nats-Rollup: sub", "s.b"]), "5");
    assert_eq!(run.dump(), ["2 s.b", "3 s.c Nats-Msg-Id: m", "4 s.a Nats-Rollup: sub", "5 s.b"]);
    assert_eq!(run.publish("s.x", "Nats-Msg-Id: m", "x"), "dup 3");
    let mut counters =
        super::run(r#"{"name":"C","subjects":["c"],"allow_atomic":true,"allow_msg_counter":true}"#);
    let count = |by: &str| hw_store::Record::join(b"c", header(&format!("Nats-Incr: {by}")).as_bytes(), b"");
    let messages = vec![count("2").expect("short"), count("3").expect("short")];
    counters.apply(Command::PublishBatch { ts: counters.now, messages });
    assert_eq!(counters.publish("c", "Nats-Incr: 4", ""), "3 9");
}

#[test]
fn parts_belong_to_the_batch_right_behind_them() {
    let mut run = run(ATOMIC);
    run.part(&["s.a", "s.b"]);
    run.part(&["s.c"]);
    assert_eq!(run.state(), "0/0 0..0");
    assert_eq!(run.batch(&["s.d"]), "4");
    run.part(&["s.a", "s.b"]);
    run.after(0.1);
    assert_eq!(run.batch(&["s.d"]), "5", "what is in between drops them");
    run.part(&["s.a", "s.b Nats-Expected-Last-Sequence: 99"]);
    assert_eq!(run.batch(&["s.d"]), "wrong last sequence: 6");
    assert_eq!(run.batch(&["s.d"]), "6", "a refused batch leaves nothing behind");
    assert_eq!(run.stream.messages().len(), 6);
}

#[test]
fn parts_are_in_the_snapshot() {
    let mut run = run(ATOMIC.replace("{\"name\"", "{\"storage\":\"memory\",\"name\"").as_str());
    run.part(&["s.a", "s.b"]);
    run.stream = restored(&run.stream);
    assert_eq!(run.batch(&["s.d"]), "3");
    assert_eq!(run.dump(), ["1 s.a", "2 s.b", "3 s.d"]);
}

#[test]
fn runs_stop_or_go_on() {
    for (stop, expected, left) in [
        (true, &["1", "wrong last sequence: 1"][..], 1),
        (false, &["1", "wrong last sequence: 1", "1 dup", "2"], 2),
    ] {
        let mut run = run(ATOMIC);
        let texts = ["s.a Nats-Msg-Id: m", "s.b Nats-Expected-Last-Sequence: 9", "s.c Nats-Msg-Id: m", "s.d"];
        assert_eq!(run.run(stop, &texts), expected);
        assert_eq!(run.stream.messages().len(), left);
    }
}

#[test]
fn streams_that_do_not_allow_batches() {
    let mut run = run(r#"{"name":"S","subjects":["s.>"]}"#);
    assert_eq!(run.batch(&["s.a"]), "atomic publish is disabled");
    assert_eq!(run.run(false, &["s.a", "s.b"]), ["batch publish is disabled"; 2]);
    assert_eq!(run.publish("s.a", "Nats-Batch-Id: b", "x"), "atomic publish is disabled");
    assert_eq!(run.publish("s.a", "Nats-Batch-Id: ", "x"), "1", "no id is none");
}
