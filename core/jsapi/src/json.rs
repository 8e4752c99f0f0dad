//! JSON as Go writes and reads it: `<`, `>` and `&` are escaped; null is as good as nothing.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

struct GoFormatter;

impl Formatter for GoFormatter {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(['<', '>', '&']) {
            CompactFormatter.write_string_fragment(writer, &rest[..at])?;
            write!(writer, "\\u{:04x}", rest.as_bytes()[at])?;
            rest = &rest[at + 1..];
        }
        CompactFormatter.write_string_fragment(writer, rest)
    }
}

/// A value's JSON, as the real server would write it.
pub fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let mut serializer = Serializer::with_formatter(&mut out, GoFormatter);
    value.serialize(&mut serializer).expect("plain data with text keys always encodes");
    out
}

/// Reads JSON in which clients may write null for any field that they do not set.
pub(crate) fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, serde_json::Error> {
    serde_json::from_slice(body).or_else(|error| {
        if !body.windows(4).any(|bytes| bytes == b"null") {
            return Err(error);
        }
        let mut value: Value = serde_json::from_slice(body)?;
        drop_nulls(&mut value);
        serde_json::from_value(value).map_err(|_| error)
    })
}

/// Removes every member that is null.
pub(crate) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_is_as_good_as_nothing() {
        #[derive(Debug, Default, PartialEq, serde::Deserialize)]
        #[serde(default)]
        struct Body {
            number: i64,
            inner: Option<Box<Body>>,
        }
        let read = |text: &str| from_json::<Body>(text.as_bytes()).map_err(|error| error.to_string());
        let seven = || Body { number: 7, inner: Some(Box::default()) };
        assert_eq!(read(r#"{"number":7,"inner":{"number":null,"inner":null}}"#), Ok(seven()));
        assert_eq!(read(r#"{"number":null}"#), Ok(Body::default()));
        assert!(read(r#"{"number":"null"}"#).is_err(), "a text is no null");
        assert!(read(r#"{"number":null"#).is_err());
    }

    #[test]
    fn escapes_like_go() {
        assert_eq!(super::to_json(&"a.>&<"), br#""a.\u003e\u0026\u003c""#);
    }
}
