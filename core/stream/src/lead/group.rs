//! Priority groups: which of several clients is served (ADR-42).

use bytes::Bytes;
use hw_kit::{Nuid, Time};

use super::requests::{Ending, Waiting};
use super::{Lead, Moment, PumpOut};
use crate::config::PriorityPolicy;
use crate::consumer::Consumer;
use crate::outcome::{Advisory, Effect};

/// One group's pin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pin {
    /// The group.
    pub group: String,
    /// The pinned client's id; empty when nobody is pinned.
    pub id: Bytes,
    /// When it was pinned; not set when nobody is.
    pub since: Time,
    /// When it loses the pin, unless it is seen before.
    pub(super) until: Time,
}

/// The groups of a consumer with a priority policy.
#[derive(Debug)]
pub(super) struct Groups {
    pub policy: PriorityPolicy,
    pub pins: Vec<Pin>,
}

/// Whether a request may be served now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    Yes,
    /// It gets the pin with the first message.
    Pin(usize),
    NotNow,
    /// Its pin belongs to somebody else by now.
    Never,
}

impl Groups {
    pub fn new(consumer: &Consumer) -> Option<Box<Groups>> {
        let config = consumer.config();
        if config.priority_policy == PriorityPolicy::None {
            return None;
        }
        let pins = config
            .priority_groups
            .iter()
            .map(|group| Pin { group: group.clone(), ..Pin::default() })
            .collect();
        Some(Box::new(Groups { policy: config.priority_policy, pins }))
    }

    /// Whether a request may be served, given the numbers of pending messages and acknowledgements.
    pub fn turn(&self, waiting: &Waiting, pending: u64, ack_pending: u64) -> Turn {
        let Some(terms) = waiting.group.as_deref() else { return Turn::Yes };
        match self.policy {
            PriorityPolicy::None | PriorityPolicy::Prioritized => Turn::Yes,
            PriorityPolicy::Overflow => {
                let always = terms.min_pending == 0 && terms.min_ack_pending == 0;
                let many = terms.min_pending > 0 && pending >= terms.min_pending;
                let slow = terms.min_ack_pending > 0 && ack_pending >= terms.min_ack_pending;
                if always || many || slow { Turn::Yes } else { Turn::NotNow }
            }
            PriorityPolicy::PinnedClient => {
                let Some(pin) = self.pins.get(terms.group) else { return Turn::NotNow };
                match (pin.id.is_empty(), terms.id.is_empty()) {
                    (true, true) => Turn::Pin(terms.group),
                    (false, true) => Turn::NotNow,
                    _ if pin.id == terms.id => Turn::Yes,
                    _ => Turn::Never,
                }
            }
        }
    }

    /// When the first pin is lost.
    pub fn next_deadline(&self) -> Time {
        self.pins.iter().filter(|pin| !pin.id.is_empty()).map(|pin| pin.until).min().unwrap_or(Time::NEVER)
    }
}

impl Lead {
    /// The pins of the consumer's priority groups, for its info.
    pub fn pins(&self) -> &[Pin] {
        self.groups.as_ref().map_or(&[], |groups| &groups.pins)
    }

    /// Takes the pin from a group's client (`CONSUMER.UNPIN`); false if there is no such group.
    pub fn handle_unpin(&mut self, m: &Moment<'_>, group: &str, out: &mut PumpOut) -> bool {
        let at = match &self.groups {
            Some(groups) => groups.pins.iter().position(|pin| pin.group == group),
            None => None,
        };
        let Some(at) = at else { return false };
        self.unpin(m, at, "admin", out);
        self.refresh_deadline(m);
        true
    }

    fn unpin(&mut self, m: &Moment<'_>, at: usize, reason: &'static str, out: &mut PumpOut) {
        let Some(pin) = self.groups.as_mut().and_then(|groups| groups.pins.get_mut(at)) else { return };
        if pin.id.is_empty() {
            return;
        }
        *pin = Pin { group: std::mem::take(&mut pin.group), ..Pin::default() };
        out.effects.push(Effect::Advise(Advisory::GroupUnpinned {
            consumer: m.consumer.name().clone(),
            group: pin.group.clone(),
            reason,
        }));
    }

    /// Pins a group to whoever made the request at this position.
    pub(super) fn pin(&mut self, m: &Moment<'_>, group: usize, at: usize, out: &mut PumpOut) {
        let id = Bytes::from(Nuid::new(&mut self.rng).next_id());
        let Some((place, _)) = self.requests.at(at) else { return };
        if let Some(terms) = self.requests.get_mut(place).and_then(|waiting| waiting.group.as_deref_mut()) {
            terms.id = id.clone();
        }
        let Some(pin) = self.groups.as_mut().and_then(|groups| groups.pins.get_mut(group)) else { return };
        let until = m.now + m.consumer.config().priority_timeout;
        *pin = Pin { group: std::mem::take(&mut pin.group), id: id.clone(), since: m.now, until };
        out.effects.push(Effect::Advise(Advisory::GroupPinned {
            consumer: m.consumer.name().clone(),
            group: pin.group.clone(),
            id,
        }));
    }

    /// A pinned client was seen.
    pub(super) fn extend_pin(&mut self, m: &Moment<'_>, group: usize) {
        if let Some(pin) = self.groups.as_mut().and_then(|groups| groups.pins.get_mut(group)) {
            pin.until = m.now + m.consumer.config().priority_timeout;
        }
    }

    /// Takes pins whose clients were not seen for too long.
    pub(super) fn expire_pins(&mut self, m: &Moment<'_>, out: &mut PumpOut) {
        let count = self.pins().len();
        for at in 0..count {
            if !self.pins()[at].id.is_empty() && self.pins()[at].until <= m.now {
                self.unpin(m, at, "timeout", out);
            }
        }
    }

    /// The configuration changed: pins of groups that stay are kept, requests of groups that went are ended.
    pub(super) fn refresh_groups(&mut self, m: &Moment<'_>, out: &mut PumpOut) {
        let (old, new) = (self.groups.take(), Groups::new(m.consumer));
        self.groups = new;
        let Some(groups) = &mut self.groups else {
            for waiting in self.requests.iter_mut() {
                waiting.group = None;
            }
            return;
        };
        let old = old.map(|groups| groups.pins).unwrap_or_default();
        for pin in &mut groups.pins {
            if let Some(kept) = old.iter().find(|old| old.group == pin.group) {
                *pin = kept.clone();
            }
        }
        let place_of = |index: usize| {
            let name = &old.get(index)?.group;
            groups.pins.iter().position(|pin| pin.group == *name)
        };
        let mut gone = Vec::new();
        for place in self.requests.places() {
            let Some(waiting) = self.requests.get_mut(place) else { continue };
            let index = waiting.group.as_deref().and_then(|terms| place_of(terms.group));
            match (index, waiting.group.as_deref_mut()) {
                (Some(index), Some(terms)) => terms.group = index,
                _ => gone.push(place),
            }
        }
        for place in gone {
            self.end(place, Ending::Timeout, out);
        }
    }
}
