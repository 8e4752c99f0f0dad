//! The cluster as one server's JetStream sees it: the other servers, the replicas of groups that are here, and what they
//! have to say to each other. The rules are in `hw-raft` and `hw-cluster`; here they meet the groups.

mod alone;
mod ask;
mod calls;
mod checked;
mod compare;
mod drive;
mod elect;
mod form;
mod forward;
mod gather;
mod give;
mod handed;
mod handover;
mod lag;
mod lead;
mod membership;
mod moves;
mod operate;
mod orphans;
mod outside;
mod parcel;
mod place;
mod propose;
mod read_index;
mod rejoin;
mod repair;
mod replicated;
mod show;
mod transfer;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use hw_cluster::{Elections, Formation, PeerFrame, Peers, Standing, StoreNote};
use hw_kit::{GroupId, LinkId, NodeId, Time};
use hw_store::Frame;

use crate::notice::{Notice, NoticeLevel};

pub(crate) use alone::Proofs;
pub(crate) use ask::Asks;
pub(crate) use calls::Parked;
pub(crate) use compare::Compares;
pub(crate) use form::store_frame;
pub(crate) use forward::Forwards;
pub(crate) use gather::Gatherings;
pub(crate) use handed::Run;
pub(crate) use handover::Handovers;
pub(crate) use lag::Lags;
pub(crate) use moves::Moves;
pub(crate) use orphans::Orphans;
pub(crate) use parcel::{Parcel, Serial};
pub(crate) use propose::Proposals;
pub(crate) use read_index::ReadIndexes;
pub(crate) use repair::{Remedy, Repairs};
pub(crate) use replicated::{Replicated, Saved};
pub use show::{AssetProblem, MetaView, RaftView};
pub(crate) use transfer::Transfers;

/// What makes a server part of a cluster.
#[derive(Clone, Debug, Default)]
pub struct ClusterConfig {
    /// The cluster's name.
    pub name: String,
    /// How many servers are expected when the cluster is founded: those of the configured routes, and this one.
    pub expected: u32,
    /// A number for a store that has none yet.
    pub new_node: NodeId,
    /// The server's tags.
    pub tags: Vec<String>,
    /// A stream's servers differ in their tags of those that begin so; empty: no matter.
    pub unique_tag: String,
    /// A server that has so many streams with others gets no more of them; 0: no matter.
    pub max_shared: usize,
}

/// What the disk has of a group that the meta group has not created yet, as far as is known.
#[derive(Default)]
pub(crate) struct Found {
    /// Of its replica, where it has no state,
    pub(crate) saved: Option<Saved>,
    /// and what was logged behind its state, where it has no replica.
    pub(crate) frames: Vec<Frame>,
}

/// One server's part of a cluster.
pub(crate) struct Cluster {
    pub(crate) config: ClusterConfig,
    /// Which server this is.
    pub(crate) me: NodeId,
    pub(crate) peers: Peers,
    pub(crate) formation: Formation,
    pub(crate) elections: Elections,
    /// Frames for other servers.
    pub(crate) outgoing: Vec<(LinkId, PeerFrame)>,
    /// Replicas with something to do.
    pub(crate) busy: BTreeSet<GroupId>,
    /// What of them goes to the disk at the end of this round, and whom that concerns.
    pub(crate) frames: Vec<Frame>,
    pub(crate) written: Vec<(GroupId, u64)>,
    /// Whose writes wait for which ticket.
    pub(crate) unsynced: VecDeque<(u64, GroupId, u64)>,
    /// Servers that hear that they left a group once it is durable here that they did; ticket 0: it is not known yet.
    pub(crate) dismissals: Vec<(u64, GroupId, Vec<NodeId>)>,
    /// Those of them that heard it, as far as is known, and have not said so.
    pub(crate) leavers: BTreeSet<(GroupId, NodeId)>,
    /// A founder that is agreed to once this ticket is durable; 0: the ticket is not known yet.
    pub(crate) agreeing: Option<(u64, NodeId)>,
    pub(crate) asks: Asks,
    pub(crate) proposals: Proposals,
    pub(crate) transfers: Transfers,
    pub(crate) gatherings: Gatherings,
    pub(crate) handovers: Handovers,
    pub(crate) moves: Moves,
    pub(crate) parked: Parked,
    pub(crate) proofs: Proofs,
    pub(crate) compares: Compares,
    pub(crate) repairs: Repairs,
    pub(crate) lags: Lags,
    pub(crate) forwards: Forwards,
    pub(crate) read_indexes: ReadIndexes,
    /// This server was told that it does not belong to the cluster.
    pub(crate) is_outside: bool,
    /// This server is about to stop: it leads nothing more.
    pub(crate) is_leaving: bool,
    /// Whether somebody may have to be taken into the meta group.
    pub(crate) admitting: bool,
    /// Groups that are led here and have learners of which something was heard.
    pub(crate) growing: BTreeSet<GroupId>,
    /// Groups that were opened in this round.
    pub(crate) opened: Vec<(Time, GroupId)>,
    /// What is on disk of the logs of groups that the meta group has not created yet, as far as is known.
    pub(crate) found: BTreeMap<GroupId, Found>,
    /// Groups that nobody knows.
    pub(crate) orphans: Orphans,
    /// Lines for the log.
    pub(crate) notices: Vec<Notice>,
    /// What servers called themselves.
    pub(crate) names: BTreeMap<NodeId, String>,
    /// And their tags.
    pub(crate) tags: BTreeMap<NodeId, Vec<String>>,
}

impl Cluster {
    /// What the store's note says, on a server that is configured like this.
    pub(crate) fn new(config: ClusterConfig, note: StoreNote, standing: Standing, seed: u64) -> Cluster {
        let me = note.node;
        Cluster {
            config,
            me,
            peers: Peers::default(),
            formation: Formation::new(me, standing),
            elections: Elections::new(seed ^ me.0),
            outgoing: Vec::new(),
            busy: BTreeSet::new(),
            frames: Vec::new(),
            written: Vec::new(),
            unsynced: VecDeque::new(),
            dismissals: Vec::new(),
            leavers: BTreeSet::new(),
            agreeing: None,
            asks: Asks::new(seed),
            proposals: Proposals::default(),
            transfers: Transfers::default(),
            gatherings: Gatherings::default(),
            handovers: Handovers::default(),
            moves: Moves::default(),
            parked: Parked::default(),
            proofs: Proofs::default(),
            compares: Compares::default(),
            repairs: Repairs::default(),
            lags: Lags::default(),
            forwards: Forwards::new(seed),
            read_indexes: ReadIndexes::default(),
            is_outside: false,
            is_leaving: false,
            admitting: false,
            growing: BTreeSet::new(),
            opened: Vec::new(),
            found: BTreeMap::new(),
            orphans: Orphans::default(),
            notices: Vec::new(),
            names: BTreeMap::new(),
            tags: BTreeMap::new(),
        }
    }

    /// What this server tells the others of itself.
    pub(crate) fn hello(&self) -> PeerFrame {
        let (standing, tags) = (self.formation.standing(), self.config.tags.clone());
        PeerFrame::Hello { node: self.me, standing, tags }
    }

    /// Says something to a server; without a link nobody hears it.
    pub(crate) fn send(&mut self, to: NodeId, frame: PeerFrame) {
        if let Some(link) = self.peers.link(to) {
            self.outgoing.push((link, frame));
        }
    }

    /// Tells a server that it does not belong to a group: it says when it knows, and what it said before does not count if it
    /// comes back.
    pub(crate) fn send_removed(&mut self, to: NodeId, group: GroupId) {
        if self.peers.link(to).is_some() {
            self.leavers.insert((group, to));
        }
        self.send(to, PeerFrame::Removed { group });
    }

    /// Says something to who reads the log.
    pub(crate) fn say(&mut self, level: NoticeLevel, text: String) {
        self.notices.push(Notice { level, text });
    }

    /// Whether so many of these servers, this one included, can be reached that they decide.
    pub(crate) fn has_quorum(&self, voters: &[NodeId]) -> bool {
        let reached = voters.iter().filter(|node| **node == self.me || self.peers.is_alive(**node)).count();
        reached > voters.len() / 2
    }

    /// When anything is next due.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let parts = [
            self.peers.next_deadline(),
            self.elections.next_deadline(),
            self.formation.next_deadline(),
            self.asks.next_deadline(),
            self.proposals.next_deadline(),
            self.transfers.next_deadline(),
            self.gatherings.next_deadline(),
            self.handovers.next_deadline(),
            self.moves.next_deadline(),
            self.parked.next_deadline(),
            self.proofs.next_deadline(),
            self.repairs.next_deadline(),
            self.orphans.next_deadline(),
            self.lags.next_deadline(),
            self.forwards.next_deadline(),
            self.read_indexes.next_deadline(),
        ];
        parts.into_iter().flatten().min()
    }
}
