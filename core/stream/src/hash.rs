//! The short hash that stands for a longer text in subjects and names, as in `nats-server`.

use sha2::{Digest, Sha256};

/// Eight letters and digits.
pub fn short_hash(text: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let hash = Sha256::digest(text.as_bytes());
    hash.iter().take(8).map(|&byte| char::from(DIGITS[usize::from(byte % 62)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_nats_has_it() {
        assert_eq!(short_hash("$G"), "szMpdrwD");
    }
}
