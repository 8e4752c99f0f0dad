//! What the coming and going of servers means for the groups that are here.

use hw_cluster::{Cause, Loss};
use hw_hub::Hub;
use hw_kit::{GroupId, LogIndex, NodeId, Span, Time};
use hw_meta::Asset;
use hw_raft::{Body, Message};

use crate::commit::META;
use crate::jetstream::JetStream;

impl JetStream {
    /// The replicated groups of this server.
    pub(crate) fn replicated(&self) -> Vec<GroupId> {
        let meta = self.meta_log.replicated.is_some().then_some(META);
        let streams = self.groups.values().filter(|group| group.log.replicated.is_some());
        meta.into_iter().chain(streams.map(|group| group.id)).collect()
    }

    /// Plans an election of a group; those that should ask first have their turn before.
    pub(crate) fn plan_election(&mut self, now: Time, id: GroupId, cause: Cause) {
        let Some(rank) = self.rank(id, cause) else { return };
        if let Some(cluster) = &mut self.cluster {
            cluster.elections.plan(now, id, cause, rank);
        }
    }

    /// How many servers should ask before this one; None: this one cannot lead.
    fn rank(&self, id: GroupId, cause: Cause) -> Option<usize> {
        let (cluster, replicated) = (self.cluster.as_ref()?, self.replica(id)?);
        let members = replicated.replica.members();
        // While members change, those from before have a say, and may be the only ones who have the whole log.
        let mut voters = [&members.voters[..], &members.outgoing[..]].concat();
        voters.sort_unstable();
        voters.dedup();
        if !voters.contains(&cluster.me) {
            return None;
        }
        if cause == Cause::Created {
            let asset = self.meta.all().find(|(_, asset)| asset.group() == id);
            let wanted =
                asset.and_then(|(_, asset)| asset.founders.iter().position(|node| *node == cluster.me.0));
            return wanted.or_else(|| voters.iter().position(|node| *node == cluster.me));
        }
        // Another order for every group, so that the groups of a lost server go to all others.
        let key = |node: NodeId| {
            (node.0 ^ id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd)
        };
        let leader = replicated.replica.leader();
        let others = voters.iter().filter(|node| **node != leader && cluster.peers.is_alive(**node));
        Some(others.filter(|node| key(**node) < key(cluster.me)).count())
    }

    /// Servers that were lost in the meantime, and elections whose time has come.
    pub(crate) fn run_elections(&mut self, now: Time, hub: &mut Hub) {
        while let Some(lost) = self.cluster.as_mut().and_then(|cluster| cluster.peers.handle_timeout(now)) {
            self.handle_lost(now, hub, lost);
        }
        while let Some(id) = self.cluster.as_mut().and_then(|cluster| cluster.elections.take_due(now)) {
            self.campaign(now, id);
        }
    }

    fn campaign(&mut self, now: Time, id: GroupId) {
        let Some(cluster) = &self.cluster else { return };
        let Some(replicated) = self.replica(id) else { return };
        let leader = replicated.replica.leader();
        let is_led = leader.0 != 0 && replicated.proven && cluster.peers.is_alive(leader);
        if is_led || leader == cluster.me || self.disk.failed.is_some() {
            return;
        }
        if cluster.is_leaving {
            // Others come first. Where nobody else can lead it has to, as long as it is here.
            let is_needed = cluster.peers.linked().all(|(node, _)| !cluster.peers.is_alive(node));
            if !is_needed {
                return self.plan_election(now, id, Cause::Undecided);
            }
        }
        if !self.is_clean(id) {
            return self.plan_election(now, id, Cause::Undecided);
        }
        if let Some(replicated) = self.replica_mut(id) {
            replicated.replica.campaign();
            self.wake_replica(id);
        }
        self.plan_election(now, id, Cause::Undecided);
    }

    /// Whether its state is whole: a replica with damage does not lead.
    pub(crate) fn is_clean(&self, id: GroupId) -> bool {
        let is_whole = self.groups.get(&id).is_none_or(|group| group.damage.is_none());
        let is_away = |replicated: &super::Replicated| {
            replicated.hollow || replicated.is_mute() || replicated.installing.is_some()
        };
        is_whole && !self.replica(id).is_some_and(is_away)
    }

    /// The disk failed: this server leads nothing any more.
    pub(crate) fn abdicate_all(&mut self, now: Time, hub: &mut Hub) {
        for id in self.replicated() {
            if self.replica(id).is_some_and(|replicated| self.is_me(replicated.replica.leader())) {
                self.abdicate(now, hub, id);
            }
        }
    }

    /// Another server is lost, for now at least.
    pub(crate) fn handle_lost(&mut self, now: Time, hub: &mut Hub, (node, loss): (NodeId, Loss)) {
        let cause = if loss == Loss::Gone { Cause::Gone } else { Cause::Silent };
        if loss == Loss::Gone {
            self.abandon_handed(node);
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.formation.handle_lost(node);
            // Whoever came back under its name with an empty disk waited for this.
            cluster.admitting = true;
        }
        for id in self.replicated() {
            let Some(replicated) = self.replica_mut(id) else { continue };
            replicated.replica.handle_unreachable(node);
            if replicated.replica.leader() == node {
                replicated.proven = false;
                self.plan_election(now, id, cause);
            } else {
                self.check_quorum(now, hub, id);
            }
        }
    }

    /// A leader that does not reach a majority decides nothing: it says so, instead of letting clients wait.
    fn check_quorum(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        let (Some(cluster), Some(replicated)) = (&self.cluster, self.replica(id)) else { return };
        if replicated.replica.leader() != cluster.me {
            return;
        }
        let members = replicated.replica.members();
        let decides = cluster.has_quorum(&members.voters)
            && (members.outgoing.is_empty() || cluster.has_quorum(&members.outgoing));
        if !decides {
            if id != META {
                self.advise_quorum_lost(now, hub, id);
            }
            self.abdicate(now, hub, id);
        }
    }

    /// Stops leading a group at once.
    pub(crate) fn abdicate(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        let Some(replicated) = self.replica_mut(id) else { return };
        replicated.replica.step_down();
        replicated.proven = false;
        if replicated.handle_deposed() {
            self.stop_leading(now, hub, id);
        }
        self.resign(id);
        self.wake_replica(id);
        self.plan_election(now, id, Cause::Undecided);
    }

    /// The others elect another leader at once.
    pub(crate) fn resign(&mut self, id: GroupId) {
        let Some(members) = self.replica(id).map(|replicated| replicated.replica.members().all()) else {
            return;
        };
        let Some(cluster) = &mut self.cluster else { return };
        let me = cluster.me;
        for node in members.into_iter().filter(|node| *node != me) {
            cluster.send(node, hw_cluster::PeerFrame::Resigned { group: id });
        }
    }

    /// The leader of a group says that it does not lead it any more.
    pub(crate) fn handle_resigned(&mut self, now: Time, from: NodeId, id: GroupId) {
        let Some(replicated) = self.replica_mut(id).filter(|replicated| replicated.replica.leader() == from)
        else {
            return;
        };
        replicated.replica.step_down();
        replicated.proven = false;
        self.plan_election(now, id, Cause::Gone);
        self.wake_replica(id);
    }

    /// Whether what this server reads of a group that it leads is the newest: nobody else can lead it by now.
    pub(crate) fn may_read(&self, now: Time, id: GroupId) -> bool {
        let (Some(cluster), Some(replicated)) = (&self.cluster, self.replica(id)) else { return true };
        // A successor that was told to take over does not wait for anybody to forget this leader.
        replicated.is_leading() && !cluster.handovers.holds(id) && self.has_lease(now, id)
    }

    /// Whether this server has heard of so many of a group lately that nobody else leads it unless this one wants that.
    pub(crate) fn has_lease(&self, now: Time, id: GroupId) -> bool {
        let (Some(cluster), Some(replicated)) = (&self.cluster, self.replica(id)) else { return true };
        let members = replicated.replica.members();
        cluster.peers.has_lease(now, cluster.me, &members.voters)
            && (members.outgoing.is_empty() || cluster.peers.has_lease(now, cluster.me, &members.outgoing))
    }

    /// The clock was set forward: what was heard is as old as before.
    pub(crate) fn handle_clock_step(&mut self, by: Span) {
        if let Some(cluster) = &mut self.cluster {
            cluster.peers.handle_clock_step(by);
        }
    }

    /// A link to another server came up, or is heard again: leaders say that they lead, and have to say so.
    pub(crate) fn handle_reached(&mut self, now: Time, node: NodeId) {
        // A stream that is to have this server waited for it, if it could not decide without.
        let waits = |asset: &Asset| asset.origin.is_some() && asset.peers.contains(&node.0);
        let leads = |id: &GroupId| self.groups.get(id).is_some_and(|group| group.log.is_leading());
        let waiting = self.meta.all().filter(|(_, asset)| waits(asset)).map(|(_, asset)| asset.group());
        let waiting: Vec<GroupId> = waiting.filter(leads).collect();
        if let Some(cluster) = &mut self.cluster {
            cluster.growing.extend(waiting);
        }
        for id in self.replicated() {
            let Some(replicated) = self.replica_mut(id) else { continue };
            let leader = replicated.replica.leader();
            if leader == node {
                replicated.proven = false;
                self.plan_election(now, id, Cause::Returned);
            } else if self.is_me(leader) {
                // What it was offered while there was no link, or on a link that broke, it did not hear.
                if let Some(replicated) = self.replica_mut(id) {
                    replicated.replica.report_snapshot(node, false);
                }
                self.ping(id);
            }
        }
    }

    /// A leader says that it leads, and goes on where messages were lost.
    pub(crate) fn ping(&mut self, id: GroupId) {
        if let Some(replicated) = self.replica_mut(id) {
            replicated.replica.ping();
            self.wake_replica(id);
        }
    }

    /// Asks those who have a group, or should, whether one of them leads it: who does says so, and sends what is missing.
    pub(crate) fn ask_for_leader(&mut self, id: GroupId) {
        let Some(replicated) = self.replica(id) else { return };
        let mut others = replicated.replica.members().all();
        let asset = self.meta.all().map(|(_, asset)| asset).find(|asset| asset.group() == id);
        others.extend(asset.into_iter().flat_map(hw_meta::Asset::peers));
        if let Some(cluster) =
            self.cluster.as_ref().filter(|_| replicated.replica.members().voters.is_empty())
        {
            // It does not know yet with whom it is, and who leads may not be among those who are to have the group.
            others.extend(cluster.peers.linked().map(|(node, _)| node));
        }
        others.sort_unstable();
        others.dedup();
        let (none, is_poll) = ((LogIndex(0), 0), true);
        let body = Body::Vote { is_poll, is_transfer: false, last: none, commit: none };
        let message = Message { term: 0, body };
        let Some(me) = self.cluster.as_ref().map(|cluster| cluster.me) else { return };
        let messages = others.into_iter().filter(|node| *node != me).map(|node| (node, message.clone()));
        self.post(id, messages.collect());
    }

    /// Whether a message may reach a replica: nobody votes against a leader that is alive.
    pub(crate) fn may_vote(&mut self, now: Time, from: NodeId, id: GroupId, message: &Message) -> bool {
        if !message.disturbs() {
            return true;
        }
        let (Some(cluster), Some(replicated)) = (&self.cluster, self.replica(id)) else { return false };
        let leader = replicated.replica.leader();
        if leader == cluster.me {
            // Who asks does not know of its leader, or that it does not belong to the group any more.
            let is_dismissed = self.is_dismissed(id, from);
            match self.cluster.as_mut().filter(|_| is_dismissed) {
                Some(cluster) => cluster.send_removed(from, id),
                None => self.ping(id),
            }
            return false;
        }
        leader.0 == 0 || leader == from || cluster.peers.may_oppose(now, leader, replicated.proven)
    }

    pub(crate) fn is_me(&self, node: NodeId) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.me == node)
    }
}
