//! Storing a message: what is rewritten before, what gives way after, and who else gets a copy.

use std::borrow::Cow;

use bytes::Bytes;
use hw_kit::{Seq, Span, Time};
use hw_store::Record;
use hw_subject::is_valid_subject;

use super::Stream;
use super::admit::{Admitted, Fields, Incoming, Rollup, counter_payload};
use super::expiry::Special;
use super::headers;
use super::number::Number;
use super::ttl::Ttl;
use crate::config::Retention;
use crate::outcome::{Effect, PublishError, Stored};

/// A message that was admitted, and what it means.
pub(super) struct Storing<'a> {
    pub record: Record,
    pub msg_id: Option<&'a [u8]>,
    pub rollup: Rollup,
    pub special: Option<Special>,
    /// A counter's new total.
    pub total: Option<Number>,
    /// Its sequence, above all others, and its time.
    pub at: (Seq, Time),
}

impl Stream {
    pub(super) fn publish(&mut self, record: Record, fx: &mut Vec<Effect>) -> Result<Stored, PublishError> {
        let subject = self.mapped(record.subject());
        let header = match headers::without_status(record.header()) {
            Some(stripped) => Cow::Owned(stripped),
            None => Cow::Borrowed(record.header()),
        };
        let fields = Fields::of(&header);
        let message = Incoming {
            subject: subject.as_deref().unwrap_or(record.subject()),
            header: &header,
            payload: record.payload(),
        };
        let (rollup, ttl, total) = match self.admit(&message, &fields)? {
            Admitted::Duplicate(seq) => return Ok(Stored { seq, duplicate: true, val: None }),
            Admitted::Unwanted => {
                let seq = self.messages.last_seq().next();
                self.messages.advance_to(seq, self.clock);
                self.remember(fields.msg_id, seq);
                return Ok(Stored { seq, ..Stored::default() });
            }
            Admitted::Stored { rollup, ttl, total } => (rollup, ttl, total),
        };
        let special = self.special(self.clock, ttl, fields.is_marker());
        let raised = self.raised(ttl).map(|seconds| {
            let mut header = headers::without(&header, "Nats-TTL");
            headers::push(&mut header, "Nats-TTL", seconds.to_string().as_bytes());
            header
        });
        let counted = total.as_ref().map(counter_payload);
        let changed =
            subject.is_some() || raised.is_some() || counted.is_some() || matches!(header, Cow::Owned(_));
        let stored = match changed {
            false => record.clone(),
            true => {
                let header = raised.as_deref().unwrap_or(&header);
                // Only a subject that its mapping made too long does not fit.
                let payload = counted.as_deref().map_or(message.payload, str::as_bytes);
                Record::join(message.subject, header, payload).ok_or(PublishError::TooLarge)?
            }
        };
        let val = total.as_ref().map(Number::to_string);
        let at = (self.messages.last_seq().next(), self.clock);
        let storing = Storing { record: stored, msg_id: fields.msg_id, rollup, special, total, at };
        Ok(Stored { seq: self.store(storing, fx), duplicate: false, val })
    }

    /// What the configuration's mapping makes of a subject, if that is another one.
    pub(super) fn mapped(&self, subject: &[u8]) -> Option<Vec<u8>> {
        let mapping = self.mappings.transform.as_ref()?;
        // A mapping can leave an empty token; such a subject could never be asked for again.
        mapping.apply(subject, self.fingerprint).filter(|subject| is_valid_subject(subject))
    }

    /// Appends a message and lets older ones give way.
    pub(super) fn store(&mut self, storing: Storing<'_>, fx: &mut Vec<Effect>) -> Seq {
        let Storing { record, msg_id, rollup, special, total, at: (seq, ts) } = storing;
        let before = self.messages.last_of(record.subject());
        self.republish(&record, (seq, ts), before, fx);
        self.messages.append(seq, ts, record.clone());
        self.remember(msg_id, seq);
        if let Some(special) = special {
            self.expiry.insert(seq, special);
        }
        if let Some(total) = total {
            self.totals.insert(seq, total);
        }
        match rollup {
            Rollup::None => {}
            Rollup::Subject => self.drop_subject_before(record.subject(), seq, fx),
            Rollup::All => self.drop_before(seq, fx),
        }
        self.enforce_per_subject(record.subject(), fx);
        self.enforce_limits(fx);
        seq
    }

    pub(super) fn remember(&mut self, msg_id: Option<&[u8]>, seq: Seq) {
        self.last_msg_id = msg_id.map_or_else(Bytes::new, Bytes::copy_from_slice);
        if let Some(id) = msg_id
            && !self.config.duplicate_window.is_zero()
        {
            self.dedupe.insert(self.clock, id, seq);
        }
    }

    /// What a message of this time has of its own.
    pub(super) fn special(&self, ts: Time, ttl: Option<Ttl>, is_marker: bool) -> Option<Special> {
        let expires = match ttl {
            Some(Ttl::Never) => Time::NEVER,
            Some(Ttl::Lives(span)) => match self.raised(ttl) {
                Some(seconds) => ts + Span::from_secs(seconds),
                None => ts + span,
            },
            None => Time(0),
        };
        (expires.is_set() || is_marker).then_some(Special { expires, is_marker })
    }

    /// With delete markers a message must live as long as the marker of the one before it, or a reader could miss that
    /// it is gone: a shorter life is raised to this many seconds.
    fn raised(&self, ttl: Option<Ttl>) -> Option<i64> {
        let floor = self.config.subject_delete_marker_ttl.0 / 1_000_000_000;
        match ttl {
            Some(Ttl::Lives(span)) if self.config.max_msgs_per_subject != 1 => {
                (span.0 / 1_000_000_000 < floor).then_some(floor)
            }
            _ => None,
        }
    }

    /// Whether any consumer is interested in a subject.
    pub(super) fn is_wanted(&self, subject: &[u8]) -> bool {
        self.consumers.values().any(|consumer| consumer.matches(subject))
    }

    fn republish(&self, record: &Record, (seq, ts): (Seq, Time), before: Option<Seq>, fx: &mut Vec<Effect>) {
        let (Some(mapping), Some(config)) = (&self.mappings.republish, &self.config.republish) else {
            return;
        };
        let to = mapping.apply(record.subject(), self.fingerprint).filter(|to| is_valid_subject(to));
        let Some(to) = to.map(Bytes::from) else { return };
        let mut header = record.header().to_vec();
        let number = |n: u64| n.to_string().into_bytes();
        let ts = ts.to_rfc3339();
        let fields: [(&str, &[u8]); 5] = [
            ("Nats-Stream", self.config.name.as_bytes()),
            ("Nats-Subject", record.subject()),
            ("Nats-Sequence", &number(seq.0)),
            ("Nats-Time-Stamp", ts.as_bytes()),
            ("Nats-Last-Sequence", &number(before.unwrap_or_default().0)),
        ];
        for (name, value) in fields {
            headers::push(&mut header, name, value);
        }
        let payload = match config.headers_only {
            true => {
                headers::push(&mut header, "Nats-Msg-Size", &number(record.payload().len() as u64));
                Bytes::new()
            }
            false => record.joined().slice(record.subject().len() + record.header().len()..),
        };
        fx.push(Effect::Send { to, reply: Bytes::new(), header: header.into(), payload });
    }

    /// Retention `interest`: whether a message must be kept for some consumer.
    pub(super) fn is_needed(&self, seq: Seq) -> bool {
        if self.config.retention != Retention::Interest {
            return true;
        }
        let Some(subject) = self.messages.subject_of(seq) else { return false };
        self.consumers.values().any(|consumer| consumer.needs(seq, subject))
    }
}
