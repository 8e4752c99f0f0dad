//! `Nats-Request-Info`: what a service in another account is told about who asks.

use serde::Serialize;

/// The header's name.
pub const REQUEST_INFO: &str = "Nats-Request-Info";

/// The JSON of the header. Fields that are empty or zero are left out; a service that is not to know who asks gets the
/// account and the round trip alone.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct RequestInfo {
    /// When the client connected.
    #[serde(skip_serializing_if = "is_default")]
    pub start: String,
    /// The client's address.
    #[serde(skip_serializing_if = "is_default")]
    pub host: String,
    /// The connection's number.
    #[serde(skip_serializing_if = "is_default")]
    pub id: u64,
    /// The client's account.
    #[serde(skip_serializing_if = "is_default")]
    pub acc: String,
    /// The account in between, if there is one.
    #[serde(skip_serializing_if = "is_default")]
    pub svc: String,
    /// The user's name.
    #[serde(skip_serializing_if = "is_default")]
    pub user: String,
    /// What the client calls itself.
    #[serde(skip_serializing_if = "is_default")]
    pub name: String,
    /// Its library's language.
    #[serde(skip_serializing_if = "is_default")]
    pub lang: String,
    /// Its library's version.
    #[serde(skip_serializing_if = "is_default")]
    pub ver: String,
    /// Nanoseconds there and back.
    #[serde(skip_serializing_if = "is_default")]
    pub rtt: i64,
    /// The server's name.
    #[serde(skip_serializing_if = "is_default")]
    pub server: String,
    /// `Client`.
    #[serde(skip_serializing_if = "is_default")]
    pub kind: String,
    /// `nats` or `websocket`.
    #[serde(skip_serializing_if = "is_default")]
    pub client_type: String,
}

impl RequestInfo {
    /// The header's value.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_left_out() {
        let info = RequestInfo { acc: "TWO".into(), rtt: 5, ..RequestInfo::default() };
        assert_eq!(info.to_json(), br#"{"acc":"TWO","rtt":5}"#);
    }
}
