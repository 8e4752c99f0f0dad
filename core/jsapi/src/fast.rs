//! Fast batches on the wire: what a reply subject says of its message, and what the publisher is told.

use hw_stream::batch::{FastOp, FastSay, FastSlot};
use hw_stream::outcome::PublishError;
use serde::Serialize;

use crate::{ApiError, to_json};

/// How reply subjects of fast batches end.
const SUFFIX: &[u8] = b".$FI";

/// Whether a message belongs to a fast batch.
pub fn is_fast(reply: &[u8]) -> bool {
    reply.ends_with(SUFFIX)
}

/// Reads `<prefix>.<id>.<flow>.<ok or fail>.<sequence>.<op>.$FI`.
pub fn fast_slot(reply: &[u8]) -> Result<FastSlot<'_>, PublishError> {
    slot(reply).ok_or(PublishError::FastPattern)
}

fn slot(reply: &[u8]) -> Option<FastSlot<'_>> {
    let mut tokens = reply.strip_suffix(SUFFIX)?.rsplitn(6, |byte| *byte == b'.');
    let op = match tokens.next()? {
        b"0" => FastOp::Start,
        b"1" => FastOp::Append,
        b"2" => FastOp::Commit,
        b"3" => FastOp::End,
        b"4" => FastOp::Ping,
        _ => return None,
    };
    let sequence: u64 = std::str::from_utf8(tokens.next()?).ok()?.parse().ok()?;
    let gaps = match tokens.next()? {
        b"ok" => true,
        b"fail" => false,
        _ => return None,
    };
    // What is no number means: whatever the server likes.
    let flow = std::str::from_utf8(tokens.next()?).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let (id, prefix) = (tokens.next()?, tokens.next()?);
    let fits = match op {
        FastOp::Start => sequence == 1,
        FastOp::Append | FastOp::End => sequence > 1,
        FastOp::Commit | FastOp::Ping => sequence > 0,
    };
    // The numbers end long before: nobody counts further.
    let valid = fits && sequence < u64::MAX && !prefix.is_empty() && !id.is_empty();
    valid.then_some(FastSlot { id, flow, gaps, sequence, op })
}

#[derive(Serialize)]
struct Flow {
    r#type: &'static str,
    seq: u64,
    msgs: u64,
}

#[derive(Serialize)]
struct Gap {
    r#type: &'static str,
    last_seq: u64,
    seq: u64,
}

#[derive(Serialize)]
struct Refused {
    r#type: &'static str,
    seq: u64,
    error: ApiError,
}

/// What a publisher is told on the way; the last word is a publish acknowledgement.
pub fn fast_report(say: &FastSay) -> Option<Vec<u8>> {
    Some(match say {
        FastSay::Flow { sequence, every, .. } => {
            to_json(&Flow { r#type: "ack", seq: *sequence, msgs: *every })
        }
        FastSay::Gap { expected, sequence, .. } => {
            to_json(&Gap { r#type: "gap", last_seq: *expected, seq: *sequence })
        }
        FastSay::Refused { sequence, error, .. } => {
            to_json(&Refused { r#type: "err", seq: *sequence, error: error.into() })
        }
        FastSay::Settled(_) | FastSay::Last { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn reply_subjects() {
        let slot = |id, flow, gaps, sequence, op| Ok(FastSlot { id, flow, gaps, sequence, op });
        let bad = Err(PublishError::FastPattern);
        for (reply, expected) in [
            ("fi.b1.10.fail.1.0.$FI", slot(&b"b1"[..], 10, false, 1, FastOp::Start)),
            ("_I.x.y.b1.10.ok.7.1.$FI", slot(b"b1", 10, true, 7, FastOp::Append)),
            ("fi.b1.10.ok.1.2.$FI", slot(b"b1", 10, true, 1, FastOp::Commit)),
            ("fi.b1.x.ok.2.3.$FI", slot(b"b1", 0, true, 2, FastOp::End)),
            ("fi.b1.-5.ok.1.4.$FI", slot(b"b1", -5, true, 1, FastOp::Ping)),
            ("fi.b1.10.maybe.1.0.$FI", bad.clone()),
            ("fi.b1.10.ok.1.9.$FI", bad.clone()),
            ("fi.b1.10.ok.1.x.$FI", bad.clone()),
            ("fi.b1.10.ok.x.0.$FI", bad.clone()),
            ("fi.b1.10.ok.0.2.$FI", bad.clone()),
            ("fi.b1.10.ok.2.0.$FI", bad.clone()),
            ("fi.b1.10.ok.1.1.$FI", bad.clone()),
            ("fi.b1.10.ok.1.3.$FI", bad.clone()),
            ("b1.10.ok.1.2.$FI", bad.clone()),
            ("fi.$FI", bad.clone()),
            (".b1.10.ok.1.2.$FI", bad.clone()),
        ] {
            assert_eq!(fast_slot(reply.as_bytes()), expected, "{reply}");
        }
        assert!(is_fast(b"fi.b1.10.fail.1.0.$FI") && !is_fast(b"fi.b1.10.fail.1.0.$FX") && !is_fast(b"$FI"));
    }

    #[test]
    fn reports_as_the_real_server_writes_them() {
        let to = Bytes::new();
        let error = PublishError::WrongLastSequence(hw_kit::Seq(59));
        for (say, expected) in [
            (FastSay::Flow { to: to.clone(), sequence: 0, every: 10 }, r#"{"type":"ack","seq":0,"msgs":10}"#),
            (
                FastSay::Gap { to: to.clone(), expected: 2, sequence: 3 },
                r#"{"type":"gap","last_seq":2,"seq":3}"#,
            ),
            (
                FastSay::Refused { to, sequence: 2, error },
                r#"{"type":"err","seq":2,"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 59"}}"#,
            ),
        ] {
            let text = fast_report(&say).map(|json| String::from_utf8_lossy(&json).into_owned());
            assert_eq!(text.as_deref(), Some(expected));
        }
    }
}
