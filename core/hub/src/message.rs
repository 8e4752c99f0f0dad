//! Messages on their way, and the receivers inside the process.

use hw_kit::{AccountId, ConnId, ShardId, Time};

/// A message, borrowed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message<'a> {
    /// The subject that receivers see.
    pub subject: &'a [u8],
    /// Where answers go; empty means none.
    pub reply: &'a [u8],
    /// The header block; empty means none.
    pub header: &'a [u8],
    /// The body.
    pub payload: &'a [u8],
}

impl Message<'_> {
    /// Bytes of headers and payload.
    pub fn size(&self) -> usize {
        self.header.len() + self.payload.len()
    }
}

/// A subscriber inside the process: a stream, the JetStream API, a system service. Whoever subscribes chooses it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct InternalId(pub u64);

/// Where a message was published.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Origin {
    /// In this account.
    pub account: AccountId,
    /// By this connection; `None`: inside the process.
    pub conn: Option<ConnId>,
    /// On this shard.
    pub shard: ShardId,
}

/// Takes the messages for internal subscribers.
pub trait Inside {
    /// A message for `to`; its subject is the one that it was routed by.
    fn deliver(&mut self, now: Time, to: InternalId, from: Origin, msg: &Message<'_>);
}

/// Whoever has no internal subscribers.
impl Inside for () {
    fn deliver(&mut self, _: Time, _: InternalId, _: Origin, _: &Message<'_>) {}
}
