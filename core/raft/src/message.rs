//! What replicas of a group say to each other, and its bytes.
//!
//! A message knows neither group nor sender nor receiver: the frame that carries it does. Its bytes: version (1), kind, term,
//! then what the kind has, in the order of its fields; numbers are varints, flags one byte. An entry is its kind (0 batch, 1
//! change), how much its term is above the one before, its body's length and its body; its index follows from its place.

use bytes::Bytes;
use hw_kit::LogIndex;

use crate::{
    codec::{DecodeError, Reader, put},
    entry::{Entry, EntryKind},
};

const VERSION: u8 = 1;

/// One message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// The sender's term; for a poll and a yes to it, the term that the candidate would have.
    pub term: u64,
    /// What it says.
    pub body: Body,
}

/// What a message says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Body {
    /// The leader's log from `prev` on, and what is committed.
    Append {
        /// Index and term before the first entry.
        prev: (LogIndex, u64),
        /// Committed.
        commit: LogIndex,
        /// What follows `prev`; may be nothing.
        entries: Vec<Entry>,
    },
    /// The follower has the leader's log up to `index`, durable.
    Accepted {
        /// Up to here.
        index: LogIndex,
        /// What the follower knows to be committed.
        commit: LogIndex,
    },
    /// The follower's log does not have `prev`.
    Rejected {
        /// The index of that `prev`.
        index: LogIndex,
        /// Where to try: index and term in the follower's log.
        hint: (LogIndex, u64),
        /// What the follower knows to be committed.
        commit: LogIndex,
    },
    /// The follower has no state at all: it needs the leader's.
    WantsState,
    /// The leader is there.
    Heartbeat {
        /// Committed, as far as the follower is known to have it.
        commit: LogIndex,
    },
    /// The follower is there.
    HeartbeatAnswer {
        /// What the follower knows to be committed.
        commit: LogIndex,
    },
    /// A candidate asks for a vote.
    Vote {
        /// Only whether it would be given: a poll.
        is_poll: bool,
        /// The leader itself asked the candidate to take over: a follower that hears the leader still answers.
        is_transfer: bool,
        /// The end of the candidate's log.
        last: (LogIndex, u64),
        /// What the candidate knows to be committed.
        commit: (LogIndex, u64),
    },
    /// The answer to it.
    VoteAnswer {
        /// To a poll.
        is_poll: bool,
        /// Yes.
        is_granted: bool,
        /// With a no: what is known to be committed.
        commit: (LogIndex, u64),
    },
    /// The leader asks the follower to take over.
    TakeOver,
}

impl Message {
    /// A candidate's question that a follower should not hear while it hears its leader.
    pub fn disturbs(&self) -> bool {
        matches!(self.body, Body::Vote { is_transfer: false, .. })
    }

    /// Whether only who leads its term says this.
    pub fn leads(&self) -> bool {
        matches!(self.body, Body::Append { .. } | Body::Heartbeat { .. })
    }

    /// What a leader says to be committed becomes at most this.
    pub(crate) fn limit_commit(&mut self, limit: LogIndex) {
        if let Body::Append { commit, .. } | Body::Heartbeat { commit } = &mut self.body {
            *commit = limit.min(*commit);
        }
    }

    /// The bytes of the entries in it.
    pub fn body_bytes(&self) -> usize {
        match &self.body {
            Body::Append { entries, .. } => entries.iter().map(|entry| entry.body.len()).sum(),
            _ => 0,
        }
    }

    /// Appends its bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend([VERSION, self.kind()]);
        put(out, self.term);
        match &self.body {
            Body::Append { prev, commit, entries } => {
                put_pair(out, *prev);
                put(out, commit.0);
                put_entries(out, prev.1, entries);
            }
            Body::Accepted { index, commit } => {
                put(out, index.0);
                put(out, commit.0);
            }
            Body::Rejected { index, hint, commit } => {
                put(out, index.0);
                put_pair(out, *hint);
                put(out, commit.0);
            }
            Body::Heartbeat { commit } | Body::HeartbeatAnswer { commit } => put(out, commit.0),
            Body::Vote { is_poll, is_transfer, last, commit } => {
                out.extend([u8::from(*is_poll), u8::from(*is_transfer)]);
                put_pair(out, *last);
                put_pair(out, *commit);
            }
            Body::VoteAnswer { is_poll, is_granted, commit } => {
                out.extend([u8::from(*is_poll), u8::from(*is_granted)]);
                put_pair(out, *commit);
            }
            Body::WantsState | Body::TakeOver => {}
        }
    }

    /// Reads a message; the entries' bodies are parts of `bytes`. What it says is checked when a replica handles it.
    pub fn decode(bytes: Bytes) -> Result<Message, DecodeError> {
        let mut reader = Reader::new(bytes);
        match reader.byte()? {
            VERSION => {}
            other => return Err(DecodeError::Version(other)),
        }
        let kind = reader.byte()?;
        let term = reader.number()?;
        let reader = &mut reader;
        let body = match kind {
            1 => {
                let prev = pair(reader)?;
                let commit = index(reader)?;
                Body::Append { prev, commit, entries: entries(reader, prev)? }
            }
            2 => Body::Accepted { index: index(reader)?, commit: index(reader)? },
            3 => Body::Rejected { index: index(reader)?, hint: pair(reader)?, commit: index(reader)? },
            4 => Body::WantsState,
            5 => Body::Heartbeat { commit: index(reader)? },
            6 => Body::HeartbeatAnswer { commit: index(reader)? },
            7 => Body::Vote {
                is_poll: flag(reader)?,
                is_transfer: flag(reader)?,
                last: pair(reader)?,
                commit: pair(reader)?,
            },
            8 => {
                Body::VoteAnswer { is_poll: flag(reader)?, is_granted: flag(reader)?, commit: pair(reader)? }
            }
            9 => Body::TakeOver,
            other => return Err(DecodeError::Kind(other)),
        };
        reader.end()?;
        Ok(Message { term, body })
    }

    fn kind(&self) -> u8 {
        match self.body {
            Body::Append { .. } => 1,
            Body::Accepted { .. } => 2,
            Body::Rejected { .. } => 3,
            Body::WantsState => 4,
            Body::Heartbeat { .. } => 5,
            Body::HeartbeatAnswer { .. } => 6,
            Body::Vote { .. } => 7,
            Body::VoteAnswer { .. } => 8,
            Body::TakeOver => 9,
        }
    }
}

fn put_pair(out: &mut Vec<u8>, (index, term): (LogIndex, u64)) {
    put(out, index.0);
    put(out, term);
}

fn put_entries(out: &mut Vec<u8>, mut term: u64, entries: &[Entry]) {
    put(out, entries.len() as u64);
    for entry in entries {
        out.push(u8::from(entry.kind == EntryKind::Change));
        // Terms never fall along a log: the difference is small.
        put(out, entry.term.wrapping_sub(term));
        term = entry.term;
        put(out, entry.body.len() as u64);
        out.extend_from_slice(&entry.body);
    }
}

fn entries(reader: &mut Reader, (prev, mut term): (LogIndex, u64)) -> Result<Vec<Entry>, DecodeError> {
    // Kind, term and length take a byte each.
    let count = reader.count(3)?;
    let mut entries = Vec::with_capacity(count);
    for at in 1..=count as u64 {
        let kind = if flag(reader)? { EntryKind::Change } else { EntryKind::Batch };
        term = term.checked_add(reader.number()?).ok_or(DecodeError::Number)?;
        let index = prev.0.checked_add(at).map(LogIndex).ok_or(DecodeError::Number)?;
        entries.push(Entry { index, term, kind, body: reader.bytes()? });
    }
    Ok(entries)
}

fn index(reader: &mut Reader) -> Result<LogIndex, DecodeError> {
    reader.number().map(LogIndex)
}

fn pair(reader: &mut Reader) -> Result<(LogIndex, u64), DecodeError> {
    Ok((index(reader)?, reader.number()?))
}

fn flag(reader: &mut Reader) -> Result<bool, DecodeError> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(DecodeError::Kind(other)),
    }
}
