//! A stream's messages in order, through a consumer that is deleted once it is not needed.

use async_nats::jetstream::Message;
use async_nats::jetstream::consumer::{DeliverPolicy, pull};
use futures_util::StreamExt;

use super::connect::Session;
use super::error::Failure;

/// What to read.
#[derive(Debug, Clone)]
pub struct Selection {
    pub stream: String,
    pub from: DeliverPolicy,
    /// Subjects, with wildcards; none is all.
    pub filters: Vec<String>,
    /// Most messages of a request; zero leaves it to the library.
    pub batch: i64,
}

/// An ordered consumer at work.
pub struct Ordered {
    messages: pull::Ordered,
    session: Session,
    stream: String,
    consumer: String,
    doing: String,
    /// How many messages were stored when it began.
    pub pending: u64,
}

impl Ordered {
    /// Creates the consumer.
    pub async fn open(session: &Session, what: Selection) -> Result<Self, Failure> {
        let doing = format!("read stream {}", what.stream);
        let failed = |error: &dyn std::fmt::Display| Failure::request(&doing, error);
        let stream = session.jetstream.get_stream(&what.stream).await.map_err(|error| failed(&error))?;
        let mut config =
            pull::OrderedConfig { deliver_policy: what.from, max_batch: what.batch, ..Default::default() };
        match what.filters.as_slice() {
            [one] => config.filter_subject.clone_from(one),
            many => config.filter_subjects = many.to_vec(),
        }
        let consumer = stream.create_consumer(config).await.map_err(|error| failed(&error))?;
        let (name, pending) = (consumer.cached_info().name.clone(), consumer.cached_info().num_pending);
        let messages = consumer.messages().await.map_err(|error| failed(&error))?;
        Ok(Self { messages, session: session.clone(), stream: what.stream, consumer: name, doing, pending })
    }

    /// The next message; nothing once the consumer has ended.
    pub async fn next(&mut self) -> Option<Result<Message, Failure>> {
        let message = match self.messages.next().await? {
            Ok(message) => message,
            Err(error) => return Some(Err(Failure::request(&self.doing, error))),
        };
        // After a gap the library goes on with another consumer.
        if let Ok(info) = message.info()
            && info.consumer != self.consumer
        {
            self.consumer = info.consumer.to_owned();
        }
        Some(Ok(message))
    }

    /// Deletes the consumer. It would go by itself after a while, so a failure is of no interest.
    pub async fn close(self) {
        let call = format!("CONSUMER.DELETE.{}.{}", self.stream, self.consumer);
        drop(self.messages);
        drop(self.session.api(&call, &serde_json::Value::Null, "delete the ordered consumer").await);
    }
}
