//! Header blocks: `NATS/1.0[ status[ text]]`, then lines `Name: value`, then an empty line, each ended by CRLF.
//!
//! Names are compared byte by byte, with regard to case, as NATS does. Blocks from the network may be anything:
//! reading skips what is no header line, editing keeps it.

use std::borrow::Cow;

use memchr::{memchr, memmem};

const VERSION: &[u8] = b"NATS/1.0";

/// A header block, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    status: &'a [u8],
    lines: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Reads the block's first line; `None` if it is not NATS'.
    pub fn parse(block: &'a [u8]) -> Option<Headers<'a>> {
        let rest = block.strip_prefix(VERSION)?;
        let (status, lines) = line(rest);
        Some(Headers { status: status.trim_ascii(), lines })
    }

    /// The code of the inline status, such as 503.
    pub fn status(&self) -> Option<u16> {
        let code = self.status.get(..3)?;
        if !matches!(self.status.get(3), None | Some(b' ')) {
            return None;
        }
        std::str::from_utf8(code).ok()?.parse().ok()
    }

    /// The text after the inline status; empty if there is none.
    pub fn description(&self) -> &'a [u8] {
        self.status().map_or(&[], |_| self.status[3..].trim_ascii_start())
    }

    /// The first value of that name, without blanks around it.
    pub fn get(&self, name: impl AsRef<[u8]>) -> Option<&'a [u8]> {
        let name = name.as_ref();
        self.iter().find(|(n, _)| *n == name).map(|(_, value)| value)
    }

    /// All values of that name.
    pub fn all(&self, name: impl AsRef<[u8]>) -> impl Iterator<Item = &'a [u8]> {
        self.iter().filter(move |(n, _)| *n == name.as_ref()).map(|(_, value)| value)
    }

    /// Names and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        lines(self.lines).filter_map(|(line, _)| split(line))
    }
}

/// The first value of that name in a block: for one look-up.
pub fn get(block: &[u8], name: impl AsRef<[u8]>) -> Option<&[u8]> {
    let name = name.as_ref();
    // Most blocks lack most names: one search rules them out.
    memmem::find(block, name)?;
    Headers::parse(block)?.get(name)
}

/// A block in the making.
#[derive(Clone, Debug)]
pub struct Builder {
    block: Vec<u8>,
}

impl Default for Builder {
    fn default() -> Builder {
        Builder::new()
    }
}

impl Builder {
    /// A block without a status.
    pub fn new() -> Builder {
        let mut block = VERSION.to_vec();
        block.extend_from_slice(b"\r\n");
        Builder { block }
    }

    /// A block with an inline status; the text may be empty.
    pub fn with_status(code: u16, text: &str) -> Builder {
        let mut block = VERSION.to_vec();
        block.push(b' ');
        crate::encode::number(&mut block, usize::from(code));
        if !text.is_empty() {
            block.push(b' ');
            push_clean(&mut block, text.as_bytes());
        }
        block.extend_from_slice(b"\r\n");
        Builder { block }
    }

    /// Continues an existing block; one that is empty or not NATS' is replaced.
    pub fn from_block(block: &[u8]) -> Builder {
        match open(block) {
            Some(lines) => Builder { block: lines.to_vec() },
            None => Builder::new(),
        }
    }

    /// Adds a line. Line ends within name or value are left out, so that a value cannot become a header.
    #[must_use]
    pub fn add(mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Builder {
        self.push(name, value);
        self
    }

    /// As [`Builder::add`].
    pub fn push(&mut self, name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        push_clean(&mut self.block, name.as_ref());
        self.block.extend_from_slice(b": ");
        push_clean(&mut self.block, value.as_ref());
        self.block.extend_from_slice(b"\r\n");
    }

    /// The block with its final empty line.
    pub fn finish(mut self) -> Vec<u8> {
        self.block.extend_from_slice(b"\r\n");
        self.block
    }
}

/// The block with one more header at its end; an empty block becomes one.
pub fn append(block: &[u8], name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<u8> {
    Builder::from_block(block).add(name, value).finish()
}

/// The block without the headers of that name; empty if nothing is left to say.
pub fn remove(block: &[u8], name: impl AsRef<[u8]>) -> Vec<u8> {
    let name = name.as_ref();
    retain(block, |n| n != name)
}

/// The block without the headers of this name; what has none is not copied.
pub fn without(block: &[u8], name: impl AsRef<[u8]>) -> Cow<'_, [u8]> {
    let name = name.as_ref();
    match get(block, name) {
        None => Cow::Borrowed(block),
        Some(_) => Cow::Owned(remove(block, name)),
    }
}

/// The block without the headers whose names begin so; empty if nothing is left to say.
pub fn remove_prefix(block: &[u8], prefix: impl AsRef<[u8]>) -> Vec<u8> {
    let prefix = prefix.as_ref();
    retain(block, |n| !n.starts_with(prefix))
}

/// The block without the headers whose names `keep` refuses; empty if nothing is left to say.
pub fn retain(block: &[u8], mut keep: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let Some(opened) = open(block) else {
        return block.to_vec();
    };
    let (first, rest) = line(opened);
    let mut out = opened[..opened.len() - rest.len()].to_vec();
    let bare = out.len();
    for (text, with_end) in lines(rest) {
        if split(text).is_none_or(|(name, _)| keep(name)) {
            out.extend_from_slice(with_end);
        }
    }
    if out.len() == bare && first == VERSION {
        return Vec::new();
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The block with a plain first line; empty if nothing is left to say.
pub fn strip_status(block: &[u8]) -> Vec<u8> {
    let Some(opened) = open(block) else {
        return block.to_vec();
    };
    let (_, rest) = line(opened);
    if rest.is_empty() {
        return Vec::new();
    }
    let mut out = VERSION.to_vec();
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(rest);
    out.extend_from_slice(b"\r\n");
    out
}

/// The block without its final empty line, each line with its end; `None` if it is not NATS'.
fn open(block: &[u8]) -> Option<&[u8]> {
    if !block.starts_with(VERSION) {
        return None;
    }
    let without_end = block.strip_suffix(b"\r\n\r\n").map(|b| b.len() + 2);
    // A block that is only a first line, or that was cut, may lack the empty line: it is not lengthened here.
    block.get(..without_end.unwrap_or(block.len())).filter(|b| b.ends_with(b"\r\n"))
}

/// The first line without its end, and the rest.
fn line(text: &[u8]) -> (&[u8], &[u8]) {
    match memmem::find(text, b"\r\n") {
        Some(end) => (&text[..end], &text[end + 2..]),
        None => (text, &[]),
    }
}

/// Lines, each without and with its end, up to the empty one.
fn lines(mut text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        let (first, rest) = line(text);
        let with_end = &text[..text.len() - rest.len()];
        text = rest;
        (!first.is_empty()).then_some((first, with_end))
    })
}

/// Name and value of a line.
fn split(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr(b':', line)?;
    (colon > 0).then(|| (&line[..colon], line[colon + 1..].trim_ascii()))
}

fn push_clean(out: &mut Vec<u8>, text: &[u8]) {
    out.extend(text.iter().filter(|b| !matches!(b, b'\r' | b'\n')));
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: &[u8] = b"NATS/1.0\r\nA: 1\r\nb:2\r\nA:  3 \r\nX-One: x\r\nX-Two: y:z\r\n\r\n";

    #[test]
    fn reading() {
        let headers = Headers::parse(BLOCK).unwrap();
        let cases: &[(&str, Option<&str>)] = &[
            ("A", Some("1")),
            ("a", None),
            ("b", Some("2")),
            ("B", None),
            ("X-Two", Some("y:z")),
            ("X", None),
        ];
        for (name, value) in cases {
            let value = value.map(str::as_bytes);
            assert_eq!(headers.get(name), value, "{name}");
            assert_eq!(get(BLOCK, name), value, "{name}");
        }
        assert_eq!(headers.all("A").collect::<Vec<_>>(), [b"1", b"3"]);
        assert_eq!(headers.iter().count(), 5);
    }

    #[test]
    fn statuses() {
        let cases: &[(&str, Option<u16>, &str)] = &[
            ("NATS/1.0\r\n\r\n", None, ""),
            ("NATS/1.0 503\r\n\r\n", Some(503), ""),
            ("NATS/1.0 100 Idle Heartbeat\r\n\r\n", Some(100), "Idle Heartbeat"),
            ("NATS/1.0  404   No Messages \r\nA: b\r\n\r\n", Some(404), "No Messages"),
            ("NATS/1.0 5x3\r\n\r\n", None, ""),
            ("NATS/1.0 5033\r\n\r\n", None, ""),
            ("NATS/1.0 50", None, ""),
        ];
        for (block, status, text) in cases {
            let headers = Headers::parse(block.as_bytes()).unwrap();
            assert_eq!(headers.status(), *status, "{block}");
            assert_eq!(headers.description(), text.as_bytes(), "{block}");
        }
        assert!(Headers::parse(b"HTTP/1.1\r\n\r\n").is_none());
    }

    #[test]
    fn editing() {
        let cases: &[(&str, Vec<u8>, &str)] = &[
            ("append", append(b"NATS/1.0\r\nA: 1\r\n\r\n", "B", "2"), "NATS/1.0\r\nA: 1\r\nB: 2\r\n\r\n"),
            ("append to nothing", append(b"", "B", "2"), "NATS/1.0\r\nB: 2\r\n\r\n"),
            ("append to a status", append(b"NATS/1.0 503\r\n\r\n", "B", "2"), "NATS/1.0 503\r\nB: 2\r\n\r\n"),
            ("no injection", append(b"", "B", "2\r\nC: 3"), "NATS/1.0\r\nB: 2C: 3\r\n\r\n"),
            ("remove", remove(BLOCK, "A"), "NATS/1.0\r\nb:2\r\nX-One: x\r\nX-Two: y:z\r\n\r\n"),
            ("remove nothing", remove(BLOCK, "Z"), std::str::from_utf8(BLOCK).unwrap()),
            ("remove the last", remove(b"NATS/1.0\r\nA: 1\r\n\r\n", "A"), ""),
            ("the status stays", remove(b"NATS/1.0 404\r\nA: 1\r\n\r\n", "A"), "NATS/1.0 404\r\n\r\n"),
            ("remove by prefix", remove_prefix(BLOCK, "X-"), "NATS/1.0\r\nA: 1\r\nb:2\r\nA:  3 \r\n\r\n"),
            ("strip", strip_status(b"NATS/1.0 404 No\r\nA: 1\r\n\r\n"), "NATS/1.0\r\nA: 1\r\n\r\n"),
            ("strip all", strip_status(b"NATS/1.0 404 No\r\n\r\n"), ""),
            (
                "build",
                Builder::with_status(503, "").add("Nats-Subject", "a").finish(),
                "NATS/1.0 503\r\nNats-Subject: a\r\n\r\n",
            ),
            (
                "build text",
                Builder::with_status(100, "Idle Heartbeat").finish(),
                "NATS/1.0 100 Idle Heartbeat\r\n\r\n",
            ),
            ("foreign blocks stay", remove(b"abcd", "A"), "abcd"),
        ];
        for (name, got, expected) in cases {
            assert_eq!(String::from_utf8_lossy(got), *expected, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn anything_may_come(block: Vec<u8>, tail: Vec<u8>) {
            for block in [block.clone(), [b"NATS/1.0".as_slice(), &block].concat(), [b"NATS/1.0\r\n", &block[..], b":", &tail].concat()] {
                if let Some(headers) = Headers::parse(&block) {
                    let _ = (headers.status(), headers.description(), headers.iter().count());
                }
                let _ = (remove(&block, "A"), remove_prefix(&block, ""), strip_status(&block));
                let added = append(&block, "Some-Name", &tail);
                proptest::prop_assert!(added.ends_with(b"\r\n\r\n"));
            }
        }
    }
}
