//! A pull consumer, typed.

use std::time::Duration;

use async_nats::jetstream::consumer::{Info, PullConsumer};
use futures_util::StreamExt;

use crate::{Codec, Consume, Error, Message};

/// A view of a stream that remembers on the server what was delivered and acknowledged.
#[derive(Clone, Debug)]
pub struct Consumer<C> {
    inner: PullConsumer,
    codec: C,
}

impl<C: Clone> Consumer<C> {
    pub(crate) fn new(inner: PullConsumer, codec: C) -> Consumer<C> {
        Consumer { inner, codec }
    }

    /// The `async-nats` consumer below.
    pub fn inner(&self) -> &PullConsumer {
        &self.inner
    }

    /// Asks the server for the consumer's state.
    pub async fn info(&mut self) -> Result<Info, Error> {
        self.inner.info().await.cloned().map_err(Error::jetstream)
    }

    /// Messages without end: refilled in the background, continued after reconnects and server restarts.
    pub fn consume<T>(&self) -> Consume<T, C>
    where
        C: Codec<T>,
    {
        Consume::new(self.inner.clone(), self.codec.clone())
    }

    /// The next message, or none within `expires`.
    pub async fn next<T>(&self, expires: Duration) -> Result<Option<Message<T, C>>, Error>
    where
        C: Codec<T>,
    {
        let batch = self.inner.fetch().max_messages(1).expires(expires).messages().await;
        let mut batch = batch.map_err(Error::jetstream)?;
        match batch.next().await {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(Message::new(message, self.codec.clone()))),
            Some(Err(error)) => Err(Error::Answer(error.to_string())),
        }
    }

    /// Up to `max` messages that are there or come within `expires`.
    pub async fn fetch<T>(&self, max: usize, expires: Duration) -> Result<Vec<Message<T, C>>, Error>
    where
        C: Codec<T>,
    {
        let batch = self.inner.fetch().max_messages(max).expires(expires).messages().await;
        let mut batch = batch.map_err(Error::jetstream)?;
        let mut messages = Vec::new();
        while let Some(message) = batch.next().await {
            let message = message.map_err(|error| Error::Answer(error.to_string()))?;
            messages.push(Message::new(message, self.codec.clone()));
        }
        Ok(messages)
    }
}
