//! Atomic batches: a few publishes that are stored together, some of them never committed, some that must be refused.

use std::ops::Range;

use serde_json::Value;

use crate::client;
use crate::history::Outcome;
use crate::invariants;
use crate::world::World;

use super::{Pending, Workload};

impl Workload {
    /// A batch is stored: its messages have the sequences up to the last one's.
    pub(super) fn committed(
        &mut self,
        world: &World,
        (last, batch): (usize, Range<usize>),
        (seq, answer): (u64, &Value),
    ) {
        let (count, name) = (batch.len() as u64, format!("b{}", batch.start));
        if answer["count"] != count || answer["batch"] != name.as_str() || seq < count {
            return self.history.violate("atomic", format!("{name} of {count} was answered with {answer}"));
        }
        for index in batch {
            let seq = seq - (last - index) as u64;
            self.history.attempts[index].outcome = Outcome::Acked { seq, at: world.now(), duplicate: false };
            invariants::acked::on_ack(&mut self.history, index);
        }
        self.history.count("committed batches");
    }

    pub(super) fn publish_batch(&mut self, world: &mut World, client: usize, name: &str, out: &mut Vec<u8>) {
        let Some(stream) = self.history.streams.get(name) else { return };
        let (generation, first) = (stream.generation, self.history.attempts.len());
        let count = 2 + self.rng.below(5) as usize;
        let (ends, gap) = (self.rng.below(8), self.rng.chance(1, 12));
        let batch = first..first + count;
        for index in batch.clone() {
            let mut attempt = self.attempt(world, client, (name, generation));
            let mut headers = vec![
                format!("Nats-Batch-Id: b{first}"),
                format!("Nats-Batch-Sequence: {}", index - first + 1 + usize::from(gap && index > first)),
            ];
            if self.rng.chance(1, 10) {
                let id = self.id_to_use(name, generation, index);
                headers.push(format!("Nats-Msg-Id: {id}"));
                attempt.id = Some(id);
            }
            let is_last = index + 1 == batch.end;
            // The last message of some is not sent: those never end.
            let commits = is_last && ends > 0;
            // Others end with a message that is not stored.
            if commits && ends > 1 {
                headers.push("Nats-Batch-Commit: 1".to_owned());
            }
            attempt.batch = Some(batch.clone());
            if ends == 0 {
                attempt.outcome = Outcome::Refused;
            }
            let reply = match commits && ends > 1 {
                true => self.expect(world, client, Pending::Publish(index)),
                false => String::new(),
            };
            let line =
                || format!("c{client} publishes {index} of {batch:?} to {} {headers:?}", attempt.subject);
            world.trace.line(world.now(), line);
            client::publish(out, &attempt.subject, &reply, &headers, &attempt.payload);
            let subject = attempt.subject.clone();
            self.history.attempts.push(attempt);
            if commits && ends == 1 {
                let headers = [
                    format!("Nats-Batch-Id: b{first}"),
                    format!("Nats-Batch-Sequence: {}", count + 1 + usize::from(gap)),
                    "Nats-Batch-Commit: eob".to_owned(),
                ];
                let reply = self.expect(world, client, Pending::Publish(index));
                client::publish(out, &subject, &reply, &headers, b"");
            }
        }
        self.history.count("batches");
    }
}
