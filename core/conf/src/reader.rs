//! Reads typed settings out of entries and collects everything that is wrong, so that one run names it all.

use hw_kit::Span;

use crate::error::{ConfError, ConfErrors, Position, Problem};
use crate::refused::Block;
use crate::units::{parse_duration, parse_size};
use crate::value::{Entry, Value, ValueKind};

/// Errors and warnings so far.
#[derive(Default)]
pub(crate) struct Reader {
    pub(crate) errors: Vec<ConfError>,
    pub(crate) warnings: Vec<String>,
}

/// A setting that is there replaces the default.
pub(crate) fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// As [`set`], for a setting without a default.
pub(crate) fn put<T>(slot: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *slot = value;
    }
}

impl Reader {
    pub(crate) fn finish(self) -> Result<Vec<String>, ConfErrors> {
        match self.errors.is_empty() {
            true => Ok(self.warnings),
            false => Err(ConfErrors(self.errors)),
        }
    }

    pub(crate) fn error(&mut self, at: &Position, problem: impl Into<Problem>) {
        self.errors.push(ConfError::new(at, problem.into()));
    }

    /// The value of this key makes no sense.
    pub(crate) fn invalid(&mut self, at: &Position, detail: impl Into<String>) {
        self.error(at, Problem::Invalid { detail: detail.into() });
    }

    /// A key that no arm has taken: not built yet, a variable, or unknown.
    pub(crate) fn other(&mut self, entry: &Entry, block: Block) {
        let key = entry.key.to_ascii_lowercase();
        if let Some(detail) = block.refused(&key) {
            self.error(&entry.at, Problem::NotSupported { field: entry.key.clone(), detail });
        } else if !entry.used {
            self.error(&entry.at, Problem::UnknownField { field: entry.key.clone() });
        }
    }

    pub(crate) fn wrong<T>(&mut self, entry: &Entry, expected: &'static str) -> Option<T> {
        self.wrong_value(&entry.at, &entry.key, expected, &entry.value)
    }

    fn wrong_value<T>(
        &mut self,
        at: &Position,
        field: &str,
        expected: &'static str,
        value: &Value,
    ) -> Option<T> {
        let found = value.kind.name().to_owned();
        self.error(at, Problem::WrongType { field: field.to_owned(), expected, found });
        None
    }

    pub(crate) fn string(&mut self, entry: &Entry) -> Option<String> {
        match &entry.value.kind {
            ValueKind::String(text) => Some(text.clone()),
            _ => self.wrong(entry, "a string"),
        }
    }

    /// A string; an empty one counts as not given.
    pub(crate) fn name(&mut self, entry: &Entry) -> Option<String> {
        self.string(entry).filter(|text| !text.is_empty())
    }

    pub(crate) fn boolean(&mut self, entry: &Entry) -> Option<bool> {
        match entry.value.kind {
            ValueKind::Bool(value) => Some(value),
            _ => self.wrong(entry, "a boolean"),
        }
    }

    pub(crate) fn integer(&mut self, entry: &Entry) -> Option<i64> {
        match entry.value.kind {
            ValueKind::Integer(value) => Some(value),
            _ => self.wrong(entry, "an integer"),
        }
    }

    /// Bytes: a number with or without a suffix, quoted or not.
    pub(crate) fn size(&mut self, entry: &Entry) -> Option<i64> {
        match &entry.value.kind {
            ValueKind::Integer(value) => Some(*value),
            ValueKind::String(text) => {
                let size = parse_size(text);
                if size.is_none() {
                    self.invalid(&entry.at, format!("{}: {text:?} is not a size such as 64MB", entry.key));
                }
                size
            }
            _ => self.wrong(entry, "a size"),
        }
    }

    /// A number from `low` to `high`; 0 means the default.
    pub(crate) fn within(&mut self, entry: &Entry, low: i64, high: i64) -> Option<i64> {
        match self.size(entry)? {
            0 if low > 0 => None,
            value if value < low => {
                self.invalid(&entry.at, format!("{} value can not be less than {low}", entry.key));
                None
            }
            value if value > high => {
                self.invalid(&entry.at, format!("{} value is too big", entry.key));
                None
            }
            value => Some(value),
        }
    }

    /// A limit in which 0 or less means none; given out as -1 then.
    pub(crate) fn limit(&mut self, entry: &Entry) -> Option<i64> {
        self.size(entry).map(|value| if value <= 0 { -1 } else { value })
    }

    /// A duration; a number is taken as seconds, with a warning, as in nats-server.
    pub(crate) fn duration(&mut self, entry: &Entry) -> Option<Span> {
        let key = &entry.key;
        if matches!(entry.value.kind, ValueKind::Integer(_)) {
            let field = format!("invalid use of field {key:?}: {key} should be converted to a duration");
            self.warnings.push(format!("{}: {field}", entry.at));
        }
        self.seconds(entry)
    }

    /// A duration, or a number of seconds.
    fn seconds(&mut self, entry: &Entry) -> Option<Span> {
        let span = match &entry.value.kind {
            ValueKind::Integer(seconds) => seconds.checked_mul(1_000_000_000).map(Span),
            ValueKind::Float(seconds) if seconds.abs() < 9e9 => Some(Span((seconds * 1e9) as i64)),
            ValueKind::Float(_) => None,
            ValueKind::String(text) => match parse_duration(text) {
                Ok(span) => Some(span),
                Err(why) => {
                    self.invalid(&entry.at, format!("error parsing {}: {why}", entry.key));
                    return None;
                }
            },
            _ => return self.wrong(entry, "a duration"),
        };
        if span.is_none() {
            self.invalid(&entry.at, format!("{} value is too big", entry.key));
        }
        span
    }

    /// A duration above zero.
    pub(crate) fn positive(&mut self, entry: &Entry) -> Option<Span> {
        let span = self.duration(entry);
        self.above_zero(entry, span)
    }

    /// A duration or a number of seconds, above zero.
    pub(crate) fn timeout(&mut self, entry: &Entry) -> Option<Span> {
        let span = self.seconds(entry);
        self.above_zero(entry, span)
    }

    fn above_zero(&mut self, entry: &Entry, span: Option<Span>) -> Option<Span> {
        let span = span?;
        if span <= Span::ZERO {
            self.invalid(&entry.at, format!("invalid {}, needs to be positive", entry.key));
            return None;
        }
        Some(span)
    }

    /// A string, or an array of strings.
    pub(crate) fn strings(&mut self, entry: &Entry) -> Option<Vec<String>> {
        let items = match &entry.value.kind {
            ValueKind::String(text) => return Some(vec![text.clone()]),
            ValueKind::Array(items) => items,
            _ => return self.wrong(entry, "a string or an array of strings"),
        };
        let mut texts = vec![];
        for item in items {
            match &item.kind {
                ValueKind::String(text) => texts.push(text.clone()),
                _ => {
                    self.wrong_value::<()>(&item.at, &entry.key, "strings", item);
                }
            }
        }
        Some(texts)
    }

    pub(crate) fn map<'e>(&mut self, entry: &'e Entry) -> Option<&'e [Entry]> {
        match &entry.value.kind {
            ValueKind::Map(entries) => Some(entries),
            _ => self.wrong(entry, "a map"),
        }
    }

    /// A port: -1 is any free one (given out as 0), 0 is the default (`None`).
    pub(crate) fn port(&mut self, entry: &Entry) -> Option<u16> {
        let number = self.integer(entry)?;
        self.port_number(&entry.at, &entry.key, number)
    }

    fn port_number(&mut self, at: &Position, key: &str, number: i64) -> Option<u16> {
        match number {
            0 => None,
            -1 => Some(0),
            _ => {
                let port = u16::try_from(number).ok();
                if port.is_none() {
                    self.invalid(at, format!("{key}: {number} is not a valid port"));
                }
                port
            }
        }
    }

    /// `host:port`, or a port alone. The parts that are there.
    pub(crate) fn address(&mut self, entry: &Entry) -> Option<(Option<String>, Option<u16>)> {
        let text = match &entry.value.kind {
            ValueKind::Integer(_) => return Some((None, self.port(entry))),
            ValueKind::String(text) => text,
            _ => return self.wrong(entry, "a port or \"host:port\""),
        };
        let Some((host, port)) = split_address(text) else {
            self.invalid(&entry.at, format!("could not parse address string {text:?}"));
            return None;
        };
        let Ok(number) = port.parse::<i64>() else {
            self.invalid(&entry.at, format!("could not parse port {port:?}"));
            return None;
        };
        let host = (!host.is_empty()).then(|| host.to_owned());
        Some((host, self.port_number(&entry.at, &entry.key, number)))
    }
}

/// `host:port` or `[v6]:port`; the host may be empty.
pub(crate) fn split_address(text: &str) -> Option<(&str, &str)> {
    let (host, port) = text.rsplit_once(':')?;
    if let Some(inner) = host.strip_prefix('[') {
        return Some((inner.strip_suffix(']')?, port));
    }
    (!host.contains([':', '[', ']'])).then_some((host, port))
}
