//! After the faults: everything is up and nothing is lost, so there must be progress, and all must agree.

use hw_kit::NodeId;

use super::world::World;
use crate::Role;

/// And one for each entry that somebody may lack: messages are small here.
const ROUNDS: u64 = 300;

impl World {
    /// Heals, and goes on until a new entry is applied by every member.
    pub(super) fn heal(&mut self) -> Result<(), String> {
        self.mend_all();
        self.options.is_ordered = true;
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for &id in &ids {
            self.restart(id)?;
        }
        let mut goal = None;
        let lives = self.nodes.values().filter_map(|node| node.live.as_ref());
        let last = lives.map(|live| live.replica.raft.raft_log.last_index()).max();
        for round in 0..(ROUNDS + last.unwrap_or(0)) as usize {
            self.round()?;
            if round % 5 == 4 {
                goal = self.lead(round, goal);
            }
            if goal.is_some_and(|goal| self.is_done(goal)) {
                return Ok(());
            }
        }
        let state = |(id, node): (&NodeId, &super::node::Node)| {
            let status = node.live.as_ref().map(|live| (live.replica.status(), live.state.index));
            format!("{id}: {status:?}")
        };
        let nodes: Vec<String> = self.nodes.iter().map(state).collect();
        Err(format!("no progress after healing, goal {goal:?}:\n{}", nodes.join("\n")))
    }

    /// Everything that is under way comes to its end.
    fn round(&mut self) -> Result<(), String> {
        for (link, queue) in std::mem::take(&mut self.queues) {
            for bytes in queue {
                self.arrive(link.0, link.1, bytes)?;
            }
        }
        self.finish_all_transfers();
        self.pump_all()?;
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            self.sync_some(id, u64::MAX)?;
            self.apply_some(id, u64::MAX)?;
        }
        self.pump_all()
    }

    /// What the caller's part decides now and then: who campaigns when nobody leads, what is asked again. Gives the index that
    /// must be applied.
    fn lead(&mut self, round: usize, goal: Option<u64>) -> Option<u64> {
        self.ping_all();
        let lives = self.nodes.iter().filter_map(|(id, node)| Some((*id, node.live.as_ref()?)));
        let leader = lives
            .filter_map(|(id, live)| match live.replica.role() {
                Role::Leader { term } => Some((term, id)),
                _ => None,
            })
            .max();
        let Some((_, leader)) = leader else {
            let members = self.truth.newest.1.voters.clone();
            // Each in turn; more of them than members, as some may not know that they are.
            let all: Vec<NodeId> = self.nodes.keys().copied().chain(members).collect();
            let id = all[(round / 5) % all.len()];
            self.with_live(id, |replica| {
                replica.campaign();
            });
            return None;
        };
        let mut index = goal;
        self.with_live(leader, |replica| {
            replica.cancel_transfer();
            if goal.is_none() && replica.propose("healed".into()).is_ok() {
                index = Some(replica.raft.raft_log.last_index());
            }
        });
        index
    }

    /// Whether one leader's members have all applied the goal, and no change is under way.
    fn is_done(&self, goal: u64) -> bool {
        let live = |id: &NodeId| self.nodes.get(id).and_then(|node| node.live.as_ref());
        let members = &self.truth.newest.1;
        !members.is_joint()
            && members.all().iter().all(|id| live(id).is_some_and(|live| live.state.index >= goal))
    }
}
