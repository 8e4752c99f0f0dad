//! A command's bytes in the log: one byte for the kind, the clock reading, then the fields in order. Numbers are
//! little-endian, texts have a length of four bytes, and what comes last goes to the end. docs/format.md, "Commands".

use bytes::Bytes;
use hw_kit::{NodeId, Seq, Time};
use hw_store::Record;

use super::rows;
use super::{Command, ConsumerAction, Fed, RestoreStep, RunOf, Settlement, Verdict};

const PUBLISH: u8 = 1;
const PURGE: u8 = 2;
const DELETE_MESSAGE: u8 = 3;
const EXPIRE: u8 = 4;
const CONFIGURE: u8 = 5;
const PUT_CONSUMER: u8 = 6;
const DELETE_CONSUMER: u8 = 7;
const DELIVERED: u8 = 8;
const SETTLED: u8 = 9;
const PAUSE_CONSUMER: u8 = 10;
const RESET_CONSUMER: u8 = 11;
const PUBLISH_BATCH: u8 = 12;
const BATCH_PART: u8 = 13;
const PUBLISH_RUN: u8 = 14;
const FIRE: u8 = 15;
const DELIVERED_ROWS: u8 = 16;
const PROGRESS: u8 = 17;
const COMPARE: u8 = 18;
const SERIAL: u8 = 19;
const MIRRORED: u8 = 20;
const SOURCED: u8 = 21;
const PUBLISH_RUN_OF: u8 = 22;
const RESTORE: u8 = 40;

/// Why bytes are not a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the command does.
    #[error("the command ends early")]
    Short,
    /// Bytes are left after the command.
    #[error("{0} bytes follow the command")]
    Long(usize),
    /// Written by a later version, or damaged.
    #[error("unknown command kind {0}")]
    Kind(u8),
    /// A field has a value that it cannot have.
    #[error("a field of the command has no meaning")]
    Field,
}

/// Writes a publish from its parts, as [`Command::encode`] does; false when the subject is longer than 65,535 bytes.
pub fn encode_publish(out: &mut Vec<u8>, ts: Time, subject: &[u8], header: &[u8], payload: &[u8]) -> bool {
    let (Ok(subject_len), Ok(header_len)) = (u16::try_from(subject.len()), u32::try_from(header.len()))
    else {
        return false;
    };
    out.reserve(15 + subject.len() + header.len() + payload.len());
    publish_head(out, ts, subject_len, header_len);
    out.extend_from_slice(subject);
    out.extend_from_slice(header);
    out.extend_from_slice(payload);
    true
}

/// Appends one message of a batch, for [`encode_batch`] and its like; false when the subject is longer than 65,535 bytes.
pub fn encode_batch_message(out: &mut Vec<u8>, subject: &[u8], header: &[u8], payload: &[u8]) -> bool {
    let (Ok(subject_len), Ok(header_len)) = (u16::try_from(subject.len()), u32::try_from(header.len()))
    else {
        return false;
    };
    let length = subject.len() + header.len() + payload.len();
    out.reserve(10 + length);
    lengths(out, (subject_len, header_len));
    // A message is at most 64 MiB.
    out.extend_from_slice(&(length as u32).to_le_bytes());
    out.extend_from_slice(subject);
    out.extend_from_slice(header);
    out.extend_from_slice(payload);
    true
}

/// Writes a [`Command::PublishBatch`] of messages that are encoded already.
pub fn encode_batch(out: &mut Vec<u8>, ts: Time, messages: &[u8]) {
    head(out, PUBLISH_BATCH, ts);
    out.extend_from_slice(messages);
}

/// Writes a [`Command::BatchPart`] of messages that are encoded already.
pub fn encode_batch_part(out: &mut Vec<u8>, ts: Time, messages: &[u8]) {
    head(out, BATCH_PART, ts);
    out.extend_from_slice(messages);
}

/// Writes a [`Command::PublishRun`] of messages that are encoded already.
pub fn encode_run(out: &mut Vec<u8>, ts: Time, (stop, of): (bool, Option<&RunOf>), messages: &[u8]) {
    run_head(out, ts, stop, of);
    out.extend_from_slice(messages);
}

/// A batch's message that was encoded for one of the above.
pub fn decode_batch_message(bytes: Bytes) -> Result<Record, DecodeError> {
    Reader(bytes).records()?.pop().ok_or(DecodeError::Short)
}

fn run_head(out: &mut Vec<u8>, ts: Time, stop: bool, of: Option<&RunOf>) {
    head(out, if of.is_some() { PUBLISH_RUN_OF } else { PUBLISH_RUN }, ts);
    out.push(u8::from(stop));
    if let Some(RunOf { id, flow, first, last, ends }) = of {
        text(out, id);
        number(out, *flow);
        number(out, *first);
        number(out, *last);
        out.push(u8::from(*ends));
    }
}

fn lengths(out: &mut Vec<u8>, (subject_len, header_len): (u16, u32)) {
    out.extend_from_slice(&subject_len.to_le_bytes());
    out.extend_from_slice(&header_len.to_le_bytes());
}

fn publish_head(out: &mut Vec<u8>, ts: Time, subject_len: u16, header_len: u32) {
    head(out, PUBLISH, ts);
    lengths(out, (subject_len, header_len));
}

/// A command about a consumer, whose name goes to the end, perhaps with a number.
fn named(out: &mut Vec<u8>, kind: u8, (ts, value): (Time, Option<u64>), name: &[u8]) {
    head(out, kind, ts);
    if let Some(value) = value {
        number(out, value);
    }
    out.extend_from_slice(name);
}

fn head(out: &mut Vec<u8>, kind: u8, ts: Time) {
    out.push(kind);
    number(out, ts.0 as u64);
}

pub(super) fn number(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn text(out: &mut Vec<u8>, value: &[u8]) {
    // A command is far smaller than 4 GiB: a message is at most 64 MiB, everything else less.
    out.extend_from_slice(&(value.len() as u32).to_le_bytes());
    out.extend_from_slice(value);
}

impl Command {
    /// The leader's clock when it proposed this.
    pub fn ts(&self) -> Time {
        match self {
            Command::Publish { ts, .. }
            | Command::PublishBatch { ts, .. }
            | Command::BatchPart { ts, .. }
            | Command::PublishRun { ts, .. }
            | Command::Fire { ts, .. }
            | Command::Purge { ts, .. }
            | Command::DeleteMessage { ts, .. }
            | Command::Expire { ts }
            | Command::Compare { ts }
            | Command::Serial { ts, .. }
            | Command::Configure { ts, .. }
            | Command::PutConsumer { ts, .. }
            | Command::DeleteConsumer { ts, .. }
            | Command::Delivered { ts, .. }
            | Command::Progress { ts, .. }
            | Command::Settled { ts, .. }
            | Command::PauseConsumer { ts, .. }
            | Command::ResetConsumer { ts, .. }
            | Command::Mirrored { ts, .. }
            | Command::Sourced { ts, .. }
            | Command::Restore { ts, .. } => *ts,
        }
    }

    /// Appends the command's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Command::Publish { ts, record } => {
                let (subject_len, header_len) = record.lengths();
                publish_head(out, *ts, subject_len, header_len);
                out.extend_from_slice(record.joined());
            }
            Command::PublishBatch { .. }
            | Command::BatchPart { .. }
            | Command::PublishRun { .. }
            | Command::Fire { .. } => self.encode_messages(out),
            Command::Purge { ts, filter, seq, keep } => {
                head(out, PURGE, *ts);
                number(out, seq.0);
                number(out, *keep);
                out.extend_from_slice(filter);
            }
            Command::DeleteMessage { ts, seq, erase } => {
                head(out, DELETE_MESSAGE, *ts);
                number(out, seq.0);
                out.push(u8::from(*erase));
            }
            Command::Expire { ts } => head(out, EXPIRE, *ts),
            Command::Compare { ts } => head(out, COMPARE, *ts),
            Command::Serial { ts, by, number: first } => {
                head(out, SERIAL, *ts);
                [by.0, *first].into_iter().for_each(|value| number(out, value));
            }
            Command::Configure { ts, revision, config } => {
                head(out, CONFIGURE, *ts);
                number(out, *revision);
                out.extend_from_slice(config);
            }
            Command::PutConsumer { ts, name, action, pedantic, config } => {
                head(out, PUT_CONSUMER, *ts);
                out.push(action_number(*action));
                out.push(u8::from(*pedantic));
                text(out, name);
                out.extend_from_slice(config);
            }
            Command::DeleteConsumer { ts, name } => named(out, DELETE_CONSUMER, (*ts, None), name),
            Command::Delivered { ts, consumer, seqs } => encode_delivered(out, *ts, consumer, seqs),
            Command::Progress { ts, consumer, revision, consumer_seq, seq } => {
                head(out, PROGRESS, *ts);
                [*revision, *consumer_seq, seq.0].into_iter().for_each(|value| number(out, value));
                out.extend_from_slice(consumer);
            }
            Command::Settled { ts, consumer, acks } => {
                head(out, SETTLED, *ts);
                text(out, consumer);
                rows::encode_settlements(out, acks, encode_settlement);
            }
            Command::PauseConsumer { ts, name, until } => {
                named(out, PAUSE_CONSUMER, (*ts, Some(until.0 as u64)), name);
            }
            Command::ResetConsumer { ts, name, seq } => named(out, RESET_CONSUMER, (*ts, Some(seq.0)), name),
            Command::Mirrored { ts, after, first, messages } => {
                encode_mirrored(out, *ts, (*after, *first), messages);
            }
            Command::Sourced { ts, source, identity, after, messages } => {
                encode_sourced(out, *ts, (source, identity, *after), messages);
            }
            Command::Restore { ts, step } => encode_restore(out, *ts, step),
        }
    }

    /// Appends the bytes of a command that stores several messages, or one beside others.
    fn encode_messages(&self, out: &mut Vec<u8>) {
        let messages = match self {
            Command::PublishBatch { ts, messages } => {
                head(out, PUBLISH_BATCH, *ts);
                messages.as_slice()
            }
            Command::BatchPart { ts, messages } => {
                head(out, BATCH_PART, *ts);
                messages
            }
            Command::PublishRun { ts, stop, of, messages } => {
                run_head(out, *ts, *stop, of.as_ref());
                messages
            }
            Command::Fire { ts, schedule, due, next, record } => {
                head(out, FIRE, *ts);
                number(out, schedule.0);
                number(out, due.0 as u64);
                number(out, next.0 as u64);
                std::slice::from_ref(record)
            }
            _ => return,
        };
        messages.iter().for_each(|message| encode_record(out, message));
    }

    /// Reads a command; its bytes stay shared.
    pub fn decode(bytes: &Bytes) -> Result<Command, DecodeError> {
        let mut r = Reader(bytes.clone());
        let kind = r.byte()?;
        let ts = Time(r.number()? as i64);
        let command = match kind {
            PUBLISH => {
                let (subject_len, header_len) = r.lengths()?;
                let record =
                    Record::from_joined(r.rest(), subject_len, header_len).ok_or(DecodeError::Short)?;
                Command::Publish { ts, record }
            }
            PUBLISH_BATCH => Command::PublishBatch { ts, messages: r.records()? },
            BATCH_PART => Command::BatchPart { ts, messages: r.records()? },
            PUBLISH_RUN | PUBLISH_RUN_OF => r.run(ts, kind == PUBLISH_RUN_OF)?,
            FIRE => Command::Fire {
                ts,
                schedule: Seq(r.number()?),
                due: Time(r.number()? as i64),
                next: Time(r.number()? as i64),
                record: r.record()?,
            },
            PURGE => Command::Purge { ts, seq: Seq(r.number()?), keep: r.number()?, filter: r.rest() },
            DELETE_MESSAGE => Command::DeleteMessage { ts, seq: Seq(r.number()?), erase: r.flag()? },
            EXPIRE => Command::Expire { ts },
            COMPARE => Command::Compare { ts },
            SERIAL => Command::Serial { ts, by: NodeId(r.number()?), number: r.number()? },
            CONFIGURE => Command::Configure { ts, revision: r.number()?, config: r.rest() },
            PUT_CONSUMER => Command::PutConsumer {
                ts,
                action: match r.byte()? {
                    0 => ConsumerAction::Any,
                    1 => ConsumerAction::Create,
                    2 => ConsumerAction::Update,
                    _ => return Err(DecodeError::Field),
                },
                pedantic: r.flag()?,
                name: r.text()?,
                config: r.rest(),
            },
            DELETE_CONSUMER => Command::DeleteConsumer { ts, name: r.rest() },
            DELIVERED => {
                let consumer = r.text()?;
                let mut seqs = Vec::with_capacity(r.0.len() / 8);
                while !r.0.is_empty() {
                    seqs.push(Seq(r.number()?));
                }
                Command::Delivered { ts, consumer, seqs }
            }
            DELIVERED_ROWS => {
                let consumer = r.text()?;
                Command::Delivered { ts, consumer, seqs: rows::decode_seqs(&mut r)? }
            }
            PROGRESS => r.progress(ts)?,
            SETTLED => {
                let consumer = r.text()?;
                Command::Settled { ts, consumer, acks: r.settlements()? }
            }
            PAUSE_CONSUMER => Command::PauseConsumer { ts, until: Time(r.number()? as i64), name: r.rest() },
            RESET_CONSUMER => Command::ResetConsumer { ts, seq: Seq(r.number()?), name: r.rest() },
            MIRRORED => r.mirrored(ts)?,
            SOURCED => r.sourced(ts)?,
            RESTORE => Command::Restore { ts, step: RestoreStep::decode(&mut r)? },
            other => return Err(DecodeError::Kind(other)),
        };
        match r.0.len() {
            0 => Ok(command),
            left => Err(DecodeError::Long(left)),
        }
    }
}

fn action_number(action: ConsumerAction) -> u8 {
    match action {
        ConsumerAction::Any => 0,
        ConsumerAction::Create => 1,
        ConsumerAction::Update => 2,
    }
}

fn encode_delivered(out: &mut Vec<u8>, ts: Time, consumer: &[u8], seqs: &[Seq]) {
    let in_rows = rows::is_worth_it(seqs);
    head(out, if in_rows { DELIVERED_ROWS } else { DELIVERED }, ts);
    text(out, consumer);
    match in_rows {
        true => rows::encode_seqs(out, seqs),
        false => seqs.iter().for_each(|seq| number(out, seq.0)),
    }
}

fn encode_settlement(out: &mut Vec<u8>, ack: &Settlement) {
    out.push(match ack.verdict {
        Verdict::Ack => 0,
        Verdict::Term(_) => 1,
        Verdict::Exhausted => 2,
    });
    number(out, ack.seq.0);
    number(out, ack.consumer_seq);
    if let Verdict::Term(reason) = &ack.verdict {
        text(out, reason);
    }
}

fn encode_mirrored(out: &mut Vec<u8>, ts: Time, (after, first): (Seq, Seq), messages: &[Fed]) {
    head(out, MIRRORED, ts);
    number(out, after.0);
    number(out, first.0);
    messages.iter().for_each(|message| encode_fed(out, message));
}

fn encode_sourced(
    out: &mut Vec<u8>,
    ts: Time,
    (source, identity, after): (&[u8], &[u8], Seq),
    messages: &[Fed],
) {
    head(out, SOURCED, ts);
    text(out, source);
    text(out, identity);
    number(out, after.0);
    messages.iter().for_each(|message| encode_fed(out, message));
}

fn encode_restore(out: &mut Vec<u8>, ts: Time, step: &RestoreStep) {
    head(out, RESTORE, ts);
    step.encode(out);
}

pub(super) fn encode_fed(out: &mut Vec<u8>, message: &Fed) {
    number(out, message.seq.0);
    number(out, message.ts.0 as u64);
    encode_record(out, &message.record);
}

fn encode_record(out: &mut Vec<u8>, record: &Record) {
    lengths(out, record.lengths());
    text(out, record.joined());
}

/// A command's bytes, from the front.
pub(super) struct Reader(Bytes);

impl Reader {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Result<Bytes, DecodeError> {
        if self.0.len() < count {
            return Err(DecodeError::Short);
        }
        Ok(self.0.split_to(count))
    }

    pub(super) fn byte(&mut self) -> Result<u8, DecodeError> {
        Ok(self.take(1)?[0])
    }

    fn flag(&mut self) -> Result<bool, DecodeError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::Field),
        }
    }

    pub(super) fn number(&mut self) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.take(8)?[..].try_into().expect("eight bytes were taken")))
    }

    pub(super) fn small(&mut self) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.take(4)?[..].try_into().expect("four bytes were taken")))
    }

    pub(super) fn text(&mut self) -> Result<Bytes, DecodeError> {
        let length = self.small()?;
        self.take(length as usize)
    }

    fn rest(&mut self) -> Bytes {
        std::mem::take(&mut self.0)
    }

    fn lengths(&mut self) -> Result<(u16, u32), DecodeError> {
        let lengths = self.take(6)?;
        let subject_len = u16::from_le_bytes([lengths[0], lengths[1]]);
        Ok((subject_len, u32::from_le_bytes([lengths[2], lengths[3], lengths[4], lengths[5]])))
    }

    fn record(&mut self) -> Result<Record, DecodeError> {
        let (subject_len, header_len) = self.lengths()?;
        Record::from_joined(self.text()?, subject_len, header_len).ok_or(DecodeError::Short)
    }

    /// Messages up to the end.
    fn run(&mut self, ts: Time, is_named: bool) -> Result<Command, DecodeError> {
        let stop = self.flag()?;
        let of = match is_named {
            true => {
                let (id, flow) = (self.text()?, self.number()?);
                Some(RunOf { id, flow, first: self.number()?, last: self.number()?, ends: self.flag()? })
            }
            false => None,
        };
        Ok(Command::PublishRun { ts, stop, of, messages: self.records()? })
    }

    fn records(&mut self) -> Result<Vec<Record>, DecodeError> {
        let mut records = Vec::new();
        while !self.0.is_empty() {
            records.push(self.record()?);
        }
        Ok(records)
    }

    fn progress(&mut self, ts: Time) -> Result<Command, DecodeError> {
        let (revision, consumer_seq, seq) = (self.number()?, self.number()?, Seq(self.number()?));
        Ok(Command::Progress { ts, consumer: self.rest(), revision, consumer_seq, seq })
    }

    fn mirrored(&mut self, ts: Time) -> Result<Command, DecodeError> {
        let (after, first) = (Seq(self.number()?), Seq(self.number()?));
        Ok(Command::Mirrored { ts, after, first, messages: self.fed()? })
    }

    fn sourced(&mut self, ts: Time) -> Result<Command, DecodeError> {
        let (source, identity) = (self.text()?, self.text()?);
        let after = Seq(self.number()?);
        Ok(Command::Sourced { ts, source, identity, after, messages: self.fed()? })
    }

    /// Messages up to the end, their sequences ascending.
    pub(super) fn fed(&mut self) -> Result<Vec<Fed>, DecodeError> {
        let mut messages: Vec<Fed> = Vec::new();
        while !self.0.is_empty() {
            let (seq, ts) = (Seq(self.number()?), Time(self.number()? as i64));
            let record = self.record()?;
            // The highest number has no successor; no stream ever gets there.
            if seq.0 == u64::MAX || messages.last().is_some_and(|last| last.seq >= seq) {
                return Err(DecodeError::Field);
            }
            messages.push(Fed { seq, ts, record });
        }
        Ok(messages)
    }

    fn settlements(&mut self) -> Result<Vec<Settlement>, DecodeError> {
        let mut acks = Vec::with_capacity(self.0.len() / 17);
        while let Some(&kind) = self.0.first() {
            if kind == rows::IN_A_ROW {
                self.byte()?;
                rows::decode_acks(self, &mut acks)?;
            } else {
                acks.push(self.settlement()?);
            }
        }
        Ok(acks)
    }

    fn settlement(&mut self) -> Result<Settlement, DecodeError> {
        let kind = self.byte()?;
        let (seq, consumer_seq) = (Seq(self.number()?), self.number()?);
        let verdict = match kind {
            0 => Verdict::Ack,
            1 => Verdict::Term(self.text()?),
            2 => Verdict::Exhausted,
            _ => return Err(DecodeError::Field),
        };
        Ok(Settlement { seq, consumer_seq, verdict })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumer::{Delivery, Progress};

    fn waits() -> Vec<(Seq, Delivery)> {
        vec![(Seq(4), Delivery { consumer_seq: 5, ts: Time(9), count: 2 })]
    }

    fn restored_consumer() -> RestoreStep {
        let progress = Progress { delivered: (5, Seq(4)), ack_floor: (3, Seq(2)), pending: waits() };
        let (name, config) = (Bytes::from_static(b"C"), Bytes::from_static(b"{}"));
        RestoreStep::Consumer { name, progress, config }
    }

    /// Every kind, with the bytes that are on disks: they may never change.
    fn cases() -> Vec<(Command, &'static [u8])> {
        let ts = Time(0x0102_0304_0506_0708);
        let b = Bytes::from_static;
        let record = Record::join(b"s.a", b"NATS/1.0\r\n\r\n", b"hi").expect("it is short");
        let fed = |seq| {
            let record = Record::join(b"a", b"", b"p").expect("it is short");
            vec![Fed { seq: Seq(seq), ts: Time(5), record }]
        };
        let two = Record::join(b"a", b"", b"p").expect("it is short");
        let acks = vec![
            Settlement { seq: Seq(7), consumer_seq: 3, verdict: Verdict::Ack },
            Settlement { seq: Seq(8), consumer_seq: 4, verdict: Verdict::Term(b(b"no")) },
            Settlement { seq: Seq(9), consumer_seq: 5, verdict: Verdict::Exhausted },
        ];
        vec![
            (
                Command::Publish { ts, record },
                b"\x01\x08\x07\x06\x05\x04\x03\x02\x01\x03\x00\x0c\x00\x00\x00s.aNATS/1.0\r\n\r\nhi",
            ),
            (
                Command::Purge { ts, filter: b(b"a.>"), seq: Seq(5), keep: 2 },
                b"\x02\x08\x07\x06\x05\x04\x03\x02\x01\x05\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0a.>",
            ),
            (
                Command::DeleteMessage { ts, seq: Seq(6), erase: true },
                b"\x03\x08\x07\x06\x05\x04\x03\x02\x01\x06\0\0\0\0\0\0\0\x01",
            ),
            (Command::Expire { ts }, b"\x04\x08\x07\x06\x05\x04\x03\x02\x01"),
            (
                Command::Configure { ts, revision: 3, config: b(b"{}") },
                b"\x05\x08\x07\x06\x05\x04\x03\x02\x01\x03\0\0\0\0\0\0\0{}",
            ),
            (
                Command::PutConsumer {
                    ts,
                    name: b(b"C"),
                    action: ConsumerAction::Update,
                    pedantic: true,
                    config: b(b"{}"),
                },
                b"\x06\x08\x07\x06\x05\x04\x03\x02\x01\x02\x01\x01\0\0\0C{}",
            ),
            (Command::DeleteConsumer { ts, name: b(b"C") }, b"\x07\x08\x07\x06\x05\x04\x03\x02\x01C"),
            (
                Command::Delivered { ts, consumer: b(b"C"), seqs: vec![Seq(1), Seq(2)] },
                b"\x08\x08\x07\x06\x05\x04\x03\x02\x01\x01\0\0\0C\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0",
            ),
            (
                Command::Settled { ts, consumer: b(b"C"), acks },
                b"\x09\x08\x07\x06\x05\x04\x03\x02\x01\x01\0\0\0C\
                  \0\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\
                  \x01\x08\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x02\0\0\0no\
                  \x02\x09\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0",
            ),
            (
                Command::PauseConsumer { ts, name: b(b"C"), until: Time(1) },
                b"\x0a\x08\x07\x06\x05\x04\x03\x02\x01\x01\0\0\0\0\0\0\0C",
            ),
            (
                Command::ResetConsumer { ts, name: b(b"C"), seq: Seq(2) },
                b"\x0b\x08\x07\x06\x05\x04\x03\x02\x01\x02\0\0\0\0\0\0\0C",
            ),
            (
                Command::PublishBatch { ts, messages: vec![two.clone(), two.clone()] },
                b"\x0c\x08\x07\x06\x05\x04\x03\x02\x01\
                  \x01\0\0\0\0\0\x02\0\0\0ap\x01\0\0\0\0\0\x02\0\0\0ap",
            ),
            (
                Command::BatchPart { ts, messages: vec![two.clone()] },
                b"\x0d\x08\x07\x06\x05\x04\x03\x02\x01\x01\0\0\0\0\0\x02\0\0\0ap",
            ),
            (
                Command::PublishRun { ts, stop: true, of: None, messages: vec![two.clone()] },
                b"\x0e\x08\x07\x06\x05\x04\x03\x02\x01\x01\x01\0\0\0\0\0\x02\0\0\0ap",
            ),
            (
                Command::PublishRun {
                    ts,
                    stop: false,
                    of: Some(RunOf { id: b(b"B"), flow: 500, first: 3, last: 3, ends: true }),
                    messages: vec![two.clone()],
                },
                b"\x16\x08\x07\x06\x05\x04\x03\x02\x01\0\x01\0\0\0B\xf4\x01\0\0\0\0\0\0\
                  \x03\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x01\x01\0\0\0\0\0\x02\0\0\0ap",
            ),
            (
                Command::Fire { ts, schedule: Seq(3), due: Time(5), next: Time(6), record: two },
                b"\x0f\x08\x07\x06\x05\x04\x03\x02\x01\x03\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\
                  \x06\0\0\0\0\0\0\0\x01\0\0\0\0\0\x02\0\0\0ap",
            ),
            (
                Command::Progress { ts, consumer: b(b"C"), revision: 1, consumer_seq: 2, seq: Seq(3) },
                b"\x11\x08\x07\x06\x05\x04\x03\x02\x01\x01\0\0\0\0\0\0\0\
                  \x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0C",
            ),
            (Command::Compare { ts }, b"\x12\x08\x07\x06\x05\x04\x03\x02\x01"),
            (
                Command::Serial { ts, by: NodeId(9), number: 3 },
                b"\x13\x08\x07\x06\x05\x04\x03\x02\x01\x09\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0",
            ),
            (
                Command::Mirrored { ts, after: Seq(1), first: Seq(2), messages: fed(2) },
                b"\x14\x08\x07\x06\x05\x04\x03\x02\x01\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\
                  \x02\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x01\0\0\0\0\0\x02\0\0\0ap",
            ),
            (
                Command::Sourced { ts, source: b(b"A"), identity: b(b"I"), after: Seq(1), messages: fed(3) },
                b"\x15\x08\x07\x06\x05\x04\x03\x02\x01\x01\0\0\0A\x01\0\0\0I\x01\0\0\0\0\0\0\0\
                  \x03\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x01\0\0\0\0\0\x02\0\0\0ap",
            ),
            (
                Command::Restore { ts, step: RestoreStep::Begin { first: Seq(2) } },
                b"\x28\x08\x07\x06\x05\x04\x03\x02\x01\0\x02\0\0\0\0\0\0\0",
            ),
            (
                Command::Restore { ts, step: restored_consumer() },
                b"\x28\x08\x07\x06\x05\x04\x03\x02\x01\x01\x01\0\0\0C\
                  \x05\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\x02\0\0\0{}\
                  \x04\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x02\0\0\0",
            ),
            (
                Command::Restore { ts, step: RestoreStep::Pending { name: b(b"C"), deliveries: waits() } },
                b"\x28\x08\x07\x06\x05\x04\x03\x02\x01\x02\x01\0\0\0C\
                  \x04\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x02\0\0\0",
            ),
            (
                Command::Restore { ts, step: RestoreStep::Messages(fed(2)) },
                b"\x28\x08\x07\x06\x05\x04\x03\x02\x01\x03\
                  \x02\0\0\0\0\0\0\0\x05\0\0\0\0\0\0\0\x01\0\0\0\0\0\x02\0\0\0ap",
            ),
            (
                Command::Restore { ts, step: RestoreStep::End { last: Seq(9), last_ts: Time(3) } },
                b"\x28\x08\x07\x06\x05\x04\x03\x02\x01\x04\x09\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0",
            ),
        ]
    }

    #[test]
    fn bytes_are_pinned() {
        for (command, expected) in cases() {
            let mut bytes = Vec::new();
            command.encode(&mut bytes);
            assert_eq!(bytes, expected, "{command:?}");
            assert_eq!(Command::decode(&bytes.into()), Ok(command));
        }
    }

    #[test]
    fn a_publish_from_parts_is_the_same() {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert!(encode_publish(&mut a, Time(5), b"s", b"h", b"p"));
        Command::Publish { ts: Time(5), record: Record::join(b"s", b"h", b"p").expect("short") }
            .encode(&mut b);
        assert_eq!(a, b);
        assert!(!encode_publish(&mut a, Time(5), &[b'x'; 70_000], b"", b""));
    }

    #[test]
    fn batches_from_parts_are_the_same() {
        let record = Record::join(b"s", b"h", b"p").expect("short");
        let mut messages = Vec::new();
        assert!(encode_batch_message(&mut messages, b"s", b"h", b"p"));
        assert!(!encode_batch_message(&mut messages, &[b'x'; 70_000], b"", b""));
        let (ts, records) = (Time(5), vec![record]);
        for (command, encode) in [
            (Command::PublishBatch { ts, messages: records.clone() }, encode_batch as fn(&mut _, _, &_)),
            (Command::BatchPart { ts, messages: records.clone() }, encode_batch_part),
            (Command::PublishRun { ts, stop: false, of: None, messages: records }, |out, ts, raw| {
                encode_run(out, ts, (false, None), raw);
            }),
        ] {
            let (mut whole, mut parts) = (Vec::new(), Vec::new());
            command.encode(&mut whole);
            encode(&mut parts, ts, &messages);
            assert_eq!(whole, parts);
        }
    }

    #[test]
    fn damage_never_panics() {
        for (command, bytes) in cases() {
            for cut in 0..bytes.len() {
                let _ = Command::decode(&Bytes::copy_from_slice(&bytes[..cut]));
            }
            for at in 0..bytes.len() {
                let mut bytes = bytes.to_vec();
                bytes[at] ^= 0xff;
                assert_ne!(Command::decode(&bytes.into()), Ok(command.clone()));
            }
        }
        assert_eq!(Command::decode(&Bytes::new()), Err(DecodeError::Short));
        assert_eq!(Command::decode(&Bytes::from_static(b"\x04\0\0\0\0\0\0\0\0x")), Err(DecodeError::Long(1)));
        assert_eq!(
            Command::decode(&Bytes::from_static(b"\xff\0\0\0\0\0\0\0\0")),
            Err(DecodeError::Kind(255))
        );
    }
}
