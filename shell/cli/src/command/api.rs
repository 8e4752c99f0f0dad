//! Calls of the JetStream API: raw JSON out, raw JSON back, errors by their codes.

use std::collections::BTreeMap;

use async_nats::Request;
use async_nats::client::RequestErrorKind;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::connect::Session;
use super::error::Failure;
use super::output;

/// What the server answered.
pub struct Answer {
    raw: Bytes,
    doing: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Refusal {
    code: u64,
    err_code: u64,
    description: String,
}

impl Answer {
    /// The answer as a type of ours.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.raw).map_err(|error| {
            Failure::request(&self.doing, format!("the server's answer is unusable: {error}"))
        })
    }

    /// Prints the answer as the server gave it, indented.
    pub fn print_json(&self) {
        output::line(&output::indent_json(&String::from_utf8_lossy(&self.raw)));
    }
}

impl Session {
    /// Calls `<prefix>.<call>`; `doing` names the purpose, for an error: `get stream x`.
    pub async fn api(&self, call: &str, body: &Value, doing: &str) -> Result<Answer, Failure> {
        let payload = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        self.api_at(&format!("{}.{call}", self.prefix), payload, doing).await
    }

    /// Calls an API-like service by its whole subject.
    pub async fn api_at(&self, subject: &str, payload: Bytes, doing: &str) -> Result<Answer, Failure> {
        let request = Request::new().payload(payload).timeout(Some(self.timeout));
        let message = self.client.send_request(subject.to_owned(), request).await.map_err(|error| {
            let reason = match error.kind() {
                RequestErrorKind::NoResponders if subject.starts_with("$SYS.") => {
                    "nobody answers, is this a user of the system account?".to_owned()
                }
                RequestErrorKind::NoResponders => {
                    "JetStream is not available (no responders on its API)".to_owned()
                }
                RequestErrorKind::TimedOut => {
                    format!("no answer within {}", super::units::duration(self.timeout))
                }
                _ => error.to_string(),
            };
            Failure::request(doing, reason)
        })?;
        let answer = Answer { raw: message.payload, doing: doing.to_owned() };
        #[derive(Deserialize)]
        struct Envelope {
            error: Option<Refusal>,
        }
        match answer.read::<Envelope>()?.error {
            None => Ok(answer),
            Some(Refusal { code, err_code, description }) => {
                Err(Failure::Api { doing: doing.to_owned(), description, code, err_code })
            }
        }
    }

    /// Calls a paged list until its end and returns the entries of `field` as the server wrote them.
    pub async fn api_list(&self, call: &str, body: Value, field: &str) -> Result<Listing, Failure> {
        let mut listing = Listing::default();
        loop {
            let mut page = body.clone();
            page["offset"] = listing.entries.len().into();
            let doing = format!("list {field}");
            let answer = self.api(call, &page, &doing).await?;
            let map: BTreeMap<String, Box<RawValue>> = answer.read()?;
            let total = map.get("total").and_then(|total| total.get().parse::<usize>().ok()).unwrap_or(0);
            let entries = match map.get(field) {
                Some(raw) => serde_json::from_str::<Option<Vec<Box<RawValue>>>>(raw.get())
                    .map_err(|error| Failure::request(&doing, error))?
                    .unwrap_or_default(),
                None => Vec::new(),
            };
            if let Some(missing) = map.get("missing") {
                listing
                    .missing
                    .extend(serde_json::from_str::<Vec<String>>(missing.get()).unwrap_or_default());
            }
            if let Some(offline) = map.get("offline") {
                listing.offline.extend(
                    serde_json::from_str::<BTreeMap<String, Value>>(offline.get()).unwrap_or_default(),
                );
            }
            let last_page = entries.is_empty();
            listing.entries.extend(entries);
            if last_page || listing.entries.len() >= total {
                return Ok(listing);
            }
        }
    }
}

/// The entries of a paged list.
#[derive(Default)]
pub struct Listing {
    entries: Vec<Box<RawValue>>,
    /// Names that the server knows and cannot reach.
    pub missing: Vec<String>,
    /// Names that no server can run at present, with the reasons.
    pub offline: BTreeMap<String, Value>,
}

impl Listing {
    /// The entries as a type of ours.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Vec<T>, Failure> {
        let read = |raw: &RawValue| serde_json::from_str(raw.get());
        let all: Result<Vec<T>, _> = self.entries.iter().map(|raw| read(raw)).collect();
        all.map_err(|error| Failure::request("list", format!("the server's answer is unusable: {error}")))
    }

    /// Prints the entries as one JSON array, each as the server wrote it.
    pub fn print_json(&self) {
        let joined: Vec<&str> = self.entries.iter().map(|raw| raw.get()).collect();
        output::line(&output::indent_json(&format!("[{}]", joined.join(","))));
    }

    /// Prints what could not be listed in full.
    pub fn print_unavailable(&self, kind: &str) {
        if !self.missing.is_empty() {
            let mut table = output::Table::new(format!("Inaccessible {kind}"), ["Name"]);
            self.missing.iter().for_each(|name| table.row([name.clone()]));
            table.print();
        }
        if !self.offline.is_empty() {
            let mut table = output::Table::new(format!("Offline {kind}"), ["Name", "Reason"]);
            for (name, reason) in &self.offline {
                let reason = reason.as_str().map_or_else(|| reason.to_string(), ToOwned::to_owned);
                table.row([name.clone(), reason]);
            }
            table.print();
        }
    }
}
