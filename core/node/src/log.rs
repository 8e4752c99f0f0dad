//! A group's log on this server: what was proposed, in which frame, and who waits for the answer.

use std::collections::VecDeque;

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex};
use hw_store::{Frame, FrameBuilder, FrameKind, FrameMeta};

use crate::api::Call;
use crate::batch::Committer;
use crate::limits::FRAME_BYTES;

/// Who waits for the answer to a proposed command.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Nobody.
    None,
    /// A publisher, at this reply subject.
    Publish(Bytes),
    /// The publisher of a batch.
    Batch(Box<Committer>),
    /// The fast batch of this name.
    Run(Bytes),
    /// A client that confirms its acknowledgement, at this reply subject.
    Ack(Bytes),
    /// An API request.
    Api(Box<Call>),
}

/// The log of one group: a group of one commits what its disk has synced.
pub(crate) struct Log {
    group: GroupId,
    term: u64,
    next: LogIndex,
    applied: LogIndex,
    builder: FrameBuilder,
    /// Frames that were full before the round ended.
    full: Vec<Frame>,
    origins: VecDeque<Origin>,
    /// The bytes of the commands that are proposed and not applied yet.
    pending_bytes: u64,
}

impl Log {
    /// A log whose commands up to `applied` are in the group's state.
    pub(crate) fn new(group: GroupId, applied: LogIndex) -> Log {
        let builder = FrameBuilder::new();
        let (full, origins) = (Vec::new(), VecDeque::new());
        Log { group, term: 1, next: applied.next(), applied, builder, full, origins, pending_bytes: 0 }
    }

    /// Proposes a command: `encode` appends its bytes.
    pub(crate) fn propose(&mut self, origin: Origin, encode: impl FnOnce(&mut Vec<u8>)) {
        let entry = self.builder.begin_entry();
        let before = entry.len();
        encode(entry);
        self.pending_bytes += (entry.len() - before) as u64;
        self.builder.end_entry();
        self.origins.push_back(origin);
        if self.builder.bytes() >= FRAME_BYTES {
            self.close_frame();
        }
    }

    /// Whether something was proposed since the last cut.
    pub(crate) fn is_open(&self) -> bool {
        !self.builder.is_empty() || !self.full.is_empty()
    }

    /// Gives what was proposed since the last cut.
    pub(crate) fn cut(&mut self) -> Vec<Frame> {
        if !self.builder.is_empty() {
            self.close_frame();
        }
        std::mem::take(&mut self.full)
    }

    fn close_frame(&mut self) {
        let meta =
            FrameMeta { group: self.group, term: self.term, first: self.next, kind: FrameKind::Entries };
        let frame = self.builder.finish(meta);
        self.next = frame.last().next();
        self.full.push(frame);
    }

    /// The next command, of so many bytes, is applied: its index and who waits. Commands are applied in the order of
    /// their proposal.
    pub(crate) fn apply_next(&mut self, bytes: usize) -> (LogIndex, Origin) {
        self.applied = self.applied.next();
        self.pending_bytes = self.pending_bytes.saturating_sub(bytes as u64);
        (self.applied, self.origins.pop_front().unwrap_or(Origin::None))
    }

    /// The term of its commands: a group of one has one term.
    pub(crate) fn term(&self) -> u64 {
        self.term
    }

    /// The last command that was proposed.
    pub(crate) fn proposed(&self) -> LogIndex {
        LogIndex(self.applied.0 + self.origins.len() as u64)
    }

    /// The bytes of the commands that are proposed and not applied yet.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.pending_bytes
    }

    /// The last command that is in the group's state.
    pub(crate) fn applied(&self) -> LogIndex {
        self.applied
    }
}
