//! A TCP connection that becomes something else before the client protocol runs over it: TLS, websocket, or both.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use hw_hub::{CloseReason, Tls};
use hw_kit::ConnId;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::mailbox::Duplex;
use crate::{Driver, stream};

/// What a connection became.
pub struct Upgraded {
    /// The client protocol's bytes.
    pub stream: Box<dyn Duplex>,
    /// If there was a TLS handshake: what it agreed on.
    pub tls: Option<Tls>,
}

/// An upgrade under way; the error is for the log, and the connection is closed.
pub type Upgrading = Pin<Box<dyn Future<Output = Result<Upgraded, String>> + Send>>;

/// Makes something else of a TCP connection. It bounds its own time.
pub trait Upgrade: Send {
    /// `first` is what the server says first (INFO): whoever upgrades knows whether it goes out before or after.
    fn upgrade(self: Box<Self>, socket: TcpStream, first: Vec<u8>) -> Upgrading;
}

/// Upgrades a connection and serves it until it ends.
pub(crate) async fn serve(
    driver: Rc<Driver>,
    conn: ConnId,
    (socket, upgrade): (std::net::TcpStream, Box<dyn Upgrade>),
    output: Rc<Notify>,
) {
    let first = driver.state.borrow_mut().take_output(conn);
    let ready = socket.set_nonblocking(true).and_then(|()| socket.set_nodelay(true));
    let socket = match ready.and_then(|()| TcpStream::from_std(socket)) {
        Ok(socket) => socket,
        Err(_) => return driver.closed(conn, CloseReason::ReadError),
    };
    let mut upgrading = upgrade.upgrade(socket, first);
    let upgraded = loop {
        tokio::select! {
            upgraded = &mut upgrading => break upgraded,
            () = output.notified() => {
                // Whatever else it is, it waits for the upgrade; but a connection that must go does not.
                let closing = driver.state.borrow().shard.closing(conn);
                if let Some(reason) = closing {
                    return driver.closed(conn, reason);
                }
            }
        }
    };
    match upgraded {
        Ok(Upgraded { stream, tls }) => {
            if let Some(tls) = tls {
                driver.state.borrow_mut().shard.hub_mut().handle_tls(conn, tls);
            }
            output.notify_one();
            stream::serve(driver, conn, stream, output).await;
        }
        Err(error) => {
            tracing::error!("cid:{} - {error}", conn.0);
            driver.closed(conn, CloseReason::TlsHandshakeError);
        }
    }
}
