//! `/jsz`: JetStream, its accounts, streams and consumers.

use std::collections::BTreeMap;

use hw_jsapi::ApiStats;
use hw_node::{AccountView, JetStreamTotals};
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
    consumers: usize,
    messages: u64,
    bytes: u64,
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
    cluster: BTreeMap<&'static str, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Value>,
    state: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    consumer_detail: Vec<Value>,
}

pub(crate) async fn summary(inner: &Inner) -> Summary {
    let Some(totals) = inner.jetstream_totals().await else { return Summary::default() };
    Summary { config: Some(config(inner)), stats: Some(stats(&totals)), limits: Some(limits(inner)) }
}

pub(crate) async fn page(inner: &Inner, arguments: &BTreeMap<String, String>) -> Jsz {
    let totals = inner.jetstream_totals().await;
    let disabled = totals.is_none().then_some(true);
    let totals = totals.unwrap_or_default();
    let wants_streams = is_set(arguments, "streams") || is_set(arguments, "consumers");
    let account_details =
        match is_set(arguments, "accounts") || wants_streams || arguments.contains_key("acc") {
            true => Some(accounts(inner, arguments, wants_streams).await).filter(|list| !list.is_empty()),
            false => None,
        };
    Jsz {
        disabled,
        stats: stats(&totals),
        server_id: inner.facts.id.clone(),
        now: inner.now().to_rfc3339(),
        config: config(inner),
        limits: limits(inner),
        streams: totals.streams,
        consumers: totals.consumers,
        messages: totals.messages,
        bytes: totals.bytes,
        total: totals.accounts,
        account_details,
    }
}

async fn accounts(inner: &Inner, arguments: &BTreeMap<String, String>, wants_streams: bool) -> Vec<Account> {
    let with_consumers = is_set(arguments, "consumers");
    let with_config = is_set(arguments, "config");
    let Some(mailbox) = inner.mailboxes.first() else { return Vec::new() };
    let views =
        mailbox.ask(move |shard, now| shard.jetstream().map(|js| js.accounts(now, with_consumers))).await;
    let views = views.flatten().unwrap_or_default();
    let wanted = arguments.get("acc");
    let offset = number(arguments, "offset").unwrap_or(0);
    let limit = number(arguments, "limit").filter(|limit| *limit > 0).unwrap_or(1024);
    let chosen = views.into_iter().filter(|view| wanted.is_none_or(|wanted| *wanted == view.name));
    chosen.skip(offset).take(limit).map(|view| account(view, wants_streams, with_config)).collect()
}

fn account(view: AccountView, wants_streams: bool, with_config: bool) -> Account {
    let streams = view.streams.into_iter().filter(|_| wants_streams).map(|stream| Stream {
        name: stream.name,
        created: stream.created.to_rfc3339(),
        cluster: BTreeMap::from([("leader", stream.leader)]),
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
        ha_assets: 0,
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
