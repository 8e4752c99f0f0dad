//! The tree that a configuration file becomes, and what a bare word means.

use hw_kit::Time;

use crate::error::Position;

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Where it starts.
    pub at: Position,
    /// What it is.
    pub kind: ValueKind,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueKind {
    /// Quoted, a block, or a bare word.
    String(String),
    /// A whole number, suffix already applied.
    Integer(i64),
    /// A number with a point.
    Float(f64),
    /// `true`, `yes`, `on` and their opposites.
    Bool(bool),
    /// `2006-01-02T15:04:05Z`.
    Date(Time),
    /// `[ ... ]`.
    Array(Vec<Value>),
    /// `{ ... }`, every key once, in order of first appearance.
    Map(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key as written.
    pub key: String,
    /// Where the key starts.
    pub at: Position,
    /// Its value.
    pub value: Value,
    /// Whether some `$variable` refers to it: then it need not be a known setting.
    pub used: bool,
}

impl Value {
    /// How many values this is, itself included.
    pub(crate) fn count(&self) -> usize {
        match &self.kind {
            ValueKind::Array(items) => 1 + items.iter().map(Value::count).sum::<usize>(),
            ValueKind::Map(entries) => 1 + entries.iter().map(|entry| entry.value.count()).sum::<usize>(),
            _ => 1,
        }
    }
}

impl ValueKind {
    /// The kind's name for messages.
    pub fn name(&self) -> &'static str {
        match self {
            ValueKind::String(_) => "a string",
            ValueKind::Integer(_) => "an integer",
            ValueKind::Float(_) => "a float",
            ValueKind::Bool(_) => "a boolean",
            ValueKind::Date(_) => "a date",
            ValueKind::Array(_) => "an array",
            ValueKind::Map(_) => "a map",
        }
    }
}

/// A bare word that is no value.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum BadWord {
    OutOfRange,
    Syntax(String),
}

/// What a bare word means: a boolean, a number, a date, or itself.
pub(crate) fn classify(word: &str) -> Result<ValueKind, BadWord> {
    let syntax = |detail: &str| Err(BadWord::Syntax(detail.to_owned()));
    match word.as_bytes() {
        [b'0'..=b'9', ..] => number(word),
        [b'-', b'0'..=b'9', ..] => match number(word)? {
            ValueKind::String(_) => syntax("Expected a number after '-'"),
            number => Ok(number),
        },
        [b'-', ..] => {
            let got = word.chars().nth(1).map_or("nothing".to_owned(), |c| format!("'{c}'"));
            Err(BadWord::Syntax(format!("Expected a digit but got {got}.")))
        }
        [b'.', b'0'..=b'9', ..] => syntax("Floats must start with a digit"),
        _ => Ok(boolean(word).map_or_else(|| ValueKind::String(word.to_owned()), ValueKind::Bool)),
    }
}

fn boolean(word: &str) -> Option<bool> {
    let is = |words: [&str; 3]| words.iter().any(|known| known.eq_ignore_ascii_case(word));
    match () {
        () if is(["true", "yes", "on"]) => Some(true),
        () if is(["false", "no", "off"]) => Some(false),
        () => None,
    }
}

/// `word` starts with a digit, after a minus perhaps.
fn number(word: &str) -> Result<ValueKind, BadWord> {
    let digits = word.strip_prefix('-').unwrap_or(word);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let (whole, rest) = digits.split_at(end);
    let whole = &word[..word.len() - digits.len() + whole.len()];
    if let Some(unit) = unit(rest) {
        let number = whole.parse::<i64>().map_err(|_| BadWord::OutOfRange)?;
        return number.checked_mul(unit).map(ValueKind::Integer).ok_or(BadWord::OutOfRange);
    }
    match rest.as_bytes() {
        b"." => Err(BadWord::Syntax("Floats must have a digit after the '.'".to_owned())),
        [b'.', fraction @ ..] if fraction.iter().all(u8::is_ascii_digit) => match word.parse() {
            Ok(float) => Ok(ValueKind::Float(float)),
            Err(_) => Err(BadWord::OutOfRange),
        },
        [b'-', ..] => date(word)
            .map(ValueKind::Date)
            .ok_or_else(|| BadWord::Syntax("All ISO8601 dates must be in full Zulu form.".to_owned())),
        _ => Ok(ValueKind::String(word.to_owned())),
    }
}

/// A number's suffix: `k`, `m`, ... are powers of 1000, with `b`, `i` or `ib` behind it powers of 1024.
pub(crate) fn unit(suffix: &str) -> Option<i64> {
    let suffix = suffix.to_ascii_lowercase();
    let Some(letter) = suffix.chars().next() else {
        return Some(1);
    };
    let power = "kmgtpe".find(letter)? as u32 + 1;
    match &suffix[1..] {
        "" => Some(1000i64.pow(power)),
        "b" | "i" | "ib" => Some(1024i64.pow(power)),
        _ => None,
    }
}

/// `2006-01-02T15:04:05Z`.
fn date(word: &str) -> Option<Time> {
    let bytes = word.as_bytes();
    if bytes.len() != 20 || !word.is_ascii() {
        return None;
    }
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
    if marks.iter().any(|&(at, mark)| bytes[at] != mark) {
        return None;
    }
    let part = |from: usize, to: usize| word[from..to].parse::<u32>().ok().map(i64::from);
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if day < 1 || day > days || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days since 1970-03-01 in years that start in March: the leap day comes last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (153 * m + 2) / 5 + day - 1;
    let since_1970 = days - 719_468;
    let seconds = since_1970 * 86_400 + hour * 3600 + minute * 60 + second;
    seconds.checked_mul(1_000_000_000).map(Time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_words() {
        use ValueKind::{Bool, Date, Float, Integer};
        let text = |word: &str| Ok(ValueKind::String(word.to_owned()));
        let cases = [
            ("12", Ok(Integer(12))),
            ("-12", Ok(Integer(-12))),
            ("010", Ok(Integer(10))),
            ("1k", Ok(Integer(1000))),
            ("1K", Ok(Integer(1000))),
            ("1kb", Ok(Integer(1024))),
            ("1ki", Ok(Integer(1024))),
            ("1KiB", Ok(Integer(1024))),
            ("64MiB", Ok(Integer(64 << 20))),
            ("10GiB", Ok(Integer(10 << 30))),
            ("1Gb", Ok(Integer(1 << 30))),
            ("2m", Ok(Integer(2_000_000))),
            ("1t", Ok(Integer(1_000_000_000_000))),
            ("1pb", Ok(Integer(1 << 50))),
            ("9e", Ok(Integer(9_000_000_000_000_000_000))),
            ("-1k", Ok(Integer(-1000))),
            ("9223372036854775807", Ok(Integer(i64::MAX))),
            ("-9223372036854775808", Ok(Integer(i64::MIN))),
            ("99999999999999999999", Err(BadWord::OutOfRange)),
            ("10e", Err(BadWord::OutOfRange)),
            ("1.5", Ok(Float(1.5))),
            ("-1.5", Ok(Float(-1.5))),
            ("1970-01-01T00:00:00Z", Ok(Date(Time(0)))),
            ("2016-05-04T18:53:41Z", Ok(Date(Time(1_462_388_021_000_000_000)))),
            ("2000-02-29T00:00:00Z", Ok(Date(Time(951_782_400_000_000_000)))),
            ("yes", Ok(Bool(true))),
            ("TRUE", Ok(Bool(true))),
            ("oN", Ok(Bool(true))),
            ("off", Ok(Bool(false))),
            ("No", Ok(Bool(false))),
            ("nope", text("nope")),
            ("1x", text("1x")),
            ("10s", text("10s")),
            ("1.5k", text("1.5k")),
            ("1e3", text("1e3")),
            ("0x10", text("0x10")),
            ("127.0.0.1:-1", text("127.0.0.1:-1")),
            ("1.2.3", text("1.2.3")),
            ("+12", text("+12")),
            (">", text(">")),
            ("é", text("é")),
        ];
        for (word, kind) in cases {
            assert_eq!(classify(word), kind, "{word}");
        }
        for bad in ["-", "-x", "--", "-1x", ".5", "5.", "1-2", "2016-05-04", "2016-13-04T18:53:41Z"] {
            assert!(matches!(classify(bad), Err(BadWord::Syntax(_))), "{bad}");
        }
        for bad in ["2015-02-29T00:00:00Z", "2016-05-04T24:00:00Z", "2016-05-04T18:53:4éZ"] {
            assert!(matches!(classify(bad), Err(BadWord::Syntax(_))), "{bad}");
        }
    }
}
