//! Answers that wait until what was proposed before is applied: who asks about a stream or a consumer sees everything
//! that reached this server before the question.

use hw_hub::Hub;
use hw_jsapi::{ApiError, Kind, Request};
use hw_kit::{GroupId, Time};

use crate::api::{Call, Handled, Reply};
use crate::jetstream::JetStream;

/// An answer that waits.
pub(crate) struct Held {
    /// For this command.
    until: u64,
    call: Box<Call>,
    /// What to look up; without it the call is a stream update whose configuration is being applied.
    request: Option<Request>,
}

impl JetStream {
    /// Holds a request while commands of its stream are on their way; gives back what can be answered now.
    pub(crate) fn hold(&mut self, call: &Call, request: Request) -> Option<Request> {
        let (Request::StreamInfo { stream, .. }
        | Request::StreamSnapshot { stream, .. }
        | Request::ConsumerInfo { stream, .. }) = &request
        else {
            return Some(request);
        };
        let id = self.group_named(call.account, stream);
        let Some(group) = id.and_then(|id| self.groups.get_mut(&id)) else { return Some(request) };
        let until = group.log.proposed();
        // After a failed write nothing more is applied: what there is must do.
        if until == group.log.settled() || self.disk.failed.is_some() {
            return Some(request);
        }
        group.held.push_back(Held { until, call: Box::new(call.clone()), request: Some(request) });
        None
    }

    /// Holds the answer to an update until the stream has applied its configuration.
    pub(crate) fn hold_update(&mut self, id: GroupId, call: &Call) -> bool {
        let Some(group) = self.groups.get_mut(&id) else { return false };
        let until = group.log.proposed();
        if until == group.log.settled() {
            return false;
        }
        group.held.push_back(Held { until, call: Box::new(call.clone()), request: None });
        true
    }

    /// Answers what waited for the commands that are applied by now.
    pub(crate) fn release(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        while let Some(group) = self.groups.get_mut(&id) {
            let settled = group.log.settled();
            let Some(held) = group.held.pop_front_if(|held| held.until <= settled) else { return };
            self.answer_held(now, hub, id, held);
        }
    }

    /// Nothing more is applied: whoever waits gets what there is. Updates stay unanswered, for they are not durable.
    pub(crate) fn release_all(&mut self, now: Time, hub: &mut Hub) {
        let waiting: Vec<GroupId> =
            self.groups.values().filter(|group| !group.held.is_empty()).map(|group| group.id).collect();
        for id in waiting {
            let held =
                self.groups.get_mut(&id).map(|group| std::mem::take(&mut group.held)).unwrap_or_default();
            for held in held.into_iter().filter(|held| held.request.is_some()) {
                self.answer_held(now, hub, id, held);
            }
        }
    }

    /// The stream is gone.
    pub(crate) fn refuse_held(&mut self, now: Time, hub: &Hub, held: Held) {
        self.answer(now, hub, &held.call, Err(ApiError::new(10059)));
    }

    fn answer_held(&mut self, now: Time, hub: &mut Hub, id: GroupId, held: Held) {
        let Held { call, request, .. } = held;
        match request {
            None => {
                let (reply, mark) = (self.updated(now, id, call.kind), hub.interest_mark());
                self.answer_after(now, hub, &call, reply, mark);
            }
            Some(Request::StreamSnapshot { stream, snapshot }) => {
                let mark = hub.interest_mark();
                if let Handled::Answer(reply) = self.snapshot(now, hub, &call, (&stream, &snapshot)) {
                    self.answer_after(now, hub, &call, reply, mark);
                }
            }
            Some(request) => {
                if let Some(reply) = self.look_up(now, hub, &call, request) {
                    self.answer(now, hub, &call, reply);
                }
            }
        }
    }

    /// The answer to a stream update.
    pub(crate) fn updated(&self, now: Time, id: GroupId, kind: Kind) -> Reply {
        let info = self.stream_view(now, id).ok_or_else(|| ApiError::new(10059))?;
        Ok(hw_jsapi::stream_create(kind, &info, false))
    }
}
