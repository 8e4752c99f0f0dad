//! Instants and durations as plain numbers of nanoseconds, always handed in, never asked for.

use std::ops::{Add, Sub};

/// An instant: nanoseconds since 1970-01-01T00:00:00Z. `Time(0)` means "not set" where a field allows that.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Time(pub i64);

/// A duration in nanoseconds, as the JetStream API writes it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Span(pub i64);

impl Time {
    /// Later than every instant that occurs.
    pub const NEVER: Time = Time(i64::MAX);

    /// The time from `earlier` to this instant; negative if `earlier` is later.
    pub fn since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// RFC 3339 in UTC with as many fractional digits as needed, as the API writes it. An unset instant is Go's zero
    /// time, `0001-01-01T00:00:00Z`.
    pub fn to_rfc3339(self) -> String {
        if !self.is_set() {
            return "0001-01-01T00:00:00Z".to_owned();
        }
        jiff::Timestamp::from_nanosecond(i128::from(self.0))
            .map_or_else(|_| "0001-01-01T00:00:00Z".to_owned(), |stamp| stamp.to_string())
    }

    /// Reads RFC 3339 with any offset; None when it is not that or outside 1678..2262.
    pub fn parse_rfc3339(text: &str) -> Option<Time> {
        let stamp: jiff::Timestamp = text.parse().ok()?;
        i64::try_from(stamp.as_nanosecond()).ok().map(Time)
    }

    /// Whether the field holds an instant.
    pub fn is_set(self) -> bool {
        self.0 != 0
    }
}

impl Span {
    /// No time at all; in configurations: no limit.
    pub const ZERO: Span = Span(0);

    /// A number of milliseconds.
    pub const fn from_millis(ms: i64) -> Span {
        Span(ms * 1_000_000)
    }

    /// A number of seconds.
    pub const fn from_secs(s: i64) -> Span {
        Span(s * 1_000_000_000)
    }

    /// Reads a Go duration: `300ms`, `1h30m`, `-1.5s`. None when it is not that.
    pub fn parse_go(text: &str) -> Option<Span> {
        let (negative, mut rest) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        if rest == "0" {
            return Some(Span::ZERO);
        }
        let mut total = 0f64;
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
            let number: f64 = rest[..digits].parse().ok()?;
            rest = &rest[digits..];
            let units = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
            total += number * unit_nanos(&rest[..units])?;
            rest = &rest[units..];
        }
        let known = !text.is_empty() && total < i64::MAX as f64;
        known.then_some(Span(if negative { -(total as i64) } else { total as i64 }))
    }

    /// Whole milliseconds, rounded down.
    pub fn millis(self) -> i64 {
        self.0 / 1_000_000
    }

    /// Whether this is zero.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

fn unit_nanos(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1.0,
        "us" | "µs" | "μs" => 1e3,
        "ms" => 1e6,
        "s" => 1e9,
        "m" => 60e9,
        "h" => 3600e9,
        _ => return None,
    })
}

impl Add<Span> for Time {
    type Output = Time;
    fn add(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Time {
    type Output = Time;
    fn sub(self, span: Span) -> Time {
        Time(self.0.saturating_sub(span.0))
    }
}

impl Add for Span {
    type Output = Span;
    fn add(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_durations() {
        for (text, nanos) in
            [("10s", 10_000_000_000), ("1h30m", 5_400_000_000_000), ("1.5ms", 1_500_000), ("-2us", -2000)]
        {
            assert_eq!(Span::parse_go(text), Some(Span(nanos)), "{text}");
        }
        for text in ["", "10", "s", "1x", "1h-", "..s"] {
            assert_eq!(Span::parse_go(text), None, "{text}");
        }
    }

    #[test]
    fn rfc3339_both_ways() {
        for text in ["2026-11-23T01:14:05.487483207Z", "2026-11-23T01:14:07.49946Z", "2026-11-23T01:14:07Z"] {
            assert_eq!(Time::parse_rfc3339(text).expect(text).to_rfc3339(), text);
        }
        assert_eq!(
            Time::parse_rfc3339("2026-11-23T03:14:07+02:00"),
            Time::parse_rfc3339("2026-11-23T01:14:07Z")
        );
        assert_eq!(Time::parse_rfc3339("yesterday"), None);
        assert_eq!(Time(0).to_rfc3339(), "0001-01-01T00:00:00Z");
    }
}
