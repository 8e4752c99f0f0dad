//! Random choices that a seed repeats.

/// A small generator (xorshift), seeded.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// The same seed, the same choices.
    pub fn new(seed: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        // The first few are close together for seeds that are.
        for _ in 0..4 {
            dice.next();
        }
        dice
    }

    /// The seed that a variable names, else always the same one, so that a change is judged by what it changed; `clock`
    /// draws one. Printed, so that a failure can be repeated.
    pub fn from_env(variable: &str) -> Self {
        let named = std::env::var(variable).ok();
        let seed = match named.as_deref() {
            Some("clock") => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                now.map_or(1, |since| since.as_nanos() as u64 % 1_000_000_007)
            }
            Some(text) => text.parse().unwrap_or(1),
            None => 1,
        };
        println!("{variable}={seed}");
        Self::new(seed)
    }

    /// A number below `n`, which is not 0.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}
