//! Replicas that are not what they should be, and become so again with the help of the others.
//!
//! Of a segment that is damaged, exactly its messages are fetched, from whoever has them; the next checkpoint writes them in
//! its place. Where decisions may have been made on what was damaged, the state is fetched anew from the leader after that,
//! as by a follower that was away; where it is not known what is wrong, with all its messages. Until all of that is durable
//! the replica leads nothing, and if it led, it hands over.

use std::collections::{BTreeMap, BTreeSet};

use hw_cluster::{Given, PeerFrame};
use hw_hub::Hub;
use hw_kit::{GroupId, NodeId, Seq, Span, Time};
use hw_store::messages::Message;
use hw_store::{Damage, FileId};

use super::transfer::decode;
use crate::jetstream::JetStream;
use crate::limits::WANT_ROWS;
use crate::notice::NoticeLevel;
use crate::tidy::Rewrite;

/// How long another server may take for a part of an answer.
const PATIENCE: Span = Span::from_secs(2);
/// When something is tried again that cannot be done now.
const PAUSE: Span = Span::from_millis(500);

/// What helps a replica.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Remedy {
    /// The messages of a segment.
    Segment(u64),
    /// The same, and the state: its index is damaged, and decisions depend on that.
    Index(u64),
    /// Everything.
    Anew,
}

/// Replicas that are being mended.
#[derive(Default)]
pub(crate) struct Repairs {
    last: u64,
    broken: BTreeMap<GroupId, Broken>,
    pub(super) giving: BTreeMap<(NodeId, GroupId), super::give::Giving>,
}

/// What is wrong with a replica, and how far that is mended.
#[derive(Default)]
struct Broken {
    segments: BTreeSet<u64>,
    is_doubtful: bool,
    is_anew: bool,
    asking: Option<Asking>,
    /// The segment that the next checkpoint replaces.
    writing: Option<u64>,
    /// Who could not help.
    tried: BTreeSet<NodeId>,
    again: Time,
}

/// Messages on their way.
struct Asking {
    segment: u64,
    from: NodeId,
    transfer: u64,
    /// What was not told yet.
    rows: Vec<(Seq, Seq)>,
    got: Vec<Message>,
}

impl Broken {
    fn is_busy(&self) -> bool {
        self.asking.is_some() || self.writing.is_some()
    }
}

impl Repairs {
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.broken.values().map(|broken| broken.again).filter(|again| *again < Time::NEVER).min()
    }

    pub(crate) fn forget(&mut self, id: GroupId) {
        self.broken.remove(&id);
        self.giving.retain(|(_, group), _| *group != id);
    }

    /// Whether something must be mended before the state of a group can be fetched.
    pub(crate) fn comes_first(&self, id: GroupId) -> bool {
        self.broken.get(&id).is_some_and(|broken| broken.is_anew || !broken.segments.is_empty())
    }
}

impl JetStream {
    /// Something is wrong with what this server has of a group. Where nobody else has it, it stays as it is.
    pub(crate) fn remedy(&mut self, now: Time, id: GroupId, what: Remedy, reason: String) {
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.log.has_others()) else {
            return;
        };
        group.damage.get_or_insert(reason.clone());
        let account = group.account;
        if let Remedy::Index(segment) = what {
            group.stream.messages_mut().lose(segment);
            group.stream.messages_mut().forget_fault();
        }
        if let Remedy::Segment(segment) | Remedy::Index(segment) = what {
            group.spared.insert(segment);
        }
        let is_leading = group.log.is_leading();
        self.note_damage(now, id, self.account_name(account), reason.clone());
        let Some(cluster) = &mut self.cluster else { return };
        let broken = cluster.repairs.broken.entry(id).or_default();
        let is_news = match what {
            Remedy::Segment(segment) => broken.segments.insert(segment),
            Remedy::Index(segment) => broken.segments.insert(segment) | !broken.is_doubtful,
            Remedy::Anew => !broken.is_anew,
        };
        broken.is_doubtful |= !matches!(what, Remedy::Segment(_));
        broken.is_anew |= what == Remedy::Anew;
        broken.again = broken.again.min(now);
        if !is_leading && broken.is_doubtful {
            let is_anew = broken.is_anew;
            self.hollow(id, is_anew);
        }
        if is_news {
            let text = format!("{}: {reason}; the others help", self.raft_group(id));
            self.say(NoticeLevel::Error, text);
        }
    }

    /// A stream was opened: what could not be used of it, others may have.
    pub(crate) fn seek_help(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let reason =
            group.damage.clone().unwrap_or_else(|| "this replica differs from the others".to_owned());
        let lost = group.stream.messages().lost_segments();
        let is_anew = group.log.replicated.as_ref().is_some_and(|replicated| replicated.anew);
        if is_anew || group.stream.messages().has_orphans() {
            self.remedy(now, id, Remedy::Anew, reason.clone());
        }
        for segment in lost {
            self.remedy(now, id, Remedy::Index(segment), reason.clone());
        }
    }

    /// A decision was made on an index that cannot be read: it does not count, and this replica makes no further ones.
    /// `last` was the last message before.
    pub(crate) fn doubt(&mut self, now: Time, hub: &mut Hub, id: GroupId, last: Seq) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.stream.messages_mut().withdraw(last);
        let Some(fault) = group.stream.messages().fault() else { return };
        self.handle_fault(now, hub, id, &fault);
    }

    /// An index cannot be read: what it should say is not known. Where others have the stream, they answer.
    pub(crate) fn handle_fault(&mut self, now: Time, hub: &mut Hub, id: GroupId, fault: &Damage) {
        let Some(group) = self.groups.get(&id).filter(|group| group.log.has_others()) else { return };
        if group.log.is_leading() {
            self.abdicate(now, hub, id);
        }
        let what = match fault.file {
            FileId::Segment(_, number) => Remedy::Index(number),
            _ => Remedy::Anew,
        };
        self.remedy(now, id, what, format!("a segment is damaged: {fault}"));
    }

    /// Does what is due for replicas that are broken.
    pub(crate) fn run_repairs(&mut self, now: Time, hub: &mut Hub) {
        let Some(cluster) = &mut self.cluster else { return };
        let due = cluster.repairs.broken.iter().filter(|(_, broken)| broken.again <= now);
        let due: Vec<GroupId> = due.map(|(id, _)| *id).collect();
        for id in due {
            self.repair(now, hub, id);
        }
    }

    fn repair(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        let Some(replicated) = self.replica(id) else { return self.forget_broken(id) };
        let leader = replicated.replica.leader();
        let is_led = self.helper(id).is_some();
        let is_held = self.is_handed_over(id);
        let Some(cluster) = &mut self.cluster else { return };
        let others_busy = cluster.repairs.broken.iter().any(|(other, one)| *other != id && one.is_busy());
        let me = cluster.me;
        let Some(broken) = cluster.repairs.broken.get_mut(&id) else { return };
        broken.again = now + PAUSE;
        if leader == me {
            match broken.is_doubtful || broken.is_anew {
                true => self.abdicate(now, hub, id),
                false if is_held => {}
                false => drop(self.hand_over(now, id, None)),
            }
            return;
        }
        if broken.is_anew {
            if is_led {
                self.begin_anew(now, id);
            }
            return;
        }
        if others_busy || broken.writing.is_some() {
            return;
        }
        if let Some(asking) = broken.asking.take() {
            // It had its time.
            broken.tried.insert(asking.from);
        }
        match broken.segments.first().copied() {
            Some(segment) => self.mend(now, id, segment),
            None if broken.is_doubtful => {
                self.hollow(id, false);
                self.fetch_again(now, id);
            }
            None => self.mended(id),
        }
    }

    fn forget_broken(&mut self, id: GroupId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.repairs.broken.remove(&id);
        }
    }

    /// Everything that is here of a stream is given up; the leader has it.
    fn begin_anew(&mut self, now: Time, id: GroupId) {
        self.hollow(id, true);
        let Some(group) = self.groups.get(&id) else { return };
        let (config, created) = (group.stream.shared_config(), group.stream.created());
        let stream = self.stream(id, config, created);
        if let Some(group) = self.groups.get_mut(&id) {
            group.stream = stream;
            group.rewrite = None;
            group.spared.clear();
            group.changed = true;
        }
        if let Some(cluster) = &mut self.cluster
            && let Some(broken) = cluster.repairs.broken.get_mut(&id)
        {
            *broken = Broken { is_doubtful: true, again: now + PAUSE, ..Broken::default() };
            cluster.transfers.stop(id);
        }
        self.recount(id);
        self.fetch_again(now, id);
    }

    /// Begins to fetch the messages of a segment.
    fn mend(&mut self, now: Time, id: GroupId, segment: u64) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let wanted = group.stream.messages().wanted(segment);
        let rows = wanted.filter(|rows| !rows.is_empty());
        if rows.is_none() {
            // All of it was deleted.
            group.stream.messages_mut().begin_repair((segment, 0), &mut Vec::new());
            group.changed = true;
            return self.segment_mended(now, id, segment);
        }
        self.ask_for(now, id, (segment, rows.unwrap_or_default()), Vec::new());
    }

    /// Asks the next server that may have them.
    fn ask_for(
        &mut self,
        now: Time,
        id: GroupId,
        (segment, rows): (u64, Vec<(Seq, Seq)>),
        got: Vec<Message>,
    ) {
        let Some(replicated) = self.replica(id) else { return };
        let (leader, voters) = (replicated.replica.leader(), replicated.replica.members().voters.clone());
        let Some(cluster) = &mut self.cluster else { return };
        let Some(broken) = cluster.repairs.broken.get_mut(&id) else { return };
        let me = cluster.me;
        let may =
            |node: &NodeId| *node != me && !broken.tried.contains(node) && cluster.peers.is_alive(*node);
        let from = Some(leader).filter(may).or_else(|| voters.iter().copied().find(may));
        let Some(from) = from else {
            broken.tried.clear();
            return;
        };
        cluster.repairs.last += 1;
        let transfer = cluster.repairs.last;
        broken.again = now + PATIENCE;
        let part = rows.iter().take(WANT_ROWS).copied().collect();
        broken.asking = Some(Asking { segment, from, transfer, rows, got });
        cluster.send(from, PeerFrame::Want { group: id, transfer, rows: part });
    }

    /// A part of what was asked for.
    pub(crate) fn handle_given(&mut self, now: Time, from: NodeId, id: GroupId, given: Given) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(broken) = cluster.repairs.broken.get_mut(&id) else { return };
        let is_mine = |asking: &mut Asking| (asking.from, asking.transfer) == (from, given.transfer);
        let Some(mut asking) = broken.asking.take_if(is_mine) else { return };
        let Given { up_to, is_stuck, body, .. } = given;
        let mut is_sound = true;
        for message in decode(body) {
            let seq = message.seq;
            let follows = asking.got.last().is_none_or(|last| last.seq < seq);
            let row = asking.rows.partition_point(|row| row.1 < seq);
            let is_wanted = asking.rows.get(row).is_some_and(|row| row.0 <= seq);
            is_sound &= follows && is_wanted && seq <= up_to;
            asking.got.push(message);
        }
        let has_more = asking.rows.first().is_some_and(|row| row.0 <= up_to);
        asking.rows.retain(|row| row.1 > up_to);
        if let Some(row) = asking.rows.first_mut() {
            row.0 = row.0.max(up_to.next());
        }
        if !is_sound {
            broken.tried.insert(from);
            return self.mend(now, id, asking.segment);
        }
        if is_stuck || !has_more {
            broken.tried.insert(from);
        }
        match asking.rows.is_empty() {
            true => self.replace_segment(id, asking),
            false => self.ask_for(now, id, (asking.segment, asking.rows), asking.got),
        }
    }

    /// All that others have of a segment is here: the next checkpoint puts it in its place.
    fn replace_segment(&mut self, id: GroupId, asking: Asking) {
        let Asking { segment, from, mut got, .. } = asking;
        let name = self.node_name(from);
        let Some(group) = self.groups.get_mut(&id) else { return };
        let messages = group.stream.messages();
        let mut is_other = false;
        if !messages.is_lost(segment) {
            let count = |rows: Vec<(Seq, Seq)>| rows.iter().map(|row| row.1.0 - row.0.0 + 1).sum::<u64>();
            let existing = messages.wanted(segment).map_or(0, count);
            got.retain(|message| messages.contains(message.seq));
            if got.len() as u64 != existing {
                return; // Something was deleted there that is not here yet. Soon it will be.
            }
            is_other = got.iter().any(|message| !is_the_same(messages, message));
        }
        if let Some(cluster) = &mut self.cluster
            && let Some(broken) = cluster.repairs.broken.get_mut(&id)
        {
            if is_other {
                broken.tried.insert(from);
            } else {
                broken.writing = Some(segment);
                broken.again = Time::NEVER;
            }
        }
        if is_other {
            let text = format!(
                "{}: what {name} has of segment {segment} is not what the index says",
                self.raft_group(id)
            );
            return self.say(NoticeLevel::Error, text);
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.rewrite = Some(Box::new(Rewrite::of_others(segment, got)));
        }
        self.disk.must_checkpoint = true;
        self.begin_checkpoint();
    }

    /// A checkpoint has ended: it may have replaced segments.
    pub(crate) fn handle_repairs_saved(&mut self, now: Time) {
        let Some(cluster) = &self.cluster else { return };
        let written = cluster.repairs.broken.iter().filter_map(|(id, one)| Some((*id, one.writing?)));
        let written: Vec<(GroupId, u64)> = written.collect();
        for (id, segment) in written {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if group.rewrite.is_some() {
                // It was not part of that one.
                self.disk.must_checkpoint = true;
                continue;
            }
            let is_replaced = group.stream.messages().wanted(segment).is_none();
            if is_replaced {
                self.segment_mended(now, id, segment);
                continue;
            }
            let Some(cluster) = &mut self.cluster else { return };
            let Some(broken) = cluster.repairs.broken.get_mut(&id) else { continue };
            (broken.writing, broken.again) = (None, now + PAUSE);
            if broken.is_doubtful {
                group.stream.messages_mut().lose(segment);
            }
        }
        self.begin_checkpoint();
    }

    fn segment_mended(&mut self, now: Time, id: GroupId, segment: u64) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.spared.remove(&segment);
        }
        if let Some(cluster) = &mut self.cluster
            && let Some(broken) = cluster.repairs.broken.get_mut(&id)
        {
            broken.segments.remove(&segment);
            broken.tried.clear();
            (broken.writing, broken.asking, broken.again) = (None, None, now);
        }
    }

    /// The state that was fetched is durable, or all segments are whole.
    pub(crate) fn mended(&mut self, id: GroupId) {
        let is_broken =
            self.cluster.as_mut().and_then(|cluster| cluster.repairs.broken.remove(&id)).is_some();
        let Some(group) = self.groups.get_mut(&id).filter(|_| is_broken) else { return };
        group.damage = None;
        group.spared.clear();
        group.stream.messages_mut().forget_fault();
        self.findings.forget(id);
        self.touch(id);
        let text = format!("{}: this replica is whole again", self.raft_group(id));
        self.say(NoticeLevel::Info, text);
    }
}

/// Whether a message of another server is the one that the index knows.
fn is_the_same(own: &hw_store::Messages, message: &Message) -> bool {
    own.time_of(message.seq) == Some(message.ts)
        && own.size_of(message.seq) == Some(own.keep().size_of(&message.record))
        && own.subject_of(message.seq).is_some_and(|subject| subject == message.record.subject())
}
