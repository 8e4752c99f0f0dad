//! The state of a group on its way to a follower that the leader's log does not reach any more.
//!
//! The follower keeps what it has: messages never change, so it fetches those that came after its last one, and then the
//! state that they belong to, which says what has been removed. From the first piece on its state fits no entry of the
//! log; it is *hollow* (its note says so) until the last piece is durable, and takes part in nothing but votes.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use hw_cluster::{PeerFrame, PieceEnd, ReplicaNote, StoreNote};
use hw_hub::Hub;
use hw_kit::{GroupId, LogIndex, NodeId, Seq, Span, Time};
use hw_meta::Asset;
use hw_raft::Members;
use hw_store::messages::{BlockId, Fetch, Message};
use hw_store::{GroupCheckpoint, Record};
use hw_stream::stream::StreamRestore;

use super::Replicated;
use crate::commit::{META, STORE};
use crate::jetstream::JetStream;
use crate::limits::{LOG_TAIL_BYTES, LOG_TAILS_BYTES, PIECE_BYTES};
use crate::notice::NoticeLevel;

/// How long a follower waits for a piece before it asks again.
const PATIENCE: Span = Span::from_secs(2);

/// How soon it asks again when a state was older than what it knows to be decided.
const SOON: Span = Span::from_millis(50);

/// States on their way.
#[derive(Default)]
pub(crate) struct Transfers {
    last: u64,
    incoming: BTreeMap<GroupId, Incoming>,
    outgoing: BTreeMap<(NodeId, GroupId), Outgoing>,
    /// Who led a group, as far as was heard while its replica here took no part.
    heard: BTreeMap<GroupId, NodeId>,
}

struct Incoming {
    from: NodeId,
    transfer: u64,
    until: Time,
}

struct Outgoing {
    transfer: u64,
    /// The last message that the follower has, or that is in the piece.
    after: Seq,
    /// The block that is being read.
    block: Option<BlockId>,
    /// The piece so far.
    piece: Vec<u8>,
}

/// A state that was fetched and is not durable yet.
#[derive(Clone, Debug)]
pub(crate) struct Installing {
    pub(crate) base: (LogIndex, u64),
    pub(crate) members: Members,
}

impl Transfers {
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.incoming.values().map(|incoming| incoming.until).min()
    }

    pub(crate) fn forget(&mut self, id: GroupId) {
        self.incoming.remove(&id);
        self.heard.remove(&id);
        self.outgoing.retain(|(_, group), _| *group != id);
    }

    /// What is on its way to a group is of no use any more.
    pub(crate) fn stop(&mut self, id: GroupId) {
        self.incoming.remove(&id);
    }

    /// Whether a group's state is being fetched from a server.
    fn is_fetching(&self, id: GroupId, from: NodeId) -> bool {
        self.incoming.get(&id).is_some_and(|incoming| incoming.from == from)
    }
}

impl JetStream {
    /// A follower needs what the log has no more.
    pub(crate) fn offer_state(&mut self, id: GroupId, to: NodeId) {
        if let Some(cluster) = &mut self.cluster
            && !cluster.transfers.outgoing.contains_key(&(to, id))
        {
            cluster.send(to, PeerFrame::Behind { group: id });
        }
    }

    /// The leader says that its log does not reach this replica.
    pub(crate) fn fetch_state(&mut self, now: Time, from: NodeId, id: GroupId) {
        let is_installing = self.replica(id).is_some_and(|replicated| replicated.installing.is_some());
        if is_installing || self.disk.failed.is_some() || self.replica(id).is_none() {
            return;
        }
        if self.cluster.as_ref().is_some_and(|cluster| cluster.repairs.comes_first(id)) {
            return; // When that is done, it is fetched.
        }
        let last = self.groups.get(&id).map_or(Seq(0), |group| group.stream.messages().last_seq());
        self.hollow(id, false);
        let Some(cluster) = &mut self.cluster else { return };
        if cluster.transfers.is_fetching(id, from) {
            return;
        }
        cluster.transfers.last += 1;
        let transfer = cluster.transfers.last;
        cluster.transfers.incoming.insert(id, Incoming { from, transfer, until: now + PATIENCE });
        cluster.say(NoticeLevel::Debug, format!("fetches the state of group {id}"));
        cluster.send(from, PeerFrame::Fetch { group: id, transfer, after: last });
    }

    /// From now on the state of a replica fits no entry; that is durable before what it is filled with. `is_anew`: nothing of
    /// what is here is to be used.
    pub(crate) fn hollow(&mut self, id: GroupId, is_anew: bool) {
        if id == META {
            return; // Its state is replaced at once.
        }
        let Some(replicated) = self.replica_mut(id) else { return };
        let is_known = replicated.hollow && (replicated.anew || !is_anew);
        (replicated.hollow, replicated.anew) = (true, replicated.anew || is_anew);
        if is_known {
            return;
        }
        self.blind_handed(id);
        let Some(replicated) = self.replica_mut(id) else { return };
        let frame = replicated.note_again(id);
        if let Some(cluster) = &mut self.cluster {
            cluster.frames.push(frame);
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.changed = true;
        }
    }

    /// A follower asks for the next piece.
    pub(crate) fn send_state(&mut self, _now: Time, to: NodeId, (id, transfer): (GroupId, u64), after: Seq) {
        // Also before its first entry is decided: for that it may need the very server that asks. What is applied is decided.
        let leads = self.replica(id).is_some_and(|replicated| self.is_me(replicated.replica.leader()));
        let Some(cluster) = self.cluster.as_mut().filter(|_| leads) else { return };
        cluster
            .transfers
            .outgoing
            .insert((to, id), Outgoing { transfer, after, block: None, piece: Vec::new() });
        self.next_piece(to, id);
    }

    /// A block was read, or cannot be: whoever waited for it goes on.
    pub(crate) fn touch_transfers(&mut self, id: GroupId, block: BlockId) {
        let Some(cluster) = &mut self.cluster else { return };
        let waiting = cluster.transfers.outgoing.iter_mut();
        let waiting = waiting.filter(|((_, group), out)| *group == id && out.block == Some(block));
        let waiting: Vec<NodeId> = waiting.map(|((to, _), _)| *to).collect();
        for to in waiting {
            self.next_piece(to, id);
        }
        self.touch_giving(id, block);
    }

    fn next_piece(&mut self, to: NodeId, id: GroupId) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(out) = cluster.transfers.outgoing.get_mut(&(to, id)) else { return };
        let (transfer, mut last) = (out.transfer, true);
        if let Some(group) = self.groups.get(&id) {
            let messages = group.stream.messages();
            while let Some(seq) = messages.next(out.after.next()) {
                if out.piece.len() >= PIECE_BYTES {
                    last = false;
                    break;
                }
                match messages.fetch(seq) {
                    Fetch::Message(message) => encode(&message, &mut out.piece),
                    Fetch::OnDisk(block) => {
                        out.block = Some(block);
                        return self.load(id, block);
                    }
                    // Damaged here: the follower does not get a state that lacks it.
                    Fetch::Absent => {
                        cluster.transfers.outgoing.remove(&(to, id));
                        return self.note_brought(id, to, false);
                    }
                }
                out.after = seq;
            }
        } else if id != META {
            return;
        }
        let body = cluster.transfers.outgoing.remove(&(to, id)).map(|out| out.piece).unwrap_or_default();
        let end = last.then(|| self.state_of(id)).flatten();
        let is_all = end.is_some();
        if let Some(cluster) = &mut self.cluster {
            cluster.send(to, PeerFrame::Piece { group: id, transfer, last: end, body: body.into() });
        }
        if is_all {
            self.note_brought(id, to, true);
        }
    }

    /// A follower was sent the state, or cannot be: should it need another one later, it is offered again.
    fn note_brought(&mut self, id: GroupId, to: NodeId, well: bool) {
        if let Some(replicated) = self.replica_mut(id) {
            replicated.replica.report_snapshot(to, well);
        }
    }

    /// A group's state without its messages, with who belongs to it in front.
    fn state_of(&self, id: GroupId) -> Option<PieceEnd> {
        let (log, replicated) = (self.log(id)?, self.replica(id)?);
        let (applied, term) = (log.applied(), log.term());
        let members = replicated.replica.members().clone();
        let note = ReplicaNote { base: (applied, term), members, ..ReplicaNote::default() };
        let mut state = Vec::new();
        note.encode(&mut state);
        match self.groups.get(&id) {
            Some(group) => group.stream.snapshot(&mut state),
            None => self.meta.snapshot(&mut state),
        }
        Some(PieceEnd { applied, term, state: state.into() })
    }

    /// A part of a state that is being fetched.
    pub(crate) fn handle_piece(
        &mut self,
        now: Time,
        hub: &mut Hub,
        from: NodeId,
        (id, transfer): (GroupId, u64),
        (last, body): (Option<PieceEnd>, Bytes),
    ) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(incoming) = cluster.transfers.incoming.get_mut(&id) else { return };
        if (incoming.from, incoming.transfer) != (from, transfer) {
            return;
        }
        incoming.until = now + PATIENCE;
        let mut at = Seq(0);
        if let Some(group) = self.groups.get_mut(&id) {
            self.disk.bytes_since_checkpoint += body.len() as u64;
            let messages = group.stream.messages_mut();
            for message in decode(body) {
                if message.seq > messages.last_seq() {
                    messages.append(message.seq, message.ts, message.record);
                }
            }
            at = messages.last_seq();
            group.changed = true;
        }
        let Some(end) = last else {
            cluster.send(from, PeerFrame::Fetch { group: id, transfer, after: at });
            return self.begin_checkpoint();
        };
        incoming.until = now + SOON;
        if self.has_passed(id, end.applied) {
            return; // Who leads since a moment ago does not know yet that more is decided: soon it is asked again.
        }
        let Some(cluster) = &mut self.cluster else { return };
        cluster.transfers.incoming.remove(&id);
        if let Err(reason) = self.install(now, hub, id, end) {
            let reason =
                format!("the state that {} sent does not fit what is here: {reason}", self.node_name(from));
            match id == META {
                true => self.say(NoticeLevel::Error, format!("{}: {reason}", self.raft_group(id))),
                false => self.remedy(now, id, super::Remedy::Anew, reason),
            }
        }
    }

    /// Everything is here: the state is replaced, and counts once it is durable.
    fn install(&mut self, now: Time, hub: &mut Hub, id: GroupId, end: PieceEnd) -> Result<(), String> {
        let mut state = end.state;
        let note = ReplicaNote::take(&mut state).map_err(|error| error.to_string())?;
        let base = (end.applied, end.term);
        if id == META {
            let meta = hw_meta::Meta::restore(&state).map_err(|error| error.to_string())?;
            self.replace_meta(now, hub, meta);
            self.blind_proposals();
        } else {
            let restore = StreamRestore::open(&state).map_err(|error| error.to_string())?;
            let group = self.groups.get_mut(&id).ok_or("there is no such group")?;
            let own = std::mem::replace(
                group.stream.messages_mut(),
                hw_store::Messages::new(Seq(1), hw_store::messages::Keep::File),
            );
            match restore.adopt(own) {
                Ok(stream) => group.stream = stream,
                Err(kept) => {
                    let (own, error) = *kept;
                    *group.stream.messages_mut() = own;
                    return Err(error);
                }
            }
            group.changed = true;
        }
        let text = format!("has the state of group {id} up to entry {}", base.0.0);
        self.say(NoticeLevel::Debug, text);
        // What was handed to leaders may be in there, under no number; and the terms that began there are over.
        self.blind_handed(id);
        self.resolve_handed(now, id, base.1);
        let Some(log) = self.log_mut(id) else { return Ok(()) };
        log.handle_installed(base.0, base.1);
        if let Some(replicated) = &mut log.replicated {
            replicated.choose_term(now);
            replicated.installing = Some(Installing { base, members: note.members });
        }
        self.meta_changed |= id == META;
        // How far they were between is not known.
        self.end_batches(id, (false, false));
        self.recount(id);
        self.disk.must_checkpoint = true;
        self.begin_checkpoint();
        Ok(())
    }

    /// The list of streams was replaced: those that are new begin, those that are gone end, and what was decided meanwhile
    /// about others, of which this server saw no entry, is followed.
    fn replace_meta(&mut self, now: Time, hub: &mut Hub, meta: hw_meta::Meta) {
        let before = std::mem::replace(&mut self.meta, meta);
        let old: BTreeMap<GroupId, &Asset> = before.all().map(|(_, asset)| (asset.group(), asset)).collect();
        let new: BTreeMap<GroupId, &Asset> =
            self.meta.all().map(|(_, asset)| (asset.group(), asset)).collect();
        let gone: Vec<GroupId> = old.keys().filter(|id| !new.contains_key(id)).copied().collect();
        // One that is not open yet may be so now.
        let is_other =
            |id: &GroupId, asset: &&Asset| !self.groups.contains_key(id) || old.get(id) != Some(asset);
        let other: Vec<GroupId> =
            new.iter().filter(|(id, asset)| is_other(id, asset)).map(|(id, _)| *id).collect();
        let deleted: BTreeSet<GroupId> = self.meta.tombstones().collect();
        for gone in gone {
            match deleted.contains(&gone) {
                true => self.close_group(now, hub, gone),
                false => self.orphan(now, hub, gone),
            }
        }
        deleted.iter().for_each(|id| self.drop_found(*id));
        for id in other {
            self.follow_place(now, hub, id);
            self.configure_group(now, hub, id);
        }
        self.capture_all(hub);
        self.elect_opened();
    }

    /// A checkpoint contains the states that were fetched: they count.
    fn handle_installed(&mut self, now: Time) {
        for id in self.replicated() {
            let Some(replicated) = self.replica_mut(id) else { continue };
            let Some(Installing { base, members }) = replicated.installing.take_if(|_| replicated.saving)
            else {
                continue;
            };
            if replicated.hollow && self.has_passed(id, base.0) {
                // Entries behind the state were decided while it was made durable, and went by: it takes a newer one.
                self.fetch_passed(now, id);
                continue;
            }
            let Some(replicated) = self.replica_mut(id) else { continue };
            (replicated.hollow, replicated.anew) = (false, false);
            (replicated.base, replicated.members) = (base, members.clone());
            if replicated.is_mute() {
                self.speak_again(now, id, (base, members));
                continue;
            }
            let frame = replicated.note_again(id);
            let installed = replicated.replica.install(base, members);
            if let Some(cluster) = &mut self.cluster {
                cluster.frames.push(frame);
                if let Err(error) = installed {
                    let text = format!("group {id}: the state that was fetched is refused: {error}");
                    cluster.say(NoticeLevel::Error, text);
                }
            }
            self.mended(id);
            self.wake_replica(id);
            // Another term may have begun meanwhile, and what its leader said was not listened to.
            self.ask_for_leader(id);
        }
    }

    /// Whether entries behind `applied` have gone by a group's replica, which does not apply them while its state is fetched.
    fn has_passed(&self, id: GroupId, applied: LogIndex) -> bool {
        self.log(id).is_some_and(|log| log.applied() > applied)
    }

    /// The checkpoint says that the state is whole; from now on it is not any more.
    fn fetch_passed(&mut self, now: Time, id: GroupId) {
        let Some(replicated) = self.replica_mut(id) else { return };
        let frame = replicated.note_again(id);
        if let Some(cluster) = &mut self.cluster {
            cluster.frames.push(frame);
        }
        match self.helper(id) {
            Some(leader) => self.fetch_state(now, leader, id),
            None => self.ask_for_leader(id),
        }
    }

    /// A checkpoint has ended.
    pub(crate) fn handle_replicas_saved(&mut self, now: Time, well: bool) {
        if self.cluster.is_none() {
            return;
        }
        if well {
            self.handle_installed(now);
        }
        let tail = LOG_TAIL_BYTES.min(LOG_TAILS_BYTES / self.groups.keys().count().max(1) as u64);
        for id in self.replicated() {
            let Some(replicated) = self.replica_mut(id) else { continue };
            replicated.saving = false;
            if let Some(base) = replicated.in_checkpoint.take().filter(|_| well) {
                replicated.handle_saved(base);
                if replicated.replica.status().log_bytes as u64 > tail {
                    // Not more than is durable: what is in the checkpoint is.
                    let done = replicated.replica.compact(base.0);
                    debug_assert!(done.is_ok(), "{done:?}");
                }
            }
            // It failed, or had no room for messages: a state that was fetched waits for the next one.
            let waits = self.replica(id).is_some_and(|replicated| replicated.installing.is_some());
            self.disk.must_checkpoint |= waits;
        }
    }

    /// What this server is in the cluster is part of every checkpoint.
    pub(crate) fn store_checkpoint(&self) -> Option<GroupCheckpoint> {
        let cluster = self.cluster.as_ref()?;
        let founder = NodeId(cluster.formation.standing().founder);
        let mut state = Vec::new();
        StoreNote { node: cluster.me, founder }.encode(&mut state);
        Some(GroupCheckpoint { group: STORE, state: state.into(), ..GroupCheckpoint::default() })
    }

    /// Pieces that did not come are asked for again, and who lost its state asks whoever leads.
    pub(crate) fn run_transfers(&mut self, now: Time) {
        let Some(cluster) = &mut self.cluster else { return };
        let late = cluster.transfers.incoming.extract_if(.., |_, incoming| incoming.until <= now);
        let late: Vec<(GroupId, NodeId)> = late.map(|(id, incoming)| (id, incoming.from)).collect();
        for (id, from) in late {
            // A replica without a state may not know who leads: who sent it something did, or will soon.
            let is_empty = |replica: &super::Replicated| replica.hollow || replica.is_mute();
            if id == META || self.replica(id).is_some_and(is_empty) {
                self.fetch_state(now, self.helper(id).unwrap_or(from), id);
            }
        }
    }

    /// Another server leads a group whose replica here takes no part.
    pub(crate) fn hear_of(&mut self, id: GroupId, leader: NodeId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.transfers.heard.insert(id, leader);
        }
    }

    /// Who leads a group that has a replica here. After a link came up, who led has to say that it still does.
    pub(crate) fn proven_leader(&self, id: GroupId, replicated: &Replicated) -> Option<NodeId> {
        if replicated.proven {
            return Some(replicated.replica.leader());
        }
        // A replica whose state is on its way does not listen to anything else, but somebody sends it.
        let cluster = self.cluster.as_ref().filter(|_| replicated.hollow)?;
        cluster.transfers.heard.get(&id).copied()
    }

    /// Who brings a hollow replica its state: the leader, as far as that is known.
    pub(crate) fn helper(&self, id: GroupId) -> Option<NodeId> {
        let (cluster, replicated) = (self.cluster.as_ref()?, self.replica(id)?);
        let heard = cluster.transfers.heard.get(&id).copied();
        let known = [heard, Some(replicated.replica.leader())].into_iter().flatten();
        known.into_iter().find(|node| *node != cluster.me && cluster.peers.is_alive(*node))
    }

    /// A hollow replica asks its leader.
    pub(crate) fn fetch_again(&mut self, now: Time, id: GroupId) {
        let is_hollow = self.replica(id).is_some_and(|replicated| replicated.hollow);
        if let Some(leader) = self.helper(id).filter(|_| is_hollow) {
            self.fetch_state(now, leader, id);
        }
    }

    /// A server is gone, and what was on its way to it. What was on its way from it is asked for again when it is late.
    pub(crate) fn end_transfers(&mut self, node: NodeId) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.transfers.outgoing.retain(|(to, _), _| *to != node);
        cluster.repairs.giving.retain(|(to, _), _| *to != node);
    }
}

/// A message in a piece: sequence, time, lengths of subject, header and all, then all of it.
pub(super) fn encode(message: &Message, out: &mut Vec<u8>) {
    let (subject, header) = message.record.lengths();
    let joined = message.record.joined();
    out.extend_from_slice(&message.seq.0.to_le_bytes());
    out.extend_from_slice(&message.ts.0.to_le_bytes());
    out.extend_from_slice(&subject.to_le_bytes());
    out.extend_from_slice(&header.to_le_bytes());
    out.extend_from_slice(&(joined.len() as u32).to_le_bytes());
    out.extend_from_slice(joined);
}

/// The messages of a piece, as far as they are whole.
pub(super) fn decode(mut body: Bytes) -> impl Iterator<Item = Message> {
    std::iter::from_fn(move || {
        let (seq, rest) = body.split_first_chunk::<8>()?;
        let (ts, rest) = rest.split_first_chunk::<8>()?;
        let (subject, rest) = rest.split_first_chunk::<2>()?;
        let (header, rest) = rest.split_first_chunk::<4>()?;
        let (len, rest) = rest.split_first_chunk::<4>()?;
        let (seq, ts) = (Seq(u64::from_le_bytes(*seq)), Time(i64::from_le_bytes(*ts)));
        let (subject, header) = (u16::from_le_bytes(*subject), u32::from_le_bytes(*header));
        let (len, used) = (u32::from_le_bytes(*len) as usize, body.len() - rest.len());
        let end = used.checked_add(len).filter(|end| *end <= body.len())?;
        let record = Record::from_joined(body.slice(used..end), subject, header)?;
        body = body.slice(end..);
        Some(Message { seq, ts, record })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_a_piece_come_back() {
        let record = Record::from_joined(Bytes::from_static(b"a.bh: x\r\npayload"), 3, 6).unwrap();
        let messages = [1, 5].map(|seq| Message { seq: Seq(seq), ts: Time(7), record: record.clone() });
        let mut body = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut body));
        assert_eq!(decode(body.clone().into()).collect::<Vec<_>>(), messages);
        body.pop();
        assert_eq!(decode(body.into()).count(), 1);
    }
}
