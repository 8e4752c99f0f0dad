//! Fields of a frame's body: fixed numbers, and texts behind their length.

use crate::limits::TEXT_BYTES_MAX;

/// A body is not what its kind demands.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum FieldError {
    /// It ends too early.
    #[error("it ends in the middle of a field")]
    Short,
    /// It goes on after its end.
    #[error("there is something behind the last field")]
    Long,
    /// A text or a list is longer than allowed.
    #[error("a field is longer than allowed")]
    TooLong,
    /// A text is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
    /// A number that means nothing.
    #[error("an unknown value")]
    Value,
}

/// Reads fields one after the other.
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn fixed<const N: usize>(&mut self) -> Result<[u8; N], FieldError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(FieldError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    pub fn byte(&mut self) -> Result<u8, FieldError> {
        self.fixed::<1>().map(|[byte]| byte)
    }

    pub fn flag(&mut self) -> Result<bool, FieldError> {
        match self.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(FieldError::Value),
        }
    }

    pub fn u16(&mut self) -> Result<u16, FieldError> {
        self.fixed().map(u16::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, FieldError> {
        self.fixed().map(u64::from_le_bytes)
    }

    pub fn i64(&mut self) -> Result<i64, FieldError> {
        self.fixed().map(i64::from_le_bytes)
    }

    pub fn text(&mut self) -> Result<String, FieldError> {
        let len = usize::from(self.u16()?);
        if len > TEXT_BYTES_MAX {
            return Err(FieldError::TooLong);
        }
        let (text, rest) = self.0.split_at_checked(len).ok_or(FieldError::Short)?;
        self.0 = rest;
        std::str::from_utf8(text).map(str::to_owned).map_err(|_| FieldError::Text)
    }

    pub fn list<T>(
        &mut self,
        most: usize,
        mut each: impl FnMut(&mut Self) -> Result<T, FieldError>,
    ) -> Result<Vec<T>, FieldError> {
        let count = usize::from(self.u16()?);
        if count > most {
            return Err(FieldError::TooLong);
        }
        (0..count).map(|_| each(self)).collect()
    }

    pub fn end(self) -> Result<(), FieldError> {
        if self.0.is_empty() { Ok(()) } else { Err(FieldError::Long) }
    }
}

/// Appends a text behind its length; what is longer than allowed is cut at a character.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str) {
    let mut len = text.len().min(TEXT_BYTES_MAX);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    out.extend_from_slice(&(len as u16).to_le_bytes());
    out.extend_from_slice(&text.as_bytes()[..len]);
}

/// Appends a list behind its length; what is longer than allowed is cut.
pub(crate) fn put_list<T>(out: &mut Vec<u8>, list: &[T], mut each: impl FnMut(&mut Vec<u8>, &T)) {
    let len = list.len().min(crate::limits::LIST_MAX);
    out.extend_from_slice(&(len as u16).to_le_bytes());
    list[..len].iter().for_each(|item| each(out, item));
}
