//! TLS between servers: both sides show a certificate, and both look at the other's.

use std::sync::Arc;
use std::time::Duration;

use hw_conf::TlsOptions;
use hw_net::{Linking, Secure};
use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivateKeyDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::tls;

/// The handshake on links.
pub(crate) struct LinkTls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
    timeout: Duration,
}

impl LinkTls {
    /// Reads the certificate, the key and the authorities; the error is one line for the operator.
    pub(crate) fn new(options: &TlsOptions) -> Result<LinkTls, String> {
        // As in nats-server: between servers certificates are always looked at.
        let options = TlsOptions { verify: true, ..options.clone() };
        let (Some(certificate), Some(key), Some(authorities)) =
            (&options.cert_file, &options.key_file, &options.ca_file)
        else {
            return Err("cluster: tls needs a cert_file, a key_file and a ca_file".to_owned());
        };
        let acceptor = tls::server_config(&options)?;
        let roots = tls::authorities(authorities)?;
        let chain = tls::certificates(certificate)?;
        let key = PrivateKeyDer::from_pem_file(key).map_err(|error| tls::unreadable("key", key, error))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| format!("TLS: {error}"))?;
        let connector = builder
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| format!("error parsing X509 certificate/key pair: {error}"))?;
        Ok(LinkTls {
            acceptor: TlsAcceptor::from(Arc::new(acceptor)),
            connector: TlsConnector::from(Arc::new(connector)),
            timeout: Duration::from_nanos(options.timeout.0.max(1).unsigned_abs()),
        })
    }
}

fn late(_: tokio::time::error::Elapsed) -> String {
    "timeout".to_owned()
}

impl Secure for LinkTls {
    fn accept(&self, socket: TcpStream) -> Linking {
        let handshake = tokio::time::timeout(self.timeout, self.acceptor.accept(socket));
        Box::pin(async move {
            let stream = handshake.await.map_err(late)?.map_err(|error| error.to_string())?;
            Ok(Box::new(stream) as Box<dyn hw_net::Duplex>)
        })
    }

    fn connect(&self, socket: TcpStream, host: &str) -> Linking {
        let (connector, timeout) = (self.connector.clone(), self.timeout);
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string());
        Box::pin(async move {
            let handshake = tokio::time::timeout(timeout, connector.connect(name?, socket));
            let stream = handshake.await.map_err(late)?.map_err(|error| error.to_string())?;
            Ok(Box::new(stream) as Box<dyn hw_net::Duplex>)
        })
    }
}
