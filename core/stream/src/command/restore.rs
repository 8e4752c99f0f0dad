//! The steps of restoring a stream from a backup, and their bytes. docs/format.md, "Commands".

use bytes::Bytes;
use hw_kit::{Seq, Time};

use super::Fed;
use super::codec::{DecodeError, Reader, encode_fed, number, text};
use crate::consumer::{Delivery, Progress};

const BEGIN: u8 = 0;
const CONSUMER: u8 = 1;
const PENDING: u8 = 2;
const MESSAGES: u8 = 3;
const END: u8 = 4;

/// One step. All of them go to a stream that nobody sees before the last one was applied.
#[derive(Clone, Debug, PartialEq)]
pub enum RestoreStep {
    /// Where the sequences begin.
    Begin {
        /// The first sequence that the stream has.
        first: Seq,
    },
    /// A consumer with its progress; more of what waits for an acknowledgement may follow.
    Consumer {
        /// The name.
        name: Bytes,
        /// How far it came.
        progress: Progress,
        /// `ConsumerConfig` as JSON.
        config: Bytes,
    },
    /// More deliveries of a consumer that wait for an acknowledgement.
    Pending {
        /// Which consumer.
        name: Bytes,
        /// Ascending, and above those before.
        deliveries: Vec<(Seq, Delivery)>,
    },
    /// Messages with their sequences and times, ascending.
    Messages(Vec<Fed>),
    /// That was all.
    End {
        /// The last sequence that was given.
        last: Seq,
        /// When.
        last_ts: Time,
    },
}

impl RestoreStep {
    /// Appends the step's bytes.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            RestoreStep::Begin { first } => {
                out.push(BEGIN);
                number(out, first.0);
            }
            RestoreStep::Consumer { name, progress, config } => {
                out.push(CONSUMER);
                text(out, name);
                for (consumer_seq, stream_seq) in [progress.delivered, progress.ack_floor] {
                    number(out, consumer_seq);
                    number(out, stream_seq.0);
                }
                text(out, config);
                progress.pending.iter().for_each(|entry| encode_delivery(out, entry));
            }
            RestoreStep::Pending { name, deliveries } => {
                out.push(PENDING);
                text(out, name);
                deliveries.iter().for_each(|entry| encode_delivery(out, entry));
            }
            RestoreStep::Messages(messages) => {
                out.push(MESSAGES);
                messages.iter().for_each(|message| encode_fed(out, message));
            }
            RestoreStep::End { last, last_ts } => {
                out.push(END);
                number(out, last.0);
                number(out, last_ts.0 as u64);
            }
        }
    }

    /// Reads a step up to the end.
    pub(super) fn decode(r: &mut Reader) -> Result<RestoreStep, DecodeError> {
        Ok(match r.byte()? {
            BEGIN => RestoreStep::Begin { first: Seq(r.number()?) },
            CONSUMER => {
                let name = r.text()?;
                let mut position = || Ok((r.number()?, Seq(r.number()?)));
                let (delivered, ack_floor) = (position()?, position()?);
                let config = r.text()?;
                let progress = Progress { delivered, ack_floor, pending: deliveries(r)? };
                RestoreStep::Consumer { name, progress, config }
            }
            PENDING => RestoreStep::Pending { name: r.text()?, deliveries: deliveries(r)? },
            MESSAGES => RestoreStep::Messages(r.fed()?),
            END => RestoreStep::End { last: Seq(r.number()?), last_ts: Time(r.number()? as i64) },
            _ => return Err(DecodeError::Field),
        })
    }
}

fn encode_delivery(out: &mut Vec<u8>, (seq, delivery): &(Seq, Delivery)) {
    number(out, seq.0);
    number(out, delivery.consumer_seq);
    number(out, delivery.ts.0 as u64);
    out.extend_from_slice(&delivery.count.to_le_bytes());
}

fn deliveries(r: &mut Reader) -> Result<Vec<(Seq, Delivery)>, DecodeError> {
    let mut all: Vec<(Seq, Delivery)> = Vec::new();
    while !r.is_empty() {
        let (seq, consumer_seq, ts) = (Seq(r.number()?), r.number()?, Time(r.number()? as i64));
        let count = u32::from_le_bytes(r.take(4)?[..].try_into().expect("four bytes were taken"));
        if count == 0 || consumer_seq == 0 || all.last().is_some_and(|(last, _)| *last >= seq) {
            return Err(DecodeError::Field);
        }
        all.push((seq, Delivery { consumer_seq, ts, count }));
    }
    Ok(all)
}
