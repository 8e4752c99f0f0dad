//! Direct gets: the request's JSON, and answers that are headers instead of JSON.

use bytes::Bytes;
use hw_kit::{Seq, Time};
use hw_store::messages::Message;
use serde::Deserialize;

use crate::json::from_json;

/// What a direct get asks for.
#[derive(Clone, Debug, PartialEq)]
pub enum DirectGet {
    /// One message by sequence.
    Seq(Seq),
    /// The last on a subject.
    Last(String),
    /// The first at or after a sequence on a subject.
    Next(Seq, String),
    /// Several in a row.
    Batch {
        /// At most so many.
        batch: u64,
        /// At most so many bytes; 0: no bound.
        max_bytes: u64,
        /// From this sequence on.
        seq: Seq,
        /// Or from this instant on.
        start: Option<Time>,
        /// Only these subjects.
        filter: String,
    },
    /// The last of each matching subject.
    MultiLast {
        /// Which subjects.
        filters: Vec<String>,
        /// At most so many; 0: no bound.
        batch: u64,
        /// At most so many bytes; 0: no bound.
        max_bytes: u64,
        /// As of this sequence; 0: the last.
        up_to: Seq,
        /// As of this instant.
        up_to_time: Option<Time>,
    },
}

/// A direct get that is refused, by its status line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[allow(missing_docs)]
pub enum DirectRefusal {
    EmptyRequest,
    MalformedRequest,
    BadRequest,
    NotFound,
    NoResults,
    TooManyResults,
    RequiredApiLevel,
}

impl DirectRefusal {
    /// The status line.
    pub fn status(self) -> &'static str {
        match self {
            DirectRefusal::EmptyRequest => "408 Empty Request",
            DirectRefusal::MalformedRequest => "408 Malformed Request",
            DirectRefusal::BadRequest => "408 Bad Request",
            DirectRefusal::NotFound => "404 Message Not Found",
            DirectRefusal::NoResults => "404 No Results",
            DirectRefusal::TooManyResults => "413 Too Many Results",
            DirectRefusal::RequiredApiLevel => REQUIRED_API_LEVEL,
        }
    }
}

/// The status line of a request that is not answered in JSON and wants a newer server.
pub const REQUIRED_API_LEVEL: &str = "412 Required Api Level";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Body {
    seq: u64,
    last_by_subj: Option<String>,
    next_by_subj: Option<String>,
    batch: u64,
    max_bytes: u64,
    start_time: Option<String>,
    multi_last: Vec<String>,
    up_to_seq: u64,
    up_to_time: Option<String>,
    no_hdr: bool,
}

impl DirectGet {
    /// Reads a request's body; the flag says that headers are not wanted.
    pub fn parse(body: &[u8]) -> Result<(DirectGet, bool), DirectRefusal> {
        if body.trim_ascii().is_empty() {
            return Err(DirectRefusal::EmptyRequest);
        }
        let body: Body = from_json(body).map_err(|_| DirectRefusal::MalformedRequest)?;
        let no_hdr = body.no_hdr;
        body.checked().map(|get| (get, no_hdr))
    }

    /// Reads the body beside a subject in the request's own subject: only `no_hdr` may be there.
    pub fn parse_no_hdr(body: &[u8]) -> Result<bool, DirectRefusal> {
        if body.trim_ascii().is_empty() {
            return Ok(false);
        }
        let body: Body = from_json(body).map_err(|_| DirectRefusal::MalformedRequest)?;
        Ok(body.no_hdr)
    }
}

impl Body {
    fn checked(self) -> Result<DirectGet, DirectRefusal> {
        let bad = Err(DirectRefusal::BadRequest);
        let start = instant(self.start_time.as_deref())?;
        let up_to_time = instant(self.up_to_time.as_deref())?;
        let last = self.last_by_subj.unwrap_or_default();
        let next = self.next_by_subj.unwrap_or_default();
        let (has_last, has_next, has_multi) =
            (!last.is_empty(), !next.is_empty(), !self.multi_last.is_empty());
        let nothing = self.seq == 0 && start.is_none() && !has_last && !has_next && !has_multi;
        if nothing
            || has_last && (self.seq > 0 || start.is_some() || has_next || self.batch > 0 || has_multi)
            || self.seq > 0 && start.is_some()
            || has_next && has_multi
            || self.up_to_seq > 0 && up_to_time.is_some()
        {
            return bad;
        }
        if has_multi {
            let (batch, max_bytes, up_to) = (self.batch, self.max_bytes, Seq(self.up_to_seq));
            return Ok(DirectGet::MultiLast {
                filters: self.multi_last,
                batch,
                max_bytes,
                up_to,
                up_to_time,
            });
        }
        if has_last {
            return Ok(DirectGet::Last(last));
        }
        if self.batch > 0 || start.is_some() {
            let (batch, max_bytes, seq) = (self.batch.max(1), self.max_bytes, Seq(self.seq));
            return Ok(DirectGet::Batch { batch, max_bytes, seq, start, filter: next });
        }
        Ok(if has_next { DirectGet::Next(Seq(self.seq), next) } else { DirectGet::Seq(Seq(self.seq)) })
    }
}

fn instant(text: Option<&str>) -> Result<Option<Time>, DirectRefusal> {
    match text {
        None | Some("") => Ok(None),
        Some(text) if text.starts_with("0001-01-01") => Ok(None),
        Some(text) => Time::parse_rfc3339(text).map(Some).ok_or(DirectRefusal::MalformedRequest),
    }
}

/// The header block of a direct get's answer: the stored headers and where the message is from. In a batch, `pending` is
/// what follows and the last sequence before this one.
pub fn direct_headers(stream: &str, found: &Message, pending: Option<(u64, Seq)>) -> Bytes {
    let stored = found.record.header();
    let mut out = Vec::with_capacity(stored.len() + 160);
    match stored.strip_suffix(b"\r\n") {
        Some(kept) => out.extend_from_slice(kept),
        None => out.extend_from_slice(b"NATS/1.0\r\n"),
    }
    let mut line = |name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    };
    line("Nats-Stream", stream.as_bytes());
    line("Nats-Subject", found.record.subject());
    line("Nats-Sequence", found.seq.0.to_string().as_bytes());
    line("Nats-Time-Stamp", found.ts.to_rfc3339().as_bytes());
    if let Some((pending, last)) = pending {
        line("Nats-Num-Pending", pending.to_string().as_bytes());
        line("Nats-Last-Sequence", last.0.to_string().as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.into()
}

/// A header block that is a status line and some headers.
pub fn status_header(status: &str, headers: &[(&str, String)]) -> Bytes {
    let mut out = format!("NATS/1.0 {status}\r\n");
    for (name, value) in headers {
        out.push_str(name);
        out.push_str(": ");
        out.push_str(value);
        out.push_str("\r\n");
    }
    out.push_str("\r\n");
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations() {
        let parse = |body: &str| DirectGet::parse(body.as_bytes()).map(|(get, _)| get);
        assert_eq!(parse(r#"{"seq":3}"#), Ok(DirectGet::Seq(Seq(3))));
        assert_eq!(parse(r#"{"last_by_subj":"a"}"#), Ok(DirectGet::Last("a".into())));
        assert_eq!(parse(r#"{"next_by_subj":"a"}"#), Ok(DirectGet::Next(Seq(0), "a".into())));
        assert_eq!(parse(""), Err(DirectRefusal::EmptyRequest));
        assert_eq!(parse("{"), Err(DirectRefusal::MalformedRequest));
        for bad in [
            "{}",
            r#"{"seq":1,"last_by_subj":"a"}"#,
            r#"{"seq":1,"start_time":"2026-01-01T00:00:00Z"}"#,
            r#"{"last_by_subj":"a","next_by_subj":"a"}"#,
            r#"{"last_by_subj":"a","batch":2}"#,
            r#"{"multi_last":["a"],"up_to_seq":1,"up_to_time":"2026-01-01T00:00:00Z"}"#,
        ] {
            assert_eq!(parse(bad), Err(DirectRefusal::BadRequest), "{bad}");
        }
    }
}
