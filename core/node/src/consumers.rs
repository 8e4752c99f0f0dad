//! Requests about one consumer that need to know who listens: creates, updates, unpins, and push consumers whose
//! subscribers come and go.

use bytes::Bytes;
use hw_hub::Hub;
use hw_jsapi::{ApiError, ConsumerCreate, Kind};
use hw_kit::{AccountId, GroupId, Time};
use hw_stream::Command;
use hw_stream::consumer::{Request, ServerLimits};
use hw_stream::lead::PumpOut;

use crate::api::{Call, Handled, Reply};
use crate::group::{Group, interest_in};
use crate::jetstream::JetStream;
use crate::limits::DEFAULT_MAX_CONSUMERS;
use crate::log::Origin;

impl JetStream {
    /// Proposes the complete configuration of a consumer, or refuses the request.
    pub(crate) fn consumer_create(
        &mut self,
        now: Time,
        hub: &Hub,
        call: &Call,
        create: ConsumerCreate,
    ) -> Handled {
        let limits = self.consumer_limits(call.account);
        let Some(id) = self.group_named(call.account, &create.stream) else {
            return Handled::Answer(Err(self.no_stream(call.account, &create.stream)));
        };
        let name = match create.name.is_empty() {
            true => Bytes::copy_from_slice(&self.rng.base62::<8>()),
            false => Bytes::from(create.name),
        };
        let Some(group) = self.groups.get_mut(&id) else { return Handled::Answer(Err(ApiError::new(10059))) };
        let (action, pedantic) = (create.action, create.pedantic);
        let request = Request { config: &create.config, action, pedantic };
        // Those that are on their way count, but for another request about this one.
        let in_flight = group.creating.keys().filter(|other| **other != name).count() as u64;
        let limits = ServerLimits { in_flight, ..limits };
        let config = match group.stream.check_consumer(&name, request, limits) {
            Ok(config) => config,
            Err(error) => return Handled::Answer(Err((&error).into())),
        };
        let interest = interest_in(hub, call.account);
        let bound = group.with_lead(now, &name, &interest, |lead, m| lead.check_update(m, &config));
        if let Some(Err(error)) = bound {
            return Handled::Answer(Err((&error).into()));
        }
        if !config.direct && group.stream.consumer(&name).is_none() {
            *group.creating.entry(name.clone()).or_default() += 1;
        }
        let config = config.to_document().into();
        let command = Command::PutConsumer { ts: now, name, action, pedantic, config };
        self.propose(id, Origin::Api(Box::new(call.clone())), &command);
        Handled::Proposed
    }

    /// What account and server allow consumers; the stricter one counts.
    fn consumer_limits(&self, account: AccountId) -> ServerLimits {
        let (max_ack_pending, max_consumers) =
            self.limits_of(account).map_or((-1, -1), |limits| (limits.max_ack_pending, limits.max_consumers));
        let both = [max_ack_pending, self.config.max_ack_pending];
        ServerLimits {
            max_ack_pending: both.into_iter().filter(|limit| *limit > 0).min().unwrap_or(0),
            max_request_batch: self.config.max_request_batch,
            max_consumers,
            default_max_consumers: DEFAULT_MAX_CONSUMERS,
            in_flight: 0,
            clustered: self.cluster.is_some(),
        }
    }

    /// Takes the pin from a priority group's client.
    pub(crate) fn consumer_unpin(
        &mut self,
        now: Time,
        hub: &Hub,
        call: &Call,
        (stream, consumer): (&str, &str),
        priority_group: &str,
    ) -> Reply {
        let id = self.group_named(call.account, stream);
        let id = id.ok_or_else(|| self.no_stream(call.account, stream))?;
        let group = self.groups.get_mut(&id).ok_or_else(|| ApiError::new(10059))?;
        let (name, interest) = (Bytes::copy_from_slice(consumer.as_bytes()), interest_in(hub, call.account));
        let (mut out, mut effects) = (PumpOut::default(), Vec::new());
        let found =
            group.with_lead(now, &name, &interest, |lead, m| lead.handle_unpin(m, priority_group, &mut out));
        group.take(now, &name, &interest, &mut out, &mut effects);
        self.perform(now, hub, id, effects);
        self.touch(id);
        match found {
            None => Err(ApiError::new(10014)),
            Some(false) => Err(ApiError::new(10160)),
            Some(true) => Ok(hw_jsapi::bare(Kind::ConsumerUnpin)),
        }
    }

    /// Push consumers whose subscribers came or went since the last time begin or stop to deliver.
    pub(crate) fn follow_interest(&mut self, now: Time, hub: &Hub) {
        let changes = hub.interest_changes();
        if std::mem::replace(&mut self.interest_seen, changes) == changes {
            return;
        }
        let mut changed = Vec::new();
        for &id in &self.pushing {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let interest = interest_in(hub, group.account);
            if group.follow_interest(now, &interest) {
                changed.push(id);
            }
        }
        for id in changed {
            self.touch(id);
        }
    }

    /// Notes whether a group has push consumers.
    pub(crate) fn note_pushing(&mut self, id: GroupId) {
        if self.groups.get(&id).is_some_and(Group::is_pushing) {
            self.pushing.insert(id);
        } else {
            self.pushing.remove(&id);
        }
    }
}
