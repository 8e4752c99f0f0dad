//! What the disk is cleaned of in the background: segments that hold little of what is needed are rewritten, deleted
//! messages are overwritten, and a full disk is given back what can go.
//!
//! A rewrite loads what exists of neighbouring segments, one block at a time behind what clients read, and becomes part
//! of the next checkpoint. At most half as much as may be in the log between two checkpoints is rewritten by one.

use hw_kit::{GroupId, Seq, Span, Time};
use hw_store::messages::{self, BlockId, Message};
use hw_store::{Erase, LoadedBlock};

use crate::completion::LoadError;
use crate::group::Group;
use crate::jetstream::JetStream;
use crate::limits::{FULL_RETRY_MAX, REWRITE_PAUSE, TIDY_AFTER, TIDY_BYTES};

/// Segments that are being read to become one.
pub(crate) struct Rewrite {
    plan: messages::Rewrite,
    /// The block that was asked for; None when all is here.
    next: Option<BlockId>,
    /// Somebody else waits for that block, too.
    shared: bool,
    messages: Vec<Message>,
    /// Another server's messages for a segment that is damaged here.
    of_others: bool,
}

impl Rewrite {
    /// A segment is damaged: these are its messages.
    pub(crate) fn of_others(segment: u64, messages: Vec<Message>) -> Rewrite {
        let plan = messages::Rewrite { segments: vec![segment], ..messages::Rewrite::default() };
        Rewrite { plan, next: None, shared: false, messages, of_others: true }
    }
}

/// When the next checkpoint is to be made although the log did not grow.
#[derive(Default)]
pub(crate) struct Tidy {
    /// At this time.
    pub(crate) at: Option<Time>,
    /// Bytes in the log are to be overwritten.
    pub(crate) erase_log: bool,
    /// The last checkpoint did not get rid of all of them.
    pub(crate) unerased: bool,
    /// The running checkpoint overwrites the log.
    erasing: bool,
    /// The last checkpoint did not fit on the disk: the next writes no messages.
    lean: bool,
    /// How long the next attempt waits.
    retry: Span,
}

impl Tidy {
    /// A checkpoint is to be made at this time or before.
    pub(crate) fn by(&mut self, time: Time) {
        self.at = Some(self.at.map_or(time, |at| at.min(time)));
    }

    /// Whether the last checkpoint did not fit and the next attempt has its time.
    pub(crate) fn is_waiting(&self) -> bool {
        self.retry.0 > 0
    }

    /// Whether the checkpoint that is begun now writes no messages.
    pub(crate) fn is_lean(&self) -> bool {
        self.lean
    }
}

impl JetStream {
    /// Does what is due.
    pub(crate) fn tidy(&mut self, now: Time) {
        let is_due = self.disk.tidy.at.is_some_and(|at| at <= now);
        if !is_due || self.disk.checkpoint_running || self.disk.failed.is_some() {
            return;
        }
        if self.awaits_groups() {
            self.disk.tidy.at = Some(now + REWRITE_PAUSE);
            return;
        }
        self.disk.tidy.at = None;
        if !self.disk.tidy.lean {
            self.plan_rewrites();
        }
        // What is being read calls again when it is here.
        if !self.groups.values().any(Group::is_reading) && self.is_untidy() {
            self.checkpoint();
        }
    }

    /// When [`JetStream::tidy`] has something to do.
    pub(crate) fn tidy_deadline(&self) -> Option<Time> {
        self.disk.tidy.at.filter(|_| !self.disk.checkpoint_running && self.disk.failed.is_none())
    }

    /// A command of this stream was applied: did it leave something behind?
    pub(crate) fn look_for_waste(&mut self, now: Time, id: GroupId) {
        let Some(messages) = self.groups.get(&id).map(|group| group.stream.messages()) else { return };
        if messages.must_erase_log() {
            self.disk.tidy.by(now + self.config.erase_after);
        }
        if messages.removed_bytes() >= TIDY_BYTES.min(self.config.checkpoint_bytes / 4) {
            self.disk.tidy.by(now + TIDY_AFTER);
        }
    }

    /// What the checkpoint that is begun now is to overwrite.
    pub(crate) fn begin_erase(&mut self) -> Erase {
        let mut erase = Erase { log: self.disk.tidy.erase_log, segments: false };
        if self.disk.tidy.lean {
            return Erase::default();
        }
        for group in self.groups.values_mut().chain(self.aside.parked.values_mut()) {
            let messages = group.stream.messages_mut();
            erase.log |= messages.take_erase_log();
            erase.segments |= messages.must_erase_segments();
        }
        self.disk.tidy.erase_log = false;
        self.disk.tidy.erasing = erase.log;
        erase
    }

    /// A checkpoint has ended: is another one wanted?
    pub(crate) fn after_checkpoint(&mut self, now: Time, done: Result<bool, ()>) {
        let was_lean = self.disk.tidy.lean;
        let tidy = &mut self.disk.tidy;
        match done {
            Ok(unerased) => {
                tidy.unerased = unerased;
                (tidy.lean, tidy.retry) = (false, Span(0));
                if unerased || was_lean {
                    tidy.by(now + REWRITE_PAUSE);
                }
                self.plan_rewrites();
                if self.groups.values().any(Group::must_erase) {
                    self.disk.tidy.by(now + REWRITE_PAUSE);
                }
            }
            Err(()) => {
                tidy.erase_log |= std::mem::take(&mut tidy.erasing);
                // What frees space without needing any is tried first.
                tidy.lean = !was_lean;
                tidy.retry = Span((tidy.retry.0 * 2).clamp(REWRITE_PAUSE.0, FULL_RETRY_MAX.0));
                tidy.by(now + tidy.retry);
            }
        }
    }

    /// A block of a segment that is being rewritten was read, or not. Gives it back, and whether nobody else waits for it.
    pub(crate) fn take_for_rewrite(
        &mut self,
        now: Time,
        (id, block): (GroupId, BlockId),
        loaded: Result<LoadedBlock, LoadError>,
    ) -> (Result<LoadedBlock, LoadError>, bool) {
        let Some(group) = self.groups.get_mut(&id) else { return (loaded, false) };
        let Some(rewrite) = group.rewrite.as_mut().filter(|one| one.next == Some(block)) else {
            return (loaded, false);
        };
        let is_shared = std::mem::take(&mut rewrite.shared);
        // What somebody else asked for first was not checked yet.
        let loaded = loaded.and_then(|loaded| match loaded.messages() {
            Ok(messages) => {
                let existing =
                    messages.iter().filter(|message| group.stream.messages().contains(message.seq));
                // A copy: a few messages must not keep the whole block in memory.
                rewrite.messages.extend(existing.map(Message::detached));
                let after = messages.last().map_or(Seq(0), |last| last.seq.next());
                rewrite.next = group.stream.messages().next_block(&rewrite.plan, after);
                Ok(loaded)
            }
            Err(damage) => Err(LoadError::Damaged(damage.to_string())),
        });
        match &loaded {
            Ok(_) | Err(LoadError::Busy) => {}
            Err(LoadError::Failed(_)) => {
                // Another checkpoint may find it readable.
                group.rewrite = None;
                self.disk.tidy.by(now + REWRITE_PAUSE);
                return (loaded, false);
            }
            Err(LoadError::Damaged(_)) => {
                group.spared.insert(block.segment);
                group.rewrite = None;
            }
        }
        match group.rewrite.as_ref().map(|rewrite| rewrite.next) {
            Some(Some(next)) => self.load_for_rewrite(id, next),
            // What is overwritten has waited long enough.
            Some(None) if group.must_erase() => self.disk.tidy.by(now),
            Some(None) => self.disk.tidy.by(now + REWRITE_PAUSE),
            None => self.disk.tidy.by(now),
        }
        let is_mine = !is_shared && loaded.is_ok();
        (loaded, is_mine)
    }

    /// Chooses what is worth rewriting, and begins to read it.
    fn plan_rewrites(&mut self) {
        if self.disk.full {
            return;
        }
        let begun: u64 =
            self.groups.values().filter_map(|group| group.rewrite.as_ref()).map(|one| one.plan.bytes).sum();
        let mut left = (self.config.checkpoint_bytes / 2).saturating_sub(begun);
        let mut loads = Vec::new();
        for group in self.groups.values_mut().filter(|group| !group.is_volatile() && group.rewrite.is_none())
        {
            group.stream.messages_mut().reset_removed_bytes();
            let spared = &group.spared;
            let chosen = group.stream.messages().worth_rewriting(left, spared).filter(|_| left > 0);
            let Some(plan) = chosen else { continue };
            left = left.saturating_sub(plan.bytes);
            let next = group.stream.messages().next_block(&plan, Seq(0));
            loads.extend(next.map(|first| (group.id, first)));
            let (shared, of_others) = (false, false);
            group.rewrite = Some(Box::new(Rewrite { plan, next, shared, messages: Vec::new(), of_others }));
        }
        loads.into_iter().for_each(|(id, block)| self.load_for_rewrite(id, block));
    }

    fn load_for_rewrite(&mut self, id: GroupId, block: BlockId) {
        let is_loading = self.groups.get(&id).is_some_and(|group| group.loading.contains(&block));
        self.load(id, block);
        if let Some(rewrite) = self.groups.get_mut(&id).and_then(|group| group.rewrite.as_mut()) {
            rewrite.shared = is_loading;
        }
    }

    /// Whether a checkpoint would clean something.
    fn is_untidy(&self) -> bool {
        let tidy = &self.disk.tidy;
        tidy.erase_log
            || tidy.unerased
            || tidy.is_waiting()
            || self.groups.values().any(|group| {
                let messages = group.stream.messages();
                messages.must_erase_log()
                    || group.must_erase()
                    || messages.has_dead_segments()
                    || group.rewrite.is_some()
            })
    }
}

impl Group {
    fn is_reading(&self) -> bool {
        self.rewrite.as_ref().is_some_and(|rewrite| rewrite.next.is_some())
    }

    fn must_erase(&self) -> bool {
        self.stream.messages().must_erase_segments()
    }

    /// Whether this block is the next one that a rewrite waits for.
    pub(crate) fn is_rewriting(&self, block: BlockId) -> bool {
        self.rewrite.as_ref().is_some_and(|one| one.next == Some(block))
    }

    /// A client waits for this block, too.
    pub(crate) fn share_rewrite(&mut self, block: BlockId) {
        if let Some(rewrite) = self.rewrite.as_mut().filter(|one| one.next == Some(block)) {
            rewrite.shared = true;
        }
    }

    /// A rewrite that has been read: the next checkpoint writes these messages under this number.
    pub(crate) fn begin_rewrite(&mut self, number: u64) -> Option<Vec<Message>> {
        let Rewrite { plan, mut messages, of_others, .. } =
            *self.rewrite.take_if(|one| one.next.is_none())?;
        if of_others {
            let segment = plan.segments.first().copied().unwrap_or_default();
            let begun = self.stream.messages_mut().begin_repair((segment, number), &mut messages);
            return begun.then_some(messages);
        }
        let begun = self.stream.messages_mut().begin_rewrite(&plan.segments, number, &mut messages);
        if !begun && !messages.is_empty() {
            // Not all of it could be read, and nobody said so: it is left as it is.
            self.spared.extend(plan.segments);
        }
        begun.then_some(messages)
    }
}
