//! The sessions, their subscriptions, and the step that writes a message into a session's buffer.

use hw_kit::{AccountId, ConnId, Time};
use hw_wire::encode::{self, Delivery};

use crate::close::CloseReason;
use crate::config::HubLimits;
use crate::event::Trace;
use crate::message::Message;
use crate::session::{Session, Traffic};
use crate::slab::Slab;
use crate::stall::CROWDED_SHARE;

/// No session: a message of no client of this hub.
pub(crate) const NOBODY: u32 = u32::MAX;

#[derive(Debug)]
pub(crate) struct Sub {
    /// The session.
    pub slot: u32,
    pub account: AccountId,
    pub sid: Box<[u8]>,
    pub subject: Box<[u8]>,
    pub queue: Option<Box<[u8]>>,
    pub delivered: u64,
    /// It ends after that many; 0 means never.
    pub max: u64,
    /// Permissions must be asked for every message.
    pub filtered: bool,
}

/// A message with the subject that it is routed by.
#[derive(Clone, Copy)]
pub(crate) struct Routed<'a> {
    pub now: Time,
    pub account: AccountId,
    pub to: &'a [u8],
    pub msg: Message<'a>,
    /// The session that published it, or `NOBODY`.
    pub from: u32,
}

/// Sessions and subscriptions by slot, and what routing leaves behind for later.
#[derive(Debug, Default)]
pub(crate) struct Sinks {
    pub sessions: Slab<Session>,
    pub subs: Slab<Sub>,
    /// Sessions that have output or a reason to close since the shell last asked.
    pub dirty: Vec<ConnId>,
    /// Subscriptions that have reached their maximum.
    pub expired: Vec<u32>,
    /// Sessions that were found too slow.
    pub slow: Vec<u32>,
    pub max_pending: usize,
    /// A session with more output slows down those who publish to it.
    pub crowded_above: usize,
    /// Sessions that got something while they had more.
    pub crowded: Vec<u32>,
    /// Messages of and for clients, in all.
    pub traffic: Traffic,
    pub trace: Trace,
}

impl Sinks {
    pub fn new(limits: &HubLimits) -> Sinks {
        let mut sinks = Sinks::default();
        sinks.set_limits(limits);
        sinks
    }

    pub fn set_limits(&mut self, limits: &HubLimits) {
        self.max_pending = limits.max_pending;
        // Who is too slow is noticed among the crowded, so these begin at its limit at the latest.
        self.crowded_above = limits.max_pending / if limits.stalls { CROWDED_SHARE } else { 1 };
    }

    /// Writes the message for one subscription; false if it does not get it.
    #[inline]
    pub fn deliver(&mut self, id: u32, routed: &Routed<'_>) -> bool {
        let Some(sub) = self.subs.get_mut(id) else {
            return false;
        };
        let Some(session) = self.sessions.get_mut(sub.slot) else {
            return false;
        };
        if session.closing.is_some() || (sub.max != 0 && sub.delivered >= sub.max) {
            return false;
        }
        if routed.from == sub.slot && !session.options.echo {
            return false;
        }
        let msg = &routed.msg;
        if let Some(permissions) =
            session.identity.as_ref().and_then(|identity| identity.permissions.as_ref())
        {
            if sub.filtered && !permissions.may_deliver(routed.to, sub.queue.as_deref()) {
                return false;
            }
            if let Some(allowed) = permissions.allow_responses.filter(|_| !msg.reply.is_empty()) {
                session.replies.note(routed.now, msg.reply, allowed);
            }
        }
        sub.delivered += 1;
        if sub.delivered == sub.max {
            self.expired.push(id);
        }
        let header = if session.options.headers { msg.header } else { &[] };
        let Message { subject, reply, payload, .. } = *msg;
        encode::message(&mut session.out.bytes, &Delivery { subject, sid: &sub.sid, reply, header, payload });
        if self.trace.on {
            let (size, header_size) = ((header.len() + payload.len()).to_string(), header.len().to_string());
            let verb: &[u8] = if header.is_empty() { b"MSG" } else { b"HMSG" };
            let header_size = if header.is_empty() { &[][..] } else { header_size.as_bytes() };
            self.trace.line(
                session.conn,
                "->>",
                &[verb, subject, &sub.sid, reply, header_size, size.as_bytes()],
            );
            self.trace.payload(session.conn, "->>", header, payload);
        }
        let size = (header.len() + payload.len()) as u64;
        session.traffic.out_msgs += 1;
        session.traffic.out_bytes += size;
        self.traffic.out_msgs += 1;
        self.traffic.out_bytes += size;
        session.clock.last_activity = routed.now;
        if !session.out.dirty {
            session.out.dirty = true;
            self.dirty.push(session.conn);
        }
        if session.out.pending() > self.crowded_above {
            self.crowded.push(sub.slot);
            if session.out.pending() > self.max_pending {
                session.closing = Some(CloseReason::SlowConsumerPendingBytes);
                self.slow.push(sub.slot);
            }
        }
        true
    }

    /// Appends to a session's output.
    pub fn write(&mut self, slot: u32, append: impl FnOnce(&mut Vec<u8>)) {
        if let Some(session) = self.sessions.get_mut(slot) {
            append(&mut session.out.bytes);
            if !session.out.dirty {
                session.out.dirty = true;
                self.dirty.push(session.conn);
            }
            if session.closing.is_none() && session.out.pending() > self.max_pending {
                session.closing = Some(CloseReason::SlowConsumerPendingBytes);
                self.slow.push(slot);
            }
        }
    }
}
