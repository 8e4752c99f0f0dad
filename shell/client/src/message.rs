//! A delivered message and the ways to settle it.

use std::marker::PhantomData;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::{self, AckKind};
use bytes::Bytes;

use crate::{Codec, Error};

/// A message from a consumer. It is delivered again after the ack wait unless it is settled.
#[derive(Debug)]
pub struct Message<T, C> {
    inner: jetstream::Message,
    codec: C,
    value: PhantomData<fn() -> T>,
}

impl<T, C: Codec<T>> Message<T, C> {
    pub(crate) fn new(inner: jetstream::Message, codec: C) -> Message<T, C> {
        Message { inner, codec, value: PhantomData }
    }

    /// The value in the payload.
    pub fn data(&self) -> Result<T, Error> {
        self.codec.decode(&self.inner.payload)
    }

    /// The payload as it is.
    pub fn payload(&self) -> &Bytes {
        &self.inner.payload
    }

    /// The subject that it was published on.
    pub fn subject(&self) -> &str {
        self.inner.subject.as_str()
    }

    /// Its headers.
    pub fn headers(&self) -> Option<&HeaderMap> {
        self.inner.headers.as_ref()
    }

    /// Its sequence in the stream.
    pub fn sequence(&self) -> Result<u64, Error> {
        self.inner.info().map(|info| info.stream_sequence).map_err(|error| Error::Answer(error.to_string()))
    }

    /// How many times it was delivered, this time included.
    pub fn deliveries(&self) -> Result<i64, Error> {
        self.inner.info().map(|info| info.delivered).map_err(|error| Error::Answer(error.to_string()))
    }

    /// Done.
    pub async fn ack(&self) -> Result<(), Error> {
        self.settle(AckKind::Ack).await
    }

    /// Done, and the server has confirmed it: the message is never delivered again.
    pub async fn double_ack(&self) -> Result<(), Error> {
        self.inner.double_ack().await.map_err(|error| Error::Answer(error.to_string()))
    }

    /// Not done: deliver it again at once, or after a delay.
    pub async fn nak(&self, delay: Option<Duration>) -> Result<(), Error> {
        self.settle(AckKind::Nak(delay)).await
    }

    /// Still working: the ack wait starts again.
    pub async fn in_progress(&self) -> Result<(), Error> {
        self.settle(AckKind::Progress).await
    }

    /// Never deliver it again.
    pub async fn terminate(&self) -> Result<(), Error> {
        self.settle(AckKind::Term).await
    }

    /// The `async-nats` message below.
    pub fn inner(&self) -> &jetstream::Message {
        &self.inner
    }

    async fn settle(&self, kind: AckKind) -> Result<(), Error> {
        self.inner.ack_with(kind).await.map_err(|error| Error::Answer(error.to_string()))
    }
}
