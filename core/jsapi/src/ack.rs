//! Acknowledgements: the subject that a delivery named, and the body that says how it ended.

use bytes::Bytes;
use hw_kit::{Seq, Span};
use hw_stream::lead::AckKind;
use serde::Deserialize;

/// What an acknowledgement subject says.
#[derive(Clone, Debug, PartialEq)]
pub struct AckSubject<'a> {
    /// The stream.
    pub stream: &'a [u8],
    /// The consumer.
    pub consumer: &'a [u8],
    /// The how-manieth delivery it was.
    pub deliveries: u64,
    /// The message.
    pub stream_seq: Seq,
    /// The delivery.
    pub consumer_seq: u64,
}

impl<'a> AckSubject<'a> {
    /// Reads `$JS.ACK.<stream>.<consumer>.<deliveries>.<sseq>.<cseq>.<ts>.<pending>` or the longer form with domain and
    /// account hash before the stream. None for anything else.
    pub fn parse(subject: &'a [u8]) -> Option<AckSubject<'a>> {
        let mut tokens = [&b""[..]; 13];
        let mut count = 0;
        for token in subject.split(|&b| b == b'.') {
            if count == tokens.len() {
                break; // The longer form may carry more tokens at its end.
            }
            tokens[count] = token;
            count += 1;
        }
        let fields = match count {
            9 => &tokens[2..],
            11.. => &tokens[4..],
            _ => return None,
        };
        Some(AckSubject {
            stream: fields[0],
            consumer: fields[1],
            deliveries: number(fields[2])?,
            stream_seq: Seq(number(fields[3])?),
            consumer_seq: number(fields[4])?,
        })
    }
}

/// The consumer of `$JS.FC.<stream>.<consumer>.<token>` or of the longer form with domain and account hash before the
/// stream.
pub fn flow_consumer(subject: &[u8]) -> Option<&[u8]> {
    let count = subject.split(|&b| b == b'.').count();
    subject.split(|&b| b == b'.').nth(if count < 7 { 3 } else { 5 })
}

/// How far the answer to a flow control request says its client is: consumer and stream sequence, 0 where it does not.
pub fn last_seen(header: &[u8]) -> (u64, Seq) {
    let value = |name| hw_wire::headers::get(header, name).and_then(number).unwrap_or(0);
    (value("Nats-Last-Consumer"), Seq(value("Nats-Last-Stream")))
}

/// What stands before the stream in the longer form of acknowledgement and flow control subjects: the domain, `_` for
/// none, and a hash of the account's name.
pub fn ack_scope(domain: &str, account: &str) -> String {
    let domain = if domain.is_empty() { "_" } else { domain };
    format!("{domain}.{}.", hw_stream::short_hash(account))
}

#[derive(Deserialize)]
struct NakBody {
    #[serde(default)]
    delay: i64,
}

/// Reads an acknowledgement's body; None for a body that is none. After `+NXT` comes a pull request's body.
pub fn ack_kind(body: &[u8]) -> Option<(AckKind, &[u8])> {
    if body.is_empty() || body == b"+ACK" || body == b"+OK" {
        return Some((AckKind::Ack, b""));
    }
    let rest = |verb: &[u8]| body.strip_prefix(verb).map(<[u8]>::trim_ascii);
    if let Some(rest) = rest(b"-NAK") {
        return Some((AckKind::Nak(nak_delay(rest)), b""));
    }
    if let Some(rest) = rest(b"+NXT") {
        return Some((AckKind::Next, rest));
    }
    if let Some(rest) = rest(b"+TERM") {
        return Some((AckKind::Term(Bytes::copy_from_slice(rest)), b""));
    }
    rest(b"+WPI").map(|_| (AckKind::Progress, &b""[..]))
}

/// The delay of a NAK: `{"delay": ns}` or a Go duration; none when it cannot be read.
fn nak_delay(text: &[u8]) -> Span {
    if text.first() == Some(&b'{') {
        return Span(serde_json::from_slice::<NakBody>(text).map_or(0, |body| body.delay.max(0)));
    }
    std::str::from_utf8(text).ok().and_then(Span::parse_go).unwrap_or_default()
}

fn number(token: &[u8]) -> Option<u64> {
    if token.is_empty() || token.len() > 20 {
        return None;
    }
    token.iter().try_fold(0u64, |sum, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        sum.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_to_flow_control_say_what_was_seen() {
        let both = b"NATS/1.0\r\nNats-Last-Consumer: 7\r\nNats-Last-Stream: 9\r\n\r\n";
        assert_eq!(last_seen(both), (7, Seq(9)));
        assert_eq!(last_seen(b"NATS/1.0\r\nNats-Last-Stream: 9\r\n\r\n"), (0, Seq(9)));
        assert_eq!(last_seen(b"NATS/1.0\r\nNats-Last-Consumer: -1\r\n\r\n"), (0, Seq(0)));
        assert_eq!(last_seen(b""), (0, Seq(0)));
    }

    #[test]
    fn subjects() {
        let ack = AckSubject::parse(b"$JS.ACK.S.C.2.10.11.1700000000.5").expect("version 1");
        assert_eq!((ack.stream, ack.consumer, ack.deliveries), (&b"S"[..], &b"C"[..], 2));
        assert_eq!((ack.stream_seq, ack.consumer_seq), (Seq(10), 11));
        let ack = AckSubject::parse(b"$JS.ACK._.hash.S.C.2.10.11.1700000000.5").expect("version 2");
        assert_eq!((ack.stream, ack.stream_seq), (&b"S"[..], Seq(10)));
        for bad in ["$JS.ACK.S.C", "$JS.ACK.S.C.x.10.11.17.5", "$JS.ACK.S.C.1.99999999999999999999.1.1.1"] {
            assert_eq!(AckSubject::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn bodies() {
        let parse = |body: &'static str| ack_kind(body.as_bytes()).map(|(kind, _)| kind);
        assert_eq!(parse(""), Some(AckKind::Ack));
        assert_eq!(parse("+ACK"), Some(AckKind::Ack));
        assert_eq!(parse("-NAK"), Some(AckKind::Nak(Span(0))));
        assert_eq!(parse("-NAK {\"delay\": 1000}"), Some(AckKind::Nak(Span(1000))));
        assert_eq!(parse("-NAK 10s"), Some(AckKind::Nak(Span::from_secs(10))));
        assert_eq!(parse("+WPI"), Some(AckKind::Progress));
        assert_eq!(parse("+TERM broken"), Some(AckKind::Term(Bytes::from_static(b"broken"))));
        assert_eq!(ack_kind(b"+NXT 3"), Some((AckKind::Next, &b"3"[..])));
        assert_eq!(parse("hello"), None);
    }

    #[test]
    fn both_forms_name_the_consumer_of_a_flow() {
        assert_eq!(flow_consumer(b"$JS.FC.S.C.abcd"), Some(&b"C"[..]));
        assert_eq!(flow_consumer(b"$JS.FC._.hash.S.C.abcd"), Some(&b"C"[..]));
        assert_eq!(flow_consumer(b"$JS.FC.S"), None);
        // As nats-server has them.
        assert_eq!(ack_scope("", "$G"), "_.szMpdrwD.");
        assert_eq!(ack_scope("hub", "$G"), "hub.szMpdrwD.");
    }
}
