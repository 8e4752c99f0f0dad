//! Requests that nobody can answer at the moment. They wait: who leads soon answers those that change nothing, and those that
//! nobody else can have carried out; whoever waited for nothing is told.
//!
//! A request comes to every server that its client's server has a link with, and a server that waits for a leader hands its
//! copy on: the same change may reach a leader twice, and counts once ([`Done`]).

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};

use hw_hub::Hub;
use hw_jsapi::{ApiError, Parsed, Request};
use hw_kit::{AccountId, GroupId, LogIndex, Map, NodeId, Span, Time};

use crate::api::{Call, Whom};
use crate::commit::META;
use crate::jetstream::JetStream;

/// How long they wait.
const PATIENCE: Span = Span::from_secs(1);
/// And those that nobody else has: until a successor that did not come is given up, and somebody else leads.
const PATIENCE_HELD: Span = Span::from_secs(4);

/// A server whose link is younger than this may not have told yet what it listens to.
const YOUNG: Span = Span::from_millis(200);
/// How long a leader of the meta group waits for servers that were never there before it says that there are too few.
const GATHERING: Span = Span::from_secs(1);

/// Copies of one request reach its leader within this.
const COPIES_WITHIN: Span = Span::from_secs(10);
/// So many changes are remembered at most.
const DONE_MAX: usize = 10_000;

/// Requests that wait.
#[derive(Default)]
pub(crate) struct Parked {
    all: Vec<Waiting>,
    done: Done,
}

/// Changes that were carried out here a moment ago.
#[derive(Default)]
struct Done {
    recent: VecDeque<(Time, u64)>,
    /// When one was carried out last, and whether it was a copy that was handed on.
    known: Map<u64, (Time, bool)>,
}

impl Done {
    /// Notes a change; false: it was carried out already, as one of the two was handed on. A client may use one reply
    /// subject for several requests, but those come from itself.
    fn note(&mut self, now: Time, call: &Call) -> bool {
        while self.recent.len() >= DONE_MAX
            || self.recent.front().is_some_and(|(at, _)| now.since(*at) > COPIES_WITHIN)
        {
            let Some((at, key)) = self.recent.pop_front() else { break };
            if self.known.get(&key).is_some_and(|(last, _)| *last == at) {
                self.known.remove(&key);
            }
        }
        let is_copy = call.handed_on.is_some();
        let mut hasher = DefaultHasher::new();
        (call.account.0, &call.subject, &call.reply, &call.body).hash(&mut hasher);
        let key = hasher.finish();
        if self.known.get(&key).is_some_and(|(_, copy)| *copy || is_copy) {
            return false;
        }
        self.recent.push_back((now, key));
        self.known.insert(key, (now, is_copy));
        true
    }
}

struct Waiting {
    call: Call,
    parsed: Parsed,
    until: Time,
    /// Whose leader it is for.
    group: GroupId,
    /// This server led when it came, with a successor on its way: nobody else carries it out.
    mine: bool,
    /// The term in which this server took itself for the leader when it came, and could not prove it: if it leads in that
    /// term still, nobody else can have carried it out.
    unproven: Option<u64>,
    /// The servers that it reached as well: who of them led may have carried it out.
    heard: Vec<NodeId>,
    /// Nothing was ever decided in this cluster when it came, as far as this server knows: nobody led.
    early: bool,
}

impl Waiting {
    /// To whom it is handed on, if that is the leader of its group: somebody who has it from this server alone.
    fn is_for(&self, leader: NodeId) -> Option<Whom> {
        if self.call.handed_on.is_some() {
            return self.call.handed_on;
        }
        let is_from_here = self.call.sender.conn.is_some();
        let is_news = is_from_here && !self.heard.contains(&leader);
        if self.mine || is_from_here && self.heard.is_empty() || is_news && is_look(&self.parsed) {
            return Some(Whom::Any);
        }
        // Others have it, and whoever of them led would have carried it out.
        (is_news && self.early).then_some(Whom::First)
    }
}

/// Whom a request needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lack {
    /// A leader of the meta group or of a stream.
    Leader,
    /// All servers that have the stream.
    Servers,
}

impl Parked {
    /// When the next is told.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.all.iter().map(|waiting| waiting.until).min()
    }
}

impl JetStream {
    /// A request that is not this server's to answer: perhaps it is nobody's.
    pub(crate) fn park(&mut self, now: Time, call: &Call, parsed: Parsed) {
        if self.lack(call.account, &parsed).is_none() {
            return;
        }
        let id = self.group_asked(call.account, &parsed);
        let is_led = match id {
            META => self.leads_meta(),
            id => self.groups.get(&id).is_some_and(|group| group.log.is_leading()),
        };
        let is_proven = is_led && self.has_lease(now, id);
        let term = self.replica(id).map(|replicated| replicated.replica.term());
        let unproven = term.filter(|_| is_led && !is_proven);
        let mine = is_proven || call.handed_on.is_some();
        let early = self.meta_log.applied() == LogIndex(0);
        let Some(cluster) = &mut self.cluster else { return };
        let before = now - YOUNG;
        let has_it = |node: &NodeId| cluster.peers.get(*node).is_some_and(|peer| peer.since <= before);
        let heard: Vec<NodeId> = cluster.peers.linked().map(|(node, _)| node).filter(has_it).collect();
        let patience = if mine || heard.is_empty() { PATIENCE_HELD } else { PATIENCE };
        let until = now + patience;
        let (call, group) = (call.clone(), id);
        cluster.parked.all.push(Waiting { call, parsed, until, group, mine, unproven, heard, early });
    }

    /// Leaders may have been found.
    pub(crate) fn run_parked(&mut self, now: Time, hub: &Hub) {
        let Some(cluster) = &mut self.cluster else { return };
        for mut waiting in std::mem::take(&mut cluster.parked.all) {
            let account = waiting.call.account;
            if self.is_mine(now, account, &waiting.parsed) {
                // A change may have been made already by who led before, and must not be made twice.
                let is_alone = waiting.heard.is_empty() && waiting.call.sender.conn.is_some();
                let is_first = || waiting.group == META && self.is_first_leader();
                let term = self.replica(waiting.group).map(|replicated| replicated.replica.term());
                let is_same = waiting.unproven.is_some() && waiting.unproven == term;
                if waiting.mine || is_same || is_alone || is_look(&waiting.parsed) || is_first() {
                    waiting.call.handed_on = waiting.call.handed_on.or(Some(Whom::Any));
                    self.calls.push_back(waiting.call);
                }
                continue;
            }
            if let Some(leader) = self.other_leader(waiting.group)
                && let Some(whom) = waiting.is_for(leader)
            {
                self.forward_call(leader, whom, &waiting.call);
                continue;
            }
            let Some(lack) = self.lack(account, &waiting.parsed) else { continue };
            if waiting.until > now {
                if let Some(cluster) = &mut self.cluster {
                    cluster.parked.all.push(waiting);
                }
                continue;
            }
            if let Parsed::Request(kind, _) = &waiting.parsed {
                waiting.call.kind = *kind;
            }
            let is_of_consumer = matches!(&waiting.parsed, Parsed::Request(_, Request::ConsumerInfo { .. }));
            let code = match (lack, is_of_consumer) {
                (Lack::Leader, _) => 10008,
                (Lack::Servers, true) => 10119,
                (Lack::Servers, false) => 10118,
            };
            self.answer(now, hub, &waiting.call, Err(ApiError::new(code)));
        }
    }

    /// Whether this server leads the meta group, and nobody led it before, or since this server started.
    fn is_first_leader(&self) -> bool {
        self.leads_meta() && self.replica(META).is_some_and(|meta| meta.founding)
    }

    /// Whether a request is to be carried out: it is for this leader, and no change that was made already.
    pub(crate) fn is_due(&mut self, now: Time, call: &Call, parsed: &Parsed) -> bool {
        if call.handed_on == Some(Whom::First) && !self.is_first_leader() {
            return false;
        }
        match &mut self.cluster {
            Some(cluster) if !is_look(parsed) && !call.reply.is_empty() => {
                cluster.parked.done.note(now, call)
            }
            _ => true,
        }
    }

    /// What a request needs and is not there, as far as this server is concerned.
    fn lack(&self, account: AccountId, parsed: &Parsed) -> Option<Lack> {
        let Parsed::Request(_, request) = parsed else {
            return self.lacks_leader(META).then_some(Lack::Leader);
        };
        let asset =
            request.of_stream().and_then(|stream| self.meta.stream(&self.account_name(account), stream));
        let Some(asset) = asset else {
            return (self.lacks_leader(META) || self.leads_meta()).then_some(Lack::Leader);
        };
        let cluster = self.cluster.as_ref()?;
        let is_here = |node: NodeId| node == cluster.me || cluster.peers.is_alive(node);
        if self.leads_meta() && !asset.servers().any(is_here) {
            return Some(Lack::Servers);
        }
        let id = asset.group();
        let is_led = self.groups.get(&id).is_some_and(|group| group.log.is_leading());
        // Who leads and cannot prove it waits for the others to say so.
        let has_it = self.is_placed_here(asset) || self.groups.contains_key(&id);
        let lacks = has_it && (self.lacks_leader(id) || is_led);
        lacks.then_some(Lack::Leader)
    }

    /// Whether this server has only just begun to lead the meta group, and servers of the configuration have never been
    /// members: a stream that needs them waits.
    pub(crate) fn is_gathering(&self, now: Time) -> bool {
        let (Some(cluster), Some(replicated)) = (&self.cluster, self.replica(META)) else { return false };
        // Of a member that has not joined yet nobody knows the tags.
        let voters = &replicated.replica.members().voters;
        let known = self.meta.nodes().filter(|(node, _)| voters.contains(node)).count();
        known < cluster.config.expected as usize && now.since(replicated.since) < GATHERING
    }

    /// The group whose leader carries a request out.
    fn group_asked(&self, account: AccountId, parsed: &Parsed) -> GroupId {
        let Parsed::Request(_, request) = parsed else { return META };
        let asset =
            request.of_stream().and_then(|stream| self.meta.stream(&self.account_name(account), stream));
        asset.map_or(META, hw_meta::Asset::group)
    }

    /// Who leads a group by now, if it is another server.
    fn other_leader(&self, id: GroupId) -> Option<NodeId> {
        let cluster = self.cluster.as_ref()?;
        let is_there = |node: &NodeId| *node != cluster.me && cluster.peers.is_alive(*node);
        match self.replica(id) {
            Some(replicated) => Some(replicated.replica.leader()).filter(is_there),
            // It has moved away meanwhile.
            None => {
                let asset = self.meta.all().find(|(_, asset)| asset.group() == id);
                asset.and_then(|(_, asset)| asset.servers().find(is_there))
            }
        }
    }

    /// Whether nobody leads a group, as far as this server knows.
    pub(crate) fn lacks_leader(&self, id: GroupId) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let Some(replicated) = self.replica(id) else { return id == META };
        let leader = replicated.replica.leader();
        match leader == cluster.me {
            true => !self.decides(id),
            false => !cluster.peers.is_alive(leader),
        }
    }
}

/// Whether a request changes nothing.
fn is_look(parsed: &Parsed) -> bool {
    let Parsed::Request(_, request) = parsed else { return false };
    matches!(
        request,
        Request::AccountInfo
            | Request::StreamNames { .. }
            | Request::StreamList { .. }
            | Request::StreamInfo { .. }
            | Request::MessageGet { .. }
            | Request::ConsumerNames { .. }
            | Request::ConsumerList { .. }
            | Request::ConsumerInfo { .. }
    )
}
