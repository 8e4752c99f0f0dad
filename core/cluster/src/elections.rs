//! When groups without a leader elect one: who asks first, and when it asks again.
//!
//! All replicas that miss a leader could ask at once and split the votes. They are ranked: the first asks at once, each
//! further one later, and a random part keeps those apart that think they have the same rank.

use std::collections::BTreeSet;

use hw_kit::{GroupId, Map, Rng, Span, Time};

/// Why a group may need a leader.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// It was just created.
    Created,
    /// This server has just started and knows of no leader.
    Started,
    /// The leader's process is gone.
    Gone,
    /// The leader is silent.
    Silent,
    /// The leader was away and has to say that it still leads.
    Returned,
    /// There was an election, and nobody won so far.
    Undecided,
}

impl Cause {
    /// How long the first in rank waits, how much longer each further one, and the random part.
    fn waits(self) -> (i64, i64, u64) {
        match self {
            Cause::Created => (0, 300, 20),
            Cause::Started => (150, 150, 50),
            Cause::Gone => (0, 40, 10),
            Cause::Silent => (10, 60, 20),
            Cause::Returned => (400, 100, 50),
            Cause::Undecided => (120, 80, 120),
        }
    }
}

/// The elections that this server means to begin.
#[derive(Debug)]
pub struct Elections {
    rng: Rng,
    due: BTreeSet<(Time, GroupId)>,
    planned: Map<GroupId, Time>,
}

impl Elections {
    /// None so far.
    pub fn new(seed: u64) -> Elections {
        Elections { rng: Rng::new(seed), due: BTreeSet::new(), planned: Map::default() }
    }

    /// Plans one, unless an earlier one is planned. `rank` counts the replicas that should ask before this one.
    pub fn plan(&mut self, now: Time, group: GroupId, cause: Cause, rank: usize) {
        let (base, step, random) = cause.waits();
        let wait = base + step * rank as i64 + self.rng.below(random + 1) as i64;
        let at = now + Span::from_millis(wait);
        if self.planned.get(&group).is_none_or(|planned| at < *planned) {
            self.cancel(group);
            self.planned.insert(group, at);
            self.due.insert((at, group));
        }
    }

    /// There is a leader, or no such group.
    pub fn cancel(&mut self, group: GroupId) {
        if let Some(at) = self.planned.remove(&group) {
            self.due.remove(&(at, group));
        }
    }

    /// One whose time has come.
    pub fn take_due(&mut self, now: Time) -> Option<GroupId> {
        let (at, group) = *self.due.first()?;
        if at > now {
            return None;
        }
        self.cancel(group);
        Some(group)
    }

    /// When the next one is due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.due.first().map(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_plan_counts() {
        let mut elections = Elections::new(1);
        let (one, two) = (GroupId(1), GroupId(2));
        elections.plan(Time(0), one, Cause::Silent, 1);
        elections.plan(Time(0), two, Cause::Returned, 0);
        elections.plan(Time(0), two, Cause::Gone, 0);
        let first = elections.next_deadline().unwrap();
        assert!(first <= Time(0) + Span::from_millis(10));
        assert_eq!(elections.take_due(first), Some(two));
        elections.plan(Time(0), one, Cause::Returned, 0);
        let second = elections.next_deadline().unwrap();
        assert!(second <= Time(0) + Span::from_millis(90), "a later plan does not put it off");
        assert_eq!(elections.take_due(Time(0)), None);
        elections.cancel(one);
        assert_eq!(elections.next_deadline(), None);
    }
}
