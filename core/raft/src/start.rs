//! From what was durable to a library that runs: every impossible start is refused by name.

use hw_kit::{LogIndex, NodeId};
use raft::{Config, NO_LIMIT, Raft, RaftState, eraftpb::HardState};

use crate::{
    entry::{EntryKind, Hard, Settings, Start},
    error::StartError,
    log::Log,
};

/// Terms and indexes end here: far from where counting on would overflow.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

/// No clock ever ticks for the library: what it draws as its election timeout is this, always, and means nothing.
const ELECTION_TICKS: usize = 1 << 30;

/// The library on its way, with the term and vote that are durable.
pub(crate) fn start(settings: &Settings, start: Start) -> Result<Raft<Log>, StartError> {
    check(settings, &start)?;
    let hard = hard_state(&start);
    let initial = RaftState::new(hard, (&start.members).into());
    let mut log = Log::new(start.base, initial);
    start.entries.iter().for_each(|entry| log.append(entry));
    let config = Config {
        id: settings.node.0,
        election_tick: ELECTION_TICKS,
        min_election_tick: ELECTION_TICKS,
        // The range has one value, so that the draw is no draw.
        max_election_tick: ELECTION_TICKS + 1,
        heartbeat_tick: 1,
        applied: start.applied.0,
        max_size_per_msg: settings.max_append_bytes,
        max_inflight_msgs: settings.max_inflight,
        pre_vote: true,
        check_quorum: false,
        max_uncommitted_size: NO_LIMIT,
        skip_bcast_commit: !settings.is_prompt,
        ..Config::default()
    };
    let logger = slog::Logger::root(slog::Discard, slog::o!());
    let mut raft =
        Raft::new(&config, log, &logger).map_err(|error| StartError::Library(error.to_string()))?;
    raft.maybe_free_inflight_buffers();
    Ok(raft)
}

fn hard_state(start: &Start) -> HardState {
    let mut hard = HardState::default();
    // Entries may have reached the disk without the term that came with them. Then nothing was said in that term, no vote given.
    let heard = start.entries.last().map_or(start.base.1, |entry| entry.term);
    if heard > start.hard.term {
        hard.term = heard;
    } else {
        (hard.term, hard.vote) = (start.hard.term, start.hard.vote.0);
    }
    // What is applied was committed, whether or not that was written down.
    let known = start.hard.commit.max(start.applied).max(start.base.0);
    hard.commit = known.max(changed(start)).0;
    hard
}

/// A change of the members is proposed only when the one before it is applied: all changes in a log but the last are committed.
///
/// Safety hangs on this. Who has the end of a change in its log must not stand for election among the members from before it, whose
/// majority may know nothing of what the new members committed since; and a replica that forgot its commit in a crash would.
fn changed(start: &Start) -> LogIndex {
    let mut changes = start.entries.iter().rev().filter(|entry| entry.kind == EntryKind::Change);
    changes.nth(1).map_or(LogIndex(0), |entry| entry.index)
}

fn check(settings: &Settings, start: &Start) -> Result<(), StartError> {
    if settings.node == NodeId(0) {
        return Err(StartError::NoNode);
    }
    if settings.max_append_bytes == 0 || settings.max_inflight == 0 || settings.max_apply_bytes == 0 {
        return Err(StartError::NoLimit);
    }
    let Hard { term, vote, commit } = start.hard;
    if term > NUMBER_MAX || (term == 0 && vote != NodeId(0)) {
        return Err(StartError::Vote { term, vote });
    }
    let (base, base_term) = start.base;
    if (base == LogIndex(0)) != (base_term == 0) || base.0 > NUMBER_MAX || base_term > NUMBER_MAX {
        return Err(StartError::Base(base, base_term));
    }
    if start.members.is_empty() {
        let is_blank = base == LogIndex(0)
            && start.entries.is_empty()
            && start.applied == LogIndex(0)
            && commit == LogIndex(0);
        return if is_blank { Ok(()) } else { Err(StartError::NoMembers) };
    }
    start.members.check()?;
    let last = check_entries(start)?;
    if start.applied < base {
        return Err(StartError::AppliedBeforeLog { applied: start.applied, base });
    }
    if start.applied > last {
        return Err(StartError::AppliedAfterLog { applied: start.applied, last });
    }
    if commit > last {
        return Err(StartError::CommitAfterLog { commit, last });
    }
    Ok(())
}

/// The log's last index.
fn check_entries(start: &Start) -> Result<LogIndex, StartError> {
    let (mut last, mut before) = start.base;
    for entry in &start.entries {
        if entry.index != last.next() {
            return Err(StartError::Gap { expected: last.next(), found: entry.index });
        }
        if entry.term < before.max(1) || entry.term > NUMBER_MAX {
            return Err(StartError::Term { index: entry.index, term: entry.term, before });
        }
        (last, before) = (entry.index, entry.term);
    }
    Ok(last)
}
