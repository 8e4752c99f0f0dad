//! The other shards: what they want to hear, and the batches that travel between hubs.
//!
//! A hub tells every other hub what its own sinks want, as counts per (account, filter, queue). It numbers these
//! changes, its marks; the others answer with the mark up to which they have applied them. Messages that came from
//! another shard go to local sinks only. The one exception is a queue group that was chosen there but has no member
//! left here: the message moves on to a shard that has one, a limited number of times.

use hw_kit::{AccountId, ConnId, Map, ShardId};

use crate::message::Message;

/// How often a message may move on because a queue group's members have left.
pub(crate) const MAX_HOPS: u8 = 4;

/// What one shard has to say to another: interest changes and messages in their order.
#[derive(Clone, Debug, Default)]
pub struct PeerBatch {
    ops: Vec<PeerOp>,
    data: Vec<u8>,
    /// The sender's newest mark within.
    mark: u64,
    /// The receiver's own mark that the sender has applied.
    applied: u64,
}

impl PeerBatch {
    /// How many interest changes and messages it holds.
    pub fn len(&self) -> usize {
        self.ops.len()
    }

    /// The sender's newest mark within, and the receiver's own mark that the sender has applied.
    pub(crate) fn marks(&self) -> (u64, u64) {
        (self.mark, self.applied)
    }

    /// Whether it is only an answer to earlier batches.
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    /// The bytes of its subjects and messages.
    pub fn bytes(&self) -> usize {
        self.data.len()
    }
}

/// One entry; its texts stand one after the other in the batch's data.
#[derive(Clone, Debug)]
enum PeerOp {
    Interest { account: AccountId, filter: u32, queue: Option<u32>, members: u32, far: bool },
    Connections { account: AccountId, count: u32 },
    Stall { conn: ConnId, on: bool },
    Message(Envelope),
}

#[derive(Clone, Copy, Debug)]
struct Envelope {
    account: AccountId,
    conn: Option<ConnId>,
    shard: ShardId,
    hops: u8,
    plain: bool,
    far: bool,
    groups: u16,
    to: u32,
    /// 0: the same as `to`.
    subject: u32,
    reply: u32,
    header: u32,
    payload: u32,
}

/// A filter that somebody wants to hear.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InterestChange<'a> {
    pub account: AccountId,
    pub filter: &'a [u8],
    pub queue: Option<&'a [u8]>,
    /// How many members there are now; 0 means the interest is gone.
    pub members: u32,
    /// They are on other servers, behind the shard that says so.
    pub far: bool,
}

/// A message from another shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerMessage<'a> {
    pub account: AccountId,
    pub conn: Option<ConnId>,
    pub shard: ShardId,
    pub hops: u8,
    pub to: &'a [u8],
    pub msg: Message<'a>,
    /// Whether it is for subscriptions without a queue, too.
    pub plain: bool,
    /// Whether it is for such subscriptions on other servers, too.
    pub far: bool,
}

/// One entry of a batch, read.
pub(crate) enum Received<'a> {
    Interest(InterestChange<'a>),
    Connections {
        account: AccountId,
        count: u32,
    },
    /// A connection of the receiver should wait, or need not any longer.
    Stall {
        conn: ConnId,
        on: bool,
    },
    Message(PeerMessage<'a>, Groups<'a>),
}

/// The queue groups that a message is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Groups<'a> {
    left: u16,
    data: &'a [u8],
}

/// In a group's length: its member on another server gets the message.
const FAR: u32 = 1 << 31;

impl<'a> Iterator for Groups<'a> {
    /// The group's name, and whether a member on another server gets it.
    type Item = (&'a [u8], bool);

    fn next(&mut self) -> Option<(&'a [u8], bool)> {
        self.left = self.left.checked_sub(1)?;
        let (len, rest) = self.data.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(*len);
        let (name, rest) = rest.split_at_checked((len & !FAR) as usize)?;
        self.data = rest;
        Some((name, len & FAR != 0))
    }
}

/// Routing's notes for the message at hand.
#[derive(Debug, Default)]
pub(crate) struct Note {
    pub touched: bool,
    pub plain: bool,
    pub far: bool,
    /// Queue groups that were chosen, as positions in the lookup's result; and whether a member on another server was.
    pub groups: Vec<(usize, bool)>,
}

impl Note {
    /// Keeps the memory of an earlier note.
    pub fn reuse(&mut self, mut note: Note) {
        note.groups.clear();
        self.groups = note.groups;
    }
}

/// What waits for one other shard.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    batch: PeerBatch,
    /// An answer is due even without anything else to say.
    answer: bool,
    /// That shard's marks that are applied here.
    applied: u64,
    /// Our newest mark that was put in, and the newest that is applied there.
    pub sent: u64,
    pub acked: u64,
    pub note: Note,
}

impl Outbox {
    pub fn put_interest(&mut self, change: InterestChange<'_>, mark: u64) {
        let InterestChange { account, filter, queue, members, far } = change;
        self.sent = mark;
        let batch = &mut self.batch;
        batch.data.extend_from_slice(filter);
        batch.data.extend_from_slice(queue.unwrap_or_default());
        let queue = queue.map(|queue| queue.len() as u32);
        batch.ops.push(PeerOp::Interest { account, filter: filter.len() as u32, queue, members, far });
        batch.mark = mark;
    }

    pub fn put_connections(&mut self, account: AccountId, count: u32) {
        self.batch.ops.push(PeerOp::Connections { account, count });
    }

    pub fn put_stall(&mut self, conn: ConnId, on: bool) {
        self.batch.ops.push(PeerOp::Stall { conn, on });
    }

    pub fn put_message<'a>(&mut self, m: &PeerMessage<'_>, groups: impl Iterator<Item = (&'a [u8], bool)>) {
        let data = &mut self.batch.data;
        let subject = if m.msg.subject == m.to { &[][..] } else { m.msg.subject };
        data.reserve(m.to.len() + subject.len() + m.msg.reply.len() + m.msg.size());
        for text in [m.to, subject, m.msg.reply, m.msg.header, m.msg.payload] {
            data.extend_from_slice(text);
        }
        let mut count = 0;
        for (group, far) in groups {
            let flag = if far { FAR } else { 0 };
            data.extend_from_slice(&(group.len() as u32 | flag).to_le_bytes());
            data.extend_from_slice(group);
            count += 1;
        }
        self.batch.ops.push(PeerOp::Message(Envelope {
            account: m.account,
            conn: m.conn,
            shard: m.shard,
            hops: m.hops,
            plain: m.plain,
            far: m.far,
            groups: count,
            to: m.to.len() as u32,
            subject: subject.len() as u32,
            reply: m.msg.reply.len() as u32,
            header: m.msg.header.len() as u32,
            payload: m.msg.payload.len() as u32,
        }));
    }

    /// What waits, if anything does.
    pub fn take(&mut self) -> Option<PeerBatch> {
        if self.batch.is_empty() && !self.answer {
            return None;
        }
        self.answer = false;
        let mut batch = std::mem::take(&mut self.batch);
        batch.applied = self.applied;
        Some(batch)
    }

    /// The other shard's changes up to this mark are applied here.
    pub fn set_applied(&mut self, mark: u64) {
        if mark > self.applied {
            self.applied = mark;
            self.answer = true;
        }
    }
}

struct Texts<'a>(&'a [u8]);

impl<'a> Texts<'a> {
    fn next(&mut self, len: u32) -> &'a [u8] {
        let (text, rest) = self.0.split_at(len as usize);
        self.0 = rest;
        text
    }
}

/// Calls `each` for the batch's entries in their order.
pub(crate) fn read(batch: &PeerBatch, mut each: impl FnMut(Received<'_>)) {
    let mut data = Texts(&batch.data);
    for op in &batch.ops {
        match *op {
            PeerOp::Interest { account, filter, queue, members, far } => {
                let filter = data.next(filter);
                let queue = queue.map(|len| data.next(len));
                each(Received::Interest(InterestChange { account, filter, queue, members, far }));
            }
            PeerOp::Connections { account, count } => each(Received::Connections { account, count }),
            PeerOp::Stall { conn, on } => each(Received::Stall { conn, on }),
            PeerOp::Message(envelope) => {
                let (message, groups) = open(&envelope, &mut data);
                each(Received::Message(message, groups));
            }
        }
    }
}

fn open<'a>(e: &Envelope, data: &mut Texts<'a>) -> (PeerMessage<'a>, Groups<'a>) {
    let (to, subject) = (data.next(e.to), data.next(e.subject));
    let msg = Message {
        subject: if subject.is_empty() { to } else { subject },
        reply: data.next(e.reply),
        header: data.next(e.header),
        payload: data.next(e.payload),
    };
    let groups = Groups { left: e.groups, data: data.0 };
    for (group, _) in groups {
        data.next(4 + group.len() as u32);
    }
    let Envelope { account, conn, shard, hops, plain, far, .. } = *e;
    (PeerMessage { account, conn, shard, hops, to, msg, plain, far }, groups)
}

/// The account, the filter and perhaps the queue group.
type Wish = (AccountId, Box<[u8]>, Option<Box<[u8]>>);

/// What this hub's own sinks want to hear, in all: other shards are told about the sums only.
#[derive(Debug, Default)]
pub(crate) struct LocalInterest {
    members: Map<Wish, u32>,
}

impl LocalInterest {
    /// Every filter that is wanted, and by how many.
    pub fn all(&self) -> impl Iterator<Item = (AccountId, &[u8], Option<&[u8]>, u32)> {
        self.members
            .iter()
            .map(|((account, filter, queue), members)| (*account, &**filter, queue.as_deref(), *members))
    }

    /// Counts a member in or out; returns the new number if the others must know it.
    pub fn change(
        &mut self,
        account: AccountId,
        filter: &[u8],
        queue: Option<&[u8]>,
        joins: bool,
    ) -> Option<u32> {
        let key = (account, filter.into(), queue.map(Box::from));
        let members = self.members.entry(key.clone()).or_insert(0);
        *members = if joins { *members + 1 } else { members.saturating_sub(1) };
        let now = *members;
        if now == 0 {
            self.members.remove(&key);
        }
        // Without a queue only being there matters; with one the number is the group's weight here.
        (queue.is_some() || now == 0 || (joins && now == 1)).then_some(now)
    }
}
