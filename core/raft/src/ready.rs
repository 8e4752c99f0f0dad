//! What is to be done: out of the library, in the caller's shape, and back when it is done.

use std::collections::VecDeque;

use hw_kit::{LogIndex, NodeId};

use crate::{
    convert,
    entry::{Entry, EntryKind, Hard, Role},
    error::Misuse,
    message::Message,
    replica::Replica,
};

#[cfg(test)]
use crate::tests::sim::Planted;

/// What is to be done. Order of work: write `entries` and `hard` and send `messages`, in any order; once durable send `after`
/// and call [`Replica::handle_persisted`]; apply `committed`, which is durable already.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ready {
    /// Counts from 1, without gaps.
    pub number: u64,
    /// The log was replaced by an install: what is on disk of it is void, whatever its indexes; it goes on after this index and
    /// term. To be durable with the rest, before `entries`.
    pub reset: Option<(LogIndex, u64)>,
    /// A state was installed that ends here: it is to be durable before this number is reported as that.
    pub installed: Option<LogIndex>,
    /// To append to the log. What the log has at the first one's index and after it is void.
    pub entries: Vec<Entry>,
    /// To be durable. Here whenever term or vote changed; with entries, also when only the commit did, which may be left out.
    pub hard: Option<Hard>,
    /// May leave at once.
    pub messages: Vec<(NodeId, Message)>,
    /// May leave when everything up to this number is durable, not earlier.
    pub after: Vec<(NodeId, Message)>,
    /// To apply, in order. Durable here, and on a quorum.
    pub committed: Vec<Entry>,
    /// What the replica is now, if that changed.
    pub role: Option<Role>,
    /// Members that need the state: the log here no longer has what they lack. Each is named once until
    /// [`Replica::report_snapshot`] or [`Replica::handle_unreachable`].
    pub wants_snapshot: Vec<NodeId>,
}

impl Ready {
    /// Whether something in it has to be durable. Otherwise nothing is to be written, and the number need not be reported; what
    /// is in `after` waits for numbers before it.
    pub fn must_sync(&self) -> bool {
        !self.entries.is_empty() || self.hard.is_some() || self.installed.is_some()
    }

    fn clear(&mut self) {
        self.number = 0;
        self.reset = None;
        self.installed = None;
        self.entries.clear();
        self.hard = None;
        self.messages.clear();
        self.after.clear();
        self.committed.clear();
        self.role = None;
        self.wants_snapshot.clear();
    }
}

/// What a `Ready` that is not durable yet has in it.
#[derive(Debug)]
pub(crate) struct Waiting {
    number: u64,
    /// Index of the first and of the last entry.
    entries: Option<(u64, u64)>,
    /// An installed state ends here; true: it replaced the log.
    installed: Option<(u64, bool)>,
    /// Term and vote.
    vote: (u64, u64),
}

/// What was given out last.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) number: u64,
    pub(crate) role: Role,
    /// Term and vote.
    pub(crate) vote: (u64, u64),
    pub(crate) commit: u64,
    /// Committed entries up to here were given to be applied.
    pub(crate) committed: u64,
    /// Changes among them that are not applied yet.
    pub(crate) changes: VecDeque<u64>,
    /// What to send for was looked at up to here.
    pub(crate) sent: u64,
}

impl Replica {
    /// Takes what is to be done into `out`, whose old content goes. False: nothing is, `out` is empty. Call until false.
    pub fn ready(&mut self, out: &mut Ready) -> bool {
        out.clear();
        self.campaign_if_due();
        self.send_new();
        self.note_wants(out);
        if !self.has_ready() && out.wants_snapshot.is_empty() {
            return false;
        }
        self.given.number += 1;
        out.number = self.given.number;
        let installed = self.installed.take();
        out.installed = installed.map(|(index, _)| LogIndex(index));
        if let Some((_, true)) = installed {
            out.reset = Some(self.raft.raft_log.store.base());
        }
        let entries = self.take_entries(out);
        self.take_hard(out);
        self.take_committed(out);
        self.take_role(out);
        if out.must_sync() {
            let vote = self.given.vote;
            self.waiting.push_back(Waiting { number: out.number, entries, installed, vote });
        }
        self.take_messages(out);
        true
    }

    /// Everything up to the [`Ready`] of this number is durable.
    pub fn handle_persisted(&mut self, number: u64) -> Result<(), Misuse> {
        if number > self.given.number {
            return Err(Misuse::Persisted { number, newest: self.given.number });
        }
        let (mut last, mut state) = (None, None);
        while let Some(done) = self.waiting.pop_front_if(|waiting| waiting.number <= number) {
            self.durable_vote = done.vote;
            if let Some((index, is_reset)) = done.installed {
                state = Some(index);
                last = if is_reset { None } else { last };
            }
            last = done.entries.map(|(_, last)| last).or(last);
        }
        let log = &self.raft.raft_log;
        if let Some(index) = state.filter(|&index| index < log.unstable.offset && index <= log.committed) {
            self.raft.on_persist_snap(index);
        }
        if let Some(last) = last.and_then(|last| self.surely_durable(last)) {
            self.raft.on_persist_entries(last.0, last.1);
        }
        Ok(())
    }

    /// Entries up to `last` were written and are durable: as far as what was given later, and is not durable, leaves them.
    /// Without this, an entry that was overwritten and came back would count as durable while the disk still may lose it.
    fn surely_durable(&self, last: u64) -> Option<(u64, u64)> {
        #[cfg(test)]
        if self.planted == Some(Planted::SurelyNotDurable) {
            return self.raft.raft_log.store.term_at(last).map(|term| (last, term));
        }
        let mut last = last.min(self.raft.raft_log.unstable.offset - 1);
        for later in &self.waiting {
            if let Some((_, true)) = later.installed {
                return None;
            }
            if let Some((first, _)) = later.entries {
                last = last.min(first - 1);
            }
        }
        self.raft.raft_log.store.term_at(last).map(|term| (last, term))
    }

    /// Whether all that was given is durable and nothing is left to give.
    pub(crate) fn is_settled(&self) -> bool {
        self.waiting.is_empty() && !self.has_ready()
    }

    fn has_ready(&self) -> bool {
        let (raft, log) = (&self.raft, &self.raft.raft_log);
        !raft.msgs.is_empty()
            || !log.unstable_entries().is_empty()
            || self.given.vote != (raft.term, raft.vote)
            || self.given.role != self.role()
            || self.given.committed < log.committed.min(log.persisted)
            || self.installed.is_some()
    }

    /// New entries go into the log and to be written.
    fn take_entries(&mut self, out: &mut Ready) -> Option<(u64, u64)> {
        let log = &mut self.raft.raft_log;
        let fresh = log.unstable_entries().to_vec();
        out.entries.extend(fresh.into_iter().map(convert::entry_from_library));
        out.entries.iter().for_each(|entry| log.store.append(entry));
        let (first, last) = (out.entries.first()?, out.entries.last()?);
        log.stable_entries(last.index.0, last.term);
        Some((first.index.0, last.index.0))
    }

    fn take_hard(&mut self, out: &mut Ready) {
        let log = &self.raft.raft_log;
        let vote = (self.raft.term, self.raft.vote);
        // Never more than what is durable already: then whatever part of this `Ready` reaches the disk makes sense.
        let commit = log.committed.min(log.persisted).max(self.given.commit);
        if vote == self.given.vote && (commit == self.given.commit || out.entries.is_empty()) {
            return;
        }
        (self.given.vote, self.given.commit) = (vote, commit);
        out.hard = Some(Hard { term: vote.0, vote: NodeId(vote.1), commit: LogIndex(commit) });
    }

    fn take_committed(&mut self, out: &mut Ready) {
        let log = &self.raft.raft_log;
        let high = log.committed.min(log.persisted) + 1;
        let low = self.given.committed + 1;
        if low < high {
            out.committed.extend(log.store.read(low, high, self.settings.max_apply_bytes));
        }
        if let Some(last) = out.committed.last() {
            self.given.committed = last.index.0;
            let changes = out.committed.iter().filter(|entry| entry.kind == EntryKind::Change);
            self.given.changes.extend(changes.map(|entry| entry.index.0));
        }
    }

    fn take_role(&mut self, out: &mut Ready) {
        let role = self.role();
        if role != self.given.role {
            self.given.role = role;
            out.role = Some(role);
        }
    }

    fn take_messages(&mut self, out: &mut Ready) {
        // A leader sends before its own disk is done: its own vote in the quorum waits instead. But the vote that made it the
        // leader must be durable, or it could lead the same term again with another log (it can be elected by itself alone).
        let is_free = self.waiting.is_empty() || self.is_leader();
        let limit = if self.is_leader() { self.durable_commit() } else { u64::MAX };
        let queue = if is_free { &mut out.messages } else { &mut out.after };
        let messages = self.raft.msgs.drain(..).filter_map(convert::message_from_library);
        queue.extend(messages.map(|(to, mut message)| {
            message.limit_commit(LogIndex(limit));
            (to, message)
        }));
    }

    fn note_wants(&mut self, out: &mut Ready) {
        for peer in self.raft.raft_log.store.take_wants() {
            if self.is_leader() && self.peers.contains(&peer) && !self.fetching.contains(&peer) {
                self.fetching.push(peer);
                out.wants_snapshot.push(peer);
            }
        }
    }
}
