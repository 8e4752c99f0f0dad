//! Push consumers: deliver while somebody listens, no faster than the flow window and the rate limit allow.

use bytes::Bytes;
use hw_kit::{Rng, Seq, Span, Time};
use hw_store::Record;

use super::pump::{Candidate, Next, Pumping};
use super::{Lead, Moment, Pick, PumpOut, status};
use crate::command::{Settlement, Verdict};
use crate::config::ConsumerConfig;
use crate::consumer::Consumer;
use crate::outcome::{ConsumerError, Effect};

/// The largest flow window, and the first one.
const WINDOW: u64 = 32 << 20;
const FIRST_WINDOW: u64 = WINDOW / 16;
/// What a rate limited consumer may send ahead after a pause.
const BURST: Span = Span::from_millis(10);

/// Where a push consumer delivers to, and how.
#[derive(Debug)]
pub(super) struct Push {
    target: Bytes,
    group: Bytes,
    /// `$JS.FC.<stream>.<consumer>.`
    flow_prefix: Bytes,
    /// Whether somebody listens.
    pub active: bool,
    flow: Option<Flow>,
    heartbeat: Span,
    /// When something was sent last.
    sent_at: Time,
    /// When the rate limit allows the next message.
    free_at: Time,
}

/// What a client answers to a flow control request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FlowAnswer {
    /// The question's subject.
    pub subject: Bytes,
    /// The consumer sequence that it saw last; 0 if it does not say.
    pub consumer_seq: u64,
    /// The stream sequence that it saw last; 0 if it does not say.
    pub seq: Seq,
}

/// How much may be on its way to a client.
#[derive(Debug)]
struct Flow {
    window: u64,
    /// Chosen and not confirmed; never much above the window.
    reserved: u64,
    /// Of these, sent.
    sent: u64,
    /// The open question: its subject and what is confirmed by its answer.
    asked: Option<(Bytes, u64)>,
}

impl Flow {
    fn new() -> Flow {
        Flow { window: FIRST_WINDOW, reserved: 0, sent: 0, asked: None }
    }
}

impl Push {
    pub fn new(stream: &[u8], consumer: &Consumer) -> Option<Box<Push>> {
        if consumer.config().is_pull() {
            return None;
        }
        let mut push = Push {
            target: Bytes::new(),
            group: Bytes::new(),
            flow_prefix: [b"$JS.FC.", stream, b".", consumer.name(), b"."].concat().into(),
            active: false,
            flow: None,
            heartbeat: Span::ZERO,
            sent_at: Time(0),
            free_at: Time(0),
        };
        push.reconfigure(consumer);
        Some(Box::new(push))
    }

    pub fn reconfigure(&mut self, consumer: &Consumer) {
        let config = consumer.config();
        let target = Bytes::copy_from_slice(config.deliver_subject.as_bytes());
        self.active &= target == self.target;
        self.target = target;
        self.group = Bytes::copy_from_slice(config.deliver_group.as_bytes());
        self.heartbeat = config.idle_heartbeat;
        if config.flow_control && self.flow.is_none() {
            self.flow = Some(Flow::new());
        }
    }

    /// When the next heartbeat is due.
    fn beat_at(&self) -> Time {
        match self.active && !self.heartbeat.is_zero() {
            true => self.sent_at + self.heartbeat,
            false => Time::NEVER,
        }
    }

    /// Asks the client to say how far it is, unless it is asked already.
    fn ask(&mut self, rng: &mut Rng, out: &mut PumpOut) {
        let Some(flow) = self.flow.as_mut().filter(|flow| flow.asked.is_none()) else { return };
        let subject = Bytes::from([&self.flow_prefix[..], &rng.base62::<4>()].concat());
        flow.asked = Some((subject.clone(), flow.sent));
        out.effects.push(Effect::Send {
            to: self.target.clone(),
            reply: subject,
            header: Bytes::from_static(status::FLOW_CONTROL),
            payload: Bytes::new(),
        });
    }

    fn is_stalled(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| flow.reserved >= flow.window)
    }
}

impl Lead {
    /// Interest changed somewhere; says whether it came or went for this push consumer. Pump afterwards.
    pub fn handle_interest(&mut self, m: &Moment<'_>) -> bool {
        let before = self.is_push_bound();
        self.refresh_interest(m);
        self.refresh_deadline(m);
        before != self.is_push_bound()
    }

    pub(super) fn refresh_interest(&mut self, m: &Moment<'_>) {
        let Some(push) = &mut self.push else { return };
        let active = (m.interest)(&push.target, &push.group);
        if active != push.active {
            push.active = active;
            push.sent_at = m.now;
            self.active_at = m.now;
            if let Some(flow) = &mut push.flow {
                // Whoever comes now owes nothing for what others got.
                *flow = Flow::new();
            }
        }
        if active {
            self.active_at = m.now;
        }
    }

    /// Whether a checked configuration may replace the present one while clients are as they are: a deliver subject
    /// stays as long as somebody listens on it. Only the leader knows, so ask before proposing.
    pub fn check_update(&mut self, m: &Moment<'_>, new: &ConsumerConfig) -> Result<(), ConsumerError> {
        self.refresh_interest(m);
        if self.is_push_bound() && new.deliver_subject != m.consumer.config().deliver_subject {
            return Err(ConsumerError::Rule { err_code: 10013, text: "consumer name already in use".into() });
        }
        Ok(())
    }

    /// A client answered a flow control request: everything up to the question has arrived. Pump afterwards. Where
    /// answers acknowledge, what it gives is to be proposed.
    pub fn handle_flow(
        &mut self,
        m: &Moment<'_>,
        answer: &FlowAnswer,
        out: &mut PumpOut,
    ) -> Option<Settlement> {
        self.sync(m, out);
        let flow = self.push.as_mut()?.flow.as_mut()?;
        let (_, bytes) = flow.asked.take_if(|(asked, _)| *asked == answer.subject)?;
        flow.reserved = flow.reserved.saturating_sub(bytes);
        flow.sent = flow.sent.saturating_sub(bytes);
        flow.window = (flow.window * 2).min(WINDOW);
        self.active_at = m.now;
        let (floor, delivered) = (m.consumer.ack_floor(), m.consumer.delivered());
        let (seq, consumer_seq) = (answer.seq, answer.consumer_seq);
        // Deliveries are applied before they go out: nobody can have seen more.
        let seen = seq > floor.stream_seq
            && seq <= delivered.stream_seq
            && consumer_seq > floor.consumer_seq
            && consumer_seq <= delivered.consumer_seq;
        (seen && m.consumer.acks_by_flow()).then_some(Settlement { seq, consumer_seq, verdict: Verdict::Ack })
    }

    /// Where answers acknowledge, a full window of unacknowledged messages is a question, too.
    pub(super) fn ask_at_limit(&mut self, m: &Moment<'_>, out: &mut PumpOut) {
        let limit = m.consumer.config().max_ack_pending;
        if m.consumer.acks_by_flow()
            && m.consumer.pending().len() as i64 >= limit
            && let Some(push) = self.push.as_deref_mut().filter(|push| push.active)
        {
            push.ask(&mut self.rng, out);
        }
    }

    /// The position may have been reset: the answer to an older question names another counting.
    pub(super) fn forget_question(&mut self, m: &Moment<'_>) {
        if m.consumer.acks_by_flow()
            && let Some(flow) = self.push.as_mut().and_then(|push| push.flow.as_mut())
        {
            flow.asked = None;
        }
    }

    pub(super) fn pump_push(&mut self, m: &Moment<'_>, out: &mut PumpOut) {
        self.refresh_interest(m);
        let mut pumping = self.begin(m);
        while self.may_push(m) {
            let Next::Ready(candidate) = self.next(m, &mut pumping, out) else { break };
            self.reserve(m, &pumping, &candidate);
            self.take(m, &mut pumping, (candidate, None), out);
        }
        self.finish(m, pumping, out);
    }

    fn may_push(&mut self, m: &Moment<'_>) -> bool {
        let Some(push) = &self.push else { return false };
        if !push.active || push.is_stalled() {
            return false;
        }
        if push.free_at > m.now {
            self.wake = self.wake.min(push.free_at);
            return false;
        }
        true
    }

    fn reserve(&mut self, m: &Moment<'_>, pumping: &Pumping, candidate: &Candidate) {
        let rate = m.consumer.config().rate_limit_bps;
        let limited = rate > 0 || m.consumer.config().flow_control;
        let size = if limited { self.size_of(m, pumping, candidate) } else { 0 };
        let Some(push) = &mut self.push else { return };
        if let Some(flow) = &mut push.flow {
            flow.reserved += size;
        }
        if rate > 0 {
            let cost = u128::from(size) * 8 * 1_000_000_000 / u128::from(rate);
            push.free_at = push.free_at.max(m.now - BURST) + Span(i64::try_from(cost).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn refund_push(&mut self, pick: &Pick) {
        if let Some(flow) = self.push.as_mut().and_then(|push| push.flow.as_mut()) {
            // The subject of an acknowledgement was counted too: what is left of it is a small, passing debt.
            flow.reserved = flow.reserved.saturating_sub(pick.message.record.joined().len() as u64);
        }
    }

    /// Sends a message to the deliver subject, and asks for an answer when half the window is on its way.
    pub(super) fn send_push(&mut self, m: &Moment<'_>, reply: Bytes, record: Record, out: &mut PumpOut) {
        let Some(push) = self.push.as_deref_mut() else { return };
        let size = (record.joined().len() + reply.len()) as u64;
        push.sent_at = m.now;
        out.effects.push(Effect::Deliver {
            to: push.target.clone(),
            group: push.group.clone(),
            reply,
            record,
        });
        let Some(flow) = &mut push.flow else { return };
        flow.sent += size;
        flow.reserved = flow.reserved.max(flow.sent);
        if flow.sent > flow.window / 2 {
            push.ask(&mut self.rng, out);
        }
    }

    /// The push consumer's heartbeat, if it is due.
    pub(super) fn beat_push(&mut self, m: &Moment<'_>, out: &mut PumpOut) {
        if self.push.as_ref().is_none_or(|push| push.beat_at() > m.now) {
            return;
        }
        self.refresh_interest(m);
        let Some(push) = self.push.as_deref_mut().filter(|push| push.active) else { return };
        let by_flow = m.consumer.acks_by_flow();
        // A question that is open, whether or not more would fit the window.
        let asked = push.flow.as_ref().and_then(|flow| flow.asked.as_ref());
        let stalled = asked.map(|(subject, _)| subject.clone());
        let header = status::heartbeat(m.consumer.delivered(), &stalled.unwrap_or_default());
        push.sent_at = m.now;
        out.effects.push(status::send(&push.target, header));
        if by_flow && !m.consumer.pending().is_empty() {
            push.ask(&mut self.rng, out);
        }
    }

    pub(super) fn next_beat(&self) -> Time {
        self.push.as_ref().map_or(Time::NEVER, |push| push.beat_at())
    }
}
