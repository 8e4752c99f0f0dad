//! How the members of a stream's group become those that are wanted.
//!
//! Who comes follows the log first, without a vote. When all who are wanted have caught up, one change gives them votes and
//! takes those away that are not wanted (joint consensus: while it is under way, a majority of the old and one of the new
//! members decide). So a group is never of a size that neither its old nor its new members know: a server that is lost in
//! the middle costs what it would have cost before, or after.

use hw_kit::NodeId;
use hw_raft::{MemberChange, MemberStep, Status};

/// What a leader does next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Step {
    /// Everything is as it is wanted, or something has to happen first.
    Nothing,
    /// Members change.
    Change(MemberChange),
    /// It is not wanted itself: this one, which is, takes it out.
    HandOver(NodeId),
}

/// What the leader of a group, `me`, does next so that its voters are these.
pub(crate) fn next_step(
    status: &Status,
    wanted: &[NodeId],
    me: NodeId,
    is_alive: impl Fn(NodeId) -> bool,
) -> Step {
    let members = &status.members;
    if members.is_joint() || wanted.is_empty() {
        return Step::Nothing;
    }
    let is_known = |node: &NodeId| members.voters.contains(node) || members.learners.contains(node);
    if let Some(missing) = wanted.iter().find(|node| !is_known(node)) {
        return Step::Change(MemberChange::one(MemberStep::Learner(*missing)));
    }
    let is_new = |node: &NodeId| !members.voters.contains(node);
    let is_ready = |node: &NodeId| has_caught_up(status, *node);
    let surplus: Vec<NodeId> = members
        .voters
        .iter()
        .chain(&members.learners)
        .copied()
        .filter(|node| !wanted.contains(node))
        .collect();
    let coming: Vec<NodeId> = wanted.iter().copied().filter(is_new).collect();
    let ready: Vec<NodeId> = coming.iter().copied().filter(is_ready).collect();
    let steps: Vec<MemberStep> = if ready.len() == coming.len() {
        if !wanted.contains(&me)
            && let Some(heir) = wanted.iter().copied().find(|node| !is_new(node) && is_alive(*node))
        {
            return Step::HandOver(heir);
        }
        // If none of those that are wanted can lead yet, this server stays until one can. Those who stay must be able to decide:
        // otherwise the group would wait for whoever is gone, perhaps for good.
        let stays = wanted.iter().copied().chain((!wanted.contains(&me)).then_some(me));
        let alive = stays.clone().filter(|node| *node == me || is_alive(*node)).count();
        if alive <= stays.count() / 2 {
            return Step::Nothing;
        }
        let gone = surplus.into_iter().filter(|node| *node != me).map(MemberStep::Remove);
        ready.into_iter().map(MemberStep::Voter).chain(gone).collect()
    } else {
        // Some take long. Whoever is ready takes the vote of somebody who is lost: that changes no majority for the worse.
        let lost = surplus.into_iter().filter(|node| !is_new(node) && !is_alive(*node));
        let pairs = ready.into_iter().zip(lost);
        pairs.flat_map(|(new, old)| [MemberStep::Voter(new), MemberStep::Remove(old)]).collect()
    };
    if steps.is_empty() { Step::Nothing } else { Step::Change(MemberChange { steps }) }
}

/// Whether a member is so close to the end of the log that it can have a vote.
pub(crate) fn has_caught_up(status: &Status, node: NodeId) -> bool {
    let peer = status.peers.iter().find(|peer| peer.node == node);
    peer.is_some_and(|peer| peer.matched.0 > 0 && peer.matched.0 + 64 >= status.last.0)
}

#[cfg(test)]
mod tests {
    use hw_kit::{GroupId, LogIndex};
    use hw_raft::{Members, PeerState, PeerStatus, Role};

    use super::*;

    const ME: NodeId = NodeId(1);

    fn nodes(numbers: &[u64]) -> Vec<NodeId> {
        numbers.iter().copied().map(NodeId).collect()
    }

    /// A leader's view: who votes, who learns, who of all these lags far behind.
    fn view(voters: &[u64], learners: &[u64], behind: &[u64]) -> Status {
        let members = Members { learners: nodes(learners), ..Members::voting(nodes(voters)) };
        let peer = |node: NodeId| {
            let matched = LogIndex(if behind.contains(&node.0) { 10 } else { 980 });
            PeerStatus { node, matched, state: PeerState::Replicating }
        };
        let last = LogIndex(1000);
        Status {
            group: GroupId(7),
            term: 3,
            leader: ME,
            role: Role::Leader { term: 3 },
            commit: last,
            persisted: last,
            applied: last,
            base: LogIndex(0),
            last,
            peers: members.all().into_iter().filter(|node| *node != ME).map(peer).collect(),
            members,
            transferee: NodeId(0),
            log_bytes: 0,
        }
    }

    fn step(status: &Status, wanted: &[u64], dead: &[u64]) -> Step {
        next_step(status, &nodes(wanted), ME, |node| !dead.contains(&node.0))
    }

    fn change(steps: &[MemberStep]) -> Step {
        Step::Change(MemberChange { steps: steps.to_vec() })
    }

    #[test]
    fn all_votes_change_at_once() {
        use MemberStep::{Learner, Remove, Voter};
        let [two, three, four, five] = [2, 3, 4, 5].map(NodeId);
        let table = [
            ("as it is wanted", view(&[1, 2, 3], &[], &[]), &[3, 2, 1][..], Step::Nothing),
            ("three to one", view(&[1, 2, 3], &[], &[]), &[1], change(&[Remove(two), Remove(three)])),
            ("one to three", view(&[1], &[], &[]), &[1, 2, 3], change(&[Learner(two)])),
            ("who comes learns first", view(&[1], &[2], &[]), &[1, 2, 3], change(&[Learner(three)])),
            ("as long as it takes", view(&[1], &[2, 3], &[3]), &[1, 2, 3], Step::Nothing),
            ("and votes then", view(&[1], &[2, 3], &[]), &[1, 2, 3], change(&[Voter(two), Voter(three)])),
            (
                "some come and some go",
                view(&[1, 2, 3], &[4, 5], &[]),
                &[1, 4, 5],
                change(&[Voter(four), Voter(five), Remove(two), Remove(three)]),
            ),
            ("who leads goes last", view(&[1, 2, 3], &[], &[]), &[2, 3], Step::HandOver(two)),
            (
                "it waits for an heir",
                view(&[1, 2], &[3, 4], &[]),
                &[3, 4],
                change(&[Voter(three), Voter(four), Remove(two)]),
            ),
            ("and goes", view(&[1, 3, 4], &[], &[]), &[3, 4], Step::HandOver(three)),
            ("learners are not needed any more", view(&[1], &[5], &[]), &[1], change(&[Remove(five)])),
        ];
        for (what, status, wanted, expected) in table {
            assert_eq!(step(&status, wanted, &[]), expected, "{what}");
        }
    }

    #[test]
    fn who_is_lost_gives_a_vote_to_whoever_is_ready() {
        use MemberStep::{Remove, Voter};
        let status = view(&[1, 2, 3, 4, 5], &[6, 7], &[7]);
        let wanted = [1, 2, 3, 6, 7];
        assert_eq!(step(&status, &wanted, &[]), Step::Nothing, "nobody is lost");
        let exchange = change(&[Voter(NodeId(6)), Remove(NodeId(4))]);
        assert_eq!(step(&status, &wanted, &[4, 5]), exchange);
        let status = view(&[1, 2, 3], &[4, 5], &[5]);
        assert_eq!(step(&status, &[1, 2, 3, 4, 5], &[3]), Step::Nothing, "who is wanted keeps the vote");
    }

    #[test]
    fn nothing_happens_while_a_change_is_under_way_or_no_heir_is_there() {
        let mut status = view(&[1, 4, 5], &[], &[]);
        status.members.outgoing = nodes(&[1, 2, 3]);
        assert_eq!(step(&status, &[1], &[]), Step::Nothing);
        assert_eq!(step(&view(&[1, 2, 3], &[], &[]), &[2, 3], &[2]), Step::HandOver(NodeId(3)));
        assert_eq!(step(&view(&[1, 2, 3], &[], &[]), &[2, 3], &[2, 3]), Step::Nothing);
    }

    #[test]
    fn those_who_stay_can_decide() {
        let all = view(&[1, 2, 3], &[], &[]);
        assert_eq!(step(&all, &[2], &[2]), Step::Nothing, "this one and a dead one");
        assert_eq!(step(&all, &[1, 2], &[2]), Step::Nothing);
        let remove = |node| MemberStep::Remove(NodeId(node));
        assert_eq!(step(&all, &[1, 3], &[2]), change(&[remove(2)]));
        assert_eq!(step(&all, &[1], &[2, 3]), change(&[remove(2), remove(3)]));
        assert_eq!(step(&view(&[1, 2, 3, 4], &[], &[]), &[1, 2, 3], &[2]), change(&[remove(4)]));
    }
}
