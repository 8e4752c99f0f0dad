//! The monitoring port: JSON about the server, its connections and JetStream, under the real server's paths and field names.

pub(crate) mod accountz;
mod arguments;
pub(crate) mod connz;
pub(crate) mod healthz;
pub(crate) mod jsz;
pub(crate) mod raftz;
pub(crate) mod links;
mod metrics;
pub(crate) mod routez;
pub(crate) mod statsz;
pub(crate) mod subsz;
pub(crate) mod varz;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;

use crate::inner::Inner;

/// How often each page was asked for.
#[derive(Default)]
pub(crate) struct Requests {
    pages: BTreeMap<&'static str, AtomicU64>,
}

const PAGES: &[&str] = &[
    "/",
    "/accountz",
    "/accstatz",
    "/connz",
    "/gatewayz",
    "/healthz",
    "/jsz",
    "/leafz",
    "/metrics",
    "/raftz",
    "/routez",
    "/subsz",
    "/varz",
];

impl Requests {
    pub(crate) fn new() -> Requests {
        Requests { pages: PAGES.iter().map(|page| (*page, AtomicU64::new(0))).collect() }
    }

    fn count(&self, page: &'static str) {
        if let Some(count) = self.pages.get(page) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counts(&self) -> BTreeMap<&'static str, u64> {
        let counts = self.pages.iter().map(|(page, count)| (*page, count.load(Ordering::Relaxed)));
        counts.filter(|(_, count)| *count > 0).collect()
    }
}

type Arguments = Query<BTreeMap<String, String>>;

/// The pages below `base` (`http_base_path`; empty: none).
pub(crate) fn router(inner: Arc<Inner>, base: &str) -> Router {
    let pages = Router::new()
        .route("/", get(index))
        .route("/varz", get(varz_page))
        .route("/connz", get(connz_page))
        .route("/subsz", get(subsz_page))
        .route("/subscriptionsz", get(subsz_page))
        .route("/jsz", get(jsz_page))
        .route("/healthz", get(healthz_page))
        .route("/raftz", get(raftz_page))
        .route("/metrics", get(metrics_page))
        .route("/routez", get(routez_page))
        .route("/gatewayz", get(gatewayz_page))
        .route("/leafz", get(leafz_page))
        .route("/accountz", get(accountz_page))
        .route("/accstatz", get(accstatz_page))
        .layer(middleware::from_fn(check_arguments))
        .with_state(inner);
    match base.trim_matches('/') {
        "" => pages,
        base => Router::new().nest(&format!("/{base}"), pages),
    }
}

/// Refuses arguments that a page cannot read.
async fn check_arguments(arguments: Arguments, request: Request, next: Next) -> Response {
    match arguments::check(request.uri().path(), &arguments) {
        Ok(()) => next.run(request).await,
        Err(text) => refused(text),
    }
}

fn refused(text: String) -> Response {
    (StatusCode::BAD_REQUEST, text).into_response()
}

async fn index(State(inner): State<Arc<Inner>>) -> Html<String> {
    inner.requests.count("/");
    let links: String =
        PAGES[1..].iter().map(|page| format!("<li><a href=\".{page}\">{page}</a></li>")).collect();
    let name = &inner.facts.name;
    Html(format!("<!doctype html><title>{name}</title><h1>Headwater {name}</h1><ul>{links}</ul>"))
}

async fn varz_page(State(inner): State<Arc<Inner>>) -> Response {
    inner.requests.count("/varz");
    json(StatusCode::OK, &varz::page(&inner).await)
}

async fn connz_page(State(inner): State<Arc<Inner>>, Query(arguments): Arguments) -> Response {
    inner.requests.count("/connz");
    match connz::page(&inner, &arguments).await {
        Ok(page) => json(StatusCode::OK, &page),
        Err(text) => refused(text),
    }
}

async fn subsz_page(State(inner): State<Arc<Inner>>, Query(arguments): Arguments) -> Response {
    inner.requests.count("/subsz");
    match subsz::page(&inner, &arguments).await {
        Ok(page) => json(StatusCode::OK, &page),
        Err(text) => refused(text),
    }
}

async fn jsz_page(State(inner): State<Arc<Inner>>, Query(arguments): Arguments) -> Response {
    inner.requests.count("/jsz");
    match jsz::page(&inner, &arguments).await {
        Ok(page) => json(StatusCode::OK, &page),
        Err(text) => refused(text),
    }
}

async fn routez_page(State(inner): State<Arc<Inner>>, Query(arguments): Arguments) -> Response {
    inner.requests.count("/routez");
    json(StatusCode::OK, &routez::page(&inner, &arguments).await)
}

async fn gatewayz_page(State(inner): State<Arc<Inner>>) -> Response {
    inner.requests.count("/gatewayz");
    json(StatusCode::OK, &links::gatewayz(&inner))
}

async fn leafz_page(State(inner): State<Arc<Inner>>) -> Response {
    inner.requests.count("/leafz");
    json(StatusCode::OK, &links::leafz(&inner))
}

async fn accountz_page(State(inner): State<Arc<Inner>>, Query(arguments): Arguments) -> Response {
    inner.requests.count("/accountz");
    match accountz::page(&inner, &arguments).await {
        Ok(page) => json(StatusCode::OK, &page),
        Err(text) => refused(text),
    }
}

async fn accstatz_page(State(inner): State<Arc<Inner>>, Query(arguments): Arguments) -> Response {
    inner.requests.count("/accstatz");
    json(StatusCode::OK, &accountz::stats(&inner, &arguments).await)
}

async fn metrics_page(State(inner): State<Arc<Inner>>) -> Response {
    inner.requests.count("/metrics");
    metrics::page(&inner).await
}

async fn raftz_page(State(inner): State<Arc<Inner>>, Query(arguments): Arguments) -> Response {
    inner.requests.count("/raftz");
    let page = raftz::page(&inner, &arguments).await;
    let code = if page.is_empty() { StatusCode::NOT_FOUND } else { StatusCode::OK };
    json(code, &page)
}

async fn healthz_page(State(inner): State<Arc<Inner>>, Query(arguments): Arguments) -> Response {
    inner.requests.count("/healthz");
    let (status, page) = healthz::page(&inner, &arguments).await;
    json(status, &page)
}

/// Indented JSON that any web page may read, as the real server answers.
fn json(status: StatusCode, page: &impl Serialize) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    match serde_json::to_vec_pretty(page) {
        Ok(body) => (status, headers, body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Whether an argument is there and says yes.
fn is_set(arguments: &BTreeMap<String, String>, name: &str) -> bool {
    arguments.get(name).is_some_and(|value| value == "detail" || arguments::flag(value) == Some(true))
}

/// A number among the arguments.
fn number<T: std::str::FromStr>(arguments: &BTreeMap<String, String>, name: &str) -> Option<T> {
    arguments.get(name)?.parse().ok()
}
