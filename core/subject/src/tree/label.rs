//! [`Label`]: a short byte string in 16 bytes.

/// Bytes that live in place up to [`Label::INLINE`] of them, and on the heap beyond.
#[derive(Debug)]
pub(super) enum Label {
    Inline {
        len: u8,
        bytes: [u8; Label::INLINE],
    },
    /// Up to [`Label::BLOCK`] bytes: enough for what distinguishes UUIDs and hashes, in one allocation.
    Block {
        len: u8,
        bytes: Box<[u8; Label::BLOCK]>,
    },
    /// Boxed twice: a slice's pointer and length would make every label 24 bytes, and few labels are this long.
    #[allow(clippy::redundant_allocation)]
    Long(Box<Box<[u8]>>),
}

impl Label {
    const INLINE: usize = 14;
    const BLOCK: usize = 40;

    pub(super) fn new(bytes: &[u8]) -> Label {
        Label::concat([bytes, &[], &[]])
    }

    /// `left`, then `key`, then `right`.
    pub(super) fn join(left: &[u8], key: u8, right: &[u8]) -> Label {
        Label::concat([left, &[key], right])
    }

    fn concat(parts: [&[u8]; 3]) -> Label {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let fill = |bytes: &mut [u8]| {
            let mut at = 0;
            for part in parts {
                bytes[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
        };
        if len <= Label::INLINE {
            let mut bytes = [0; Label::INLINE];
            fill(&mut bytes);
            Label::Inline { len: len as u8, bytes }
        } else if len <= Label::BLOCK {
            let mut bytes = Box::new([0; Label::BLOCK]);
            fill(&mut bytes[..]);
            Label::Block { len: len as u8, bytes }
        } else {
            Label::Long(Box::new(parts.concat().into()))
        }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Label::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Label::Block { len, bytes } => &bytes[..usize::from(*len)],
            Label::Long(bytes) => bytes,
        }
    }

    pub(super) fn insert(&mut self, at: usize, byte: u8) {
        match self {
            Label::Inline { len, bytes } if usize::from(*len) < Label::INLINE => {
                bytes.copy_within(at..usize::from(*len), at + 1);
                bytes[at] = byte;
                *len += 1;
            }
            _ => {
                let (left, right) = self.as_slice().split_at(at);
                *self = Label::join(left, byte, right);
            }
        }
    }

    pub(super) fn remove(&mut self, at: usize) {
        match self {
            Label::Inline { len, bytes } => {
                bytes.copy_within(at + 1..usize::from(*len), at);
                *len -= 1;
            }
            _ => {
                let (left, right) = self.as_slice().split_at(at);
                *self = Label::concat([left, &right[1..], &[]]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bytes() {
        assert_eq!(size_of::<Label>(), 16);
    }

    #[test]
    fn inserting_and_removing_is_what_a_vec_does() {
        let (mut label, mut model) = (Label::new(&[]), Vec::new());
        for i in 0..90u8 {
            let at = usize::from(i) * 7 % (model.len() + 1);
            label.insert(at, i);
            model.insert(at, i);
            assert_eq!(label.as_slice(), model);
        }
        while !model.is_empty() {
            let at = model.len() * 3 / 4;
            label.remove(at);
            model.remove(at);
            assert_eq!(label.as_slice(), model);
        }
    }

    #[test]
    fn joins_on_both_sides_of_the_limits() {
        for len in 0..60 {
            let left = vec![b'l'; len];
            let want = [&left[..], b"k", b"rr"].concat();
            assert_eq!(Label::join(&left, b'k', b"rr").as_slice(), want);
            assert_eq!(Label::new(&want).as_slice(), want);
        }
    }
}
