//! Leadership that is handed over, and servers that give up their place in a group.

use std::collections::BTreeMap;

use hw_hub::Hub;
use hw_jsapi::{ApiError, Event, Kind, Parsed, Refused, Request};
use hw_kit::{GroupId, NodeId, Span, Time};
use hw_meta::{Asset, MetaCommand};
use hw_raft::{MemberChange, MemberStep};
use hw_stream::config::Placement;

use super::place::node_key;
use crate::api::{Call, Reply};
use crate::commit::META;
use crate::jetstream::JetStream;
use crate::log::Origin;

/// How long a successor may take. Nothing is decided in the meantime.
const PATIENCE: Span = Span::from_secs(1);

/// Groups whose next leader is on its way.
#[derive(Default)]
pub(crate) struct Handovers {
    running: BTreeMap<GroupId, Time>,
}

impl Handovers {
    /// When one has taken too long.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.running.values().min().copied()
    }

    /// It is over.
    pub(crate) fn forget(&mut self, id: GroupId) {
        self.running.remove(&id);
    }

    /// Whether a group's leader lets nothing new into the log.
    pub(crate) fn holds(&self, id: GroupId) -> bool {
        self.running.contains_key(&id)
    }
}

impl JetStream {
    /// Whether a request is heard at all: those of operators only from the system account of a cluster.
    pub(crate) fn is_for_me(&self, call: &Call, parsed: &Parsed) -> bool {
        let (Parsed::Request(kind, _) | Parsed::Refused(Refused { kind, .. })) = parsed else { return false };
        let is_operator = self.directory.system_account() == Some(call.account) && self.cluster.is_some();
        is_operator || !kind.is_for_operators()
    }

    /// What an operator asks of the cluster.
    pub(crate) fn operate(&mut self, now: Time, hub: &Hub, request: Request) -> Reply {
        match request {
            Request::MetaStepdown { placement } => {
                self.step_down(now, META, &placement).map(|()| hw_jsapi::success(Kind::MetaStepdown))
            }
            Request::ServerRemove { peer, peer_id } => self.remove_server(now, hub, (&peer, &peer_id)),
            Request::AccountPurge { account } => self.purge_account(now, &account),
            _ => Err(ApiError::new(10003)),
        }
    }

    /// A client wants another leader for a stream, or for one of its consumers: they have the same.
    pub(crate) fn change_leader(
        &mut self,
        now: Time,
        call: &Call,
        (stream, consumer): (&str, Option<&str>),
        placement: &Placement,
    ) -> Reply {
        let Some(id) = self.group_named(call.account, stream) else {
            return Err(self.no_stream(call.account, stream));
        };
        let has = |name: &str| {
            self.groups.get(&id).is_some_and(|group| group.stream.consumer(name.as_bytes()).is_some())
        };
        if consumer.is_some_and(|name| !has(name)) {
            return Err(ApiError::new(10014));
        }
        self.step_down(now, id, placement).map(|()| hw_jsapi::success(call.kind))
    }

    /// Another leader for a group that is led here.
    pub(crate) fn step_down(
        &mut self,
        now: Time,
        id: GroupId,
        placement: &Placement,
    ) -> Result<(), ApiError> {
        let refused = |text: String| Err(ApiError::with(10005, text));
        let Some(cluster) = &self.cluster else { return Err(ApiError::new(10010)) };
        let Some(replicated) = self.replica(id) else { return Ok(()) }; // One server alone leads on.
        let voters = &replicated.replica.members().voters;
        let wanted = &placement.preferred;
        if *wanted == self.config.server_name {
            return refused(format!("preferred server \"{wanted}\" is already leader"));
        }
        let to = match wanted.is_empty() {
            true => None,
            false => match voters.iter().find(|node| self.node_name(**node) == *wanted) {
                None => return refused(format!("preferred server \"{wanted}\" not known")),
                Some(node) => Some(*node),
            },
        };
        let elsewhere = !placement.cluster.is_empty() && placement.cluster != cluster.config.name;
        // Servers do not tell each other their tags.
        let is_unfit = elsewhere || !placement.tags.is_empty();
        if is_unfit || !self.hand_over(now, id, to) {
            return refused("no replacement peer connected".to_owned());
        }
        Ok(())
    }

    /// Hands a group to one of its other servers, or to the one that has most of the log; says whether there is one.
    pub(crate) fn hand_over(&mut self, now: Time, id: GroupId, to: Option<NodeId>) -> bool {
        let (Some(cluster), Some(replicated)) = (&self.cluster, self.replica(id)) else { return false };
        let status = replicated.replica.status();
        let matched =
            |node: NodeId| status.peers.iter().find(|peer| peer.node == node).map(|peer| peer.matched);
        let others = status.members.voters.iter().copied().filter(|node| *node != cluster.me);
        let alive = others.filter(|node| cluster.peers.is_alive(*node) && to.is_none_or(|to| to == *node));
        let Some(next) = alive.max_by_key(|node| matched(*node)) else { return false };
        self.tell_successor(now, id);
        if self.replica_mut(id).is_some_and(|replicated| replicated.replica.transfer(next))
            && let Some(cluster) = &mut self.cluster
        {
            cluster.handovers.running.insert(id, now + PATIENCE);
            self.wake_replica(id);
            return true;
        }
        false
    }

    /// What a successor should know and the log does not say yet goes to it before.
    fn tell_successor(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.tell_progress(now);
        for frame in group.log.cut() {
            if let Some(replicated) = &mut group.log.replicated {
                // Refused by who does not lead any more, and then nobody needs it.
                let _ = replicated.replica.propose(frame.log_body());
                replicated.checked.keep(frame);
            }
        }
    }

    /// This server is about to stop: others take what it leads.
    pub(crate) fn hand_over_all(&mut self, now: Time) {
        for id in self.replicated() {
            if self.log(id).is_some_and(crate::log::Log::is_leading) {
                self.hand_over(now, id, None);
            }
        }
    }

    /// Successors that did not take over. They may still do so: nothing is decided in this term any more.
    pub(crate) fn run_handovers(&mut self, now: Time, hub: &mut Hub) {
        let Some(cluster) = &mut self.cluster else { return };
        let late: Vec<GroupId> =
            cluster.handovers.running.extract_if(.., |_, until| *until <= now).map(|(id, _)| id).collect();
        for id in late {
            self.abdicate(now, hub, id);
        }
    }

    /// One of a stream's servers is to give its place to another one.
    pub(crate) fn remove_stream_peer(&mut self, call: &Call, stream: &str, peer: &str, now: Time) -> Reply {
        let account = self.account_name(call.account);
        let Some(asset) = self.meta.stream(&account, stream).cloned() else {
            return Err(ApiError::new(10059));
        };
        let Some(node) = asset.peers().find(|node| self.is_called(*node, peer)) else {
            return Err(ApiError::new(10040));
        };
        let Some(peers) = self.peers_without(&asset, node) else { return Err(ApiError::new(10075)) };
        self.move_stream(now, account, &asset, peers);
        Ok(hw_jsapi::success(Kind::StreamPeerRemove))
    }

    /// A server is taken out of the cluster for good; its replicas go to others, where there are any.
    pub(crate) fn remove_server(&mut self, now: Time, hub: &Hub, (peer, id): (&str, &str)) -> Reply {
        let is_meant = |node: &NodeId| {
            (!id.is_empty() && node_key(*node) == id) || (id.is_empty() && self.is_called(*node, peer))
        };
        let found = self.meta.nodes().map(|(node, _)| node).find(is_meant);
        let Some(node) = found else { return Err(ApiError::new(10044)) };
        let (name, me) = (self.node_name(node), self.is_me(node));
        if me {
            // Another one leads soon, and can take this one out.
            self.hand_over(now, META, None);
            return Err(ApiError::new(10009));
        }
        let Some(replicated) = self.replica_mut(META) else { return Err(ApiError::new(10008)) };
        if replicated.replica.change_members(MemberChange::one(MemberStep::Remove(node))).is_err() {
            return Err(ApiError::new(10202));
        }
        self.wake_replica(META);
        let command = MetaCommand::Leave { node: node.0 };
        self.meta_log.propose(Origin::None, |out| command.encode(out));
        let on_it: Vec<(String, Asset)> = self
            .meta
            .all()
            .filter(|(_, asset)| asset.peers.contains(&node.0))
            .map(|(account, asset)| (account.to_owned(), asset.clone()))
            .collect();
        for (account, asset) in on_it {
            let fewer = || asset.peers.iter().copied().filter(|peer| *peer != node.0).collect::<Vec<u64>>();
            let peers = self.peers_without(&asset, node).unwrap_or_else(fewer);
            if !peers.is_empty() {
                self.move_stream(now, account, &asset, peers);
            }
        }
        self.advise_removed(now, hub, &name, node);
        Ok(hw_jsapi::success(Kind::ServerRemove))
    }

    /// All streams of an account are deleted.
    pub(crate) fn purge_account(&mut self, now: Time, account: &str) -> Reply {
        let names: Vec<String> = self.meta.streams(account).map(|asset| asset.config.name.clone()).collect();
        for name in names {
            let command = MetaCommand::Delete { ts: now.0, account: account.to_owned(), name };
            self.meta_log.propose(Origin::None, |out| command.encode(out));
        }
        Ok(hw_jsapi::purge_begun())
    }

    fn move_stream(&mut self, now: Time, account: String, asset: &Asset, peers: Vec<u64>) {
        let config = Box::new((*asset.config).clone());
        let command = MetaCommand::Update { ts: now.0, account, config, peers };
        self.meta_log.propose(Origin::None, |out| command.encode(out));
    }

    fn is_called(&self, node: NodeId, name: &str) -> bool {
        self.node_name(node) == name || node_key(node) == name
    }

    /// A stream's servers with another one in one's place; None: there is no other.
    fn peers_without(&self, asset: &Asset, gone: NodeId) -> Option<Vec<u64>> {
        let mut reached = self.reached_members();
        reached.retain(|node| !asset.peers.contains(&node.0));
        let new = self.meta.place(1, &reached)?;
        let stay = asset.peers.iter().copied().filter(|peer| *peer != gone.0);
        Some(stay.chain(new).collect())
    }

    fn advise_removed(&mut self, now: Time, hub: &Hub, name: &str, node: NodeId) {
        let Some(system) = self.directory.system_account() else { return };
        let (key, cluster) = (node_key(node), self.cluster_name());
        let event = Event::ServerRemoved { server: name, server_id: &key, cluster: &cluster };
        self.advise(now, hub, system, &event, "");
    }
}
