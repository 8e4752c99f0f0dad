//! What a replica, and a store, keep beside the log: small records in the write-ahead log and in front of checkpointed
//! states (docs/format.md, "Notes of replicated groups").

use bytes::Bytes;
use hw_kit::{LogIndex, NodeId};
use hw_raft::{Hard, Members};

const REPLICA: u8 = 0xf1;
const STORE: u8 = 0xf2;

/// A replica's own memory: without it, it could vote twice in a term.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ReplicaNote {
    /// Term, vote and what is known to be committed.
    pub hard: Hard,
    /// Where its log begins: the last entry that is not in it, and that entry's term.
    pub base: (LogIndex, u64),
    /// Who belonged to the group at that point.
    pub members: Members,
    /// Whether the state is being fetched and fits no entry of the log.
    pub hollow: bool,
    /// Whether nothing of the state that is here is to be used for that.
    pub anew: bool,
    /// Whether it lost what it knew of terms and votes: it says nothing in elections until it has the state of a leader.
    pub mute: bool,
}

/// What a store keeps about the cluster, beside the meta group's log.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StoreNote {
    /// Which server the store is in the cluster; drawn once.
    pub node: NodeId,
    /// Whom it agreed to as the cluster's founder; 0: nobody yet.
    pub founder: NodeId,
}

/// Bytes are not a note.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("not a note of a replicated group that this version reads")]
pub struct NoteError;

impl ReplicaNote {
    /// Appends the note's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(REPLICA);
        for number in [self.hard.term, self.hard.vote.0, self.hard.commit.0, self.base.0.0, self.base.1] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(u8::from(self.hollow) | u8::from(self.anew) << 1 | u8::from(self.mute) << 2);
        let mut members = Vec::new();
        self.members.encode(&mut members);
        out.extend_from_slice(&(members.len() as u32).to_le_bytes());
        out.extend_from_slice(&members);
    }

    /// Whether bytes begin with a note.
    pub fn is_in(bytes: &[u8]) -> bool {
        bytes.first() == Some(&REPLICA)
    }

    /// Reads a note from the front of `bytes`; what follows it is left there.
    pub fn take(bytes: &mut Bytes) -> Result<ReplicaNote, NoteError> {
        let (note, used) = read_replica(bytes).ok_or(NoteError)?;
        *bytes = bytes.slice(used..);
        Ok(note)
    }
}

fn read_replica(bytes: &Bytes) -> Option<(ReplicaNote, usize)> {
    let mut rest = bytes.strip_prefix(&[REPLICA])?;
    let mut number = || {
        let (head, tail) = rest.split_first_chunk::<8>()?;
        rest = tail;
        Some(u64::from_le_bytes(*head))
    };
    let hard = Hard { term: number()?, vote: NodeId(number()?), commit: LogIndex(number()?) };
    let base = (LogIndex(number()?), number()?);
    let (flags, rest) = rest.split_first()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let start = bytes.len() - rest.len();
    let end = start.checked_add(u32::from_le_bytes(*len) as usize).filter(|end| *end <= bytes.len())?;
    let members = Members::decode(bytes.slice(start..end)).ok()?;
    let (hollow, anew, mute) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
    Some((ReplicaNote { hard, base, members, hollow, anew, mute }, end))
}

impl StoreNote {
    /// Appends the note's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(STORE);
        out.extend_from_slice(&self.node.0.to_le_bytes());
        out.extend_from_slice(&self.founder.0.to_le_bytes());
    }

    /// Whether bytes are such a note.
    pub fn is_in(bytes: &[u8]) -> bool {
        bytes.first() == Some(&STORE)
    }

    /// Reads a note from the front of `bytes`; what follows it is left there.
    pub fn take(bytes: &mut Bytes) -> Result<StoreNote, NoteError> {
        let rest = bytes.strip_prefix(&[STORE]).ok_or(NoteError)?;
        let (node, rest) = rest.split_first_chunk::<8>().ok_or(NoteError)?;
        let (founder, rest) = rest.split_first_chunk::<8>().ok_or(NoteError)?;
        let (node, founder) = (NodeId(u64::from_le_bytes(*node)), NodeId(u64::from_le_bytes(*founder)));
        let used = bytes.len() - rest.len();
        *bytes = bytes.slice(used..);
        Ok(StoreNote { node, founder })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_and_leave_the_rest() {
        let members = Members {
            voters: vec![NodeId(1), NodeId(u64::MAX)],
            learners: vec![NodeId(3)],
            auto_leave: true,
            ..Members::default()
        };
        let hard = Hard { term: 7, vote: NodeId(1), commit: LogIndex(99) };
        let note =
            ReplicaNote { hard, base: (LogIndex(90), 6), members, hollow: true, anew: true, mute: true };
        let mut bytes = Vec::new();
        note.encode(&mut bytes);
        let len = bytes.len();
        bytes.extend_from_slice(b"state");
        let mut whole = Bytes::from(bytes);
        for end in 0..len {
            assert_eq!(ReplicaNote::take(&mut whole.slice(..end)), Err(NoteError));
        }
        assert_eq!(ReplicaNote::take(&mut whole), Ok(note));
        assert_eq!(whole, "state");
        let store = StoreNote { node: NodeId(5), founder: NodeId(6) };
        let mut bytes = Vec::new();
        store.encode(&mut bytes);
        assert_eq!(StoreNote::take(&mut bytes.clone().into()), Ok(store));
        assert_eq!(StoreNote::take(&mut Bytes::from(bytes).slice(1..)), Err(NoteError));
    }
}
