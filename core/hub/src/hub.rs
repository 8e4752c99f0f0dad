//! The hub: connections come and go, output is taken, interest is counted.

use std::collections::{BTreeSet, VecDeque};

use hw_auth::{ConnectionKind, Identity};
use hw_kit::{AccountId, ConnId, LinkId, Map, Rng, Set, ShardId, Time};
use hw_subject::Interest;
use hw_wire::{Info, Limits, encode};

use crate::answers::Answers;
use crate::close::CloseReason;
use crate::config::{HubConfig, HubLimits, Peer, Tls};
use crate::cross::Journey;
use crate::event::{Events, HubEvent};
use crate::leaving::Unclaimed;
use crate::links::Links;
use crate::message::InternalId;
use crate::peers::{InterestChange, LocalInterest, Outbox};
use crate::session::{Session, Timer, Traffic};
use crate::sinks::Sinks;
use crate::view::{ClosedView, ConnectionView, HubCounters};

/// Whom a matching message reaches.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) enum Sink {
    /// A subscription of a client here.
    Client(u32),
    /// A subscriber inside this process, here.
    Internal(InternalId),
    /// One that hears only what is published on this server.
    Private(InternalId),
    /// Sinks of another shard: how many members of the queue group, or 1.
    Peer(ShardId, u32),
    /// Sinks of another server, on shard 0: how many members of the queue group, or 1.
    Remote(LinkId, u32),
    /// Sinks of any other server, behind shard 0.
    Far(u32),
    /// A bridge into another account, by its number in the directory.
    Bridge(u32),
    /// Answers to requests that came over a bridge.
    Answers,
}

/// A queue group of another shard: the shard, the account, the filter and the group's name.
pub(crate) type GroupElsewhere = (ShardId, AccountId, Box<[u8]>, Box<[u8]>);

/// One account's interest.
#[derive(Debug, Default)]
pub(crate) struct AccountState {
    pub interest: Interest<Sink>,
    /// Connections here.
    pub connections: u32,
    /// Connections on the other shards, by shard.
    pub elsewhere: Vec<u32>,
    /// Whether its interest has ways into other accounts.
    pub bridged: bool,
    /// What went over connections here that are gone.
    pub gone: Traffic,
    /// Connections here that were closed because they read too slowly.
    pub slow: u64,
}

/// The sessions of one shard and the interest of all accounts.
///
/// Bytes of connections go in by [`Hub::handle_bytes`]; what is to be written comes out by [`Hub::swap_output`]. The
/// hub never looks at a clock: `now` says what time it is.
#[derive(Debug)]
pub struct Hub {
    pub(crate) config: HubConfig,
    pub(crate) conns: Map<ConnId, u32>,
    pub(crate) sinks: Sinks,
    pub(crate) accounts: Vec<AccountState>,
    /// By shard; the own one is never used.
    pub(crate) outboxes: Vec<Outbox>,
    pub(crate) local: LocalInterest,
    /// What other shards said about their queue groups, to find the entry that a change replaces.
    pub(crate) weights: Map<GroupElsewhere, u32>,
    pub(crate) mark: u64,
    /// Connections whose PONGs wait for a mark, in the marks' order, and how many PONGs.
    pub(crate) held: VecDeque<(u64, ConnId, u32)>,
    pub(crate) deadlines: BTreeSet<(Time, u32)>,
    pub(crate) rng: Rng,
    pub(crate) closed: VecDeque<ClosedView>,
    pub(crate) counters: HubCounters,
    pub(crate) internal_subs: usize,
    /// What subscribers inside want to hear from this server only.
    pub(crate) private: Set<(AccountId, Box<[u8]>)>,
    /// The other servers, on shard 0.
    pub(crate) links: Links,
    /// Requests that went into another account.
    pub(crate) answers: Answers,
    /// How the message at hand got where it is.
    pub(crate) journey: Journey,
    /// Counts changes of what clients, here or on other shards, listen to.
    pub(crate) interest_changes: u64,
    /// Somebody who was stalled need not wait any longer.
    pub(crate) resumed: bool,
    pub(crate) events: Events,
    /// The server is about to stop: what comes too late for whoever has left is kept here.
    pub(crate) unclaimed: Option<Vec<Unclaimed>>,
}

impl Hub {
    /// A hub without connections.
    pub fn new(config: HubConfig) -> Hub {
        let accounts = config.directory.accounts().map(|_| AccountState::default()).collect();
        let sinks = Sinks::new(&config.limits);
        let mut rng = Rng::new(config.seed);
        let answers = Answers::new(&mut rng, config.shard);
        let mut hub = Hub {
            conns: Map::default(),
            sinks,
            accounts,
            outboxes: (0..config.shards).map(|_| Outbox::default()).collect(),
            local: LocalInterest::default(),
            weights: Map::default(),
            mark: 0,
            held: VecDeque::new(),
            deadlines: BTreeSet::new(),
            rng,
            closed: VecDeque::new(),
            counters: HubCounters::default(),
            internal_subs: 0,
            private: Set::default(),
            links: Links::default(),
            answers,
            journey: Journey::default(),
            interest_changes: 0,
            resumed: false,
            events: Events::default(),
            unclaimed: None,
            config,
        };
        hub.build_bridges();
        hub
    }

    /// A connection was accepted: INFO is queued, and the time to authenticate runs.
    pub fn handle_open(&mut self, now: Time, conn: ConnId, peer: Peer) {
        debug_assert!(!self.conns.contains_key(&conn), "connection numbers are not reused");
        // Until CONNECT says otherwise, a client knows no headers.
        let limits = Limits { headers: false, ..Limits::default() };
        let slot = self.sinks.sessions.insert(Session::new(now, conn, peer, limits));
        self.apply_limits(slot);
        self.conns.insert(conn, slot);
        self.counters.total_connections += 1;
        let info = self.info_for(slot, false);
        self.sinks.write(slot, |out| encode::info(out, &info));
        let limits = &self.config.limits;
        if self.config.directory.auth_required() {
            self.set_timer(slot, Timer::Authenticate, now + limits.auth_timeout);
        } else {
            self.set_timer(slot, Timer::Ping, now + limits.ping_interval);
        }
    }

    /// The TLS handshake of a connection is done.
    pub fn handle_tls(&mut self, conn: ConnId, tls: Tls) {
        if let Some(session) = self.session_mut(conn) {
            session.peer.tls = Some(tls);
        }
    }

    /// A connection is gone. `reason` is the shell's view; the hub's own reason wins.
    pub fn handle_closed(&mut self, now: Time, conn: ConnId, reason: CloseReason) {
        let Some(slot) = self.conns.get(&conn).copied() else {
            return;
        };
        self.retire(slot);
        self.conns.remove(&conn);
        let Some(mut session) = self.sinks.sessions.remove(slot) else {
            return;
        };
        self.end_stalls(std::mem::take(&mut session.stalls));
        let connection = ConnectionView::of(&session);
        if let Some(account) = session.account() {
            self.account_mut(account).gone.add(&session.traffic);
        }
        let reason = session.closing.or(session.leaving).unwrap_or(reason);
        let closed = ClosedView { connection, stop: now, reason };
        self.events.push(HubEvent::Closed(Box::new(closed.clone())));
        while self.closed.len() >= self.config.limits.max_closed_clients.max(1) {
            self.closed.pop_front();
        }
        if self.config.limits.max_closed_clients > 0 {
            self.closed.push_back(closed);
        }
    }

    /// Ends a connection from outside: an error text if the reason has one, then the close.
    pub fn close(&mut self, conn: ConnId, reason: CloseReason) {
        if let Some(slot) = self.conns.get(&conn).copied() {
            self.end(slot, reason, reason.err_text());
        }
    }

    /// Why a connection must be closed, once its output is written (see [`CloseReason::flushes`]).
    pub fn closing(&self, conn: ConnId) -> Option<CloseReason> {
        self.session(conn)?.closing
    }

    /// Connections that have output or a reason to close since the last call, appended to `into`.
    pub fn take_dirty(&mut self, into: &mut Vec<ConnId>) {
        for conn in &self.sinks.dirty {
            let slot = self.conns.get(conn);
            if let Some(session) = slot.and_then(|&slot| self.sinks.sessions.get_mut(slot)) {
                session.out.dirty = false;
                into.push(*conn);
            }
        }
        self.sinks.dirty.clear();
    }

    /// Takes a connection's output and leaves the empty `spare` in its place. While a write is under way, the shell
    /// leaves further output here: what waits here is what `max_pending` limits.
    pub fn swap_output(&mut self, conn: ConnId, mut spare: Vec<u8>) -> Vec<u8> {
        spare.clear();
        let Some(session) = self.session_mut(conn) else {
            return spare;
        };
        std::mem::replace(&mut session.out.bytes, spare)
    }

    /// How many bytes of taken output are not yet written: they count as pending, too. Optional; starts as 0.
    pub fn set_in_flight(&mut self, conn: ConnId, bytes: usize) {
        if let Some(session) = self.session_mut(conn) {
            session.out.in_flight = bytes;
        }
        self.look_for_room(conn);
    }

    /// How many bytes the connection's unfinished operation takes at least: room to have before the next read.
    pub fn needed(&self, conn: ConnId) -> usize {
        self.session(conn).map_or(0, |session| session.need)
    }

    /// The longest message that the server takes.
    pub fn max_payload(&self) -> usize {
        self.config.limits.max_payload
    }

    /// Which of the shards this is.
    pub fn shard(&self) -> ShardId {
        self.config.shard
    }

    /// What INFO says to everybody.
    pub fn info(&self) -> &Info {
        &self.config.info
    }

    /// Changes what INFO says, and tells every client that takes INFO at any time.
    pub fn set_info(&mut self, info: Info) {
        self.config.info = info;
        let told: Vec<u32> =
            self.sinks.sessions.iter().filter(|(_, s)| s.told).map(|(slot, _)| slot).collect();
        for slot in told {
            // With the client's own limits; who it is was said in answer to its CONNECT alone.
            let connected = self.info_for(slot, true);
            let info = Info {
                connect_info: false,
                is_system_account: false,
                remote_account: String::new(),
                ..connected
            };
            self.sinks.write(slot, |out| encode::info(out, &info));
        }
        self.sweep();
    }

    /// Asks the clients to go elsewhere. When they are closed is the shell's to decide, by [`Hub::close`].
    pub fn lame_duck(&mut self) {
        let info = Info { lame_duck_mode: true, ..self.config.info.clone() };
        self.set_info(info);
    }

    /// Changes the limits, for open connections as well. Timers that run keep their time.
    pub fn set_limits(&mut self, limits: HubLimits) {
        self.config.limits = limits;
        self.sinks.set_limits(&limits);
        let slots: Vec<u32> = self.sinks.sessions.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            self.apply_limits(slot);
        }
    }

    /// Who a connection is, once it has shown that.
    pub fn identity(&self, conn: ConnId) -> Option<&Identity> {
        self.session(conn)?.identity.as_ref()
    }

    /// Whether operations are reported as [`HubEvent::Trace`], and how many bytes of a message are shown (0: all).
    pub fn set_trace(&mut self, on: bool, message_bytes: usize) {
        self.sinks.trace.on = on;
        self.sinks.trace.message_bytes = message_bytes;
    }

    /// What happened since the last call.
    pub fn take_events(&mut self) -> VecDeque<HubEvent> {
        for (conn, text) in std::mem::take(&mut self.sinks.trace.lines) {
            self.events.push(HubEvent::Trace { conn, text });
        }
        self.events.take()
    }

    pub(crate) fn session(&self, conn: ConnId) -> Option<&Session> {
        self.sinks.sessions.get(*self.conns.get(&conn)?)
    }

    pub(crate) fn session_mut(&mut self, conn: ConnId) -> Option<&mut Session> {
        self.sinks.sessions.get_mut(*self.conns.get(&conn)?)
    }

    /// INFO for one client; `connected`: it answers the client's CONNECT.
    pub(crate) fn info_for(&self, slot: u32, connected: bool) -> Info {
        let mut info = self.config.info.clone();
        let directory = &self.config.directory;
        if self.sinks.sessions.get(slot).is_some_and(|s| s.peer.kind != ConnectionKind::Standard) {
            // TLS is then a matter of what is below: the client must not begin it again.
            (info.tls_required, info.tls_available, info.tls_verify) = (false, false, false);
        }
        info.max_payload = self.config.limits.max_payload;
        info.auth_required = directory.auth_required();
        let Some(session) = self.sinks.sessions.get(slot) else {
            return info;
        };
        info.client_id = session.conn.0;
        info.client_ip = session.peer.ip.clone();
        if let Some(account) = session.account().filter(|_| connected) {
            info.max_payload = session.limits.max_payload;
            info.connect_info = true;
            info.is_system_account = directory.system_account() == Some(account);
            info.remote_account = directory.account(account).map(|a| a.name.clone()).unwrap_or_default();
        } else if directory.needs_nonce() {
            info.nonce = session.peer.nonce.clone();
        }
        info
    }

    /// The smaller ones of the server's and the account's limits.
    pub(crate) fn apply_limits(&mut self, slot: u32) {
        let server = &self.config.limits;
        let Some(session) = self.sinks.sessions.get_mut(slot) else {
            return;
        };
        let account = session.account().and_then(|account| self.config.directory.account(account));
        let account = account.map(|account| account.limits).unwrap_or_default();
        let or_none = |limit: i64| usize::try_from(limit).unwrap_or(usize::MAX);
        let subscriptions = if server.max_subscriptions == 0 { usize::MAX } else { server.max_subscriptions };
        session.limits.max_control_line = server.max_control_line;
        let (own_payload, own_subscriptions) =
            session.identity.as_ref().map_or((-1, -1), |who| (who.max_payload, who.max_subscriptions));
        let payload = or_none(account.max_payload).min(or_none(own_payload));
        session.limits.max_payload = server.max_payload.min(payload);
        let own = or_none(account.max_subscriptions).min(or_none(own_subscriptions));
        session.max_subscriptions = subscriptions.min(own);
    }

    /// Begins the end of a connection: nothing more is read from it or delivered to it.
    pub(crate) fn end(&mut self, slot: u32, reason: CloseReason, text: Option<&str>) {
        let Some(session) = self.sinks.sessions.get_mut(slot).filter(|session| session.closing.is_none())
        else {
            return;
        };
        // Set first: an error text must not make a slow consumer of it.
        session.closing = Some(reason);
        let conn = session.conn;
        self.sinks.write(slot, |out| {
            if let Some(text) = text {
                encode::err(out, text);
            }
        });
        if let Some(text) = text.filter(|_| self.sinks.trace.on) {
            self.sinks.trace.line(conn, "->>", &[b"-ERR", text.as_bytes()]);
        }
        self.retire(slot);
    }

    /// Takes back everything that a session holds in the hub; the session itself stays until the shell is done.
    fn retire(&mut self, slot: u32) {
        if let Some(session) = self.sinks.sessions.get_mut(slot) {
            session.had_subs = session.had_subs.max(session.subs.len());
            let deadline = std::mem::replace(&mut session.clock.deadline, Time::NEVER);
            self.deadlines.remove(&(deadline, slot));
        }
        self.leave_account(slot);
    }

    /// Ends a session's subscriptions, and no longer counts it in its account.
    pub(crate) fn leave_account(&mut self, slot: u32) {
        let Some(session) = self.sinks.sessions.get_mut(slot) else {
            return;
        };
        let subs: Vec<u32> = session.subs.drain().map(|(_, id)| id).collect();
        let counted = session.counted.take();
        let mut mark = None;
        for id in subs {
            mark = self.drop_sub(id).or(mark);
        }
        if let Some(mark) = mark {
            self.note_mark(slot, mark);
        }
        if let Some(account) = counted {
            self.count_connection(account, false);
        }
    }

    /// Deals with what routing had to leave: ended subscriptions and slow consumers.
    pub(crate) fn sweep(&mut self) {
        while let Some(id) = self.sinks.expired.pop() {
            let Some(sub) = self.sinks.subs.get(id) else {
                continue;
            };
            let slot = sub.slot;
            if let Some(session) = self.sinks.sessions.get_mut(slot) {
                session.subs.remove(&sub.sid);
            }
            if let Some(mark) = self.drop_sub(id) {
                self.note_mark(slot, mark);
            }
        }
        while let Some(slot) = self.sinks.slow.pop() {
            self.counters.slow_consumers += 1;
            self.retire(slot);
            if let Some(account) = self.sinks.sessions.get(slot).and_then(Session::account) {
                self.account_mut(account).slow += 1;
            }
            if let Some(session) = self.sinks.sessions.get_mut(slot) {
                // Nobody will write it: the memory is better given back now.
                session.out.bytes = Vec::new();
                let text = CloseReason::SlowConsumerPendingBytes.name();
                self.events.error(session.conn, text);
            }
        }
    }

    pub(crate) fn note_mark(&mut self, slot: u32, mark: u64) {
        if let Some(session) = self.sinks.sessions.get_mut(slot) {
            session.mark = mark;
        }
    }

    pub(crate) fn drop_sub(&mut self, id: u32) -> Option<u64> {
        let sub = self.sinks.subs.remove(id)?;
        if self.sinks.trace.on
            && let Some(session) = self.sinks.sessions.get(sub.slot)
        {
            self.sinks.trace.line(session.conn, "<->", &[b"DELSUB", &sub.sid]);
        }
        self.leave(sub.account, &sub.subject, sub.queue.as_deref(), Sink::Client(id))
    }

    /// Adds a sink here, and tells the other shards. Returns the mark of that.
    pub(crate) fn join(
        &mut self,
        account: AccountId,
        filter: &[u8],
        queue: Option<&[u8]>,
        sink: Sink,
    ) -> Option<u64> {
        self.interest_changes += u64::from(matches!(sink, Sink::Client(_)));
        self.counters.inserts += 1;
        self.account_mut(account).interest.insert(filter, queue, sink);
        self.tell(account, filter, queue, true)
    }

    /// Takes a sink away, and tells the other shards. Returns the mark of that.
    pub(crate) fn leave(
        &mut self,
        account: AccountId,
        filter: &[u8],
        queue: Option<&[u8]>,
        sink: Sink,
    ) -> Option<u64> {
        self.interest_changes += u64::from(matches!(sink, Sink::Client(_)));
        self.counters.removes += 1;
        self.account_mut(account).interest.remove(filter, queue, &sink);
        self.tell(account, filter, queue, false)
    }

    fn tell(&mut self, account: AccountId, filter: &[u8], queue: Option<&[u8]>, joins: bool) -> Option<u64> {
        if self.config.shards <= 1 && !self.links.is_active() {
            return None;
        }
        let members = self.local.change(account, filter, queue, joins)?;
        let mut told = None;
        if self.config.shards > 1 {
            self.mark += 1;
            told = Some(self.mark);
            let (mark, own) = (self.mark, usize::from(self.config.shard.0));
            for (_, outbox) in self.outboxes.iter_mut().enumerate().filter(|(shard, _)| *shard != own) {
                outbox.put_interest(InterestChange { account, filter, queue, members, far: false }, mark);
            }
        }
        if self.config.shard == ShardId(0) && !self.private.contains(&(account, filter.into())) {
            told = self.tell_links(account, (filter, queue), if joins { 1 } else { -1 }).or(told);
        }
        told
    }

    pub(crate) fn account_mut(&mut self, account: AccountId) -> &mut AccountState {
        let at = account.0 as usize;
        if at >= self.accounts.len() {
            self.accounts.resize_with(at + 1, AccountState::default);
        }
        &mut self.accounts[at]
    }

    /// Counts a connection in or out of its account; other shards hear of it if the account limits connections.
    pub(crate) fn count_connection(&mut self, account: AccountId, joins: bool) {
        let state = self.account_mut(account);
        state.connections = if joins { state.connections + 1 } else { state.connections.saturating_sub(1) };
        let count = state.connections;
        let limited = self.config.directory.account(account).is_some_and(|a| a.limits.max_connections >= 0);
        let own = usize::from(self.config.shard.0);
        if limited {
            for (_, outbox) in self.outboxes.iter_mut().enumerate().filter(|(shard, _)| *shard != own) {
                outbox.put_connections(account, count);
            }
        }
    }

    /// Adds a subscriber inside the process. Subscribing twice with the same id and filter is an error of the caller.
    pub fn subscribe_internal(
        &mut self,
        account: AccountId,
        filter: &[u8],
        queue: Option<&[u8]>,
        id: InternalId,
    ) {
        self.internal_subs += 1;
        self.join(account, filter, queue, Sink::Internal(id));
    }

    /// Adds a subscriber inside the process that hears only what is published on this server. It stays.
    pub fn subscribe_private(&mut self, account: AccountId, filter: &[u8], id: InternalId) {
        self.internal_subs += 1;
        self.private.insert((account, filter.into()));
        self.join(account, filter, None, Sink::Private(id));
    }

    /// Takes a subscriber inside the process away.
    pub fn unsubscribe_internal(
        &mut self,
        account: AccountId,
        filter: &[u8],
        queue: Option<&[u8]>,
        id: InternalId,
    ) {
        self.internal_subs = self.internal_subs.saturating_sub(1);
        self.leave(account, filter, queue, Sink::Internal(id));
    }
}
