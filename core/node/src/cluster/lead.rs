//! The beginning and the end of a leadership: only the leader of a stream listens to its subjects, runs its consumers and
//! talks to clients.

use bytes::Bytes;
use hw_hub::Hub;
use hw_kit::{GroupId, Time};
use hw_stream::lead::PumpOut;

use crate::commit::META;
use crate::jetstream::JetStream;
use crate::notice::NoticeLevel;
use crate::schedule::Schedules;

impl JetStream {
    /// Everything that was decided before is applied: this server serves the group.
    pub(crate) fn start_leading(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        let text = format!("this server leads {}", self.raft_group(id));
        self.say(NoticeLevel::Debug, text);
        if id == META {
            return self.start_leading_meta(now);
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.revision = group.stream.revision().max(1);
        self.listen_to(now, hub, id);
        self.configure_group(now, hub, id);
        self.recount(id);
        self.answer_waiting(now, hub, id);
    }

    /// Another server leads, or nobody: clients that wait are told to ask again, publishers get no answer.
    pub(crate) fn stop_leading(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        let text = format!("this server does not lead {} any more", self.raft_group(id));
        self.say(NoticeLevel::Debug, text);
        if let Some(log) = self.log_mut(id) {
            log.handle_stepdown();
        }
        if id == META {
            return;
        }
        self.stop_listening(hub, id);
        self.end_batches(id, (false, false));
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
        group.waiting.clear();
        group.expiring = false;
        group.wanted = None;
        let account = group.account;
        self.groups.insert(group);
        self.pushing.remove(&id);
        self.send_effects(account, effects);
        self.recount(id);
        self.rearm(id);
    }

    /// The names of a stream's consumers.
    pub(crate) fn consumer_names(&self, id: GroupId) -> Vec<Bytes> {
        let group = self.groups.get(&id);
        group
            .map(|group| group.stream.consumers().map(|one| one.name().clone()).collect())
            .unwrap_or_default()
    }
}
