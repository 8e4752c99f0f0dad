//! Takes new connections and hands each to a shard.

use std::net::SocketAddr;
use std::sync::Arc;

use hw_auth::ConnectionKind;
use hw_hub::{CloseReason, Peer};
use hw_net::{Adopted, Mail, Socket};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::inner::Inner;
use crate::tls::TlsUpgrade;
use crate::websocket::WebsocketUpgrade;

/// How long to wait when the system has no room for another connection.
const NO_ROOM_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// What a listener's connections become.
pub(crate) enum Kind {
    /// Clients over TCP, after a TLS handshake if there is one.
    Clients(Option<TlsUpgrade>),
    /// Clients that speak in websocket frames.
    Websocket(WebsocketUpgrade),
    /// Leaf nodes: told that there are none, and closed.
    Leafnodes,
}

/// Accepts until the server stops.
pub(crate) async fn accept(inner: Arc<Inner>, listener: TcpListener, kind: Kind) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => hand_over(&inner, socket, peer, &kind),
            Err(error) => {
                tracing::error!("Error accepting a connection: {error}");
                tokio::time::sleep(NO_ROOM_PAUSE).await;
            }
        }
    }
}

fn hand_over(inner: &Inner, socket: TcpStream, address: SocketAddr, kind: &Kind) {
    let peer = Peer { ip: address.ip().to_string(), port: address.port(), nonce: nonce(), ..Peer::default() };
    if matches!(kind, Kind::Leafnodes) {
        tokio::spawn(refuse_leafnode(socket, address));
        return;
    }
    let Ok(socket) = socket.into_std() else { return };
    let (socket, kind) = match kind {
        Kind::Clients(None) => (Socket::Tcp(socket), ConnectionKind::Standard),
        Kind::Clients(Some(tls)) => {
            (Socket::Upgrade(socket, Box::new(tls.clone())), ConnectionKind::Standard)
        }
        Kind::Websocket(upgrade) => {
            (Socket::Upgrade(socket, Box::new(upgrade.clone())), ConnectionKind::Websocket)
        }
        Kind::Leafnodes => return,
    };
    adopt(inner, socket, Peer { kind, ..peer });
}

/// How long a leaf node's words may take to leave.
const REFUSAL_TIME: std::time::Duration = std::time::Duration::from_secs(2);

async fn refuse_leafnode(mut socket: TcpStream, address: SocketAddr) {
    tracing::warn!("{address} - leaf node connection refused: leaf nodes are not supported yet");
    let refusal = async {
        socket.write_all(b"-ERR 'Leaf Nodes Not Supported'\r\n").await?;
        socket.shutdown().await
    };
    let _ = tokio::time::timeout(REFUSAL_TIME, refusal).await;
}

/// Gives a connection a number and a shard; one too many is told so and closed.
pub(crate) fn adopt(inner: &Inner, socket: Socket, peer: Peer) {
    let (conn, shard, open) = inner.connection_opened();
    let mailbox = &inner.mailboxes[shard];
    mailbox.post(Mail::Adopt(Adopted { conn, socket, peer }));
    let limit = inner.live().max_connections;
    if limit > 0 && open > limit {
        tracing::error!("maximum connections exceeded: {limit}");
        mailbox.post(Mail::Run(Box::new(move |shard, _| {
            shard.hub_mut().close(conn, CloseReason::MaxConnectionsExceeded);
        })));
    }
}

/// What an nkey user signs: fresh random text.
fn nonce() -> String {
    let mut rng = hw_kit::Rng::new(crate::start::seed() ^ crate::start::seed().rotate_left(32));
    String::from_utf8_lossy(&rng.base62::<22>()).into_owned()
}
