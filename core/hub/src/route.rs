//! Who gets this message: matching, the choice among queue members, and the way to other shards.

use hw_kit::{AccountId, Rng, ShardId, Time};

use crate::cross::SharedGroups;
use crate::hub::{Hub, Sink};
use crate::message::{Inside, Message, Origin};
use crate::peers::{self, Groups, InterestChange, MAX_HOPS, Outbox, PeerBatch, PeerMessage, Received};
use crate::sinks::{NOBODY, Routed, Sinks};

/// How far a message may go.
#[derive(Clone, Copy)]
pub(crate) enum Reach<'a> {
    /// It was published here: to all sinks of all shards.
    Everywhere,
    /// It comes from another shard: to the sinks here that were chosen there.
    Here { plain: bool, groups: Groups<'a>, hops: u8 },
}

impl Reach<'_> {
    /// How often the message has moved on when it leaves from here.
    fn hops_behind(self) -> u8 {
        match self {
            Reach::Everywhere => 0,
            Reach::Here { hops, .. } => hops + 1,
        }
    }
}

/// One message on its way to the sinks that match.
struct Ways<'a, I> {
    sinks: &'a mut Sinks,
    outboxes: &'a mut [Outbox],
    rng: &'a mut Rng,
    inside: &'a mut I,
    routed: &'a Routed<'a>,
    origin: Origin,
    receivers: usize,
    /// Another shard gets it.
    leaves: bool,
    /// Ways into other accounts.
    crossings: Vec<Sink>,
}

impl<I: Inside> Ways<'_, I> {
    /// Gives the message to a sink here; false if it does not want it.
    #[inline]
    fn here(&mut self, sink: Sink) -> bool {
        match sink {
            Sink::Client(id) => self.sinks.deliver(id, self.routed),
            Sink::Internal(id) => {
                let msg = Message { subject: self.routed.to, ..self.routed.msg };
                self.inside.deliver(self.routed.now, id, self.origin, &msg);
                true
            }
            Sink::Peer(..) | Sink::Bridge(_) | Sink::Answers => false,
        }
    }

    #[inline]
    fn plain(&mut self, sink: Sink, reach: Reach<'_>) {
        let taken = match (sink, reach) {
            (Sink::Peer(shard, _), Reach::Everywhere) => {
                let outbox = self.outbox(shard);
                outbox.plain = true;
                true
            }
            // Another shard has taken its own bridges already.
            (Sink::Bridge(_), Reach::Everywhere) | (Sink::Answers, _) => {
                self.crossings.push(sink);
                false
            }
            _ => self.here(sink),
        };
        self.receivers += usize::from(taken);
    }

    fn outbox(&mut self, shard: ShardId) -> &mut Outbox {
        self.leaves = true;
        let outbox = &mut self.outboxes[usize::from(shard.0)];
        outbox.touched = true;
        outbox
    }

    /// One member of the group at position `at` gets it.
    fn queue(&mut self, at: usize, members: &[Sink], reach: Reach<'_>) {
        let taken = match reach {
            Reach::Everywhere => self.pick(at, members, |_| true),
            Reach::Here { hops, .. } => {
                let here = |sink: Sink| !matches!(sink, Sink::Peer(..));
                // The members that the sender knew of may have left meanwhile.
                self.pick(at, members, here)
                    || (hops < MAX_HOPS && self.pick(at, members, |sink| !here(sink)))
            }
        };
        self.receivers += usize::from(taken);
    }

    /// Begins at a random member and goes on until one takes the message.
    fn pick(&mut self, at: usize, members: &[Sink], eligible: impl Fn(Sink) -> bool) -> bool {
        let weight = |sink: &Sink| match sink {
            Sink::Peer(_, members) => u64::from(*members),
            _ => 1,
        };
        let total = members.iter().filter(|sink| eligible(**sink)).map(weight).sum();
        let mut left = self.rng.below(total);
        let first = members
            .iter()
            .position(|sink| {
                let weight = if eligible(*sink) { weight(sink) } else { 0 };
                let chosen = left < weight;
                left = left.saturating_sub(weight);
                chosen
            })
            .unwrap_or(0);
        let (before, after) = members.split_at(first);
        for &sink in after.iter().chain(before).filter(|sink| eligible(**sink)) {
            let taken = match sink {
                Sink::Peer(shard, _) => {
                    self.outbox(shard).groups.push(at);
                    true
                }
                _ => self.here(sink),
            };
            if taken {
                return true;
            }
        }
        false
    }
}

impl Hub {
    /// Brings a message to everybody who wants it. Returns how many sinks do; another shard counts as one.
    pub(crate) fn route(
        &mut self,
        routed: &Routed<'_>,
        origin: Origin,
        reach: Reach<'_>,
        inside: &mut impl Inside,
    ) -> usize {
        let Some(state) = self.accounts.get_mut(routed.account.0 as usize) else {
            return 0;
        };
        let (bridged, matches) = (state.bridged, state.interest.lookup(routed.to));
        let shared = match bridged {
            true => self.share_groups(routed, reach, &matches),
            false => SharedGroups::default(),
        };
        let left_out = &self.journey.left_out;
        let mut ways = Ways {
            sinks: &mut self.sinks,
            outboxes: &mut self.outboxes,
            rng: &mut self.rng,
            inside: &mut *inside,
            routed,
            origin,
            receivers: 0,
            leaves: false,
            crossings: Vec::new(),
        };
        if !matches!(reach, Reach::Here { plain: false, .. }) {
            for &sink in &matches.plain {
                ways.plain(sink, reach);
            }
        }
        for (at, (queue, members)) in matches.queues.iter().enumerate() {
            let wanted = match reach {
                Reach::Everywhere => !shared.is_away(at) && !left_out.contains(queue),
                Reach::Here { mut groups, .. } => groups.any(|name| name == queue),
            };
            if wanted {
                ways.queue(at, members, reach);
            }
        }
        if ways.leaves {
            let hops = reach.hops_behind();
            for outbox in ways.outboxes.iter_mut().filter(|outbox| outbox.touched) {
                let message = PeerMessage {
                    account: routed.account,
                    conn: origin.conn,
                    shard: origin.shard,
                    hops,
                    to: routed.to,
                    msg: routed.msg,
                    plain: std::mem::take(&mut outbox.plain),
                };
                let groups = std::mem::take(&mut outbox.groups);
                outbox.put_message(&message, groups.iter().map(|&at| &*matches.queues[at].0));
                outbox.groups = groups;
                outbox.groups.clear();
                outbox.touched = false;
            }
        }
        let (receivers, crossings) = (ways.receivers, ways.crossings);
        if !self.sinks.crowded.is_empty() {
            self.stall(routed.now, origin);
        }
        match crossings.is_empty() {
            true => receivers,
            false => receivers + self.cross(routed, origin, (&crossings, &shared), inside),
        }
    }

    /// Publishes from inside the process: routed by `to`, while receivers see `msg.subject` (a delivery of a stream's
    /// message goes to an inbox under the message's own subject). Returns how many sinks wanted it; another shard
    /// counts as one.
    pub fn publish(
        &mut self,
        now: Time,
        account: AccountId,
        to: &[u8],
        msg: &Message<'_>,
        inside: &mut impl Inside,
    ) -> usize {
        let routed = Routed { now, account, to, msg: *msg, from: NOBODY };
        let origin = Origin { account, conn: None, shard: self.config.shard };
        let receivers = self.route(&routed, origin, Reach::Everywhere, inside);
        self.sweep();
        receivers
    }

    /// Whether anybody, on any shard, wants messages on this subject.
    pub fn has_interest(&self, account: AccountId, subject: &[u8]) -> bool {
        let Some(state) = self.accounts.get(account.0 as usize) else { return false };
        match state.bridged {
            false => state.interest.has_interest(subject),
            true => self.has_interest_beyond(account, subject),
        }
    }

    /// Whether anybody, on any shard, subscribed to this very subject and not only to a wildcard that matches it.
    pub fn has_literal_interest(&self, account: AccountId, subject: &[u8]) -> bool {
        self.accounts.get(account.0 as usize).is_some_and(|state| state.interest.has_literal(subject))
    }

    /// Rises whenever what clients listen to has changed: whoever depends on interest looks again when it did.
    pub fn interest_changes(&self) -> u64 {
        self.interest_changes
    }

    /// What the other shards must hear, one batch for each that must hear something.
    pub fn take_peer_ops(&mut self) -> Vec<(ShardId, PeerBatch)> {
        (0u16..)
            .zip(&mut self.outboxes)
            .filter_map(|(to, outbox)| Some((ShardId(to), outbox.take()?)))
            .collect()
    }

    /// Applies what another shard had to say. Batches of one shard must come in the order in which it gave them.
    pub fn handle_peer(&mut self, now: Time, from: ShardId, batch: PeerBatch, inside: &mut impl Inside) {
        if usize::from(from.0) >= self.outboxes.len() || from == self.config.shard {
            return;
        }
        peers::read(&batch, |received| match received {
            Received::Interest(change) => self.apply_interest(from, change),
            Received::Connections { account, count } => {
                let shard = usize::from(from.0);
                let elsewhere = &mut self.account_mut(account).elsewhere;
                elsewhere.resize(elsewhere.len().max(shard + 1), 0);
                elsewhere[shard] = count;
            }
            Received::Stall { conn, on } => self.handle_stall(conn, on.then_some(now)),
            Received::Message(m, groups) => {
                let routed = Routed { now, account: m.account, to: m.to, msg: m.msg, from: NOBODY };
                let origin = Origin { account: m.account, conn: m.conn, shard: m.shard };
                self.route(&routed, origin, Reach::Here { plain: m.plain, groups, hops: m.hops }, inside);
                self.sweep();
            }
        });
        self.outboxes[usize::from(from.0)].note_applied(&batch);
        self.release_pongs();
        self.sweep();
    }

    fn apply_interest(&mut self, from: ShardId, change: InterestChange<'_>) {
        let InterestChange { account, filter, queue, members } = change;
        self.interest_changes += 1;
        let old = match queue {
            None => u32::from(members == 0),
            Some(queue) => {
                let key = (from, account, filter.into(), queue.into());
                match members {
                    0 => self.weights.remove(&key),
                    _ => self.weights.insert(key, members),
                }
                .unwrap_or(0)
            }
        };
        let interest = &mut self.account_mut(account).interest;
        if old > 0 {
            interest.remove(filter, queue, &Sink::Peer(from, old));
        }
        if members > 0 {
            let members = if queue.is_some() { members } else { 1 };
            interest.insert(filter, queue, Sink::Peer(from, members));
        }
    }

    /// The number of the newest change of this hub's interest.
    pub fn interest_mark(&self) -> u64 {
        self.mark
    }

    /// All other shards have applied this hub's changes up to this mark.
    pub fn interest_settled(&self) -> u64 {
        let own = usize::from(self.config.shard.0);
        let others = self.outboxes.iter().enumerate().filter(|(shard, _)| *shard != own);
        others.map(|(_, outbox)| outbox.acked).min().unwrap_or(self.mark)
    }
}
