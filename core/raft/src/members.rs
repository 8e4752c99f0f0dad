//! Who belongs to a group, and how that changes.
//!
//! Both have a form on disk (docs/format.md, "Members"): numbers are varints as in the module `codec`.

use bytes::Bytes;
use hw_kit::NodeId;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState};
use thiserror::Error;

use crate::codec::{DecodeError, Reader, put};

const VERSION: u8 = 1;

/// The members of a group. Every list is sorted and names nobody twice.
///
/// While `outgoing` is not empty the membership is joint: a decision needs a majority of `voters` and one of `outgoing`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Members {
    /// Who votes.
    pub voters: Vec<NodeId>,
    /// Who follows without a vote.
    pub learners: Vec<NodeId>,
    /// Who voted before the change that is under way.
    pub outgoing: Vec<NodeId>,
    /// Who of `outgoing` becomes a learner when the change ends.
    pub learners_next: Vec<NodeId>,
    /// Whether the leader ends the change by itself.
    pub auto_leave: bool,
}

/// What contradicts itself in [`Members`].
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum MembersError {
    /// Nobody votes.
    #[error("there are no voters")]
    NoVoters,
    /// 0 is nobody.
    #[error("node 0 is named")]
    Nobody,
    /// Lists overlap that must not.
    #[error("{0} is named twice")]
    Twice(NodeId),
    /// Only who voted becomes a learner later, and only a joint membership ends by itself.
    #[error("it is half of a change")]
    Half,
}

impl Members {
    /// A plain membership: these vote.
    pub fn voting(voters: impl IntoIterator<Item = NodeId>) -> Members {
        let mut members = Members { voters: voters.into_iter().collect(), ..Members::default() };
        members.voters.sort_unstable();
        members.voters.dedup();
        members
    }

    /// Whether nobody is named: a replica that has no state of its group yet.
    pub fn is_empty(&self) -> bool {
        self.lists().iter().all(|list| list.is_empty()) && !self.auto_leave
    }

    /// Whether `node` is named.
    pub fn contains(&self, node: NodeId) -> bool {
        self.lists().iter().any(|list| list.contains(&node))
    }

    /// Whether a change is under way.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether `node` decides alone.
    pub fn is_alone(&self, node: NodeId) -> bool {
        self.voters == [node] && self.outgoing.iter().all(|&voter| voter == node)
    }

    /// Everybody, sorted, once.
    pub fn all(&self) -> Vec<NodeId> {
        let mut all: Vec<NodeId> = self.lists().iter().flat_map(|list| list.iter().copied()).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Refuses what no group can have.
    pub fn check(&self) -> Result<(), MembersError> {
        for list in self.lists() {
            if list.contains(&NodeId(0)) {
                return Err(MembersError::Nobody);
            }
            if let Some(pair) = list.windows(2).find(|pair| pair[0] >= pair[1]) {
                return Err(MembersError::Twice(pair[1]));
            }
        }
        if self.voters.is_empty() {
            return Err(MembersError::NoVoters);
        }
        let twice =
            |list: &[NodeId], other: &[NodeId]| list.iter().copied().find(|node| other.contains(node));
        let overlap = twice(&self.learners, &self.voters)
            .or(twice(&self.learners, &self.outgoing))
            .or(twice(&self.learners_next, &self.voters));
        if let Some(node) = overlap {
            return Err(MembersError::Twice(node));
        }
        let is_half = self.learners_next.iter().any(|node| !self.outgoing.contains(node))
            || (self.auto_leave && self.outgoing.is_empty());
        if is_half { Err(MembersError::Half) } else { Ok(()) }
    }

    /// Appends the form on disk.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend([VERSION, u8::from(self.auto_leave)]);
        for list in self.lists() {
            put(out, list.len() as u64);
            list.iter().for_each(|node| put(out, node.0));
        }
    }

    /// Reads what [`Members::encode`] wrote; does not [`Members::check`] it.
    pub fn decode(bytes: Bytes) -> Result<Members, DecodeError> {
        let mut reader = Reader::new(bytes);
        version(&mut reader)?;
        let auto_leave = match reader.byte()? {
            0 => false,
            1 => true,
            other => return Err(DecodeError::Kind(other)),
        };
        let mut list = || -> Result<Vec<NodeId>, DecodeError> {
            let count = reader.count(1)?;
            (0..count).map(|_| reader.number().map(NodeId)).collect()
        };
        let (voters, learners, outgoing, learners_next) = (list()?, list()?, list()?, list()?);
        reader.end()?;
        Ok(Members { voters, learners, outgoing, learners_next, auto_leave })
    }

    /// How the library gets from nobody to these: first who voted before, then the change that is under way.
    pub(crate) fn changes(&self) -> Vec<ConfChangeV2> {
        let plain = |&node: &NodeId| MemberChange::one(MemberStep::Voter(node)).to_library(false);
        let learners = self.learners.iter().chain(&self.learners_next).map(|&node| MemberStep::Learner(node));
        if !self.is_joint() {
            let learners = learners.map(|step| MemberChange::one(step).to_library(false));
            return self.voters.iter().map(plain).chain(learners).collect();
        }
        let mut changes: Vec<ConfChangeV2> = self.outgoing.iter().map(plain).collect();
        let steps = self.outgoing.iter().map(|&node| MemberStep::Remove(node));
        let steps = steps.chain(self.voters.iter().map(|&node| MemberStep::Voter(node))).chain(learners);
        let mut change = MemberChange { steps: steps.collect() }.to_library(true);
        if !self.auto_leave {
            change.set_transition(ConfChangeTransition::Explicit);
        }
        changes.push(change);
        changes
    }

    fn lists(&self) -> [&Vec<NodeId>; 4] {
        [&self.voters, &self.learners, &self.outgoing, &self.learners_next]
    }
}

impl From<&ConfState> for Members {
    fn from(state: &ConfState) -> Members {
        let list = |ids: &[u64]| {
            let mut nodes: Vec<NodeId> = ids.iter().copied().map(NodeId).collect();
            nodes.sort_unstable();
            nodes
        };
        Members {
            voters: list(state.get_voters()),
            learners: list(state.get_learners()),
            outgoing: list(state.get_voters_outgoing()),
            learners_next: list(state.get_learners_next()),
            auto_leave: state.auto_leave,
        }
    }
}

impl From<&Members> for ConfState {
    fn from(members: &Members) -> ConfState {
        let list = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect();
        let mut state = ConfState::default();
        state.set_voters(list(&members.voters));
        state.set_learners(list(&members.learners));
        state.set_voters_outgoing(list(&members.outgoing));
        state.set_learners_next(list(&members.learners_next));
        state.auto_leave = members.auto_leave;
        state
    }
}

/// Steps that are taken at once: all or none. When voters change, the membership is joint in between, which the leader ends
/// by itself; one such change at a time.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MemberChange {
    /// The steps, each about another node.
    pub steps: Vec<MemberStep>,
}

/// What becomes of one node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MemberStep {
    /// It follows without a vote: how every newcomer begins, and how a voter is demoted.
    Learner(NodeId),
    /// It is out.
    Remove(NodeId),
    /// It votes. A learner should have caught up before: see [`crate::PeerStatus::matched`].
    Voter(NodeId),
}

impl MemberStep {
    /// Whom it is about.
    pub fn node(self) -> NodeId {
        match self {
            MemberStep::Learner(node) | MemberStep::Remove(node) | MemberStep::Voter(node) => node,
        }
    }
}

impl MemberChange {
    /// One step.
    pub fn one(step: MemberStep) -> MemberChange {
        MemberChange { steps: vec![step] }
    }

    /// Appends the form in the log. The end of a joint membership has no steps and no bytes.
    pub(crate) fn encode(&self, is_joint: bool, out: &mut Vec<u8>) {
        out.extend([VERSION, u8::from(is_joint)]);
        put(out, self.steps.len() as u64);
        for step in &self.steps {
            out.push(match step {
                MemberStep::Voter(_) => 0,
                MemberStep::Remove(_) => 1,
                MemberStep::Learner(_) => 2,
            });
            put(out, step.node().0);
        }
    }

    /// Reads a change from the log, in the library's form.
    pub(crate) fn decode(bytes: Bytes) -> Result<ConfChangeV2, DecodeError> {
        if bytes.is_empty() {
            return Ok(ConfChangeV2::default());
        }
        let mut reader = Reader::new(bytes);
        version(&mut reader)?;
        let is_joint = match reader.byte()? {
            0 => false,
            1 => true,
            other => return Err(DecodeError::Kind(other)),
        };
        let count = reader.count(2)?;
        if count == 0 {
            return Err(DecodeError::Number);
        }
        let mut steps = Vec::with_capacity(count);
        for _ in 0..count {
            let kind = reader.byte()?;
            let node = NodeId(reader.number()?);
            steps.push(match kind {
                0 => MemberStep::Voter(node),
                1 => MemberStep::Remove(node),
                2 => MemberStep::Learner(node),
                other => return Err(DecodeError::Kind(other)),
            });
        }
        reader.end()?;
        Ok(MemberChange { steps }.to_library(is_joint))
    }

    /// The library's form.
    pub(crate) fn to_library(&self, is_joint: bool) -> ConfChangeV2 {
        let mut change = ConfChangeV2::default();
        if is_joint {
            change.set_transition(ConfChangeTransition::Implicit);
        }
        for step in &self.steps {
            let mut single = ConfChangeSingle { node_id: step.node().0, ..ConfChangeSingle::default() };
            single.set_change_type(match step {
                MemberStep::Voter(_) => ConfChangeType::AddNode,
                MemberStep::Remove(_) => ConfChangeType::RemoveNode,
                MemberStep::Learner(_) => ConfChangeType::AddLearnerNode,
            });
            change.mut_changes().push(single);
        }
        change
    }
}

fn version(reader: &mut Reader) -> Result<(), DecodeError> {
    match reader.byte()? {
        VERSION => Ok(()),
        other => Err(DecodeError::Version(other)),
    }
}
