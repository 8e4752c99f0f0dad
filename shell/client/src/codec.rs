//! How values become bytes and bytes become values.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Error;

/// A way to write and read values of type `T`. Implement it for a serializer of your own:
///
/// ```
/// use bytes::Bytes;
/// use headwater_client::{Codec, Error};
///
/// /// Numbers as decimal text.
/// #[derive(Clone)]
/// struct Decimal;
///
/// impl Codec<u64> for Decimal {
///     fn encode(&self, value: &u64) -> Result<Bytes, Error> {
///         Ok(value.to_string().into())
///     }
///     fn decode(&self, bytes: &Bytes) -> Result<u64, Error> {
///         let text = std::str::from_utf8(bytes).map_err(|error| Error::Decode(error.to_string()))?;
///         text.parse().map_err(|_| Error::Decode(format!("{text:?} is no number")))
///     }
/// }
///
/// assert_eq!(Decimal.decode(&Decimal.encode(&7).unwrap()).unwrap(), 7);
/// ```
pub trait Codec<T>: Clone + Send + Sync + 'static {
    /// A value's bytes.
    fn encode(&self, value: &T) -> Result<Bytes, Error>;
    /// The value in the bytes.
    fn decode(&self, bytes: &Bytes) -> Result<T, Error>;
}

/// JSON through serde; the default.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json;

/// Bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Raw;

/// Text; bytes that are not UTF-8 are an error.
#[derive(Clone, Copy, Debug, Default)]
pub struct Utf8;

impl<T: Serialize + DeserializeOwned> Codec<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes, Error> {
        serde_json::to_vec(value).map(Bytes::from).map_err(|error| Error::Encode(error.to_string()))
    }

    fn decode(&self, bytes: &Bytes) -> Result<T, Error> {
        serde_json::from_slice(bytes).map_err(|error| Error::Decode(error.to_string()))
    }
}

impl Codec<Bytes> for Raw {
    fn encode(&self, value: &Bytes) -> Result<Bytes, Error> {
        Ok(value.clone())
    }

    fn decode(&self, bytes: &Bytes) -> Result<Bytes, Error> {
        Ok(bytes.clone())
    }
}

impl Codec<String> for Utf8 {
    fn encode(&self, value: &String) -> Result<Bytes, Error> {
        Ok(Bytes::from(value.clone()))
    }

    fn decode(&self, bytes: &Bytes) -> Result<String, Error> {
        String::from_utf8(bytes.to_vec()).map_err(|error| Error::Decode(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_back() {
        let bytes = Json.encode(&vec![1, 2]).unwrap();
        assert_eq!(&bytes[..], b"[1,2]");
        assert_eq!(Codec::<Vec<i32>>::decode(&Json, &bytes).unwrap(), [1, 2]);
        assert_eq!(Utf8.decode(&Bytes::from_static("grüße".as_bytes())).unwrap(), "grüße");
        assert!(Utf8.decode(&Bytes::from_static(&[0xff])).is_err());
        assert_eq!(Raw.decode(&Bytes::from_static(&[0xff])).unwrap(), Bytes::from_static(&[0xff]));
    }
}
