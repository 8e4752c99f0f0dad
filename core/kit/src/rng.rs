//! Randomness from a seed. Never for secrets: keys come from the crypto library in the shell.

/// SplitMix64: small, fast, and the same everywhere for the same seed.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

impl Rng {
    /// A generator that repeats exactly for the same seed.
    pub fn new(seed: u64) -> Rng {
        Rng { state: seed }
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // Multiply-shift: the bias is below 2^-32 for every bound that occurs here.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// True with a chance of `parts` in `whole`.
    pub fn chance(&mut self, parts: u64, whole: u64) -> bool {
        self.below(whole) < parts
    }

    /// `N` letters and digits, as NATS writes generated names.
    pub fn base62<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| DIGITS[self.below(62) as usize])
    }
}

/// Unique ids in the NUID format: 22 letters and digits, a random prefix and a counter.
#[derive(Clone, Debug)]
pub struct Nuid {
    prefix: [u8; 12],
    count: u64,
}

impl Nuid {
    /// Ids of this generator share the prefix that `rng` gives it.
    pub fn new(rng: &mut Rng) -> Nuid {
        Nuid { prefix: rng.base62(), count: rng.below(62u64.pow(9)) }
    }

    /// The next id.
    pub fn next_id(&mut self) -> String {
        self.count += 1;
        let mut id = [0u8; 22];
        id[..12].copy_from_slice(&self.prefix);
        let mut rest = self.count;
        for slot in id[12..].iter_mut().rev() {
            *slot = DIGITS[(rest % 62) as usize];
            rest /= 62;
        }
        id.iter().map(|&b| char::from(b)).collect()
    }
}

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_repeats() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        assert!((0..100).all(|_| a.next_u64() == b.next_u64()));
        assert!((0..1000).all(|_| a.below(10) < 10));
    }

    #[test]
    fn ids_do_not_repeat() {
        let mut ids = Nuid::new(&mut Rng::new(1));
        let all: std::collections::BTreeSet<String> = (0..1000).map(|_| ids.next_id()).collect();
        assert_eq!(all.len(), 1000);
        assert!(all.iter().all(|id| id.len() == 22));
    }
}
