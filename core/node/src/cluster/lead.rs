//! The beginning and the end of a leadership: only the leader of a stream listens to its subjects, runs its consumers and
//! talks to clients.

use bytes::Bytes;
use hw_hub::Hub;
use hw_jsapi::{ApiError, Event, Leadership};
use hw_kit::{GroupId, NodeId, Time};
use hw_stream::lead::PumpOut;

use super::place::node_key;
use crate::commit::META;
use crate::jetstream::JetStream;
use crate::log::Origin;
use crate::notice::NoticeLevel;
use crate::schedule::Schedules;
use crate::untold::Untold;

impl JetStream {
    /// Everything that was decided before is applied: this server serves the group.
    pub(crate) fn start_leading(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        let text = format!("this server leads {}", self.raft_group(id));
        self.say(NoticeLevel::Debug, text);
        if id == META {
            self.advise_leader(now, hub, id);
            return self.start_leading_meta(now);
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.revision = group.stream.revision().max(1);
        self.listen_to(now, hub, id);
        self.configure_group(now, hub, id);
        self.take_over_batches(id);
        self.recount(id);
        self.answer_waiting(now, hub, id);
        self.advise_leader(now, hub, id);
    }

    /// Another server leads, or nobody: clients that wait are told to ask again, publishers get no answer.
    pub(crate) fn stop_leading(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        let text = format!("this server does not lead {} any more", self.raft_group(id));
        self.say(NoticeLevel::Debug, text);
        if let Some(log) = self.log_mut(id) {
            let led = log.replicated.as_ref().map_or(0, |replicated| replicated.led);
            log.handle_stepdown(led);
        }
        self.tell_lost(now, hub, id);
        if let Some(cluster) = &mut self.cluster {
            cluster.handovers.forget(id);
            cluster.compares.forget(id);
            cluster.proofs.forget(id);
            // What is said to a leader of an earlier term does not count in a later one.
            cluster.leavers.retain(|(group, _)| *group != id);
        }
        if id == META {
            return self.end_restores();
        }
        self.stop_listening(hub, id);
        self.give_up_batches(now, id);
        let Some(mut group) = self.groups.remove(&id) else { return };
        self.withdraw_origin(now, &group);
        let mut effects = Vec::new();
        for lead in group.leads.values_mut() {
            let mut out = PumpOut::default();
            lead.handle_stepdown("409 Leadership Change", false, &mut out);
            effects.append(&mut out.effects);
        }
        group.leads.clear();
        group.feeds = Default::default();
        group.schedules = Schedules::default();
        group.creating.clear();
        group.held.clear();
        group.expiring = false;
        group.wanted = None;
        group.untold = Untold::default();
        if let Some(replicated) = &mut group.log.replicated {
            replicated.comparing.handle_stepdown();
        }
        group.stream.forget_unlogged();
        let account = group.account;
        self.groups.insert(group);
        self.pushing.remove(&id);
        self.send_effects(account, effects);
        self.recount(id);
        self.rearm(id);
    }

    /// Nothing came of what was proposed here and is not in the log: publishers are told, requests go to the next leader.
    pub(crate) fn tell_lost(&mut self, now: Time, hub: &Hub, id: GroupId) {
        let lost = self.log_mut(id).map(crate::log::Log::take_lost).unwrap_or_default();
        let group = self.groups.get(&id);
        let about = group.map(|group| (group.account, group.stream.config().name.clone()));
        for origin in lost {
            match (origin, &about) {
                (Origin::Publish(reply), Some((account, name))) => {
                    let mut json = Vec::new();
                    hw_jsapi::publish_refused(&mut json, name, ApiError::new(10009));
                    self.outbox.answer(*account, reply, Bytes::new(), json);
                }
                (Origin::Api(call), _) => self.ask_again(now, hub, *call),
                // Whoever confirms asks again, and batches end with the leadership.
                _ => {}
            }
        }
    }

    /// Whoever watches is told that this server leads a group.
    fn advise_leader(&mut self, now: Time, hub: &Hub, id: GroupId) {
        let about = Leadership {
            leader: self.config.server_name.clone(),
            replicas: self.peer_infos(now, id),
            ..Leadership::default()
        };
        self.advise_leadership(now, hub, id, about);
    }

    /// The same for a group that does not reach enough of its servers to decide anything.
    pub(crate) fn advise_quorum_lost(&mut self, now: Time, hub: &Hub, id: GroupId) {
        let about = Leadership { replicas: self.peer_infos(now, id), ..Leadership::default() };
        self.advise_leadership(now, hub, id, about);
    }

    fn advise_leadership(&mut self, now: Time, hub: &Hub, id: GroupId, about: Leadership) {
        if self.replica(id).is_none() {
            return; // It has one server, which is no news.
        }
        let system = self.directory.system_account();
        if id == META {
            let leader = self.cluster.as_ref().map_or(NodeId(0), |cluster| cluster.me);
            let about = Leadership { leader: node_key(leader), cluster: self.cluster_name(), ..about };
            if let Some(system) = system {
                self.advise(now, hub, system, &Event::Domain(&about), "");
            }
            return;
        }
        let Some(group) = self.groups.get(&id) else { return };
        let (account, stream) = (group.account, group.stream.config().name.clone());
        let of_account = Leadership { account: self.account_name(account), ..about.clone() };
        let names = self.consumer_names(id);
        let consumers = names.iter().map(|name| Some(String::from_utf8_lossy(name).into_owned()));
        for consumer in std::iter::once(None).chain(consumers) {
            let consumer = consumer.as_deref();
            self.advise(now, hub, account, &Event::Leadership { consumer, about: &about }, &stream);
            if let Some(system) = system {
                self.advise(now, hub, system, &Event::Leadership { consumer, about: &of_account }, &stream);
            }
        }
    }

    /// The names of a stream's consumers.
    pub(crate) fn consumer_names(&self, id: GroupId) -> Vec<Bytes> {
        let group = self.groups.get(&id);
        group
            .map(|group| group.stream.consumers().map(|one| one.name().clone()).collect())
            .unwrap_or_default()
    }
}
