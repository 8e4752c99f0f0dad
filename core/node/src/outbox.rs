//! What the machines want to say to clients, until the shard publishes it through the hub.

use bytes::Bytes;
use hw_kit::{AccountId, GroupId};
use hw_store::Record;
use hw_stream::outcome::{PublishError, Stored};

/// One message on its way out. Its account decides who can see it.
pub(crate) enum Outgoing {
    /// The acknowledgement of a publish; its JSON is written when it leaves.
    PubAck { account: AccountId, group: GroupId, reply: Bytes, result: Result<Stored, PublishError> },
    /// A stored message, routed by `to` and carrying its own subject.
    Deliver { account: AccountId, to: Bytes, reply: Bytes, record: Record },
    /// What somebody waits for who may be on his way from one server to another.
    Answer { account: AccountId, to: Bytes, header: Bytes, payload: Bytes },
    /// Anything else: routed by its subject.
    Send { account: AccountId, to: Bytes, reply: Bytes, header: Bytes, payload: Bytes },
}

/// Messages in the order in which they leave.
#[derive(Default)]
pub(crate) struct Outbox {
    /// Ready to leave.
    pub(crate) ready: Vec<Outgoing>,
    /// Replies that wait until the other shards know an interest change, by its mark.
    pub(crate) gated: Vec<(u64, Outgoing)>,
}

impl Outbox {
    /// Says something.
    pub(crate) fn push(&mut self, outgoing: Outgoing) {
        self.ready.push(outgoing);
    }

    /// Answers somebody who asked.
    pub(crate) fn answer(&mut self, account: AccountId, to: Bytes, header: Bytes, payload: impl Into<Bytes>) {
        if !to.is_empty() {
            self.ready.push(Outgoing::Answer { account, to, header, payload: payload.into() });
        }
    }

    /// Sends a payload to a subject.
    pub(crate) fn send(&mut self, account: AccountId, to: Bytes, payload: impl Into<Bytes>) {
        if to.is_empty() {
            return;
        }
        let (reply, header) = (Bytes::new(), Bytes::new());
        self.ready.push(Outgoing::Send { account, to, reply, header, payload: payload.into() });
    }

    /// Lets go of what waited for interest changes up to `settled`.
    pub(crate) fn settle(&mut self, settled: u64) {
        let (free, gated) =
            std::mem::take(&mut self.gated).into_iter().partition(|(mark, _)| *mark <= settled);
        self.gated = gated;
        let free: Vec<(u64, Outgoing)> = free;
        self.ready.extend(free.into_iter().map(|(_, outgoing)| outgoing));
    }
}
