//! Segments that are damaged, where somebody else has their messages: what is wanted of them, and how what comes takes their
//! place. As with a rewrite, the new segment becomes part of the next checkpoint, and the damaged one goes after it.

use std::collections::BTreeMap;

use hw_kit::Seq;

use super::rewrite::Rewriting;
use super::segments::Segments;
use super::{BlockId, Message, Messages};
use crate::damage::{Damage, Flaw};
use crate::layout::FileId;

/// What a message counts in `bytes` can be this much at most.
const SIZE_MAX: u64 = u32::MAX as u64;

impl Messages {
    /// The rows of messages that a segment should hold, ascending; None if there is no such segment (any more).
    pub fn wanted(&self, segment: u64) -> Option<Vec<(Seq, Seq)>> {
        let (&first, found) = self.segments.by_first.iter().find(|(_, one)| one.id == segment)?;
        let mut rows: Vec<(u64, u64)> = self.lost_within(first, found.last);
        let mut at = self.next(Seq(first)).filter(|seq| seq.0 <= found.last);
        let mut there: Vec<(u64, u64)> = Vec::new();
        while let Some(seq) = at {
            match there.last_mut().filter(|row| row.1 + 1 == seq.0) {
                Some(row) => row.1 = seq.0,
                None => there.push((seq.0, seq.0)),
            }
            at = self.next(seq.next()).filter(|seq| seq.0 <= found.last);
        }
        rows.append(&mut there);
        rows.sort_unstable();
        Some(rows.into_iter().map(|(first, last)| (Seq(first), Seq(last))).collect())
    }

    /// The first segment on disk that may hold messages behind `first` only, and the first of them; None: the very first.
    pub fn sealed_after(&self, first: Option<u64>) -> Option<(u64, u64)> {
        let mut all = self.segments.by_first.range(first.map_or(0, |first| first + 1)..);
        all.find(|(_, one)| one.is_on_disk()).map(|(&first, one)| (first, one.id))
    }

    /// Reads so many pages of a segment's index from the disk; gives the next one, or None at the end. What is wrong there
    /// is a [`Messages::fault`] from then on.
    pub fn check_pages(&self, segment: u64, from: u32, count: u32) -> Option<u32> {
        let one = self.segments.by_first.values().find(|one| one.id == segment)?;
        let view = self.cold.view(one)?;
        self.cold.guard(view.pages.check_some(view.id, view.place, from, count))
    }

    /// The block with the first message of a segment at or after a sequence.
    pub fn block_within(&self, segment: u64, from: Seq) -> Option<BlockId> {
        let (&first, one) =
            self.segments.by_first.iter().find(|(_, one)| one.id == segment && one.is_on_disk())?;
        let seq = self.next(from.max(Seq(first))).filter(|seq| seq.0 <= one.last)?;
        self.block_of(seq)
    }

    /// Whether a segment could not be used when its index was wanted: its messages are there for nobody.
    pub fn is_lost(&self, segment: u64) -> bool {
        self.segments.by_first.values().any(|one| one.id == segment && one.lost)
    }

    /// The segments whose messages are there for nobody.
    pub fn lost_segments(&self) -> Vec<u64> {
        self.segments.by_first.values().filter(|one| one.lost).map(|one| one.id).collect()
    }

    /// Whether messages that should be here are in no segment that is known.
    pub fn has_orphans(&self) -> bool {
        let is_within = |&(first, last): &(u64, u64)| {
            self.segments.find(first).is_some_and(|(_, segment)| segment.lost && last <= segment.last)
        };
        !self.segments.lost.iter().all(is_within)
    }

    /// The first message at or after a sequence that should be here and is there for nobody.
    pub fn lost_from(&self, from: Seq) -> Option<Seq> {
        let row = self.segments.lost.iter().find(|row| row.1 >= from.0)?;
        Some(Seq(row.0).max(from))
    }

    fn lost_within(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let within = self.segments.lost.iter().filter(|row| row.0 <= last && row.1 >= first);
        within.map(|row| (row.0.max(first), row.1.min(last))).collect()
    }

    /// The index of a segment cannot be used: its messages are there for nobody, as if its file were missing. Nothing may be
    /// decided from here on until they are back.
    pub fn lose(&mut self, segment: u64) {
        let found = self.segments.by_first.iter_mut().find(|(_, one)| one.id == segment && !one.lost);
        let Some((&first, one)) = found else { return };
        let last = one.last;
        (one.lost, one.place) = (true, None);
        self.bytes = self.bytes.saturating_sub(one.live_bytes);
        let rows = self.cold.live.stretches(first, last);
        for seq in rows.iter().flat_map(|row| row.0..=row.1) {
            self.cold.live.remove(seq);
        }
        self.bytes += self.head_bytes(first, last);
        self.segments.lost.extend(rows);
        self.segments.lost.sort_unstable();
        self.forget_counts(segment);
    }

    /// What the messages of a segment count that are still in memory.
    fn head_bytes(&self, first: u64, last: u64) -> u64 {
        let (mut bytes, mut at) = (0, self.head.slots.next(first));
        while let Some(seq) = at.filter(|&seq| seq <= last) {
            bytes += self.head.slots.get(seq).map_or(0, |(slot, _)| u64::from(slot.size));
            at = self.head.slots.next(seq + 1);
        }
        bytes
    }

    /// What was counted while messages were not there, or were, does not count any more.
    fn forget_counts(&mut self, segment: u64) {
        self.head.subjects.forget_cold();
        self.segments.layout += 1;
        self.segments.unload(segment);
        self.first = self.next(Seq(0)).unwrap_or(self.last.next());
    }

    /// The next checkpoint writes `messages`, which are all that exist of a damaged segment, to a new one. Of a segment that
    /// is lost, what is not among them does not exist any more. False when that cannot be: nothing has changed then.
    pub fn begin_repair(&mut self, (old, new): (u64, u64), messages: &mut Vec<Message>) -> bool {
        let Some((&first, one)) = self.segments.by_first.iter().find(|(_, one)| one.id == old) else {
            return false;
        };
        let (last, was_lost) = (one.last, one.lost);
        if !messages.iter().all(|message| (first..=last).contains(&message.seq.0)) {
            return false;
        }
        if !was_lost {
            return self.begin_rewrite(&[old], new, messages);
        }
        let sizes: BTreeMap<u64, u64> = messages
            .iter()
            .map(|message| (message.seq.0, self.keep.size_of(&message.record).min(SIZE_MAX)))
            .collect();
        let (count, total): (u64, u64) = (sizes.len() as u64, sizes.values().sum());
        let Some(one) = self.segments.by_first.get_mut(&first) else { return false };
        one.lost = false;
        (one.live, one.live_bytes, one.total, one.total_bytes) = (count, total, count, total);
        for (&seq, size) in &sizes {
            if !self.head.slots.contains(seq) {
                self.cold.live.insert(seq);
                self.bytes += size;
            }
        }
        self.segments.forget_lost_row((first, last));
        if count == 0 {
            self.segments.by_first.remove(&first);
        } else {
            let (total, total_bytes) = (count, total);
            self.segments.rewriting = Some(Rewriting { old: vec![old], new, total, total_bytes });
        }
        self.forget_counts(old);
        count > 0
    }

    /// Messages before `end` are removed: those whose segments are lost must not come back either.
    pub fn forget_lost_before(&mut self, end: Seq) {
        if !self.segments.lost.is_empty() && end > Seq(0) {
            self.segments.forget_lost_row((0, end.0 - 1));
        }
    }

    /// What an index said that could not be read does not matter any more.
    pub fn forget_fault(&mut self) {
        // What matchers know of it is of another layout.
        self.segments.layout += 1;
        self.cold.forget_fault();
    }

    /// Reads an index again that the disk failed to read; if all of it can be read, there is no fault any more. Says
    /// whether that is so. What was read and is damaged stays a fault.
    pub fn read_fault_again(&mut self) -> bool {
        let Some(Damage { file: FileId::Segment(_, number), flaw: Flaw::Unreadable { .. }, .. }) =
            self.cold.fault()
        else {
            return false;
        };
        let segment = self.segments.by_first.values().find(|one| one.id == number);
        let view = segment.and_then(|segment| self.cold.view(segment));
        if view.is_some_and(|view| view.pages.check(view.id, view.place).is_err()) {
            return false;
        }
        self.forget_fault();
        true
    }

    /// Takes back the messages that were added last: those after `last`, which are in no segment yet.
    pub fn withdraw(&mut self, last: Seq) {
        while let Some(seq) = self.head.slots.prev(u64::MAX).filter(|&seq| seq > last.0) {
            if seq <= self.segments.taken_to || self.remove(Seq(seq)).is_none() {
                return;
            }
        }
        self.last = last.min(self.last);
        if self.is_empty() {
            self.first = self.last.next();
        }
    }
}

impl Segments {
    /// What lies between two sequences, both included, is not lost any more.
    pub fn forget_lost_row(&mut self, (first, last): (u64, u64)) {
        let rows = std::mem::take(&mut self.lost);
        for (from, to) in rows {
            if from < first {
                self.lost.push((from, to.min(first - 1)));
            }
            if to > last {
                self.lost.push((from.max(last + 1), to));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hw_kit::Time;

    use super::super::Keep;
    use super::*;
    use crate::Record;

    fn message(seq: u64) -> Message {
        let record = Record::join(format!("s.{}", seq % 3).as_bytes(), b"", b"payload").expect("short");
        Message { seq: Seq(seq), ts: Time(seq as i64), record }
    }

    fn encoded(messages: &[Message]) -> (bytes::Bytes, crate::messages::Written) {
        let id = crate::SegmentId { group: hw_kit::GroupId(1), number: 1 };
        crate::segment::encode(crate::segment::SegmentWriter::new(id, false, Default::default()), messages)
    }

    fn place(messages: &[Message]) -> crate::messages::Written {
        encoded(messages).1
    }

    fn file(messages: &[Message]) -> bytes::Bytes {
        encoded(messages).0
    }

    /// Two segments, of which one is lost, and what is in memory.
    fn damaged() -> (Messages, Vec<Message>) {
        let mut all = Messages::new(Seq(1), Keep::File);
        (1..=6).for_each(|seq| all.append(Seq(seq), Time(seq as i64), message(seq).record));
        all.remove(Seq(2));
        let first: Vec<Message> = all.take_unwritten(1).into_iter().flatten().collect();
        all.handle_written(place(&first));
        (7..=9).for_each(|seq| all.append(Seq(seq), Time(seq as i64), message(seq).record));
        let mut bytes = Vec::new();
        all.snapshot(&mut bytes);
        let (mut restore, _) = super::super::Restore::open(&bytes).expect("just written");
        for seq in 7..=9 {
            restore.add_message(message(seq)).expect("in order");
        }
        let (messages, lost) = restore.finish(None);
        assert_eq!(lost, [(Seq(1), Seq(1)), (Seq(3), Seq(6))]);
        (messages, first)
    }

    #[test]
    fn what_is_lost_is_wanted_and_takes_its_place_again() {
        let (mut messages, first) = damaged();
        assert!(messages.is_lost(1) && !messages.has_orphans());
        assert_eq!(messages.wanted(1), Some(vec![(Seq(1), Seq(1)), (Seq(3), Seq(6))]));
        assert_eq!(messages.wanted(2), None);
        assert_eq!((messages.len(), messages.first_seq()), (3, Seq(7)));
        let mut got = first.clone();
        assert!(messages.begin_repair((1, 5), &mut got));
        assert_eq!((messages.len(), messages.first_seq(), messages.wanted(1).is_some()), (8, Seq(1), true));
        assert_eq!(messages.segment_numbers(), [5]);
        messages.handle_written(crate::messages::Written { segment: 5, ..place(&first) });
        assert_eq!(messages.wanted(1), None);
        assert_eq!(messages.live_segments().iter().map(|one| one.segment).collect::<Vec<_>>(), [5]);
        let sizes: u64 =
            (1..=9).filter(|seq| *seq != 2).map(|seq| Keep::File.size_of(&message(seq).record)).sum();
        assert_eq!(messages.bytes(), sizes);
    }

    #[test]
    fn what_nobody_has_any_more_is_not_missed() {
        let (mut messages, first) = damaged();
        let mut got = vec![first[1].clone()];
        assert!(messages.begin_repair((1, 5), &mut got));
        assert_eq!(messages.seqs().map(|seq| seq.0).collect::<Vec<_>>(), [3, 7, 8, 9]);
        let (mut messages, _) = damaged();
        assert!(!messages.begin_repair((1, 5), &mut Vec::new()));
        assert_eq!((messages.wanted(1), messages.len()), (None, 3));
        let (mut messages, _) = damaged();
        assert!(!messages.begin_repair((1, 5), &mut vec![message(8)]), "it belongs elsewhere");
    }

    #[test]
    fn what_is_removed_while_it_is_lost_does_not_come_back() {
        let (mut messages, first) = damaged();
        assert_eq!(messages.remove(Seq(4)), None);
        assert_eq!(messages.wanted(1), Some(vec![(Seq(1), Seq(1)), (Seq(3), Seq(3)), (Seq(5), Seq(6))]));
        messages.forget_lost_before(Seq(4));
        assert_eq!(messages.wanted(1), Some(vec![(Seq(5), Seq(6))]));
        let mut bytes = Vec::new();
        messages.snapshot(&mut bytes);
        // The file is put back, as it was.
        let (mut restore, _) = super::super::Restore::open(&bytes).expect("just written");
        restore.add_segment(place(&first)).expect("it is listed");
        for seq in 7..=9 {
            restore.add_message(message(seq)).expect("in order");
        }
        let files = crate::index::Preloaded { offset: 0, bytes: file(&first) };
        let pages = crate::index::Pages::new(Box::new(files), 1 << 20, Default::default());
        let source = super::super::IndexSource { group: hw_kit::GroupId(1), pages: pages.into() };
        let (mut messages, lost) = restore.finish(Some(source));
        assert_eq!((lost, messages.fault()), (vec![], None));
        assert_eq!(messages.seqs().map(|seq| seq.0).collect::<Vec<_>>(), [5, 6, 7, 8, 9]);
        let size = Keep::File.size_of(&message(5).record);
        assert_eq!(messages.bytes(), 5 * size);
        let segment = messages.live_segments()[0];
        assert_eq!((segment.live, segment.total, messages.state().num_subjects), (2, 5, 3));
        assert!([5, 6].iter().all(|&seq| messages.remove(Seq(seq)).is_some()));
        assert_eq!((messages.dead_segments(), messages.bytes()), (vec![1], 3 * size));
    }

    /// A segment's bytes on a disk that may fail.
    #[derive(Debug)]
    struct Flaky(bytes::Bytes, std::sync::Arc<std::sync::atomic::AtomicBool>);

    impl crate::index::ReadSegment for Flaky {
        fn read(&self, id: crate::SegmentId, at: u64, len: u64) -> Result<bytes::Bytes, crate::DiskError> {
            match self.1.load(std::sync::atomic::Ordering::Relaxed) {
                true => Err(crate::DiskError::Failed { place: id.file().path(), reason: "EIO".to_owned() }),
                false => Ok(self.0.slice(at as usize..(at + len) as usize)),
            }
        }
    }

    #[test]
    fn an_index_is_read_again_and_answers_as_before_the_disk_failed() {
        let mut all = Messages::new(Seq(1), Keep::File);
        (1..=6).for_each(|seq| all.append(Seq(seq), Time(seq as i64), message(seq).record));
        let first: Vec<Message> = all.take_unwritten(1).into_iter().flatten().collect();
        all.handle_written(place(&first));
        let mut bytes = Vec::new();
        all.snapshot(&mut bytes);
        let (mut restore, _) = super::super::Restore::open(&bytes).expect("just written");
        restore.add_segment(place(&first)).expect("it is listed");
        let fails = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        // No room in the cache: every look goes to the disk.
        let pages =
            crate::index::Pages::new(Box::new(Flaky(file(&first), fails.clone())), 0, Default::default());
        let source = super::super::IndexSource { group: hw_kit::GroupId(1), pages: pages.into() };
        let (mut messages, _) = restore.finish(Some(source));
        let mut matchers = [messages.matcher(&["s.1"]), messages.matcher(&["s.1", "s.2"])];
        fails.store(true, std::sync::atomic::Ordering::Relaxed);
        for matcher in &mut matchers {
            assert_eq!(messages.next_match(Seq(1), matcher), None);
        }
        assert_eq!(messages.last_of(b"s.1"), None);
        assert!(messages.has_fault() && !messages.read_fault_again() && messages.has_fault());
        fails.store(false, std::sync::atomic::Ordering::Relaxed);
        assert!(messages.read_fault_again() && !messages.has_fault());
        let [one, two] = &mut matchers;
        assert_eq!(messages.next_match(Seq(1), one), Some(Seq(1)));
        assert_eq!(messages.next_match(Seq(3), two), Some(Seq(4)));
        assert_eq!(messages.last_of(b"s.1"), Some(Seq(4)));
    }

    #[test]
    fn a_checkpoint_that_fails_leaves_it_lost() {
        let (mut messages, mut first) = damaged();
        assert!(messages.begin_repair((1, 5), &mut first));
        messages.handle_checkpoint_failed();
        messages.lose(1);
        assert_eq!(messages.wanted(1), Some(vec![(Seq(1), Seq(1)), (Seq(3), Seq(6))]));
        assert_eq!((messages.len(), messages.first_seq()), (3, Seq(7)));
    }

    #[test]
    fn what_was_in_memory_is_kept_on_disk() {
        let mut all = Messages::new(Seq(1), Keep::Memory);
        (1..=3).for_each(|seq| all.append(Seq(seq), Time(seq as i64), message(seq).record));
        all.remove(Seq(2));
        all.advance_to(Seq(7), Time(9));
        all.keep_on_disk();
        assert_eq!(all.seqs().collect::<Vec<_>>(), [Seq(1), Seq(3)]);
        assert_eq!((all.last_seq(), all.last_ts(), all.keep()), (Seq(7), Time(9), Keep::File));
        assert_eq!(all.bytes(), 2 * Keep::File.size_of(&message(1).record));
        assert_eq!(all.take_unwritten(1).into_iter().flatten().count(), 2);
    }

    #[test]
    fn the_last_messages_are_withdrawn() {
        let mut all = Messages::new(Seq(1), Keep::File);
        (1..=3).for_each(|seq| all.append(Seq(seq), Time(seq as i64), message(seq).record));
        all.withdraw(Seq(2));
        assert_eq!((all.last_seq(), all.len()), (Seq(2), 2));
        all.append(Seq(3), Time(9), message(4).record);
        all.withdraw(Seq(0));
        assert_eq!((all.last_seq(), all.first_seq(), all.is_empty()), (Seq(0), Seq(1), true));
    }
}
