//! API requests that another server answers. The server whose client asks takes the request, and nobody else does: it hands it
//! to whoever leads, and keeps it while nobody does. So there is one copy of it, which is answered once, and nothing comes of
//! it later.

use hw_hub::Hub;
use hw_jsapi::{ApiError, Parsed, Request};
use hw_kit::{AccountId, GroupId, NodeId, Span, Time};
use hw_meta::Asset;

use super::forward::HOPS_MAX;
use crate::api::Call;
use crate::commit::META;
use crate::jetstream::JetStream;

/// How long a request waits for a leader: until a successor that did not come is given up, and somebody else leads.
const PATIENCE: Span = Span::from_secs(4);
/// And where nobody can be elected.
const PATIENCE_OFFLINE: Span = Span::from_secs(1);
/// A request that was handed on often waits so long before it is again: servers take each other for the leader.
const REST: Span = Span::from_millis(50);
/// After so many it is not handed on any more.
const HOPS_END: u8 = HOPS_MAX + (PATIENCE.0 / REST.0) as u8;
/// How long a leader of the meta group waits for servers that it does not reach yet before it says that there are too few.
const GATHERING: Span = Span::from_secs(1);
/// So many requests wait at most.
const PARKED_MAX: usize = 10_000;

/// Requests that wait.
#[derive(Default)]
pub(crate) struct Parked {
    all: Vec<Waiting>,
}

struct Waiting {
    call: Call,
    parsed: Parsed,
    since: Time,
    /// When to look whether it has waited too long, or has rested.
    due: Time,
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
    /// When the next is told, or goes on.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.all.iter().map(|waiting| waiting.due).min()
    }
}

impl Waiting {
    /// It goes nowhere before this.
    fn rests(&self) -> Time {
        if self.call.hops < HOPS_MAX { self.since } else { self.since + REST }
    }
}

impl Call {
    /// Its client does not wait any more after this. Where it waited before is counted in hops.
    fn expires(&self) -> Time {
        self.came + left(self.hops)
    }
}

/// What is left of the time that a client waits, after so many hops.
fn left(hops: u8) -> Span {
    Span(PATIENCE.0 - i64::from(hops.min(HOPS_END)) * REST.0).max(Span::ZERO)
}

impl JetStream {
    /// A request that is not this server's to answer goes to whoever does, or waits.
    pub(crate) fn pass_on(&mut self, now: Time, hub: &Hub, call: Call, parsed: Parsed) {
        match self.leader_asked(call.account, &parsed) {
            Some(leader) if call.hops < HOPS_MAX => self.forward_call(leader, &call),
            _ => self.park(now, hub, call, parsed),
        }
    }

    /// A request waits, if there is room.
    pub(crate) fn park(&mut self, now: Time, hub: &Hub, call: Call, parsed: Parsed) {
        match self.cluster.as_mut().filter(|cluster| cluster.parked.all.len() < PARKED_MAX) {
            Some(cluster) => cluster.parked.all.push(Waiting { call, parsed, since: now, due: now + REST }),
            None => self.give_up_call(now, hub, (call, parsed)),
        }
    }

    /// Leaders may have been found.
    pub(crate) fn run_parked(&mut self, now: Time, hub: &Hub) {
        let Some(cluster) = &mut self.cluster else { return };
        for mut waiting in std::mem::take(&mut cluster.parked.all) {
            let account = waiting.call.account;
            if self.is_mine(now, account, &waiting.parsed) {
                self.calls.push_back(waiting.call);
                continue;
            }
            let rests = waiting.rests();
            if rests <= now
                && waiting.call.hops < HOPS_END
                && let Some(leader) = self.leader_asked(account, &waiting.parsed)
            {
                let waited = u8::try_from(now.since(waiting.call.came).0 / REST.0).unwrap_or(HOPS_END);
                waiting.call.hops = waiting.call.hops.saturating_add(waited).min(HOPS_END);
                self.forward_call(leader, &waiting.call);
                continue;
            }
            let until = self.waits_until(now, &waiting);
            if until <= now {
                self.give_up_call(now, hub, (waiting.call, waiting.parsed));
                continue;
            }
            waiting.due = if rests > now { rests } else { until };
            if let Some(cluster) = &mut self.cluster {
                cluster.parked.all.push(waiting);
            }
        }
    }

    /// How long a request waits if nothing happens.
    fn waits_until(&self, now: Time, waiting: &Waiting) -> Time {
        let Waiting { call, parsed, since, .. } = waiting;
        let can_come = self.lack(call.account, parsed) == Lack::Leader
            && self.may_elect(self.group_asked(call.account, parsed));
        let until = if can_come { call.expires() } else { call.expires().min(*since + PATIENCE_OFFLINE) };
        self.gathers_until(now, parsed).map_or(until, |gathered| until.max(gathered))
    }

    /// Nobody came.
    fn give_up_call(&mut self, now: Time, hub: &Hub, (mut call, parsed): (Call, Parsed)) {
        if let Parsed::Request(kind, _) = &parsed {
            call.kind = *kind;
        }
        let is_of_consumer = matches!(&parsed, Parsed::Request(_, Request::ConsumerInfo { .. }));
        let code = match (self.lack(call.account, &parsed), is_of_consumer) {
            (Lack::Leader, _) => 10008,
            (Lack::Servers, true) => 10119,
            (Lack::Servers, false) => 10118,
        };
        self.answer(now, hub, &call, Err(ApiError::new(code)));
    }

    /// Nothing came of a request that was proposed here, and nothing will: the next leader is asked, unless whoever asked
    /// waits no more.
    pub(crate) fn ask_again(&mut self, now: Time, hub: &Hub, call: Call) {
        match now < call.expires() {
            true => self.calls.push_back(call),
            false => self.answer(now, hub, &call, Err(ApiError::new(10008))),
        }
    }

    /// Whether what another server asks, or hands on after so many hops, may be so old that its client does not wait any more.
    /// It must not be carried out then: the client has gone on.
    pub(crate) fn is_stale(&self, now: Time, from: NodeId, hops: u8) -> bool {
        let peer = self.cluster.as_ref().and_then(|cluster| cluster.peers.get(from));
        peer.is_none_or(|peer| now.since(peer.sent_since()) >= left(hops))
    }

    /// A leader of the meta group that has only just begun, and does not reach everybody yet, lets a stream that needs more
    /// servers than it knows wait until then.
    pub(crate) fn gathers_until(&self, now: Time, parsed: &Parsed) -> Option<Time> {
        let Parsed::Request(_, Request::StreamCreate { config, .. }) = parsed else { return None };
        let (cluster, replicated) = (self.cluster.as_ref()?, self.replica(META)?);
        let until = replicated.since + GATHERING;
        if !replicated.is_leading() || until <= now {
            return None;
        }
        // Of a member that has not joined yet nobody knows the tags.
        let voters = &replicated.replica.members().voters;
        let known = self.meta.nodes().filter(|(node, _)| voters.contains(node)).count();
        let lacks = known < cluster.config.expected as usize || self.peers_for(config).is_err();
        lacks.then_some(until)
    }

    /// What a request needs that nobody answers.
    fn lack(&self, account: AccountId, parsed: &Parsed) -> Lack {
        let Some(cluster) = &self.cluster else { return Lack::Leader };
        let is_here = |node: NodeId| node == cluster.me || cluster.peers.is_alive(node);
        match self.stream_asked(account, parsed) {
            Some(asset) if !asset.servers().any(is_here) => Lack::Servers,
            _ => Lack::Leader,
        }
    }

    /// The stream that a request is about, as far as this server knows.
    fn stream_asked(&self, account: AccountId, parsed: &Parsed) -> Option<&Asset> {
        let Parsed::Request(_, request) = parsed else { return None };
        request.of_stream().and_then(|stream| self.meta.stream(&self.account_name(account), stream))
    }

    /// The group whose leader carries a request out.
    fn group_asked(&self, account: AccountId, parsed: &Parsed) -> GroupId {
        self.stream_asked(account, parsed).map_or(META, Asset::group)
    }

    /// Who answers a request, if it is another server, or knows more than this one.
    fn leader_asked(&self, account: AccountId, parsed: &Parsed) -> Option<NodeId> {
        if self.is_outside() {
            return self.anybody();
        }
        let leader = self.other_leader(self.group_asked(account, parsed));
        // That nobody is there who has a stream, the leader of the meta group says.
        let is_lost = || !self.leads_meta() && self.lack(account, parsed) == Lack::Servers;
        leader.or_else(|| is_lost().then(|| self.other_leader(META)).flatten())
    }

    /// Who leads a group by now, or can say who does, if it is another server.
    pub(super) fn other_leader(&self, id: GroupId) -> Option<NodeId> {
        let cluster = self.cluster.as_ref()?;
        let is_there = |node: &NodeId| *node != cluster.me && cluster.peers.is_alive(*node);
        match self.replica(id) {
            Some(replicated) => self.proven_leader(id, replicated).filter(is_there),
            // Who has not joined asks those who may have.
            None if id == META => self.anybody(),
            None => {
                let asset = self.meta.all().find(|(_, asset)| asset.group() == id);
                asset.and_then(|(_, asset)| asset.servers().find(is_there))
            }
        }
    }

    /// Another server, whichever.
    fn anybody(&self) -> Option<NodeId> {
        let peers = &self.cluster.as_ref()?.peers;
        peers.linked().map(|(node, _)| node).find(|node| peers.is_alive(*node))
    }

    /// Whether somebody can come to lead a group, as far as this server knows.
    fn may_elect(&self, id: GroupId) -> bool {
        let Some(cluster) = &self.cluster else { return true };
        match self.replica(id) {
            // Where nobody led so far the others may be about to come.
            Some(replicated) => {
                let was_there = replicated.was_led || replicated.led != 0 || replicated.is_leading();
                !was_there || cluster.has_quorum(&replicated.replica.members().voters)
            }
            None => true,
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
