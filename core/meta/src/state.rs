//! The set of streams and the rules between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hw_kit::{GroupId, NodeId, Time};
use hw_stream::StreamConfig;
use hw_stream::config::{Placement, Storage};
use serde::{Deserialize, Serialize};

use crate::MetaCommand;
use crate::taken::Taken;

/// A stream as the meta group knows it.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Asset {
    /// Its group, whose log and files are its own. Never reused.
    pub group: u64,
    /// When it was created, nanoseconds.
    pub created: i64,
    /// Raised by every update: the stream applies each configuration once.
    pub revision: u64,
    /// What the user set.
    pub config: Arc<StreamConfig>,
    /// What it was created with, if that has changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Arc<StreamConfig>>,
    /// The servers that are to have it; none on a server on its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<u64>,
    /// Those that had it first, and agree on that without asking each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub founders: Vec<u64>,
    /// Those of them that left since: what they had is gone, and they do not begin it anew if they come back. Nobody has left
    /// before the stream is where it is to be: until then they keep what they have, or have yet to begin it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub left: BTreeSet<u64>,
    /// Where it was before its servers changed, while it is not yet where it is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Box<Origin>>,
}

/// Where a stream was before a change of its servers.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Origin {
    /// When the change began, nanoseconds.
    pub since: i64,
    /// Its servers then.
    pub peers: Vec<u64>,
    /// How many it was to have.
    pub replicas: i64,
    /// Which ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

impl Asset {
    /// Its group.
    pub fn group(&self) -> GroupId {
        GroupId(self.group)
    }

    /// When it was created.
    pub fn created(&self) -> Time {
        Time(self.created)
    }

    /// Whether it began on this server alone, without a replicated log.
    pub fn is_alone(&self, node: NodeId) -> bool {
        self.founders.is_empty() || self.founders == [node.0] && self.is_founder(node)
    }

    /// Whether a server that has nothing of it begins it, with those that had it first.
    pub fn is_founder(&self, node: NodeId) -> bool {
        self.founders.contains(&node.0) && !self.left.contains(&node.0)
    }

    /// What a server begins it with: who has nothing of it but its whole log begins with what was set when that began, as
    /// this is what its entries were decided with. The log says when it changed. So does who has left: what it may still have of
    /// the log is followed from there, until that has gone or a state was fetched.
    pub fn beginning(&self, node: NodeId) -> &Arc<StreamConfig> {
        let begins = self.founders.is_empty() || self.founders.contains(&node.0);
        // One that was in memory alone had no log then.
        let logs = |first: &&Arc<StreamConfig>| first.storage == Storage::File || first.num_replicas > 1;
        self.first.as_ref().filter(logs).filter(|_| begins).unwrap_or(&self.config)
    }

    /// The servers that are to have it.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.peers.iter().map(|&node| NodeId(node))
    }

    /// The servers that have it or are to have it: those that it leaves keep it until it is where it is to be.
    pub fn servers(&self) -> impl Iterator<Item = NodeId> + '_ {
        let before = self.origin.iter().flat_map(|origin| &origin.peers);
        self.peers().chain(before.filter(|peer| !self.peers.contains(peer)).map(|&node| NodeId(node)))
    }

    /// Whether a server is the only one that is sure to have it.
    pub fn is_only_on(&self, node: NodeId) -> bool {
        let before = self.origin.as_ref().is_some_and(|origin| origin.peers == [node.0]);
        before || self.peers == [node.0]
    }

    /// Whether others have it too, or still have it: those that it leaves may yet be those that decide.
    pub fn has_others(&self, node: NodeId) -> bool {
        self.servers().any(|other| other != node)
    }

    /// Whether it goes to as many other servers, rather than to more or fewer.
    pub fn is_moving(&self) -> bool {
        self.origin.as_ref().is_some_and(|origin| origin.peers.len() == self.peers.len())
    }

    /// It is to have these servers from now on.
    fn go_to(&mut self, ts: i64, before: &StreamConfig, peers: Vec<u64>) {
        let is_elsewhere = sorted(&self.peers) != sorted(&peers);
        if is_elsewhere && self.origin.is_none() {
            self.origin = Some(Box::new(Origin {
                since: ts,
                peers: self.peers.clone(),
                replicas: before.num_replicas,
                placement: before.placement.clone(),
            }));
        }
        if self.founders.is_empty() {
            // It was there before there was a cluster: nobody else began it.
            self.founders = if self.peers.is_empty() { vec![NOBODY] } else { self.peers.clone() };
        }
        let before = std::mem::replace(&mut self.peers, peers);
        self.note_left(before);
    }

    /// A server has the place of one whose store is lost.
    fn replace(&mut self, old: u64, new: u64) {
        let swap = |peers: &mut Vec<u64>| {
            if !peers.contains(&new) {
                peers.iter_mut().filter(|peer| **peer == old).for_each(|peer| *peer = new);
            }
        };
        // What only the lost store had is lost, which nobody is to overlook.
        if self.has_others(NodeId(old)) {
            swap(&mut self.peers);
        }
        // Nobody can go back to what is lost.
        if let Some(origin) = &mut self.origin {
            swap(&mut origin.peers);
        }
        self.note_left(vec![old]);
    }

    /// It is where it is to be.
    fn arrive(&mut self) {
        let before = self.origin.take().map(|origin| origin.peers);
        self.note_left(before.unwrap_or_default());
    }

    /// Who had it may have lost its place.
    fn note_left(&mut self, before: Vec<u64>) {
        let is_here = |peer: &u64| self.servers().any(|node| node.0 == *peer);
        let leave = before.into_iter().filter(|peer| self.founders.contains(peer) && !is_here(peer));
        let leave: Vec<u64> = leave.collect();
        self.left.extend(leave);
    }
}

/// A server of the cluster.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its tags, in lower case.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// No server's number.
const NOBODY: u64 = 0;

/// All streams of all accounts. Accounts are known by name: their numbers belong to one run of the server.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Meta {
    accounts: BTreeMap<String, BTreeMap<String, Asset>>,
    tombstones: BTreeSet<u64>,
    /// The servers that may still have files of deleted streams; of those without any, nobody else than the one server has.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    holders: BTreeMap<u64, BTreeSet<u64>>,
    last_group: u64,
    /// Streams that are being restored, by group.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    restoring: BTreeMap<u64, Restoring>,
    /// The cluster's servers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    nodes: BTreeMap<u64, Node>,
    /// Servers that an operator took out: with the store that they had they stay outside.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    removed: BTreeSet<u64>,
    /// The subjects of both kinds, by account: follows from the above.
    #[serde(skip)]
    taken: BTreeMap<String, Taken>,
}

/// A stream that is being restored from a backup.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct Restoring {
    account: String,
    asset: Asset,
}

/// What an applied create did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Created {
    /// The stream is new.
    New,
    /// It was there with the same configuration.
    Same,
}

/// The answer to one applied command.
#[derive(Clone, Debug, PartialEq)]
pub enum MetaAnswer {
    /// The stream exists.
    Created(Result<(GroupId, Created), MetaError>),
    /// The stream has a new configuration.
    Updated(Result<GroupId, MetaError>),
    /// The stream is gone; its group's files may be removed.
    Deleted(Result<GroupId, MetaError>),
    /// The stream is being restored.
    RestoreBegun(Result<GroupId, MetaError>),
    /// The restored stream exists now.
    Restored(Result<GroupId, MetaError>),
    /// The restore is over, and its group's files may be removed.
    Abandoned(Result<GroupId, MetaError>),
    /// A server came that was not known: streams that have too few may go there.
    Joined(NodeId),
    /// Streams are to be on other servers.
    Moved,
    /// A stream is where it is to be: nobody else needs to have it.
    Placed(GroupId),
    /// Nobody waits.
    Done,
}

/// Why the set of streams stays as it is.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum MetaError {
    /// Another configuration has the name.
    #[error("stream name already in use with a different configuration")]
    NameInUse,
    /// A stream has the name that a backup is to be restored as.
    #[error("stream name already in use, cannot restore")]
    Exists,
    /// No such stream.
    #[error("stream not found")]
    NotFound,
    /// Another stream of the account takes some of these subjects.
    #[error("subjects overlap with an existing stream")]
    SubjectsOverlap,
    /// The account has as many streams as it may.
    #[error("maximum number of streams reached")]
    TooMany,
}

impl Meta {
    /// Applies a command: total and deterministic.
    pub fn apply(&mut self, command: MetaCommand) -> MetaAnswer {
        match command {
            MetaCommand::Create { ts, account, config, max_streams, peers } => {
                MetaAnswer::Created(self.create(Time(ts), account, config.into(), (max_streams, peers)))
            }
            MetaCommand::Update { ts, account, config, peers } => {
                MetaAnswer::Updated(self.update(ts, &account, config.into(), peers))
            }
            MetaCommand::Placed { group, peers } => {
                let mut assets = self.accounts.values_mut().flat_map(BTreeMap::values_mut);
                let there =
                    assets.find(|asset| asset.group == group && sorted(&asset.peers) == sorted(&peers));
                there.map_or(MetaAnswer::Done, |asset| {
                    asset.arrive();
                    MetaAnswer::Placed(asset.group())
                })
            }
            MetaCommand::Join { node, name, tags } => match self.nodes.insert(node, Node { name, tags }) {
                None => MetaAnswer::Joined(NodeId(node)),
                Some(_) => MetaAnswer::Done,
            },
            MetaCommand::Leave { node } => {
                self.nodes.remove(&node);
                self.release_holder(node, None);
                self.removed.insert(node);
                MetaAnswer::Done
            }
            MetaCommand::Replace { old, new } => {
                self.nodes.remove(&old);
                self.release_holder(old, None);
                for asset in self.accounts.values_mut().flat_map(BTreeMap::values_mut) {
                    asset.replace(old, new);
                }
                MetaAnswer::Moved
            }
            MetaCommand::Settle { node } => {
                for asset in self.accounts.values_mut().flat_map(BTreeMap::values_mut) {
                    if asset.peers.is_empty() {
                        asset.peers = vec![node];
                    }
                }
                MetaAnswer::Done
            }
            MetaCommand::Asked { command, .. } => self.apply(*command),
            MetaCommand::Delete { account, name, .. } => MetaAnswer::Deleted(self.delete(&account, &name)),
            MetaCommand::BeginRestore { ts, account, config, max_streams } => {
                MetaAnswer::RestoreBegun(self.begin_restore(Time(ts), account, config.into(), max_streams))
            }
            MetaCommand::EndRestore { group, node, peers } => {
                MetaAnswer::Restored(self.end_restore(group, node, peers))
            }
            MetaCommand::AbandonRestore { group } => MetaAnswer::Abandoned(self.abandon_restore(group)),
            MetaCommand::Dropped { group, node: 0 } => {
                self.tombstones.remove(&group);
                MetaAnswer::Done
            }
            MetaCommand::Dropped { group, node } => {
                self.release_holder(node, Some(group));
                MetaAnswer::Done
            }
        }
    }

    /// One stream.
    pub fn stream(&self, account: &str, name: &str) -> Option<&Asset> {
        self.accounts.get(account)?.get(name)
    }

    /// An account's streams by name.
    pub fn streams(&self, account: &str) -> impl Iterator<Item = &Asset> {
        self.accounts.get(account).into_iter().flat_map(BTreeMap::values)
    }

    /// Every stream with its account.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Asset)> {
        self.accounts
            .iter()
            .flat_map(|(name, streams)| streams.values().map(move |asset| (name.as_str(), asset)))
    }

    /// Streams that are being restored, each with its account.
    pub fn restoring(&self) -> impl Iterator<Item = (&str, &Asset)> {
        self.restoring.values().map(|restoring| (restoring.account.as_str(), &restoring.asset))
    }

    /// The cluster's servers.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &Node)> {
        self.nodes.iter().map(|(&node, about)| (NodeId(node), about))
    }

    /// Whether an operator took a server out.
    pub fn is_removed(&self, node: NodeId) -> bool {
        self.removed.contains(&node.0)
    }

    /// The highest group number that was ever given.
    pub fn last_group(&self) -> GroupId {
        GroupId(self.last_group)
    }

    /// Groups that were deleted and whose files may still be there.
    pub fn tombstones(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.tombstones.iter().map(|&group| GroupId(group))
    }

    /// Forgets streams that did not survive the restart: those in memory.
    pub fn forget(&mut self, mut gone: impl FnMut(&Asset) -> bool) {
        for (account, streams) in &mut self.accounts {
            streams.retain(|_, asset| {
                let stays = !gone(asset);
                if !stays && let Some(taken) = self.taken.get_mut(account) {
                    taken.remove(asset.group, &asset.config.subjects);
                }
                stays
            });
        }
    }

    /// The checkpoint's bytes.
    pub fn snapshot(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self).expect("plain data with text keys always encodes");
    }

    /// Reads a checkpoint's bytes.
    pub fn restore(bytes: &[u8]) -> Result<Meta, serde_json::Error> {
        let mut meta: Meta = serde_json::from_slice(bytes)?;
        let mut taken = BTreeMap::<String, Taken>::new();
        for (account, asset) in meta.all().chain(meta.restoring()) {
            taken.entry(account.to_owned()).or_default().insert(asset.group, &asset.config.subjects);
        }
        meta.taken = taken;
        Ok(meta)
    }

    fn create(
        &mut self,
        ts: Time,
        account: String,
        config: Arc<StreamConfig>,
        (max_streams, peers): (i64, Vec<u64>),
    ) -> Result<(GroupId, Created), MetaError> {
        if let Some(asset) = self.stream(&account, &config.name) {
            let same = asset.config == config;
            return if same { Ok((asset.group(), Created::Same)) } else { Err(MetaError::NameInUse) };
        }
        let mut asset = self.new_asset(ts, &account, config, max_streams)?;
        (asset.peers, asset.founders) = (peers.clone(), peers);
        let group = asset.group();
        self.accounts.entry(account).or_default().insert(asset.config.name.clone(), asset);
        Ok((group, Created::New))
    }

    /// A stream whose name nobody has, with a group of its own.
    fn new_asset(
        &mut self,
        ts: Time,
        account: &str,
        config: Arc<StreamConfig>,
        max_streams: i64,
    ) -> Result<Asset, MetaError> {
        if self.restoring_in(account).any(|other| other.config.name == config.name) {
            return Err(MetaError::NameInUse);
        }
        if self.taken.get(account).is_some_and(|taken| taken.overlap(None, &config.subjects)) {
            return Err(MetaError::SubjectsOverlap);
        }
        let count = self.accounts.get(account).map_or(0, BTreeMap::len) + self.restoring_in(account).count();
        if max_streams >= 0 && count as i64 >= max_streams {
            return Err(MetaError::TooMany);
        }
        self.last_group += 1;
        self.taken.entry(account.to_owned()).or_default().insert(self.last_group, &config.subjects);
        let (group, created) = (self.last_group, ts.0);
        Ok(Asset {
            group,
            created,
            revision: 1,
            config,
            first: None,
            peers: Vec::new(),
            founders: Vec::new(),
            left: BTreeSet::new(),
            origin: None,
        })
    }

    fn begin_restore(
        &mut self,
        ts: Time,
        account: String,
        config: Arc<StreamConfig>,
        max_streams: i64,
    ) -> Result<GroupId, MetaError> {
        let taken = self.stream(&account, &config.name).is_some();
        if taken || self.restoring_in(&account).any(|other| other.config.name == config.name) {
            return Err(MetaError::Exists);
        }
        let asset = self.new_asset(ts, &account, config, max_streams)?;
        let group = asset.group();
        self.restoring.insert(group.0, Restoring { account, asset });
        Ok(group)
    }

    fn end_restore(&mut self, group: u64, node: u64, peers: Vec<u64>) -> Result<GroupId, MetaError> {
        let Restoring { account, mut asset } = self.restoring.remove(&group).ok_or(MetaError::NotFound)?;
        if node != 0 {
            (asset.founders, asset.peers) = (vec![node], peers);
        }
        self.accounts.entry(account).or_default().insert(asset.config.name.clone(), asset);
        Ok(GroupId(group))
    }

    fn abandon_restore(&mut self, group: u64) -> Result<GroupId, MetaError> {
        let Restoring { account, asset } = self.restoring.remove(&group).ok_or(MetaError::NotFound)?;
        self.release(&account, &asset);
        self.tombstones.insert(group);
        Ok(GroupId(group))
    }

    fn restoring_in(&self, account: &str) -> impl Iterator<Item = &Asset> {
        self.restoring().filter(move |(of, _)| *of == account).map(|(_, asset)| asset)
    }

    fn update(
        &mut self,
        ts: i64,
        account: &str,
        config: Arc<StreamConfig>,
        peers: Vec<u64>,
    ) -> Result<GroupId, MetaError> {
        let group = self.stream(account, &config.name).ok_or(MetaError::NotFound)?.group;
        let taken = self.taken.entry(account.to_owned()).or_default();
        if taken.overlap(Some(group), &config.subjects) {
            return Err(MetaError::SubjectsOverlap);
        }
        let streams = self.accounts.get_mut(account).ok_or(MetaError::NotFound)?;
        let asset = streams.get_mut(&config.name).ok_or(MetaError::NotFound)?;
        let before = asset.config.clone();
        if asset.config != config {
            taken.remove(group, &asset.config.subjects);
            taken.insert(group, &config.subjects);
            asset.revision += 1;
            asset.first.get_or_insert_with(|| before.clone());
            asset.config = config;
        }
        if !peers.is_empty() && asset.peers != peers {
            asset.go_to(ts, &before, peers);
        }
        Ok(asset.group())
    }

    fn delete(&mut self, account: &str, name: &str) -> Result<GroupId, MetaError> {
        let streams = self.accounts.get_mut(account).ok_or(MetaError::NotFound)?;
        let asset = streams.remove(name).ok_or(MetaError::NotFound)?;
        self.release(account, &asset);
        self.tombstones.insert(asset.group);
        let holders: BTreeSet<u64> = asset.servers().map(|node| node.0).collect();
        if !holders.is_empty() {
            self.holders.insert(asset.group, holders);
        }
        Ok(asset.group())
    }

    /// A server has no files of a deleted stream any more, or of none. When nobody has, nothing needs to know of it.
    fn release_holder(&mut self, node: u64, group: Option<u64>) {
        let tombstones = &mut self.tombstones;
        self.holders.retain(|of, nodes| {
            if group.is_none_or(|group| group == *of) {
                nodes.remove(&node);
            }
            if nodes.is_empty() {
                tombstones.remove(of);
            }
            !nodes.is_empty()
        });
    }

    /// Deleted streams of which a server may still have files.
    pub fn held_by(&self, node: NodeId) -> impl Iterator<Item = GroupId> + '_ {
        let held = self.holders.iter().filter(move |(_, nodes)| nodes.contains(&node.0));
        held.map(|(group, _)| GroupId(*group))
    }

    /// Others may take a stream's subjects.
    fn release(&mut self, account: &str, asset: &Asset) {
        if let Some(taken) = self.taken.get_mut(account) {
            taken.remove(asset.group, &asset.config.subjects);
        }
    }
}

fn sorted(nodes: &[u64]) -> Vec<u64> {
    let mut nodes = nodes.to_vec();
    nodes.sort_unstable();
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(meta: &mut Meta, name: &str, subjects: &[&str]) -> MetaAnswer {
        let subjects = subjects.iter().map(|s| (*s).to_owned()).collect();
        let config = Box::new(StreamConfig { name: name.into(), subjects, ..StreamConfig::default() });
        let account = "$G".into();
        meta.apply(MetaCommand::Create { ts: 1, account, config, max_streams: 2, peers: Vec::new() })
    }

    #[test]
    fn names_subjects_and_limits() {
        let mut meta = Meta::default();
        assert_eq!(create(&mut meta, "A", &["a.>"]), MetaAnswer::Created(Ok((GroupId(1), Created::New))));
        assert_eq!(create(&mut meta, "A", &["a.>"]), MetaAnswer::Created(Ok((GroupId(1), Created::Same))));
        assert_eq!(create(&mut meta, "A", &["a.*"]), MetaAnswer::Created(Err(MetaError::NameInUse)));
        assert_eq!(create(&mut meta, "B", &["*.b"]), MetaAnswer::Created(Err(MetaError::SubjectsOverlap)));
        assert_eq!(create(&mut meta, "B", &["b.>"]), MetaAnswer::Created(Ok((GroupId(2), Created::New))));
        assert_eq!(create(&mut meta, "C", &["c.>"]), MetaAnswer::Created(Err(MetaError::TooMany)));
        let delete = MetaCommand::Delete { ts: 2, account: "$G".into(), name: "A".into() };
        assert_eq!(meta.apply(delete.clone()), MetaAnswer::Deleted(Ok(GroupId(1))));
        assert_eq!(meta.apply(delete), MetaAnswer::Deleted(Err(MetaError::NotFound)));
        assert_eq!(meta.tombstones().collect::<Vec<_>>(), [GroupId(1)]);
        assert_eq!(create(&mut meta, "A", &["a.>"]), MetaAnswer::Created(Ok((GroupId(3), Created::New))));
        let mut bytes = Vec::new();
        meta.snapshot(&mut bytes);
        assert_eq!(Meta::restore(&bytes).expect("its own bytes"), meta);
    }

    #[test]
    fn a_tombstone_stays_until_all_servers_have_dropped_the_stream() {
        let mut meta = Meta::default();
        let delete = |meta: &mut Meta, name: &str| {
            let config = Box::new(StreamConfig { name: name.into(), ..StreamConfig::default() });
            let (account, peers) = ("$G".to_owned(), vec![1, 2, 3]);
            meta.apply(MetaCommand::Create {
                ts: 1,
                account: account.clone(),
                config,
                max_streams: -1,
                peers,
            });
            meta.apply(MetaCommand::Delete { ts: 2, account, name: name.into() })
        };
        assert_eq!(delete(&mut meta, "A"), MetaAnswer::Deleted(Ok(GroupId(1))));
        assert_eq!(delete(&mut meta, "B"), MetaAnswer::Deleted(Ok(GroupId(2))));
        for node in [1, 2, 2] {
            meta.apply(MetaCommand::Dropped { group: 1, node });
        }
        assert_eq!(meta.tombstones().collect::<Vec<_>>(), [GroupId(1), GroupId(2)]);
        assert_eq!(meta.held_by(NodeId(3)).collect::<Vec<_>>(), [GroupId(1), GroupId(2)]);
        let mut bytes = Vec::new();
        meta.snapshot(&mut bytes);
        let mut meta = Meta::restore(&bytes).expect("its own bytes");
        assert_eq!(meta.held_by(NodeId(3)).count(), 2);
        // A server that is gone for good has nothing to say any more.
        meta.apply(MetaCommand::Leave { node: 3 });
        assert_eq!(meta.tombstones().collect::<Vec<_>>(), [GroupId(2)]);
        meta.apply(MetaCommand::Replace { old: 1, new: 4 });
        meta.apply(MetaCommand::Dropped { group: 2, node: 2 });
        assert_eq!(meta.tombstones().count(), 0);
    }

    #[test]
    fn a_stream_that_moves_knows_where_it_was_until_it_is_there() {
        let mut meta = Meta::default();
        let config = |replicas: i64| StreamConfig { num_replicas: replicas, ..StreamConfig::default() };
        let create = |meta: &mut Meta, peers: Vec<u64>| {
            let (account, config) = ("A".to_owned(), Box::new(config(peers.len() as i64)));
            meta.apply(MetaCommand::Create { ts: 1, account, config, max_streams: -1, peers });
        };
        let go = |meta: &mut Meta, peers: &[u64]| {
            let (account, config) = ("A".to_owned(), Box::new(config(peers.len() as i64)));
            meta.apply(MetaCommand::Update { ts: 7, account, config, peers: peers.to_vec() });
        };
        let placed = |meta: &mut Meta, peers: &[u64]| {
            meta.apply(MetaCommand::Placed { group: 1, peers: peers.to_vec() });
        };
        let origin = |meta: &Meta| meta.stream("A", "").and_then(|asset| asset.origin.clone());
        create(&mut meta, vec![1]);
        assert!(meta.stream("A", "").is_some_and(|asset| asset.is_only_on(NodeId(1))));
        go(&mut meta, &[1, 2, 3]);
        let one = Origin { since: 7, peers: vec![1], replicas: 1, placement: None };
        assert_eq!(origin(&meta).as_deref(), Some(&one));
        let asset = meta.stream("A", "").unwrap();
        assert!(asset.is_only_on(NodeId(1)) && !asset.is_moving());
        go(&mut meta, &[1, 2]);
        assert_eq!(origin(&meta).as_deref(), Some(&one), "where it was first counts");
        let mut bytes = Vec::new();
        meta.snapshot(&mut bytes);
        assert_eq!(Meta::restore(&bytes).expect("its own bytes"), meta);
        placed(&mut meta, &[1, 2, 3]);
        assert_eq!(origin(&meta).as_deref(), Some(&one), "that was said of another place");
        placed(&mut meta, &[2, 1]);
        assert_eq!(origin(&meta), None);
        go(&mut meta, &[2, 1]);
        assert_eq!(origin(&meta), None, "another order is no other place");
        go(&mut meta, &[2, 3]);
        assert!(meta.stream("A", "").is_some_and(Asset::is_moving));
        meta.apply(MetaCommand::Replace { old: 1, new: 4 });
        assert_eq!(origin(&meta).map(|origin| origin.peers), Some(vec![2, 4]));
        // It began on 1, which left it: nobody begins it anew.
        go(&mut meta, &[1, 2]);
        let asset = meta.stream("A", "").unwrap();
        assert!(!asset.is_founder(NodeId(1)) && !asset.is_founder(NodeId(2)) && !asset.is_alone(NodeId(1)));
    }

    #[test]
    fn a_lost_store_is_replaced_where_others_have_what_it_had() {
        let mut meta = Meta::default();
        let config = |name: &str| Box::new(StreamConfig { name: name.to_owned(), ..StreamConfig::default() });
        for (name, peers) in [("ALONE", vec![1]), ("LEAVES", vec![1, 2, 3])] {
            let (account, config) = ("A".to_owned(), config(name));
            meta.apply(MetaCommand::Create { ts: 1, account, config, max_streams: -1, peers });
        }
        let (account, config) = ("A".to_owned(), config("LEAVES"));
        meta.apply(MetaCommand::Update { ts: 2, account, config, peers: vec![1] });
        let others = |meta: &Meta, name: &str| meta.stream("A", name).unwrap().has_others(NodeId(1));
        assert!(!others(&meta, "ALONE") && others(&meta, "LEAVES"));
        meta.apply(MetaCommand::Replace { old: 1, new: 4 });
        let peers = |meta: &Meta, name: &str| meta.stream("A", name).unwrap().peers.clone();
        assert_eq!(peers(&meta, "ALONE"), [1], "what is lost stays so");
        assert_eq!(peers(&meta, "LEAVES"), [4]);
    }

    #[test]
    fn who_is_to_leave_a_stream_has_it_until_it_has_moved() {
        let go = |meta: &mut Meta, peers: &[u64]| {
            let (account, config) = ("A".to_owned(), Box::new(StreamConfig::default()));
            meta.apply(MetaCommand::Update { ts: 7, account, config, peers: peers.to_vec() });
        };
        let there = |meta: &Meta, node: u64| {
            let asset = meta.stream("A", "").expect("it is there");
            (asset.servers().any(|server| server.0 == node), asset.is_alone(NodeId(node)))
        };
        let mut meta = Meta::default();
        let (account, config) = ("A".to_owned(), Box::new(StreamConfig::default()));
        meta.apply(MetaCommand::Create { ts: 1, account, config, max_streams: -1, peers: vec![1] });
        go(&mut meta, &[2]);
        assert_eq!([1, 2, 3].map(|node| there(&meta, node)), [(true, true), (true, false), (false, false)]);
        // It goes elsewhere before that.
        go(&mut meta, &[3]);
        assert_eq!([1, 2, 3].map(|node| there(&meta, node)), [(true, true), (false, false), (true, false)]);
        // It stays: who has yet to begin it still can, when that is known as well.
        go(&mut meta, &[1]);
        assert_eq!(
            meta.apply(MetaCommand::Placed { group: 1, peers: vec![1] }),
            MetaAnswer::Placed(GroupId(1))
        );
        assert_eq!(there(&meta, 1), (true, true));
        go(&mut meta, &[2]);
        let deleted = |meta: &Meta| {
            let mut meta = meta.clone();
            meta.apply(MetaCommand::Delete { ts: 8, account: "A".to_owned(), name: String::new() });
            [1, 2].map(|node| meta.held_by(NodeId(node)).count())
        };
        assert_eq!(deleted(&meta), [1, 1]);
        assert_eq!(
            meta.apply(MetaCommand::Placed { group: 1, peers: vec![2] }),
            MetaAnswer::Placed(GroupId(1))
        );
        assert_eq!([1, 2].map(|node| there(&meta, node)), [(false, false), (true, false)]);
        assert_eq!(deleted(&meta), [0, 1]);
        // What it had is gone, even if it is to have it again.
        go(&mut meta, &[1]);
        assert_eq!(there(&meta, 1), (true, false));
    }

    #[test]
    fn who_begins_a_stream_anew_begins_with_its_first_configuration() {
        let mut meta = Meta::default();
        let config = |storage: Storage, replicas: i64, max_msgs: i64| {
            Box::new(StreamConfig { storage, num_replicas: replicas, max_msgs, ..StreamConfig::default() })
        };
        let account = || "A".to_owned();
        let first = config(Storage::File, 2, -1);
        let create = |first: &StreamConfig| MetaCommand::Create {
            ts: 1,
            account: account(),
            config: Box::new(first.clone()),
            max_streams: -1,
            peers: vec![1, 2],
        };
        let update = |config, peers| MetaCommand::Update { ts: 2, account: account(), config, peers };
        meta.apply(create(&first));
        let begins_with = |meta: &Meta, node: u64| {
            let asset = meta.stream("A", "").expect("it is there");
            (asset.beginning(NodeId(node)).num_replicas, asset.beginning(NodeId(node)).max_msgs)
        };
        assert_eq!(begins_with(&meta, 1), (2, -1));
        meta.apply(update(config(Storage::File, 2, 5), vec![]));
        meta.apply(update(config(Storage::File, 3, 7), vec![1, 2, 3]));
        let mut bytes = Vec::new();
        meta.snapshot(&mut bytes);
        let meta = Meta::restore(&bytes).expect("its own bytes");
        // The third one came later, and fetches a state.
        assert_eq!([1, 2, 3].map(|node| begins_with(&meta, node)), [(2, -1), (2, -1), (3, 7)]);
        // Who had the log from its beginning may have it still.
        let mut meta = meta;
        meta.apply(update(config(Storage::File, 1, 8), vec![2]));
        meta.apply(MetaCommand::Placed { group: 1, peers: vec![2] });
        assert!(!meta.stream("A", "").expect("it is there").is_founder(NodeId(1)));
        assert_eq!([1, 2, 3].map(|node| begins_with(&meta, node)), [(2, -1), (2, -1), (1, 8)]);
        // What was in memory alone has no log from before.
        let mut meta = Meta::default();
        meta.apply(create(&config(Storage::Memory, 1, -1)));
        meta.apply(update(config(Storage::Memory, 3, 7), vec![1, 2, 3]));
        assert_eq!(begins_with(&meta, 1), (3, 7));
    }

    #[test]
    fn a_restore_is_seen_when_it_has_ended() {
        let mut meta = Meta::default();
        let begin = |meta: &mut Meta, name: &str, subject: &str| {
            let subjects = vec![subject.to_owned()];
            let config = Box::new(StreamConfig { name: name.into(), subjects, ..StreamConfig::default() });
            let (account, max_streams) = ("$G".into(), 2);
            meta.apply(MetaCommand::BeginRestore { ts: 1, account, config, max_streams })
        };
        assert_eq!(begin(&mut meta, "A", "a.>"), MetaAnswer::RestoreBegun(Ok(GroupId(1))));
        assert_eq!(begin(&mut meta, "A", "a.>"), MetaAnswer::RestoreBegun(Err(MetaError::Exists)));
        assert_eq!(create(&mut meta, "A", &["a.>"]), MetaAnswer::Created(Err(MetaError::NameInUse)));
        assert_eq!(create(&mut meta, "B", &["a.b"]), MetaAnswer::Created(Err(MetaError::SubjectsOverlap)));
        assert_eq!(create(&mut meta, "B", &["b"]), MetaAnswer::Created(Ok((GroupId(2), Created::New))));
        assert_eq!(begin(&mut meta, "C", "c"), MetaAnswer::RestoreBegun(Err(MetaError::TooMany)));
        assert_eq!(begin(&mut meta, "B", "b"), MetaAnswer::RestoreBegun(Err(MetaError::Exists)));
        assert_eq!((meta.stream("$G", "A"), meta.restoring().count()), (None, 1));
        let mut bytes = Vec::new();
        meta.snapshot(&mut bytes);
        assert_eq!(Meta::restore(&bytes).expect("its own bytes"), meta);
        let mut other = meta.clone();
        let end = MetaCommand::EndRestore { group: 1, node: 0, peers: Vec::new() };
        assert_eq!(meta.apply(end.clone()), MetaAnswer::Restored(Ok(GroupId(1))));
        assert_eq!(meta.apply(end), MetaAnswer::Restored(Err(MetaError::NotFound)));
        assert_eq!(
            (meta.stream("$G", "A").map(Asset::group), meta.restoring().count()),
            (Some(GroupId(1)), 0)
        );
        let abandon = MetaCommand::AbandonRestore { group: 1 };
        assert_eq!(meta.apply(abandon.clone()), MetaAnswer::Abandoned(Err(MetaError::NotFound)));
        assert_eq!(other.apply(abandon), MetaAnswer::Abandoned(Ok(GroupId(1))));
        assert_eq!((other.stream("$G", "A"), other.restoring().count()), (None, 0));
        assert_eq!(other.tombstones().collect::<Vec<_>>(), [GroupId(1)]);
    }
}
