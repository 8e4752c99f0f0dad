//! `/raftz`: the replicated groups of this server.

use std::collections::BTreeMap;

use hw_node::RaftView;
use serde::Serialize;

use crate::inner::Inner;

/// Groups by account and name.
pub(crate) type Raftz = BTreeMap<String, BTreeMap<String, Group>>;

/// One group.
#[derive(Serialize)]
pub(crate) struct Group {
    id: String,
    state: &'static str,
    size: usize,
    quorum_needed: usize,
    committed: u64,
    applied: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    leader: String,
    ever_had_leader: bool,
    term: u64,
    pterm: u64,
    pindex: u64,
    system_account: bool,
    traffic_account: &'static str,
    ipq_proposal_len: usize,
    ipq_entry_len: usize,
    ipq_resp_len: usize,
    ipq_apply_len: usize,
    wal: Wal,
    /// The last entry at which the replicas were compared, and what is wrong with this one; not in `nats-server`.
    compared: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    problem: String,
    peers: BTreeMap<String, Peer>,
}

#[derive(Serialize)]
struct Wal {
    messages: u64,
    bytes: u64,
    first_seq: u64,
    last_seq: u64,
    consumer_count: usize,
}

#[derive(Serialize)]
struct Peer {
    name: String,
    known: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_replicated_lag: Option<u64>,
}

pub(crate) async fn page(inner: &Inner, arguments: &BTreeMap<String, String>) -> Raftz {
    let account = arguments.get("acc").map_or("$SYS", String::as_str);
    let group = arguments.get("group").filter(|group| !group.is_empty());
    let mut page = Raftz::new();
    for view in inner.raft_groups().await {
        // All groups' traffic is the system account's, and so is what `/raftz` shows without an account.
        let is_asked = account == "$SYS" || account == view.account;
        if is_asked && group.is_none_or(|group| *group == view.name) {
            page.entry(account.to_owned()).or_default().insert(view.name.clone(), shown(view));
        }
    }
    page
}

fn shown(view: RaftView) -> Group {
    let is_leader = view.state == "LEADER";
    let peers = view.peers.into_iter().map(|peer| {
        let heard = Some(format!("{}ms", peer.active.0 / 1_000_000)).filter(|_| peer.active.0 > 0);
        let lag = Some(peer.lag).filter(|_| is_leader && peer.lag > 0);
        (peer.peer, Peer { name: peer.name, known: true, last_seen: heard, last_replicated_lag: lag })
    });
    Group {
        id: view.id,
        state: view.state,
        size: view.size,
        quorum_needed: view.size / 2 + 1,
        committed: view.committed,
        applied: view.applied,
        ever_had_leader: view.term > 0,
        leader: view.leader,
        term: view.term,
        pterm: view.term,
        pindex: view.last,
        system_account: true,
        traffic_account: "$SYS",
        ipq_proposal_len: 0,
        ipq_entry_len: 0,
        ipq_resp_len: 0,
        ipq_apply_len: 0,
        wal: Wal {
            messages: view.last.saturating_sub(view.base),
            bytes: view.log_bytes,
            first_seq: view.base + 1,
            last_seq: view.last,
            consumer_count: 0,
        },
        compared: view.compared,
        problem: view.problem,
        peers: peers.collect(),
    }
}
