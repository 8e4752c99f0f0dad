//! Publishes that were handed to a stream's leader, until it is known what became of them. The leader says it to the server that
//! handed them on, which tells the publisher; if the leader dies first, the replica here tells what was stored. It often knows
//! before the leader has applied the same, and then waits: whoever reads from the leader must find what is acknowledged. What
//! the replica has not applied when the next leader's term begins never will be, and is handed to
//! that one, in the same order and before anything else. If only the link breaks, the leader hears everything that is undecided once
//! more over the next one, with the same numbers, and takes what it has not heard.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use hw_cluster::PeerFrame;
use hw_hub::Message;
use hw_jsapi::{fast_slot, is_fast};
use hw_kit::{GroupId, LinkId, NodeId, Time};
use hw_stream::Command;
use hw_stream::batch::FastOp;
use hw_stream::command::RunOf;
use hw_stream::outcome::{Answer, PublishError, Stored};

use super::forward::HOLD;
use super::parcel::{Parcel, Serial, group_of};
use crate::inside::Target;
use crate::jetstream::JetStream;
use crate::limits::{FORWARD_BYTES, WAITING_BYTES_MAX};
use crate::outbox::Outgoing;

/// Numbers that agree above these bits are of one life of a server.
const LIFE_BITS: u32 = 32;
/// So many refusals are remembered: as many publishes may wait for an answer when a link breaks.
const REFUSED_MAX: usize = 4096;

/// What is with leaders.
#[derive(Default)]
pub(crate) struct Handed {
    groups: BTreeMap<GroupId, VecDeque<Sent>>,
    bytes: usize,
    /// The last serial number that was given.
    last: u64,
    /// For which term numbers were given that have not left yet: what is for the next one waits until these have.
    leaving: BTreeMap<GroupId, u64>,
    /// How many the replicas here have applied, of which the leaders have not said so.
    applied: usize,
    /// Answers for other servers' clients, at the end of the round.
    answers: BTreeMap<NodeId, Vec<u8>>,
    /// What was refused here last and is not in the log: the link may break before whoever handed it on hears that.
    refused: VecDeque<(GroupId, Run, Bytes)>,
    /// The last serial number that was heard for a group, of each server.
    heard: BTreeMap<(GroupId, NodeId), u64>,
}

/// A publish that is with a leader.
struct Sent {
    serial: Serial,
    to: NodeId,
    /// The link that it went over: another one may be with another life of that server.
    link: LinkId,
    since: Time,
    /// The replica here cannot tell what becomes of it.
    is_blind: bool,
    /// The fast batch that it is stored with, and its number there.
    batch: Option<(Bytes, u64)>,
    /// What became of it, as the replica here knows.
    result: Option<Known>,
    /// The parcel's bytes.
    bytes: Bytes,
}

/// What a publisher is told; of messages of a fast batch only the last one's is.
type Known = Option<Result<Stored, PublishError>>;

impl Handed {
    /// Numbers begin where no earlier life of this server began.
    pub(crate) fn new(seed: u64) -> Handed {
        Handed { last: seed << LIFE_BITS, ..Handed::default() }
    }

    /// Whether a publish that is handed to this server is the first with its number. They come in order, so that only those that
    /// come once more, over another link, can be known. Numbers of the server's earlier life say nothing.
    pub(crate) fn hear(&mut self, id: GroupId, serial: Option<Serial>, again: bool) -> bool {
        let Some(Serial { by, number, .. }) = serial.and_then(Serial::followed) else { return true };
        let last = self.heard.entry((id, by)).or_default();
        if again && *last >> LIFE_BITS == number >> LIFE_BITS && number <= *last {
            return false;
        }
        *last = number;
        true
    }

    /// Whether it is known of everything what became of it.
    pub(crate) fn is_settled(&self) -> bool {
        self.groups.is_empty()
    }

    /// What has a number has left.
    pub(crate) fn all_left(&mut self) {
        self.leaving.clear();
    }

    /// Whether what is for a term's leader waits: something is with leaders of earlier terms, or on its way to them.
    fn holds_back(&self, id: GroupId, term: u64) -> bool {
        let first = self.groups.get(&id).and_then(VecDeque::front).map(|first| first.serial.term);
        first.or_else(|| self.leaving.get(&id).copied()).is_some_and(|first| first < term)
    }

    /// A publish is refused without asking the log.
    fn refuse(&mut self, id: GroupId, run: Run, json: Bytes) {
        Answered::put(self.answers.entry(run.by).or_default(), id, run.number, &json);
        if self.refused.len() >= REFUSED_MAX {
            self.refused.pop_front();
        }
        self.refused.push_back((id, run, json));
    }

    /// A publish comes once more that was heard: whether it was refused is said again.
    pub(crate) fn refuse_again(&mut self, id: GroupId, serial: Option<Serial>) {
        let Some(run) = serial.and_then(Serial::followed).map(Serial::run) else { return };
        if let Some((.., json)) = self.refused.iter().find(|(of, one, _)| (*of, *one) == (id, run)) {
            Answered::put(self.answers.entry(run.by).or_default(), id, run.number, json);
        }
    }

    /// A group is not here any more.
    pub(crate) fn forget_heard(&mut self, id: GroupId) {
        self.heard.retain(|(of, _), _| *of != id);
    }

    /// What became of a publish is known.
    fn settle(&mut self, id: GroupId, number: u64) -> Option<Sent> {
        let all = self.groups.get_mut(&id)?;
        let at = all.binary_search_by_key(&number, |sent| sent.serial.number).ok()?;
        let sent = all.remove(at)?;
        self.bytes -= sent.bytes.len();
        self.applied -= usize::from(sent.result.is_some());
        if all.is_empty() {
            self.groups.remove(&id);
        }
        Some(sent)
    }

    /// What an answer was lost to is not in the log under its number, if it is of a fast batch: it need not come again after a while.
    fn forget_words(&mut self, now: Time, id: GroupId) {
        let Some(all) = self.groups.get_mut(&id) else { return };
        while let Some(first) =
            all.front().filter(|first| first.result.is_none() && first.since + HOLD <= now)
            && first.reply().is_some_and(|reply| is_fast(&reply))
        {
            self.bytes -= first.bytes.len();
            all.pop_front();
        }
    }

    /// Takes what was handed to leaders of earlier terms, in order.
    fn take_before(&mut self, id: GroupId, term: u64) -> Vec<Sent> {
        let Some(all) = self.groups.get_mut(&id) else { return Vec::new() };
        let taken: Vec<Sent> = all.drain(..all.partition_point(|sent| sent.serial.term < term)).collect();
        if all.is_empty() {
            self.groups.remove(&id);
        }
        self.bytes -= taken.iter().map(|sent| sent.bytes.len()).sum::<usize>();
        self.applied -= taken.iter().filter(|sent| sent.result.is_some()).count();
        taken
    }

    /// Takes what was applied here and handed to servers that are not there any more.
    fn take_orphaned(&mut self, is_there: impl Fn(&Sent) -> bool) -> Vec<(GroupId, Sent)> {
        let mut taken = Vec::new();
        for (id, all) in &mut self.groups {
            let mut at = 0;
            while let Some(sent) = all.get(at) {
                match sent.result.is_some() && !is_there(sent) {
                    true => taken.extend(all.remove(at).map(|sent| (*id, sent))),
                    false => at += 1,
                }
            }
        }
        self.groups.retain(|_, all| !all.is_empty());
        self.bytes -= taken.iter().map(|(_, sent)| sent.bytes.len()).sum::<usize>();
        self.applied -= taken.len();
        taken
    }
}

/// The name of a message's fast batch, and its number there; None: it is not stored.
fn place_in_batch(reply: &Bytes) -> Option<(Bytes, u64)> {
    let slot = fast_slot(reply).ok().filter(|slot| !matches!(slot.op, FastOp::End | FastOp::Ping))?;
    Some((reply.slice_ref(slot.id), slot.sequence))
}

impl Sent {
    fn new((serial, to, link): (Serial, NodeId, LinkId), since: Time, bytes: Bytes) -> Sent {
        Sent { serial, to, link, since, is_blind: false, batch: None, result: None, bytes }
    }

    /// Where its publisher waits; None: nowhere.
    fn reply(&self) -> Option<Bytes> {
        Parcel::take(&mut self.bytes.clone()).map(|parcel| parcel.reply).filter(|reply| !reply.is_empty())
    }
}

/// Whose publishes a frame's next ones are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Run {
    pub(crate) by: NodeId,
    pub(crate) number: u64,
}

impl Run {
    /// What a frame's next command is to the server that handed it on, if it is a publish that somebody did.
    pub(crate) fn next(&mut self, command: &Command) -> Option<Run> {
        match command {
            Command::Serial { by, number, .. } => {
                *self = Run { by: *by, number: *number };
                None
            }
            Command::Publish { .. } => self.take(),
            _ => None,
        }
    }

    /// The next publish's, if it has one.
    pub(crate) fn take(&mut self) -> Option<Run> {
        let one = *self;
        if one.by == NodeId(0) {
            return None;
        }
        self.number += 1;
        Some(one)
    }
}

impl JetStream {
    /// The serial number of a publish that is about to be handed to a stream's leader. Without one it is anybody's who leads:
    /// there is no replica here that could tell what became of it. What is part of an atomic batch ends with the leader.
    pub(crate) fn number(&mut self, target: Target, msg: &Message<'_>) -> Option<Serial> {
        let Target::Publish(id) = target else { return None };
        let group = self.groups.get(&id)?;
        let ends_with_leader = group.is_staged(msg);
        let replicated = group.log.replicated.as_ref()?;
        if replicated.hollow || replicated.is_mute() || replicated.installing.is_some() {
            return None;
        }
        let (term, cluster) = (replicated.replica.term(), self.cluster.as_mut()?);
        let handed = &mut cluster.forwards.handed;
        if ends_with_leader || handed.bytes > WAITING_BYTES_MAX {
            return Some(Serial { by: cluster.me, number: 0, term });
        }
        handed.last += 1;
        handed.leaving.insert(id, term);
        Some(Serial { by: cluster.me, number: handed.last, term })
    }

    /// Parcels are on their way to a server.
    pub(crate) fn note_handed(&mut self, now: Time, to: NodeId, mut body: Bytes) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(link) = cluster.peers.link(to) else { return };
        let handed = &mut cluster.forwards.handed;
        let mut late = BTreeMap::new();
        while let Some((bytes, target, serial)) = Parcel::split(&mut body) {
            let (Some(id), Some(serial)) = (group_of(target), serial.and_then(Serial::followed)) else {
                continue;
            };
            let group = self.groups.get(&id);
            let term = group.map_or(0, |group| group.log.term());
            let takes_batches = group.is_some_and(|group| group.stream.config().allow_batched);
            if serial.term < term {
                late.insert(id, term);
            }
            handed.forget_words(now, id);
            handed.bytes += bytes.len();
            let mut sent = Sent::new((serial, to, link), now, bytes);
            if takes_batches {
                sent.batch = sent.reply().and_then(|reply| place_in_batch(&reply));
            }
            let all = handed.groups.entry(id).or_default();
            let comes_last =
                |last: &Sent| (last.serial.term, last.serial.number) < (serial.term, serial.number);
            debug_assert!(all.back().is_none_or(comes_last), "{id}: {serial:?} is out of its order");
            all.push_back(sent);
        }
        // A new term began in the same round: nobody else looks for what is of an earlier one.
        late.into_iter().for_each(|(id, term)| self.resolve_handed(now, id, term));
    }

    /// A link to a server came up: what was handed to it over an earlier one may not be there. What is undecided comes once more,
    /// before anything new; who leads in the same term knows what of it is new to it.
    pub(crate) fn hand_again(&mut self, now: Time, to: NodeId) {
        let Some(cluster) = &mut self.cluster else { return };
        let link = cluster.peers.link(to);
        // They stay with their link: the leader's answer may be lost with it, and then the replica here gives it.
        let is_in_doubt = |sent: &&Sent| {
            sent.to == to && Some(sent.link) != link && sent.result.is_none() && sent.since + HOLD > now
        };
        let mut bodies = vec![Vec::new()];
        for sent in cluster.forwards.handed.groups.values().flatten().filter(is_in_doubt) {
            if let Some(body) = bodies.last_mut() {
                body.extend_from_slice(&sent.bytes);
                if body.len() >= FORWARD_BYTES {
                    bodies.push(Vec::new());
                }
            }
        }
        for body in bodies.into_iter().filter(|body| !body.is_empty()) {
            cluster.send(to, PeerFrame::Again { body: body.into() });
        }
    }

    /// Whether what was handed to an earlier leader of a group may still come into its log: nothing overtakes that.
    pub(crate) fn is_unresolved(&self, id: GroupId) -> bool {
        let (Some(cluster), Some(replicated)) = (&self.cluster, self.replica(id)) else { return false };
        cluster.forwards.handed.holds_back(id, replicated.replica.term())
    }

    /// A publish that was handed on from here is applied here: its publisher is told when the leader says so, or is gone.
    pub(crate) fn note_applied(&mut self, id: GroupId, run: Run, answer: &Answer) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.me == run.by) else { return };
        let handed = &mut cluster.forwards.handed;
        let Some(all) = handed.groups.get_mut(&id) else { return };
        let at = all.binary_search_by_key(&run.number, |sent| sent.serial.number);
        if let (Some(sent), Answer::Published(result)) = (at.ok().and_then(|at| all.get_mut(at)), answer)
            && sent.result.is_none()
        {
            sent.result = Some(Some(result.clone()));
            handed.applied += 1;
        }
    }

    /// The same for messages of a fast batch, and the last word if that is known.
    pub(crate) fn note_run(
        &mut self,
        id: GroupId,
        of: &RunOf,
        end: Option<(u64, Result<Stored, PublishError>)>,
    ) {
        let Some(cluster) = &mut self.cluster else { return };
        let handed = &mut cluster.forwards.handed;
        for sent in handed.groups.get_mut(&id).into_iter().flatten().filter(|sent| sent.result.is_none()) {
            if let Some((batch, number)) = &sent.batch
                && *batch == of.id
                && (of.first..=of.last).contains(number)
            {
                let word = end.as_ref().filter(|(last, _)| last == number);
                sent.result = Some(word.map(|(_, result)| result.clone()));
                handed.applied += 1;
            }
        }
    }

    /// Publishers are told what the replicas here know, where the leaders are gone that would have.
    fn answer_orphaned(&mut self) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.forwards.handed.applied > 0)
        else {
            return;
        };
        let peers = &cluster.peers;
        let is_there = |sent: &Sent| peers.link(sent.to) == Some(sent.link) && peers.is_alive(sent.to);
        for (id, sent) in cluster.forwards.handed.take_orphaned(is_there) {
            self.answer_sent(id, &sent);
        }
    }

    fn answer_sent(&mut self, id: GroupId, sent: &Sent) {
        if let (Some(group), Some(reply), Some(Some(result))) =
            (self.groups.get(&id), sent.reply(), &sent.result)
            && !group.stream.config().no_ack
        {
            let (account, result) = (group.account, result.clone());
            self.outbox.push(Outgoing::PubAck { account, group: id, reply, result });
        }
    }

    /// Leaders have answered publishes that were handed on from here, unless that was done already.
    pub(crate) fn handle_answered(&mut self, mut body: Bytes) {
        while let Some(Answered { id, number, json }) = Answered::take(&mut body) {
            let Some(cluster) = &mut self.cluster else { return };
            let sent = cluster.forwards.handed.settle(id, number);
            let account = cluster.forwards.account_of(id);
            if let (Some(reply), Some(account)) = (sent.and_then(|sent| sent.reply()), account)
                && !json.is_empty()
            {
                self.outbox.answer(account, reply, Bytes::new(), json);
            }
        }
    }

    /// A publish that another server handed on is decided here: that server hears of it. None: its publisher hears of it in
    /// another way.
    pub(crate) fn answer_handed(
        &mut self,
        id: GroupId,
        run: Run,
        result: Option<&Result<Stored, PublishError>>,
    ) {
        let mut json = Vec::new();
        if let Some(result) = result {
            self.pub_ack(id, result, &mut json);
        }
        if let Some(cluster) = &mut self.cluster {
            let out = cluster.forwards.handed.answers.entry(run.by).or_default();
            Answered::put(out, id, run.number, &json);
        }
    }

    /// The same for one that is refused without asking the log.
    pub(crate) fn refuse_handed(&mut self, id: GroupId, run: Run, error: PublishError) {
        let mut json = Vec::new();
        self.pub_ack(id, &Err(error), &mut json);
        if let Some(cluster) = &mut self.cluster {
            cluster.forwards.handed.refuse(id, run, json.into());
        }
    }

    /// Answers leave: those for other servers' clients, of which a server without a link learns from its replica, and those that
    /// others owe to clients here.
    pub(crate) fn cut_answers(&mut self) {
        self.answer_orphaned();
        let Some(cluster) = &mut self.cluster else { return };
        for (node, body) in std::mem::take(&mut cluster.forwards.handed.answers) {
            cluster.send(node, PeerFrame::Answered { body: body.into() });
        }
    }

    /// A term began: what was handed to leaders of earlier ones and is not in the log will not be. It waits for a leader once
    /// more, unless its client has given up.
    pub(crate) fn resolve_handed(&mut self, now: Time, id: GroupId, term: u64) {
        let Some(cluster) = &mut self.cluster else { return };
        let lost = cluster.forwards.handed.take_before(id, term);
        let (stored, lost): (Vec<Sent>, Vec<Sent>) = lost.into_iter().partition(|sent| sent.result.is_some());
        for Sent { since, is_blind, mut bytes, .. } in lost.into_iter().rev() {
            if !is_blind
                && since + HOLD > now
                && let Some(parcel) = Parcel::take(&mut bytes)
            {
                cluster.forwards.put_back(id, since, Parcel { serial: None, hops: 0, ..parcel });
            }
        }
        stored.iter().for_each(|sent| self.answer_sent(id, sent));
    }

    /// The replica here cannot tell any more what became of what was handed on: only the leader can.
    pub(crate) fn blind_handed(&mut self, id: GroupId) {
        let all = self.cluster.as_mut().and_then(|cluster| cluster.forwards.handed.groups.get_mut(&id));
        all.into_iter().flatten().for_each(|sent| sent.is_blind = true);
    }

    /// A stream is gone.
    pub(crate) fn forget_handed(&mut self, id: GroupId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.forwards.handed.take_before(id, u64::MAX);
        }
    }

    /// Whether a publish that another server handed on counts here: it does in the term that it was meant for. After that, its
    /// server hands it to somebody else.
    pub(crate) fn counts(&self, id: GroupId, serial: Option<Serial>) -> bool {
        let Some(serial) = serial else { return true };
        self.replica(id).is_some_and(|replicated| replicated.replica.term() == serial.term)
    }
}

/// What a leader says of a publish, on its way to the server that handed it on: the group and the number (u64 each), the length
/// of the JSON (u32; 0: the publisher is answered in another way), the JSON.
struct Answered {
    id: GroupId,
    number: u64,
    json: Bytes,
}

impl Answered {
    fn put(out: &mut Vec<u8>, id: GroupId, number: u64, json: &[u8]) {
        out.extend_from_slice(&id.0.to_le_bytes());
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&(json.len() as u32).to_le_bytes());
        out.extend_from_slice(json);
    }

    /// Takes the first of several; None: there is none, or it cannot be read.
    fn take(rest: &mut Bytes) -> Option<Answered> {
        let (id, behind) = rest.split_first_chunk()?;
        let (number, behind) = behind.split_first_chunk()?;
        let (length, _) = behind.split_first_chunk()?;
        let (id, number) = (GroupId(u64::from_le_bytes(*id)), u64::from_le_bytes(*number));
        let end = 20 + u32::from_le_bytes(*length) as usize;
        if rest.len() < end {
            return None;
        }
        let json = rest.split_to(end).slice(20..);
        Some(Answered { id, number, json })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(number: u64, term: u64) -> Sent {
        let serial = Serial { by: NodeId(1), number, term };
        Sent::new((serial, NodeId(2), LinkId(3)), Time(0), Bytes::from_static(b"12"))
    }

    #[test]
    fn what_comes_once_more_is_taken_once() {
        let (id, mut handed) = (GroupId(7), Handed::default());
        let life = 5 << LIFE_BITS;
        let serial = |number: u64| Some(Serial { by: NodeId(1), number, term: 1 });
        assert!(handed.hear(id, serial(life + 1), false) && handed.hear(id, serial(life + 2), false));
        let again: Vec<bool> = (1..=4).map(|number| handed.hear(id, serial(life + number), true)).collect();
        assert_eq!(again, [false, false, true, true]);
        assert!(handed.hear(GroupId(8), serial(life + 1), true), "another stream's");
        assert!(handed.hear(id, serial((4 << LIFE_BITS) + 1), true), "another life's");
        assert!(handed.hear(id, None, true), "one that nobody follows");
    }

    #[test]
    fn what_was_refused_is_refused_once_more() {
        let (id, mut handed) = (GroupId(7), Handed::default());
        let run = |number: u64| Run { by: NodeId(1), number };
        let serial = |number: u64| Some(Serial { by: NodeId(1), number, term: 1 });
        (1..=REFUSED_MAX as u64 + 1)
            .for_each(|number| handed.refuse(id, run(number), Bytes::from_static(b"no")));
        handed.answers.clear();
        for number in [1, 2, 3] {
            handed.refuse_again(id, serial(number));
        }
        handed.refuse_again(GroupId(8), serial(2));
        handed.refuse_again(id, None);
        let mut body = Bytes::from(handed.answers.remove(&NodeId(1)).unwrap());
        let numbers = std::iter::from_fn(|| Answered::take(&mut body).map(|one| one.number));
        assert_eq!(numbers.collect::<Vec<_>>(), [2, 3], "the oldest is forgotten");
    }

    #[test]
    fn each_is_settled_once_and_earlier_terms_leave_in_order() {
        let (id, mut handed) = (GroupId(7), Handed::new(0));
        for (number, term) in [(1, 1), (2, 1), (3, 1), (4, 2)] {
            handed.bytes += 2;
            handed.groups.entry(id).or_default().push_back(sent(number, term));
        }
        assert!(handed.settle(id, 2).is_some() && handed.settle(id, 2).is_none());
        assert!(handed.settle(GroupId(8), 1).is_none());
        let numbers = |all: Vec<Sent>| all.iter().map(|sent| sent.serial.number).collect::<Vec<_>>();
        assert_eq!(numbers(handed.take_before(id, 2)), [1, 3]);
        assert_eq!((numbers(handed.take_before(id, u64::MAX)), handed.bytes), (vec![4], 0));
        assert!(handed.groups.is_empty());
    }

    /// Numbers for two terms in one round would be noted in the order of their leaders' names.
    #[test]
    fn what_is_for_the_next_term_waits_for_what_has_a_number_of_the_last_one() {
        let (id, mut handed) = (GroupId(7), Handed::default());
        handed.leaving.insert(id, 1);
        assert!(handed.holds_back(id, 2) && !handed.holds_back(id, 1) && !handed.holds_back(GroupId(8), 2));
        handed.groups.entry(id).or_default().push_back(sent(1, 1));
        handed.bytes += 2;
        handed.all_left();
        assert!(handed.holds_back(id, 2), "it is with a leader that may still store it");
        handed.take_before(id, 2);
        assert!(!handed.holds_back(id, 2));
    }

    #[test]
    fn answers_come_back_and_shorter_ones_are_nothing() {
        let mut bytes = Vec::new();
        Answered::put(&mut bytes, GroupId(1), 2, b"{}");
        Answered::put(&mut bytes, GroupId(3), 4, b"");
        let mut rest = Bytes::from(bytes.clone());
        for (id, number, json) in [(1, 2, &b"{}"[..]), (3, 4, b"")] {
            let one = Answered::take(&mut rest).unwrap();
            assert_eq!((one.id, one.number, &*one.json), (GroupId(id), number, json));
        }
        assert!(Answered::take(&mut rest).is_none());
        assert!((0..22).all(|end| Answered::take(&mut Bytes::from(bytes[..end].to_vec())).is_none()));
    }
}
