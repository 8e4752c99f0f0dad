//! Messages that hold a schedule: what they must be, when they are due, and what they produce.

use std::collections::{BTreeMap, BTreeSet};

use hw_kit::{Seq, Time};
use hw_store::Record;
use hw_store::messages::{BlockId, Fetch, Message};
use hw_subject::{Filter, is_valid_subject};

use super::Stream;
use super::admit::{Fields, Way};
use super::headers;
use super::ttl::Ttl;
use crate::command::Command;
use crate::outcome::{Effect, PublishError};
use crate::schedule::{Invalid, Pattern};

/// What `Nats-Schedule-Next` says when the schedule ends with this message.
pub(super) const PURGE: &[u8] = b"purge";
/// The only roll-up that a produced message may ask for.
const ROLLUP_SUBJECT: &[u8] = b"sub";

/// Fields of the message with the schedule, or of the source, that the produced message does not get.
const NOT_PRODUCED: &[&str] = &[
    "Nats-Schedule-",
    "Nats-Schedule:",
    "Nats-Scheduler:",
    "Nats-Expected-",
    "Nats-Batch-",
    "Nats-Msg-Id:",
    "Nats-TTL:",
    "Nats-Rollup:",
];

/// The header fields about schedules.
#[derive(Default)]
pub(super) struct Schedule<'a> {
    pub pattern: Option<&'a [u8]>,
    pub next: Option<&'a [u8]>,
    pub scheduler: Option<&'a [u8]>,
    target: Option<&'a [u8]>,
    source: Option<&'a [u8]>,
    ttl: Option<&'a [u8]>,
    rollup: Option<&'a [u8]>,
    zone: Option<&'a [u8]>,
}

impl<'a> Schedule<'a> {
    /// The place of a field.
    pub fn field(&mut self, name: &[u8]) -> Option<&mut Option<&'a [u8]>> {
        Some(match name {
            b"Nats-Schedule-Next" => &mut self.next,
            b"Nats-Scheduler" => &mut self.scheduler,
            b"Nats-Schedule-Target" => &mut self.target,
            b"Nats-Schedule-Source" => &mut self.source,
            b"Nats-Schedule-TTL" => &mut self.ttl,
            b"Nats-Schedule-Rollup" => &mut self.rollup,
            b"Nats-Schedule-Time-Zone" => &mut self.zone,
            _ => return None,
        })
    }

    fn source(&self) -> Option<&'a [u8]> {
        self.source.filter(|source| !source.is_empty())
    }
}

/// When messages that hold a schedule are due next.
#[derive(Debug, Default)]
pub(super) struct Schedules {
    due: BTreeMap<Seq, Time>,
    order: BTreeSet<(Time, Seq)>,
}

impl Schedules {
    pub fn insert(&mut self, seq: Seq, due: Time) {
        self.remove(seq);
        self.due.insert(seq, due);
        self.order.insert((due, seq));
    }

    pub fn remove(&mut self, seq: Seq) {
        if let Some(due) = self.due.remove(&seq) {
            self.order.remove(&(due, seq));
        }
    }

    /// Forgets messages that are gone.
    pub fn retain(&mut self, exists: impl Fn(Seq) -> bool) {
        self.due.retain(|seq, _| exists(*seq));
        self.order.retain(|(_, seq)| exists(*seq));
    }

    pub fn clear(&mut self) {
        *self = Schedules::default();
    }

    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Every message with a schedule.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Seq, Time)> {
        self.due.iter().map(|(seq, due)| (*seq, *due))
    }
}

/// What is to be done about the schedule that is due next.
#[derive(Clone, Debug, PartialEq)]
pub enum Firing {
    /// Nothing is due.
    Nothing,
    /// This block must be loaded first; then ask again.
    Load(BlockId),
    /// To be proposed.
    Fire {
        /// The message that holds the schedule.
        schedule: Seq,
        /// The bytes of what it produces.
        bytes: usize,
        /// The command.
        command: Command,
    },
    /// Its message cannot be read: it produces nothing.
    Unreadable(Seq),
}

impl Stream {
    /// When a schedule that none of `skip` holds is due next.
    pub fn next_schedule(&self, skip: &BTreeSet<Seq>) -> Option<Time> {
        self.schedules.order.iter().find(|(_, seq)| !skip.contains(seq)).map(|(due, _)| *due)
    }

    /// The command for the schedule that is due next at `now`; those of `skip` are being fired.
    pub fn firing(&self, now: Time, skip: &BTreeSet<Seq>) -> Firing {
        let next = self.schedules.order.iter().find(|(_, seq)| !skip.contains(seq));
        let Some(&(due, seq)) = next.filter(|(due, _)| *due <= now) else { return Firing::Nothing };
        let message = match self.messages.fetch(seq) {
            Fetch::Message(message) => message,
            Fetch::OnDisk(block) => return Firing::Load(block),
            Fetch::Absent => return Firing::Unreadable(seq),
        };
        let fields = Fields::of(message.record.header());
        let schedule = &fields.schedule;
        let source = schedule.source().and_then(|source| self.messages.last_of(source));
        let content = match source.map(|last| self.messages.fetch(last)) {
            Some(Fetch::OnDisk(block)) => return Firing::Load(block),
            Some(Fetch::Message(source)) => source,
            Some(Fetch::Absent) | None => message.clone(),
        };
        match produced(schedule, &message, &content, (due, now)) {
            Some((next, record)) => {
                let bytes = record.joined().len();
                let command = Command::Fire { ts: now, schedule: seq, due, next, record };
                Firing::Fire { schedule: seq, bytes, command }
            }
            None => Firing::Unreadable(seq),
        }
    }

    /// A schedule's message is published on its target, if the schedule is still the one that was due.
    pub(super) fn fire(
        &mut self,
        (schedule, due, next): (Seq, Time, Time),
        record: &Record,
        fx: &mut Vec<Effect>,
    ) {
        if self.schedules.due.get(&schedule) != Some(&due) {
            return;
        }
        // The produced message may take the place of the schedule itself: then it stays away.
        match next.is_set() {
            true => self.schedules.insert(schedule, next),
            false => self.schedules.remove(schedule),
        }
        // What the stream refuses is lost: there is nobody to tell, and the next time may be better.
        let _ = self.publish(record, Way::Scheduled, fx);
    }

    /// The schedule on a subject ends, and with it what holds it.
    pub(super) fn end_schedule(&mut self, subject: &[u8], fx: &mut Vec<Effect>) {
        let end = self.messages.last_seq().next();
        self.drop_subject_before(subject, end, fx);
    }

    /// Whether a message may hold the schedule that it holds; gives when that is due first.
    pub(super) fn check_schedule(
        &self,
        subject: &[u8],
        schedule: &Schedule<'_>,
        rollup: Option<&[u8]>,
    ) -> Result<Option<Time>, PublishError> {
        if schedule.next.is_some() || schedule.scheduler.is_some() {
            let scheduler = schedule.scheduler.unwrap_or_default();
            let valid = schedule.next == Some(PURGE) && is_valid_subject(scheduler) && scheduler != subject;
            // What another publisher stored there is not to be removed by mistake.
            let other = |last: Seq| !self.schedules.due.contains_key(&last);
            if !valid || self.messages.last_of(scheduler).is_some_and(other) {
                return Err(PublishError::Scheduler);
            }
        }
        let Some(pattern) = schedule.pattern.filter(|pattern| !pattern.is_empty()) else { return Ok(None) };
        if !self.config.allow_msg_schedules {
            return Err(PublishError::SchedulesDisabled);
        }
        let pattern = Pattern::parse(pattern, schedule.zone).map_err(|invalid| match invalid {
            Invalid::Pattern => PublishError::SchedulePattern,
            Invalid::TimeZone => PublishError::ScheduleTimeZone,
        })?;
        let due = pattern.first(self.clock).ok_or(PublishError::SchedulePattern)?;
        if let Some(ttl) = schedule.ttl.filter(|ttl| !ttl.is_empty()) {
            Ttl::parse(ttl).map_err(|_| PublishError::ScheduleTtl)?;
            if !self.config.allow_msg_ttl {
                return Err(PublishError::TtlDisabled);
            }
        }
        let target = schedule.target.unwrap_or_default();
        if target == subject || !self.captures(target) {
            return Err(PublishError::ScheduleTarget);
        }
        if let Some(source) = schedule.source()
            && (source == subject || source == target || !self.captures(source))
        {
            return Err(PublishError::ScheduleSource);
        }
        let other = |rollup: &[u8]| !rollup.is_empty() && rollup != ROLLUP_SUBJECT;
        let replaces_all = rollup.is_some_and(|rollup| !rollup.eq_ignore_ascii_case(ROLLUP_SUBJECT));
        if schedule.rollup.is_some_and(other) || replaces_all {
            return Err(PublishError::ScheduleRollup);
        }
        Ok(Some(due))
    }

    /// Whether a subject without wildcards is one of the stream's.
    fn captures(&self, subject: &[u8]) -> bool {
        let own = |filter: &String| Filter::parse(filter).is_ok_and(|filter| filter.matches(subject));
        is_valid_subject(subject) && self.config.subjects.iter().any(own)
    }
}

/// What a schedule produces from a content, and when it is due again; not set: never.
fn produced(
    schedule: &Schedule<'_>,
    holder: &Message,
    content: &Message,
    (due, now): (Time, Time),
) -> Option<(Time, Record)> {
    let pattern = Pattern::parse(schedule.pattern?, schedule.zone).ok()?;
    let next = pattern.next(due, now);
    let shown = next.map_or_else(|| PURGE.to_vec(), |next| pattern.show(next).into_bytes());
    let stripped = headers::without_prefixes(content.record.header(), NOT_PRODUCED);
    let mut header = stripped.unwrap_or_else(|| content.record.header().to_vec());
    headers::push(&mut header, "Nats-Scheduler", holder.record.subject());
    headers::push(&mut header, "Nats-Schedule-Next", &shown);
    let added = [("Nats-TTL", schedule.ttl), ("Nats-Rollup", schedule.rollup)];
    for (name, value) in added {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            headers::push(&mut header, name, value);
        }
    }
    let record = Record::join(schedule.target?, &header, content.record.payload())?;
    Some((next.unwrap_or_default(), record))
}
