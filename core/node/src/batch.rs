//! Batches: messages are handed to the stream's open batches, complete batches and runs of messages to its log.

use bytes::Bytes;
use hw_hub::{Hub, Message};
use hw_jsapi::{Event, fast_report, fast_slot, has_level, is_fast};
use hw_kit::{AccountId, GroupId, Time};
use hw_stream::batch::{
    Abandoned, AtomicBatches, AtomicMessage, AtomicStep, BatchRoom, CompleteBatch, FastBatches, FastMessage,
    FastSay, HandedOn, Returned, Run, batch_id,
};
use hw_stream::command::{self, RunOf};
use hw_stream::outcome::{BatchAck, PublishError, Stored};

use crate::cluster::{self, Parcel, Serial};
use crate::group::Group;
use crate::inside::Target;
use crate::jetstream::JetStream;
use crate::limits::STAGED_BYTES_MAX;
use crate::log::Origin;
use crate::outbox::Outgoing;
use crate::shard::owned;

/// The batches of one stream that are open.
#[derive(Default)]
pub(crate) struct Batches {
    atomic: AtomicBatches,
    fast: FastBatches,
}

/// Those of all streams.
#[derive(Default)]
pub(crate) struct AllBatches {
    /// How many atomic ones are open, their bytes, and how many fast ones.
    open: Count,
    /// Those that were given up, for whoever watches.
    abandoned: Vec<(GroupId, Bytes, Abandoned)>,
}

#[derive(Clone, Copy, Default)]
struct Count {
    atomic: usize,
    bytes: usize,
    fast: usize,
}

/// Who waits for a batch to be stored.
#[derive(Debug)]
pub(crate) struct Committer {
    reply: Bytes,
    ack: BatchAck,
}

impl Batches {
    fn count(&self) -> Count {
        Count { atomic: self.atomic.len(), bytes: self.atomic.bytes(), fast: self.fast.len() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.atomic.is_empty() && self.fast.is_empty()
    }
}

impl Group {
    /// Whether a message belongs to a batch.
    pub(crate) fn is_batched(&self, msg: &Message<'_>) -> bool {
        is_fast(msg.reply) || self.stream.config().allow_atomic && batch_id(msg.header).is_some()
    }

    /// Whether it belongs to one that is stored when it is complete.
    pub(crate) fn is_staged(&self, msg: &Message<'_>) -> bool {
        self.is_batched(msg) && !is_fast(msg.reply)
    }

    /// Whether a message is refused for its size before its batch hears of it.
    pub(crate) fn is_too_large(&self, msg: &Message<'_>) -> bool {
        usize::try_from(self.stream.config().max_msg_size).is_ok_and(|limit| msg.size() > limit)
    }
}

impl JetStream {
    /// Lets something happen to a stream's batches, and counts them anew.
    fn with_batches<T>(&mut self, id: GroupId, act: impl FnOnce(&mut Batches) -> T) -> Option<T> {
        let group = self.groups.get_mut(&id)?;
        let before = group.batches.count();
        let result = act(&mut group.batches);
        let (after, open) = (group.batches.count(), &mut self.batches.open);
        open.atomic = open.atomic + after.atomic - before.atomic;
        open.bytes = open.bytes + after.bytes - before.bytes;
        open.fast = open.fast + after.fast - before.fast;
        Some(result)
    }

    /// A message of a batch that the stream may take.
    pub(crate) fn publish_batched(
        &mut self,
        now: Time,
        id: GroupId,
        serial: Option<Serial>,
        msg: &Message<'_>,
    ) {
        match is_fast(msg.reply) {
            true => self.publish_fast(now, id, serial, msg),
            false => self.publish_atomic(now, id, msg),
        }
        self.touch(id);
    }

    fn publish_atomic(&mut self, now: Time, id: GroupId, msg: &Message<'_>) {
        let batch = batch_id(msg.header).unwrap_or_default();
        let (limits, open) = (self.config.batch, self.batches.open);
        let room = BatchRoom { open: open.atomic, bytes_left: STAGED_BYTES_MAX.saturating_sub(open.bytes) };
        let message = AtomicMessage {
            subject: msg.subject,
            header: msg.header,
            payload: msg.payload,
            has_level: has_level(msg.header),
        };
        let step =
            self.with_batches(id, |batches| batches.atomic.handle(now, batch, &message, (&limits, room)));
        match step {
            None => {}
            Some(AtomicStep::Staged) => self.answer_staged(id, msg.reply),
            Some(AtomicStep::Complete(batch)) => self.propose_batch(now, id, batch, msg.reply),
            Some(AtomicStep::Refused(error, abandoned)) => {
                if let Some(reason) = abandoned {
                    self.batches.abandoned.push((id, owned(batch), reason));
                }
                self.refuse_publish(id, msg.reply, error);
            }
        }
    }

    /// The message is kept until its batch is complete: an empty answer.
    fn answer_staged(&mut self, id: GroupId, reply: &[u8]) {
        if let Some(group) = self.groups.get(&id)
            && !group.stream.config().no_ack
        {
            self.outbox.send(group.account, owned(reply), Bytes::new());
        }
    }

    fn propose_batch(&mut self, now: Time, id: GroupId, batch: CompleteBatch, reply: &[u8]) {
        if let Some(error) = self.no_room(id, batch.bytes()) {
            return self.refuse_publish(id, reply, error);
        }
        let Some(group) = self.groups.get_mut(&id) else { return };
        let wants_ack = !reply.is_empty() && !group.stream.config().no_ack;
        let ack = BatchAck { id: batch.id, count: batch.count };
        let committer = wants_ack.then(|| Origin::Batch(Box::new(Committer { reply: owned(reply), ack })));
        let Some((last, parts)) = batch.parts.split_last() else { return };
        for part in parts {
            group.log.propose(Origin::None, |out| command::encode_batch_part(out, now, part));
        }
        group.log.propose(committer.unwrap_or(Origin::None), |out| command::encode_batch(out, now, last));
        self.recount(id);
    }

    /// A batch was stored, or refused as a whole.
    pub(crate) fn committed(
        &mut self,
        (account, id): (AccountId, GroupId),
        committer: Committer,
        result: Result<Stored, PublishError>,
    ) {
        let Committer { reply, ack } = committer;
        let result = result.map(|stored| Stored { batch: Some(Box::new(ack)), ..stored });
        self.outbox.push(Outgoing::PubAck { account, group: id, reply, result });
    }

    fn publish_fast(&mut self, now: Time, id: GroupId, serial: Option<Serial>, msg: &Message<'_>) {
        let Some(group) = self.groups.get(&id) else { return };
        let slot = match group.stream.config().allow_batched {
            true => fast_slot(msg.reply),
            false => Err(PublishError::BatchDisabled),
        };
        let slot = match slot {
            Ok(slot) if has_level(msg.header) => slot,
            Ok(slot) => {
                self.with_batches(id, |batches| batches.fast.remove(slot.id));
                return self.refuse(id, serial, msg.reply, PublishError::ApiLevel);
            }
            Err(error) => return self.refuse(id, serial, msg.reply, error),
        };
        let (open, mut says, reply) = (self.batches.open.fast, Vec::new(), owned(msg.reply));
        let message = FastMessage {
            subject: msg.subject,
            header: msg.header,
            payload: msg.payload,
            reply: &reply,
            from: serial.map(|Serial { by, number, .. }| HandedOn { by, number }),
        };
        self.with_batches(id, |batches| batches.fast.handle(now, slot, &message, open, &mut says));
        self.say_fast(id, says);
    }

    /// Proposes what a stream's fast batches have gathered.
    pub(crate) fn run_batches(&mut self, now: Time, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        if !group.batches.fast.is_ready() {
            return;
        }
        let has_others = group.log.has_others();
        for Run { of, stop, messages } in group.batches.fast.take_runs(self.config.batch.command_bytes) {
            let origin = Origin::Run(of.id.clone());
            let of = has_others.then_some(&of);
            group.log.propose(origin, |out| command::encode_run(out, now, (stop, of), &messages));
        }
        self.recount(id);
    }

    /// A run was applied.
    pub(crate) fn ran(&mut self, id: GroupId, batch: &Bytes, results: Vec<Result<Stored, PublishError>>) {
        let mut says = Vec::new();
        self.with_batches(id, |batches| batches.fast.handle_applied(batch, results, &mut says));
        self.say_fast(id, says);
    }

    /// A run was applied, and another server leads.
    pub(crate) fn follow_run(
        &mut self,
        now: Time,
        id: GroupId,
        run: (bool, &RunOf),
        results: &[Result<Stored, PublishError>],
    ) {
        let end = self.with_batches(id, |batches| batches.fast.follow(now, run, results)).flatten();
        self.note_run(id, run.1, end);
    }

    /// This server leads a stream: it goes on with the fast batches that its log told it of.
    pub(crate) fn take_over_batches(&mut self, id: GroupId) {
        self.with_batches(id, |batches| batches.fast.start_leading());
    }

    /// It does not lead it any more: what of fast batches is not in the log waits for the next leader, before anything else.
    pub(crate) fn give_up_batches(&mut self, now: Time, id: GroupId) {
        self.end_batches(id, (false, true));
        let returned = self.with_batches(id, |batches| batches.fast.stop_leading()).unwrap_or_default();
        let Some(cluster) = &mut self.cluster else { return };
        for Returned { reply, message } in returned.into_iter().rev() {
            let record = command::decode_batch_message(message.into());
            let record = record.expect("invariant: it was encoded when it came");
            let message = Message {
                subject: record.subject(),
                reply: &reply,
                header: record.header(),
                payload: record.payload(),
            };
            cluster.forwards.put_back(id, now, Parcel::new(Target::Publish(id), &message));
        }
    }

    fn say_fast(&mut self, id: GroupId, says: Vec<FastSay>) {
        let Some(account) = self.groups.get(&id).map(|group| group.account) else { return };
        for say in says {
            let json = fast_report(&say).unwrap_or_default();
            match say {
                FastSay::Flow { to, .. } | FastSay::Gap { to, .. } | FastSay::Refused { to, .. } => {
                    self.outbox.send(account, to, json);
                }
                FastSay::Settled(HandedOn { by, number }) => {
                    self.answer_handed(id, cluster::Run { by, number }, None);
                }
                FastSay::Last { to: reply, result } => {
                    self.outbox.push(Outgoing::PubAck { account, group: id, reply, result });
                }
            }
        }
    }

    /// Answers a publish with a refusal, if it wants an answer.
    pub(crate) fn refuse_publish(&mut self, id: GroupId, reply: &[u8], error: PublishError) {
        if let Some(group) = self.groups.get(&id)
            && !reply.is_empty()
            && !group.stream.config().no_ack
        {
            let (account, reply) = (group.account, owned(reply));
            self.outbox.push(Outgoing::PubAck { account, group: id, reply, result: Err(error) });
        }
    }

    /// Time has passed: a stream's batches that were silent for too long end.
    pub(crate) fn expire_batches(&mut self, now: Time, id: GroupId) {
        let limits = self.config.batch;
        let silent = self.with_batches(id, |batches| {
            batches.fast.handle_timeout(now, &limits);
            batches.atomic.handle_timeout(now, &limits)
        });
        let silent = silent.unwrap_or_default().into_iter();
        self.batches.abandoned.extend(silent.map(|batch| (id, batch, Abandoned::Timeout)));
    }

    /// A stream has a new configuration, or is about to go: what it does not allow ends.
    pub(crate) fn end_batches(&mut self, id: GroupId, (atomic, fast): (bool, bool)) {
        self.with_batches(id, |batches| {
            if !atomic {
                batches.atomic.clear();
            }
            if !fast {
                batches.fast.clear();
            }
        });
    }

    /// When a stream's batches are next due.
    pub(crate) fn batch_deadline(&self, group: &Group) -> Option<Time> {
        if group.batches.is_empty() {
            return None;
        }
        let (limits, batches) = (&self.config.batch, &group.batches);
        let (atomic, fast) = (batches.atomic.next_deadline(limits), batches.fast.next_deadline(limits));
        atomic.into_iter().chain(fast).min()
    }

    /// Tells whoever watches of the batches that were given up.
    pub(crate) fn advise_abandoned(&mut self, now: Time, hub: &Hub) {
        for (id, batch, reason) in std::mem::take(&mut self.batches.abandoned) {
            self.advise_stream(now, hub, id, &Event::BatchAbandoned(&batch, reason));
        }
    }
}
