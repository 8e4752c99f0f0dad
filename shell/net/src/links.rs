//! The sockets of links with other servers: one thread of their own, so that signs of life do not wait for a shard.

mod driver;
mod traffic;

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use hw_kit::{LinkId, Span, Time};
use hw_node::LinkFrame;
use hw_route::{Channel, Mesh, MeshConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::limits::{LINK_AT_ONCE_BYTES, LINK_PRESSURE_BYTES};
use crate::mailbox::{Duplex, Mailbox};
use driver::Driver;
use traffic::Traffic;

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

/// The way to the links' thread.
#[derive(Default)]
pub struct Links {
    frames: Mutex<VecDeque<(LinkId, Channel, Bytes)>>,
    errands: Mutex<VecDeque<Errand>>,
    stopping: AtomicBool,
    wake: Notify,
    /// Bytes among the frames, and bytes that wait for the slowest server.
    ordered: AtomicUsize,
    waiting: AtomicUsize,
    /// There once the links are served.
    traffic: OnceLock<Arc<Mutex<Traffic>>>,
}

impl Links {
    /// Sends frames to other servers, in this order: at once where they are few and nothing is in their way, which saves
    /// the links' thread being woken; else on that thread.
    pub fn send(&self, frames: Vec<(LinkId, LinkFrame)>) {
        if frames.is_empty() {
            return;
        }
        let mut bytes = 0;
        {
            let mut queue = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
            for (link, frame) in frames {
                let (channel, body) = match frame {
                    LinkFrame::Hub(batch) => (Channel::Hub, batch.into_bytes()),
                    LinkFrame::Js(body) => (Channel::Js, body),
                };
                bytes += body.len();
                queue.push_back((link, channel, body));
            }
            bytes += self.ordered.fetch_add(bytes, Ordering::Relaxed);
        }
        let traffic = self.traffic.get().filter(|_| bytes <= LINK_AT_ONCE_BYTES);
        // Whoever holds the lock may have taken the queue already: the thread looks again.
        let all_done = match traffic.map(|traffic| traffic.try_lock()) {
            Some(Ok(mut traffic)) => traffic.send(self),
            _ => false,
        };
        if !all_done {
            self.wake.notify_one();
        }
    }

    /// Does something with the mesh.
    pub fn run(&self, errand: impl FnOnce(&mut Mesh, Time) + Send + 'static) {
        self.errands.lock().unwrap_or_else(PoisonError::into_inner).push_back(Box::new(errand));
        self.wake.notify_one();
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
        self.stopping.store(true, Ordering::Release);
        self.wake.notify_one();
    }

    /// Whether so much waits for other servers that clients should not be read.
    pub fn are_full(&self) -> bool {
        self.ordered.load(Ordering::Relaxed) + self.waiting.load(Ordering::Relaxed) > LINK_PRESSURE_BYTES
    }

    /// Runs the links until they are stopped. Must be polled inside a `LocalSet`. `news`: the members, or where clients
    /// reach them, have changed.
    pub async fn serve(self: Arc<Self>, config: LinksConfig, news: Box<dyn Fn(&Mesh)>) -> io::Result<()> {
        let listener = TcpListener::from_std(config.listener)?;
        let greeting = config.mesh.greeting.clone();
        let traffic = self.traffic.get_or_init(|| Arc::new(Mutex::new(Traffic::new(config.mesh)))).clone();
        let driver = Driver {
            traffic,
            links: self,
            mailbox: config.mailbox,
            secure: config.secure,
            greeting,
            news,
            write_deadline: std::time::Duration::from_nanos(config.write_deadline.0.max(1).unsigned_abs()),
            timer: Notify::new(),
        };
        driver.run(listener).await;
        Ok(())
    }

    fn take_frames(&self) -> VecDeque<(LinkId, Channel, Bytes)> {
        let frames = std::mem::take(&mut *self.frames.lock().unwrap_or_else(PoisonError::into_inner));
        let bytes = frames.iter().map(|(_, _, body)| body.len()).sum();
        self.ordered.fetch_sub(bytes, Ordering::Relaxed);
        frames
    }

    fn take_errands(&self) -> VecDeque<Errand> {
        std::mem::take(&mut *self.errands.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests;
