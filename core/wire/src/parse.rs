//! Bytes to client operations: one operation a call, borrowed from the input, no state between calls.

use memchr::memchr2;
use thiserror::Error;

/// What a connection may send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Bytes that an operation's arguments may have, without the verb and the line end.
    pub max_control_line: usize,
    /// Bytes of headers and payload together.
    pub max_payload: usize,
    /// Whether HPUB is allowed: the client said `headers: true` and the server supports them.
    pub headers: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { max_control_line: 4096, max_payload: 1024 * 1024, headers: true }
    }
}

/// A published message as PUB or HPUB wrote it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Publish<'a> {
    /// Where it goes, not yet checked.
    pub subject: &'a [u8],
    /// Where answers go; empty means none.
    pub reply: &'a [u8],
    /// The header block with its final empty line; empty means none.
    pub header: &'a [u8],
    /// The body.
    pub payload: &'a [u8],
}

/// One operation of a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientOp<'a> {
    /// PUB and HPUB.
    Pub(Publish<'a>),
    /// SUB.
    Sub {
        /// The filter, not yet checked.
        subject: &'a [u8],
        /// The queue group, if it asks for one.
        queue: Option<&'a [u8]>,
        /// The client's own name of the subscription.
        sid: &'a [u8],
    },
    /// UNSUB.
    Unsub {
        /// The subscription.
        sid: &'a [u8],
        /// After how many messages in all; `None` means now. A maximum that is no number means now, too.
        max: Option<u64>,
    },
    /// CONNECT with its JSON, not yet parsed.
    Connect(&'a [u8]),
    /// PING.
    Ping,
    /// PONG.
    Pong,
    /// INFO with its JSON. Clients have no use for it, but it must be valid JSON.
    Info(&'a [u8]),
    /// +OK.
    Ok,
    /// -ERR with its text: the client says goodbye.
    Err(&'a [u8]),
}

/// What the front of the input held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step<'a> {
    /// An operation, and how many bytes it took.
    Op(ClientOp<'a>, usize),
    /// Not yet an operation. `need` is the least number of bytes in all that can hold it.
    Incomplete {
        /// Always more than the input has.
        need: usize,
    },
}

/// What is wrong with an operation's arguments. The server only logs it.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum BadArguments {
    /// Too few or too many arguments.
    #[error("Parse Error")]
    Count,
    /// The size is missing or not a number.
    #[error("Bad or Missing Size")]
    Size,
    /// The header size is missing or not a number.
    #[error("Bad or Missing Header Size")]
    HeaderSize,
    /// The headers are said to be larger than the whole.
    #[error("Header Size larger then TotalSize")]
    HeaderLargerThanTotal,
}

/// Why the input cannot be served. Each of these ends the connection.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum ParseError {
    /// No verb begins like this, or a payload does not end with CRLF.
    #[error("Unknown Protocol Operation")]
    UnknownOperation,
    /// The arguments are longer than `max_control_line`.
    #[error("maximum control line exceeded")]
    ControlLine,
    /// The message is larger than `max_payload`.
    #[error("maximum payload exceeded: {size} vs {max}")]
    MaxPayload {
        /// As announced.
        size: usize,
        /// As configured.
        max: usize,
    },
    /// The arguments make no sense.
    #[error("process{verb} {what}")]
    Arguments {
        /// `Pub`, `HeaderPub`, `Sub`, `Unsub`.
        verb: &'static str,
        /// In which way.
        what: BadArguments,
    },
    /// HPUB where headers are off.
    #[error("message headers not supported")]
    HeadersNotSupported,
    /// A carriage return without a line feed among the arguments: it must not travel on in a subject.
    #[error("Parse Error: carriage return in control line")]
    CarriageReturn,
}

impl ParseError {
    /// What stands in `-ERR '...'` before the close; some closes are silent.
    pub fn err_text(&self) -> Option<&'static str> {
        match self {
            ParseError::UnknownOperation => Some("Unknown Protocol Operation"),
            ParseError::ControlLine => Some("maximum control line exceeded"),
            ParseError::MaxPayload { .. } => Some("Maximum Payload Violation"),
            ParseError::Arguments { .. } | ParseError::HeadersNotSupported | ParseError::CarriageReturn => {
                None
            }
        }
    }
}

/// Reads the operation at the front of `buf`.
pub fn parse<'a>(buf: &'a [u8], limits: &Limits) -> Result<Step<'a>, ParseError> {
    // PUB and HPUB are nearly everything: they are tried before the table of verbs.
    if let [b'P' | b'p', b'U' | b'u', b'B' | b'b', b' ' | b'\t', rest @ ..] = buf {
        return parse_pub(buf, 4, rest, limits);
    }
    if let [b'H' | b'h', b'P' | b'p', b'U' | b'u', b'B' | b'b', b' ' | b'\t', rest @ ..] = buf {
        if !limits.headers {
            return Err(ParseError::HeadersNotSupported);
        }
        return parse_hpub(buf, 5, rest, limits);
    }
    parse_other(buf, limits)
}

/// What follows a verb.
#[derive(Clone, Copy, PartialEq)]
enum After {
    /// At least one blank, then arguments.
    Blank,
    /// Arguments at once, blanks optional.
    Any,
    /// Anything up to the line end, ignored.
    Ignored,
}

const VERBS: &[(&[u8], After)] = &[
    (b"PUB", After::Blank),
    (b"HPUB", After::Blank),
    (b"SUB", After::Blank),
    (b"UNSUB", After::Blank),
    (b"CONNECT", After::Any),
    (b"PING", After::Ignored),
    (b"PONG", After::Ignored),
    (b"INFO", After::Any),
    (b"+OK", After::Ignored),
    (b"-ERR", After::Blank),
];

fn parse_other<'a>(buf: &'a [u8], limits: &Limits) -> Result<Step<'a>, ParseError> {
    let Some(&(verb, after)) = VERBS.iter().find(|(verb, _)| {
        let n = verb.len().min(buf.len());
        buf[..n].eq_ignore_ascii_case(&verb[..n])
    }) else {
        return Err(ParseError::UnknownOperation);
    };
    if buf.len() <= verb.len() {
        return Ok(Step::Incomplete { need: verb.len() + 1 });
    }
    let rest = &buf[verb.len()..];
    if after == After::Blank && !is_blank(rest[0]) {
        return Err(ParseError::UnknownOperation);
    }
    let (line, consumed) = match control_line(buf, verb.len(), rest, limits)? {
        Line::Complete { line, consumed } => (line, consumed),
        Line::Partial { need } => return Ok(Step::Incomplete { need }),
    };
    let op = match verb {
        b"SUB" => parse_sub(line)?,
        b"UNSUB" => parse_unsub(line)?,
        b"CONNECT" => ClientOp::Connect(line),
        b"PING" => ClientOp::Ping,
        b"PONG" => ClientOp::Pong,
        b"INFO" => ClientOp::Info(line),
        b"+OK" => ClientOp::Ok,
        b"-ERR" => ClientOp::Err(line),
        // PUB and HPUB with a blank after them were taken by `parse`.
        _ => return Err(ParseError::UnknownOperation),
    };
    Ok(Step::Op(op, consumed))
}

enum Line<'a> {
    Complete { line: &'a [u8], consumed: usize },
    Partial { need: usize },
}

/// The arguments up to the line end, without blanks at their begin. `rest` is `buf` from `start` on.
#[inline]
fn control_line<'a>(
    buf: &'a [u8],
    start: usize,
    rest: &'a [u8],
    limits: &Limits,
) -> Result<Line<'a>, ParseError> {
    let end = memchr2(b'\r', b'\n', rest);
    let line = trim_start(&rest[..end.unwrap_or(rest.len())]);
    if line.len() > limits.max_control_line {
        return Err(ParseError::ControlLine);
    }
    let partial = Line::Partial { need: buf.len() + 1 };
    let Some(end) = end else {
        // A client may send blanks without end: they count from here on, so that input is never kept unbounded.
        return if rest.len() > 2 * limits.max_control_line + 64 {
            Err(ParseError::ControlLine)
        } else {
            Ok(partial)
        };
    };
    match rest[end..] {
        [b'\n', ..] => Ok(Line::Complete { line, consumed: start + end + 1 }),
        [_, b'\n', ..] => Ok(Line::Complete { line, consumed: start + end + 2 }),
        [_] => Ok(partial),
        _ => Err(ParseError::CarriageReturn),
    }
}

#[inline]
fn parse_pub<'a>(
    buf: &'a [u8],
    start: usize,
    rest: &'a [u8],
    limits: &Limits,
) -> Result<Step<'a>, ParseError> {
    let (line, at) = match control_line(buf, start, rest, limits)? {
        Line::Complete { line, consumed } => (line, consumed),
        Line::Partial { need } => return Ok(Step::Incomplete { need }),
    };
    let bad = |what| ParseError::Arguments { verb: "Pub", what };
    let (subject, rest) = token(line);
    let (second, rest) = token(rest);
    let (reply, size) = if rest.is_empty() {
        (&[][..], second)
    } else {
        let (size, rest) = token(rest);
        if !rest.is_empty() {
            return Err(bad(BadArguments::Count));
        }
        (second, size)
    };
    if size.is_empty() {
        return Err(bad(BadArguments::Count));
    }
    let size = number(size).ok_or(bad(BadArguments::Size))?;
    Ok(match body(buf, at, Sizes { header: 0, total: size }, limits)? {
        Body::Complete { header, payload, consumed } => {
            Step::Op(ClientOp::Pub(Publish { subject, reply, header, payload }), consumed)
        }
        Body::Partial { need } => Step::Incomplete { need },
    })
}

#[inline]
fn parse_hpub<'a>(
    buf: &'a [u8],
    start: usize,
    rest: &'a [u8],
    limits: &Limits,
) -> Result<Step<'a>, ParseError> {
    let (line, at) = match control_line(buf, start, rest, limits)? {
        Line::Complete { line, consumed } => (line, consumed),
        Line::Partial { need } => return Ok(Step::Incomplete { need }),
    };
    let bad = |what| ParseError::Arguments { verb: "HeaderPub", what };
    let (subject, rest) = token(line);
    let (second, rest) = token(rest);
    let (third, rest) = token(rest);
    let (reply, header, total) = if rest.is_empty() {
        (&[][..], second, third)
    } else {
        let (fourth, rest) = token(rest);
        if !rest.is_empty() {
            return Err(bad(BadArguments::Count));
        }
        (second, third, fourth)
    };
    if total.is_empty() {
        return Err(bad(BadArguments::Count));
    }
    let header = number(header).ok_or(bad(BadArguments::HeaderSize))?;
    let total = number(total).ok_or(bad(BadArguments::Size))?;
    if header > total {
        return Err(bad(BadArguments::HeaderLargerThanTotal));
    }
    Ok(match body(buf, at, Sizes { header, total }, limits)? {
        Body::Complete { header, payload, consumed } => {
            Step::Op(ClientOp::Pub(Publish { subject, reply, header, payload }), consumed)
        }
        Body::Partial { need } => Step::Incomplete { need },
    })
}

struct Sizes {
    header: usize,
    total: usize,
}

enum Body<'a> {
    Complete { header: &'a [u8], payload: &'a [u8], consumed: usize },
    Partial { need: usize },
}

/// The bytes after the control line, which ends at `at`, with their CRLF.
#[inline]
fn body<'a>(buf: &'a [u8], at: usize, sizes: Sizes, limits: &Limits) -> Result<Body<'a>, ParseError> {
    if sizes.total > limits.max_payload {
        return Err(ParseError::MaxPayload { size: sizes.total, max: limits.max_payload });
    }
    let end = at + sizes.total;
    match buf.get(end..) {
        Some([b'\r', b'\n', ..]) => {
            let (header, payload) = buf[at..end].split_at(sizes.header);
            Ok(Body::Complete { header, payload, consumed: end + 2 })
        }
        None | Some([] | [b'\r']) => Ok(Body::Partial { need: end + 2 }),
        Some(_) => Err(ParseError::UnknownOperation),
    }
}

fn parse_sub(line: &[u8]) -> Result<ClientOp<'_>, ParseError> {
    let (subject, rest) = token(line);
    let (second, rest) = token(rest);
    let (third, rest) = token(rest);
    if second.is_empty() || !rest.is_empty() {
        return Err(ParseError::Arguments { verb: "Sub", what: BadArguments::Count });
    }
    Ok(if third.is_empty() {
        ClientOp::Sub { subject, queue: None, sid: second }
    } else {
        ClientOp::Sub { subject, queue: Some(second), sid: third }
    })
}

fn parse_unsub(line: &[u8]) -> Result<ClientOp<'_>, ParseError> {
    let (sid, rest) = token(line);
    let (max, rest) = token(rest);
    if sid.is_empty() || !rest.is_empty() {
        return Err(ParseError::Arguments { verb: "Unsub", what: BadArguments::Count });
    }
    let max = number(max).filter(|&max| max > 0).map(|max| max as u64);
    Ok(ClientOp::Unsub { sid, max })
}

#[inline]
fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

#[inline]
fn trim_start(mut line: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = line {
        line = rest;
    }
    line
}

/// The first token and what follows it, without the blanks between. `line` does not begin with a blank.
#[inline]
fn token(line: &[u8]) -> (&[u8], &[u8]) {
    match memchr2(b' ', b'\t', line) {
        Some(end) => (&line[..end], trim_start(&line[end + 1..])),
        None => (line, &[]),
    }
}

/// A size: up to ten digits, at most what an `i32` holds, as nothing larger can be configured.
#[inline]
fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > 10 {
        return None;
    }
    let mut n: u64 = 0;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        n = n * 10 + u64::from(digit);
    }
    (n <= i32::MAX as u64).then_some(n as usize)
}

#[cfg(test)]
mod tests;
