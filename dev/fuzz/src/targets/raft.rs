//! Messages of a group's members to a replica that has a log, follows, leads, or has nothing yet.

use bytes::{Buf, Bytes};
use hw_kit::{GroupId, LogIndex, NodeId};
use hw_raft::{
    Body, Entry, EntryKind, Hard, MemberChange, MemberStep, Members, Message, Ready, Replica, Settings, Start,
};

const OWN: NodeId = NodeId(2);

/// A first byte that says which replica; then pieces: who or what, length, bytes.
pub(super) fn corpus() -> Vec<Vec<u8>> {
    let entry = |index, kind, body: &'static [u8]| Entry {
        index: LogIndex(index),
        term: 4,
        kind,
        body: Bytes::from_static(body),
    };
    let entries =
        vec![entry(15, EntryKind::Batch, b"abc"), entry(16, EntryKind::Change, b"\x01\x00\x01\x02\x04")];
    let at = |index, term| (LogIndex(index), term);
    let (is_poll, is_granted) = (false, true);
    let bodies = [
        Body::Append { prev: at(14, 3), commit: LogIndex(16), entries },
        Body::Append { prev: at(12, 1), commit: LogIndex(13), entries: vec![] },
        Body::Accepted { index: LogIndex(15), commit: LogIndex(14) },
        Body::Rejected { index: LogIndex(14), hint: at(11, 1), commit: LogIndex(10) },
        Body::WantsState,
        Body::Heartbeat { commit: LogIndex(13) },
        Body::HeartbeatAnswer { commit: LogIndex(13) },
        Body::Vote { is_poll, is_transfer: true, last: at(14, 3), commit: at(12, 1) },
        Body::VoteAnswer { is_poll: true, is_granted, commit: at(0, 0) },
        Body::VoteAnswer { is_poll, is_granted, commit: at(0, 0) },
        Body::TakeOver,
    ];
    let piece = |what: u8, body: &Body| {
        let mut bytes = vec![what, 0];
        Message { term: 4, body: body.clone() }.encode(&mut bytes);
        bytes[1] = (bytes.len() - 2) as u8;
        bytes
    };
    let campaign = [100, 0];
    let answers = [piece(1, &bodies[8]), piece(1, &bodies[9])].concat();
    let mut corpus = Vec::new();
    for which in 0..3 {
        for body in &bodies {
            corpus.push([&[which][..], &piece(1, body), &piece(3, &bodies[0])].concat());
            // The same to a leader.
            corpus.push([&[which][..], &campaign, &answers, &piece(3, body)].concat());
        }
    }
    corpus
}

/// Nothing that can be read panics a replica, whatever its caller does in between.
pub fn fuzz_raft(data: &[u8]) {
    let mut data = Bytes::copy_from_slice(data);
    if data.is_empty() {
        return;
    }
    let mut replica = replica(data.get_u8());
    settle(&mut replica);
    while data.len() >= 2 {
        let what = data.get_u8();
        let len = usize::from(data.get_u8()).min(data.len());
        let bytes = data.split_to(len);
        if what < 100 {
            if let Ok(message) = Message::decode(bytes) {
                let _ = replica.handle_message(NodeId(u64::from(what % 5)), message);
            }
        } else {
            act(&mut replica, what, len as u64);
        }
        // Some do not get to their work between two messages.
        if !what.is_multiple_of(3) {
            settle(&mut replica);
        }
    }
}

fn three() -> Members {
    Members::voting((1..=3).map(NodeId))
}

fn replica(which: u8) -> Replica {
    let entry = |index: u64, term| Entry {
        index: LogIndex(index),
        term,
        kind: EntryKind::Batch,
        body: Bytes::from_static(b"x"),
    };
    let full = Start {
        hard: Hard { term: 3, vote: NodeId(0), commit: LogIndex(12) },
        members: three(),
        base: (LogIndex(10), 1),
        applied: LogIndex(10),
        entries: vec![entry(11, 1), entry(12, 1), entry(13, 2), entry(14, 3)],
    };
    let start = match which % 3 {
        0 => full,
        1 => Start { members: Members::voting([OWN]), ..full },
        _ => Start::default(),
    };
    Replica::new(Settings::new(OWN, GroupId(1)), start).expect("a start that can be")
}

fn act(replica: &mut Replica, what: u8, number: u64) {
    let node = NodeId(number % 5);
    match what % 10 {
        0 => drop(replica.campaign()),
        1 => replica.ping(),
        2 => replica.handle_unreachable(node),
        3 => drop(replica.propose(Bytes::from_static(b"y"))),
        4 => replica.report_snapshot(node, what > 200),
        5 => drop(replica.compact(LogIndex(number))),
        6 => drop(replica.install((LogIndex(number), 1 + number % 4), three())),
        7 => drop(replica.change_members(MemberChange::one(MemberStep::Remove(node)))),
        8 => drop(replica.transfer(node)),
        _ => replica.step_down(),
    }
}

fn settle(replica: &mut Replica) {
    let mut ready = Ready::default();
    while replica.ready(&mut ready) {
        replica.handle_persisted(ready.number).expect("a number that was given");
        for entry in &ready.committed {
            if entry.kind == EntryKind::Change {
                // A body that cannot be read takes the replica out of service.
                if replica.apply_change(entry).is_err() {
                    return;
                }
            }
            replica.handle_applied(entry.index).expect("what was given");
        }
    }
}
