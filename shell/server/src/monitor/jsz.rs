//! `/jsz`: JetStream, its accounts, streams and consumers.

use std::collections::BTreeMap;

use hw_jsapi::ApiStats;
use hw_node::{AccountView, ClusterInfo, JetStreamTotals, PeerInfo, StreamView};
use serde::Serialize;
use serde_json::Value;

use crate::inner::Inner;
use crate::monitor::{is_set, number};

#[derive(Serialize)]
pub(crate) struct Jsz {
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled: Option<bool>,
    #[serde(flatten)]
    stats: Stats,
    server_id: String,
    now: String,
    config: Config,
    limits: Limits,
    streams: usize,
    #[serde(skip_serializing_if = "is_none")]
    streams_leader: usize,
    consumers: usize,
    #[serde(skip_serializing_if = "is_none")]
    consumers_leader: usize,
    messages: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta_cluster: Option<MetaCluster>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_details: Option<Vec<Account>>,
    total: usize,
}

/// What `/varz` shows of JetStream.
#[derive(Default, Serialize)]
pub(crate) struct Summary {
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Config>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<Stats>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<MetaCluster>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Limits>,
}

#[derive(Clone, Default, Serialize)]
struct Stats {
    memory: u64,
    storage: u64,
    reserved_memory: u64,
    reserved_storage: u64,
    accounts: usize,
    ha_assets: usize,
    api: ApiStats,
}

#[derive(Clone, Default, Serialize)]
struct Config {
    max_memory: i64,
    max_storage: i64,
    #[serde(skip_serializing_if = "String::is_empty")]
    store_dir: String,
    #[serde(skip_serializing_if = "is_zero")]
    sync_interval: i64,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    sync_always: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    domain: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    strict: bool,
}

#[derive(Clone, Default, Serialize)]
struct Limits {
    #[serde(skip_serializing_if = "is_zero")]
    default_max_consumers: i64,
    #[serde(skip_serializing_if = "is_zero")]
    max_ack_pending: i64,
    #[serde(skip_serializing_if = "is_zero")]
    max_request_batch: i64,
    #[serde(skip_serializing_if = "is_zero")]
    duplicate_window: i64,
}

fn is_none(number: &usize) -> bool {
    *number == 0
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[derive(Serialize)]
struct Account {
    name: String,
    id: String,
    memory: u64,
    storage: u64,
    reserved_memory: u64,
    reserved_storage: u64,
    accounts: usize,
    ha_assets: usize,
    api: ApiStats,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    stream_detail: Vec<Stream>,
}

#[derive(Serialize)]
struct Stream {
    name: String,
    created: String,
    cluster: ClusterInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Value>,
    state: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    consumer_detail: Vec<Value>,
    #[serde(skip_serializing_if = "String::is_empty")]
    stream_raft_group: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    consumer_raft_groups: Vec<RaftGroup>,
}

#[derive(Serialize)]
struct RaftGroup {
    name: String,
    raft_group: String,
}

/// Who decides about streams.
#[derive(Clone, Serialize)]
struct MetaCluster {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    leader: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    peer: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    replicas: Vec<PeerInfo>,
    cluster_size: usize,
    quorum_needed: usize,
    pending: u64,
    pending_requests: usize,
    pending_infos: usize,
}

pub(crate) async fn summary(inner: &Inner) -> Summary {
    let Some(totals) = inner.jetstream_totals().await else { return Summary::default() };
    let meta = meta_cluster(inner).await.map(|(meta, _)| meta);
    Summary { config: Some(config(inner)), stats: Some(stats(&totals)), meta, limits: Some(limits(inner)) }
}

/// Where nothing is said, because another server is asked.
pub(crate) const NOT_LEADER: &str = "filtered response: not leader";

pub(crate) async fn page(inner: &Inner, arguments: &BTreeMap<String, String>) -> Result<Jsz, String> {
    let meta = meta_cluster(inner).await;
    if is_set(arguments, "leader-only") && meta.as_ref().is_some_and(|(_, is_leader)| !is_leader) {
        return Err(NOT_LEADER.to_owned());
    }
    let totals = inner.jetstream_totals().await;
    let disabled = totals.is_none().then_some(true);
    let totals = totals.unwrap_or_default();
    let wants_streams = is_set(arguments, "streams") || is_set(arguments, "consumers");
    let account_details =
        match is_set(arguments, "accounts") || wants_streams || arguments.contains_key("acc") {
            true => Some(accounts(inner, arguments, wants_streams).await).filter(|list| !list.is_empty()),
            false => None,
        };
    Ok(Jsz {
        disabled,
        stats: stats(&totals),
        server_id: inner.facts.id.clone(),
        now: inner.now().to_rfc3339(),
        config: config(inner),
        limits: limits(inner),
        streams: totals.streams,
        streams_leader: totals.streams_leader,
        consumers: totals.consumers,
        consumers_leader: totals.consumers_leader,
        messages: totals.messages,
        bytes: totals.bytes,
        total: totals.accounts,
        account_details,
        meta_cluster: meta.map(|(meta, _)| meta),
    })
}

async fn meta_cluster(inner: &Inner) -> Option<(MetaCluster, bool)> {
    let view = inner.meta_cluster().await?;
    let meta = MetaCluster {
        name: view.info.name,
        leader: view.info.leader,
        peer: view.peer,
        replicas: view.info.replicas,
        cluster_size: view.size,
        quorum_needed: view.size / 2 + 1,
        pending: view.pending,
        pending_requests: 0,
        pending_infos: 0,
    };
    Some((meta, view.is_leader))
}

async fn accounts(inner: &Inner, arguments: &BTreeMap<String, String>, wants_streams: bool) -> Vec<Account> {
    let with_consumers = is_set(arguments, "consumers");
    let shown = Shown {
        streams: wants_streams,
        config: is_set(arguments, "config"),
        raft: is_set(arguments, "raft"),
        led_only: is_set(arguments, "stream-leader-only"),
    };
    let Some(mailbox) = inner.mailboxes.first() else { return Vec::new() };
    let views =
        mailbox.ask(move |shard, now| shard.jetstream().map(|js| js.accounts(now, with_consumers))).await;
    let views = views.flatten().unwrap_or_default();
    let wanted = arguments.get("acc");
    let offset = number(arguments, "offset").unwrap_or(0);
    let limit = number(arguments, "limit").filter(|limit| *limit > 0).unwrap_or(1024);
    let chosen = views.into_iter().filter(|view| wanted.is_none_or(|wanted| *wanted == view.name));
    chosen.skip(offset).take(limit).map(|view| account(view, shown)).collect()
}

/// What of streams is shown.
#[derive(Clone, Copy)]
struct Shown {
    streams: bool,
    config: bool,
    raft: bool,
    led_only: bool,
}

fn raft_groups(stream: &StreamView) -> Vec<RaftGroup> {
    let of = |info: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        RaftGroup { name: text(&info["name"]), raft_group: text(&info["cluster"]["raft_group"]) }
    };
    stream.consumers.iter().map(of).filter(|group| !group.raft_group.is_empty()).collect()
}

fn account(view: AccountView, shown: Shown) -> Account {
    let with_config = shown.config;
    let streams = view.streams.into_iter().filter(|stream| shown.streams && (stream.is_leader || !shown.led_only));
    let streams = streams.map(|stream| Stream {
        stream_raft_group: if shown.raft { stream.cluster.raft_group.clone() } else { String::new() },
        consumer_raft_groups: if shown.raft { raft_groups(&stream) } else { Vec::new() },
        name: stream.name,
        created: stream.created.to_rfc3339(),
        cluster: stream.cluster,
        config: with_config.then_some(stream.config),
        state: stream.state,
        consumer_detail: stream.consumers.into_iter().map(|one| consumer(one, with_config)).collect(),
    });
    Account {
        id: view.name.clone(),
        name: view.name,
        memory: view.memory,
        storage: view.storage,
        reserved_memory: view.reserved_memory,
        reserved_storage: view.reserved_storage,
        accounts: 0,
        ha_assets: 0,
        api: view.api,
        stream_detail: streams.collect(),
    }
}

/// A consumer's configuration is shown where the stream's is.
fn consumer(mut info: Value, with_config: bool) -> Value {
    if let Some(fields) = info.as_object_mut().filter(|_| !with_config) {
        fields.remove("config");
    }
    info
}

fn stats(totals: &JetStreamTotals) -> Stats {
    Stats {
        memory: totals.memory,
        storage: totals.storage,
        reserved_memory: totals.reserved_memory,
        reserved_storage: totals.reserved_storage,
        accounts: totals.accounts,
        ha_assets: totals.ha_assets,
        api: totals.api.clone(),
    }
}

fn config(inner: &Inner) -> Config {
    let Some(js) = &inner.facts.jetstream else { return Config::default() };
    Config {
        max_memory: js.max_memory,
        max_storage: js.max_storage,
        store_dir: js.store_dir.display().to_string(),
        sync_interval: js.sync_interval.0,
        sync_always: js.sync_interval.is_zero(),
        domain: js.domain.clone(),
        strict: js.strict,
    }
}

fn limits(inner: &Inner) -> Limits {
    let Some(js) = &inner.facts.jetstream else { return Limits::default() };
    Limits {
        default_max_consumers: hw_node::DEFAULT_MAX_CONSUMERS,
        max_ack_pending: js.max_ack_pending,
        max_request_batch: js.max_request_batch,
        duplicate_window: js.duplicate_window.0,
    }
}
