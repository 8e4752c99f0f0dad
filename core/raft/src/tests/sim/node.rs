//! One node: a replica, and the caller's part around it.

use std::collections::VecDeque;

use hw_kit::{GroupId, LogIndex, NodeId, Rng};

use super::{Options, Planted, truth::Truth};
use crate::{Entry, EntryKind, Hard, Members, Message, Ready, Replica, Role, Settings, Start};

/// A state: what a checkpoint or a transfer holds.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) index: u64,
    pub(super) term: u64,
    pub(super) hash: u64,
    pub(super) members: Members,
}

/// What is written, in order, and not synced yet.
pub(super) enum Write {
    Ready { number: u64, reset: Option<(LogIndex, u64)>, entries: Vec<Entry>, hard: Option<Hard> },
    State(State),
}

/// What survives.
#[derive(Clone, Default)]
pub(super) struct Disk {
    hard: Hard,
    base: (u64, u64),
    log: Vec<Entry>,
    state: State,
}

/// What does not.
pub(super) struct Live {
    pub(super) replica: Replica,
    pub(super) writes: VecDeque<Write>,
    /// Messages that wait for a number.
    held: VecDeque<(u64, Vec<(NodeId, Message)>)>,
    pub(super) to_apply: VecDeque<Entry>,
    pub(super) state: State,
    pub(super) role: Role,
    /// Term and vote that were written last.
    vote: (u64, NodeId),
}

pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) boot: u64,
    pub(super) disk: Disk,
    pub(super) live: Option<Live>,
}

/// What a node wants of the world.
#[derive(Default)]
pub(super) struct Wishes {
    pub(super) messages: Vec<(NodeId, Message)>,
    pub(super) transfers: Vec<NodeId>,
    pub(super) resets: u64,
}

impl Disk {
    pub(super) fn new(members: Members) -> Disk {
        Disk { state: State { members, ..State::default() }, ..Disk::default() }
    }

    /// Whether a start knows that this index is committed.
    pub(super) fn knows(&self, index: u64) -> bool {
        self.state.index >= index || self.hard.commit.0 >= index
    }

    /// What a replica starts with; a log that does not lead through the state is void, on disk, too.
    fn start(&mut self, options: &Options) -> Start {
        let state = &self.state;
        let last = self.base.0 + self.log.len() as u64;
        let at = |index: u64| match index {
            index if index == self.base.0 => Some(self.base.1),
            index => self.log.get((index.checked_sub(self.base.0 + 1)?) as usize).map(|entry| entry.term),
        };
        // What the log says of where the state ends decides whether they belong together.
        let is_through = at(state.index) == Some(state.term) || options.plants(Planted::InstallKeepsLog);
        let keeps = state.index <= last && is_through;
        if !keeps {
            self.base = (state.index, state.term);
            self.log.clear();
        }
        let (base, entries) = (self.base, self.log.clone());
        let mut hard = self.hard;
        if options.plants(Planted::VoteForgotten) {
            hard.vote = NodeId(0);
        }
        let members = state.members.clone();
        Start { hard, members, base: (LogIndex(base.0), base.1), applied: LogIndex(state.index), entries }
    }

    fn write(&mut self, entries: &[Entry], options: &Options) {
        for entry in entries {
            let at = (entry.index.0 - self.base.0 - 1) as usize;
            assert!(at <= self.log.len(), "a gap on disk");
            if options.plants(Planted::OverwrittenKept) && at < self.log.len() {
                self.log[at] = entry.clone();
            } else {
                self.log.truncate(at);
                self.log.push(entry.clone());
            }
        }
    }

    fn apply(&mut self, write: &Write, options: &Options) {
        match write {
            Write::State(state) => self.state = state.clone(),
            Write::Ready { reset, entries, hard, .. } => {
                self.reset(*reset, options);
                self.write(entries, options);
                self.harden(*hard, options);
            }
        }
    }

    /// A crash while this is written: a part of it, in one order or the other, is there.
    fn tear(&mut self, write: &Write, options: &Options, rng: &mut Rng) {
        let Write::Ready { reset, entries, hard, .. } = write else { return };
        let mut parts = rng.below(entries.len() as u64 + 2);
        if parts > 0 {
            self.reset(*reset, options);
        } else {
            return;
        }
        if reset.is_some() {
            return;
        }
        if rng.chance(1, 2) {
            self.harden(*hard, options);
            parts -= 1;
        }
        self.write(&entries[..(parts as usize).min(entries.len())], options);
    }

    fn reset(&mut self, reset: Option<(LogIndex, u64)>, options: &Options) {
        let reaches = |index: LogIndex| index.0 <= self.base.0 + self.log.len() as u64;
        if reset.is_some_and(|(index, _)| options.plants(Planted::InstallKeepsLog) && reaches(index)) {
            return;
        }
        if let Some((index, term)) = reset {
            self.base = (index.0, term);
            self.log.clear();
        }
    }

    fn harden(&mut self, hard: Option<Hard>, options: &Options) {
        if let Some(hard) = hard.filter(|_| !options.plants(Planted::HardNotWritten)) {
            self.hard = hard;
        }
    }
}

impl Node {
    pub(super) fn new(id: NodeId, disk: Disk) -> Node {
        Node { id, boot: 0, disk, live: None }
    }

    pub(super) fn start(&mut self, options: &Options) -> Result<(), String> {
        self.boot += 1;
        // Small limits, so that they are reached.
        let settings = Settings {
            max_append_bytes: 60,
            max_inflight: 3,
            max_apply_bytes: 100,
            is_prompt: self.id.0.is_multiple_of(2),
            ..Settings::new(self.id, GroupId(1))
        };
        let start = self.disk.start(options);
        let mut replica =
            Replica::new(settings, start).map_err(|error| format!("{} does not start: {error}", self.id))?;
        replica.planted = options.planted;
        let role = replica.role();
        self.live = Some(Live {
            replica,
            writes: VecDeque::new(),
            held: VecDeque::new(),
            to_apply: VecDeque::new(),
            state: self.disk.state.clone(),
            role,
            vote: (self.disk.hard.term, self.disk.hard.vote),
        });
        Ok(())
    }

    /// The process dies; what it wrote is there up to a point.
    pub(super) fn crash(&mut self, options: &Options, rng: &mut Rng) {
        let Some(live) = self.live.take() else { return };
        let kept = rng.below(live.writes.len() as u64 + 1) as usize;
        for write in live.writes.iter().take(kept) {
            self.disk.apply(write, options);
        }
        if let Some(torn) = live.writes.get(kept) {
            self.disk.tear(torn, options, rng);
        }
    }

    /// Takes what the replica has to say.
    pub(super) fn pump(&mut self, truth: &mut Truth, options: &Options) -> Result<Wishes, String> {
        let mut wishes = Wishes::default();
        let Some(live) = &mut self.live else { return Ok(wishes) };
        let mut ready = Ready::default();
        let mut rounds = 0;
        while live.replica.ready(&mut ready) {
            rounds += 1;
            if rounds > 10_000 {
                return Err(format!("{} never has nothing to do", self.id));
            }
            for entry in &ready.entries {
                truth.logged(entry)?;
            }
            if let Some(role) = ready.role {
                live.role = role;
                if let Role::Leader { term } = role {
                    let log = &live.replica.raft.raft_log.store;
                    let last = log.last();
                    // Beyond the end is as bad as another term.
                    truth.leads(self.id, self.boot, term, |index| {
                        if index > last { Some(0) } else { log.term_at(index) }
                    })?;
                }
            }
            wishes.messages.append(&mut ready.messages);
            wishes.transfers.append(&mut ready.wants_snapshot);
            wishes.resets += u64::from(ready.reset.is_some());
            let mut after = std::mem::take(&mut ready.after);
            if options.plants(Planted::AfterSentEarly) {
                wishes.messages.append(&mut after);
            }
            live.to_apply.extend(ready.committed.drain(..));
            let newest = live.writes.iter().rev().find_map(|write| match write {
                Write::Ready { number, .. } => Some(*number),
                Write::State(_) => None,
            });
            if !ready.must_sync() {
                match newest {
                    Some(newest) => live.held.push_back((newest, after)),
                    None if after.is_empty() => {}
                    None => return Err(format!("{} holds back what waits for nothing", self.id)),
                }
                continue;
            }
            live.held.push_back((ready.number, after));
            // A commit alone may be left out.
            let vote = |hard: &Hard| (hard.term, hard.vote);
            let is_old = |hard: &Hard| live.vote == vote(hard) && ready.number.is_multiple_of(2);
            let hard = ready.hard.filter(|hard| !is_old(hard));
            live.vote = ready.hard.as_ref().map_or(live.vote, vote);
            live.writes.push_back(Write::Ready {
                number: ready.number,
                reset: ready.reset,
                entries: std::mem::take(&mut ready.entries),
                hard,
            });
            if options.plants(Planted::EntriesNotSynced) {
                live.replica.handle_persisted(ready.number).map_err(|error| error.to_string())?;
                wishes.messages.extend(live.held.drain(..).flat_map(|(_, messages)| messages));
            }
        }
        Ok(wishes)
    }

    /// So many writes become durable.
    pub(super) fn sync(&mut self, count: u64, options: &Options) -> Result<Vec<(NodeId, Message)>, String> {
        let mut messages = Vec::new();
        let Some(live) = &mut self.live else { return Ok(messages) };
        let mut newest = None;
        for _ in 0..count {
            let Some(write) = live.writes.pop_front() else { break };
            self.disk.apply(&write, options);
            if let Write::Ready { number, .. } = write {
                newest = Some(number);
            }
        }
        let Some(newest) = newest else { return Ok(messages) };
        live.replica.handle_persisted(newest).map_err(|error| error.to_string())?;
        while live.held.front().is_some_and(|(number, _)| *number <= newest) {
            messages.extend(live.held.pop_front().into_iter().flat_map(|(_, messages)| messages));
        }
        Ok(messages)
    }

    /// Applies so many entries.
    pub(super) fn apply(&mut self, count: u64, truth: &mut Truth, options: &Options) -> Result<u64, String> {
        let Some(live) = &mut self.live else { return Ok(0) };
        let mut applied = 0;
        for _ in 0..count {
            let Some(entry) = live.to_apply.pop_front() else { break };
            if entry.index.0 != live.state.index + 1 {
                return Err(format!("{} is given {} after {}", self.id, entry.index, live.state.index));
            }
            let hash = truth.applied(self.id, live.replica.term(), live.state.hash, &entry)?;
            if entry.kind == EntryKind::Change {
                let skips = options.plants(Planted::ChangeSkipped) && self.id.0.is_multiple_of(3);
                if skips {
                    live.replica.given.changes.pop_front();
                } else {
                    live.state.members =
                        live.replica.apply_change(&entry).map_err(|error| error.to_string())?;
                    truth.changed(self.id, entry.index.0, &live.state.members)?;
                }
            }
            (live.state.index, live.state.term, live.state.hash) = (entry.index.0, entry.term, hash);
            live.replica.handle_applied(entry.index).map_err(|error| error.to_string())?;
            applied += 1;
        }
        Ok(applied)
    }

    /// Writes the state.
    pub(super) fn checkpoint(&mut self) {
        if let Some(live) = &mut self.live
            && live.state.index > 0
        {
            live.writes.push_back(Write::State(live.state.clone()));
        }
    }

    /// Forgets what the durable state holds.
    pub(super) fn compact(&mut self, keep: u64, options: &Options) -> Result<(), String> {
        let Some(live) = &mut self.live else { return Ok(()) };
        let to = self.disk.state.index.saturating_sub(keep);
        if options.plants(Planted::CompactedTooFar) {
            let last = live.replica.raft.raft_log.store.last();
            live.replica.raft.raft_log.store.compact(last);
            return Ok(());
        }
        let known = self.disk.base.0 + self.disk.log.len() as u64;
        if to <= self.disk.base.0 || to > known {
            return Ok(());
        }
        let at = (to - self.disk.base.0) as usize;
        // A log that does not lead through the state is about to be reset.
        if live.replica.raft.raft_log.store.term_at(to) != Some(self.disk.log[at - 1].term) {
            return Ok(());
        }
        live.replica.compact(LogIndex(to)).map_err(|error| error.to_string())?;
        let term = self.disk.log[at - 1].term;
        self.disk.log.drain(..at);
        self.disk.base = (to, term);
        Ok(())
    }

    /// A state came from the leader.
    pub(super) fn install(&mut self, state: State) -> bool {
        let Some(live) = &mut self.live else { return false };
        let base = (LogIndex(state.index), state.term);
        if live.replica.install(base, state.members.clone()).is_err() {
            return false;
        }
        live.to_apply.retain(|entry| entry.index.0 > state.index);
        live.state = state.clone();
        live.writes.push_back(Write::State(state));
        true
    }
}
