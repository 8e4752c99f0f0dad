//! Compression of what travels on a link. Each side says how it wants that, and compresses what it sends by itself, piece by
//! piece: a piece that does not become smaller travels as it is.

use hw_kit::Span;
use minlz::s2::{decode, decode_len, encode, encode_best, encode_better};

use crate::frame::FrameError;
use crate::limits::PIECE_BYTES;

/// Pieces below this gain nothing.
const LEAST_BYTES: usize = 64;

/// How a server wants its links.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Compression {
    /// Not compressed, in neither direction.
    #[default]
    Off,
    /// As the other side wants it.
    Accept,
    /// Compressed with little work.
    Fast,
    /// With more.
    Better,
    /// With most.
    Best,
    /// The more, the longer the way: up to the first of these times not at all, then as `Fast`, `Better` and `Best`.
    Auto(Vec<Span>),
}

/// What of it the other side is told.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Wish {
    /// [`Compression::Off`], or a server that does not know compression.
    #[default]
    Off,
    /// [`Compression::Accept`].
    Accept,
    /// [`Compression::Fast`], or [`Compression::Auto`]: what the way is like is known on its own side.
    Fast,
    /// [`Compression::Better`].
    Better,
    /// [`Compression::Best`].
    Best,
}

/// What is done to the pieces that are sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Effort {
    /// Nothing, by agreement.
    #[default]
    Off,
    /// Nothing now.
    None,
    /// See [`Compression::Fast`].
    Fast,
    /// See [`Compression::Better`].
    Better,
    /// See [`Compression::Best`].
    Best,
}

impl Wish {
    pub(crate) fn number(self) -> u8 {
        match self {
            Wish::Off => 0,
            Wish::Accept => 1,
            Wish::Fast => 2,
            Wish::Better => 3,
            Wish::Best => 4,
        }
    }

    /// What is of a newer version is not spoken.
    pub(crate) fn of(number: u8) -> Wish {
        match number {
            1 => Wish::Accept,
            2 => Wish::Fast,
            3 => Wish::Better,
            4 => Wish::Best,
            _ => Wish::Off,
        }
    }
}

impl Compression {
    pub(crate) fn wish(&self) -> Wish {
        match self {
            Compression::Off => Wish::Off,
            Compression::Accept => Wish::Accept,
            Compression::Fast | Compression::Auto(_) => Wish::Fast,
            Compression::Better => Wish::Better,
            Compression::Best => Wish::Best,
        }
    }

    /// What this side does on a link with a server that wants `other`, to which the way there and back takes `rtt`.
    pub(crate) fn effort(&self, other: Wish, rtt: Span) -> Effort {
        match (self, other) {
            (Compression::Off, _) | (_, Wish::Off) | (Compression::Accept, Wish::Accept) => Effort::Off,
            (Compression::Accept, Wish::Fast) | (Compression::Fast, _) => Effort::Fast,
            (Compression::Accept, Wish::Better) | (Compression::Better, _) => Effort::Better,
            (Compression::Accept, Wish::Best) | (Compression::Best, _) => Effort::Best,
            (Compression::Auto(thresholds), _) => {
                match thresholds.iter().position(|threshold| rtt < *threshold).unwrap_or(thresholds.len()) {
                    0 => Effort::None,
                    1 => Effort::Fast,
                    2 => Effort::Better,
                    _ => Effort::Best,
                }
            }
        }
    }
}

impl Effort {
    /// As `nats-server` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Effort::Off => "off",
            Effort::None => "s2_uncompressed",
            Effort::Fast => "s2_fast",
            Effort::Better => "s2_better",
            Effort::Best => "s2_best",
        }
    }

    /// A piece as an S2 block, if that is shorter.
    pub(crate) fn pack(self, piece: &[u8]) -> Option<Vec<u8>> {
        if piece.len() < LEAST_BYTES {
            return None;
        }
        let packed = match self {
            Effort::Off | Effort::None => return None,
            Effort::Fast => encode(piece),
            Effort::Better => encode_better(piece),
            Effort::Best => encode_best(piece),
        };
        Some(packed).filter(|packed| packed.len() < piece.len())
    }
}

/// The piece that a block was made of; never longer than a piece may be.
pub(crate) fn unpack(block: &[u8]) -> Result<Vec<u8>, FrameError> {
    let (length, _) = decode_len(block).map_err(|_| FrameError::Packed)?;
    if length > PIECE_BYTES {
        return Err(FrameError::TooLong(length as u64));
    }
    decode(block).map_err(|_| FrameError::Packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_have_a_say() {
        let auto = |thresholds: &[i64]| {
            Compression::Auto(thresholds.iter().map(|ms| Span::from_millis(*ms)).collect())
        };
        // Asked from nats-server 2.15.1; 5 ms are the way there and back.
        for (own, other, wanted) in [
            (Compression::Off, Wish::Best, "off"),
            (Compression::Fast, Wish::Off, "off"),
            (Compression::Accept, Wish::Accept, "off"),
            (Compression::Accept, Wish::Fast, "s2_fast"),
            (Compression::Accept, Wish::Better, "s2_better"),
            (Compression::Accept, Wish::Best, "s2_best"),
            (Compression::Fast, Wish::Accept, "s2_fast"),
            (Compression::Fast, Wish::Best, "s2_fast"),
            (Compression::Better, Wish::Best, "s2_better"),
            (Compression::Best, Wish::Accept, "s2_best"),
            (auto(&[10, 50, 100]), Wish::Accept, "s2_uncompressed"),
            (auto(&[5, 50, 100]), Wish::Best, "s2_fast"),
            (auto(&[0, 0, 100]), Wish::Best, "s2_better"),
            (auto(&[1, 2, 3]), Wish::Best, "s2_best"),
            (auto(&[1, 2, 3, 4]), Wish::Best, "s2_best"),
        ] {
            let effort = own.effort(other, Span::from_millis(5));
            assert_eq!(effort.name(), wanted, "{own:?} with {other:?}");
        }
    }

    #[test]
    fn pieces_come_back_and_nothing_else_does() {
        let piece = b"orders.new ".repeat(500);
        for effort in [Effort::Fast, Effort::Better, Effort::Best] {
            let packed = effort.pack(&piece).unwrap();
            assert!(packed.len() < piece.len() / 4, "{effort:?}: {}", packed.len());
            assert_eq!(unpack(&packed).unwrap(), piece);
            for end in 0..packed.len() {
                assert!(unpack(&packed[..end]).is_err(), "{end}");
            }
        }
        let noise: Vec<u8> = (0..5000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        assert!(Effort::Best.pack(&noise).is_none_or(|packed| packed.len() < noise.len()));
        assert_eq!((Effort::Fast.pack(b"short"), Effort::None.pack(&piece)), (None, None));
        // Longer than a piece may be.
        assert_eq!(
            unpack(&encode(&vec![0; PIECE_BYTES + 1])),
            Err(FrameError::TooLong(PIECE_BYTES as u64 + 1))
        );
    }
}
