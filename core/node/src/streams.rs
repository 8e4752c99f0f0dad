//! Streams on this server: opened, configured and closed as the meta group decides, with the interest they have.

use bytes::Bytes;
use hw_hub::Hub;
use hw_jsapi::{ApiError, Event};
use hw_kit::{AccountId, GroupId, Time};
use hw_stream::config::Storage;
use hw_stream::lead::PumpOut;
use hw_stream::stream::{StreamLimits, check, check_restored, check_update};
use hw_stream::{Command, StreamConfig};

use crate::cluster::Found;
use crate::group::{Group, interest_in};
use crate::inside::Target;
use crate::jetstream::JetStream;
use crate::log::Origin;
use crate::outbox::Outgoing;
use crate::read::name_of;
use crate::recover::Restored;

impl JetStream {
    /// The complete configuration of a new stream, or why it is refused.
    pub(crate) fn check_new(
        &self,
        account: AccountId,
        config: &StreamConfig,
        pedantic: bool,
    ) -> Result<StreamConfig, ApiError> {
        let config = check(config, self.stream_limits(), pedantic).map_err(|error| ApiError::from(&error))?;
        self.check_place(account, config, pedantic)
    }

    /// The same for a stream that a backup brings.
    pub(crate) fn check_restored(
        &self,
        account: AccountId,
        config: &StreamConfig,
    ) -> Result<StreamConfig, ApiError> {
        let config = check_restored(config, self.stream_limits()).map_err(|error| ApiError::from(&error))?;
        self.check_place(account, config, false)
    }

    /// Whether there is room for a complete configuration in an account.
    fn check_place(
        &self,
        account: AccountId,
        mut config: StreamConfig,
        pedantic: bool,
    ) -> Result<StreamConfig, ApiError> {
        let account_name = self.account_name(account);
        let origins = self.meta.check_origins(&account_name, &mut config, pedantic);
        origins.map_err(|error| ApiError::from(&error))?;
        match self.meta.stream(&account_name, &config.name) {
            None => self.check_space(account, &config, 0)?,
            Some(asset) if self.groups.contains_key(&asset.group()) => {}
            Some(_) => return Err(self.no_stream(account, &config.name)),
        }
        Ok(config)
    }

    /// The complete configuration of a stream that exists, or why it stays as it is.
    pub(crate) fn check_change(
        &self,
        account: AccountId,
        config: &StreamConfig,
        pedantic: bool,
    ) -> Result<StreamConfig, ApiError> {
        let group = self.group_named(account, &config.name).and_then(|id| self.groups.get(&id));
        let group = group.ok_or_else(|| self.no_stream(account, &config.name))?;
        let old = group.stream.config();
        let checked = check_update(old, config, group.stream.consumers(), self.stream_limits(), pedantic);
        let mut config = checked.map_err(|error| ApiError::from(&error))?;
        let origins = self.meta.check_origins(&self.account_name(account), &mut config, pedantic);
        origins.map_err(|error| ApiError::from(&error))?;
        self.check_space(account, &config, old.max_bytes.max(0))?;
        Ok(config)
    }

    fn stream_limits(&self) -> StreamLimits {
        StreamLimits { clustered: self.cluster.is_some(), duplicate_window: self.config.max_duplicate_window }
    }

    /// Whether account and server have room for what the stream reserves beyond `held`.
    fn check_space(&self, account: AccountId, config: &StreamConfig, held: i64) -> Result<(), ApiError> {
        let Some(limits) = self.limits_of(account) else { return Err(ApiError::new(10039)) };
        let memory = config.storage == Storage::Memory;
        let (of_account, of_stream, of_server, no_room) = match memory {
            true => (limits.max_memory, limits.memory_max_stream_bytes, self.config.max_memory, 10028),
            false => (limits.max_storage, limits.storage_max_stream_bytes, self.config.max_storage, 10047),
        };
        if limits.max_bytes_required && config.max_bytes <= 0 {
            return Err(ApiError::new(10113));
        }
        if of_stream > 0 && config.max_bytes > of_stream {
            return Err(ApiError::new(10122));
        }
        let wanted = config.max_bytes.max(0).saturating_sub(held);
        if of_account >= 0 && self.reserved(Some(account), memory).saturating_add(wanted) > of_account {
            return Err(ApiError::new(no_room));
        }
        if of_server >= 0 && self.reserved(None, memory).saturating_add(wanted) > of_server {
            return Err(ApiError::new(no_room));
        }
        Ok(())
    }

    /// The bytes that streams reserve by their `max_bytes`, in one account or in all.
    pub(crate) fn reserved(&self, account: Option<AccountId>, memory: bool) -> i64 {
        self.usage.reserved(account, memory)
    }

    /// A stream was created: if it has a place here, its machine starts, and publishes on its subjects reach who leads it.
    pub(crate) fn open_group(&mut self, now: Time, hub: &mut Hub, (account, name): (&str, &str)) {
        let Some(asset) = self.meta.stream(account, name).filter(|asset| self.is_placed_here(asset)) else {
            return;
        };
        let asset = asset.clone();
        let id = asset.group();
        if self.is_going(id) {
            return self.open_later(id);
        }
        let Some(account_id) = self.directory.account_id(account) else { return };
        if self.aside.quarantined.contains_key(&id) {
            return;
        }
        if let Some(reason) = self.aside.unopened.remove(&id) {
            let last_segment = self.aside.last_segments.get(&id).copied().unwrap_or_default();
            return self.open_anew(now, hub, (account, &asset), (reason, last_segment));
        }
        let mut parked = self.aside.parked.remove(&id);
        if let Some(group) = parked.take_if(|group| group.log.replicated.is_some()) {
            return self.open_parked(now, hub, (account_id, group));
        }
        let resting = parked.as_mut().and_then(|group| group.log.wake());
        let Found { saved, frames } =
            self.cluster.as_mut().and_then(|cluster| cluster.found.remove(&id)).unwrap_or_default();
        let saved = resting.or(saved);
        let found = parked.map(|group| Restored::of(*group));
        let mut found = found.unwrap_or_else(|| Restored::begin(self.begun(&asset)));
        frames.iter().for_each(|frame| found.replay(frame));
        let log = match self.new_log(&asset, (saved, found.applied)) {
            Ok(log) => log,
            Err(error) => return self.put_aside(now, id, (account, name), error.to_string()),
        };
        let revision = found.stream.revision().max(1);
        let mut group = Group::new(id, account_id, revision, found.stream, log);
        (group.last_segment, group.damage) = (found.last_segment, found.damage);
        // It was here before, and its files are still to go: they make room for the new ones.
        self.disk.dropped.retain(|gone| *gone != id);
        self.add_group(now, hub, Box::new(group));
        self.configure_group(now, hub, id);
        self.note_opened(now, id);
        self.seek_help(now, id);
    }

    /// Adds a group; who leads it listens.
    pub(crate) fn add_group(&mut self, now: Time, hub: &mut Hub, group: Box<Group>) {
        let (id, leads) = (group.id, group.log.is_leading());
        self.groups.insert(group);
        self.recount(id);
        if leads {
            self.listen_to(now, hub, id);
        }
    }

    /// Everything that a stream and its consumers listen to reaches it.
    pub(crate) fn listen_to(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        if !self.captures() {
            for (filter, target) in own_interest(group, &self.config.domain) {
                hub.subscribe_internal(group.account, filter.as_bytes(), None, target.id());
            }
        }
        for name in self.consumer_names(id) {
            self.lead_consumer(now, hub, id, &name);
        }
        self.link_feeds(id);
        self.offer_origin(id);
    }

    /// Nothing reaches it any more.
    pub(crate) fn stop_listening(&mut self, hub: &mut Hub, id: GroupId) {
        let Some(group) = self.groups.get(&id).filter(|_| !self.captures()) else { return };
        for (filter, target) in own_interest(group, &self.config.domain) {
            hub.unsubscribe_internal(group.account, filter.as_bytes(), None, target.id());
        }
        for name in group.leads.keys() {
            for filter in pull_subjects(group, name, &self.config.domain) {
                hub.unsubscribe_internal(group.account, filter.as_bytes(), None, Target::Pull(id).id());
            }
        }
    }

    /// A stream has a new configuration: its interest follows at once, its machine when the command is applied.
    pub(crate) fn configure_group(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let asset = self.meta.stream(&self.account_name(group.account), name_of(group));
        let Some(asset) = asset.filter(|asset| asset.group() == id && asset.revision != group.revision)
        else {
            return;
        };
        let (revision, config) = (asset.revision, asset.config.clone());
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.log.is_leading()) else { return };
        group.revision = revision;
        let before = own_interest(group, &self.config.domain);
        let command = Command::Configure { ts: now, revision, config: config.to_document().into() };
        // Applied at once, beside the log: the meta group has decided, and the answer shows the new configuration.
        group.log.propose(Origin::None, |out| command.encode(out));
        let allowed = (config.allow_atomic, config.allow_batched);
        group.wanted = Some(config);
        let after = own_interest(group, &self.config.domain);
        let account = group.account;
        if !self.captures() {
            for (filter, target) in before.iter().filter(|old| !after.contains(old)) {
                hub.unsubscribe_internal(account, filter.as_bytes(), None, target.id());
            }
            for (filter, target) in after.iter().filter(|new| !before.contains(new)) {
                hub.subscribe_internal(account, filter.as_bytes(), None, target.id());
            }
        }
        self.end_batches(id, allowed);
        self.touch(id);
    }

    /// A stream was deleted: nobody reaches it any more, and its files may go.
    pub(crate) fn close_group(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        self.advise_deleted(now, hub, id);
        self.snapshots.touch(id);
        self.write_acks(id);
        self.uncount(id);
        self.end_batches(id, (false, false));
        self.pushing.remove(&id);
        self.following.remove(&id);
        self.findings.forget(id);
        if self.aside.quarantined.remove(&id).is_some() {
            self.disk.dropped.push(id);
        }
        self.blind_handed(id);
        self.drop_found(id);
        if self.groups.get(&id).is_some_and(|group| group.log.is_leading()) {
            self.stop_listening(hub, id);
        }
        self.forget_replica(id);
        let Some(mut group) = self.groups.remove(&id) else { return };
        // Whoever cleans may have waited for it.
        self.disk.tidy.by(now);
        let mut effects = Vec::new();
        for lead in group.leads.values_mut() {
            let mut out = PumpOut::default();
            lead.handle_deleted(&mut out);
            effects.append(&mut out.effects);
        }
        if let Some(armed) = group.armed {
            self.deadlines.remove(&(armed, id));
        }
        self.withdraw_origin(now, &group);
        self.send_effects(group.account, effects);
        for held in std::mem::take(&mut group.held) {
            self.refuse_held(now, hub, held);
        }
        if !group.is_volatile() {
            self.disk.dropped.push(id);
        }
    }

    /// Writes the acknowledgements of a stream that is about to go: later nobody knows its name.
    fn write_acks(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let name = &group.stream.config().name;
        for outgoing in &mut self.outbox.ready {
            if let Outgoing::PubAck { account, group, reply, result } = outgoing
                && *group == id
            {
                let mut json = Vec::new();
                hw_jsapi::pub_ack(&mut json, name, &self.config.domain, result);
                let (to, none) = (std::mem::take(reply), Bytes::new());
                *outgoing = Outgoing::Send {
                    account: *account,
                    to,
                    reply: none.clone(),
                    header: none,
                    payload: json.into(),
                };
            }
        }
    }

    /// A consumer is there: its pulls reach it, and its volatile half runs.
    pub(crate) fn lead_consumer(&mut self, now: Time, hub: &mut Hub, id: GroupId, name: &Bytes) {
        let (scope, captures) = (self.ack_scope(id), self.captures());
        let Some(group) = self.groups.get_mut(&id) else { return };
        if !group.leads.contains_key(name) {
            for filter in pull_subjects(group, name, &self.config.domain).iter().filter(|_| !captures) {
                hub.subscribe_internal(group.account, filter.as_bytes(), None, Target::Pull(id).id());
            }
            let interest = interest_in(hub, group.account);
            group.lead(now, name, (&mut self.rng, &scope), &interest);
        }
        self.note_pushing(id);
        self.touch(id);
    }

    /// What acknowledgement subjects have before the stream's name: nothing, unless the longer form is wanted.
    fn ack_scope(&self, id: GroupId) -> String {
        let Some(group) = self.groups.get(&id).filter(|_| self.config.long_acks) else {
            return String::new();
        };
        hw_jsapi::ack_scope(&self.config.domain, &self.account_name(group.account))
    }

    /// A consumer was deleted: whoever waits is told.
    pub(crate) fn drop_consumer(&mut self, hub: &mut Hub, id: GroupId, name: &Bytes) {
        let captures = self.captures();
        let Some(group) = self.groups.get_mut(&id) else { return };
        let Some(mut lead) = group.leads.remove(name) else { return };
        for filter in pull_subjects(group, name, &self.config.domain).iter().filter(|_| !captures) {
            hub.unsubscribe_internal(group.account, filter.as_bytes(), None, Target::Pull(id).id());
        }
        let account = group.account;
        let mut out = PumpOut::default();
        lead.handle_deleted(&mut out);
        self.send_effects(account, out.effects);
        self.note_pushing(id);
    }

    fn advise_deleted(&mut self, now: Time, hub: &Hub, id: GroupId) {
        // Who leads it says so.
        let Some(group) = self.groups.get(&id).filter(|group| group.log.is_leading()) else { return };
        let names: Vec<Bytes> = group.leads.keys().cloned().collect();
        for consumer in names {
            let gone = hw_stream::Advisory::ConsumerDeleted { consumer };
            self.advise_stream(now, hub, id, &Event::Consumer(&gone));
        }
        self.advise_stream(now, hub, id, &Event::Stream("DELETED", "delete"));
    }
}

/// What a stream listens to: its subjects, acknowledgements, flow control replies and direct gets, its origin's among them if it
/// answers those.
fn own_interest(group: &Group, domain: &str) -> Vec<(String, Target)> {
    interest_of(group.wanted.as_deref().unwrap_or_else(|| group.stream.config()), group.id, domain)
}

/// The same by the configuration.
pub(crate) fn interest_of(config: &StreamConfig, id: GroupId, domain: &str) -> Vec<(String, Target)> {
    let name = &config.name;
    let mut interest: Vec<(String, Target)> =
        config.subjects.iter().map(|subject| (subject.clone(), Target::Publish(id))).collect();
    // Both forms of acknowledgement and flow control subjects: with domain and account hash before the stream, and without.
    interest.push((format!("$JS.ACK.{name}.>"), Target::Ack(id)));
    interest.push((format!("$JS.ACK.*.*.{name}.>"), Target::Ack(id)));
    interest.push((format!("$JS.FC.{name}.>"), Target::FlowControl(id)));
    interest.push((format!("$JS.FC.*.*.{name}.*.>"), Target::FlowControl(id)));
    if config.allow_direct {
        for prefix in prefixes(domain) {
            interest.push((format!("{prefix}.DIRECT.GET.{name}"), Target::DirectGet(id)));
            interest.push((format!("{prefix}.DIRECT.GET.{name}.>"), Target::DirectGet(id)));
        }
    }
    if let Some(origin) = config.mirror.as_ref().filter(|origin| config.mirror_direct && origin.name != *name)
    {
        for prefix in prefixes(domain) {
            interest.push((format!("{prefix}.DIRECT.GET.{}", origin.name), Target::MirrorGet(id)));
            interest.push((format!("{prefix}.DIRECT.GET.{}.>", origin.name), Target::MirrorGet(id)));
        }
    }
    interest
}

/// Where a consumer's pulls arrive.
fn pull_subjects(group: &Group, consumer: &[u8], domain: &str) -> Vec<String> {
    let (stream, consumer) = (&group.stream.config().name, String::from_utf8_lossy(consumer));
    prefixes(domain).map(|prefix| format!("{prefix}.CONSUMER.MSG.NEXT.{stream}.{consumer}")).collect()
}

/// The API's prefixes: the plain one, and the domain's where there is one.
pub(crate) fn prefixes(domain: &str) -> impl Iterator<Item = String> {
    let of_domain = (!domain.is_empty()).then(|| format!("$JS.{domain}.API"));
    std::iter::once("$JS.API".to_owned()).chain(of_domain)
}
