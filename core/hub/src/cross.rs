//! The way into other accounts: bridges that imports make, and the way back for answers.
//!
//! A bridge is a sink of the account where messages are published. The shard on which a message is published walks it;
//! behind it the message goes on as if it had been published there, on the subject that the import gives it. Members
//! of queue groups of one name are one group, in whichever of these accounts they are.

use std::collections::BTreeMap;

use bytes::Bytes;
use hw_auth::{Bridge, BridgeKind, Mapped, ResponseType};
use hw_kit::{AccountId, Span};
use hw_subject::Matched;
use hw_wire::{REQUEST_INFO, RequestInfo, headers};

use crate::answers::Answer;
use crate::hub::{AccountState, Hub, Sink};
use crate::message::{Inside, Message, Origin};
use crate::route::Reach;
use crate::sinks::Routed;

/// How many bridges one message may walk.
const MAX_BRIDGES: usize = 32;

/// How the message at hand got into its account.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journey {
    /// The bridges behind it, one after the other.
    path: Vec<u32>,
    /// As a message that another account hears: such a one goes no further.
    heard: bool,
    /// As a request or an answer: such a one is heard nowhere else.
    served: bool,
    /// Whose request it was at first.
    asker: Option<AccountId>,
    /// Whether the first import shares who asks.
    share: bool,
    /// Queue groups that get it in another account.
    pub left_out: Vec<Bytes>,
}

/// Queue groups of one name in several accounts: where the message does not go, for it goes to another part of the group.
#[derive(Debug, Default)]
pub(crate) struct SharedGroups {
    /// Positions in the lookup's result.
    away: Vec<usize>,
    /// Bridges, and the groups behind them.
    behind: Vec<(u32, Bytes)>,
}

/// A part of a queue group.
#[derive(Clone, Copy)]
enum Part {
    /// At this position of the lookup's result.
    Here(usize),
    /// Behind this bridge.
    Behind(u32),
}

impl SharedGroups {
    /// Whether the group at this position of the lookup's result is served elsewhere.
    #[inline]
    pub fn is_away(&self, at: usize) -> bool {
        self.away.contains(&at)
    }
}

/// Behind a bridge.
struct Beyond<'a> {
    account: AccountId,
    to: &'a [u8],
    header: &'a [u8],
    single: bool,
    threshold: Span,
}

impl Hub {
    /// Makes the directory's bridges part of the accounts' interest.
    pub(crate) fn build_bridges(&mut self) {
        let directory = self.config.directory.clone();
        for (at, bridge) in (0..).zip(directory.bridges()) {
            let state = self.account_mut(bridge.from);
            state.bridged = true;
            state.interest.insert(bridge.filter.as_ref(), None, Sink::Bridge(at));
        }
        self.interest_changes += u64::from(!directory.bridges().is_empty());
    }

    /// Takes them away before another directory comes.
    pub(crate) fn clear_bridges(&mut self) {
        let directory = self.config.directory.clone();
        for (at, bridge) in (0..).zip(directory.bridges()) {
            let interest = &mut self.account_mut(bridge.from).interest;
            interest.remove(bridge.filter.as_ref(), None, &Sink::Bridge(at));
        }
        self.interest_changes += u64::from(!directory.bridges().is_empty());
    }

    /// Where the account's mappings send a message; `None` if it stays.
    #[inline]
    pub(crate) fn mapped(&mut self, account: AccountId, subject: &[u8]) -> Option<Vec<u8>> {
        let mappings = self.config.directory.mappings(account)?;
        match mappings.apply(subject, self.rng.next_u64()) {
            Mapped::Same => None,
            Mapped::To(to) => Some(to),
            // Nobody listens to it.
            Mapped::Dropped => Some(Vec::new()),
        }
    }

    /// Brings a message into other accounts. Returns how many sinks want it there.
    pub(crate) fn cross(
        &mut self,
        routed: &Routed<'_>,
        origin: Origin,
        (ways, shared): (&[Sink], &SharedGroups),
        inside: &mut impl Inside,
    ) -> usize {
        let directory = self.config.directory.clone();
        let mut receivers = 0;
        for way in ways {
            let before = self.journey.clone();
            receivers += match *way {
                Sink::Answers => self.answer(routed, origin, inside),
                Sink::Bridge(at) => match directory.bridges().get(at as usize) {
                    Some(bridge) if self.sets_out(at, bridge) => {
                        let left_out = shared.behind.iter().filter(|(bridge, _)| *bridge == at);
                        self.journey.left_out = left_out.map(|(_, group)| group.clone()).collect();
                        self.walk(routed, origin, bridge, inside)
                    }
                    _ => 0,
                },
                _ => 0,
            };
            self.journey = before;
        }
        receivers
    }

    /// Chooses the account for every queue group that has members in several of those that hear a message.
    pub(crate) fn share_groups(
        &mut self,
        routed: &Routed<'_>,
        reach: Reach<'_>,
        here: &Matched<Sink>,
    ) -> SharedGroups {
        let mut shared = SharedGroups::default();
        if self.journey.heard || self.journey.served || !matches!(reach, Reach::Everywhere) {
            return shared;
        }
        let directory = self.config.directory.clone();
        let mut groups: BTreeMap<Bytes, Vec<(Part, u64)>> = BTreeMap::new();
        for sink in &here.plain {
            let Sink::Bridge(at) = *sink else { continue };
            let bridge =
                directory.bridges().get(at as usize).filter(|bridge| bridge.kind == BridgeKind::Stream);
            let Some((bridge, to)) = bridge.and_then(|bridge| Some((bridge, bridge.subject(routed.to)?)))
            else {
                continue;
            };
            for (name, members) in &self.account_mut(bridge.to).interest.lookup(&to).queues {
                groups.entry(name.clone()).or_default().push((Part::Behind(at), weight(members)));
            }
        }
        for (at, (name, members)) in here.queues.iter().enumerate() {
            if let Some(parts) = groups.get_mut(name) {
                parts.push((Part::Here(at), weight(members)));
            }
        }
        for (name, parts) in groups.into_iter().filter(|(_, parts)| parts.len() > 1) {
            let mut left = self.rng.below(parts.iter().map(|(_, weight)| weight).sum());
            let mut chosen = false;
            for (part, weight) in parts {
                let this = !chosen && left < weight;
                (chosen, left) = (chosen || this, left.saturating_sub(weight));
                match part {
                    _ if this => {}
                    Part::Here(at) => shared.away.push(at),
                    Part::Behind(bridge) => shared.behind.push((bridge, name.clone())),
                }
            }
        }
        shared
    }

    /// Whether a message that came this way may walk this bridge, too.
    fn sets_out(&mut self, at: u32, bridge: &Bridge) -> bool {
        let journey = &mut self.journey;
        let again = journey.path.contains(&at) || journey.path.len() >= MAX_BRIDGES;
        if journey.heard || again || (journey.served && bridge.kind == BridgeKind::Stream) {
            return false;
        }
        journey.path.push(at);
        true
    }

    fn walk(
        &mut self,
        routed: &Routed<'_>,
        origin: Origin,
        bridge: &Bridge,
        inside: &mut impl Inside,
    ) -> usize {
        let Some(to) = bridge.subject(routed.to) else { return 0 };
        match bridge.kind {
            BridgeKind::Stream => {
                self.journey.heard = true;
                let subject = if routed.msg.subject == routed.to { &to } else { routed.msg.subject };
                let msg = Message { subject, ..routed.msg };
                let routed = Routed { account: bridge.to, to: &to, msg, ..*routed };
                self.route(&routed, Origin { account: bridge.to, ..origin }, Reach::Everywhere, inside)
            }
            BridgeKind::Service { share, response, threshold } => {
                if self.journey.asker.is_none() {
                    (self.journey.asker, self.journey.share) = (Some(routed.account), share);
                }
                let info = self.request_info(routed.account, bridge.to, origin);
                let header = headers::remove(routed.msg.header, REQUEST_INFO);
                let header = headers::append(&header, REQUEST_INFO, info.to_json());
                // The service's account may map its subjects.
                let mapped = self.mapped(bridge.to, &to);
                let to = mapped.as_deref().unwrap_or(&to);
                let single = response == ResponseType::Single;
                let beyond = Beyond { account: bridge.to, to, header: &header, single, threshold };
                self.go_on(routed, origin, &beyond, inside)
            }
        }
    }

    /// An answer of a service goes back to who asked.
    fn answer(&mut self, routed: &Routed<'_>, origin: Origin, inside: &mut impl Inside) -> usize {
        let Some(answer) = self.answers.find(routed.account, routed.to).cloned() else { return 0 };
        if answer.is_late(routed.now) {
            return 0;
        }
        let mapped = self.mapped(answer.asker, &answer.reply);
        let beyond = Beyond {
            account: answer.asker,
            to: mapped.as_deref().unwrap_or(&answer.reply),
            header: routed.msg.header,
            single: answer.single,
            threshold: answer.threshold,
        };
        let receivers = self.go_on(routed, origin, &beyond, inside);
        match receivers == 0 || answer.single || routed.msg.size() == 0 {
            true => self.answers.close(routed.to),
            false => self.answers.prolong(routed.now, routed.to),
        }
        receivers
    }

    /// A request or an answer goes on behind the bridge, with a reply subject that leads back over it.
    fn go_on(
        &mut self,
        routed: &Routed<'_>,
        origin: Origin,
        beyond: &Beyond<'_>,
        inside: &mut impl Inside,
    ) -> usize {
        self.journey.served = true;
        let msg = &routed.msg;
        // Consumers know their acknowledgements by the subject: whoever pulls imports those as well.
        let kept = msg.reply.is_empty() || msg.reply.starts_with(b"$JS.ACK.");
        let reply = if kept { msg.reply.to_vec() } else { self.way_back(routed, beyond) };
        let subject = if msg.subject == routed.to { beyond.to } else { msg.subject };
        let msg = Message { subject, reply: &reply, header: beyond.header, payload: msg.payload };
        let onward = Routed { account: beyond.account, to: beyond.to, msg, ..*routed };
        let origin = Origin { account: beyond.account, ..origin };
        let receivers = self.route(&onward, origin, Reach::Everywhere, inside);
        if receivers == 0 && !kept {
            self.answers.close(&reply);
        }
        receivers
    }

    fn way_back(&mut self, routed: &Routed<'_>, beyond: &Beyond<'_>) -> Vec<u8> {
        if self.answers.listen(beyond.account) {
            let filter = self.answers.filter();
            self.account_mut(beyond.account).bridged = true;
            self.join(beyond.account, &filter, None, Sink::Answers);
        }
        let (reply, single) = (routed.msg.reply, beyond.single);
        let answer = Answer::new(beyond.account, routed.account, reply, single, beyond.threshold);
        self.answers.open(routed.now, &mut self.rng, answer)
    }

    /// Who asks, as much as the service may know.
    fn request_info(&self, at: AccountId, service: AccountId, origin: Origin) -> RequestInfo {
        let directory = &self.config.directory;
        let name = |account| directory.account(account).map(|a| a.name.clone()).unwrap_or_default();
        let asker = self.journey.asker.unwrap_or(at);
        let mut info = RequestInfo { acc: name(asker), ..RequestInfo::default() };
        if asker != at {
            info.svc = name(at);
        }
        if self.journey.share || directory.system_account() == Some(service) {
            info.server.clone_from(&self.config.info.server_name);
        }
        let Some(session) = origin.conn.and_then(|conn| self.session(conn)) else { return info };
        info.rtt = session.clock.rtt.0;
        if self.journey.share {
            info.start = session.clock.start.to_rfc3339();
            info.host.clone_from(&session.peer.ip);
            info.id = session.conn.0;
            info.user = session.identity.as_ref().map(|who| who.user.clone()).unwrap_or_default();
            info.name.clone_from(&session.options.name);
            info.lang.clone_from(&session.options.lang);
            info.ver.clone_from(&session.options.version);
            info.kind = "Client".to_owned();
            let websocket = session.peer.kind == hw_auth::ConnectionKind::Websocket;
            info.client_type = if websocket { "websocket" } else { "nats" }.to_owned();
        }
        info
    }

    /// Whether anybody wants messages on this subject, here or behind a bridge.
    pub(crate) fn has_interest_beyond(&self, account: AccountId, subject: &[u8]) -> bool {
        let Some(state) = self.accounts.get(account.0 as usize) else { return false };
        let mut matched = Matched::new();
        state.interest.matches(subject, &mut matched);
        !matched.queues.is_empty()
            || matched.plain.iter().any(|&sink| self.wants_beyond(sink, account, subject))
    }

    fn wants_beyond(&self, sink: Sink, account: AccountId, subject: &[u8]) -> bool {
        match sink {
            Sink::Bridge(at) => {
                let bridge = self.config.directory.bridges().get(at as usize);
                bridge.is_some_and(|bridge| match bridge.kind {
                    // Messages walk one bridge only: what counts is who listens right behind it.
                    BridgeKind::Stream => bridge.subject(subject).is_some_and(|to| {
                        let state = self.accounts.get(bridge.to.0 as usize);
                        state.is_some_and(|state| is_heard(state, &to))
                    }),
                    BridgeKind::Service { .. } => true,
                })
            }
            Sink::Answers => {
                let answer = self.answers.find(account, subject);
                answer.is_some_and(|answer| self.has_interest(answer.asker, &answer.reply))
            }
            _ => true,
        }
    }
}

/// How many members a group has on all shards.
fn weight(members: &[Sink]) -> u64 {
    let of = |sink: &Sink| match sink {
        Sink::Peer(_, members) | Sink::Remote(_, members) | Sink::Far(members) => u64::from(*members),
        _ => 1,
    };
    members.iter().map(of).sum()
}

/// Whether somebody in the account itself wants messages on this subject.
fn is_heard(state: &AccountState, subject: &[u8]) -> bool {
    let mut matched = Matched::new();
    state.interest.matches(subject, &mut matched);
    let itself = |sink: &Sink| !matches!(sink, Sink::Bridge(_) | Sink::Answers);
    !matched.queues.is_empty() || matched.plain.iter().any(itself)
}
