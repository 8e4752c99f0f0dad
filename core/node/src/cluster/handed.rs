//! Publishes that were handed to a stream's leader, until it is known what became of them. If the leader dies first, the
//! replica here tells: what it applies of the leader's term was stored, and is acknowledged from here; what it has not applied
//! when the next leader's term begins never will be, and is handed to that one, in the same order and before anything else.
//! If only the link breaks, the leader hears everything once more over the next one, with the same numbers: it takes what it has
//! not heard, and what becomes of all that is answered from here.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use hw_cluster::PeerFrame;
use hw_hub::Message;
use hw_kit::{GroupId, LinkId, NodeId, Time};
use hw_stream::Command;

use super::forward::HOLD;
use super::parcel::{Parcel, Serial, group_of};
use crate::inside::Target;
use crate::jetstream::JetStream;
use crate::limits::{FORWARD_BYTES, WAITING_BYTES_MAX};

/// Numbers that agree above these bits are of one life of a server.
const LIFE_BITS: u32 = 32;

/// What is with leaders.
#[derive(Default)]
pub(crate) struct Handed {
    groups: BTreeMap<GroupId, VecDeque<Sent>>,
    bytes: usize,
    /// The last serial number that was given.
    last: u64,
    /// The last one that was heard for a group, of each server.
    heard: BTreeMap<(GroupId, NodeId), u64>,
}

/// A publish that is with a leader.
struct Sent {
    serial: Serial,
    to: NodeId,
    /// The link that it went over: another one may be with another life of that server.
    link: LinkId,
    since: Time,
    /// The parcel's bytes.
    bytes: Bytes,
}

impl Handed {
    /// Numbers begin where no earlier life of this server began.
    pub(crate) fn new(seed: u64) -> Handed {
        Handed { last: seed << LIFE_BITS, ..Handed::default() }
    }

    /// Whether a publish that is handed to this server is the first with its number. They come in order, so that only those that
    /// come once more, over another link, can be known. Numbers of the server's earlier life say nothing.
    pub(crate) fn hear(&mut self, id: GroupId, serial: Option<Serial>) -> bool {
        let Some(Serial { by, number, again, .. }) = serial.and_then(Serial::followed) else { return true };
        let last = self.heard.entry((id, by)).or_default();
        if again && *last >> LIFE_BITS == number >> LIFE_BITS && number <= *last {
            return false;
        }
        *last = number;
        true
    }

    /// A group is not here any more.
    pub(crate) fn forget_heard(&mut self, id: GroupId) {
        self.heard.retain(|(of, _), _| *of != id);
    }

    fn pop(&mut self, id: GroupId, up_to: u64) -> Option<Sent> {
        let sent = self.groups.get_mut(&id)?;
        let first = sent.pop_front_if(|first| first.serial.number <= up_to)?;
        if sent.is_empty() {
            self.groups.remove(&id);
        }
        self.bytes -= first.bytes.len();
        Some(first)
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
    /// there is no replica here that could tell what became of it. What is part of a batch ends with the leader.
    pub(crate) fn number(&mut self, target: Target, msg: &Message<'_>) -> Option<Serial> {
        let Target::Publish(id) = target else { return None };
        let group = self.groups.get(&id)?;
        let is_batched = group.is_batched(msg);
        let replicated = group.log.replicated.as_ref()?;
        if replicated.hollow || replicated.is_mute() || replicated.installing.is_some() {
            return None;
        }
        let (term, cluster) = (replicated.replica.term(), self.cluster.as_mut()?);
        let handed = &mut cluster.forwards.handed;
        if is_batched || handed.bytes > WAITING_BYTES_MAX {
            return Some(Serial { by: cluster.me, number: 0, term, again: false });
        }
        handed.last += 1;
        Some(Serial { by: cluster.me, number: handed.last, term, again: false })
    }

    /// Parcels are on their way to a server.
    pub(crate) fn note_handed(&mut self, now: Time, to: NodeId, mut body: Bytes) {
        let Some(cluster) = &mut self.cluster else { return };
        let Some(link) = cluster.peers.link(to) else { return };
        let handed = &mut cluster.forwards.handed;
        while let Some((bytes, target, serial)) = Parcel::split(&mut body) {
            let (Some(id), Some(serial)) = (group_of(target), serial.and_then(Serial::followed)) else {
                continue;
            };
            handed.bytes += bytes.len();
            handed.groups.entry(id).or_default().push_back(Sent { serial, to, link, since: now, bytes });
        }
    }

    /// A link to a server came up: what was handed to it over an earlier one may not be there. It comes once more, before anything
    /// new; who leads in the same term knows what of it is new to it.
    pub(crate) fn hand_again(&mut self, now: Time, to: NodeId) {
        let Some(cluster) = &mut self.cluster else { return };
        let link = cluster.peers.link(to);
        let is_in_doubt = |sent: &&Sent| sent.to == to && Some(sent.link) != link && sent.since + HOLD > now;
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
        let first =
            self.cluster.as_ref().and_then(|cluster| cluster.forwards.handed.groups.get(&id)?.front());
        let term = self.replica(id).map(|replicated| replicated.replica.term());
        first.is_some_and(|first| term.is_some_and(|term| first.serial.term < term))
    }

    /// A publish that was handed on from here is applied: where it is to be acknowledged. Whom it was handed to does that itself
    /// as long as it is there, whoever leads by now.
    pub(crate) fn settle_handed(&mut self, id: GroupId, run: Run) -> Option<Bytes> {
        let wants_ack = self.groups.get(&id).is_some_and(|group| !group.stream.config().no_ack);
        let cluster = self.cluster.as_mut().filter(|cluster| cluster.me == run.by)?;
        while let Some(sent) = cluster.forwards.handed.pop(id, run.number) {
            if sent.serial.number == run.number {
                let is_same = cluster.peers.link(sent.to) == Some(sent.link);
                let is_there = is_same && cluster.peers.is_alive(sent.to);
                let reply = Parcel::take(&mut sent.bytes.clone()).map(|parcel| parcel.reply);
                return reply.filter(|reply| !is_there && wants_ack && !reply.is_empty());
            }
        }
        None
    }

    /// The leader has refused a publish that was handed on from here, and told its client.
    pub(crate) fn handle_refused(&mut self, id: GroupId, number: u64) {
        let Some(cluster) = &mut self.cluster else { return };
        let handed = &mut cluster.forwards.handed;
        let Some(sent) = handed.groups.get_mut(&id) else { return };
        if let Ok(at) = sent.binary_search_by_key(&number, |sent| sent.serial.number)
            && let Some(refused) = sent.remove(at)
        {
            handed.bytes -= refused.bytes.len();
        }
        if sent.is_empty() {
            handed.groups.remove(&id);
        }
    }

    /// A term began: what was handed to leaders of earlier ones and is not in the log will not be. It waits for a leader once
    /// more, unless its client has given up.
    pub(crate) fn resolve_handed(&mut self, now: Time, id: GroupId, term: u64) {
        let Some(cluster) = &mut self.cluster else { return };
        let mut lost = Vec::new();
        let handed = &mut cluster.forwards.handed;
        let is_earlier = |sent: &Sent| sent.serial.term < term;
        while handed.groups.get(&id).and_then(VecDeque::front).is_some_and(is_earlier) {
            let Some(sent) = handed.pop(id, u64::MAX) else { break };
            if sent.since + HOLD > now {
                lost.push(sent);
            }
        }
        for Sent { since, mut bytes, .. } in lost.into_iter().rev() {
            if let Some(parcel) = Parcel::take(&mut bytes) {
                cluster.forwards.put_back(id, since, Parcel { serial: None, hops: 0, ..parcel });
            }
        }
    }

    /// The replica here cannot tell any more what became of what was handed on.
    pub(crate) fn forget_handed(&mut self, id: GroupId) {
        let Some(cluster) = &mut self.cluster else { return };
        while cluster.forwards.handed.pop(id, u64::MAX).is_some() {}
    }

    /// A message that another server handed on is refused: that server hears of it before its client does.
    pub(crate) fn tell_refused(&mut self, id: GroupId, serial: Option<Serial>) {
        let serial = serial.and_then(Serial::followed);
        if let (Some(cluster), Some(Serial { by, number, .. })) = (&mut self.cluster, serial) {
            cluster.send(by, PeerFrame::Refused { group: id, number });
        }
    }

    /// Whether a publish that another server handed on counts here: it does in the term that it was meant for. After that, its
    /// server hands it to somebody else.
    pub(crate) fn counts(&self, id: GroupId, serial: Option<Serial>) -> bool {
        let Some(serial) = serial else { return true };
        self.replica(id).is_some_and(|replicated| replicated.replica.term() == serial.term)
    }
}
