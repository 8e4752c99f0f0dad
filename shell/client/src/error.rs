//! What can go wrong, by whose fault it is.

use crate::Refusal;

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be made.
    #[error("cannot connect: {0}")]
    Connect(#[source] async_nats::ConnectError),
    /// No answer came: no stream takes the subject, or nobody answered in time.
    #[error("no answer: {0}")]
    Request(#[source] async_nats::RequestError),
    /// The message could not be handed to the connection.
    #[error("cannot publish: {0}")]
    Publish(#[source] async_nats::PublishError),
    /// The server refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A value could not be turned into bytes.
    #[error("cannot encode the value: {0}")]
    Encode(String),
    /// Bytes could not be turned into a value.
    #[error("cannot decode the message: {0}")]
    Decode(String),
    /// The server's answer was not what the protocol says.
    #[error("unexpected answer: {0}")]
    Answer(String),
    /// An `async-nats` JetStream call failed.
    #[error("{0}")]
    JetStream(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Wraps any JetStream error of `async-nats`.
    pub(crate) fn jetstream(error: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error::JetStream(Box::new(error))
    }
}
