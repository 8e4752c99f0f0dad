//! Mirrors and sources: the leader reads what an origin has committed and proposes the copies to the stream that follows
//! it. Nothing here is kept: after a restart the stream's own state says where to go on.

mod far;

use std::collections::BTreeSet;

use bytes::Bytes;
use hw_jsapi::ApiError;
use hw_kit::{AccountId, GroupId, Rng, Seq, Span, Time};
use hw_store::messages::{Fetch, Matcher};
use hw_stream::command::Fed;
use hw_stream::config::StreamSource;
use hw_stream::feed::Route;
use hw_stream::info::{ErrorInfo, StreamInfo, StreamSourceInfo};
use hw_stream::outcome::{Feeding, PublishError};
use hw_stream::stream::Position;
use hw_stream::{Command, Stream, StreamConfig};

use crate::group::Group;
use crate::jetstream::JetStream;
use crate::limits::{FEED_BATCH, FEED_BATCH_BYTES, FEED_BATCHES};
use crate::log::Origin;
use crate::read::{UNREADABLE, name_of};

pub(crate) use far::Wanted;

/// How long a feed waits before it tries again what was refused.
const RETRY: Span = Span::from_secs(1);

/// How long it lets others go first after a round's share.
const NEXT_ROUND: Span = Span::from_millis(1);

/// A mirror that lacks so many messages does not answer direct gets for its origin, as with `nats-server`.
const MIRROR_LAG_MAX: u64 = 10;

/// What a group takes from others, and who takes from it.
#[derive(Default)]
pub(crate) struct Feeds {
    /// The origins of this group's stream.
    from: Vec<Feed>,
    /// The groups that follow this one.
    to: BTreeSet<GroupId>,
    /// The last sequence that those were woken for.
    told: Seq,
}

/// One origin of a stream.
struct Feed {
    route: Route,
    /// The origin's group, while it exists.
    origin: Option<GroupId>,
    /// The origin's identity as the copies name it.
    identity: Bytes,
    /// What matches in this origin.
    matcher: Option<Matcher>,
    /// Where to read next; not known at first and after a refusal.
    next: Option<Seq>,
    /// What the stream will have when everything proposed is applied: its last sequence, or the source's position.
    after: Seq,
    /// Batches that were proposed and not applied.
    in_flight: usize,
    /// Batches that were proposed in one round.
    round: (Time, usize),
    /// When the origin was seen last.
    active: Option<Time>,
    /// When to try again.
    retry: Option<Time>,
    /// Why the last batch was refused.
    error: Option<ApiError>,
    /// A limit of the account or the server is near: messages go one by one.
    cramped: bool,
    /// Where it is asked for, while it has no replica here.
    far: far::Far,
}

/// What a look at the origin gave.
enum Look {
    /// These are next; the origin was read up to that.
    Batch(Vec<Fed>, Seq),
    /// A block must be loaded first.
    Load(hw_store::messages::BlockId),
    /// Nothing new.
    Nothing,
}

impl Feeds {
    /// When a feed is next due.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.from.iter().filter_map(|feed| feed.retry).min()
    }

    /// The origins as they are configured.
    pub(crate) fn origins(&self) -> impl Iterator<Item = &StreamSource> {
        self.from.iter().map(|feed| feed.route.config())
    }

    /// Whether some origin may be in another account.
    pub(crate) fn has_external(&self) -> bool {
        self.origins().any(|origin| origin.external.is_some())
    }

    /// The origins were looked for again. Gives the groups that are followed no more, and those that are.
    pub(crate) fn reattach(
        &mut self,
        found: Vec<Option<(GroupId, Bytes)>>,
    ) -> (BTreeSet<GroupId>, BTreeSet<GroupId>) {
        let mut gone: BTreeSet<GroupId> = self.from.iter().filter_map(|feed| feed.origin).collect();
        for (feed, origin) in self.from.iter_mut().zip(found) {
            if feed.origin != origin.as_ref().map(|(id, _)| *id) {
                feed.attach(origin);
            }
        }
        let come: BTreeSet<GroupId> = self.from.iter().filter_map(|feed| feed.origin).collect();
        gone.retain(|origin| !come.contains(origin));
        (gone, come)
    }

    /// A group follows this one.
    pub(crate) fn note(&mut self, follower: GroupId) {
        self.to.insert(follower);
    }

    /// A group follows this one no more.
    pub(crate) fn forget(&mut self, follower: GroupId) {
        self.to.remove(&follower);
    }
}

impl Feed {
    fn new(route: Route) -> Feed {
        Feed {
            route,
            origin: None,
            identity: Bytes::new(),
            matcher: None,
            next: None,
            after: Seq(0),
            in_flight: 0,
            round: (Time(0), 0),
            active: None,
            retry: None,
            error: None,
            cramped: false,
            far: far::Far::default(),
        }
    }

    /// Whether it already leads this way.
    fn is_for(&self, route: &Route) -> bool {
        (self.route.is_mirror(), self.route.config()) == (route.is_mirror(), route.config())
    }

    /// The origin is there, or is another one now, or is gone.
    fn attach(&mut self, origin: Option<(GroupId, Bytes)>) {
        let (id, identity) = origin.unzip();
        (self.origin, self.identity) = (id, identity.unwrap_or_default());
        (self.matcher, self.next, self.error) = (None, None, None);
        (self.far, self.retry) = (far::Far::default(), None);
    }

    /// Where the stream's own state says to go on: what it has, and what to read first.
    fn place(&self, stream: &Stream, origin: &Stream) -> (Seq, Seq) {
        let (position, origin) = (stream.position(self.route.key()), origin.messages());
        let after = match (self.route.is_mirror(), position) {
            (true, _) => stream.messages().last_seq(),
            (false, Some(at)) if at.identity == self.identity => at.seq,
            // After a restore it goes on, if the origin can be the one of before.
            (false, Some(at)) if at.identity.is_empty() && at.seq <= origin.last_seq() => at.seq,
            // Another origin had the name before: this one is taken from its beginning.
            (false, Some(_)) => return (Seq(0), origin.first_seq()),
            (false, None) => Seq(0),
        };
        (after, if after == Seq(0) { self.route.start(origin) } else { after.next() })
    }

    /// Reads the next messages.
    fn look(&mut self, from: Seq, origin: &Stream, up_to: Seq) -> Look {
        let messages = origin.messages();
        let matcher = self.matcher.get_or_insert_with(|| messages.matcher(&self.route.filters()));
        let (mut batch, mut bytes, mut at) = (Vec::new(), 0, from);
        let most = if self.cramped { 1 } else { FEED_BATCH };
        while batch.len() < most && bytes < FEED_BATCH_BYTES {
            let Some(seq) = messages.next_match(at, matcher).filter(|seq| *seq <= up_to) else {
                at = at.max(up_to.next());
                break;
            };
            match messages.fetch(seq) {
                Fetch::OnDisk(block) if batch.is_empty() => return Look::Load(block),
                Fetch::OnDisk(_) => break,
                Fetch::Absent => {}
                Fetch::Message(message) => {
                    bytes += message.record.joined().len();
                    batch.extend(self.route.copy(&message, &self.identity));
                }
            }
            at = seq.next();
        }
        if batch.is_empty() && at == from { Look::Nothing } else { Look::Batch(batch, at) }
    }

    /// The account or the server has no room for a batch: its messages are tried one by one, then again later.
    fn lack_room(&mut self, now: Time, error: &PublishError) {
        self.next = None;
        if self.cramped {
            self.error = Some(error.into());
            self.retry = Some(now + RETRY);
        }
        self.cramped = !self.cramped;
    }

    /// The command for a batch; it follows what was proposed before.
    fn command(&mut self, now: Time, first: Seq, messages: Vec<Fed>) -> Command {
        let after = self.after;
        if let Some(last) = messages.last() {
            self.after = last.seq;
        } else {
            self.after = first.prev();
        }
        match self.route.is_mirror() {
            true => Command::Mirrored { ts: now, after, first, messages },
            false => {
                let (source, identity) = (self.route.key().clone(), self.identity.clone());
                Command::Sourced { ts: now, source, identity, after, messages }
            }
        }
    }

    fn info(&self, now: Time, origin: Option<&Group>, stream: &Stream) -> StreamSourceInfo {
        let config = self.route.config();
        let of_this = |at: &&Position| origin.is_none() || at.identity == self.identity;
        let position = stream.position(self.route.key()).filter(of_this);
        let lag = origin.zip(self.active).map_or(self.far.lag(), |(origin, _)| {
            let (messages, (_, from)) = (origin.stream.messages(), self.place(stream, &origin.stream));
            messages.count_from(from, &mut messages.matcher(&self.route.filters()))
        });
        let active = match (origin, self.active) {
            (_, None) => Span(-1),
            // It is in reach at this very moment; tools read 0 as never.
            (Some(_), Some(_)) => Span(1),
            (None, Some(seen)) => now.since(seen),
        };
        StreamSourceInfo {
            name: config.name.clone(),
            external: config.external.clone(),
            lag,
            seq: position.map_or(0, |at| at.seq.0),
            active,
            error: self.error.as_ref().map(|error| ErrorInfo {
                code: error.code,
                err_code: error.err_code,
                description: error.description.clone(),
            }),
            filter_subject: config.filter_subject.clone(),
            subject_transforms: config.subject_transforms.clone(),
        }
    }
}

impl JetStream {
    /// Whether the origin of a mirror is a stream of the same account that answers direct gets. Then it does so itself: what it
    /// says is never old.
    pub(crate) fn has_origin_here(&self, mirror: GroupId) -> bool {
        let Some((account, name)) = self.home_of(mirror) else { return false };
        let account = self.account_name(account);
        let config = self.meta.stream(&account, name).map(|asset| &asset.config);
        let origin = config.and_then(|config| config.mirror.as_ref());
        let origin = origin.filter(|origin| origin.external.is_none());
        origin
            .and_then(|origin| self.meta.stream(&account, &origin.name))
            .is_some_and(|origin| origin.config.allow_direct)
    }

    /// Whether a mirror is known to lack so much that it does not answer for its origin.
    pub(crate) fn is_far_behind(&self, now: Time, mirror: GroupId) -> bool {
        let Some(group) = self.groups.get(&mirror) else { return true };
        let Some(feed) = group.feeds.from.first().filter(|feed| feed.active.is_some()) else {
            return group.stream.messages().is_empty();
        };
        let origin = feed.origin.and_then(|origin| self.groups.get(&origin));
        feed.info(now, origin, &group.stream).lag >= MIRROR_LAG_MAX
    }

    /// The account and the name of a stream, whether it has a replica here or not.
    fn home_of(&self, id: GroupId) -> Option<(AccountId, &str)> {
        match &self.cluster {
            Some(cluster) => cluster.forwards.home_of(id),
            None => self.groups.get(&id).map(|group| (group.account, name_of(group))),
        }
    }
}

/// Tells a stream from others that had or will have its name, in eight letters.
fn identity_of(group: &Group) -> Bytes {
    let letters = Rng::new(group.id.0 ^ (group.stream.created().0 as u64).rotate_left(20)).base62::<8>();
    Bytes::copy_from_slice(&letters)
}

/// The bytes of the messages that a command brings.
fn size_of(command: &Command) -> usize {
    match command {
        Command::Mirrored { messages, .. } | Command::Sourced { messages, .. } => {
            messages.iter().map(|message| message.record.joined().len()).sum()
        }
        _ => 0,
    }
}

fn routes_of(config: &StreamConfig) -> Vec<Route> {
    let mirror = config.mirror.iter().map(Route::mirror);
    mirror.chain(config.sources.iter().map(Route::source)).collect()
}

impl JetStream {
    /// A stream is there or has a new configuration: its feeds follow, those that stay go on undisturbed.
    pub(crate) fn link_feeds(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let account = group.account;
        let mut old = std::mem::take(&mut group.feeds.from);
        let routes = routes_of(group.stream.config());
        let mut feeds: Vec<Feed> = Vec::with_capacity(routes.len());
        for route in routes {
            match old.iter().position(|feed| feed.is_for(&route)) {
                Some(at) => feeds.push(old.swap_remove(at)),
                None => {
                    let mut feed = Feed::new(route);
                    feed.attach(self.origin_named(id, account, feed.route.config()));
                    feeds.push(feed);
                }
            }
        }
        let origins: BTreeSet<GroupId> = feeds.iter().filter_map(|feed| feed.origin).collect();
        for gone in old.iter().filter_map(|feed| feed.origin).filter(|origin| !origins.contains(origin)) {
            if let Some(origin) = self.groups.get_mut(&gone) {
                origin.feeds.to.remove(&id);
            }
        }
        for origin in origins {
            if let Some(origin) = self.groups.get_mut(&origin) {
                origin.feeds.to.insert(id);
            }
        }
        match feeds.is_empty() {
            true => self.following.remove(&id),
            false => self.following.insert(id),
        };
        if let Some(group) = self.groups.get_mut(&id) {
            group.feeds.from = feeds;
        }
        self.touch(id);
    }

    /// The group of an origin of group `id`; it is never that group itself.
    pub(crate) fn origin_named(
        &self,
        id: GroupId,
        account: AccountId,
        origin: &StreamSource,
    ) -> Option<(GroupId, Bytes)> {
        let account = self.account_of_origin(account, origin)?;
        let origin = self.group_named(account, &origin.name).filter(|origin| *origin != id)?;
        self.groups.get(&origin).map(|group| (origin, identity_of(group)))
    }

    /// A stream is there: those that wait for one of its name begin.
    pub(crate) fn offer_origin(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let (account, name, identity) =
            (group.account, group.stream.config().name.clone(), identity_of(group));
        let mut followers = BTreeSet::new();
        let is_for = |other: &Group, feed: &Feed| {
            let origin = feed.route.config();
            origin.name == name && self.account_of_origin(other.account, origin) == Some(account)
        };
        let waiting: Vec<(GroupId, Vec<bool>)> = self
            .following
            .iter()
            .filter_map(|other| self.groups.get(other))
            .filter(|other| other.id != id)
            .map(|other| (other.id, other.feeds.from.iter().map(|feed| is_for(other, feed)).collect()))
            .filter(|(_, wanted): &(GroupId, Vec<bool>)| wanted.contains(&true))
            .collect();
        for (other, wanted) in waiting {
            let Some(group) = self.groups.get_mut(&other) else { continue };
            for (feed, _) in group.feeds.from.iter_mut().zip(wanted).filter(|(_, wanted)| *wanted) {
                feed.attach(Some((id, identity.clone())));
            }
            followers.insert(other);
        }
        for follower in &followers {
            self.touch(*follower);
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.feeds.to = followers;
        }
    }

    /// A stream is gone: those that follow it wait for another of its name.
    pub(crate) fn withdraw_origin(&mut self, now: Time, gone: &Group) {
        for follower in &gone.feeds.to {
            let Some(group) = self.groups.get_mut(follower) else { continue };
            for feed in group.feeds.from.iter_mut().filter(|feed| feed.origin == Some(gone.id)) {
                feed.attach(None);
                feed.active = Some(now);
            }
        }
        for origin in gone.feeds.from.iter().filter_map(|feed| feed.origin) {
            if let Some(origin) = self.groups.get_mut(&origin) {
                origin.feeds.to.remove(&gone.id);
            }
        }
    }

    /// Wakes the streams that follow one that has more than they were told.
    pub(crate) fn wake_followers(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let last = group.stream.messages().last_seq();
        if std::mem::replace(&mut group.feeds.told, last) != last {
            self.touch_followers(id);
        }
    }

    /// Wakes the streams that follow this one.
    pub(crate) fn touch_followers(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        for follower in group.feeds.to.clone() {
            self.touch(follower);
        }
    }

    /// Lets a stream's feeds read and propose.
    pub(crate) fn run_feeds(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.feeds.from.is_empty() {
            return;
        }
        let mut feeds = std::mem::take(&mut group.feeds.from);
        for feed in &mut feeds {
            self.run_feed(now, id, feed);
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.feeds.from = feeds;
        }
    }

    fn run_feed(&mut self, now: Time, id: GroupId, feed: &mut Feed) {
        if feed.retry.is_some_and(|retry| retry > now) {
            return;
        }
        feed.retry = None;
        let Some(from) = feed.origin else { return self.run_far(now, id, feed) };
        while feed.in_flight < FEED_BATCHES {
            let (Some(group), Some(origin)) = (self.groups.get(&id), self.groups.get(&from)) else { return };
            feed.active = Some(now);
            if origin.damage.is_some() || group.damage.is_some() {
                feed.error = Some(ApiError::with(10051, "message is damaged"));
                return;
            }
            let waits =
                !group.is_volatile() && (self.disk.full || self.disk.failed.is_some() || self.is_congested());
            if waits {
                feed.retry = Some(now + RETRY);
                return;
            }
            if feed.round.0 != now {
                feed.round = (now, 0);
            }
            // What commits at once would otherwise take over the shard until all is copied.
            if feed.round.1 >= FEED_BATCHES {
                feed.retry = Some(now + NEXT_ROUND);
                return;
            }
            let command = match feed.next_command(now, &group.stream, origin) {
                Ok(Some(command)) => command,
                Ok(None) => return,
                Err(block) if origin.is_failing(now, block) => {
                    feed.error = Some(ApiError::with(10051, UNREADABLE));
                    feed.retry = Some(now + RETRY);
                    return;
                }
                Err(block) => return self.load(from, block),
            };
            feed.round.1 += 1;
            match self.no_room(id, size_of(&command)) {
                Some(error) => feed.lack_room(now, &error),
                None => {
                    feed.in_flight += 1;
                    self.propose_copies(id, &command);
                }
            }
            if feed.retry.is_some() {
                return;
            }
        }
    }

    fn propose_copies(&mut self, id: GroupId, command: &Command) {
        if let Some(group) = self.groups.get_mut(&id) {
            group.log.propose(Origin::None, |out| command.encode(out));
        }
        self.recount(id);
    }

    /// A batch was applied.
    pub(crate) fn handle_fed(&mut self, now: Time, id: GroupId, key: &Bytes, outcome: &Feeding) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        // A mirror has one feed; its commands name no source.
        let found =
            group.feeds.from.iter_mut().find(|feed| feed.route.is_mirror() || feed.route.key() == key);
        let Some(feed) = found else { return };
        feed.in_flight = feed.in_flight.saturating_sub(1);
        match outcome {
            Feeding::Taken => feed.error = None,
            Feeding::Stale => feed.next = None,
            Feeding::Refused(error) => {
                feed.error = Some(error.into());
                feed.next = None;
                feed.retry = Some(now + RETRY);
            }
        }
    }

    /// How a stream follows others, as infos show it.
    pub(crate) fn show_feeds(&self, now: Time, group: &Group, info: &mut StreamInfo) {
        let routes = routes_of(&info.config).into_iter();
        let mut infos = routes.map(|route| match group.feeds.from.iter().find(|feed| feed.is_for(&route)) {
            Some(feed) => {
                let origin = feed.origin.and_then(|origin| self.groups.get(&origin));
                feed.info(now, origin, &group.stream)
            }
            // Decided, and linked when the configuration is applied.
            None => Feed::new(route).info(now, None, &group.stream),
        });
        if info.config.mirror.is_some() {
            info.mirror = infos.next();
        } else if !info.config.sources.is_empty() {
            info.sources = infos.collect();
        }
    }
}

impl Feed {
    /// The next batch's command, if there is anything to copy; or the block that must be loaded for it.
    fn next_command(
        &mut self,
        now: Time,
        stream: &Stream,
        origin: &Group,
    ) -> Result<Option<Command>, hw_store::messages::BlockId> {
        let mut first = Seq(0);
        let from = match self.next {
            Some(next) => next,
            // What is in flight may still be taken: only then is it known where to go on.
            None if self.in_flight > 0 => return Ok(None),
            None => {
                let (after, from) = self.place(stream, &origin.stream);
                self.after = after;
                if self.route.is_mirror() && self.after == Seq(0) {
                    first = from;
                }
                from
            }
        };
        // What a crash could take back at the origin is not copied yet.
        let (messages, next) = match self.look(from, &origin.stream, origin.lasting_seq()) {
            Look::Batch(messages, next) => (messages, next),
            Look::Load(block) => return Err(block),
            Look::Nothing => (Vec::new(), from),
        };
        self.next = Some(next);
        let nothing = messages.is_empty() && first <= Seq(1);
        Ok(if nothing { None } else { Some(self.command(now, first, messages)) })
    }
}
