//! Who gets this message: matching, the choice among queue members, and the way to other shards.

use hw_kit::{AccountId, LinkId, Rng, ShardId, Time};
use hw_subject::Matched;

use crate::cross::SharedGroups;
use crate::hub::{Hub, Sink};
use crate::links::Links;
use crate::message::{Inside, Message, Origin};
use crate::peers::{self, Groups, InterestChange, MAX_HOPS, Note, Outbox, PeerBatch, PeerMessage, Received};
use crate::sinks::{NOBODY, Routed, Sinks};

/// How far a message may go.
#[derive(Clone, Copy)]
pub(crate) enum Reach<'a> {
    /// It was published here: to all sinks of all shards and servers.
    Everywhere,
    /// It comes from another shard: to the sinks here that were chosen there. With `far`, to those on other servers, too.
    Here { plain: bool, far: bool, groups: Groups<'a>, hops: u8 },
    /// It comes from another server: to the sinks of all shards here that were chosen there.
    Arrived { plain: bool, groups: &'a [&'a [u8]], hops: u8 },
}

/// Where the members of a queue group may be.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Where {
    /// On this shard.
    Here,
    /// On another shard of this server.
    Beside,
    /// On another server that is heard.
    Far,
    /// On another server that says nothing.
    Lost,
}

/// A queue group whose name begins with this is the server's own: clients cannot name one like it. Its messages of one
/// client go one way, so that they stay in order.
pub const ORDERED: u8 = b' ';

/// No shard: the key of what is on other servers among the groups of other shards.
const FAR: ShardId = ShardId(u16::MAX);

impl Reach<'_> {
    /// How often the message has moved on when it leaves from here.
    fn hops_behind(self) -> u8 {
        match self {
            Reach::Everywhere => 0,
            Reach::Here { hops, .. } | Reach::Arrived { hops, .. } => hops.saturating_add(1),
        }
    }
}

/// One message on its way to the sinks that match.
struct Ways<'a, I> {
    sinks: &'a mut Sinks,
    outboxes: &'a mut [Outbox],
    links: &'a mut Links,
    rng: &'a mut Rng,
    inside: &'a mut I,
    routed: &'a Routed<'a>,
    origin: Origin,
    receivers: usize,
    /// Other servers may have it.
    is_exported: bool,
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
            Sink::Internal(id) | Sink::Private(id) => {
                let msg = Message { subject: self.routed.to, ..self.routed.msg };
                self.inside.deliver(self.routed.now, id, self.origin, &msg);
                true
            }
            Sink::Peer(..) | Sink::Remote(..) | Sink::Far(_) | Sink::Bridge(_) | Sink::Answers => false,
        }
    }

    #[inline]
    fn plain(&mut self, sink: Sink, reach: Reach<'_>) {
        let taken = match (sink, reach) {
            (Sink::Peer(shard, _), Reach::Everywhere | Reach::Arrived { plain: true, .. }) => {
                self.note(shard).plain = true;
                true
            }
            (Sink::Far(_), Reach::Everywhere) => {
                self.note(ShardId(0)).far = true;
                true
            }
            (Sink::Remote(link, _), Reach::Everywhere | Reach::Here { far: true, .. }) => {
                let note = self.link(link);
                note.map(|note| note.plain = true).is_some()
            }
            // Where the message was published it has taken the bridges already.
            (Sink::Bridge(_), Reach::Everywhere) => {
                self.crossings.push(sink);
                false
            }
            (Sink::Private(_), Reach::Arrived { .. })
            | (_, Reach::Here { plain: false, .. } | Reach::Arrived { plain: false, .. }) => false,
            (Sink::Answers, _) => {
                self.crossings.push(sink);
                false
            }
            _ => self.here(sink),
        };
        self.receivers += usize::from(taken);
    }

    fn note(&mut self, shard: ShardId) -> &mut Note {
        self.leaves = true;
        let note = &mut self.outboxes[usize::from(shard.0)].note;
        note.touched = true;
        note
    }

    fn link(&mut self, link: LinkId) -> Option<&mut Note> {
        if !self.is_exported {
            return None;
        }
        let note = &mut self.links.get_mut(link)?.note;
        self.leaves = true;
        note.touched = true;
        Some(note)
    }

    /// Which member comes first: anyone, by weight, or always the same one on another server for a group of the server's own.
    fn first(
        &mut self,
        members: &[Sink],
        weight: impl Fn(&Links, &Sink) -> u64,
        is_ordered: bool,
    ) -> Option<usize> {
        let links = &*self.links;
        if is_ordered {
            let eligible = (0..members.len()).filter(|at| weight(links, &members[*at]) > 0);
            return eligible.min_by_key(|at| match members[*at] {
                Sink::Remote(link, _) => link.0,
                _ => 0,
            });
        }
        let total: u64 = members.iter().map(|sink| weight(links, sink)).sum();
        let mut left = if total == 0 { return None } else { self.rng.below(total) };
        members.iter().position(|sink| {
            let weight = weight(links, sink);
            let chosen = left < weight;
            left = left.saturating_sub(weight);
            chosen
        })
    }

    /// One member of the group at position `at` gets it. `far`: one on another server was chosen where it comes from.
    fn queue(&mut self, (at, queue): (usize, &[u8]), members: &[Sink], (reach, far): (Reach<'_>, bool)) {
        use Where::{Beside, Far, Here, Lost};
        let order: &[&[Where]] = match reach {
            Reach::Everywhere => &[&[Here, Beside], &[Far], &[Lost]],
            // The members that the sender knew of may have left meanwhile.
            Reach::Here { hops, .. } if hops >= MAX_HOPS => &[&[Here]],
            Reach::Here { .. } if far => &[&[Far], &[Lost], &[Here], &[Beside]],
            Reach::Here { .. } => &[&[Here], &[Beside], &[Far]],
            Reach::Arrived { hops, .. } if hops >= MAX_HOPS => &[&[Here, Beside]],
            Reach::Arrived { .. } => &[&[Here, Beside], &[Far]],
        };
        let is_ordered = queue.first() == Some(&ORDERED);
        let taken = order.iter().any(|places| self.pick((at, is_ordered), members, places));
        self.receivers += usize::from(taken);
    }

    /// Begins at some member in one of these places and goes on until one takes the message.
    fn pick(&mut self, (at, is_ordered): (usize, bool), members: &[Sink], places: &[Where]) -> bool {
        let weight = |links: &Links, sink: &Sink| match sink {
            _ if !places.contains(&place(links, *sink)) => 0,
            Sink::Peer(_, members) | Sink::Remote(_, members) | Sink::Far(members) => u64::from(*members),
            _ => 1,
        };
        let Some(first) = self.first(members, weight, is_ordered) else { return false };
        let (before, after) = members.split_at(first);
        for &sink in after.iter().chain(before) {
            if weight(self.links, &sink) == 0 {
                continue;
            }
            let taken = match sink {
                Sink::Peer(shard, _) => {
                    self.note(shard).groups.push((at, false));
                    true
                }
                Sink::Far(_) => {
                    self.note(ShardId(0)).groups.push((at, true));
                    true
                }
                Sink::Remote(link, _) => self.link(link).map(|note| note.groups.push((at, false))).is_some(),
                _ => self.here(sink),
            };
            if taken {
                return true;
            }
        }
        false
    }
}

/// Where a queue group's member is.
fn place(links: &Links, sink: Sink) -> Where {
    match sink {
        Sink::Peer(..) => Where::Beside,
        Sink::Remote(link, _) if links.is_quiet(link) => Where::Lost,
        Sink::Remote(..) | Sink::Far(_) => Where::Far,
        _ => Where::Here,
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
            links: &mut self.links,
            rng: &mut self.rng,
            inside: &mut *inside,
            routed,
            origin,
            receivers: 0,
            is_exported: self.config.sends(routed.to),
            leaves: false,
            crossings: Vec::new(),
        };
        let wants_plain = match reach {
            Reach::Everywhere => true,
            Reach::Here { plain, far, .. } => plain || far,
            Reach::Arrived { plain, .. } => plain,
        };
        if wants_plain {
            for &sink in &matches.plain {
                ways.plain(sink, reach);
            }
        }
        for (at, (queue, members)) in matches.queues.iter().enumerate() {
            let chosen = match reach {
                Reach::Everywhere => (!shared.is_away(at) && !left_out.contains(queue)).then_some(false),
                Reach::Here { mut groups, .. } => groups.find(|(name, _)| name == queue).map(|(_, far)| far),
                Reach::Arrived { groups, .. } => groups.iter().any(|name| name == queue).then_some(false),
            };
            if let Some(far) = chosen {
                ways.queue((at, queue), members, (reach, far));
            }
        }
        let (receivers, leaves, crossings) = (ways.receivers, ways.leaves, ways.crossings);
        if leaves {
            self.hand_on(routed, origin, reach.hops_behind(), &matches);
        }
        if !self.sinks.crowded.is_empty() {
            self.stall(routed.now, origin);
        }
        match crossings.is_empty() {
            true => receivers,
            false => receivers + self.cross(routed, origin, (&crossings, &shared), inside),
        }
    }

    /// Puts a message into the outboxes of those that were chosen for it.
    fn hand_on(&mut self, routed: &Routed<'_>, origin: Origin, hops: u8, matches: &Matched<Sink>) {
        let names = |at: usize| &*matches.queues[at].0;
        let message = PeerMessage {
            account: routed.account,
            conn: origin.conn,
            shard: origin.shard,
            hops,
            to: routed.to,
            msg: routed.msg,
            plain: false,
            far: false,
        };
        for outbox in self.outboxes.iter_mut().filter(|outbox| outbox.note.touched) {
            let note = std::mem::take(&mut outbox.note);
            let message = PeerMessage { plain: note.plain, far: note.far, ..message };
            outbox.put_message(&message, note.groups.iter().map(|&(at, far)| (names(at), far)));
            outbox.note.reuse(note);
        }
        if self.links.is_empty() {
            return;
        }
        let account = self.config.directory.account(routed.account);
        let account = account.map_or("", |account| &account.name);
        for link in self.links.outboxes().filter(|link| link.note.touched) {
            let note = std::mem::take(&mut link.note);
            let message = PeerMessage { plain: note.plain, ..message };
            link.outbox.put_message(account, &message, note.groups.iter().map(|&(at, _)| names(at)));
            link.count(message.msg.size());
            link.note.reuse(note);
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
        let before = self.mark;
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
                let reach = Reach::Here { plain: m.plain, far: m.far, groups, hops: m.hops };
                if self.route(&routed, origin, reach, inside) == 0 {
                    self.note_unclaimed(&routed);
                }
                self.sweep();
            }
        });
        let (mark, applied) = batch.marks();
        let outbox = &mut self.outboxes[usize::from(from.0)];
        outbox.acked = outbox.acked.max(applied);
        if mark > 0 {
            self.note_applied(from, mark, before);
        }
        self.settle_marks();
        self.sweep();
    }

    fn apply_interest(&mut self, from: ShardId, change: InterestChange<'_>) {
        let InterestChange { account, filter, queue, members, far } = change;
        self.interest_changes += 1;
        let old = match queue {
            None => u32::from(members == 0),
            Some(queue) => {
                let from = if far { FAR } else { from };
                let key = (from, account, filter.into(), queue.into());
                match members {
                    0 => self.weights.remove(&key),
                    _ => self.weights.insert(key, members),
                }
                .unwrap_or(0)
            }
        };
        let members = if queue.is_some() { members } else { members.min(1) };
        let sink = |members| if far { Sink::Far(members) } else { Sink::Peer(from, members) };
        let interest = &mut self.account_mut(account).interest;
        if old > 0 {
            interest.remove(filter, queue, &sink(old));
        }
        if members > 0 {
            interest.insert(filter, queue, sink(members));
        }
        if self.config.shard == ShardId(0) {
            self.tell_links(account, (filter, queue), i64::from(members) - i64::from(old));
        }
    }

    /// The number of the newest change of this hub's interest.
    pub fn interest_mark(&self) -> u64 {
        self.mark
    }
}
