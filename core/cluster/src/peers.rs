//! The other JetStream servers: who is linked, and who counts as lost.

use std::collections::BTreeMap;

use hw_kit::{LinkId, NodeId, Span, Time};

/// A server that cannot be heard for so long is taken for lost. Nobody votes against a leader that was heard since.
const PATIENCE: Span = Span::from_millis(400);

/// A leader that a majority has heard so long ago is still the only one: shorter than [`PATIENCE`] by what clocks may
/// differ in their speed.
const LEASE: Span = Span::from_millis(300);

/// Why a link ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LinkDown {
    /// The connection was closed, or broke.
    Closed,
    /// The connection was closed, and the address refuses new ones: the process is gone.
    Refused,
    /// Nothing was heard for too long.
    Silent,
}

/// How a server was lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Loss {
    /// Its process is gone for certain: it leads nothing any more.
    Gone,
    /// It may be alive on the other side of a partition.
    Silent,
}

/// Another server.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its link, while there is one.
    pub link: Option<LinkId>,
    /// When its link came up or ended.
    pub since: Time,
    /// When its last link came up.
    up: Time,
    /// When it was last heard.
    pub heard: Time,
    /// What it was sent at this time, it has heard.
    acked: Time,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    Up,
    /// Its link has just ended: it may come back before this.
    Doubtful(Time),
    Lost,
}

/// All servers that were linked since this one started.
#[derive(Debug, Default)]
pub struct Peers {
    all: BTreeMap<NodeId, Peer>,
    links: BTreeMap<LinkId, NodeId>,
}

impl Peer {
    /// What comes over its link from now on was sent after this, however long it was on its way.
    pub fn sent_since(&self) -> Time {
        // It has heard this server at that time, and nothing overtakes that on a link.
        self.up.max(self.acked)
    }
}

impl Peers {
    /// A link to a JetStream server came up.
    pub fn handle_up(&mut self, now: Time, link: LinkId, node: NodeId, name: &str) {
        if let Some(old) = self.all.get(&node).and_then(|peer| peer.link) {
            self.links.remove(&old);
        }
        self.links.insert(link, node);
        let acked = self.all.get(&node).map_or(Time(0), |old| old.acked);
        let (name, link) = (name.to_owned(), Some(link));
        let peer = Peer { name, link, since: now, up: now, heard: now, acked, state: State::Up };
        self.all.insert(node, peer);
    }

    /// A link ended: gives whom it lost at once, if anybody.
    pub fn handle_down(&mut self, now: Time, link: LinkId, why: LinkDown) -> Option<(NodeId, Loss)> {
        let node = match self.links.get(&link) {
            Some(node) => *node,
            None => return None,
        };
        let peer = self.all.get_mut(&node)?;
        // It may end for good later: a refusal follows the close.
        if peer.link.is_some_and(|current| current != link) {
            return None;
        }
        (peer.link, peer.since) = (None, now);
        let loss = match why {
            LinkDown::Closed if peer.state == State::Up => {
                peer.state = State::Doubtful(now + PATIENCE);
                return None;
            }
            LinkDown::Closed => return None,
            LinkDown::Refused => Loss::Gone,
            LinkDown::Silent => Loss::Silent,
        };
        let was_lost = std::mem::replace(&mut peer.state, State::Lost) == State::Lost;
        (!was_lost || loss == Loss::Gone).then_some((node, loss))
    }

    /// Nothing is heard of a server although its link stands, or something again: gives whom that loses.
    pub fn handle_quiet(&mut self, now: Time, link: LinkId, quiet: bool) -> Option<(NodeId, Loss)> {
        let node = *self.links.get(&link)?;
        let peer = self.all.get_mut(&node).filter(|peer| peer.link == Some(link))?;
        let before = std::mem::replace(&mut peer.state, if quiet { State::Lost } else { State::Up });
        peer.since = now;
        (quiet && before != State::Lost).then_some((node, Loss::Silent))
    }

    /// Time has passed: gives one server that did not come back.
    pub fn handle_timeout(&mut self, now: Time) -> Option<(NodeId, Loss)> {
        let is_over = |peer: &Peer| matches!(peer.state, State::Doubtful(until) if until <= now);
        let (node, peer) = self.all.iter_mut().find(|(_, peer)| is_over(peer))?;
        peer.state = State::Lost;
        Some((*node, Loss::Silent))
    }

    /// When to look again.
    pub fn next_deadline(&self) -> Option<Time> {
        let doubtful = self.all.values().filter_map(|peer| match peer.state {
            State::Doubtful(until) => Some(until),
            _ => None,
        });
        doubtful.min()
    }

    /// The clock goes on from a time that is later by so much, which has not passed: nobody has been away for longer, and
    /// leases end early, as their holders may have been away.
    pub fn handle_clock_step(&mut self, by: Span) {
        for peer in self.all.values_mut() {
            peer.since = peer.since + by;
            peer.up = peer.up + by;
            peer.heard = peer.heard + by;
            if let State::Doubtful(until) = &mut peer.state {
                *until = *until + by;
            }
        }
    }

    /// Something was heard on a link.
    pub fn handle_heard(&mut self, now: Time, link: LinkId) {
        if let Some(peer) = self.links.get(&link).and_then(|node| self.all.get_mut(node)) {
            peer.heard = now;
        }
    }

    /// The server on a link has heard what was sent at this time.
    pub fn handle_acked(&mut self, now: Time, link: LinkId, sent: Time) {
        if let Some(peer) = self.links.get(&link).and_then(|node| self.all.get_mut(node)) {
            (peer.heard, peer.acked) = (now, peer.acked.max(sent));
        }
    }

    /// Whether others may be voted for although `leader` led last: it is lost, or its link came up again and for so long it
    /// has not said that it still leads (`proven`).
    pub fn may_oppose(&self, now: Time, leader: NodeId, proven: bool) -> bool {
        let Some(peer) = self.all.get(&leader) else { return true };
        peer.state == State::Lost || (!proven && peer.state == State::Up && now.since(peer.since) >= PATIENCE)
    }

    /// Whether so many of these servers have heard this one, `me`, so lately that nobody else leads.
    pub fn has_lease(&self, now: Time, me: NodeId, voters: &[NodeId]) -> bool {
        let has_heard = |node: &&NodeId| {
            // A clock that was set back says nothing.
            let is_fresh =
                |peer: &Peer| peer.acked.is_set() && peer.acked <= now && now.since(peer.acked) < LEASE;
            **node == me || self.all.get(*node).is_some_and(is_fresh)
        };
        voters.iter().filter(has_heard).count() > voters.len() / 2
    }

    /// Who is on a link.
    pub fn node(&self, link: LinkId) -> Option<NodeId> {
        self.links.get(&link).copied()
    }

    /// The link to a server.
    pub fn link(&self, node: NodeId) -> Option<LinkId> {
        self.all.get(&node)?.link
    }

    /// Whether a server may still lead: it was not lost.
    pub fn is_alive(&self, node: NodeId) -> bool {
        self.all.get(&node).is_some_and(|peer| peer.state != State::Lost)
    }

    /// Whether a server is there now: it has a link, and is heard on it.
    pub fn is_up(&self, node: NodeId) -> bool {
        self.all.get(&node).is_some_and(|peer| peer.link.is_some() && peer.state == State::Up)
    }

    /// One of them.
    pub fn get(&self, node: NodeId) -> Option<&Peer> {
        self.all.get(&node)
    }

    /// Those with a link.
    pub fn linked(&self) -> impl Iterator<Item = (NodeId, LinkId)> + '_ {
        self.all.iter().filter_map(|(node, peer)| Some((*node, peer.link?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: NodeId = NodeId(7);

    #[test]
    fn a_closed_link_is_not_a_lost_server() {
        let mut peers = Peers::default();
        peers.handle_up(Time(0), LinkId(1), A, "a");
        assert_eq!(peers.handle_down(Time(10), LinkId(1), LinkDown::Closed), None);
        assert!(peers.is_alive(A));
        let over = Time(10) + PATIENCE;
        assert_eq!(peers.next_deadline(), Some(over));
        assert_eq!(peers.handle_timeout(over), Some((A, Loss::Silent)));
        assert_eq!(peers.handle_timeout(over), None);
        assert!(!peers.is_alive(A));
        peers.handle_up(over, LinkId(2), A, "a");
        assert!(peers.is_alive(A));
        assert_eq!(peers.handle_down(over, LinkId(1), LinkDown::Refused), None, "an old link says nothing");
    }

    #[test]
    fn a_lease_ends_before_others_vote() {
        let mut peers = Peers::default();
        let (me, b, voters) = (NodeId(1), NodeId(8), [NodeId(1), A, NodeId(8)]);
        peers.handle_up(Time(0), LinkId(1), A, "a");
        peers.handle_up(Time(0), LinkId(2), b, "b");
        assert!(!peers.has_lease(Time(0) + LEASE, me, &voters));
        peers.handle_acked(Time(20), LinkId(1), Time(10));
        assert!(peers.has_lease(Time(9) + LEASE, me, &voters));
        assert!(!peers.has_lease(Time(10) + LEASE, me, &voters));
        assert!(!peers.has_lease(Time(5), me, &voters), "the clock was set back");
        assert!(!peers.may_oppose(Time(20) + PATIENCE, A, true));
        peers.handle_down(Time(30), LinkId(1), LinkDown::Closed);
        assert!(!peers.may_oppose(Time(31), A, false), "it may be alive");
        peers.handle_up(Time(32), LinkId(3), A, "a");
        assert!(
            !peers.may_oppose(Time(31) + PATIENCE, A, false)
                && peers.may_oppose(Time(32) + PATIENCE, A, false)
        );
        assert!(!peers.may_oppose(Time(32) + PATIENCE, A, true));
        peers.handle_down(Time(33), LinkId(3), LinkDown::Refused);
        assert!(peers.may_oppose(Time(34), A, true));
    }

    #[test]
    fn a_clock_that_was_set_forward_makes_nobody_silent_and_ends_leases() {
        let mut peers = Peers::default();
        let step = Span::from_secs(60);
        peers.handle_up(Time(0), LinkId(1), A, "a");
        peers.handle_acked(Time(20), LinkId(1), Time(10));
        peers.handle_clock_step(step);
        assert!(!peers.has_lease(Time(30) + step, NodeId(1), &[NodeId(1), A, NodeId(8)]));
        assert!(!peers.may_oppose(Time(30) + step, A, false), "its link came up just now");
        peers.handle_down(Time(40) + step, LinkId(1), LinkDown::Closed);
        peers.handle_clock_step(step);
        assert_eq!(peers.handle_timeout(Time(50) + step + step), None);
        assert_eq!(peers.next_deadline(), Some(Time(40) + step + step + PATIENCE));
    }

    #[test]
    fn a_refused_connection_is_certain() {
        let mut peers = Peers::default();
        peers.handle_up(Time(0), LinkId(1), A, "a");
        assert_eq!(peers.handle_down(Time(10), LinkId(1), LinkDown::Closed), None);
        assert_eq!(peers.handle_down(Time(11), LinkId(1), LinkDown::Refused), Some((A, Loss::Gone)));
        assert_eq!(peers.next_deadline(), None);
    }
}
