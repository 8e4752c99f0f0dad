//! Messages that no honest peer sends, and starts that no disk should give: refused by name, and nobody panics.

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, NodeId, Rng};

use crate::{
    Body, Entry, EntryKind, Hard, MemberChange, MemberStep, Members, MembersError, Message, Ready, Refused,
    Replica, Settings, Start, StartError,
};

fn settings(node: u64) -> Settings {
    Settings { max_append_bytes: 50, max_inflight: 2, ..Settings::new(NodeId(node), GroupId(1)) }
}

fn entry(index: u64, term: u64) -> Entry {
    let body = Bytes::from_static(b"x");
    Entry { index: LogIndex(index), term, kind: EntryKind::Batch, body }
}

fn three() -> Members {
    Members::voting((1..=3).map(NodeId))
}

/// A follower in term 3 with entries of terms 1, 1, 2, 3 after a base of (10, 1), of which 12 are committed.
fn start() -> Start {
    Start {
        hard: Hard { term: 3, vote: NodeId(0), commit: LogIndex(12) },
        members: three(),
        base: (LogIndex(10), 1),
        applied: LogIndex(10),
        entries: vec![entry(11, 1), entry(12, 1), entry(13, 2), entry(14, 3)],
    }
}

fn follower() -> Replica {
    Replica::new(settings(2), start()).unwrap()
}

/// Leads term 4, and knows that node 2 has everything.
fn leader() -> Replica {
    let mut replica = Replica::new(settings(1), start()).unwrap();
    replica.campaign();
    settle(&mut replica);
    for is_poll in [true, false] {
        let answer = Body::VoteAnswer { is_poll, is_granted: true, commit: (LogIndex(0), 0) };
        replica.handle_message(NodeId(2), Message { term: 4, body: answer }).unwrap();
        settle(&mut replica);
    }
    assert!(replica.is_leader());
    let accepted = Body::Accepted { index: LogIndex(15), commit: LogIndex(12) };
    replica.handle_message(NodeId(2), Message { term: 4, body: accepted }).unwrap();
    settle(&mut replica);
    replica
}

fn settle(replica: &mut Replica) {
    let mut ready = Ready::default();
    while replica.ready(&mut ready) {
        replica.handle_persisted(ready.number).unwrap();
        for entry in &ready.committed {
            if entry.kind == EntryKind::Change {
                let _ = replica.apply_change(entry);
            }
            let _ = replica.handle_applied(entry.index);
        }
    }
}

#[test]
fn followers_refuse_by_name() {
    let append = |prev: (u64, u64), commit, entries| Body::Append {
        prev: (LogIndex(prev.0), prev.1),
        commit: LogIndex(commit),
        entries,
    };
    let vote = |last: (u64, u64)| Body::Vote {
        is_poll: false,
        is_transfer: false,
        last: (LogIndex(last.0), last.1),
        commit: (LogIndex(0), 0),
    };
    for (from, term, body, why) in [
        (0, 4, Body::TakeOver, "node 0 cannot be the sender"),
        (2, 4, Body::TakeOver, "node 2 cannot be the sender"),
        (1, 0, Body::TakeOver, "term 0 is out of range"),
        (1, u64::MAX, vote((20, 3)), "term 18446744073709551615 is out of range"),
        (1, 4, vote((u64::MAX, 3)), "index 18446744073709551615 is out of range"),
        (1, 4, vote((20, 4)), "entry 20 of term 4 is out of order"),
        (1, 3, Body::TakeOver, "nothing of this kind was asked of 1"),
        (1, 4, Body::Heartbeat { commit: LogIndex(15) }, "the leader commits 15, the log ends at 14"),
        (1, 4, append((14, 3), 0, vec![entry(16, 4)]), "entry 16 of term 4 is out of order"),
        (1, 4, append((14, 3), 0, vec![entry(15, 2)]), "entry 15 of term 2 is out of order"),
        (1, 4, append((14, 3), 0, vec![entry(15, 5)]), "entry 15 of term 5 is out of order"),
        (1, 4, append((0, 3), 0, vec![]), "entry 0 of term 3 is out of order"),
        (1, 4, append((14, 0), 0, vec![]), "entry 14 of term 0 is out of order"),
        (1, 4, append((1 << 62, 3), 0, vec![entry(1, 4)]), "index 4611686018427387905 is out of range"),
        (1, 4, append((12, 2), 0, vec![]), "index 12 is committed with term 1, the leader has term 2"),
        (
            1,
            4,
            append((10, 1), 0, vec![entry(11, 2)]),
            "index 11 is committed with term 1, the leader has term 2",
        ),
        (4, 3, Body::HeartbeatAnswer { commit: LogIndex(0) }, "4 is not a member"),
        (4, 3, Body::WantsState, "4 is not a member"),
    ] {
        let mut replica = follower();
        settle(&mut replica);
        let text = format!("{body:?}");
        let refused = replica.handle_message(NodeId(from), Message { term, body }).unwrap_err();
        assert_eq!(refused.to_string(), why, "{text}");
        assert!(!replica.ready(&mut Ready::default()), "{text} changed something");
    }
}

#[test]
fn a_follower_has_one_leader_a_term() {
    let mut replica = follower();
    let heartbeat = || Message { term: 4, body: Body::Heartbeat { commit: LogIndex(0) } };
    replica.handle_message(NodeId(1), heartbeat()).unwrap();
    let refused = replica.handle_message(NodeId(3), heartbeat());
    assert_eq!(refused, Err(Refused::TwoLeaders { term: 4, leader: NodeId(1), from: NodeId(3) }));
}

#[test]
fn leaders_refuse_by_name() {
    let rejected = |index, hint: (u64, u64)| Body::Rejected {
        index: LogIndex(index),
        hint: (LogIndex(hint.0), hint.1),
        commit: LogIndex(0),
    };
    for (term, body, why) in [
        (
            4,
            Body::Accepted { index: LogIndex(16), commit: LogIndex(0) },
            "2 acknowledges 16, the log ends at 15",
        ),
        (4, rejected(16, (5, 1)), "2 acknowledged 15, and its log ends at 5 now"),
        (4, Body::WantsState, "2 acknowledged 15, and its log ends at 0 now"),
        (4, rejected(3, (5, 1)), "entry 5 of term 1 is out of order"),
        (4, rejected(16, (u64::MAX, 1)), "entry 18446744073709551615 of term 1 is out of order"),
        (4, Body::Heartbeat { commit: LogIndex(0) }, "2 says that it leads term 4, which 1 leads"),
    ] {
        let mut replica = leader();
        let text = format!("{body:?}");
        let refused = replica.handle_message(NodeId(2), Message { term, body }).unwrap_err();
        assert_eq!(refused.to_string(), why, "{text}");
        assert!(replica.is_leader());
    }
}

#[test]
fn a_vote_that_was_not_asked_for_yet_elects_nobody() {
    let mut replica = Replica::new(settings(1), start()).unwrap();
    replica.campaign();
    let granted = |is_poll| Message {
        term: 4,
        body: Body::VoteAnswer { is_poll, is_granted: true, commit: (LogIndex(0), 0) },
    };
    // An old answer to a poll may come; then the vote is for itself, not durable, and has asked nobody.
    replica.handle_message(NodeId(2), granted(true)).unwrap();
    let mut ready = Ready::default();
    assert!(replica.ready(&mut ready));
    assert_eq!(replica.handle_message(NodeId(2), granted(false)), Err(Refused::Unasked(NodeId(2))));
    assert!(ready.messages.is_empty());
    assert_eq!(ready.after.len(), 2 + 2);
    replica.handle_persisted(ready.number).unwrap();
    replica.handle_message(NodeId(2), granted(false)).unwrap();
    assert!(replica.is_leader());
}

#[test]
fn impossible_starts_have_names() {
    type Spoil = fn(&mut Start);
    let cases: [(Spoil, &str); 14] = [
        (|start| start.hard = Hard { term: 0, vote: NodeId(1), ..start.hard }, "term 0, vote 1"),
        (|start| start.hard.term = u64::MAX, "term 18446744073709551615, vote 0"),
        (|start| start.base = (LogIndex(10), 0), "the log begins after index 10 of term 0"),
        (|start| start.base = (LogIndex(0), 1), "the log begins after index 0 of term 1"),
        (|start| start.members = Members::default(), "there are no members, but a log or an applied state"),
        (|start| start.members.voters.clear(), "there are no members, but a log or an applied state"),
        (|start| start.members.learners.push(NodeId(1)), "members: 1 is named twice"),
        (|start| start.members.voters.push(NodeId(0)), "members: node 0 is named"),
        (|start| start.applied = LogIndex(9), "applied 9 is before the log, which begins after 10"),
        (|start| start.applied = LogIndex(15), "applied 15 is after the end of the log, 14"),
        (|start| start.hard.commit = LogIndex(15), "commit 15 is after the end of the log, 14"),
        (|start| drop(start.entries.remove(1)), "entry 13 where 12 belongs"),
        (|start| start.entries[3].term = 1, "entry 14 has term 1 after 2"),
        (|start| start.entries[3].term = u64::MAX, "entry 14 has term 18446744073709551615 after 2"),
    ];
    for (spoil, why) in cases {
        let mut start = start();
        spoil(&mut start);
        assert_eq!(Replica::new(settings(2), start).err().unwrap().to_string(), why);
    }
    assert_eq!(Replica::new(settings(0), start()).err(), Some(StartError::NoNode));
    let limits = Settings { max_inflight: 0, ..settings(2) };
    assert_eq!(Replica::new(limits, start()).err(), Some(StartError::NoLimit));
}

/// Entries reached the disk, the term that came with them did not: nothing was said in it.
#[test]
fn a_torn_write_starts_in_the_term_of_its_entries() {
    let mut start = start();
    start.hard = Hard { term: 2, vote: NodeId(3), commit: LogIndex(10) };
    let mut replica = Replica::new(settings(2), start).unwrap();
    let mut ready = Ready::default();
    assert!(replica.ready(&mut ready));
    assert_eq!(ready.hard, Some(Hard { term: 3, vote: NodeId(0), commit: LogIndex(10) }));
}

#[test]
fn members_that_cannot_be() {
    let nodes = |ids: &[u64]| ids.iter().copied().map(NodeId).collect::<Vec<_>>();
    let half = Members { learners_next: nodes(&[4]), ..three() };
    assert_eq!(half.check(), Err(MembersError::Half));
    let half = Members { auto_leave: true, ..three() };
    assert_eq!(half.check(), Err(MembersError::Half));
    let twice = Members { outgoing: nodes(&[4]), learners: nodes(&[4]), ..three() };
    assert_eq!(twice.check(), Err(MembersError::Twice(NodeId(4))));
    assert_eq!(Members::default().check(), Err(MembersError::NoVoters));
    let joint = Members { outgoing: nodes(&[3, 4]), learners_next: nodes(&[4]), auto_leave: true, ..three() };
    assert_eq!(joint.check(), Ok(()));
}

/// Whatever a disk may give: refused, or a replica that works.
#[test]
fn no_start_panics() {
    let mut started = 0;
    for seed in 0..20_000 {
        let mut rng = Rng::new(seed);
        let rng = &mut rng;
        let few = |rng: &mut Rng| if rng.chance(1, 10) { number(rng) } else { rng.below(4) };
        let nodes = |rng: &mut Rng, most: u64| -> Vec<NodeId> {
            let mut nodes: Vec<NodeId> = (0..rng.below(most)).map(|_| NodeId(few(rng))).collect();
            nodes.sort_unstable();
            nodes
        };
        let base = if rng.chance(1, 3) { (LogIndex(0), 0) } else { (LogIndex(few(rng)), few(rng)) };
        let mut entries = Vec::new();
        let mut term = base.1;
        for at in 0..rng.below(5) {
            term = term.wrapping_add(rng.below(2));
            let gap = u64::from(rng.chance(1, 30));
            entries.push(entry(base.0.0.wrapping_add(at + 1 + gap), term));
        }
        let start = Start {
            hard: Hard { term: few(rng), vote: NodeId(few(rng)), commit: LogIndex(few(rng)) },
            members: Members {
                voters: nodes(rng, 4),
                learners: nodes(rng, 2),
                outgoing: nodes(rng, 3),
                learners_next: nodes(rng, 2),
                auto_leave: rng.chance(1, 3),
            },
            base,
            applied: LogIndex(base.0.0.wrapping_add(rng.below(3))),
            entries,
        };
        let Ok(mut replica) = Replica::new(settings(2), start) else { continue };
        started += 1;
        settle(&mut replica);
        replica.campaign();
        settle(&mut replica);
    }
    assert!(started > 200, "{started} started");
}

/// A number that is likely to be near one that matters.
fn number(rng: &mut Rng) -> u64 {
    match rng.below(12) {
        0 => [0, 1, u64::MAX, u64::MAX - 1, 1 << 62, (1 << 62) + 1, i64::MAX as u64][rng.below(7) as usize],
        1..4 => 8 + rng.below(10),
        4..7 => rng.below(6),
        _ => 9 + rng.below(8),
    }
}

fn any_body(rng: &mut Rng) -> Body {
    let index = |rng: &mut Rng| LogIndex(number(rng));
    let pair =
        |rng: &mut Rng| (LogIndex(number(rng)), if rng.chance(1, 9) { number(rng) } else { rng.below(5) });
    match rng.below(10) {
        0..3 => {
            let prev = pair(rng);
            let (mut at, mut term) = prev;
            let mut entries = Vec::new();
            for _ in 0..rng.below(4) {
                at = LogIndex(at.0.wrapping_add(if rng.chance(1, 20) { 2 } else { 1 }));
                term = term.wrapping_add(rng.below(2));
                let kind = if rng.chance(1, 6) { EntryKind::Change } else { EntryKind::Batch };
                let mut body = Vec::new();
                if rng.chance(1, 2) {
                    let node = NodeId(rng.below(5));
                    let step = [MemberStep::Learner(node), MemberStep::Remove(node), MemberStep::Voter(node)];
                    MemberChange::one(step[rng.below(3) as usize]).encode(rng.chance(1, 2), &mut body);
                }
                entries.push(Entry { index: at, term, kind, body: body.into() });
            }
            Body::Append { prev, commit: index(rng), entries }
        }
        3 => Body::Accepted { index: index(rng), commit: index(rng) },
        4 => Body::Rejected { index: index(rng), hint: pair(rng), commit: index(rng) },
        5 => Body::WantsState,
        6 => Body::Heartbeat { commit: index(rng) },
        7 => Body::Vote {
            is_poll: rng.chance(1, 2),
            is_transfer: rng.chance(1, 2),
            last: pair(rng),
            commit: pair(rng),
        },
        8 => Body::VoteAnswer { is_poll: rng.chance(1, 2), is_granted: rng.chance(2, 3), commit: pair(rng) },
        _ if rng.chance(1, 2) => Body::TakeOver,
        _ => Body::HeartbeatAnswer { commit: index(rng) },
    }
}

/// Whatever peers say, in whatever order, with whatever is done in between.
#[test]
fn no_message_panics_a_replica() {
    let mut taken = 0;
    for seed in 0..3000 {
        let mut rng = Rng::new(seed);
        let mut replica = match seed % 4 {
            0 => leader(),
            1 => follower(),
            2 => Replica::new(settings(2), Start::default()).unwrap(),
            _ => {
                let mut alone = start();
                alone.members = Members::voting([NodeId(2)]);
                Replica::new(settings(2), alone).unwrap()
            }
        };
        for _ in 0..40 {
            let term = if rng.chance(1, 20) { number(&mut rng) } else { 3 + rng.below(4) };
            let message = Message { term, body: any_body(&mut rng) };
            taken += u64::from(replica.handle_message(NodeId(rng.below(5)), message).is_ok());
            match rng.below(12) {
                0 => drop(replica.campaign()),
                1 => replica.ping(),
                2 => replica.handle_unreachable(NodeId(rng.below(4))),
                3 => drop(replica.propose(Bytes::from_static(b"y"))),
                4 => replica.report_snapshot(NodeId(rng.below(4)), rng.chance(1, 2)),
                5 => drop(replica.compact(LogIndex(number(&mut rng)))),
                6 => drop(replica.install((LogIndex(number(&mut rng)), 1 + rng.below(4)), three())),
                7 => {
                    let step = MemberStep::Remove(NodeId(1 + rng.below(3)));
                    drop(replica.change_members(MemberChange::one(step)));
                }
                8 => drop(replica.transfer(NodeId(rng.below(4)))),
                _ => settle(&mut replica),
            }
        }
    }
    // Runs in which all is refused would show nothing.
    assert!(taken > 20_000, "{taken} messages were taken");
}
