//! Sizes, durations, counts and times as people write and read them: `1.2 KiB`, `2m0s`, `1,000`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Why a size or a duration that somebody typed could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    #[error("no number where one is needed in {0:?}")]
    NoNumber(String),
    #[error("unknown unit {unit:?} in {text:?}")]
    Unit { text: String, unit: String },
    #[error("{0:?} is out of range")]
    Range(String),
    #[error("{0:?} is not a time: use 2026-01-31 10:00:00, RFC 3339, or a duration from now such as 1h")]
    Time(String),
    #[error("{0:?} is not KEY:VALUE")]
    Pair(String),
}

const BINARY: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A size in binary units, two significant digits below ten: `600 B`, `1.2 KiB`, `293 KiB`.
pub fn bytes(count: u64) -> String {
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < BINARY.len() {
        value /= 1024.0;
        unit += 1;
    }
    let rounded = (value * 10.0).round() / 10.0;
    if unit == 0 || rounded >= 10.0 {
        format!("{:.0} {}", rounded, BINARY[unit])
    } else {
        format!("{rounded:.1} {}", BINARY[unit])
    }
}

/// A limit in bytes, where nothing or less means none.
pub fn bytes_limit(count: i64) -> String {
    if count <= 0 { "unlimited".into() } else { bytes(count as u64) }
}

/// A limit as a count, where nothing or less means none.
pub fn count_limit(count: i64) -> String {
    if count <= 0 { "unlimited".into() } else { comma(count) }
}

/// A limit in nanoseconds, where nothing or less means none.
pub fn duration_limit(nanos: i64) -> String {
    if nanos <= 0 { "unlimited".into() } else { nanoseconds(nanos) }
}

/// A whole number with a comma before every third digit.
pub fn comma(count: impl Into<i128>) -> String {
    let count = count.into();
    let digits = count.unsigned_abs().to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3 + 1);
    if count < 0 {
        out.push('-');
    }
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A duration in nanoseconds, as the API writes it; a negative one counts as nothing.
pub fn nanoseconds(nanos: i64) -> String {
    duration(Duration::from_nanos(nanos.max(0) as u64))
}

/// A duration: `0s`, `764.07µs`, `27ms`, `10.41s`, `2m0s`, `1h0m0s`, `3d4h0m0s`, `1y2d0h0m0s`.
pub fn duration(span: Duration) -> String {
    let nanos = span.as_nanos();
    let seconds = span.as_secs();
    match seconds {
        0 if nanos == 0 => return "0s".into(),
        0 if nanos < 1_000 => return format!("{nanos}ns"),
        0 if nanos < 1_000_000 => return format!("{}µs", trim_zeros(nanos as f64 / 1e3)),
        0 => return format!("{}ms", nanos / 1_000_000),
        1..60 => return format!("{:.2}s", (span.as_secs_f64() * 100.0).floor() / 100.0),
        _ => {}
    }
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    let (hours, minutes) = (minutes / 60, minutes % 60);
    let (days, hours) = (hours / 24, hours % 24);
    let (years, days) = (days / 365, days % 365);
    match (years, days, hours) {
        (0, 0, 0) => format!("{minutes}m{seconds}s"),
        (0, 0, _) => format!("{hours}h{minutes}m{seconds}s"),
        (0, _, _) => format!("{days}d{hours}h{minutes}m{seconds}s"),
        _ => format!("{years}y{days}d{hours}h{minutes}m{seconds}s"),
    }
}

fn trim_zeros(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Reads a duration: `1h30m`, `2d`, `1w`, `1y`, `1.5s`, `500ms`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(UnitError::NoNumber(text.into()));
    }
    let mut total = 0.0_f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(end);
        let number: f64 = number.parse().map_err(|_| UnitError::NoNumber(text.into()))?;
        let end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let scale = match unit.trim() {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "" | "s" => 1.0,
            "m" => 60.0,
            "h" => 3_600.0,
            "d" | "D" => 86_400.0,
            "w" | "W" => 7.0 * 86_400.0,
            "M" => 30.0 * 86_400.0,
            "y" | "Y" => 365.0 * 86_400.0,
            unit => return Err(UnitError::Unit { text: text.into(), unit: unit.into() }),
        };
        total += number * scale;
        rest = tail;
    }
    // 292 years is what the API's nanoseconds can hold.
    if total * 1e9 > i64::MAX as f64 {
        return Err(UnitError::Range(text.into()));
    }
    Ok(Duration::from_nanos((total * 1e9).round() as u64))
}

/// Reads a duration that may also say that there is no limit: `-1`, `unlimited` or nothing is zero.
pub fn parse_age(text: &str) -> Result<Duration, UnitError> {
    match text.trim() {
        "" | "unlimited" => Ok(Duration::ZERO),
        negative if negative.starts_with('-') => Ok(Duration::ZERO),
        text => parse_duration(text),
    }
}

/// Reads a size: `600`, `128B`, `64k`, `1KB`, `1KiB`, `1GB`; every unit is binary; `-1` is no limit.
pub fn parse_size(text: &str) -> Result<i64, UnitError> {
    let trimmed = text.trim();
    if trimmed == "-1" || trimmed == "unlimited" {
        return Ok(-1);
    }
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(end);
    let number: f64 = number.parse().map_err(|_| UnitError::NoNumber(text.into()))?;
    let unit = unit.trim().to_ascii_lowercase();
    let power = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(UnitError::Unit { text: text.into(), unit }),
    };
    let size = number * 1024_f64.powi(power);
    if size > i64::MAX as f64 { Err(UnitError::Range(text.into())) } else { Ok(size as i64) }
}

/// Reads `key:value` or `key=value`, as headers and metadata are given; blanks around both are dropped.
pub fn parse_pair(text: &str) -> Result<(String, String), UnitError> {
    let split = text.find([':', '=']).filter(|at| *at > 0).ok_or_else(|| UnitError::Pair(text.into()))?;
    Ok((text[..split].trim().to_owned(), text[split + 1..].trim().to_owned()))
}

/// Reads a moment: an RFC 3339 time, a local `2026-01-31 10:00:00`, or a duration from now.
pub fn parse_moment(text: &str, now: Timestamp) -> Result<Timestamp, UnitError> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    if let Ok(local) = text.parse::<jiff::civil::DateTime>() {
        let zoned = local.to_zoned(TimeZone::system()).map_err(|_| UnitError::Time(text.into()))?;
        return Ok(zoned.timestamp());
    }
    let span = parse_duration(text).map_err(|_| UnitError::Time(text.into()))?;
    now.checked_add(span).map_err(|_| UnitError::Range(text.into()))
}

/// The API's time, if it is one: the server writes year 1 where nothing has happened yet.
pub fn api_time(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().filter(|at| at.as_second() > -60_000_000_000)
}

/// The API's time in the local zone, to the second; empty when it is none.
pub fn local_time(text: &str) -> String {
    api_time(text).map(local).unwrap_or_default()
}

/// A moment in the local zone, to the second.
pub fn local(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// The local time of day, as it stands before each line of a running command.
pub fn clock() -> String {
    Timestamp::now().to_zoned(TimeZone::system()).strftime("%H:%M:%S").to_string()
}

/// How long before `now` the API's time was; `never` when it is none.
pub fn since(text: &str, now: Timestamp) -> String {
    match api_time(text) {
        Some(at) => duration(elapsed(at, now)),
        None => "never".into(),
    }
}

/// The time from `at` to `now`, nothing if it is still to come.
pub fn elapsed(at: Timestamp, now: Timestamp) -> Duration {
    let nanos = now.as_nanosecond() - at.as_nanosecond();
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_well() {
        let cases: [(u64, &str); 9] = [
            (0, "0 B"),
            (9, "9 B"),
            (600, "600 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1229, "1.2 KiB"),
            (300_000, "293 KiB"),
            (1 << 20, "1.0 MiB"),
            (u64::MAX, "16 EiB"),
        ];
        for (count, want) in cases {
            assert_eq!(bytes(count), want, "{count}");
        }
    }

    #[test]
    fn durations_read_well() {
        let cases: [(u64, &str); 12] = [
            (0, "0s"),
            (350, "350ns"),
            (131_000, "131µs"),
            (764_070, "764.07µs"),
            (27_900_000, "27ms"),
            (10_410_000_000, "10.41s"),
            (30_000_000_000, "30.00s"),
            (59_999_000_000, "59.99s"),
            (120_000_000_000, "2m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_061_000_000_000, "1d1h1m1s"),
            (31_536_000_000_000_000, "1y0d0h0m0s"),
        ];
        for (nanos, want) in cases {
            assert_eq!(duration(Duration::from_nanos(nanos)), want, "{nanos}");
        }
    }

    #[test]
    fn durations_are_read() {
        let cases = [
            ("1h", Some(3_600_000)),
            ("1h30m", Some(5_400_000)),
            ("2d", Some(172_800_000)),
            ("1w", Some(604_800_000)),
            ("1.5s", Some(1_500)),
            ("500ms", Some(500)),
            ("7", Some(7_000)),
            ("1d3h5m2s", Some(97_502_000)),
            ("", None),
            ("h", None),
            ("5x", None),
            ("-5s", None),
            ("1000y", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_duration(text).ok(), want.map(Duration::from_millis), "{text:?}");
        }
        assert_eq!(parse_age("-1"), Ok(Duration::ZERO));
        assert_eq!(parse_age("unlimited"), Ok(Duration::ZERO));
        assert_eq!(parse_age("1m"), Ok(Duration::from_secs(60)));
    }

    #[test]
    fn what_is_written_can_be_read() {
        for seconds in [60, 61, 3_600, 86_400, 90_061, 31_536_000] {
            let span = Duration::from_secs(seconds);
            assert_eq!(parse_duration(&duration(span)), Ok(span));
        }
    }

    #[test]
    fn sizes_are_read() {
        let cases = [
            ("600", Some(600)),
            ("128B", Some(128)),
            ("64k", Some(65_536)),
            ("1KB", Some(1_024)),
            ("1KiB", Some(1_024)),
            ("1.5 MiB", Some(1_572_864)),
            ("1GB", Some(1 << 30)),
            ("-1", Some(-1)),
            ("", None),
            ("lots", None),
            ("1XB", None),
            ("99999999999999P", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_size(text).ok(), want, "{text:?}");
        }
    }

    #[test]
    fn counts_have_commas() {
        for (count, want) in [(0, "0"), (999, "999"), (1_000, "1,000"), (-1_234_567, "-1,234,567")] {
            assert_eq!(comma(count), want);
        }
    }

    #[test]
    fn pairs_split_at_the_first_sign() {
        assert_eq!(parse_pair("a:b:c"), Ok(("a".into(), "b:c".into())));
        assert_eq!(parse_pair("a=b"), Ok(("a".into(), "b".into())));
        assert_eq!(parse_pair("Nats-TTL: 1h"), Ok(("Nats-TTL".into(), "1h".into())));
        assert!(parse_pair("nothing").is_err());
        assert!(parse_pair(":x").is_err());
    }

    #[test]
    fn the_servers_zero_time_is_never() {
        let now: Timestamp = "2026-01-01T00:00:10Z".parse().unwrap();
        assert_eq!(since("0001-01-01T00:00:00Z", now), "never");
        assert_eq!(since("", now), "never");
        assert_eq!(since("2026-01-01T00:00:00Z", now), "10.00s");
        assert_eq!(since("2026-01-01T00:01:00Z", now), "0s", "a clock that is ahead");
    }

    #[test]
    fn moments_are_read() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(parse_moment("1h", now).unwrap().to_string(), "2026-01-01T01:00:00Z");
        assert_eq!(parse_moment("2026-05-01T00:00:00Z", now).unwrap().to_string(), "2026-05-01T00:00:00Z");
        assert!(parse_moment("2026-05-01 10:00:00", now).is_ok());
        assert!(parse_moment("tomorrow", now).is_err());
    }
}
