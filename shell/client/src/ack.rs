//! The answer to a publish.

use serde::Deserialize;

use crate::Error;

/// The server's answer to a publish: where the message is stored, or why it is not.
#[derive(Clone, Debug, Deserialize)]
pub struct Ack {
    /// The stream that took the message.
    #[serde(default)]
    pub stream: String,
    /// The message's sequence in it.
    #[serde(rename = "seq", default)]
    pub sequence: u64,
    /// The domain of the stream; empty: none.
    #[serde(default)]
    pub domain: String,
    /// Whether the message id was seen before within the stream's duplicate window.
    #[serde(default)]
    pub duplicate: bool,
    /// Why the message was not stored.
    #[serde(default)]
    pub error: Option<Refusal>,
}

/// An error of the JetStream API.
#[derive(Clone, Debug, Deserialize, thiserror::Error)]
#[error("{description} ({err_code})")]
pub struct Refusal {
    /// Like an HTTP status.
    pub code: u16,
    /// What programs compare.
    #[serde(default)]
    pub err_code: u16,
    /// For people.
    #[serde(default)]
    pub description: String,
}

impl Ack {
    /// The acknowledgement if the message is stored, the refusal otherwise. A duplicate is stored: once.
    pub fn ensure_success(self) -> Result<Ack, Error> {
        match self.error {
            Some(refusal) => Err(refusal.into()),
            None => Ok(self),
        }
    }

    /// Whether the message is stored.
    pub fn is_success(&self) -> bool {
        self.error.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds() {
        let ack: Ack = serde_json::from_str(r#"{"stream":"S","seq":3,"duplicate": true}"#).unwrap();
        assert!(ack.is_success() && ack.duplicate);
        assert_eq!(ack.ensure_success().unwrap().sequence, 3);
        let text = r#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 2"},"stream":"S","seq":0}"#;
        let ack: Ack = serde_json::from_str(text).unwrap();
        assert_eq!(ack.ensure_success().unwrap_err().to_string(), "wrong last sequence: 2 (10071)");
    }
}
