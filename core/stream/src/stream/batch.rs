//! Batches: messages that are stored together or not at all, and runs of messages that arrived together.

use std::collections::{BTreeMap, BTreeSet};

use hw_store::Record;

use super::Stream;
use super::admit::{Fields, Incoming, Rollup, Way};
use super::number::Number;
use crate::outcome::{Effect, PublishError, Stored};

/// What the messages of a batch in front of the one that is checked will have changed.
#[derive(Default)]
pub(super) struct Ahead {
    /// How many sequences they take.
    count: u64,
    /// How many of them are kept, and their bytes.
    kept: (u64, u64),
    ids: BTreeSet<Vec<u8>>,
    subjects: BTreeMap<Vec<u8>, OfSubject>,
}

/// What they will have changed on one subject.
#[derive(Default)]
struct OfSubject {
    count: u64,
    /// The counter's total after the last of them.
    total: Option<Number>,
}

impl Ahead {
    /// How many messages there are in front.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How many of them are kept, and their bytes.
    pub fn kept(&self) -> (u64, u64) {
        self.kept
    }

    /// How many of them are on a subject.
    pub fn count_of(&self, subject: &[u8]) -> u64 {
        self.subjects.get(subject).map_or(0, |there| there.count)
    }

    /// A counter's total after them.
    pub fn total(&self, subject: &[u8]) -> Option<&Number> {
        self.subjects.get(subject)?.total.as_ref()
    }

    /// Whether a message id is new among them.
    pub fn is_new(&mut self, id: &[u8]) -> bool {
        self.ids.insert(id.to_vec())
    }

    /// Whether a message may roll up what they will have stored.
    pub fn check_rollup(&self, subject: &[u8], rollup: Rollup) -> Result<(), PublishError> {
        let refused = match rollup {
            Rollup::Subject if self.count_of(subject) > 0 => "batch rollup sub invalid",
            Rollup::All if self.count > 0 => "batch rollup all invalid",
            _ => return Ok(()),
        };
        Err(PublishError::Rollup(refused.to_owned()))
    }

    /// The message that was checked will be taken: `bytes` if it is kept.
    pub fn note(&mut self, message: &Incoming<'_>, bytes: Option<u64>, total: Option<&Number>) {
        self.count += 1;
        if let Some(bytes) = bytes {
            self.kept = (self.kept.0 + 1, self.kept.1 + bytes);
        }
        let subject = self.subjects.entry(message.subject.to_vec()).or_default();
        subject.count += 1;
        if total.is_some() {
            subject.total = total.cloned();
        }
    }
}

impl Stream {
    /// Stores the messages of the parts and these, or none of them: all are checked before the first is stored.
    pub(super) fn publish_batch(
        &mut self,
        messages: Vec<Record>,
        fx: &mut Vec<Effect>,
    ) -> Result<Stored, PublishError> {
        let mut all = std::mem::take(&mut self.parts);
        all.extend(messages);
        if !self.config.allow_atomic {
            return Err(PublishError::AtomicDisabled);
        }
        if all.is_empty() {
            return Err(PublishError::BatchIncomplete);
        }
        let (mut ahead, mut admitted) = (Ahead::default(), Vec::with_capacity(all.len()));
        for record in &all {
            let arriving = self.arriving(record);
            let fields = Fields::of(&arriving.header);
            admitted.push(self.admit(&arriving.message(), &fields, Way::Batch(&mut ahead))?);
        }
        let mut last = Stored::default();
        for (record, admitted) in all.iter().zip(admitted) {
            let arriving = self.arriving(record);
            let fields = Fields::of(&arriving.header);
            last = self.take_in(&arriving, &fields, admitted, fx)?;
        }
        Ok(Stored { seq: last.seq, ..Stored::default() })
    }

    /// Stores messages one by one; with `stop`, none after one that is refused.
    pub(super) fn publish_run(
        &mut self,
        stop: bool,
        messages: &[Record],
        fx: &mut Vec<Effect>,
    ) -> Vec<Result<Stored, PublishError>> {
        let mut outcomes = Vec::with_capacity(messages.len());
        for record in messages {
            let outcome = match self.config.allow_batched {
                true => self.publish(record, Way::Run, fx),
                false => Err(PublishError::BatchDisabled),
            };
            let ends = stop && outcome.is_err();
            outcomes.push(outcome);
            if ends {
                break;
            }
        }
        outcomes
    }
}
