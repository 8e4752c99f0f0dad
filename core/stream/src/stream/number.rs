//! Whole numbers of any size, for counters.

use std::fmt;

/// A whole number. Small ones, which is nearly all, cost no allocation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Number {
    /// What fits.
    Small(i128),
    /// Anything else: the digits without leading zeros.
    Large { negative: bool, digits: Box<[u8]> },
}

impl Number {
    /// Reads an optional sign and decimal digits.
    pub fn parse(text: &[u8]) -> Option<Number> {
        let (negative, digits) = match text.split_first()? {
            (b'-', digits) => (true, digits),
            (b'+', digits) => (false, digits),
            _ => (false, text),
        };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let zeros = digits.iter().take_while(|&&digit| digit == b'0').count();
        Some(Number::of(negative, digits[zeros..].to_vec()))
    }

    /// The sum.
    pub fn plus(&self, other: &Number) -> Number {
        if let (Number::Small(a), Number::Small(b)) = (self, other)
            && let Some(sum) = a.checked_add(*b)
        {
            return Number::Small(sum);
        }
        let ((negative_a, a), (negative_b, b)) = (self.parts(), other.parts());
        if negative_a == negative_b {
            return Number::of(negative_a, add(&a, &b));
        }
        match (a.len(), &a).cmp(&(b.len(), &b)) {
            std::cmp::Ordering::Less => Number::of(negative_b, subtract(&b, &a)),
            _ => Number::of(negative_a, subtract(&a, &b)),
        }
    }

    /// The difference.
    pub fn minus(&self, other: &Number) -> Number {
        let (negative, digits) = other.parts();
        self.plus(&Number::of(!negative, digits))
    }

    fn of(negative: bool, digits: Vec<u8>) -> Number {
        let text = std::str::from_utf8(&digits).unwrap_or_default();
        match text.parse::<i128>() {
            Ok(value) => Number::Small(if negative { -value } else { value }),
            Err(_) if digits.is_empty() => Number::Small(0),
            Err(_) => Number::Large { negative, digits: digits.into() },
        }
    }

    fn parts(&self) -> (bool, Vec<u8>) {
        match self {
            Number::Small(value) => (*value < 0, value.unsigned_abs().to_string().into_bytes()),
            Number::Large { negative, digits } => (*negative, digits.to_vec()),
        }
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Number::Small(value) => value.fmt(f),
            Number::Large { negative, digits } => {
                f.write_str(if *negative { "-" } else { "" })?;
                f.write_str(&String::from_utf8_lossy(digits))
            }
        }
    }
}

/// The digit that is worth ten to the `place`.
fn digit(digits: &[u8], place: usize) -> u8 {
    match digits.len().checked_sub(place + 1) {
        Some(at) => digits[at] - b'0',
        None => 0,
    }
}

fn add(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut sum = Vec::with_capacity(a.len().max(b.len()) + 1);
    let mut carry = 0;
    for place in 0..a.len().max(b.len()) {
        let here = digit(a, place) + digit(b, place) + carry;
        sum.push(here % 10 + b'0');
        carry = here / 10;
    }
    if carry > 0 {
        sum.push(b'1');
    }
    sum.reverse();
    sum
}

/// The difference; `a` is not smaller than `b`.
fn subtract(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut rest = Vec::with_capacity(a.len());
    let mut borrow = 0;
    for place in 0..a.len() {
        let (above, below) = (digit(a, place), digit(b, place) + borrow);
        borrow = u8::from(above < below);
        rest.push(above + 10 * borrow - below + b'0');
    }
    while rest.last() == Some(&b'0') {
        rest.pop();
    }
    rest.reverse();
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_nats_server_reads() {
        let large = "9".repeat(50);
        for (text, expected) in [
            ("1", Some("1")),
            ("+5", Some("5")),
            ("-2", Some("-2")),
            ("-0", Some("0")),
            ("007", Some("7")),
            ("0x10", None),
            ("x", None),
            ("", None),
            ("1.5", None),
            ("1_000", None),
            ("++1", None),
            ("--1", None),
            ("+", None),
            (large.as_str(), Some(large.as_str())),
        ] {
            let number = Number::parse(text.as_bytes()).map(|number| number.to_string());
            assert_eq!(number.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn adds() {
        let nines = "9".repeat(44);
        let power = format!("1{}", "0".repeat(44));
        let cases = [
            ("1", "2", "3"),
            ("4", nines.as_str(), "100000000000000000000000000000000000000000003"),
            ("100000000000000000000000000000000000000000003", &format!("-{power}"), "3"),
            (&format!("-{power}"), "1", &format!("-{nines}")),
            (&power, &format!("-{power}"), "0"),
            ("170141183460469231731687303715884105727", "1", "170141183460469231731687303715884105728"),
            ("-170141183460469231731687303715884105728", "-1", "-170141183460469231731687303715884105729"),
            ("-170141183460469231731687303715884105729", "2", "-170141183460469231731687303715884105727"),
        ];
        for (a, b, expected) in cases {
            let number = |text: &str| Number::parse(text.as_bytes()).expect(text);
            assert_eq!(number(a).plus(&number(b)).to_string(), expected);
            assert_eq!(number(b).plus(&number(a)), number(expected));
            assert_eq!(number(expected).minus(&number(a)), number(b));
        }
    }
}
