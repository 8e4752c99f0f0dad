//! Accounts, with the `async-nats` client: JetStream over imports, and credentials that sign the nonce.

use std::{error::Error, future::Future, pin::Pin, process::ExitCode, time::Duration};

use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, pull, push},
    stream,
};
use async_nats::{Client, ConnectOptions};
use futures_util::StreamExt;
use hw_conform::{Case, Cases, Outcome, Target, run_all, targets};
use hw_testkit::{Launch, Server};

type Flow = Result<(), Box<dyn Error + Send + Sync>>;
type Run = fn(String) -> Pin<Box<dyn Future<Output = Flow>>>;

const PATIENCE: Duration = Duration::from_secs(60);
const ACCOUNTS: &str = include_str!("../clients/accounts.conf");
const OPERATOR: &str = include_str!("../clients/operator.conf");
const CREDS: &str = include_str!("../clients/operator.creds");

fn main() -> ExitCode {
    let flows: [(&str, &'static str, Run); 2] = [
        ("JetStream of another account", ACCOUNTS, |url| Box::pin(across(url))),
        ("credentials", OPERATOR, |url| Box::pin(credentials(url))),
    ];
    let mut cases = Vec::new();
    for target in targets() {
        cases.extend(flows.iter().map(|flow| case(&target, *flow)));
    }
    run_all(Cases { cases, threads: 2 })
}

fn case(target: &Target, (name, config, run): (&str, &'static str, Run)) -> Case {
    let binary = target.binary.clone();
    let play = move || match &binary {
        Err(why) => Outcome::Skipped(why.clone()),
        Ok(binary) => {
            let (flags, config) = (vec!["-js".to_owned()], Some(config.to_owned()));
            let server = match Server::start(Launch { binary: binary.clone(), flags, config }) {
                Ok(server) => server,
                Err(error) => return Outcome::Failed(error.to_string()),
            };
            flow(server.url(), run).map_err(|error| error.to_string()).into()
        }
    };
    Case { name: format!("{}: async-nats {name}", target.name), run: Box::new(play) }
}

fn flow(url: String, run: Run) -> Flow {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, run(url)).await? })
}

async fn enter(url: &str, account: &str) -> Result<Client, async_nats::ConnectError> {
    ConnectOptions::with_user_and_password(account.to_owned(), account.to_owned()).connect(url).await
}

async fn across(url: String) -> Flow {
    let app = enter(&url, "app").await?;
    let js = jetstream::with_prefix(app.clone(), "from.js.API");
    let config = stream::Config {
        name: "ORDERS".to_owned(),
        subjects: vec!["orders.*".to_owned()],
        ..Default::default()
    };
    let orders = js.create_stream(config).await?;
    for i in 1..=20 {
        let ack = js.publish("orders.new", format!("{i}").into()).await?.await?;
        assert_eq!((ack.stream.as_str(), ack.sequence), ("ORDERS", i));
    }
    let config = pull::Config { durable_name: Some("P".to_owned()), ..Default::default() };
    let consumer = orders.create_consumer(config).await?;
    let mut messages = consumer.messages().await?.take(20);
    let mut next = 1;
    while let Some(message) = messages.next().await {
        let message = message?;
        assert_eq!(
            (message.subject.as_str(), message.payload.as_ref()),
            ("orders.new", next.to_string().as_bytes())
        );
        assert!(message.headers.is_none(), "who asked is not stored");
        message.double_ack().await?;
        next += 1;
    }
    assert_eq!(consumer.get_info().await?.ack_floor.stream_sequence, 20);
    let config = push::Config {
        durable_name: Some("D".to_owned()),
        deliver_subject: "deliver.d".to_owned(),
        ack_policy: AckPolicy::Explicit,
        ..Default::default()
    };
    let pushed = orders.create_consumer(config).await?;
    let mut messages = pushed.messages().await?.take(20);
    while let Some(message) = messages.next().await {
        message?.double_ack().await?;
    }
    assert_eq!(pushed.get_info().await?.num_ack_pending, 0);
    // The account itself sees the same stream.
    let owner = jetstream::new(enter(&url, "js").await?);
    assert_eq!(owner.get_stream("ORDERS").await?.get_info().await?.state.messages, 20);
    Ok(())
}

async fn credentials(url: String) -> Flow {
    async_nats::connect(&url).await.expect_err("nobody is let in without credentials");
    let client = ConnectOptions::with_credentials(CREDS)?.connect(&url).await?;
    let mut sub = client.subscribe("new").await?;
    // The account's JWT maps it.
    client.publish("old", "hello".into()).await?;
    let message = sub.next().await.ok_or("the subscription ended")?;
    assert_eq!((message.subject.as_str(), message.payload.as_ref()), ("new", b"hello".as_slice()));
    let js = jetstream::new(client);
    let config =
        stream::Config { name: "S".to_owned(), subjects: vec!["s".to_owned()], ..Default::default() };
    js.create_stream(config).await?;
    assert_eq!(js.publish("s", "x".into()).await?.await?.sequence, 1);
    Ok(())
}
