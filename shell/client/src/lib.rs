//! A small typed layer over `async-nats`: JetStream contexts, publishes that return an acknowledgement, and endless typed
//! consumption that refills and survives reconnects.
//!
//! ```no_run
//! # use headwater_client::{Client, StreamConfig};
//! # use serde::{Deserialize, Serialize};
//! #[derive(Serialize, Deserialize)]
//! struct Order { order_id: u32 }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("nats://127.0.0.1:4222").await?;
//! let js = client.jetstream();
//! js.create_stream(StreamConfig::new("shop_orders", ["orders.>"])).await?;
//! js.publish("orders.new.1", &Order { order_id: 1 }).await?.ensure_success()?;
//!
//! let consumer = js.create_consumer("shop_orders", "order_processor").await?;
//! let mut orders = consumer.consume::<Order>();
//! while let Some(message) = orders.next().await {
//!     println!("order {}", message.data()?.order_id);
//!     message.ack().await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Payloads are JSON through serde. [`JetStream::with_codec`] changes that: [`Raw`] bytes, [`Utf8`] text, or a [`Codec`]
//! of your own. What happens to a connection is logged through `tracing`.
//!
//! Everything that this layer does not cover is one call away: [`Client::nats`] and [`JetStream::context`] give the
//! `async-nats` types below.

mod ack;
mod codec;
mod consume;
mod consumer;
mod context;
mod error;
mod message;

pub use ack::{Ack, Refusal};
pub use codec::{Codec, Json, Raw, Utf8};
pub use consume::Consume;
pub use consumer::Consumer;
pub use context::{Client, JetStream, StreamConfig};
pub use error::Error;
pub use message::Message;

pub use async_nats;
