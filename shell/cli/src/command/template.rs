//! Bodies with placeholders: `{{Count}}`, `{{Time}}`, `{{Random 10 100}}`.

use std::hash::{BuildHasher, Hasher};

use jiff::Timestamp;

use super::units;

/// A cheap source of random values; nothing secret may come from it.
pub struct Dice(u64);

impl Dice {
    /// A source that no two processes share.
    pub fn new() -> Self {
        // The standard library seeds each of these from the operating system.
        let seed = std::collections::hash_map::RandomState::new().build_hasher().finish();
        Self(seed | 1)
    }

    /// The next value (xorshift).
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A value from `low` to `high`, both included.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll() % high.saturating_sub(low).saturating_add(1).max(1)
    }

    /// Letters and digits.
    pub fn id(&mut self, length: usize) -> String {
        const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        (0..length).map(|_| DIGITS[(self.roll() % 62) as usize] as char).collect()
    }
}

/// What a placeholder may name.
pub struct Values<'a> {
    /// Number of this message.
    pub count: u64,
    /// The request that is being answered.
    pub request: &'a [u8],
}

/// Fills the placeholders of a text. What is not a known placeholder stays as it is.
pub fn fill(text: &str, values: &Values<'_>, dice: &mut Dice) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(begin) = rest.find("{{") {
        let Some(length) = rest[begin..].find("}}") else { break };
        out.push_str(&rest[..begin]);
        let whole = &rest[begin..begin + length + 2];
        let inside = whole[2..whole.len() - 2].trim().trim_start_matches('.');
        out.push_str(&value(inside, values, dice).unwrap_or_else(|| whole.to_owned()));
        rest = &rest[begin + length + 2..];
    }
    out.push_str(rest);
    out
}

fn value(inside: &str, values: &Values<'_>, dice: &mut Dice) -> Option<String> {
    let now = Timestamp::now();
    let words: Vec<&str> = inside.split([' ', ',', '(', ')']).filter(|word| !word.is_empty()).collect();
    match words.as_slice() {
        ["Count" | "Cnt"] => Some(values.count.to_string()),
        ["TimeStamp"] => Some(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
        ["Unix"] => Some(now.as_second().to_string()),
        ["UnixNano"] => Some(now.as_nanosecond().to_string()),
        ["Time"] => Some(units::clock()),
        ["ID"] => Some(dice.id(22)),
        ["Request"] => Some(String::from_utf8_lossy(values.request).into_owned()),
        ["Random", low, high] => {
            let (low, high) = (low.parse().ok()?, high.parse::<u64>().ok()?);
            // A typing error must not fill the memory.
            let length = dice.between(low, high.min(64 << 20));
            Some(dice.id(length as usize))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled() {
        let values = Values { count: 7, request: b"ask" };
        let cases = [
            ("plain", "plain"),
            ("{{Count}}", "7"),
            ("a {{ Count }} b {{.Request}}", "a 7 b ask"),
            ("{{Unknown}} {{1}}", "{{Unknown}} {{1}}"),
            ("{{Count", "{{Count"),
            ("}}{{Count}}", "}}7"),
        ];
        for (text, want) in cases {
            assert_eq!(fill(text, &values, &mut Dice::new()), want);
        }
    }

    #[test]
    fn random_text_has_the_length_asked_for() {
        let values = Values { count: 0, request: b"" };
        let mut dice = Dice::new();
        for _ in 0..100 {
            let length = fill("{{ Random 10 20 }}", &values, &mut dice).len();
            assert!((10..=20).contains(&length), "{length}");
        }
        assert_eq!(fill("{{ID}}", &values, &mut dice).len(), 22);
    }
}
