//! Consuming: pulls, and what a worker does with each message.

use hw_kit::Span;
use serde_json::json;

use crate::client::{self, Msg};
use crate::history::{AckPolicy, Existence};
use crate::invariants;
use crate::world::World;

use super::{Pending, Workload};

/// What an acknowledgement subject says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Delivery {
    /// The stream.
    pub stream: String,
    /// The consumer.
    pub consumer: String,
    /// How often this message was delivered, this time included.
    pub count: u64,
    /// The message's sequence.
    pub seq: u64,
    /// The delivery's sequence.
    pub consumer_seq: u64,
}

impl Delivery {
    /// Reads `$JS.ACK.<stream>.<consumer>.<count>.<seq>.<consumer seq>.<time>.<pending>`.
    pub fn parse(subject: &str) -> Option<Delivery> {
        let parts: Vec<&str> = subject.split('.').collect();
        let &["$JS", "ACK", stream, consumer, count, seq, consumer_seq, _, _] = parts.as_slice() else {
            return None;
        };
        Some(Delivery {
            stream: stream.to_owned(),
            consumer: consumer.to_owned(),
            count: count.parse().ok()?,
            seq: seq.parse().ok()?,
            consumer_seq: consumer_seq.parse().ok()?,
        })
    }
}

impl Workload {
    /// Pulls from every consumer that this client owns and that has no pull waiting.
    pub(super) fn work(&mut self, world: &mut World, client: usize) {
        let now = world.now();
        let pace = self.cluster.as_ref().map_or(1, |cluster| cluster.pace as i64);
        let mut pulls = Vec::new();
        for (name, stream) in &mut self.history.streams {
            for (consumer, log) in &mut stream.consumers {
                let is_there = log.existence != Existence::No && stream.existence != Existence::No;
                if log.owner == client && is_there && !log.pushes && log.pull_until <= now {
                    let expires = Span::from_millis(if self.draining {
                        100
                    } else {
                        pace.min(5) * (5 + self.rng.below(60) as i64)
                    });
                    log.pull_until = now + expires;
                    pulls.push((format!("$JS.API.CONSUMER.MSG.NEXT.{name}.{consumer}"), expires));
                }
            }
        }
        let reply = format!("{}.pull", world.inbox(client));
        let mut out = Vec::new();
        for (subject, expires) in pulls {
            let batch = if self.draining { 100 } else { 1 + self.rng.below(12) };
            let body = match self.rng.below(6) {
                0 if !self.draining => json!({ "batch": batch, "no_wait": true }),
                _ => json!({ "batch": batch, "expires": expires.0 }),
            };
            world.trace.line(now, || format!("c{client} pulls {subject} {body}"));
            client::publish(&mut out, &subject, &reply, &[], body.to_string().as_bytes());
        }
        if !out.is_empty() {
            world.send(client, out);
        }
    }

    /// A message came from a consumer.
    pub(super) fn delivered(&mut self, world: &mut World, client: usize, msg: &Msg) {
        let Some(delivery) = Delivery::parse(&msg.reply) else {
            let text = format!("a message came with the reply subject {:?}", msg.reply);
            return self.history.violate("protocol", text);
        };
        self.history.count("deliveries");
        world.trace.line(world.now(), || format!("c{client} gets {} {delivery:?}", msg.subject));
        invariants::delivery::on_delivery(&mut self.history, &delivery, msg);
        if self.paused {
            return;
        }
        let Some(stream) = self.history.streams.get(&delivery.stream) else { return };
        let generation = stream.generation;
        let Some(policy) = stream.consumers.get(&delivery.consumer).map(|consumer| consumer.ack) else {
            return;
        };
        let choice = match (self.draining, policy) {
            (_, AckPolicy::None) => return,
            (true, _) => 50,
            (false, AckPolicy::All) => [0, 50, 99, 99][self.rng.below(4) as usize],
            (false, AckPolicy::Explicit) => self.rng.below(100),
        };
        let body = match choice {
            0..50 => "+ACK".to_owned(),
            50..75 => return self.confirm(world, client, (generation, &delivery), &msg.reply),
            75..82 => "-NAK".to_owned(),
            82..86 => format!("-NAK {{\"delay\": {}}}", Span::from_millis(5 + self.rng.below(40) as i64).0),
            86..89 => "+TERM".to_owned(),
            89..92 => "+WPI".to_owned(),
            _ => return,
        };
        if let Some(consumer) = self.consumer(&delivery.stream, generation, &delivery.consumer) {
            match choice {
                0..50 => consumer.acked.insert(delivery.seq),
                86..89 => consumer.termed.insert(delivery.seq),
                _ => false,
            };
        }
        self.say(world, client, &msg.reply, ("", &body));
    }

    /// Acknowledges and asks for a confirmation.
    fn confirm(&mut self, world: &mut World, client: usize, of: (u64, &Delivery), subject: &str) {
        let (generation, Delivery { stream, consumer, seq, .. }) = of;
        if let Some(consumer) = self.consumer(stream, generation, consumer) {
            consumer.acked.insert(*seq);
        }
        let (stream, consumer, seq) = (stream.clone(), consumer.clone(), *seq);
        let reply = self.expect(world, client, Pending::Confirm { stream, generation, consumer, seq });
        self.say(world, client, subject, (&reply, "+ACK"));
    }

    fn say(&mut self, world: &mut World, client: usize, subject: &str, (reply, body): (&str, &str)) {
        world.trace.line(world.now(), || format!("c{client} says {body} to {subject} {reply}"));
        let mut out = Vec::new();
        client::publish(&mut out, subject, reply, &[], body.as_bytes());
        world.send(client, out);
    }
}
