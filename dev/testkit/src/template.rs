//! Text with holes: `{{int}}` matches, `{{seq=int}}` matches and remembers, `{{seq}}` is what was remembered.

use std::collections::BTreeMap;

/// What a script has remembered, by name.
pub type Captures = BTreeMap<String, String>;

/// What may stand in a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `any`: any text, also none.
    Any,
    /// `id`: letters, digits, `_`, `-`, one at least.
    Id,
    /// `int`: an integer.
    Int,
    /// `num`: a number.
    Num,
    /// `time`: RFC 3339 with a date, a time and a zone.
    Time,
    /// `word`: anything without blanks, one character at least.
    Word,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Text(String),
    Hole { kind: Kind, name: Option<String> },
    Known(String),
}

/// A parsed text with holes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    pub(crate) pieces: Vec<Piece>,
}

impl Template {
    /// Parses; `{{` that does not start a hole is text.
    pub fn new(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(start) = rest.find("{{") {
            let inner = rest[start + 2..].find("}}").map(|end| &rest[start + 2..start + 2 + end]);
            match inner.and_then(|inner| piece(inner).map(|piece| (inner, piece))) {
                Some((inner, found)) => {
                    plain.push_str(&rest[..start]);
                    match found {
                        Piece::Text(text) => plain.push_str(&text),
                        found => {
                            if !plain.is_empty() {
                                pieces.push(Piece::Text(std::mem::take(&mut plain)));
                            }
                            pieces.push(found);
                        }
                    }
                    rest = &rest[start + 4 + inner.len()..];
                }
                None => {
                    plain.push_str(&rest[..start + 1]);
                    rest = &rest[start + 1..];
                }
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Self { pieces }
    }

    /// The text with everything filled in, or the name of what is not known (a hole counts as unknown).
    pub fn fill(&self, known: &Captures) -> Result<String, String> {
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Known(name) => out.push_str(known.get(name).ok_or_else(|| name.clone())?),
                Piece::Hole { kind, .. } => return Err(format!("{kind:?} (nothing to fill in)")),
            }
        }
        Ok(out)
    }

    /// Whether `text` matches as a whole; what it names is remembered only if it does.
    pub fn matches(&self, text: &str, known: &mut Captures) -> bool {
        let mut found = known.clone();
        let matched = matches(&self.pieces, text, &mut found);
        if matched {
            *known = found;
        }
        matched
    }

    /// The only hole, if the template is nothing but that.
    pub(crate) fn sole(&self) -> Option<&Piece> {
        match self.pieces.as_slice() {
            [piece] => Some(piece),
            _ => None,
        }
    }
}

impl Kind {
    pub(crate) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "any" => Self::Any,
            "id" => Self::Id,
            "int" => Self::Int,
            "num" => Self::Num,
            "time" => Self::Time,
            "word" => Self::Word,
            _ => return None,
        })
    }

    pub(crate) fn accepts(self, text: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Id => {
                !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
            }
            Self::Int => {
                let digits = text.strip_prefix('-').unwrap_or(text);
                !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
            }
            Self::Num => text.parse::<f64>().is_ok(),
            Self::Time => is_time(text),
            Self::Word => !text.is_empty() && !text.contains(char::is_whitespace),
        }
    }
}

/// `inner` stands between the braces.
fn piece(inner: &str) -> Option<Piece> {
    if let Some(rest) = inner.strip_prefix("repeat ") {
        let (count, text) = rest.split_once(' ')?;
        return Some(Piece::Text(text.repeat(count.parse().ok()?)));
    }
    let is_name = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if let Some((name, kind)) = inner.split_once('=') {
        let kind = Kind::named(kind)?;
        return is_name(name).then(|| Piece::Hole { kind, name: Some(name.to_owned()) });
    }
    match Kind::named(inner) {
        Some(kind) => Some(Piece::Hole { kind, name: None }),
        None => is_name(inner).then(|| Piece::Known(inner.to_owned())),
    }
}

/// Shortest match first, with backtracking; lines of a protocol are short enough for it.
fn matches(pieces: &[Piece], text: &str, known: &mut Captures) -> bool {
    let Some((first, rest)) = pieces.split_first() else { return text.is_empty() };
    match first {
        Piece::Text(want) => text.strip_prefix(want.as_str()).is_some_and(|text| matches(rest, text, known)),
        Piece::Known(name) => known
            .get(name)
            .cloned()
            .and_then(|want| text.strip_prefix(want.as_str()))
            .is_some_and(|text| matches(rest, text, known)),
        Piece::Hole { kind, name } => {
            let ends = (0..=text.len()).filter(|&end| text.is_char_boundary(end));
            for end in ends {
                if rest.is_empty() && end != text.len() || !kind.accepts(&text[..end]) {
                    continue;
                }
                let mut found = known.clone();
                if let Some(name) = name {
                    found.insert(name.clone(), text[..end].to_owned());
                }
                if matches(rest, &text[end..], &mut found) {
                    *known = found;
                    return true;
                }
            }
            false
        }
    }
}

fn is_time(text: &str) -> bool {
    let b = text.as_bytes();
    let shape = b"dddd-dd-ddTdd:dd:dd";
    let head = b.len() > shape.len()
        && shape.iter().zip(b).all(|(s, c)| if *s == b'd' { c.is_ascii_digit() } else { s == c });
    if !head {
        return false;
    }
    let mut zone = &text[shape.len()..];
    if let Some(fraction) = zone.strip_prefix('.') {
        zone = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    zone == "Z" || (zone.len() == 6 && zone.starts_with(['+', '-']))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(template: &str, text: &str, want: Option<&str>) {
        let mut known = Captures::from([("k".to_owned(), "v1".to_owned())]);
        let matched = Template::new(template).matches(text, &mut known);
        let shown = matched.then(|| {
            let pairs = known.iter().filter(|(name, _)| *name != "k");
            pairs.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        });
        assert_eq!(shown.as_deref(), want, "{template:?} on {text:?}");
    }

    #[test]
    fn templates_match_as_a_whole() {
        check("abc", "abc", Some(""));
        check("abc", "abcd", None);
        check("a {{int}} c", "a -12 c", Some(""));
        check("a {{int}} c", "a x c", None);
        check("{{a=word}} {{b=any}}", "x y z", Some("a=x b=y z"));
        check("R.{{a=any}}.{{b=int}}", "R.q.r.7", Some("a=q.r b=7"));
        check("{{k}}-{{k}}", "v1-v1", Some(""));
        check("{{k}}", "v2", None);
        check("{{nobody}}", "x", None);
        check("{{x=int}} {{x}}", "4 4", Some("x=4"));
        check("{{x=int}} {{x}}", "4 5", None);
        check("{{repeat 3 ab}}", "ababab", Some(""));
        check("{{time}}", "2026-01-02T03:04:05.678901Z", Some(""));
        check("{{time}}", "0001-01-01T00:00:00Z", Some(""));
        check("{{time}}", "2026-01-02 03:04:05Z", None);
        check("{\"a\":{\"b\":1}}", "{\"a\":{\"b\":1}}", Some(""));
        check("{{a b}}", "{{a b}}", Some(""));
    }

    #[test]
    fn filling_in_names_what_is_missing() {
        let known = Captures::from([("k".to_owned(), "v".to_owned())]);
        assert_eq!(Template::new("a {{k}} b").fill(&known), Ok("a v b".to_owned()));
        assert_eq!(Template::new("{{z}}").fill(&known), Err("z".to_owned()));
        assert!(Template::new("{{int}}").fill(&known).is_err());
    }
}
