//! Which messages match a set of filters: the next one, how many, the last of each subject.
//!
//! A matcher belongs to one set of filters (a consumer's, a request's) and remembers what it found out. With few
//! matching subjects it asks their sequences; with many it looks at the messages themselves, and falls back to the
//! subjects where long stretches do not match.

use hw_kit::{Seq, Set};

use super::subjects::{Filter, Subjects};
use super::{Bytes, Messages};

/// Up to this many matching subjects are listed.
const LISTED: usize = 256;
/// Messages looked at before the subjects are asked.
const LOOK: usize = 4096;
/// The most verdicts remembered, a power of two.
const VERDICTS: usize = 1 << 16;

/// A set of filters and what is known about them in one stream. No filters match everything.
#[derive(Debug)]
pub struct Matcher {
    kind: Kind,
    /// Subjects up to this epoch were considered.
    epoch: u64,
    /// The matching subjects by number, ascending, while there are few.
    listed: Option<Vec<u32>>,
    /// Remembered verdicts: number and verdict at the place that the number's low bits give.
    verdicts: Vec<u32>,
    /// No message matches from .0 up to but excluding .1.
    clear: (u64, u64),
}

#[derive(Debug)]
enum Kind {
    All,
    Literal(Bytes),
    Filters { literals: Set<Bytes>, wildcards: Vec<Filter> },
}

impl Matcher {
    pub(super) fn new(filters: &[&str]) -> Matcher {
        let filters: Vec<Filter> = filters.iter().map(|text| Filter::new(text)).collect();
        let kind = if filters.is_empty() || filters.iter().any(Filter::is_all) {
            Kind::All
        } else if let [only] = &filters[..]
            && only.is_literal()
        {
            Kind::Literal(only.bytes().clone())
        } else {
            let (literals, wildcards): (Vec<_>, Vec<_>) = filters.into_iter().partition(Filter::is_literal);
            Kind::Filters { literals: literals.iter().map(|f| f.bytes().clone()).collect(), wildcards }
        };
        Matcher { kind, epoch: 0, listed: None, verdicts: Vec::new(), clear: (0, 0) }
    }

    /// Whether every subject matches.
    pub fn is_all(&self) -> bool {
        matches!(self.kind, Kind::All)
    }

    /// Whether a subject matches, by its name.
    pub fn matches(&self, subject: &[u8]) -> bool {
        match &self.kind {
            Kind::All => true,
            Kind::Literal(name) => name == subject,
            Kind::Filters { literals, wildcards } => {
                literals.contains(subject) || wildcards.iter().any(|filter| filter.matches(subject))
            }
        }
    }

    /// Takes notice of subjects that are new since the last call.
    fn sync(&mut self, subjects: &Subjects) {
        let first_time = self.listed.is_none() && self.epoch == 0;
        if !first_time && self.epoch == subjects.epoch() {
            return;
        }
        let newcomers: Option<Vec<u32>> = match first_time {
            true => None,
            false => subjects.since(self.epoch).map(Iterator::collect),
        };
        self.epoch = subjects.epoch();
        let Some(newcomers) = newcomers else {
            self.verdicts.clear();
            self.listed = self.list(subjects);
            return;
        };
        for id in newcomers {
            // The number may have belonged to another subject before.
            self.forget(id);
            let matches = subjects.seqs(id).is_some() && self.matches(subjects.name(id));
            if let Some(listed) = &mut self.listed {
                match (listed.binary_search(&id), matches) {
                    (Err(at), true) => listed.insert(at, id),
                    (Ok(at), false) => drop(listed.remove(at)),
                    _ => {}
                }
                if listed.len() > LISTED {
                    listed.retain(|&id| subjects.seqs(id).is_some());
                }
                if listed.len() > LISTED {
                    self.listed = None;
                }
            }
        }
    }

    /// The matching subjects, or None when they are too many.
    fn list(&self, subjects: &Subjects) -> Option<Vec<u32>> {
        let mut listed = Vec::new();
        let complete = self.for_each(subjects, |id| {
            listed.push(id);
            listed.len() <= LISTED
        });
        listed.sort_unstable();
        complete.then_some(listed)
    }

    /// Every matching subject once, until `f` returns false; false if it did.
    fn for_each(&self, subjects: &Subjects, mut f: impl FnMut(u32) -> bool) -> bool {
        match &self.kind {
            Kind::All => subjects.for_each(&Filter::new(">"), |id, _, _| f(id)),
            Kind::Literal(name) => subjects.find(name).is_none_or(f),
            Kind::Filters { literals, wildcards } => {
                let names: std::collections::BTreeSet<&Bytes> = literals.iter().collect();
                for name in names {
                    if let Some(id) = subjects.find(name)
                        && !f(id)
                    {
                        return false;
                    }
                }
                for (at, filter) in wildcards.iter().enumerate() {
                    let fresh = |name: &[u8]| {
                        !literals.contains(name)
                            && !wildcards[..at].iter().any(|earlier| earlier.matches(name))
                    };
                    if !subjects.for_each(filter, |id, name, _| !fresh(name) || f(id)) {
                        return false;
                    }
                }
                true
            }
        }
    }

    /// Whether the subject with this number matches; remembers it.
    fn verdict(&mut self, subjects: &Subjects, id: u32) -> bool {
        if let Some(listed) = &self.listed {
            return listed.binary_search(&id).is_ok();
        }
        let wanted = subjects.len().next_power_of_two().clamp(64, VERDICTS as u64) as usize;
        if self.verdicts.len() < wanted {
            self.verdicts = vec![u32::MAX; wanted];
        }
        let place = id as usize & (self.verdicts.len() - 1);
        let entry = self.verdicts[place];
        if entry != u32::MAX && entry >> 1 == id {
            return entry & 1 == 1;
        }
        let matches = self.matches(subjects.name(id));
        if id < u32::MAX >> 1 {
            self.verdicts[place] = id << 1 | u32::from(matches);
        }
        matches
    }

    fn forget(&mut self, id: u32) {
        if !self.verdicts.is_empty() {
            let place = id as usize & (self.verdicts.len() - 1);
            self.verdicts[place] = u32::MAX;
        }
    }
}

impl Messages {
    /// A matcher for filters of this stream; no filters match everything.
    pub fn matcher(&self, filters: &[&str]) -> Matcher {
        Matcher::new(filters)
    }

    /// The first message at or after `from` that matches.
    pub fn next_match(&self, from: Seq, m: &mut Matcher) -> Option<Seq> {
        let from = from.0.max(self.first.0);
        match &m.kind {
            Kind::All => self.slots.next(from).map(Seq),
            Kind::Literal(name) => {
                let id = self.subjects.find(name)?;
                let near = self.slots.scan(from, 4, |slot| slot.subject == id);
                near.ok().or_else(|| self.subjects.seqs(id)?.next(from)).map(Seq)
            }
            Kind::Filters { .. } => self.next_filtered(from, m).map(Seq),
        }
    }

    fn next_filtered(&self, from: u64, m: &mut Matcher) -> Option<u64> {
        m.sync(&self.subjects);
        let start = if (m.clear.0..m.clear.1).contains(&from) { m.clear.1 } else { from };
        let look = m.listed.as_ref().map_or(LOOK, Vec::len);
        let found = match self.slots.scan(start, look, |slot| m.verdict(&self.subjects, slot.subject)) {
            Ok(seq) => Some(seq),
            Err(None) => None,
            Err(Some(next)) => self.next_far(next, m),
        };
        // Only what is appended later can match before the end that was reached.
        let end = found.unwrap_or(self.last.0 + 1);
        m.clear = (if start == from { from } else { m.clear.0 }, end.max(start));
        found
    }

    /// The next match where the messages nearby had none.
    fn next_far(&self, from: u64, m: &mut Matcher) -> Option<u64> {
        let next_of = |id: u32| self.subjects.seqs(id)?.next(from);
        if let Some(listed) = &m.listed {
            return listed.iter().filter_map(|&id| next_of(id)).min();
        }
        // With many matching subjects, whichever is less work: asking all subjects or looking at the messages.
        if self.subjects.len() * 2 < self.slots.count_from(from) {
            let mut next: Option<u64> = None;
            m.for_each(&self.subjects, |id| {
                next = [next, next_of(id)].into_iter().flatten().min();
                true
            });
            return next;
        }
        self.slots.scan(from, usize::MAX, |slot| m.verdict(&self.subjects, slot.subject)).ok()
    }

    /// How many messages at or after `from` match.
    pub fn count_from(&self, from: Seq, m: &mut Matcher) -> u64 {
        let from = from.0.max(self.first.0);
        if from > self.last.0 {
            return 0;
        }
        match &m.kind {
            Kind::All => self.slots.count_from(from),
            Kind::Literal(name) => self
                .subjects
                .find(name)
                .and_then(|id| self.subjects.seqs(id))
                .map_or(0, |s| s.count_from(from)),
            Kind::Filters { .. } => {
                m.sync(&self.subjects);
                let count_of = |id: u32| self.subjects.seqs(id).map_or(0, |seqs| seqs.count_from(from));
                if let Some(listed) = &m.listed {
                    return listed.iter().map(|&id| count_of(id)).sum();
                }
                let mut count = 0;
                if self.slots.count_from(from) < self.subjects.len() {
                    let _ = self.slots.scan(from, usize::MAX, |slot| {
                        count += u64::from(m.verdict(&self.subjects, slot.subject));
                        false
                    });
                } else {
                    m.for_each(&self.subjects, |id| {
                        count += count_of(id);
                        true
                    });
                }
                count
            }
        }
    }

    /// The last message of every matching subject as of `up_to`, ascending, those before `from` left out.
    pub fn last_per_subject(&self, m: &mut Matcher, from: Seq, up_to: Seq) -> Vec<Seq> {
        let mut found = Vec::new();
        m.for_each(&self.subjects, |id| {
            let last = self.subjects.seqs(id).and_then(|seqs| seqs.prev(up_to.0));
            found.extend(last.filter(|&seq| seq >= from.0).map(Seq));
            true
        });
        found.sort_unstable();
        found
    }

    /// How many subjects match, counting no further than `limit`.
    pub fn count_subjects(&self, m: &Matcher, limit: usize) -> usize {
        let mut count = 0;
        m.for_each(&self.subjects, |_| {
            count += 1;
            count < limit
        });
        count
    }
}
