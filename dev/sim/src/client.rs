//! A small client of its own: it shares no code with the server that it judges.

use std::fmt::Write as _;

/// A message as a client gets it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Msg {
    /// The subject.
    pub subject: String,
    /// Where answers go; empty: nowhere.
    pub reply: String,
    /// The header block with its first line; empty: none.
    pub header: Vec<u8>,
    /// The body.
    pub payload: Vec<u8>,
}

/// What a server says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Said {
    /// `INFO`.
    Info,
    /// `PING`.
    Ping,
    /// `PONG`.
    Pong,
    /// `+OK`.
    Ok,
    /// `-ERR` and its text.
    Err(String),
    /// `MSG` or `HMSG`.
    Msg(Msg),
}

/// One connection's text protocol, without the connection.
#[derive(Clone, Debug, Default)]
pub struct Protocol {
    input: Vec<u8>,
    at: usize,
}

/// A client's first words: CONNECT, and everything below its inbox prefix as subscription 1. The user's password is its
/// name; without a name it shows nothing.
pub fn hello(inbox: &str, user: &str) -> Vec<u8> {
    let options = r#""verbose":false,"pedantic":false,"headers":true,"no_responders":true,"lang":"sim","version":"1.0.0","protocol":1,"echo":true"#;
    let login =
        if user.is_empty() { String::new() } else { format!(",\"user\":\"{user}\",\"pass\":\"{user}\"") };
    format!("CONNECT {{{options}{login}}}\r\nSUB {inbox}.> 1\r\nPING\r\n").into_bytes()
}

/// Appends a publish. `headers` are complete lines without their line ends.
pub fn publish(out: &mut Vec<u8>, subject: &str, reply: &str, headers: &[String], payload: &[u8]) {
    let mut head = String::new();
    let block = match headers {
        [] => String::new(),
        lines => format!("NATS/1.0\r\n{}\r\n\r\n", lines.join("\r\n")),
    };
    let space = if reply.is_empty() { "" } else { " " };
    let _ = match block.len() {
        0 => write!(head, "PUB {subject}{space}{reply} {}\r\n", payload.len()),
        len => write!(head, "HPUB {subject}{space}{reply} {len} {}\r\n", len + payload.len()),
    };
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(block.as_bytes());
    out.extend_from_slice(payload);
    out.extend_from_slice(b"\r\n");
}

impl Protocol {
    /// Takes bytes; what they complete comes out of `next`.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.drain(..std::mem::take(&mut self.at));
        self.input.extend_from_slice(bytes);
    }

    /// The next thing said, once it is complete; an error if it is no protocol.
    pub fn next(&mut self) -> Result<Option<Said>, String> {
        let rest = &self.input[self.at..];
        let Some(end) = rest.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
        let line = std::str::from_utf8(&rest[..end]).map_err(|_| "a line that is no text".to_owned())?;
        let mut words = line.split(' ');
        let verb = words.next().unwrap_or_default();
        let said = match verb {
            "INFO" => Said::Info,
            "PING" => Said::Ping,
            "PONG" => Said::Pong,
            "+OK" => Said::Ok,
            "-ERR" => Said::Err(line[4..].trim().to_owned()),
            "MSG" | "HMSG" => return self.message(end, verb == "HMSG"),
            _ => return Err(format!("unknown operation {line:?}")),
        };
        self.at += end + 2;
        Ok(Some(said))
    }

    fn message(&mut self, end: usize, has_header: bool) -> Result<Option<Said>, String> {
        let rest = &self.input[self.at..];
        let line = std::str::from_utf8(&rest[..end]).unwrap_or_default();
        let wrong = || format!("malformed {line:?}");
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        let numbers = if has_header { 2 } else { 1 };
        let (names, sizes) = words.split_at_checked(words.len().wrapping_sub(numbers)).ok_or_else(wrong)?;
        let reply = match names {
            [_, _] => "",
            [_, _, reply] => reply,
            _ => return Err(wrong()),
        };
        let sizes: Vec<usize> =
            sizes.iter().map(|size| size.parse()).collect::<Result<_, _>>().map_err(|_| wrong())?;
        let (header_len, total) = (if has_header { sizes[0] } else { 0 }, sizes[numbers - 1]);
        let body = end + 2;
        if header_len > total {
            return Err(wrong());
        }
        let Some(bytes) = rest.get(body..body + total + 2) else { return Ok(None) };
        if &bytes[total..] != b"\r\n" {
            return Err(format!("{line:?} is not followed by its end"));
        }
        let msg = Msg {
            subject: names[0].to_owned(),
            reply: reply.to_owned(),
            header: bytes[..header_len].to_vec(),
            payload: bytes[header_len..total].to_vec(),
        };
        self.at += body + total + 2;
        Ok(Some(Said::Msg(msg)))
    }
}

impl Msg {
    /// The status in the header's first line, such as 404.
    pub fn status(&self) -> Option<u16> {
        let text = std::str::from_utf8(&self.header).ok()?;
        text.strip_prefix("NATS/1.0 ")?.get(..3)?.parse().ok()
    }

    /// A header field.
    pub fn field(&self, key: &str) -> Option<String> {
        let text = std::str::from_utf8(&self.header).ok()?;
        let lines = text.split("\r\n").skip(1);
        let mut fields = lines.filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| *name == key).map(|(_, value)| value.trim().to_owned())
    }

    /// The body as JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.payload).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_of_any_fragments() {
        let text = b"INFO {\"a\":1}\r\nMSG a.b 1 3\r\nxyz\r\nMSG a 1 r.x 0\r\n\r\nHMSG a 1 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\nPING\r\n-ERR 'no'\r\n";
        for size in 1..text.len() {
            let (mut protocol, mut all) = (Protocol::default(), Vec::new());
            for piece in text.chunks(size) {
                protocol.feed(piece);
                while let Some(said) = protocol.next().unwrap() {
                    all.push(said);
                }
            }
            let msg = |subject: &str, reply: &str, header: &[u8], payload: &[u8]| {
                let (subject, reply) = (subject.to_owned(), reply.to_owned());
                Said::Msg(Msg { subject, reply, header: header.to_vec(), payload: payload.to_vec() })
            };
            let want = [
                Said::Info,
                msg("a.b", "", b"", b"xyz"),
                msg("a", "r.x", b"", b""),
                msg("a", "r", b"NATS/1.0\r\n\r\n", b"hi"),
                Said::Ping,
                Said::Err("'no'".to_owned()),
            ];
            assert_eq!(all, want, "{size}");
        }
    }

    #[test]
    fn what_is_no_protocol_is_an_error() {
        for text in
            ["HELLO\r\n", "MSG a 1 x\r\n", "MSG a 1\r\n", "MSG a 1 1\r\nxyz\r\n", "HMSG a 1 9 3\r\nabc\r\n"]
        {
            let mut protocol = Protocol::default();
            protocol.feed(text.as_bytes());
            assert!(protocol.next().is_err(), "{text}");
        }
    }
}
