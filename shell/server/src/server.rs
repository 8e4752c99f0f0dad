//! A running server and its graceful end.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hw_auth::ConnectionKind;
use hw_conf::Options;
use hw_disk::ShardDisk;
use hw_hub::{CloseReason, Peer};
use hw_net::{Mail, Socket};
use hw_node::Question;
use tokio::sync::{mpsc, watch};

use crate::inner::Inner;
use crate::leave::{self, Departure};
use crate::ports::Ports;
use crate::reload::ReloadError;
use crate::{Builder, Sink, StartError, accept, banner, monitor, reload, system};

/// A server that runs until [`Server::shutdown`], or until it is dropped.
pub struct Server {
    inner: Arc<Inner>,
    address: SocketAddr,
    ports: Ports,
    log: Option<Sink>,
    disk: Option<Arc<ShardDisk>>,
    shards: Vec<JoinHandle<()>>,
    links: Option<JoinHandle<()>>,
    control: Option<(watch::Sender<Stage>, JoinHandle<()>)>,
    options: Options,
    departure: Departure,
}

/// What a started server is made of.
pub(crate) struct Parts {
    pub(crate) inner: Arc<Inner>,
    pub(crate) shards: Vec<JoinHandle<()>>,
    pub(crate) links: Option<JoinHandle<()>>,
    pub(crate) doors: Listeners,
    pub(crate) log: Option<Sink>,
    pub(crate) ports: Ports,
    pub(crate) address: SocketAddr,
    pub(crate) disk: Option<Arc<ShardDisk>>,
}

/// What the server listens on, and what its shards ask.
pub(crate) struct Listeners {
    pub(crate) clients: (TcpListener, accept::Kind),
    pub(crate) others: Vec<(TcpListener, accept::Kind)>,
    pub(crate) http: Option<TcpListener>,
    pub(crate) questions: mpsc::Receiver<(usize, Question)>,
}

impl Server {
    /// Settings for a server in this process.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Opens the doors.
    pub(crate) fn run(parts: Parts, options: Options) -> Result<Server, StartError> {
        let Parts { inner, shards, links, doors, log, ports, address, disk } = parts;
        let (stop, stopped) = watch::channel(Stage::Open);
        let doors = Doors { inner: inner.clone(), listeners: doors };
        let control =
            std::thread::Builder::new().name("control".to_owned()).spawn(move || doors.keep(stopped));
        let control = control.map_err(StartError::system("starting the control thread"))?;
        inner.set_ready(true);
        banner::ready(&inner.facts, &inner.members().name);
        let control = Some((stop, control));
        let departure = Departure::default();
        Ok(Server { inner, address, ports, log, disk, shards, links, control, options, departure })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as a URL for clients on this machine.
    pub fn client_url(&self) -> String {
        self.ports.nats.first().cloned().unwrap_or_default()
    }

    /// The monitoring port's URL, if there is one.
    pub fn monitor_url(&self) -> Option<String> {
        self.ports.monitoring.first().cloned()
    }

    /// Everything that this server listens on.
    pub fn ports(&self) -> &Ports {
        &self.ports
    }

    /// The server's id.
    pub fn id(&self) -> &str {
        &self.inner.facts.id
    }

    /// A connection inside the process: the client protocol over memory instead of a socket. INFO comes first.
    pub fn connect(&self) -> tokio::io::DuplexStream {
        let (ours, theirs) = tokio::io::duplex(IN_PROCESS_BYTES);
        let peer = Peer { ip: "pipe".to_owned(), kind: ConnectionKind::InProcess, ..Peer::default() };
        accept::adopt(&self.inner, Socket::Other(Box::new(ours)), peer);
        theirs
    }

    /// Opens the log file again, after it was moved away.
    pub fn reopen_log(&self) -> std::io::Result<()> {
        self.log.as_ref().map_or(Ok(()), Sink::reopen)
    }

    /// Takes a new configuration: users and permissions, limits, and how much is logged. Nothing changes when anything
    /// else is different, or wrong.
    pub fn reload(&mut self, options: Options) -> Result<(), ReloadError> {
        let changed = reload::reload(&self.inner, self.log.as_ref(), &self.options, &options)?;
        for what in changed {
            tracing::info!("Reloaded: {what}");
        }
        tracing::info!("Reloaded server configuration");
        self.options = options;
        Ok(())
    }

    /// Lame duck mode: new connections are refused, clients are told to go, and are then closed one by one over
    /// `lame_duck_duration`. Returns when they are gone; call [`Server::shutdown`] then.
    pub fn lame_duck(&mut self) {
        tracing::info!("Entering lame duck mode, stop accepting new clients");
        if let Some((stage, _)) = &self.control {
            stage.send_replace(Stage::Closing);
        }
        crate::cluster::lame_duck(&self.inner);
        for mailbox in &self.inner.mailboxes {
            mailbox.post(Mail::Run(Box::new(|shard, now| shard.handle_lame_duck(now))));
        }
        let span = |span: hw_kit::Span| Duration::from_nanos(span.0.unsigned_abs());
        let server = &self.options.server;
        let (grace, duration) = (span(server.lame_duck_grace_period), span(server.lame_duck_duration));
        let open = self.inner.connections();
        if open.is_empty() || self.departure.pause(grace) {
            return;
        }
        let pause = (duration.saturating_sub(grace) / open.len().max(1) as u32).min(Duration::from_secs(1));
        for one in open {
            if self.inner.links.is_some() {
                leave::close_gently(&self.inner, &[one]);
            } else {
                let (mailbox, conn) = one;
                self.inner.mailboxes[mailbox].post(Mail::Run(Box::new(move |shard, _| {
                    shard.hub_mut().close(conn, CloseReason::ServerShutdown);
                })));
            }
            if self.departure.pause(pause) {
                return;
            }
        }
    }

    /// Ends [`Server::lame_duck`] early, from another thread.
    pub fn departure(&self) -> Departure {
        self.departure.clone()
    }

    /// Stops: no new connections, waiting pulls are told, everything that was accepted is on disk, then all ends.
    pub fn shutdown(mut self) {
        self.stop();
    }

    fn close_doors(&mut self) {
        if let Some((stop, thread)) = self.control.take() {
            stop.send_replace(Stage::Stopped);
            let _ = thread.join();
        }
    }

    fn stop(&mut self) {
        if self.shards.is_empty() {
            return;
        }
        tracing::info!("Initiating Shutdown...");
        self.inner.set_ready(false);
        if self.inner.links.is_some() {
            if let Some((stage, _)) = &self.control {
                stage.send_replace(Stage::Closing);
            }
            leave::leave(&self.inner);
        }
        self.close_doors();
        // One after the other: the first has the streams, and what it says to pulls on the others' connections is
        // in their mailboxes before their own end is.
        for (shard, mailbox) in self.shards.drain(..).zip(&self.inner.mailboxes) {
            mailbox.post(Mail::Run(Box::new(|shard, now| shard.handle_shutdown(now))));
            mailbox.post(Mail::Stop);
            let _ = shard.join();
        }
        // What the shards said last leaves before the links end.
        if let Some(links) = &self.inner.links {
            links.stop();
        }
        if let Some(thread) = self.links.take() {
            let _ = thread.join();
        }
        // The shards are gone: dropping the last handle writes what waits and ends the disk's threads.
        self.disk = None;
        tracing::info!("Server Exiting..");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What an in-process connection may have under way in each direction.
const IN_PROCESS_BYTES: usize = 1024 * 1024;

/// The listeners and their thread.
struct Doors {
    inner: Arc<Inner>,
    listeners: Listeners,
}

/// What the doors' thread should do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    Open,
    /// No new clients; monitoring goes on.
    Closing,
    Stopped,
}

impl Doors {
    fn keep(self, stage: watch::Receiver<Stage>) {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                tracing::error!("the control thread cannot run: {error}");
                return;
            }
        };
        runtime.block_on(async move {
            if let Err(error) = self.open(stage).await {
                tracing::error!("cannot listen: {error}");
            }
        });
    }

    async fn open(self, mut stage: watch::Receiver<Stage>) -> std::io::Result<()> {
        let Listeners { clients, http, questions, others } = self.listeners;
        tokio::spawn(system::answer_questions(self.inner.clone(), questions));
        let mut accepting = Vec::new();
        for (listener, kind) in others.into_iter().chain([clients]) {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            accepting.push(tokio::spawn(accept::accept(self.inner.clone(), listener, kind)));
        }
        if let Some(http) = http {
            let http = tokio::net::TcpListener::from_std(http)?;
            let base = self.inner.facts.http_base_path.clone();
            let router = monitor::router(self.inner.clone(), &base);
            tokio::spawn(async move { axum::serve(http, router).await });
        }
        let _ = stage.wait_for(|stage| *stage != Stage::Open).await;
        accepting.iter().for_each(tokio::task::JoinHandle::abort);
        let _ = stage.wait_for(|stage| *stage == Stage::Stopped).await;
        Ok(())
    }
}
