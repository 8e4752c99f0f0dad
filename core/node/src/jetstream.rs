//! JetStream on this server: the meta group, the streams, and what they want from hub and disk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use hw_auth::{Directory, JsLimits};
use hw_hub::Hub;
use hw_kit::{AccountId, GroupId, LogIndex, NodeId, Nuid, Rng, Span, Time};
use hw_meta::{Asset, Meta, MetaCommand};
use hw_store::index::Pages;
use hw_store::messages::{BlockId, IndexSource};
use hw_store::{CheckpointJob, Frame, FrameKind};
use hw_stream::batch::BatchLimits;
use hw_stream::lead::PumpOut;
use hw_stream::outcome::{Effect, PublishError, Stored};
use hw_stream::{Command, Stream, StreamConfig};

use crate::api::Call;
use crate::batch::AllBatches;
use crate::cluster::{Cluster, ClusterConfig};
use crate::damage::Findings;
use crate::group::interest_in;
use crate::groups::Groups;
use crate::limits::{APPEND_BYTES, UNSYNCED_BYTES_MAX};
use crate::log::{Log, Origin};
use crate::outbox::{Outbox, Outgoing};
use crate::pull::Said;
use crate::read::DirectRead;
use crate::restore::Restores;
use crate::scrub::Scrub;
use crate::snapshot::Snapshots;
use crate::tidy::Tidy;
use crate::usage::Usage;
use crate::view::Damaged;

/// Settings of JetStream.
#[derive(Clone, Debug)]
pub struct JetStreamConfig {
    /// The domain's name; empty: none.
    pub domain: String,
    /// Whether unknown fields in API requests are refused.
    pub strict: bool,
    /// Whether acknowledgement and flow control subjects name the domain and the account.
    pub long_acks: bool,
    /// The most bytes in memory streams; negative: no limit.
    pub max_memory: i64,
    /// The most bytes in file streams; negative: no limit.
    pub max_storage: i64,
    /// The longest duplicate window that a stream may have; zero: no limit.
    pub max_duplicate_window: Span,
    /// The most unacknowledged deliveries that a consumer may have; 0: no limit.
    pub max_ack_pending: i64,
    /// The largest batch that a pull may ask for; 0: no limit.
    pub max_request_batch: i64,
    /// What batches may be.
    pub batch: BatchLimits,
    /// What may wait to be decided in one stream: bytes and messages. None: a fixed amount where a stream is replicated.
    pub max_buffered: (Option<u64>, Option<u64>),
    /// The version that is announced.
    pub version: String,
    /// The server's id and name, for advisories and info.
    pub server_id: String,
    /// The server's name.
    pub server_name: String,
    /// A checkpoint is begun when the log grew by so many bytes since the last one.
    pub checkpoint_bytes: u64,
    /// Deleted messages that are to be overwritten on disk wait so long for others; usually [`crate::ERASE_AFTER`].
    pub erase_after: Span,
    /// Segments are read in the background for damage, so many bytes a second; 0: not at all.
    pub scrub_bytes: u64,
    /// What names and ids are drawn from.
    pub seed: u64,
    /// The cluster that the server belongs to; None: it is on its own.
    pub cluster: Option<ClusterConfig>,
}

/// What JetStream wants from the disk. Frames are synced in the order of their tickets.
#[derive(Debug)]
pub enum DiskRequest {
    /// Make these frames durable.
    Append {
        /// Names the request in its completion; rises by one.
        ticket: u64,
        /// Commands of one or more groups.
        frames: Vec<Frame>,
    },
    /// Write a checkpoint.
    Checkpoint(CheckpointJob),
    /// Read a block of a segment.
    Load {
        /// Whose.
        group: GroupId,
        /// Which.
        block: BlockId,
        /// Whether all its records are to be checked, not only those that are asked for.
        check: bool,
    },
    /// The end of the last checkpoint was taken notice of: nothing of what it superseded is read any more.
    Tidy,
}

/// JetStream's part of a shard.
pub(crate) struct JetStream {
    pub(crate) config: JetStreamConfig,
    pub(crate) directory: Arc<Directory>,
    pub(crate) rng: Rng,
    pub(crate) ids: Nuid,
    pub(crate) meta: Meta,
    pub(crate) meta_log: Log,
    pub(crate) meta_changed: bool,
    /// The servers that replicate with this one.
    pub(crate) cluster: Option<Box<Cluster>>,
    pub(crate) groups: Groups,
    /// Groups that something happened to, in the order in which it did.
    pub(crate) dirty: VecDeque<GroupId>,
    /// Groups with commands that are not in a frame yet.
    pub(crate) open: Vec<GroupId>,
    /// API requests that wait for their turn.
    pub(crate) calls: VecDeque<Call>,
    /// What consumers' clients said.
    pub(crate) said: Vec<(GroupId, Said)>,
    /// Groups whose deadline has passed.
    pub(crate) due: Vec<GroupId>,
    /// Direct gets that came in: what to read, or why nothing is and whom to tell.
    pub(crate) direct: Vec<(GroupId, DirectRead)>,
    /// Streams that cannot be used.
    pub(crate) aside: Aside,
    /// Damage that was found.
    pub(crate) findings: Findings,
    /// What is being read to find more.
    pub(crate) scrub: Scrub,
    /// Backups on their way out, and on their way in.
    pub(crate) snapshots: Snapshots,
    pub(crate) restores: Restores,
    pub(crate) outbox: Outbox,
    pub(crate) disk: DiskQueue,
    /// Where the indexes of segments are read.
    pub(crate) pages: Option<Arc<Pages>>,
    pub(crate) deadlines: BTreeSet<(Time, GroupId)>,
    /// Batches that are open.
    pub(crate) batches: AllBatches,
    /// What accounts store.
    pub(crate) usage: Usage,
    /// Groups with push consumers.
    pub(crate) pushing: BTreeSet<GroupId>,
    /// Streams that follow others.
    pub(crate) following: BTreeSet<GroupId>,
    /// The hub's interest changes that push consumers know of.
    pub(crate) interest_seen: u64,
    pub(crate) api_total: u64,
    pub(crate) api_errors: u64,
}

/// Streams that exist and are not open.
#[derive(Default)]
pub(crate) struct Aside {
    /// Their data is damaged: the store keeps it as it is.
    pub(crate) quarantined: BTreeMap<GroupId, Damaged>,
    /// They are saved with the others, and open again when their account is configured, or when the meta group says that
    /// they exist.
    pub(crate) parked: Groups,
    /// Groups of which nobody has said yet that they exist, and whose data is damaged.
    pub(crate) unopened: BTreeMap<GroupId, String>,
    /// The highest segment number that they ever used.
    pub(crate) last_segments: BTreeMap<GroupId, u64>,
}

/// What is on its way to the disk.
#[derive(Default)]
pub(crate) struct DiskQueue {
    pub(crate) requests: Vec<DiskRequest>,
    pub(crate) unsynced: VecDeque<(u64, usize, Vec<Frame>)>,
    pub(crate) unsynced_bytes: usize,
    /// Frames of this round that are applied before they are durable.
    pub(crate) ahead: Vec<Frame>,
    pub(crate) last_ticket: u64,
    pub(crate) bytes_since_checkpoint: u64,
    pub(crate) checkpoint_running: bool,
    /// Something waits for the next checkpoint.
    pub(crate) must_checkpoint: bool,
    /// The last checkpoint of this run was asked for.
    pub(crate) is_ending: bool,
    pub(crate) failed: Option<String>,
    pub(crate) full: bool,
    /// Deleted groups whose files are still there.
    pub(crate) dropped: Vec<GroupId>,
    /// Those of them that the running checkpoint removes.
    pub(crate) dropping: Vec<GroupId>,
    /// Groups whose messages are on disk and may have to leave memory.
    pub(crate) shedding: BTreeSet<GroupId>,
    /// How many checkpoints were begun.
    pub(crate) checkpoints: u64,
    /// What is to be cleaned, and when.
    pub(crate) tidy: Tidy,
}

impl JetStream {
    /// An empty JetStream; `recover` fills it.
    pub(crate) fn new(config: JetStreamConfig, directory: Arc<Directory>) -> JetStream {
        let mut rng = Rng::new(config.seed);
        let ids = Nuid::new(&mut rng);
        JetStream {
            config,
            directory,
            ids,
            rng,
            meta: Meta::default(),
            meta_log: Log::new(GroupId(0), LogIndex(0)),
            meta_changed: false,
            cluster: None,
            groups: Groups::default(),
            dirty: VecDeque::new(),
            open: Vec::new(),
            calls: VecDeque::new(),
            said: Vec::new(),
            direct: Vec::new(),
            due: Vec::new(),
            aside: Aside::default(),
            findings: Findings::default(),
            scrub: Scrub::default(),
            snapshots: Snapshots::default(),
            restores: Restores::default(),
            outbox: Outbox::default(),
            disk: DiskQueue::default(),
            pages: None,
            deadlines: BTreeSet::new(),
            batches: AllBatches::default(),
            usage: Usage::default(),
            pushing: BTreeSet::new(),
            following: BTreeSet::new(),
            interest_seen: 0,
            api_total: 0,
            api_errors: 0,
        }
    }

    /// A new machine of a group: it finds what it writes to segments.
    pub(crate) fn stream(&self, group: GroupId, config: Arc<StreamConfig>, created: Time) -> Stream {
        let mut stream = Stream::new(config, created);
        if let Some(pages) = &self.pages {
            stream.messages_mut().set_source(IndexSource { group, pages: pages.clone() });
        }
        stream
    }

    /// The machine of a stream of which nothing has happened here yet.
    pub(crate) fn begun(&self, asset: &Asset) -> Stream {
        let me = self.cluster.as_ref().map_or(NodeId(0), |cluster| cluster.me);
        self.stream(asset.group(), asset.beginning(me).clone(), asset.created())
    }

    /// What the account may use; None when JetStream is not for it.
    pub(crate) fn limits_of(&self, account: AccountId) -> Option<&JsLimits> {
        self.directory.account(account)?.jetstream.as_ref()
    }

    /// The account's name.
    pub(crate) fn account_name(&self, account: AccountId) -> String {
        self.directory.account(account).map_or_else(String::new, |account| account.name.clone())
    }

    /// Proposes a command to the meta group.
    pub(crate) fn propose_meta(&mut self, now: Time, call: &Call, command: &MetaCommand) {
        if !self.meta_log.is_leading() {
            return self.ask_meta(now, call, command);
        }
        let origin = Origin::Api(Box::new(call.clone()));
        self.meta_log.propose(origin, |out| command.encode(out));
    }

    /// Proposes a command to a stream that exists.
    pub(crate) fn propose(&mut self, group: GroupId, origin: Origin, command: &Command) {
        if let Some(found) = self.groups.get_mut(&group) {
            found.log.propose(origin, |out| command.encode(out));
            self.touch(group);
        }
    }

    /// Something happened to a group: it acts before the round ends.
    pub(crate) fn touch(&mut self, id: GroupId) {
        if let Some(group) = self.groups.get_mut(&id)
            && !std::mem::replace(&mut group.dirty, true)
        {
            self.dirty.push_back(id);
        }
    }

    /// Everything that this round's inputs caused, until nothing more happens without the disk or a client.
    pub(crate) fn settle(&mut self, now: Time, hub: &mut Hub) {
        self.act_on_time(now, hub);
        self.run_cluster(now, hub);
        self.follow_interest(now, hub);
        self.run_calls(now, hub);
        self.hear(now, hub);
        self.answer_direct(now, hub);
        self.run_snapshots(now, hub);
        self.run_restores(now, hub);
        loop {
            while let Some(id) = self.dirty.pop_front() {
                self.settle_group(now, hub, id);
            }
            let drove = self.drive(now, hub) | self.run_read_indexes(now);
            if !self.release_waiting(now) && !drove {
                break;
            }
            self.hear(now, hub);
            self.answer_direct(now, hub);
        }
        self.cut_forwards(now);
        self.ask_read_indexes(now);
        self.cut_answers();
        self.shed();
        self.advise_abandoned(now, hub);
        self.read_faults_again(now);
        self.look_for_faults(now, hub);
        self.tell_damage(now, hub);
        self.tidy(now);
        self.run_scrub(now);
        self.outbox.settle(hub.interest_settled());
    }

    /// Lets one group's consumers act and applies what needs no disk.
    fn settle_group(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        let is_held = self.is_handed_over(id);
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.dirty = false;
        if is_held {
            return; // Whatever comes of it, what is volatile here ends.
        }
        if !group.log.is_leading() {
            // Streams that are led here may follow one that is not.
            self.wake_followers(id);
            return self.rearm(id);
        }
        let mut effects = Vec::new();
        group.pump(now, &interest_in(hub, group.account), &mut effects);
        self.perform(now, hub, id, effects);
        self.run_feeds(now, id);
        self.run_batches(now, id);
        self.run_schedules(now, id);
        let Some(group) = self.groups.get_mut(&id) else { return };
        if group.log.replicated.is_some() {
            if group.log.is_open() {
                self.wake_replica(id);
            }
        } else if group.log.is_held() {
            // It waits for its replica.
        } else if group.is_volatile() {
            for frame in group.log.cut() {
                self.apply_frame(now, hub, &frame);
            }
        } else if group.runs_ahead() && self.disk.failed.is_none() {
            self.run_ahead(now, hub, id);
        } else if group.log.is_open() && !std::mem::replace(&mut group.open, true) {
            self.open.push(id);
        }
        self.wake_followers(id);
        self.rearm(id);
    }

    /// Applies what was proposed to a group whose user does not want to wait for the disk, which gets it all the same.
    fn run_ahead(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        for frame in group.log.cut() {
            if let Some(group) = self.groups.get_mut(&id) {
                group.ahead.push_back((frame.last(), group.stream.messages().last_seq()));
            }
            self.disk.ahead.push(frame.clone());
            self.apply_frame(now, hub, &frame);
        }
    }

    /// Notes when a group is next due.
    pub(crate) fn rearm(&mut self, id: GroupId) {
        let Some(group) = self.groups.get(&id) else { return };
        let deadline = group.next_deadline().into_iter().chain(self.batch_deadline(group)).min();
        let Some(group) = self.groups.get_mut(&id) else { return };
        if deadline != group.armed {
            if let Some(armed) = group.armed.take() {
                self.deadlines.remove(&(armed, id));
            }
            if let Some(deadline) = deadline {
                self.deadlines.insert((deadline, id));
            }
            group.armed = deadline;
        }
    }

    /// When anything is next due.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let transfers = [self.snapshots.next_deadline(), self.restores.next_deadline()];
        let group = self.deadlines.first().map(|(deadline, _)| *deadline);
        // As soon as there is nothing else to do.
        let shedding = self.disk.shedding.first().map(|_| Time(0));
        let calls = self.calls.front().map(|_| Time(0));
        let cluster = self.cluster.as_ref().and_then(|cluster| cluster.next_deadline());
        let scrub = self.scrub.next_deadline().filter(|_| self.disk.failed.is_none());
        let others = transfers.into_iter().flatten().chain(shedding).chain(calls).chain(cluster).chain(scrub);
        let own = self.tidy_deadline().into_iter().chain(self.fault_deadline());
        group.into_iter().chain(own).chain(others).min()
    }

    /// Time has passed: groups that are due act.
    pub(crate) fn handle_timeout(&mut self, now: Time) {
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            if let Some(group) = self.groups.get_mut(&id) {
                group.armed = None;
            }
            self.due.push(id);
        }
    }

    /// Lets messages that are on disk leave memory, some of one group.
    fn shed(&mut self) {
        let Some(id) = self.disk.shedding.pop_first() else { return };
        let more = self.groups.get_mut(&id).is_some_and(|group| group.stream.messages_mut().shed_some());
        if more {
            self.disk.shedding.insert(id);
        }
    }

    /// Groups whose time has come act.
    fn act_on_time(&mut self, now: Time, hub: &Hub) {
        for id in std::mem::take(&mut self.due) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let mut effects = Vec::new();
            let interest = interest_in(hub, group.account);
            // Since it became due, another server may have come to lead it.
            if group.log.is_leading() {
                group.handle_timeout(now, &interest, &mut effects);
            }
            if !group.batches.is_empty() {
                self.expire_batches(now, id);
            }
            self.perform(now, hub, id, effects);
            self.touch(id);
        }
    }

    /// Sends what was proposed to the disk.
    pub(crate) fn cut_frames(&mut self) {
        let mut frames = self.cut_replica_frames();
        if self.meta_log.replicated.is_none() {
            frames.append(&mut self.meta_log.cut());
        }
        frames.append(&mut self.disk.ahead);
        for id in std::mem::take(&mut self.open) {
            if let Some(group) = self.groups.get_mut(&id) {
                group.open = false;
                frames.extend(group.log.cut());
            }
        }
        frames.extend(self.restores.cut());
        self.disk.append(frames);
        self.note_ticket(self.disk.last_ticket);
    }

    /// Whether input should wait because too much waits for the disk.
    pub(crate) fn is_congested(&self) -> bool {
        self.disk.unsynced_bytes > UNSYNCED_BYTES_MAX
    }

    /// The log is told how far all consumers have come that this server leads.
    pub(crate) fn tell_progress(&mut self, now: Time) {
        let told = self.groups.values_mut().filter_map(|group| group.tell_progress(now).then_some(group.id));
        let told: Vec<GroupId> = told.collect();
        told.into_iter().for_each(|id| self.touch(id));
    }

    /// The server stops: waiting pulls are told.
    pub(crate) fn handle_shutdown(&mut self) {
        let mut said = Vec::new();
        for group in self.groups.values_mut() {
            for lead in group.leads.values_mut() {
                let mut out = PumpOut::default();
                lead.handle_stepdown("409 Server Shutdown", true, &mut out);
                said.push((group.account, out.effects));
            }
        }
        for (account, effects) in said {
            self.send_effects(account, effects);
        }
    }

    /// Sends the messages among a consumer's last words.
    pub(crate) fn send_effects(&mut self, account: AccountId, effects: Vec<Effect>) {
        for effect in effects {
            if let Effect::Send { to, reply, header, payload } = effect {
                self.outbox.push(Outgoing::Send { account, to, reply, header, payload });
            }
        }
    }

    /// The acknowledgement of a publish on a stream.
    pub(crate) fn pub_ack(&self, id: GroupId, result: &Result<Stored, PublishError>, out: &mut Vec<u8>) {
        if let Some(group) = self.groups.get(&id) {
            hw_jsapi::pub_ack(out, &group.stream.config().name, &self.config.domain, result);
        }
    }
}

impl DiskQueue {
    /// The next frames whose ticket is durable.
    pub(crate) fn synced(&mut self, ticket: u64) -> Option<Vec<Frame>> {
        if self.unsynced.front()?.0 > ticket {
            return None;
        }
        let (_, bytes, frames) = self.unsynced.pop_front()?;
        self.unsynced_bytes -= bytes;
        Some(frames)
    }

    /// The log failed: what waits is never acknowledged.
    pub(crate) fn fail(&mut self, reason: String) {
        self.failed.get_or_insert(reason);
        self.unsynced.clear();
        self.unsynced_bytes = 0;
    }

    /// Sends frames to the disk, as many under one ticket as should wait for one write.
    fn append(&mut self, frames: Vec<Frame>) {
        let (mut part, mut bytes) = (Vec::new(), 0);
        for frame in frames {
            bytes += frame.body().len();
            part.push(frame);
            if bytes >= APPEND_BYTES {
                self.append_part(std::mem::take(&mut part), bytes);
                bytes = 0;
            }
        }
        if !part.is_empty() {
            self.append_part(part, bytes);
        }
    }

    fn append_part(&mut self, frames: Vec<Frame>, bytes: usize) {
        self.last_ticket += 1;
        self.unsynced_bytes += bytes;
        self.bytes_since_checkpoint += bytes as u64;
        // Frames of replicas are applied when a majority has them.
        let own = frames.iter().filter(|frame| frame.kind() == FrameKind::Entries).cloned().collect();
        self.unsynced.push_back((self.last_ticket, bytes, own));
        self.requests.push(DiskRequest::Append { ticket: self.last_ticket, frames });
    }
}
