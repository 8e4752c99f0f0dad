//! Waiting pull requests: who asked for how much, and in which order they are served.

use std::collections::VecDeque;

use bytes::Bytes;
use hw_kit::{Span, Time};
use serde::Deserialize;

/// The body of a pull request, with the API's field names.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
#[allow(missing_docs)] // The fields are those of features.md 4c and docs/api.md.
pub struct PullRequest {
    pub batch: i64,
    #[serde(with = "crate::config::nanos")]
    pub expires: Span,
    pub no_wait: bool,
    pub max_bytes: i64,
    #[serde(with = "crate::config::nanos")]
    pub idle_heartbeat: Span,
    pub group: String,
    pub min_pending: i64,
    pub min_ack_pending: i64,
    pub id: String,
    pub priority: i64,
}

impl PullRequest {
    /// A request for a number of messages and nothing else.
    pub fn of(batch: i64) -> PullRequest {
        PullRequest { batch, ..PullRequest::default() }
    }
}

/// How a request ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Ending {
    /// Everything was delivered, or nobody listens any more: nothing to say.
    Silent,
    /// 408 Request Timeout.
    Timeout,
    /// 404 No Messages.
    NoMessages,
    /// 409 Message Size Exceeds MaxBytes.
    TooBig,
    /// 409 Batch Completed, with bytes left over.
    Completed,
    /// 423: the pin that it was made for is gone.
    WrongPin,
}

/// A pull request while anything is left of it.
#[derive(Debug)]
pub(super) struct Waiting {
    pub reply: Bytes,
    /// Messages that may still be chosen for it.
    pub left: u64,
    /// The body said 0: it gets one message, but its status says none.
    pub implicit: bool,
    /// Bytes that may still be chosen for it, if it limits them.
    pub bytes_left: Option<u64>,
    pub no_wait: bool,
    /// Not set: never.
    pub expires: Time,
    pub heartbeat: Span,
    /// When the next heartbeat is due, unless a message goes out.
    pub beat_at: Time,
    /// The pump that last found somebody listening.
    pub heard: u64,
    /// Messages chosen for it whose `Delivered` is not applied yet.
    pub outstanding: u32,
    /// Whether any message was chosen for it.
    pub served: bool,
    pub ending: Option<Ending>,
    pub group: Option<Box<GroupTerms>>,
}

/// What a request says about its priority group.
#[derive(Debug, Default)]
pub(super) struct GroupTerms {
    /// The group's position in the configuration.
    pub group: usize,
    pub min_pending: u64,
    pub min_ack_pending: u64,
    pub id: Bytes,
    pub priority: u8,
}

impl Waiting {
    /// What the status calls the pending messages.
    pub fn shown_left(&self) -> u64 {
        self.left - u64::from(self.implicit && self.left > 0)
    }

    fn priority(&self) -> u8 {
        self.group.as_ref().map_or(0, |group| group.priority)
    }
}

/// A request's place; stays valid while something of it is outstanding.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place(u32);

/// All requests of a consumer: those that wait, in order, and those that only wait for their last deliveries.
#[derive(Debug, Default)]
pub(super) struct Requests {
    slots: Vec<Option<Waiting>>,
    free: Vec<u32>,
    order: VecDeque<Place>,
}

impl Requests {
    /// How many wait for messages.
    pub fn len(&self) -> usize {
        self.order.len()
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Adds a request behind those of its priority.
    pub fn push(&mut self, waiting: Waiting) {
        let place = match self.free.pop() {
            Some(slot) => Place(slot),
            None => {
                self.slots.push(None);
                Place((self.slots.len() - 1) as u32)
            }
        };
        let priority = waiting.priority();
        self.slots[place.0 as usize] = Some(waiting);
        self.enqueue(place, priority);
    }

    fn enqueue(&mut self, place: Place, priority: u8) {
        let behind = |at: &Place| self.get(*at).is_some_and(|w| w.priority() <= priority);
        match self.order.back().is_none_or(behind) {
            true => self.order.push_back(place),
            false => {
                let at = self.order.partition_point(behind);
                self.order.insert(at, place);
            }
        }
    }

    pub fn get(&self, place: Place) -> Option<&Waiting> {
        self.slots.get(place.0 as usize)?.as_ref()
    }

    pub fn get_mut(&mut self, place: Place) -> Option<&mut Waiting> {
        self.slots.get_mut(place.0 as usize)?.as_mut()
    }

    /// The waiting request at a position in the order.
    pub fn at(&self, at: usize) -> Option<(Place, &Waiting)> {
        let place = *self.order.get(at)?;
        Some((place, self.get(place)?))
    }

    /// The same, to change it.
    pub fn at_mut(&mut self, at: usize) -> Option<(Place, &mut Waiting)> {
        let place = *self.order.get(at)?;
        Some((place, self.get_mut(place)?))
    }

    /// All requests that still wait.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Waiting> + '_ {
        let waiting = |w: &&mut Waiting| w.ending.is_none();
        self.slots.iter_mut().flatten().filter(waiting)
    }

    /// Whether any of them does not wait for messages to come.
    pub fn any_impatient(&self) -> bool {
        self.order.iter().any(|place| self.get(*place).is_some_and(|waiting| waiting.no_wait))
    }

    /// The places of all waiting requests, in order.
    pub fn places(&self) -> Vec<Place> {
        self.order.iter().copied().collect()
    }

    /// Moves the request at a position behind the others of its priority.
    pub fn rotate(&mut self, at: usize) {
        if self.order.len() < 2 {
            return;
        }
        let Some(place) = self.order.remove(at) else { return };
        let priority = self.get(place).map_or(0, Waiting::priority);
        self.enqueue(place, priority);
    }

    /// Ends a request: nothing more is chosen for it. Gives it back when nothing is outstanding.
    pub fn end(&mut self, place: Place, ending: Ending) -> Option<Waiting> {
        if let Some(at) = self.order.iter().position(|p| *p == place) {
            self.order.remove(at);
        }
        let waiting = self.get_mut(place)?;
        waiting.ending.get_or_insert(ending);
        self.take_ended(place)
    }

    /// Notes that one of a request's deliveries went out; gives the request back if that was the end of it.
    pub fn settle(&mut self, place: Place) -> Option<Waiting> {
        let waiting = self.get_mut(place)?;
        waiting.outstanding = waiting.outstanding.saturating_sub(1);
        self.take_ended(place)
    }

    /// Gives back what was chosen for a request and did not go out; the request, if that was the end of it.
    pub fn refund(&mut self, place: Place, bytes: u64) -> Option<Waiting> {
        let waiting = self.get_mut(place)?;
        waiting.outstanding = waiting.outstanding.saturating_sub(1);
        waiting.left += 1;
        waiting.bytes_left = waiting.bytes_left.map(|left| left + bytes);
        if matches!(waiting.ending, Some(Ending::Silent | Ending::Completed)) {
            // It had got all it wanted: now it waits again.
            waiting.ending = None;
            let priority = waiting.priority();
            self.enqueue(place, priority);
        }
        self.take_ended(place)
    }

    fn take_ended(&mut self, place: Place) -> Option<Waiting> {
        let slot = self.slots.get_mut(place.0 as usize)?;
        slot.as_ref().filter(|w| w.ending.is_some() && w.outstanding == 0)?;
        self.free.push(place.0);
        let ended = slot.take();
        if self.free.len() == self.slots.len() {
            // All gone: an idle consumer keeps no memory for requests.
            *self = Requests::default();
        }
        ended
    }

    /// When the first of them expires or wants a heartbeat.
    pub fn next_deadline(&self) -> Time {
        let due = |place: &Place| {
            let waiting = self.get(*place)?;
            let expires = if waiting.expires.is_set() { waiting.expires } else { Time::NEVER };
            Some(if waiting.heartbeat.is_zero() { expires } else { expires.min(waiting.beat_at) })
        };
        self.order.iter().filter_map(due).min().unwrap_or(Time::NEVER)
    }
}
