//! What operators ask of a cluster: servers that go for good or give up what they have, streams that move, accounts that end.

use hw_hub::Hub;
use hw_jsapi::{ApiError, Event, Kind, Parsed, Refused, Request};
use hw_kit::{NodeId, Time};
use hw_meta::{Asset, MetaCommand};
use hw_raft::{MemberChange, MemberStep};
use hw_stream::config::Placement;

use super::place::{node_key, replicas};
use crate::api::{Call, Handled, Reply};
use crate::commit::META;
use crate::jetstream::JetStream;
use crate::log::Origin;

impl JetStream {
    /// Whether a request is heard at all: those of operators only from the system account of a cluster.
    pub(crate) fn is_for_me(&self, call: &Call, parsed: &Parsed) -> bool {
        let (Parsed::Request(kind, _) | Parsed::Refused(Refused { kind, .. })) = parsed else { return false };
        let is_operator = self.directory.system_account() == Some(call.account) && self.cluster.is_some();
        is_operator || !kind.is_for_operators()
    }

    /// What an operator asks of the cluster.
    pub(crate) fn operate(&mut self, now: Time, hub: &Hub, call: &Call, request: Request) -> Handled {
        Handled::Answer(match request {
            Request::MetaStepdown { placement } => return self.step_down(now, call, META, &placement),
            Request::ServerRemove { peer, peer_id } => match self.server_called(&peer, &peer_id) {
                None => Err(ApiError::new(10044)),
                // Another one leads soon, and can take this one out.
                Some(node) if self.is_me(node) && self.hand_over(now, META, None) => {
                    let request = Request::ServerRemove { peer, peer_id };
                    self.park(now, hub, call.clone(), Parsed::Request(call.kind, request));
                    return Handled::Proposed;
                }
                Some(node) => return self.let_go(now, hub, call, node),
            },
            Request::ServerEvacuate { peer, peer_id } => match self.server_called(&peer, &peer_id) {
                None => Err(ApiError::new(10044)),
                Some(node) => {
                    self.evacuate(now, node);
                    Ok(hw_jsapi::success(Kind::ServerEvacuate))
                }
            },
            Request::StreamMove { account, stream, from, to } => {
                match self.move_away(now, call, (account, &stream), (&from, to)) {
                    Ok(()) => return Handled::Proposed,
                    Err(error) => Err(error),
                }
            }
            Request::MetaRescue => {
                let own = (&*self.config.server_name, &*self.config.server_id);
                Ok(hw_jsapi::no_rescue(own, !self.lacks_leader(META)))
            }
            Request::StreamCancelMove { account, stream } => {
                return self.cancel_move(now, call, (account.unwrap_or_default(), &stream));
            }
            Request::AccountPurge { account } => self.purge_account(now, &account),
            _ => Err(ApiError::new(10003)),
        })
    }

    /// One of a stream's servers is to give its place to another one.
    pub(crate) fn remove_stream_peer(&mut self, now: Time, call: &Call, stream: &str, peer: &str) -> Reply {
        let account = self.account_name(call.account);
        let Some(asset) = self.meta.stream(&account, stream).cloned() else {
            return Err(ApiError::new(10059));
        };
        let Some(node) = asset.peers().find(|node| self.is_called(*node, peer)) else {
            return Err(ApiError::new(10040));
        };
        let Some(peers) = self.peers_without(&asset, node) else { return Err(ApiError::new(10075)) };
        self.move_stream(now, account, &asset, peers);
        Ok(hw_jsapi::success(call.kind))
    }

    /// The server that an operator means.
    fn server_called(&self, peer: &str, id: &str) -> Option<NodeId> {
        let is_meant = |node: &NodeId| {
            (!id.is_empty() && node_key(*node) == id) || (id.is_empty() && self.is_called(*node, peer))
        };
        self.meta.nodes().map(|(node, _)| node).find(is_meant)
    }

    /// A server is taken out of the cluster for good; its replicas go to others, where there are any.
    pub(crate) fn remove_server(&mut self, now: Time, hub: &Hub, node: NodeId) -> Reply {
        let name = self.node_name(node);
        if self.is_me(node) {
            return Err(ApiError::new(10009)); // There is nobody else.
        }
        let Some(replicated) = self.replica_mut(META) else { return Err(ApiError::new(10008)) };
        if replicated.replica.change_members(MemberChange::one(MemberStep::Remove(node))).is_err() {
            return Err(ApiError::new(10202));
        }
        self.wake_replica(META);
        let command = MetaCommand::Leave { node: node.0 };
        self.meta_log.propose(Origin::None, |out| command.encode(out));
        self.evacuate(now, node);
        self.advise_removed(now, hub, &name, node);
        Ok(hw_jsapi::success(Kind::ServerRemove))
    }

    /// What a server has goes to others; where there are none, its streams go on with fewer, and what only it has stays.
    pub(crate) fn evacuate(&mut self, now: Time, node: NodeId) {
        let is_there = self.is_there(node);
        // What only a server has that is not there, nobody can give to others.
        let can_go = |asset: &Asset| asset.peers.contains(&node.0) && (is_there || asset.has_others(node));
        let on_it: Vec<(String, Asset)> = self
            .meta
            .all()
            .filter(|(_, asset)| can_go(asset))
            .map(|(account, asset)| (account.to_owned(), asset.clone()))
            .collect();
        for (account, asset) in on_it {
            let fewer = || asset.peers.iter().copied().filter(|peer| *peer != node.0).collect::<Vec<u64>>();
            let peers = self.peers_without(&asset, node).unwrap_or_else(fewer);
            if !peers.is_empty() {
                self.move_stream(now, account, &asset, peers);
            }
        }
    }

    /// A server came: streams that lost one for which there was no other take it.
    pub(crate) fn fill_up(&mut self, now: Time, node: NodeId) {
        if !self.meta_log.is_leading() {
            return;
        }
        let is_short = |asset: &Asset| {
            asset.origin.is_none() && !asset.peers.is_empty() && asset.peers.len() < replicas(&asset.config)
        };
        let short = self.meta.all().filter(|(_, asset)| is_short(asset));
        let short: Vec<(String, Asset)> = short.map(|(of, asset)| (of.to_owned(), asset.clone())).collect();
        for (account, asset) in short {
            let placement = asset.config.placement.clone().unwrap_or_default();
            if let Ok(peers) = self.choose(&placement, asset.peers.len() + 1, &asset.peers, &[node]) {
                self.move_stream(now, account, &asset, peers);
            }
        }
    }

    /// A stream moves away from a server, or from where it leads, to servers with tags.
    fn move_away(
        &mut self,
        now: Time,
        call: &Call,
        (account, stream): (String, &str),
        (from, to): (&str, Placement),
    ) -> Result<(), ApiError> {
        let asset = self.meta.stream(&account, stream).cloned().ok_or_else(|| ApiError::new(10059))?;
        let mut kept = asset.peers.clone();
        let mut reached = self.reached_members();
        if !from.is_empty() {
            let node = self.server_called(from, "").ok_or_else(|| ApiError::new(10044))?;
            if !kept.contains(&node.0) {
                return Err(ApiError::new(10040));
            }
            kept.retain(|peer| *peer != node.0);
            reached.retain(|other| *other != node);
        } else if to.tags.is_empty() && to.cluster.is_empty() {
            // Nothing is said of where to: anywhere else.
            reached.retain(|node| !kept.contains(&node.0));
            kept.clear();
        }
        self.check_settled(&asset, true)?;
        let own = asset.config.placement.clone().unwrap_or_default();
        let placement = if to == Placement::default() { own } else { to };
        let peers = self.choose(&placement, asset.peers.len(), &kept, &reached)?;
        let config = Box::new((*asset.config).clone());
        self.propose_meta(now, call, &MetaCommand::Update { ts: now.0, account, config, peers });
        Ok(())
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
    pub(crate) fn peers_without(&self, asset: &Asset, gone: NodeId) -> Option<Vec<u64>> {
        let mut reached = self.reached_members();
        reached.retain(|node| *node != gone);
        let mut stay: Vec<u64> = asset.peers.iter().copied().filter(|peer| *peer != gone.0).collect();
        if stay.is_empty() && !self.is_there(gone) {
            // It was on its way there: who has it keeps it. Nobody else could give it.
            let had = asset.servers().filter(|node| reached.contains(node));
            stay = had.map(|node| node.0).take(asset.peers.len()).collect();
            if stay.is_empty() {
                return None;
            }
        }
        let placement = asset.config.placement.clone().unwrap_or_default();
        self.choose(&placement, asset.peers.len(), &stay, &reached).ok()
    }

    fn advise_removed(&mut self, now: Time, hub: &Hub, name: &str, node: NodeId) {
        let Some(system) = self.directory.system_account() else { return };
        let (key, cluster) = (node_key(node), self.cluster_name());
        let event = Event::ServerRemoved { server: name, server_id: &key, cluster: &cluster };
        self.advise(now, hub, system, &event, "");
    }
}
