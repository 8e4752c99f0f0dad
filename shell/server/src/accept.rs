//! Takes new connections and hands each to a shard.

use std::net::SocketAddr;
use std::sync::Arc;

use hw_hub::{CloseReason, Peer};
use hw_net::{Adopted, Mail, Socket};
use tokio::net::{TcpListener, TcpStream};

use crate::inner::Inner;

/// How long to wait when the system has no room for another connection.
const NO_ROOM_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

/// Accepts until the server stops.
pub(crate) async fn clients(inner: Arc<Inner>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((socket, peer)) => hand_over(&inner, socket, peer),
            Err(error) => {
                tracing::error!("Error accepting a client connection: {error}");
                tokio::time::sleep(NO_ROOM_PAUSE).await;
            }
        }
    }
}

fn hand_over(inner: &Inner, socket: TcpStream, address: SocketAddr) {
    let Ok(socket) = socket.into_std() else { return };
    let peer = Peer { ip: address.ip().to_string(), port: address.port(), nonce: nonce(), ..Peer::default() };
    adopt(inner, Socket::Tcp(socket), peer);
}

/// Gives a connection a number and a shard; one too many is told so and closed.
pub(crate) fn adopt(inner: &Inner, socket: Socket, peer: Peer) {
    let (conn, shard) = inner.next_conn();
    let open = inner.connection_opened();
    let mailbox = &inner.mailboxes[shard];
    mailbox.post(Mail::Adopt(Adopted { conn, socket, peer }));
    let limit = inner.facts.max_connections;
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
