//! A consumer in a checkpoint: its configuration as JSON, then its numbers, little-endian (docs/format.md).
//!
//! What can be counted from the stream's messages is not stored, nor what a leader delivered that is not in the log.

use std::collections::BTreeSet;

use bytes::Bytes;
use hw_kit::{Seq, Time};
use hw_store::Messages;

use super::{Consumer, Delivery, Lasts, Pending, Position};
use crate::config::{ConsumerConfig, Retention};

/// The layout's number; another one is not read.
const VERSION: u8 = 1;
const SHIFTED: u8 = 1;
const LASTS: u8 = 2;

impl Consumer {
    /// Writes everything that has to survive.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let config = serde_json::to_vec(&self.config).expect("a configuration has string keys only");
        let lasts = self.lasts.as_deref();
        out.push(VERSION);
        out.push(if self.shifted { SHIFTED } else { 0 } | if lasts.is_some() { LASTS } else { 0 });
        put_bytes(out, &self.name);
        put_bytes(out, &config);
        put(out, self.created.0 as u64);
        put(out, self.revision);
        for position in self.places() {
            put(out, position.consumer_seq);
            put(out, position.stream_seq.0);
            put(out, position.last_active.0 as u64);
        }
        put(out, self.pending.len() as u64);
        for (seq, delivery) in self.pending.iter() {
            put(out, seq.0);
            put(out, delivery.consumer_seq);
            put(out, delivery.ts.0 as u64);
            out.extend_from_slice(&delivery.count.to_le_bytes());
        }
        put(out, self.exhausted.len() as u64);
        self.exhausted.iter().for_each(|seq| put(out, seq.0));
        if let Some(lasts) = lasts {
            put(out, lasts.resume.0);
            put(out, lasts.seqs.len() as u64);
            lasts.seqs.iter().for_each(|seq| put(out, seq.0));
        }
    }

    /// Reads what [`Consumer::encode`] wrote and gives the rest; None if it is not that.
    pub fn decode<'a>(
        bytes: &'a [u8],
        retention: Retention,
        messages: &Messages,
    ) -> Option<(Consumer, &'a [u8])> {
        let mut input = Input(bytes);
        let [version, flags] = input.take()?;
        if version != VERSION || flags & !(SHIFTED | LASTS) != 0 {
            return None;
        }
        let name = Bytes::copy_from_slice(input.bytes()?);
        let config: ConsumerConfig = serde_json::from_slice(input.bytes()?).ok()?;
        let created = Time(input.number()? as i64);
        let revision = input.number()?;
        let (delivered, ack_floor) = (input.position()?, input.position()?);
        let pending = input.pending()?;
        let exhausted: BTreeSet<Seq> = input.seqs()?.into_iter().collect();
        let lasts = match flags & LASTS {
            0 => None,
            _ => {
                let resume = Seq(input.number()?);
                Some(Box::new(Lasts { seqs: input.seqs()?.into(), resume }))
            }
        };
        if lasts.as_ref().is_some_and(|lasts| !lasts.seqs.iter().is_sorted()) {
            return None;
        }
        let matcher = super::matcher_of(&config, messages);
        let mut consumer = Consumer {
            name,
            config,
            created,
            retention,
            delivered,
            ack_floor,
            logged: None,
            pending,
            exhausted,
            lasts,
            matcher,
            counted: 0,
            counted_to: Seq(0),
            revision,
            shifted: flags & SHIFTED != 0,
        };
        consumer.count_later();
        Some((consumer, input.0))
    }
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn position(&mut self) -> Option<Position> {
        let (consumer_seq, stream_seq) = (self.number()?, Seq(self.number()?));
        Some(Position { consumer_seq, stream_seq, last_active: Time(self.number()? as i64) })
    }

    fn seqs(&mut self) -> Option<Vec<Seq>> {
        let count = self.number()?;
        (0..count).map(|_| self.number().map(Seq)).collect()
    }

    fn pending(&mut self) -> Option<Pending> {
        let (count, mut pending) = (self.number()?, Pending::default());
        for _ in 0..count {
            let (seq, consumer_seq) = (Seq(self.number()?), self.number()?);
            let (ts, count) = (Time(self.number()? as i64), u32::from_le_bytes(self.take()?));
            let ascends = pending.last().is_none_or(|last| last < seq);
            if count == 0 || consumer_seq == 0 || !ascends {
                return None;
            }
            pending.insert(seq, Delivery { consumer_seq, ts, count });
        }
        Some(pending)
    }
}
