//! Pull requests by hand: one request, its messages, and the status that ends it.

use std::time::Duration;

use async_nats::Subscriber;
use async_nats::jetstream::Message;
use futures_util::StreamExt;
use serde_json::json;

use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::stream::name;

/// What comes of a pull request.
pub enum Pulled {
    Message(Box<Message>),
    /// The request is over; the text is the server's status line.
    End(String),
}

/// An open pull request.
pub struct Pull {
    inbox: Subscriber,
    session: Session,
    deadline: tokio::time::Instant,
}

impl Pull {
    /// Asks for up to `batch` messages, within `expires`.
    pub async fn open(
        session: &Session,
        names: [&str; 2],
        batch: usize,
        expires: Duration,
    ) -> Result<Self, Failure> {
        let [stream, consumer] = names;
        let doing = format!("pull from {stream} > {consumer}");
        let subject = format!("{}.CONSUMER.MSG.NEXT.{}.{}", session.prefix, name(stream)?, name(consumer)?);
        let failed = |error: &dyn std::fmt::Display| Failure::request(&doing, error);
        let reply = session.client.new_inbox();
        let inbox = session.client.subscribe(reply.clone()).await.map_err(|error| failed(&error))?;
        let body = json!({ "batch": batch, "expires": expires.as_nanos() as u64 }).to_string();
        let sent = session.client.publish_with_reply(subject, reply, body.into()).await;
        sent.map_err(|error| failed(&error))?;
        session.client.flush().await.map_err(|error| failed(&error))?;
        // The server ends the request in time; a little later we stop believing that it will.
        let deadline = tokio::time::Instant::now() + expires + Duration::from_secs(1);
        Ok(Self { inbox, session: session.clone(), deadline })
    }

    /// The next message or the end.
    pub async fn next(&mut self) -> Pulled {
        loop {
            let message = match tokio::time::timeout_at(self.deadline, self.inbox.next()).await {
                Ok(Some(message)) => message,
                Ok(None) => return Pulled::End("the connection was closed".into()),
                Err(_) => return Pulled::End("the server did not answer in time".into()),
            };
            let Some(status) = message.status else {
                let context = self.session.jetstream.clone();
                return Pulled::Message(Box::new(Message { message, context }));
            };
            if status.as_u16() != 100 {
                let description = message.description.unwrap_or_default();
                let description = if status.as_u16() == 503 { "no responders".into() } else { description };
                return Pulled::End(format!("{description} ({})", status.as_u16()));
            }
        }
    }
}
