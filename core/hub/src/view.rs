//! What monitoring shows: connections, subscriptions, counters.

use hw_auth::ConnectionKind;
use hw_kit::{AccountId, ConnId, Span, Time};

use crate::close::CloseReason;
use crate::config::Tls;
use crate::hub::{AccountState, Hub};
use crate::session::{Session, Traffic};
use crate::sinks::Sub;

/// One connection, for `/connz`.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionView {
    /// `cid`.
    pub conn: ConnId,
    /// Standard, websocket, ...
    pub kind: ConnectionKind,
    /// The client's address.
    pub ip: String,
    /// The client's port.
    pub port: u16,
    /// When it was accepted.
    pub start: Time,
    /// When something last went over it.
    pub last_activity: Time,
    /// The last ping's way there and back.
    pub rtt: Span,
    /// Bytes that wait to be written.
    pub pending_bytes: usize,
    /// Messages and bytes.
    pub traffic: Traffic,
    /// How many subscriptions it has.
    pub subscriptions: usize,
    /// What the client calls itself.
    pub name: String,
    /// The client library's language.
    pub lang: String,
    /// The client library's version.
    pub version: String,
    /// The user's name or nkey; empty if there is none.
    pub user: String,
    /// `None` until the client has shown who it is.
    pub account: Option<AccountId>,
    /// Set if the connection uses TLS.
    pub tls: Option<Tls>,
}

/// A connection that is gone.
#[derive(Clone, Debug, PartialEq)]
pub struct ClosedView {
    /// Its last state.
    pub connection: ConnectionView,
    /// When it ended.
    pub stop: Time,
    /// Why.
    pub reason: CloseReason,
}

/// One subscription, for `/subsz` and `/connz?subs=detail`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SubView<'a> {
    /// Its connection.
    pub conn: ConnId,
    /// Its account.
    pub account: AccountId,
    /// Its filter.
    pub subject: &'a [u8],
    /// Its queue group.
    pub queue: Option<&'a [u8]>,
    /// The client's name of it.
    pub sid: &'a [u8],
    /// Messages delivered so far.
    pub msgs: u64,
    /// After how many it ends; 0 means never.
    pub max: u64,
}

/// What `/varz` counts. Sums over the shards are the server's.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HubCounters {
    /// Open connections.
    pub connections: u64,
    /// All connections since the start.
    pub total_connections: u64,
    /// Subscriptions of clients and inside.
    pub subscriptions: u64,
    /// Messages of and for clients.
    pub traffic: Traffic,
    /// Connections that were closed because they read too slowly.
    pub slow_consumers: u64,
    /// Connections that were closed because they answered no pings.
    pub stale_connections: u64,
    /// Events that nobody took in time.
    pub lost_events: u64,
    /// Subscriptions that were ever added, here and inside.
    pub inserts: u64,
    /// Subscriptions that were taken away.
    pub removes: u64,
    /// Subjects whose receivers are kept.
    pub cached: usize,
}

/// What one shard counts of an account.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AccountCounters {
    /// Open connections.
    pub connections: u64,
    /// Subscriptions of clients.
    pub subscriptions: u64,
    /// Messages of and for its clients.
    pub traffic: Traffic,
    /// Connections that were closed because they read too slowly.
    pub slow_consumers: u64,
}

impl AccountCounters {
    /// Adds another shard's counters.
    pub fn add(&mut self, other: &AccountCounters) {
        self.connections += other.connections;
        self.subscriptions += other.subscriptions;
        self.traffic.add(&other.traffic);
        self.slow_consumers += other.slow_consumers;
    }
}

impl HubCounters {
    /// Adds another shard's counters.
    pub fn add(&mut self, other: &HubCounters) {
        self.connections += other.connections;
        self.total_connections += other.total_connections;
        self.subscriptions += other.subscriptions;
        self.traffic.add(&other.traffic);
        self.slow_consumers += other.slow_consumers;
        self.stale_connections += other.stale_connections;
        self.lost_events += other.lost_events;
        self.inserts += other.inserts;
        self.removes += other.removes;
        self.cached += other.cached;
    }
}

impl Hub {
    /// All open connections.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionView> {
        self.sinks.sessions.iter().map(|(_, session)| ConnectionView::of(session))
    }

    /// One open connection.
    pub fn connection(&self, conn: ConnId) -> Option<ConnectionView> {
        self.session(conn).map(ConnectionView::of)
    }

    /// The remembered closed connections, the oldest first.
    pub fn closed_connections(&self) -> impl DoubleEndedIterator<Item = &ClosedView> {
        self.closed.iter()
    }

    /// All subscriptions of clients.
    pub fn subscriptions(&self) -> impl Iterator<Item = SubView<'_>> {
        self.sinks.subs.iter().filter_map(|(_, sub)| self.sub_view(sub))
    }

    /// The subscriptions of one client.
    pub fn subscriptions_of(&self, conn: ConnId) -> impl Iterator<Item = SubView<'_>> {
        let subs = self.session(conn).map(|session| session.subs.values()).into_iter().flatten();
        subs.filter_map(|&id| self.sub_view(self.sinks.subs.get(id)?))
    }

    fn sub_view<'a>(&'a self, sub: &'a Sub) -> Option<SubView<'a>> {
        Some(SubView {
            conn: self.sinks.sessions.get(sub.slot)?.conn,
            account: sub.account,
            subject: &sub.subject,
            queue: sub.queue.as_deref(),
            sid: &sub.sid,
            msgs: sub.delivered,
            max: sub.max,
        })
    }

    /// What has been counted so far of each account, by its number.
    pub fn account_counters(&self) -> Vec<AccountCounters> {
        let of_account = |state: &AccountState| AccountCounters {
            traffic: state.gone,
            slow_consumers: state.slow,
            ..AccountCounters::default()
        };
        let mut all: Vec<AccountCounters> = self.accounts.iter().map(of_account).collect();
        for (_, session) in self.sinks.sessions.iter() {
            if let Some(counters) = session.account().and_then(|account| all.get_mut(account.0 as usize)) {
                counters.connections += 1;
                counters.subscriptions += session.subs.len() as u64;
                counters.traffic.add(&session.traffic);
            }
        }
        all
    }

    /// What has been counted so far.
    pub fn counters(&self) -> HubCounters {
        HubCounters {
            connections: self.sinks.sessions.len() as u64,
            subscriptions: (self.sinks.subs.len() + self.internal_subs) as u64,
            traffic: self.sinks.traffic,
            lost_events: self.events.lost,
            cached: self.accounts.iter().map(|account| account.interest.cached()).sum(),
            ..self.counters
        }
    }
}

impl ConnectionView {
    pub(crate) fn of(session: &Session) -> ConnectionView {
        ConnectionView {
            conn: session.conn,
            kind: session.peer.kind,
            ip: session.peer.ip.clone(),
            port: session.peer.port,
            start: session.clock.start,
            last_activity: session.clock.last_activity,
            rtt: session.clock.rtt,
            pending_bytes: session.out.pending(),
            traffic: session.traffic,
            subscriptions: session.subs.len().max(session.had_subs),
            name: session.options.name.clone(),
            lang: session.options.lang.clone(),
            version: session.options.version.clone(),
            user: session.identity.as_ref().map(|identity| identity.user.clone()).unwrap_or_default(),
            account: session.account(),
            tls: session.peer.tls.clone(),
        }
    }
}
