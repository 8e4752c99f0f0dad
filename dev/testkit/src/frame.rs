//! What a server sends, cut into frames: a text line, or a message with headers and payload.

use std::fmt;

/// One frame from the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The control line without its line ending; for messages without the byte counts (those are proven by
    /// the framing itself).
    pub line: String,
    /// The subject of a message.
    pub subject: Option<String>,
    /// The header block's lines, the `NATS/1.0` line first; empty without headers.
    pub headers: Vec<String>,
    /// The payload of a message.
    pub payload: Vec<u8>,
}

/// Why bytes are not a frame.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A message line with a wrong number of arguments or a bad count.
    #[error("malformed message line {0:?}")]
    Line(String),
    /// The payload is not followed by CRLF.
    #[error("the payload of {0:?} does not end with CRLF")]
    End(String),
    /// The header block does not start with NATS/1.0 or does not end with an empty line.
    #[error("malformed header block {0:?}")]
    Header(String),
}

impl Frame {
    /// Cuts one frame off the front of `bytes`: the frame and its length, or None while it is incomplete.
    pub fn cut(bytes: &[u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") else {
            return Ok(None);
        };
        let line = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let is_headed = line.starts_with("HMSG ");
        if !is_headed && !line.starts_with("MSG ") {
            let line = line.trim_end().to_owned();
            return Ok(Some((
                Self { line, subject: None, headers: Vec::new(), payload: Vec::new() },
                end + 2,
            )));
        }
        // Some of nats-server's own messages have two blanks where the reply would be.
        let mut words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let bad = || FrameError::Line(line.clone());
        let mut count = || words.pop().and_then(|w| w.parse::<usize>().ok());
        let total = count().ok_or_else(bad)?;
        let header_len = if is_headed { count().ok_or_else(bad)? } else { 0 };
        if !(3..=4).contains(&words.len()) || header_len > total {
            return Err(bad());
        }
        let start = end + 2;
        if bytes.len() < start + total + 2 {
            return Ok(None);
        }
        let body = &bytes[start..start + total];
        if &bytes[start + total..start + total + 2] != b"\r\n" {
            return Err(FrameError::End(line));
        }
        let headers = if is_headed { header_lines(&body[..header_len])? } else { Vec::new() };
        let frame = Self {
            subject: Some(words[1].to_owned()),
            line: words.join(" "),
            headers,
            payload: body[header_len..].to_vec(),
        };
        Ok(Some((frame, start + total + 2)))
    }
}

fn header_lines(block: &[u8]) -> Result<Vec<String>, FrameError> {
    let text = String::from_utf8_lossy(block);
    let bad = || FrameError::Header(text.clone().into_owned());
    let inner = text.strip_suffix("\r\n\r\n").ok_or_else(bad)?;
    if !inner.starts_with("NATS/1.0") {
        return Err(bad());
    }
    Ok(inner.split("\r\n").map(str::to_owned).collect())
}

/// Printed in the notation of the scripts, so that it can be pasted into one.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.line)?;
        for header in &self.headers {
            write!(f, "\n  : {header}")?;
        }
        if !self.payload.is_empty() {
            let shown = String::from_utf8_lossy(&self.payload);
            let cut: String = shown.chars().take(4000).collect();
            for line in cut.split('\n') {
                write!(f, "\n  | {line}")?;
            }
            if cut.len() < shown.len() {
                write!(f, "\n  ... ({} bytes in all)", self.payload.len())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_at_their_ends() {
        let cases: &[(&str, &str)] = &[
            ("PONG\r\nPING\r\n", "PONG @6"),
            ("INFO {} \r\n", "INFO {} @10"),
            ("MSG a 1 5\r\nhello\r\n", "MSG a 1\n  | hello @18"),
            ("MSG a 1 r 2\r\nhi\r\n+OK\r\n", "MSG a 1 r\n  | hi @17"),
            (
                "HMSG a 1 22 24\r\nNATS/1.0 503\r\nA: b\r\n\r\nhi\r\n",
                "HMSG a 1\n  : NATS/1.0 503\n  : A: b\n  | hi @42",
            ),
        ];
        for (bytes, want) in cases {
            let (frame, len) = Frame::cut(bytes.as_bytes()).unwrap().unwrap();
            assert_eq!(format!("{frame} @{len}"), *want);
        }
    }

    #[test]
    fn incomplete_and_malformed_bytes_are_told_apart() {
        for part in ["", "PON", "MSG a 1 5\r\nhell", "MSG a 1 5\r\nhello\r"] {
            assert_eq!(Frame::cut(part.as_bytes()), Ok(None), "{part:?}");
        }
        for bad in ["MSG a 5\r\n", "MSG a 1 x\r\n", "MSG a 1 2\r\nhello\r\n", "HMSG a 1 4 4\r\nabcd\r\n"] {
            assert!(Frame::cut(bad.as_bytes()).is_err(), "{bad:?}");
        }
    }
}
