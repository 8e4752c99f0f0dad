//! Whom to dial, and when.

use std::collections::BTreeMap;

use hw_kit::{LinkId, Rng, Span, Time};

use crate::limits::{LEARNED_ATTEMPTS, REDIAL_AT_MOST, REDIAL_EVERY, TARGETS_MAX};
use crate::mesh::{RouteUrl, SocketId};

/// An address at which a server of the cluster should be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Target {
    pub user: String,
    pub pass: String,
    /// It was configured: it is dialled for ever.
    pub explicit: bool,
    attempts: u32,
    next: Time,
    busy: Option<SocketId>,
    /// The server that was found there.
    pub server: Option<String>,
    /// This server is there itself.
    own: bool,
    /// The link with that server that was lost last.
    lost: Option<LinkId>,
}

/// How lost links are dialled again.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manner {
    pub retries: u32,
    pub backoff: bool,
}

/// Addresses by themselves.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    targets: BTreeMap<String, Target>,
}

impl Targets {
    /// The configured addresses; gives the servers behind those that are not configured any more.
    pub fn configure(&mut self, now: Time, routes: &[RouteUrl]) -> Vec<String> {
        let mut dropped = Vec::new();
        self.targets.retain(|address, target| {
            let keep = !target.explicit || routes.iter().any(|route| route.address == *address);
            if !keep {
                dropped.extend(target.server.take());
            }
            keep
        });
        for route in routes {
            let target = self.targets.entry(route.address.clone()).or_default();
            if !target.explicit {
                (target.explicit, target.attempts, target.next) = (true, 0, now);
            }
            target.user.clone_from(&route.user);
            target.pass.clone_from(&route.pass);
        }
        dropped
    }

    /// Somebody told of a server at this address.
    pub fn learn(&mut self, at: Time, server: &str, address: &str) {
        let known = self.targets.values().any(|target| target.server.as_deref() == Some(server));
        if known || address.is_empty() || self.targets.len() >= TARGETS_MAX {
            return;
        }
        let target = self.targets.entry(address.to_owned()).or_default();
        if target.busy.is_none() && !target.explicit {
            (target.server, target.next, target.attempts) = (Some(server.to_owned()), at, 0);
        }
    }

    /// The addresses that are to be dialled now.
    pub fn due(&self, now: Time, linked: impl Fn(&str) -> bool) -> Vec<String> {
        let due = self.waiting(&linked).filter(|(_, target)| target.next <= now);
        due.map(|(address, _)| address.clone()).collect()
    }

    /// When the next one is due.
    pub fn next_deadline(&self, linked: impl Fn(&str) -> bool) -> Option<Time> {
        self.waiting(&linked).map(|(_, target)| target.next).min()
    }

    fn waiting(&self, linked: &impl Fn(&str) -> bool) -> impl Iterator<Item = (&String, &Target)> {
        self.targets.iter().filter(move |(_, target)| {
            target.busy.is_none() && !target.own && !target.server.as_deref().is_some_and(linked)
        })
    }

    pub fn get(&self, address: &str) -> Option<&Target> {
        self.targets.get(address)
    }

    /// It is being dialled.
    pub fn begin(&mut self, address: &str, socket: SocketId) {
        if let Some(target) = self.targets.get_mut(address) {
            target.busy = Some(socket);
        }
    }

    /// What was found there.
    pub fn found(&mut self, address: &str, server: &str, is_own: bool) {
        if let Some(target) = self.targets.get_mut(address) {
            target.server = Some(server.to_owned());
            target.own = is_own;
        }
    }

    /// An attempt ended without a link, or the connection is gone: the next one follows after a pause. Whoever is not
    /// configured is given up at some time.
    pub fn ended(&mut self, now: Time, address: &str, (manner, rng): (Manner, &mut Rng)) {
        let Some(target) = self.targets.get_mut(address) else { return };
        target.busy = None;
        target.attempts += 1;
        let spread = Span(rng.below(50_000_000) as i64);
        target.next = now + pause(target.attempts, manner.backoff) + spread;
        if !target.explicit && target.attempts >= manner.retries.saturating_add(LEARNED_ATTEMPTS) {
            self.targets.remove(address);
        }
    }

    /// The link with a server is gone: it is dialled at once.
    pub fn lost(&mut self, now: Time, server: &str, (link, address): (LinkId, &str)) {
        self.learn(now, server, address);
        for target in self.targets.values_mut().filter(|target| target.server.as_deref() == Some(server)) {
            (target.lost, target.attempts, target.next) = (Some(link), 0, now);
        }
    }

    /// The connection was refused: the link that was lost there, if that is not known already.
    pub fn refused(&mut self, address: &str) -> Option<LinkId> {
        self.targets.get_mut(address)?.lost.take()
    }

    /// There is a link with the server.
    pub fn linked(&mut self, server: &str) {
        for target in self.targets.values_mut().filter(|target| target.server.as_deref() == Some(server)) {
            (target.lost, target.attempts) = (None, 0);
        }
    }

    /// Whether the configuration names the address of this server.
    pub fn is_configured(&self, server: &str) -> bool {
        self.targets.values().any(|target| target.explicit && target.server.as_deref() == Some(server))
    }

    /// The configured addresses.
    pub fn explicit(&self) -> impl Iterator<Item = &String> {
        self.targets.iter().filter(|(_, target)| target.explicit).map(|(address, _)| address)
    }
}

/// Short pauses at first, so that a cluster that starts is soon together.
fn pause(attempts: u32, backoff: bool) -> Span {
    let early = Span::from_millis(25 << attempts.min(6));
    if early < REDIAL_EVERY {
        return early;
    }
    let doubled = Span(REDIAL_EVERY.0 << attempts.saturating_sub(6).min(6));
    if backoff { doubled.min(REDIAL_AT_MOST) } else { REDIAL_EVERY }
}
