//! Backups on their way out: a stream's archive in pieces, as fast as the client acknowledges them. What is read at any
//! moment is one piece, not the stream.

use std::collections::BTreeMap;

use bytes::Bytes;
use hw_archive::Writer;
use hw_hub::Hub;
use hw_jsapi::{ApiError, Event, SnapshotRequest, Transfer, status_header};
use hw_kit::{GroupId, Seq, Span, Time};
use hw_store::messages::{BlockId, Fetch};
use hw_subject::is_valid_subject;
use serde_json::Value;

use crate::api::{Call, Handled};
use crate::group::Group;
use crate::inside::Target;
use crate::jetstream::JetStream;
use crate::limits::{SNAPSHOT_ROUND_BYTES, TRANSFER_ROUND};
use crate::outbox::Outgoing;
use crate::read::UNREADABLE;

/// How long somebody may take to listen to the pieces. Clients subscribe after they have read the answer, and some have a
/// wildcard subscription for all their inboxes beside it: only the subject itself says that they are ready.
const INTEREST_WAIT: Span = Span::from_secs(2);
/// How often that is looked at.
const INTEREST_LOOK: Span = Span::from_millis(5);
/// How long an acknowledgement may take.
const ACK_WAIT: Span = Span::from_secs(5);

/// All backups on their way out.
#[derive(Default)]
pub(crate) struct Snapshots {
    running: BTreeMap<u64, Snapshot>,
    last: u64,
    /// Those whose pieces were acknowledged, once for each piece.
    acks: Vec<u64>,
}

struct Snapshot {
    group: GroupId,
    call: Box<Call>,
    /// Who asked, for the advisory at the end.
    client: Value,
    stream: String,
    deliver: Bytes,
    /// Subjects of acknowledgements begin with this.
    acks: String,
    chunk: usize,
    /// How many pieces may be on their way, how many are, and how many were sent.
    window: usize,
    on_way: usize,
    sent: u64,
    writer: Writer,
    /// What comes next, and what comes last.
    next: Seq,
    last: Seq,
    ended: bool,
    begun: Time,
    /// The other shards must know where acknowledgements go before there are any.
    mark: u64,
    /// Whether somebody listened once.
    heard: bool,
    /// When it is given up.
    limit: Time,
    /// When to look at it again; not set: now.
    wake: Time,
    /// The block that was asked for last.
    asked: Option<BlockId>,
}

/// How far a round came.
enum Step {
    /// A full piece is ready, or the last one.
    Piece,
    /// A block must be loaded first.
    Load(BlockId),
    /// There is more to read than one round should.
    Pause,
}

impl Snapshots {
    /// A piece was acknowledged.
    pub(crate) fn handle_ack(&mut self, number: u64) {
        self.acks.push(number);
    }

    /// Something about a group changed: its backups look again.
    pub(crate) fn touch(&mut self, group: GroupId) {
        for snapshot in self.running.values_mut().filter(|snapshot| snapshot.group == group) {
            snapshot.wake = Time(0);
        }
    }

    /// When one of them must be looked at.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.running.values().map(|snapshot| snapshot.wake).min()
    }
}

impl Snapshot {
    /// Reads on until a piece is full.
    fn fill(&mut self, group: &Group) -> Result<Step, &'static str> {
        let (messages, mut read) = (group.stream.messages(), 0);
        while self.writer.ready() < self.chunk && !self.ended {
            if read >= SNAPSHOT_ROUND_BYTES {
                return Ok(Step::Pause);
            }
            let Some(seq) = messages.next(self.next).filter(|seq| *seq <= self.last) else {
                self.writer.end();
                self.ended = true;
                break;
            };
            match messages.fetch(seq) {
                Fetch::OnDisk(block) => return Ok(Step::Load(block)),
                // A backup that lacks what is damaged would pass for whole.
                Fetch::Absent => return Err("message is damaged"),
                Fetch::Message(message) => {
                    let record = &message.record;
                    read += record.joined().len();
                    let (header, payload) = (record.header(), record.payload());
                    self.writer.message((seq, message.ts), record.subject(), header, payload);
                }
            }
            self.next = seq.next();
        }
        Ok(Step::Piece)
    }

    fn message(&self, reply: Bytes, header: Bytes, payload: Bytes) -> Outgoing {
        Outgoing::Send { account: self.call.account, to: self.deliver.clone(), reply, header, payload }
    }

    /// The next piece; the last one, which is not full, is not acknowledged.
    fn piece(&mut self, now: Time) -> Outgoing {
        let payload = Bytes::from(self.writer.take(self.chunk));
        let mut reply = Bytes::new();
        if payload.len() == self.chunk {
            (self.sent, self.on_way, self.limit) = (self.sent + 1, self.on_way + 1, now + ACK_WAIT);
            reply = format!("{}.{}.{}", self.acks, payload.len(), self.sent).into();
        }
        self.message(reply, Bytes::new(), payload)
    }
}

impl JetStream {
    /// `STREAM.SNAPSHOT`: everything that was acknowledged before the request is in the backup.
    pub(crate) fn snapshot(
        &mut self,
        now: Time,
        hub: &mut Hub,
        call: &Call,
        (stream, request): (&str, &SnapshotRequest),
    ) -> Handled {
        let Some(id) = self.group_named(call.account, stream) else {
            return Handled::Answer(Err(self.no_stream(call.account, stream)));
        };
        if !is_valid_subject(request.deliver.as_bytes()) {
            return Handled::Answer(Err(ApiError::new(10015)));
        }
        let token = self.ids.next_id();
        let client = self.client_of(hub, call);
        let Some(group) = self.groups.get(&id) else { return Handled::Answer(Err(ApiError::new(10059))) };
        let mut info = group.stream.info(now);
        let mut writer = Writer::default();
        if request.no_consumers {
            info.state.consumer_count = 0;
        }
        writer.state(now, &hw_jsapi::to_json(&info.state));
        let consumers = group.stream.consumers().filter(|consumer| !consumer.config().direct);
        for consumer in consumers.filter(|_| !request.no_consumers) {
            writer.consumer(now, consumer.name(), &hw_jsapi::archived_consumer(consumer));
        }
        let event = Transfer::SnapshotBegun { state: &info.state };
        self.advise(now, hub, call.account, &Event::Backup(&event, &client), stream);
        self.snapshots.last += 1;
        let (number, (chunk, window)) = (self.snapshots.last, request.sizes());
        let acks = hw_jsapi::snapshot_ack_prefix(stream, &token);
        let target = Target::Snapshot(GroupId(number)).id();
        hub.subscribe_internal(call.account, format!("{acks}.>").as_bytes(), None, target);
        let snapshot = Snapshot {
            group: id,
            call: Box::new(call.clone()),
            client,
            stream: stream.to_owned(),
            deliver: request.deliver.clone().into(),
            acks,
            chunk,
            window,
            on_way: 0,
            sent: 0,
            writer,
            next: Seq(info.state.first_seq),
            last: Seq(info.state.last_seq),
            ended: false,
            begun: now,
            mark: hub.interest_mark(),
            heard: false,
            limit: now + INTEREST_WAIT,
            wake: Time(0),
            asked: None,
        };
        self.snapshots.running.insert(number, snapshot);
        Handled::Answer(Ok(hw_jsapi::snapshot_begun(&info)))
    }

    /// Backups go on as far as they can.
    pub(crate) fn run_snapshots(&mut self, now: Time, hub: &mut Hub) {
        for number in std::mem::take(&mut self.snapshots.acks) {
            if let Some(snapshot) = self.snapshots.running.get_mut(&number) {
                snapshot.on_way = snapshot.on_way.saturating_sub(1);
                snapshot.wake = Time(0);
            }
        }
        let due = self.snapshots.running.iter().filter(|(_, snapshot)| snapshot.wake <= now);
        let due: Vec<u64> = due.map(|(number, _)| *number).collect();
        for number in due {
            if let Some(status) = self.run_snapshot(now, hub, number) {
                self.end_snapshot(now, hub, (number, status));
            }
        }
    }

    /// One backup goes on; gives how it ended, empty for well.
    fn run_snapshot(&mut self, now: Time, hub: &Hub, number: u64) -> Option<String> {
        let snapshot = self.snapshots.running.get_mut(&number)?;
        if snapshot.mark > hub.interest_settled() {
            snapshot.wake = now + TRANSFER_ROUND;
            return None;
        }
        let (account, deliver) = (snapshot.call.account, &snapshot.deliver);
        if !snapshot.heard && now < snapshot.limit && !hub.has_literal_interest(account, deliver) {
            snapshot.wake = now + INTEREST_LOOK;
            return None;
        }
        if !hub.has_interest(account, deliver) {
            return Some("408 No Interest".to_owned());
        }
        snapshot.heard = true;
        let mut round = 0;
        loop {
            let Some(group) = self.groups.get(&snapshot.group) else {
                return Some("500 stream not found".to_owned());
            };
            if snapshot.on_way >= snapshot.window {
                snapshot.wake = snapshot.limit;
                return (now >= snapshot.limit).then(|| "408 No Flow Response".to_owned());
            }
            match snapshot.fill(group) {
                Err(why) => return Some(format!("500 {why}")),
                Ok(Step::Load(block)) if snapshot.asked == Some(block) && group.is_failing(now, block) => {
                    return Some(format!("500 {UNREADABLE}"));
                }
                Ok(Step::Load(block)) => {
                    let group = snapshot.group;
                    snapshot.asked = Some(block);
                    // The block's arrival wakes it.
                    snapshot.wake = Time::NEVER;
                    self.load(group, block);
                    return None;
                }
                Ok(Step::Piece) if snapshot.writer.ready() == 0 => return Some(String::new()),
                Ok(Step::Piece) if round < SNAPSHOT_ROUND_BYTES => {
                    round += snapshot.chunk;
                    let piece = snapshot.piece(now);
                    self.outbox.push(piece);
                }
                Ok(Step::Piece | Step::Pause) => {
                    snapshot.wake = now + TRANSFER_ROUND;
                    return None;
                }
            }
        }
    }

    fn end_snapshot(&mut self, now: Time, hub: &mut Hub, (number, status): (u64, String)) {
        let Some(snapshot) = self.snapshots.running.remove(&number) else { return };
        let account = snapshot.call.account;
        let target = Target::Snapshot(GroupId(number)).id();
        hub.unsubscribe_internal(account, format!("{}.>", snapshot.acks).as_bytes(), None, target);
        let header = match status.as_str() {
            // The real server says so only after a full piece; clients take either.
            "" if snapshot.sent == 0 => Bytes::new(),
            "" => status_header("204", &[]),
            status => status_header(status, &[]),
        };
        self.outbox.push(snapshot.message(Bytes::new(), header, Bytes::new()));
        let error = status.split_once(' ').map_or("", |(_, text)| text);
        let event = Transfer::SnapshotDone { start: snapshot.begun, end: now, error };
        self.advise(now, hub, account, &Event::Backup(&event, &snapshot.client), &snapshot.stream);
    }
}
