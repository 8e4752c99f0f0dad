//! Matching in segments, one after the other.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use bytes::Bytes;
use hw_kit::{Seq, Set};

use super::{Filters, Matcher, Verdicts};
use crate::index::Slot;
use crate::messages::cold::Hits;
use crate::messages::segments::Segment;
use crate::messages::subjects::Filter;
use crate::messages::{Messages, seqs};

/// Messages of a segment looked at before its dictionary is asked.
const LOOK: usize = if cfg!(test) { 16 } else { 256 };
/// So many matches of a segment are listed; more are found by looking at its messages.
const MATCHES: usize = if cfg!(test) { 40 } else { 8192 };
/// After so many of those, the segment's subjects that match are marked: that costs about as much.
const MARK_AFTER: usize = if cfg!(test) { 60 } else { 4096 };

/// What a matcher knows of one segment.
#[derive(Debug)]
pub(super) struct Part {
    /// The segment, and the layout of all of them when it was asked first.
    of: (u64, u64),
    verdicts: Verdicts,
    matches: Matches,
    /// Messages that were looked at, and had to have their subjects' names found.
    looked: usize,
}

#[derive(Debug)]
enum Matches {
    Unknown,
    /// All sequences from the first one on, ascending.
    Listed {
        from: u64,
        seqs: Vec<u64>,
    },
    Many,
    /// One bit for each subject of the segment.
    Marked(Vec<u64>),
}

impl Matcher {
    /// Where the only subject that is asked for is.
    pub(super) fn hits(&mut self, messages: &Messages, name: &Bytes) -> &Hits {
        let layout = messages.segments.layout;
        if self.hits.as_ref().is_none_or(|(known, _)| *known != layout) {
            self.hits = Some((layout, messages.cold.look_up(&messages.segments, name)));
        }
        self.hits.as_ref().map_or(const { &Hits::new() }, |(_, hits)| hits)
    }
}

impl Messages {
    /// The first match that is not in memory.
    pub(super) fn next_cold(&self, from: u64, m: &mut Matcher) -> Option<u64> {
        self.cold.parts(&self.segments, from).find_map(|(first, segment)| {
            if segment.last < from || segment.live == 0 {
                return None;
            }
            self.next_in_part(segment, from.max(first), m)
        })
    }

    /// The first match in the segment that was asked last, if that may hold `from`.
    pub(super) fn next_in_same_part(&self, from: u64, m: &mut Matcher) -> Option<u64> {
        let (_, segment) = self.segments.find(from).filter(|_| from <= self.cold.to)?;
        let is_same = m.part.as_ref().is_some_and(|part| part.of == (segment.id, self.segments.layout));
        if is_same { self.next_in_part(segment, from, m) } else { None }
    }

    fn next_in_part(&self, segment: &Segment, from: u64, m: &mut Matcher) -> Option<u64> {
        let Matcher { filters, part, .. } = m;
        let of = (segment.id, self.segments.layout);
        if part.as_ref().is_none_or(|part| part.of != of) {
            let (verdicts, matches) = (Verdicts::default(), Matches::Unknown);
            *part = Some(Box::new(Part { of, verdicts, matches, looked: 0 }));
        }
        let part = part.as_mut()?;
        if matches!(part.matches, Matches::Many) && part.looked >= MARK_AFTER {
            part.matches = Matches::Marked(self.mark(filters, segment));
        }
        match &part.matches {
            Matches::Listed { from: known, seqs } if *known <= from => return self.first_live(seqs, from),
            Matches::Marked(marks) => {
                let is_marked = |slot: &Slot| marks[slot.rank as usize / 64] & (1 << (slot.rank % 64)) != 0;
                return self.cold.scan(segment, from, usize::MAX, is_marked).ok();
            }
            _ => {}
        }
        let has_many = matches!(part.matches, Matches::Many);
        // Of all calls together: where every tenth message matches, each looks at ten.
        let limit = if has_many { MARK_AFTER } else { LOOK }.saturating_sub(part.looked);
        let Part { verdicts, looked, .. } = &mut **part;
        let subjects = segment.place.map_or(0, |place| u64::from(place.subjects));
        let matches = |name: Option<Bytes>| name.is_some_and(|name| filters.matches(&name));
        let mut verdict = |slot: &Slot| {
            *looked += 1;
            verdicts.get(slot.rank, subjects, || matches(self.cold.name(segment, slot.rank)))
        };
        let next = match self.cold.scan(segment, from, limit, &mut verdict) {
            Ok(found) => return Some(found),
            Err(None) => return None,
            Err(Some(next)) => next,
        };
        if !has_many {
            part.matches = match self.list(filters, segment, next) {
                Some(seqs) => Matches::Listed { from: next, seqs },
                None => Matches::Many,
            };
        }
        // Now it is listed, or marked, or looked at until it is worth marking.
        self.next_in_part(segment, next, m)
    }

    /// The subjects of a segment that match.
    fn mark(&self, filters: &Filters, segment: &Segment) -> Vec<u64> {
        let subjects = segment.place.map_or(0, |place| place.subjects as usize);
        let mut marks = vec![0; subjects.div_ceil(64)];
        let _ = filters.each_in(self, segment, &mut |rank, _, _| {
            marks[rank as usize / 64] |= 1 << (rank % 64);
            ControlFlow::Continue(())
        });
        marks
    }

    fn first_live(&self, seqs: &[u64], from: u64) -> Option<u64> {
        let at = seqs.partition_point(|&seq| seq < from);
        seqs[at..].iter().copied().find(|&seq| self.cold.live.contains(seq))
    }

    /// All matches of a segment at or after a sequence, unless there are many.
    fn list(&self, filters: &Filters, segment: &Segment, from: u64) -> Option<Vec<u64>> {
        let view = self.cold.view(segment)?;
        let (mut seqs, mut is_whole) = (Vec::new(), true);
        let _ = filters.each_in(self, segment, &mut |_, _, postings| {
            self.cold.guard(postings.each_from(&view, from, |seq| {
                seqs.push(seq);
                seqs.len() <= MATCHES
            }));
            is_whole = seqs.len() <= MATCHES;
            if is_whole { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        seqs.sort_unstable();
        is_whole.then_some(seqs)
    }

    /// How many messages match that are not in memory.
    pub(super) fn count_cold(&self, from: u64, m: &Matcher) -> u64 {
        let mut count = 0;
        for (_, segment) in self.cold.parts(&self.segments, from) {
            if segment.last >= from && segment.live > 0 {
                let _ = m.filters.each_in(self, segment, &mut |_, _, postings| {
                    count += self.cold.count_of(segment, &postings, from);
                    ControlFlow::Continue(())
                });
            }
        }
        count
    }

    /// Adds the last messages of subjects that have none in memory as of the end of the range.
    pub(super) fn lasts_of_cold(&self, m: &Matcher, (from, up_to): (u64, u64), found: &mut Vec<u64>) {
        let is_one_each = self.num_subjects == self.len();
        // Names are remembered only where a subject may have several messages.
        let mut seen: Set<Bytes> = Set::default();
        if !is_one_each {
            m.filters.for_each(&self.head.subjects, |id| {
                if self.head.subjects.seqs(id).is_some_and(|seqs| seqs.prev(up_to).is_some()) {
                    seen.insert(Bytes::copy_from_slice(self.head.subjects.name(id)));
                }
                true
            });
        }
        for (first, segment) in self.cold.parts(&self.segments, 0).rev() {
            if first > up_to || segment.live == 0 {
                continue;
            }
            let _ = m.filters.each_in(self, segment, &mut |_, name, postings| {
                if !seen.contains(name)
                    && let Some(last) = self.cold.prev_of(segment, &postings, up_to)
                {
                    found.extend((last >= from).then_some(last));
                    if !is_one_each {
                        seen.insert(Bytes::copy_from_slice(name));
                    }
                }
                ControlFlow::Continue(())
            });
        }
    }

    /// How many subjects match, counting no further than `limit`.
    pub fn count_subjects(&self, m: &Matcher, limit: usize) -> usize {
        let mut names: Set<Bytes> = Set::default();
        let is_complete = m.filters.for_each(&self.head.subjects, |id| {
            names.insert(Bytes::copy_from_slice(self.head.subjects.name(id)));
            names.len() < limit
        });
        for (_, segment) in self.cold.parts(&self.segments, 0) {
            if !is_complete || names.len() >= limit {
                break;
            }
            let _ = m.filters.each_in(self, segment, &mut |_, name, postings| {
                if !names.contains(name) && self.cold.next_of(segment, &postings, 0).is_some() {
                    names.insert(Bytes::copy_from_slice(name));
                }
                if names.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            });
        }
        names.len()
    }

    /// Calls `f` with every subject that matches and how many messages it has, ordered by name.
    pub fn for_each_subject(&self, filter: &str, mut f: impl FnMut(&Bytes, u64)) {
        let filter = Filter::new(filter);
        if self.cold.live.len() == 0 {
            self.head.subjects.for_each(&filter, |_, name, seqs| {
                f(&Bytes::copy_from_slice(name), seqs.count());
                true
            });
            return;
        }
        let mut counts: BTreeMap<Bytes, u64> = BTreeMap::new();
        self.head.subjects.for_each(&filter, |_, name, seqs| {
            counts.insert(Bytes::copy_from_slice(name), seqs.count());
            true
        });
        for (_, segment) in self.cold.parts(&self.segments, 0) {
            let _ = self.cold.each_match(segment, filter.bytes(), &mut |_, name, postings| {
                let count = self.cold.count_of(segment, &postings, 0);
                match counts.get_mut(name) {
                    Some(known) => *known += count,
                    None if count > 0 => drop(counts.insert(Bytes::copy_from_slice(name), count)),
                    None => {}
                }
                ControlFlow::Continue(())
            });
        }
        counts.iter().for_each(|(name, &count)| f(name, count));
    }

    /// The last message, at or before `up_to`, whose subject matches.
    pub fn last_matching(&self, filter: &str, up_to: Seq) -> Option<Seq> {
        let filter = Filter::new(filter);
        if filter.is_all() {
            return self.prev(up_to);
        }
        // Often one of the latest messages matches.
        let mut at = up_to.0.min(self.last.0) + 1;
        for _ in 0..32 {
            let Some(seq) = at.checked_sub(1).and_then(|before| self.head.slots.prev(before)) else { break };
            at = seq;
            let slot = self.head.slots.get(at).map(|(slot, _)| slot.subject);
            if slot.is_some_and(|subject| filter.matches(self.head.subjects.name(subject))) {
                return Some(Seq(at));
            }
        }
        let mut last: Option<u64> = None;
        self.head.subjects.for_each(&filter, |_, _, seqs: &seqs::Seqs| {
            last = last.max(seqs.prev(up_to.0));
            true
        });
        last.or_else(|| self.last_cold(&filter, up_to.0)).map(Seq)
    }

    fn last_cold(&self, filter: &Filter, up_to: u64) -> Option<u64> {
        self.cold.parts(&self.segments, 0).rev().filter(|(first, _)| *first <= up_to).find_map(
            |(_, segment)| {
                let mut last: Option<u64> = None;
                let _ = self.cold.each_match(segment, filter.bytes(), &mut |_, _, postings| {
                    last = last.max(self.cold.prev_of(segment, &postings, up_to));
                    ControlFlow::Continue(())
                });
                last
            },
        )
    }

    /// The number of subjects, where it is not known any more.
    pub(in crate::messages) fn count_subjects_anew(&mut self) {
        let mut count = 0;
        self.for_each_subject(">", |_, _| count += 1);
        self.num_subjects = count;
    }
}
