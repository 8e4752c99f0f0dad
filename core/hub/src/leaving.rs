//! Connections that the server ends while both sides are at work. A client that goes to another server must not miss an
//! answer on the way: first nothing comes to it here any more, then it is told what came, then it closes.

use hw_kit::{AccountId, ConnId};

use crate::close::CloseReason;
use crate::hub::Hub;
use crate::sinks::Routed;

/// So many messages are kept for those who have left.
const UNCLAIMED_MAX: usize = 4096;

/// An answer that came when whoever waits for it had left.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unclaimed {
    /// Its account.
    pub account: AccountId,
    /// Its subject.
    pub to: Vec<u8>,
    /// Its header block.
    pub header: Vec<u8>,
    /// Its body.
    pub payload: Vec<u8>,
}

impl Hub {
    /// From now on connections are ended: answers that nobody here takes are given by [`Hub::take_unclaimed`].
    pub fn begin_leaving(&mut self) {
        self.unclaimed.get_or_insert_default();
    }

    /// Takes a connection's subscriptions back and hears it further: nothing comes to it any more once
    /// [`Hub::interest_settled`] has reached the mark that this gives.
    pub fn mute(&mut self, conn: ConnId) -> u64 {
        let Some(slot) = self.conns.get(&conn).copied() else { return 0 };
        let Some(session) = self.sinks.sessions.get_mut(slot) else { return 0 };
        session.had_subs = session.had_subs.max(session.subs.len());
        let subs: Vec<u32> = session.subs.drain().map(|(_, id)| id).collect();
        let marks = subs.into_iter().filter_map(|id| self.drop_sub(id));
        marks.max().unwrap_or(0)
    }

    /// The last that a connection hears is written; then the shell ends the sending half alone, and what the client has
    /// sent by the time it notices is taken.
    pub fn say_farewell(&mut self, conn: ConnId, reason: CloseReason) {
        let Some(slot) = self.conns.get(&conn).copied() else { return };
        if let Some(session) = self.sinks.sessions.get_mut(slot) {
            session.leaving = Some(reason);
        }
        self.sinks.write(slot, |_| {});
    }

    /// Whether nothing more is to be written to a connection: see [`Hub::say_farewell`].
    pub fn is_leaving(&self, conn: ConnId) -> bool {
        self.session(conn).is_some_and(|session| session.leaving.is_some())
    }

    /// Answers that came from other shards and servers and that nobody here took.
    pub fn take_unclaimed(&mut self) -> Vec<Unclaimed> {
        self.unclaimed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// A message from elsewhere had no receiver here, where there was one when it left.
    pub(crate) fn note_unclaimed(&mut self, routed: &Routed<'_>) {
        let Some(unclaimed) = self.unclaimed.as_mut().filter(|all| all.len() < UNCLAIMED_MAX) else { return };
        // Only answers: whoever is to reply to something listens for the next one.
        if routed.msg.reply.is_empty() && routed.msg.subject == routed.to {
            unclaimed.push(Unclaimed {
                account: routed.account,
                to: routed.to.to_vec(),
                header: routed.msg.header.to_vec(),
                payload: routed.msg.payload.to_vec(),
            });
        }
    }
}
