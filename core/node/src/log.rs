//! A group's log on this server: what was proposed, in which frame, and who waits for the answer.
//!
//! A group of one commits what its disk has synced: its frames go to the disk as they are cut. A replicated group hands
//! its batches to its replica, and what is committed there comes back as frames.

use std::collections::VecDeque;

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, Time};
use hw_store::{Frame, FrameBuilder, FrameKind, FrameMeta};
use hw_stream::Command;

use crate::api::Call;
use crate::batch::Committer;
use crate::cluster::{Replicated, Run, Saved, Serial};
use crate::limits::FRAME_BYTES;

/// Who waits for the answer to a proposed command.
#[derive(Debug)]
pub(crate) enum Origin {
    /// Nobody.
    None,
    /// A publisher, at this reply subject.
    Publish(Bytes),
    /// A server that handed it on: it tells the publisher, and learns itself if nothing comes of it.
    Handed(Run),
    /// The publisher of a batch.
    Batch(Box<Committer>),
    /// The fast batch of this name.
    Run(Bytes),
    /// A client that confirms its acknowledgement, at this reply subject.
    Ack(Bytes),
    /// An API request.
    Api(Box<Call>),
}

/// Who waits for what this server proposed when it led.
#[derive(Default)]
struct Debts {
    /// The term in which it led,
    term: u64,
    /// those whose commands may be decided yet,
    owed: VecDeque<Origin>,
    /// and those whose commands are certainly not in the log.
    lost: Vec<Origin>,
    /// How far a log that was in memory only is on its way to the disk. Here, as few logs are.
    hold: Hold,
}

/// The log of one group.
pub(crate) struct Log {
    group: GroupId,
    /// The term of the last command that is applied; 1 in a group of one, which has no other.
    term: u64,
    next: LogIndex,
    applied: LogIndex,
    builder: FrameBuilder,
    /// Frames that were full before the round ended; those of a replicated group have no place in the log yet.
    full: Vec<Frame>,
    origins: VecDeque<Origin>,
    /// The bytes of the commands that are proposed and not applied yet.
    pending_bytes: u64,
    /// How many commands were proposed here, and for how many of them it is known what became of them.
    proposed: u64,
    settled: u64,
    /// Who waits since this server led last.
    debts: Option<Box<Debts>>,
    /// Its replica, where it has others.
    pub(crate) replicated: Option<Box<Replicated>>,
    /// What the disk has of its replica, while that is not at work: nobody knows yet what the group is.
    resting: Option<Box<Saved>>,
}

/// A log in memory has no place on the disk. Before it gets one, the state that it led to is saved there, and nothing is
/// decided meanwhile.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Hold {
    /// It is not on its way.
    #[default]
    No,
    /// What is proposed waits for a checkpoint.
    Unsaved,
    /// The state is on the disk: a replica goes on from there.
    Saved,
}

impl Log {
    /// A log whose commands up to `applied` are in the group's state.
    pub(crate) fn new(group: GroupId, applied: LogIndex) -> Log {
        Log {
            group,
            term: 1,
            next: applied.next(),
            applied,
            builder: FrameBuilder::new(),
            full: Vec::new(),
            origins: VecDeque::new(),
            pending_bytes: 0,
            proposed: 0,
            settled: 0,
            debts: None,
            replicated: None,
            resting: None,
        }
    }

    /// What is proposed from now on waits for a replica, which begins when the state is on the disk.
    pub(crate) fn hold(&mut self) {
        self.debts.get_or_insert_default().hold = Hold::Unsaved;
    }

    /// Whether what is proposed waits for that.
    pub(crate) fn is_held(&self) -> bool {
        self.debts.as_ref().is_some_and(|debts| debts.hold != Hold::No)
    }

    /// Whether the state is not on the disk yet.
    pub(crate) fn is_unsaved(&self) -> bool {
        self.debts.as_ref().is_some_and(|debts| debts.hold == Hold::Unsaved)
    }

    /// The state is on the disk.
    pub(crate) fn handle_saved(&mut self) {
        if let Some(debts) = self.debts.as_mut().filter(|debts| debts.hold == Hold::Unsaved) {
            debts.hold = Hold::Saved;
        }
    }

    /// It gets a replica: the last applied command has this term.
    pub(crate) fn replicate(&mut self, term: u64, replicated: Replicated) {
        self.term = term;
        self.replicated = Some(Box::new(replicated));
        if let Some(debts) = &mut self.debts {
            debts.hold = Hold::No;
        }
    }

    /// It has a replica that is not at work.
    pub(crate) fn rest(&mut self, saved: Saved) {
        self.term = saved.note.as_ref().map_or(self.term, |note| note.base.1);
        self.resting = Some(Box::new(saved));
    }

    /// What the disk has of that replica, which is to work from now on.
    pub(crate) fn wake(&mut self) -> Option<Saved> {
        self.resting.take().map(|saved| *saved)
    }

    /// Whether this server decides what is proposed.
    pub(crate) fn is_leading(&self) -> bool {
        self.replicated.as_ref().is_none_or(|replicated| replicated.is_leading())
    }

    /// Whether other servers have the group, too, as far as is known.
    pub(crate) fn has_others(&self) -> bool {
        self.replicated.as_ref().is_some_and(|replicated| replicated.replica.members().all().len() != 1)
    }

    /// Proposes a command: `encode` appends its bytes. Only a leader can.
    pub(crate) fn propose(&mut self, origin: Origin, encode: impl FnOnce(&mut Vec<u8>)) {
        debug_assert!(self.is_leading(), "group {}: a follower proposes nothing", self.group);
        if !self.is_leading() {
            return;
        }
        self.push(origin, encode);
        if self.builder.bytes() >= FRAME_BYTES {
            self.close_frame();
        }
    }

    /// The same for a publish. Where another server handed it on, the log says so, and that server learns from its replica what
    /// became of it.
    pub(crate) fn propose_publish(
        &mut self,
        now: Time,
        serial: Option<Serial>,
        origin: Origin,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let run = serial.map(|serial| Run { by: serial.by, number: serial.number }).unwrap_or_default();
        if let Some(replicated) = self.replicated.as_mut().filter(|replicated| replicated.is_leading()) {
            let is_said = std::mem::replace(&mut replicated.run, run) == run;
            replicated.run.take();
            if !is_said {
                let Run { by, number } = run;
                self.push(Origin::None, |out| Command::Serial { ts: now, by, number }.encode(out));
            }
        }
        self.propose(origin, encode);
    }

    fn push(&mut self, origin: Origin, encode: impl FnOnce(&mut Vec<u8>)) {
        let entry = self.builder.begin_entry();
        let before = entry.len();
        encode(entry);
        self.pending_bytes += (entry.len() - before) as u64;
        self.builder.end_entry();
        self.origins.push_back(origin);
        self.proposed += 1;
    }

    /// Whether something was proposed since the last cut.
    pub(crate) fn is_open(&self) -> bool {
        !self.builder.is_empty() || !self.full.is_empty()
    }

    /// Gives what was proposed since the last cut: for the disk in a group of one, for the replica elsewhere.
    pub(crate) fn cut(&mut self) -> Vec<Frame> {
        if !self.builder.is_empty() {
            self.close_frame();
        }
        std::mem::take(&mut self.full)
    }

    fn close_frame(&mut self) {
        let (group, term, first) = (self.group, self.term, self.next);
        if let Some(replicated) = &mut self.replicated {
            replicated.run = Run::default();
        }
        if self.replicated.is_some() || self.is_held() {
            // The replica knows where it goes.
            let meta = FrameMeta { group, term, first: LogIndex(1), kind: FrameKind::Batch };
            return self.full.push(self.builder.finish(meta));
        }
        let frame = self.builder.finish(FrameMeta { group, term, first, kind: FrameKind::Entries });
        self.next = frame.last().next();
        self.full.push(frame);
    }

    /// The next command of a frame is applied: its index, and who waits. Commands are applied in the order of their proposal;
    /// those that another leader proposed have nobody here.
    pub(crate) fn apply_next(&mut self, frame: FrameMeta, bytes: usize) -> (LogIndex, Origin) {
        let is_own = match &self.replicated {
            None => {
                self.applied = self.applied.next();
                true
            }
            Some(replicated) => {
                self.applied = frame.first;
                self.term = frame.term;
                replicated.leads_in(frame.term)
            }
        };
        if !is_own {
            return (self.applied, self.pay(frame.term));
        }
        self.pending_bytes = self.pending_bytes.saturating_sub(bytes as u64);
        let origin = self.origins.pop_front();
        self.settled += u64::from(origin.is_some());
        (self.applied, origin.unwrap_or(Origin::None))
    }

    /// Who waits for the next command of a term in which this server led and does not lead any more.
    fn pay(&mut self, term: u64) -> Origin {
        if let Some(debts) = self.debts.as_mut().filter(|debts| debts.term == term) {
            return debts.owed.pop_front().unwrap_or(Origin::None);
        }
        self.note_term(term);
        Origin::None
    }

    /// An entry of this term is decided: of earlier terms nothing more is.
    fn note_term(&mut self, term: u64) {
        if let Some(debts) = self.debts.as_mut().filter(|debts| debts.term < term) {
            debts.lost.extend(debts.owed.drain(..));
        }
    }

    /// Who waited for commands that are lost.
    pub(crate) fn take_lost(&mut self) -> Vec<Origin> {
        match &mut self.debts {
            Some(debts) => std::mem::take(&mut debts.lost),
            None => Vec::new(),
        }
    }

    /// Whether somebody waits for what this server proposed.
    pub(crate) fn owes(&self) -> bool {
        !self.origins.is_empty() || self.debts.as_ref().is_some_and(|debts| !debts.owed.is_empty())
    }

    /// An entry without commands is applied.
    pub(crate) fn pass(&mut self, frame: FrameMeta) {
        self.note_term(frame.term);
        (self.applied, self.term, self.next) = (frame.first, frame.term, frame.first.next());
    }

    /// The state was replaced by the leader's.
    pub(crate) fn handle_installed(&mut self, applied: LogIndex, term: u64) {
        (self.applied, self.term, self.next) = (applied, term, applied.next());
        // Nobody knows what became of it.
        if let Some(debts) = &mut self.debts {
            debts.owed.clear();
        }
    }

    /// Another server leads: what the replica has may be decided yet, and whoever waits for that is answered then. What it
    /// does not have is lost.
    pub(crate) fn handle_stepdown(&mut self, led: u64) {
        let open =
            self.builder.count() as usize + self.full.iter().map(|f| f.count() as usize).sum::<usize>();
        let lost = self.origins.split_off(self.origins.len().saturating_sub(open));
        let debts = self.debts.get_or_insert_default();
        debts.lost.extend(debts.owed.drain(..).chain(lost));
        (debts.term, debts.owed) = (led, std::mem::take(&mut self.origins));
        self.builder = FrameBuilder::new();
        if let Some(replicated) = &mut self.replicated {
            replicated.run = Run::default();
        }
        self.full.clear();
        self.settled = self.proposed;
        self.pending_bytes = 0;
    }

    /// What is saved in front of the state, if it has a replica.
    pub(crate) fn put_note(&mut self, out: &mut Vec<u8>) {
        let base = (self.applied, self.term);
        if let Some(replicated) = &mut self.replicated {
            replicated.saved_with(base).encode(out);
        } else if let Some(note) = self.resting.as_ref().and_then(|saved| saved.note.clone()) {
            hw_cluster::ReplicaNote { base, ..note }.encode(out);
        }
    }

    /// The term of the last applied command.
    pub(crate) fn term(&self) -> u64 {
        self.term
    }

    /// How many commands were proposed here.
    pub(crate) fn proposed(&self) -> u64 {
        self.proposed
    }

    /// Of how many of them it is known what became of them.
    pub(crate) fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether nothing is on its way.
    pub(crate) fn is_settled(&self) -> bool {
        self.proposed == self.settled && !self.is_open()
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
