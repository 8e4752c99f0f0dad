//! Which messages match a set of filters: the next one, how many, the last of each subject.
//!
//! A matcher belongs to one set of filters (a consumer's, a request's) and remembers what it found out. With few
//! matching subjects it asks their sequences; with many it looks at the messages themselves, and falls back to the
//! subjects where long stretches do not match. What is not in memory is asked for segment by segment: see `matcher/part.rs`.

mod filters;
mod part;

use hw_kit::Seq;

use super::cold::Hits;
use super::subjects::Subjects;
use super::{Bytes, Messages};
use filters::Filters;
use part::Part;

/// Up to this many matching subjects are listed.
const LISTED: usize = 256;
/// Messages looked at before the subjects are asked.
const LOOK: usize = 4096;

/// A set of filters and what is known about them in one stream. No filters match everything.
#[derive(Debug)]
pub struct Matcher {
    filters: Filters,
    /// Subjects in memory up to this epoch were considered.
    epoch: u64,
    /// The matching subjects in memory by number, ascending, while there are few.
    listed: Option<Vec<u32>>,
    verdicts: Verdicts,
    /// No message matches from .0 up to but excluding .1.
    clear: (u64, u64),
    /// Where the only subject is that is asked for, as of this layout of the segments.
    hits: Option<(u64, Hits)>,
    /// What is known of the segment that was asked last.
    part: Option<Box<Part>>,
}

/// Remembered verdicts: number of a subject, and verdict, at the place that the number's low bits give.
#[derive(Debug, Default)]
struct Verdicts(Vec<u32>);

/// The most verdicts remembered, a power of two.
const VERDICTS: usize = 1 << 16;

impl Verdicts {
    /// What is remembered of a subject, or what `find` says.
    fn get(&mut self, id: u32, subjects: u64, find: impl FnOnce() -> bool) -> bool {
        let wanted = subjects.next_power_of_two().clamp(64, VERDICTS as u64) as usize;
        if self.0.len() < wanted {
            self.0 = vec![u32::MAX; wanted];
        }
        let place = id as usize & (self.0.len() - 1);
        let entry = self.0[place];
        if entry != u32::MAX && entry >> 1 == id {
            return entry & 1 == 1;
        }
        let matches = find();
        if id < u32::MAX >> 1 {
            self.0[place] = id << 1 | u32::from(matches);
        }
        matches
    }

    fn forget(&mut self, id: u32) {
        if !self.0.is_empty() {
            let place = id as usize & (self.0.len() - 1);
            self.0[place] = u32::MAX;
        }
    }
}

impl Matcher {
    pub(super) fn new(filters: &[&str]) -> Matcher {
        Matcher {
            filters: Filters::new(filters),
            epoch: 0,
            listed: None,
            verdicts: Verdicts::default(),
            clear: (0, 0),
            hits: None,
            part: None,
        }
    }

    /// Whether every subject matches.
    pub fn is_all(&self) -> bool {
        matches!(self.filters, Filters::All)
    }

    /// Whether a subject matches, by its name.
    pub fn matches(&self, subject: &[u8]) -> bool {
        self.filters.matches(subject)
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
            self.verdicts = Verdicts::default();
            self.listed = self.list(subjects);
            return;
        };
        for id in newcomers {
            // The number may have belonged to another subject before.
            self.verdicts.forget(id);
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
        let complete = self.filters.for_each(subjects, |id| {
            listed.push(id);
            listed.len() <= LISTED
        });
        listed.sort_unstable();
        complete.then_some(listed)
    }

    /// Whether the subject in memory with this number matches; remembers it.
    fn verdict(&mut self, subjects: &Subjects, id: u32) -> bool {
        if let Some(listed) = &self.listed {
            return listed.binary_search(&id).is_ok();
        }
        self.verdicts.get(id, subjects.len(), || self.filters.matches(subjects.name(id)))
    }
}

impl Messages {
    /// A matcher for filters of this stream; no filters match everything.
    pub fn matcher(&self, filters: &[&str]) -> Matcher {
        Matcher::new(filters)
    }

    /// The first message at or after `from` that matches.
    pub fn next_match(&self, from: Seq, m: &mut Matcher) -> Option<Seq> {
        let from = from.max(self.first);
        match &m.filters {
            Filters::All => self.next(from),
            Filters::Literal(name) => {
                let name = name.clone();
                self.next_of_subject(&name, from.0, m).map(Seq)
            }
            Filters::Several(_) => self.next_filtered(from.0, m).map(Seq),
        }
    }

    /// The same, unless that is in another segment than the last one that was found: to ask that costs as much as all that is
    /// known of this one.
    pub fn next_match_near(&self, from: Seq, m: &mut Matcher) -> Option<Seq> {
        if !matches!(m.filters, Filters::Several(_)) {
            return self.next_match(from, m);
        }
        self.next_in_same_part(from.max(self.first).0, m).map(Seq)
    }

    fn next_of_subject(&self, name: &Bytes, from: u64, m: &mut Matcher) -> Option<u64> {
        if from <= self.cold.to {
            let hits = m.hits(self, name);
            if let Some(found) = self.cold.next_in(&self.segments, hits, from) {
                return Some(found);
            }
        }
        let id = self.head.subjects.find(name)?;
        let near = self.head.slots.scan(from, 4, |slot| slot.subject == id);
        near.ok().or_else(|| self.head.subjects.seqs(id)?.next(from))
    }

    fn next_filtered(&self, from: u64, m: &mut Matcher) -> Option<u64> {
        let start = if (m.clear.0..m.clear.1).contains(&from) { m.clear.1 } else { from };
        let cold = if start <= self.cold.to { self.next_cold(start, m) } else { None };
        let found = cold.or_else(|| self.next_in_head(start, m));
        // Only what is appended later can match before the end that was reached.
        let end = found.unwrap_or(self.last.0 + 1);
        if !self.cold.has_fault() {
            m.clear = (if start == from { from } else { m.clear.0 }, end.max(start));
        }
        found
    }

    fn next_in_head(&self, start: u64, m: &mut Matcher) -> Option<u64> {
        let subjects = &self.head.subjects;
        m.sync(subjects);
        let look = m.listed.as_ref().map_or(LOOK, Vec::len);
        match self.head.slots.scan(start, look, |slot| m.verdict(subjects, slot.subject)) {
            Ok(seq) => Some(seq),
            Err(None) => None,
            Err(Some(next)) => self.next_far(next, m),
        }
    }

    /// The next match where the messages nearby had none.
    fn next_far(&self, from: u64, m: &mut Matcher) -> Option<u64> {
        let (subjects, slots) = (&self.head.subjects, &self.head.slots);
        let next_of = |id: u32| subjects.seqs(id)?.next(from);
        if let Some(listed) = &m.listed {
            return listed.iter().filter_map(|&id| next_of(id)).min();
        }
        // With many matching subjects, whichever is less work: asking all subjects or looking at the messages.
        if subjects.len() * 2 < slots.count_from(from) {
            let mut next: Option<u64> = None;
            m.filters.for_each(subjects, |id| {
                next = [next, next_of(id)].into_iter().flatten().min();
                true
            });
            return next;
        }
        slots.scan(from, usize::MAX, |slot| m.verdict(subjects, slot.subject)).ok()
    }

    /// How many messages at or after `from` match.
    pub fn count_from(&self, from: Seq, m: &mut Matcher) -> u64 {
        let from = from.0.max(self.first.0);
        if from > self.last.0 {
            return 0;
        }
        match &m.filters {
            Filters::All => self.head.slots.count_from(from) + self.cold.live.count_from(from),
            Filters::Literal(name) => {
                let name = name.clone();
                let head = self.head.subjects.find(&name).and_then(|id| self.head.subjects.seqs(id));
                let cold = match from <= self.cold.to {
                    true => self.cold.count_in(&self.segments, m.hits(self, &name), from),
                    false => 0,
                };
                cold + head.map_or(0, |seqs| seqs.count_from(from))
            }
            Filters::Several(_) => self.count_cold(from, m) + self.count_in_head(from, m),
        }
    }

    fn count_in_head(&self, from: u64, m: &mut Matcher) -> u64 {
        let (subjects, slots) = (&self.head.subjects, &self.head.slots);
        m.sync(subjects);
        let count_of = |id: u32| subjects.seqs(id).map_or(0, |seqs| seqs.count_from(from));
        if let Some(listed) = &m.listed {
            return listed.iter().map(|&id| count_of(id)).sum();
        }
        let mut count = 0;
        if slots.count_from(from) < subjects.len() {
            let _ = slots.scan(from, usize::MAX, |slot| {
                count += u64::from(m.verdict(subjects, slot.subject));
                false
            });
        } else {
            m.filters.for_each(subjects, |id| {
                count += count_of(id);
                true
            });
        }
        count
    }

    /// The last message of every matching subject as of `up_to`, ascending, those before `from` left out.
    pub fn last_per_subject(&self, m: &mut Matcher, from: Seq, up_to: Seq) -> Vec<Seq> {
        let mut found = Vec::new();
        m.filters.for_each(&self.head.subjects, |id| {
            let last = self.head.subjects.seqs(id).and_then(|seqs| seqs.prev(up_to.0));
            found.extend(last.filter(|&seq| seq >= from.0));
            true
        });
        self.lasts_of_cold(m, (from.0, up_to.0), &mut found);
        found.sort_unstable();
        found.into_iter().map(Seq).collect()
    }
}
