//! TLS: certificates from files, and the handshake on a client's connection, before INFO or after it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hw_conf::{HandshakeFirst, TlsOptions, TlsVersion};
use hw_hub::Tls;
use hw_net::{Upgrade, Upgraded, Upgrading};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;

/// How to make TLS of a TCP connection.
#[derive(Clone)]
pub(crate) struct TlsUpgrade {
    acceptor: TlsAcceptor,
    timeout: Duration,
    first: HandshakeFirst,
    /// Clients may go on without.
    optional: bool,
}

impl TlsUpgrade {
    /// Reads the certificate, the key and the authorities; the error is one line for the operator.
    pub(crate) fn new(options: &TlsOptions, optional: bool) -> Result<TlsUpgrade, String> {
        let config = server_config(options)?;
        Ok(TlsUpgrade {
            acceptor: TlsAcceptor::from(Arc::new(config)),
            timeout: Duration::from_nanos(options.timeout.0.max(1).unsigned_abs()),
            first: options.handshake_first,
            optional,
        })
    }

    /// The handshake, within its time.
    pub(crate) async fn accept(&self, socket: TcpStream) -> Result<(TlsStream<TcpStream>, Tls), String> {
        let handshake = tokio::time::timeout(self.timeout, self.acceptor.accept(socket)).await;
        let stream = handshake
            .map_err(|_| "TLS handshake timeout".to_owned())?
            .map_err(|error| format!("TLS handshake error: {error}"))?;
        let tls = describe(stream.get_ref().1);
        Ok((stream, tls))
    }

    async fn run(self, mut socket: TcpStream, first: Vec<u8>) -> Result<Upgraded, String> {
        if self.is_first(&socket).await? {
            let (mut stream, tls) = self.accept(socket).await?;
            let said = async {
                stream.write_all(&first).await?;
                stream.flush().await
            };
            said.await.map_err(|error| error.to_string())?;
            return Ok(Upgraded { stream: Box::new(stream), tls: Some(Tls { first: true, ..tls }) });
        }
        socket.write_all(&first).await.map_err(|error| error.to_string())?;
        if self.optional && !begins_tls(&socket).await? {
            return Ok(Upgraded { stream: Box::new(socket), tls: None });
        }
        let (stream, tls) = self.accept(socket).await?;
        Ok(Upgraded { stream: Box::new(stream), tls: Some(tls) })
    }

    /// Whether TLS comes before INFO on this connection.
    async fn is_first(&self, socket: &TcpStream) -> Result<bool, String> {
        match self.first {
            HandshakeFirst::No => Ok(false),
            HandshakeFirst::Yes => Ok(true),
            HandshakeFirst::Within(span) => {
                let time = Duration::from_nanos(span.0.max(0).unsigned_abs());
                match tokio::time::timeout(time, begins_tls(socket)).await {
                    Ok(begins) => begins,
                    Err(_) => Ok(false),
                }
            }
        }
    }
}

impl Upgrade for TlsUpgrade {
    fn upgrade(self: Box<Self>, socket: TcpStream, first: Vec<u8>) -> Upgrading {
        Box::pin(self.run(socket, first))
    }
}

/// Waits for the client's first byte and looks at it without taking it.
async fn begins_tls(socket: &TcpStream) -> Result<bool, String> {
    let mut byte = [0];
    match socket.peek(&mut byte).await {
        Ok(0) => Err("the client went before it said anything".to_owned()),
        Ok(_) => Ok(byte[0] == HANDSHAKE),
        Err(error) => Err(error.to_string()),
    }
}

pub(crate) fn server_config(options: &TlsOptions) -> Result<ServerConfig, String> {
    let certificates = match &options.cert_file {
        Some(path) => certificates(path)?,
        None => return Err("TLS Server certificate must be present and valid".to_owned()),
    };
    let Some(key_file) = &options.key_file else {
        return Err("missing 'key_file' in TLS configuration".to_owned());
    };
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| unreadable("key", key_file, error))?;
    let versions: &[&rustls::SupportedProtocolVersion] = match options.min_version {
        TlsVersion::Tls12 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::Tls13 => &[&rustls::version::TLS13],
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions);
    let builder = builder.map_err(|error| format!("TLS: {error}"))?;
    let roots = options.ca_file.as_deref().map(authorities).transpose()?;
    let builder = match (options.verify, roots) {
        (false, _) => builder.with_no_client_auth(),
        (true, None) => return Err("TLS: verify needs a ca_file to verify against".to_owned()),
        (true, Some(roots)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| format!("TLS: ca_file: {error}"))?)
        }
    };
    builder
        .with_single_cert(certificates, key)
        .map_err(|error| format!("error parsing X509 certificate/key pair: {error}"))
}

pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> =
        CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect());
    match found {
        Ok(found) if found.is_empty() => Err(format!("no certificate in {}", path.display())),
        Ok(found) => Ok(found),
        Err(error) => Err(unreadable("certificate", path, error)),
    }
}

pub(crate) fn authorities(path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| format!("ca_file {}: {error}", path.display()))?;
    }
    Ok(roots)
}

pub(crate) fn unreadable(what: &str, path: &Path, error: impl std::fmt::Display) -> String {
    format!("error reading {what} from {}: {error}", path.display())
}

/// What was agreed on, for monitoring.
fn describe(session: &rustls::ServerConnection) -> Tls {
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
        Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
        _ => "",
    };
    let cipher =
        session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str()).unwrap_or_default();
    // The registered name has no version in it.
    Tls { version: version.to_owned(), cipher: cipher.replacen("TLS13_", "TLS_", 1), first: false }
}
