//! Pull requests as they arrive: what is refused at once, and what waits.

use bytes::Bytes;
use hw_kit::{Span, Time};

use super::requests::{Ending, GroupTerms, Place, PullRequest, Waiting};
use super::{Lead, Moment, PumpOut, status};
use crate::config::{ConsumerConfig, PriorityPolicy};
use crate::consumer::go_duration;

impl Lead {
    /// Takes a pull request; `reply` is where its messages and statuses go. Pump afterwards.
    pub fn handle_pull(&mut self, m: &Moment<'_>, reply: Bytes, request: &PullRequest, out: &mut PumpOut) {
        self.sync(m, out);
        self.active_at = m.now;
        if !m.consumer.config().is_pull() {
            return out.effects.push(status::send(&reply, Bytes::from_static(status::PUSH_BASED)));
        }
        if let Some(text) = refusal(m.consumer.config(), request) {
            return out.effects.push(status::send(&reply, status::line(&text)));
        }
        let group = match self.group_terms(m, request) {
            Ok(group) => group,
            Err(header) => return out.effects.push(status::send(&reply, header)),
        };
        let full = |lead: &Lead| lead.requests.len() as i64 >= m.consumer.config().max_waiting;
        if full(self) {
            self.end_unheard(m, out);
        }
        if full(self) {
            let header = match request.no_wait && request.expires.is_zero() {
                true => status::NO_MESSAGES,
                false => status::MAX_WAITING,
            };
            if request.idle_heartbeat.is_zero() || request.no_wait {
                out.effects.push(status::send(&reply, Bytes::from_static(header)));
            }
            return;
        }
        self.requests.push(Waiting {
            reply,
            left: u64::try_from(request.batch).unwrap_or(0).max(1),
            implicit: request.batch <= 0,
            bytes_left: u64::try_from(request.max_bytes).ok().filter(|bytes| *bytes > 0),
            no_wait: request.no_wait,
            expires: if request.expires.is_zero() { Time(0) } else { m.now + request.expires },
            heartbeat: request.idle_heartbeat.max(Span::ZERO),
            beat_at: m.now + request.idle_heartbeat,
            heard: 0,
            outstanding: 0,
            served: false,
            ending: None,
            group,
        });
        self.refresh_deadline(m);
    }

    /// What the request says about its group, or the status that refuses it.
    fn group_terms(
        &mut self,
        m: &Moment<'_>,
        request: &PullRequest,
    ) -> Result<Option<Box<GroupTerms>>, Bytes> {
        let bad = |text: &str| Err(status::line(&format!("400 Bad Request - {text}")));
        let Some(groups) = &self.groups else { return Ok(None) };
        if request.group.is_empty() {
            return bad("Priority Group missing");
        }
        let Some(group) = groups.pins.iter().position(|pin| pin.group == request.group) else {
            return bad("Invalid Priority Group");
        };
        let pinned = groups.policy == PriorityPolicy::PinnedClient;
        let pin = &groups.pins[group].id;
        if pinned && !pin.is_empty() && !request.id.is_empty() {
            if *pin != request.id {
                return Err(Bytes::from_static(status::PIN_MISMATCH));
            }
            self.extend_pin(m, group);
        }
        let prioritized = m.consumer.config().priority_policy == PriorityPolicy::Prioritized;
        Ok(Some(Box::new(GroupTerms {
            group,
            min_pending: u64::try_from(request.min_pending).unwrap_or(0),
            min_ack_pending: u64::try_from(request.min_ack_pending).unwrap_or(0),
            id: Bytes::copy_from_slice(request.id.as_bytes()),
            priority: if prioritized { request.priority as u8 } else { 0 },
        })))
    }

    /// Somebody looks at the consumer: requests that nobody waits for are not counted, and interest is as it is now.
    pub fn handle_look(&mut self, m: &Moment<'_>, out: &mut PumpOut) {
        self.sync(m, out);
        self.end_unheard(m, out);
        self.refresh_interest(m);
        self.refresh_deadline(m);
    }

    /// Ends requests that nobody listens to any more, or whose time is up.
    pub(super) fn end_unheard(&mut self, m: &Moment<'_>, out: &mut PumpOut) {
        for place in self.requests.places() {
            let Some(waiting) = self.requests.get(place) else { continue };
            if !(m.interest)(&waiting.reply, b"") {
                self.end(place, Ending::Silent, out);
            } else if waiting.expires.is_set() && waiting.expires <= m.now {
                self.end(place, Ending::Timeout, out);
            }
        }
    }

    /// Ends a request; its status follows its last delivery.
    pub(super) fn end(&mut self, place: Place, ending: Ending, out: &mut PumpOut) {
        if let Some(ended) = self.requests.end(place, ending) {
            say_ended(&ended, out);
        }
    }
}

/// Tells a request how it ended.
pub(super) fn say_ended(ended: &Waiting, out: &mut PumpOut) {
    if let Some(header) = status::ending(ended) {
        out.effects.push(status::send(&ended.reply, header));
    }
}

/// Why a request is refused whatever waits, as a status line.
fn refusal(config: &ConsumerConfig, request: &PullRequest) -> Option<String> {
    let bad = |text: &str| Some(format!("400 Bad Request - {text}"));
    if config.max_batch > 0 && request.batch > config.max_batch {
        return Some(format!("409 Exceeded MaxRequestBatch of {}", config.max_batch));
    }
    if config.max_expires > Span::ZERO && request.expires > config.max_expires {
        return Some(format!("409 Exceeded MaxRequestExpires of {}", go_duration(config.max_expires)));
    }
    if config.max_bytes > 0 && request.max_bytes > config.max_bytes {
        return Some(format!("409 Exceeded MaxRequestMaxBytes of {}", config.max_bytes));
    }
    // A heartbeat must come at least twice before the request expires.
    if request.idle_heartbeat > Span::ZERO && request.idle_heartbeat.0 > request.expires.0 / 2 {
        return bad("heartbeat value too large");
    }
    if !(0..=9).contains(&request.priority) {
        return bad("Priority must be between 0 and 9");
    }
    let overflow = config.priority_policy == PriorityPolicy::Overflow;
    if !overflow && (request.min_pending > 0 || request.min_ack_pending > 0) {
        return bad("Not a Overflow Priority consumer");
    }
    if config.priority_policy != PriorityPolicy::PinnedClient && !request.id.is_empty() {
        return bad("Not a Pinned Client Priority consumer");
    }
    None
}
