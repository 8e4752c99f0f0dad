//! Schedules: what holds one, what fires, what it leaves behind.

use std::collections::BTreeSet;

use super::*;

const SCHEDULES: &str =
    r#"{"name":"S","subjects":["s.>","t.>","v.>"],"allow_msg_schedules":true,"allow_msg_ttl":true}"#;

impl Run {
    /// Fires what is due so many seconds from now; the sequences of the schedules.
    fn fire(&mut self, seconds: f64) -> Vec<u64> {
        self.now = self.now + Span((seconds * SECOND as f64) as i64);
        let (mut fired, skip) = (Vec::new(), BTreeSet::new());
        while let Firing::Fire { schedule, command, .. } = self.stream.firing(self.now, &skip) {
            fired.push(schedule.0);
            self.apply(command);
        }
        fired
    }

    fn due(&self) -> Option<String> {
        self.stream.next_schedule(&BTreeSet::new()).map(Time::to_rfc3339)
    }
}

fn at(text: &str) -> Run {
    let mut run = run(SCHEDULES);
    run.now = Time::parse_rfc3339(text).expect(text);
    run
}

#[test]
fn once() {
    let mut run = at("2026-11-26T07:00:00Z");
    let fields = "Nats-Schedule: @at 2026-11-26T08:00:00+00:00|Nats-Schedule-Target: t.a|Foo: bar|\
                  Nats-Schedule-TTL: 100|Nats-Schedule-Rollup: sub|Nats-Expected-Stream: S|Nats-Msg-Id: m";
    assert_eq!(run.publish("s.a", fields, "x"), "1");
    assert_eq!(run.due().as_deref(), Some("2026-11-26T08:00:00Z"));
    assert!(run.fire(3599.9).is_empty());
    assert_eq!(run.fire(1.0), [1]);
    assert_eq!(
        run.dump(),
        ["2 t.a Foo: bar|Nats-Scheduler: s.a|Nats-Schedule-Next: purge|Nats-TTL: 100|Nats-Rollup: sub"]
    );
    assert_eq!(run.due(), None);
}

#[test]
fn again_and_again_without_what_was_missed() {
    let mut run = at("2026-11-26T07:00:00.4Z");
    run.publish("s.a", "Nats-Schedule: @every 10s|Nats-Schedule-Target: t.a", "x");
    assert_eq!(run.fire(10.0), [1]);
    assert_eq!(run.fire(35.0), [1]);
    assert_eq!(run.due().as_deref(), Some("2026-11-26T07:00:55Z"));
    let stored = |next: &str, seq: u64| format!("{seq} t.a Nats-Scheduler: s.a|Nats-Schedule-Next: {next}");
    assert_eq!(run.dump()[1..], [stored("2026-11-26T07:00:20Z", 2), stored("2026-11-26T07:00:55Z", 3)]);
}

#[test]
fn a_source_gives_the_content() {
    let mut run = at("2026-11-26T07:00:00Z");
    let fields = "Nats-Schedule: @every 10s|Nats-Schedule-Target: t.a|Nats-Schedule-Source: v.a|Own: 1";
    run.publish("s.a", fields, "own");
    assert_eq!(run.fire(11.0), [1]);
    run.publish("v.a", "From: v|Nats-Msg-Id: m|Nats-TTL: 50", "source");
    assert_eq!(run.fire(11.0), [1]);
    let fields: Vec<_> =
        run.dump().iter().map(|line| line.split('|').next().unwrap_or("").to_owned()).collect();
    assert_eq!(fields[1..], ["2 t.a Own: 1", "3 v.a From: v", "4 t.a From: v"]);
}

#[test]
fn schedules_end_in_several_ways() {
    let schedule = "Nats-Schedule: @every 10s|Nats-Schedule-Target: t.a";
    let mut run = at("2026-11-26T07:00:00Z");
    // Replaced by another one on its subject.
    run.publish("s.a", schedule, "x");
    run.publish("s.a", schedule, "y");
    assert_eq!(run.fire(11.0), [2]);
    // Deleted, purged, out of time.
    run.delete(2);
    assert_eq!(run.due(), None);
    run.publish("s.a", schedule, "x");
    run.purge("s.a", 0, 0);
    assert_eq!(run.due(), None);
    run.publish("s.a", schedule, "x");
    run.purge("", 0, 0);
    assert_eq!(run.due(), None);
    run.publish("s.a", &format!("{schedule}|Nats-TTL: 5"), "x");
    run.after(6.0);
    assert_eq!(run.due(), None);
    // By a publisher.
    run.publish("s.a", schedule, "x");
    let ends = "Nats-Schedule-Next: purge|Nats-Scheduler: s.a";
    assert_eq!(run.publish("s.a", ends, "x"), "message scheduler is invalid");
    run.publish("t.b", ends, "x");
    assert_eq!(run.due(), None);
    run.publish("s.a", "", "no schedule");
    assert_eq!(run.publish("t.b", ends, "x"), "message scheduler is invalid");
}

#[test]
fn a_stale_or_refused_firing_does_no_harm() {
    let mut run = at("2026-11-26T07:00:00Z");
    run.publish("s.a", "Nats-Schedule: @every 10s|Nats-Schedule-Target: t.a", "x");
    run.now = run.now + Span(11 * SECOND);
    let Firing::Fire { command, .. } = run.stream.firing(run.now, &BTreeSet::new()) else { panic!("due") };
    run.apply(command.clone());
    run.apply(command);
    assert_eq!(run.stream.messages().len(), 2, "fired once");
    // A message that has become too large for its stream is given up, the schedule goes on.
    run.configure(&SCHEDULES.replace("\"name\"", "\"max_msg_size\":10,\"allow_rollup_hdrs\":true,\"name\""))
        .expect("valid");
    let before = run.due();
    assert_eq!(run.fire(10.0), [1]);
    assert_eq!((run.stream.messages().len(), run.due() > before), (2, true));
}

#[test]
fn schedules_are_in_the_snapshot() {
    let mut run = at("2026-11-26T07:00:00Z");
    run.publish("s.a", "Nats-Schedule: @every 10s|Nats-Schedule-Target: t.a", "x");
    run.fire(10.0);
    let (before, due) = (run.stream.schedules.iter().collect::<Vec<_>>(), run.due());
    run.stream = restored(&run.stream);
    assert_eq!((run.stream.schedules.iter().collect::<Vec<_>>(), run.due()), (before, due));
    assert_eq!(run.stream.schedules.iter().len(), 1);
}

#[test]
fn batches_may_hold_schedules() {
    let mut run = run(&SCHEDULES.replace("\"name\"", "\"allow_atomic\":true,\"name\""));
    let schedule = header("Nats-Schedule: @every 10s|Nats-Schedule-Target: t.a");
    let record = |subject: &str| {
        hw_store::Record::join(subject.as_bytes(), schedule.as_bytes(), b"x").expect("it is short")
    };
    let messages = vec![record("s.a"), record("s.b")];
    run.apply(Command::PublishBatch { ts: run.now, messages });
    assert_eq!(run.stream.schedules.iter().len(), 2);
    let messages = vec![record("s.c"), record("s.c")];
    let answer = run.apply(Command::PublishBatch { ts: run.now, messages });
    assert_eq!(answer, Answer::Published(Err(PublishError::Rollup("batch rollup sub invalid".to_owned()))));
    assert_eq!(run.stream.schedules.iter().len(), 2);
}
