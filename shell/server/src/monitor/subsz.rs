//! `/subsz`: how many subscriptions there are, and which.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::inner::Inner;
use crate::monitor::{is_set, number};

#[derive(Serialize)]
pub(crate) struct Subsz {
    server_id: String,
    now: String,
    num_subscriptions: u64,
    num_cache: usize,
    num_inserts: u64,
    num_removes: u64,
    total: usize,
    offset: usize,
    limit: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subscriptions_list: Vec<Subscription>,
}

#[derive(Serialize)]
struct Subscription {
    account: String,
    subject: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    qgroup: String,
    sid: String,
    msgs: u64,
    cid: u64,
}

pub(crate) async fn page(inner: &Inner, arguments: &BTreeMap<String, String>) -> Result<Subsz, String> {
    let offset = number(arguments, "offset").unwrap_or(0);
    let limit = number(arguments, "limit").filter(|limit| *limit > 0).unwrap_or(1024);
    let mut all = Vec::new();
    let test = arguments.get("test").filter(|test| !test.is_empty());
    if let Some(test) = test.filter(|test| !hw_subject::is_valid_subject(test.as_bytes())) {
        return Err(format!("invalid test subject, must be valid publish subject: {test}"));
    }
    if is_set(arguments, "subs") {
        for mailbox in &inner.mailboxes {
            let (accounts, wanted) = (inner.account_names(), arguments.get("acc").cloned());
            let test = test.cloned();
            let part = mailbox.ask(move |shard, _| {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let all = shard.hub().subscriptions().map(|sub| Subscription {
                    account: accounts.get(sub.account.0 as usize).cloned().unwrap_or_default(),
                    subject: text(sub.subject),
                    qgroup: sub.queue.map(text).unwrap_or_default(),
                    sid: text(sub.sid),
                    msgs: sub.msgs,
                    cid: sub.conn.0,
                });
                let of_account =
                    all.filter(|sub| wanted.as_ref().is_none_or(|wanted| *wanted == sub.account));
                let matches = |sub: &Subscription, test: &String| {
                    hw_subject::matches(sub.subject.as_bytes(), test.as_bytes())
                };
                of_account
                    .filter(|sub| test.as_ref().is_none_or(|test| matches(sub, test)))
                    .collect::<Vec<_>>()
            });
            all.extend(part.await.unwrap_or_default());
        }
    }
    let total = all.len();
    let counters = inner.counters().await;
    Ok(Subsz {
        server_id: inner.facts.id.clone(),
        now: inner.now().to_rfc3339(),
        num_subscriptions: counters.subscriptions,
        num_cache: counters.cached,
        num_inserts: counters.inserts,
        num_removes: counters.removes,
        total,
        offset,
        limit,
        subscriptions_list: all.into_iter().skip(offset).take(limit).collect(),
    })
}
