//! Replicas at work: what was proposed goes to them, what they want goes to disk and servers, what they commit is applied.

use bytes::Bytes;
use hw_cluster::PeerFrame;
use hw_hub::Hub;
use hw_kit::{GroupId, LogIndex, NodeId, Time};
use hw_raft::{Body, Entry, EntryKind, Message, Ready, Refused, Role};
use hw_store::{Frame, FrameMeta};

use super::Replicated;
use super::checked::meta_of;
use super::repair::Remedy;
use super::replicated::frame_of;
use crate::commit::META;
use crate::jetstream::JetStream;
use crate::log::Log;

impl JetStream {
    /// A group's log on this server.
    pub(crate) fn log_mut(&mut self, id: GroupId) -> Option<&mut Log> {
        if id == META {
            Some(&mut self.meta_log)
        } else {
            self.groups.get_mut(&id).map(|group| &mut group.log)
        }
    }

    /// The same, to look at.
    pub(crate) fn log(&self, id: GroupId) -> Option<&Log> {
        if id == META { Some(&self.meta_log) } else { self.groups.get(&id).map(|group| &group.log) }
    }

    /// A group's replica on this server.
    pub(crate) fn replica_mut(&mut self, id: GroupId) -> Option<&mut Replicated> {
        self.log_mut(id)?.replicated.as_deref_mut()
    }

    /// The same, to look at.
    pub(crate) fn replica(&self, id: GroupId) -> Option<&Replicated> {
        self.log(id)?.replicated.as_deref()
    }

    /// A replica has something to do before the round ends.
    pub(crate) fn wake_replica(&mut self, id: GroupId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.busy.insert(id);
        }
    }

    /// Lets replicas act until they wait for disk or servers; says whether any did.
    pub(crate) fn drive(&mut self, now: Time, hub: &mut Hub) -> bool {
        let is_held = self.is_handed_over(META);
        if self.meta_log.replicated.is_some() && self.meta_log.is_open() && !is_held {
            self.wake_replica(META);
        }
        let mut any = false;
        while let Some(id) = self.cluster.as_mut().and_then(|cluster| cluster.busy.pop_first()) {
            any = true;
            if self.disk.failed.is_none() {
                self.drive_replica(now, hub, id);
            }
        }
        any
    }

    fn drive_replica(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        // While a successor is on its way the replica takes nothing: it waits here, until there is one or none.
        if !self.is_handed_over(id) {
            self.propose_open(id);
        }
        loop {
            let mut ready = Ready::default();
            let more = self.replica_mut(id).is_some_and(|replicated| replicated.replica.ready(&mut ready));
            if !more {
                break;
            }
            self.take_ready(now, hub, id, ready);
        }
        self.note_lag(now, id);
    }

    /// What was proposed goes to the replica.
    pub(crate) fn propose_open(&mut self, id: GroupId) {
        let can_propose = |log: &&mut Log| {
            log.replicated.as_ref().is_some_and(|replicated| replicated.replica.can_propose())
        };
        // One that has only just begun to lead alone takes nothing before its vote is durable: it waits here until then, or until
        // somebody else leads.
        let Some(log) = self.log_mut(id).filter(can_propose) else { return };
        let frames = log.cut();
        let Some(replicated) = &mut log.replicated else { return };
        for frame in frames {
            if replicated.replica.propose(frame.log_body()).is_err() {
                break; // It does not lead any more, which it says soon.
            }
            replicated.checked.keep(frame);
        }
    }

    /// Whether a successor is on its way: nothing is proposed or delivered in the meantime.
    pub(crate) fn is_handed_over(&self, id: GroupId) -> bool {
        self.cluster.as_ref().is_some_and(|cluster| cluster.handovers.holds(id))
    }

    fn take_ready(&mut self, now: Time, hub: &mut Hub, id: GroupId, ready: Ready) {
        let must_sync = ready.must_sync();
        let Ready { number, reset, entries, hard, messages, after, committed, role, wants_snapshot, .. } =
            ready;
        if let Some(role) = role {
            self.handle_role(now, hub, id, role);
        }
        self.post(id, messages);
        for peer in wants_snapshot {
            self.offer_state(id, peer);
        }
        let voids =
            reset.map(|(index, term)| Entry { index, term, kind: EntryKind::Batch, body: Bytes::new() });
        let mut frames: Vec<Frame> = Vec::new();
        let mut free = Vec::new();
        let mut waits = false;
        if let Some(replicated) = self.replica_mut(id) {
            let log = |entry| replicated.checked.log(id, entry);
            let logged = voids.iter().chain(&entries).map(log);
            frames
                .extend(logged.map(|frame| frame.expect("invariant: bodies are checked when they come in")));
            frames.extend(hard.map(|hard| replicated.note(id, hard)));
            waits = must_sync || replicated.is_writing();
            replicated.hold(number, after);
            if !waits {
                free = replicated.handle_persisted(number);
            }
        }
        self.note_change(id);
        if let Some(cluster) = &mut self.cluster {
            cluster.frames.append(&mut frames);
            if waits {
                cluster.written.push((id, number));
            }
        }
        self.post(id, free);
        for entry in committed {
            self.apply_entry(now, hub, id, &entry);
        }
    }

    /// Its term or log changed: the next checkpoint contains it.
    fn note_change(&mut self, id: GroupId) {
        if id == META {
            self.meta_changed = true;
        } else if let Some(group) = self.groups.get_mut(&id) {
            group.changed = true;
        }
    }

    /// Sends a replica's messages.
    pub(crate) fn post(&mut self, group: GroupId, messages: Vec<(NodeId, Message)>) {
        let Some(cluster) = &mut self.cluster else { return };
        for (to, message) in messages {
            cluster.send(to, PeerFrame::Raft { group, message });
        }
    }

    /// What was written for replicas at the end of a round waits for this ticket.
    pub(crate) fn cut_replica_frames(&mut self) -> Vec<Frame> {
        self.cluster.as_mut().map(|cluster| std::mem::take(&mut cluster.frames)).unwrap_or_default()
    }

    /// The frames of this round have a ticket.
    pub(crate) fn note_ticket(&mut self, ticket: u64) {
        let Some(cluster) = &mut self.cluster else { return };
        let written = std::mem::take(&mut cluster.written);
        cluster.unsynced.extend(written.into_iter().map(|(group, number)| (ticket, group, number)));
        for (waiting, ..) in cluster.dismissals.iter_mut().filter(|(waiting, ..)| *waiting == 0) {
            *waiting = ticket;
        }
        if let Some((waiting, _)) = cluster.agreeing.as_mut().filter(|(waiting, _)| *waiting == 0) {
            *waiting = ticket;
        }
    }

    /// Everything up to a ticket is durable: replicas say so.
    pub(crate) fn handle_replicas_synced(&mut self, ticket: u64) {
        loop {
            let Some(cluster) = &mut self.cluster else { return };
            let Some((_, id, number)) = cluster.unsynced.pop_front_if(|(of, ..)| *of <= ticket) else {
                break;
            };
            let free = self.replica_mut(id).map(|replicated| replicated.handle_persisted(number));
            self.post(id, free.unwrap_or_default());
            self.wake_replica(id);
        }
        self.send_dismissals(ticket);
        self.handle_agreement_synced(ticket);
    }

    /// An entry is committed.
    fn apply_entry(&mut self, now: Time, hub: &mut Hub, id: GroupId, entry: &Entry) {
        let meta = meta_of(id, entry);
        if entry.kind == EntryKind::Change {
            let before = self.replica(id).map(|replicated| replicated.replica.members().all());
            if let Some(replicated) = self.replica_mut(id) {
                let done = replicated.replica.apply_change(entry);
                debug_assert!(done.is_ok(), "{done:?}");
                let frame = replicated.note_commit(id, entry.index);
                if let Some(cluster) = &mut self.cluster {
                    cluster.frames.push(frame);
                }
            }
            self.pass(id, meta);
            self.handle_members(id);
            self.dismiss(id, &before.unwrap_or_default());
            if self.lacks_leader(id) {
                // After a restart this server may learn only now that it has a vote.
                self.plan_election(now, id, hw_cluster::Cause::Started);
            }
        } else if self.is_in_state(id, entry.index) {
            // It came with the leader's state.
        } else if self.replica(id).is_some_and(|replicated| replicated.hollow) {
            // What is being fetched contains it.
            self.pass(id, meta);
        } else if entry.body.is_empty() {
            self.pass(id, meta);
            self.resolve_handed(now, id, entry.term);
            if self.replica_mut(id).is_some_and(|replicated| replicated.handle_first(now, entry.term)) {
                self.start_leading(now, hub, id);
            }
            if id == META {
                self.resolve_proposals(entry.term);
            }
        } else if let Some(frame) =
            self.replica_mut(id).and_then(|replicated| replicated.checked.take(id, entry))
        {
            self.apply_frame(now, hub, &frame);
            // Also of a stream that is gone by now, or of a command that was not for it.
            self.pass(id, meta);
        }
        self.tell_lost(now, hub, id);
        if let Some(replicated) = self.replica_mut(id) {
            let done = replicated.replica.handle_applied(entry.index);
            debug_assert!(done.is_ok(), "{done:?}");
        }
        if entry.kind == EntryKind::Change || entry.body.is_empty() {
            // From now on members can be changed, or changed further.
            self.follow_place(now, hub, id);
        }
    }

    /// Whether the state that was fetched, and that the replica does not know of yet, contains an entry.
    fn is_in_state(&self, id: GroupId, index: LogIndex) -> bool {
        let installing = self.replica(id).and_then(|replicated| replicated.installing.as_ref());
        installing.is_some_and(|installing| index <= installing.base.0)
    }

    fn pass(&mut self, id: GroupId, meta: FrameMeta) {
        let is_in_state = self.is_in_state(id, meta.first);
        if let Some(log) = self.log_mut(id).filter(|_| !is_in_state) {
            log.pass(meta);
        }
    }

    /// A message for a replica.
    pub(crate) fn handle_raft(&mut self, now: Time, from: NodeId, id: GroupId, message: Message) {
        if self.disk.failed.is_some() {
            return; // This server takes no part any more.
        }
        if id == META && self.meta_log.replicated.is_none() && !self.join(now, from) {
            return;
        }
        let Some(frames) = frames_of(id, &message) else { return };
        if !self.may_vote(now, from, id, &message) {
            return;
        }
        if matches!(message.body, Body::TakeOver) && !self.is_clean(id) {
            return; // Somebody else has to.
        }
        let Some(replicated) = self.replica_mut(id) else { return };
        let is_away = replicated.hollow || replicated.is_mute() || replicated.installing.is_some();
        let (is_led, term) = (message.leads(), message.term);
        if is_away && is_led && replicated.replica.term() <= message.term {
            self.hear_of(id, from);
        }
        let Some(replicated) = self.replica_mut(id) else { return };
        if is_away && (matches!(message.body, Body::Append { .. }) || (replicated.is_mute() && is_led)) {
            // Its state fits no entry: whoever leads is asked for another.
            return self.fetch_state(now, from, id);
        }
        if replicated.is_mute() && matches!(message.body, Body::Vote { .. }) {
            return; // It may have voted, and does not know it any more.
        }
        let Some(replicated) = self.replica_mut(id) else { return };
        frames.into_iter().for_each(|frame| replicated.checked.keep(frame));
        if let Err(why) = replicated.replica.handle_message(from, message) {
            if let Refused::CommitAfterLog { last, commit } = why {
                return self.handle_lost_log(now, id, from, (last, commit));
            }
            let is_stranger = replicated.is_leading() && !replicated.replica.members().contains(from);
            // Who has only just left hears of it when that is durable.
            let is_told = |cluster: &super::Cluster| cluster.dismissals.iter().any(|(_, of, _)| *of == id);
            let cluster = self.cluster.as_mut().filter(|cluster| is_stranger && !is_told(cluster));
            if let Some(cluster) = cluster {
                cluster.send(from, PeerFrame::Removed { group: id });
            }
            return;
        }
        // A learner may have come so far that it can have a vote.
        let is_growing = replicated.is_leading() && !replicated.replica.members().learners.is_empty();
        if is_growing && let Some(cluster) = &mut self.cluster {
            cluster.growing.insert(id);
        }
        let Some(replicated) = self.replica_mut(id) else { return };
        // Who led before its process died, and asks for votes now, does not lead any more: the others still have to elect.
        let says_so = is_led && replicated.replica.term() == term && replicated.replica.leader() == from;
        if !replicated.proven && says_so {
            replicated.proven = true;
            if let Some(cluster) = &mut self.cluster {
                cluster.elections.cancel(id);
            }
            self.fetch_again(now, id);
        }
        self.wake_replica(id);
    }

    /// A leader knows that this replica had entries which are gone: damage at the very end of a log looks like what a crash leaves,
    /// if nothing says yet that it was durable.
    fn handle_lost_log(&mut self, now: Time, id: GroupId, from: NodeId, (last, had): (LogIndex, LogIndex)) {
        if id == META {
            return self.fetch_state(now, from, id);
        }
        let reason = format!("the log ends at entry {}, and {} was acknowledged", last.0, had.0);
        self.remedy(now, id, Remedy::Anew, reason);
    }

    /// A replica's role changed.
    fn handle_role(&mut self, now: Time, hub: &mut Hub, id: GroupId, role: Role) {
        let text = format!("{}: {role:?}", self.raft_group(id));
        self.say(crate::notice::NoticeLevel::Debug, text);
        let Some(replicated) = self.replica_mut(id) else { return };
        if let Role::Leader { term } = role {
            replicated.handle_elected(term);
            if let Some(cluster) = &mut self.cluster {
                cluster.elections.cancel(id);
            }
            return;
        }
        if matches!(role, Role::Candidate) && replicated.leads_in(replicated.replica.term()) {
            return; // It is the only member so far, and its vote is on its way to the disk: what was led goes on.
        }
        let led = replicated.handle_deposed();
        replicated.proven = matches!(role, Role::Follower { leader } if leader.0 != 0);
        replicated.was_led |= replicated.proven;
        let is_led = replicated.proven;
        if led {
            self.stop_leading(now, hub, id);
        }
        let me = self.cluster.as_ref().map_or(NodeId(0), |cluster| cluster.me);
        if self.replica(id).is_some_and(|replicated| {
            replicated.replica.leader().0 == 0 && !replicated.replica.members().contains(me)
        }) {
            // What it decided last took it out of the group: the others would wait for it.
            self.resign(id);
        }
        if is_led {
            if let Some(cluster) = &mut self.cluster {
                cluster.elections.cancel(id);
            }
        } else {
            self.plan_election(now, id, hw_cluster::Cause::Undecided);
        }
    }
}

/// The frames of the entries in a message; None when one of them cannot be kept.
fn frames_of(id: GroupId, message: &Message) -> Option<Vec<Frame>> {
    match &message.body {
        Body::Append { entries, .. } => entries.iter().map(|entry| frame_of(id, entry)).collect(),
        _ => Some(Vec::new()),
    }
}
