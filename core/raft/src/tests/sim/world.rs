//! Nodes, links between them, and what happens next.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use hw_kit::{NodeId, Rng};

use super::{
    Options, Stats,
    node::{Disk, Live, Node, State, Wishes},
    truth::{Truth, hash},
};
use crate::{MemberChange, MemberStep, Members, Message, PeerState, Role};

type Link = (NodeId, NodeId);

pub(super) struct World {
    pub(super) options: Options,
    pub(super) rng: Rng,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) truth: Truth,
    pub(super) stats: Stats,
    /// Per direction, in the order of sending.
    pub(super) queues: BTreeMap<Link, VecDeque<Bytes>>,
    /// Pairs (smaller id first) that cannot talk.
    down: BTreeSet<Link>,
    /// States on their way: leader, follower, state.
    transfers: Vec<(NodeId, NodeId, State)>,
    /// Ids that no node had yet begin here.
    pub(super) next_id: u64,
    proposed: u64,
    weights: Vec<(Act, u64)>,
}

/// What can happen.
#[derive(Clone, Copy)]
enum Act {
    Apply,
    Break,
    Bring,
    Campaign,
    Change,
    Checkpoint,
    Crash,
    Deliver,
    Mend,
    Ping,
    Propose,
    Restart,
    StepDown,
    Sync,
    ThrowAway,
    Transfer,
}

/// How often, and whether a run may have more or none of it: each run is another mix.
const ACTS: [(Act, u64, bool); 16] = [
    (Act::Deliver, 800, false),
    (Act::Sync, 400, false),
    (Act::Apply, 200, false),
    (Act::Propose, 160, false),
    (Act::Campaign, 200, false),
    (Act::Checkpoint, 120, true),
    (Act::Bring, 60, false),
    (Act::Ping, 50, false),
    (Act::Change, 60, true),
    (Act::Transfer, 30, true),
    (Act::StepDown, 12, true),
    (Act::Crash, 24, true),
    (Act::Restart, 100, false),
    (Act::Break, 30, true),
    (Act::Mend, 40, false),
    (Act::ThrowAway, 20, true),
];

fn weights(rng: &mut Rng) -> Vec<(Act, u64)> {
    let mut weight = |(act, often, varies): (Act, u64, bool)| {
        let times = match act {
            // Some runs are all about elections.
            Act::Campaign => [1, 2, 12],
            Act::Crash => [0, 1, 6],
            _ if varies => [0, 1, 3],
            _ => [1, 2, 4],
        };
        (act, often * times[rng.below(3) as usize])
    };
    ACTS.map(&mut weight).to_vec()
}

impl World {
    pub(super) fn new(seed: u64, options: Options) -> Result<World, String> {
        let members = Members::voting((1..=options.voters).map(NodeId));
        let mut rng = Rng::new(seed);
        let weights = weights(&mut rng);
        let mut world = World {
            options,
            rng,
            weights,
            nodes: BTreeMap::new(),
            truth: Truth::new(members.clone(), &options),
            stats: Stats::default(),
            queues: BTreeMap::new(),
            down: BTreeSet::new(),
            transfers: Vec::new(),
            next_id: options.voters + 1,
            proposed: 0,
        };
        for &id in &members.voters {
            world.add(id, Disk::new(members.clone()))?;
        }
        Ok(world)
    }

    /// One thing happens somewhere.
    pub(super) fn step(&mut self) -> Result<(), String> {
        let Some(id) = self.pick_node() else { return Ok(()) };
        match self.pick_act() {
            Act::Deliver => self.deliver()?,
            Act::Sync => self.sync()?,
            Act::Apply => self.apply()?,
            Act::Propose => self.propose(),
            Act::Campaign => self.campaigns(id),
            Act::Checkpoint => self.checkpoint(id)?,
            Act::Bring => self.finish_transfer()?,
            Act::Ping => self.with_live(id, |replica| replica.ping()),
            Act::Change => self.change(),
            Act::Transfer => self.transfer(),
            Act::StepDown => self.with_live(id, |replica| replica.step_down()),
            Act::Crash => {
                self.crash(id)?;
                if self.rng.chance(1, 2) {
                    self.restart(id)?;
                }
            }
            Act::Restart => self.restart(id)?,
            Act::Break => self.break_link(id),
            Act::Mend => self.mend_link()?,
            Act::ThrowAway => self.throw_away(id)?,
        }
        self.pump_all()
    }

    fn pick_act(&mut self) -> Act {
        let sum = self.weights.iter().map(|(_, weight)| weight).sum();
        let mut at = self.rng.below(sum);
        for &(act, weight) in &self.weights {
            if at < weight {
                return act;
            }
            at -= weight;
        }
        Act::Deliver
    }

    fn pick_node(&mut self) -> Option<NodeId> {
        let at = self.rng.below(self.nodes.len() as u64) as usize;
        self.nodes.keys().nth(at).copied()
    }

    pub(super) fn add(&mut self, id: NodeId, disk: Disk) -> Result<(), String> {
        let mut node = Node::new(id, disk);
        node.start(&self.options)?;
        self.nodes.insert(id, node);
        Ok(())
    }

    /// Takes what all nodes have to say, and sends it.
    pub(super) fn pump_all(&mut self) -> Result<(), String> {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        for id in ids {
            let Some(node) = self.nodes.get_mut(&id) else { continue };
            let wishes = node.pump(&mut self.truth, &self.options)?;
            self.grant(id, wishes);
        }
        Ok(())
    }

    fn grant(&mut self, from: NodeId, wishes: Wishes) {
        self.stats.resets += wishes.resets;
        for (to, message) in wishes.messages {
            self.send(from, to, &message);
        }
        for peer in wishes.transfers {
            let live = self.nodes.get(&from).and_then(|node| node.live.as_ref());
            self.transfers.extend(live.map(|live| (from, peer, live.state.clone())));
        }
    }

    fn send(&mut self, from: NodeId, to: NodeId, message: &Message) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        self.stats.trace = hash(self.stats.trace ^ from.0 ^ (to.0 << 8), &bytes);
        if self.is_down(from, to) || (!self.options.is_ordered && self.rng.chance(1, 20)) {
            return;
        }
        let queue = self.queues.entry((from, to)).or_default();
        if !self.options.is_ordered && self.rng.chance(1, 20) {
            queue.push_back(bytes.clone().into());
        }
        queue.push_back(bytes.into());
    }

    pub(super) fn is_down(&self, a: NodeId, b: NodeId) -> bool {
        self.down.contains(&(a.min(b), a.max(b)))
    }

    fn deliver(&mut self) -> Result<(), String> {
        for _ in 0..=self.rng.below(4) {
            self.deliver_one()?;
        }
        Ok(())
    }

    fn deliver_one(&mut self) -> Result<(), String> {
        self.queues.retain(|_, queue| !queue.is_empty());
        let at = self.rng.below(self.queues.len() as u64) as usize;
        let Some((&(from, to), queue)) = self.queues.iter_mut().nth(at) else { return Ok(()) };
        let place = if self.options.is_ordered { 0 } else { self.rng.below(queue.len() as u64) as usize };
        match queue.remove(place) {
            Some(bytes) => self.arrive(from, to, bytes),
            None => Ok(()),
        }
    }

    /// A message reaches a node; one that is not there yet is made, as whoever places the group would.
    pub(super) fn arrive(&mut self, from: NodeId, to: NodeId, bytes: Bytes) -> Result<(), String> {
        if !self.nodes.contains_key(&to) {
            // Who was thrown away stays away.
            if to.0 < self.next_id {
                return Ok(());
            }
            self.next_id = to.0 + 1;
            self.add(to, Disk::default())?;
        }
        let is_alive = self.nodes.get(&from).is_some_and(|node| node.live.is_some());
        let is_ordered = self.options.is_ordered;
        let hears = |leader: NodeId| leader != NodeId(0) && leader != from && is_alive;
        let Some(live) = self.nodes.get_mut(&to).and_then(|node| node.live.as_mut()) else { return Ok(()) };
        let message = Message::decode(bytes).map_err(|error| error.to_string())?;
        if is_ordered && message.disturbs() && hears(live.replica.leader()) && self.rng.chance(2, 3) {
            return Ok(());
        }
        self.stats.messages += 1;
        if let Err(why) = live.replica.handle_message(from, message) {
            self.stats.refused += 1;
            self.truth.refused(why)?;
        }
        Ok(())
    }

    /// One of those nodes to whom that applies.
    fn pick(&mut self, applies: impl Fn(&Live) -> bool) -> Option<NodeId> {
        let live =
            |(id, node): (&NodeId, &Node)| node.live.as_ref().filter(|live| applies(live)).map(|_| *id);
        let ids: Vec<NodeId> = self.nodes.iter().filter_map(live).collect();
        ids.get(self.rng.below(ids.len() as u64) as usize).copied()
    }

    fn sync(&mut self) -> Result<(), String> {
        let Some(id) = self.pick(|live| !live.writes.is_empty()) else { return Ok(()) };
        let count = 1 + self.rng.below(4);
        self.sync_some(id, count)
    }

    pub(super) fn sync_some(&mut self, id: NodeId, count: u64) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let messages = node.sync(count, &self.options)?;
        self.grant(id, Wishes { messages, ..Wishes::default() });
        Ok(())
    }

    fn apply(&mut self) -> Result<(), String> {
        let Some(id) = self.pick(|live| !live.to_apply.is_empty()) else { return Ok(()) };
        let count = 1 + self.rng.below(20);
        self.apply_some(id, count)
    }

    pub(super) fn apply_some(&mut self, id: NodeId, count: u64) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        let applied = node.apply(count, &mut self.truth, &self.options)?;
        self.stats.trace = hash(self.stats.trace, &(id.0 << 32 | applied).to_le_bytes());
        Ok(())
    }

    fn propose(&mut self) {
        // Callers wait for what they proposed.
        let has_room = |live: &Live| live.replica.raft.raft_log.last_index() - live.state.index < 50;
        let can = |live: &Live| matches!(live.role, Role::Leader { .. }) && has_room(live);
        let Some(id) = self.pick(can) else { return };
        let count = 1 + self.rng.below(6);
        for _ in 0..count {
            self.proposed += 1;
            let mut body = vec![b'.'; self.rng.below(40) as usize];
            body.extend(self.proposed.to_le_bytes());
            self.with_live(id, |replica| {
                let _ = replica.propose(body.into());
            });
        }
    }

    fn campaigns(&mut self, id: NodeId) {
        self.campaign(id);
        // Another that stands against it.
        if self.rng.chance(1, 2)
            && let Some(other) = self.pick_node()
        {
            self.campaign(other);
        }
    }

    fn campaign(&mut self, id: NodeId) {
        let Some(live) = self.nodes.get(&id).and_then(|node| node.live.as_ref()) else { return };
        let leader = live.replica.leader();
        let is_lost = leader == NodeId(0)
            || self.is_down(id, leader)
            || self.nodes.get(&leader).is_none_or(|node| node.live.is_none());
        if is_lost || self.rng.chance(1, 3) {
            self.with_live(id, |replica| {
                replica.campaign();
            });
        }
    }

    fn checkpoint(&mut self, id: NodeId) -> Result<(), String> {
        let keep = self.rng.below(6);
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if self.rng.chance(1, 2) {
            node.checkpoint();
            return Ok(());
        }
        node.compact(keep, &self.options)
    }

    fn finish_transfer(&mut self) -> Result<(), String> {
        if self.transfers.is_empty() {
            return Ok(());
        }
        let at = self.rng.below(self.transfers.len() as u64) as usize;
        let (leader, peer, state) = self.transfers.swap_remove(at);
        let fails = self.rng.chance(1, 5);
        self.bring(leader, peer, (!fails).then_some(state));
        Ok(())
    }

    fn bring(&mut self, leader: NodeId, peer: NodeId, state: Option<State>) {
        let is_there = self.nodes.get(&peer).is_some_and(|node| node.live.is_some());
        let is_ok = is_there && !self.is_down(leader, peer) && state.is_some();
        if let Some(state) = state.filter(|_| is_ok) {
            let installed = self.nodes.get_mut(&peer).is_some_and(|node| node.install(state));
            self.stats.installs += u64::from(installed);
        }
        self.with_live(leader, |replica| replica.report_snapshot(peer, is_ok));
    }

    pub(super) fn finish_all_transfers(&mut self) {
        for (leader, peer, state) in std::mem::take(&mut self.transfers) {
            self.bring(leader, peer, Some(state));
        }
    }

    fn change(&mut self) {
        let Some(id) = self.pick(|live| matches!(live.role, Role::Leader { .. })) else { return };
        let Some(live) = self.nodes.get(&id).and_then(|node| node.live.as_ref()) else { return };
        if !matches!(live.role, Role::Leader { .. }) || self.nodes.len() > 9 {
            return;
        }
        let status = live.replica.status();
        let ready: Vec<NodeId> = status
            .peers
            .iter()
            .filter(|peer| {
                peer.state == PeerState::Replicating && status.members.learners.contains(&peer.node)
            })
            .map(|peer| peer.node)
            .collect();
        let all = status.members.all();
        let someone = all[self.rng.below(all.len() as u64) as usize];
        let fresh = NodeId(self.next_id);
        let mut steps = vec![match self.rng.below(8) {
            0..3 if all.len() < 6 => MemberStep::Learner(fresh),
            0..6 if !ready.is_empty() => MemberStep::Voter(ready[0]),
            6 => MemberStep::Learner(someone),
            _ if status.members.voters.len() > 1 => MemberStep::Remove(someone),
            _ => return,
        }];
        let other = all[self.rng.below(all.len() as u64) as usize];
        if self.rng.chance(1, 4) && other != steps[0].node() {
            steps.push(MemberStep::Remove(other));
        }
        self.with_live(id, |replica| {
            let _ = replica.change_members(MemberChange { steps });
        });
    }

    fn transfer(&mut self) {
        let Some(id) = self.pick(|live| matches!(live.role, Role::Leader { .. })) else { return };
        let Some(to) = self.pick_node() else { return };
        let cancels = self.rng.chance(1, 2);
        let mut began = false;
        self.with_live(id, |replica| {
            if cancels {
                replica.cancel_transfer();
            } else {
                began = replica.transfer(to);
            }
        });
        self.stats.transfers += u64::from(began);
    }

    fn crash(&mut self, id: NodeId) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.live.is_none() {
            return Ok(());
        }
        node.crash(&self.options, &mut self.rng);
        self.stats.crashes += 1;
        self.lose_links(id);
        if self.options.has_wipes && self.rng.chance(1, 2) {
            node_wiped(self.nodes.get_mut(&id));
        }
        Ok(())
    }

    /// The connections of a dead process are gone; its peers are told.
    fn lose_links(&mut self, id: NodeId) {
        if !self.options.is_ordered {
            return;
        }
        self.queues.retain(|(from, to), _| *from != id && *to != id);
        let others: Vec<NodeId> = self.nodes.keys().copied().collect();
        for other in others {
            self.with_live(other, |replica| replica.handle_unreachable(id));
        }
    }

    pub(super) fn restart(&mut self, id: NodeId) -> Result<(), String> {
        let Some(node) = self.nodes.get_mut(&id) else { return Ok(()) };
        if node.live.is_none() {
            match node.start(&self.options) {
                // A damaged store is refused by name: right, for a disk that was lost.
                Err(_) if self.options.has_wipes => return Ok(()),
                other => other?,
            }
            self.ping_all();
        }
        Ok(())
    }

    pub(super) fn ping_all(&mut self) {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        ids.into_iter().for_each(|id| self.with_live(id, |replica| replica.ping()));
    }

    fn break_link(&mut self, id: NodeId) {
        let Some(other) = self.pick_node().filter(|&other| other != id) else { return };
        if self.down.len() < 4 && self.down.insert((id.min(other), id.max(other))) && self.options.is_ordered
        {
            self.queues.retain(|&link, _| link != (id, other) && link != (other, id));
            self.with_live(id, |replica| replica.handle_unreachable(other));
            self.with_live(other, |replica| replica.handle_unreachable(id));
        }
    }

    fn mend_link(&mut self) -> Result<(), String> {
        if self.down.pop_first().is_some() {
            self.ping_all();
        }
        Ok(())
    }

    pub(super) fn mend_all(&mut self) {
        self.down.clear();
    }

    /// A node that is out for good is thrown away: when all members have that on disk.
    fn throw_away(&mut self, id: NodeId) -> Result<(), String> {
        let (since, members) = self.truth.newest.clone();
        let knows = |member: &NodeId| self.nodes.get(member).is_some_and(|node| node.disk.knows(since));
        let is_out = !members.contains(id) && !members.is_joint() && members.all().iter().all(knows);
        if is_out && self.nodes.len() > 1 {
            self.nodes.remove(&id);
            self.lose_links(id);
            self.queues.retain(|(from, to), _| *from != id && *to != id);
        }
        Ok(())
    }

    pub(super) fn with_live(&mut self, id: NodeId, act: impl FnOnce(&mut crate::Replica)) {
        if let Some(live) = self.nodes.get_mut(&id).and_then(|node| node.live.as_mut()) {
            act(&mut live.replica);
        }
    }
}

fn node_wiped(node: Option<&mut Node>) {
    if let Some(node) = node {
        // It knows who the members are, and nothing else.
        node.disk = Disk::new(Members::voting([NodeId(1), NodeId(2), NodeId(3)]));
    }
}
