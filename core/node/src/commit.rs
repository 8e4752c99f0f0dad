//! What the disk has made durable is applied: answers go to whoever waits, effects to clients.

use bytes::Bytes;
use hw_hub::Hub;
use hw_jsapi::{ApiError, Event, Kind};
use hw_kit::{GroupId, Seq, Time};
use hw_meta::{Created, MetaAnswer, MetaCommand};
use hw_store::{Frame, FrameMeta};
use hw_stream::Command;
use hw_stream::command::RunOf;
use hw_stream::outcome::{Answer, Effect};

use crate::api::{Call, Reply};
use crate::cluster::Run;
use crate::completion::DiskCompletion;
use crate::group::interest_in;
use crate::jetstream::JetStream;
use crate::log::Origin;
use crate::outbox::Outgoing;

/// The meta group's number.
pub(crate) const META: GroupId = GroupId(0);

/// The number under which the store keeps what it is in the cluster: no group has it.
pub(crate) const STORE: GroupId = GroupId(u64::MAX);

impl JetStream {
    /// The disk finished something.
    pub(crate) fn handle_disk(&mut self, now: Time, hub: &mut Hub, completion: DiskCompletion) {
        match completion {
            DiskCompletion::Synced { ticket } => {
                while let Some(frames) = self.disk.synced(ticket) {
                    for frame in frames {
                        if !self.was_ahead(&frame) {
                            self.apply_frame(now, hub, &frame);
                        }
                    }
                }
                self.handle_replicas_synced(ticket);
                self.begin_checkpoint();
            }
            DiskCompletion::Failed { reason } => {
                self.disk.fail(reason);
                self.abdicate_all(now, hub);
                self.release_all(now, hub);
                // Nothing can be delivered any more without being forgotten: who waits is told, and asks elsewhere.
                self.handle_shutdown();
            }
            DiskCompletion::Checkpointed { result } => self.handle_checkpoint(now, result),
            DiskCompletion::Loaded { group, block, loaded } => {
                self.handle_block(now, hub, (group, block), loaded)
            }
            DiskCompletion::Space { full } => {
                if full && !self.disk.full {
                    self.advise_out_of_space(now, hub);
                }
                self.disk.full = full;
                self.disk.tidy.by(now);
            }
        }
    }

    /// A frame is durable: whether its commands were applied before, because their stream does not wait.
    fn was_ahead(&mut self, frame: &Frame) -> bool {
        let Some(group) = self.groups.get_mut(&frame.group()) else { return false };
        let was = group.ahead.pop_front_if(|(last, _)| *last == frame.last()).is_some();
        if was {
            // Those that follow the stream take what is durable.
            self.touch_followers(frame.group());
        }
        was
    }

    /// Applies a frame's commands in order.
    pub(crate) fn apply_frame(&mut self, now: Time, hub: &mut Hub, frame: &Frame) {
        let id = frame.group();
        let mut run = Run::default();
        for entry in frame.entries() {
            if id == META {
                self.apply_meta(now, hub, frame.meta(), &entry);
            } else if !self.apply_command(now, hub, (frame.meta(), &mut run), &entry) {
                return; // The stream was deleted after this was proposed.
            }
        }
        self.release(now, hub, id);
    }

    fn apply_meta(&mut self, now: Time, hub: &mut Hub, frame: FrameMeta, entry: &Bytes) {
        let (_, origin) = self.meta_log.apply_next(frame, entry.len());
        self.meta_changed = true;
        let command = match MetaCommand::decode(entry) {
            Ok(command) => command,
            // Written by a newer version, or wrongly: without it, nothing that follows would mean what it should.
            Err(error) => {
                self.disk.fail(format!(
                    "the list of streams cannot be followed at entry {}: {error}",
                    frame.first.0
                ));
                return self.abdicate_all(now, hub);
            }
        };
        let (command, origin) = self.find_asker(command, origin);
        let new = match &command {
            MetaCommand::Create { account, config, .. } => Some((account.clone(), config.name.clone())),
            _ => None,
        };
        let answer = self.meta.apply(command);
        self.capture_after(hub, &answer, new.as_ref());
        if let (MetaAnswer::Created(Ok((_, Created::New))), Some((account, name))) = (&answer, new) {
            self.open_group(now, hub, (&account, &name));
            self.elect_opened();
            self.answer_alone(now, hub, &answer);
        }
        self.carry_out(now, hub, &answer);
        self.follow_meta(now, hub, &answer);
        let Origin::Api(call) = origin else { return };
        if let MetaAnswer::RestoreBegun(Ok(id)) = answer {
            let subject = self.begin_restore(now, hub, id, &call);
            let mark = hub.interest_mark();
            return self.answer_after(now, hub, &call, Ok(hw_jsapi::restore_begun(&subject)), mark);
        }
        if let MetaAnswer::Updated(Ok(id)) = &answer
            && self.hold_update(*id, &call)
        {
            return;
        }
        if let MetaAnswer::Created(Ok((id, _))) | MetaAnswer::Updated(Ok(id)) = &answer
            && self.ask_leader(now, hub, *id, &call)
        {
            return;
        }
        let reply = self.meta_reply(now, &answer, call.kind);
        let mark = hub.interest_mark();
        self.answer_after(now, hub, &call, reply, mark);
    }

    /// Streams come, change and go with the meta group's decisions.
    fn carry_out(&mut self, now: Time, hub: &mut Hub, answer: &MetaAnswer) {
        match answer {
            MetaAnswer::Created(Ok((id, Created::New))) if self.leads_meta() => {
                self.advise_stream(now, hub, *id, &Event::Stream("CREATED", "create"));
            }
            MetaAnswer::Updated(Ok(id)) => {
                self.configure_group(now, hub, *id);
                if self.leads_meta() {
                    self.advise_stream(now, hub, *id, &Event::Stream("UPDATED", "modify"));
                }
            }
            MetaAnswer::Deleted(Ok(id)) => {
                let found = self.cluster.as_mut().and_then(|cluster| cluster.found.remove(id));
                if found.is_some() {
                    self.disk.dropped.push(*id);
                }
                self.close_group(now, hub, *id);
            }
            MetaAnswer::Restored(Ok(id)) => self.finish_restore(now, hub, *id),
            MetaAnswer::Abandoned(Ok(id)) => self.handle_abandoned(*id),
            _ => {}
        }
    }

    fn meta_reply(&mut self, now: Time, answer: &MetaAnswer, kind: Kind) -> Reply {
        match answer {
            MetaAnswer::Created(Ok((id, _))) => {
                // Also for a stream that was there with the same configuration: clients expect it.
                let mut info = self.stream_view(now, *id).ok_or_else(|| ApiError::new(10059))?;
                // Every other answer names it.
                info.domain.clear();
                Ok(hw_jsapi::stream_create(kind, &info, true))
            }
            MetaAnswer::Updated(Ok(id)) => self.updated(now, *id, kind),
            MetaAnswer::Deleted(Ok(_))
            | MetaAnswer::RestoreBegun(Ok(_))
            | MetaAnswer::Restored(_)
            | MetaAnswer::Abandoned(_)
            | MetaAnswer::Moved
            | MetaAnswer::Placed(_)
            | MetaAnswer::Joined(_)
            | MetaAnswer::Done => Ok(hw_jsapi::success(kind)),
            MetaAnswer::Created(Err(error)) | MetaAnswer::RestoreBegun(Err(error)) => Err(error.into()),
            MetaAnswer::Updated(Err(error)) => Err(error.into()),
            MetaAnswer::Deleted(Err(error)) => Err(error.into()),
        }
    }

    /// Applies one command of a stream; false when the stream is gone.
    fn apply_command(
        &mut self,
        now: Time,
        hub: &mut Hub,
        (frame, run): (FrameMeta, &mut Run),
        entry: &Bytes,
    ) -> bool {
        let id = frame.group;
        let Some(group) = self.groups.get_mut(&id) else { return self.apply_restored(id, frame, entry) };
        if group.log.replicated.as_ref().is_some_and(|replicated| replicated.hollow) {
            return false; // It was in order when the frame was begun, and is not any more.
        }
        let (index, origin) = group.log.apply_next(frame, entry.len());
        let command = match Command::decode(entry) {
            Ok(command) => command,
            Err(error) => {
                self.break_off(
                    now,
                    hub,
                    id,
                    format!("its log cannot be followed at entry {}: {error}", index.0),
                );
                return false;
            }
        };
        group.changed = true;
        let note = Note::of(&command);
        let handed = run.next(&command);
        if let Note::Put(name) = &note {
            group.handle_decided(name);
        }
        let mut effects = Vec::new();
        let before = group.stream.messages().last_seq();
        let answer = group.stream.apply(index, command, &mut effects);
        if group.look_for_fault() && group.log.has_others() {
            // What this replica decides on an index that it cannot read may be wrong: the others decide.
            self.doubt(now, hub, id, before);
            return true;
        }
        if matches!(note, Note::Compare) {
            self.compare(now, id, index);
        }
        let Some(group) = self.groups.get_mut(&id) else { return false };
        if !group.log.is_leading() {
            self.note_decided(now, hub, id, (answer, note), (handed, origin));
            return true;
        }
        if let Some(replicated) = group.log.replicated.as_mut().filter(|_| !matches!(note, Note::Compare)) {
            replicated.comparing.handle_changed(now);
        }
        if let Note::Delivered(consumer, seqs) = &note {
            let interest = interest_in(hub, group.account);
            group.hand_out(now, (consumer, seqs), &interest, &mut effects);
        }
        self.perform(now, hub, id, effects);
        self.follow(now, hub, id, &answer, &note);
        self.reply(now, hub, id, (answer, note), origin);
        self.recount(id);
        self.look_for_waste(now, id);
        self.touch(id);
        true
    }

    /// A command was applied that another leader decided. Others see to it that clients hear of it; but for whoever waits since this
    /// server led, or handed it to a leader.
    fn note_decided(
        &mut self,
        now: Time,
        hub: &mut Hub,
        id: GroupId,
        (answer, note): (Answer, Note),
        (handed, origin): (Option<Run>, Origin),
    ) {
        if let Some(run) = handed {
            self.note_applied(id, run, &answer);
        }
        let ran = match (&note, &answer) {
            (Note::Ran(stop, of), Answer::Ran(results)) => Some((*stop, of.clone(), results.clone())),
            _ => None,
        };
        self.reply(now, hub, id, (answer, note), origin);
        if let Some((stop, of, results)) = ran {
            self.follow_run(now, id, (stop, &of), &results);
        }
        self.touch(id);
        self.recount(id);
        self.look_for_waste(now, id);
    }

    /// The volatile half and the interest follow what was applied.
    fn follow(&mut self, now: Time, hub: &mut Hub, id: GroupId, answer: &Answer, note: &Note) {
        match (answer, note) {
            (Answer::ConsumerPut(Ok(put)), _) => {
                self.lead_consumer(now, hub, id, &put.name);
                self.look(now, hub, id, std::slice::from_ref(&put.name));
            }
            (Answer::ConsumerDeleted(Ok(())), Note::Consumer(name)) => self.drop_consumer(hub, id, name),
            (_, Note::Expired) => {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.expiring = false;
                }
            }
            (_, Note::Fired(schedule)) => {
                if let Some(group) = self.groups.get_mut(&id) {
                    group.handle_fired(*schedule);
                }
            }
            (_, Note::Configured) => {
                if let Some(group) = self.groups.get_mut(&id)
                    && group.stream.revision() >= group.revision
                    && let Some(wanted) = group.wanted.take()
                {
                    group.stream.share_config(&wanted);
                }
                self.link_feeds(id);
            }
            (Answer::Fed(outcome), Note::Fed(source)) => self.handle_fed(now, id, source, outcome),
            _ => {}
        }
    }

    fn reply(
        &mut self,
        now: Time,
        hub: &mut Hub,
        id: GroupId,
        (answer, note): (Answer, Note),
        origin: Origin,
    ) {
        match origin {
            Origin::None => {}
            Origin::Ack(to) => {
                // Without its consumer, deleted in between, it did not count.
                let counts =
                    self.groups.get(&id).filter(|group| group.stream.consumer(note.consumer()).is_some());
                let account = self.groups.get(&id).map(|group| group.account);
                let header =
                    if counts.is_some() { Bytes::new() } else { hw_jsapi::status_header("503", &[]) };
                if let Some(account) = account {
                    self.outbox.answer(account, to, header, Bytes::new());
                }
            }
            Origin::Handed(run) => {
                if let Answer::Published(result) = answer {
                    self.answer_handed(id, run, Some(&result));
                }
            }
            Origin::Publish(reply) => {
                if let (Some(group), Answer::Published(result)) = (self.groups.get(&id), answer) {
                    self.outbox.push(Outgoing::PubAck { account: group.account, group: id, reply, result });
                }
            }
            Origin::Batch(committer) => {
                if let (Some(group), Answer::Published(result)) = (self.groups.get(&id), answer) {
                    self.committed((group.account, id), *committer, result);
                }
            }
            Origin::Run(batch) => {
                if let Answer::Ran(results) = answer {
                    self.ran(id, &batch, results);
                }
            }
            Origin::Api(call) => {
                let reply = self.command_reply(now, id, (answer, note), call.kind);
                let mark = hub.interest_mark();
                self.answer_after(now, hub, &call, reply, mark);
            }
        }
    }

    fn command_reply(&mut self, now: Time, id: GroupId, (answer, note): (Answer, Note), kind: Kind) -> Reply {
        match answer {
            Answer::Purged(result) => result.map(hw_jsapi::purged).map_err(|error| (&error).into()),
            Answer::MessageDeleted(result) => {
                result.map(|()| hw_jsapi::success(kind)).map_err(|error| (&error).into())
            }
            Answer::ConsumerPut(Ok(put)) => {
                let info = self.consumer_view(now, id, &put.name).ok_or_else(|| ApiError::new(10014))?;
                Ok(hw_jsapi::consumer_info(kind, &info))
            }
            Answer::ConsumerReset(Ok(seq)) => {
                let info =
                    self.consumer_view(now, id, note.consumer()).ok_or_else(|| ApiError::new(10014))?;
                Ok(hw_jsapi::consumer_reset(&info, seq))
            }
            Answer::ConsumerDeleted(Ok(())) => Ok(hw_jsapi::success(kind)),
            Answer::ConsumerPaused(Ok(until)) => Ok(hw_jsapi::consumer_pause(now, until)),
            Answer::ConsumerPut(Err(error))
            | Answer::ConsumerDeleted(Err(error))
            | Answer::ConsumerPaused(Err(error))
            | Answer::ConsumerReset(Err(error)) => Err((&error).into()),
            Answer::Published(_) | Answer::Ran(_) | Answer::Fed(_) | Answer::Done => {
                Ok(hw_jsapi::success(kind))
            }
        }
    }

    /// Answers once the other shards know the interest up to `mark`.
    pub(crate) fn answer_after(&mut self, now: Time, hub: &Hub, call: &Call, reply: Reply, mark: u64) {
        let before = self.outbox.ready.len();
        self.answer(now, hub, call, reply);
        if mark > hub.interest_settled() {
            let held = self.outbox.ready.split_off(before);
            self.outbox.gated.extend(held.into_iter().map(|outgoing| (mark, outgoing)));
        }
    }

    /// Turns a stream's effects into messages, requests and proposals.
    pub(crate) fn perform(&mut self, now: Time, hub: &Hub, id: GroupId, effects: Vec<Effect>) {
        for effect in effects {
            let Some(group) = self.groups.get_mut(&id) else { return };
            let account = group.account;
            match effect {
                Effect::Deliver { to, group: _, reply, record } => {
                    self.outbox.push(Outgoing::Deliver { account, to, reply, record });
                }
                Effect::Send { to, reply, header, payload } => {
                    self.outbox.push(Outgoing::Send { account, to, reply, header, payload });
                }
                Effect::Advise(advisory) => self.advise_stream(now, hub, id, &Event::Consumer(&advisory)),
                Effect::Load(block) => self.load_patiently(now, id, block),
                Effect::LoadAhead(block) => self.load_ahead(now, id, block),
                Effect::Propose(command) => group.log.propose(Origin::None, |out| command.encode(out)),
            }
        }
    }
}

/// What must be known of a command after it was applied.
enum Note {
    Delivered(Bytes, Vec<Seq>),
    Consumer(Bytes),
    Put(Bytes),
    Expired,
    Configured,
    Fed(Bytes),
    Fired(Seq),
    Ran(bool, RunOf),
    Compare,
    Nothing,
}

impl Note {
    fn of(command: &Command) -> Note {
        match command {
            Command::Delivered { consumer, seqs, .. } => Note::Delivered(consumer.clone(), seqs.clone()),
            Command::DeleteConsumer { name, .. }
            | Command::ResetConsumer { name, .. }
            | Command::PauseConsumer { name, .. } => Note::Consumer(name.clone()),
            Command::PutConsumer { name, .. } => Note::Put(name.clone()),
            Command::Settled { consumer, .. } => Note::Consumer(consumer.clone()),
            Command::Expire { .. } => Note::Expired,
            Command::Compare { .. } => Note::Compare,
            Command::Configure { .. } => Note::Configured,
            Command::Mirrored { .. } => Note::Fed(Bytes::new()),
            Command::Sourced { source, .. } => Note::Fed(source.clone()),
            Command::PublishRun { stop, of: Some(of), .. } => Note::Ran(*stop, of.clone()),
            Command::Fire { schedule, .. } => Note::Fired(*schedule),
            _ => Note::Nothing,
        }
    }

    /// The consumer that the command was about; empty without one.
    fn consumer(&self) -> &[u8] {
        match self {
            Note::Consumer(name) => name,
            _ => b"",
        }
    }
}
