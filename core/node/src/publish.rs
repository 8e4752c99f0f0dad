//! Messages for JetStream: which machine gets them, and publishes on their way into a stream's log.

use hw_hub::{Message, Origin as Sender};
use hw_kit::{GroupId, Time};
use hw_stream::command;
use hw_stream::outcome::PublishError;
use hw_wire::{REQUEST_INFO, headers};

use crate::api::Call;
use crate::cluster::{Parcel, Serial};
use crate::inside::Target;
use crate::jetstream::JetStream;
use crate::log::Origin;
use crate::shard::owned;

impl JetStream {
    /// A message for one of JetStream's inside subscriptions.
    pub(crate) fn deliver(&mut self, now: Time, target: Target, from: Sender, msg: &Message<'_>) {
        match target {
            Target::Api => self.calls.push_back(Call::new(now, from, msg)),
            Target::MirrorGet(group) if self.has_origin_here(group) => {}
            _ if self.keeps(now, target, msg) => self.receive(now, target, msg),
            _ => {}
        }
    }

    /// The same for one that is this server's to handle, and is no request.
    pub(crate) fn receive(&mut self, now: Time, target: Target, msg: &Message<'_>) {
        match target {
            Target::Publish(group) => self.publish(now, group, None, msg),
            Target::Ack(group) => self.handle_ack(group, msg),
            Target::Pull(group) => self.handle_pull(group, msg),
            Target::FlowControl(group) => self.handle_flow_control(group, msg),
            Target::DirectGet(group) => self.handle_direct_get(group, msg, None),
            Target::MirrorGet(group) if self.is_far_behind(now, group) => {}
            Target::MirrorGet(group) => self.handle_direct_get(group, msg, None),
            Target::Snapshot(number) => self.snapshots.handle_ack(number.0),
            Target::Restore(group) => self.restores.handle_piece(group, msg),
            Target::Api | Target::System => {}
        }
    }

    /// The same for one that another server handed on, or that has waited.
    pub(crate) fn receive_parcel(&mut self, now: Time, parcel: &Parcel) {
        match parcel.target {
            Target::Publish(group) => {
                let serial = parcel.serial.and_then(Serial::followed);
                self.publish(now, group, serial, &parcel.message());
            }
            other => self.receive(now, other, &parcel.message()),
        }
    }

    /// A publish on one of a stream's subjects: it is decided when it is applied, unless it is refused for certain.
    fn publish(&mut self, now: Time, id: GroupId, serial: Option<Serial>, msg: &Message<'_>) {
        let refusal = self.refusal();
        let no_room = self.no_room(id, msg.subject.len() + msg.size());
        let overrun = self.is_overrun(id).then_some(PublishError::Overrun);
        let Some(group) = self.groups.get_mut(&id) else { return };
        let wants_ack = !msg.reply.is_empty() && !group.stream.config().no_ack;
        let is_batched = group.is_batched(msg);
        let refusal = match msg.subject.len() > usize::from(u16::MAX) || is_batched && group.is_too_large(msg)
        {
            true => Some(PublishError::TooLarge),
            false => refusal.filter(|_| !group.is_volatile()).or(no_room).or(overrun),
        };
        if let Some(error) = refusal {
            return self.refuse(id, serial, msg.reply, error);
        }
        if is_batched {
            return self.publish_batched(now, id, serial, msg);
        }
        let origin = match (wants_ack, serial) {
            (false, _) => Origin::None,
            (true, None) => Origin::Publish(owned(msg.reply)),
            (true, Some(serial)) => Origin::Handed(serial.run()),
        };
        group.log.propose_publish(now, serial, origin, |out| {
            // Who asked over an import is not kept.
            let header = headers::without(msg.header, REQUEST_INFO);
            let fits = command::encode_publish(out, now, msg.subject, &header, msg.payload);
            assert!(fits, "the subject's length was checked");
        });
        self.recount(id);
        self.touch(id);
    }

    /// Answers a publish with a refusal, or lets the server do so that handed it on.
    pub(crate) fn refuse(&mut self, id: GroupId, serial: Option<Serial>, reply: &[u8], error: PublishError) {
        match serial {
            Some(serial) => self.refuse_handed(id, serial.run(), error),
            None => self.refuse_publish(id, reply, error),
        }
    }

    /// Why no file stream takes a publish at the moment.
    pub(crate) fn refusal(&self) -> Option<PublishError> {
        match &self.disk.failed {
            Some(reason) => Some(PublishError::StoreStopped(reason.clone())),
            None => self.disk.full.then_some(PublishError::DiskFull),
        }
    }
}
