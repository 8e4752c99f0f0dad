//! Origins without a replica on the server that leads the copy: it asks the origin's leader for the next messages, one batch at
//! a time, and asks again after a while when there are none.

use bytes::Bytes;
use hw_jsapi::ApiError;
use hw_kit::{GroupId, NodeId, Seq, Span, Time};
use hw_stream::command::Fed;
use hw_stream::config::StreamSource;
use hw_stream::feed::Route;
use hw_stream::{Command, Stream};
use serde::{Deserialize, Serialize};

use super::{Feed, Look, RETRY, identity_of, size_of};
use crate::jetstream::JetStream;

/// How long an origin's server may take to answer.
const PATIENCE: Span = Span::from_secs(2);
/// How often an origin that had nothing new is asked.
const AGAIN: Span = Span::from_millis(250);
/// How soon one that must read its disk first is.
const SOON: Span = Span::from_millis(5);

/// An origin elsewhere.
#[derive(Default)]
pub(super) struct Far {
    /// The question that is not answered.
    asked: Option<u64>,
    /// How often nobody answered: another of its servers may lead it.
    misses: usize,
    /// How many messages it has that are not copied.
    lag: u64,
}

/// What a follower asks for.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Wanted {
    /// The origin's group.
    group: u64,
    /// What of it, and whether for a mirror.
    source: StreamSource,
    mirror: bool,
    /// Where to go on; none: where the follower's state says.
    next: Option<u64>,
    /// The last message that the follower has, and of which origin that was.
    after: Option<(u64, String)>,
    /// One message at a time.
    cramped: bool,
}

/// What an origin's leader says; the messages are behind it, as a command.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Given {
    identity: String,
    /// The follower has everything up to this one.
    after: u64,
    /// The first message that a mirror may have.
    first: u64,
    next: u64,
    lag: u64,
    /// It must read its disk first.
    is_reading: bool,
}

impl Far {
    pub(super) fn lag(&self) -> u64 {
        self.lag
    }
}

impl Feed {
    /// What the stream has of this origin, as it says itself.
    fn had(&self, stream: &Stream) -> Option<(u64, String)> {
        if self.route.is_mirror() {
            let last = stream.messages().last_seq();
            return (last > Seq(0)).then(|| (last.0, String::new()));
        }
        let at = stream.position(self.route.key())?;
        Some((at.seq.0, String::from_utf8_lossy(&at.identity).into_owned()))
    }
}

impl JetStream {
    /// Asks for more of an origin that has no replica here.
    pub(super) fn run_far(&mut self, now: Time, id: GroupId, feed: &mut Feed) {
        if feed.in_flight > 0 || self.cluster.is_none() {
            return;
        }
        if feed.far.asked.take().is_some() {
            // Nobody answered in time.
            feed.far.misses += 1;
        }
        feed.retry = Some(now + RETRY);
        let Some(group) = self.groups.get(&id) else { return };
        let Some(account) = self.account_of_origin(group.account, feed.route.config()) else { return };
        let origin = self.meta.stream(&self.account_name(account), &feed.route.config().name);
        let Some(origin) = origin.filter(|origin| origin.group() != id) else { return };
        let wanted = Wanted {
            group: origin.group().0,
            source: feed.route.config().clone(),
            mirror: feed.route.is_mirror(),
            next: feed.next.map(|next| next.0),
            after: feed.had(&group.stream),
            cramped: feed.cramped,
        };
        let peers: Vec<NodeId> = origin.peers().collect();
        let Some(cluster) = &mut self.cluster else { return };
        let alive: Vec<NodeId> = peers.into_iter().filter(|node| cluster.peers.is_alive(*node)).collect();
        let Some(to) = alive.get(feed.far.misses % alive.len().max(1)) else { return };
        feed.far.asked = Some(cluster.ask_copies(*to, id, wanted));
        feed.retry = Some(now + PATIENCE);
    }

    /// What a follower on another server asks for.
    pub(crate) fn give_copies(&mut self, now: Time, wanted: &Wanted) -> Option<Bytes> {
        let id = GroupId(wanted.group);
        let group = self.groups.get(&id).filter(|group| group.log.is_leading() && group.damage.is_none())?;
        if !self.may_read(now, id) {
            return None;
        }
        let route = if wanted.mirror { Route::mirror(&wanted.source) } else { Route::source(&wanted.source) };
        let mut feed = Feed::new(route);
        (feed.identity, feed.cramped) = (identity_of(group), wanted.cramped);
        let identity = String::from_utf8_lossy(&feed.identity).into_owned();
        let origin = &group.stream;
        let (after, from) = match wanted.next {
            Some(next) => (Seq(0), Seq(next)),
            None => place(&feed.route, &identity, wanted.after.as_ref(), origin),
        };
        let is_new = wanted.next.is_none() && wanted.mirror && after == Seq(0);
        let mut given = Given {
            identity,
            after: after.0,
            first: if is_new { from.0 } else { 0 },
            next: from.0,
            ..Given::default()
        };
        let mut messages = Vec::new();
        match feed.look(from, origin, group.lasting_seq()) {
            Look::Batch(batch, next) => (messages, given.next) = (batch, next.0),
            Look::Load(block) => {
                given.is_reading = true;
                self.load(id, block);
            }
            Look::Nothing => {}
        }
        let origin = &self.groups.get(&id)?.stream;
        let mut matcher = origin.messages().matcher(&feed.route.filters());
        given.lag = origin.messages().count_from(Seq(given.next), &mut matcher);
        Some(encode(&given, messages))
    }

    /// The answer of an origin's leader, or that it has none.
    pub(crate) fn handle_copies(&mut self, now: Time, asked: (u64, GroupId), body: &Bytes) {
        let (question, id) = asked;
        let Some(group) = self.groups.get_mut(&id) else { return };
        let mut feeds = std::mem::take(&mut group.feeds.from);
        if let Some(feed) = feeds.iter_mut().find(|feed| feed.far.asked == Some(question)) {
            feed.far.asked = None;
            match decode(body) {
                Some((given, messages)) => self.take_copies(now, id, feed, (given, messages)),
                None => {
                    feed.far.misses += 1;
                    feed.retry = Some(now + AGAIN);
                }
            }
        }
        if let Some(group) = self.groups.get_mut(&id) {
            group.feeds.from = feeds;
        }
        self.touch(id);
    }

    fn take_copies(&mut self, now: Time, id: GroupId, feed: &mut Feed, (given, messages): (Given, Vec<Fed>)) {
        let identity = Bytes::from(given.identity);
        if feed.identity != identity && feed.next.is_some() {
            // Another stream has the name: what the follower has of it is asked anew.
            (feed.identity, feed.next, feed.retry) = (identity, None, None);
            return;
        }
        feed.identity = identity;
        (feed.active, feed.far.lag, feed.far.misses) = (Some(now), given.lag, 0);
        if feed.next.is_none() {
            feed.after = Seq(given.after);
        }
        if given.is_reading {
            feed.retry = Some(now + SOON);
            return;
        }
        let first = Seq(given.first);
        if messages.is_empty() && first <= Seq(1) {
            feed.next = Some(Seq(given.next));
            feed.retry = Some(now + AGAIN);
            return;
        }
        feed.retry = None;
        let command = feed.command(now, first, messages);
        feed.next = Some(Seq(given.next));
        match self.no_room(id, size_of(&command)) {
            Some(error) => feed.lack_room(now, &error),
            None => {
                feed.error = None::<ApiError>;
                feed.in_flight += 1;
                self.propose_copies(id, &command);
            }
        }
    }
}

/// Where a follower goes on that has this of an origin: see [`Feed::place`].
fn place(route: &Route, identity: &str, had: Option<&(u64, String)>, origin: &Stream) -> (Seq, Seq) {
    let messages = origin.messages();
    let after = match had {
        Some((seq, _)) if route.is_mirror() => Seq(*seq),
        Some((seq, of)) if of == identity => Seq(*seq),
        Some((seq, of)) if of.is_empty() && Seq(*seq) <= messages.last_seq() => Seq(*seq),
        Some(_) => return (Seq(0), messages.first_seq()),
        None => Seq(0),
    };
    (after, if after == Seq(0) { route.start(messages) } else { after.next() })
}

fn encode(given: &Given, messages: Vec<Fed>) -> Bytes {
    let json = serde_json::to_vec(given).expect("plain data always encodes");
    let mut out = (json.len() as u32).to_le_bytes().to_vec();
    out.extend_from_slice(&json);
    let command = Command::Mirrored { ts: Time(0), after: Seq(0), first: Seq(0), messages };
    command.encode(&mut out);
    out.into()
}

fn decode(body: &Bytes) -> Option<(Given, Vec<Fed>)> {
    let length = u32::from_le_bytes(*body.first_chunk::<4>()?) as usize;
    let end = length.checked_add(4).filter(|end| *end <= body.len())?;
    let given = serde_json::from_slice(&body[4..end]).ok()?;
    match Command::decode(&body.slice(end..)).ok()? {
        Command::Mirrored { messages, .. } => Some((given, messages)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_comes_back_and_shorter_ones_are_nothing() {
        let given = Given { identity: "abc".into(), next: 9, lag: 2, ..Given::default() };
        let bytes = encode(&given, Vec::new());
        let (back, messages) = decode(&bytes).expect("its own bytes");
        assert_eq!((back.identity.as_str(), back.next, back.lag, messages.len()), ("abc", 9, 2, 0));
        for end in 0..bytes.len() {
            assert!(decode(&bytes.slice(..end)).is_none());
        }
    }
}
