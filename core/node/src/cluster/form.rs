//! The beginning of a cluster and the servers that join it.

use bytes::Bytes;
use hw_cluster::{Cause, FormationStep, LinkDown, PeerFrame, ReplicaNote, StoreNote};
use hw_hub::Hub;
use hw_kit::{LinkId, LogIndex, NodeId, Time};
use hw_meta::MetaCommand;
use hw_raft::{Hard, MemberChange, MemberStep, Members};
use hw_store::{Frame, FrameBuilder, FrameKind, FrameMeta};

use super::Replicated;
use super::membership::has_caught_up;
use super::replicated::note_frame;
use crate::commit::{META, STORE};
use crate::jetstream::JetStream;
use crate::log::Origin;
use crate::notice::{Notice, NoticeLevel};

/// Frames as they travel, and on which link.
type Frames = Vec<(LinkId, Bytes)>;

impl JetStream {
    /// What the other servers want of this one, and what follows from the time that has passed.
    pub(crate) fn run_cluster(&mut self, now: Time, hub: &mut Hub) {
        if self.cluster.is_none() {
            return;
        }
        self.run_elections(now, hub);
        self.run_formation(now);
        self.come_inside(hub);
        self.run_asks(now, hub);
        self.run_proposals(now, hub);
        self.run_gatherings(now, hub);
        self.run_handovers(now, hub);
        self.run_parked(now, hub);
        self.run_transfers(now);
        self.run_repairs(now, hub);
        self.run_orphans(now);
        self.run_strays(now, hub);
        self.run_lags(now);
        self.run_proofs(now);
        let growing = self.cluster.as_mut().map(|cluster| std::mem::take(&mut cluster.growing));
        for id in growing.unwrap_or_default() {
            self.follow_place(now, hub, id);
        }
        self.run_moves(now, hub);
        self.admit(now);
    }

    /// A link to another JetStream server came up.
    pub(crate) fn handle_link_up(&mut self, now: Time, link: LinkId, (node, name): (NodeId, &str)) {
        let Some(cluster) = &mut self.cluster else { return };
        if node.0 == 0 || node == cluster.me {
            return;
        }
        cluster.peers.handle_up(now, link, node, name);
        cluster.names.insert(node, name.to_owned());
        self.handle_left(node, None); // What came over the last link is here.
        self.greet(node);
        self.hand_again(now, node);
        self.handle_reached(now, node);
    }

    /// A link to another server ended.
    pub(crate) fn handle_link_down(
        &mut self,
        now: Time,
        hub: &mut Hub,
        link: LinkId,
        why: hw_route::LinkDown,
    ) {
        let Some(cluster) = &mut self.cluster else { return };
        let node = cluster.peers.node(link);
        let why = match why {
            hw_route::LinkDown::Closed => LinkDown::Closed,
            hw_route::LinkDown::Refused => LinkDown::Refused,
            hw_route::LinkDown::Silent => LinkDown::Silent,
        };
        if let Some(lost) = cluster.peers.handle_down(now, link, why) {
            self.handle_lost(now, hub, lost);
        }
        if let Some(node) = node {
            self.end_transfers(node);
            self.handle_left(node, None);
        }
    }

    /// Nothing is heard of another server, although its link stands, or something again.
    pub(crate) fn handle_link_quiet(&mut self, now: Time, hub: &mut Hub, link: LinkId, quiet: bool) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(node) = cluster.peers.node(link) else { return };
        if let Some(lost) = cluster.peers.handle_quiet(now, link, quiet) {
            self.handle_lost(now, hub, lost);
        }
        if !quiet {
            self.greet(node);
            self.handle_reached(now, node);
        }
    }

    /// Another server has heard what this one sent at a time.
    pub(crate) fn handle_link_acked(&mut self, now: Time, link: LinkId, sent: Time) {
        if let Some(cluster) = &mut self.cluster {
            cluster.peers.handle_acked(now, link, sent);
        }
    }

    /// What is to be sent to other JetStream servers: first what may leave before this server's interest, then what may not.
    pub(crate) fn take_peer_frames(&mut self) -> (Frames, Frames) {
        let handed_on = self.take_handed_on();
        let frames = self.cluster.as_mut().map(|cluster| std::mem::take(&mut cluster.outgoing));
        let mut encoded = Frames::new();
        let mut before: Option<PeerFrame> = None;
        for (link, frame) in frames.unwrap_or_default() {
            // A leader tells all followers the same.
            let same = encoded.last().filter(|_| before.as_ref() == Some(&frame));
            let bytes = same.map_or_else(|| frame.encode().into(), |(_, bytes)| bytes.clone());
            encoded.push((link, bytes));
            before = Some(frame);
        }
        (encoded, handed_on)
    }

    /// What is handed on to leaders.
    fn take_handed_on(&mut self) -> Frames {
        let Some(cluster) = &mut self.cluster else { return Frames::new() };
        let is_handed_on = |(_, frame): &mut (LinkId, PeerFrame)| {
            matches!(frame, PeerFrame::Forward { .. } | PeerFrame::Again { .. })
        };
        let handed_on = cluster.outgoing.extract_if(.., is_handed_on);
        handed_on.map(|(link, frame)| (link, frame.encode().into())).collect()
    }

    fn greet(&mut self, node: NodeId) {
        let Some(cluster) = &mut self.cluster else { return };
        let hello = cluster.hello();
        cluster.send(node, hello);
    }

    /// A frame from another JetStream server.
    pub(crate) fn handle_peer_frame(&mut self, now: Time, hub: &mut Hub, link: LinkId, bytes: &Bytes) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(from) = cluster.peers.node(link) else { return };
        cluster.peers.handle_heard(now, link);
        let Ok(frame) = PeerFrame::decode(bytes) else {
            let text = format!("server {}: a frame that cannot be read", self.node_name(from));
            return self.say(NoticeLevel::Error, text);
        };
        match frame {
            PeerFrame::Hello { node, standing, tags } if node == from => {
                cluster.tags.insert(from, tags);
                cluster.formation.handle_standing(from, standing);
                cluster.admitting = true;
                if cluster.formation.is_foreign() {
                    let text = "this server's store has streams of its own, and the cluster has begun without it: \
                        it stays outside until they are backed up and the store is removed";
                    self.say(NoticeLevel::Error, text.to_owned());
                }
            }
            PeerFrame::Hello { .. } => {}
            PeerFrame::Raft { group, message } => self.handle_raft(now, from, group, message),
            PeerFrame::Ask { id, body } => self.handle_ask(now, hub, (from, id), &body),
            PeerFrame::Answer { id, body } => self.handle_answer(now, hub, id, body),
            PeerFrame::Forward { body } => self.handle_forward(now, from, body, false),
            PeerFrame::Again { body } => self.handle_forward(now, from, body, true),
            PeerFrame::Answered { body } => self.handle_answered(from, body),
            PeerFrame::Behind { group } => self.fetch_state(now, from, group),
            PeerFrame::Removed { group } => self.leave_group(now, hub, from, group),
            PeerFrame::Left { group } => self.handle_left(from, Some(group)),
            PeerFrame::Resigned { group } => self.handle_resigned(now, from, group),
            PeerFrame::Fetch { group, transfer, after } => {
                self.send_state(now, from, (group, transfer), after)
            }
            PeerFrame::Want { group, transfer, rows } => self.handle_want(from, (group, transfer), rows),
            PeerFrame::Give { group, given } => self.handle_given(now, from, group, given),
            PeerFrame::ReadIndex { group, number } => self.handle_read_index(now, from, group, number),
            PeerFrame::ReadIndexed { group, number, index } => {
                self.handle_read_indexed(now, group, number, index);
            }
            PeerFrame::Digest { group, index, digest } => {
                self.handle_digest(now, from, (group, index), digest);
            }
            PeerFrame::Diverged { group, index } => self.handle_diverged(now, from, (group, index)),
            PeerFrame::Piece { group, transfer, last, body } => {
                self.handle_piece(now, hub, from, (group, transfer), (last, body));
            }
        }
    }

    /// Says something to who reads the log.
    pub(crate) fn say(&mut self, level: NoticeLevel, text: String) {
        if let Some(cluster) = &mut self.cluster {
            cluster.say(level, text);
        }
    }

    /// What is to be said.
    pub(crate) fn take_cluster_notices(&mut self) -> Vec<Notice> {
        self.cluster.as_mut().map(|cluster| std::mem::take(&mut cluster.notices)).unwrap_or_default()
    }

    /// What the cluster is called; empty: this server is on its own.
    pub(crate) fn cluster_name(&self) -> String {
        self.cluster.as_ref().map(|cluster| cluster.config.name.clone()).unwrap_or_default()
    }

    /// What a server is called.
    pub(crate) fn node_name(&self, node: NodeId) -> String {
        let Some(cluster) = &self.cluster else { return String::new() };
        if node == cluster.me {
            return self.config.server_name.clone();
        }
        let known = self.meta.nodes().find(|(other, _)| *other == node).map(|(_, about)| about.name.clone());
        known.or_else(|| cluster.names.get(&node).cloned()).unwrap_or_else(|| format!("{:016x}", node.0))
    }

    fn run_formation(&mut self, now: Time) {
        loop {
            let Some(cluster) = &mut self.cluster else { return };
            match cluster.formation.step(now) {
                None => return,
                Some(FormationStep::Agree(founder)) => {
                    cluster.agreeing = Some((0, founder));
                    cluster.frames.push(store_frame(&StoreNote { node: cluster.me, founder }));
                }
                Some(FormationStep::Found) => {
                    let members = Members { voters: vec![cluster.me], ..Members::default() };
                    self.found(now, members);
                }
            }
        }
    }

    /// The agreement to a founder may be durable.
    pub(crate) fn handle_agreement_synced(&mut self, ticket: u64) {
        let Some(cluster) = &mut self.cluster else { return };
        let is_durable = |(waiting, _): &mut (u64, NodeId)| *waiting != 0 && *waiting <= ticket;
        if let Some((_, founder)) = cluster.agreeing.take_if(is_durable) {
            cluster.formation.handle_agreed(founder);
            self.tell_standing();
        }
    }

    fn tell_standing(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        let hello = cluster.hello();
        let all: Vec<NodeId> = cluster.peers.linked().map(|(node, _)| node).collect();
        all.into_iter().for_each(|node| cluster.send(node, hello.clone()));
    }

    /// The meta group gets a replica here: its members are known, or come with the leader's messages.
    fn found(&mut self, now: Time, members: Members) {
        let Some(cluster) = &mut self.cluster else { return };
        let applied = self.meta_log.applied();
        let term = if applied == LogIndex(0) { 0 } else { self.meta_log.term() };
        let hard = Hard { term, commit: applied, ..Hard::default() };
        let note = ReplicaNote { hard, base: (applied, term), members, ..ReplicaNote::default() };
        let frame = note_frame(META, &note);
        let Ok(replicated) = Replicated::open((cluster.me, META), note, applied, &[]) else { return };
        cluster.frames.push(frame);
        cluster.formation.handle_member();
        self.meta_log.replicate(term, replicated);
        self.meta_changed = true;
        self.say(NoticeLevel::Info, "JetStream belongs to the cluster from now on".to_owned());
        self.plan_election(now, META, Cause::Created);
        self.tell_standing();
    }

    /// A leader of a meta group takes this server in, which was in none; says whether it may.
    pub(crate) fn join(&mut self, now: Time, from: NodeId) -> bool {
        let Some(cluster) = &mut self.cluster else { return false };
        if cluster.formation.standing().has_streams || !cluster.formation.is_member(from) {
            return false;
        }
        let founder = cluster.formation.founder_of(from);
        cluster.formation.handle_agreed(founder);
        cluster.frames.push(store_frame(&StoreNote { node: cluster.me, founder }));
        self.found(now, Members::default());
        true
    }

    /// The leader of the meta group takes in who is not in it yet: first as a learner, then with a vote.
    fn admit(&mut self, now: Time) {
        let Some(cluster) = &mut self.cluster else { return };
        if !std::mem::take(&mut cluster.admitting) || !self.meta_log.is_leading() {
            return;
        }
        let Some(replicated) = &mut self.meta_log.replicated else { return };
        let status = replicated.replica.status();
        if !status.members.outgoing.is_empty() {
            return;
        }
        let linked: Vec<NodeId> = cluster.peers.linked().map(|(node, _)| node).collect();
        let mut changed = false;
        for node in linked {
            if status.members.voters.contains(&node) {
                continue;
            }
            if self.meta.is_removed(node) {
                continue;
            }
            let is_ready = status.members.learners.contains(&node) && has_caught_up(&status, node);
            let mut steps = match is_ready {
                true => vec![MemberStep::Voter(node)],
                false if status.members.learners.contains(&node) || !cluster.formation.may_join(node) => {
                    continue;
                }
                false => vec![MemberStep::Learner(node)],
            };
            if is_ready {
                // With a new store a server takes its own place, at once: in between there would be one vote too many.
                let is_old = |old: &NodeId| {
                    let known =
                        self.meta.nodes().find(|(other, _)| other == old).map(|(_, about)| &about.name);
                    known.is_some_and(|name| cluster.names.get(&node) == Some(name))
                        && *old != cluster.me
                        && !cluster.peers.is_alive(*old)
                };
                steps.extend(status.members.voters.iter().copied().filter(is_old).map(MemberStep::Remove));
            }
            changed = replicated.replica.change_members(MemberChange { steps }).is_ok();
            // Something else may have to be decided first.
            cluster.admitting |= !changed;
            break;
        }
        if changed {
            cluster.busy.insert(META);
        }
        self.register();
        self.replace_lost(now);
    }

    /// A server whose store was lost came back with a new one, under its name: that takes the place of the old one.
    fn replace_lost(&mut self, _now: Time) {
        let (Some(cluster), Some(replicated)) = (&mut self.cluster, &mut self.meta_log.replicated) else {
            return;
        };
        let members = replicated.replica.members().clone();
        let nodes: Vec<(NodeId, String)> =
            self.meta.nodes().map(|(node, about)| (node, about.name.clone())).collect();
        let name_of = |node: NodeId| nodes.iter().find(|(other, _)| *other == node).map(|(_, name)| name);
        for (old, name) in &nodes {
            let is_lost = !cluster.peers.is_alive(*old) && *old != cluster.me;
            let new = members.voters.iter().find(|node| *node != old && name_of(**node) == Some(name));
            let Some(new) = new.filter(|new| is_lost && cluster.peers.link(**new).is_some()) else {
                continue;
            };
            let command = MetaCommand::Replace { old: old.0, new: new.0 };
            self.meta_log.propose(Origin::None, |out| command.encode(out));
            return;
        }
        // Who is not on the list any more has no vote either.
        let is_gone = |node: &&NodeId| {
            name_of(**node).is_none() && !cluster.peers.is_alive(**node) && **node != cluster.me
        };
        if let Some(gone) = members.voters.iter().chain(&members.learners).find(is_gone)
            && members.outgoing.is_empty()
            && replicated.replica.change_members(MemberChange::one(MemberStep::Remove(*gone))).is_ok()
        {
            cluster.busy.insert(META);
        }
    }

    /// The list of servers follows the members of the meta group.
    fn register(&mut self) {
        let Some(replicated) = &self.meta_log.replicated else { return };
        let voters = replicated.replica.status().members.voters;
        let known: Vec<(NodeId, hw_meta::Node)> =
            self.meta.nodes().map(|(node, about)| (node, about.clone())).collect();
        let is_here = |node: &NodeId| {
            self.cluster.as_ref().is_some_and(|cluster| *node == cluster.me || cluster.peers.is_alive(*node))
        };
        let voters: Vec<NodeId> = voters.into_iter().filter(is_here).collect();
        for node in voters {
            let Some(tags) = self.told_tags(node) else { continue };
            let name = self.called(node);
            if known.iter().any(|(other, old)| *other == node && old.name == name && old.tags == tags) {
                continue;
            }
            let command = MetaCommand::Join { node: node.0, name, tags };
            self.meta_log.propose(Origin::None, |out| command.encode(out));
        }
    }

    /// The tags that a server says it has; None: it has said nothing yet.
    fn told_tags(&self, node: NodeId) -> Option<Vec<String>> {
        let cluster = self.cluster.as_ref()?;
        let told = if node == cluster.me { Some(&cluster.config.tags) } else { cluster.tags.get(&node) };
        told.map(|tags| tags.iter().map(|tag| tag.to_lowercase()).collect())
    }

    /// What a server calls itself now.
    fn called(&self, node: NodeId) -> String {
        let now = self.cluster.as_ref().and_then(|cluster| cluster.names.get(&node).cloned());
        now.unwrap_or_else(|| self.node_name(node))
    }

    /// This server leads the meta group from now on.
    pub(crate) fn start_leading_meta(&mut self, _now: Time) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.admitting = true;
        let me = cluster.me.0;
        self.abandon_other_restores();
        if self.meta.all().any(|(_, asset)| asset.peers.is_empty()) {
            let command = MetaCommand::Settle { node: me };
            self.meta_log.propose(Origin::None, |out| command.encode(out));
        }
        self.register();
    }

    /// The members of a group changed.
    pub(crate) fn handle_members(&mut self, id: hw_kit::GroupId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.admitting |= id == META;
        }
        self.meta_changed |= id == META;
    }
}

/// What a store keeps about the cluster, as a frame.
pub(crate) fn store_frame(note: &StoreNote) -> Frame {
    let mut builder = FrameBuilder::new();
    note.encode(builder.begin_entry());
    builder.end_entry();
    builder.finish(FrameMeta { group: STORE, term: 0, first: LogIndex(0), kind: FrameKind::Note })
}
