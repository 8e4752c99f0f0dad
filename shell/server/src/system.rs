//! Answers to requests in the system account: the monitoring pages, as messages.

mod fields;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hw_hub::CloseReason;
use hw_kit::ConnId;
use hw_net::Mail;
use hw_node::Question;
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

use crate::inner::Inner;
use crate::monitor;

/// Answers the shards' questions, one after the other, until the server stops.
pub(crate) async fn answer_questions(inner: Arc<Inner>, mut questions: mpsc::Receiver<(usize, Question)>) {
    while let Some((shard, question)) = questions.recv().await {
        if let Some(payload) = answer(&inner, &question).await {
            let (to, payload) = ((question.asker, question.reply), Bytes::from(payload.to_string()));
            let say = move |shard: &mut hw_node::Shard, now| shard.handle_answer(now, to, payload);
            inner.mailboxes[shard].post(Mail::Run(Box::new(say)));
        }
    }
}

/// A request's failure.
struct Failure {
    code: u16,
    description: String,
}

/// The answer; None where this server should be silent.
async fn answer(inner: &Inner, question: &Question) -> Option<Value> {
    let verb = question.verb.as_str();
    if verb == "IDZ" {
        let facts = &inner.facts;
        return Some(json!({ "name": facts.name, "host": facts.host, "id": facts.id }));
    }
    let request = match parse(verb, &question.body) {
        Ok(request) if !is_meant(inner, &request) => return None,
        other => other,
    };
    let mut answer = json!({ "server": server(inner) });
    let result = match request {
        Ok(request) => page(inner, question, &request).await,
        Err(failure) => Err(failure),
    };
    match result {
        Ok(page) if verb == "STATSZ" => answer["statsz"] = page,
        Ok(page) => answer["data"] = page,
        // Who leads answers.
        Err(failure) if failure.description == monitor::jsz::NOT_LEADER => return None,
        Err(Failure { code, description }) => {
            answer["error"] = json!({ "code": code, "description": description });
        }
    }
    Some(answer)
}

fn parse(verb: &str, body: &[u8]) -> Result<Map<String, Value>, Failure> {
    let wrong = |description: String| Failure { code: 400, description };
    let request: Option<Map<String, Value>> = match body {
        [] => None,
        body => serde_json::from_slice(body).map_err(|error| wrong(error.to_string()))?,
    };
    let request = request.unwrap_or_default();
    fields::check(verb, &request).map_err(wrong)?;
    Ok(request)
}

/// Requests to all servers may name which of them should answer.
fn is_meant(inner: &Inner, request: &Map<String, Value>) -> bool {
    let facts = &inner.facts;
    let text = |key: &str| request.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    let tags = request.get("tags").and_then(Value::as_array);
    let has = |tag: &Value| {
        tag.as_str().is_some_and(|tag| facts.tags.iter().any(|own| own.eq_ignore_ascii_case(tag)))
    };
    let exact = request.get("exact_match").and_then(Value::as_bool).unwrap_or(false);
    text("server_name").is_none_or(|name| if exact { facts.name == name } else { facts.name.contains(name) })
        && text("cluster").is_none_or(|name| inner.facts.cluster.is_some() && inner.members().name == name)
        && text("host").is_none_or(|host| facts.host.contains(host))
        && tags.is_none_or(|tags| tags.iter().all(has))
        && text("domain").is_none_or(|domain| facts.jetstream.as_ref().is_some_and(|js| js.domain == domain))
}

fn server(inner: &Inner) -> Value {
    let facts = &inner.facts;
    let mut server = json!({
        "name": facts.name,
        "host": facts.host,
        "id": facts.id,
        "ver": crate::NATS_VERSION,
        "seq": inner.next_seq(),
        "time": inner.now().to_rfc3339(),
    });
    if facts.cluster.is_some() {
        server["cluster"] = json!(inner.members().name);
    }
    if !facts.tags.is_empty() {
        server["tags"] = json!(facts.tags);
    }
    if let Some(js) = &facts.jetstream {
        server["jetstream"] = json!(true);
        if !js.domain.is_empty() {
            server["domain"] = json!(js.domain);
        }
    }
    server
}

async fn page(inner: &Inner, question: &Question, request: &Map<String, Value>) -> Result<Value, Failure> {
    let mut arguments = arguments(request);
    if let Some(account) = &question.account {
        arguments.insert("acc".to_owned(), account.clone());
    }
    let arguments = &arguments;
    match question.verb.as_str() {
        "STATSZ" => shown(&monitor::statsz::page(inner).await),
        "VARZ" => shown(&monitor::varz::page(inner).await),
        "SUBSZ" => shown(&monitor::subsz::page(inner, arguments).await.map_err(refused)?),
        "CONNZ" => shown(&monitor::connz::page(inner, arguments).await.map_err(refused)?),
        "ROUTEZ" => shown(&monitor::routez::page(inner, arguments).await),
        "GATEWAYZ" => shown(&monitor::links::gatewayz(inner)),
        "LEAFZ" => shown(&monitor::links::leafz(inner)),
        "ACCOUNTZ" => shown(&monitor::accountz::page(inner, arguments).await.map_err(refused)?),
        "STATZ" => shown(&monitor::accountz::stats(inner, arguments).await),
        "JSZ" => shown(&monitor::jsz::page(inner, arguments).await.map_err(refused)?),
        "RAFTZ" => shown(&monitor::raftz::page(inner, arguments).await),
        "HEALTHZ" => {
            let (code, page) = monitor::healthz::page(inner, arguments).await;
            shown(&page.with_code(code))
        }
        "KICK" => kick(inner, request).await,
        verb => Err(Failure { code: 404, description: format!("{verb} is not known") }),
    }
}

fn refused(description: String) -> Failure {
    Failure { code: 500, description }
}

fn shown(page: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(page).map_err(|error| Failure { code: 500, description: error.to_string() })
}

/// Closes a connection.
async fn kick(inner: &Inner, request: &Map<String, Value>) -> Result<Value, Failure> {
    let conn = request.get("cid").and_then(Value::as_u64).map(ConnId);
    if let Some(conn) = conn {
        for mailbox in &inner.mailboxes {
            let close = move |shard: &mut hw_node::Shard, _| {
                let is_here = shard.hub().connection(conn).is_some();
                shard.hub_mut().close(conn, CloseReason::Kicked);
                is_here
            };
            if mailbox.ask(close).await == Some(true) {
                return Ok(json!({}));
            }
        }
    }
    Err(Failure { code: 500, description: "no such client or leafnode id".to_owned() })
}

/// A request's fields under the names that the pages know.
fn arguments(request: &Map<String, Value>) -> BTreeMap<String, String> {
    let mut arguments = BTreeMap::new();
    for (key, value) in request {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => continue,
        };
        let (key, text) = match (key.as_str(), text.as_str()) {
            ("subscriptions", _) => ("subs", text),
            ("subscriptions_detail", "true") => ("subs", "detail".to_owned()),
            ("subscriptions_detail", _) => continue,
            ("leader_only", _) => ("leader-only", text),
            ("stream_leader_only", _) => ("stream-leader-only", text),
            (key, _) => (key, text),
        };
        arguments.insert(key.to_owned(), text);
    }
    // Pages of connections say `acc`, those of streams `account`: each reads its own.
    if let Some(account) = arguments.get("account").filter(|account| !account.is_empty()).cloned() {
        arguments.entry("acc".to_owned()).or_insert(account);
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_arguments() {
        for (body, wanted) in [
            (r#"{"subscriptions":true}"#, vec![("subs", "true")]),
            (r#"{"subscriptions":true,"subscriptions_detail":true}"#, vec![("subs", "detail")]),
            (r#"{"cid":5,"auth":true,"x":[1]}"#, vec![("auth", "true"), ("cid", "5")]),
            (r#"{"account":"A"}"#, vec![("acc", "A"), ("account", "A")]),
        ] {
            let Ok(request) = parse("CONNZ", body.as_bytes()) else { panic!("{body}") };
            let got = arguments(&request);
            let got: Vec<(&str, &str)> =
                got.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
            assert_eq!(got, wanted, "{body}");
        }
        assert!(parse("CONNZ", b"{bad").is_err());
        assert!(parse("CONNZ", b"[]").is_err());
        assert!(parse("CONNZ", b"null").is_ok());
    }
}
