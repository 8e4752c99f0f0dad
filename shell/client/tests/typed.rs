//! The typed layer against an embedded server: what is published, refused, consumed and settled.

use std::future::IntoFuture;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use headwater::Server;
use headwater_client::async_nats::HeaderMap;
use headwater_client::async_nats::jetstream::consumer::pull;
use headwater_client::{Client, Codec, Error, JetStream, Raw, StreamConfig, Utf8};
use serde::{Deserialize, Serialize};

/// What takes longer than this does not come.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a fetch waits for what must not come.
const BRIEFLY: Duration = Duration::from_millis(100);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    order_id: u32,
}

/// A server with its own empty folder, both gone with the test.
struct Shop {
    server: Option<Server>,
    folder: PathBuf,
}

impl Shop {
    fn open(test: &str) -> Shop {
        let folder = std::env::temp_dir().join(format!("headwater-typed-{}-{test}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let server = Server::builder().port(0).store_dir(&folder).start().expect("the server starts");
        Shop { server: Some(server), folder }
    }

    fn server(&self) -> &Server {
        self.server.as_ref().expect("it runs")
    }

    async fn jetstream(&self) -> JetStream {
        let client = soon(Client::connect(self.server().client_url())).await.expect("the client connects");
        let js = client.jetstream();
        soon(js.create_stream(StreamConfig::new("shop_orders", ["orders.>"])))
            .await
            .expect("the stream is made");
        js
    }

    /// Stops the server and starts one on the same port and folder.
    async fn restart(&mut self) {
        let server = self.server.take().expect("it runs");
        let (port, folder) = (server.address().port(), self.folder.clone());
        let again = tokio::task::spawn_blocking(move || {
            server.shutdown();
            Server::builder().port(port).store_dir(folder).start()
        });
        self.server = Some(soon(again).await.expect("in time").expect("the server starts again"));
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.server = None;
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

async fn soon<T>(future: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

async fn publish(js: &JetStream, ids: impl IntoIterator<Item = u32>) {
    for order_id in ids {
        let subject = format!("orders.new.{order_id}");
        soon(js.publish(subject, &Order { order_id }))
            .await
            .expect("an answer")
            .ensure_success()
            .expect("it is stored");
    }
}

fn header(name: &'static str, value: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, value);
    headers
}

#[tokio::test]
async fn a_publish_tells_where_it_is_stored_or_why_not() {
    let shop = Shop::open("publish");
    let js = shop.jetstream().await;
    let order = Order { order_id: 1 };
    let ack = soon(js.publish("orders.new.1", &order)).await.unwrap();
    assert!(ack.is_success());
    let ack = ack.ensure_success().unwrap();
    assert_eq!((ack.stream.as_str(), ack.sequence, ack.duplicate), ("shop_orders", 1, false));

    // The same message id again: stored once, and said so.
    for (sequence, duplicate) in [(2, false), (2, true)] {
        let ack =
            soon(js.publish_with_headers("orders.a", header("Nats-Msg-Id", "a"), &order)).await.unwrap();
        let ack = ack.ensure_success().expect("a duplicate is stored");
        assert_eq!((ack.sequence, ack.duplicate), (sequence, duplicate));
    }

    let stale = header("Nats-Expected-Last-Sequence", "1");
    let refused = soon(js.publish_with_headers("orders.b", stale, &order)).await.unwrap();
    assert!(!refused.is_success());
    match refused.ensure_success() {
        Err(Error::Refused(refusal)) => assert_eq!((refusal.code, refusal.err_code), (400, 10071)),
        other => panic!("{other:?}"),
    }

    let nowhere = soon(js.publish("no.stream.takes.this", &order)).await;
    assert!(matches!(nowhere, Err(Error::Request(_))), "{nowhere:?}");
}

#[tokio::test]
async fn what_exists_can_be_created_again() {
    let shop = Shop::open("again");
    let js = shop.jetstream().await;
    soon(js.create_stream(StreamConfig::new("shop_orders", ["orders.>"])))
        .await
        .expect("the same again is fine");
    let other = soon(js.create_stream(StreamConfig::new("shop_orders", ["other.>"]))).await;
    assert!(matches!(&other, Err(Error::JetStream(_))), "{other:?}");
    for _ in 0..2 {
        soon(js.create_consumer("shop_orders", "order_processor")).await.expect("the consumer is there");
    }
    soon(js.consumer("shop_orders", "order_processor")).await.expect("it can be found");
    soon(js.consumer("shop_orders", "nobody")).await.map(drop).expect_err("this one cannot");
}

#[tokio::test]
async fn typed_values_come_back_in_order() {
    let shop = Shop::open("values");
    let js = shop.jetstream().await;
    publish(&js, 0..10).await;
    let mut consumer = soon(js.create_consumer("shop_orders", "order_processor")).await.unwrap();
    let mut orders = consumer.consume::<Order>();
    for order_id in 0..10 {
        let message = soon(orders.next()).await.expect("another order");
        assert_eq!(message.data().unwrap(), Order { order_id });
        assert_eq!(message.subject(), format!("orders.new.{order_id}"));
        assert_eq!(
            (message.sequence().unwrap(), message.deliveries().unwrap()),
            (u64::from(order_id) + 1, 1)
        );
        soon(message.double_ack()).await.unwrap();
    }
    let info = soon(consumer.info()).await.unwrap();
    assert_eq!((info.num_pending, info.num_ack_pending, info.ack_floor.stream_sequence), (0, 0, 10));
}

#[tokio::test]
async fn a_payload_of_another_type_is_an_error_and_can_still_be_settled() {
    let shop = Shop::open("foreign");
    let js = shop.jetstream().await;
    let text = js.with_codec(Utf8);
    soon(text.publish("orders.new.x", &"no JSON".to_owned()))
        .await
        .expect("an answer")
        .ensure_success()
        .unwrap();
    let consumer = soon(js.create_consumer("shop_orders", "order_processor")).await.unwrap();
    let message = soon(consumer.next::<Order>(PATIENCE)).await.unwrap().expect("a message");
    assert!(matches!(message.data(), Err(Error::Decode(_))));
    assert_eq!(message.payload(), "no JSON");
    soon(message.terminate()).await.unwrap();
}

/// Numbers as four bytes, the largest first.
#[derive(Clone)]
struct BigEndian;

impl Codec<u32> for BigEndian {
    fn encode(&self, value: &u32) -> Result<Bytes, Error> {
        Ok(Bytes::copy_from_slice(&value.to_be_bytes()))
    }

    fn decode(&self, bytes: &Bytes) -> Result<u32, Error> {
        let bytes = bytes[..].try_into().map_err(|_| Error::Decode("not four bytes".to_owned()))?;
        Ok(u32::from_be_bytes(bytes))
    }
}

#[tokio::test]
async fn codecs_write_what_they_read() {
    let shop = Shop::open("codecs");
    let js = shop.jetstream().await;
    let (raw, text, number) = (js.with_codec(Raw), js.with_codec(Utf8), js.with_codec(BigEndian));
    let bytes = Bytes::from_static(&[0, 0xff, b'\r', b'\n']);
    soon(raw.publish("orders.raw", &bytes)).await.expect("an answer").ensure_success().unwrap();
    soon(text.publish("orders.text", &"grüße".to_owned()))
        .await
        .expect("an answer")
        .ensure_success()
        .unwrap();
    soon(number.publish("orders.number", &258)).await.expect("an answer").ensure_success().unwrap();

    soon(js.create_consumer("shop_orders", "order_processor")).await.unwrap();
    let name = ("shop_orders", "order_processor");
    let next = soon(raw.consumer(name.0, name.1)).await.unwrap();
    let message = soon(next.next::<Bytes>(PATIENCE)).await.unwrap().expect("the bytes");
    assert_eq!(message.data().unwrap(), bytes);
    let next = soon(text.consumer(name.0, name.1)).await.unwrap();
    let message = soon(next.next::<String>(PATIENCE)).await.unwrap().expect("the text");
    assert_eq!(message.data().unwrap(), "grüße");
    let next = soon(number.consumer(name.0, name.1)).await.unwrap();
    let message = soon(next.next::<u32>(PATIENCE)).await.unwrap().expect("the number");
    assert_eq!((message.payload().as_ref(), message.data().unwrap()), (&[0, 0, 1, 2][..], 258));
}

#[tokio::test]
async fn each_way_to_settle_does_what_it_says() {
    let shop = Shop::open("settle");
    let js = shop.jetstream().await;
    publish(&js, 0..4).await;
    let mut consumer = soon(js.create_consumer("shop_orders", "order_processor")).await.unwrap();
    let four = soon(consumer.fetch::<Order>(4, PATIENCE)).await.unwrap();
    let ids: Vec<u32> = four.iter().map(|message| message.data().unwrap().order_id).collect();
    assert_eq!(ids, [0, 1, 2, 3]);

    soon(four[0].nak(None)).await.unwrap();
    let again = soon(consumer.next::<Order>(PATIENCE)).await.unwrap().expect("a refused order comes again");
    assert_eq!((again.data().unwrap().order_id, again.deliveries().unwrap()), (0, 2));

    soon(four[1].terminate()).await.unwrap();
    soon(four[2].in_progress()).await.unwrap();
    soon(again.double_ack()).await.unwrap();
    let info = soon(consumer.info()).await.unwrap();
    assert_eq!(
        (info.num_ack_pending, info.ack_floor.stream_sequence),
        (2, 2),
        "0 acknowledged, 1 terminated"
    );

    let delay = Duration::from_millis(300);
    let asked = std::time::Instant::now();
    soon(four[3].nak(Some(delay))).await.unwrap();
    let later = soon(consumer.next::<Order>(PATIENCE)).await.unwrap().expect("it comes after the delay");
    assert_eq!(later.data().unwrap().order_id, 3);
    assert!(asked.elapsed() >= delay, "it came after {:?}", asked.elapsed());
    soon(later.ack()).await.unwrap();
    soon(four[2].double_ack()).await.unwrap();
    let none = soon(consumer.fetch::<Order>(1, BRIEFLY)).await.unwrap();
    assert!(none.is_empty(), "everything is settled");
    assert_eq!(soon(consumer.info()).await.unwrap().ack_floor.stream_sequence, 4);
}

#[tokio::test]
async fn what_is_not_settled_comes_again() {
    let shop = Shop::open("ack-wait");
    let js = shop.jetstream().await;
    publish(&js, [7]).await;
    let config = pull::Config {
        durable_name: Some("hasty".to_owned()),
        ack_wait: Duration::from_millis(200),
        ..Default::default()
    };
    let consumer = soon(js.create_consumer_with("shop_orders", config)).await.unwrap();
    let mut orders = consumer.consume::<Order>();
    for deliveries in 1..=3 {
        let message = soon(orders.next()).await.expect("it comes again");
        assert_eq!((message.data().unwrap().order_id, message.deliveries().unwrap()), (7, deliveries));
    }
}

#[tokio::test]
async fn consuming_goes_on_after_a_restart() {
    let mut shop = Shop::open("restart");
    let js = shop.jetstream().await;
    publish(&js, 0..3).await;
    let consumer = soon(js.create_consumer("shop_orders", "order_processor")).await.unwrap();
    let mut orders = consumer.consume::<Order>();
    for round in 0..3 {
        for order_id in round * 3..round * 3 + 3 {
            let message = soon(orders.next()).await.expect("another order");
            assert_eq!(message.data().unwrap().order_id, order_id, "nothing is skipped or repeated");
            soon(message.double_ack()).await.unwrap();
        }
        if round < 2 {
            shop.restart().await;
            // A connection of its own: the other one comes back in its own time.
            let js = shop.jetstream().await;
            publish(&js, (round + 1) * 3..(round + 1) * 3 + 3).await;
        }
    }
}

#[tokio::test]
async fn consuming_ends_with_the_consumer() {
    let shop = Shop::open("deleted");
    let js = shop.jetstream().await;
    publish(&js, [0]).await;
    let consumer = soon(js.create_consumer("shop_orders", "order_processor")).await.unwrap();
    let mut orders = consumer.consume::<Order>();
    soon(soon(orders.next()).await.expect("the order").double_ack()).await.unwrap();
    let stream = soon(js.context().get_stream("shop_orders")).await.unwrap();
    soon(stream.delete_consumer("order_processor")).await.unwrap();
    assert!(soon(orders.next()).await.is_none(), "there is nothing left to wait for");
}
