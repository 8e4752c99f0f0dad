//! The leader's half of a consumer: waiting pulls, deliveries in flight, timers, flow control. Never persisted: a new
//! leader builds it from the [`Consumer`] alone.
//!
//! Every `handle_*` and [`Lead::pump`] gets a [`Moment`] and adds to a [`PumpOut`]. With acknowledgements a message is
//! chosen first, proposed as `Delivered`, and sent when that is applied; what is chosen is not chosen again.

mod ack;
mod ahead;
mod deliver;
mod due;
mod group;
mod pull;
mod pump;
mod push;
mod requests;
mod status;
#[cfg(test)]
mod tests;
mod timer;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use hw_kit::{Rng, Seq, Time};
use hw_store::Messages;
use hw_store::messages::{Matcher, Message};

pub use ack::{Ack, AckKind};
pub use push::FlowAnswer;
pub use requests::PullRequest;

use crate::command::Command;
use crate::config::ReplayPolicy;
use crate::consumer::Consumer;
use crate::info::{LeadInfo, PriorityGroupInfo};
use crate::outcome::Effect;
use due::Due;
use group::{Groups, Pin};
use pump::Replay;
use push::Push;
use requests::{Place, Requests};
use status::AckSubjects;

/// What the leader sees when something happens.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    /// The clock.
    pub now: Time,
    /// The replicated half.
    pub consumer: &'a Consumer,
    /// The stream's messages.
    pub messages: &'a Messages,
    /// Whether anybody would get a message on this subject; the second argument is a queue group, empty for none.
    pub interest: &'a dyn Fn(&[u8], &[u8]) -> bool,
}

/// What the leader wants done, in this order.
#[derive(Debug, Default)]
pub struct PumpOut {
    /// To be proposed to the stream's group.
    pub proposals: Vec<Command>,
    /// To be performed.
    pub effects: Vec<Effect>,
    /// Deliveries of a consumer whose progress is not logged: apply them with `Consumer::apply_delivered` at once,
    /// then hand them to [`Lead::handle_delivered`].
    pub apply_now: Vec<Seq>,
    /// There is more to choose: pump again when these proposals are on their way.
    pub more: bool,
}

impl PumpOut {
    /// Forgets everything and keeps the memory.
    pub fn clear(&mut self) {
        self.proposals.clear();
        self.effects.clear();
        self.apply_now.clear();
        self.more = false;
    }
}

/// A message that was chosen, until its `Delivered` is applied.
#[derive(Debug)]
struct Pick {
    message: Message,
    /// The request that it was chosen for and the bytes that it takes of it; none for push consumers.
    place: Option<(Place, u64)>,
}

/// One proposal: what it names, and what goes out when it is applied. Deliveries without acknowledgements are sent
/// already, and damaged messages never are: neither has a pick.
#[derive(Debug, Default)]
struct Batch {
    seqs: Vec<Seq>,
    picks: Vec<Pick>,
    /// How many are first deliveries.
    new: u64,
}

/// The volatile half of a consumer, on its stream's leader.
#[derive(Debug)]
pub struct Lead {
    /// The consumer's revision that all this holds for.
    revision: u64,
    /// Found anew when needed: an idle consumer has none.
    matcher: Option<Box<Matcher>>,
    /// New messages before this one are chosen.
    next_new: Seq,
    requests: Requests,
    inflight: VecDeque<Batch>,
    inflight_new: u64,
    inflight_all: u64,
    /// A delivery was ignored because what comes next had shifted. What is in flight behind it may hold or not, so
    /// nothing is chosen before all of it is applied: otherwise the same message could be in the log twice.
    stalled: bool,
    redeliver: VecDeque<Seq>,
    /// Messages in `redeliver`, in flight for the second time, or about to be given up.
    queued: BTreeSet<Seq>,
    due: Due,
    acks: AckSubjects,
    push: Option<Box<Push>>,
    groups: Option<Box<Groups>>,
    replay: Option<Box<Replay>>,
    /// For so many blocks it is not asked whether to read ahead.
    dense: u8,
    /// Counts pumps: interest is asked once in each.
    round: u64,
    /// When to pump again although nothing happened (pace, rate limit).
    wake: Time,
    /// When a client was last seen.
    active_at: Time,
    deadline: Time,
    rng: Rng,
}

impl Lead {
    /// Starts leading a consumer of `stream`, as its acknowledgement subjects name that. `seed` makes the pin ids and flow control subjects.
    pub fn new(stream: &[u8], seed: u64, m: &Moment<'_>) -> Lead {
        let consumer = m.consumer;
        let mut lead = Lead {
            revision: consumer.revision(),
            matcher: None,
            next_new: consumer.delivered().stream_seq.next(),
            requests: Requests::default(),
            inflight: VecDeque::new(),
            inflight_new: 0,
            inflight_all: 0,
            stalled: false,
            redeliver: VecDeque::new(),
            queued: BTreeSet::new(),
            due: Due::rebuild(consumer),
            acks: AckSubjects::new(stream, consumer.name()),
            push: Push::new(stream, consumer),
            groups: Groups::new(consumer),
            replay: (consumer.config().replay_policy == ReplayPolicy::Original)
                .then(|| Box::new(Replay::until(m.messages.last_seq()))),
            dense: 0,
            round: 0,
            wake: Time::NEVER,
            active_at: m.now,
            deadline: Time::NEVER,
            rng: Rng::new(seed),
        };
        lead.refresh_interest(m);
        lead.refresh_deadline(m);
        lead
    }

    /// When [`Lead::handle_timeout`] is to be called, unless something else happens before.
    pub fn next_deadline(&self) -> Time {
        self.deadline
    }

    /// How many pull requests wait.
    pub fn num_waiting(&self) -> usize {
        self.requests.len()
    }

    /// Whether a push consumer has somebody to deliver to.
    pub fn is_push_bound(&self) -> bool {
        self.push.as_ref().is_some_and(|push| push.active)
    }

    /// What only the leader knows of the consumer, for its info.
    pub fn info(&self) -> LeadInfo {
        let group = |pin: &Pin| PriorityGroupInfo {
            group: pin.group.clone(),
            pinned_client_id: String::from_utf8_lossy(&pin.id).into_owned(),
            pinned_ts: pin.since,
        };
        LeadInfo {
            num_waiting: self.num_waiting() as u64,
            push_bound: self.is_push_bound(),
            priority_groups: self.pins().iter().map(group).collect(),
        }
    }

    /// Whether a new message could be delivered now: only then is pumping after an append worth anything.
    pub fn is_waiting(&self) -> bool {
        !self.requests.is_empty() || self.is_push_bound()
    }

    /// The consumer is deleted: tells everybody who waits.
    pub fn handle_deleted(&mut self, out: &mut PumpOut) {
        self.end_all(Bytes::from_static(status::DELETED), out);
    }

    /// This server stops leading: tells everybody who waits, with a status line such as `409 Leadership Change`.
    pub fn handle_stepdown(&mut self, line: &str, with_pending: bool, out: &mut PumpOut) {
        if !with_pending {
            return self.end_all(status::line(line), out);
        }
        for place in self.requests.places() {
            if let Some(waiting) = self.requests.get(place) {
                out.effects.push(status::send(&waiting.reply, status::with_pending(line, waiting)));
            }
        }
        self.requests = Requests::default();
    }

    fn end_all(&mut self, header: Bytes, out: &mut PumpOut) {
        for place in self.requests.places() {
            if let Some(waiting) = self.requests.get(place) {
                out.effects.push(status::send(&waiting.reply, header.clone()));
            }
        }
        self.requests = Requests::default();
    }

    /// Takes over a changed configuration or position. What is in flight may still hold: that shows when it is applied.
    fn sync(&mut self, m: &Moment<'_>, out: &mut PumpOut) {
        if self.revision == m.consumer.revision() {
            return;
        }
        self.revision = m.consumer.revision();
        self.matcher = None;
        self.resume(m);
        self.queued.retain(|seq| m.consumer.pending().get(*seq).is_some());
        self.redeliver.retain(|seq| self.queued.contains(seq));
        // Deadlines that clients moved stay.
        self.due.rebuild_with(m.consumer);
        if let Some(push) = &mut self.push {
            push.reconfigure(m.consumer);
        }
        self.forget_question(m);
        self.refresh_groups(m, out);
        self.refresh_interest(m);
    }

    /// When nothing is in flight any more, what comes next is what follows the delivered.
    fn resume(&mut self, m: &Moment<'_>) {
        if self.inflight.is_empty() {
            self.next_new = m.consumer.delivered().stream_seq.next();
            self.stalled = false;
        }
    }

    /// Runs `f` with the matcher, which is made if there is none.
    fn with_matcher<T>(&mut self, m: &Moment<'_>, f: impl FnOnce(&mut Matcher) -> T) -> T {
        f(self.matcher.get_or_insert_with(|| Box::new(m.consumer.matcher(m.messages))))
    }

    /// Undelivered messages that are not chosen yet.
    fn num_pending(&mut self, m: &Moment<'_>) -> u64 {
        let all = self.with_matcher(m, |matcher| m.consumer.num_pending(m.messages, matcher));
        all.saturating_sub(self.inflight_new)
    }
}
