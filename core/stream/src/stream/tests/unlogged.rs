//! Consumers whose deliveries are not in the log one by one: on every replica the state is what the log says, whatever the
//! leader delivered, and who leads next goes on from what it was told.

use hw_kit::Rng;

use super::*;
use crate::consumer::Consumer;

/// Three servers with one log: the first one leads, and delivers ahead of the log.
struct Replicas {
    all: Vec<Run>,
}

const NAMES: [&str; 3] = ["ALL", "LAST", "NEW"];

impl Replicas {
    fn new() -> Replicas {
        let config = r#"{"name":"S","subjects":["s.>"],"max_msgs_per_subject":3,"allow_direct":true}"#;
        let mut all = Replicas { all: (0..3).map(|_| run(config)).collect() };
        for (name, policy) in NAMES.iter().zip(["all", "last_per_subject", "new"]) {
            let config = format!(
                r#"{{"durable_name":"{name}","ack_policy":"none","mem_storage":true,"deliver_policy":"{policy}","filter_subject":"s.>"}}"#
            );
            all.each(|run| drop(run.consumer(&config)));
        }
        all
    }

    fn each(&mut self, mut act: impl FnMut(&mut Run)) {
        self.all.iter_mut().for_each(&mut act);
    }

    /// The leader delivers what comes next, so many at most, without a word in the log.
    fn deliver(&mut self, name: &'static str, count: usize) -> Vec<u64> {
        let leader = &mut self.all[0];
        let (now, key) = (leader.now, Bytes::from_static(name.as_bytes()));
        let mut seqs = Vec::new();
        for _ in 0..count {
            let Some(next) = next_of(&leader.stream, name) else { break };
            leader.stream.apply_unlogged(now, &key, &[next], &mut Vec::new());
            seqs.push(next.0);
        }
        seqs
    }

    /// The log is told how far it has come.
    fn tell(&mut self, name: &'static str) {
        let key = Bytes::from_static(name.as_bytes());
        let command = self.all[0].stream.progress_of(self.all[0].now, &key);
        if let Some(command) = command {
            self.each(|run| drop(run.apply(command.clone())));
        }
    }

    fn assert_same(&self, what: &str) {
        let first = self.all[0].stream.digest();
        for other in &self.all[1..] {
            assert_eq!(other.stream.digest(), first, "after {what}");
        }
    }
}

fn next_of(stream: &Stream, name: &str) -> Option<Seq> {
    let consumer: &Consumer = stream.consumer(name.as_bytes())?;
    let mut matcher = consumer.matcher(stream.messages());
    consumer.next_undelivered(Seq(0), stream.messages(), &mut matcher)
}

#[test]
fn a_successor_goes_on_from_what_it_was_told() {
    let mut replicas = Replicas::new();
    replicas.each(|run| run.all("s.a s.b s.c s.a s.b"));
    assert_eq!(replicas.deliver("ALL", 3), [1, 2, 3]);
    replicas.assert_same("deliveries that the log does not know");
    replicas.tell("ALL");
    assert_eq!(replicas.deliver("ALL", 1), [4]);
    let places = |run: &Run| run.stream.consumer(b"ALL").map(|consumer| consumer.delivered().stream_seq.0);
    assert_eq!(replicas.all.iter().map(places).collect::<Vec<_>>(), [Some(4), Some(3), Some(3)]);
    // The one that led is like the others as soon as it does not lead any more.
    replicas.all[0].stream.forget_unlogged();
    assert_eq!(replicas.all.iter().map(places).collect::<Vec<_>>(), [Some(3); 3]);
    assert_eq!(replicas.deliver("ALL", 9), [4, 5]);
    assert_eq!(next_of(&replicas.all[1].stream, "ALL"), Some(Seq(4)));
}

#[test]
fn what_was_said_before_a_reset_does_not_count() {
    let mut replicas = Replicas::new();
    replicas.each(|run| run.all("s.a s.b s.c"));
    replicas.deliver("ALL", 3);
    let name = Bytes::from_static(b"ALL");
    let told = replicas.all[0].stream.progress_of(Time(5), &name).expect("it is ahead");
    replicas.each(|run| {
        drop(run.apply(Command::ResetConsumer { ts: run.now, name: name.clone(), seq: Seq(2) }));
        drop(run.apply(told.clone()));
    });
    replicas.assert_same("a reset");
    for run in &replicas.all {
        assert_eq!(next_of(&run.stream, "ALL"), Some(Seq(2)));
    }
}

/// With interest retention the stream keeps messages for its consumers: what it keeps must not depend on what only the
/// leader knows.
#[test]
fn a_change_of_retention_goes_by_the_log() {
    let mut replicas = Replicas::new();
    replicas.each(|run| run.all("s.a s.b s.c s.d"));
    for name in NAMES {
        replicas.deliver(name, 9);
    }
    replicas.each(|run| {
        let config =
            r#"{"name":"S","subjects":["s.>"],"max_msgs_per_subject":3,"allow_direct":true,"retention":"interest"}"#;
        run.configure(config).expect("it may change");
    });
    replicas.assert_same("another retention");
    let kept: Vec<String> = replicas.all.iter().map(Run::state).collect();
    assert!(kept.iter().all(|state| *state == kept[0] && state.starts_with("4/")), "{kept:?}");
}

#[test]
fn whatever_happens_the_state_is_the_same() {
    for seed in 0..60 {
        let mut rng = Rng::new(seed);
        let mut replicas = Replicas::new();
        for step in 0..150 {
            let name = NAMES[rng.below(3) as usize];
            let key = Bytes::from_static(name.as_bytes());
            let what = match rng.below(14) {
                0..=4 => {
                    let subject = format!("s.{}", rng.below(6));
                    replicas.each(|run| drop(run.publish(&subject, "", "x")));
                    "a publish"
                }
                5..=7 => {
                    let count = rng.below(5) as usize;
                    replicas.deliver(name, count);
                    "a delivery"
                }
                8 | 9 => {
                    replicas.tell(name);
                    "progress"
                }
                10 => {
                    let seq = rng.below(step + 1);
                    replicas.each(|run| drop(run.delete(seq)));
                    "a delete"
                }
                11 => {
                    let seq = rng.below(step + 1);
                    replicas.each(|run| drop(run.purge("", seq, 0)));
                    "a purge"
                }
                12 => {
                    let seq = Seq(rng.below(step + 1));
                    replicas.each(|run| {
                        drop(run.apply(Command::ResetConsumer { ts: run.now, name: key.clone(), seq }));
                    });
                    "a reset"
                }
                _ => {
                    replicas.all[0].stream.forget_unlogged();
                    replicas.all.rotate_left(1);
                    "another leader"
                }
            };
            replicas.assert_same(&format!("{what} (seed {seed}, step {step})"));
        }
        replicas.all[0].stream.forget_unlogged();
        for name in NAMES {
            let next: Vec<Option<Seq>> = replicas.all.iter().map(|run| next_of(&run.stream, name)).collect();
            assert!(next.iter().all(|one| *one == next[0]), "seed {seed}, {name}: {next:?}");
        }
    }
}
