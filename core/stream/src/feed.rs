//! From an origin to the stream that mirrors or sources it: which messages, and what their copies look like.

use bytes::Bytes;
use hw_kit::Seq;
use hw_store::messages::Message;
use hw_store::{Messages, Record};
use hw_subject::{Transform, is_valid_subject};

use crate::command::Fed;
use crate::config::StreamSource;
use crate::hash::short_hash;
use crate::stream::headers;

/// Fields that were for the origin alone.
const NOT_COPIED: &[&str] = &["Nats-Expected-", "Nats-Batch-"];
/// Where a sourced message comes from.
pub(crate) const SOURCE: &str = "Nats-Stream-Source";
/// Separates several filters in that field.
const SEPARATOR: &str = "\u{c}";
const ALL: &str = ">";

/// The way from one origin.
#[derive(Debug)]
pub struct Route {
    config: StreamSource,
    is_mirror: bool,
    key: Bytes,
    mappings: Vec<Transform>,
}

impl Route {
    /// The way into a mirror.
    pub fn mirror(config: &StreamSource) -> Route {
        Route { is_mirror: true, ..Route::source(config) }
    }

    /// The way into a stream with sources. What `check` did not refuse is valid.
    pub fn source(config: &StreamSource) -> Route {
        let mappings = config.subject_transforms.iter();
        Route {
            is_mirror: false,
            key: source_key(config).into(),
            mappings: mappings.filter_map(|t| Transform::new(&t.src, &t.dest).ok()).collect(),
            config: config.clone(),
        }
    }

    /// Whether it leads into a mirror.
    pub fn is_mirror(&self) -> bool {
        self.is_mirror
    }

    /// As it is configured.
    pub fn config(&self) -> &StreamSource {
        &self.config
    }

    /// Tells it from the stream's other sources: name, filters and destinations.
    pub fn key(&self) -> &Bytes {
        &self.key
    }

    /// The origin's subjects that are wanted; none: all.
    pub fn filters(&self) -> Vec<&str> {
        if !self.config.filter_subject.is_empty() {
            return vec![&self.config.filter_subject];
        }
        let transforms = self.config.subject_transforms.iter();
        transforms.map(|t| if t.src.is_empty() { ALL } else { t.src.as_str() }).collect()
    }

    /// Where to begin in an origin that nothing was taken from yet.
    pub fn start(&self, origin: &Messages) -> Seq {
        let wanted = match (self.config.opt_start_seq, self.config.opt_start_time) {
            (0, Some(time)) => origin.seq_at(time),
            (seq, _) => Seq(seq),
        };
        wanted.max(origin.first_seq())
    }

    /// The copy of a message that the filters match; none if it cannot be stored anywhere.
    pub fn copy(&self, message: &Message, identity: &[u8]) -> Option<Fed> {
        let record = &message.record;
        let mapped = self.mappings.iter().find_map(|mapping| mapping.apply(record.subject(), message.seq.0));
        let mapped = mapped.filter(|subject| is_valid_subject(subject));
        let stripped = headers::without_prefixes(record.header(), NOT_COPIED);
        let (seq, ts) = (message.seq, message.ts);
        if self.is_mirror && mapped.is_none() && stripped.is_none() {
            return Some(Fed { seq, ts, record: record.clone() });
        }
        let mut header = stripped.unwrap_or_else(|| record.header().to_vec());
        if !self.is_mirror {
            header = headers::without(&header, SOURCE);
            headers::push(&mut header, SOURCE, &self.origin_of(message, identity));
        }
        let subject = mapped.as_deref().unwrap_or(record.subject());
        Some(Fed { seq, ts, record: Record::join(subject, &header, record.payload())? })
    }

    /// Stream, sequence, filters, destinations, subject and identity.
    fn origin_of(&self, message: &Message, identity: &[u8]) -> Vec<u8> {
        let (filters, destinations) = fields_of(&self.config);
        let mut value =
            format!("{} {} {filters} {destinations} ", index_name(&self.config), message.seq).into_bytes();
        value.extend_from_slice(message.record.subject());
        value.push(b' ');
        value.extend_from_slice(identity);
        value
    }
}

/// What a copy's `Nats-Stream-Source` says of the source that brought it: its key, and its sequence there.
pub(crate) fn brought_by(value: &[u8]) -> Option<(String, Seq)> {
    let mut parts = std::str::from_utf8(value).ok()?.split(' ');
    let (name, seq) = (parts.next()?, parts.next()?.parse().ok()?);
    let (filters, destinations) = (parts.next()?, parts.next()?);
    Some((format!("{name} {filters} {destinations}"), Seq(seq)))
}

/// What [`Route::key`] is made of.
pub(crate) fn source_key(config: &StreamSource) -> String {
    let (filters, destinations) = fields_of(config);
    format!("{} {filters} {destinations}", index_name(config))
}

/// The origin's name, and what tells it from one of that name in this account.
fn index_name(config: &StreamSource) -> String {
    match &config.external {
        None => config.name.clone(),
        Some(external) => format!("{}:{}", config.name, short_hash(&external.api)),
    }
}

fn fields_of(config: &StreamSource) -> (String, String) {
    let shown = |text: &str| if text.is_empty() { ALL.to_owned() } else { text.to_owned() };
    let transforms = &config.subject_transforms;
    if transforms.is_empty() {
        return (shown(&config.filter_subject), ALL.to_owned());
    }
    let join = |texts: Vec<String>| texts.join(SEPARATOR);
    (
        join(transforms.iter().map(|t| shown(&t.src)).collect()),
        join(transforms.iter().map(|t| shown(&t.dest)).collect()),
    )
}

#[cfg(test)]
mod tests {
    use hw_kit::Time;

    use super::*;

    #[test]
    fn copies() {
        let id = "Foo: bar\r\n";
        for (source, header, mirrored, sourced) in [
            (r#"{"name":"O"}"#, String::new(), "o.a|", "o.a|Nats-Stream-Source: O 7 > > o.a ID"),
            (
                r#"{"name":"O","filter_subject":"o.*"}"#,
                String::new(),
                "o.a|",
                "o.a|Nats-Stream-Source: O 7 o.* > o.a ID",
            ),
            (
                r#"{"name":"O","subject_transforms":[{"src":"o.b","dest":""},{"src":"o.*","dest":"n.$1"}]}"#,
                format!("Nats-Expected-Stream: O\r\n{id}"),
                "n.a|Foo: bar",
                "n.a|Foo: bar, Nats-Stream-Source: O 7 o.b\u{c}o.* >\u{c}n.$1 o.a ID",
            ),
            (
                r#"{"name":"O"}"#,
                "Nats-Expected-Last-Sequence: 1\r\nNats-Batch-Id: x\r\n".to_owned(),
                "o.a|",
                "o.a|Nats-Stream-Source: O 7 > > o.a ID",
            ),
            (
                r#"{"name":"O"}"#,
                "Nats-Stream-Source: P 1 > > p X\r\n".to_owned(),
                "o.a|Nats-Stream-Source: P 1 > > p X",
                "o.a|Nats-Stream-Source: O 7 > > o.a ID",
            ),
        ] {
            let config: StreamSource = serde_json::from_str(source).expect(source);
            let block = if header.is_empty() { String::new() } else { format!("NATS/1.0\r\n{header}\r\n") };
            let record = Record::join(b"o.a", block.as_bytes(), b"p").expect("it is short");
            let message = Message { seq: Seq(7), ts: Time(9), record };
            for (route, expected) in [(Route::mirror(&config), mirrored), (Route::source(&config), sourced)] {
                let copy = route.copy(&message, b"ID").expect("it is short");
                assert_eq!((copy.seq, copy.ts, copy.record.payload()), (Seq(7), Time(9), &b"p"[..]));
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let fields: Vec<String> = headers::fields(copy.record.header())
                    .map(|(name, value)| format!("{}: {}", text(name), text(value)))
                    .collect();
                assert_eq!(format!("{}|{}", text(copy.record.subject()), fields.join(", ")), expected);
            }
        }
    }
}
