//! `Nats-TTL`: how long a single message lives.

use hw_kit::Span;

/// What the header asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ttl {
    /// So long.
    Lives(Span),
    /// For ever, whatever `max_age` says.
    Never,
}

/// The header's value is neither whole seconds, nor a duration of a second or more, nor `never`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct InvalidTtl;

impl Ttl {
    /// Reads the header's value.
    pub fn parse(value: &[u8]) -> Result<Ttl, InvalidTtl> {
        if value.eq_ignore_ascii_case(b"never") {
            return Ok(Ttl::Never);
        }
        let text = std::str::from_utf8(value).map_err(|_| InvalidTtl)?;
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            let seconds: i64 = text.parse().map_err(|_| InvalidTtl)?;
            if seconds < 1 {
                return Err(InvalidTtl);
            }
            return Ok(Ttl::Lives(Span(seconds.saturating_mul(1_000_000_000))));
        }
        let span = parse_duration(text).ok_or(InvalidTtl)?;
        if span < Span::from_secs(1) { Err(InvalidTtl) } else { Ok(Ttl::Lives(span)) }
    }
}

/// A Go duration: `1h30m`, `1.5s`, `-3ms`; None when it is not one or does not fit.
pub(crate) fn parse_duration(text: &str) -> Option<Span> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(Span::ZERO);
    }
    let mut total: i128 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, after) = rest.split_at(digits);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.bytes().take_while(u8::is_ascii_digit).count()),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let (unit, after) = unit(after)?;
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok().filter(|&n| n < 1 << 64)? };
        total += whole * unit;
        // Digits beyond the 18th are worth less than a nanosecond of an hour.
        let fraction = &fraction[..fraction.len().min(18)];
        if !fraction.is_empty() {
            let scale = 10i128.pow(fraction.len() as u32);
            total += fraction.parse::<i128>().ok()? * unit / scale;
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok().map(Span)
}

fn unit(text: &str) -> Option<(i128, &str)> {
    let units = [
        ("ns", 1),
        ("us", 1_000),
        ("\u{b5}s", 1_000),
        ("\u{3bc}s", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    units.iter().find_map(|&(name, nanos)| text.strip_prefix(name).map(|rest| (nanos, rest)))
}

/// A duration as Go writes it: `1.5s`, `2m0s`, `1h0m0s`.
pub(crate) fn format_duration(span: Span) -> String {
    let nanos = span.0.unsigned_abs();
    let sign = if span.0 < 0 { "-" } else { "" };
    let fraction = |value: u64, unit: u64| {
        let (whole, part) = (value / unit, value % unit);
        let digits = unit.ilog10() as usize;
        let part = format!("{part:0digits$}");
        match part.trim_end_matches('0') {
            "" => whole.to_string(),
            part => format!("{whole}.{part}"),
        }
    };
    let text = match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => format!("{}\u{b5}s", fraction(nanos, 1_000)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(nanos, 1_000_000)),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let seconds = fraction(nanos % 60_000_000_000, 1_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_nats_server_accepts() {
        let lives = |nanos: i64| Ok(Ttl::Lives(Span(nanos)));
        let s = 1_000_000_000;
        let bad = Err(InvalidTtl);
        for (text, expected) in [
            ("0", bad),
            ("-1", bad),
            ("1", lives(s)),
            ("1s", lives(s)),
            ("500ms", bad),
            ("999ms", bad),
            ("1000ms", lives(s)),
            ("never", Ok(Ttl::Never)),
            ("NEVER", Ok(Ttl::Never)),
            ("1h30m", lives(5400 * s)),
            ("1.5s", lives(3 * s / 2)),
            ("1.5", bad),
            ("9999999999999", lives(i64::MAX)),
            ("2562047h", lives(2_562_047 * 3600 * s)),
            ("2562048h", bad),
            ("1d", bad),
            ("+5", bad),
            ("-1s", bad),
            ("0s", bad),
            ("1us", bad),
            ("1\u{b5}s", bad),
            ("1h1", bad),
            ("5  ", bad),
            ("", bad),
            ("s", bad),
            (".s", bad),
            ("99999999999999999999999999999999999999999s", bad),
        ] {
            assert_eq!(Ttl::parse(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn writes_durations_as_go_does() {
        for (nanos, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5\u{b5}s"),
            (2_000_000, "2ms"),
            (1_000_000_000, "1s"),
            (1_500_000_000, "1.5s"),
            (90_000_000_000, "1m30s"),
            (3_600_000_000_000, "1h0m0s"),
            (-1_000_000_000, "-1s"),
        ] {
            assert_eq!(format_duration(Span(nanos)), expected);
            assert_eq!(parse_duration(expected), Some(Span(nanos)));
        }
    }
}
