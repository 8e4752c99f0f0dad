//! The cluster as monitoring shows it.

use hw_kit::{GroupId, NodeId, Time};
use hw_raft::Role;
use hw_stream::info::{ClusterInfo, PeerInfo};

use super::place::node_key;
use crate::commit::META;
use crate::jetstream::JetStream;
use crate::view::JetStreamView;

/// Who decides which streams there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetaView {
    /// Who leads, and who else is there.
    pub info: ClusterInfo,
    /// The leader's number as the API shows it.
    pub peer: String,
    /// How many servers vote.
    pub size: usize,
    /// Commands that are not applied yet.
    pub pending: u64,
    /// Whether this server leads.
    pub is_leader: bool,
}

/// A replicated group as this server sees it.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct RaftView {
    /// Empty: the server's own.
    pub account: String,
    pub name: String,
    pub id: String,
    pub state: &'static str,
    pub size: usize,
    pub committed: u64,
    pub applied: u64,
    pub last: u64,
    pub base: u64,
    pub log_bytes: u64,
    pub leader: String,
    pub term: u64,
    pub peers: Vec<PeerInfo>,
    /// The last entry at which replicas were compared; 0: not yet.
    pub compared: u64,
    /// What is wrong with the replica that is here; empty: nothing.
    pub problem: String,
}

/// Something of a stream that is not as it should be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AssetProblem {
    /// Its account; empty: it is about all of JetStream.
    pub account: String,
    /// Its name.
    pub stream: String,
    /// What is wrong.
    pub error: String,
}

impl JetStreamView<'_> {
    /// Who decides about streams; None for a server on its own.
    pub fn meta_cluster(&self, now: Time) -> Option<MetaView> {
        let js = self.js;
        js.cluster.as_ref()?;
        let info = js.cluster_info(now, META)?;
        let Some(replicated) = js.replica(META) else {
            return Some(MetaView {
                info: ClusterInfo { leader: String::new(), ..info },
                ..MetaView::default()
            });
        };
        let status = replicated.replica.status();
        Some(MetaView {
            peer: if info.leader.is_empty() { String::new() } else { node_key(status.leader) },
            info,
            size: status.members.voters.len(),
            pending: status.last.0.saturating_sub(status.applied.0),
            is_leader: js.leads_meta(),
        })
    }

    /// The replicated groups of this server.
    pub fn raft_groups(&self, now: Time) -> Vec<RaftView> {
        let one = |id| self.js.raft_view(now, id);
        self.js.replicated().into_iter().filter_map(one).collect()
    }

    /// What of the cluster and of the streams' replicas here is not in order; only the first where streams cannot be told.
    pub fn asset_problems(&self, meta_only: bool) -> Vec<AssetProblem> {
        let js = self.js;
        if js.cluster.is_none() {
            return Vec::new();
        }
        let of_all = |error: &str| vec![AssetProblem { error: error.to_owned(), ..AssetProblem::default() }];
        if js.lacks_leader(META) {
            let leader = js.replica(META).map_or(NodeId(0), |replicated| replicated.replica.leader());
            return of_all(match leader.0 {
                0 => "JetStream has not established contact with a meta leader",
                _ => "JetStream is not current with the meta leader",
            });
        }
        if meta_only {
            return Vec::new();
        }
        let mut problems = Vec::new();
        for (account, asset) in js.meta.all().filter(|(_, asset)| js.is_placed_here(asset)) {
            let (stream, id) = (asset.config.name.clone(), asset.group());
            let error = match js.replica(id) {
                None if js.groups.get(&id).is_some() => continue,
                None => format!("JetStream stream '{account} > {stream}' could not be found"),
                Some(replicated) if js.lacks_leader(id) || replicated.hollow => {
                    format!("JetStream stream '{account} > {stream}' is not current")
                }
                Some(_) if let Some(index) = js.disputed(id) => {
                    format!("the replicas of JetStream stream '{account} > {stream}' differ at entry {index}")
                }
                Some(_) => continue,
            };
            problems.push(AssetProblem { account: account.to_owned(), stream, error });
        }
        for (id, stream) in js.orphans() {
            let error =
                format!("group {id} (stream {stream:?}) is on disk, and the cluster does not know it");
            problems.push(AssetProblem { account: "unknown".to_owned(), stream, error });
        }
        problems
    }
}

impl JetStream {
    /// At which entry the replicas of a group that is led here were found to differ without a majority.
    fn disputed(&self, id: GroupId) -> Option<u64> {
        Some(self.cluster.as_ref()?.compares.disputed(id)?.0)
    }

    fn raft_view(&self, now: Time, id: GroupId) -> Option<RaftView> {
        let status = self.replica(id)?.replica.status();
        let me = self.cluster.as_ref().map_or(NodeId(0), |cluster| cluster.me);
        let account = self.groups.get(&id).map(|group| self.account_name(group.account));
        let mut peers = self.peer_infos(now, id);
        peers.retain(|peer| peer.peer != node_key(me));
        Some(RaftView {
            account: account.unwrap_or_default(),
            name: self.raft_group(id),
            id: node_key(me),
            state: match status.role {
                Role::Leader { .. } => "LEADER",
                Role::Candidate => "CANDIDATE",
                Role::Follower { .. } => "FOLLOWER",
            },
            size: status.members.voters.len(),
            committed: status.commit.0,
            applied: status.applied.0,
            last: status.last.0,
            base: status.base.0,
            log_bytes: status.log_bytes as u64,
            leader: if self.lacks_leader(id) { String::new() } else { node_key(status.leader) },
            term: status.term,
            peers,
            compared: self.replica(id)?.comparing.compared().0,
            problem: self.groups.get(&id).and_then(|group| group.damage.clone()).unwrap_or_default(),
        })
    }
}
