//! The other servers of the cluster as this shard knows them. What they say for the hub goes there; everything else that
//! is about them begins here.

use std::collections::BTreeMap;

use bytes::Bytes;
use hw_hub::RemoteBatch;
use hw_kit::{LinkId, NodeId, Time};
use hw_route::{LinkDown, Peer};

use crate::notice::{Notice, NoticeLevel};

/// What travels on a link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LinkFrame {
    /// Interest and messages.
    Hub(RemoteBatch),
    /// JetStream's: links do not know what it says.
    Js(Bytes),
}

/// Another server that there is a link with.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Linked {
    /// Who it is.
    pub peer: Peer,
    /// Since when.
    pub since: Time,
    /// Nothing was heard of it for a while: it may be dead.
    pub quiet: bool,
    /// The newest moment of which it is certain that the other server heard from this one after it.
    pub acked_at: Time,
}

/// All other servers that there is a link with, or was and the process lives perhaps.
#[derive(Debug, Default)]
pub(crate) struct Links {
    linked: BTreeMap<LinkId, Linked>,
    /// Links that are gone and whose servers may be alive: until that is known, or there is a new one.
    lost: BTreeMap<LinkId, Linked>,
    pub(crate) notices: Vec<Notice>,
}

impl Links {
    /// There is a link.
    pub(crate) fn up(&mut self, now: Time, link: LinkId, peer: Peer) {
        self.lost.retain(|_, lost| lost.peer.server_id != peer.server_id);
        self.linked.insert(link, Linked { peer, since: now, quiet: false, acked_at: Time(0) });
    }

    /// A link is gone. After that it may turn out that the other server's process is, too.
    pub(crate) fn down(&mut self, link: LinkId, why: LinkDown) {
        let text = match why {
            LinkDown::Refused => match self.lost.remove(&link) {
                Some(lost) => format!("server {} is down", lost.peer.name),
                None => return,
            },
            LinkDown::Closed | LinkDown::Silent => match self.linked.remove(&link) {
                Some(gone) => {
                    let text = format!("the link with server {} is lost", gone.peer.name);
                    self.lost.insert(link, gone);
                    text
                }
                None => return,
            },
        };
        self.notices.push(Notice { level: NoticeLevel::Debug, text });
    }

    /// Nothing is heard of a server, or something again.
    pub(crate) fn quiet(&mut self, link: LinkId, quiet: bool) {
        if let Some(linked) = self.linked.get_mut(&link) {
            linked.quiet = quiet;
        }
    }

    /// A server has heard from this one after `at`.
    pub(crate) fn acked(&mut self, link: LinkId, at: Time) {
        if let Some(linked) = self.linked.get_mut(&link) {
            linked.acked_at = linked.acked_at.max(at);
        }
    }

    /// All that there is a link with.
    pub(crate) fn all(&self) -> impl Iterator<Item = (LinkId, &Linked)> {
        self.linked.iter().map(|(link, linked)| (*link, linked))
    }
}

impl Linked {
    /// The incarnation of its JetStream store; 0: none.
    pub fn node(&self) -> NodeId {
        self.peer.node
    }
}
