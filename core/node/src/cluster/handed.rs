//! Publishes that were handed to a stream's leader, until it is known what became of them. The leader says it to the server that
//! handed them on, which tells the publisher; if the leader dies first, the replica here tells what was stored. It often knows
//! before the leader has applied the same, and then waits: whoever reads from the leader must find what is acknowledged. What
//! the replica has not applied when the next leader's term begins never will be, and is handed to
//! that one, in the same order and before anything else. If only the link breaks, the leader hears everything that is undecided once
//! more over the next one, with the same numbers, and takes what it has not heard. When it has applied what it heard before, it
//! says so, and the replica here tells what the answers were that the first link lost.

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
pub(super) const LIFE_BITS: u32 = 32;
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
    /// Of how many the leaders' answers may be lost.
    orphans: usize,
    /// Answers for other servers' clients, at the end of the round.
    answers: BTreeMap<NodeId, Vec<u8>>,
    /// What was refused here last and is not in the log: the link may break before whoever handed it on hears that.
    refused: VecDeque<(GroupId, Run, Bytes)>,
    /// Servers that are told when everything that was heard of them is applied here.
    catching_up: Vec<CatchingUp>,
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
    /// Its leader has applied it, or is gone, and its answer may be lost: the replica here gives it.
    is_orphan: bool,
    /// The fast batch that it is stored with, and its number there.
    batch: Option<(Bytes, u64)>,
    /// What became of it, as the replica here knows.
    result: Option<Known>,
    /// The parcel's bytes.
    bytes: Bytes,
}

/// A server's publishes up to one came once more, over a new link.
struct CatchingUp {
    id: GroupId,
    serial: Serial,
    /// What was proposed for the group by then, when none of it waits.
    mark: Option<u64>,
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

    /// The same: its server is told when what it sent so far is applied here.
    pub(crate) fn catch_up(&mut self, id: GroupId, serial: Option<Serial>) {
        let Some(serial) = serial.and_then(Serial::followed) else { return };
        let known = self.catching_up.iter_mut().find(|one| (one.id, one.serial.by) == (id, serial.by));
        match known {
            Some(one) => (one.serial, one.mark) = (serial, None),
            None => self.catching_up.push(CatchingUp { id, serial, mark: None }),
        }
    }

    /// Nobody else answers what was handed to this server, up to a number: that is what became of it as the replica here knows
    /// or will know.
    fn abandon(&mut self, to: NodeId, is_it: impl Fn(GroupId, &Sent) -> bool) {
        for (id, all) in &mut self.groups {
            for sent in all.iter_mut().filter(|sent| sent.to == to && !sent.is_orphan && is_it(*id, sent)) {
                sent.is_orphan = true;
                self.orphans += 1;
            }
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
        self.orphans -= usize::from(sent.is_orphan);
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
            self.orphans -= usize::from(first.is_orphan);
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
        self.orphans -= taken.iter().filter(|sent| sent.is_orphan).count();
        taken
    }

    /// Takes what was applied here and is answered by nobody else.
    fn take_orphaned(&mut self) -> Vec<(GroupId, Sent)> {
        let mut taken = Vec::new();
        for (id, all) in &mut self.groups {
            let mut at = 0;
            while let Some(sent) = all.get(at) {
                match sent.result.is_some() && sent.is_orphan {
                    true => taken.extend(all.remove(at).map(|sent| (*id, sent))),
                    false => at += 1,
                }
            }
        }
        self.groups.retain(|_, all| !all.is_empty());
        self.bytes -= taken.iter().map(|(_, sent)| sent.bytes.len()).sum::<usize>();
        self.orphans -= taken.len();
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
        Sent { serial, to, link, since, is_blind: false, is_orphan: false, batch: None, result: None, bytes }
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
        // They stay with their link: the leader's answer may be lost with it.
        let is_it = |sent: &&Sent| sent.to == to && Some(sent.link) != link && !sent.is_orphan;
        let mut bodies = vec![Vec::new()];
        for all in cluster.forwards.handed.groups.values() {
            // Of what is applied here the leader says that it has come so far, if it hears the last one again.
            let last = all.iter().filter(is_it).rfind(|sent| sent.result.is_some());
            let last = last.map_or(0, |sent| sent.serial.number);
            let goes =
                |sent: &&Sent| sent.serial.number == last || sent.result.is_none() && sent.since + HOLD > now;
            for sent in all.iter().filter(is_it).filter(goes) {
                if let Some(body) = bodies.last_mut() {
                    body.extend_from_slice(&sent.bytes);
                    if body.len() >= FORWARD_BYTES {
                        bodies.push(Vec::new());
                    }
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
            }
        }
    }

    /// A server's process is gone: its answers do not come any more, and nobody reads there what it has not applied.
    pub(crate) fn abandon_handed(&mut self, to: NodeId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.forwards.handed.abandon(to, |_, _| true);
        }
    }

    /// Publishers are told what the replicas here know, where the leaders do not.
    fn answer_orphaned(&mut self) {
        let Some(cluster) = self.cluster.as_mut().filter(|cluster| cluster.forwards.handed.orphans > 0)
        else {
            return;
        };
        for (id, sent) in cluster.forwards.handed.take_orphaned() {
            self.answer_sent(id, &sent);
        }
    }

    /// Servers whose link was broken are told that what came over it is applied here.
    fn answer_caught_up(&mut self) {
        let Some(cluster) = &mut self.cluster else { return };
        for mut one in std::mem::take(&mut cluster.forwards.handed.catching_up) {
            // Where the term is over, the next one says what became of everything.
            let is_its = |log: &&crate::log::Log| log.is_leading() && self.counts(one.id, Some(one.serial));
            let Some(log) = self.log(one.id).filter(is_its) else { continue };
            let (proposed, settled) = (log.proposed(), log.settled());
            let Some(cluster) = &mut self.cluster else { return };
            let forwards = &mut cluster.forwards;
            if !forwards.is_waited_for(one.id) {
                one.mark = one.mark.or(Some(proposed));
            }
            match one.mark.is_some_and(|mark| mark <= settled) {
                true => {
                    let out = forwards.handed.answers.entry(one.serial.by).or_default();
                    Answered::put_caught_up(out, one.id, one.serial.number);
                }
                false => forwards.handed.catching_up.push(one),
            }
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
    pub(crate) fn handle_answered(&mut self, from: NodeId, mut body: Bytes) {
        while let Some(Answered { id, number, json }) = Answered::take(&mut body) {
            let Some(cluster) = &mut self.cluster else { return };
            let Some(json) = json else {
                let is_it = |of, sent: &Sent| of == id && sent.serial.number <= number;
                cluster.forwards.handed.abandon(from, is_it);
                continue;
            };
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
        self.answer_caught_up();
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
/// of the JSON (u32; 0: the publisher is answered in another way), the JSON. Or that everything up to that number is applied,
/// if the length is [`Answered::CAUGHT_UP`].
struct Answered {
    id: GroupId,
    number: u64,
    json: Option<Bytes>,
}

impl Answered {
    const CAUGHT_UP: u32 = u32::MAX;

    fn put(out: &mut Vec<u8>, id: GroupId, number: u64, json: &[u8]) {
        Answered::put_head(out, (id, number), json.len() as u32);
        out.extend_from_slice(json);
    }

    fn put_caught_up(out: &mut Vec<u8>, id: GroupId, number: u64) {
        Answered::put_head(out, (id, number), Answered::CAUGHT_UP);
    }

    fn put_head(out: &mut Vec<u8>, (id, number): (GroupId, u64), length: u32) {
        out.extend_from_slice(&id.0.to_le_bytes());
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&length.to_le_bytes());
    }

    /// Takes the first of several; None: there is none, or it cannot be read.
    fn take(rest: &mut Bytes) -> Option<Answered> {
        let (id, behind) = rest.split_first_chunk()?;
        let (number, behind) = behind.split_first_chunk()?;
        let (length, _) = behind.split_first_chunk()?;
        let (id, number) = (GroupId(u64::from_le_bytes(*id)), u64::from_le_bytes(*number));
        let length = Some(u32::from_le_bytes(*length)).filter(|length| *length != Answered::CAUGHT_UP);
        let end = 20 + length.unwrap_or_default() as usize;
        if rest.len() < end {
            return None;
        }
        let json = rest.split_to(end).slice(20..);
        Some(Answered { id, number, json: length.map(|_| json) })
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
    fn what_is_applied_here_is_answered_here_when_nobody_else_does() {
        let (id, mut handed) = (GroupId(7), Handed::default());
        for number in 1..=4 {
            let result = (number != 2).then(|| Some(Ok(Stored::default())));
            handed.bytes += 2;
            handed.groups.entry(id).or_default().push_back(Sent { result, ..sent(number, 1) });
        }
        let numbers =
            |all: Vec<(GroupId, Sent)>| all.iter().map(|(_, sent)| sent.serial.number).collect::<Vec<_>>();
        assert_eq!(numbers(handed.take_orphaned()), Vec::<u64>::new(), "the leader says it");
        handed.abandon(NodeId(3), |_, _| true);
        assert_eq!((handed.orphans, numbers(handed.take_orphaned())), (0, vec![]), "that is another one");
        handed.abandon(NodeId(2), |of, sent| of == id && sent.serial.number <= 3);
        assert_eq!((handed.orphans, numbers(handed.take_orphaned())), (3, vec![1, 3]));
        handed.groups.get_mut(&id).unwrap()[0].result = Some(None);
        assert_eq!((handed.orphans, numbers(handed.take_orphaned()), handed.orphans), (1, vec![2], 0));
        assert!(handed.settle(id, 4).is_some() && handed.bytes == 0 && handed.groups.is_empty());
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
        Answered::put_caught_up(&mut bytes, GroupId(5), 6);
        let mut rest = Bytes::from(bytes.clone());
        for (id, number, json) in [(1, 2, Some(&b"{}"[..])), (3, 4, Some(b"")), (5, 6, None)] {
            let one = Answered::take(&mut rest).unwrap();
            assert_eq!((one.id, one.number, one.json.as_deref()), (GroupId(id), number, json));
        }
        assert!(Answered::take(&mut rest).is_none());
        assert!((0..22).all(|end| Answered::take(&mut Bytes::from(bytes[..end].to_vec())).is_none()));
    }
}
