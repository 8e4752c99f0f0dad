//! How a replica stands, for monitoring and for who decides about campaigns and transfers.

use hw_kit::{GroupId, LogIndex, NodeId};
use raft::ProgressState;

use crate::{entry::Role, members::Members, replica::Replica};

/// How a replica stands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Status {
    /// The group.
    pub group: GroupId,
    /// The term.
    pub term: u64,
    /// Who leads, as far as is known; 0 for nobody.
    pub leader: NodeId,
    /// What the replica is.
    pub role: Role,
    /// Known to be committed.
    pub commit: LogIndex,
    /// Durable here.
    pub persisted: LogIndex,
    /// Reported as applied.
    pub applied: LogIndex,
    /// Where the log in memory begins: its first entry is the next one.
    pub base: LogIndex,
    /// The log's end.
    pub last: LogIndex,
    /// The members, as of what is applied.
    pub members: Members,
    /// To whom leadership is being handed over; 0 for nobody.
    pub transferee: NodeId,
    /// A leader's view of the others; empty for who does not lead.
    pub peers: Vec<PeerStatus>,
    /// What the log takes in memory.
    pub log_bytes: usize,
}

/// A leader's view of another member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PeerStatus {
    /// Who.
    pub node: NodeId,
    /// Durable there, as far as is known.
    pub matched: LogIndex,
    /// How it is sent to.
    pub state: PeerState,
}

/// How a leader sends to a member.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PeerState {
    /// It lacks what the log no longer has: the caller brings it the state.
    Fetching,
    /// One message at a time, to learn where its log ends.
    Probing,
    /// Entries as they come.
    Replicating,
}

impl Replica {
    /// Everything about it. Allocates: not for every message.
    pub fn status(&self) -> Status {
        let log = &self.raft.raft_log;
        Status {
            group: self.settings.group,
            term: self.raft.term,
            leader: self.leader(),
            role: self.role(),
            commit: LogIndex(log.committed),
            persisted: LogIndex(log.persisted),
            applied: LogIndex(log.applied),
            base: log.store.base().0,
            last: LogIndex(log.last_index()),
            members: self.members.clone(),
            transferee: NodeId(self.raft.lead_transferee.unwrap_or(0)),
            peers: self.peers_status(),
            log_bytes: log.store.bytes(),
        }
    }

    fn peers_status(&self) -> Vec<PeerStatus> {
        if !self.is_leader() {
            return Vec::new();
        }
        let status = |&node: &NodeId| {
            let progress = self.raft.prs().get(node.0)?;
            let state = match progress.state {
                _ if self.fetching.contains(&node) => PeerState::Fetching,
                ProgressState::Replicate => PeerState::Replicating,
                ProgressState::Probe | ProgressState::Snapshot => PeerState::Probing,
            };
            Some(PeerStatus { node, matched: LogIndex(progress.matched), state })
        };
        self.peers.iter().filter_map(status).collect()
    }
}
