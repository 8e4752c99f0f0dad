//! Messages of other streams: a mirror takes them as they are, sources give them new sequences.

use bytes::Bytes;
use hw_kit::{Seq, Time};
use hw_store::Record;

use super::Stream;
use super::admit::{Admitted, Fields, Incoming};
use super::publish::Storing;
use crate::command::Fed;
use crate::outcome::{Effect, Feeding, PublishError};

/// How far a source was taken.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Position {
    /// Tells the origin from others of its name; empty: nobody knows, after a restore.
    pub identity: Bytes,
    /// The origin's sequence that was taken last.
    pub seq: Seq,
}

/// Where a copy goes: to the origin's sequence and time in a mirror.
#[derive(Clone, Copy)]
enum Place {
    Mirrored(Seq, Time),
    Next,
}

impl Stream {
    /// How far a source was taken; none when nothing was.
    pub fn position(&self, source: &[u8]) -> Option<&Position> {
        self.positions.get(source)
    }

    /// Takes what a mirror's origin has. All of it follows `after`, or it is for a state that is gone.
    pub(super) fn take_mirrored(
        &mut self,
        (after, first): (Seq, Seq),
        messages: Vec<Fed>,
        fx: &mut Vec<Effect>,
    ) -> Feeding {
        if self.config.mirror.is_none() || self.messages.last_seq() != after {
            return Feeding::Stale;
        }
        if after == Seq(0) {
            self.messages.advance_to(first.prev().min(Seq(super::check::FIRST_SEQ_MAX)), Time(0));
        }
        for Fed { seq, ts, record } in messages {
            if seq <= self.messages.last_seq() {
                continue;
            }
            if let Err(error) = self.copy_in(&record, Place::Mirrored(seq, ts), fx) {
                return Feeding::Refused(error);
            }
        }
        Feeding::Taken
    }

    /// Takes what a source has, up to the first message for which there is no room.
    pub(super) fn take_sourced(
        &mut self,
        source: Bytes,
        after: Position,
        messages: Vec<Fed>,
        fx: &mut Vec<Effect>,
    ) -> Feeding {
        let configured = self.config.sources.iter().any(|config| crate::feed::source_key(config) == source);
        let here = self.positions.get(&source);
        let at = match here {
            Some(at) if at.identity == after.identity => at.seq,
            // The leader knows the origin, and whether it can be the one that was taken before.
            Some(at) if at.identity.is_empty() && at.seq == after.seq => at.seq,
            _ => Seq(0),
        };
        if !configured || at != after.seq {
            return Feeding::Stale;
        }
        let mut taken = at;
        let mut outcome = Feeding::Taken;
        for Fed { seq, record, .. } in messages {
            match self.copy_in(&record, Place::Next, fx) {
                // What is no counter at the origin is none here.
                Ok(()) | Err(PublishError::CounterMissing | PublishError::CounterBroken) => {}
                Err(error) => {
                    outcome = Feeding::Refused(error);
                    break;
                }
            }
            taken = seq;
        }
        if taken > at {
            self.fingerprint ^= taken.0;
            // Buffers of their own: they must not keep the log's frame in memory.
            let identity = Bytes::copy_from_slice(&after.identity);
            self.positions.insert(Bytes::copy_from_slice(&source), Position { identity, seq: taken });
        }
        outcome
    }

    fn copy_in(&mut self, record: &Record, place: Place, fx: &mut Vec<Effect>) -> Result<(), PublishError> {
        let is_mirror = matches!(place, Place::Mirrored(..));
        let (seq, ts) = match place {
            Place::Mirrored(seq, ts) => (seq, ts),
            Place::Next => (self.messages.last_seq().next(), self.clock),
        };
        let subject = if is_mirror { None } else { self.mapped(record.subject()) };
        let message = Incoming {
            subject: subject.as_deref().unwrap_or(record.subject()),
            header: record.header(),
            payload: record.payload(),
        };
        let fields = Fields::of(record.header());
        // A mirror has what its origin has, whatever ids the messages carry.
        let msg_id = fields.msg_id.filter(|_| !is_mirror);
        let counted = match place {
            Place::Next if self.config.allow_msg_counter => Some(self.count_copy(&message, &fields)?),
            _ => None,
        };
        match self.admit_copy(&message, &fields, msg_id)? {
            Admitted::Duplicate(_) => {}
            Admitted::Unwanted => {
                self.messages.advance_to(seq, ts);
                self.remember(msg_id, seq);
            }
            Admitted::Stored { rollup, ttl, total, .. } => {
                let special = self.special(ts, ttl, fields.is_marker());
                let record = match &counted {
                    None if subject.is_none() => Some(record.clone()),
                    None => Record::join(message.subject, message.header, message.payload),
                    Some(counted) => {
                        Record::join(message.subject, &counted.header, counted.payload.as_bytes())
                    }
                };
                let record = record.ok_or(PublishError::TooLarge)?;
                let (total, sources) = match counted {
                    Some(counted) => (Some(counted.total), Some(counted.sources)),
                    None => (total, None),
                };
                self.store(Storing { record, msg_id, rollup, special, total, at: (seq, ts) }, fx);
                if let Some(sources) = sources {
                    self.remember_sources(seq, sources);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
