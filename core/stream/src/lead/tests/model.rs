//! Random histories: the log commits late, proposals are lost, leaders change, messages vanish. In the end everything
//! was delivered, nothing was skipped, and nothing was repeated without a reason.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hw_kit::{Seq, Span};
use proptest::prelude::*;

use super::world::World;
use crate::command::Command;
use crate::consumer::Applied;
use crate::lead::{Ack, AckKind, PullRequest};
use crate::outcome::{Advisory, Effect};

#[derive(Clone, Debug)]
enum Step {
    Publish(u8),
    Pull {
        batch: i64,
        expires: i64,
        no_wait: bool,
        max_bytes: i64,
    },
    /// Acknowledge the nth of what is known to be delivered.
    Ack(usize),
    Nak(usize, i64),
    Progress(usize),
    Term(usize),
    Remove(usize),
    Purge(usize),
    Wait(i64),
    /// Apply this many of the commands in the log.
    Commit(usize),
    Restart,
    Reset(u64),
    Refilter(u8),
    Deaf(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..5u8).prop_map(Step::Publish),
        6 => (1..9i64, 0..4000i64, any::<bool>(), prop_oneof![4 => Just(0i64), 1 => 1..400i64])
            .prop_map(|(batch, expires, no_wait, max_bytes)| Step::Pull { batch, expires, no_wait, max_bytes }),
        8 => any::<usize>().prop_map(Step::Ack),
        2 => (any::<usize>(), prop_oneof![Just(0i64), 1..900i64]).prop_map(|(at, delay)| Step::Nak(at, delay)),
        1 => any::<usize>().prop_map(Step::Progress),
        1 => any::<usize>().prop_map(Step::Term),
        1 => any::<usize>().prop_map(Step::Remove),
        1 => (0..12usize).prop_map(Step::Purge),
        4 => (1..1500i64).prop_map(Step::Wait),
        8 => (0..4usize).prop_map(Step::Commit),
        1 => Just(Step::Restart),
        1 => (0..40u64).prop_map(Step::Reset),
        1 => (0..4u8).prop_map(Step::Refilter),
        1 => any::<bool>().prop_map(Step::Deaf),
    ]
}

/// The world, its log, and what a client and an auditor know.
struct History {
    world: World,
    log: Vec<Command>,
    /// Delivered to the client since the last reset, and how often.
    received: BTreeMap<Seq, u32>,
    /// May be delivered again: its wait ran out, it was naked, or a leader went.
    excused: BTreeSet<Seq>,
    settled: BTreeSet<Seq>,
    /// The newest delivery of each message: (consumer sequence, count).
    newest: Vec<(Seq, u64)>,
    last_consumer_seq: u64,
    /// Whether the filters changed or a reset came: then only the end is judged.
    shifted: bool,
    deaf: bool,
}

const ACK_WAIT: i64 = 1000;

impl History {
    fn new(extra: &str) -> History {
        let config = format!(
            r#"{{"durable_name":"C","ack_policy":"explicit","ack_wait":{},"filter_subject":"a.*"{extra}}}"#,
            Span::from_millis(ACK_WAIT).0
        );
        History {
            world: World::new(&config, &["a.0", "b.0", "a.1"]),
            log: Vec::new(),
            received: BTreeMap::new(),
            excused: BTreeSet::new(),
            settled: BTreeSet::new(),
            newest: Vec::new(),
            last_consumer_seq: 0,
            shifted: false,
            deaf: false,
        }
    }

    /// Lets the leader work, then takes what it proposes into the log.
    fn pump(&mut self) {
        self.world.call(|lead, m, out| lead.pump(m, out));
        self.collect();
    }

    fn collect(&mut self) {
        self.log.append(&mut self.world.out.proposals);
        self.world.out.more = false;
        for effect in std::mem::take(&mut self.world.out.effects) {
            self.look(&effect);
        }
    }

    fn look(&mut self, effect: &Effect) {
        match effect {
            Effect::Deliver { reply, .. } => {
                let reply = String::from_utf8(reply.to_vec()).expect("text");
                let numbers: Vec<u64> =
                    reply.split('.').skip(4).map(|token| token.parse().expect("a number")).collect();
                let [count, seq, consumer_seq, _, pending] = numbers[..] else { panic!("{reply}") };
                let seq = Seq(seq);
                assert!(self.world.messages.contains(seq), "{seq} is gone");
                assert!(!self.settled.contains(&seq), "{seq} is settled");
                assert!(consumer_seq > self.last_consumer_seq, "{reply}: the order is lost");
                self.last_consumer_seq = consumer_seq;
                let again = self.received.insert(seq, count as u32).is_some();
                assert!(!again || self.excused.remove(&seq), "{seq} came again for no reason");
                assert!(
                    again || count == 1 || self.excused.remove(&seq),
                    "{seq} came {count} times at first"
                );
                assert!(pending <= self.world.messages.len(), "{pending} pending");
                self.newest.push((seq, consumer_seq));
            }
            Effect::Advise(Advisory::MaxDeliveries { .. }) => panic!("deliveries are not limited"),
            _ => {}
        }
    }

    fn commit(&mut self, count: usize) {
        let count = count.min(self.log.len());
        let commands: Vec<Command> = self.log.drain(..count).collect();
        for command in commands {
            if let Command::Settled { acks, .. } = &command {
                let pending = self.world.consumer.pending();
                self.settled.extend(acks.iter().map(|ack| ack.seq).filter(|seq| pending.get(*seq).is_some()));
            }
            self.world.apply(command);
            self.collect();
            self.check();
        }
    }

    /// What holds after every command.
    fn check(&mut self) {
        let consumer = &self.world.consumer;
        let (floor, delivered) = (consumer.ack_floor(), consumer.delivered());
        assert!(floor.stream_seq <= delivered.stream_seq && floor.consumer_seq <= delivered.consumer_seq);
        if let Some((first, _)) = consumer.pending().first() {
            assert!(first > floor.stream_seq, "{first} waits below the floor");
        } else {
            assert_eq!(floor.stream_seq, delivered.stream_seq);
        }
        // Nothing is skipped: what is behind is waiting, settled or gone.
        if !self.shifted {
            for seq in self.world.messages.seqs().take_while(|seq| *seq <= delivered.stream_seq) {
                let subject = self.world.messages.subject_of(seq).expect("it is there");
                let known = !consumer.matches(&subject)
                    || consumer.pending().get(seq).is_some()
                    || self.settled.contains(&seq);
                assert!(known, "{seq} was skipped");
            }
        }
        let mut matcher = consumer.matcher(&self.world.messages);
        let counted = self.world.messages.count_from(delivered.stream_seq.next(), &mut matcher);
        assert_eq!(consumer.num_pending(&self.world.messages, &mut matcher), counted);
    }

    fn delivered_at(&self, at: usize) -> Option<(Seq, u64)> {
        (!self.newest.is_empty()).then(|| self.newest[at % self.newest.len()])
    }

    fn ack(&mut self, at: usize, kind: AckKind) {
        let Some((seq, consumer_seq)) = self.delivered_at(at) else { return };
        if matches!(kind, AckKind::Nak(_)) {
            self.excused.insert(seq);
        }
        let ack = Ack { seq, consumer_seq, deliveries: 1, kind };
        if let Some(settlement) = self.world.call(|lead, m, out| lead.handle_ack(m, ack, out)) {
            let acks = vec![settlement];
            self.log.push(Command::Settled { ts: self.world.now, consumer: Bytes::new(), acks });
        }
        self.collect();
    }

    fn wait(&mut self, ms: i64) {
        let until = self.world.now + Span::from_millis(ms);
        for step in 0.. {
            assert!(step < 10_000, "the deadline stands still");
            let next = self.world.lead.next_deadline();
            if next > until {
                break;
            }
            self.world.now = self.world.now.max(next);
            // Everything whose wait may have run out is excused, whatever the deadlines say.
            let late = self.world.now - Span::from_millis(ACK_WAIT);
            let pending = self.world.consumer.pending().iter();
            self.excused.extend(pending.filter(|(_, d)| d.ts <= late).map(|(seq, _)| seq));
            self.world.call(|lead, m, out| lead.handle_timeout(m, out));
            self.collect();
        }
        self.world.now = until;
    }

    fn restart(&mut self) {
        // What was pending may have been sent or not; what is in the log may still come.
        self.excused.extend(self.world.consumer.pending().iter().map(|(seq, _)| seq));
        for command in &self.log {
            if let Command::Delivered { seqs, .. } = command {
                self.excused.extend(seqs);
            }
        }
        self.world.restart();
    }

    fn forget(&mut self) {
        self.shifted = true;
        self.received.clear();
        self.excused = self.world.messages.seqs().collect();
        self.settled.clear();
        self.newest.clear();
        self.last_consumer_seq = 0;
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish(n) => {
                let subject = ["a.0", "a.1", "b.0", "a.2", "c.0"][usize::from(n)];
                super::world::append(&mut self.world.messages, self.world.now, subject, "data");
            }
            Step::Pull { batch, expires, no_wait, max_bytes } => {
                let expires = Span::from_millis(expires);
                let request = PullRequest { batch, expires, no_wait, max_bytes, ..Default::default() };
                let reply = Bytes::from_static(b"r");
                self.world.call(|lead, m, out| lead.handle_pull(m, reply, &request, out));
            }
            Step::Ack(at) => self.ack(at, AckKind::Ack),
            Step::Nak(at, delay) => self.ack(at, AckKind::Nak(Span::from_millis(delay))),
            Step::Progress(at) => self.ack(at, AckKind::Progress),
            Step::Term(at) => self.ack(at, AckKind::Term(Bytes::new())),
            Step::Remove(at) => {
                let seqs: Vec<Seq> = self.world.messages.seqs().collect();
                if !seqs.is_empty() {
                    self.world.remove(seqs[at % seqs.len()].0);
                    self.check();
                }
            }
            Step::Purge(count) => {
                let gone: Vec<Seq> = self.world.messages.seqs().take(count).collect();
                gone.into_iter().for_each(|seq| drop(self.world.messages.remove(seq)));
                self.world.consumer.messages_purged(&self.world.messages);
                self.check();
            }
            Step::Wait(ms) => self.wait(ms),
            Step::Commit(count) => self.commit(count),
            Step::Restart => self.restart(),
            Step::Reset(seq) => {
                self.world.consumer.apply_reset(Seq(seq), &self.world.messages).expect("deliver all");
                self.forget();
            }
            Step::Refilter(n) => {
                let mut config = self.world.consumer.config().clone();
                config.filter_subject = ["a.*", "a.1", "", "b.0"][usize::from(n)].into();
                self.world.consumer.update(config, &self.world.messages);
                self.shifted = true;
                self.excused.extend(self.world.messages.seqs());
            }
            Step::Deaf(deaf) => {
                self.deaf = deaf;
                match deaf {
                    true => drop(self.world.muted.insert(b"r".to_vec())),
                    false => drop(self.world.muted.remove(b"r".as_slice())),
                }
            }
        }
        self.pump();
    }

    /// With a client that keeps asking, everything arrives.
    fn finish(&mut self) {
        self.step(Step::Deaf(false));
        for _ in 0..400 {
            self.step(Step::Pull { batch: 8, expires: 4000, no_wait: false, max_bytes: 0 });
            self.commit(usize::MAX);
            let pending: Vec<(Seq, u64)> = self
                .newest
                .drain(..)
                .filter(|(seq, _)| self.world.consumer.pending().get(*seq).is_some())
                .collect();
            for (seq, consumer_seq) in pending {
                self.newest = vec![(seq, consumer_seq)];
                self.ack(0, AckKind::Ack);
            }
            self.newest.clear();
            self.commit(usize::MAX);
            self.wait(300);
        }
        let consumer = &self.world.consumer;
        let mut matcher = consumer.matcher(&self.world.messages);
        assert_eq!(consumer.num_pending(&self.world.messages, &mut matcher), 0, "something is left");
        assert!(consumer.pending().is_empty(), "something waits: {:?}", consumer.pending());
        assert_eq!(consumer.ack_floor().stream_seq, consumer.delivered().stream_seq);
        if !self.shifted {
            for seq in self.world.messages.seqs() {
                let subject = self.world.messages.subject_of(seq).expect("it is there");
                assert!(!consumer.matches(&subject) || self.settled.contains(&seq), "{seq} never came");
            }
        }
    }
}

fn pull(batch: i64) -> Step {
    Step::Pull { batch, expires: 0, no_wait: false, max_bytes: 0 }
}

fn run(steps: Vec<Step>) {
    let mut history = History::new("");
    for step in steps {
        history.step(step);
    }
    history.finish();
}

/// A former leader's delivery is applied while ours of the same message is in flight, longer than the ack wait.
#[test]
fn what_is_in_flight_is_not_chosen_again_when_its_time_is_up() {
    use Step::{Commit, Publish, Restart, Wait};
    run(vec![pull(1), Publish(0), Restart, pull(2), Commit(1), Publish(0), Wait(1000)]);
}

/// A delivery that new filters made void does not make those behind it void.
#[test]
fn what_is_in_flight_behind_an_ignored_delivery_is_not_chosen_again() {
    use Step::{Ack, Commit, Publish, Purge, Refilter, Wait};
    let mut steps = vec![Publish(0), Refilter(2), Publish(0), Publish(0), pull(2), Commit(1), Publish(0)];
    steps.extend([Publish(1), pull(8), Publish(0), Publish(0), Publish(0), Refilter(1), Ack(0), Purge(7)]);
    steps.extend([Publish(1), Commit(1), Wait(1000), Commit(1)]);
    run(steps);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_skipped_or_repeated(
        steps in prop::collection::vec(step(), 1..120),
        limit in prop_oneof![Just(""), Just(r#","max_ack_pending":3"#), Just(r#","max_waiting":2"#)],
    ) {
        let mut history = History::new(limit);
        for step in steps {
            history.step(step);
        }
        history.finish();
    }

    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0..400usize, at in any::<usize>()) {
        let mut history = History::new("");
        history.step(Step::Pull { batch: 5, expires: 0, no_wait: false, max_bytes: 0 });
        history.commit(9);
        let mut encoded = Vec::new();
        history.world.consumer.encode(&mut encoded);
        let messages = &history.world.messages;
        let retention = history.world.stream.retention;
        let _ = crate::consumer::Consumer::decode(&bytes, retention, messages);
        let _ = crate::consumer::Consumer::decode(&encoded[..cut.min(encoded.len())], retention, messages);
        let length = encoded.len();
        encoded[at % length] ^= 0x55;
        let _ = crate::consumer::Consumer::decode(&encoded, retention, messages);
    }
}

#[test]
fn applied_is_empty_for_strangers() {
    let mut world = World::new(r#"{"durable_name":"C","ack_policy":"explicit"}"#, &["a.0", "a.1"]);
    let mut applied = Applied::default();
    // The second message alone does not follow what was delivered.
    world.consumer.apply_delivered(world.now, &[Seq(2)], &world.messages, &mut applied);
    assert_eq!(world.consumer.delivered().stream_seq, Seq(0));
}
