//! When a schedule is due: `@at`, `@every` and cron patterns (ADR-51). Pure functions of the times that are handed in.

mod cron;

use hw_kit::{Span, Time};
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::stream::ttl::parse_duration;
use cron::Cron;

const SECOND: i64 = 1_000_000_000;

/// What the names of patterns stand for.
const NAMED: &[(&str, &str)] = &[
    ("@yearly", "0 0 0 1 1 *"),
    ("@annually", "0 0 0 1 1 *"),
    ("@monthly", "0 0 0 1 * *"),
    ("@weekly", "0 0 0 * * 0"),
    ("@daily", "0 0 0 * * *"),
    ("@midnight", "0 0 0 * * *"),
    ("@hourly", "0 0 * * * *"),
];

/// Why a pattern is none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Invalid {
    /// The pattern itself, or a pattern that takes no time zone with one.
    Pattern,
    /// There is no such time zone.
    TimeZone,
}

/// When messages are produced.
#[derive(Debug)]
pub(crate) enum Pattern {
    /// Once.
    At(Time),
    /// Again and again after so long.
    Every(Span),
    /// Whenever the clock of a time zone shows one of these times.
    Cron(Box<Cron>, TimeZone),
}

impl Pattern {
    /// Reads the header fields `Nats-Schedule` and `Nats-Schedule-Time-Zone`.
    pub fn parse(pattern: &[u8], zone: Option<&[u8]>) -> Result<Pattern, Invalid> {
        let text = std::str::from_utf8(pattern).map_err(|_| Invalid::Pattern)?;
        if let Some(time) = text.strip_prefix("@at ") {
            // With the letters that RFC 3339 has: the parser takes other forms, too.
            let is_strict = time.as_bytes().get(10) == Some(&b'T') && !time.contains('[');
            let time = Time::parse_rfc3339(time).filter(|_| is_strict && zone.is_none());
            return time.map(Pattern::At).ok_or(Invalid::Pattern);
        }
        if let Some(span) = text.strip_prefix("@every ") {
            let span = parse_duration(span).filter(|span| *span >= Span(SECOND) && zone.is_none());
            return span.map(Pattern::Every).ok_or(Invalid::Pattern);
        }
        let named = NAMED.iter().find(|(name, _)| *name == text);
        let cron = Cron::parse(named.map_or(text, |(_, fields)| fields)).ok_or(Invalid::Pattern)?;
        Ok(Pattern::Cron(Box::new(cron), time_zone(zone)?))
    }

    /// When it is due first if it begins now; None: never.
    pub fn first(&self, now: Time) -> Option<Time> {
        match self {
            Pattern::At(time) => Some(*time),
            Pattern::Every(_) | Pattern::Cron(..) => self.after(now),
        }
    }

    /// When it is due again after `due`, seen at `now`: what was missed is not made up for. None: never again.
    pub fn next(&self, due: Time, now: Time) -> Option<Time> {
        let next = self.after(due)?;
        if next < now { self.after(round(now)) } else { Some(next) }
    }

    fn after(&self, time: Time) -> Option<Time> {
        match self {
            Pattern::At(_) => None,
            Pattern::Every(span) => Some(round(time) + *span),
            Pattern::Cron(cron, zone) => cron.after(time, zone),
        }
    }

    /// An instant as the messages say it: whole seconds in the pattern's time zone.
    pub fn show(&self, time: Time) -> String {
        let zone = match self {
            Pattern::Cron(_, zone) => zone.clone(),
            Pattern::At(_) | Pattern::Every(_) => TimeZone::UTC,
        };
        let Ok(stamp) = Timestamp::from_nanosecond(i128::from(time.0)) else { return String::new() };
        let offset = zone.to_offset(stamp);
        let form = if offset.is_zero() { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%:z" };
        stamp.to_zoned(zone).strftime(form).to_string()
    }
}

/// The nearest whole second.
fn round(time: Time) -> Time {
    let up = time.0.saturating_add(SECOND / 2);
    Time(up - up.rem_euclid(SECOND))
}

/// The zones are those that the program carries: what a machine has installed must not matter. A zone "of this
/// machine" is therefore none.
fn time_zone(name: Option<&[u8]>) -> Result<TimeZone, Invalid> {
    let Some(name) = name else { return Ok(TimeZone::UTC) };
    let name = std::str::from_utf8(name).map_err(|_| Invalid::TimeZone)?;
    TimeZoneDatabase::bundled().get(name).map_err(|_| Invalid::TimeZone)
}

#[cfg(test)]
mod tests;
