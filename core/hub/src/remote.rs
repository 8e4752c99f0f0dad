//! Batches between servers: the sender's interest and messages, as bytes.
//!
//! A batch begins with two numbers (u64, little-endian like all others): the sender's newest mark within, and the
//! receiver's mark that the sender has applied. Entries follow, each begins with a byte: an account (its name's length,
//! the name), which the entries behind it are about; interest (flags, members as u32, filter, queue group); a message
//! (flags, how often it moved on, the number of queue groups as u16, then as u32 the lengths of what it is routed by, its
//! subject, reply, header and payload, then these, then the groups). A text has a length of 16 bits before it.

use bytes::Bytes;

use crate::peers::PeerMessage;

const ACCOUNT: u8 = 1;
const INTEREST: u8 = 2;
const MESSAGE: u8 = 3;

/// In interest: a queue group is named. In messages: for subscriptions without a queue, too.
const FLAG: u8 = 1;

const HEAD_BYTES: usize = 16;

/// A batch that is longer is followed by another one.
const FULL_BYTES: usize = 256 * 1024;

/// What one server has to say to another: interest changes and messages in their order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RemoteBatch(Bytes);

/// Bytes that are no batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotABatch;

impl std::fmt::Display for NotABatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interest or messages of another server cannot be read")
    }
}

impl std::error::Error for NotABatch {}

impl RemoteBatch {
    /// Takes bytes from another server; what is no batch is refused as a whole.
    pub fn decode(bytes: Bytes) -> Result<RemoteBatch, NotABatch> {
        let mut entries = Entries::of(&bytes).ok_or(NotABatch)?;
        while entries.next()?.is_some() {}
        Ok(RemoteBatch(bytes))
    }

    /// As it travels.
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it is only an answer to earlier batches.
    pub fn is_empty(&self) -> bool {
        self.0.len() <= HEAD_BYTES
    }

    /// The sender's newest mark within, and the receiver's mark that the sender has applied.
    pub(crate) fn marks(&self) -> (u64, u64) {
        let at = |from: usize| {
            let bytes = self.0.get(from..from + 8).and_then(|bytes| bytes.try_into().ok());
            u64::from_le_bytes(bytes.unwrap_or_default())
        };
        (at(0), at(8))
    }

    pub(crate) fn entries(&self) -> Entries<'_> {
        Entries::of(&self.0).unwrap_or(Entries(&[]))
    }
}

/// One entry, read.
#[derive(Debug, PartialEq)]
pub(crate) enum Entry<'a> {
    /// What follows is about this account.
    Account(&'a str),
    Interest {
        filter: &'a [u8],
        queue: Option<&'a [u8]>,
        members: u32,
    },
    Message(RemoteMessage<'a>),
}

#[derive(Debug, PartialEq)]
pub(crate) struct RemoteMessage<'a> {
    pub plain: bool,
    pub hops: u8,
    pub to: &'a [u8],
    pub msg: crate::message::Message<'a>,
    pub groups: Vec<&'a [u8]>,
}

/// Reads entries one after the other.
pub(crate) struct Entries<'a>(&'a [u8]);

impl<'a> Entries<'a> {
    fn of(bytes: &'a [u8]) -> Option<Entries<'a>> {
        bytes.get(HEAD_BYTES..).map(Entries)
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], NotABatch> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(NotABatch)?;
        self.0 = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], NotABatch> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(NotABatch)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn text(&mut self) -> Result<&'a [u8], NotABatch> {
        let len = u16::from_le_bytes(self.fixed()?);
        self.take(usize::from(len))
    }

    /// The next entry; None at the end.
    pub fn next(&mut self) -> Result<Option<Entry<'a>>, NotABatch> {
        let Some((&kind, rest)) = self.0.split_first() else { return Ok(None) };
        self.0 = rest;
        Ok(Some(match kind {
            ACCOUNT => Entry::Account(std::str::from_utf8(self.text()?).map_err(|_| NotABatch)?),
            INTEREST => {
                let [flags] = self.fixed()?;
                let members = u32::from_le_bytes(self.fixed()?);
                let filter = self.text()?;
                let queue = if flags & FLAG == 0 { None } else { Some(self.text()?) };
                if !hw_subject::is_valid_filter(filter) {
                    return Err(NotABatch);
                }
                Entry::Interest { filter, queue, members }
            }
            MESSAGE => Entry::Message(self.message()?),
            _ => return Err(NotABatch),
        }))
    }

    fn message(&mut self) -> Result<RemoteMessage<'a>, NotABatch> {
        let [flags, hops] = self.fixed()?;
        let groups = u16::from_le_bytes(self.fixed()?);
        let mut lens = [0; 5];
        for len in &mut lens {
            *len = u32::from_le_bytes(self.fixed()?) as usize;
        }
        let [to, subject, reply, header, payload] = lens;
        let (to, subject) = (self.take(to)?, self.take(subject)?);
        let msg = crate::message::Message {
            subject: if subject.is_empty() { to } else { subject },
            reply: self.take(reply)?,
            header: self.take(header)?,
            payload: self.take(payload)?,
        };
        let groups = (0..groups).map(|_| self.text()).collect::<Result<_, _>>()?;
        Ok(RemoteMessage { plain: flags & FLAG != 0, hops, to, msg, groups })
    }
}

/// What waits for one other server.
#[derive(Debug, Default)]
pub(crate) struct RemoteOutbox {
    full: Vec<Vec<u8>>,
    bytes: Vec<u8>,
    /// The account of the last entry.
    account: Option<hw_kit::AccountId>,
    /// Our newest mark that was put in, and the newest that the other side has applied.
    pub sent: u64,
    pub acked: u64,
    /// The other side's mark that is applied on all shards here.
    applied: u64,
    /// An answer is due even without anything else to say.
    answer: bool,
}

impl RemoteOutbox {
    fn entry(&mut self, account: hw_kit::AccountId, name: &str) -> &mut Vec<u8> {
        if self.bytes.len() >= FULL_BYTES {
            self.full.push(std::mem::take(&mut self.bytes));
            self.account = None;
        }
        if self.bytes.is_empty() {
            self.bytes.resize(HEAD_BYTES, 0);
            self.account = None;
        }
        if self.account != Some(account) {
            self.account = Some(account);
            self.bytes.push(ACCOUNT);
            put_text(&mut self.bytes, name.as_bytes());
        }
        &mut self.bytes
    }

    pub fn put_interest(
        &mut self,
        (account, name): (hw_kit::AccountId, &str),
        filter: &[u8],
        queue: Option<&[u8]>,
        members: u32,
    ) {
        let out = self.entry(account, name);
        out.push(INTEREST);
        out.push(if queue.is_some() { FLAG } else { 0 });
        out.extend_from_slice(&members.to_le_bytes());
        put_text(out, filter);
        if let Some(queue) = queue {
            put_text(out, queue);
        }
    }

    pub fn put_message<'a>(
        &mut self,
        name: &str,
        m: &PeerMessage<'_>,
        groups: impl ExactSizeIterator<Item = &'a [u8]>,
    ) {
        let out = self.entry(m.account, name);
        let subject = if m.msg.subject == m.to { &[][..] } else { m.msg.subject };
        out.reserve(32 + m.to.len() + subject.len() + m.msg.reply.len() + m.msg.size());
        out.extend_from_slice(&[MESSAGE, if m.plain { FLAG } else { 0 }, m.hops]);
        out.extend_from_slice(&(groups.len() as u16).to_le_bytes());
        let texts = [m.to, subject, m.msg.reply, m.msg.header, m.msg.payload];
        for text in texts {
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
        }
        for text in texts {
            out.extend_from_slice(text);
        }
        for group in groups {
            put_text(out, group);
        }
    }

    /// The other side's changes up to this mark are applied on all shards.
    pub fn set_applied(&mut self, mark: u64) {
        if mark > self.applied {
            self.applied = mark;
            self.answer = true;
        }
    }

    /// What waits.
    pub fn take(&mut self) -> Vec<RemoteBatch> {
        let mut batches = std::mem::take(&mut self.full);
        if !self.bytes.is_empty() {
            batches.push(std::mem::take(&mut self.bytes));
        } else if batches.is_empty() && self.answer {
            batches.push(vec![0; HEAD_BYTES]);
        }
        self.answer = false;
        let last = batches.len().saturating_sub(1);
        let finish = |(at, mut bytes): (usize, Vec<u8>)| {
            // Only behind the last entry is everything said that the mark counts.
            let mark = if at == last { self.sent } else { 0 };
            bytes[..8].copy_from_slice(&mark.to_le_bytes());
            bytes[8..HEAD_BYTES].copy_from_slice(&self.applied.to_le_bytes());
            RemoteBatch(bytes.into())
        };
        batches.into_iter().enumerate().map(finish).collect()
    }
}

/// Filters, groups and names are bounded by the control line and the configuration: far below 64 KiB.
fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    let len = text.len().min(usize::from(u16::MAX));
    out.extend_from_slice(&(len as u16).to_le_bytes());
    out.extend_from_slice(&text[..len]);
}

#[cfg(test)]
mod tests {
    use hw_kit::{AccountId, Rng, ShardId};

    use super::*;
    use crate::message::Message;

    fn message<'a>(to: &'a [u8], payload: &'a [u8]) -> PeerMessage<'a> {
        let msg = Message { subject: b"other", reply: b"r", header: b"h", payload };
        let (account, conn, shard) = (AccountId(3), None, ShardId(0));
        PeerMessage { account, conn, shard, hops: 2, to, msg, plain: true, far: false }
    }

    fn batch() -> RemoteBatch {
        let mut outbox = RemoteOutbox::default();
        outbox.put_interest((AccountId(3), "A"), b"a.*", None, 1);
        outbox.put_interest((AccountId(3), "A"), b"b", Some(b"q"), 7);
        outbox.put_message("A", &message(b"to", b"body"), [&b"g"[..], b"h"].into_iter());
        outbox.put_interest((AccountId(4), "B"), b"c", None, 0);
        outbox.sent = 9;
        outbox.set_applied(4);
        outbox.take().pop().unwrap()
    }

    #[test]
    fn batches_both_ways() {
        let batch = RemoteBatch::decode(batch().into_bytes()).unwrap();
        assert_eq!(batch.marks(), (9, 4));
        let mut entries = batch.entries();
        let mut next = || entries.next().unwrap();
        assert_eq!(next(), Some(Entry::Account("A")));
        assert_eq!(next(), Some(Entry::Interest { filter: b"a.*", queue: None, members: 1 }));
        assert_eq!(next(), Some(Entry::Interest { filter: b"b", queue: Some(b"q"), members: 7 }));
        let Some(Entry::Message(m)) = next() else { panic!("a message") };
        assert_eq!(
            (m.to, m.msg.subject, m.msg.payload, m.hops, m.plain),
            (&b"to"[..], &b"other"[..], &b"body"[..], 2, true)
        );
        assert_eq!(m.groups, [b"g", b"h"]);
        assert_eq!(next(), Some(Entry::Account("B")));
        assert_eq!(next(), Some(Entry::Interest { filter: b"c", queue: None, members: 0 }));
        assert_eq!(next(), None);
    }

    #[test]
    fn a_mark_comes_with_its_last_entry() {
        let mut outbox = RemoteOutbox::default();
        for _ in 0..5 {
            outbox.put_message("A", &message(b"to", &vec![0; FULL_BYTES]), std::iter::empty());
        }
        outbox.sent = 6;
        let marks: Vec<u64> = outbox.take().iter().map(|batch| batch.marks().0).collect();
        assert_eq!(marks, [0, 0, 0, 0, 6]);
        assert!(outbox.take().is_empty());
        outbox.set_applied(3);
        let answer = outbox.take();
        assert!(answer.len() == 1 && answer[0].is_empty() && answer[0].marks() == (6, 3));
    }

    #[test]
    fn what_is_no_batch_is_refused() {
        let good = batch().into_bytes();
        let mut refused = 0;
        for len in 0..good.len() {
            refused += usize::from(RemoteBatch::decode(good.slice(..len)).is_err());
        }
        // A prefix is a batch only where it ends with an entry.
        assert_eq!(good.len() - refused, 6);
        let mut rng = Rng::new(1);
        for _ in 0..5000 {
            let mut bad = good.to_vec();
            let at = rng.below(bad.len() as u64) as usize;
            bad[at] ^= 1 << rng.below(8);
            let _ = RemoteBatch::decode(bad.into());
        }
    }
}
