//! Fast producers: whoever publishes to a client that reads more slowly is not read for a moment, so that the client's
//! output does not grow until it must be cut off. The moment ends early once the output has shrunk.

use std::collections::BTreeSet;

use hw_kit::{ConnId, ShardId, Span, Time};

use crate::hub::Hub;
use crate::message::Origin;

/// How long a publisher waits at most before the next read. A client that takes nothing at all slows its publishers to
/// one read each time, until `max_pending` or the write deadline ends it.
const STALL: Span = Span::from_millis(10);

/// A session's output is crowded above this share of `max_pending`, and no longer below half of that.
pub(crate) const CROWDED_SHARE: usize = 16;

/// A publisher that waits for a crowded session.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Stalled {
    shard: ShardId,
    conn: ConnId,
}

/// How a publisher waits.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stall {
    /// For so many crowded sessions.
    sessions: u32,
    /// Nothing should be read before that.
    until: Time,
}

impl Hub {
    /// Asked before each read of a connection: until when it should wait, because it publishes faster than others read.
    /// While it stays so, one read is allowed at the end of each wait.
    pub fn stalled_until(&mut self, now: Time, conn: ConnId) -> Option<Time> {
        let stall = &mut self.session_mut(conn)?.stall;
        if stall.sessions == 0 {
            return None;
        }
        if stall.until > now {
            return Some(stall.until);
        }
        stall.until = now + STALL;
        None
    }

    /// Whether a connection may be read again earlier than [`Hub::stalled_until`] said, or another shard must be told
    /// so; asked once.
    pub fn take_resumed(&mut self) -> bool {
        std::mem::take(&mut self.resumed)
    }

    /// What was just routed went to sessions whose output is crowded.
    #[cold]
    pub(crate) fn stall(&mut self, now: Time, origin: Origin) {
        let crowded = std::mem::take(&mut self.sinks.crowded);
        let Some(conn) = origin.conn else { return };
        for slot in crowded {
            let Some(session) = self.sinks.sessions.get_mut(slot).filter(|s| s.closing.is_none()) else {
                continue;
            };
            let stalled = Stalled { shard: origin.shard, conn };
            if session.stalls.insert(stalled) {
                self.tell_stall(stalled, Some(now));
            }
        }
    }

    /// A session's output has shrunk, or the session is gone: those who wait for it go on.
    pub(crate) fn end_stalls(&mut self, stalls: BTreeSet<Stalled>) {
        for stalled in stalls {
            self.resumed = true;
            self.tell_stall(stalled, None);
        }
    }

    fn tell_stall(&mut self, Stalled { shard, conn }: Stalled, since: Option<Time>) {
        if shard == self.config.shard {
            self.handle_stall(conn, since);
        } else if let Some(outbox) = self.outboxes.get_mut(usize::from(shard.0)) {
            outbox.put_stall(conn, since.is_some());
        }
    }

    /// A connection of this hub should wait from now on, or need not any longer.
    pub(crate) fn handle_stall(&mut self, conn: ConnId, since: Option<Time>) {
        if let Some(session) = self.session_mut(conn) {
            match since {
                Some(now) => {
                    session.stall.sessions += 1;
                    session.stall.until = now + STALL;
                }
                None => session.stall.sessions = session.stall.sessions.saturating_sub(1),
            }
            self.resumed |= session.stall.sessions == 0;
        }
    }

    /// Looks whether a session that others wait for has room again.
    pub(crate) fn look_for_room(&mut self, conn: ConnId) {
        let roomy = self.sinks.crowded_above / 2;
        if let Some(session) = self.session_mut(conn)
            && !session.stalls.is_empty()
            && session.out.pending() <= roomy
        {
            let stalls = std::mem::take(&mut session.stalls);
            self.end_stalls(stalls);
        }
    }
}
