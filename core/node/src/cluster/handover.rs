//! Leadership that is handed over.

use std::collections::BTreeMap;

use hw_hub::Hub;
use hw_jsapi::ApiError;
use hw_kit::{GroupId, NodeId, Span, Time};
use hw_stream::config::Placement;

use crate::api::{Call, Handled};
use crate::jetstream::JetStream;

/// How long a successor may take. Nothing is decided in the meantime.
const PATIENCE: Span = Span::from_secs(1);
/// How long whoever asked for another leader waits: when a successor does not come, somebody else is elected first.
const PATIENCE_ASKED: Span = Span::from_secs(2);

/// How often a successor is told: one that has only just got its vote does not know of that the first time.
const AGAIN: Span = Span::from_millis(50);

/// Groups whose next leader is on its way.
#[derive(Default)]
pub(crate) struct Handovers {
    running: BTreeMap<GroupId, Handover>,
    asked: Vec<Asked>,
}

/// Whoever asked for another leader is told when there is one.
struct Asked {
    id: GroupId,
    /// This one; None: any other.
    to: Option<NodeId>,
    until: Time,
    call: Call,
}

struct Handover {
    to: NodeId,
    until: Time,
    again: Time,
}

impl Handovers {
    /// When one has taken too long.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let running = self.running.values().map(|one| one.until.min(one.again));
        running.chain(self.asked.iter().map(|one| one.until)).min()
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
    /// A client wants another leader for a stream, or for one of its consumers: they have the same.
    pub(crate) fn change_leader(
        &mut self,
        now: Time,
        call: &Call,
        (stream, consumer): (&str, Option<&str>),
        placement: &Placement,
    ) -> Handled {
        let Some(id) = self.group_named(call.account, stream) else {
            return Handled::Answer(Err(self.no_stream(call.account, stream)));
        };
        let has = |name: &str| {
            self.groups.get(&id).is_some_and(|group| group.stream.consumer(name.as_bytes()).is_some())
        };
        if consumer.is_some_and(|name| !has(name)) {
            return Handled::Answer(Err(ApiError::new(10014)));
        }
        self.step_down(now, call, id, placement)
    }

    /// Another leader for a group that is led here. The answer comes when it leads, or when it is certain that it does not.
    pub(crate) fn step_down(
        &mut self,
        now: Time,
        call: &Call,
        id: GroupId,
        placement: &Placement,
    ) -> Handled {
        let to = match self.begin_step_down(now, id, placement) {
            Ok(to) => to,
            Err(error) => return Handled::Answer(Err(error)),
        };
        match self.cluster.as_mut().filter(|cluster| cluster.handovers.holds(id)) {
            Some(cluster) => {
                let asked = Asked { id, to, until: now + PATIENCE_ASKED, call: call.clone() };
                cluster.handovers.asked.push(asked);
                Handled::Proposed
            }
            None => Handled::Answer(Ok(hw_jsapi::success(call.kind))),
        }
    }

    /// Begins it: gives who is to lead, if it is to be somebody in particular.
    fn begin_step_down(
        &mut self,
        now: Time,
        id: GroupId,
        placement: &Placement,
    ) -> Result<Option<NodeId>, ApiError> {
        let refused = |text: String| Err(ApiError::with(10005, text));
        let Some(cluster) = &self.cluster else { return Err(ApiError::new(10010)) };
        let Some(replicated) = self.replica(id) else { return Ok(None) }; // One server alone leads on.
        let voters = &replicated.replica.members().voters;
        let wanted = &placement.preferred;
        if *wanted == self.config.server_name {
            return refused(format!("preferred server \"{wanted}\" is already leader"));
        }
        let elsewhere = !placement.cluster.is_empty() && placement.cluster != cluster.config.name;
        let is_fit = |node: NodeId| {
            let tags = self.meta.tags(node);
            !elsewhere && placement.tags.iter().all(|tag| hw_meta::matches(tag, tags))
        };
        let to = match wanted.is_empty() {
            true if placement.tags.is_empty() && !elsewhere => None,
            true => voters
                .iter()
                .copied()
                .find(|node| *node != cluster.me && cluster.peers.is_alive(*node) && is_fit(*node)),
            false => match voters.iter().find(|node| self.node_name(**node) == *wanted) {
                None => return refused(format!("preferred server \"{wanted}\" not known")),
                Some(node) => Some(*node).filter(|node| is_fit(*node)),
            },
        };
        let is_chosen = to.is_some() || (wanted.is_empty() && placement.tags.is_empty() && !elsewhere);
        if !is_chosen || !self.hand_over(now, id, to) {
            return refused("no replacement peer connected".to_owned());
        }
        Ok(to)
    }

    /// Whoever asked for another leader is told whether there is one.
    fn tell_asked(&mut self, now: Time, hub: &Hub) {
        let Some(cluster) = &mut self.cluster else { return };
        for one in std::mem::take(&mut cluster.handovers.asked) {
            let leader = self.replica(one.id).map_or(NodeId(0), |replicated| replicated.replica.leader());
            let is_other = leader != NodeId(0) && !self.is_me(leader);
            let reply = if is_other && one.to.is_none_or(|to| to == leader) {
                Ok(hw_jsapi::success(one.call.kind))
            } else if is_other || one.until <= now {
                Err(ApiError::with(10005, "no replacement peer connected".to_owned()))
            } else if let Some(cluster) = &mut self.cluster {
                cluster.handovers.asked.push(one);
                continue;
            } else {
                return;
            };
            self.answer(now, hub, &one.call, reply);
        }
    }

    /// Hands a group to one of its other servers, or to the one that has most of the log; says whether there is one.
    pub(crate) fn hand_over(&mut self, now: Time, id: GroupId, to: Option<NodeId>) -> bool {
        let Some(next) = self.successor(id, to) else { return false };
        // The successor has everything before it is told; what comes from here on waits for it.
        if self.cluster.as_ref().is_some_and(|cluster| !cluster.handovers.holds(id)) {
            if let Some(group) = self.groups.get_mut(&id) {
                group.tell_progress(now);
            }
            self.propose_open(id);
        }
        if self.replica_mut(id).is_some_and(|replicated| replicated.replica.transfer(next))
            && let Some(cluster) = &mut self.cluster
        {
            let handover = Handover { to: next, until: now + PATIENCE, again: now + AGAIN };
            cluster.handovers.running.insert(id, handover);
            self.wake_replica(id);
            return true;
        }
        false
    }

    /// The server that has most of a group's log, or this one of them.
    fn successor(&self, id: GroupId, to: Option<NodeId>) -> Option<NodeId> {
        let (cluster, status) = (self.cluster.as_ref()?, self.replica(id)?.replica.status());
        let matched =
            |node: NodeId| status.peers.iter().find(|peer| peer.node == node).map(|peer| peer.matched);
        let others = status.members.voters.iter().copied().filter(|node| *node != cluster.me);
        let alive = others.filter(|node| cluster.peers.is_alive(*node) && to.is_none_or(|to| to == *node));
        alive.max_by_key(|node| matched(*node))
    }

    /// This server is about to stop: others take what it leads.
    pub(crate) fn hand_over_all(&mut self, now: Time) {
        if let Some(cluster) = &mut self.cluster {
            cluster.is_leaving = true;
        }
        for id in self.replicated() {
            if self.log(id).is_some_and(crate::log::Log::is_leading) {
                self.hand_over(now, id, None);
            }
        }
    }

    /// Whether this server, which is about to stop, owes nobody anything: others lead what they can, everybody who waits for
    /// what was proposed here is answered, and what came for other leaders is with them.
    pub(crate) fn has_handed_over(&self) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        let is_done = |id: GroupId| {
            let Some(log) = self.log(id) else { return true };
            let has_heirs = self.successor(id, None).is_some();
            !(log.owes() || has_heirs && log.is_leading())
        };
        cluster.forwards.waiting() == 0 && self.replicated().into_iter().all(is_done)
    }

    /// The same once its clients are gone, and whether leaders have said what became of what was handed to them from here: nobody
    /// else tells the publishers.
    pub(crate) fn has_settled(&self) -> bool {
        let is_known = self.cluster.as_ref().is_none_or(|cluster| cluster.forwards.handed.is_settled());
        is_known && self.has_handed_over()
    }

    /// Successors that did not take over. They may still do so: nothing is decided in this term any more.
    pub(crate) fn run_handovers(&mut self, now: Time, hub: &mut Hub) {
        let Some(cluster) = &mut self.cluster else { return };
        let late: Vec<GroupId> =
            cluster.handovers.running.extract_if(.., |_, one| one.until <= now).map(|(id, _)| id).collect();
        let mut again = Vec::new();
        for (id, one) in cluster.handovers.running.iter_mut().filter(|(_, one)| one.again <= now) {
            one.again = now + AGAIN;
            again.push((*id, one.to));
        }
        for id in late {
            self.abdicate(now, hub, id);
        }
        for (id, to) in again {
            self.ping(id);
            if let Some(replicated) = self.replica_mut(id) {
                replicated.replica.cancel_transfer();
                replicated.replica.transfer(to);
            }
        }
        self.tell_asked(now, hub);
    }
}
