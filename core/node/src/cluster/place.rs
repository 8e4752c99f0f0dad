//! Where streams are: which of them have a place on this server, and the servers for a new one.

use hw_cluster::{Cause, ReplicaNote};
use hw_hub::Hub;
use hw_jsapi::{ApiError, Kind, Parsed, Refused};
use hw_kit::{AccountId, GroupId, LogIndex, NodeId, Span, Time};
use hw_meta::{Asset, MetaAnswer, Wish};
use hw_raft::{Hard, MemberStep, Members, StartError};
use hw_stream::StreamConfig;
use hw_stream::config::Placement;
use hw_stream::info::{ClusterInfo, PeerInfo};

use super::membership::{Step, next_step};
use super::replicated::note_frame;
use super::{Replicated, Saved};
use crate::commit::META;
use crate::jetstream::JetStream;
use crate::log::Log;
use crate::view::Damaged;

/// Who has to answer for a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Duty {
    /// This server.
    Here,
    /// Another one, or nobody at the moment.
    Elsewhere,
}

impl JetStream {
    /// Whether this server decides which streams there are.
    pub(crate) fn leads_meta(&self) -> bool {
        self.meta_log.is_leading() && (self.cluster.is_none() || self.meta_log.replicated.is_some())
    }

    /// Whether this server leads a group, and no successor is on its way.
    pub(crate) fn decides(&self, id: GroupId) -> bool {
        let leads = match id {
            META => self.leads_meta(),
            id => self.groups.get(&id).is_some_and(|group| group.log.is_leading()),
        };
        leads && self.cluster.as_ref().is_none_or(|cluster| !cluster.handovers.holds(id))
    }

    /// Who answers a request about a stream: its leader; where there is no such stream, who decides that.
    pub(crate) fn duty(&self, now: Time, account: AccountId, stream: &str) -> Duty {
        if self.cluster.is_none() {
            return Duty::Here;
        }
        let here = match self.meta.stream(&self.account_name(account), stream) {
            None => self.decides(META) && self.may_read(now, META),
            Some(asset) => {
                let id = asset.group();
                self.groups.get(&id).is_some_and(|group| group.log.is_leading()) && self.may_read(now, id)
            }
        };
        if here { Duty::Here } else { Duty::Elsewhere }
    }

    /// Whether a stream has a place on this server, be it only until it is elsewhere. Who has nothing of a stream that is to
    /// leave it, as it did not hear of it in time, begins it: nobody else can, and before that nobody says that it has moved.
    pub(crate) fn is_placed_here(&self, asset: &Asset) -> bool {
        self.cluster.as_ref().is_none_or(|cluster| asset.servers().any(|node| node == cluster.me))
    }

    /// The log of a stream that begins, or of which something was on disk already. Who is to have a replica and cannot have
    /// one is not alone: the error says why nothing is opened.
    pub(crate) fn new_log(
        &self,
        asset: &Asset,
        (saved, applied): (Option<Saved>, LogIndex),
    ) -> Result<Log, StartError> {
        let mut log = Log::new(asset.group(), applied);
        let Some(cluster) = &self.cluster else { return Ok(log) };
        let (who, founding) = ((cluster.me, asset.group()), self.founding_note(asset));
        let opened = match saved {
            Some(saved) => saved.open(founding, who, applied)?,
            // What is here was never replicated.
            None if applied > LogIndex(0) => return Ok(log),
            None if asset.is_alone(cluster.me) && asset.peers().all(|node| node == cluster.me) => {
                return Ok(log);
            }
            None => (0, Replicated::open(who, founding, applied, &[])?),
        };
        log.replicate(opened.0, opened.1);
        Ok(log)
    }

    /// A group is open: if it has a replica, that begins.
    pub(crate) fn note_opened(&mut self, now: Time, id: GroupId) {
        if self.replica(id).is_some()
            && let Some(cluster) = &mut self.cluster
        {
            cluster.busy.insert(id);
            cluster.opened.push((now, id));
        }
        let is_new =
            self.replica(id).is_some_and(|replicated| replicated.replica.members().voters.is_empty());
        if is_new {
            // Whoever leads may have sent something before there was anybody here to hear it.
            self.ask_for_leader(id);
        }
    }

    /// Whether what this server had of a group is about to go, and no checkpoint says so yet.
    pub(crate) fn is_going(&self, id: GroupId) -> bool {
        self.disk.dropped.contains(&id) || self.disk.dropping.contains(&id)
    }

    /// A group that was here, and is to be here again, begins when nothing is left of the time before.
    pub(crate) fn open_later(&mut self, id: GroupId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.growing.insert(id);
        }
        self.disk.must_checkpoint = true;
        self.begin_checkpoint();
    }

    /// A stream that cannot be opened is put aside, and everybody who asks is told why.
    pub(crate) fn put_aside(
        &mut self,
        now: Time,
        id: GroupId,
        (account, stream): (&str, &str),
        reason: String,
    ) {
        let (account, stream) = (account.to_owned(), stream.to_owned());
        let damaged = Damaged { account: account.clone(), stream, reason: reason.clone(), quarantined: true };
        self.aside.quarantined.insert(id, damaged);
        self.note_damage(now, id, account, reason);
    }

    /// How a group begins on this server.
    pub(crate) fn founding_note(&self, asset: &Asset) -> ReplicaNote {
        let me = self.cluster.as_ref().map_or(NodeId(0), |cluster| cluster.me);
        // Members are sorted; the asset has them in the order in which they should lead.
        let mut founders: Vec<NodeId> = asset.founders.iter().map(|&node| NodeId(node)).collect();
        founders.sort_unstable();
        // Who came later is told by the leader who belongs to the group.
        let voters = if asset.is_founder(me) { founders } else { Vec::new() };
        ReplicaNote { members: Members { voters, ..Members::default() }, ..ReplicaNote::default() }
    }

    /// Groups that were opened in this round elect a leader.
    pub(crate) fn elect_opened(&mut self) {
        let opened = self.cluster.as_mut().map(|cluster| std::mem::take(&mut cluster.opened));
        for (now, id) in opened.unwrap_or_default() {
            self.plan_election(now, id, Cause::Created);
        }
    }

    /// A group that is gone has no replica any more.
    pub(crate) fn forget_replica(&mut self, id: GroupId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.elections.cancel(id);
            cluster.busy.remove(&id);
            // Nor is anything of it written any more: what comes behind its end in the log would be of a new beginning.
            cluster.frames.retain(|frame| frame.group() != id);
            cluster.transfers.forget(id);
            cluster.handovers.forget(id);
            cluster.forwards.handed.forget_heard(id);
            cluster.compares.forget(id);
            cluster.repairs.forget(id);
            cluster.proofs.forget(id);
            cluster.leavers.retain(|(group, _)| *group != id);
        }
    }

    /// The servers for a new stream; none on a server on its own.
    pub(crate) fn peers_for(&self, config: &StreamConfig) -> Result<Vec<u64>, ApiError> {
        if self.cluster.is_none() {
            return Ok(Vec::new());
        }
        let placement = config.placement.clone().unwrap_or_default();
        self.choose(&placement, replicas(config), &[], &self.reached_members())
    }

    /// So many servers, those that are kept first, as a placement and the configuration want it.
    pub(crate) fn choose(
        &self,
        placement: &Placement,
        replicas: usize,
        kept: &[u64],
        reached: &[NodeId],
    ) -> Result<Vec<u64>, ApiError> {
        let Some(cluster) = &self.cluster else { return Ok(Vec::new()) };
        let is_elsewhere = !placement.cluster.is_empty() && placement.cluster != cluster.config.name;
        let reached = if is_elsewhere { &[] } else { reached };
        let kept = if is_elsewhere { &[] } else { kept };
        // Who only gives servers up need not find others.
        let unique = if replicas <= kept.len() { "" } else { cluster.config.unique_tag.as_str() };
        let max_shared = cluster.config.max_shared;
        let place = |reached: &[NodeId]| {
            self.meta.place(&Wish { replicas, kept, reached, tags: &placement.tags, unique, max_shared })
        };
        // One whose link has just ended may come back, or may be gone: it gets something new only where nobody else can.
        let is_up = |node: &NodeId| *node == cluster.me || cluster.peers.is_up(*node);
        let up: Vec<NodeId> = reached.iter().copied().filter(is_up).collect();
        place(&up).or_else(|_| place(reached)).map_err(|why| ApiError::with(10005, why))
    }

    /// The servers of the cluster that can be reached, this one included.
    pub(crate) fn reached_members(&self) -> Vec<NodeId> {
        let (Some(cluster), Some(replicated)) = (&self.cluster, self.replica(META)) else {
            return Vec::new();
        };
        let is_here = |node: &NodeId| *node == cluster.me || cluster.peers.is_alive(*node);
        replicated.replica.members().voters.iter().copied().filter(is_here).collect()
    }

    /// The servers for a stream that is updated; none when they stay.
    pub(crate) fn peers_after(&self, account: &str, config: &StreamConfig) -> Result<Vec<u64>, ApiError> {
        let Some(cluster) = &self.cluster else { return Ok(Vec::new()) };
        let Some(asset) = self.meta.stream(account, &config.name) else { return Ok(Vec::new()) };
        let wanted = replicas(config);
        let placement = config.placement.clone().unwrap_or_default();
        let is_move = placement != Placement::default() && asset.config.placement != config.placement;
        if is_move && wanted != replicas(&asset.config) {
            return Err(ApiError::new(10123));
        }
        if !is_move && asset.peers.len() == wanted {
            return Ok(Vec::new());
        }
        self.check_settled(asset, is_move)?;
        let mut peers = asset.peers.clone();
        // Who leads stays, and comes first.
        let leader = self.replica(asset.group()).map_or(cluster.me, |replicated| replicated.replica.leader());
        peers.sort_by_key(|peer| *peer != leader.0);
        self.choose(&placement, wanted, &peers, &self.reached_members())
    }

    /// Whether this server has to answer a request.
    pub(crate) fn is_mine(&self, now: Time, account: AccountId, parsed: &Parsed) -> bool {
        if self.cluster.is_none() {
            return true;
        }
        if let Parsed::Request(Kind::MetaRescue, _)
        | Parsed::Refused(Refused { kind: Kind::MetaRescue, .. }) = parsed
        {
            return true; // Every server answers.
        }
        // Nobody else can decide by now: it would grant what is refused here.
        let decides = self.decides(META) && self.may_read(now, META);
        let Parsed::Request(_, request) = parsed else { return decides };
        let Some(stream) = request.of_stream() else {
            return decides && self.gathers_until(now, parsed).is_none();
        };
        self.duty(now, account, stream) == Duty::Here
    }

    /// What the meta group decided may change who has a stream.
    pub(crate) fn follow_meta(&mut self, now: Time, hub: &mut Hub, answer: &MetaAnswer) {
        let Some(cluster) = &mut self.cluster else { return };
        // The list of servers may be another one.
        cluster.admitting |= matches!(answer, MetaAnswer::Done | MetaAnswer::Joined(_) | MetaAnswer::Moved);
        let ids: Vec<GroupId> = match answer {
            MetaAnswer::Updated(Ok(id)) | MetaAnswer::Restored(Ok(id)) | MetaAnswer::Placed(id) => vec![*id],
            MetaAnswer::Moved => self.meta.all().map(|(_, asset)| asset.group()).collect(),
            MetaAnswer::Joined(node) => return self.fill_up(now, *node),
            _ => return,
        };
        for id in ids {
            self.follow_place(now, hub, id);
        }
        self.elect_opened();
    }

    /// A stream may have to be here from now on, or to get other servers.
    pub(crate) fn follow_place(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        if id == META {
            return self.follow_members(now, id);
        }
        let Some((account, asset)) = self.meta.all().find(|(_, asset)| asset.group() == id) else { return };
        let (account, asset) = (account.to_owned(), asset.clone());
        if !self.groups.contains_key(&id) {
            return self.open_group(now, hub, (&account, &asset.config.name));
        }
        if !self.is_placed_here(&asset) && !self.log(id).is_some_and(Log::is_leading) {
            // Who leads says when it is not needed here any more, perhaps for the second time.
            self.note_stray(now, id);
            return self.ask_for_leader(id);
        }
        let is_only_here = asset.peers().all(|node| self.is_me(node));
        let begins = |log: &Log| log.replicated.is_none() && (!is_only_here || log.is_held());
        if self.log(id).is_some_and(begins) {
            self.begin_replication(now, id);
        }
        self.follow_members(now, id);
    }

    /// The leader tells those who do not belong to a group any more: they hear nothing of it from now on.
    pub(crate) fn dismiss(&mut self, id: GroupId, before: &[NodeId]) {
        let Some(replicated) = self.replica(id).filter(|replicated| replicated.is_leading()) else { return };
        let members = replicated.replica.members().clone();
        let gone: Vec<NodeId> = before.iter().copied().filter(|node| !members.contains(*node)).collect();
        if let Some(cluster) = self.cluster.as_mut().filter(|_| !gone.is_empty()) {
            cluster.dismissals.push((0, id, gone));
        }
    }

    /// What is durable may end somebody's membership.
    pub(crate) fn send_dismissals(&mut self, ticket: u64) {
        let Some(cluster) = &mut self.cluster else { return };
        let is_durable = |(waits, ..): &mut (u64, GroupId, Vec<NodeId>)| *waits != 0 && *waits <= ticket;
        let durable: Vec<_> = cluster.dismissals.extract_if(.., is_durable).collect();
        for (_, group, gone) in durable {
            gone.into_iter().for_each(|node| cluster.send_removed(node, group));
        }
    }

    /// Whether what a server said as a member of a group, before it left, may still be on its way. If it came back before that
    /// is here, it would count as if it had now what it had then.
    fn is_leaving_group(&self, id: GroupId, node: NodeId) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| {
            let waits = cluster.dismissals.iter().any(|(_, of, gone)| *of == id && gone.contains(&node));
            waits || cluster.leavers.contains(&(id, node))
        })
    }

    /// Nothing more comes of what a server said as a member of a group; None: of any, as its link is gone.
    pub(crate) fn handle_left(&mut self, node: NodeId, id: Option<GroupId>) {
        let Some(cluster) = &mut self.cluster else { return };
        let is_it = |(of, who): &(GroupId, NodeId)| *who == node && id.is_none_or(|id| id == *of);
        let left = cluster.leavers.extract_if(.., is_it);
        let groups: Vec<GroupId> = left.map(|(of, _)| of).collect();
        cluster.growing.extend(groups);
    }

    /// Whether a server does not belong to a group that is led here, and may know it.
    pub(crate) fn is_dismissed(&self, id: GroupId, node: NodeId) -> bool {
        let is_waiting = |cluster: &super::Cluster| cluster.dismissals.iter().any(|(_, of, _)| *of == id);
        let is_member = |replicated: &Replicated| replicated.replica.members().contains(node);
        self.replica(id).is_some_and(|replicated| replicated.is_leading() && !is_member(replicated))
            && !self.cluster.as_deref().is_some_and(is_waiting)
    }

    /// The leader says that this server does not belong to a group: if the meta group agrees, what is here of it goes.
    pub(crate) fn leave_group(&mut self, now: Time, hub: &mut Hub, from: NodeId, id: GroupId) {
        let asset = self.meta.all().find(|(_, asset)| asset.group() == id);
        let is_placed = asset.is_none_or(|(_, asset)| self.is_placed_here(asset));
        if id != META && !is_placed {
            self.close_group(now, hub, id);
        }
        if id == META {
            self.go_outside(hub);
        }
        if let Some(cluster) = &mut self.cluster {
            cluster.send(from, hw_cluster::PeerFrame::Left { group: id });
        }
    }

    /// A stream that only this server has is to have others: its log goes on as that of a group of one member.
    fn begin_replication(&mut self, now: Time, id: GroupId) {
        let (Some(cluster), Some(group)) = (&mut self.cluster, self.groups.get_mut(&id)) else { return };
        let (is_held, is_volatile) = (group.log.is_held(), group.is_volatile());
        let log = &mut group.log;
        if log.is_unsaved() {
            return; // The checkpoint says when.
        }
        if !is_held && !log.is_settled() {
            cluster.growing.insert(id);
            return;
        }
        if is_volatile {
            return self.leave_memory(id);
        }
        let applied = log.applied();
        // Nothing was ever proposed to it: there is no last entry.
        let term = if applied == LogIndex(0) { 0 } else { log.term() };
        let hard = Hard { term, commit: applied, ..Hard::default() };
        let members = Members { voters: vec![cluster.me], ..Members::default() };
        let note = ReplicaNote { hard, base: (applied, term), members, ..ReplicaNote::default() };
        let frame = note_frame(id, &note);
        let Ok(mut replicated) = Replicated::open((cluster.me, id), note, applied, &[]) else { return };
        cluster.frames.push(frame);
        replicated.lead_alone(now);
        log.replicate(term, replicated);
        cluster.busy.insert(id);
    }

    /// A stream that was in memory only is to have other servers. Its log was written nowhere, so what a replica would write
    /// would have no beginning: first everything that is there goes to the disk. What is published meanwhile waits for that.
    fn leave_memory(&mut self, id: GroupId) {
        self.uncount(id); // It counts as something else from now on.
        if let Some(group) = self.groups.get_mut(&id) {
            group.log.hold();
            group.stream.messages_mut().keep_on_disk();
            group.changed = true;
        }
        self.recount(id);
        self.disk.must_checkpoint = true;
        self.begin_checkpoint();
    }

    /// A checkpoint has ended: streams that left the memory go on with replicas, or wait for the next one.
    pub(crate) fn handle_held_saved(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        for group in self.groups.values().filter(|group| group.log.is_held()) {
            match group.log.is_unsaved() {
                true => self.disk.must_checkpoint = true,
                false => drop(cluster.growing.insert(group.id)),
            }
        }
    }

    /// Who leads a stream brings its members to what the meta group wants: those that come learn first, one by one, and then all
    /// votes change at once. Nobody but the group's own majorities, of before and of after, decides in between.
    pub(crate) fn follow_members(&mut self, now: Time, id: GroupId) {
        if id == META {
            if let Some(cluster) = &mut self.cluster {
                cluster.admitting = true;
            }
            return;
        }
        if !self.log(id).is_some_and(Log::is_leading) {
            return;
        }
        let Some((_, asset)) = self.meta.all().find(|(_, asset)| asset.group() == id) else { return };
        let wanted: Vec<NodeId> = asset.peers().collect();
        let (Some(cluster), Some(replicated)) = (&self.cluster, self.replica(id)) else {
            return self.note_placed(now, id);
        };
        let is_alive = |node: NodeId| node == cluster.me || cluster.peers.is_alive(node);
        let is_begun = match next_step(&replicated.replica.status(), &wanted, cluster.me, is_alive) {
            Step::Nothing => {
                self.forget_proof(id);
                return self.note_placed(now, id);
            }
            Step::HandOver(to) => self.hand_over(now, id, Some(to)),
            Step::Change(change)
                if change.steps.iter().any(
                    |step| matches!(step, MemberStep::Learner(node) if self.is_leaving_group(id, *node)),
                ) =>
            {
                return; // It says when it has left.
            }
            Step::Change(change) => {
                if !self.may_change(id, &wanted, &change) {
                    return;
                }
                let Some(replicated) = self.replica_mut(id) else { return };
                let is_begun = replicated.replica.change_members(change).is_ok();
                self.wake_replica(id);
                is_begun
            }
        };
        self.retry_unless(is_begun, id);
    }

    /// Members change later, when something else has to be decided first.
    fn retry_unless(&mut self, is_begun: bool, id: GroupId) {
        if let Some(cluster) = self.cluster.as_mut().filter(|_| !is_begun) {
            cluster.growing.insert(id);
        }
    }

    /// Where an asset is, as responses about it show it.
    pub(crate) fn cluster_info(&self, now: Time, id: GroupId) -> Option<ClusterInfo> {
        let Some(cluster) = &self.cluster else {
            return Some(ClusterInfo { leader: self.config.server_name.clone(), ..ClusterInfo::default() });
        };
        let mut info = ClusterInfo { name: cluster.config.name.clone(), ..ClusterInfo::default() };
        let Some(replicated) = self.replica(id) else {
            info.leader = self.config.server_name.clone();
            return Some(info);
        };
        info.raft_group = self.raft_group(id);
        let leader = replicated.replica.leader();
        info.leader = if self.lacks_leader(id) { String::new() } else { self.node_name(leader) };
        info.leader_since = replicated.is_leading().then(|| replicated.since.to_rfc3339());
        info.system_account = true;
        info.traffic_account = "$SYS".to_owned();
        let mut peers = self.peer_infos(now, id);
        peers.retain(|peer| peer.peer != node_key(cluster.me));
        info.replicas = peers;
        info.desired = self.desired(id);
        Some(info)
    }

    /// The same for a consumer, which is where its stream is.
    pub(crate) fn consumer_cluster(&self, now: Time, id: GroupId) -> Option<ClusterInfo> {
        let mut info = ClusterInfo { desired: None, ..self.cluster_info(now, id)? };
        if let Some(rest) = info.raft_group.strip_prefix('S') {
            info.raft_group = format!("C{rest}");
        }
        Some(info)
    }

    /// All servers of a group by name, this one included.
    pub(crate) fn peer_infos(&self, now: Time, id: GroupId) -> Vec<PeerInfo> {
        let (Some(cluster), Some(replicated)) = (&self.cluster, self.replica(id)) else { return Vec::new() };
        let status = replicated.replica.status();
        let one = |node: &NodeId| {
            let is_me = *node == cluster.me;
            let is_alive = is_me || cluster.peers.is_alive(*node);
            let matched = status.peers.iter().find(|peer| peer.node == *node).map(|peer| peer.matched);
            let lag = matched.filter(|_| !is_me).map_or(0, |matched| status.last.0.saturating_sub(matched.0));
            let heard = cluster.peers.get(*node).filter(|_| !is_me).map(|peer| peer.heard);
            PeerInfo {
                name: self.node_name(*node),
                current: is_alive && lag == 0,
                offline: !is_alive,
                active: heard.map_or(Span::ZERO, |heard| now.since(heard).max(Span::ZERO)),
                lag,
                peer: node_key(*node),
            }
        };
        let mut peers: Vec<PeerInfo> =
            status.members.voters.iter().chain(&status.members.learners).map(one).collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        peers
    }

    /// The name of a group as the API shows it.
    pub(crate) fn raft_group(&self, id: GroupId) -> String {
        if id == META {
            return "_meta_".to_owned();
        }
        let Some(group) = self.groups.get(&id) else { return String::new() };
        let config = group.stream.config();
        let storage = if config.storage == hw_stream::config::Storage::Memory { 'M' } else { 'F' };
        format!("S-R{}{storage}-{:08}", config.num_replicas.max(1), id.0)
    }
}

/// How many servers a stream is to have.
pub(super) fn replicas(config: &StreamConfig) -> usize {
    usize::try_from(config.num_replicas.max(1)).unwrap_or(1)
}

/// A server's number as the API shows it.
pub(crate) fn node_key(node: NodeId) -> String {
    format!("{:016x}", node.0)
}
