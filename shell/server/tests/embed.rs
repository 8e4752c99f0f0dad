//! The embedding API as a program uses it, with a client that others wrote.

use std::future::IntoFuture;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::consumer::{PullConsumer, pull};
use async_nats::jetstream::{self, stream};
use futures_util::StreamExt;
use headwater::{Server, StartError};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, ReadHalf, WriteHalf};

/// What takes longer than this does not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// A new empty folder for one test, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("headwater-embed-{}-{test}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("the step succeeds");
        Folder(path)
    }

    fn serve(&self) -> Server {
        Server::builder().port(0).store_dir(&self.0).start().expect("the server starts")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn soon<T>(future: impl IntoFuture<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

async fn stop(server: Server) {
    soon(tokio::task::spawn_blocking(|| server.shutdown())).await.expect("the step succeeds");
}

async fn connect(server: &Server) -> async_nats::Client {
    soon(async_nats::connect(server.client_url())).await.expect("a client connects")
}

async fn shop(client: &async_nats::Client) -> stream::Stream {
    let config =
        stream::Config { name: "shop".into(), subjects: vec!["orders.>".into()], ..Default::default() };
    soon(jetstream::new(client.clone()).get_or_create_stream(config)).await.expect("the stream is there")
}

async fn publish(client: &async_nats::Client, texts: &[&'static str]) {
    let js = jetstream::new(client.clone());
    for text in texts {
        soon(soon(js.publish("orders.new", (*text).into())).await.expect("the step succeeds"))
            .await
            .expect("it is stored");
    }
}

#[tokio::test]
async fn any_free_port_serves_clients() {
    let folder = Folder::new("port");
    let builder = Server::builder().port(0).http_port(0).name("embedded").store_dir(&folder.0);
    let server = builder.start().expect("the step succeeds");
    assert_ne!(server.address().port(), 0);
    assert_eq!(server.client_url(), format!("nats://127.0.0.1:{}", server.address().port()));
    assert!(server.monitor_url().is_some_and(|url| url.starts_with("http://127.0.0.1:")));

    let client = connect(&server).await;
    let info = client.server_info();
    assert_eq!((info.server_name.as_str(), info.version.as_str()), ("embedded", headwater::NATS_VERSION));
    assert_eq!(info.server_id, server.id());
    let mut sub = client.subscribe("greet.*").await.expect("the step succeeds");
    client.publish("greet.you", "hello".into()).await.expect("the step succeeds");
    assert_eq!(soon(sub.next()).await.expect("the step succeeds").payload, "hello");

    let mut shop = shop(&client).await;
    publish(&client, &["one", "two"]).await;
    assert_eq!(soon(shop.info()).await.expect("the step succeeds").state.messages, 2);
    stop(server).await;
}

#[tokio::test]
async fn two_servers_run_side_by_side() {
    let folders = [Folder::new("side-a"), Folder::new("side-b")];
    let servers = [folders[0].serve(), folders[1].serve()];
    let clients = [connect(&servers[0]).await, connect(&servers[1]).await];
    let _stream = shop(&clients[0]).await;
    publish(&clients[0], &["one"]).await;
    let other = soon(jetstream::new(clients[1].clone()).get_stream("shop")).await;
    other.expect_err("the other server knows nothing of it");
    let [a, b] = servers;
    stop(a).await;
    stop(b).await;
}

#[tokio::test]
async fn messages_are_there_after_a_restart() {
    let folder = Folder::new("restart");
    let server = folder.serve();
    let client = connect(&server).await;
    let shop_before = shop(&client).await;
    publish(&client, &["one", "two", "three"]).await;
    let config = pull::Config { durable_name: Some("worker".into()), ..Default::default() };
    let consumer: PullConsumer = soon(shop_before.create_consumer(config)).await.expect("the step succeeds");
    let mut messages = soon(consumer.fetch().max_messages(1).messages()).await.expect("the step succeeds");
    soon(soon(messages.next()).await.expect("the step succeeds").expect("the step succeeds").double_ack())
        .await
        .expect("the step succeeds");
    drop(client);
    stop(server).await;

    let server = folder.serve();
    let client = connect(&server).await;
    let js = jetstream::new(client.clone());
    let shop = soon(js.get_stream("shop")).await.expect("the stream came back");
    for (sequence, text) in [(1, "one"), (2, "two"), (3, "three")] {
        assert_eq!(soon(shop.get_raw_message(sequence)).await.expect("the step succeeds").payload, text);
    }
    let consumer: PullConsumer = soon(shop.get_consumer("worker")).await.expect("the consumer came back");
    let mut messages = soon(consumer.fetch().max_messages(1).messages()).await.expect("the step succeeds");
    let next = soon(messages.next()).await.expect("the step succeeds").expect("the step succeeds");
    assert_eq!(next.payload, "two", "what was acknowledged stays acknowledged");
    publish(&client, &["four"]).await;
    assert_eq!(soon(shop.get_info()).await.expect("the step succeeds").state.last_sequence, 4);
    stop(server).await;
}

/// A client of the bare protocol.
struct Bare {
    lines: Lines<BufReader<ReadHalf<tokio::io::DuplexStream>>>,
    output: WriteHalf<tokio::io::DuplexStream>,
}

impl Bare {
    fn new(server: &Server) -> Bare {
        let (input, output) = tokio::io::split(server.connect());
        Bare { lines: BufReader::new(input).lines(), output }
    }

    async fn say(&mut self, text: &str) {
        soon(self.output.write_all(text.as_bytes())).await.expect("the step succeeds");
    }

    async fn line(&mut self) -> String {
        soon(self.lines.next_line()).await.expect("the step succeeds").expect("the connection is open")
    }
}

#[tokio::test]
async fn a_connection_needs_no_socket() {
    let folder = Folder::new("pipe");
    let server = folder.serve();
    let mut bare = Bare::new(&server);
    assert!(bare.line().await.starts_with("INFO {"));
    bare.say("CONNECT {\"verbose\":false,\"headers\":true}\r\nPING\r\n").await;
    assert_eq!(bare.line().await, "PONG");
    bare.say("SUB greet.> 7\r\nPUB greet.you 5\r\nhello\r\n").await;
    assert_eq!(bare.line().await, "MSG greet.you 7 5");
    assert_eq!(bare.line().await, "hello");

    // Both kinds of connections meet in one server.
    let client = connect(&server).await;
    let mut sub = client.subscribe("from.pipe").await.expect("the step succeeds");
    soon(client.flush()).await.expect("the step succeeds");
    // A flush says that the subscription was sent, not that it was heard: publish until it was.
    let heard = loop {
        bare.say("PUB from.pipe 2\r\nhi\r\n").await;
        if let Ok(heard) = tokio::time::timeout(Duration::from_millis(200), sub.next()).await {
            break heard.expect("the subscription is open");
        }
    };
    assert_eq!(heard.payload, "hi");
    drop(bare);
    stop(server).await;
}

/// A pull that waits on a connection of its own; what the server says to it.
async fn waiting_pull(server: &Server) -> (async_nats::Client, async_nats::Subscriber) {
    let client = connect(server).await;
    let inbox = client.new_inbox();
    let said = client.subscribe(inbox.clone()).await.expect("the step succeeds");
    let next = "$JS.API.CONSUMER.MSG.NEXT.shop.worker";
    let wanted = r#"{"batch":1,"expires":60000000000}"#;
    client.publish_with_reply(next, inbox, wanted.into()).await.expect("the step succeeds");
    soon(client.flush()).await.expect("the step succeeds");
    (client, said)
}

#[tokio::test]
async fn a_graceful_end_tells_waiting_pulls() {
    let folder = Folder::new("graceful");
    let server = folder.serve();
    let client = connect(&server).await;
    let config = pull::Config { durable_name: Some("worker".into()), ..Default::default() };
    let mut consumer: PullConsumer =
        soon(shop(&client).await.create_consumer(config)).await.expect("the step succeeds");
    // Connections are spread over the server's threads: every one of them must be told.
    let mut pulls = Vec::new();
    for _ in 0..4 {
        pulls.push(waiting_pull(&server).await);
    }
    let all_wait =
        async { while soon(consumer.info()).await.expect("the step succeeds").num_waiting < pulls.len() {} };
    soon(all_wait).await;
    stop(server).await;
    for (_client, said) in &mut pulls {
        let last = soon(said.next()).await.expect("the pull is answered");
        assert_eq!(last.status.map(|status| status.as_u16()), Some(409));
        assert_eq!(last.description.as_deref(), Some("Server Shutdown"));
    }
}

#[tokio::test]
async fn one_store_has_one_server() {
    let folder = Folder::new("twice");
    let server = folder.serve();
    let refused = Server::builder().port(0).store_dir(&folder.0).start();
    let Err(error) = refused else { panic!("two servers on one store") };
    assert!(matches!(error, StartError::Store(_)), "{error:?}");
    let text = error.to_string();
    let owner = std::process::id().to_string();
    assert!(text.contains("in use by another server") && text.contains(&owner), "{text}");

    // The first one does not notice, and its end frees the store.
    let client = connect(&server).await;
    let _stream = shop(&client).await;
    publish(&client, &["one"]).await;
    drop(server);
    stop(folder.serve()).await;
}

#[tokio::test]
async fn a_taken_port_is_an_error() {
    let folders = [Folder::new("taken-a"), Folder::new("taken-b")];
    let server = folders[0].serve();
    let again = Server::builder().port(server.address().port()).store_dir(&folders[1].0).start();
    let Err(error) = again else { panic!("two servers on one port") };
    assert!(matches!(error, StartError::Listen { .. }), "{error:?}");
    assert!(error.to_string().contains(&server.address().port().to_string()), "{error}");
    stop(server).await;
}

#[tokio::test]
async fn dropping_a_server_ends_it() {
    let folder = Folder::new("drop");
    let server = folder.serve();
    let address = server.address();
    drop(server);
    std::net::TcpStream::connect(address).expect_err("nobody listens any more");
}

#[tokio::test]
async fn without_jetstream_nobody_answers_its_api() {
    let server = Server::builder().port(0).jetstream(false).start().expect("the step succeeds");
    let client = connect(&server).await;
    let answer = soon(client.request("$JS.API.INFO", "".into())).await;
    assert_eq!(answer.unwrap_err().kind(), async_nats::RequestErrorKind::NoResponders);
    stop(server).await;
}
