//! Messages that are in segments and not in memory any more: what exists of them, and what the segments' indexes say.
//!
//! An index that cannot be read or is damaged is remembered as a fault: whoever asked gets an answer as if the message
//! were not there, and whoever owns the stream has to look for the fault before it acts on answers.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use hw_kit::{GroupId, Seq};

use super::live::Live;
use super::segments::{Segment, Segments};
use super::{BlockId, Messages};
use crate::damage::Damage;
use crate::index::{IsWanted, OnSubject, Pages, Postings, Slot, View};
use crate::segment::SegmentId;

/// Messages that leave memory at once, so that no other stream waits for long.
pub(super) const SHED_AT_ONCE: usize = 1024;

/// Who goes on to a message that is so near goes through all of them.
const NEAR: u64 = 16;

/// Where the indexes of a stream's segments are read.
#[derive(Clone, Debug)]
pub struct IndexSource {
    /// Whose segments.
    pub group: GroupId,
    /// The shard's pages.
    pub pages: Arc<Pages>,
}

/// What is not in memory.
#[derive(Debug, Default)]
pub(super) struct Cold {
    pub live: Live,
    /// Everything up to here is not in memory; everything above is.
    pub to: u64,
    pub source: Option<IndexSource>,
    fault: RefCell<Option<Damage>>,
    /// The message that was asked for last: its segment, its group of records, and its sequence.
    last_asked: Cell<(u64, usize, u64)>,
    /// A group of records, once it was asked for twice in a row or is read from its beginning.
    decoded: RefCell<Decoded>,
    /// What was answered last, and of which segment: a get asks for a message's place and then for its bytes.
    latest: Cell<Option<(u64, Slot)>>,
    memo: RefCell<Memo>,
}

#[derive(Debug, Default)]
struct Decoded {
    segment: u64,
    group: usize,
    slots: Vec<Slot>,
}

/// The subject that was looked for last, and what is known of where it is: the newest segments are asked first, and the
/// others only when somebody wants more.
#[derive(Debug, Default)]
struct Memo {
    name: Vec<u8>,
    layout: u64,
    /// From the newest segment to the oldest.
    hits: Hits,
    /// Segments that begin below were not asked yet.
    rest: u64,
    is_set: bool,
}

/// The segments that have a subject, by their first sequences, and its sequences in each.
pub(super) type Hits = Vec<(u64, Postings)>;

impl Cold {
    pub fn fault(&self) -> Option<Damage> {
        self.fault.borrow().clone()
    }

    pub fn has_fault(&self) -> bool {
        self.fault.borrow().is_some()
    }

    /// What was answered meanwhile is forgotten as well: it may have been as if there were nothing.
    pub fn forget_fault(&mut self) {
        *self.fault.get_mut() = None;
        *self.memo.get_mut() = Memo::default();
        *self.decoded.get_mut() = Decoded::default();
        self.latest.set(None);
    }

    /// The answer, or as if there were nothing.
    pub fn guard<T: Default>(&self, result: Result<T, Damage>) -> T {
        result.unwrap_or_else(|damage| {
            self.note(damage);
            T::default()
        })
    }

    fn note(&self, damage: Damage) {
        self.fault.borrow_mut().get_or_insert(damage);
        if let Some(source) = &self.source {
            source.pages.note_failure();
        }
    }

    pub fn view<'a>(&'a self, segment: &'a Segment) -> Option<View<'a>> {
        let source = self.source.as_ref()?;
        let id = SegmentId { group: source.group, number: segment.id };
        Some(View { pages: &source.pages, id, place: segment.place.as_ref()?, held: &segment.held })
    }

    /// What the index of its segment says of a message.
    pub fn slot(&self, segment: &Segment, seq: u64) -> Option<Slot> {
        if let Some((known, slot)) = self.latest.get().filter(|(_, slot)| slot.seq == seq)
            && known == segment.id
        {
            return Some(slot);
        }
        let slot = self.find_slot(segment, seq);
        self.latest.set(slot.map(|slot| (segment.id, slot)));
        slot
    }

    fn find_slot(&self, segment: &Segment, seq: u64) -> Option<Slot> {
        let view = self.view(segment)?;
        {
            let decoded = self.decoded.borrow();
            if decoded.segment == segment.id
                && let Ok(at) = decoded.slots.binary_search_by_key(&seq, |slot| slot.seq)
            {
                return Some(decoded.slots[at]);
            }
        }
        let (group, slot) = self.guard(view.slot(seq, |group| {
            let (segment_before, group_before, seq_before) =
                self.last_asked.replace((segment.id, group, seq));
            let is_near = group == group_before || seq.abs_diff(seq_before) < NEAR;
            segment_before != segment.id || !is_near
        }))?;
        if slot.is_some() {
            return slot;
        }
        self.decode(segment, group);
        let decoded = self.decoded.borrow();
        let at = decoded.slots.binary_search_by_key(&seq, |slot| slot.seq).ok()?;
        Some(decoded.slots[at])
    }

    fn decode(&self, segment: &Segment, group: usize) {
        let mut decoded = self.decoded.borrow_mut();
        if decoded.segment == segment.id && decoded.group == group && !decoded.slots.is_empty() {
            return;
        }
        (decoded.segment, decoded.group) = (segment.id, group);
        decoded.slots.clear();
        let Some(view) = self.view(segment) else { return };
        let read = view.each_in_group(group, |slot| {
            decoded.slots.push(slot);
            true
        });
        self.guard(read);
    }

    /// Calls `f` for each message of a segment from a sequence on until it returns true; gives the sequence where it did.
    /// At most `limit` messages are looked at: `Err(next)` tells where to go on, or None at the end.
    pub fn scan(
        &self,
        segment: &Segment,
        from: u64,
        limit: usize,
        mut f: impl FnMut(&Slot) -> bool,
    ) -> Result<u64, Option<u64>> {
        let Some(view) = self.view(segment) else { return Err(None) };
        let start = self.guard(view.group_of(from)).unwrap_or(0);
        let mut left = limit;
        for group in start..self.guard(view.groups()) {
            self.decode(segment, group);
            for slot in &self.decoded.borrow().slots {
                if slot.seq < from || !self.live.contains(slot.seq) {
                    continue;
                }
                if left == 0 {
                    return Err(Some(slot.seq));
                }
                left -= 1;
                if f(slot) {
                    return Ok(slot.seq);
                }
            }
        }
        Err(None)
    }

    /// The segments that hold what is not in memory, by first sequence, from the one that may hold `from` on.
    pub fn parts<'a>(
        &'a self,
        segments: &'a Segments,
        from: u64,
    ) -> impl DoubleEndedIterator<Item = (u64, &'a Segment)> {
        let start = segments.find(from).map_or(from, |(&first, _)| first).min(self.to);
        let parts = segments.by_first.range(start..=self.to);
        parts.filter(|(_, segment)| segment.is_on_disk()).map(|(&first, segment)| (first, segment))
    }

    /// Where a subject is.
    pub fn look_up(&self, segments: &Segments, name: &[u8]) -> Hits {
        let hash = View::hash(name);
        let mut hits = Vec::new();
        for (first, segment) in self.parts(segments, 0) {
            let Some(view) = self.view(segment) else { continue };
            if let Some((_, postings)) = self.guard(view.find(name, hash)) {
                hits.push((first, postings));
            }
        }
        hits
    }

    /// Calls `f` with each segment that has a subject, the newest first, until it breaks. What was found is remembered
    /// until another subject is asked for.
    fn each_back(
        &self,
        segments: &Segments,
        name: &[u8],
        mut f: impl FnMut(&Segment, &Postings) -> ControlFlow<()>,
    ) {
        let mut memo = self.memo.borrow_mut();
        if !(memo.is_set && memo.layout == segments.layout && memo.name == name) {
            memo.name.clear();
            memo.name.extend_from_slice(name);
            memo.hits.clear();
            (memo.layout, memo.rest, memo.is_set) = (segments.layout, self.to.saturating_add(1), true);
        }
        for (first, postings) in &memo.hits {
            let Some(segment) = segments.by_first.get(first) else { continue };
            if f(segment, postings).is_break() {
                return;
            }
        }
        let hash = View::hash(name);
        for (&first, segment) in segments.by_first.range(..memo.rest).rev() {
            memo.rest = first;
            // One without a place is not on disk yet.
            let Some(view) = self.view(segment).filter(|view| view.may_have(hash)) else { continue };
            if let Some((_, postings)) = self.guard(view.find(name, hash)) {
                let flow = f(segment, &postings);
                memo.hits.push((first, postings));
                if flow.is_break() {
                    return;
                }
            }
        }
    }

    /// The subject of a message, if it is the one that was looked for last.
    pub fn remembered_name(&self, segments: &Segments, first: u64, seq: u64) -> Option<Bytes> {
        let memo = self.memo.borrow();
        let is_known = memo.is_set && memo.layout == segments.layout;
        let mut hits = memo.hits.iter().filter(|(at, _)| is_known && *at == first);
        hits.any(|(_, postings)| postings.lists(seq)).then(|| Bytes::copy_from_slice(&memo.name))
    }

    /// How many of these exist at or after `from`.
    pub fn count_in(&self, segments: &Segments, hits: &Hits, from: u64) -> u64 {
        let mut count = 0;
        for (first, postings) in hits {
            let Some(segment) = segments.by_first.get(first).filter(|segment| segment.last >= from) else {
                continue;
            };
            count += self.count_of(segment, postings, from);
        }
        count
    }

    /// How many of a subject's messages in one segment exist at or after `from`.
    pub fn count_of(&self, segment: &Segment, postings: &Postings, from: u64) -> u64 {
        let Some(view) = self.view(segment) else { return 0 };
        if segment.is_intact() && segment.last <= self.to && view.place.first.0 >= from {
            return postings.count();
        }
        let mut count = 0;
        self.guard(postings.each_from(&view, from, |seq| {
            count += u64::from(self.live.contains(seq));
            true
        }));
        count
    }

    /// The first of these that exists at or after `from`.
    pub fn next_in(&self, segments: &Segments, hits: &Hits, from: u64) -> Option<u64> {
        // What is before the first of all messages need not be looked at.
        let from = self.live.next(from)?;
        for (first, postings) in hits {
            let Some(segment) = segments.by_first.get(first).filter(|segment| segment.last >= from) else {
                continue;
            };
            if let Some(found) = self.next_of(segment, postings, from) {
                return Some(found);
            }
        }
        None
    }

    /// The first message of a subject in one segment at or after `from`.
    pub fn next_of(&self, segment: &Segment, postings: &Postings, from: u64) -> Option<u64> {
        let view = self.view(segment)?;
        let mut found = None;
        self.guard(postings.each_from(&view, from, |seq| {
            found = self.live.contains(seq).then_some(seq);
            found.is_none()
        }));
        found
    }

    /// The last message of a subject in one segment at or before `up_to`.
    pub fn prev_of(&self, segment: &Segment, postings: &Postings, up_to: u64) -> Option<u64> {
        let view = self.view(segment)?;
        self.guard(postings.last_where(&view, up_to, |seq| self.live.contains(seq)))
    }

    /// Every subject of a segment that matches, in the order of the names, until `f` breaks.
    pub fn each_match(&self, segment: &Segment, filter: &[u8], f: &mut OnSubject<'_>) -> ControlFlow<()> {
        let Some(view) = self.view(segment) else { return ControlFlow::Continue(()) };
        if hw_subject::is_literal(filter) {
            return match self.guard(view.find(filter, View::hash(filter))) {
                Some((rank, postings)) => f(rank, filter, postings),
                None => ControlFlow::Continue(()),
            };
        }
        self.flow(view.each_match(filter, f))
    }

    /// Every subject of a segment that begins so and is wanted, in the order of the names, until `f` breaks.
    pub fn each_beginning(
        &self,
        segment: &Segment,
        (prefix, is_wanted): (&[u8], &IsWanted<'_>),
        f: &mut OnSubject<'_>,
    ) -> ControlFlow<()> {
        let Some(view) = self.view(segment) else { return ControlFlow::Continue(()) };
        self.flow(view.each_beginning(prefix, is_wanted, f))
    }

    fn flow(&self, result: Result<ControlFlow<()>, Damage>) -> ControlFlow<()> {
        result.unwrap_or_else(|damage| {
            self.note(damage);
            ControlFlow::Break(())
        })
    }

    /// The name of a subject of a segment.
    pub fn name(&self, segment: &Segment, rank: u32) -> Option<Bytes> {
        self.guard(self.view(segment)?.name(rank).map(Some))
    }
}

impl Messages {
    /// Where the indexes of segments are read. Without it, nothing that leaves memory can be found again.
    pub fn set_source(&mut self, source: IndexSource) {
        self.cold.source = Some(source);
    }

    /// What was found to be damaged, or could not be read, when an answer was looked for: the answers since then may
    /// lack messages.
    pub fn fault(&self) -> Option<Damage> {
        self.cold.fault()
    }

    /// Whether there is such a [`Messages::fault`].
    pub fn has_fault(&self) -> bool {
        self.cold.has_fault()
    }

    /// Lets some of the written messages leave memory; whether more should follow soon.
    pub fn shed_some(&mut self) -> bool {
        self.shed(SHED_AT_ONCE);
        self.cold.source.is_some() && self.segments.resident > self.segments.budget
    }

    /// Lets written messages leave memory, at most so many, until what stays fits into the budget.
    pub(super) fn shed(&mut self, limit: usize) {
        if self.cold.source.is_none() {
            return;
        }
        for _ in 0..limit {
            if self.segments.resident <= self.segments.budget {
                return;
            }
            let next = self.head.slots.next(0).filter(|&seq| seq <= self.segments.written_to);
            let Some(seq) = next else { return };
            let Some((slot, _)) = self.head.slots.remove(seq) else { return };
            self.head.subjects.remove(slot.subject, seq, true);
            self.segments.resident -= u64::from(slot.size);
            self.cold.live.insert(seq);
            // Another segment takes part from now on.
            if self.segments.by_first.range(self.cold.to + 1..=seq).next().is_some() {
                self.segments.layout += 1;
            }
            self.cold.to = seq;
        }
    }

    pub(super) fn cold_slot(&self, seq: u64) -> Option<Slot> {
        let (_, segment) = self.segments.find(seq).filter(|_| self.cold.live.contains(seq))?;
        self.cold.slot(segment, seq)
    }

    /// The block that holds a message that is not in memory.
    pub fn block(&self, seq: Seq) -> Option<BlockId> {
        self.cold.live.contains(seq.0).then(|| self.block_of(seq)).flatten()
    }

    /// The block that holds a message that is on disk.
    pub(super) fn block_of(&self, seq: Seq) -> Option<BlockId> {
        let (_, segment) = self.segments.find(seq.0)?;
        let slot = self.cold.slot(segment, seq.0)?;
        Some(BlockId { segment: segment.id, block: slot.block })
    }

    /// How many of a subject's messages are not in memory.
    pub(super) fn cold_count(&self, name: &[u8]) -> u64 {
        let mut count = 0;
        if self.cold.live.len() > 0 {
            self.cold.each_back(&self.segments, name, |segment, postings| {
                count += self.cold.count_of(segment, postings, 0);
                ControlFlow::Continue(())
            });
        }
        count
    }

    /// A subject's first message that is not in memory; `known`: it has so many of those.
    pub(super) fn cold_first(&self, name: &[u8], known: Option<u64>) -> Option<u64> {
        if self.cold.live.len() == 0 {
            return None;
        }
        let (mut first, mut count) = (None, 0);
        self.cold.each_back(&self.segments, name, |segment, postings| {
            if let Some(found) = self.cold.next_of(segment, postings, 0) {
                first = Some(found);
                count += known.map_or(0, |_| self.cold.count_of(segment, postings, 0));
            }
            match known {
                Some(known) if count >= known => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        first
    }

    /// A subject's last message that is not in memory.
    pub(super) fn cold_last(&self, name: &[u8]) -> Option<u64> {
        if self.cold.live.len() == 0 {
            return None;
        }
        let mut last = None;
        self.cold.each_back(&self.segments, name, |segment, postings| {
            last = self.cold.prev_of(segment, postings, u64::MAX);
            if last.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        last
    }

    /// What a subject that has no message in memory has elsewhere, as far as that can be told from the newest one.
    pub(super) fn cold_of_newcomer(&self, name: &[u8]) -> Elsewhere {
        match self.cold_last(name) {
            None => Elsewhere::Nothing,
            // Each subject has one message, so it has no other.
            Some(_) if self.num_subjects == self.len() => Elsewhere::Messages(Some(1)),
            Some(_) => Elsewhere::Messages(None),
        }
    }
}

/// What a subject has that is not in memory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Elsewhere {
    Nothing,
    /// Some, and how many if that is known.
    Messages(Option<u64>),
}
