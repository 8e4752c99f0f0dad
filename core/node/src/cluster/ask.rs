//! Requests between JetStream servers: who proposes to the meta group from elsewhere, and who needs a stream's leader for an
//! answer to its client.

use std::collections::BTreeMap;

use bytes::Bytes;
use hw_cluster::PeerFrame;
use hw_hub::Hub;
use hw_jsapi::{ApiError, Kind};
use hw_kit::{GroupId, NodeId, Span, Time};
use hw_meta::{MetaAnswer, MetaCommand};
use serde::{Deserialize, Serialize};

use super::handed::LIFE_BITS;
use crate::api::Call;
use crate::feed::Wanted;
use crate::jetstream::JetStream;

/// How long a client's request waits for another server.
pub(super) const PATIENCE: Span = Span::from_secs(4);

/// So many questions later nobody waits for an answer about copies.
const COPIES_KEPT: u64 = 100_000;

/// What one server asks another.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Question {
    /// Propose this to the meta group, if you lead it in this term; 0: in whichever. There is no answer.
    Propose { term: u64, command: Box<MetaCommand> },
    /// What a client is told that created or updated this stream, once you lead it.
    Created {
        group: u64,
        update: bool,
        /// What was updated was taken back.
        #[serde(default)]
        back: bool,
    },
    /// What lists show of those of these streams that you lead.
    Streams { groups: Vec<u64> },
    /// The next messages of a stream that you lead, for one that follows it.
    Copies(Box<Wanted>),
    /// What you have of an account.
    Usage { account: String },
}

/// Requests of this server, and requests of others that wait until it leads.
#[derive(Default)]
pub(crate) struct Asks {
    /// The last number that was given.
    last: u64,
    own: BTreeMap<u64, Pending>,
    waiting: Vec<Waiting>,
    /// Questions for copies, and the groups that they are for.
    copies: BTreeMap<u64, GroupId>,
    /// Answers that wait until everybody knows an interest change, by its mark.
    gated: Vec<(u64, NodeId, u64, Bytes)>,
}

struct Pending {
    call: Box<Call>,
    until: Time,
}

struct Waiting {
    from: NodeId,
    id: u64,
    group: GroupId,
    kind: Kind,
    until: Time,
}

impl Asks {
    /// Numbers begin where no earlier life of this server began: a command of that may be decided only now.
    pub(crate) fn new(seed: u64) -> Asks {
        Asks { last: seed << LIFE_BITS, ..Asks::default() }
    }

    /// When a request has waited too long.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let own = self.own.values().map(|pending| pending.until);
        own.chain(self.waiting.iter().map(|waiting| waiting.until)).min()
    }

    /// A number for a question.
    pub(super) fn next_id(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn keep(&mut self, now: Time, call: &Call) -> u64 {
        let id = self.next_id();
        self.own.insert(id, Pending { call: Box::new(call.clone()), until: now + PATIENCE });
        id
    }
}

impl JetStream {
    /// A stream was created or updated: its leader knows what the client is told. Says whether that is awaited.
    pub(crate) fn ask_leader(&mut self, now: Time, hub: &mut Hub, group: GroupId, call: &Call) -> bool {
        if self.cluster.is_none() || self.groups.get(&group).is_some_and(|group| group.log.is_leading()) {
            return false;
        }
        let asset = self.meta.all().find(|(_, asset)| asset.group() == group);
        let peers: Vec<NodeId> = asset.map(|(_, asset)| asset.servers().collect()).unwrap_or_default();
        let back = matches!(call.kind, Kind::StreamCancelMove | Kind::AccountCancelMove);
        let update = back || matches!(call.kind, Kind::StreamUpdate | Kind::StreamMove);
        let Some(cluster) = &mut self.cluster else { return false };
        let (id, me) = (cluster.asks.keep(now, call), cluster.me);
        let question = Question::Created { group: group.0, update, back };
        for peer in peers.iter().filter(|peer| **peer != me) {
            cluster.send(*peer, ask(id, &question));
        }
        if peers.contains(&me) {
            self.wait_to_lead(now, hub, (me, id), (group, kind_of(update, back)));
        }
        true
    }

    /// Another server asks.
    pub(crate) fn handle_ask(&mut self, now: Time, hub: &mut Hub, from: (NodeId, u64), body: &Bytes) {
        match serde_json::from_slice(body) {
            Ok(Question::Propose { term, command }) => {
                if !self.is_stale(now, from.0, 0) {
                    self.propose_for(term, &command);
                }
            }
            Err(_) => {}
            Ok(Question::Created { group, update, back }) => {
                self.wait_to_lead(now, hub, from, (GroupId(group), kind_of(update, back)));
            }
            Ok(Question::Copies(wanted)) => {
                let body = self.give_copies(now, &wanted).unwrap_or_default();
                if let Some(cluster) = &mut self.cluster {
                    cluster.send(from.0, PeerFrame::Answer { id: from.1, body });
                }
            }
            Ok(question) => self.tell_asker(now, from, &question),
        }
    }

    fn wait_to_lead(
        &mut self,
        now: Time,
        hub: &mut Hub,
        (from, id): (NodeId, u64),
        (group, kind): (GroupId, Kind),
    ) {
        let Some(cluster) = &mut self.cluster else { return };
        cluster.asks.waiting.push(Waiting { from, id, group, kind, until: now + PATIENCE });
        if self.groups.get(&group).is_some_and(|group| group.log.is_leading()) {
            self.answer_waiting(now, hub, group);
        }
    }

    /// A stream that was created here, and nowhere else, is led at once.
    pub(crate) fn answer_alone(&mut self, now: Time, hub: &mut Hub, answer: &MetaAnswer) {
        if let MetaAnswer::Created(Ok((id, _))) = answer
            && self.groups.get(id).is_some_and(|group| group.log.is_leading())
        {
            self.answer_waiting(now, hub, *id);
        }
    }

    /// This server leads a stream: who waits for that is answered.
    pub(crate) fn answer_waiting(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        let Some(cluster) = &mut self.cluster else { return };
        let all = std::mem::take(&mut cluster.asks.waiting);
        let (mine, others): (Vec<Waiting>, Vec<Waiting>) = all.into_iter().partition(|one| one.group == id);
        cluster.asks.waiting = others;
        for waiting in mine {
            let Some(mut info) = self.stream_view(now, id) else { continue };
            info.cluster = self.cluster_info(now, id);
            let json = hw_jsapi::stream_create(waiting.kind, &info, waiting.kind == Kind::StreamCreate);
            if let Some(cluster) = &mut self.cluster {
                cluster.asks.gated.push((hub.interest_mark(), waiting.from, waiting.id, json.into()));
            }
        }
    }

    /// An answer to a request of this server.
    pub(crate) fn handle_answer(&mut self, now: Time, hub: &Hub, id: u64, body: Bytes) {
        if self.handle_told(id, &body) {
            return;
        }
        let group = self.cluster.as_mut().and_then(|cluster| cluster.asks.copies.remove(&id));
        if let Some(group) = group {
            return self.handle_copies(now, (id, group), &body);
        }
        let pending = self.cluster.as_mut().and_then(|cluster| cluster.asks.own.remove(&id));
        if let Some(pending) = pending {
            self.answer(now, hub, &pending.call, Ok(body.to_vec()));
        }
    }

    /// Answers whose time has come, and requests that nobody answered.
    pub(crate) fn run_asks(&mut self, now: Time, hub: &mut Hub) {
        let Some(cluster) = &mut self.cluster else { return };
        let settled = hub.interest_settled();
        let (free, gated): (Vec<_>, Vec<_>) =
            std::mem::take(&mut cluster.asks.gated).into_iter().partition(|(mark, ..)| *mark <= settled);
        cluster.asks.gated = gated;
        cluster.asks.waiting.retain(|waiting| waiting.until > now);
        let late = cluster.asks.own.extract_if(.., |_, pending| pending.until <= now);
        let late: Vec<Pending> = late.map(|(_, pending)| pending).collect();
        for (_, to, id, body) in free {
            match self.is_me(to) {
                true => self.handle_answer(now, hub, id, body),
                false => {
                    if let Some(cluster) = &mut self.cluster {
                        cluster.send(to, PeerFrame::Answer { id, body });
                    }
                }
            }
        }
        for pending in late {
            self.answer(now, hub, &pending.call, Err(ApiError::new(10008)));
        }
    }
}

impl super::Cluster {
    /// Asks a server for copies of what it leads; gives the question's number.
    pub(crate) fn ask_copies(&mut self, to: NodeId, group: GroupId, wanted: Wanted) -> u64 {
        let id = self.asks.next_id();
        // An earlier question of this group that was not answered in time is not waited for any more.
        self.asks.copies.retain(|asked, of| *of != group || *asked + COPIES_KEPT > id);
        self.asks.copies.insert(id, group);
        self.send(to, ask(id, &Question::Copies(Box::new(wanted))));
        id
    }
}

/// What a client is told when its request is carried out.
fn kind_of(update: bool, back: bool) -> Kind {
    match (update, back) {
        (_, true) => Kind::StreamCancelMove,
        (true, false) => Kind::StreamUpdate,
        (false, false) => Kind::StreamCreate,
    }
}

pub(super) fn ask(id: u64, question: &Question) -> PeerFrame {
    let body = serde_json::to_vec(question).expect("plain data always encodes");
    PeerFrame::Ask { id, body: body.into() }
}
