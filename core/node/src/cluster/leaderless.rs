//! Requests that nobody can answer at the moment. They wait: who leads soon answers those that may be done twice, and
//! whoever waited for nothing is told.

use hw_hub::Hub;
use hw_jsapi::{ApiError, Parsed, Request};
use hw_kit::{AccountId, GroupId, NodeId, Span, Time};

use crate::api::Call;
use crate::commit::META;
use crate::jetstream::JetStream;

/// How long they wait.
const PATIENCE: Span = Span::from_secs(1);

/// Requests that wait.
#[derive(Default)]
pub(crate) struct Parked {
    all: Vec<Waiting>,
}

struct Waiting {
    call: Call,
    parsed: Parsed,
    until: Time,
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
        if let Some(cluster) = &mut self.cluster {
            cluster.parked.all.push(Waiting { call: call.clone(), parsed, until: now + PATIENCE });
        }
    }

    /// Leaders may have been found.
    pub(crate) fn run_parked(&mut self, now: Time, hub: &Hub) {
        let Some(cluster) = &mut self.cluster else { return };
        for mut waiting in std::mem::take(&mut cluster.parked.all) {
            let account = waiting.call.account;
            if self.is_mine(now, account, &waiting.parsed) {
                // A change may have been made already by who led before, and must not be made twice.
                if is_repeatable(&waiting.parsed) {
                    self.calls.push_back(waiting.call);
                }
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

    /// What a request needs and is not there, as far as this server is concerned.
    fn lack(&self, account: AccountId, parsed: &Parsed) -> Option<Lack> {
        let Parsed::Request(_, request) = parsed else {
            return self.lacks_leader(META).then_some(Lack::Leader);
        };
        let asset =
            request.of_stream().and_then(|stream| self.meta.stream(&self.account_name(account), stream));
        let Some(asset) = asset else {
            return self.lacks_leader(META).then_some(Lack::Leader);
        };
        let cluster = self.cluster.as_ref()?;
        let is_here = |node: NodeId| node == cluster.me || cluster.peers.is_alive(node);
        if self.leads_meta() && !asset.peers().any(is_here) {
            return Some(Lack::Servers);
        }
        (self.is_placed_here(asset) && self.lacks_leader(asset.group())).then_some(Lack::Leader)
    }

    /// Whether nobody leads a group, as far as this server knows.
    pub(crate) fn lacks_leader(&self, id: GroupId) -> bool {
        let Some(cluster) = &self.cluster else { return false };
        let Some(replicated) = self.replica(id) else { return id == META };
        let leader = replicated.replica.leader();
        match leader == cluster.me {
            true => !replicated.is_leading(),
            false => !cluster.peers.is_alive(leader),
        }
    }
}

/// Whether a request leaves the same behind when it is done once more: it changes nothing, or creates what may be there.
fn is_repeatable(parsed: &Parsed) -> bool {
    let Parsed::Request(_, request) = parsed else { return false };
    matches!(
        request,
        Request::AccountInfo
            | Request::StreamCreate { .. }
            | Request::ConsumerCreate(_)
            | Request::StreamNames { .. }
            | Request::StreamList { .. }
            | Request::StreamInfo { .. }
            | Request::MessageGet { .. }
            | Request::ConsumerNames { .. }
            | Request::ConsumerList { .. }
            | Request::ConsumerInfo { .. }
    )
}
