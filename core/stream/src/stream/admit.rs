//! What a publish must pass, in the order in which `nats-server` checks it: the one place that refuses a message.

use hw_kit::{Seq, Time};

use super::Stream;
use super::batch::Ahead;
use super::dedupe::MsgId;
use super::headers;
use super::number::Number;
use super::schedule::Schedule;
use super::ttl::{InvalidTtl, Ttl};
use crate::config::{Discard, Retention, StreamConfig};
use crate::outcome::PublishError;

/// A message on its way in; subject and header as they will be stored.
pub(super) struct Incoming<'a> {
    pub subject: &'a [u8],
    pub header: &'a [u8],
    pub payload: &'a [u8],
}

/// The header fields that mean something to a stream. The first of a name counts; an empty value is none.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub msg_id: Option<MsgId<'a>>,
    expected_stream: Option<&'a [u8]>,
    expected_last: Option<&'a [u8]>,
    expected_subject_last: Option<&'a [u8]>,
    expected_subject: Option<&'a [u8]>,
    expected_msg_id: Option<&'a [u8]>,
    pub rollup: Option<&'a [u8]>,
    ttl: Option<&'a [u8]>,
    pub incr: Option<&'a [u8]>,
    pub schedule: Schedule<'a>,
    batch_id: Option<&'a [u8]>,
    pub source: Option<&'a [u8]>,
    marker_reason: Option<&'a [u8]>,
    kv_operation: Option<&'a [u8]>,
}

impl<'a> Fields<'a> {
    pub fn of(header: &'a [u8]) -> Fields<'a> {
        let (mut fields, mut msg_id) = (Fields::default(), None);
        for (name, value) in headers::fields(header) {
            let field = match name {
                b"Nats-Msg-Id" => &mut msg_id,
                b"Nats-Expected-Stream" => &mut fields.expected_stream,
                b"Nats-Expected-Last-Sequence" => &mut fields.expected_last,
                b"Nats-Expected-Last-Subject-Sequence" => &mut fields.expected_subject_last,
                b"Nats-Expected-Last-Subject-Sequence-Subject" => &mut fields.expected_subject,
                b"Nats-Expected-Last-Msg-Id" => &mut fields.expected_msg_id,
                b"Nats-Rollup" => &mut fields.rollup,
                b"Nats-TTL" => &mut fields.ttl,
                b"Nats-Incr" => &mut fields.incr,
                b"Nats-Schedule" => &mut fields.schedule.pattern,
                name if name.starts_with(b"Nats-Schedule") => match fields.schedule.field(name) {
                    Some(field) => field,
                    None => continue,
                },
                b"Nats-Batch-Id" => &mut fields.batch_id,
                b"Nats-Stream-Source" => &mut fields.source,
                b"Nats-Marker-Reason" => &mut fields.marker_reason,
                b"KV-Operation" => &mut fields.kv_operation,
                _ => continue,
            };
            if field.is_none() {
                *field = Some(value);
            }
        }
        for field in
            [&mut msg_id, &mut fields.ttl, &mut fields.rollup, &mut fields.incr, &mut fields.batch_id]
        {
            *field = field.filter(|value| !value.is_empty());
        }
        fields.msg_id = msg_id.map(MsgId::of);
        fields
    }

    /// The subject whose schedule the message ends.
    pub fn ends_schedule(&self) -> Option<&'a [u8]> {
        self.schedule.scheduler.filter(|_| self.schedule.next == Some(super::schedule::PURGE))
    }

    /// Whether the message says that something is gone, so that its own end needs no further word.
    pub fn is_marker(&self) -> bool {
        self.marker_reason.is_some() || self.kv_operation == Some(b"PURGE")
    }
}

/// How a message comes.
pub(super) enum Way<'a> {
    /// By itself.
    Alone,
    /// As one of a fast batch: decided as if it came by itself.
    Run,
    /// From a schedule of the stream.
    Scheduled,
    /// As one of a batch that is stored as a whole, with what is in front of it.
    Batch(&'a mut Ahead),
}

impl Way<'_> {
    /// What is in front of it in its batch.
    fn ahead(&self) -> Option<&Ahead> {
        match self {
            Way::Batch(ahead) => Some(ahead),
            Way::Alone | Way::Run | Way::Scheduled => None,
        }
    }
}

/// What a message replaces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Rollup {
    None,
    Subject,
    All,
}

/// The outcome for a message that is not refused.
pub(super) enum Admitted {
    /// Seen within the duplicate window; this is the first one's sequence.
    Duplicate(Seq),
    /// It takes a sequence, but no consumer is interested, so it is not kept.
    Unwanted,
    /// It is stored.
    Stored {
        rollup: Rollup,
        ttl: Option<Ttl>,
        /// The counter's new total, which is the payload.
        total: Option<Number>,
        /// When the schedule that it holds is due first.
        schedule: Option<Time>,
    },
}

/// `Some(None)`: there is an expectation that no sequence meets.
fn sequence(value: Option<&[u8]>) -> Option<Option<u64>> {
    let value = value.filter(|value| !value.is_empty())?;
    let digits = value.iter().all(u8::is_ascii_digit);
    Some(std::str::from_utf8(value).ok().filter(|_| digits).and_then(|text| text.parse().ok()))
}

impl Stream {
    pub(super) fn admit(
        &mut self,
        message: &Incoming<'_>,
        f: &Fields<'_>,
        mut way: Way<'_>,
    ) -> Result<Admitted, PublishError> {
        let increment = check_shape(&self.config, message, f, &way)?;
        let ttl = f.ttl.map(Ttl::parse);
        if matches!(ttl, Some(Ok(_))) && !self.config.allow_msg_ttl {
            return Err(PublishError::TtlDisabled);
        }
        self.check_expected(message, f, way.ahead())?;
        let schedule = match way {
            Way::Scheduled => None,
            _ => self.check_schedule(message.subject, &f.schedule, f.rollup)?,
        };
        if f.source.is_some() {
            return Err(PublishError::SourceHeader);
        }
        match (self.known(f.msg_id)?, &mut way) {
            (Some(_), Way::Batch(_)) => return Err(PublishError::BatchDuplicate),
            (Some(seq), _) => return Ok(Admitted::Duplicate(seq)),
            (None, Way::Batch(ahead)) => {
                if f.msg_id.is_some_and(|id| !ahead.is_new(id.text)) {
                    return Err(PublishError::BatchDuplicate);
                }
                if f.expected_msg_id.is_some_and(|id| !id.is_empty()) {
                    return Err(PublishError::BatchUnsupported("Nats-Expected-Last-Msg-Id"));
                }
            }
            (None, _) => {}
        }
        if let Some(expected) = f.expected_msg_id.filter(|id| !id.is_empty())
            && expected != self.last_msg_id
        {
            return Err(PublishError::WrongLastMsgId(
                String::from_utf8_lossy(&self.last_msg_id).into_owned(),
            ));
        }
        let rollup = match (check_rollup(&self.config, f)?, schedule) {
            (Rollup::None, Some(_)) => Rollup::Subject,
            (rollup, _) => rollup,
        };
        if let Some(ahead) = way.ahead() {
            ahead.check_rollup(message.subject, rollup)?;
        }
        let total = match increment {
            Some(increment) => Some(self.count(message, &increment, way.ahead())?),
            None if self.config.allow_msg_counter => return Err(PublishError::CounterMissing),
            None => None,
        };
        let ttl = match ttl {
            Some(Err(InvalidTtl)) => return Err(PublishError::InvalidTtl),
            Some(Ok(ttl)) => Some(ttl),
            None => None,
        };
        let wanted = self.config.retention != Retention::Interest || self.is_wanted(message.subject);
        if wanted {
            self.check_room(message, rollup, way.ahead())?;
        }
        if let Way::Batch(ahead) = way {
            ahead.note(message, wanted.then(|| self.size_of(message)), total.as_ref());
        }
        match wanted {
            true => Ok(Admitted::Stored { rollup, ttl, total, schedule }),
            false => Ok(Admitted::Unwanted),
        }
    }

    /// A copy from another stream: what a publisher asked of that stream does not count here.
    pub(super) fn admit_copy(
        &mut self,
        message: &Incoming<'_>,
        f: &Fields<'_>,
        msg_id: Option<MsgId<'_>>,
    ) -> Result<Admitted, PublishError> {
        check_size(&self.config, message)?;
        if message.header.len() > headers::MAX_BYTES {
            return Err(PublishError::HeaderTooLarge);
        }
        if let Some(seq) = self.known(msg_id)? {
            return Ok(Admitted::Duplicate(seq));
        }
        // What this stream does not allow was still allowed there: the message comes without it.
        let rollup = check_rollup(&self.config, f).unwrap_or(Rollup::None);
        let ttl = f.ttl.filter(|_| self.config.allow_msg_ttl).and_then(|value| Ttl::parse(value).ok());
        if self.config.retention == Retention::Interest && !self.is_wanted(message.subject) {
            return Ok(Admitted::Unwanted);
        }
        self.check_room(message, rollup, None)?;
        Ok(Admitted::Stored { rollup, ttl, total: None, schedule: None })
    }

    /// A message of a backup, which was admitted once: only what this stream can never hold is refused.
    pub(super) fn admit_restored(
        &mut self,
        message: &Incoming<'_>,
        f: &Fields<'_>,
    ) -> Result<Option<Ttl>, PublishError> {
        if exceeds(&self.config, message) {
            return Err(PublishError::TooLarge);
        }
        if message.header.len() > headers::MAX_BYTES {
            return Err(PublishError::HeaderTooLarge);
        }
        Ok(f.ttl.filter(|_| self.config.allow_msg_ttl).and_then(|value| Ttl::parse(value).ok()))
    }

    /// The sequence that a message id has within the duplicate window.
    fn known(&mut self, id: Option<MsgId<'_>>) -> Result<Option<Seq>, PublishError> {
        let Some(id) = id else { return Ok(None) };
        let window = self.config.duplicate_window;
        self.dedupe.expire(self.clock, window);
        match self.dedupe.find(id.print, self.clock, window) {
            Some(seq) => Ok(Some(seq)),
            None if self.dedupe.is_full() && !window.is_zero() => Err(PublishError::ServerLimit),
            None => Ok(None),
        }
    }

    /// Expectations. In a batch they are about what is stored before it: a subject that the batch writes to is not to be
    /// compared any more, and only the first message can know the last sequence.
    fn check_expected(
        &self,
        message: &Incoming<'_>,
        f: &Fields<'_>,
        ahead: Option<&Ahead>,
    ) -> Result<(), PublishError> {
        let subject = f.expected_subject.filter(|subject| !subject.is_empty());
        match sequence(f.expected_subject_last) {
            Some(_) if ahead.is_some_and(|ahead| ahead.count_of(subject.unwrap_or(message.subject)) > 0) => {
                return Err(PublishError::WrongLastSequenceConstant);
            }
            Some(expected) => {
                let last = match subject.map(std::str::from_utf8) {
                    None => self.messages.last_of(message.subject),
                    Some(Ok(filter)) => self.messages.last_matching(filter, self.messages.last_seq()),
                    // No filter: nothing matches it.
                    Some(Err(_)) => None,
                };
                let last = last.unwrap_or_default();
                if expected != Some(last.0) {
                    return Err(PublishError::WrongLastSequence(last));
                }
            }
            None if subject.is_some() => return Err(PublishError::ExpectedSubjectAlone),
            None => {}
        }
        let in_front = ahead.map_or(0, Ahead::count);
        let last = Seq(self.messages.last_seq().0 + in_front);
        match sequence(f.expected_last) {
            Some(expected) if expected != Some(last.0) => Err(PublishError::WrongLastSequence(last)),
            Some(_) if in_front > 0 => Err(PublishError::WrongLastSequenceConstant),
            _ => Ok(()),
        }
    }

    /// The counter's total with this increment.
    fn count(
        &self,
        message: &Incoming<'_>,
        increment: &Number,
        ahead: Option<&Ahead>,
    ) -> Result<Number, PublishError> {
        let stored = || self.messages.last_of(message.subject).and_then(|seq| self.totals.get(&seq));
        let before = ahead.and_then(|ahead| ahead.total(message.subject)).or_else(stored);
        let total = before.map_or_else(|| increment.clone(), |before| before.plus(increment));
        let size = message.header.len() + counter_payload(&total).len();
        match self.config.max_msg_size >= 0 && size > self.config.max_msg_size as usize {
            true => Err(PublishError::TooLarge),
            false => Ok(total),
        }
    }

    /// Discard policy `new`: whether there is room. A message that takes the place of an older one of its subject needs
    /// none, as long as it is not larger.
    fn check_room(
        &self,
        message: &Incoming<'_>,
        rollup: Rollup,
        ahead: Option<&Ahead>,
    ) -> Result<(), PublishError> {
        let config = &self.config;
        if config.discard != Discard::New {
            return Ok(());
        }
        if !config.discard_new_per_subject && config.max_msgs <= 0 && config.max_bytes <= 0 {
            // Nothing can be full, and nothing is looked up for it.
            return Ok(());
        }
        let of_subject = self.messages.count_of(message.subject)
            + ahead.map_or(0, |ahead| ahead.count_of(message.subject));
        let per_subject = config.max_msgs_per_subject;
        let is_full = per_subject > 0 && of_subject >= per_subject as u64;
        if is_full && config.discard_new_per_subject && rollup == Rollup::None {
            return Err(PublishError::MaxPerSubject);
        }
        // A batch must fit as a whole, as if nothing made room for it.
        let replaces = is_full && ahead.is_none();
        let (messages, bytes) = ahead.map_or((0, 0), Ahead::kept);
        if config.max_msgs > 0 && self.messages.len() + messages >= config.max_msgs as u64 && !replaces {
            return Err(PublishError::MaxMessages);
        }
        let size = self.size_of(message);
        if config.max_bytes > 0 && self.messages.bytes() + bytes + size > config.max_bytes as u64 {
            let oldest = self.messages.first_of(message.subject).and_then(|seq| self.messages.size_of(seq));
            if !replaces || oldest.is_none_or(|oldest| size > oldest) {
                return Err(PublishError::MaxBytes);
            }
        }
        Ok(())
    }

    /// What a message counts in the stream's bytes.
    fn size_of(&self, message: &Incoming<'_>) -> u64 {
        self.messages.keep().size(message.payload.len(), message.subject.len(), message.header.len())
    }
}

/// How a counter's total is stored.
pub(super) fn counter_payload(total: &Number) -> String {
    format!("{{\"val\":\"{total}\"}}")
}

/// Size and kind: what needs no look at the stored messages. Gives a counter's increment.
fn check_shape(
    config: &StreamConfig,
    message: &Incoming<'_>,
    f: &Fields<'_>,
    way: &Way<'_>,
) -> Result<Option<Number>, PublishError> {
    check_size(config, message)?;
    if f.batch_id.is_some() && matches!(way, Way::Alone) {
        return Err(PublishError::AtomicDisabled);
    }
    if message.header.len() > headers::MAX_BYTES {
        return Err(PublishError::HeaderTooLarge);
    }
    let increment = f.incr.map(|increment| check_increment(config, message, f, increment)).transpose()?;
    match f.expected_stream {
        Some(expected) if !expected.is_empty() && expected != config.name.as_bytes() => {
            Err(PublishError::WrongStream)
        }
        _ => Ok(increment),
    }
}

/// A counter takes increments without payload, in any order.
fn check_increment(
    config: &StreamConfig,
    message: &Incoming<'_>,
    f: &Fields<'_>,
    increment: &[u8],
) -> Result<Number, PublishError> {
    if !config.allow_msg_counter {
        return Err(PublishError::CounterDisabled);
    }
    let increment = Number::parse(increment).ok_or(PublishError::CounterInvalid)?;
    if !message.payload.is_empty() {
        return Err(PublishError::CounterPayload);
    }
    let ordered = [
        f.expected_stream,
        f.expected_last,
        f.expected_subject_last,
        f.expected_subject,
        f.expected_msg_id,
        f.rollup,
    ];
    match ordered.iter().flatten().any(|value| !value.is_empty()) {
        true => Err(PublishError::CounterInvalid),
        false => Ok(increment),
    }
}

fn check_size(config: &StreamConfig, message: &Incoming<'_>) -> Result<(), PublishError> {
    if config.sealed {
        return Err(PublishError::Sealed);
    }
    if exceeds(config, message) { Err(PublishError::TooLarge) } else { Ok(()) }
}

fn exceeds(config: &StreamConfig, message: &Incoming<'_>) -> bool {
    let size = message.header.len() + message.payload.len();
    // A mapping can make a subject too long.
    let too_long = message.subject.len() > usize::from(u16::MAX);
    too_long || config.max_msg_size >= 0 && size > config.max_msg_size as usize
}

fn check_rollup(config: &StreamConfig, f: &Fields<'_>) -> Result<Rollup, PublishError> {
    let Some(value) = f.rollup else { return Ok(Rollup::None) };
    if !config.allow_rollup_hdrs || config.deny_purge {
        return Err(PublishError::Rollup("rollup not permitted".to_owned()));
    }
    if value.eq_ignore_ascii_case(b"sub") {
        Ok(Rollup::Subject)
    } else if value.eq_ignore_ascii_case(b"all") {
        Ok(Rollup::All)
    } else {
        let value = String::from_utf8_lossy(value);
        Err(PublishError::Rollup(format!("rollup value invalid: {value:?}")))
    }
}
