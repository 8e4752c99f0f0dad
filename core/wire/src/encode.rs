//! Operations to bytes: everything appends to a buffer that the caller owns and reuses.

use serde::Serialize;

/// A message as it goes to one subscription.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The subject that the client sees.
    pub subject: &'a [u8],
    /// The subscription's name at the client.
    pub sid: &'a [u8],
    /// Where answers go; empty means none.
    pub reply: &'a [u8],
    /// The header block; empty means none.
    pub header: &'a [u8],
    /// The body.
    pub payload: &'a [u8],
}

/// Room for `HMSG `, blanks, line ends and two sizes.
const FRAME: usize = 5 + 4 + 20 + 4;

/// MSG, or HMSG if there is a header.
#[inline]
pub fn message(out: &mut Vec<u8>, m: &Delivery<'_>) {
    let total = m.header.len() + m.payload.len();
    out.reserve(FRAME + m.subject.len() + m.sid.len() + m.reply.len() + total);
    let verb: &[u8] = if m.header.is_empty() { b"MSG " } else { b"HMSG " };
    out.extend_from_slice(verb);
    out.extend_from_slice(m.subject);
    out.push(b' ');
    out.extend_from_slice(m.sid);
    out.push(b' ');
    if !m.reply.is_empty() {
        out.extend_from_slice(m.reply);
        out.push(b' ');
    }
    if !m.header.is_empty() {
        number(out, m.header.len());
        out.push(b' ');
    }
    number(out, total);
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(m.header);
    out.extend_from_slice(m.payload);
    out.extend_from_slice(b"\r\n");
}

/// PING.
pub fn ping(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PING\r\n");
}

/// PONG.
pub fn pong(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PONG\r\n");
}

/// +OK.
pub fn ok(out: &mut Vec<u8>) {
    out.extend_from_slice(b"+OK\r\n");
}

/// -ERR. The text is bytes because it may quote a subject, which need not be UTF-8.
pub fn err(out: &mut Vec<u8>, text: impl AsRef<[u8]>) {
    out.extend_from_slice(b"-ERR '");
    out.extend_from_slice(text.as_ref());
    out.extend_from_slice(b"'\r\n");
}

/// INFO. Its line ends with a blank before CRLF, as clients of all ages expect it.
pub fn info(out: &mut Vec<u8>, info: &crate::Info) {
    json_line(out, b"INFO ", info);
    out.extend_from_slice(b" \r\n");
}

/// CONNECT, for the side that connects.
pub fn connect(out: &mut Vec<u8>, options: &crate::ConnectOptions) {
    json_line(out, b"CONNECT ", options);
    out.extend_from_slice(b"\r\n");
}

fn json_line(out: &mut Vec<u8>, verb: &[u8], value: &impl Serialize) {
    out.extend_from_slice(verb);
    serde_json::to_writer(&mut *out, value).expect(
        "invariant: plain fields and string keys always have a JSON form, and a Vec takes every write",
    );
}

/// A decimal number.
#[inline]
pub fn number(out: &mut Vec<u8>, mut n: usize) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_take_their_shape_from_what_they_carry() {
        let m = Delivery { subject: b"a.b", sid: b"7", reply: b"", header: b"", payload: b"hi" };
        let cases: &[(Delivery<'_>, &str)] = &[
            (m, "MSG a.b 7 2\r\nhi\r\n"),
            (Delivery { reply: b"r", ..m }, "MSG a.b 7 r 2\r\nhi\r\n"),
            (Delivery { payload: b"", ..m }, "MSG a.b 7 0\r\n\r\n"),
            (Delivery { header: b"NATS/1.0\r\n\r\n", ..m }, "HMSG a.b 7 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"),
            (
                Delivery { header: b"NATS/1.0\r\n\r\n", reply: b"r", payload: b"", ..m },
                "HMSG a.b 7 r 12 12\r\nNATS/1.0\r\n\r\n\r\n",
            ),
        ];
        for (delivery, text) in cases {
            let mut out = Vec::new();
            message(&mut out, delivery);
            assert_eq!(String::from_utf8_lossy(&out), *text);
        }
    }

    #[test]
    fn numbers() {
        for n in [0, 1, 9, 10, 99, 100, 1_048_576, usize::MAX] {
            let mut out = Vec::new();
            number(&mut out, n);
            assert_eq!(String::from_utf8(out).unwrap(), n.to_string());
        }
    }

    #[test]
    fn errors_quote_bytes() {
        let mut out = Vec::new();
        err(&mut out, b"Invalid \xff Subject");
        assert_eq!(out, b"-ERR 'Invalid \xff Subject'\r\n");
    }
}
