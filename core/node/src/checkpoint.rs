//! Checkpoints: the groups' states and the messages that are in no segment yet, handed to the disk in the background.

use bytes::Bytes;
use hw_kit::Time;
use hw_meta::MetaCommand;
use hw_store::{CheckpointDone, CheckpointJob, Erase, GroupCheckpoint, NewSegment};
use hw_stream::config::Compression;

use crate::commit::META;
use crate::jetstream::{DiskRequest, JetStream};
use crate::log::Origin;

/// Every so many checkpoints hold all groups; those between only the ones that changed.
const FULL_EVERY: u64 = 8;

/// At the end of a run, a checkpoint is worth its files when the next start would have to replay one part in so many of
/// what may be in the log between two checkpoints.
const WORTH_AT_END: u64 = 16;

impl JetStream {
    /// Begins a checkpoint when the log has grown enough since the last one.
    pub(crate) fn begin_checkpoint(&mut self) {
        let due = self.disk.bytes_since_checkpoint >= self.config.checkpoint_bytes
            || !self.disk.dropped.is_empty()
            || self.disk.must_checkpoint;
        if due
            && !self.awaits_groups()
            && !self.disk.tidy.is_waiting()
            && !self.disk.checkpoint_running
            && self.disk.failed.is_none()
        {
            self.checkpoint();
        }
    }

    /// The server stops, and what it accepted is on its way to the disk: a checkpoint of it all, so that the next start
    /// replays next to nothing. One that is being made is completed before, by the disk.
    pub(crate) fn checkpoint_at_end(&mut self) {
        let is_worth = self.disk.bytes_since_checkpoint >= self.config.checkpoint_bytes / WORTH_AT_END;
        if is_worth
            && !self.awaits_groups()
            && !self.disk.tidy.is_waiting()
            && !self.disk.tidy.is_lean()
            && self.disk.failed.is_none()
        {
            for group in self.groups.values_mut() {
                // What another checkpoint is rewriting must not be begun twice; the next start finds it again.
                group.rewrite = None;
            }
            self.checkpoint_with(Erase::default());
            self.disk.is_ending = true;
        }
    }

    /// Whether the log has something of groups that the meta group has not created yet, as far as is known: a checkpoint
    /// would not contain that, and what it is in would go.
    pub(crate) fn awaits_groups(&self) -> bool {
        let last = self.cluster.as_ref().and_then(|cluster| cluster.found.keys().next_back());
        last.is_some_and(|last| *last > self.meta.last_group())
    }

    /// Begins a checkpoint now.
    pub(crate) fn checkpoint(&mut self) {
        let erase = self.begin_erase();
        self.checkpoint_with(erase);
    }

    fn checkpoint_with(&mut self, erase: Erase) {
        // A full one now and then lets the partial ones before it go.
        self.disk.checkpoints += 1;
        self.disk.must_checkpoint = false;
        let lean = self.disk.tidy.is_lean();
        let full = (self.disk.checkpoints % FULL_EVERY == 1 || erase.log || self.disk.tidy.unerased) && !lean;
        self.disk.dropping = std::mem::take(&mut self.disk.dropped);
        self.disk.dropping.sort_unstable();
        self.disk.dropping.dedup();
        let mut job = CheckpointJob { groups: Vec::new(), dropped: self.disk.dropping.clone(), full, erase };
        if full || self.meta_changed {
            let mut state = Vec::new();
            self.meta_log.put_note(&mut state);
            self.meta.snapshot(&mut state);
            job.groups.push(GroupCheckpoint {
                group: META,
                applied: self.meta_log.applied(),
                term: self.meta_log.term(),
                state: state.into(),
                ..GroupCheckpoint::default()
            });
            self.meta_changed = false;
        }
        job.groups.extend(self.store_checkpoint());
        let restoring = self.restores.going_on().map(|restore| &mut restore.group);
        let groups = self.groups.values_mut().chain(self.aside.parked.values_mut()).chain(restoring);
        for group in groups.filter(|group| !group.is_volatile()) {
            // Without space for messages, those go on that have none to write: what they removed can go.
            let is_wanted = full || group.changed || group.rewrite.is_some();
            if is_wanted && !(lean && group.stream.messages().unwritten() > 0) {
                job.groups.push(group.checkpoint(lean));
            }
        }
        self.disk.bytes_since_checkpoint = 0;
        self.disk.checkpoint_running = true;
        self.disk.requests.push(DiskRequest::Checkpoint(job));
    }

    /// A checkpoint is complete, or failed and changed nothing.
    pub(crate) fn handle_checkpoint(&mut self, now: Time, result: Result<CheckpointDone, String>) {
        if self.disk.is_ending {
            // It may be the one before the last one, which took over what is known of it.
            return;
        }
        self.disk.checkpoint_running = false;
        self.disk.requests.push(DiskRequest::Tidy);
        if let (Some(pages), Ok(done)) = (&self.pages, &result) {
            pages.forget(&done.removed);
        }
        let ended = result.as_ref().map(|done| done.unerased).map_err(drop);
        match result {
            Ok(done) => {
                for (id, written) in done.written {
                    let parked = self.aside.parked.get_mut(&id);
                    let restoring = self.restores.group(id);
                    if let Some(group) = self.groups.get_mut(&id).or(parked).or(restoring) {
                        group.stream.messages_mut().handle_written(written);
                        self.disk.shedding.insert(id);
                        group.writing = None;
                    }
                }
                for group in self.groups.values_mut().chain(self.aside.parked.values_mut()) {
                    if std::mem::take(&mut group.in_checkpoint) {
                        group.stream.messages_mut().handle_checkpointed();
                        group.log.handle_saved();
                    }
                }
                self.handle_replicas_saved(now, true);
                let dropped = std::mem::take(&mut self.disk.dropping);
                if self.cluster.is_some() {
                    self.tell_dropped(&dropped);
                } else {
                    for group in dropped {
                        let gone = MetaCommand::dropped(group);
                        self.meta_log.propose(Origin::None, |out| gone.encode(out));
                    }
                }
            }
            Err(_) => {
                self.disk.dropped.append(&mut self.disk.dropping);
                self.handle_replicas_saved(now, false);
                let restoring = self.restores.going_on().map(|restore| &mut restore.group);
                for group in self.groups.values_mut().chain(self.aside.parked.values_mut()).chain(restoring) {
                    group.changed = true;
                    if std::mem::take(&mut group.in_checkpoint) {
                        group.stream.messages_mut().handle_checkpoint_failed();
                    }
                    if let Some(segment) = group.writing.take() {
                        group.stream.messages_mut().handle_write_failed(segment);
                    }
                }
                self.meta_changed = true;
            }
        }
        self.after_checkpoint(now, ended);
        self.handle_repairs_saved(now);
        self.handle_held_saved();
        if self.disk.must_checkpoint {
            // A state that came meanwhile waits for the next one, also when nothing else happens.
            self.begin_checkpoint();
        }
    }
}

impl crate::group::Group {
    /// Its part; a lean one writes no messages.
    pub(crate) fn checkpoint(&mut self, lean: bool) -> GroupCheckpoint {
        let packed = self.stream.config().compression == Compression::S2;
        let messages = self.stream.messages_mut();
        let number = self.last_segment + 1;
        let mut new_segments = Vec::new();
        if let Some(messages) = messages.take_unwritten(number) {
            self.last_segment = number;
            self.writing = Some(number);
            new_segments.push(NewSegment { number, messages, packed });
        }
        let number = self.last_segment + 1;
        if let Some(messages) = (!lean).then(|| self.begin_rewrite(number)).flatten() {
            self.last_segment = number;
            new_segments.push(NewSegment { number, messages: messages.into(), packed });
        }
        let messages = self.stream.messages_mut();
        messages.dead_segments();
        messages.handle_checkpoint_begun();
        self.in_checkpoint = true;
        let live_segments = messages.segment_numbers();
        let mut state = Vec::new();
        self.log.put_note(&mut state);
        self.stream.snapshot(&mut state);
        self.changed = false;
        GroupCheckpoint {
            group: self.id,
            applied: self.log.applied(),
            term: self.log.term(),
            state: Bytes::from(state),
            new_segments,
            live_segments,
        }
    }
}
