//! Counters that other streams feed: what each origin has contributed is remembered, so that its totals can be added to
//! this stream's own.

use std::collections::BTreeMap;
use std::sync::Arc;

use hw_kit::Seq;
use serde::Deserialize;

use super::Stream;
use super::admit::{Fields, Incoming, counter_payload};
use super::headers;
use super::number::Number;
use crate::outcome::PublishError;

/// Says what each origin has contributed.
pub(super) const SOURCES: &str = "Nats-Counter-Sources";

/// The totals that were taken over: by origin, by subject there. As the header shows them.
pub(super) type Sources = BTreeMap<String, BTreeMap<String, String>>;

/// A counter as its message shows it.
#[derive(Deserialize)]
struct Value {
    val: String,
}

/// A copy of another stream's counter, as it is stored here.
pub(super) struct Counted {
    pub header: Vec<u8>,
    pub payload: String,
    pub total: Number,
    pub sources: Arc<Sources>,
}

impl Stream {
    /// What the origins have contributed to a counter so far.
    pub(super) fn sources_of(&self, subject: &[u8]) -> Option<Arc<Sources>> {
        if self.sources.is_empty() {
            return None;
        }
        self.messages.last_of(subject).and_then(|last| self.sources.get(&last)).cloned()
    }

    /// Remembers what the origins have contributed up to a message, if that was kept.
    pub(super) fn remember_sources(&mut self, seq: Seq, sources: Arc<Sources>) {
        if self.messages.contains(seq) {
            self.sources.insert(seq, sources);
        }
    }

    /// Adds another stream's counter: by how much it grew since it was seen last.
    pub(super) fn count_copy(
        &self,
        message: &Incoming<'_>,
        fields: &Fields<'_>,
    ) -> Result<Counted, PublishError> {
        if fields.incr.is_none() {
            return Err(PublishError::CounterMissing);
        }
        let value: Value =
            serde_json::from_slice(message.payload).map_err(|_| PublishError::CounterBroken)?;
        let theirs = Number::parse(value.val.as_bytes()).ok_or(PublishError::CounterBroken)?;
        let source = String::from_utf8_lossy(fields.source.unwrap_or_default()).into_owned();
        // Stream, sequence, filters, destinations, subject, identity.
        let mut words = source.split(' ');
        let (origin, subject) = (words.next().unwrap_or_default(), words.nth(3).unwrap_or_default());
        let mut sources =
            self.sources_of(message.subject).map_or_else(Sources::new, |known| (*known).clone());
        let of_origin = sources.entry(origin.to_owned()).or_default();
        let before = of_origin.insert(subject.to_owned(), theirs.to_string());
        let before = before.and_then(|before| Number::parse(before.as_bytes()));
        let grown = before.map_or_else(|| theirs.clone(), |before| theirs.minus(&before));
        let ours = self.messages.last_of(message.subject).and_then(|last| self.totals.get(&last));
        let total = ours.map_or_else(|| grown.clone(), |ours| ours.plus(&grown));
        let mut header = message.header.to_vec();
        headers::set(&mut header, "Nats-Incr", grown.to_string().as_bytes());
        headers::set(&mut header, SOURCES, &shown(&sources));
        Ok(Counted { header, payload: counter_payload(&total), total, sources: Arc::new(sources) })
    }
}

/// As the header shows it.
pub(super) fn shown(sources: &Sources) -> Vec<u8> {
    serde_json::to_vec(sources).expect("a map of texts always encodes")
}
