//! Publishing: bursts of messages, some with ids that repeat, some with expectations.

use hw_kit::Span;

use crate::client;
use crate::history::{Attempt, Outcome, Schedule};
use crate::world::World;

use super::{Pending, Workload};

impl Workload {
    pub(super) fn publish(&mut self, world: &mut World, client: usize) {
        let Some(name) = self.some_stream() else { return };
        let mut out = Vec::new();
        if self.rng.chance(1, 10) {
            self.publish_schedule(world, client, &name, &mut out);
        }
        if self.rng.chance(1, 8) {
            self.publish_fast(world, client, &name, &mut out);
        }
        if self.rng.chance(1, 6) {
            self.publish_batch(world, client, &name, &mut out);
        }
        for _ in 0..1 + self.rng.below(6) {
            self.publish_one(world, client, &name, &mut out);
        }
        world.send(client, out);
    }

    /// One message for a stream, from a client that is connected; its number.
    pub fn probe(&mut self, world: &mut World, name: &str) -> Option<usize> {
        let client = self.publishers[0];
        if !world.is_connected(client) {
            world.connect(client);
            return None;
        }
        let (index, mut out) = (self.history.attempts.len(), Vec::new());
        self.publish_one(world, client, name, &mut out);
        world.send(client, out);
        Some(index)
    }

    fn publish_one(&mut self, world: &mut World, client: usize, name: &str, out: &mut Vec<u8>) {
        let Some(stream) = self.history.streams.get(name) else { return };
        let (generation, last_seq) = (stream.generation, stream.last_seq);
        let index = self.history.attempts.len();
        let mut attempt = self.attempt(world, client, (name, generation));
        let mut headers = Vec::new();
        match self.rng.below(20) {
            0..=4 => {
                let id = self.id_to_use(name, generation, index);
                headers.push(format!("Nats-Msg-Id: {id}"));
                attempt.id = Some(id);
            }
            5 if last_seq > 0 => {
                headers.push(format!("Nats-Expected-Last-Sequence: {last_seq}"));
                attempt.expected = Some(last_seq);
            }
            6 => {
                let last = self.last_on_subject(&attempt);
                headers.push(format!("Nats-Expected-Last-Subject-Sequence: {last}"));
                attempt.expected_subject = Some(last);
            }
            _ => {}
        }
        let reply = self.expect(world, client, Pending::Publish(index));
        let line = || format!("c{client} publishes {index} to {} {headers:?}", attempt.subject);
        world.trace.line(world.now(), line);
        client::publish(out, &attempt.subject, &reply, &headers, &attempt.payload);
        self.history.attempts.push(attempt);
    }

    /// A message that is published again at its time, on a subject of its own.
    fn publish_schedule(&mut self, world: &mut World, client: usize, name: &str, out: &mut Vec<u8>) {
        let Some(stream) = self.history.streams.get(name).filter(|stream| !stream.shape.discard_new) else {
            return;
        };
        let (generation, index) = (stream.generation, self.history.attempts.len());
        let mut attempt = self.attempt(world, client, (name, generation));
        attempt.subject = format!("{}g{generation}.s{index}", name.to_lowercase());
        let due = world.now() + Span::from_millis(self.rng.below(400) as i64 - 50);
        let target = format!("{}g{generation}.t", name.to_lowercase());
        let headers =
            [format!("Nats-Schedule: @at {}", due.to_rfc3339()), format!("Nats-Schedule-Target: {target}")];
        attempt.schedule = Some(Schedule { due, target });
        let reply = self.expect(world, client, Pending::Publish(index));
        let line = || format!("c{client} publishes {index} to {} {headers:?}", attempt.subject);
        world.trace.line(world.now(), line);
        client::publish(out, &attempt.subject, &reply, &headers, &attempt.payload);
        self.history.attempts.push(attempt);
        self.history.count("schedules");
    }

    /// The next publish, to one of the stream's subjects.
    pub(super) fn attempt(
        &mut self,
        world: &World,
        client: usize,
        (name, generation): (&str, u64),
    ) -> Attempt {
        let index = self.history.attempts.len();
        let subject = subject(name, generation, self.rng.below(5));
        let mut payload = format!("{index} ").into_bytes();
        let len = payload.len() + self.payload_len();
        payload.resize(len, b'a' + (index % 26) as u8);
        Attempt {
            stream: name.to_owned(),
            generation,
            subject,
            payload,
            id: None,
            expected: None,
            expected_subject: None,
            // What is held up on its way may come after what was sent later.
            session: if self.history.loose {
                (usize::MAX, index as u64)
            } else {
                (client, self.sessions[client])
            },
            sent: world.now(),
            batch: None,
            is_fast: false,
            schedule: None,
            outcome: Outcome::Pending,
        }
    }

    fn payload_len(&mut self) -> usize {
        match self.rng.below(20) {
            0 => 0,
            1 => 500 + self.rng.below(1000) as usize,
            _ => self.rng.below(200) as usize,
        }
    }

    /// A new message id, or one of the last few.
    pub(super) fn id_to_use(&mut self, name: &str, generation: u64, index: usize) -> String {
        let recent: Vec<String> = self
            .history
            .attempts
            .iter()
            .rev()
            .filter(|attempt| attempt.generation == generation && attempt.stream == name)
            .filter_map(|attempt| attempt.id.clone())
            .take(8)
            .collect();
        if !recent.is_empty() && self.rng.chance(1, 2) {
            return recent[self.rng.below(recent.len() as u64) as usize].clone();
        }
        format!("id{index}")
    }

    fn last_on_subject(&self, attempt: &Attempt) -> u64 {
        let same = self.history.attempts.iter().rev().filter(|other| other.subject == attempt.subject);
        let acked = same.filter_map(|other| match other.outcome {
            Outcome::Acked { seq, duplicate: false, .. } => Some(seq),
            _ => None,
        });
        acked.max().unwrap_or(0)
    }
}

/// Whether a subject is one of those that hold a schedule.
pub fn is_schedule(subject: &str) -> bool {
    subject.rsplit('.').next().is_some_and(|last| last.starts_with('s'))
}

/// One of a stream's subjects.
pub(super) fn subject(stream: &str, generation: u64, number: u64) -> String {
    format!("{}g{generation}.{}", stream.to_lowercase(), char::from(b'a' + number as u8))
}
