//! Segments that hold much of what nobody needs any more are rewritten: which are worth it, and what happens meanwhile.
//!
//! Rewriting is part of a checkpoint: the new segment is durable before the checkpoint that refers to it, the old ones
//! are removed after. Until then everything is read from the old ones, and a checkpoint that fails changes nothing.

use std::collections::BTreeSet;

use hw_kit::Seq;

use super::segments::{Segment, Written};
use super::{BlockId, Message, Messages};

/// What a file costs beside its messages: merging two is worth writing so many bytes.
const FILE_COST: u64 = 256 << 10;
/// Segments that are rewritten into one at once.
const RUN_MAX: usize = 64;

/// Neighbouring segments to rewrite into one.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Rewrite {
    /// The segments, by sequence.
    pub segments: Vec<u64>,
    /// The first and the last sequence that they can hold.
    pub range: (Seq, Seq),
    /// What the messages count that are to be written.
    pub bytes: u64,
}

/// A rewrite whose checkpoint is being made.
#[derive(Debug)]
pub(super) struct Rewriting {
    pub old: Vec<u64>,
    pub new: u64,
    pub total: u64,
    pub total_bytes: u64,
}

/// Where bytes are that must not stay on disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Unerased {
    pub log: bool,
    pub segments: BTreeSet<u64>,
    /// Those that the running checkpoint removes.
    leaving: BTreeSet<u64>,
}

impl Messages {
    /// The bytes of a message that is about to be removed are to be overwritten on disk.
    pub fn mark_for_erasure(&mut self, seq: Seq) {
        if self.keep == super::Keep::File && self.contains(seq) {
            self.segments.unerased.log = true;
            if let Some(id) = self.segments.find(seq.0).map(|(_, segment)| segment.id) {
                self.segments.unerased.segments.insert(id);
                // It may be there twice for the moment.
                let rewriting = self.segments.rewriting.as_ref().filter(|one| one.old.contains(&id));
                self.segments.unerased.segments.extend(rewriting.map(|one| one.new));
            }
        }
    }

    /// Whether the log holds bytes that must not stay.
    pub fn must_erase_log(&self) -> bool {
        self.segments.unerased.log
    }

    /// The same; from now on somebody else knows.
    pub fn take_erase_log(&mut self) -> bool {
        std::mem::take(&mut self.segments.unerased.log)
    }

    /// Whether segments hold bytes that must not stay.
    pub fn must_erase_segments(&self) -> bool {
        !self.segments.unerased.segments.is_empty()
    }

    /// What is lost is given up: nothing says any more that it should be there.
    pub fn forget_lost(&mut self) {
        self.segments.lost.clear();
        self.segments.by_first.retain(|_, segment| !segment.lost);
        self.count_subjects_anew();
    }

    /// Whether a checkpoint would remove segments.
    pub fn has_dead_segments(&self) -> bool {
        self.segments.buried_bytes > 0
    }

    /// What those messages counted that were in segments and were removed since the last reset.
    pub fn removed_bytes(&self) -> u64 {
        self.segments.removed_bytes
    }

    /// From now on.
    pub fn reset_removed_bytes(&mut self) {
        self.segments.removed_bytes = 0;
    }

    /// What segments take on disk for nothing: what their removed messages count.
    pub fn wasted_bytes(&self) -> u64 {
        let dead = |segment: &Segment| segment.total_bytes - segment.live_bytes;
        self.segments.buried_bytes
            + self.segments.leaving_bytes
            + self.segments.by_first.values().filter(|segment| segment.is_on_disk()).map(dead).sum::<u64>()
    }

    /// Neighbouring segments whose rewriting frees at least what it writes, at most `budget` bytes unless one alone is
    /// more; those with bytes that must not stay come first. `spared` ones stay as they are.
    pub fn worth_rewriting(&self, budget: u64, spared: &BTreeSet<u64>) -> Option<Rewrite> {
        let all: Vec<&Segment> = self.segments.by_first.values().collect();
        let is_usable =
            |segment: &&Segment| segment.is_on_disk() && !segment.lost && !spared.contains(&segment.id);
        let mut best: Option<(u64, &[&Segment])> = None;
        for start in 0..all.len() {
            let (mut cost, mut gain, mut must) = (0, 0, 0);
            let usable = all[start..].iter().take(RUN_MAX).take_while(|segment| is_usable(segment));
            for (more, segment) in usable.enumerate() {
                cost += segment.live_bytes;
                gain += segment.total_bytes - segment.live_bytes + if more > 0 { FILE_COST } else { 0 };
                must += u64::from(self.segments.unerased.segments.contains(&segment.id));
                if more > 0 && cost > budget {
                    break;
                }
                let is_worth = must > 0 || (gain > 0 && gain >= cost);
                let score = (must << 48) + gain.saturating_sub(cost) + 1;
                if is_worth && best.is_none_or(|(most, _)| score > most) {
                    best = Some((score, &all[start..=start + more]));
                }
            }
        }
        best.map(|(_, run)| self.rewrite(run))
    }

    fn rewrite(&self, run: &[&Segment]) -> Rewrite {
        let firsts = run.iter().filter_map(|segment| segment.place).map(|place| place.first);
        let last = run.iter().map(|segment| segment.last).max();
        Rewrite {
            segments: run.iter().map(|segment| segment.id).collect(),
            range: (firsts.min().unwrap_or_default(), Seq(last.unwrap_or_default())),
            bytes: run.iter().map(|segment| segment.live_bytes).sum(),
        }
    }

    /// The block of the first message at or after `from` that a rewrite has to read; None when it has all.
    pub fn next_block(&self, rewrite: &Rewrite, from: Seq) -> Option<BlockId> {
        let seq = self.next(from.max(rewrite.range.0)).filter(|seq| *seq <= rewrite.range.1)?;
        self.block_of(seq)
    }

    /// The next checkpoint writes `messages`, which are all that exist of neighbouring segments, to a new one. What does
    /// not exist any more is taken out; false when nothing is left to write, or when it is not all: nothing begins then.
    pub fn begin_rewrite(&mut self, old: &[u64], new: u64, messages: &mut Vec<Message>) -> bool {
        messages.retain(|message| self.contains(message.seq));
        let (mut live, mut total_bytes) = (0, 0);
        for segment in self.segments.by_first.values().filter(|segment| old.contains(&segment.id)) {
            live += segment.live;
        }
        for message in &*messages {
            total_bytes += self.keep.size_of(&message.record).min(u64::from(u32::MAX));
        }
        if messages.is_empty() || live != messages.len() as u64 {
            return false;
        }
        self.segments.rewriting = Some(Rewriting { old: old.to_vec(), new, total: live, total_bytes });
        true
    }

    /// The new segment is on disk, and the checkpoint that refers to it: the old ones are dead.
    pub(super) fn handle_rewritten(&mut self, new: &Written) {
        let Some(rewriting) = self.segments.rewriting.take() else { return };
        let segments = &mut self.segments;
        let replaced: Vec<u64> = segments
            .by_first
            .iter()
            .filter(|(_, segment)| rewriting.old.contains(&segment.id))
            .map(|(&first, _)| first)
            .collect();
        segments.unerased.segments.retain(|id| !rewriting.old.contains(id));
        // All that it holds may have been removed meanwhile; then the next checkpoint does not refer to it any more.
        let Some(&first) = replaced.first() else { return };
        let mut one = Segment::new(rewriting.new, 0);
        for at in replaced {
            let segment = segments.by_first.remove(&at).expect("just listed");
            (one.live, one.last) = (one.live + segment.live, segment.last.max(one.last));
            one.live_bytes += segment.live_bytes;
            segments.unload(segment.id);
        }
        (one.total, one.total_bytes) = (rewriting.total, rewriting.total_bytes);
        one.place = Some(new.place);
        segments.layout += 1;
        segments.by_first.insert(first, one);
        segments.bury(first);
    }

    /// A checkpoint of this state is begun: it removes the segments that are dead by now.
    pub fn handle_checkpoint_begun(&mut self) {
        let segments = &mut self.segments;
        segments.leaving_bytes += std::mem::take(&mut segments.buried_bytes);
        let known: BTreeSet<u64> = segments.by_first.values().map(|segment| segment.id).collect();
        let unerased = &mut segments.unerased;
        unerased.leaving = unerased.segments.difference(&known).copied().collect();
    }

    /// The checkpoint is durable, after `handle_written` for what it wrote: what it made superfluous is gone.
    pub fn handle_checkpointed(&mut self) {
        let segments = &mut self.segments;
        segments.leaving_bytes = 0;
        for id in std::mem::take(&mut segments.unerased.leaving) {
            segments.unerased.segments.remove(&id);
        }
    }

    /// The checkpoint failed: everything is where it was.
    pub fn handle_checkpoint_failed(&mut self) {
        let segments = &mut self.segments;
        segments.rewriting = None;
        segments.buried_bytes += std::mem::take(&mut segments.leaving_bytes);
        segments.unerased.leaving.clear();
    }
}
