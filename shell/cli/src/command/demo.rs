//! `demo`: the JetStream introduction in one go, on a server inside this process.

use std::path::{Path, PathBuf};
use std::time::Duration;

use headwater::Server;
use headwater_client::{Client, JetStream, StreamConfig};
use serde::{Deserialize, Serialize};

use super::connect::{Global, Session};
use super::context::Context;
use super::error::Failure;
use super::output::say;
use super::{consumer, stream};

/// How to show it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Keep the store in this folder instead of a temporary one that is removed at the end
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
}

/// What the demo's shop sells.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    order_id: u32,
}

const STREAM: &str = "shop_orders";
const CONSUMER: &str = "order_processor";
const ORDERS: u32 = 10;

/// A server in this process answers within milliseconds; much longer means that something is broken.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts a server, walks through the introduction, stops it again.
pub async fn run(args: &Args) -> Result<(), Failure> {
    let store = Store::open(args.keep.as_deref())?;
    let server = start(store.folder.clone()).await?;
    say!("A server runs in this process: {}", server.client_url());
    say!(
        "Its store is in {}{}\n",
        store.folder.display(),
        if store.temporary { " (removed at the end)" } else { "" }
    );
    let told_to_stop = tokio::signal::ctrl_c();
    let outcome = tokio::select! {
        outcome = walk(&server) => outcome,
        _ = told_to_stop => Err(Failure::Silent(130)),
    };
    let stopped = tokio::task::spawn_blocking(move || server.shutdown()).await;
    outcome?;
    stopped.map_err(|error| Failure::request("stop the server", error))?;
    if !store.temporary {
        let folder = store.folder.display();
        say!("\nThe store is kept: headwater -js -sd {folder} serves it.");
    }
    Ok(())
}

async fn start(folder: PathBuf) -> Result<Server, Failure> {
    let start = move || Server::builder().port(0).store_dir(folder).start();
    let started = tokio::task::spawn_blocking(start).await;
    let started = started.map_err(|error| Failure::request("start a server", error))?;
    started.map_err(|error| Failure::request("start a server", error))
}

async fn walk(server: &Server) -> Result<(), Failure> {
    let at = Context { url: server.client_url(), ..Context::default() };
    // The server's end at the end of the demo is no news.
    let quiet = |options: async_nats::ConnectOptions| options.event_callback(|_| async {});
    let session = Session::open_at(at, &Global::default(), quiet).await?;
    let js = Client::from(session.client.clone()).jetstream();

    js.create_stream(StreamConfig::new(STREAM, ["orders.>"])).await.map_err(failed("create the stream"))?;
    say!("Created stream {STREAM} on orders.>");
    publish(&js).await?;
    say!("\n$ headwater stream ls");
    stream::ls(&session).await?;

    let processor = js.create_consumer(STREAM, CONSUMER).await.map_err(failed("create the consumer"))?;
    say!("\nCreated consumer {CONSUMER}");
    say!("\n$ headwater consumer report {STREAM}");
    consumer::report(&session, STREAM).await?;

    say!();
    let mut orders = processor.consume::<Order>();
    for _ in 0..ORDERS {
        let next = tokio::time::timeout(PATIENCE, orders.next()).await;
        let message = next.map_err(|_| Failure::request("consume", "no message came"))?;
        let message = message.ok_or_else(|| Failure::request("consume", "the consumer is gone"))?;
        let order = message.data().map_err(failed("read an order"))?;
        say!("Processing {} {order:?}...", message.subject());
        // Confirmed, so that the report below has it. A plain `ack` returns sooner.
        message.double_ack().await.map_err(failed("acknowledge"))?;
    }
    say!("\n$ headwater consumer report {STREAM}");
    consumer::report(&session, STREAM).await
}

async fn publish(js: &JetStream) -> Result<(), Failure> {
    for order_id in 0..ORDERS {
        let ack = js.publish(format!("orders.new.{order_id}"), &Order { order_id }).await;
        ack.and_then(headwater_client::Ack::ensure_success).map_err(failed("publish an order"))?;
    }
    say!("Published {ORDERS} orders; each was acknowledged, so each is on disk");
    Ok(())
}

fn failed(doing: &'static str) -> impl Fn(headwater_client::Error) -> Failure {
    move |error| Failure::request(doing, error)
}

/// The folder of the demo's streams; a temporary one goes with it.
struct Store {
    folder: PathBuf,
    temporary: bool,
}

impl Store {
    fn open(keep: Option<&Path>) -> Result<Store, Failure> {
        let temporary = keep.is_none();
        let folder = match keep {
            Some(folder) => folder.to_owned(),
            None => std::env::temp_dir().join(format!("headwater-demo-{}", std::process::id())),
        };
        std::fs::create_dir_all(&folder).map_err(|error| Failure::file("make the folder", &folder, error))?;
        Ok(Store { folder, temporary })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.temporary
            && let Err(error) = std::fs::remove_dir_all(&self.folder)
        {
            eprintln!("headwater: the folder {} stays: {error}", self.folder.display());
        }
    }
}
