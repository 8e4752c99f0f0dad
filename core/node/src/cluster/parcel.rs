//! A message for a stream on its way from one server to another, and its bytes.

use bytes::Bytes;
use hw_hub::Message;
use hw_kit::{GroupId, NodeId};

use super::handed::Run;
use crate::inside::Target;
use crate::shard::owned;

/// What somebody published to a stream, or to one of its consumers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Parcel {
    /// Whom it is for.
    pub(crate) target: Target,
    /// How often it was handed on.
    pub(crate) hops: u8,
    /// By what the server that handed it on will know it, if that one has a replica of the stream.
    pub(crate) serial: Option<Serial>,
    /// The account of an API request; empty: the stream's.
    pub(crate) account: Bytes,
    pub(crate) subject: Bytes,
    pub(crate) reply: Bytes,
    pub(crate) header: Bytes,
    pub(crate) payload: Bytes,
}

/// What a server calls a publish that it hands to a leader.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Serial {
    /// That server. Not among the bytes: it is the one that they come from.
    pub(crate) by: NodeId,
    /// Counted up; 0: what becomes of it is not followed, as it is part of an atomic batch.
    pub(crate) number: u64,
    /// It is for the leader of this term, and no other.
    pub(crate) term: u64,
}

impl Serial {
    /// It, if what becomes of the publish is followed.
    pub(crate) fn followed(self) -> Option<Serial> {
        (self.number != 0).then_some(self)
    }

    /// Whose publish it is, whatever the term.
    pub(crate) fn run(self) -> Run {
        Run { by: self.by, number: self.number }
    }
}

impl Parcel {
    /// A copy of a message.
    pub(crate) fn new(target: Target, msg: &Message<'_>) -> Parcel {
        Parcel {
            target,
            hops: 0,
            serial: None,
            account: Bytes::new(),
            subject: owned(msg.subject),
            reply: owned(msg.reply),
            header: owned(msg.header),
            payload: owned(msg.payload),
        }
    }

    /// The message.
    pub(crate) fn message(&self) -> Message<'_> {
        Message { subject: &self.subject, reply: &self.reply, header: &self.header, payload: &self.payload }
    }

    /// What it takes in memory.
    pub(crate) fn size(&self) -> usize {
        size_of::<Parcel>()
            + self.account.len()
            + self.subject.len()
            + self.reply.len()
            + self.header.len()
            + self.payload.len()
    }

    /// Takes the first of several parcels; None: there is none, or it cannot be read.
    pub(crate) fn take(rest: &mut Bytes) -> Option<Parcel> {
        let Head { total, target, hops, serial, lengths } = Head::read(rest)?;
        let mut body = rest.split_to(total).slice(HEAD..);
        let [account, subject, reply, header, payload] = lengths.map(|length| body.split_to(length));
        Some(Parcel { target, hops, serial, account, subject, reply, header, payload })
    }

    /// The same, but leaves the parcel in its bytes.
    pub(crate) fn split(rest: &mut Bytes) -> Option<(Bytes, Target, Option<Serial>)> {
        let Head { total, target, serial, .. } = Head::read(rest)?;
        Some((rest.split_to(total), target, serial))
    }
}

/// Target (u64), hops (u8), serial number and term (u64 each; term 0: there are none), and five lengths (u32).
const HEAD: usize = 8 + 1 + 2 * 8 + 5 * 4;

/// What stands in front of a parcel.
struct Head {
    total: usize,
    target: Target,
    hops: u8,
    serial: Option<Serial>,
    lengths: [usize; 5],
}

impl Head {
    /// That of the first of several parcels, which is there as a whole.
    fn read(bytes: &[u8]) -> Option<Head> {
        let (target, rest) = bytes.split_first_chunk()?;
        let target = Target::of(hw_hub::InternalId(u64::from_le_bytes(*target)))?;
        let (hops, rest) = rest.split_first()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (term, mut rest) = rest.split_first_chunk()?;
        let (number, term) = (u64::from_le_bytes(*number), u64::from_le_bytes(*term));
        let mut lengths = [0; 5];
        for length in &mut lengths {
            let (four, behind) = rest.split_first_chunk()?;
            (*length, rest) = (u32::from_le_bytes(*four) as usize, behind);
        }
        let total = lengths.iter().try_fold(HEAD, |sum, length| sum.checked_add(*length))?;
        let serial = (term != 0).then_some(Serial { by: NodeId(0), number, term });
        (bytes.len() >= total).then_some(Head { total, target, hops: *hops, serial, lengths })
    }
}

/// How a parcel travels.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label {
    pub(crate) target: Target,
    pub(crate) hops: u8,
    pub(crate) serial: Option<Serial>,
}

impl Label {
    /// One that is handed on for the first time, and not followed.
    pub(crate) fn new(target: Target) -> Label {
        Label { target, hops: 0, serial: None }
    }
}

/// Appends a parcel without copying it first.
pub(crate) fn put(out: &mut Vec<u8>, label: Label, account: &[u8], msg: &Message<'_>) {
    let parts = [account, msg.subject, msg.reply, msg.header, msg.payload];
    out.reserve(HEAD + parts.iter().map(|part| part.len()).sum::<usize>());
    out.extend_from_slice(&label.target.id().0.to_le_bytes());
    out.push(label.hops);
    let (number, term) = label.serial.map_or((0, 0), |serial| (serial.number, serial.term));
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(&term.to_le_bytes());
    for part in parts {
        out.extend_from_slice(&(part.len() as u32).to_le_bytes());
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// The stream's group that a message is for, if it is one that its leader handles.
pub(crate) fn group_of(target: Target) -> Option<GroupId> {
    match target {
        Target::Publish(id)
        | Target::Ack(id)
        | Target::Pull(id)
        | Target::FlowControl(id)
        | Target::DirectGet(id)
        | Target::MirrorGet(id) => Some(id),
        Target::Snapshot(_) | Target::Restore(_) | Target::Api | Target::System => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parcels_come_back_and_shorter_ones_are_nothing() {
        let msg = Message { subject: b"s", reply: b"r", header: b"", payload: b"payload" };
        let mut bytes = Vec::new();
        let serial = Some(Serial { by: NodeId(0), number: 5, term: 6 });
        put(&mut bytes, Label { target: Target::Publish(GroupId(7)), hops: 2, serial }, b"", &msg);
        let one = bytes.len();
        put(&mut bytes, Label::new(Target::Api), b"A", &msg);
        let mut rest = Bytes::from(bytes.clone());
        let first = Parcel { hops: 2, serial, ..Parcel::new(Target::Publish(GroupId(7)), &msg) };
        assert_eq!(Parcel::take(&mut rest), Some(first));
        let second = Parcel { account: Bytes::from_static(b"A"), ..Parcel::new(Target::Api, &msg) };
        assert_eq!(Parcel::take(&mut rest), Some(second));
        assert_eq!(Parcel::take(&mut rest), None);
        for end in 0..one {
            assert_eq!(Parcel::take(&mut Bytes::from(bytes[..end].to_vec())), None);
        }
    }
}
