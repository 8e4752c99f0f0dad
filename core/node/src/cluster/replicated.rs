//! A group's replica on this server, and what is known of its leadership.

use std::collections::VecDeque;

use hw_cluster::ReplicaNote;
use hw_kit::{GroupId, LogIndex, NodeId, Time};
use hw_raft::{Entry, EntryKind, Hard, Members, Message, Replica, Settings, Start, StartError};
use hw_store::{Frame, FrameBuilder, FrameKind, FrameMeta};

use super::checked::{Checked, meta_of};
use super::compare::Comparing;
use super::handed::Run;
use super::transfer::Installing;
use crate::commit::META;
use crate::limits::{APPEND_MAX_BYTES, INFLIGHT_APPENDS};

/// What the disk has of a replica.
#[derive(Clone, Debug, Default)]
pub(crate) struct Saved {
    /// The last note, if there is one.
    pub(crate) note: Option<ReplicaNote>,
    /// The log behind the note's base, or behind the state.
    pub(crate) frames: Vec<Frame>,
    /// Whether the note came with a state, which says where the log begins and with whom.
    pub(crate) is_stated: bool,
}

/// Messages that may leave once a write is durable.
struct Unsent {
    number: u64,
    messages: Vec<(NodeId, Message)>,
}

/// A replica and its volatile surroundings.
pub(crate) struct Replicated {
    pub(crate) replica: Replica,
    /// The term in which this server leads and everything before is applied.
    leading: Option<u64>,
    /// The term in which it led last.
    pub(crate) led: u64,
    /// Whether another server led since this one started.
    pub(crate) was_led: bool,
    /// When it began to lead.
    pub(crate) since: Time,
    /// The term in which it was elected, until its first entry is applied.
    elected: Option<u64>,
    /// Whether the leader was heard since its link came up.
    pub(crate) proven: bool,
    /// Where the replica's log began when it was saved last, for notes.
    pub(crate) base: (LogIndex, u64),
    pub(crate) members: Members,
    /// Whether its state fits no entry of the log, as it is being fetched.
    pub(crate) hollow: bool,
    /// Whether nothing of what is here is to be used for that.
    pub(crate) anew: bool,
    /// It lost what it knew of terms and votes: it says nothing in elections until it has a leader's state. Then it begins in
    /// this term at the earliest, in which it cannot have voted.
    mute: Option<u64>,
    /// When replicas are compared.
    pub(crate) comparing: Comparing,
    /// A state that was fetched and is not durable yet.
    pub(crate) installing: Option<Installing>,
    /// Whether the running checkpoint contains that.
    pub(crate) saving: bool,
    /// What the running checkpoint contains of the log.
    pub(crate) in_checkpoint: Option<(LogIndex, u64)>,
    unsent: VecDeque<Unsent>,
    /// Frames of what is proposed, comes in or is in the log, and not applied yet.
    pub(crate) checked: Checked,
    /// Whose the next publish is, as far as the open frame says.
    pub(crate) run: Run,
    /// The term and vote that are saved, or on their way.
    hard: Hard,
}

impl Saved {
    /// Takes a later note: what it says of the log's beginning counts only without a state.
    pub(crate) fn take_note(&mut self, later: ReplicaNote) {
        match &mut self.note {
            Some(note) if self.is_stated => {
                (note.hard, note.mute) = (later.hard, later.mute);
                (note.hollow, note.anew) = (later.hollow, later.anew);
            }
            note => *note = Some(later),
        }
    }

    /// The replica of a group whose state contains everything up to `applied`, with the term of its last entry.
    /// A log without a note begins as `founding` says.
    pub(crate) fn open(
        self,
        founding: ReplicaNote,
        who: (NodeId, GroupId),
        applied: LogIndex,
    ) -> Result<(u64, Replicated), StartError> {
        let note = self.note.unwrap_or(founding);
        let term = note.base.1;
        Ok((term, Replicated::open(who, note, applied, &self.frames)?))
    }

    /// Takes a frame of the log's tail: it replaces what is there from its index on.
    pub(crate) fn take(&mut self, frame: Frame) {
        while self.frames.last().is_some_and(|last| last.first() >= frame.first()) {
            self.frames.pop();
        }
        self.frames.push(frame);
    }
}

impl Replicated {
    /// The replica of a group whose state contains everything up to `applied`; the last entry in it has `term`.
    pub(crate) fn open(
        (me, group): (NodeId, GroupId),
        note: ReplicaNote,
        applied: LogIndex,
        frames: &[Frame],
    ) -> Result<Replicated, StartError> {
        let ReplicaNote { mut hard, base, members, hollow, anew, mute } = note;
        hard.commit = hard.commit.max(base.0);
        let entries = frames.iter().filter(|frame| frame.first() > base.0).map(entry_of).collect();
        let start = Start { hard, members: members.clone(), base, applied, entries };
        let settings = Settings {
            max_append_bytes: APPEND_MAX_BYTES,
            max_inflight: INFLIGHT_APPENDS,
            // Every server waits to hear of new streams; what streams take in is known a little later.
            is_prompt: group == META,
            ..Settings::new(me, group)
        };
        Ok(Replicated {
            replica: Replica::new(settings, start)?,
            leading: None,
            led: 0,
            was_led: false,
            since: Time(0),
            elected: None,
            proven: false,
            base,
            members,
            hollow,
            anew,
            mute: mute.then_some(0),
            comparing: Comparing::default(),
            installing: None,
            saving: false,
            in_checkpoint: None,
            unsent: VecDeque::new(),
            checked: Checked::default(),
            run: Run::default(),
            hard,
        })
    }

    /// A replica of which the disk has nothing that can be used. What it has said before it does not know.
    pub(crate) fn blank(who: (NodeId, GroupId)) -> Result<Replicated, StartError> {
        let is_stream = who.1 != META;
        let note = ReplicaNote { hollow: is_stream, anew: is_stream, mute: true, ..ReplicaNote::default() };
        Replicated::open(who, note, LogIndex(0), &[])
    }

    /// It has a leader's state, if it waited for one: the term from which it takes part in elections is chosen.
    pub(crate) fn choose_term(&mut self, now: Time) {
        if let Some(term) = &mut self.mute {
            // Terms rise by one with each election, which are far less than one a second: it cannot have been in this one,
            // and will not have been in that of the next time.
            *term = now.0.unsigned_abs() / 1_000_000_000;
        }
    }

    /// Whether it says nothing in elections.
    pub(crate) fn is_mute(&self) -> bool {
        self.mute.is_some()
    }

    /// The term in which a replica that was mute begins, when its state ends with this entry.
    pub(crate) fn first_hard(&self, commit: LogIndex) -> Hard {
        let term = self.mute.unwrap_or_default().max(self.replica.term() + 1);
        Hard { term, vote: NodeId(0), commit }
    }

    /// When its leader has something to say to the others.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.comparing.next_deadline()
    }

    /// Whether this server decides what is proposed.
    pub(crate) fn is_leading(&self) -> bool {
        self.leading.is_some()
    }

    /// Whether it has led without a break since this term began.
    pub(crate) fn leads_in(&self, term: u64) -> bool {
        self.leading == Some(term)
    }

    /// It is the only member so far: nobody else is asked, and what was led goes on.
    pub(crate) fn lead_alone(&mut self, now: Time) {
        self.replica.campaign();
        (self.leading, self.since) = (Some(self.replica.term()), now);
    }

    /// It won an election.
    pub(crate) fn handle_elected(&mut self, term: u64) {
        if self.leading == Some(term) {
            return;
        }
        (self.elected, self.leading) = (Some(term), None);
    }

    /// An entry without commands was applied: says whether it makes this server the leader.
    pub(crate) fn handle_first(&mut self, now: Time, term: u64) -> bool {
        if self.elected != Some(term) || self.leading.is_some() {
            return false;
        }
        (self.leading, self.since) = (Some(term), now);
        true
    }

    /// It does not lead any more, or did not come to it: says whether it led.
    pub(crate) fn handle_deposed(&mut self) -> bool {
        self.elected = None;
        self.led = self.leading.unwrap_or(self.led);
        self.leading.take().is_some()
    }

    /// What must be durable before write `number` counts: its frames are on their way to the disk.
    pub(crate) fn hold(&mut self, number: u64, messages: Vec<(NodeId, Message)>) {
        self.unsent.push_back(Unsent { number, messages });
    }

    /// Whether a write is on its way.
    pub(crate) fn is_writing(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// Writes up to `number` are durable: gives what may leave now.
    pub(crate) fn handle_persisted(&mut self, number: u64) -> Vec<(NodeId, Message)> {
        let mut free = Vec::new();
        while let Some(unsent) = self.unsent.pop_front_if(|unsent| unsent.number <= number) {
            free.extend(unsent.messages);
        }
        let done = self.replica.handle_persisted(number);
        debug_assert!(done.is_ok(), "{done:?}");
        free
    }

    /// The frame that saves term and vote.
    pub(crate) fn note(&mut self, group: GroupId, hard: Hard) -> Frame {
        self.hard = hard;
        note_frame(group, &self.saved())
    }

    /// The frame that saves that everything up to `commit` is decided: a change of the members among it counts after a restart,
    /// whether those who left are there to agree to it once more or not.
    pub(crate) fn note_commit(&mut self, group: GroupId, commit: LogIndex) -> Frame {
        self.hard.commit = self.hard.commit.max(commit);
        note_frame(group, &self.saved())
    }

    /// The same frame once more, as something else in it has changed.
    pub(crate) fn note_again(&self, group: GroupId) -> Frame {
        note_frame(group, &self.saved())
    }

    /// What is saved with the state, which contains everything up to `base`.
    pub(crate) fn saved_with(&mut self, base: (LogIndex, u64)) -> ReplicaNote {
        let hard = self.hard;
        if let Some(Installing { base, members }) = self.installing.clone() {
            self.saving = true;
            let hard = self.mute.map_or(hard, |_| self.first_hard(base.0));
            return ReplicaNote { hard, base, members, ..ReplicaNote::default() };
        }
        self.in_checkpoint = Some(base);
        let members = self.replica.members().clone();
        let mute = self.is_mute();
        ReplicaNote { hard, base, members, hollow: self.hollow, anew: self.anew, mute }
    }

    /// What was saved with the state is durable.
    pub(crate) fn handle_saved(&mut self, base: (LogIndex, u64)) {
        if base.0 > self.base.0 {
            (self.base, self.members) = (base, self.replica.members().clone());
        }
    }

    fn saved(&self) -> ReplicaNote {
        let (hard, members) = (self.hard, self.members.clone());
        let mute = self.is_mute();
        ReplicaNote { hard, base: self.base, members, hollow: self.hollow, anew: self.anew, mute }
    }
}

/// A note as a frame.
pub(crate) fn note_frame(group: GroupId, note: &ReplicaNote) -> Frame {
    let mut builder = FrameBuilder::new();
    note.encode(builder.begin_entry());
    builder.end_entry();
    builder.finish(FrameMeta { group, term: 0, first: LogIndex(0), kind: FrameKind::Note })
}

/// An entry as the store keeps it; None when the bytes are not what a leader sends.
pub(crate) fn frame_of(group: GroupId, entry: &Entry) -> Option<Frame> {
    let meta = meta_of(group, entry);
    if entry.kind == EntryKind::Batch {
        return Frame::from_log(meta, entry.body.clone());
    }
    let mut builder = FrameBuilder::new();
    builder.push(&entry.body);
    Some(builder.finish(meta))
}

/// What the store has as an entry.
pub(crate) fn entry_of(frame: &Frame) -> Entry {
    let (kind, body) = match frame.kind() {
        FrameKind::Change => (EntryKind::Change, frame.entries().next().unwrap_or_default()),
        _ => (EntryKind::Batch, frame.log_body()),
    };
    Entry { index: frame.first(), term: frame.term(), kind, body }
}
