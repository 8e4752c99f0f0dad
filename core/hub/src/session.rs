//! One client connection.

use std::collections::BTreeSet;

use hw_auth::{Identity, ResponsePermission};
use hw_kit::{AccountId, ConnId, Map, Span, Time};
use hw_wire::{ConnectOptions, Limits};

use crate::close::CloseReason;
use crate::config::Peer;
use crate::stall::{Stall, Stalled};

/// Messages and bytes of headers and payloads, from and to clients.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    /// Messages from the client.
    pub in_msgs: u64,
    /// Their bytes.
    pub in_bytes: u64,
    /// Messages to the client.
    pub out_msgs: u64,
    /// Their bytes.
    pub out_bytes: u64,
}

impl Traffic {
    /// Adds what went elsewhere.
    pub fn add(&mut self, other: &Traffic) {
        self.in_msgs += other.in_msgs;
        self.in_bytes += other.in_bytes;
        self.out_msgs += other.out_msgs;
        self.out_bytes += other.out_bytes;
    }
}

#[derive(Debug)]
pub(crate) struct Session {
    pub conn: ConnId,
    pub out: Output,
    /// What the next bytes may be.
    pub limits: Limits,
    pub options: ConnectOptions,
    /// `None` until the client has shown who it is.
    pub identity: Option<Identity>,
    /// The account whose connections it counts among.
    pub counted: Option<AccountId>,
    /// INFO followed the first PONG.
    pub told: bool,
    pub closing: Option<CloseReason>,
    pub traffic: Traffic,
    pub clock: Clock,
    /// Subscriptions by the client's names.
    pub subs: Map<Box<[u8]>, u32>,
    pub max_subscriptions: usize,
    /// How many subscriptions it had when it ended.
    pub had_subs: usize,
    /// The subject that was last found permitted: publishers mostly repeat themselves.
    pub permitted: Vec<u8>,
    pub replies: Replies,
    pub peer: Peer,
    /// The newest of this connection's interest changes, see `Hub::interest_mark`.
    pub mark: u64,
    /// PONGs that wait for other shards.
    pub held_pongs: u32,
    /// How many bytes the next operation takes at least.
    pub need: usize,
    /// Whether it publishes faster than others read.
    pub stall: Stall,
    /// Publishers that wait for this session's output to shrink.
    pub stalls: BTreeSet<Stalled>,
    /// Nothing more is written to it, for this reason; what it sends is taken until it closes.
    pub leaving: Option<CloseReason>,
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub bytes: Vec<u8>,
    /// Taken by the shell, but not yet written.
    pub in_flight: usize,
    /// Listed as having output.
    pub dirty: bool,
}

impl Output {
    #[inline]
    pub fn pending(&self) -> usize {
        self.bytes.len() + self.in_flight
    }
}

#[derive(Debug)]
pub(crate) struct Clock {
    pub start: Time,
    /// When bytes last came, or a message last went.
    pub last_activity: Time,
    /// When the client last did more than answer a PING.
    pub last_operation: Time,
    pub ping_sent: Time,
    pub pings_out: u32,
    pub rtt: Span,
    /// When to look at this session next; `Time::NEVER` if there is nothing to look for.
    pub deadline: Time,
    pub timer: Timer,
}

/// What the deadline is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Timer {
    Authenticate,
    FirstPing,
    Ping,
}

impl Session {
    pub fn new(now: Time, conn: ConnId, peer: Peer, limits: Limits) -> Session {
        Session {
            conn,
            out: Output::default(),
            limits,
            options: ConnectOptions::default(),
            identity: None,
            counted: None,
            told: false,
            closing: None,
            traffic: Traffic::default(),
            clock: Clock {
                start: now,
                last_activity: now,
                last_operation: now,
                ping_sent: Time(0),
                pings_out: 0,
                rtt: Span::ZERO,
                deadline: Time::NEVER,
                timer: Timer::Ping,
            },
            subs: Map::default(),
            max_subscriptions: 0,
            had_subs: 0,
            permitted: Vec::new(),
            replies: Replies::default(),
            peer,
            mark: 0,
            held_pongs: 0,
            need: 0,
            stall: Stall::default(),
            stalls: BTreeSet::new(),
            leaving: None,
        }
    }

    pub fn account(&self) -> Option<AccountId> {
        self.identity.as_ref().map(|identity| identity.account)
    }

    /// Whether the client may publish here now. Uses up one of its allowed answers if that is what permits it.
    pub fn may_publish(&mut self, now: Time, subject: &[u8]) -> bool {
        let Some(permissions) = self.identity.as_ref().and_then(|identity| identity.permissions.as_deref())
        else {
            return true;
        };
        if !self.permitted.is_empty() && self.permitted == subject {
            return true;
        }
        if permissions.may_publish(subject) {
            self.permitted.clear();
            self.permitted.extend_from_slice(subject);
            return true;
        }
        permissions.allow_responses.is_some_and(|allowed| self.replies.take(now, subject, allowed))
    }
}

/// Reply subjects on which a client with `allow_responses` may answer.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    open: Map<Box<[u8]>, Reply>,
    /// From this number on, expired ones are cleared out.
    sweep_at: usize,
}

#[derive(Debug)]
struct Reply {
    asked: Time,
    answers: i64,
}

impl Replies {
    const SWEEP: usize = 512;
    /// Beyond that even open ones are forgotten: with no limit in time and number they would pile up for ever.
    const MAX: usize = 1 << 20;

    /// A request with this reply subject was delivered.
    pub fn note(&mut self, now: Time, reply: &[u8], allowed: ResponsePermission) {
        let fresh = Reply { asked: now, answers: 0 };
        if let Some(known) = self.open.get_mut(reply) {
            *known = fresh;
            return;
        }
        self.open.insert(reply.into(), fresh);
        if self.open.len() > self.sweep_at.max(Replies::SWEEP) {
            self.open.retain(|_, reply| !reply.is_over(now, allowed));
            if self.open.len() > Replies::MAX {
                self.open.clear();
            }
            // What is left may be answered still: the next sweep comes after as many again.
            self.sweep_at = 2 * self.open.len();
        }
    }

    fn take(&mut self, now: Time, subject: &[u8], allowed: ResponsePermission) -> bool {
        let Some(reply) = self.open.get_mut(subject) else {
            return false;
        };
        let open = !reply.is_over(now, allowed);
        reply.answers += 1;
        if reply.is_over(now, allowed) {
            self.open.remove(subject);
        }
        open
    }
}

impl Reply {
    fn is_over(&self, now: Time, allowed: ResponsePermission) -> bool {
        (allowed.max >= 0 && self.answers >= allowed.max)
            || (allowed.expires >= Span::ZERO && now.since(self.asked) > allowed.expires)
    }
}
