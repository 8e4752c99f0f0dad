//! How a cluster begins: exactly one server founds the meta group, alone, and takes the others in.
//!
//! A server that is in no cluster agrees to one founder, durably and once. A founder needs the agreement of a majority of
//! the servers that are expected, so that two cannot found: any two majorities share a server, and it agreed to one of
//! them. A store that holds streams already can only be the founder's.

use std::collections::BTreeMap;

use hw_kit::{NodeId, Span, Time};
use serde::{Deserialize, Serialize};

/// How long a server waits for better founders than itself, once it sees a majority.
const GRACE: Span = Span::from_millis(300);

/// Where a server stands.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Standing {
    /// Whether it belongs to a cluster.
    pub member: bool,
    /// Whom it agreed to; 0: nobody.
    pub founder: u64,
    /// Whether its store holds streams.
    pub has_streams: bool,
    /// How many servers it expects, from its configuration and from what it has seen.
    pub expected: u32,
}

/// What a server has to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FormationStep {
    /// Agree to this founder: make that durable, then [`Formation::handle_agreed`].
    Agree(NodeId),
    /// Found the cluster: a majority agreed.
    Found,
}

/// The beginning of a cluster, seen by one server.
#[derive(Debug)]
pub struct Formation {
    me: NodeId,
    own: Standing,
    others: BTreeMap<NodeId, Standing>,
    /// Since when a majority is in sight.
    seen: Option<Time>,
    agreeing: bool,
}

impl Formation {
    /// A server that stands there.
    pub fn new(me: NodeId, own: Standing) -> Formation {
        Formation { me, own, others: BTreeMap::new(), seen: None, agreeing: false }
    }

    /// Where this server stands.
    pub fn standing(&self) -> Standing {
        self.own
    }

    /// Whether a cluster has no use for the streams that this server brings.
    pub fn is_foreign(&self) -> bool {
        !self.own.member && self.own.has_streams && self.others.values().any(|other| other.member)
    }

    /// Whether another server belongs to the cluster.
    pub fn is_member(&self, node: NodeId) -> bool {
        self.others.get(&node).is_some_and(|other| other.member)
    }

    /// Whether another server can be taken into this one's cluster: it is in none, or it was in this one before.
    pub fn may_join(&self, node: NodeId) -> bool {
        self.others.get(&node).is_some_and(|other| match other.member {
            true => other.founder == self.own.founder,
            false => !other.has_streams,
        })
    }

    /// Who founded another server's cluster.
    pub fn founder_of(&self, node: NodeId) -> NodeId {
        NodeId(self.others.get(&node).map_or(0, |other| other.founder))
    }

    /// Another server said where it stands.
    pub fn handle_standing(&mut self, node: NodeId, standing: Standing) {
        self.others.insert(node, standing);
    }

    /// Another server cannot be reached.
    pub fn handle_lost(&mut self, node: NodeId) {
        self.others.remove(&node);
    }

    /// The agreement is durable.
    pub fn handle_agreed(&mut self, founder: NodeId) {
        self.agreeing = false;
        self.own.founder = founder.0;
    }

    /// This server is part of a cluster from now on.
    pub fn handle_member(&mut self) {
        self.own.member = true;
    }

    /// When to ask again although nothing happened.
    pub fn next_deadline(&self) -> Option<Time> {
        let waits = !self.own.member && self.own.founder == 0 && !self.agreeing;
        self.seen.filter(|_| waits).map(|seen| seen + GRACE)
    }

    /// What to do next, if anything.
    pub fn step(&mut self, now: Time) -> Option<FormationStep> {
        if self.own.member || self.agreeing {
            return None;
        }
        let quorum = self.quorum();
        if self.own.founder == self.me.0 {
            let others = self.others.values().filter(|other| !other.member && other.founder == self.me.0);
            return (others.count() + 1 >= quorum).then_some(FormationStep::Found);
        }
        if self.own.founder != 0 || self.others.values().any(|other| other.member) {
            return None;
        }
        if self.others.len() + 1 < quorum {
            self.seen = None;
            return None;
        }
        let proposed = self.others.values().map(|other| other.founder).find(|founder| *founder != 0);
        // Somebody has begun: it is joined. Who brings streams cannot join.
        if let Some(founder) = proposed.filter(|_| !self.own.has_streams) {
            return self.agree(NodeId(founder));
        }
        let seen = *self.seen.get_or_insert(now);
        let everybody = self.others.len() + 1 >= self.expected();
        if proposed.is_some() || !everybody && now < seen + GRACE {
            return None;
        }
        self.is_first().then(|| self.agree(self.me)).flatten()
    }

    fn agree(&mut self, founder: NodeId) -> Option<FormationStep> {
        self.agreeing = true;
        Some(FormationStep::Agree(founder))
    }

    fn expected(&self) -> usize {
        let told = self.others.values().map(|other| other.expected).chain([self.own.expected]);
        (told.max().unwrap_or(1) as usize).max(self.others.len() + 1)
    }

    fn quorum(&self) -> usize {
        self.expected() / 2 + 1
    }

    /// Who brings streams founds before who does not, then the lowest number.
    fn is_first(&self) -> bool {
        let key = |node: NodeId, standing: &Standing| (!standing.has_streams, node);
        let own = key(self.me, &self.own);
        self.others.iter().all(|(node, other)| own < key(*node, other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        all: Vec<Formation>,
        founded: Vec<usize>,
    }

    impl World {
        fn new(streams: &[usize]) -> World {
            let one = |at: usize| {
                let own = Standing { expected: 3, has_streams: streams.contains(&at), ..Standing::default() };
                Formation::new(NodeId(at as u64 + 1), own)
            };
            World { all: (0..3).map(one).collect(), founded: Vec::new() }
        }

        fn tell(&mut self, from: usize, to: usize) {
            let (node, standing) = (self.all[from].me, self.all[from].standing());
            self.all[to].handle_standing(node, standing);
        }

        fn run(&mut self, now: Time, links: &[(usize, usize)]) {
            for _ in 0..6 {
                for &(a, b) in links {
                    self.tell(a, b);
                    self.tell(b, a);
                }
                for at in 0..3 {
                    match self.all[at].step(now) {
                        Some(FormationStep::Agree(founder)) => self.all[at].handle_agreed(founder),
                        Some(FormationStep::Found) => {
                            self.founded.push(at);
                            self.all[at].handle_member();
                        }
                        _ => {}
                    }
                }
            }
        }
    }

    #[test]
    fn the_first_founds_at_once_when_all_are_there() {
        let mut world = World::new(&[]);
        world.run(Time(0), &[(0, 1), (1, 2), (0, 2)]);
        assert_eq!(world.founded, [0]);
    }

    #[test]
    fn a_majority_founds_after_a_while_and_one_alone_never() {
        let mut world = World::new(&[]);
        world.run(Time(0), &[(1, 2)]);
        assert_eq!(world.founded, [0; 0]);
        world.run(Time(0) + GRACE, &[(1, 2)]);
        assert_eq!(world.founded, [1]);
        world.run(Time(0) + GRACE, &[(1, 2), (0, 2)]);
        assert_eq!(world.founded, [1], "the others join");
    }

    #[test]
    fn who_has_streams_founds() {
        let mut world = World::new(&[2]);
        world.run(Time(0), &[(0, 1), (1, 2), (0, 2)]);
        assert_eq!(world.founded, [2]);
        let mut two = World::new(&[1, 2]);
        two.run(Time(0), &[(0, 1), (1, 2), (0, 2)]);
        assert_eq!(two.founded, [1]);
        two.run(Time(0) + GRACE, &[(0, 1), (1, 2), (0, 2)]);
        assert!(two.all[2].is_foreign());
    }

    #[test]
    fn two_that_do_not_see_each_other_do_not_both_found() {
        // The middle one sees both, they do not see each other.
        let mut world = World::new(&[]);
        world.run(Time(0), &[(0, 1), (1, 2)]);
        world.run(Time(0) + GRACE, &[(0, 1), (1, 2)]);
        assert_eq!(world.founded.len(), 1);
    }
}
