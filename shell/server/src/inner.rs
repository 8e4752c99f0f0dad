//! What all parts of a running server share: facts that never change, and the way to each shard.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError, RwLock};

use hw_auth::{Directory, PermissionsSpec};
use hw_disk::Gauges;
use hw_hub::{AccountCounters, HubCounters, HubLimits};
use hw_kit::{ConnId, Span, Time};
use hw_net::{Clock, Links, Mailbox};
use hw_node::{BatchLimits, JetStreamHealth, JetStreamTotals, Meters, Question};
use tokio::sync::mpsc;

use crate::cluster::{ClusterFacts, Members};
use crate::monitor::Requests;
use crate::usage::Usage;

/// Questions of the shards that may wait for an answer.
const QUESTIONS_MAX: usize = 1024;

/// A running server as its threads see it.
pub(crate) struct Inner {
    pub(crate) facts: Facts,
    live: RwLock<Live>,
    /// The way to other servers, in a cluster.
    pub(crate) links: Option<Arc<Links>>,
    members: RwLock<Members>,
    pub(crate) mailboxes: Vec<Arc<Mailbox>>,
    pub(crate) start: Time,
    pub(crate) cores: usize,
    pub(crate) requests: Requests,
    pub(crate) usage: Mutex<Usage>,
    /// The disk's numbers, where there is a store.
    pub(crate) disk: OnceLock<Arc<Gauges>>,
    questions: mpsc::Sender<(usize, Question)>,
    /// Numbers the server's messages in the system account.
    seq: AtomicU64,
    ready: AtomicBool,
    next_conn: AtomicU64,
    /// Open connections by shard.
    open: Vec<AtomicI64>,
}

/// What does not change while the server runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) http_host: String,
    pub(crate) http_port: u16,
    pub(crate) http_base_path: String,
    pub(crate) connect_urls: Vec<String>,
    pub(crate) tls_timeout: Span,
    pub(crate) tls_required: bool,
    pub(crate) tls_available: bool,
    pub(crate) tls_verify: bool,
    pub(crate) websocket: Option<Door>,
    pub(crate) leafnodes: Option<Door>,
    pub(crate) write_deadline: Span,
    pub(crate) tags: Vec<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) system_account: String,
    pub(crate) jetstream: Option<JetStreamFacts>,
    pub(crate) cluster: Option<ClusterFacts>,
}

/// Another listener.
#[derive(Clone, Debug, Default)]
pub(crate) struct Door {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

/// What a reload may change.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) directory: Arc<Directory>,
    pub(crate) limits: HubLimits,
    pub(crate) max_connections: i64,
    pub(crate) loaded: Time,
    pub(crate) config_digest: String,
    /// What is exchanged with the other servers of the cluster, as configured; None: everything.
    pub(crate) exchange: Option<PermissionsSpec>,
}

/// JetStream's settings, for monitoring.
#[derive(Clone, Debug, Default)]
pub(crate) struct JetStreamFacts {
    pub(crate) store_dir: PathBuf,
    pub(crate) domain: String,
    /// The cipher, if the store is encrypted.
    pub(crate) encryption: Option<String>,
    pub(crate) long_acks: bool,
    pub(crate) strict: bool,
    pub(crate) max_memory: i64,
    pub(crate) max_storage: i64,
    pub(crate) sync_interval: Span,
    pub(crate) max_ack_pending: i64,
    pub(crate) max_request_batch: i64,
    pub(crate) duplicate_window: Span,
    pub(crate) checkpoint_bytes: u64,
    pub(crate) scrub_bytes: u64,
    pub(crate) batch: BatchLimits,
    /// What may wait in one stream: bytes and messages.
    pub(crate) max_buffered: (Option<u64>, Option<u64>),
}

/// So many connections more than any other has the shard that has the store: what is on the same shard need not go from
/// one thread to another and back, and few connections leave that shard idle mostly.
const MORE_AT_STORE: i64 = 4;

/// Which shard takes a connection more.
fn shard_for_one_more(open: &[i64]) -> usize {
    let weight = |(shard, open): (usize, &i64)| if shard == 0 { *open - MORE_AT_STORE } else { *open };
    let weights = open.iter().enumerate().map(weight).enumerate();
    weights.min_by_key(|(_, weight)| *weight).map_or(0, |(shard, _)| shard)
}

impl Inner {
    /// What all parts share; questions of the shards come out of the receiver.
    pub(crate) fn new(
        facts: Facts,
        live: Live,
        mailboxes: Vec<Arc<Mailbox>>,
        members: Members,
    ) -> (Inner, mpsc::Receiver<(usize, Question)>) {
        let (questions, asked) = mpsc::channel(QUESTIONS_MAX);
        let inner = Inner {
            links: facts.cluster.as_ref().map(|_| Arc::new(Links::default())),
            members: RwLock::new(members),
            facts,
            live: RwLock::new(live),
            open: mailboxes.iter().map(|_| AtomicI64::new(0)).collect(),
            mailboxes,
            start: Clock::default().now(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            requests: Requests::new(),
            usage: Mutex::new(Usage::default()),
            disk: OnceLock::new(),
            questions,
            seq: AtomicU64::new(0),
            ready: AtomicBool::new(false),
            next_conn: AtomicU64::new(1),
        };
        (inner, asked)
    }

    /// Takes a shard's question. When too many wait already, whoever asked hears nothing and may ask again.
    pub(crate) fn ask(&self, shard: usize, question: Question) {
        if self.questions.try_send((shard, question)).is_err() {
            tracing::warn!("too many requests to the system account at once: one is not answered");
        }
    }

    /// The next number of a message of the server's.
    pub(crate) fn next_seq(&self) -> u64 {
        self.seq.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn now(&self) -> Time {
        Clock::default().now()
    }

    pub(crate) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(crate) fn set_ready(&self, ready: bool) {
        self.ready.store(ready, Ordering::Release);
    }

    /// Counts a new connection: its number, the shard that takes it, and how many there are now.
    pub(crate) fn connection_opened(&self) -> (ConnId, usize, i64) {
        let number = self.next_conn.fetch_add(1, Ordering::Relaxed);
        let open: Vec<i64> = self.open.iter().map(|open| open.load(Ordering::Relaxed)).collect();
        let shard = shard_for_one_more(&open);
        self.open[shard].fetch_add(1, Ordering::Relaxed);
        (ConnId(number), shard, open.iter().sum::<i64>() + 1)
    }

    /// Counts a connection of a shard that is gone.
    pub(crate) fn connection_closed(&self, shard: usize) {
        self.open[shard].fetch_sub(1, Ordering::Relaxed);
    }

    /// What the last reload left, or the start.
    pub(crate) fn live(&self) -> Live {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A reload has changed something.
    pub(crate) fn set_live(&self, live: Live) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = live;
    }

    /// The cluster as it is now; without one there is nothing in it.
    pub(crate) fn members(&self) -> Members {
        self.members.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The cluster has changed.
    pub(crate) fn set_members(&self, members: Members) {
        *self.members.write().unwrap_or_else(PoisonError::into_inner) = members;
    }

    /// Accounts' names by number.
    pub(crate) fn account_names(&self) -> Vec<String> {
        self.live().directory.accounts().map(|(_, account)| account.name.clone()).collect()
    }

    /// Whether an account may have streams.
    pub(crate) fn has_jetstream(&self, account: &str) -> bool {
        let directory = self.live().directory;
        let account = directory.account_id(account).and_then(|id| directory.account(id));
        account.is_some_and(|account| account.jetstream.is_some())
    }

    /// All shards' counters together.
    pub(crate) async fn counters(&self) -> HubCounters {
        let mut total = HubCounters::default();
        for mailbox in &self.mailboxes {
            if let Some(part) = mailbox.ask(|shard, _| shard.hub().counters()).await {
                total.add(&part);
            }
        }
        total
    }

    /// All shards' counters of each account together, by its number.
    pub(crate) async fn account_counters(&self) -> Vec<AccountCounters> {
        let mut total: Vec<AccountCounters> = Vec::new();
        for mailbox in &self.mailboxes {
            let part = mailbox.ask(|shard, _| shard.hub().account_counters()).await.unwrap_or_default();
            total.resize(total.len().max(part.len()), AccountCounters::default());
            total.iter_mut().zip(&part).for_each(|(total, part)| total.add(part));
        }
        total
    }

    /// Memory in bytes and CPU in percent of this process.
    pub(crate) fn usage(&self) -> (u64, f64) {
        self.usage.lock().unwrap_or_else(std::sync::PoisonError::into_inner).read()
    }

    pub(crate) async fn jetstream_totals(&self) -> Option<JetStreamTotals> {
        self.mailboxes.first()?.ask(|shard, _| shard.jetstream().map(|js| js.totals())).await?
    }

    pub(crate) async fn meta_cluster(&self) -> Option<hw_node::MetaView> {
        self.mailboxes.first()?.ask(|shard, now| shard.jetstream()?.meta_cluster(now)).await?
    }

    pub(crate) async fn raft_groups(&self) -> Vec<hw_node::RaftView> {
        let Some(mailbox) = self.mailboxes.first() else { return Vec::new() };
        let views = mailbox.ask(|shard, now| shard.jetstream().map(|js| js.raft_groups(now))).await;
        views.flatten().unwrap_or_default()
    }

    pub(crate) async fn asset_problems(&self, meta_only: bool) -> Vec<hw_node::AssetProblem> {
        let Some(mailbox) = self.mailboxes.first() else { return Vec::new() };
        let problems =
            mailbox.ask(move |shard, _| shard.jetstream().map(|js| js.asset_problems(meta_only))).await;
        problems.flatten().unwrap_or_default()
    }

    pub(crate) async fn jetstream_health(&self) -> Option<JetStreamHealth> {
        self.mailboxes.first()?.ask(|shard, _| shard.jetstream().map(|js| js.health())).await?
    }

    pub(crate) async fn jetstream_meters(&self, streams: usize, consumers: usize) -> Option<Meters> {
        let ask = move |shard: &mut hw_node::Shard, now| {
            shard.jetstream().map(|js| js.meters(now, streams, consumers))
        };
        self.mailboxes.first()?.ask(ask).await?
    }

    pub(crate) async fn consumers_of(&self, account: String, stream: String) -> Option<Vec<String>> {
        let mailbox = self.mailboxes.first()?;
        mailbox.ask(move |shard, _| shard.jetstream()?.consumers_of(&account, &stream)).await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_connections_are_where_the_store_is_and_many_are_everywhere() {
        let mut open = [0; 3];
        let mut after = Vec::new();
        for _ in 0..100 {
            open[shard_for_one_more(&open)] += 1;
            after.push(open);
        }
        assert_eq!(after[4], [5, 0, 0]);
        assert_eq!(after[6], [5, 1, 1]);
        assert_eq!(after[99], [36, 32, 32]);
    }
}
