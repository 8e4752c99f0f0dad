//! Links with other servers. Shard 0 has them: it tells each server the sums of this server's interest, by the accounts'
//! names, and tells the other shards what the other servers want.
//!
//! A message goes to another server at most once, and only from the server where it was published. The one exception is a
//! queue group that was chosen there but has no member left here, as between shards.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hw_auth::Permissions;
use hw_kit::{AccountId, LinkId, Map, ShardId, Time};

use crate::config::HubConfig;
use crate::hub::{Hub, Sink};
use crate::message::{Inside, Origin};
use crate::peers::{InterestChange, Note};
use crate::remote::{Entry, RemoteBatch, RemoteMessage, RemoteOutbox};
use crate::route::Reach;
use crate::session::Traffic;
use crate::sinks::{NOBODY, Routed};

/// A filter and perhaps a queue group.
type Wish = (Box<[u8]>, Option<Box<[u8]>>);

/// What another server wants in one account.
#[derive(Debug, Default)]
struct FarAccount {
    /// The account's number here; None: it is not configured here.
    id: Option<AccountId>,
    wishes: Map<Wish, u32>,
}

/// Another server.
#[derive(Debug, Default)]
pub(crate) struct Link {
    pub outbox: RemoteOutbox,
    pub note: Note,
    /// Nothing was heard of it for a while: nobody waits for it, and queue groups prefer others.
    quiet: bool,
    accounts: BTreeMap<String, FarAccount>,
    traffic: Traffic,
}

/// All other servers, on shard 0.
#[derive(Debug, Default)]
pub(crate) struct Links {
    /// There was one at some time: sums are kept from then on.
    active: bool,
    links: BTreeMap<LinkId, Link>,
    /// What this server wants in all.
    sums: Map<(AccountId, Wish), u32>,
    /// What all other servers want together.
    far: Map<(AccountId, Wish), u32>,
    /// Shards whose marks are answered once the other servers have applied ours.
    shards_wait: VecDeque<(ShardId, u64, u64)>,
    /// Servers whose marks are answered once the other shards have applied ours.
    links_wait: VecDeque<(LinkId, u64, u64)>,
}

/// One link, for monitoring.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LinkCounters {
    /// Messages from and to the other server.
    pub traffic: Traffic,
    /// The filters that it wants, in all accounts.
    pub subscriptions: usize,
}

impl Links {
    pub fn outboxes(&mut self) -> impl Iterator<Item = &mut Link> {
        self.links.values_mut()
    }

    pub fn get_mut(&mut self, link: LinkId) -> Option<&mut Link> {
        self.links.get_mut(&link)
    }

    pub fn is_quiet(&self, link: LinkId) -> bool {
        self.links.get(&link).is_none_or(|link| link.quiet)
    }

    /// Whether there are other servers now.
    pub fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    pub fn is_active(&self) -> bool {
        self.active
    }

    /// All other servers that are heard have applied the changes up to this mark.
    fn settled(&self, newest: u64) -> u64 {
        let heard = self.links.values().filter(|link| !link.quiet);
        let behind = heard.filter(|link| link.outbox.acked < link.outbox.sent);
        behind.map(|link| link.outbox.acked).min().unwrap_or(newest)
    }
}

impl Link {
    /// A message goes there.
    pub fn count(&mut self, size: usize) {
        self.traffic.out_msgs += 1;
        self.traffic.out_bytes += size as u64;
    }
}

/// Changes a count, and gives the new one if others must know: without a queue group only whether it is zero.
fn change(counts: &mut Map<(AccountId, Wish), u32>, key: (AccountId, Wish), by: i64) -> Option<u32> {
    let queue = key.1.1.is_some();
    let old = counts.get(&key).copied().unwrap_or(0);
    let new = u32::try_from((i64::from(old) + by).max(0)).unwrap_or(u32::MAX);
    match new {
        0 => counts.remove(&key),
        _ => counts.insert(key, new),
    };
    let told = |count: u32| if queue { count } else { count.min(1) };
    (told(old) != told(new)).then(|| told(new))
}

fn wish(filter: &[u8], queue: Option<&[u8]>) -> Wish {
    (filter.into(), queue.map(Box::from))
}

impl Hub {
    /// There is a link with another server: it is told everything that this server wants. Only for shard 0.
    pub fn handle_link_up(&mut self, link: LinkId) {
        debug_assert!(self.config.shard == ShardId(0));
        self.activate();
        let mut new = Link::default();
        // Earlier changes need not be waited for: they are part of what it is told now.
        new.outbox.acked = self.mark;
        self.mark += 1;
        new.outbox.sent = self.mark;
        let directory = &self.config.directory;
        let mut is_told = false;
        for ((account, (filter, queue)), members) in &self.links.sums {
            if !self.config.imports(filter) {
                continue;
            }
            let Some(name) = directory.account(*account).map(|account| &account.name) else { continue };
            let members = if queue.is_some() { *members } else { 1 };
            new.outbox.put_interest((*account, name), filter, queue.as_deref(), members);
            is_told = true;
        }
        if !is_told {
            new.outbox.acked = new.outbox.sent;
        }
        self.links.links.insert(link, new);
    }

    /// A link is gone: so is the other server's interest.
    pub fn handle_link_down(&mut self, link: LinkId) {
        let Some(gone) = self.links.links.remove(&link) else { return };
        for far in gone.accounts.into_values() {
            let Some(account) = far.id else { continue };
            for ((filter, queue), members) in far.wishes {
                self.set_far((link, account), (&filter, queue.as_deref()), (members, 0));
            }
        }
        self.links.links_wait.retain(|(waits, _, _)| *waits != link);
        self.settle_marks();
    }

    /// Whether nothing was heard of another server for a while: until it is heard again nobody waits for it.
    pub fn handle_link_quiet(&mut self, link: LinkId, quiet: bool) {
        if let Some(link) = self.links.links.get_mut(&link) {
            link.quiet = quiet;
        }
        self.settle_marks();
    }

    /// Applies what another server had to say. Batches of one server must come in the order in which it gave them.
    pub fn handle_remote(&mut self, now: Time, link: LinkId, batch: &RemoteBatch, inside: &mut impl Inside) {
        let mut entries = batch.entries();
        let mut name = String::new();
        let mut account = None;
        // It was decoded before: there is no entry that cannot be read.
        while let Ok(Some(entry)) = entries.next() {
            match entry {
                Entry::Account(other) => {
                    account = self.config.directory.account_id(other);
                    other.clone_into(&mut name);
                }
                Entry::Interest { filter, queue, members } => {
                    self.apply_far((link, &name), account, (filter, queue), members);
                }
                Entry::Message(message) => self.arrive(now, (link, account), &message, inside),
            }
        }
        let (mark, applied) = batch.marks();
        let Some(found) = self.links.links.get_mut(&link) else { return };
        found.outbox.acked = found.outbox.acked.max(applied.min(found.outbox.sent));
        if mark > 0 {
            self.links.links_wait.push_back((link, mark, self.mark));
        }
        self.settle_marks();
        self.sweep();
    }

    /// What the other servers want, one after the other.
    pub fn link_counters(&self) -> impl Iterator<Item = (LinkId, LinkCounters)> {
        self.links.links.iter().map(|(id, link)| {
            let subscriptions = link.accounts.values().map(|account| account.wishes.len()).sum();
            (*id, LinkCounters { traffic: link.traffic, subscriptions })
        })
    }

    /// The filters that other servers want, in all accounts.
    pub fn link_filters(&self) -> impl Iterator<Item = (LinkId, Vec<String>)> {
        self.links.links.iter().map(|(id, link)| {
            let wishes = link.accounts.values().flat_map(|account| account.wishes.keys());
            (*id, wishes.map(|(filter, _)| String::from_utf8_lossy(filter).into_owned()).collect())
        })
    }

    /// What other servers must hear.
    pub fn take_remote_batches(&mut self) -> Vec<(LinkId, RemoteBatch)> {
        let of_link = |(id, link): (&LinkId, &mut Link)| {
            let id = *id;
            link.outbox.take().into_iter().map(move |batch| (id, batch))
        };
        self.links.links.iter_mut().flat_map(of_link).collect()
    }

    /// Counts this server's interest from now on.
    fn activate(&mut self) {
        if std::mem::replace(&mut self.links.active, true) {
            return;
        }
        let alone = self.config.shards <= 1;
        for (at, state) in (0..).zip(&self.accounts) {
            let account = AccountId(at);
            state.interest.for_each(|filter, queue, sink| {
                let own =
                    matches!(sink, Sink::Client(_) | Sink::Internal(_) | Sink::Private(_) | Sink::Answers);
                // Without a queue group the first one counts for all, as it will when they leave.
                let told = alone && own && self.local.change(account, filter, queue, true).is_some();
                let count = match sink {
                    Sink::Client(_) | Sink::Internal(_) | Sink::Answers if told => 1,
                    Sink::Peer(_, members) => *members,
                    _ => 0,
                };
                if count > 0 {
                    change(&mut self.links.sums, (account, wish(filter, queue)), i64::from(count));
                }
            });
        }
        if !alone {
            // What this shard itself wants was counted all the time.
            for (account, filter, queue, members) in self.local.all() {
                let count = if queue.is_some() { i64::from(members) } else { 1 };
                if !self.private.contains(&(account, filter.into())) {
                    change(&mut self.links.sums, (account, wish(filter, queue)), count);
                }
            }
        }
    }

    /// This server wants more, or less: the other servers are told if they must know. Gives the mark of that.
    pub(crate) fn tell_links(
        &mut self,
        account: AccountId,
        (filter, queue): (&[u8], Option<&[u8]>),
        by: i64,
    ) -> Option<u64> {
        if !self.links.active {
            return None;
        }
        let members = change(&mut self.links.sums, (account, wish(filter, queue)), by)?;
        match self.config.imports(filter) {
            true => self.tell_all(account, (filter, queue), members),
            false => None,
        }
    }

    fn tell_all(
        &mut self,
        account: AccountId,
        (filter, queue): (&[u8], Option<&[u8]>),
        members: u32,
    ) -> Option<u64> {
        if self.links.links.is_empty() {
            return None;
        }
        let directory = &self.config.directory;
        let name = &directory.account(account)?.name;
        self.mark += 1;
        for link in self.links.links.values_mut() {
            link.outbox.put_interest((account, name), filter, queue, members);
            link.outbox.sent = self.mark;
        }
        Some(self.mark)
    }

    /// Another server wants something else.
    fn apply_far(
        &mut self,
        (link, name): (LinkId, &str),
        id: Option<AccountId>,
        (filter, queue): (&[u8], Option<&[u8]>),
        members: u32,
    ) {
        let Some(found) = self.links.links.get_mut(&link) else { return };
        if !found.accounts.contains_key(name) {
            found.accounts.insert(name.to_owned(), FarAccount { id, wishes: Map::default() });
        }
        let Some(far) = found.accounts.get_mut(name) else { return };
        let members = if queue.is_some() { members } else { members.min(1) };
        let old = match members {
            0 => far.wishes.remove(&wish(filter, queue)),
            _ => far.wishes.insert(wish(filter, queue), members),
        };
        if let Some(account) = far.id {
            self.set_far((link, account), (filter, queue), (old.unwrap_or(0), members));
        }
    }

    /// Another server wants something else, which it gets if that is exported.
    fn set_far(
        &mut self,
        (link, account): (LinkId, AccountId),
        (filter, queue): (&[u8], Option<&[u8]>),
        (old, new): (u32, u32),
    ) {
        if self.config.exports(filter, queue) {
            self.grant_far((link, account), (filter, queue), (old, new));
        }
    }

    fn grant_far(
        &mut self,
        (link, account): (LinkId, AccountId),
        (filter, queue): (&[u8], Option<&[u8]>),
        (old, new): (u32, u32),
    ) {
        self.interest_changes += 1;
        let interest = &mut self.account_mut(account).interest;
        if old > 0 {
            interest.remove(filter, queue, &Sink::Remote(link, old));
        }
        if new > 0 {
            interest.insert(filter, queue, Sink::Remote(link, new));
        }
        let by = i64::from(new) - i64::from(old);
        let Some(members) = change(&mut self.links.far, (account, wish(filter, queue)), by) else { return };
        if self.config.shards > 1 {
            self.mark += 1;
            let change = InterestChange { account, filter, queue, members, far: true };
            for outbox in self.outboxes.iter_mut().skip(1) {
                outbox.put_interest(change, self.mark);
            }
        }
    }

    /// A message of another server, for those here who want it.
    fn arrive(
        &mut self,
        now: Time,
        (link, account): (LinkId, Option<AccountId>),
        message: &RemoteMessage<'_>,
        inside: &mut impl Inside,
    ) {
        if let Some(link) = self.links.links.get_mut(&link) {
            link.traffic.in_msgs += 1;
            link.traffic.in_bytes += message.msg.size() as u64;
        }
        let Some(account) = account else { return };
        let routed = Routed { now, account, to: message.to, msg: message.msg, from: NOBODY };
        let origin = Origin { account, conn: None, shard: self.config.shard };
        let RemoteMessage { plain, hops, ref groups, .. } = *message;
        if self.route(&routed, origin, Reach::Arrived { plain, groups, hops }, inside) == 0 {
            self.note_unclaimed(&routed);
        }
        self.sweep();
    }

    /// Other accounts are configured: what other servers want in them counts from now on.
    pub(crate) fn name_far_accounts(&mut self) {
        let directory = self.config.directory.clone();
        let mut new = Vec::new();
        for (id, link) in &mut self.links.links {
            for (name, far) in link.accounts.iter_mut().filter(|(_, far)| far.id.is_none()) {
                far.id = directory.account_id(name);
                if let Some(account) = far.id {
                    new.extend(
                        far.wishes.iter().map(|(wish, members)| (*id, account, wish.clone(), *members)),
                    );
                }
            }
        }
        for (link, account, (filter, queue), members) in new {
            self.set_far((link, account), (&filter, queue.as_deref()), (0, members));
        }
    }

    /// Exchanges something else with the other servers from now on. Only for shard 0.
    pub fn set_exchange(&mut self, exchange: Option<Arc<Permissions>>) {
        let before = HubConfig { exchange, ..self.config.clone() };
        let before = std::mem::replace(&mut self.config, before);
        let mut told = Vec::new();
        for ((account, (filter, queue)), members) in &self.links.sums {
            let members = if queue.is_some() { *members } else { 1 };
            match (before.imports(filter), self.config.imports(filter)) {
                (false, true) => told.push((*account, filter.clone(), queue.clone(), members)),
                (true, false) => told.push((*account, filter.clone(), queue.clone(), 0)),
                _ => {}
            }
        }
        for (account, filter, queue, members) in told {
            self.tell_all(account, (&filter, queue.as_deref()), members);
        }
        let mut granted = Vec::new();
        for (link, far) in
            self.links.links.iter().flat_map(|(id, link)| link.accounts.values().map(|far| (*id, far)))
        {
            let Some(account) = far.id else { continue };
            for ((filter, queue), members) in &far.wishes {
                let change = match (
                    before.exports(filter, queue.as_deref()),
                    self.config.exports(filter, queue.as_deref()),
                ) {
                    (false, true) => (0, *members),
                    (true, false) => (*members, 0),
                    _ => continue,
                };
                granted.push(((link, account), filter.clone(), queue.clone(), change));
            }
        }
        for (of, filter, queue, change) in granted {
            self.grant_far(of, (&filter, queue.as_deref()), change);
        }
    }

    /// A shard's changes up to its `mark` are applied here; `since` is this shard's own mark before that.
    pub(crate) fn note_applied(&mut self, from: ShardId, mark: u64, since: u64) {
        let waits = self.links.shards_wait.iter().any(|(shard, _, _)| *shard == from);
        if waits || (self.mark > since && !self.links.is_empty()) {
            self.links.shards_wait.push_back((from, mark, self.mark));
        } else if let Some(outbox) = self.outboxes.get_mut(usize::from(from.0)) {
            outbox.set_applied(mark);
        }
    }

    /// Marks were acknowledged: whoever waited for that goes on. Shards wait for servers, servers wait for shards only:
    /// so nobody waits for himself.
    pub(crate) fn settle_marks(&mut self) {
        let shards = self.shards_settled();
        while let Some((link, mark, _)) = self.links.links_wait.pop_front_if(|(_, _, need)| *need <= shards) {
            if let Some(link) = self.links.links.get_mut(&link) {
                link.outbox.set_applied(mark);
            }
        }
        let settled = self.interest_settled();
        while let Some((shard, mark, _)) =
            self.links.shards_wait.pop_front_if(|(_, _, need)| *need <= settled)
        {
            if let Some(outbox) = self.outboxes.get_mut(usize::from(shard.0)) {
                outbox.set_applied(mark);
            }
        }
        self.release_pongs();
    }

    /// All other shards have applied this hub's changes up to this mark.
    fn shards_settled(&self) -> u64 {
        let behind = self.outboxes.iter().filter(|outbox| outbox.acked < outbox.sent);
        behind.map(|outbox| outbox.acked).min().unwrap_or(self.mark)
    }

    /// All other shards, and all other servers that are heard, have applied this hub's changes up to this mark.
    pub fn interest_settled(&self) -> u64 {
        self.shards_settled().min(self.links.settled(self.mark))
    }
}
