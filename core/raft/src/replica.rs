//! One member of one group.

use std::collections::VecDeque;

use bytes::Bytes;
use hw_kit::{LogIndex, NodeId};
use raft::{
    Changer, Raft, StateRole,
    eraftpb::{Message as RaftMessage, MessageType},
};

use crate::{
    check::check,
    convert,
    entry::{Entry, EntryKind, Role, Settings, Start},
    error::{ChangeError, Misuse, NotLeader, Refused, StartError},
    log::Log,
    members::{MemberChange, MemberStep, Members},
    message::{Body, Message},
    ready::{Given, Waiting},
    start::start,
};

/// One member of one group. See the crate's page for what its caller owes.
pub struct Replica {
    pub(crate) raft: Raft<Log>,
    pub(crate) settings: Settings,
    /// As of what is applied.
    pub(crate) members: Members,
    /// All members but this node.
    pub(crate) peers: Vec<NodeId>,
    /// What each of them was told to be committed, as far as is known.
    told: Vec<u64>,
    pub(crate) given: Given,
    /// What was given and is not durable yet, in order. Only what has to be.
    pub(crate) waiting: VecDeque<Waiting>,
    /// The term and vote that are durable.
    pub(crate) durable_vote: (u64, u64),
    /// A state that the next `Ready` tells of: where it ends, and whether it replaced the log.
    pub(crate) installed: Option<(u64, bool)>,
    /// A campaign that waits until all is durable.
    is_campaign_due: bool,
    /// Peers that are being brought the state.
    pub(crate) fetching: Vec<NodeId>,
    /// A bug that a test plants.
    #[cfg(test)]
    pub(crate) planted: Option<crate::tests::sim::Planted>,
}

impl Replica {
    /// A replica that follows nobody, from what was durable.
    pub fn new(settings: Settings, from: Start) -> Result<Replica, StartError> {
        let members = from.members.clone();
        let applied = from.applied.0;
        let vote = (from.hard.term, from.hard.vote.0);
        let raft = start(&settings, from)?;
        let given = Given {
            number: 0,
            role: Role::Follower { leader: NodeId(0) },
            vote,
            commit: raft.raft_log.committed,
            committed: applied,
            changes: VecDeque::new(),
            sent: 0,
        };
        let mut replica = Replica {
            raft,
            settings,
            members: Members::default(),
            peers: Vec::new(),
            told: Vec::new(),
            given,
            waiting: VecDeque::new(),
            durable_vote: vote,
            installed: None,
            is_campaign_due: false,
            fetching: Vec::new(),
            #[cfg(test)]
            planted: None,
        };
        replica.set_members(members);
        Ok(replica)
    }

    /// Whether it takes proposals: it leads, which counts when its vote is durable, and no successor is on its way.
    pub fn can_propose(&self) -> bool {
        self.may_propose().is_ok()
    }

    /// Appends one entry, whose index and term are known when [`Replica::ready`] gives it.
    pub fn propose(&mut self, body: Bytes) -> Result<(), NotLeader> {
        self.may_propose()?;
        self.append(EntryKind::Batch, body);
        Ok(())
    }

    /// Proposes a change of the members. It holds when [`Replica::apply_change`] applied it, here and on each other replica.
    pub fn change_members(&mut self, change: MemberChange) -> Result<(), ChangeError> {
        self.may_propose()?;
        if self.members.is_joint() || self.raft.has_pending_conf() || !self.raft.commit_to_current_term() {
            return Err(ChangeError::Pending);
        }
        let is_joint = self.check_change(&change)?;
        let mut body = Vec::new();
        change.encode(is_joint, &mut body);
        self.append(EntryKind::Change, body.into());
        self.raft.pending_conf_index = self.raft.raft_log.last_index();
        Ok(())
    }

    /// Applies an entry of [`EntryKind::Change`], in its place among the committed, and gives the members from then on. A change
    /// that cannot be, because of one before it, changes nothing; on every replica the same.
    pub fn apply_change(&mut self, entry: &Entry) -> Result<Members, Misuse> {
        let expected = self.given.changes.front().map_or(LogIndex(0), |&index| LogIndex(index));
        if entry.kind != EntryKind::Change || entry.index != expected {
            return Err(Misuse::Change { expected, found: entry.index });
        }
        let unreadable = |why| Misuse::Unreadable { index: entry.index, why };
        let change = MemberChange::decode(entry.body.clone()).map_err(unreadable)?;
        self.given.changes.pop_front();
        if let Ok(state) = self.raft.apply_conf_change(&change) {
            self.set_members(Members::from(&state));
        }
        Ok(self.members.clone())
    }

    /// Everything up to `index` is applied.
    pub fn handle_applied(&mut self, index: LogIndex) -> Result<(), Misuse> {
        let (before, given) = (LogIndex(self.raft.raft_log.applied), LogIndex(self.given.committed));
        if index < before || index > given {
            return Err(Misuse::Applied { index, before, given });
        }
        if let Some(&change) = self.given.changes.front()
            && change <= index.0
        {
            return Err(Misuse::Change { expected: LogIndex(change), found: index });
        }
        if index == before {
            return Ok(());
        }
        // Ends a joint membership, too, if this is the leader.
        self.raft.commit_apply(index.0);
        Ok(())
    }

    /// A peer's message.
    pub fn handle_message(&mut self, from: NodeId, message: Message) -> Result<(), Refused> {
        check(&self.raft, from, &message)?;
        match message.body {
            Body::Append { .. } if self.members.is_empty() && message.term >= self.raft.term => {
                self.ask_for_state(from, message.term);
                return Ok(());
            }
            Body::WantsState => {
                self.note_blank(from, message.term);
                return Ok(());
            }
            // The question has not left yet, so nobody can have answered it.
            Body::VoteAnswer { is_poll: false, .. }
                if message.term == self.raft.term
                    && self.durable_vote != (self.raft.term, self.raft.vote) =>
            {
                return Err(Refused::Unasked(from));
            }
            // It would lead at once: see `campaign`.
            Body::TakeOver if message.term == self.raft.term && self.members.is_alone(self.settings.node) => {
                self.campaign();
                return Ok(());
            }
            _ => {}
        }
        if let Some(message) = convert::message_to_library(from, self.settings.node, message) {
            self.step(message);
        }
        Ok(())
    }

    /// Messages to this peer may be lost: its link broke.
    pub fn handle_unreachable(&mut self, peer: NodeId) {
        self.fetching.retain(|&other| other != peer);
        if self.raft.lead_transferee == Some(peer.0) {
            self.raft.abort_leader_transfer();
        }
        self.step_local(MessageType::MsgUnreachable, peer);
    }

    /// Asks to be elected: first whether it would be, then for votes. False: this replica cannot campaign now, because it leads, has
    /// no vote, or has a change of the members to apply first.
    pub fn campaign(&mut self) -> bool {
        if self.raft.state == StateRole::Leader || !self.raft.promotable() {
            return false;
        }
        let must_settle = self.members.is_alone(self.settings.node);
        #[cfg(test)]
        let must_settle = must_settle && self.planted != Some(crate::tests::sim::Planted::AloneNotSettled);
        if must_settle && !self.is_settled() {
            // It would lead at once, while what it leads from is not durable.
            self.is_campaign_due = true;
            return true;
        }
        self.step_local(MessageType::MsgHup, self.settings.node);
        self.raft.state != StateRole::Follower
    }

    /// Follows nobody, in the same term, at once.
    pub fn step_down(&mut self) {
        self.is_campaign_due = false;
        self.raft.become_follower(self.raft.term, 0);
    }

    /// Hands leadership over to a voter: when it has everything, it is told to campaign. Until then nothing can be proposed, so the
    /// caller sets a time after which it calls [`Replica::cancel_transfer`]. False: it cannot lead, or this replica does not.
    ///
    /// Who is told asks for votes that even those give who hear the leader ([`Message::disturbs`] is false): from here on, cancelled or
    /// not, a lease of this term is no proof that nobody else leads.
    pub fn transfer(&mut self, to: NodeId) -> bool {
        let can = self.is_leader() && to != self.settings.node && self.members.voters.contains(&to);
        if can {
            self.step_local(MessageType::MsgTransferLeader, to);
        }
        can
    }

    /// Goes on leading.
    pub fn cancel_transfer(&mut self) {
        self.raft.abort_leader_transfer();
    }

    /// A leader's heartbeat to every peer: their answers restart what a broken link stopped. Nothing, for who does not lead.
    pub fn ping(&mut self) {
        self.raft.ping();
    }

    /// Whether this replica leads and has followers that have what is committed and may not know that it is.
    pub fn owes_commit(&self) -> bool {
        self.is_leader()
            && self.peers.iter().zip(&self.told).any(|(peer, told)| *told < self.committed_at(*peer))
    }

    /// Tells all followers what is committed.
    pub fn tell_commit(&mut self) {
        if self.is_leader() {
            for at in 0..self.peers.len() {
                self.told[at] = self.committed_at(self.peers[at]);
            }
            self.ping();
        }
    }

    /// How much of what is committed a follower has.
    fn committed_at(&self, peer: NodeId) -> u64 {
        let matched = self.raft.prs().get(peer.0).map_or(0, |progress| progress.matched);
        matched.min(self.durable_commit())
    }

    /// What is committed and durable here, which is what is applied here. A leader whose disk is slow tells followers no more than
    /// that: none of them is ahead of it, so who reads there sees nothing that who reads here later does not.
    pub(crate) fn durable_commit(&self) -> u64 {
        let log = &self.raft.raft_log;
        log.committed.min(log.persisted)
    }

    /// The last entry that was reported as applied.
    pub fn applied(&self) -> LogIndex {
        LogIndex(self.raft.raft_log.applied)
    }

    /// The end of the log.
    pub fn last_index(&self) -> LogIndex {
        LogIndex(self.raft.raft_log.last_index())
    }

    /// Forgets entries up to `to`, which are applied and durable; the term of the last one is kept. Nothing, for what is
    /// forgotten already.
    pub fn compact(&mut self, to: LogIndex) -> Result<(), Misuse> {
        let log = &mut self.raft.raft_log;
        let limit = log.applied.min(log.persisted);
        if to <= log.store.base().0 {
            return Ok(());
        }
        if to.0 > limit {
            return Err(Misuse::Compact { to, limit: LogIndex(limit) });
        }
        log.store.compact(to.0);
        Ok(())
    }

    /// Who leads, as far as is known; 0 for nobody.
    pub fn leader(&self) -> NodeId {
        let is_known = self.raft.leader_id != self.raft.id || self.is_leader();
        NodeId(if is_known { self.raft.leader_id } else { 0 })
    }

    /// Whether this replica leads. Who is elected by itself alone does when its vote is durable: before, it could forget that, and
    /// lead the same term once more.
    pub fn is_leader(&self) -> bool {
        self.raft.state == StateRole::Leader && self.is_vote_durable()
    }

    /// The members, as of what is applied.
    pub fn members(&self) -> &Members {
        &self.members
    }

    /// What this replica is.
    pub fn role(&self) -> Role {
        match self.raft.state {
            StateRole::Leader if self.is_vote_durable() => Role::Leader { term: self.raft.term },
            StateRole::Leader | StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Follower => Role::Follower { leader: self.leader() },
        }
    }

    /// The term.
    pub fn term(&self) -> u64 {
        self.raft.term
    }

    pub(crate) fn is_vote_durable(&self) -> bool {
        #[cfg(test)]
        if self.planted == Some(crate::tests::sim::Planted::LeaderNotDurable) {
            return true;
        }
        self.durable_vote == (self.raft.term, self.raft.vote)
    }

    /// Begins the campaign that had to wait.
    pub(crate) fn campaign_if_due(&mut self) {
        if self.is_campaign_due && self.is_settled() {
            self.is_campaign_due = false;
            self.campaign();
        }
    }

    /// Sends what was appended since the last time: in messages of the permitted size, as many as may be on their way. Here
    /// and not with each proposal, so that a batch of proposals is one message.
    pub(crate) fn send_new(&mut self) {
        let last = self.raft.raft_log.last_index();
        if !self.is_leader() || last == self.given.sent {
            return;
        }
        self.given.sent = last;
        for at in 0..self.peers.len() {
            let peer = self.peers[at].0;
            let next = |raft: &Raft<Log>| {
                let progress = raft.prs().get(peer).filter(|progress| !progress.is_paused())?;
                (progress.next_idx <= last).then_some(progress.next_idx)
            };
            let mut before = next(&self.raft);
            while let Some(from) = before {
                self.raft.send_append(peer);
                self.told[at] = self.durable_commit();
                // No progress: it needs the state.
                before = next(&self.raft).filter(|&next| next > from);
            }
        }
    }

    fn may_propose(&self) -> Result<(), NotLeader> {
        if self.is_leader() && self.raft.lead_transferee.is_none() {
            return Ok(());
        }
        Err(NotLeader { leader: self.leader() })
    }

    fn append(&mut self, kind: EntryKind, body: Bytes) {
        let entry = Entry { index: LogIndex(0), term: 0, kind, body };
        let is_taken = self.raft.append_entry(&mut [convert::entry_to_library(entry)]);
        debug_assert!(is_taken, "the library has no limit to refuse by");
    }

    /// Whether the change makes the membership joint in between.
    fn check_change(&self, change: &MemberChange) -> Result<bool, ChangeError> {
        let mut named: Vec<NodeId> = change.steps.iter().map(|step| step.node()).collect();
        named.sort_unstable();
        let is_twice = named.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0]);
        let is_nobody = named.first().copied().filter(|&node| node == NodeId(0));
        if let Some(node) = is_nobody.or(is_twice) {
            return Err(ChangeError::Names(node));
        }
        let is_voting = |step: &MemberStep| {
            matches!(step, MemberStep::Voter(_)) || self.members.voters.contains(&step.node())
        };
        let is_joint = change.steps.len() > 1 || change.steps.iter().any(is_voting);
        if change.steps.is_empty() {
            return Err(ChangeError::Nothing);
        }
        let library = change.to_library(is_joint);
        let changer = Changer::new(self.raft.prs());
        let impossible = |error: raft::Error| ChangeError::Impossible(error.to_string());
        let after = if is_joint {
            let (joint, _) = changer.enter_joint(true, &library.changes).map_err(impossible)?;
            joint.to_conf_state()
        } else {
            let mut changer = changer;
            let (plain, _) = changer.simple(&library.changes).map_err(impossible)?;
            plain.to_conf_state()
        };
        let after = Members::from(&after);
        let is_same = after.voters == self.members.voters
            && after.learners == self.members.learners
            && after.learners_next.is_empty();
        if is_same { Err(ChangeError::Nothing) } else { Ok(is_joint) }
    }

    /// After the library's view changed: who is to be sent to, and whether this replica may still lead.
    pub(crate) fn set_members(&mut self, members: Members) {
        self.peers = members.all();
        self.peers.retain(|&node| node != self.settings.node);
        self.told = vec![0; self.peers.len()];
        self.fetching.retain(|node| self.peers.contains(node));
        self.members = members;
        self.raft.maybe_free_inflight_buffers();
        // A leader that is out would go on, and the library fall over its missing place. A candidate may be alone now, and
        // would lead at once, whatever of its log is durable.
        let may_go_on = match self.raft.state {
            StateRole::Follower => true,
            StateRole::Leader => self.raft.promotable(),
            StateRole::Candidate | StateRole::PreCandidate => false,
        };
        if !may_go_on {
            self.step_down();
        }
    }

    fn step(&mut self, message: RaftMessage) {
        let before = (self.raft.state, self.raft.term);
        // Only proposals can be refused, and those do not come this way.
        let _ = self.raft.step(message);
        if before != (self.raft.state, self.raft.term) {
            self.fetching.clear();
            self.given.sent = 0;
            self.told.fill(0);
        }
    }

    fn step_local(&mut self, kind: MessageType, about: NodeId) {
        let mut message = RaftMessage::default();
        message.set_msg_type(kind);
        message.from = about.0;
        self.step(message);
    }
}
