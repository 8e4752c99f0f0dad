//! Durations and sizes in texts.

use hw_kit::Span;

use crate::value::unit;

/// A duration such as `2m`, `1h30m`, `100ms` or `1.5s`, as Go writes them. `0` needs no unit.
pub fn parse_duration(text: &str) -> Result<Span, String> {
    let invalid = || format!("invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(Span::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (number, after) = split(rest, |c| c.is_ascii_digit() || c == '.');
        let (unit, after) = split(after, |c| !c.is_ascii_digit() && c != '.');
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(invalid());
        }
        let nanos: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("missing unit in duration {text:?}")),
            _ => return Err(format!("unknown unit {unit:?} in duration {text:?}")),
        };
        // 18 digits of a fraction say more than a nanosecond can.
        let fraction = &fraction[..fraction.len().min(18)];
        let digits = |text: &str| match text {
            "" => Ok(0i128),
            text => text.parse::<u64>().map(i128::from).map_err(|_| invalid()),
        };
        let scale = 10i128.pow(fraction.len() as u32);
        total += digits(whole)? * nanos + digits(fraction)? * nanos / scale;
        if total > i128::from(i64::MAX) {
            return Err(invalid());
        }
        rest = after;
    }
    let total = i64::try_from(total).map_err(|_| invalid())?;
    Ok(Span(if negative { -total } else { total }))
}

fn split(text: &str, first: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !first(c)).unwrap_or(text.len()))
}

/// A size such as `64MB`, `10GiB` or `1024`; -1 too.
pub fn parse_size(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (number, suffix) = split(digits, |c| c.is_ascii_digit());
    let number: i64 = text[..text.len() - digits.len() + number.len()].parse().ok()?;
    number.checked_mul(unit(suffix)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let cases = [
            ("100ms", 100_000_000),
            ("2m", 120_000_000_000),
            ("1h30m", 5_400_000_000_000),
            ("1.5s", 1_500_000_000),
            (".5s", 500_000_000),
            ("-1s", -1_000_000_000),
            ("+1s", 1_000_000_000),
            ("10us", 10_000),
            ("10µs", 10_000),
            ("0", 0),
            ("0s", 0),
            ("3ns", 3),
            ("1.0000000000000000000000001s", 1_000_000_000),
        ];
        for (text, nanos) in cases {
            assert_eq!(parse_duration(text), Ok(Span(nanos)), "{text}");
        }
        for bad in [
            "",
            "-",
            "x",
            "5",
            "1d",
            "s",
            "1..5s",
            ".s",
            "1s2",
            "99999999999h",
            "1 s",
            "9999999999999999999999s",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        let cases = [("64MiB", 64 << 20), ("1Gb", 1 << 30), ("1G", 1_000_000_000), ("12", 12), ("-1", -1)];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for bad in ["", "-", "x", "1.5G", "1X", "G", "99999999999999999999", "9999999999G", "1 G", "1é"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
