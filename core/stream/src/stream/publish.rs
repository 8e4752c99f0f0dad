//! Storing a message: what is rewritten before, what gives way after, and who else gets a copy.

use std::borrow::Cow;

use bytes::Bytes;
use hw_kit::{Seq, Span, Time};
use hw_store::Record;
use hw_subject::is_valid_subject;

use super::Stream;
use super::admit::{Admitted, Fields, Incoming, Rollup, Way, counter_payload};
use super::counter;
use super::dedupe::MsgId;
use super::expiry::Special;
use super::headers;
use super::number::Number;
use super::ttl::Ttl;
use crate::config::Retention;
use crate::outcome::{Effect, PublishError, Stored};

/// A message that was admitted, and what it means.
pub(super) struct Storing<'a> {
    pub record: Record,
    pub msg_id: Option<MsgId<'a>>,
    pub rollup: Rollup,
    pub special: Option<Special>,
    /// A counter's new total.
    pub total: Option<Number>,
    /// Its sequence, above all others, and its time.
    pub at: (Seq, Time),
}

/// A message as its publisher sent it, and what it becomes before anything is decided.
pub(super) struct Arriving<'a> {
    record: &'a Record,
    /// The subject, if it is mapped to another one.
    subject: Option<Vec<u8>>,
    /// The header without what is for the transport.
    pub header: Cow<'a, [u8]>,
}

impl Arriving<'_> {
    /// What is checked.
    pub fn message(&self) -> Incoming<'_> {
        Incoming {
            subject: self.subject.as_deref().unwrap_or(self.record.subject()),
            header: &self.header,
            payload: self.record.payload(),
        }
    }
}

impl Stream {
    pub(super) fn publish(
        &mut self,
        record: &Record,
        way: Way<'_>,
        fx: &mut Vec<Effect>,
    ) -> Result<Stored, PublishError> {
        let arriving = self.arriving(record);
        let fields = Fields::of(&arriving.header);
        let admitted = self.admit(&arriving.message(), &fields, way)?;
        self.take_in(&arriving, &fields, admitted, fx)
    }

    /// What a message is when it arrives.
    pub(super) fn arriving<'a>(&self, record: &'a Record) -> Arriving<'a> {
        let header = match headers::without_status(record.header()) {
            Some(stripped) => Cow::Owned(stripped),
            None => Cow::Borrowed(record.header()),
        };
        Arriving { record, subject: self.mapped(record.subject()), header }
    }

    /// Stores what was admitted, or does what stands for storing it.
    pub(super) fn take_in(
        &mut self,
        arriving: &Arriving<'_>,
        fields: &Fields<'_>,
        admitted: Admitted,
        fx: &mut Vec<Effect>,
    ) -> Result<Stored, PublishError> {
        let (rollup, ttl, total, schedule) = match admitted {
            Admitted::Duplicate(seq) => return Ok(Stored { seq, duplicate: true, ..Stored::default() }),
            Admitted::Unwanted => {
                let seq = self.messages.last_seq().next();
                self.messages.advance_to(seq, self.clock);
                self.remember(fields.msg_id, seq);
                return Ok(Stored { seq, ..Stored::default() });
            }
            Admitted::Stored { rollup, ttl, total, schedule } => (rollup, ttl, total, schedule),
        };
        let Arriving { record, subject, header } = arriving;
        let special = self.special(self.clock, ttl, fields.is_marker());
        let marked = self.marked_header(header, fields, ttl, schedule.is_some());
        let sources = total.as_ref().and_then(|_| self.sources_of(arriving.message().subject));
        let marked = match &sources {
            None => marked,
            Some(sources) => {
                let mut marked = marked.unwrap_or_else(|| header.to_vec());
                headers::set(&mut marked, counter::SOURCES, &counter::shown(sources));
                Some(marked)
            }
        };
        let counted = total.as_ref().map(counter_payload);
        let is_header_new = marked.is_some() || matches!(header, Cow::Owned(_));
        let changed = subject.is_some() || counted.is_some() || is_header_new;
        let stored = match changed {
            false => (*record).clone(),
            true => {
                let subject = subject.as_deref().unwrap_or(record.subject());
                let payload = counted.as_deref().map_or(record.payload(), str::as_bytes);
                // Only a header that grew beyond 4 GiB does not fit; admission has refused it.
                Record::join(subject, marked.as_deref().unwrap_or(header), payload)
                    .ok_or(PublishError::TooLarge)?
            }
        };
        let val = total.as_ref().map(Number::to_string);
        let at = (self.messages.last_seq().next(), self.clock);
        let storing = Storing { record: stored, msg_id: fields.msg_id, rollup, special, total, at };
        let seq = self.store(storing, fx);
        if let Some(sources) = sources {
            self.remember_sources(seq, sources);
        }
        if let Some(due) = schedule.filter(|_| self.messages.contains(seq)) {
            self.schedules.insert(seq, due);
        }
        if let Some(scheduler) = fields.ends_schedule() {
            self.end_schedule(scheduler, fx);
        }
        Ok(Stored { seq, val, ..Stored::default() })
    }

    /// The header with what the stream adds to it: a life that is too short is raised, a schedule replaces the one before.
    fn marked_header(
        &self,
        header: &[u8],
        fields: &Fields<'_>,
        ttl: Option<Ttl>,
        is_schedule: bool,
    ) -> Option<Vec<u8>> {
        let raised = self.raised(ttl);
        let rolls_up = is_schedule && fields.rollup.is_none();
        if raised.is_none() && !rolls_up {
            return None;
        }
        let mut marked = header.to_vec();
        if let Some(seconds) = raised {
            marked = headers::without(&marked, "Nats-TTL");
            headers::push(&mut marked, "Nats-TTL", seconds.to_string().as_bytes());
        }
        if rolls_up {
            headers::push(&mut marked, "Nats-Rollup", b"sub");
        }
        Some(marked)
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
        self.republish(&record, (seq, ts), fx);
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

    pub(super) fn remember(&mut self, msg_id: Option<MsgId<'_>>, seq: Seq) {
        self.last_msg_id = msg_id.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.text));
        if let Some(id) = msg_id
            && !self.config.duplicate_window.is_zero()
        {
            self.dedupe.insert(self.clock, id.print, seq);
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

    fn republish(&self, record: &Record, (seq, ts): (Seq, Time), fx: &mut Vec<Effect>) {
        let (Some(mapping), Some(config)) = (&self.mappings.republish, &self.config.republish) else {
            return;
        };
        let to = mapping.apply(record.subject(), self.fingerprint).filter(|to| is_valid_subject(to));
        let Some(to) = to.map(Bytes::from) else { return };
        let before = self.messages.last_of(record.subject());
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
        // What cannot be read is not known to be unneeded.
        let Some(subject) = self.messages.subject_of(seq) else { return self.messages.contains(seq) };
        self.consumers.values().any(|consumer| consumer.needs(seq, &subject))
    }
}
