//! Characters with their places: blanks, comments, words and quoted strings.

use std::sync::Arc;

use crate::error::{ConfError, Position, Problem};

/// A cursor over the text of one file.
pub(crate) struct Scanner<'t> {
    file: Arc<str>,
    text: &'t str,
    offset: usize,
    line: u32,
    column: u32,
}

/// What ended a stretch of blanks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Blank {
    /// Nothing but spaces and tabs.
    Spaces,
    /// A line ended, or a comment.
    Newline,
}

impl<'t> Scanner<'t> {
    pub(crate) fn new(file: Arc<str>, text: &'t str) -> Scanner<'t> {
        // Editors put a byte order mark in front; it is no part of the first key.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        Scanner { file, text, offset: 0, line: 1, column: 1 }
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(crate) fn rest(&self) -> &'t str {
        &self.text[self.offset..]
    }

    pub(crate) fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.offset += c.len_utf8();
        match c {
            '\n' => (self.line, self.column) = (self.line.saturating_add(1), 1),
            _ => self.column = self.column.saturating_add(1),
        }
        Some(c)
    }

    /// Takes the character if it comes next.
    pub(crate) fn take(&mut self, c: char) -> bool {
        let here = self.peek() == Some(c);
        if here {
            self.next();
        }
        here
    }

    pub(crate) fn at(&self) -> Position {
        Position { file: self.file.clone(), line: self.line, column: self.column }
    }

    pub(crate) fn error(&self, detail: impl Into<String>) -> ConfError {
        self.error_at(&self.at(), detail)
    }

    pub(crate) fn error_at(&self, at: &Position, detail: impl Into<String>) -> ConfError {
        ConfError::new(at, Problem::Parse { line: at.line, detail: detail.into() })
    }

    /// What comes next, for messages.
    pub(crate) fn got(&self) -> String {
        match self.peek() {
            Some('\n' | '\r') => "a new line".to_owned(),
            Some(c) => format!("'{}'", c.escape_debug()),
            None => "the end of the file".to_owned(),
        }
    }

    /// Skips spaces and tabs.
    pub(crate) fn spaces(&mut self) {
        while matches!(self.peek(), Some(' ' | '\t')) {
            self.next();
        }
    }

    /// Skips blanks, line ends and comments.
    pub(crate) fn blanks(&mut self) -> Blank {
        let mut met = Blank::Spaces;
        loop {
            self.spaces();
            match self.peek() {
                Some('\n' | '\r') => {
                    self.next();
                    met = Blank::Newline;
                }
                _ if self.at_comment() => {
                    while !matches!(self.peek(), None | Some('\n')) {
                        self.next();
                    }
                    met = Blank::Newline;
                }
                _ => return met,
            }
        }
    }

    pub(crate) fn at_comment(&self) -> bool {
        self.rest().starts_with('#') || self.rest().starts_with("//")
    }

    /// Takes characters as long as `wanted`.
    pub(crate) fn word(&mut self, wanted: impl Fn(char) -> bool) -> &'t str {
        let start = self.offset;
        while self.peek().is_some_and(&wanted) {
            self.next();
        }
        &self.text[start..self.offset]
    }

    /// A quoted string; the quote comes next.
    pub(crate) fn quoted(&mut self) -> Result<String, ConfError> {
        let start = self.at();
        let quote = self.next();
        if quote == Some('\'') {
            let text = self.word(|c| c != '\'').to_owned();
            return match self.next() {
                Some(_) => Ok(text),
                None => Err(self.error_at(&start, "Unexpected EOF.")),
            };
        }
        let mut bytes = vec![];
        loop {
            match self.peek() {
                None => return Err(self.error_at(&start, "Unexpected EOF.")),
                Some('"') => {
                    self.next();
                    return self.utf8(bytes, &start);
                }
                Some('\\') => bytes.push(self.escape()?),
                Some(c) => {
                    self.next();
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
    }

    /// A bare word up to a blank or one of `,;}]`, with the escapes of double quotes.
    pub(crate) fn bare(&mut self) -> Result<String, ConfError> {
        let start = self.at();
        let mut bytes = vec![];
        loop {
            match self.peek() {
                None | Some(' ' | '\t' | '\r' | '\n' | ',' | ';' | '}' | ']') => {
                    return self.utf8(bytes, &start);
                }
                Some('\\') => bytes.push(self.escape()?),
                Some(c) => {
                    self.next();
                    bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
            }
        }
    }

    fn utf8(&self, bytes: Vec<u8>, start: &Position) -> Result<String, ConfError> {
        String::from_utf8(bytes).map_err(|_| self.error_at(start, "The string's \\x escapes are not UTF-8"))
    }

    /// An escape; the backslash comes next.
    fn escape(&mut self) -> Result<u8, ConfError> {
        let start = self.at();
        self.next();
        let c = self.next();
        Ok(match c {
            Some('n') => b'\n',
            Some('t') => b'\t',
            Some('r') => b'\r',
            Some('"') => b'"',
            Some('\\') => b'\\',
            Some('x') => {
                let digits: String = self.rest().chars().take(2).collect();
                let byte = (digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_hexdigit()))
                    .then(|| u8::from_str_radix(&digits, 16).ok())
                    .flatten();
                let wrong = || {
                    format!(
                        "Expected two hexadecimal digits after '\\x', but got '{}'",
                        digits.escape_debug()
                    )
                };
                let byte = byte.ok_or_else(|| self.error_at(&start, wrong()))?;
                self.next();
                self.next();
                byte
            }
            _ => {
                let c = c.map_or(String::new(), |c| c.escape_debug().to_string());
                let allowed =
                    "Only the following escape characters are allowed: \\xXX, \\t, \\n, \\r, \\\", \\\\.";
                return Err(self.error_at(&start, format!("Invalid escape character '{c}'. {allowed}")));
            }
        })
    }

    /// A block; the opening parenthesis comes next. It ends with a `)` that begins a line and is alone in it.
    pub(crate) fn block(&mut self) -> Result<String, ConfError> {
        let start = self.at();
        self.next();
        let rest = self.rest();
        let mut from = 0;
        loop {
            let Some(found) = rest[from..].find("\n)") else {
                return Err(self.error_at(&start, "Unexpected EOF processing block."));
            };
            let close = from + found + 1;
            let after = &rest[close + 1..];
            if after.is_empty() || after.starts_with('\n') || after.starts_with("\r\n") {
                let text = rest[..close].to_owned();
                for _ in rest[..=close].chars() {
                    self.next();
                }
                return Ok(text);
            }
            from = close;
        }
    }
}
