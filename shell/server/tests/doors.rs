//! Other ways in than plain TCP: TLS before and after INFO, client certificates, websockets; and reloads.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use headwater::{Builder, ReloadError, Server};
use hw_conf::{HandshakeFirst, Listen, Options, TlsOptions, WebsocketOptions};
use hw_kit::Span;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

/// Certificates in a folder that goes with it.
struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    fn new(name: &str) -> Certificates {
        let folder = std::env::temp_dir().join(format!("headwater-doors-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the step succeeds");
        let mut authority = CertificateParams::new(Vec::new()).expect("the step succeeds");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("the step succeeds"))
            .expect("the step succeeds");
        std::fs::write(folder.join("ca.pem"), issuer.pem()).expect("the step succeeds");
        for holder in ["server", "client"] {
            let key = KeyPair::generate().expect("the step succeeds");
            let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
            let certificate = CertificateParams::new(names)
                .expect("the step succeeds")
                .signed_by(&key, &issuer)
                .expect("the step succeeds");
            std::fs::write(folder.join(format!("{holder}.pem")), certificate.pem())
                .expect("the step succeeds");
            std::fs::write(folder.join(format!("{holder}.key")), key.serialize_pem())
                .expect("the step succeeds");
        }
        Certificates { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn tls(&self) -> TlsOptions {
        TlsOptions {
            cert_file: Some(self.path("server.pem")),
            key_file: Some(self.path("server.key")),
            ca_file: Some(self.path("ca.pem")),
            ..TlsOptions::default()
        }
    }

    fn client(&self) -> async_nats::ConnectOptions {
        let options = async_nats::ConnectOptions::new().add_root_certificates(self.path("ca.pem"));
        options.connection_timeout(Duration::from_secs(5))
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn options() -> Options {
    let mut options = Options::default();
    options.server.listen = Listen { host: "127.0.0.1".to_owned(), port: 0 };
    options
}

fn start(options: Options) -> Server {
    Builder::from_options(options).start().expect("the step succeeds")
}

/// A message there and back.
async fn works(options: async_nats::ConnectOptions, url: String) -> Result<(), String> {
    let client = options.connect(url).await.map_err(|error| error.to_string())?;
    let mut messages = client.subscribe("a").await.map_err(|error| error.to_string())?;
    client.publish("a", vec![b'x'; 100_000].into()).await.map_err(|error| error.to_string())?;
    match tokio::time::timeout(Duration::from_secs(5), messages.next()).await {
        Ok(Some(message)) if message.payload.len() == 100_000 => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

#[tokio::test]
async fn tls_before_and_after_info() {
    let certificates = Certificates::new("order");
    for (first, optional) in [
        (HandshakeFirst::No, false),
        (HandshakeFirst::Yes, false),
        (HandshakeFirst::Within(Span::from_millis(100)), false),
        (HandshakeFirst::No, true),
    ] {
        let tls = TlsOptions { handshake_first: first, ..certificates.tls() };
        let server = start(Options { tls: Some(tls), allow_non_tls: optional, ..options() });
        let url = format!("tls://localhost:{}", server.address().port());
        let client = certificates.client().require_tls(true);
        let after = works(client, url.clone()).await;
        assert_eq!(after.is_ok(), first != HandshakeFirst::Yes, "{first:?} {optional}: {after:?}");
        let client = certificates.client().require_tls(true).tls_first();
        let before = works(client, url).await;
        assert_eq!(before.is_ok(), first != HandshakeFirst::No, "{first:?} {optional}: {before:?}");
        let plain = format!("nats://127.0.0.1:{}", server.address().port());
        if optional {
            works(async_nats::ConnectOptions::new(), plain).await.expect("the step succeeds");
        }
        server.shutdown();
    }
}

#[tokio::test]
async fn client_certificates_are_verified() {
    let certificates = Certificates::new("verify");
    let tls = TlsOptions { verify: true, ..certificates.tls() };
    let server = start(Options { tls: Some(tls), ..options() });
    let url = format!("tls://localhost:{}", server.address().port());
    let with = certificates
        .client()
        .add_client_certificate(certificates.path("client.pem"), certificates.path("client.key"));
    works(with, url.clone()).await.expect("the step succeeds");
    assert!(works(certificates.client(), url).await.is_err());
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_not_waited_for() {
    let certificates = Certificates::new("slow");
    let tls = TlsOptions { timeout: Span::from_millis(200), ..certificates.tls() };
    let server = start(Options { tls: Some(tls), ..options() });
    let mut socket = BufReader::new(TcpStream::connect(server.address()).await.expect("the step succeeds"));
    let mut info = String::new();
    socket.read_line(&mut info).await.expect("the step succeeds");
    assert!(info.contains("\"tls_required\":true"), "{info}");
    let ended = tokio::time::timeout(Duration::from_secs(5), socket.read(&mut [0; 16])).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
}

#[tokio::test]
async fn websocket_frames_carry_the_protocol() {
    let websocket = WebsocketOptions {
        listen: Some(Listen { host: String::new(), port: 0 }),
        no_tls: true,
        ..WebsocketOptions::default()
    };
    let server = start(Options { websocket: Some(websocket), ..options() });
    let url = server.ports().websocket[0].clone();
    let socket = TcpStream::connect(url.trim_start_matches("ws://")).await.expect("the step succeeds");
    let (mut frames, _) = tokio_tungstenite::client_async(url, socket).await.expect("the step succeeds");
    let mut heard = String::new();
    for (say, wanted) in [
        ("", "INFO {"),
        ("CONNECT {\"verbose\":false}\r\nSUB a 1\r\nPUB a 2\r\nhi\r\n", "MSG a 1 2\r\nhi\r\n"),
        ("PI", ""),
        ("NG\r\n", "PONG\r\n"),
    ] {
        frames.send(Message::Binary(say.as_bytes().to_vec().into())).await.expect("the step succeeds");
        while !heard.contains(wanted) {
            let frame =
                tokio::time::timeout(Duration::from_secs(5), frames.next()).await.expect("the step succeeds");
            let frame = frame.expect("the step succeeds").expect("the step succeeds").into_data();
            heard += std::str::from_utf8(&frame).expect("the step succeeds");
        }
    }
    assert!(!heard.contains("tls_required"), "{heard}");
}

#[tokio::test]
async fn a_reload_changes_what_can_change() {
    let mut server = start(options());
    let mut socket = BufReader::new(TcpStream::connect(server.address()).await.expect("the step succeeds"));
    socket.write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n").await.expect("the step succeeds");
    let mut line = String::new();
    while line != "PONG\r\n" {
        line.clear();
        socket.read_line(&mut line).await.expect("the step succeeds");
    }
    let mut moved = options();
    moved.jetstream.enabled = true;
    assert!(matches!(server.reload(moved), Err(ReloadError::NotSupported { what: "jetstream" })));
    let mut closed = options();
    closed.auth.login = Some(hw_auth::Login::Token("secret".to_owned()));
    server.reload(closed).expect("the step succeeds");
    let mut rest = String::new();
    let ended = tokio::time::timeout(Duration::from_secs(5), socket.read_to_string(&mut rest)).await;
    assert!(ended.is_ok() && rest.contains("-ERR 'Authorization Violation'"), "{rest:?}");
}
