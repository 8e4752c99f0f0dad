//! Clients that speak in websocket frames: the HTTP upgrade, and a byte stream made of binary frames.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::{Sink, Stream};
use hw_conf::WebsocketOptions;
use hw_net::{Duplex, Upgrade, Upgraded, Upgrading};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::{StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use crate::tls::TlsUpgrade;

/// The time for the HTTP upgrade when none is set.
const HANDSHAKE_TIME: Duration = Duration::from_secs(2);

/// The largest frame and message that a client may send: messages of the client protocol are bounded by `max_payload`,
/// but a frame may hold many.
const FRAME_BYTES: usize = 64 * 1024 * 1024;

/// How to make a websocket of a TCP connection.
#[derive(Clone)]
pub(crate) struct WebsocketUpgrade {
    tls: Option<TlsUpgrade>,
    timeout: Duration,
    origins: Origins,
}

/// Where browsers may come from.
#[derive(Clone, Default)]
struct Origins {
    /// Only from the host that they talk to.
    same: bool,
    /// These; empty means all.
    allowed: Vec<String>,
    is_tls: bool,
}

impl WebsocketUpgrade {
    pub(crate) fn new(options: &WebsocketOptions) -> Result<WebsocketUpgrade, String> {
        let tls = options.tls.as_ref().map(|tls| TlsUpgrade::new(tls, false)).transpose()?;
        let timeout =
            options.handshake_timeout.map(|span| Duration::from_nanos(span.0.max(1).unsigned_abs()));
        let origins = Origins {
            same: options.same_origin,
            allowed: options.allowed_origins.clone(),
            is_tls: tls.is_some(),
        };
        Ok(WebsocketUpgrade { tls, timeout: timeout.unwrap_or(HANDSHAKE_TIME), origins })
    }

    async fn run(self, socket: TcpStream, first: Vec<u8>) -> Result<Upgraded, String> {
        let (socket, tls): (Box<dyn Duplex>, _) = match &self.tls {
            None => (Box::new(socket), None),
            Some(upgrade) => {
                let (stream, tls) = upgrade.accept(socket).await?;
                (Box::new(stream), Some(tls))
            }
        };
        let config =
            WebSocketConfig::default().max_message_size(Some(FRAME_BYTES)).max_frame_size(Some(FRAME_BYTES));
        let origins = self.origins;
        // The library's own signature: the refusal is a whole response.
        #[allow(clippy::result_large_err)]
        let check = move |request: &Request, response: Response| match origins.refusal(request) {
            None => Ok(response),
            Some((code, text)) => Err(refusal(code, text)),
        };
        let upgrading = tokio_tungstenite::accept_hdr_async_with_config(socket, check, Some(config));
        let frames = tokio::time::timeout(self.timeout, upgrading).await;
        let frames = frames
            .map_err(|_| "websocket handshake timeout".to_owned())?
            .map_err(|error| format!("websocket handshake error: {error}"))?;
        let mut stream = Frames { frames, rest: Bytes::new() };
        let said = async {
            stream.write_all(&first).await?;
            stream.flush().await
        };
        said.await.map_err(|error| error.to_string())?;
        Ok(Upgraded { stream: Box::new(stream), tls })
    }
}

impl Upgrade for WebsocketUpgrade {
    fn upgrade(self: Box<Self>, socket: TcpStream, first: Vec<u8>) -> Upgrading {
        Box::pin(self.run(socket, first))
    }
}

impl Origins {
    /// Why a request is refused.
    fn refusal(&self, request: &Request) -> Option<(StatusCode, &'static str)> {
        if matches!(request.uri().path(), "/leafnode" | "/mqtt") {
            return Some((StatusCode::NOT_FOUND, "not supported"));
        }
        let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
        // Programs that are no browsers send none.
        let origin = text(header::ORIGIN)?;
        let same =
            || text(header::HOST).is_some_and(|host| self.authority(origin) == with_port(host, self.is_tls));
        let listed = || self.allowed.iter().any(|allowed| self.same_place(allowed, origin));
        match () {
            () if self.same && !same() => Some((StatusCode::FORBIDDEN, "origin not same")),
            () if !self.allowed.is_empty() && !listed() => {
                Some((StatusCode::FORBIDDEN, "origin not allowed"))
            }
            () => None,
        }
    }

    /// An origin's host and port.
    fn authority(&self, origin: &str) -> String {
        let (scheme, host) = origin.split_once("://").unwrap_or(("", origin));
        with_port(host, scheme == "https")
    }

    fn same_place(&self, allowed: &str, origin: &str) -> bool {
        let scheme = |text: &str| text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        scheme(allowed) == scheme(origin) && self.authority(allowed) == self.authority(origin)
    }
}

/// `host:port`, with the port that is meant where none is said.
fn with_port(host: &str, is_tls: bool) -> String {
    let host = host.trim_end_matches('/').to_ascii_lowercase();
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match (has_port, is_tls) {
        (true, _) => host,
        (false, true) => host + ":443",
        (false, false) => host + ":80",
    }
}

fn refusal(code: StatusCode, text: &str) -> ErrorResponse {
    let mut response = ErrorResponse::new(Some(text.to_owned()));
    *response.status_mut() = code;
    response
}

/// A byte stream in binary frames. What is written until a flush may be one frame or several: the client protocol does
/// not care.
struct Frames {
    frames: WebSocketStream<Box<dyn Duplex>>,
    /// What was received and not read yet.
    rest: Bytes,
}

fn broken(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        error => io::Error::other(error),
    }
}

impl AsyncRead for Frames {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.rest.is_empty() {
            match ready!(Pin::new(&mut self.frames).poll_next(context)) {
                Some(Ok(Message::Binary(bytes))) => self.rest = bytes,
                Some(Ok(Message::Text(text))) => self.rest = text.into(),
                Some(Ok(Message::Close(_))) | None => return Poll::Ready(Ok(())),
                Some(Ok(_)) => {}
                Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
            }
        }
        let count = self.rest.len().min(out.remaining());
        out.put_slice(&self.rest.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Frames {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut frames = Pin::new(&mut self.frames);
        ready!(frames.as_mut().poll_ready(context)).map_err(broken)?;
        frames.start_send(Message::Binary(Bytes::copy_from_slice(bytes))).map_err(broken)?;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.frames).poll_flush(context).map_err(broken)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match ready!(Pin::new(&mut self.frames).poll_close(context)) {
            Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => Poll::Ready(Ok(())),
            Err(error) => Poll::Ready(Err(broken(error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        let allowed = |list: &[&str]| list.iter().map(|origin| (*origin).to_owned()).collect();
        let same = Origins { same: true, ..Origins::default() };
        let listed =
            Origins { allowed: allowed(&["https://a.com", "http://b.com:81"]), ..Origins::default() };
        for (origins, path, origin, refused) in [
            (&Origins::default(), "/", None, false),
            (&Origins::default(), "/", Some("http://x.com"), false),
            (&Origins::default(), "/leafnode", None, true),
            (&same, "/", None, false),
            (&same, "/", Some("http://here:8080"), false),
            (&same, "/", Some("http://here"), true),
            (&same, "/", Some("http://there:8080"), true),
            (&listed, "/", Some("https://a.com"), false),
            (&listed, "/", Some("https://a.com:443"), false),
            (&listed, "/", Some("http://a.com"), true),
            (&listed, "/", Some("http://b.com:81"), false),
            (&listed, "/", Some("http://b.com"), true),
        ] {
            let mut request = Request::builder().uri(path).header("Host", "here:8080");
            if let Some(origin) = origin {
                request = request.header("Origin", origin);
            }
            let request = request.body(()).unwrap();
            assert_eq!(origins.refusal(&request).is_some(), refused, "{path} {origin:?}");
        }
    }
}
