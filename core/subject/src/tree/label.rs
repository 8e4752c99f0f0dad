//! [`Label`]: a short byte string in 16 bytes.

/// Bytes that live in place up to [`Label::INLINE`] of them, and on the heap beyond.
#[derive(Debug)]
pub(super) enum Label {
    Inline {
        len: u8,
        bytes: [u8; Label::INLINE],
    },
    /// Boxed twice: a slice's pointer and length would make every label 24 bytes, and few labels are long.
    #[allow(clippy::redundant_allocation)]
    Heap(Box<Box<[u8]>>),
}

impl Label {
    const INLINE: usize = 14;

    pub(super) fn new(bytes: &[u8]) -> Label {
        if bytes.len() > Label::INLINE {
            return Label::Heap(Box::new(bytes.into()));
        }
        let mut inline = [0; Label::INLINE];
        inline[..bytes.len()].copy_from_slice(bytes);
        Label::Inline { len: bytes.len() as u8, bytes: inline }
    }

    /// `left`, then `key`, then `right`.
    pub(super) fn join(left: &[u8], key: u8, right: &[u8]) -> Label {
        let len = left.len() + 1 + right.len();
        if len > Label::INLINE {
            return Label::Heap(Box::new([left, &[key], right].concat().into()));
        }
        let mut inline = [0; Label::INLINE];
        inline[..left.len()].copy_from_slice(left);
        inline[left.len()] = key;
        inline[left.len() + 1..len].copy_from_slice(right);
        Label::Inline { len: len as u8, bytes: inline }
    }

    pub(super) fn as_slice(&self) -> &[u8] {
        match self {
            Label::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Label::Heap(bytes) => bytes,
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
            Label::Heap(bytes) => {
                let mut rest = bytes.to_vec();
                rest.remove(at);
                *self = Label::new(&rest);
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
        for i in 0..40u8 {
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
    fn joins_on_both_sides_of_the_limit() {
        for len in 0..20 {
            let left = vec![b'l'; len];
            let want = [&left[..], b"k", b"rr"].concat();
            assert_eq!(Label::join(&left, b'k', b"rr").as_slice(), want);
            assert_eq!(Label::new(&want).as_slice(), want);
        }
    }
}
