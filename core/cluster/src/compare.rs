//! What follows from what the replicas of a group say of their state at one entry.

use std::collections::BTreeMap;

use hw_kit::NodeId;

/// What is known of the replicas of a group at one entry.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Not enough of them have said something.
    Open,
    /// A majority has the same; these have something else.
    Wrong(Vec<NodeId>),
    /// All have said something, and no majority says the same.
    Disputed,
}

/// Judges by what was said, as numbers for states; only those who vote count.
pub fn judge(voters: &[NodeId], said: &BTreeMap<NodeId, u64>) -> Verdict {
    let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
    for digest in voters.iter().filter_map(|node| said.get(node)) {
        *counts.entry(*digest).or_default() += 1;
    }
    let Some((&right, _)) = counts.iter().find(|(_, count)| **count > voters.len() / 2) else {
        let is_complete = !voters.is_empty() && voters.iter().all(|node| said.contains_key(node));
        return if is_complete { Verdict::Disputed } else { Verdict::Open };
    };
    Verdict::Wrong(said.iter().filter(|(_, digest)| **digest != right).map(|(node, _)| *node).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_majority_is_right() {
        let nodes = [1, 2, 3].map(NodeId);
        let cases: [(&[(u64, u64)], Verdict); 7] = [
            (&[], Verdict::Open),
            (&[(1, 5)], Verdict::Open),
            (&[(1, 5), (2, 6)], Verdict::Open),
            (&[(1, 5), (2, 5)], Verdict::Wrong(Vec::new())),
            (&[(1, 5), (2, 5), (3, 6)], Verdict::Wrong(vec![NodeId(3)])),
            // Who has no vote is told all the same.
            (&[(1, 6), (2, 5), (3, 5), (9, 6)], Verdict::Wrong(vec![NodeId(1), NodeId(9)])),
            (&[(1, 5), (2, 6), (3, 7)], Verdict::Disputed),
        ];
        for (said, expected) in cases {
            let said = said.iter().map(|&(node, digest)| (NodeId(node), digest)).collect();
            assert_eq!(judge(&nodes, &said), expected, "{said:?}");
        }
        // One that no voter is behind does not decide.
        let learners = BTreeMap::from([(NodeId(8), 5), (NodeId(9), 5)]);
        assert_eq!(judge(&nodes, &learners), Verdict::Open);
        assert_eq!(
            judge(&[NodeId(1), NodeId(2)], &[(NodeId(1), 1), (NodeId(2), 2)].into()),
            Verdict::Disputed
        );
    }
}
