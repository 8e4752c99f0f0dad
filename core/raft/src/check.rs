//! What a peer's message must satisfy before the library sees it.
//!
//! The library trusts its peers: it panics on a commit after the end of its log, on a conflict with what is committed, on
//! numbers that overflow. A peer whose disk was wiped or whose bytes were damaged must not reach any of that.

use hw_kit::{LogIndex, NodeId};
use raft::{Raft, StateRole};

use crate::{
    entry::Entry,
    error::Refused,
    log::Log,
    message::{Body, Message},
    start::NUMBER_MAX,
};

/// Ok when the library can take it.
pub(crate) fn check(raft: &Raft<Log>, from: NodeId, message: &Message) -> Result<(), Refused> {
    if from == NodeId(0) || from.0 == raft.id {
        return Err(Refused::Sender(from));
    }
    if message.term == 0 || message.term > NUMBER_MAX {
        return Err(Refused::TermRange(message.term));
    }
    let is_member = raft.prs().get(from.0).is_some();
    match &message.body {
        Body::Append { prev, commit, entries } => {
            check_order(message.term, *prev, entries)?;
            range(*commit)?;
            check_leader(raft, from, message.term)?;
            check_committed(raft, message.term, *prev, entries)
        }
        Body::Heartbeat { commit } => {
            check_leader(raft, from, message.term)?;
            let last = LogIndex(raft.raft_log.last_index());
            // An old leader's heartbeat is only answered; a current leader's commits.
            if message.term >= raft.term && *commit > last {
                return Err(Refused::CommitAfterLog { commit: *commit, last });
            }
            Ok(())
        }
        Body::Vote { last, commit, .. } => {
            pair(*last)?;
            pair(*commit)?;
            // A candidate's log is older than the term it stands for.
            if last.1 >= message.term { Err(Refused::Order { index: last.0, term: last.1 }) } else { Ok(()) }
        }
        Body::TakeOver => {
            // Only the leader that is followed can give its leadership away; in another term the library does not mind.
            let is_asked = message.term < raft.term || raft.leader_id == from.0;
            if is_asked { Ok(()) } else { Err(Refused::Unasked(from)) }
        }
        _ if !is_member => Err(Refused::Stranger(from)),
        Body::Accepted { index, commit } => {
            range(*index)?;
            range(*commit)?;
            let last = LogIndex(raft.raft_log.last_index());
            if leads(raft, message.term) && *index > last {
                return Err(Refused::AckAfterLog { from, index: *index, last });
            }
            Ok(())
        }
        Body::Rejected { index, hint, commit } => {
            range(*index)?;
            range(*commit)?;
            if hint.0 > *index || hint.1 > message.term {
                return Err(Refused::Order { index: hint.0, term: hint.1 });
            }
            check_kept(raft, from, message.term, (*index, hint.0))
        }
        Body::WantsState => check_kept(raft, from, message.term, (LogIndex(NUMBER_MAX), LogIndex(0))),
        Body::HeartbeatAnswer { commit } => range(*commit),
        Body::VoteAnswer { commit, .. } => pair(*commit),
    }
}

fn leads(raft: &Raft<Log>, term: u64) -> bool {
    raft.state == StateRole::Leader && raft.term == term
}

fn range(index: LogIndex) -> Result<(), Refused> {
    if index.0 > NUMBER_MAX { Err(Refused::IndexRange(index)) } else { Ok(()) }
}

fn pair((index, term): (LogIndex, u64)) -> Result<(), Refused> {
    range(index)?;
    if term > NUMBER_MAX { Err(Refused::TermRange(term)) } else { Ok(()) }
}

/// Entries follow `prev` without gaps, terms do not fall, and none is above the message's.
fn check_order(term: u64, prev: (LogIndex, u64), entries: &[Entry]) -> Result<(), Refused> {
    range(prev.0)?;
    range(LogIndex(prev.0.0.saturating_add(entries.len() as u64)))?;
    if (prev.0 == LogIndex(0)) != (prev.1 == 0) || prev.1 > term {
        return Err(Refused::Order { index: prev.0, term: prev.1 });
    }
    let (mut index, mut before) = prev;
    for entry in entries {
        if entry.index != index.next() || entry.term < before.max(1) || entry.term > term {
            return Err(Refused::Order { index: entry.index, term: entry.term });
        }
        (index, before) = (entry.index, entry.term);
    }
    Ok(())
}

/// A term has one leader.
fn check_leader(raft: &Raft<Log>, from: NodeId, term: u64) -> Result<(), Refused> {
    let is_other = raft.leader_id != 0 && raft.leader_id != from.0;
    if term == raft.term && is_other {
        return Err(Refused::TwoLeaders { term, leader: NodeId(raft.leader_id), from });
    }
    Ok(())
}

/// What is committed here is in the log of every leader from now on.
fn check_committed(
    raft: &Raft<Log>,
    term: u64,
    prev: (LogIndex, u64),
    entries: &[Entry],
) -> Result<(), Refused> {
    if term < raft.term {
        return Ok(());
    }
    let committed = raft.raft_log.committed;
    let theirs = std::iter::once(prev).chain(entries.iter().map(|entry| (entry.index, entry.term)));
    for (index, theirs) in theirs.take_while(|(index, _)| index.0 <= committed) {
        // Before the base, nothing is known but that it was the same.
        let is_known = index.0 + 1 >= raft.raft_log.first_index();
        match raft.raft_log.term(index.0) {
            Ok(ours) if is_known && ours != theirs => {
                return Err(Refused::Conflict { index, ours, theirs });
            }
            _ => {}
        }
    }
    Ok(())
}

/// What a follower acknowledged in this term it has for good. A `rejected` index at or below that is an old answer, which
/// the library knows to ignore.
fn check_kept(
    raft: &Raft<Log>,
    from: NodeId,
    term: u64,
    (rejected, last): (LogIndex, LogIndex),
) -> Result<(), Refused> {
    let matched = raft.prs().get(from.0).map_or(0, |progress| progress.matched);
    if leads(raft, term) && rejected.0 > matched && last.0 < matched {
        return Err(Refused::LostLog { from, matched: LogIndex(matched), last });
    }
    Ok(())
}
