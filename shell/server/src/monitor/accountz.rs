//! `/accountz` and `/accstatz`: which accounts there are, and what went through each.

use std::collections::BTreeMap;

use hw_hub::AccountCounters;
use serde::Serialize;

use crate::inner::Inner;
use crate::monitor::is_set;

#[derive(Serialize)]
pub(crate) struct Accountz {
    server_id: String,
    now: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    system_account: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    accounts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_detail: Option<Detail>,
}

/// One account.
#[derive(Serialize)]
struct Detail {
    account_name: String,
    update_time: String,
    is_system: bool,
    expired: bool,
    complete: bool,
    jetstream_enabled: bool,
    leafnode_connections: u64,
    client_connections: u64,
    subscriptions: u64,
}

#[derive(Serialize)]
pub(crate) struct Accstatz {
    server_id: String,
    now: String,
    account_statz: Vec<Stats>,
}

#[derive(Serialize)]
struct Stats {
    acc: String,
    name: String,
    conns: u64,
    leafnodes: u64,
    total_conns: u64,
    num_subscriptions: u64,
    sent: Sum,
    received: Sum,
    slow_consumers: u64,
}

/// Messages and bytes.
#[derive(Serialize)]
struct Sum {
    msgs: u64,
    bytes: u64,
}

pub(crate) async fn page(inner: &Inner, arguments: &BTreeMap<String, String>) -> Result<Accountz, String> {
    let wanted = arguments.get("acc").filter(|name| !name.is_empty());
    let account_detail = match wanted {
        Some(name) => {
            let found = detail(inner, name).await;
            Some(found.ok_or_else(|| format!("Account {name} does not exist"))?)
        }
        None => None,
    };
    let there = inner.live().directory;
    let there = there.accounts().filter(|(_, account)| !account.gone && wanted.is_none());
    let mut accounts: Vec<String> = there.map(|(_, account)| account.name.clone()).collect();
    accounts.sort();
    Ok(Accountz {
        server_id: inner.facts.id.clone(),
        now: inner.now().to_rfc3339(),
        system_account: inner.facts.system_account.clone(),
        accounts,
        account_detail,
    })
}

async fn detail(inner: &Inner, name: &str) -> Option<Detail> {
    let at = inner.account_names().iter().position(|known| known == name)?;
    let counters = inner.account_counters().await.get(at).copied().unwrap_or_default();
    let live = inner.live();
    let account = live.directory.account_id(name)?;
    Some(Detail {
        account_name: name.to_owned(),
        update_time: live.loaded.to_rfc3339(),
        is_system: inner.facts.system_account == name,
        expired: false,
        complete: true,
        jetstream_enabled: live.directory.account(account)?.jetstream.is_some(),
        leafnode_connections: 0,
        client_connections: counters.connections,
        subscriptions: counters.subscriptions,
    })
}

pub(crate) async fn stats(inner: &Inner, arguments: &BTreeMap<String, String>) -> Accstatz {
    let (unused, wanted) = (is_set(arguments, "unused"), arguments.get("acc"));
    let counters = inner.account_counters().await;
    let with_names = inner.account_names().into_iter().zip(counters);
    let account_statz = with_names
        .filter(|(name, counters)| match wanted {
            Some(wanted) => wanted == name,
            None => unused || counters.connections > 0,
        })
        .map(|(name, counters)| Stats::new(name, &counters))
        .collect();
    Accstatz { server_id: inner.facts.id.clone(), now: inner.now().to_rfc3339(), account_statz }
}

impl Stats {
    fn new(name: String, counters: &AccountCounters) -> Stats {
        let traffic = &counters.traffic;
        Stats {
            acc: name.clone(),
            name,
            conns: counters.connections,
            leafnodes: 0,
            total_conns: counters.connections,
            num_subscriptions: counters.subscriptions,
            sent: Sum { msgs: traffic.out_msgs, bytes: traffic.out_bytes },
            received: Sum { msgs: traffic.in_msgs, bytes: traffic.in_bytes },
            slow_consumers: counters.slow_consumers,
        }
    }
}
