//! The JetStream introduction in Rust: store ten orders in a stream, then process each of them once.
//!
//!     cargo run -p headwater-client --example shop_orders                            # a server in this process
//!     cargo run -p headwater-client --example shop_orders nats://127.0.0.1:4222      # one that runs already

use headwater::Server;
use headwater_client::{Client, StreamConfig};
use serde::{Deserialize, Serialize};

// What is published. Any type that serde can write and read will do; payloads are JSON unless told otherwise.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    order_id: u32,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // A server of our own, unless a URL is given: on any free port, with its streams in a folder of this run.
    let store = std::env::temp_dir().join(format!("shop_orders-{}", std::process::id()));
    let (url, server) = match std::env::args().nth(1) {
        Some(url) => (url, None),
        None => {
            let server = Server::builder().port(0).store_dir(&store).start()?;
            (server.client_url(), Some(server))
        }
    };
    let js = Client::connect(url.as_str()).await?.jetstream();

    // A stream stores what is published on its subjects. If it is there already with this configuration, that is fine.
    js.create_stream(StreamConfig::new("shop_orders", ["orders.>"])).await?;

    // Each publish waits for the server's answer. `ensure_success` makes a refusal an error;
    // after it, the order is on the server's disk.
    for order_id in 0..10 {
        let ack =
            js.publish(format!("orders.new.{order_id}"), &Order { order_id }).await?.ensure_success()?;
        println!("Stored order {order_id} as message {} of {}", ack.sequence, ack.stream);
    }

    // A consumer remembers on the server which messages were delivered and acknowledged.
    let processor = js.create_consumer("shop_orders", "order_processor").await?;

    // `consume` never ends by itself: it asks for more, and goes on after lost connections and restarts.
    // This example stops after ten orders; a service would loop for ever.
    let mut orders = processor.consume::<Order>();
    for _ in 0..10 {
        let Some(message) = orders.next().await else { break };
        println!("Processing {} {:?}...", message.subject(), message.data()?);
        // Without this the order would be delivered again after 30 seconds. `double_ack` also waits until
        // the server has recorded it; `ack` does not wait.
        message.double_ack().await?;
    }

    // Everything accepted is on disk when this returns.
    if let Some(server) = server {
        tokio::task::spawn_blocking(|| server.shutdown()).await?;
        std::fs::remove_dir_all(store)?;
    }
    Ok(())
}
