//! What other threads hand to a shard: a locked queue and a wake-up.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use hw_hub::PeerBatch;
use hw_kit::ShardId;
use hw_node::Shard;
use tokio::sync::Notify;

/// A connection, batch, completion or question for a shard.
pub enum Mail {
    /// A batch from another shard.
    Peer(ShardId, PeerBatch),
    /// The disk finished something.
    Disk(hw_node::DiskCompletion),
    /// A connection that was accepted for this shard.
    Adopt(Adopted),
    /// Something to do with the shard on its own thread.
    Run(Errand),
    /// End the shard's loop.
    Stop,
}

/// Something to do with a shard on its own thread.
pub type Errand = Box<dyn FnOnce(&mut Shard, hw_kit::Time) + Send>;

/// An accepted connection on its way to its shard.
pub struct Adopted {
    /// Its number.
    pub conn: hw_kit::ConnId,
    /// The socket, non-blocking.
    pub socket: Socket,
    /// Who is on the other side.
    pub peer: hw_hub::Peer,
}

/// A stream of bytes in both directions.
pub enum Socket {
    /// Plain TCP.
    Tcp(std::net::TcpStream),
    /// Anything else: TLS, websocket, in-process.
    Other(Box<dyn Duplex>),
}

/// An asynchronous byte stream.
pub trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}

/// A shard's letter box. Senders never block: what fills it is bounded by the sender's own limits (the hub's pending
/// bytes, the disk's tickets, the listener's accepted connections).
#[derive(Default)]
pub struct Mailbox {
    queue: Mutex<VecDeque<Mail>>,
    wake: Notify,
}

impl Mailbox {
    /// Puts a letter in and wakes the shard.
    pub fn post(&self, mail: Mail) {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(mail);
        self.wake.notify_one();
    }

    /// Asks the shard something and waits for the answer; None when the shard has stopped.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Shard, hw_kit::Time) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.post(Mail::Run(Box::new(move |shard, now| {
            let _ = answer.send(question(shard, now));
        })));
        answered.await.ok()
    }

    /// Waits until something may be there.
    pub(crate) async fn arrived(&self) {
        self.wake.notified().await;
    }

    /// Takes everything that is there.
    pub(crate) fn take(&self) -> VecDeque<Mail> {
        std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
