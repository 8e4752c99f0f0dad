//! A message for a stream on its way from one server to another, and its bytes (docs/format.md, "Links").

use bytes::Bytes;
use hw_hub::Message;
use hw_kit::GroupId;

use crate::inside::Target;
use crate::shard::owned;

/// What somebody published to a stream, or to one of its consumers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Parcel {
    /// Whom it is for.
    pub(crate) target: Target,
    /// How often it was handed on.
    pub(crate) hops: u8,
    /// The account of an API request; empty: the stream's.
    pub(crate) account: Bytes,
    pub(crate) subject: Bytes,
    pub(crate) reply: Bytes,
    pub(crate) header: Bytes,
    pub(crate) payload: Bytes,
}

impl Parcel {
    /// A copy of a message.
    pub(crate) fn new(target: Target, msg: &Message<'_>) -> Parcel {
        Parcel {
            target,
            hops: 0,
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
        let head = rest.first_chunk::<HEAD>()?;
        let number = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let target = Target::of(hw_hub::InternalId(u64::from_le_bytes(*head.first_chunk()?)))?;
        let (hops, lengths) = (head[8], [0, 1, 2, 3, 4].map(|at| number(9 + 4 * at) as usize));
        let total = lengths.iter().try_fold(HEAD, |sum, length| sum.checked_add(*length))?;
        if rest.len() < total {
            return None;
        }
        let mut body = rest.split_to(total).slice(HEAD..);
        let [account, subject, reply, header, payload] = lengths.map(|length| body.split_to(length));
        Some(Parcel { target, hops, account, subject, reply, header, payload })
    }
}

/// Target (u64), hops (u8), and five lengths (u32).
const HEAD: usize = 8 + 1 + 5 * 4;

/// Appends a parcel without copying it first.
pub(crate) fn put(out: &mut Vec<u8>, (target, hops): (Target, u8), account: &[u8], msg: &Message<'_>) {
    let parts = [account, msg.subject, msg.reply, msg.header, msg.payload];
    out.reserve(HEAD + parts.iter().map(|part| part.len()).sum::<usize>());
    out.extend_from_slice(&target.id().0.to_le_bytes());
    out.push(hops);
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
        | Target::DirectGet(id) => Some(id),
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
        put(&mut bytes, (Target::Publish(GroupId(7)), 2), b"", &msg);
        let one = bytes.len();
        put(&mut bytes, (Target::Api, 0), b"A", &msg);
        let mut rest = Bytes::from(bytes.clone());
        let first = Parcel { hops: 2, ..Parcel::new(Target::Publish(GroupId(7)), &msg) };
        assert_eq!(Parcel::take(&mut rest), Some(first));
        let second = Parcel { account: Bytes::from_static(b"A"), ..Parcel::new(Target::Api, &msg) };
        assert_eq!(Parcel::take(&mut rest), Some(second));
        assert_eq!(Parcel::take(&mut rest), None);
        for end in 0..one {
            assert_eq!(Parcel::take(&mut Bytes::from(bytes[..end].to_vec())), None);
        }
    }
}
