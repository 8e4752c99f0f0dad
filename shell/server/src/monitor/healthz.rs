//! `/healthz`: whether this server does what it is for.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use hw_node::Damaged;
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

    fn damaged(damage: Damaged) -> Problem {
        let (account, stream) = (Some(damage.account), Some(damage.stream));
        Problem { account, stream, ..Problem::new("STREAM", damage.reason) }
    }
}

impl Healthz {
    /// With the HTTP code inside, for those who do not see it otherwise.
    pub(crate) fn with_code(self, code: StatusCode) -> Healthz {
        Healthz { status_code: Some(code.as_u16()), ..self }
    }
}

pub(crate) async fn page(inner: &Inner, arguments: &BTreeMap<String, String>) -> (StatusCode, Healthz) {
    match check(inner, arguments).await {
        Ok(()) => {
            let status_code = is_set(arguments, "details").then_some(200);
            (StatusCode::OK, Healthz { status: "ok", status_code, error: None, errors: Vec::new() })
        }
        Err((code, errors)) if is_set(arguments, "details") => {
            let page = Healthz { status: "error", status_code: None, error: None, errors };
            (code, page)
        }
        Err((code, problems)) => {
            let status = if code == StatusCode::BAD_REQUEST { "error" } else { "unavailable" };
            let error = problems.into_iter().next().map(|problem| problem.error);
            (code, Healthz { status, status_code: None, error, errors: Vec::new() })
        }
    }
}

/// What is wrong, the worst first; nothing else is looked at where JetStream as a whole does not work.
async fn check(
    inner: &Inner,
    arguments: &BTreeMap<String, String>,
) -> Result<(), (StatusCode, Vec<Problem>)> {
    let unavailable = |problem| Err((StatusCode::SERVICE_UNAVAILABLE, vec![problem]));
    if !inner.is_ready() {
        return unavailable(Problem::new("CONNECTION", "the server is starting or stopping"));
    }
    let only_enabled = is_set(arguments, "js-enabled-only") || is_set(arguments, "js-enabled");
    let Some(health) = inner.jetstream_health().await else {
        return match only_enabled {
            true => unavailable(Problem::new("JETSTREAM", "JetStream is not enabled")),
            false => Ok(()),
        };
    };
    if let Some(reason) = health.failed {
        return unavailable(Problem::new("JETSTREAM", reason));
    }
    if only_enabled || is_set(arguments, "js-server-only") {
        return Ok(());
    }
    let meta_only = is_set(arguments, "js-meta-only");
    let unwell = inner.asset_problems(meta_only).await;
    if let Some(problem) = unwell.iter().find(|problem| problem.account.is_empty()) {
        return unavailable(Problem::new("JETSTREAM", problem.error.clone()));
    }
    if meta_only {
        return Ok(());
    }
    let is_asked = |name: &str, value: &str| arguments.get(name).is_none_or(|wanted| wanted == value);
    let damage = health.damage.into_iter();
    let asked = damage.filter(|one| is_asked("account", &one.account) && is_asked("stream", &one.stream));
    let mut problems: Vec<Problem> = asked.map(Problem::damaged).collect();
    for problem in unwell {
        if is_asked("account", &problem.account) && is_asked("stream", &problem.stream) {
            let (account, stream) = (Some(problem.account), Some(problem.stream));
            problems.push(Problem { account, stream, ..Problem::new("STREAM", problem.error) });
        }
    }
    if health.left_out > 0 {
        let error = format!("{} more damaged places are not listed", health.left_out);
        problems.push(Problem::new("JETSTREAM", error));
    }
    match problems.is_empty() {
        true => exists(inner, arguments).await.map_err(|(code, problem)| (code, vec![problem])),
        false => Err((StatusCode::SERVICE_UNAVAILABLE, problems)),
    }
}

/// The stream or consumer that was asked for must be there.
async fn exists(inner: &Inner, arguments: &BTreeMap<String, String>) -> Result<(), (StatusCode, Problem)> {
    let account = arguments.get("account").cloned();
    let (stream, consumer) = (arguments.get("stream").cloned(), arguments.get("consumer").cloned());
    let bad = |text: &str| Err((StatusCode::BAD_REQUEST, Problem::new("BAD_REQUEST", text)));
    match (&account, &stream, &consumer) {
        (None, Some(_), _) => return bad("\"account\" must not be empty when checking stream health"),
        (_, None, Some(_)) => return bad("\"stream\" must not be empty when checking consumer health"),
        (None, None, None) => return Ok(()),
        _ => {}
    }
    let account = account.unwrap_or_default();
    let missing = |kind, error| Problem { account: Some(account.clone()), ..Problem::new(kind, error) };
    let not_found = |problem| Err((StatusCode::NOT_FOUND, problem));
    if !inner.has_jetstream(&account) {
        return not_found(missing("ACCOUNT", format!("JetStream account {account:?} not found")));
    }
    let Some(stream) = stream else { return Ok(()) };
    let Some(consumers) = inner.consumers_of(account.clone(), stream.clone()).await else {
        let error = format!("JetStream stream {stream:?} not found on account {account:?}");
        return not_found(Problem { stream: Some(stream), ..missing("STREAM", error) });
    };
    match consumer {
        Some(consumer) if !consumers.contains(&consumer) => {
            let error = format!(
                "JetStream consumer {consumer:?} not found for stream {stream:?} on account {account:?}"
            );
            let problem = missing("CONSUMER", error);
            not_found(Problem { stream: Some(stream), consumer: Some(consumer), ..problem })
        }
        _ => Ok(()),
    }
}
