//! The header block of a message: finding a field, removing one, adding one. Names are compared exactly, and a block
//! that is no block at all has no fields.

const LINE_END: &[u8; 2] = b"\r\n";
/// What every header block starts with.
const VERSION: &[u8] = b"NATS/1.0";
/// A block without any field.
pub(crate) const EMPTY: &[u8] = b"NATS/1.0\r\n\r\n";

/// The largest block that is stored.
pub(crate) const MAX_BYTES: usize = 65_535;

/// Where a field's line starts and where the next one does.
fn find_line(block: &[u8], name: &str) -> Option<(usize, usize)> {
    let name = name.as_bytes();
    let mut at = find(block, LINE_END, 0)? + 2;
    while let Some(end) = find(block, LINE_END, at) {
        let line = &block[at..end];
        if line.len() > name.len() && line[name.len()] == b':' && line.starts_with(name) {
            return Some((at, end + 2));
        }
        at = end + 2;
    }
    None
}

fn find(bytes: &[u8], needle: &[u8; 2], from: usize) -> Option<usize> {
    bytes.get(from..)?.windows(2).position(|pair| pair == needle).map(|at| from + at)
}

/// Every field: name and value, without the spaces before it.
pub(crate) fn fields(block: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut at = find(block, LINE_END, 0).map_or(block.len(), |end| end + 2);
    std::iter::from_fn(move || {
        loop {
            let end = find(block, LINE_END, at)?;
            let line = &block[at..end];
            at = end + 2;
            if let Some(colon) = line.iter().position(|&b| b == b':') {
                let value = &line[colon + 1..];
                let spaces = value.iter().take_while(|&&b| b == b' ').count();
                return Some((&line[..colon], &value[spaces..]));
            }
        }
    })
}

/// The block without any line of that name.
pub(crate) fn without(block: &[u8], name: &str) -> Vec<u8> {
    let mut block = block.to_vec();
    while let Some((start, end)) = find_line(&block, name) {
        block.drain(start..end);
    }
    block
}

/// The block without the lines whose names begin with one of these, if it has any; nothing when no line is left. One that
/// ends with a colon is a whole name.
pub(crate) fn without_prefixes(block: &[u8], prefixes: &[&str]) -> Option<Vec<u8>> {
    let goes = |name: &[u8]| {
        prefixes.iter().any(|prefix| match prefix.strip_suffix(':') {
            Some(whole) => name == whole.as_bytes(),
            None => name.starts_with(prefix.as_bytes()),
        })
    };
    if !fields(block).any(|(name, _)| goes(name)) {
        return None;
    }
    let mut left = Vec::new();
    for (name, value) in fields(block).filter(|(name, _)| !goes(name)) {
        push(&mut left, &String::from_utf8_lossy(name), value);
    }
    Some(left)
}

/// Replaces a field where it is, or appends it.
pub(crate) fn set(block: &mut Vec<u8>, name: &str, value: &[u8]) {
    match find_line(block, name) {
        Some((start, end)) => {
            let line = [name.as_bytes(), b": ", value, LINE_END].concat();
            block.splice(start..end, line);
        }
        None => push(block, name, value),
    }
}

/// Appends a field; `block` may be empty.
pub(crate) fn push(block: &mut Vec<u8>, name: &str, value: &[u8]) {
    if block.is_empty() {
        block.extend_from_slice(EMPTY);
    }
    if block.ends_with(b"\r\n\r\n") {
        block.truncate(block.len() - 2);
    } else if !block.ends_with(LINE_END) {
        block.extend_from_slice(LINE_END);
    }
    block.extend_from_slice(name.as_bytes());
    block.extend_from_slice(b": ");
    block.extend_from_slice(value);
    block.extend_from_slice(b"\r\n\r\n");
}

/// The block without a status in its first line, if it has one: a status is for the transport, not for the store.
pub(crate) fn without_status(block: &[u8]) -> Option<Vec<u8>> {
    let status = block.strip_prefix(VERSION)?;
    let end = find(status, LINE_END, 0)?;
    if end == 0 {
        return None;
    }
    let rest = &status[end..];
    match rest == b"\r\n\r\n" {
        true => Some(Vec::new()),
        false => Some([VERSION, rest].concat()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_first_exact_name() {
        let cases: [(&[u8], Option<&[u8]>); 11] = [
            (b"NATS/1.0\r\nA: b\r\n\r\n", Some(b"b")),
            (b"NATS/1.0\r\nA:b\r\n\r\n", Some(b"b")),
            (b"NATS/1.0\r\nX: y\r\nA:   b  \r\n\r\n", Some(b"b  ")),
            (b"NATS/1.0\r\nA: 1\r\nA: 2\r\n\r\n", Some(b"1")),
            (b"NATS/1.0\r\na: b\r\n\r\n", None),
            (b"NATS/1.0\r\nXA: b\r\n\r\n", None),
            (b"NATS/1.0\r\nX: A: b\r\n\r\n", None),
            (b"NATS/1.0\r\nA : b\r\n\r\n", None),
            (b"NATS/1.0\r\nA: \r\n\r\n", Some(b"")),
            (b"garbage", None),
            (b"NATS/1.0\r\nA: b", None),
        ];
        for (block, expected) in cases {
            let found = fields(block).find(|(name, _)| *name == b"A").map(|(_, value)| value);
            assert_eq!(found, expected, "{}", String::from_utf8_lossy(block));
        }
    }

    #[test]
    fn removes_and_adds() {
        let mut block = without(b"NATS/1.0\r\nX: y\r\nA: 1\r\nZ: z\r\nA: 2\r\n\r\n", "A");
        assert_eq!(block, b"NATS/1.0\r\nX: y\r\nZ: z\r\n\r\n");
        push(&mut block, "A", b"3");
        assert_eq!(block, b"NATS/1.0\r\nX: y\r\nZ: z\r\nA: 3\r\n\r\n");
        set(&mut block, "X", b"w");
        set(&mut block, "B", b"4");
        assert_eq!(block, b"NATS/1.0\r\nX: w\r\nZ: z\r\nA: 3\r\nB: 4\r\n\r\n");
        let mut block = Vec::new();
        push(&mut block, "A", b"3");
        assert_eq!(block, b"NATS/1.0\r\nA: 3\r\n\r\n");
    }

    #[test]
    fn strips_an_inline_status() {
        for (block, expected) in [
            (&b"NATS/1.0 200 OK\r\nA: b\r\n\r\n"[..], Some(&b"NATS/1.0\r\nA: b\r\n\r\n"[..])),
            (b"NATS/1.0 503\r\n\r\n", Some(b"")),
            (b"NATS/1.0  \r\nA: b\r\n\r\n", Some(b"NATS/1.0\r\nA: b\r\n\r\n")),
            (b"NATS/1.0\r\n\r\n", None),
            (b"garbage", None),
        ] {
            assert_eq!(without_status(block).as_deref(), expected);
        }
    }
}
