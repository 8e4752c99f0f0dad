//! The reply to a publish, written by hand: it is on the data path.

use hw_stream::outcome::{PublishError, Stored};
use serde::Serialize;

use crate::{ApiError, to_json};

#[derive(Serialize)]
struct RefusedAck<'a> {
    error: ApiError,
    stream: &'a str,
    seq: u64,
}

/// Appends the acknowledgement, or the refusal, of a publish on `stream` in `domain` (empty: none).
pub fn pub_ack(out: &mut Vec<u8>, stream: &str, domain: &str, result: &Result<Stored, PublishError>) {
    let stored = match result {
        Ok(stored) => stored,
        Err(error) => {
            return publish_refused(out, stream, error.into());
        }
    };
    // Stream names and domains hold no character that JSON escapes: they were checked when they were made.
    out.extend_from_slice(b"{\"stream\":\"");
    out.extend_from_slice(stream.as_bytes());
    out.push(b'"');
    if !domain.is_empty() {
        out.extend_from_slice(b",\"domain\":\"");
        out.extend_from_slice(domain.as_bytes());
        out.push(b'"');
    }
    out.extend_from_slice(b",\"seq\":");
    out.extend_from_slice(itoa::Buffer::new().format(stored.seq.0).as_bytes());
    if stored.duplicate {
        out.extend_from_slice(b",\"duplicate\": true");
    }
    if let Some(val) = &stored.val {
        out.extend_from_slice(b",\"val\":\"");
        out.extend_from_slice(val.as_bytes());
        out.push(b'"');
    }
    if let Some(batch) = &stored.batch {
        // The client chose the id: it may hold anything.
        out.extend_from_slice(b",\"batch\":");
        out.extend_from_slice(&to_json(&String::from_utf8_lossy(&batch.id)));
        out.extend_from_slice(b",\"count\":");
        out.extend_from_slice(itoa::Buffer::new().format(batch.count).as_bytes());
    }
    out.push(b'}');
}

/// Appends the refusal of a publish on `stream`.
pub fn publish_refused(out: &mut Vec<u8>, stream: &str, error: ApiError) {
    out.extend_from_slice(&to_json(&RefusedAck { error, stream, seq: 0 }));
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use hw_kit::Seq;
    use hw_stream::outcome::BatchAck;

    fn text(domain: &str, result: &Result<Stored, PublishError>) -> String {
        let mut out = Vec::new();
        pub_ack(&mut out, "S", domain, result);
        String::from_utf8(out).expect("ASCII")
    }

    #[test]
    fn as_the_real_server_writes_them() {
        let stored = |duplicate| Ok(Stored { seq: Seq(3), duplicate, ..Stored::default() });
        assert_eq!(text("", &stored(false)), r#"{"stream":"S","seq":3}"#);
        assert_eq!(text("hub", &stored(true)), r#"{"stream":"S","domain":"hub","seq":3,"duplicate": true}"#);
        let val = Some("-2".to_owned());
        let counted = text("", &Ok(Stored { seq: Seq(3), val, ..Stored::default() }));
        assert_eq!(counted, r#"{"stream":"S","seq":3,"val":"-2"}"#);
        let batch = Some(Box::new(BatchAck { id: Bytes::from_static(b"b\"1"), count: 3 }));
        let batched = text("", &Ok(Stored { seq: Seq(3), batch, ..Stored::default() }));
        assert_eq!(batched, r#"{"stream":"S","seq":3,"batch":"b\"1","count":3}"#);
        let refused = text("", &Err(PublishError::WrongLastSequence(Seq(2))));
        assert_eq!(
            refused,
            r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 2"},"stream":"S","seq":0}"#
        );
    }
}
