//! What the API and monitoring show: infos of streams and consumers, totals of accounts and of the server.

use hw_jsapi::{API_LEVEL, AccountInfo, AccountLimits, ApiStats, stamp};
use hw_kit::{AccountId, GroupId, LogIndex, NodeId, Time};
use hw_stream::Lead;
use hw_stream::consumer::required_api_level;
use hw_stream::info::{ClusterInfo, ConsumerInfo, LeadInfo, StreamInfo};
use serde_json::Value;

use crate::group::Group;
use crate::jetstream::JetStream;

/// JetStream as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct JetStreamTotals {
    pub memory: u64,
    pub storage: u64,
    pub reserved_memory: u64,
    pub reserved_storage: u64,
    pub accounts: usize,
    pub streams: usize,
    pub consumers: usize,
    /// Of those, how many are led here; counted in clusters.
    pub streams_leader: usize,
    pub consumers_leader: usize,
    /// Replicas here that others have, too.
    pub ha_assets: usize,
    pub messages: u64,
    pub bytes: u64,
    pub api: ApiStats,
}

/// Whether the data is sound and can be written.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JetStreamHealth {
    /// Why nothing is written any more.
    pub failed: Option<String>,
    /// Damage of streams that exist, in the order in which it was found.
    pub damage: Vec<Damaged>,
    /// How many damaged places more there are than are listed.
    pub left_out: u64,
}

/// A place of a stream that is damaged.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Damaged {
    /// Its account.
    pub account: String,
    /// Its name.
    pub stream: String,
    /// What is wrong.
    pub reason: String,
    /// Whether nothing of the stream can be used.
    pub quarantined: bool,
}

impl Damaged {
    /// The file and the offset in it, where they are known.
    pub fn place(&self) -> Option<(&str, u64)> {
        hw_store::Damage::place_in(&self.reason)
    }
}

/// An account's part.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct AccountView {
    pub name: String,
    pub memory: u64,
    pub storage: u64,
    pub reserved_memory: u64,
    pub reserved_storage: u64,
    pub api: ApiStats,
    pub streams: Vec<StreamView>,
}

/// A stream for monitoring.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct StreamView {
    pub name: String,
    pub created: Time,
    /// Where it is, and who leads it.
    pub cluster: ClusterInfo,
    /// Whether this server leads it.
    pub is_leader: bool,
    pub config: Value,
    pub state: Value,
    pub consumers: Vec<Value>,
}

/// A replica of a stream.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReplicaView<'a> {
    /// Its group.
    pub group: GroupId,
    /// The stream's name.
    pub stream: &'a str,
    /// The entry that was applied last.
    pub applied: LogIndex,
    /// Two replicas that applied the same entries have the same.
    pub fingerprint: u64,
    /// Whether this server leads it.
    pub leads: bool,
    /// Whether its state is that of the entry: it is not being fetched.
    pub is_whole: bool,
    /// What of it is damaged.
    pub damage: Option<&'a str>,
}

/// JetStream, for reading.
pub struct JetStreamView<'a> {
    pub(crate) js: &'a JetStream,
}

impl<'a> JetStreamView<'a> {
    pub(crate) fn new(js: &'a JetStream) -> JetStreamView<'a> {
        JetStreamView { js }
    }

    /// What is here of replicated streams.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaView<'a>> + use<'a> {
        self.js.groups.values().filter_map(|group| {
            let replicated = group.log.replicated.as_deref()?;
            Some(ReplicaView {
                group: group.id,
                stream: &group.stream.config().name,
                applied: group.log.applied(),
                fingerprint: group.stream.digest().0,
                leads: replicated.is_leading(),
                is_whole: !replicated.hollow && replicated.installing.is_none(),
                damage: group.damage.as_deref(),
            })
        })
    }

    /// Whether this server was taken out of the cluster: what it has of streams is of the time before.
    pub fn is_outside(&self) -> bool {
        self.js.is_outside()
    }

    /// Streams that are lost, or stand still, without this server's disk.
    pub fn fragile(&self) -> Vec<String> {
        let is_fragile = |group: &&Group| {
            let members = group.log.replicated.as_deref().map(|replicated| replicated.replica.members());
            members.is_none_or(|members| members.voters.len() <= 2 || !members.outgoing.is_empty())
        };
        let groups = self.js.groups.values().filter(is_fragile);
        groups.map(|group| group.stream.config().name.clone()).collect()
    }

    /// Streams that are to be on a server, and on one other at most, as far as this one has heard: that server may not have
    /// heard of them yet.
    pub fn entrusted(&self, node: NodeId) -> Vec<String> {
        let is_few =
            |asset: &hw_meta::Asset| asset.servers().any(|it| it == node) && asset.servers().count() <= 2;
        let assets = self.js.meta.all().filter(|(_, asset)| is_few(asset));
        assets.map(|(_, asset)| asset.config.name.clone()).collect()
    }

    /// Which server of its cluster this is; 0 without one.
    pub fn node(&self) -> NodeId {
        self.js.cluster.as_ref().map_or(NodeId(0), |cluster| cluster.me)
    }

    /// Everything together.
    pub fn totals(&self) -> JetStreamTotals {
        let js = self.js;
        let mut totals = JetStreamTotals {
            reserved_memory: js.reserved(None, true).unsigned_abs(),
            reserved_storage: js.reserved(None, false).unsigned_abs(),
            accounts: js.directory.accounts().filter(|(_, account)| account.jetstream.is_some()).count(),
            api: js.api_stats(),
            ..JetStreamTotals::default()
        };
        for group in js.groups.values() {
            let messages = group.stream.messages();
            totals.streams += 1;
            totals.consumers += group.stream.consumers().len();
            if js.cluster.is_some() && group.log.is_leading() {
                totals.streams_leader += 1;
                totals.consumers_leader += group.stream.consumers().len();
            }
            totals.ha_assets += usize::from(group.log.replicated.is_some());
            totals.messages += messages.len();
            totals.bytes += messages.bytes();
            *(if group.is_volatile() { &mut totals.memory } else { &mut totals.storage }) += messages.bytes();
        }
        totals
    }

    /// Whether everything is sound.
    pub fn health(&self) -> JetStreamHealth {
        JetStreamHealth {
            failed: self.js.disk.failed.clone(),
            damage: self.js.findings.all().cloned().collect(),
            left_out: self.js.findings.left_out(),
        }
    }

    /// The names of a stream's consumers; None without the stream.
    pub fn consumers_of(&self, account: &str, stream: &str) -> Option<Vec<String>> {
        let group = self.js.groups.get(&self.js.meta.stream(account, stream)?.group())?;
        let names =
            group.stream.consumers().map(|consumer| String::from_utf8_lossy(consumer.name()).into_owned());
        Some(names.collect())
    }

    /// Accounts that have streams.
    pub fn accounts(&self, now: Time, with_consumers: bool) -> Vec<AccountView> {
        let js = self.js;
        let with_js = js.directory.accounts().filter(|(_, account)| account.jetstream.is_some());
        with_js.map(|(id, account)| js.account_view(now, id, &account.name, with_consumers)).collect()
    }
}

impl JetStream {
    fn account_view(&self, now: Time, id: AccountId, name: &str, with_consumers: bool) -> AccountView {
        let (memory, storage) = self.used(id);
        let streams = self.groups_of(id).map(|group| {
            let info = group.stream.info(now);
            let names =
                group.stream.consumers().filter(|_| with_consumers).map(|consumer| consumer.name().clone());
            let place = self.cluster.as_ref().and_then(|_| self.consumer_cluster(now, group.id));
            let infos = names
                .filter_map(|name| group.consumer_info(now, &name))
                .map(|info| ConsumerInfo { cluster: place.clone(), ..info });
            let json = |value: serde_json::Result<Value>| value.unwrap_or_default();
            StreamView {
                name: info.config.name.clone(),
                created: info.created,
                cluster: self.cluster_info(now, group.id).unwrap_or_default(),
                is_leader: group.log.is_leading(),
                config: json(serde_json::to_value(&info.config)),
                state: json(serde_json::to_value(&info.state)),
                consumers: infos.map(|info| json(serde_json::to_value(info))).collect(),
            }
        });
        AccountView {
            name: name.to_owned(),
            memory,
            storage,
            reserved_memory: self.reserved(Some(id), true).unsigned_abs(),
            reserved_storage: self.reserved(Some(id), false).unsigned_abs(),
            api: self.api_stats(),
            streams: streams.collect(),
        }
    }

    pub(crate) fn api_stats(&self) -> ApiStats {
        ApiStats { level: API_LEVEL, total: self.api_total, errors: self.api_errors }
    }

    /// An account's streams by name.
    pub(crate) fn groups_of(&self, account: AccountId) -> impl Iterator<Item = &Group> {
        let name = self.account_name(account);
        let ids: Vec<GroupId> = self.meta.streams(&name).map(hw_meta::Asset::group).collect();
        ids.into_iter().filter_map(|id| self.groups.get(&id))
    }

    /// The bytes in an account's streams: in memory, on disk.
    pub(crate) fn used(&self, account: AccountId) -> (u64, u64) {
        self.groups_of(account).fold((0, 0), |(memory, storage), group| {
            let bytes = group.stream.messages().bytes();
            if group.is_volatile() { (memory + bytes, storage) } else { (memory, storage + bytes) }
        })
    }

    /// What an account has and may have.
    pub(crate) fn account_info(&self, account: AccountId) -> Option<AccountInfo> {
        let limits = self.limits_of(account)?;
        let (memory, storage) = self.used(account);
        Some(AccountInfo {
            memory,
            storage,
            reserved_memory: self.reserved(Some(account), true).unsigned_abs(),
            reserved_storage: self.reserved(Some(account), false).unsigned_abs(),
            streams: self.groups_of(account).count(),
            consumers: self.groups_of(account).map(|group| group.stream.consumers().len()).sum(),
            limits: AccountLimits {
                max_memory: limits.max_memory,
                max_storage: limits.max_storage,
                max_streams: limits.max_streams,
                max_consumers: limits.max_consumers,
                max_ack_pending: limits.max_ack_pending,
                memory_max_stream_bytes: limits.memory_max_stream_bytes,
                storage_max_stream_bytes: limits.storage_max_stream_bytes,
                max_bytes_required: limits.max_bytes_required,
            },
            domain: self.config.domain.clone(),
            api: self.api_stats(),
        })
    }

    /// A stream as a response about it shows it.
    pub(crate) fn stream_view(&self, now: Time, id: GroupId) -> Option<StreamInfo> {
        let group = self.groups.get(&id)?;
        let mut info = group.stream.info(now);
        if let Some(wanted) = &group.wanted {
            info.config.clone_from(wanted);
        }
        self.show_feeds(now, group, &mut info);
        info.domain.clone_from(&self.config.domain);
        stamp(&mut info.config.metadata, &self.config.version);
        if self.cluster.is_some() {
            info.cluster = self.cluster_info(now, id);
        }
        Some(info)
    }

    /// A stream as lists show it.
    pub(crate) fn listed(&self, now: Time, group: &Group) -> StreamInfo {
        let mut info = group.stream.info(now);
        self.show_feeds(now, group, &mut info);
        info.domain.clone_from(&self.config.domain);
        if self.cluster.is_some() {
            info.cluster = self.cluster_info(now, group.id);
        }
        info
    }

    /// A consumer as a response about it shows it.
    pub(crate) fn consumer_view(&self, now: Time, id: GroupId, name: &[u8]) -> Option<ConsumerInfo> {
        let mut info = self.groups.get(&id)?.consumer_info(now, name)?;
        stamp(&mut info.config.metadata, &self.config.version);
        if self.cluster.is_some() {
            info.cluster = self.consumer_cluster(now, id);
        }
        Some(info)
    }
}

impl Group {
    /// A consumer as lists show it.
    pub(crate) fn consumer_info(&self, now: Time, name: &[u8]) -> Option<ConsumerInfo> {
        let consumer = self.stream.consumer(name)?;
        let lead = self.leads.get(name).map_or_else(LeadInfo::default, Lead::info);
        let mut info = consumer.info(&self.stream, lead, now);
        let level = required_api_level(consumer.config()).to_string();
        info.config.metadata.insert("_nats.req.level".to_owned(), level);
        Some(info)
    }
}
