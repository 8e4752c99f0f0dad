//! The flow of the JetStream introduction, and what is built on it, with the `async-nats` client.

use std::{error::Error, future::Future, pin::Pin, process::ExitCode, time::Duration};

use async_nats::{
    Client, HeaderMap,
    jetstream::{
        self, AckKind,
        consumer::{self, AckPolicy, DeliverPolicy, OrderedPushConsumer, PullConsumer, PushConsumer},
        kv, object_store, stream,
    },
    service::ServiceExt,
};
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use hw_conform::{Case, Cases, Outcome, Target, run_all, targets};
use hw_testkit::{Launch, Server};
use tokio::io::AsyncReadExt;

type Flow = Result<(), Box<dyn Error + Send + Sync>>;
type Run = fn(Client) -> Pin<Box<dyn Future<Output = Flow>>>;

const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    let flows: [(&str, Run); 9] = [
        ("core", |client| Box::pin(core(client))),
        ("streams", |client| Box::pin(streams(client))),
        ("pull consumer", |client| Box::pin(pull(client))),
        ("redelivery", |client| Box::pin(redelivery(client))),
        ("push consumer", |client| Box::pin(push(client))),
        ("ordered consumer", |client| Box::pin(ordered(client))),
        ("key-value", |client| Box::pin(key_value(client))),
        ("objects", |client| Box::pin(objects(client))),
        ("service", |client| Box::pin(service(client))),
    ];
    let mut cases = Vec::new();
    for target in targets() {
        cases.extend(flows.iter().map(|(name, run)| case(&target, name, *run)));
    }
    run_all(Cases { cases, threads: 2 })
}

fn case(target: &Target, name: &str, run: Run) -> Case {
    let binary = target.binary.clone();
    let play = move || match &binary {
        Err(why) => Outcome::Skipped(why.clone()),
        Ok(binary) => {
            let launch = Launch { binary: binary.clone(), flags: vec!["-js".to_owned()], config: None };
            let server = match Server::start(launch) {
                Ok(server) => server,
                Err(error) => return Outcome::Failed(error.to_string()),
            };
            flow(&server.url(), run).map_err(|error| error.to_string()).into()
        }
    };
    Case { name: format!("{}: async-nats {name}", target.name), run: Box::new(play) }
}

fn flow(url: &str, run: Run) -> Flow {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let client = async_nats::connect(url).await?;
        tokio::time::timeout(PATIENCE, run(client)).await?
    })
}

async fn core(client: Client) -> Flow {
    let mut sub = client.subscribe("core.*").await?;
    let mut headers = HeaderMap::new();
    headers.insert("Mine", "yes");
    client.publish_with_headers("core.a", headers, "one".into()).await?;
    let message = sub.next().await.ok_or("the subscription ended")?;
    assert_eq!((message.subject.as_str(), message.payload.as_ref()), ("core.a", b"one".as_slice()));
    assert_eq!(
        message.headers.as_ref().and_then(|headers| headers.get("Mine")).map(|v| v.as_str()),
        Some("yes")
    );

    let mut helpers = client.queue_subscribe("help", "workers".to_owned()).await?;
    let answering = client.clone();
    let helper = tokio::spawn(async move {
        let request = helpers.next().await.ok_or("no request came")?;
        answering.publish(request.reply.ok_or("no reply subject")?, "done".into()).await?;
        answering.flush().await?;
        Ok::<(), Box<dyn Error + Send + Sync>>(())
    });
    assert_eq!(client.request("help", "me".into()).await?.payload, "done");
    helper.await??;
    let error = client.request("nobody", "".into()).await.expect_err("nobody answers");
    assert_eq!(error.kind(), async_nats::RequestErrorKind::NoResponders);
    client.drain().await?;
    Ok(())
}

async fn orders(js: &jetstream::Context) -> Result<stream::Stream, Box<dyn Error + Send + Sync>> {
    let config = stream::Config {
        name: "shop_orders".to_owned(),
        subjects: vec!["orders.>".to_owned()],
        ..Default::default()
    };
    let stream = js.create_stream(config).await?;
    for i in 0..10 {
        let ack = js.publish(format!("orders.new.{i}"), format!("{{\"OrderId\":{i}}}").into()).await?.await?;
        assert_eq!((ack.stream.as_str(), ack.sequence, ack.duplicate), ("shop_orders", i + 1, false));
    }
    Ok(stream)
}

async fn streams(client: Client) -> Flow {
    let js = jetstream::new(client);
    let stream = orders(&js).await?;
    let info = stream.get_info().await?;
    assert_eq!((info.state.messages, info.state.first_sequence, info.state.last_sequence), (10, 1, 10));
    assert_eq!(js.stream_names().try_collect::<Vec<_>>().await?, ["shop_orders"]);
    let message = stream.get_raw_message(3).await?;
    assert_eq!((message.subject.as_str(), message.sequence), ("orders.new.2", 3));
    assert_eq!(stream.get_last_raw_message_by_subject("orders.new.9").await?.sequence, 10);
    assert!(stream.delete_message(3).await?);
    stream.get_raw_message(3).await.expect_err("message 3 is deleted");
    assert_eq!(stream.purge().filter("orders.new.5").await?.purged, 1);
    let mut config = info.config.clone();
    config.max_messages = 5;
    assert_eq!(js.update_stream(config).await?.state.messages, 5);
    let error = js.get_stream("nope").await.expect_err("there is no such stream");
    assert!(error.to_string().contains("10059"), "{error}");
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "one");
    let first = js.publish_with_headers("orders.x", headers.clone(), "x".into()).await?.await?;
    let again = js.publish_with_headers("orders.x", headers, "x".into()).await?.await?;
    assert_eq!((first.duplicate, again.duplicate, again.sequence), (false, true, first.sequence));
    assert!(js.delete_stream("shop_orders").await?.success);
    Ok(())
}

async fn pull(client: Client) -> Flow {
    let js = jetstream::new(client);
    let stream = orders(&js).await?;
    let config =
        consumer::pull::Config { durable_name: Some("order_processor".to_owned()), ..Default::default() };
    let mut consumer: PullConsumer = stream.create_consumer(config).await?;
    let info = consumer.info().await?;
    assert_eq!((info.num_pending, info.num_ack_pending), (10, 0));
    let mut messages = consumer.messages().await?.take(10).enumerate();
    while let Some((i, message)) = messages.next().await {
        let message = message?;
        assert_eq!(message.payload, format!("{{\"OrderId\":{i}}}"));
        let info = message.info()?;
        assert_eq!(
            (info.stream_sequence, info.consumer_sequence, info.delivered),
            (i as u64 + 1, i as u64 + 1, 1)
        );
        message.double_ack().await?;
    }
    let info = consumer.info().await?;
    assert_eq!((info.num_pending, info.num_ack_pending, info.ack_floor.stream_sequence), (0, 0, 10));
    let mut none = consumer.fetch().max_messages(5).messages().await?;
    assert!(none.next().await.is_none(), "an empty stream delivered");
    Ok(())
}

async fn redelivery(client: Client) -> Flow {
    let js = jetstream::new(client);
    let config = stream::Config {
        name: "jobs".to_owned(),
        retention: stream::RetentionPolicy::WorkQueue,
        ..Default::default()
    };
    let mut stream = js.create_stream(config).await?;
    for body in ["a", "b"] {
        js.publish("jobs", body.into()).await?.await?;
    }
    let config = consumer::pull::Config { durable_name: Some("worker".to_owned()), ..Default::default() };
    let consumer: PullConsumer = stream.create_consumer(config).await?;
    let mut messages = consumer.messages().await?;
    let mut next = async || messages.next().await.ok_or("the consumer ended");
    let (a, b) = (next().await??, next().await??);
    assert_eq!((a.payload.as_ref(), b.payload.as_ref()), (b"a".as_slice(), b"b".as_slice()));
    a.ack_with(AckKind::Nak(None)).await?;
    b.ack_with(AckKind::Term).await?;
    let again = next().await??;
    assert_eq!((again.payload.as_ref(), again.info()?.delivered), (b"a".as_slice(), 2));
    again.ack_with(AckKind::Progress).await?;
    again.double_ack().await?;
    while stream.info().await?.state.messages > 0 {
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn push(client: Client) -> Flow {
    let js = jetstream::new(client.clone());
    let stream = orders(&js).await?;
    let config = consumer::push::Config {
        deliver_subject: client.new_inbox(),
        durable_name: Some("pusher".to_owned()),
        ack_policy: AckPolicy::Explicit,
        ..Default::default()
    };
    let mut consumer: PushConsumer = stream.create_consumer(config).await?;
    let mut messages = consumer.messages().await?.take(10);
    let mut count = 0;
    while let Some(message) = messages.next().await {
        let message = message?;
        count += 1;
        assert_eq!(message.info()?.stream_sequence, count);
        message.double_ack().await?;
    }
    assert_eq!((count, consumer.info().await?.ack_floor.stream_sequence), (10, 10));
    Ok(())
}

async fn ordered(client: Client) -> Flow {
    let js = jetstream::new(client.clone());
    let stream = js.create_stream(stream::Config { name: "feed".to_owned(), ..Default::default() }).await?;
    for i in 0..500 {
        js.publish("feed", i.to_string().into()).await?.await?;
    }
    let pull = consumer::pull::OrderedConfig { deliver_policy: DeliverPolicy::All, ..Default::default() };
    let pull = stream.create_consumer(pull).await?;
    let mut messages = pull.messages().await?.take(500).enumerate();
    while let Some((i, message)) = messages.next().await {
        assert_eq!(message?.payload, i.to_string());
    }
    let push = consumer::push::OrderedConfig { deliver_subject: client.new_inbox(), ..Default::default() };
    let push: OrderedPushConsumer = stream.create_consumer(push).await?;
    let mut messages = push.messages().await?.take(500).enumerate();
    while let Some((i, message)) = messages.next().await {
        assert_eq!(message?.payload, i.to_string());
    }
    Ok(())
}

async fn key_value(client: Client) -> Flow {
    let js = jetstream::new(client);
    let config = kv::Config { bucket: "config".to_owned(), history: 5, ..Default::default() };
    let bucket = js.create_key_value(config).await?;
    let mut watch = bucket.watch("color").await?;
    assert_eq!((bucket.put("color", "red".into()).await?, bucket.put("color", "blue".into()).await?), (1, 2));
    assert_eq!(bucket.get("color").await?.as_deref(), Some(b"blue".as_slice()));
    assert_eq!(bucket.update("color", "green".into(), 2).await?, 3);
    let error = bucket.update("color", "x".into(), 2).await.expect_err("the revision is old");
    assert_eq!(error.kind(), kv::UpdateErrorKind::WrongLastRevision);
    let error = bucket.create("color", "x".into()).await.expect_err("the key is there");
    assert_eq!(error.kind(), kv::CreateErrorKind::AlreadyExists);
    for want in [&b"red"[..], b"blue", b"green"] {
        let entry = watch.next().await.ok_or("the watch ended")??;
        assert_eq!(entry.value.as_ref(), want);
    }
    let history: Vec<kv::Entry> = bucket.history("color").await?.try_collect().await?;
    assert_eq!(history.iter().map(|entry| entry.revision).collect::<Vec<_>>(), [1, 2, 3]);
    bucket.create("size", "9".into()).await?;
    let mut keys: Vec<String> = bucket.keys().await?.try_collect().await?;
    keys.sort();
    assert_eq!(keys, ["color", "size"]);
    bucket.delete("color").await?;
    assert_eq!(bucket.get("color").await?, None);
    let entry = watch.next().await.ok_or("the watch ended")??;
    assert_eq!(entry.operation, kv::Operation::Delete);
    bucket.purge("size").await?;
    assert_eq!(bucket.keys().await?.try_collect::<Vec<_>>().await?, Vec::<String>::new());
    assert_eq!(bucket.status().await?.history(), 5);
    js.delete_key_value("config").await?;
    Ok(())
}

async fn objects(client: Client) -> Flow {
    let js = jetstream::new(client);
    let config = object_store::Config { bucket: "files".to_owned(), ..Default::default() };
    let store = js.create_object_store(config).await?;
    let data: Vec<u8> = (0..500_000_u32).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
    let info = store.put("big", &mut data.as_slice()).await?;
    assert_eq!((info.size, info.chunks), (data.len(), 4));
    let mut back = Vec::new();
    store.get("big").await?.read_to_end(&mut back).await?;
    assert_eq!(back, data);
    store.put("small", &mut &b"hello"[..]).await?;
    let names = store.list().await?.map_ok(|info| info.name).try_collect::<Vec<_>>().await?;
    assert_eq!(names.len(), 2, "{names:?}");
    store.delete("big").await?;
    let names = store.list().await?.map_ok(|info| info.name).try_collect::<Vec<_>>().await?;
    assert_eq!(names, ["small"]);
    js.delete_object_store("files").await?;
    Ok(())
}

async fn service(client: Client) -> Flow {
    let service = client.service_builder().description("adds").start("adder", "1.0.0").await?;
    let mut endpoint = service.endpoint("add").await?;
    tokio::spawn(async move {
        while let Some(request) = endpoint.next().await {
            let sum: i64 = String::from_utf8_lossy(&request.message.payload)
                .split('+')
                .filter_map(|part| part.trim().parse::<i64>().ok())
                .sum();
            if request.respond(Ok(Bytes::from(sum.to_string()))).await.is_err() {
                return;
            }
        }
    });
    assert_eq!(client.request("add", "2 + 40".into()).await?.payload, "42");
    let ping = client.request("$SRV.PING.adder", "".into()).await?;
    let ping: serde_json::Value = serde_json::from_slice(&ping.payload)?;
    assert_eq!(ping["name"], "adder");
    let stats = client.request("$SRV.STATS.adder", "".into()).await?;
    let stats: serde_json::Value = serde_json::from_slice(&stats.payload)?;
    assert_eq!(stats["endpoints"][0]["num_requests"], 1);
    Ok(())
}
