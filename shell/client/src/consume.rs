//! Endless consumption: a pull that is always open, opened again whenever it breaks.

use std::marker::PhantomData;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::Stream;
use async_nats::jetstream::context::{ConsumerInfoError, ConsumerInfoErrorKind};

use futures_util::StreamExt;

use crate::{Codec, Message};

/// Messages of a consumer, without end. Dropping it stops the pull; what was delivered and not settled comes again.
pub struct Consume<T, C> {
    consumer: PullConsumer,
    codec: C,
    open: Option<Stream>,
    pause: Duration,
    value: PhantomData<fn() -> T>,
}

const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

impl<T, C: Codec<T>> Consume<T, C> {
    pub(crate) fn new(consumer: PullConsumer, codec: C) -> Consume<T, C> {
        Consume { consumer, codec, open: None, pause: PAUSE_MIN, value: PhantomData }
    }

    /// The next message. Waits through disconnects and restarts; None only when the consumer was deleted.
    pub async fn next(&mut self) -> Option<Message<T, C>> {
        loop {
            let Some(open) = self.open.as_mut() else {
                self.reopen().await?;
                continue;
            };
            match open.next().await {
                Some(Ok(message)) => {
                    self.pause = PAUSE_MIN;
                    return Some(Message::new(message, self.codec.clone()));
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "consumption was interrupted; it goes on");
                    self.open = None;
                }
                None => self.open = None,
            }
        }
    }

    /// Opens the pull again, slower after each failure; None when the consumer is gone for good.
    async fn reopen(&mut self) -> Option<()> {
        match self.consumer.stream().heartbeat(Duration::from_secs(5)).messages().await {
            Ok(open) if self.is_there().await? => self.open = Some(open),
            Ok(_) => self.wait().await,
            Err(error) => {
                tracing::warn!(%error, "cannot pull yet");
                self.wait().await;
            }
        }
        Some(())
    }

    /// Whether the server knows the consumer: false while it cannot be asked, None when it was deleted.
    async fn is_there(&mut self) -> Option<bool> {
        match self.consumer.info().await {
            Ok(_) => Some(true),
            Err(error) if is_gone(&error) => {
                tracing::warn!("the consumer was deleted: consumption ends");
                None
            }
            Err(error) => {
                tracing::debug!(%error, "the consumer cannot be asked yet");
                Some(false)
            }
        }
    }

    async fn wait(&mut self) {
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
    }
}

fn is_gone(error: &ConsumerInfoError) -> bool {
    matches!(error.kind(), ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound)
}
