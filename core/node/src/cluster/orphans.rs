//! Groups that are on disk here and of which nobody says that they exist. They are kept: the meta group may say so yet, and what
//! it does not know is no reason to remove what somebody stored. Only what it knows to be deleted goes.

use std::collections::{BTreeMap, BTreeSet};

use hw_hub::Hub;
use hw_kit::{AccountId, GroupId, NodeId, Span, Time};
use hw_meta::{Asset, MetaCommand};

use crate::commit::META;
use crate::group::Group;
use crate::jetstream::JetStream;
use crate::notice::NoticeLevel;

/// How often it is looked who is still unknown.
const EVERY: Span = Span::from_secs(5);
/// How often a replica that has no place here any more asks whether it may go.
const ASK_EVERY: Span = Span::from_secs(1);

/// Groups that nobody knows.
#[derive(Default)]
pub(crate) struct Orphans {
    next: Option<Time>,
    /// Those that were named in the log.
    told: BTreeSet<GroupId>,
    /// Replicas that have no place here any more, and when they ask next whether they may go.
    leaving: BTreeMap<GroupId, Time>,
}

impl Orphans {
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        self.next.into_iter().chain(self.leaving.values().copied()).min()
    }
}

impl JetStream {
    /// Groups that the meta group, as it is led now, neither knows nor knows to be deleted, and what they were called.
    pub(crate) fn orphans(&self) -> Vec<(GroupId, String)> {
        let Some(cluster) = &self.cluster else { return Vec::new() };
        let is_current = !self.lacks_leader(META) && self.replica(META).is_some_and(|meta| !meta.is_mute());
        if !is_current || !self.has_unknown() {
            return Vec::new();
        }
        let placed: BTreeSet<GroupId> = self
            .meta
            .all()
            .filter(|(_, asset)| self.is_placed_here(asset))
            .map(|(_, asset)| asset.group())
            .collect();
        let parked = self.aside.parked.values().map(|group| (group.id, group.stream.config().name.clone()));
        let is_named = |id: &&GroupId| !self.aside.parked.contains_key(id);
        let others = cluster
            .found
            .keys()
            .filter(is_named)
            .chain(self.aside.unopened.keys())
            .map(|id| (*id, String::new()));
        parked.chain(others).filter(|(id, _)| *id != META && !placed.contains(id)).collect()
    }

    /// Whether anything is kept that is not open.
    fn has_unknown(&self) -> bool {
        self.aside.parked.keys().next().is_some()
            || self.cluster.as_ref().is_some_and(|cluster| !cluster.found.is_empty())
            || !self.aside.unopened.is_empty()
    }

    /// A replica has no place here any more. It goes when its leader says so, which may be lost on the way, or die with a leader:
    /// it asks until it is told.
    pub(crate) fn note_stray(&mut self, now: Time, id: GroupId) {
        if let Some(cluster) = &mut self.cluster {
            cluster.orphans.leaving.insert(id, now + ASK_EVERY);
        }
    }

    /// Replicas whose place was taken away while the server did not run.
    pub(crate) fn find_strays(&mut self, now: Time) {
        let placed: BTreeSet<GroupId> = self
            .meta
            .all()
            .filter(|(_, asset)| self.is_placed_here(asset))
            .map(|(_, asset)| asset.group())
            .collect();
        for id in self.replicated().into_iter().filter(|id| *id != META && !placed.contains(id)) {
            self.note_stray(now, id);
        }
    }

    /// Replicas that may have to go ask for it.
    pub(crate) fn run_strays(&mut self, now: Time, hub: &mut Hub) {
        let Some(cluster) = &mut self.cluster else { return };
        let due = cluster.orphans.leaving.extract_if(.., |_, at| *at <= now);
        let due: Vec<GroupId> = due.map(|(id, _)| id).collect();
        for id in due {
            if self.groups.contains_key(&id) {
                self.follow_place(now, hub, id);
            }
        }
    }

    /// Names in the log who is unknown, once.
    pub(crate) fn run_orphans(&mut self, now: Time) {
        let has_any = self.has_unknown();
        let Some(cluster) = &mut self.cluster else { return };
        if !has_any {
            cluster.orphans.next = None;
            return;
        }
        let next = *cluster.orphans.next.get_or_insert(now + EVERY);
        if next > now {
            return;
        }
        cluster.orphans.next = Some(now + EVERY);
        for (id, name) in self.orphans() {
            let Some(cluster) = &mut self.cluster else { return };
            if cluster.orphans.told.insert(id) {
                let text = format!(
                    "group {id} (stream {name:?}) is on disk, and the cluster does not know it: it is kept as it is"
                );
                cluster.say(NoticeLevel::Error, text);
            }
        }
    }

    /// The meta group's state does not have a stream that is open here, and does not know that it was deleted.
    pub(crate) fn orphan(&mut self, now: Time, hub: &mut Hub, id: GroupId) {
        if self.groups.get(&id).is_some_and(|group| group.log.is_leading()) {
            self.stop_leading(now, hub, id);
        }
        self.uncount(id);
        self.following.remove(&id);
        self.forget_replica(id);
        let Some(mut group) = self.groups.remove(&id) else { return };
        if let Some(armed) = group.armed.take() {
            self.deadlines.remove(&(armed, id));
        }
        self.aside.parked.insert(group);
    }

    /// A command in a stream's log cannot be read, as it is of a newer version or was wrong when it was written: the stream
    /// stays as it is before that, and this server has no part in it any more. No other stream is concerned.
    pub(crate) fn break_off(&mut self, now: Time, hub: &mut Hub, id: GroupId, reason: String) {
        let Some(group) = self.groups.get(&id) else { return };
        let (account, stream) = (self.account_name(group.account), group.stream.config().name.clone());
        if group.log.is_leading() {
            match group.log.replicated.is_some() {
                true => self.abdicate(now, hub, id),
                false => self.stop_leading(now, hub, id),
            }
        }
        self.orphan(now, hub, id);
        self.say(NoticeLevel::Error, format!("stream '{account} > {stream}' is put aside: {reason}"));
        self.put_aside(now, id, (&account, &stream), reason);
    }

    /// A stream that was kept exists.
    pub(crate) fn open_parked(
        &mut self,
        now: Time,
        hub: &mut Hub,
        (account, mut group): (AccountId, Box<Group>),
    ) {
        let id = group.id;
        group.account = account;
        self.add_group(now, hub, group);
        self.note_opened(now, id);
        self.seek_help(now, id);
    }

    /// A group is known to be deleted: what was kept of it goes.
    pub(crate) fn drop_found(&mut self, id: GroupId) {
        let parked = self.aside.parked.remove(&id).is_some();
        let unopened = self.aside.unopened.remove(&id).is_some();
        let found = self.cluster.as_mut().is_some_and(|cluster| cluster.found.remove(&id).is_some());
        if parked || unopened || found {
            self.disk.dropped.push(id);
        }
    }

    /// The files of deleted streams are gone from this server: when all that had them say so, the meta group forgets that
    /// there were such streams. What is lost on the way is said again after the next start.
    pub(crate) fn tell_dropped(&mut self, dropped: &[GroupId]) {
        let leader = self.replica(META).map_or(NodeId(0), |replicated| replicated.replica.leader());
        let Some(me) = self.cluster.as_ref().map(|cluster| cluster.me) else { return };
        let gone: Vec<GroupId> = self.meta.held_by(me).filter(|group| dropped.contains(group)).collect();
        for group in gone {
            let command = MetaCommand::Dropped { group: group.0, node: me.0 };
            self.propose_elsewhere(leader, command);
        }
    }

    /// What is on disk of a stream cannot be used. Where others have it, it comes from them; nobody else's is put aside.
    pub(crate) fn open_anew(
        &mut self,
        now: Time,
        hub: &mut Hub,
        (account, asset): (&str, &Asset),
        (reason, last_segment): (String, u64),
    ) {
        let (id, home) = (asset.group(), self.directory.account_id(account));
        let blank = home.and_then(|_| self.blank_group(asset));
        let (Some(home), Some(mut group)) = (home, blank) else {
            return self.put_aside(now, id, (account, &asset.config.name), reason);
        };
        (group.account, group.last_segment) = (home, last_segment);
        group.damage = Some(reason.clone());
        self.add_group(now, hub, group);
        self.note_opened(now, id);
        self.seek_help(now, id);
    }
}
