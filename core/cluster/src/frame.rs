//! What JetStream servers say to each other, and its bytes. Links check and bound the frames; nothing here trusts them more
//! than that: every length is checked.

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, NodeId, Seq};
use hw_raft::Message;
use serde::{Deserialize, Serialize};

use crate::formation::Standing;

const HELLO: u8 = 1;
const RAFT: u8 = 2;
const ASK: u8 = 3;
const ANSWER: u8 = 4;
const FETCH: u8 = 5;
const PIECE: u8 = 6;
const BEHIND: u8 = 7;
const REMOVED: u8 = 8;
const RESIGNED: u8 = 9;
const WANT: u8 = 10;
const GIVE: u8 = 11;
const DIGEST: u8 = 12;
const DIVERGED: u8 = 13;
const LEFT: u8 = 14;
const READ_INDEX: u8 = 15;
const FORWARD: u8 = 16;
const ANSWERED: u8 = 17;
const AGAIN: u8 = 18;
const READ_INDEXED: u8 = 19;

/// One frame between JetStream servers.
#[derive(Clone, Debug, PartialEq)]
pub enum PeerFrame {
    /// Where the sender stands.
    Hello {
        /// Who it is.
        node: NodeId,
        /// Where it stands.
        standing: Standing,
        /// Its tags.
        tags: Vec<String>,
    },
    /// A message of a group's replicas.
    Raft {
        /// Whose.
        group: GroupId,
        /// The message.
        message: Message,
    },
    /// A request; what is in it is core/node's.
    Ask {
        /// Comes back in the answer.
        id: u64,
        /// The request.
        body: Bytes,
    },
    /// The answer to a request.
    Answer {
        /// The request's.
        id: u64,
        /// The answer.
        body: Bytes,
    },
    /// The leader's log does not reach back to what the follower has: it must fetch the state.
    Behind {
        /// Whose.
        group: GroupId,
    },
    /// The receiver does not belong to a group any more.
    Removed {
        /// Which.
        group: GroupId,
    },
    /// The sender has heard that it does not belong to a group any more: nothing that it said as a member comes behind this.
    Left {
        /// Which.
        group: GroupId,
    },
    /// The sender does not lead a group any more, and will not vote for itself.
    Resigned {
        /// Which.
        group: GroupId,
    },
    /// Messages for streams, from a server that does not lead them; what is in them is core/node's.
    Forward {
        /// The messages.
        body: Bytes,
    },
    /// Those of them that were handed on before, over a link that broke: the receiver takes what it has not heard.
    Again {
        /// The messages.
        body: Bytes,
    },
    /// What the leader says to clients of the receiver, which handed their messages to it; what is in it is core/node's.
    Answered {
        /// The answers.
        body: Bytes,
    },
    /// A follower wants to answer reads, and asks the leader how far the log is.
    ReadIndex {
        /// Whose.
        group: GroupId,
        /// Comes back in the answer.
        number: u64,
    },
    /// The answer.
    ReadIndexed {
        /// Whose.
        group: GroupId,
        /// The question's.
        number: u64,
        /// The last entry that the leader had applied; 0: it may not lead any more.
        index: LogIndex,
    },
    /// A follower wants the state of a group, as its log does not lead there.
    Fetch {
        /// Whose.
        group: GroupId,
        /// Names this transfer; pieces of earlier ones are dropped.
        transfer: u64,
        /// The follower has everything up to this message that is still there.
        after: Seq,
    },
    /// Messages are damaged at the sender's: it wants them.
    Want {
        /// Whose.
        group: GroupId,
        /// Names this request.
        transfer: u64,
        /// The first and the last sequence of each row of them, ascending.
        rows: Vec<(Seq, Seq)>,
    },
    /// A part of the answer.
    Give {
        /// Whose.
        group: GroupId,
        /// What there is.
        given: Given,
    },
    /// What the sender's replica of a group is at an entry.
    Digest {
        /// Whose.
        group: GroupId,
        /// The entry.
        index: LogIndex,
        /// A number for the state.
        digest: u64,
    },
    /// What the receiver said is not what the majority of the replicas is.
    Diverged {
        /// Whose.
        group: GroupId,
        /// At which entry.
        index: LogIndex,
    },
    /// A part of a group's state.
    Piece {
        /// Whose.
        group: GroupId,
        /// The transfer.
        transfer: u64,
        /// Whether it is the last one: `head` is the state then.
        last: Option<PieceEnd>,
        /// Messages: see core/node.
        body: Bytes,
    },
}

/// What another replica has of messages that are damaged where they are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// Names the request.
    pub transfer: u64,
    /// Of everything that is wanted up to here, the sender has what is in the body and nothing else.
    pub up_to: Seq,
    /// Whether the sender cannot say what comes behind that: it is damaged there, too, or has not come so far.
    pub is_stuck: bool,
    /// Messages: see core/node.
    pub body: Bytes,
}

/// The end of a transfer: the state that the messages so far belong to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PieceEnd {
    /// The last entry that the state contains,
    pub applied: LogIndex,
    /// its term,
    pub term: u64,
    /// and the group's state, with a note of its members in front.
    pub state: Bytes,
}

/// A frame cannot be read.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a frame of a JetStream server cannot be read: {0}")]
pub struct FrameError(&'static str);

#[derive(Deserialize, Serialize)]
struct Hello {
    node: u64,
    #[serde(flatten)]
    standing: Standing,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tags: Vec<String>,
}

impl PeerFrame {
    /// The frame's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let numbers = |out: &mut Vec<u8>, kind: u8, numbers: &[u64]| {
            out.push(kind);
            numbers.iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
        };
        let whole = |out: &mut Vec<u8>, kind: u8, body: &[u8]| {
            out.push(kind);
            out.extend_from_slice(body);
        };
        match self {
            PeerFrame::Hello { node, standing, tags } => {
                out.push(HELLO);
                let hello = Hello { node: node.0, standing: *standing, tags: tags.clone() };
                serde_json::to_writer(&mut out, &hello).expect("plain data always encodes");
            }
            PeerFrame::Raft { group, message } => {
                numbers(&mut out, RAFT, &[group.0]);
                message.encode(&mut out);
            }
            PeerFrame::Ask { id, body } => {
                numbers(&mut out, ASK, &[*id]);
                out.extend_from_slice(body);
            }
            PeerFrame::Answer { id, body } => {
                numbers(&mut out, ANSWER, &[*id]);
                out.extend_from_slice(body);
            }
            PeerFrame::Behind { group } => numbers(&mut out, BEHIND, &[group.0]),
            PeerFrame::Removed { group } => numbers(&mut out, REMOVED, &[group.0]),
            PeerFrame::Left { group } => numbers(&mut out, LEFT, &[group.0]),
            PeerFrame::Resigned { group } => numbers(&mut out, RESIGNED, &[group.0]),
            PeerFrame::Forward { body } => whole(&mut out, FORWARD, body),
            PeerFrame::Again { body } => whole(&mut out, AGAIN, body),
            PeerFrame::Answered { body } => whole(&mut out, ANSWERED, body),
            PeerFrame::Fetch { group, transfer, after } => {
                numbers(&mut out, FETCH, &[group.0, *transfer, after.0]);
            }
            PeerFrame::Want { group, transfer, rows } => {
                numbers(&mut out, WANT, &[group.0, *transfer]);
                let ends = rows.iter().flat_map(|(first, last)| [first.0, last.0]);
                ends.for_each(|end| out.extend_from_slice(&end.to_le_bytes()));
            }
            PeerFrame::Give { group, given } => {
                let Given { transfer, up_to, is_stuck, body } = given;
                numbers(&mut out, GIVE, &[group.0, *transfer, up_to.0, u64::from(*is_stuck)]);
                out.extend_from_slice(body);
            }
            PeerFrame::ReadIndex { group, number } => numbers(&mut out, READ_INDEX, &[group.0, *number]),
            PeerFrame::ReadIndexed { group, number, index } => {
                numbers(&mut out, READ_INDEXED, &[group.0, *number, index.0]);
            }
            PeerFrame::Digest { group, index, digest } => {
                numbers(&mut out, DIGEST, &[group.0, index.0, *digest]);
            }
            PeerFrame::Diverged { group, index } => numbers(&mut out, DIVERGED, &[group.0, index.0]),
            PeerFrame::Piece { group, transfer, last, body } => {
                let end = last.clone().unwrap_or_default();
                let is_last = u64::from(last.is_some());
                let head = [group.0, *transfer, is_last, end.applied.0, end.term, end.state.len() as u64];
                numbers(&mut out, PIECE, &head);
                out.extend_from_slice(&end.state);
                out.extend_from_slice(body);
            }
        }
        out
    }

    /// Reads a frame; its parts share the buffer.
    pub fn decode(bytes: &Bytes) -> Result<PeerFrame, FrameError> {
        let kind = *bytes.first().ok_or(FrameError("it is empty"))?;
        let mut rest = bytes.slice(1..);
        let mut number = || {
            let head = rest.first_chunk::<8>().ok_or(FrameError("it is cut off"))?;
            let number = u64::from_le_bytes(*head);
            rest = rest.slice(8..);
            Ok::<u64, FrameError>(number)
        };
        Ok(match kind {
            HELLO => {
                let hello: Hello =
                    serde_json::from_slice(&rest).map_err(|_| FrameError("its greeting is not JSON"))?;
                PeerFrame::Hello { node: NodeId(hello.node), standing: hello.standing, tags: hello.tags }
            }
            RAFT => {
                let group = GroupId(number()?);
                let message = Message::decode(rest).map_err(|_| FrameError("its message is malformed"))?;
                PeerFrame::Raft { group, message }
            }
            ASK => PeerFrame::Ask { id: number()?, body: rest },
            ANSWER => PeerFrame::Answer { id: number()?, body: rest },
            BEHIND => PeerFrame::Behind { group: GroupId(number()?) },
            REMOVED => PeerFrame::Removed { group: GroupId(number()?) },
            LEFT => PeerFrame::Left { group: GroupId(number()?) },
            RESIGNED => PeerFrame::Resigned { group: GroupId(number()?) },
            FORWARD => PeerFrame::Forward { body: rest },
            AGAIN => PeerFrame::Again { body: rest },
            ANSWERED => PeerFrame::Answered { body: rest },
            FETCH => {
                PeerFrame::Fetch { group: GroupId(number()?), transfer: number()?, after: Seq(number()?) }
            }
            WANT => {
                let (group, transfer) = (GroupId(number()?), number()?);
                let mut rows = Vec::new();
                while let Ok(first) = number() {
                    rows.push((Seq(first), Seq(number()?)));
                }
                PeerFrame::Want { group, transfer, rows }
            }
            GIVE => {
                let group = GroupId(number()?);
                let (transfer, up_to, is_stuck) = (number()?, Seq(number()?), number()? != 0);
                PeerFrame::Give { group, given: Given { transfer, up_to, is_stuck, body: rest } }
            }
            READ_INDEX => PeerFrame::ReadIndex { group: GroupId(number()?), number: number()? },
            READ_INDEXED => PeerFrame::ReadIndexed {
                group: GroupId(number()?),
                number: number()?,
                index: LogIndex(number()?),
            },
            DIGEST => {
                PeerFrame::Digest { group: GroupId(number()?), index: LogIndex(number()?), digest: number()? }
            }
            DIVERGED => PeerFrame::Diverged { group: GroupId(number()?), index: LogIndex(number()?) },
            PIECE => {
                let (group, transfer, is_last) = (GroupId(number()?), number()?, number()? != 0);
                let (applied, term, len) = (LogIndex(number()?), number()?, number()?);
                let len = usize::try_from(len).ok().filter(|len| *len <= rest.len());
                let len = len.ok_or(FrameError("its state is cut off"))?;
                let last = is_last.then(|| PieceEnd { applied, term, state: rest.slice(..len) });
                PeerFrame::Piece { group, transfer, last, body: rest.slice(len..) }
            }
            _ => return Err(FrameError("it is of an unknown kind")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_shorter_ones_are_refused() {
        let standing = Standing { member: true, founder: 3, has_streams: false, expected: 5 };
        let end = PieceEnd { applied: LogIndex(9), term: 2, state: Bytes::from_static(b"state") };
        let body = Bytes::from_static(b"body");
        for bytes in [&b"\x10x"[..], b"\x11x", b"\x12x"] {
            let frame = PeerFrame::decode(&Bytes::from_static(bytes));
            assert_eq!(frame.map(|frame| frame.encode()), Ok(bytes.to_vec()));
        }
        for frame in [
            PeerFrame::Hello { node: NodeId(4), standing, tags: vec!["a".to_owned()] },
            PeerFrame::Ask { id: 1, body: body.clone() },
            PeerFrame::Answer { id: 1, body: body.clone() },
            PeerFrame::Behind { group: GroupId(1) },
            PeerFrame::Removed { group: GroupId(1) },
            PeerFrame::Resigned { group: GroupId(1) },
            PeerFrame::Left { group: GroupId(1) },
            PeerFrame::Want {
                group: GroupId(1),
                transfer: 2,
                rows: vec![(Seq(1), Seq(2)), (Seq(4), Seq(4))],
            },
            PeerFrame::Give {
                group: GroupId(1),
                given: Given { transfer: 2, up_to: Seq(9), is_stuck: true, body: body.clone() },
            },
            PeerFrame::ReadIndex { group: GroupId(1), number: 2 },
            PeerFrame::ReadIndexed { group: GroupId(1), number: 2, index: LogIndex(3) },
            PeerFrame::Digest { group: GroupId(1), index: LogIndex(2), digest: 3 },
            PeerFrame::Diverged { group: GroupId(1), index: LogIndex(2) },
            PeerFrame::Fetch { group: GroupId(1), transfer: 2, after: Seq(3) },
            PeerFrame::Piece { group: GroupId(1), transfer: 2, last: None, body: body.clone() },
            PeerFrame::Piece { group: GroupId(1), transfer: 2, last: Some(end), body },
        ] {
            let bytes = Bytes::from(frame.encode());
            assert_eq!(PeerFrame::decode(&bytes), Ok(frame));
            for end in 0..bytes.len().min(9) {
                assert!(PeerFrame::decode(&bytes.slice(..end)).is_err());
            }
        }
    }
}
