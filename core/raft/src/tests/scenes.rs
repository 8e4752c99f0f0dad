//! Scenes with a plot: members that change, states that come, leadership that is handed over, writes that are slow.

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, NodeId};

use super::sim::Planted;
use crate::{
    Body, ChangeError, Entry, EntryKind, Hard, InstallError, MemberChange, MemberStep, Members, Message,
    Misuse, PeerState, Ready, Replica, Role, Settings, Start,
};

fn node(id: u64) -> NodeId {
    NodeId(id)
}

fn voters(ids: &[u64]) -> Members {
    Members::voting(ids.iter().copied().map(NodeId))
}

fn new(id: u64, start: Start) -> Replica {
    Replica::new(Settings::new(node(id), GroupId(1)), start).unwrap()
}

fn fresh(id: u64, members: &Members) -> Replica {
    new(id, Start { members: members.clone(), ..Start::default() })
}

fn entry(index: u64, term: u64, body: &'static str) -> Entry {
    Entry { index: LogIndex(index), term, kind: EntryKind::Batch, body: Bytes::from_static(body.as_bytes()) }
}

/// A log of the first term, all applied.
fn old(members: &Members, last: u64) -> Start {
    Start {
        hard: Hard { term: 1, vote: node(0), commit: LogIndex(last) },
        members: members.clone(),
        applied: LogIndex(last),
        entries: (1..=last).map(|index| entry(index, 1, "old")).collect(),
        ..Start::default()
    }
}

/// Nodes on perfect links, and who is cut off from them.
struct Stage {
    nodes: Vec<(NodeId, Replica)>,
    cut: Vec<NodeId>,
    wants: Vec<NodeId>,
    /// Whose disk does not say what is durable, and the last number that it should.
    slow: Option<(NodeId, u64)>,
}

impl Stage {
    fn new(replicas: impl IntoIterator<Item = (u64, Replica)>) -> Stage {
        let nodes = replicas.into_iter().map(|(id, replica)| (node(id), replica)).collect();
        Stage { nodes, cut: Vec::new(), wants: Vec::new(), slow: None }
    }

    fn at(&mut self, id: u64) -> &mut Replica {
        &mut self.nodes.iter_mut().find(|(other, _)| *other == node(id)).unwrap().1
    }

    /// Until nothing happens any more.
    fn play(&mut self) {
        let mut ready = Ready::default();
        loop {
            let mut mail = Vec::new();
            for (id, replica) in &mut self.nodes {
                while replica.ready(&mut ready) {
                    match &mut self.slow {
                        Some((slow, number)) if slow == id => *number = ready.number,
                        _ => replica.handle_persisted(ready.number).unwrap(),
                    }
                    let messages = ready.messages.drain(..).chain(ready.after.drain(..));
                    mail.extend(messages.map(|(to, message)| (*id, to, message)));
                    self.wants.append(&mut ready.wants_snapshot);
                    for entry in &ready.committed {
                        if entry.kind == EntryKind::Change {
                            replica.apply_change(entry).unwrap();
                        }
                        replica.handle_applied(entry.index).unwrap();
                    }
                }
            }
            if mail.is_empty() {
                return;
            }
            for (from, to, message) in mail {
                let is_cut = self.cut.contains(&from) || self.cut.contains(&to);
                let to = self.nodes.iter_mut().find(|(id, _)| *id == to && !is_cut);
                if let Some((_, replica)) = to {
                    let _ = replica.handle_message(from, message);
                }
            }
        }
    }

    fn change(&mut self, id: u64, steps: Vec<MemberStep>) -> Result<(), ChangeError> {
        let result = self.at(id).change_members(MemberChange { steps });
        self.play();
        result
    }
}

fn led(by: u64, ids: &[u64]) -> Stage {
    let members = voters(ids);
    let mut stage = Stage::new(ids.iter().map(|&id| (id, fresh(id, &members))));
    assert!(stage.at(by).campaign());
    stage.play();
    assert!(stage.at(by).is_leader());
    stage
}

#[test]
fn a_newcomer_gets_the_state_follows_and_votes() {
    let mut stage = led(1, &[1, 2, 3]);
    stage.nodes.push((node(4), new(4, Start::default())));
    stage.change(1, vec![MemberStep::Learner(node(4))]).unwrap();
    assert_eq!(std::mem::take(&mut stage.wants), [node(4)]);
    // Named once, however often there is something to send.
    stage.at(1).propose("x".into()).unwrap();
    stage.play();
    assert_eq!(stage.wants, []);
    assert_eq!(stage.at(1).status().peers[2].state, PeerState::Fetching);
    let status = stage.at(1).status();
    stage.at(4).install((status.applied, status.term), status.members).unwrap();
    stage.play();
    stage.at(1).report_snapshot(node(4), true);
    stage.play();
    assert_eq!(stage.at(1).status().peers[2].state, PeerState::Replicating);
    stage.change(1, vec![MemberStep::Voter(node(4)), MemberStep::Remove(node(2))]).unwrap();
    for id in [1, 3, 4] {
        assert_eq!(*stage.at(id).members(), voters(&[1, 3, 4]), "{id}");
    }
    stage.at(1).step_down();
    assert!(stage.at(4).campaign());
    stage.play();
    assert_eq!(stage.at(4).role(), Role::Leader { term: 2 });
    assert_eq!(stage.at(1).leader(), node(4));
}

#[test]
fn a_leader_that_is_removed_stops_leading_and_the_others_go_on() {
    let mut stage = led(1, &[1, 2, 3]);
    stage.change(1, vec![MemberStep::Remove(node(1))]).unwrap();
    assert_eq!(stage.at(1).role(), Role::Follower { leader: node(0) });
    assert!(!stage.at(1).campaign());
    assert!(stage.at(1).propose("x".into()).is_err());
    assert!(stage.at(2).campaign());
    stage.play();
    stage.at(2).propose("x".into()).unwrap();
    stage.play();
    assert_eq!(stage.at(3).status().commit, stage.at(2).status().last);
    assert_eq!(*stage.at(3).members(), voters(&[2, 3]));
}

#[test]
fn changes_that_are_refused() {
    let mut stage = led(1, &[1, 2]);
    let names = |id| Err(ChangeError::Names(node(id)));
    assert_eq!(stage.change(1, vec![]), Err(ChangeError::Nothing));
    assert_eq!(stage.change(1, vec![MemberStep::Voter(node(2))]), Err(ChangeError::Nothing));
    assert_eq!(stage.change(1, vec![MemberStep::Remove(node(7))]), Err(ChangeError::Nothing));
    assert_eq!(stage.change(1, vec![MemberStep::Voter(node(0))]), names(0));
    assert_eq!(stage.change(1, vec![MemberStep::Voter(node(3)), MemberStep::Remove(node(3))]), names(3));
    let nobody = stage.change(1, vec![MemberStep::Remove(node(1)), MemberStep::Remove(node(2))]);
    assert!(matches!(nobody, Err(ChangeError::Impossible(_))), "{nobody:?}");
    assert!(matches!(stage.change(2, vec![]), Err(ChangeError::NotLeader(_))));
    stage.cut = vec![node(2)];
    stage.change(1, vec![MemberStep::Learner(node(3))]).unwrap();
    assert_eq!(stage.change(1, vec![MemberStep::Learner(node(4))]), Err(ChangeError::Pending));
}

#[test]
fn leadership_is_handed_over_or_stays() {
    let mut stage = led(1, &[1, 2, 3]);
    assert!(!stage.at(1).transfer(node(1)));
    assert!(!stage.at(1).transfer(node(9)));
    assert!(!stage.at(2).transfer(node(3)));
    assert!(stage.at(1).transfer(node(2)));
    assert_eq!(stage.at(1).propose("x".into()).unwrap_err().leader, node(1));
    stage.play();
    assert_eq!(stage.at(2).role(), Role::Leader { term: 2 });
    stage.cut = vec![node(3)];
    assert!(stage.at(2).transfer(node(3)));
    stage.play();
    assert!(stage.at(2).propose("x".into()).is_err());
    // Its link broke: the handover is off.
    stage.at(2).handle_unreachable(node(3));
    stage.at(2).propose("x".into()).unwrap();
}

#[test]
fn what_was_lost_on_a_broken_link_is_sent_again_after_a_ping() {
    let mut stage = led(1, &[1, 2, 3]);
    stage.cut = vec![node(3)];
    for _ in 0..200 {
        stage.at(1).propose("x".into()).unwrap();
        stage.play();
    }
    stage.at(1).handle_unreachable(node(3));
    stage.cut.clear();
    stage.play();
    assert_eq!(stage.at(3).status().last, LogIndex(1));
    stage.at(1).ping();
    stage.play();
    assert_eq!(stage.at(3).status().applied, LogIndex(201));
}

#[test]
fn a_diverged_log_is_replaced_by_a_state() {
    let members = voters(&[1, 2, 3]);
    let mut start = old(&members, 3);
    // Entries of a leader that nobody else heard.
    start.entries.extend((4..=9).map(|index| entry(index, 1, "lost")));
    let mut stage = Stage::new([(1, fresh(1, &members)), (3, new(3, start))]);
    let mut newer = old(&members, 3);
    newer.hard.term = 2;
    newer.base = (LogIndex(6), 2);
    newer.applied = LogIndex(6);
    newer.entries = vec![entry(7, 2, "new")];
    stage.nodes[0].1 = new(1, newer);
    let heartbeat = Message { term: 2, body: Body::Heartbeat { commit: LogIndex(0) } };
    let three = stage.at(3);
    three.handle_message(node(1), heartbeat).unwrap();
    let mut ready = Ready::default();
    while three.ready(&mut ready) {
        three.handle_persisted(ready.number).unwrap();
    }
    three.install((LogIndex(6), 2), members.clone()).unwrap();
    assert!(three.ready(&mut ready));
    assert_eq!(ready.reset, Some((LogIndex(6), 2)));
    assert!(ready.must_sync());
    // The leader hears of it when the state is durable.
    assert_eq!(ready.messages, []);
    let accepted = Body::Accepted { index: LogIndex(6), commit: LogIndex(6) };
    assert_eq!(ready.after, [(node(1), Message { term: 2, body: accepted })]);
    let status = three.status();
    assert_eq!((status.base, status.last, status.commit), (LogIndex(6), LogIndex(6), LogIndex(6)));
    assert_eq!(three.install((LogIndex(6), 2), members), Err(InstallError::Old { applied: LogIndex(6) }));
}

#[test]
fn a_log_that_leads_through_the_state_is_kept() {
    let members = voters(&[1, 2, 3]);
    let mut start = old(&members, 3);
    start.entries.extend((4..=9).map(|index| entry(index, 1, "kept")));
    let mut three = new(3, start);
    let joint = Members { outgoing: members.voters.clone(), auto_leave: true, ..voters(&[2, 3]) };
    three.install((LogIndex(6), 1), joint.clone()).unwrap();
    let mut ready = Ready::default();
    assert!(!three.ready(&mut ready) || ready.reset.is_none());
    let status = three.status();
    assert_eq!((status.base, status.last, status.commit), (LogIndex(0), LogIndex(9), LogIndex(6)));
    assert_eq!(*three.members(), joint);
    // What follows is given to be applied, what the state holds is not.
    let commit = Body::Append { prev: (LogIndex(9), 1), commit: LogIndex(8), entries: vec![] };
    three.handle_message(node(2), Message { term: 1, body: commit }).unwrap();
    let mut indexes = Vec::new();
    while three.ready(&mut ready) {
        three.handle_persisted(ready.number).unwrap();
        indexes.extend(ready.committed.iter().map(|entry| entry.index.0));
    }
    assert_eq!(indexes, [7, 8]);
}

#[test]
fn states_that_are_refused() {
    let members = voters(&[1, 2, 3]);
    let mut start = old(&members, 3);
    start.applied = LogIndex(1);
    let mut three = new(3, start);
    let at = |index, term| (LogIndex(index), term);
    assert_eq!(three.install(at(5, 1), voters(&[1, 2])), Err(InstallError::Stranger));
    assert_eq!(three.install(at(0, 0), members.clone()), Err(InstallError::Base(LogIndex(0), 0)));
    assert_eq!(
        three.install(at(3, 2), members.clone()),
        Err(InstallError::Conflict { index: LogIndex(3), ours: 1, theirs: 2 })
    );
    let mut stage = led(1, &[1, 2, 3]);
    assert_eq!(stage.at(1).install(at(9, 1), members), Err(InstallError::Leads));
}

/// What is committed after the first of three writes became durable: an entry was written, overwritten, and came back.
fn after_the_first_write(planted: Option<Planted>) -> Vec<Entry> {
    let members = voters(&[1, 2, 3]);
    let mut three = new(3, old(&members, 3));
    three.planted = planted;
    let mut ready = Ready::default();
    let mut append = |from: u64, term: u64, entries: Vec<Entry>| {
        let commit = LogIndex(if term == 4 { 5 } else { 3 });
        let body = Body::Append { prev: (LogIndex(3), 1), commit, entries };
        three.handle_message(node(from), Message { term, body }).unwrap();
        assert!(three.ready(&mut ready));
        ready.number
    };
    let first = append(1, 2, vec![entry(4, 2, "a"), entry(5, 2, "b")]);
    append(2, 3, vec![entry(4, 3, "c")]);
    // The first leader is back and brings its entries again, which others have: they are committed.
    let last = append(1, 4, vec![entry(4, 2, "a"), entry(5, 2, "b")]);
    // On disk is what the first write brought; a crash in the second would lose entry 5.
    three.handle_persisted(first).unwrap();
    three.ready(&mut ready);
    let early = ready.committed.clone();
    three.handle_persisted(last).unwrap();
    three.ready(&mut ready);
    assert_eq!(early.len() + ready.committed.len(), 2);
    early
}

#[test]
fn what_was_overwritten_and_came_back_is_not_durable_yet() {
    assert_eq!(after_the_first_write(None), []);
    assert_eq!(after_the_first_write(Some(Planted::SurelyNotDurable)).len(), 2);
}

/// A replica that forgot what is committed, with both ends of a change in its log: the members from before elect nobody any more.
#[test]
fn a_change_with_another_after_it_is_committed() {
    let members = voters(&[1, 2, 3]);
    let mut body = Vec::new();
    let steps = [4, 5, 6].map(|id| MemberStep::Voter(node(id))).into_iter();
    let steps = steps.chain([1, 2, 3].map(|id| MemberStep::Remove(node(id)))).collect();
    MemberChange { steps }.encode(true, &mut body);
    let change = |index, body: Vec<u8>| Entry {
        index: LogIndex(index),
        term: 1,
        kind: EntryKind::Change,
        body: body.into(),
    };
    for (has_end, committed) in [(false, 0), (true, 2)] {
        let mut start = Start { hard: Hard { term: 1, ..Hard::default() }, ..old(&members, 1) };
        start.applied = LogIndex(0);
        start.entries.push(change(2, body.clone()));
        start.entries.extend(has_end.then(|| change(3, Vec::new())));
        let mut two = new(2, start);
        assert_eq!(two.status().commit, LogIndex(committed));
        // First it learns who the members are.
        assert_eq!(two.campaign(), !has_end);
        let mut ready = Ready::default();
        assert!(two.ready(&mut ready));
        assert_eq!(ready.committed.len() as u64, committed);
        if has_end {
            let joint = two.apply_change(&ready.committed[1]).unwrap();
            assert_eq!((joint.voters, joint.outgoing), (voters(&[4, 5, 6]).voters, members.voters.clone()));
            two.handle_applied(LogIndex(2)).unwrap();
            assert!(two.campaign());
            assert!(two.ready(&mut ready));
            // It needs a majority of the new ones, too.
            assert_eq!(ready.messages.len(), 5);
        }
    }
}

#[test]
fn a_vote_outlives_a_restart() {
    let members = voters(&[1, 2, 3]);
    let ask = |last: u64| Message {
        term: 2,
        body: Body::Vote {
            is_poll: false,
            is_transfer: false,
            last: (LogIndex(last), 1),
            commit: (LogIndex(0), 0),
        },
    };
    let mut three = new(3, old(&members, 3));
    three.handle_message(node(1), ask(3)).unwrap();
    let mut ready = Ready::default();
    assert!(three.ready(&mut ready));
    // The vote is given when it is durable.
    assert_eq!((ready.messages.len(), ready.after.len()), (0, 1));
    let hard = ready.hard.unwrap();
    assert_eq!(hard, Hard { term: 2, vote: node(1), commit: LogIndex(3) });
    for (hard, is_granted) in [(hard, false), (Hard { vote: node(0), ..hard }, true)] {
        let mut again = new(3, Start { hard, ..old(&members, 3) });
        again.handle_message(node(2), ask(9)).unwrap();
        assert!(again.ready(&mut ready));
        let answers = ready.messages.iter().chain(&ready.after);
        let granted: Vec<bool> = answers
            .map(|(_, message)| matches!(message.body, Body::VoteAnswer { is_granted: true, .. }))
            .collect();
        assert_eq!(granted, [is_granted]);
    }
}

/// Elected by itself alone, its vote not durable: a crash would let it lead the same term again, with another log.
#[test]
fn who_is_alone_leads_when_its_vote_is_durable() {
    let members = Members { learners: vec![node(2)], ..voters(&[1]) };
    let mut one = fresh(1, &members);
    let mut ready = Ready::default();
    assert!(one.campaign());
    assert!(one.ready(&mut ready));
    assert_eq!((ready.role, one.leader()), (Some(Role::Candidate), node(0)));
    assert_eq!(ready.messages, []);
    assert_eq!(ready.after.len(), 1);
    assert!(one.propose("x".into()).is_err());
    one.handle_persisted(ready.number).unwrap();
    assert!(one.ready(&mut ready));
    assert_eq!(ready.role, Some(Role::Leader { term: 1 }));
    one.propose("x".into()).unwrap();
    assert!(one.ready(&mut ready));
    // From now on it sends before its own disk is done.
    assert!(ready.must_sync());
}

#[test]
fn what_the_caller_must_not_do_has_a_name() {
    let mut one = fresh(1, &voters(&[1]));
    let mut ready = Ready::default();
    one.campaign();
    assert!(one.ready(&mut ready));
    assert_eq!(one.handle_persisted(9), Err(Misuse::Persisted { number: 9, newest: 1 }));
    let applied = |index, before, given| {
        let [index, before, given] = [index, before, given].map(LogIndex);
        Err(Misuse::Applied { index, before, given })
    };
    assert_eq!(one.handle_applied(LogIndex(1)), applied(1, 0, 0));
    one.handle_persisted(1).unwrap();
    while one.ready(&mut ready) {}
    one.handle_applied(LogIndex(1)).unwrap();
    assert_eq!(one.handle_applied(LogIndex(0)), applied(0, 1, 1));
    assert_eq!(one.compact(LogIndex(2)), Err(Misuse::Compact { to: LogIndex(2), limit: LogIndex(1) }));
    one.change_members(MemberChange::one(MemberStep::Learner(node(2)))).unwrap();
    let mut changes = Vec::new();
    while one.ready(&mut ready) {
        one.handle_persisted(ready.number).unwrap();
        changes.append(&mut ready.committed);
    }
    let [change] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(
        one.handle_applied(LogIndex(2)),
        Err(Misuse::Change { expected: LogIndex(2), found: LogIndex(2) })
    );
    let other = Entry { index: LogIndex(3), ..change.clone() };
    assert_eq!(one.apply_change(&other), Err(Misuse::Change { expected: LogIndex(2), found: LogIndex(3) }));
    let damaged = Entry { body: Bytes::from_static(&[9]), ..change.clone() };
    assert!(matches!(one.apply_change(&damaged), Err(Misuse::Unreadable { .. })));
    assert_eq!(one.apply_change(change).unwrap().learners, [node(2)]);
    one.handle_applied(LogIndex(2)).unwrap();
    one.compact(LogIndex(2)).unwrap();
    one.compact(LogIndex(1)).unwrap();
    assert_eq!(one.status().base, LogIndex(2));
}

#[test]
fn a_slow_follower_is_not_sent_more_than_is_agreed() {
    let mut stage = led(1, &[1, 2, 3]);
    stage.cut = vec![node(3)];
    let body = Bytes::from(vec![b'x'; 300 << 10]);
    for _ in 0..20 {
        stage.at(1).propose(body.clone()).unwrap();
    }
    let (mut ready, mut sizes) = (Ready::default(), Vec::new());
    assert!(stage.at(1).ready(&mut ready));
    for (to, message) in &ready.messages {
        if *to == node(2) {
            sizes.push(message.body_bytes() >> 10);
        }
    }
    // 3 of 300 KiB are below 1 MiB.
    assert_eq!(sizes, [900, 900, 900, 900, 900, 900, 600]);
    for _ in 0..500 {
        stage.at(1).propose("y".into()).unwrap();
        while stage.at(1).ready(&mut ready) {
            assert!(ready.messages.iter().filter(|(to, _)| *to == node(3)).count() <= 64);
        }
    }
}

#[test]
fn nobody_is_ahead_of_a_leader_whose_disk_is_slow() {
    let mut stage = led(1, &[1, 2, 3]);
    let before = stage.at(1).applied();
    stage.slow = Some((node(1), 0));
    stage.at(1).propose("x".into()).unwrap();
    stage.play();
    stage.at(1).tell_commit();
    stage.play();
    assert!(stage.at(1).status().commit > before, "the others have it");
    assert_eq!([1, 2, 3].map(|id| stage.at(id).applied()), [before; 3]);
    let (_, number) = stage.slow.take().unwrap();
    stage.at(1).handle_persisted(number).unwrap();
    stage.play();
    assert!(stage.at(1).owes_commit());
    stage.at(1).tell_commit();
    stage.play();
    assert_eq!([1, 2, 3].map(|id| stage.at(id).applied()), [before.next(); 3]);
}
