//! Cron patterns with six fields: second, minute, hour, day of month, month, day of week.

use hw_kit::Time;
use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use jiff::{Span, Timestamp};

/// A pattern without a time within so many years has none: the longest wait is for a 29 February.
const YEARS: i64 = 9;

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The times that match, each field as a set of bits.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Cron {
    second: u64,
    minute: u64,
    hour: u64,
    day: u64,
    month: u64,
    weekday: u64,
    /// Whether both days must match: with a star in one of them only the other one chooses.
    both_days: bool,
}

/// A field's numbers and their names.
struct Field {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

impl Field {
    const fn numbers(min: u32, max: u32) -> Field {
        Field { min, max, names: &[] }
    }

    /// The field's set, and whether it has a star.
    fn parse(&self, text: &str) -> Option<(u64, bool)> {
        let (mut set, mut star) = (0, false);
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (bits, is_star) = self.range(part)?;
            set |= bits;
            star |= is_star;
        }
        (set != 0).then_some((set, star))
    }

    /// `*`, `?`, `N`, `N-M`, each with `/step` or without.
    fn range(&self, text: &str) -> Option<(u64, bool)> {
        let (range, step) = match text.split_once('/') {
            Some((range, step)) => (range, Some(number(step)?)),
            None => (text, None),
        };
        let (low, high) = match range.split_once('-') {
            Some((low, high)) => (low, Some(high)),
            None => (range, None),
        };
        let mut star = matches!(low, "*" | "?");
        let (start, end) = match high {
            _ if star => (self.min, self.max),
            Some(high) => (self.number(low)?, self.number(high)?),
            None if step.is_some() => (self.number(low)?, self.max),
            None => (self.number(low)?, self.number(low)?),
        };
        let step = step.unwrap_or(1);
        star &= step == 1;
        let valid = start >= self.min && end <= self.max && start <= end && step > 0;
        let mut set = 0;
        for number in (start..=end).filter(|number| valid && (number - start).is_multiple_of(step)) {
            set |= 1 << number;
        }
        valid.then_some((set, star))
    }

    fn number(&self, text: &str) -> Option<u32> {
        match self.names.iter().position(|name| text.eq_ignore_ascii_case(name)) {
            Some(at) => Some(at as u32 + self.min),
            None => number(text),
        }
    }
}

fn number(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// The first number of a set that is not below another.
fn at_least(set: u64, number: i8) -> Option<i8> {
    let left = set & (u64::MAX << number);
    (left != 0).then_some(left.trailing_zeros() as i8)
}

impl Cron {
    /// Reads six fields.
    pub fn parse(text: &str) -> Option<Cron> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [second, minute, hour, day, month, weekday] = fields[..] else { return None };
        let sixty = Field::numbers(0, 59);
        let (day, any_day) = Field::numbers(1, 31).parse(day)?;
        let (weekday, any_weekday) = Field { names: DAYS, ..Field::numbers(0, 6) }.parse(weekday)?;
        Some(Cron {
            second: sixty.parse(second)?.0,
            minute: sixty.parse(minute)?.0,
            hour: Field::numbers(0, 23).parse(hour)?.0,
            day,
            month: Field { names: MONTHS, ..Field::numbers(1, 12) }.parse(month)?.0,
            weekday,
            both_days: any_day || any_weekday,
        })
    }

    /// The first time after an instant at which the clock of a zone matches. An hour that the clock skips has no times,
    /// one that it repeats has them twice.
    pub fn after(&self, time: Time, zone: &TimeZone) -> Option<Time> {
        let mut from = Timestamp::from_second(time.0.div_euclid(1_000_000_000) + 1).ok()?;
        let last = zone.to_offset(from).to_datetime(from).checked_add(Span::new().years(YEARS)).ok()?;
        loop {
            // Up to the next change of the clock, local times and instants keep their distance.
            let change = zone.following(from).next().map(|change| change.timestamp());
            let offset = zone.to_offset(from);
            let end = change.map_or(last, |change| offset.to_datetime(change).min(last));
            if let Some(found) = self.first_from(offset.to_datetime(from), end) {
                return instant(found, offset);
            }
            from = change.filter(|_| end < last)?;
        }
    }

    /// The first matching local time from one on and before another.
    fn first_from(&self, mut at: DateTime, end: DateTime) -> Option<DateTime> {
        while at < end {
            if self.month & (1 << at.month()) == 0 {
                let first = at.date().first_of_month();
                at = first.checked_add(Span::new().months(1)).ok()?.at(0, 0, 0, 0);
                continue;
            }
            if self.has_day(at)
                && let Some(found) = self.time_from(at)
            {
                return (found < end).then_some(found);
            }
            at = at.date().tomorrow().ok()?.at(0, 0, 0, 0);
        }
        None
    }

    fn has_day(&self, at: DateTime) -> bool {
        let day = self.day & (1 << at.day()) != 0;
        let weekday = self.weekday & (1 << at.weekday().to_sunday_zero_offset()) != 0;
        if self.both_days { day && weekday } else { day || weekday }
    }

    /// The first matching time of a day from one on.
    fn time_from(&self, at: DateTime) -> Option<DateTime> {
        let (mut hour, mut minute, mut second) = (at.hour(), at.minute(), at.second());
        loop {
            let found = at_least(self.hour, hour).filter(|hour| *hour < 24)?;
            if found > hour {
                (hour, minute, second) = (found, 0, 0);
            }
            let Some(found) = at_least(self.minute, minute) else {
                (hour, minute, second) = (hour + 1, 0, 0);
                continue;
            };
            if found > minute {
                (minute, second) = (found, 0);
            }
            match at_least(self.second, second) {
                Some(second) => return Some(at.date().at(hour, minute, second, 0)),
                None => (minute, second) = (minute + 1, 0),
            }
        }
    }
}

fn instant(local: DateTime, offset: Offset) -> Option<Time> {
    let stamp = offset.to_timestamp(local).ok()?;
    i64::try_from(stamp.as_nanosecond()).ok().map(Time)
}
