//! Streams that go to other servers: who leads one says when it is there, and only then it can go somewhere else, nor back
//! any more. A server that alone has a stream leaves the cluster when that is with others.

use std::collections::BTreeMap;

use hw_hub::Hub;
use hw_jsapi::ApiError;
use hw_kit::{GroupId, NodeId, Span, Time};
use hw_meta::{Asset, MetaCommand};
use hw_stream::info::{DesiredInfo, DesiredOrigin, DesiredPeer, DesiredStatus};

use super::membership::has_caught_up;
use super::place::node_key;
use crate::api::{Call, Handled};
use crate::commit::META;
use crate::jetstream::JetStream;

/// It is said again until the meta group has heard it.
const AGAIN: Span = Span::from_secs(1);
/// How long who has a server taken out waits until what that alone has is with others.
const PATIENCE: Span = Span::from_secs(4);

/// Streams that have changed their servers, and servers that leave when theirs have.
#[derive(Default)]
pub(crate) struct Moves {
    /// Groups that are led here and are where they are to be: when that is said next.
    placed: BTreeMap<GroupId, Time>,
    leaving: Vec<Leaving>,
}

/// Somebody waits for a server to be taken out.
struct Leaving {
    node: NodeId,
    until: Time,
    call: Call,
}

impl Moves {
    /// When something is next due.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.placed.values().copied().chain(self.leaving.iter().map(|one| one.until)).min()
    }
}

impl JetStream {
    /// A stream may be where it is to be.
    pub(crate) fn note_placed(&mut self, now: Time, id: GroupId) {
        if self.is_placed(id)
            && let Some(cluster) = &mut self.cluster
        {
            cluster.moves.placed.entry(id).or_insert(now);
        }
    }

    /// Whether a stream that is led here is where the meta group wants it, and that does not know it yet.
    fn is_placed(&self, id: GroupId) -> bool {
        let Some((_, asset)) = self.meta.all().find(|(_, asset)| asset.group() == id) else { return false };
        let is_led = self.log(id).is_some_and(crate::log::Log::is_leading);
        if !is_led || asset.origin.is_none() {
            return false;
        }
        let Some(replicated) = self.replica(id) else { return asset.peers().all(|node| self.is_me(node)) };
        let (members, mut wanted) = (replicated.replica.members(), asset.peers().collect::<Vec<_>>());
        wanted.sort_unstable();
        members.voters == wanted && members.learners.is_empty() && !members.is_joint()
    }

    /// What is said again, and who has waited long enough.
    pub(crate) fn run_moves(&mut self, now: Time, hub: &Hub) {
        let Some(cluster) = &mut self.cluster else { return };
        let due = cluster.moves.placed.extract_if(.., |_, at| *at <= now);
        let due: Vec<GroupId> = due.map(|(id, _)| id).collect();
        for id in due.into_iter().filter(|id| self.is_placed(*id)).collect::<Vec<_>>() {
            let asset = self.meta.all().map(|(_, asset)| asset).find(|asset| asset.group() == id);
            let peers = asset.map(|asset| asset.peers.clone()).unwrap_or_default();
            let leader = self.replica(META).map_or(NodeId(0), |replicated| replicated.replica.leader());
            self.propose_elsewhere(leader, MetaCommand::Placed { group: id.0, peers });
            if let Some(cluster) = &mut self.cluster {
                cluster.moves.placed.insert(id, now + AGAIN);
            }
        }
        self.run_leaving(now, hub);
    }

    fn run_leaving(&mut self, now: Time, hub: &Hub) {
        let waiting = self.cluster.as_mut().map(|cluster| std::mem::take(&mut cluster.moves.leaving));
        for one in waiting.unwrap_or_default() {
            let reply = if !self.decides(META) {
                Err(ApiError::new(10008))
            } else if !self.has_only(one.node) {
                self.remove_server(now, hub, one.node)
            } else if one.until <= now {
                Err(ApiError::new(10202))
            } else if let Some(cluster) = &mut self.cluster {
                cluster.moves.leaving.push(one);
                continue;
            } else {
                return;
            };
            self.answer(now, hub, &one.call, reply);
        }
    }

    /// A server is to leave for good. What it alone has goes to others first, if it is there to give it: an empty stream in
    /// its place would look as if it were whole.
    pub(crate) fn let_go(&mut self, now: Time, hub: &Hub, call: &Call, node: NodeId) -> Handled {
        if !self.has_only(node) {
            return Handled::Answer(self.remove_server(now, hub, node));
        }
        self.evacuate(now, node);
        let has_no_other =
            |asset: &Asset| asset.peers == [node.0] && self.peers_without(asset, node).is_none();
        if self.meta.all().any(|(_, asset)| has_no_other(asset)) {
            return Handled::Answer(Err(ApiError::new(10075)));
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.moves.leaving.push(Leaving { node, until: now + PATIENCE, call: call.clone() });
        }
        Handled::Proposed
    }

    /// Whether a server that is there has streams that nobody else is sure to have.
    fn has_only(&self, node: NodeId) -> bool {
        self.is_there(node) && self.meta.all().any(|(_, asset)| asset.is_only_on(node))
    }

    /// Whether a server can be reached.
    pub(crate) fn is_there(&self, node: NodeId) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| node == cluster.me || cluster.peers.is_alive(node))
    }

    /// A change of a stream's servers that is not done yet is taken back.
    pub(crate) fn cancel_move(
        &mut self,
        now: Time,
        call: &Call,
        (account, stream): (String, &str),
    ) -> Handled {
        let refused = |code| Handled::Answer(Err(ApiError::new(code)));
        if self.directory.account_id(&account).is_none() {
            return refused(10035);
        }
        let Some(asset) = self.meta.stream(&account, stream) else { return refused(10059) };
        let Some(origin) = asset.origin.as_deref() else { return refused(10129) };
        let mut config = Box::new((*asset.config).clone());
        config.num_replicas = origin.replicas;
        config.placement.clone_from(&origin.placement);
        let peers = origin.peers.clone();
        self.propose_meta(now, call, &MetaCommand::Update { ts: now.0, account, config, peers });
        Handled::Proposed
    }

    /// Why a stream cannot move now, or get more or fewer servers: it is on its way. Who scales may think better of it.
    pub(crate) fn check_settled(&self, asset: &Asset, is_move: bool) -> Result<(), ApiError> {
        match (asset.origin.is_some(), asset.is_moving()) {
            (true, true) => Err(ApiError::new(10124)),
            (true, false) if is_move => Err(ApiError::new(10226)),
            _ => Ok(()),
        }
    }

    /// Where a stream is to be, if it is not there yet, and what that waits for, as its leader knows it.
    pub(crate) fn desired(&self, id: GroupId) -> Option<DesiredInfo> {
        let group = self.groups.get(&id)?;
        let asset =
            self.meta.stream(&self.account_name(group.account), group.stream.config().name.as_str())?;
        let origin = asset.origin.as_deref().filter(|_| asset.group() == id)?;
        let peer = |node: NodeId| DesiredPeer { name: self.node_name(node), peer: node_key(node) };
        Some(DesiredInfo {
            created: Time(origin.since).to_rfc3339(),
            name: self.cluster_name(),
            replicas: asset.peers().map(peer).collect(),
            origin: DesiredOrigin { replicas: origin.replicas, placement: origin.placement.clone() },
            status: self.desired_status(id, asset),
        })
    }

    fn desired_status(&self, id: GroupId, asset: &Asset) -> Option<DesiredStatus> {
        let replicated = self.replica(id).filter(|replicated| replicated.is_leading())?;
        let status = replicated.replica.status();
        let is_behind = |node: &NodeId| !self.is_me(*node) && !has_caught_up(&status, *node);
        let behind: Vec<String> = asset.peers().filter(is_behind).map(|node| self.node_name(node)).collect();
        Some(match behind.is_empty() {
            true => DesiredStatus {
                description: "servers get and lose their votes".to_owned(),
                kind: "membership",
            },
            false => DesiredStatus {
                description: format!("waits for {} to catch up", behind.join(", ")),
                kind: "catchup",
            },
        })
    }
}
