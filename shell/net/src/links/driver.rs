//! The links' thread: sockets, time and errands go into the mesh; what it says goes to the first shard.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hw_hub::RemoteBatch;
use hw_node::LinkFrame;
use hw_route::{Action, Channel, DialError, Mesh, Remark, SocketId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::traffic::{Traffic, Turn};
use super::{Links, Secure};
use crate::limits::READ_BYTES;
use crate::mailbox::{Duplex, LinkMail, Mail, Mailbox};
use crate::steady_now;

/// How long an attempt to connect may take.
const DIAL_TIME: Duration = Duration::from_secs(2);

/// How long last words may take to leave.
const FAREWELL_TIME: Duration = Duration::from_secs(1);

/// Connections that cannot be accepted: the system has no room.
const NO_ROOM_PAUSE: Duration = Duration::from_millis(10);

/// How long a peer may take to begin TLS.
const TLS_BEGINS_WITHIN: Duration = Duration::from_secs(1);

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;

pub(super) struct Driver {
    pub(super) traffic: Arc<Mutex<Traffic>>,
    pub(super) links: Arc<Links>,
    pub(super) mailbox: Arc<Mailbox>,
    pub(super) secure: Option<Box<dyn Secure>>,
    pub(super) greeting: Vec<u8>,
    pub(super) news: Box<dyn Fn(&Mesh)>,
    pub(super) write_deadline: Duration,
    pub(super) timer: Notify,
}

impl Driver {
    /// Runs until the links are stopped.
    pub(super) async fn run(self, listener: TcpListener) {
        let driver = Rc::new(self);
        let accepting = tokio::task::spawn_local(driver.clone().accept(listener));
        let timing = tokio::task::spawn_local(driver.clone().time());
        driver.follow_orders().await;
        accepting.abort();
        timing.abort();
        // The last words leave.
        let _ = tokio::time::timeout(FAREWELL_TIME, driver.farewell()).await;
    }

    async fn follow_orders(self: &Rc<Self>) {
        loop {
            self.links.wake.notified().await;
            let was_full = self.links.are_full();
            self.traffic().send(&self.links);
            for errand in self.links.take_errands() {
                errand(&mut self.traffic().mesh, steady_now());
            }
            if self.links.stopping.load(Ordering::Acquire) {
                self.traffic().mesh.handle_shutdown(steady_now());
                return self.act();
            }
            self.note_pressure(was_full);
            self.act();
        }
    }

    async fn farewell(&self) {
        while !self.traffic().is_closed() {
            tokio::task::yield_now().await;
            self.timer.notified().await;
        }
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn time(self: Rc<Self>) {
        loop {
            let deadline = self.traffic().mesh.next_deadline();
            let wait = deadline.map_or(Duration::from_secs(60), |at| {
                Duration::from_nanos(at.since(steady_now()).0.max(0).unsigned_abs())
            });
            if tokio::time::timeout(wait, self.timer.notified()).await.is_err() {
                self.traffic().mesh.handle_timeout(steady_now());
                self.act();
            }
        }
    }

    async fn accept(self: Rc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((socket, address)) => {
                    tokio::task::spawn_local(self.clone().accepted(socket, address));
                }
                Err(error) => {
                    tracing::error!("Error accepting a route: {error}");
                    tokio::time::sleep(NO_ROOM_PAUSE).await;
                }
            }
        }
    }

    async fn accepted(self: Rc<Self>, socket: TcpStream, address: SocketAddr) {
        let _ = socket.set_nodelay(true);
        let plain = self.plain(&socket);
        let stream: Box<dyn Duplex> = match &self.secure {
            None => Box::new(socket),
            Some(secure) => match self.begins_tls(socket).await {
                Some(socket) => match secure.accept(socket).await {
                    Ok(stream) => stream,
                    Err(error) => return tracing::error!("{address} - TLS route handshake error: {error}"),
                },
                None => return tracing::error!("{address} - route connection refused: it does not use TLS"),
            },
        };
        let socket = self.traffic().mesh.handle_accepted(steady_now(), address.to_string());
        self.serve(socket, plain, stream).await;
    }

    /// A second handle of a socket on which frames go out as they are.
    fn plain(&self, socket: &TcpStream) -> Option<std::net::TcpStream> {
        self.secure
            .is_none()
            .then(|| socket2::SockRef::from(socket).try_clone().ok())
            .flatten()
            .map(Into::into)
    }

    /// Who does not begin TLS is told that it is needed.
    async fn begins_tls(&self, mut socket: TcpStream) -> Option<TcpStream> {
        let mut byte = [0];
        let peeked = tokio::time::timeout(TLS_BEGINS_WITHIN, socket.peek(&mut byte)).await;
        if matches!(peeked, Ok(Ok(1))) && byte[0] == HANDSHAKE {
            return Some(socket);
        }
        let refusal = async {
            socket.write_all(&self.greeting).await?;
            socket.write_all(b"-ERR 'Secure Connection - TLS Required'\r\n").await?;
            socket.shutdown().await
        };
        let _ = tokio::time::timeout(FAREWELL_TIME, refusal).await;
        None
    }

    async fn dial(self: Rc<Self>, socket: SocketId, address: String) {
        let attempt = tokio::time::timeout(DIAL_TIME, TcpStream::connect(&address)).await;
        let connected = match attempt {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(DialError::Refused),
            Ok(Err(error)) => Err(DialError::Other(error.to_string())),
            Err(_) => Err(DialError::Other("timeout".to_owned())),
        };
        let plain = connected.as_ref().ok().and_then(|stream| self.plain(stream));
        let secured: Result<Box<dyn Duplex>, DialError> = match (connected, &self.secure) {
            (Err(error), _) => Err(error),
            (Ok(stream), None) => {
                let _ = stream.set_nodelay(true);
                Ok(Box::new(stream))
            }
            (Ok(stream), Some(secure)) => {
                let _ = stream.set_nodelay(true);
                let host = address.rsplit_once(':').map_or(&*address, |(host, _)| host);
                let host = host.trim_start_matches('[').trim_end_matches(']');
                secure.connect(stream, host).await.map_err(|error| {
                    tracing::error!("{address} - TLS route handshake error: {error}");
                    DialError::Other(error)
                })
            }
        };
        match secured {
            Ok(stream) => {
                self.traffic().mesh.handle_dialled(steady_now(), socket, Ok(()));
                self.serve(socket, plain, stream).await;
            }
            Err(error) => {
                self.traffic().mesh.handle_dialled(steady_now(), socket, Err(error));
                self.act();
            }
        }
    }

    async fn serve(
        self: Rc<Self>,
        socket: SocketId,
        plain: Option<std::net::TcpStream>,
        stream: Box<dyn Duplex>,
    ) {
        let wake = self.traffic().open(socket, plain);
        self.act();
        let (from, mut to) = tokio::io::split(stream);
        tokio::select! {
            () = self.read(socket, from) => {}
            () = self.write(socket, &mut to, &wake) => {
                let _ = tokio::time::timeout(FAREWELL_TIME, to.shutdown()).await;
            }
        }
        self.traffic().close(socket);
        self.act();
    }

    async fn read(self: &Rc<Self>, socket: SocketId, mut from: impl AsyncRead + Unpin) {
        let mut bytes = Vec::with_capacity(READ_BYTES);
        loop {
            self.mailbox.link_room().await;
            bytes.clear();
            match from.read_buf(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            self.traffic().mesh.handle_bytes(steady_now(), socket, &bytes);
            self.act();
        }
    }

    /// Writes what could not be written at once.
    async fn write(self: &Rc<Self>, socket: SocketId, to: &mut (impl AsyncWrite + Unpin), wake: &Notify) {
        let mut spare = Vec::new();
        loop {
            let was_full = self.links.are_full();
            let turn = self.traffic().turn(socket, std::mem::take(&mut spare));
            let (bytes, is_closing) = match turn {
                Turn::Write(bytes, is_closing) => (bytes, is_closing),
                Turn::Wait => {
                    wake.notified().await;
                    continue;
                }
                Turn::End => return,
            };
            self.note_pressure(was_full);
            let written = async {
                to.write_all(&bytes).await?;
                to.flush().await
            };
            let deadline = if is_closing { FAREWELL_TIME } else { self.write_deadline };
            match tokio::time::timeout(deadline, written).await {
                Ok(Ok(())) => spare = bytes,
                Ok(Err(_)) => return,
                Err(_) => return tracing::error!("a route takes nothing: it is closed"),
            }
        }
    }

    /// How much waits for the others; clients are read again once it is less.
    fn note_pressure(&self, was_full: bool) {
        let waiting = self.traffic().mesh.pressure();
        self.links.waiting.store(waiting, Ordering::Relaxed);
        if was_full && !self.links.are_full() {
            // The shard says whether it is congested at the end of each round.
            self.mailbox.post(Mail::Run(Box::new(|_, _| {})));
        }
    }

    /// Does what the mesh wants done.
    fn act(self: &Rc<Self>) {
        loop {
            let actions = self.traffic().take_actions();
            if actions.is_empty() {
                break;
            }
            for action in actions {
                self.perform(action);
            }
        }
        self.timer.notify_one();
    }

    fn perform(self: &Rc<Self>, action: Action) {
        let post = |link, mail| self.mailbox.post(Mail::Link(link, mail));
        match action {
            Action::Dial { socket, address } => {
                tokio::task::spawn_local(self.clone().dial(socket, address));
            }
            Action::Close(socket) => self.traffic().end(socket),
            // Done by who took the actions.
            Action::Write(_) => {}
            Action::Up { link, peer } => post(link, LinkMail::Up(peer)),
            Action::Down { link, why } => post(link, LinkMail::Down(why)),
            Action::Quiet { link, quiet } => post(link, LinkMail::Quiet(quiet)),
            Action::Acked { link, at } => post(link, LinkMail::Acked(at)),
            Action::Received { link, channel: Channel::Js, body } => {
                post(link, LinkMail::Frame(LinkFrame::Js(body)));
            }
            Action::Received { link, channel: Channel::Hub, body } => match RemoteBatch::decode(body) {
                Ok(batch) => post(link, LinkMail::Frame(LinkFrame::Hub(batch))),
                Err(error) => {
                    self.traffic().mesh.break_link(steady_now(), link, &error.to_string());
                }
            },
            Action::News => (self.news)(&self.traffic().mesh),
            Action::Remark(Remark::Info(text)) => tracing::info!("{text}"),
            Action::Remark(Remark::Debug(text)) => tracing::debug!("{text}"),
            Action::Remark(Remark::Error(text)) => tracing::error!("{text}"),
        }
    }
}
