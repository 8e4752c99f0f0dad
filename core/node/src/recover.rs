//! From what the disk gives back to a running JetStream: states, segment indexes, and the log's tail through `apply`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hw_auth::Directory;
use hw_cluster::{Cause, ReplicaNote, Standing, StoreNote};
use hw_hub::Hub;
use hw_kit::{AccountId, GroupId, LogIndex, NodeId, Seq, Time};
use hw_meta::{Asset, Meta, MetaAnswer, MetaCommand};
use hw_store::index::Pages;
use hw_store::messages::{IndexSource, Written};
use hw_store::{
    CheckpointJob, Damage, Flaw, FrameKind, GroupCheckpoint, Messages, Recovered, RecoveredGroup, Replay,
    SegmentInfo,
};
use hw_stream::config::Storage;
use hw_stream::stream::StreamRestore;
use hw_stream::{Command, Stream};

use crate::cluster::{Cluster, Saved};
use crate::commit::{META, STORE};
use crate::group::Group;
use crate::inside::Target;
use crate::jetstream::{JetStream, JetStreamConfig};
use crate::log::{Log, Origin};
use crate::notice::NoticeLevel;
use crate::scrub::Scrub;
use crate::streams::prefixes;

/// The account of streams whose account is not configured: none has this number.
pub(crate) const NOBODY: AccountId = AccountId(u32::MAX);

/// Collects what [`hw_store::recover`] hands out, in its order; [`Recovery::finish`] is the running JetStream.
#[derive(Default)]
pub struct Recovery {
    meta: Meta,
    meta_applied: LogIndex,
    states: BTreeMap<GroupId, State>,
    streams: BTreeMap<GroupId, Restored>,
    quarantined: BTreeMap<GroupId, String>,
    /// What is wrong with streams' segments.
    damaged: BTreeMap<GroupId, Vec<(u64, String)>>,
    refusal: Option<String>,
    /// The list of streams cannot be read, and why.
    meta_lost: Option<String>,
    /// Whether there are other servers that have it, too.
    is_clustered: bool,
    /// The highest segment number that groups in quarantine ever used.
    last_segments: BTreeMap<GroupId, u64>,
    replaying: bool,
    unerased: bool,
    accept_loss: bool,
    pages: Option<Arc<Pages>>,
    /// How much of the log was replayed.
    replayed: u64,
    /// What was lost, as stream and sentence.
    lost: Vec<(String, String)>,
    /// What replicated groups have beside their states.
    saved: BTreeMap<GroupId, Saved>,
    /// What was logged of groups that are not known yet: in a cluster, the meta group's log may create them later.
    later: BTreeMap<GroupId, Vec<hw_store::Frame>>,
    /// What this server is in its cluster, and whether the store does not know it yet.
    store: StoreNote,
    is_new_node: bool,
}

/// A stream as it is on disk.
pub struct StoredStream<'a> {
    /// Its group.
    pub group: GroupId,
    /// Its account.
    pub account: &'a str,
    /// Its name.
    pub name: &'a str,
    /// What is wrong with it.
    pub damage: Option<&'a str>,
    /// Its messages; None where they cannot be used.
    pub messages: Option<&'a mut Messages>,
}

/// A group's state before its segments are known.
struct State {
    restore: StreamRestore,
    applied: LogIndex,
    last_segment: u64,
    damage: Option<String>,
}

/// A stream as of the commands that were applied so far.
pub(crate) struct Restored {
    pub(crate) stream: Stream,
    pub(crate) applied: LogIndex,
    pub(crate) last_segment: u64,
    pub(crate) damage: Option<String>,
    /// The segments that cannot be used, and why.
    pub(crate) broken: Vec<(u64, String)>,
}

impl Restored {
    /// Nothing happened yet.
    pub(crate) fn begin(stream: Stream) -> Restored {
        Restored { stream, applied: LogIndex(0), last_segment: 0, damage: None, broken: Vec::new() }
    }
}

impl Restored {
    /// One that was kept until somebody would say that it exists.
    pub(crate) fn of(group: Group) -> Restored {
        let Group { stream, last_segment, damage, log, .. } = group;
        Restored { stream, applied: log.applied(), last_segment, damage, broken: Vec::new() }
    }

    /// What was logged of it happens again.
    pub(crate) fn replay(&mut self, frame: &hw_store::Frame) {
        let indexes = frame.first().0..;
        for (index, entry) in
            indexes.map(LogIndex).zip(frame.entries()).filter(|(index, _)| *index > self.applied)
        {
            match Command::decode(&entry) {
                Ok(command) => drop(self.stream.apply(index, command, &mut Vec::new())),
                Err(error) => drop(self.damage.get_or_insert(error.to_string())),
            }
        }
        self.applied = self.applied.max(frame.last());
        let fault = self.stream.messages().fault();
        if self.damage.is_none() {
            self.damage = fault.map(|fault| fault.to_string());
        }
    }
}

impl Recovery {
    /// Nothing found yet. The segments' indexes are read through `pages`; without them, no message that is in a segment
    /// is found.
    pub fn new(pages: Option<Arc<Pages>>) -> Recovery {
        Recovery { pages, ..Recovery::default() }
    }

    /// Which server of its cluster the store is: what it says, or `new` from now on.
    pub fn node(&mut self, new: NodeId) -> NodeId {
        if self.store.node.0 == 0 {
            (self.store.node, self.is_new_node) = (new, true);
        }
        self.store.node
    }

    /// Takes one piece.
    pub fn handle(&mut self, piece: Recovered) {
        match piece {
            Recovered::Group(group) if group.group == STORE => self.store_note(group.state),
            Recovered::Group(mut group) => {
                if ReplicaNote::is_in(&group.state) && !self.take_note(&mut group) {
                    return;
                }
                match group.group {
                    META => self.meta_state(&group),
                    _ => self.stream_state(group),
                }
            }
            Recovered::Segment(info) => self.segment(info),
            Recovered::SegmentDamaged { id, damage } => {
                if let Some(state) = self.states.get_mut(&id.group) {
                    state.damage = Some(damage.to_string());
                    let found = (id.number, damage.to_string());
                    self.damaged.entry(id.group).or_default().push(found);
                }
            }
            Recovered::Replay(replay) => self.replay(&replay),
            Recovered::Unerased => self.unerased = true,
            Recovered::Quarantined { group: META, reason, .. } => self.refuse(META, &reason),
            Recovered::Quarantined { group, reason, last_segment } => {
                self.last_segments.insert(group, last_segment);
                self.quarantine(group, reason);
            }
        }
    }

    /// For a repair: messages that are lost are not missed any more.
    pub fn accepting_loss(pages: Option<Arc<Pages>>) -> Recovery {
        Recovery { accept_loss: true, ..Recovery::new(pages) }
    }

    /// Calls `each` with every stream, for reading what is on disk without a server.
    pub fn for_each_stream(&mut self, mut each: impl FnMut(StoredStream<'_>)) {
        self.begin_replay();
        for (account, asset) in self.meta.all() {
            let group = asset.group();
            let found = self.streams.get_mut(&group);
            let reason = self.quarantined.get(&group).map(String::as_str);
            let (damage, messages) = match found {
                Some(restored) => (restored.damage.as_deref(), Some(restored.stream.messages_mut())),
                None => (None, None),
            };
            each(StoredStream {
                group,
                account,
                name: &asset.config.name,
                damage: reason.or(damage),
                messages,
            });
        }
        let known: BTreeSet<GroupId> = self.meta.all().map(|(_, asset)| asset.group()).collect();
        for (&group, restored) in &mut self.streams {
            // Of a stream that has a place elsewhere, nothing was ever here.
            let is_empty = restored.applied == LogIndex(0) && restored.last_segment == 0;
            if known.contains(&group) || is_empty {
                continue;
            }
            let config = restored.stream.shared_config();
            let damage = Some("the list of streams does not have it");
            let messages = Some(restored.stream.messages_mut());
            each(StoredStream { group, account: "", name: &config.name, damage, messages });
        }
    }

    /// The checkpoint that makes what was read the truth: of everything that is on disk and can be used. `lost` is called
    /// with a stream's name and a sentence for every stretch of messages that is given up.
    pub fn into_checkpoint_with(mut self, mut lost: impl FnMut(&str, &str)) -> Result<CheckpointJob, String> {
        self.begin_replay();
        self.lost.iter().for_each(|(stream, text)| lost(stream, text));
        if let Some(reason) = self.refusal.or(self.meta_lost) {
            return Err(reason);
        }
        let mut state = Vec::new();
        self.meta.snapshot(&mut state);
        let meta = GroupCheckpoint {
            group: META,
            applied: self.meta_applied,
            state: state.into(),
            ..Default::default()
        };
        let mut job = CheckpointJob { groups: vec![meta], full: true, ..CheckpointJob::default() };
        for (id, restored) in self.streams {
            let Restored { mut stream, applied, last_segment, .. } = restored;
            stream.enforce_again();
            let mut group = Group::new(id, NOBODY, 1, stream, Log::new(id, applied));
            group.last_segment = last_segment;
            if !group.is_volatile() {
                job.groups.push(group.checkpoint(false));
            }
        }
        Ok(job)
    }

    /// What could not be used, and why.
    pub fn quarantined(&self) -> impl Iterator<Item = (GroupId, &str)> {
        self.quarantined.iter().map(|(group, reason)| (*group, reason.as_str()))
    }

    /// The server is configured to have others beside it.
    pub fn set_clustered(&mut self) {
        self.is_clustered = true;
    }

    /// Why a server must not start with this: everything would be there, but something that is whole could not be used.
    pub fn refusal(&self) -> Option<&str> {
        let lost = self.meta_lost.as_deref().filter(|_| !self.can_rejoin());
        self.refusal.as_deref().or(lost)
    }

    /// Whether others have the list of streams: this store belonged to a cluster, and knows as which server.
    fn can_rejoin(&self) -> bool {
        self.is_clustered && self.store.node.0 != 0 && self.store.founder.0 != 0
    }

    fn refuse(&mut self, group: GroupId, reason: &str) {
        if group == META {
            self.meta_lost.get_or_insert(format!("the list of streams cannot be read: {reason}"));
            (self.meta, self.meta_applied) = (Meta::default(), LogIndex(0));
            self.saved.remove(&META);
            return;
        }
        self.refusal.get_or_insert(format!("the state of group {group} cannot be read: {reason}"));
    }

    fn quarantine(&mut self, group: GroupId, reason: String) {
        self.states.remove(&group);
        self.streams.remove(&group);
        self.quarantined.insert(group, reason);
    }

    fn meta_state(&mut self, group: &RecoveredGroup) {
        match Meta::restore(&group.state) {
            Ok(meta) => (self.meta, self.meta_applied) = (meta, group.applied),
            Err(error) => self.refuse(META, &error.to_string()),
        }
    }

    fn stream_state(&mut self, group: RecoveredGroup) {
        let (id, applied, last_segment) = (group.group, group.applied, group.last_segment);
        match StreamRestore::open(&group.state) {
            Ok(restore) => {
                self.states.insert(id, State { restore, applied, last_segment, damage: None });
            }
            Err(error) => self.refuse(id, &error.to_string()),
        }
    }

    fn segment(&mut self, info: SegmentInfo) {
        let Some(state) = self.states.get_mut(&info.id.group) else { return };
        let written = Written { segment: info.id.number, place: info.place };
        if let Err(error) = state.restore.messages.add_segment(written) {
            state.damage = Some(error.to_string());
        }
    }

    fn source(&self, group: GroupId) -> Option<IndexSource> {
        Some(IndexSource { group, pages: self.pages.clone()? })
    }

    /// All states are here when the first command comes.
    fn begin_replay(&mut self) {
        if std::mem::replace(&mut self.replaying, true) {
            return;
        }
        for (id, state) in std::mem::take(&mut self.states) {
            let State { restore, applied, last_segment, mut damage } = state;
            match restore.finish(self.source(id)) {
                Ok((mut stream, lost)) if self.accept_loss => {
                    stream.messages_mut().forget_lost();
                    let name = stream.config().name.clone();
                    let stretch = |(first, last): &(Seq, Seq)| format!("messages {first} to {last} are lost");
                    self.lost.extend(lost.iter().map(stretch).map(|text| (name.clone(), text)));
                    let broken = Vec::new();
                    self.streams.insert(id, Restored { stream, applied, last_segment, damage: None, broken });
                }
                Ok((stream, lost)) => {
                    if !lost.is_empty() && damage.is_none() {
                        damage = Some(format!(
                            "messages of {} stretches of sequences are in no segment",
                            lost.len()
                        ));
                    }
                    let broken = self.damaged.remove(&id).unwrap_or_default();
                    self.streams.insert(id, Restored { stream, applied, last_segment, damage, broken });
                }
                Err(error) => self.refuse(id, &error.to_string()),
            }
        }
        // A checkpoint may have the list of streams and not yet one that was created shortly before, as on a full disk:
        // all of that one is in the log.
        let assets = self.meta.all().chain(self.meta.restoring()).map(|(_, asset)| asset);
        let is_absent = |id| !self.streams.contains_key(&id) && !self.quarantined.contains_key(&id);
        let absent: Vec<Asset> = assets.filter(|asset| is_absent(asset.group())).cloned().collect();
        absent.iter().for_each(|asset| self.start_stream(asset));
    }

    fn store_note(&mut self, mut state: bytes::Bytes) {
        match StoreNote::take(&mut state) {
            Ok(note) => self.store = note,
            Err(error) => self.refuse(STORE, &error.to_string()),
        }
    }

    /// The note in front of a group's state.
    fn take_note(&mut self, group: &mut RecoveredGroup) -> bool {
        match ReplicaNote::take(&mut group.state) {
            Ok(mut note) => {
                note.base = (group.applied, group.term);
                self.saved
                    .insert(group.group, Saved { note: Some(note), is_stated: true, ..Saved::default() });
                true
            }
            Err(error) => {
                self.refuse(group.group, &error.to_string());
                false
            }
        }
    }

    /// A frame of a replicated log is not applied before it is known to be committed.
    fn keep(&mut self, frame: &hw_store::Frame) {
        let id = frame.group();
        if id == META && self.meta_lost.is_some() {
            return;
        }
        let saved = self.saved.entry(id).or_default();
        if frame.kind() != FrameKind::Note {
            return saved.take(frame.clone());
        }
        let mut body = frame.entries().next().unwrap_or_default();
        match ReplicaNote::take(&mut body) {
            Ok(note) => saved.take_note(note),
            Err(error) => self.refuse(id, &error.to_string()),
        }
    }

    fn replay(&mut self, replay: &Replay) {
        self.begin_replay();
        self.replayed += replay.frame.body().len() as u64;
        let id = replay.frame.group();
        match replay.frame.kind() {
            FrameKind::Entries => {}
            FrameKind::Note if id == STORE => {
                return self.store_note(replay.frame.entries().next().unwrap_or_default());
            }
            _ => return self.keep(&replay.frame),
        }
        if self.store.node.0 != 0 && id > self.meta.last_group() && !self.quarantined.contains_key(&id) {
            self.later.entry(id).or_default().push(replay.frame.clone());
            return;
        }
        for (index, entry) in replay.entries() {
            let done = if id == META {
                self.replay_meta(index, &entry)
            } else {
                self.replay_stream(id, index, &entry)
            };
            if let Err(reason) = done {
                return self.refuse(id, &reason);
            }
        }
    }

    fn replay_meta(&mut self, index: LogIndex, entry: &bytes::Bytes) -> Result<(), String> {
        if self.meta_lost.is_some() {
            return Ok(());
        }
        let command = MetaCommand::decode(entry).map_err(|error| error.to_string())?;
        self.meta_applied = index;
        let created = match &command {
            MetaCommand::Create { account, config, .. } => Some((account.clone(), config.name.clone())),
            _ => None,
        };
        let asset = match self.meta.apply(command) {
            MetaAnswer::Deleted(Ok(group)) | MetaAnswer::Abandoned(Ok(group)) => {
                self.streams.remove(&group);
                None
            }
            MetaAnswer::Created(Ok(_)) => {
                created.and_then(|(account, name)| self.meta.stream(&account, &name))
            }
            MetaAnswer::RestoreBegun(Ok(group)) => {
                let mut assets = self.meta.restoring().map(|(_, asset)| asset);
                assets.find(|asset| asset.group() == group)
            }
            _ => None,
        };
        if let Some(asset) = asset.cloned() {
            self.start_stream(&asset);
        }
        Ok(())
    }

    /// A stream whose creation is in the tail: its machine starts empty.
    fn start_stream(&mut self, asset: &Asset) {
        let id = asset.group();
        let mut stream = Stream::new(asset.beginning(self.store.node).clone(), asset.created());
        if let Some(source) = self.source(id) {
            stream.messages_mut().set_source(source);
        }
        self.streams.entry(id).or_insert(Restored::begin(stream));
    }

    /// In a cluster, that a stream exists may be in the tail of the meta group's log, of which nobody has said here yet how
    /// much is decided. That a stream of this server alone has entries says it: so much was.
    fn foresee(&mut self, id: GroupId) {
        let Some(saved) = self.saved.get(&META) else { return };
        let mut meta = self.meta.clone();
        let frames = saved.frames.iter().filter(|frame| frame.first() > self.meta_applied);
        for entry in
            frames.filter(|frame| frame.kind() == FrameKind::Batch).flat_map(hw_store::Frame::entries)
        {
            let Ok(command) = MetaCommand::decode(&entry) else { continue };
            meta.apply(command);
            let asset = meta.all().map(|(_, asset)| asset).find(|asset| asset.group() == id);
            if let Some(asset) = asset.cloned() {
                return self.start_stream(&asset);
            }
        }
    }

    fn replay_stream(&mut self, id: GroupId, index: LogIndex, entry: &bytes::Bytes) -> Result<(), String> {
        if !self.streams.contains_key(&id) && !self.quarantined.contains_key(&id) {
            self.foresee(id);
        }
        let Some(restored) = self.streams.get_mut(&id) else { return Ok(()) }; // Deleted, or quarantined before.
        let command = Command::decode(entry).map_err(|error| error.to_string())?;
        restored.stream.apply(index, command, &mut Vec::new());
        restored.applied = index;
        let fault = restored.stream.messages().fault();
        if let Some(Damage { flaw: Flaw::Unreadable { reason }, file, .. }) = &fault
            && !self.accept_loss
        {
            // The disk may read it tomorrow: without it, the command did not do what it did the first time.
            return Err(format!("{file}: {reason}"));
        }
        if restored.damage.is_none() {
            restored.damage = fault.map(|fault| fault.to_string());
        }
        Ok(())
    }

    /// The running JetStream: its streams are open and listened to.
    pub(crate) fn finish(
        mut self,
        now: Time,
        config: JetStreamConfig,
        directory: Arc<Directory>,
        hub: &mut Hub,
    ) -> JetStream {
        self.begin_replay();
        let mut js = JetStream::new(config, directory);
        js.pages = std::mem::take(&mut self.pages);
        js.meta = std::mem::take(&mut self.meta);
        js.meta_log = Log::new(META, self.meta_applied);
        self.join_cluster(&mut js);
        js.forget_memory_streams(now);
        js.forget_restores();
        js.meta_changed = true;
        listen(&js, hub, 0);
        let assets: Vec<_> =
            js.meta.all().map(|(account, asset)| (account.to_owned(), asset.clone())).collect();
        for (account, asset) in assets {
            self.reopen(now, (&mut js, hub), account, &asset);
        }
        js.keep_for_later(self.saved, self.streams, self.later);
        js.capture_all(hub);
        js.aside.unopened = self.quarantined;
        js.aside.last_segments = self.last_segments;
        js.start_elections(now);
        js.scrub = Scrub::new(now, js.config.scrub_bytes);
        // However often a server is killed, the log does not grow beyond what may be in it.
        js.disk.bytes_since_checkpoint = self.replayed;
        js.disk.tidy.unerased = self.unerased;
        js.disk.tidy.by(now + js.config.erase_after);
        // What was deleted before its files went: they go with the next checkpoint.
        js.disk.dropped = js.meta.tombstones().collect();
        js
    }

    /// A stream that exists is open again, as far as it can be.
    fn reopen(&mut self, now: Time, (js, hub): (&mut JetStream, &mut Hub), account: String, asset: &Asset) {
        let (id, name) = (asset.group(), &asset.config.name);
        if let Some(reason) = self.quarantined.remove(&id) {
            let last_segment = self.last_segments.get(&id).copied().unwrap_or_default();
            return js.open_anew(now, hub, (&account, asset), (reason, last_segment));
        }
        let is_here = |found: &Restored| found.applied > LogIndex(0);
        let is_kept = self.saved.contains_key(&id) || self.streams.get(&id).is_some_and(is_here);
        if !js.is_placed_here(asset) && !is_kept {
            return; // What there is of it stays until the cluster says that it is not needed.
        }
        let found = self.streams.remove(&id);
        let mut found = found.unwrap_or_else(|| Restored::begin(js.begun(asset)));
        found.stream.share_config(&asset.config);
        let log = match js.new_log(asset, (self.saved.remove(&id), found.applied)) {
            Ok(log) => log,
            Err(error) => return js.put_aside(now, id, (&account, name), error.to_string()),
        };
        let (home, revision) = (js.directory.account_id(&account), found.stream.revision().max(1));
        let mut group = Group::new(id, home.unwrap_or(NOBODY), revision, found.stream, log);
        group.last_segment = found.last_segment;
        for (_, reason) in &found.broken {
            js.note_damage(now, id, account.clone(), reason.clone());
        }
        if let Some(reason) = &found.damage {
            js.note_damage(now, id, account, reason.clone());
        }
        group.damage = found.damage;
        if home.is_none() {
            return js.aside.parked.insert(Box::new(group));
        }
        js.add_group(now, hub, Box::new(group));
        js.configure_group(now, hub, id);
        js.seek_help(now, id);
    }
}

impl Recovery {
    /// What the server was in its cluster, it is again; a store that was in none gets its number.
    fn join_cluster(&mut self, js: &mut JetStream) {
        let Some(config) = js.config.cluster.clone() else { return };
        self.node(config.new_node);
        let saved = self.saved.remove(&META);
        let standing = Standing {
            member: self.meta_lost.is_some() || saved.as_ref().is_some_and(|saved| saved.note.is_some()),
            founder: self.store.founder.0,
            has_streams: js.meta_log.applied() > LogIndex(0) && saved.is_none(),
            expected: config.expected,
        };
        let mut cluster = Cluster::new(config, self.store.clone(), standing, js.config.seed);
        if self.is_new_node {
            cluster.frames.push(crate::cluster::store_frame(&self.store));
        }
        let who = (cluster.me, META);
        match saved.map(|saved| saved.open(ReplicaNote::default(), who, self.meta_applied)) {
            None => {}
            Some(Ok((term, replicated))) => js.meta_log.replicate(term, replicated),
            // Without its replica, this server must not decide anything.
            Some(Err(error)) => {
                let reason = format!("the meta group's log contradicts itself: {error}");
                cluster.say(NoticeLevel::Error, reason.clone());
                js.disk.fail(reason);
            }
        }
        js.cluster = Some(Box::new(cluster));
        if let Some(reason) = self.meta_lost.take() {
            js.rejoin(&reason);
        }
    }
}

impl JetStream {
    /// Groups that are here and that the meta group, as far as it is known, has not created yet: its log may say so.
    fn keep_for_later(
        &mut self,
        saved: BTreeMap<GroupId, Saved>,
        streams: BTreeMap<GroupId, Restored>,
        frames: BTreeMap<GroupId, Vec<hw_store::Frame>>,
    ) {
        if self.cluster.is_none() {
            return;
        }
        let deleted: BTreeSet<GroupId> = self.meta.tombstones().collect();
        let mut saved: BTreeMap<GroupId, Saved> =
            saved.into_iter().filter(|(id, _)| !deleted.contains(id)).collect();
        for (id, restored) in streams.into_iter().filter(|(id, _)| !deleted.contains(id)) {
            let is_empty = restored.applied == LogIndex(0) && restored.last_segment == 0;
            if is_empty && !saved.contains_key(&id) {
                continue; // The list of streams has it, and nothing of it was ever here.
            }
            let mut log = Log::new(id, restored.applied);
            if let Some(saved) = saved.remove(&id) {
                log.rest(saved);
            }
            let mut group = Group::new(id, NOBODY, 1, restored.stream, log);
            (group.last_segment, group.damage) = (restored.last_segment, restored.damage);
            self.aside.parked.insert(Box::new(group));
        }
        if let Some(cluster) = &mut self.cluster {
            for (id, saved) in saved {
                cluster.found.entry(id).or_default().saved = Some(saved);
            }
            for (id, frames) in frames.into_iter().filter(|(id, _)| !deleted.contains(id)) {
                cluster.found.entry(id).or_default().frames = frames;
            }
        }
    }

    /// Nobody is known to lead.
    fn start_elections(&mut self, now: Time) {
        for id in self.replicated() {
            self.plan_election(now, id, Cause::Started);
            self.wake_replica(id);
        }
        self.find_strays(now);
    }

    /// Restores that were going on when the server stopped are over: the log says so, and what they brought goes.
    fn forget_restores(&mut self) {
        for (_, asset) in self.meta.restoring().filter(|_| self.cluster.is_none()) {
            let gone = MetaCommand::AbandonRestore { group: asset.group };
            self.meta_log.propose(Origin::None, |out| gone.encode(out));
        }
    }

    /// A reload: accounts that are new get the API, and the streams that wait for them.
    pub(crate) fn set_directory(&mut self, now: Time, hub: &mut Hub, directory: Arc<Directory>) {
        let known = self.directory.accounts().count();
        self.directory = directory;
        listen(self, hub, known);
        self.capture_all(hub);
        let homes: Vec<_> = self
            .meta
            .all()
            .filter(|(_, asset)| self.aside.parked.contains_key(&asset.group()))
            .filter(|(_, asset)| {
                self.is_placed_here(asset) && !self.aside.quarantined.contains_key(&asset.group())
            })
            .filter_map(|(account, asset)| Some((self.directory.account_id(account)?, asset.group())))
            .collect();
        for (account, id) in homes {
            if let Some(mut group) = self.aside.parked.remove(&id) {
                group.account = account;
                self.add_group(now, hub, group);
                self.configure_group(now, hub, id);
            }
        }
        self.find_origins_again();
    }

    /// Streams in memory did not survive. The log says so as well: a later recovery reads what follows in the same state.
    fn forget_memory_streams(&mut self, now: Time) {
        if self.cluster.is_some() {
            return; // Where they are alone, their server says so when it leads them.
        }
        for (account, asset) in self.meta.all().filter(|(_, asset)| asset.config.storage == Storage::Memory) {
            let (account, name) = (account.to_owned(), asset.config.name.clone());
            let gone = MetaCommand::Delete { ts: now.0, account, name };
            self.meta_log.propose(Origin::None, |out| gone.encode(out));
        }
        self.meta.forget(|asset| asset.config.storage == Storage::Memory);
    }
}

/// The queue group of those who take API requests: one of them gets each, and hands it on. No client can be in it.
const CALLS: &[u8] = b" api";

/// What the JetStream API listens to in every account from this number on. `CONSUMER.MSG.NEXT` and `DIRECT.GET` are left out:
/// consumers and streams listen there themselves, so that an unknown one gives "no responders".
fn listen(js: &JetStream, hub: &mut Hub, first: usize) {
    const VERBS: &[&str] = &[
        "INFO",
        "STREAM.>",
        "CONSUMER.CREATE.>",
        "CONSUMER.DURABLE.>",
        "CONSUMER.NAMES.>",
        "CONSUMER.LIST.>",
        "CONSUMER.INFO.>",
        "CONSUMER.DELETE.>",
        "CONSUMER.PAUSE.>",
        "CONSUMER.UNPIN.>",
        "CONSUMER.RESET.>",
        "CONSUMER.LEADER.>",
        "CONSUMER.PEER.>",
        "ACCOUNT.>",
        "META.LEADER.>",
        "SERVER.>",
    ];
    let group = js.captures().then_some(CALLS);
    for (account, _) in js.directory.accounts().skip(first) {
        for prefix in prefixes(&js.config.domain) {
            for verb in VERBS {
                hub.subscribe_internal(
                    account,
                    format!("{prefix}.{verb}").as_bytes(),
                    group,
                    Target::Api.id(),
                );
            }
            let to_all = format!("{prefix}.META.RESCUE");
            hub.subscribe_internal(account, to_all.as_bytes(), None, Target::Api.id());
        }
    }
}
