//! Backups on their way in. A restore is a stream of its own, with group and log, which nobody sees: what the pieces hold
//! becomes commands in that log, and one command of the meta group makes the stream exist once all of them are durable.
//! Whatever happens before, nothing stays.

use std::collections::BTreeMap;

use bytes::Bytes;
use hw_archive::{Item, Reader};
use hw_hub::{Hub, Message as Incoming};
use hw_jsapi::{ApiError, ArchivedState, Event, Kind, Transfer};
use hw_kit::{GroupId, LogIndex, Seq, Span, Time};
use hw_meta::{Asset, MetaCommand};
use hw_store::{FrameMeta, Record};
use hw_stream::command::{Fed, RestoreStep};
use hw_stream::outcome::{Answer, Feeding};
use hw_stream::{Command, Stream, StreamConfig};
use hw_subject::is_valid_subject;
use serde_json::Value;

use crate::api::{Call, Handled};
use crate::group::Group;
use crate::inside::Target;
use crate::jetstream::JetStream;
use crate::limits::{
    FEED_BATCH, FEED_BATCH_BYTES, RESTORE_AHEAD_BYTES, RESTORE_CONFIG_BYTES, RESTORE_PENDING,
    RESTORE_ROUND_BYTES, RESTORE_WAITING_BYTES, TRANSFER_ROUND,
};
use crate::log::{Log, Origin};
use crate::shard::owned;

/// How long the next piece may take.
const PIECE_WAIT: Span = Span::from_secs(5);

/// All backups on their way in.
#[derive(Default)]
pub(crate) struct Restores {
    pub(crate) running: BTreeMap<GroupId, Restore>,
    /// What came in this round: reply subjects and contents.
    pieces: Vec<(GroupId, Bytes, Bytes)>,
}

/// A stream that is being restored.
pub(crate) struct Restore {
    pub(crate) group: Group,
    call: Box<Call>,
    /// Who asked, for the advisory at the end.
    client: Value,
    /// Where the pieces are sent.
    subject: String,
    reader: Reader,
    plan: Plan,
    /// Who waits for a piece to be read; the last one for the whole once it has ended.
    replies: Vec<Bytes>,
    ended: bool,
    /// Whether all was read, whether all was applied, and whether the meta group was told.
    finishing: bool,
    complete: bool,
    proposed: bool,
    failed: Option<String>,
    /// Whether nothing of it is left: only its client is still told.
    over: bool,
    received: u64,
    begun: Time,
    seen: Time,
    wake: Time,
}

/// What the archive has said so far, and what has to follow.
#[derive(Default)]
struct Plan {
    state: Option<ArchivedState>,
    consumers: u64,
    last: Seq,
    /// What the whole stream is said to take, until that was looked at.
    announced: u64,
    batch: Vec<Fed>,
    batch_bytes: usize,
    /// The longest message that this server takes.
    longest: usize,
}

impl Restores {
    /// A piece, or the empty message after the last one.
    pub(crate) fn handle_piece(&mut self, id: GroupId, msg: &Incoming<'_>) {
        self.pieces.push((id, owned(msg.reply), owned(msg.payload)));
    }

    /// Those that have not failed.
    pub(crate) fn going_on(&mut self) -> impl Iterator<Item = &mut Restore> {
        self.running.values_mut().filter(|restore| !restore.over)
    }

    /// The group of one of those.
    pub(crate) fn group(&mut self, id: GroupId) -> Option<&mut Group> {
        self.running.get_mut(&id).filter(|restore| !restore.over).map(|restore| &mut restore.group)
    }

    /// When one of them must be looked at.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.running.values().map(|restore| restore.wake.min(restore.limit())).min()
    }

    /// Everything that was proposed and is in no frame yet goes there.
    pub(crate) fn cut(&mut self) -> Vec<hw_store::Frame> {
        self.running.values_mut().flat_map(|restore| restore.group.log.cut()).collect()
    }
}

impl Plan {
    /// What an entry means, in commands; the error says why it cannot be.
    fn take(&mut self, item: Item, config: &StreamConfig) -> Result<Vec<RestoreStep>, String> {
        match item {
            Item::State(json) => self.begin(&json, config),
            Item::Consumer(name, json) => self.consumer(name, &json),
            Item::Message(message) => self.message(message),
            Item::End => self.end(),
        }
    }

    fn begin(&mut self, json: &[u8], config: &StreamConfig) -> Result<Vec<RestoreStep>, String> {
        let state = ArchivedState::parse(json)?;
        let first = Seq(if state.last_seq == 0 { config.first_seq } else { state.first_seq });
        (self.last, self.announced) = (first.prev(), state.bytes);
        self.state = Some(state);
        Ok(vec![RestoreStep::Begin { first }])
    }

    fn consumer(&mut self, name: Bytes, json: &[u8]) -> Result<Vec<RestoreStep>, String> {
        let text = String::from_utf8_lossy(&name).into_owned();
        let state = self.state.as_ref().ok_or("no state")?;
        self.consumers += 1;
        if self.consumers > state.consumer_count.unsigned_abs() {
            return Err(format!("unexpected consumer {text:?}"));
        }
        let last = Seq(state.last_seq);
        let (mut config, progress) =
            hw_jsapi::parse_archived_consumer(json).map_err(|why| format!("consumer {text:?}: {why}"))?;
        if config.name.is_empty() {
            config.name.clone_from(&text);
        }
        let config_json = hw_jsapi::config_document(&config);
        if config.name != text || config_json.len() > RESTORE_CONFIG_BYTES {
            return Err(format!("consumer {text:?}: its configuration cannot be"));
        }
        let mut progress = progress.within(last);
        let rest = progress.pending.split_off(progress.pending.len().min(RESTORE_PENDING));
        let mut steps = vec![RestoreStep::Consumer { name: name.clone(), progress, config: config_json }];
        for deliveries in rest.chunks(RESTORE_PENDING) {
            steps.push(RestoreStep::Pending { name: name.clone(), deliveries: deliveries.to_vec() });
        }
        Ok(steps)
    }

    fn complete(&self) -> Result<&ArchivedState, String> {
        let state = self.state.as_ref().ok_or("no state")?;
        match state.consumer_count.unsigned_abs() {
            count if count == self.consumers => Ok(state),
            count => Err(format!("{} of {count} consumers are there", self.consumers)),
        }
    }

    fn message(&mut self, message: hw_archive::Message) -> Result<Vec<RestoreStep>, String> {
        let (seq, last) = (message.seq, Seq(self.complete()?.last_seq));
        if seq <= self.last || seq > last {
            return Err(format!("message sequence {seq} is out of order"));
        }
        let content = message.joined.len() - message.subject_len;
        if content > self.longest {
            return Err(format!("message {seq} is larger than the maximum payload"));
        }
        let lengths = (u16::try_from(message.subject_len), u32::try_from(message.header_len));
        let record = match lengths {
            (Ok(subject), Ok(header)) => Record::from_joined(message.joined, subject, header),
            _ => None,
        };
        let record = record.filter(|record| is_valid_subject(record.subject()));
        let record = record.ok_or_else(|| format!("message {seq} has no valid subject"))?;
        self.last = seq;
        self.batch_bytes += record.joined().len();
        self.batch.push(Fed { seq, ts: message.ts, record });
        let full = self.batch.len() >= FEED_BATCH || self.batch_bytes >= FEED_BATCH_BYTES;
        Ok(if full { self.flush() } else { Vec::new() })
    }

    fn flush(&mut self) -> Vec<RestoreStep> {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch.is_empty() { Vec::new() } else { vec![RestoreStep::Messages(batch)] }
    }

    fn end(&mut self) -> Result<Vec<RestoreStep>, String> {
        let state = self.complete()?;
        let end = RestoreStep::End { last: Seq(state.last_seq), last_ts: state.last_ts() };
        let mut steps = self.flush();
        steps.push(end);
        Ok(steps)
    }
}

impl Restore {
    fn name(&self) -> &str {
        &self.group.stream.config().name
    }

    /// Whether something is left to read.
    fn has_work(&self) -> bool {
        self.failed.is_none() && !self.finishing && (!self.replies.is_empty() || self.ended)
    }

    /// When it is given up for want of pieces.
    fn limit(&self) -> Time {
        if self.has_work() || self.finishing { Time::NEVER } else { self.seen + PIECE_WAIT }
    }

    /// Takes what came.
    fn take(&mut self, now: Time, reply: Bytes, content: &[u8]) {
        if self.ended {
            return;
        }
        (self.seen, self.wake) = (now, Time(0));
        self.received += content.len() as u64;
        self.replies.push(reply);
        self.ended = content.is_empty();
        if self.failed.is_some() {
            return;
        }
        self.reader.push(content);
        if self.reader.waiting() > RESTORE_WAITING_BYTES {
            self.failed.get_or_insert_with(|| "too much was sent at once".to_owned());
        }
    }

    /// Reads a round's share; gives whether there is more.
    fn read(&mut self, now: Time) -> Result<bool, String> {
        let mut bytes = 0;
        while bytes < RESTORE_ROUND_BYTES {
            let Some(item) = self.reader.next_item().map_err(|error| error.to_string())? else {
                if self.ended {
                    self.reader.finish().map_err(|error| error.to_string())?;
                    self.finishing = true;
                }
                return Ok(false);
            };
            if let Item::Message(message) = &item {
                bytes += message.joined.len();
            }
            for step in self.plan.take(item, self.group.stream.config())? {
                let command = Command::Restore { ts: now, step };
                self.group.log.propose(Origin::None, |out| command.encode(out));
            }
        }
        Ok(true)
    }

    /// Applies one command; gives whether it was the last, or why it is refused.
    fn apply(&mut self, frame: FrameMeta, entry: &Bytes) -> Result<bool, String> {
        let (index, _) = self.group.log.apply_next(frame, entry.len());
        let command = Command::decode(entry).expect("frames are checksummed: what was encoded decodes");
        let last = matches!(&command, Command::Restore { step: RestoreStep::End { .. }, .. });
        self.group.changed = true;
        let why = match self.group.stream.apply(index, command, &mut Vec::new()) {
            Answer::Fed(Feeding::Refused(error)) => ApiError::from(&error).description,
            Answer::ConsumerPut(Err(error)) => ApiError::from(&error).description,
            Answer::Fed(Feeding::Stale) => "the entries contradict each other".to_owned(),
            _ => return Ok(last),
        };
        Err(why)
    }
}

impl JetStream {
    /// `STREAM.RESTORE`: asks the meta group to keep name and subjects for the stream.
    pub(crate) fn restore(&mut self, now: Time, call: &Call, config: &StreamConfig) -> Handled {
        let account = self.account_name(call.account);
        if self.meta.stream(&account, &config.name).is_some() {
            return Handled::Answer(Err(ApiError::new(10130)));
        }
        let config = match self.check_restored(call.account, config) {
            Ok(config) => Box::new(config),
            Err(error) => return Handled::Answer(Err(error)),
        };
        if let Some(error) = self.refusal() {
            return Handled::Answer(Err((&error).into()));
        }
        if let Err(error) = self.peers_for(&config) {
            return Handled::Answer(Err(error));
        }
        let max_streams = self.limits_of(call.account).map_or(-1, |limits| limits.max_streams);
        self.propose_meta(now, call, &MetaCommand::BeginRestore { ts: now.0, account, config, max_streams });
        Handled::Proposed
    }

    /// The meta group agreed: pieces may come. Gives where to.
    pub(crate) fn begin_restore(&mut self, now: Time, hub: &mut Hub, id: GroupId, call: &Call) -> String {
        let restoring = self.meta.restoring().find(|(_, asset)| asset.group() == id);
        let Some((_, asset)) = restoring else { return String::new() };
        let (created, Asset { config, revision, .. }) = (asset.created(), asset.clone());
        let subject = hw_jsapi::restore_subject(&config.name, &self.ids.next_id());
        hub.subscribe_internal(call.account, subject.as_bytes(), None, Target::Restore(id).id());
        let client = self.client_of(hub, call);
        let event = Event::Backup(&Transfer::RestoreBegun, &client);
        self.advise(now, hub, call.account, &event, &config.name);
        let (stream, log) = (self.stream(id, config, created), Log::new(id, LogIndex(0)));
        let restore = Restore {
            group: Group::new(id, call.account, revision, stream, log),
            call: Box::new(call.clone()),
            client,
            subject: subject.clone(),
            reader: Reader::default(),
            plan: Plan { longest: hub.max_payload(), ..Plan::default() },
            replies: Vec::new(),
            ended: false,
            finishing: false,
            complete: false,
            proposed: false,
            failed: None,
            over: false,
            received: 0,
            begun: now,
            seen: now,
            wake: Time::NEVER,
        };
        self.restores.running.insert(id, restore);
        // What it reserves counts from now on; whether it has room is seen with its first piece.
        self.recount_restore(id, 0);
        subject
    }

    /// Restores go on as far as they can.
    pub(crate) fn run_restores(&mut self, now: Time, hub: &mut Hub) {
        for (id, reply, content) in std::mem::take(&mut self.restores.pieces) {
            if let Some(restore) = self.restores.running.get_mut(&id) {
                restore.take(now, reply, &content);
            }
        }
        let ids: Vec<GroupId> = self.restores.running.keys().copied().collect();
        for id in ids {
            self.run_restore(now, hub, id);
        }
    }

    fn run_restore(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        let too_far = self.disk.unsynced_bytes > RESTORE_AHEAD_BYTES;
        let refusal = self.refusal();
        let Some(restore) = self.restores.running.get_mut(&id) else { return };
        if restore.limit() <= now {
            restore.failed.get_or_insert_with(|| "no more pieces came".to_owned());
            restore.ended = true;
        }
        let volatile = restore.group.is_volatile();
        restore.wake = Time::NEVER;
        if restore.has_work() && (volatile || !too_far) {
            let more = match refusal.filter(|_| !volatile) {
                Some(error) => Err(ApiError::from(&error).description),
                None => restore.read(now),
            };
            match more {
                Ok(true) => restore.wake = now + TRANSFER_ROUND,
                Ok(false) => self.answer_pieces(id),
                Err(why) => {
                    restore.failed.get_or_insert(why);
                }
            }
        }
        self.apply_volatile(id);
        self.check_restore(now, hub, id);
    }

    /// Everything that came was read: the client may send more. Who asked for the end waits for it.
    fn answer_pieces(&mut self, id: GroupId) {
        let Some(restore) = self.restores.running.get_mut(&id) else { return };
        let last = restore.ended.then(|| restore.replies.pop()).flatten();
        for reply in std::mem::take(&mut restore.replies) {
            self.outbox.send(restore.call.account, reply, Bytes::new());
        }
        restore.replies.extend(last);
    }

    /// A stream in memory has no log that must be durable first.
    fn apply_volatile(&mut self, id: GroupId) {
        let Some(restore) = self.restores.running.get_mut(&id).filter(|r| r.group.is_volatile()) else {
            return;
        };
        for frame in restore.group.log.cut() {
            for entry in frame.entries() {
                self.apply_restored(id, frame.meta(), &entry);
            }
        }
    }

    /// A command of a restore is durable; false when there is no such restore any more.
    pub(crate) fn apply_restored(&mut self, id: GroupId, frame: FrameMeta, entry: &Bytes) -> bool {
        let Some(restore) = self.restores.running.get_mut(&id) else { return false };
        if restore.over {
            return true;
        }
        match restore.apply(frame, entry) {
            Ok(last) => restore.complete |= last,
            Err(why) => {
                restore.failed.get_or_insert(why);
            }
        }
        true
    }

    /// Holds a restore to the limits of account and server; ends one that failed, and one that is complete once its
    /// client has said so, too.
    fn check_restore(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        let Some(restore) = self.restores.running.get_mut(&id) else { return };
        let announced = std::mem::take(&mut restore.plan.announced);
        if !restore.over
            && let Some(error) = self.recount_restore(id, announced)
            && let Some(restore) = self.restores.running.get_mut(&id)
        {
            restore.failed.get_or_insert_with(|| ApiError::from(&error).description);
        }
        let Some(restore) = self.restores.running.get_mut(&id) else { return };
        if let Some(why) = restore.failed.clone() {
            self.abandon_restore(id);
            self.tell_failed(now, hub, id, why);
        } else if restore.complete && restore.finishing && !restore.proposed {
            self.propose_restored(id);
        }
    }

    /// All of a restored stream is here: it is to exist, here at first, and in a cluster on its other servers soon.
    fn propose_restored(&mut self, id: GroupId) {
        let Some(restore) = self.restores.running.get_mut(&id) else { return };
        let config = restore.group.stream.config().clone();
        restore.proposed = true;
        let node = self.cluster.as_ref().map_or(0, |cluster| cluster.me.0);
        let placement = config.placement.clone().unwrap_or_default();
        let replicas = usize::try_from(config.num_replicas.max(1)).unwrap_or(1);
        let here = if node == 0 { Vec::new() } else { vec![node] };
        // Servers that went meanwhile are missing: it has fewer until it is updated.
        let peers = self.choose(&placement, replicas, &here, &self.reached_members()).unwrap_or(here);
        let end = MetaCommand::EndRestore { group: id.0, node, peers };
        self.meta_log.propose(Origin::None, |out| end.encode(out));
    }

    /// Another server decides about streams: what was restored here is not going to exist, unless that is decided already.
    pub(crate) fn end_restores(&mut self) {
        for restore in self.restores.running.values_mut().filter(|restore| !restore.proposed) {
            restore.failed.get_or_insert_with(|| "the cluster has another leader: try again".to_owned());
            restore.wake = Time(0);
        }
    }

    /// This server decides about streams: those that others were restoring are not going to exist.
    pub(crate) fn abandon_other_restores(&mut self) {
        let gone: Vec<u64> = self.meta.restoring().map(|(_, asset)| asset.group).collect();
        for group in gone.into_iter().filter(|group| !self.restores.running.contains_key(&GroupId(*group))) {
            let abandon = MetaCommand::AbandonRestore { group };
            self.meta_log.propose(Origin::None, |out| abandon.encode(out));
        }
    }

    /// The meta group gave a restore up.
    pub(crate) fn handle_abandoned(&mut self, id: GroupId) {
        if let Some(restore) = self.restores.running.get_mut(&id).filter(|restore| !restore.over) {
            restore.failed.get_or_insert_with(|| "the cluster has another leader: try again".to_owned());
            (restore.ended, restore.wake) = (true, Time(0));
        }
        self.disk.dropped.push(id);
    }

    /// Nothing stays of a restore.
    fn abandon_restore(&mut self, id: GroupId) {
        let Some(restore) = self.restores.running.get_mut(&id) else { return };
        if std::mem::replace(&mut restore.over, true) {
            return;
        }
        self.uncount_restore(id);
        let Some(restore) = self.restores.running.get_mut(&id) else { return };
        let (name, storage) = (restore.name().to_owned(), restore.group.stream.config().storage);
        let nothing = StreamConfig { name, storage, ..StreamConfig::default() };
        restore.group.stream = Stream::new(nothing, restore.begun);
        restore.group.log.cut();
        restore.reader = Reader::default();
        restore.plan = Plan::default();
        if self.leads_meta() {
            let abandon = MetaCommand::AbandonRestore { group: id.0 };
            self.meta_log.propose(Origin::None, |out| abandon.encode(out));
        }
    }

    /// Whoever still sends pieces of a restore that failed is told why; it is forgotten when that ends.
    fn tell_failed(&mut self, now: Time, hub: &mut Hub, id: GroupId, why: String) {
        let Some(restore) = self.restores.running.get_mut(&id) else { return };
        let account = restore.call.account;
        let json = Bytes::from(hw_jsapi::error(Kind::StreamCreate, &ApiError::with(10062, why)));
        for reply in restore.replies.drain(..) {
            self.outbox.send(account, reply, json.clone());
        }
        if !restore.ended {
            return;
        }
        let Some(restore) = self.restores.running.remove(&id) else { return };
        hub.unsubscribe_internal(account, restore.subject.as_bytes(), None, Target::Restore(id).id());
        self.api_errors += 1;
        let event = Transfer::RestoreDone { start: restore.begun, end: now, bytes: restore.received };
        let event = Event::Backup(&event, &restore.client);
        self.advise(now, hub, account, &event, restore.name());
    }

    /// All of it is durable, and the stream exists: it opens, and whoever asked is told.
    pub(crate) fn finish_restore(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        let Some(restore) = self.restores.running.remove(&id) else { return };
        let Restore { group, mut replies, client, received, begun, .. } = restore;
        hub.unsubscribe_internal(group.account, restore.subject.as_bytes(), None, Target::Restore(id).id());
        self.add_group(now, hub, Box::new(group));
        self.advise_stream(now, hub, id, &Event::Stream("CREATED", "create"));
        let event = Transfer::RestoreDone { start: begun, end: now, bytes: received };
        self.advise_stream(now, hub, id, &Event::Backup(&event, &client));
        let (Some(info), Some(reply)) = (self.stream_view(now, id), replies.pop()) else { return };
        let call = Call { reply, kind: Kind::StreamCreate, ..*restore.call };
        let json = hw_jsapi::stream_create(Kind::StreamCreate, &info, false);
        let mark = hub.interest_mark();
        self.answer_after(now, hub, &call, Ok(json), mark);
    }
}
