//! Choosing: which message goes to whom, as many at once as there are takers.

use hw_kit::{Seq, Time};
use hw_store::messages::{Fetch, Message};

use super::group::Turn;
use super::requests::{Ending, Place};
use super::status::AckNumbers;
use super::{Batch, Lead, Moment, Pick, PumpOut};
use crate::command::{Command, Settlement};

/// The most messages in one proposal.
const BATCH: usize = 1024;
/// The most bytes that one proposal's messages keep in memory.
const BATCH_BYTES: usize = 4 << 20;
/// The most messages chosen ahead of what is applied.
const INFLIGHT: u64 = 8192;

/// A message that is ready to be chosen.
#[derive(Debug)]
pub(super) struct Candidate {
    pub message: Message,
    /// How many deliveries it has with this one.
    pub count: u32,
    new: bool,
}

/// What there is to deliver.
#[derive(Debug)]
pub(super) enum Next {
    Ready(Candidate),
    /// Nothing that may be delivered now.
    Nothing,
    /// It has to be loaded first, or room made in flight: not the end.
    Held,
}

/// Where a pump stands.
#[derive(Debug, Default)]
pub(super) struct Pumping {
    pub picks: Vec<Pick>,
    pub seqs: Vec<Seq>,
    bytes: usize,
    /// How many of `seqs` are first deliveries.
    pub new: u64,
    /// Matching messages that are not chosen yet.
    pub pending: u64,
}

/// Old messages with their original spacing.
#[derive(Debug)]
pub(super) struct Replay {
    /// From here on they come as they are.
    until: Seq,
    /// The last one's time and when it was sent.
    last: Option<(Time, Time)>,
}

impl Replay {
    pub fn until(last: Seq) -> Replay {
        Replay { until: last.next(), last: None }
    }

    /// When a message is due.
    fn due(&self, message: &Message) -> Time {
        match self.last {
            Some((ts, sent)) if message.seq < self.until => sent + message.ts.since(ts),
            _ => Time(0),
        }
    }
}

/// Adds a settlement to what is proposed.
pub(super) fn propose_settled(m: &Moment<'_>, settlement: Settlement, out: &mut PumpOut) {
    for proposal in &mut out.proposals {
        if let Command::Settled { acks, .. } = proposal {
            return acks.push(settlement);
        }
    }
    let consumer = m.consumer.name().clone();
    out.proposals.push(Command::Settled { ts: m.now, consumer, acks: vec![settlement] });
}

impl Lead {
    /// Chooses and proposes, or sends, what can be delivered now.
    pub fn pump(&mut self, m: &Moment<'_>, out: &mut PumpOut) {
        self.sync(m, out);
        self.due.trim(m.consumer);
        self.wake = Time::NEVER;
        let paused = m.consumer.paused_until().is_some_and(|until| until > m.now);
        match &self.push {
            Some(push) if push.active && !paused => self.pump_push(m, out),
            Some(_) => {}
            None if self.requests.is_empty() => {}
            None if paused => self.end_impatient(m, out),
            None => self.pump_pull(m, out),
        }
        self.refresh_deadline(m);
    }

    fn pump_pull(&mut self, m: &Moment<'_>, out: &mut PumpOut) {
        self.round += 1;
        let mut pumping = self.begin(m);
        let mut held = false;
        while !self.requests.is_empty() {
            let candidate = match self.next(m, &mut pumping, out) {
                Next::Ready(candidate) => candidate,
                next => {
                    held = matches!(next, Next::Held);
                    break;
                }
            };
            if !self.serve(m, &mut pumping, candidate, out) {
                break;
            }
        }
        self.finish(m, pumping, out);
        if !held {
            self.end_impatient(m, out);
        }
    }

    pub(super) fn begin(&mut self, m: &Moment<'_>) -> Pumping {
        // Only who sends at once, or decides by it, needs the number before it is applied.
        let pending = match m.consumer.wants_acks() && self.groups.is_none() {
            true => 0,
            false => self.num_pending(m),
        };
        Pumping { pending, ..Pumping::default() }
    }

    /// Gives a candidate to the request whose turn it is; false if there is none.
    fn serve(
        &mut self,
        m: &Moment<'_>,
        pumping: &mut Pumping,
        candidate: Candidate,
        out: &mut PumpOut,
    ) -> bool {
        loop {
            let Some((at, place)) = self.choose_request(m, pumping, out) else { return false };
            let limit = self.requests.get(place).and_then(|waiting| waiting.bytes_left);
            let size = limit.map(|_| self.size_of(m, pumping, &candidate)).unwrap_or(0);
            if limit.is_some_and(|limit| size > limit) {
                self.end(place, Ending::TooBig, out);
                continue;
            }
            let Some(waiting) = self.requests.get_mut(place) else { return false };
            waiting.left -= 1;
            waiting.bytes_left = limit.map(|limit| limit - size);
            waiting.outstanding += 1;
            waiting.served = true;
            let (done, bytes_over) = (waiting.left == 0, limit.is_some_and(|limit| limit > size));
            if done {
                let ending = if bytes_over { Ending::Completed } else { Ending::Silent };
                // Its delivery is outstanding: nothing is said yet.
                let ended = self.requests.end(place, ending);
                debug_assert!(ended.is_none(), "a delivery is outstanding");
            } else {
                self.requests.rotate(at);
            }
            self.take(m, pumping, (candidate, Some((place, size))), out);
            return true;
        }
    }

    /// The request whose turn it is, and its position.
    fn choose_request(
        &mut self,
        m: &Moment<'_>,
        pumping: &Pumping,
        out: &mut PumpOut,
    ) -> Option<(usize, Place)> {
        let ack_pending = m.consumer.pending().len() as u64 + self.inflight_new + pumping.new;
        let mut at = 0;
        while let Some((place, waiting)) = self.requests.at_mut(at) {
            if waiting.heard != self.round {
                let ending = match (m.interest)(&waiting.reply, b"") {
                    false => Some(Ending::Silent),
                    true => (waiting.expires.is_set() && waiting.expires <= m.now).then_some(Ending::Timeout),
                };
                waiting.heard = self.round;
                if let Some(ending) = ending {
                    self.end(place, ending, out);
                    continue;
                }
            }
            let waiting = &*waiting;
            let turn = match &self.groups {
                None => Turn::Yes,
                Some(groups) => groups.turn(waiting, pumping.pending, ack_pending),
            };
            match turn {
                Turn::Yes => return Some((at, place)),
                Turn::Pin(group) => {
                    self.pin(m, group, at, out);
                    return Some((at, place));
                }
                Turn::NotNow => at += 1,
                Turn::Never => self.end(place, Ending::WrongPin, out),
            }
        }
        None
    }

    /// What a message counts for `max_bytes` and flow control: subject, reply, header and payload.
    pub(super) fn size_of(&self, m: &Moment<'_>, pumping: &Pumping, candidate: &Candidate) -> u64 {
        let reply = self.acks.len(self.numbers(m, pumping, candidate));
        (candidate.message.record.joined().len() + reply) as u64
    }

    /// The numbers of a delivery's acknowledgement subject, as far as they are known before it is applied.
    pub(super) fn numbers(&self, m: &Moment<'_>, pumping: &Pumping, candidate: &Candidate) -> AckNumbers {
        let ahead = self.inflight_all + pumping.seqs.len() as u64;
        let pending = match m.consumer.wants_acks() && self.groups.is_none() {
            true => m.consumer.counted().saturating_sub(self.inflight_new + pumping.new),
            false => pumping.pending,
        };
        AckNumbers {
            count: candidate.count,
            seq: candidate.message.seq,
            consumer_seq: m.consumer.delivered().consumer_seq + ahead + 1,
            ts: candidate.message.ts,
            pending: pending.saturating_sub(u64::from(candidate.new)),
        }
    }

    /// The message that comes next: repetitions before new ones.
    pub(super) fn next(&mut self, m: &Moment<'_>, pumping: &mut Pumping, out: &mut PumpOut) -> Next {
        if self.stalled {
            return Next::Held;
        }
        let full = pumping.seqs.len() >= BATCH || pumping.bytes >= BATCH_BYTES;
        if full || self.inflight_all + pumping.seqs.len() as u64 >= INFLIGHT {
            out.more |= full;
            return Next::Held;
        }
        while let Some(&seq) = self.redeliver.front() {
            let Some(delivery) = m.consumer.pending().get(seq) else {
                self.redeliver.pop_front();
                self.queued.remove(&seq);
                continue;
            };
            if m.consumer.is_out_of_deliveries(delivery.count) {
                self.redeliver.pop_front();
                self.give_up(m, seq, out);
                continue;
            }
            match m.messages.fetch(seq) {
                Fetch::Message(message) => {
                    let count = delivery.count.saturating_add(1);
                    return Next::Ready(Candidate { message, count, new: false });
                }
                Fetch::OnDisk(block) => {
                    self.load_again(m, block, out);
                    return Next::Held;
                }
                // Damaged: it waits for its next turn.
                Fetch::Absent => {
                    self.redeliver.pop_front();
                    self.queued.remove(&seq);
                    self.due.shift(m.now + m.consumer.ack_wait(delivery.count), seq);
                }
            }
        }
        self.next_new(m, pumping, out)
    }

    fn next_new(&mut self, m: &Moment<'_>, pumping: &mut Pumping, out: &mut PumpOut) -> Next {
        let limit = m.consumer.config().max_ack_pending;
        loop {
            let taken = m.consumer.pending().len() as u64 + self.inflight_new + pumping.new;
            if m.consumer.wants_acks() && limit > 0 && taken >= limit as u64 {
                return Next::Nothing;
            }
            let from = self.next_new;
            let found =
                self.with_matcher(m, |matcher| m.consumer.next_undelivered(from, m.messages, matcher));
            let Some(seq) = found else { return Next::Nothing };
            match m.messages.fetch(seq) {
                Fetch::Message(message) => {
                    let due = self.replay.as_ref().map_or(Time(0), |replay| replay.due(&message));
                    if due > m.now {
                        self.wake = self.wake.min(due);
                        return Next::Nothing;
                    }
                    return Next::Ready(Candidate { message, count: 1, new: true });
                }
                Fetch::OnDisk(block) => {
                    self.load_new(m, (seq, block), out);
                    return Next::Held;
                }
                // Damaged: the store reports it. It counts as delivered so that it does not hold up the others, and
                // comes again after the ack wait: it may have been repaired by then.
                Fetch::Absent => {
                    self.next_new = seq.next();
                    pumping.seqs.push(seq);
                    pumping.new += 1;
                }
            }
        }
    }

    /// Marks a candidate as chosen, for a request that it takes so many bytes of; without acknowledgements it is sent.
    pub(super) fn take(
        &mut self,
        m: &Moment<'_>,
        pumping: &mut Pumping,
        chosen: (Candidate, Option<(Place, u64)>),
        out: &mut PumpOut,
    ) {
        let (candidate, place) = chosen;
        let wants_acks = m.consumer.wants_acks();
        let numbers = (!wants_acks).then(|| self.numbers(m, pumping, &candidate));
        let Candidate { message, new, .. } = candidate;
        match new {
            true => self.next_new = message.seq.next(),
            false => drop(self.redeliver.pop_front()),
        }
        if let Some(replay) = self.replay.as_mut().filter(|_| new) {
            replay.last = Some((message.ts, m.now));
            if message.seq.next() >= replay.until {
                self.replay = None;
            }
        }
        pumping.seqs.push(message.seq);
        pumping.bytes += message.record.joined().len();
        pumping.new += u64::from(new);
        pumping.pending = pumping.pending.saturating_sub(u64::from(new));
        let pick = Pick { message, place };
        match numbers {
            None => pumping.picks.push(pick),
            Some(numbers) => self.send(m, pick, numbers, out),
        }
    }

    /// Proposes what was chosen.
    pub(super) fn finish(&mut self, m: &Moment<'_>, pumping: Pumping, out: &mut PumpOut) {
        let Pumping { picks, seqs, new, .. } = pumping;
        self.acks.rest();
        if seqs.is_empty() {
            return;
        }
        self.inflight_all += seqs.len() as u64;
        self.inflight_new += new;
        if m.consumer.is_logged() {
            let consumer = m.consumer.name().clone();
            out.proposals.push(Command::Delivered { ts: m.now, consumer, seqs: seqs.clone() });
        } else {
            out.apply_now.extend_from_slice(&seqs);
        }
        self.inflight.push_back(Batch { seqs, picks, new });
    }

    /// Ends requests that do not wait: there is nothing for them now.
    fn end_impatient(&mut self, m: &Moment<'_>, out: &mut PumpOut) {
        if !self.requests.any_impatient() {
            return;
        }
        for place in self.requests.places() {
            let Some(waiting) = self.requests.get(place) else { continue };
            if waiting.no_wait && (waiting.served || !waiting.expires.is_set()) {
                match (m.interest)(&waiting.reply, b"") {
                    true => self.end(place, Ending::NoMessages, out),
                    false => self.end(place, Ending::Silent, out),
                }
            }
        }
    }
}
