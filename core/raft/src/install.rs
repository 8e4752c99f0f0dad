//! States that travel outside of the library: to who lacks what the log no longer has.

use hw_kit::{LogIndex, NodeId};
use raft::{Changer, Progress, ProgressState, ProgressTracker, StateRole, eraftpb::Snapshot};

use crate::{convert, error::InstallError, members::Members, replica::Replica, start::NUMBER_MAX};

impl Replica {
    /// The state machine was replaced by one that ends at `base` (index and term), with these members. The log is kept from
    /// there on if it leads through `base`, and gone otherwise: then [`Ready::reset`](crate::Ready::reset) says so.
    ///
    /// The new state must be durable before the [`Ready`](crate::Ready) that names it is reported as that: it tells the leader.
    pub fn install(&mut self, base: (LogIndex, u64), members: Members) -> Result<(), InstallError> {
        if let Err(error) = self.check_install(base, &members) {
            // A leader that brings what is there already does not know that it is.
            if matches!(error, InstallError::Old { .. }) {
                self.accept(self.raft.raft_log.committed);
            }
            return Err(error);
        }
        let (index, term) = (base.0.0, base.1);
        if self.raft.state != StateRole::Follower || term > self.raft.term {
            self.raft.become_follower(self.raft.term.max(term), 0);
        }
        let is_reset = !self.raft.raft_log.match_term(index, term);
        if is_reset {
            self.replace_log(base, &members);
        } else {
            self.raft.raft_log.commit_to(index);
            self.replace_members(&members);
        }
        self.raft.raft_log.applied = index;
        self.given.committed = self.given.committed.max(index);
        self.given.changes.retain(|&change| change > index);
        let was_reset = self.installed.is_some_and(|(_, was_reset)| was_reset);
        self.installed = Some((index, is_reset || was_reset));
        self.set_members(members);
        self.accept(index);
        Ok(())
    }

    /// A leader's caller brought a peer the state, or failed to. Failed: the peer is named again when there is something to send
    /// to it, at the latest after a [`Replica::ping`].
    pub fn report_snapshot(&mut self, peer: NodeId, ok: bool) {
        self.fetching.retain(|&other| other != peer);
        let first = self.raft.raft_log.first_index();
        if !ok || !self.is_leader() {
            return;
        }
        if let Some(progress) = self.raft.mut_prs().get_mut(peer.0).filter(|progress| is_probed(progress)) {
            // Its own answer goes on from there. Should that be lost, the next ping asks whether it has what the log begins after,
            // and does not bring it everything again.
            progress.next_idx = progress.next_idx.max(first);
            progress.pause();
        }
    }

    /// A replica without any state takes no entries: it cannot know from which members they go on.
    pub(crate) fn ask_for_state(&mut self, leader: NodeId, term: u64) {
        if term > self.raft.term || self.raft.state != StateRole::Follower {
            self.raft.become_follower(term, leader.0);
        }
        self.raft.leader_id = leader.0;
        let answer = convert::wants_state(self.raft.id, leader.0, term);
        self.raft.msgs.push(answer);
    }

    /// A peer without any state: nothing is sent until it has one.
    pub(crate) fn note_blank(&mut self, from: NodeId, term: u64) {
        if term > self.raft.term {
            self.raft.become_follower(term, 0);
        }
        if !self.is_leader() || term < self.raft.term {
            return;
        }
        let Some(progress) = self.raft.mut_prs().get_mut(from.0) else { return };
        if progress.state != ProgressState::Probe {
            progress.become_probe();
        }
        progress.recent_active = true;
        progress.pause();
        self.raft.raft_log.store.want(from);
    }

    /// Tells the leader, if one is known, that the log agrees with it up to `index`.
    fn accept(&mut self, index: u64) {
        let (leader, own) = (self.raft.leader_id, self.raft.id);
        if leader != 0 && leader != own {
            let answer = convert::accepted(own, leader, self.raft.term, index);
            self.raft.msgs.push(answer);
        }
    }

    fn check_install(&self, (base, term): (LogIndex, u64), members: &Members) -> Result<(), InstallError> {
        members.check()?;
        if base == LogIndex(0) || base.0 > NUMBER_MAX || term == 0 || term > NUMBER_MAX {
            return Err(InstallError::Base(base, term));
        }
        if self.raft.state == StateRole::Leader {
            return Err(InstallError::Leads);
        }
        if !members.contains(self.settings.node) {
            return Err(InstallError::Stranger);
        }
        let log = &self.raft.raft_log;
        if base.0 <= log.applied {
            return Err(InstallError::Old { applied: LogIndex(log.applied) });
        }
        match log.term(base.0) {
            Ok(ours) if base.0 <= log.committed && ours != term => {
                Err(InstallError::Conflict { index: base, ours, theirs: term })
            }
            _ => Ok(()),
        }
    }

    /// The library forgets its log as for a snapshot that came from a peer and is stored at once.
    fn replace_log(&mut self, base: (LogIndex, u64), members: &Members) {
        let mut snapshot = Snapshot::default();
        let meta = snapshot.mut_metadata();
        (meta.index, meta.term) = (base.0.0, base.1);
        meta.set_conf_state(members.into());
        if self.raft.restore(snapshot) {
            self.raft.raft_log.store.reset(base);
            self.raft.raft_log.stable_snap(base.0.0);
        }
    }

    /// The library's view of the members, made anew. Only for who does not lead.
    fn replace_members(&mut self, members: &Members) {
        let mut tracker = ProgressTracker::new(self.settings.max_inflight);
        let next = self.raft.raft_log.last_index();
        for change in members.changes() {
            let mut changer = Changer::new(&tracker);
            let made = match change.enter_joint() {
                Some(auto_leave) => changer.enter_joint(auto_leave, &change.changes),
                None => changer.simple(&change.changes),
            };
            if let Ok((conf, changes)) = made {
                tracker.apply_conf(conf, changes, next);
            }
        }
        debug_assert_eq!(Members::from(&tracker.conf().to_conf_state()), *members);
        *self.raft.mut_prs() = tracker;
        self.raft.post_conf_change();
    }
}

fn is_probed(progress: &Progress) -> bool {
    progress.state == ProgressState::Probe
}
