//! `/healthz`: whether this server does what it is for.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::Serialize;

use crate::inner::Inner;
use crate::monitor::is_set;

#[derive(Serialize)]
pub(crate) struct Healthz {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Problem>,
}

#[derive(Clone, Serialize)]
struct Problem {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer: Option<String>,
    error: String,
}

impl Problem {
    fn new(r#type: &'static str, error: impl Into<String>) -> Problem {
        Problem { r#type, account: None, stream: None, consumer: None, error: error.into() }
    }
}

pub(crate) async fn page(inner: &Inner, arguments: &BTreeMap<String, String>) -> (StatusCode, Healthz) {
    match check(inner, arguments).await {
        Ok(()) => {
            let status_code = is_set(arguments, "details").then_some(200);
            (StatusCode::OK, Healthz { status: "ok", status_code, error: None, errors: Vec::new() })
        }
        Err((code, problem)) if is_set(arguments, "details") => {
            let page = Healthz {
                status: "error",
                status_code: Some(code.as_u16()),
                error: None,
                errors: vec![problem],
            };
            (code, page)
        }
        Err((code, problem)) => {
            let status = if code == StatusCode::SERVICE_UNAVAILABLE { "unavailable" } else { "error" };
            (code, Healthz { status, status_code: None, error: Some(problem.error), errors: Vec::new() })
        }
    }
}

async fn check(inner: &Inner, arguments: &BTreeMap<String, String>) -> Result<(), (StatusCode, Problem)> {
    let unavailable = |problem| (StatusCode::SERVICE_UNAVAILABLE, problem);
    if !inner.is_ready() {
        return Err(unavailable(Problem::new("CONNECTION", "the server is starting or stopping")));
    }
    let only_enabled = is_set(arguments, "js-enabled-only") || is_set(arguments, "js-enabled");
    let Some(health) = inner.jetstream_health().await else {
        return match only_enabled {
            true => Err(unavailable(Problem::new("JETSTREAM", "JetStream is not enabled"))),
            false => Ok(()),
        };
    };
    if let Some(reason) = health.failed {
        return Err(unavailable(Problem::new("JETSTREAM", reason)));
    }
    if only_enabled || is_set(arguments, "js-server-only") {
        return Ok(());
    }
    if let Some(damage) = health.damage.first() {
        let mut problem = Problem::new("STREAM", damage.reason.clone());
        problem.stream = Some(damage.stream.clone());
        problem.account = Some(damage.account.clone());
        return Err(unavailable(problem));
    }
    exists(inner, arguments).await
}

/// The stream or consumer that was asked for must be there.
async fn exists(inner: &Inner, arguments: &BTreeMap<String, String>) -> Result<(), (StatusCode, Problem)> {
    let account = arguments.get("account").cloned();
    let (stream, consumer) = (arguments.get("stream").cloned(), arguments.get("consumer").cloned());
    let bad = |text: &str| Err((StatusCode::BAD_REQUEST, Problem::new("BAD_REQUEST", text)));
    let missing = |text: &str| (StatusCode::NOT_FOUND, Problem::new("JETSTREAM", text));
    match (&account, &stream, &consumer) {
        (None, Some(_), _) => return bad("\"account\" must not be empty when checking stream health"),
        (_, None, Some(_)) => return bad("\"stream\" must not be empty when checking consumer health"),
        (None, None, None) => return Ok(()),
        _ => {}
    }
    let account = account.unwrap_or_default();
    if !inner.account_names().contains(&account) {
        return Err(missing("account not found"));
    }
    let Some(stream) = stream else { return Ok(()) };
    match inner.consumers_of(account, stream).await {
        None => Err(missing("stream not found")),
        Some(consumers) if consumer.as_ref().is_some_and(|name| !consumers.contains(name)) => {
            Err(missing("consumer not found"))
        }
        Some(_) => Ok(()),
    }
}
