//! Between our messages and entries and the library's.

use bytes::Bytes;
use hw_kit::{LogIndex, NodeId};
use raft::{
    CAMPAIGN_TRANSFER,
    eraftpb::{Entry as RaftEntry, EntryType, Message as RaftMessage, MessageType},
};

use crate::{
    entry::{Entry, EntryKind},
    message::{Body, Message},
};

pub(crate) fn entry_to_library(entry: Entry) -> RaftEntry {
    let mut out =
        RaftEntry { index: entry.index.0, term: entry.term, data: entry.body, ..RaftEntry::default() };
    if entry.kind == EntryKind::Change {
        out.set_entry_type(EntryType::EntryConfChangeV2);
    }
    out
}

pub(crate) fn entry_from_library(entry: RaftEntry) -> Entry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => EntryKind::Batch,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryKind::Change,
    };
    Entry { index: LogIndex(entry.index), term: entry.term, kind, body: entry.data }
}

/// A message that came, as the library takes it. None: it has nothing of the kind.
pub(crate) fn message_to_library(from: NodeId, to: NodeId, message: Message) -> Option<RaftMessage> {
    let mut out = RaftMessage { from: from.0, to: to.0, term: message.term, ..RaftMessage::default() };
    let kind = match message.body {
        Body::Append { prev, commit, entries } => {
            (out.index, out.log_term, out.commit) = (prev.0.0, prev.1, commit.0);
            let entries: Vec<RaftEntry> = entries.into_iter().map(entry_to_library).collect();
            out.set_entries(entries.into());
            MessageType::MsgAppend
        }
        Body::Accepted { index, commit } => {
            (out.index, out.commit) = (index.0, commit.0);
            MessageType::MsgAppendResponse
        }
        Body::Rejected { index, hint, commit } => {
            out.reject = true;
            (out.index, out.reject_hint, out.log_term) = (index.0, hint.0.0, hint.1);
            out.commit = commit.0;
            MessageType::MsgAppendResponse
        }
        Body::Heartbeat { commit } => {
            out.commit = commit.0;
            MessageType::MsgHeartbeat
        }
        Body::HeartbeatAnswer { commit } => {
            out.commit = commit.0;
            MessageType::MsgHeartbeatResponse
        }
        Body::Vote { is_poll, is_transfer, last, commit } => {
            (out.index, out.log_term) = (last.0.0, last.1);
            (out.commit, out.commit_term) = (commit.0.0, commit.1);
            if is_transfer {
                out.context = Bytes::from_static(CAMPAIGN_TRANSFER);
            }
            if is_poll { MessageType::MsgRequestPreVote } else { MessageType::MsgRequestVote }
        }
        Body::VoteAnswer { is_poll, is_granted, commit } => {
            out.reject = !is_granted;
            (out.commit, out.commit_term) = (commit.0.0, commit.1);
            if is_poll { MessageType::MsgRequestPreVoteResponse } else { MessageType::MsgRequestVoteResponse }
        }
        Body::TakeOver => MessageType::MsgTimeoutNow,
        Body::WantsState => return None,
    };
    out.set_msg_type(kind);
    Some(out)
}

/// A message that is to leave. None: of a kind that peers never send each other here.
pub(crate) fn message_from_library(mut message: RaftMessage) -> Option<(NodeId, Message)> {
    let commit = LogIndex(message.commit);
    let commit_pair = (commit, message.commit_term);
    let body = match message.get_msg_type() {
        MessageType::MsgAppend => {
            let entries = message.take_entries().into_iter().map(entry_from_library).collect();
            Body::Append { prev: (LogIndex(message.index), message.log_term), commit, entries }
        }
        // The mark of a replica without any state: see `wants_state`.
        MessageType::MsgAppendResponse if message.request_snapshot != 0 => Body::WantsState,
        MessageType::MsgAppendResponse if message.reject => Body::Rejected {
            index: LogIndex(message.index),
            hint: (LogIndex(message.reject_hint), message.log_term),
            commit,
        },
        MessageType::MsgAppendResponse => Body::Accepted { index: LogIndex(message.index), commit },
        MessageType::MsgHeartbeat => Body::Heartbeat { commit },
        MessageType::MsgHeartbeatResponse => Body::HeartbeatAnswer { commit },
        kind @ (MessageType::MsgRequestVote | MessageType::MsgRequestPreVote) => Body::Vote {
            is_poll: kind == MessageType::MsgRequestPreVote,
            is_transfer: message.context == CAMPAIGN_TRANSFER,
            last: (LogIndex(message.index), message.log_term),
            commit: commit_pair,
        },
        kind @ (MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse) => {
            Body::VoteAnswer {
                is_poll: kind == MessageType::MsgRequestPreVoteResponse,
                is_granted: !message.reject,
                commit: commit_pair,
            }
        }
        MessageType::MsgTimeoutNow => Body::TakeOver,
        _ => return None,
    };
    Some((NodeId(message.to), Message { term: message.term, body }))
}

/// A follower's answer in the library's form: accepted up to `index`.
pub(crate) fn accepted(from: u64, to: u64, term: u64, index: u64) -> RaftMessage {
    let mut out = RaftMessage::default();
    out.set_msg_type(MessageType::MsgAppendResponse);
    (out.from, out.to, out.term, out.index, out.commit) = (from, to, term, index, index);
    out
}

/// The answer of a replica that has no state at all.
pub(crate) fn wants_state(from: u64, to: u64, term: u64) -> RaftMessage {
    let mut out = accepted(from, to, term, 0);
    out.reject = true;
    out.request_snapshot = 1;
    out
}
