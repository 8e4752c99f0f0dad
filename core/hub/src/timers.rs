//! What happens when nothing happens: pings, stale connections, credentials that come too late or expire.

use hw_kit::{Span, Time};
use hw_wire::encode;

use crate::close::CloseReason;
use crate::hub::Hub;
use crate::session::Timer;

/// The first PING comes this long after the connection, to measure the way there and back...
const FIRST_PING: Span = Span::from_secs(2);
/// ... and up to this much later, so that clients that come together are not pinged together.
const FIRST_PING_SPREAD: Span = Span::from_millis(400);

impl Hub {
    /// When [`Hub::handle_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<Time> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Time) {
        while let Some(&(at, slot)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            if let Some(session) = self.sinks.sessions.get_mut(slot) {
                session.clock.deadline = Time::NEVER;
            }
            self.timeout(now, slot);
        }
        self.sweep();
    }

    fn timeout(&mut self, now: Time, slot: u32) {
        let Some(session) = self.sinks.sessions.get(slot).filter(|session| session.closing.is_none()) else {
            return;
        };
        let identity = session.identity.as_ref();
        let expires = identity.and_then(|identity| identity.expires);
        let with_account = identity.is_some_and(|identity| identity.expires_with_account);
        if session.clock.timer == Timer::Authenticate {
            let reason = CloseReason::AuthenticationTimeout;
            self.end(slot, reason, reason.err_text());
        } else if expires.is_some_and(|at| at <= now) {
            let reason = CloseReason::AuthenticationExpired;
            let text = if with_account { Some("Account Authentication Expired") } else { reason.err_text() };
            self.end(slot, reason, text);
        } else {
            self.ping(now, slot);
        }
    }

    fn ping(&mut self, now: Time, slot: u32) {
        let limits = &self.config.limits;
        let interval = limits.ping_interval.max(Span::from_millis(1));
        let Some(session) = self.sinks.sessions.get_mut(slot) else {
            return;
        };
        let clock = &mut session.clock;
        let idle = now.since(clock.last_operation);
        // A client that publishes is alive; only the first ping is wanted for its own sake.
        let due = clock.timer == Timer::FirstPing || idle >= interval;
        if due && clock.pings_out >= limits.ping_max {
            self.counters.stale_connections += 1;
            let reason = CloseReason::StaleConnection;
            self.end(slot, reason, reason.err_text());
            return;
        }
        if due {
            clock.pings_out += 1;
            clock.ping_sent = now;
            let conn = session.conn;
            self.sinks.write(slot, encode::ping);
            if self.sinks.trace.on {
                self.sinks.trace.line(conn, "->>", &[b"PING"]);
            }
        }
        self.set_timer(slot, Timer::Ping, now + interval);
    }

    /// The pings of a client that has just connected.
    pub(crate) fn start_pings(&mut self, slot: u32) {
        let spread = self.rng.below(FIRST_PING_SPREAD.0 as u64) as i64;
        let soon = Span(FIRST_PING.0 + spread).min(self.config.limits.ping_interval);
        if let Some(session) = self.sinks.sessions.get(slot) {
            let at = session.clock.start + soon;
            self.set_timer(slot, Timer::FirstPing, at);
        }
    }

    /// Credentials may expire sooner than before.
    pub(crate) fn look_again(&mut self, slot: u32) {
        if let Some(session) = self.sinks.sessions.get(slot) {
            let (timer, deadline) = (session.clock.timer, session.clock.deadline);
            self.set_timer(slot, timer, deadline);
        }
    }

    pub(crate) fn set_timer(&mut self, slot: u32, timer: Timer, at: Time) {
        let Some(session) = self.sinks.sessions.get_mut(slot) else {
            return;
        };
        let expires = session.identity.as_ref().and_then(|identity| identity.expires);
        let at = at.min(expires.unwrap_or(Time::NEVER));
        self.deadlines.remove(&(session.clock.deadline, slot));
        session.clock.deadline = at;
        session.clock.timer = timer;
        self.deadlines.insert((at, slot));
    }
}
