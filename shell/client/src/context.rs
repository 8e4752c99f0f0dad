//! Connections and JetStream contexts.

use async_nats::HeaderMap;
use async_nats::jetstream;

use crate::{Ack, Codec, Consumer, Error, Json};

/// A connection to a server; clones share it.
#[derive(Clone, Debug)]
pub struct Client {
    nats: async_nats::Client,
}

/// JetStream over a connection. `C` writes and reads the payloads: JSON unless [`JetStream::with_codec`] says otherwise.
#[derive(Clone, Debug)]
pub struct JetStream<C = Json> {
    context: jetstream::Context,
    nats: async_nats::Client,
    codec: C,
}

/// What to store: a name and the subjects. Further settings are in [`StreamConfig::rest`].
#[derive(Clone, Debug, Default)]
pub struct StreamConfig {
    /// All settings, as `async-nats` knows them.
    pub rest: jetstream::stream::Config,
}

impl StreamConfig {
    /// A stream that stores what is published on `subjects`.
    pub fn new<S: Into<String>>(
        name: impl Into<String>,
        subjects: impl IntoIterator<Item = S>,
    ) -> StreamConfig {
        let subjects = subjects.into_iter().map(Into::into).collect();
        StreamConfig { rest: jetstream::stream::Config { name: name.into(), subjects, ..Default::default() } }
    }
}

impl From<jetstream::stream::Config> for StreamConfig {
    fn from(rest: jetstream::stream::Config) -> StreamConfig {
        StreamConfig { rest }
    }
}

impl Client {
    /// Connects to a server, or to one of several (`nats://a:4222,nats://b:4222`).
    pub async fn connect(url: impl async_nats::ToServerAddrs) -> Result<Client, Error> {
        let nats = async_nats::connect(url).await.map_err(Error::Connect)?;
        tracing::debug!(server = %nats.server_info().server_name, "connected");
        Ok(Client { nats })
    }

    /// The `async-nats` connection below.
    pub fn nats(&self) -> &async_nats::Client {
        &self.nats
    }

    /// A JetStream context that writes payloads as JSON.
    pub fn jetstream(&self) -> JetStream {
        JetStream { context: jetstream::new(self.nats.clone()), nats: self.nats.clone(), codec: Json }
    }
}

impl From<async_nats::Client> for Client {
    fn from(nats: async_nats::Client) -> Client {
        Client { nats }
    }
}

impl<C: Clone> JetStream<C> {
    /// The same context with another way to write and read payloads.
    pub fn with_codec<D>(&self, codec: D) -> JetStream<D> {
        JetStream { context: self.context.clone(), nats: self.nats.clone(), codec }
    }

    /// The `async-nats` context below.
    pub fn context(&self) -> &jetstream::Context {
        &self.context
    }

    /// Creates a stream; one that exists with the same configuration is fine.
    pub async fn create_stream(
        &self,
        config: impl Into<StreamConfig>,
    ) -> Result<jetstream::stream::Stream, Error> {
        let config = config.into().rest;
        let stream = self.context.create_stream(config).await.map_err(Error::jetstream)?;
        tracing::debug!(stream = %stream.cached_info().config.name, "stream is there");
        Ok(stream)
    }

    /// Publishes a value and waits until it is stored, or refused.
    pub async fn publish<T>(&self, subject: impl Into<String>, value: &T) -> Result<Ack, Error>
    where
        C: Codec<T>,
    {
        self.publish_with_headers(subject, HeaderMap::new(), value).await
    }

    /// Publishes a value with headers, for instance `Nats-Msg-Id` or `Nats-Expected-Last-Sequence`.
    pub async fn publish_with_headers<T>(
        &self,
        subject: impl Into<String>,
        headers: HeaderMap,
        value: &T,
    ) -> Result<Ack, Error>
    where
        C: Codec<T>,
    {
        let (subject, payload) = (subject.into(), self.codec.encode(value)?);
        let answer = match headers.is_empty() {
            true => self.nats.request(subject, payload).await,
            false => self.nats.request_with_headers(subject, headers, payload).await,
        };
        let answer = answer.map_err(Error::Request)?;
        serde_json::from_slice(&answer.payload).map_err(|error| Error::Answer(error.to_string()))
    }

    /// Creates a durable pull consumer with explicit acknowledgements; one that exists is fine.
    pub async fn create_consumer(&self, stream: &str, name: &str) -> Result<Consumer<C>, Error> {
        let config = jetstream::consumer::pull::Config {
            durable_name: Some(name.to_owned()),
            ack_policy: jetstream::consumer::AckPolicy::Explicit,
            ..Default::default()
        };
        self.create_consumer_with(stream, config).await
    }

    /// Creates a pull consumer with any configuration.
    pub async fn create_consumer_with(
        &self,
        stream: &str,
        config: jetstream::consumer::pull::Config,
    ) -> Result<Consumer<C>, Error> {
        let consumer =
            self.context.create_consumer_on_stream(config, stream).await.map_err(Error::jetstream)?;
        tracing::debug!(stream, consumer = %consumer.cached_info().name, "consumer is there");
        Ok(Consumer::new(consumer, self.codec.clone()))
    }

    /// A consumer that exists.
    pub async fn consumer(&self, stream: &str, name: &str) -> Result<Consumer<C>, Error> {
        let found = self.context.get_consumer_from_stream(name, stream).await.map_err(Error::jetstream)?;
        Ok(Consumer::new(found, self.codec.clone()))
    }
}
