//! The sockets of links with other servers: one thread of their own, so that signs of life do not wait for a shard.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use hw_hub::RemoteBatch;
use hw_kit::{LinkId, Span, Time};
use hw_node::LinkFrame;
use hw_route::{Action, Channel, DialError, Mesh, MeshConfig, Remark, SocketId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::limits::{LINK_PRESSURE_BYTES, READ_BYTES};
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

/// A handshake under way; the error is for the log.
pub type Linking = Pin<Box<dyn Future<Output = Result<Box<dyn Duplex>, String>>>>;

/// TLS between servers. It bounds its own time.
pub trait Secure {
    /// On a connection that came in.
    fn accept(&self, socket: TcpStream) -> Linking;
    /// On a connection to a host.
    fn connect(&self, socket: TcpStream, host: &str) -> Linking;
}

/// How links are run.
pub struct LinksConfig {
    /// The cluster.
    pub mesh: MeshConfig,
    /// Where other servers connect.
    pub listener: std::net::TcpListener,
    /// TLS, if links use it.
    pub secure: Option<Box<dyn Secure>>,
    /// A server that takes no bytes for this long is given up.
    pub write_deadline: Span,
    /// The first shard's.
    pub mailbox: Arc<Mailbox>,
}

/// Something to do with the mesh on its own thread.
type Errand = Box<dyn FnOnce(&mut Mesh, Time) + Send>;

enum Order {
    Send(LinkId, Channel, Bytes),
    Run(Errand),
    Stop,
}

/// The way to the links' thread.
#[derive(Default)]
pub struct Links {
    orders: Mutex<VecDeque<Order>>,
    wake: Notify,
    /// Bytes among the orders, and bytes that wait for the slowest server.
    ordered: AtomicUsize,
    waiting: AtomicUsize,
}

impl Links {
    /// Sends a frame to another server.
    pub fn send(&self, link: LinkId, frame: LinkFrame) {
        let (channel, body) = match frame {
            LinkFrame::Hub(batch) => (Channel::Hub, batch.into_bytes()),
            LinkFrame::Js(body) => (Channel::Js, body),
        };
        self.ordered.fetch_add(body.len(), Ordering::Relaxed);
        self.order(Order::Send(link, channel, body));
    }

    /// Does something with the mesh.
    pub fn run(&self, errand: impl FnOnce(&mut Mesh, Time) + Send + 'static) {
        self.order(Order::Run(Box::new(errand)));
    }

    /// Asks the mesh something and waits for the answer; None when the links have ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Mesh, Time) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.run(move |mesh, now| {
            let _ = answer.send(question(mesh, now));
        });
        answered.await.ok()
    }

    /// Ends the links.
    pub fn stop(&self) {
        self.order(Order::Stop);
    }

    /// Whether so much waits for other servers that clients should not be read.
    pub fn are_full(&self) -> bool {
        self.ordered.load(Ordering::Relaxed) + self.waiting.load(Ordering::Relaxed) > LINK_PRESSURE_BYTES
    }

    fn order(&self, order: Order) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
        self.wake.notify_one();
    }

    fn take(&self) -> VecDeque<Order> {
        std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Runs the links until they are stopped. Must be polled inside a `LocalSet`. `news`: the members, or where clients
    /// reach them, have changed.
    pub async fn serve(self: Arc<Self>, config: LinksConfig, news: Box<dyn Fn(&Mesh)>) -> io::Result<()> {
        let listener = TcpListener::from_std(config.listener)?;
        let greeting = config.mesh.greeting.clone();
        let driver = Rc::new(Driver {
            mesh: RefCell::new(Mesh::new(steady_now(), config.mesh)),
            writers: RefCell::new(HashMap::new()),
            links: self,
            mailbox: config.mailbox,
            secure: config.secure,
            greeting,
            news,
            write_deadline: Duration::from_nanos(config.write_deadline.0.max(1).unsigned_abs()),
            timer: Notify::new(),
        });
        let accepting = tokio::task::spawn_local(driver.clone().accept(listener));
        let timing = tokio::task::spawn_local(driver.clone().time());
        driver.follow_orders().await;
        accepting.abort();
        timing.abort();
        // The last words leave.
        let _ = tokio::time::timeout(FAREWELL_TIME, driver.farewell()).await;
        Ok(())
    }
}

/// What is said to the task that writes on a connection.
#[derive(Default)]
struct Writer {
    wake: Notify,
    closing: std::cell::Cell<bool>,
}

struct Driver {
    mesh: RefCell<Mesh>,
    writers: RefCell<HashMap<SocketId, Rc<Writer>>>,
    links: Arc<Links>,
    mailbox: Arc<Mailbox>,
    secure: Option<Box<dyn Secure>>,
    greeting: Vec<u8>,
    news: Box<dyn Fn(&Mesh)>,
    write_deadline: Duration,
    timer: Notify,
}

impl Driver {
    async fn follow_orders(self: &Rc<Self>) {
        loop {
            self.links.wake.notified().await;
            let was_full = self.links.are_full();
            for order in self.links.take() {
                let now = steady_now();
                match order {
                    Order::Send(link, channel, body) => {
                        self.links.ordered.fetch_sub(body.len(), Ordering::Relaxed);
                        self.mesh.borrow_mut().handle_send(now, link, channel, body);
                    }
                    Order::Run(errand) => errand(&mut self.mesh.borrow_mut(), now),
                    Order::Stop => {
                        self.mesh.borrow_mut().handle_shutdown(now);
                        self.act();
                        return;
                    }
                }
            }
            self.note_pressure(was_full);
            self.act();
        }
    }

    async fn farewell(&self) {
        while !self.writers.borrow().is_empty() {
            tokio::task::yield_now().await;
            self.timer.notified().await;
        }
    }

    async fn time(self: Rc<Self>) {
        loop {
            let deadline = self.mesh.borrow().next_deadline();
            let wait = deadline.map_or(Duration::from_secs(60), |at| {
                Duration::from_nanos(at.since(steady_now()).0.max(0).unsigned_abs())
            });
            if tokio::time::timeout(wait, self.timer.notified()).await.is_err() {
                self.mesh.borrow_mut().handle_timeout(steady_now());
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
        let socket = self.mesh.borrow_mut().handle_accepted(steady_now(), address.to_string());
        self.serve(socket, stream).await;
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
                self.mesh.borrow_mut().handle_dialled(steady_now(), socket, Ok(()));
                self.serve(socket, stream).await;
            }
            Err(error) => {
                self.mesh.borrow_mut().handle_dialled(steady_now(), socket, Err(error));
                self.act();
            }
        }
    }

    async fn serve(self: Rc<Self>, socket: SocketId, stream: Box<dyn Duplex>) {
        let writer = Rc::new(Writer::default());
        self.writers.borrow_mut().insert(socket, writer.clone());
        self.act();
        // What was queued before the writer was known.
        writer.wake.notify_one();
        let (from, mut to) = tokio::io::split(stream);
        tokio::select! {
            () = self.read(socket, from) => {}
            () = self.write(socket, &mut to, &writer) => {
                let _ = tokio::time::timeout(FAREWELL_TIME, to.shutdown()).await;
            }
        }
        self.writers.borrow_mut().remove(&socket);
        self.mesh.borrow_mut().handle_closed(steady_now(), socket);
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
            self.mesh.borrow_mut().handle_bytes(steady_now(), socket, &bytes);
            self.act();
        }
    }

    async fn write(self: &Rc<Self>, socket: SocketId, to: &mut (impl AsyncWrite + Unpin), writer: &Writer) {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let was_full = self.links.are_full();
            self.mesh.borrow_mut().take_output(steady_now(), socket, &mut bytes);
            if bytes.is_empty() {
                if writer.closing.get() {
                    return;
                }
                writer.wake.notified().await;
                continue;
            }
            self.note_pressure(was_full);
            let written = async {
                to.write_all(&bytes).await?;
                to.flush().await
            };
            let deadline = if writer.closing.get() { FAREWELL_TIME } else { self.write_deadline };
            match tokio::time::timeout(deadline, written).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return,
                Err(_) => return tracing::error!("a route takes nothing: it is closed"),
            }
        }
    }

    /// How much waits for the others; clients are read again once it is less.
    fn note_pressure(&self, was_full: bool) {
        let waiting = self.mesh.borrow().pressure();
        self.links.waiting.store(waiting, Ordering::Relaxed);
        if was_full && !self.links.are_full() {
            // The shard says whether it is congested at the end of each round.
            self.mailbox.post(Mail::Run(Box::new(|_, _| {})));
        }
    }

    /// Does what the mesh wants done.
    fn act(self: &Rc<Self>) {
        loop {
            let actions = self.mesh.borrow_mut().take_actions();
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
            Action::Close(socket) => {
                if let Some(writer) = self.writers.borrow().get(&socket) {
                    writer.closing.set(true);
                    writer.wake.notify_one();
                }
            }
            Action::Write(socket) => {
                if let Some(writer) = self.writers.borrow().get(&socket) {
                    writer.wake.notify_one();
                }
            }
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
                    self.mesh.borrow_mut().break_link(steady_now(), link, &error.to_string());
                }
            },
            Action::News => (self.news)(&self.mesh.borrow()),
            Action::Remark(Remark::Info(text)) => tracing::info!("{text}"),
            Action::Remark(Remark::Debug(text)) => tracing::debug!("{text}"),
            Action::Remark(Remark::Error(text)) => tracing::error!("{text}"),
        }
    }
}
