//! What other threads hand to a shard: a locked queue and a wake-up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use hw_hub::PeerBatch;
use hw_kit::{LinkId, ShardId, Time};
use hw_node::{LinkFrame, Shard};
use hw_route::{LinkDown, Peer};
use tokio::sync::Notify;

use crate::limits::{LINK_MAILBOX_BYTES, MAILBOX_BYTES};
use crate::upgrade::Upgrade;

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
    /// About a link with another server.
    Link(LinkId, LinkMail),
    /// End the shard's loop.
    Stop,
}

/// What happens on a link.
pub enum LinkMail {
    /// It is there.
    Up(Peer),
    /// It is gone.
    Down(LinkDown),
    /// Nothing is heard on it, or something again.
    Quiet(bool),
    /// The other server has heard what this one sent at that time of the steady clock.
    Acked(Time),
    /// Something came.
    Frame(LinkFrame),
}

impl Mail {
    fn bytes(&self) -> usize {
        match self {
            Mail::Peer(_, batch) => batch.bytes(),
            Mail::Link(_, LinkMail::Frame(LinkFrame::Hub(batch))) => batch.len(),
            Mail::Link(_, LinkMail::Frame(LinkFrame::Js(body))) => body.len(),
            _ => 0,
        }
    }
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
    /// Anything else that is ready: in-process.
    Other(Box<dyn Duplex>),
    /// TCP that becomes something else first: TLS, websocket.
    Upgrade(std::net::TcpStream, Box<dyn Upgrade>),
}

/// An asynchronous byte stream.
pub trait Duplex: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin {}

impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin> Duplex for T {}

/// A shard's letter box. Senders never block; those who read from clients stop when it is full ([`Mailbox::room`]).
#[derive(Default)]
pub struct Mailbox {
    queue: Mutex<VecDeque<Mail>>,
    wake: Notify,
    /// Bytes of the other shards' batches.
    bytes: AtomicUsize,
    /// The shard itself has more to do than it should.
    congested: AtomicBool,
    has_room: Notify,
}

impl Mailbox {
    /// Puts a letter in and wakes the shard.
    pub fn post(&self, mail: Mail) {
        self.bytes.fetch_add(mail.bytes(), Ordering::Relaxed);
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(mail);
        self.wake.notify_one();
    }

    /// Waits until the shard can take more work.
    pub(crate) async fn room(&self) {
        self.wait_while(|| self.is_full()).await;
    }

    /// Waits until the shard can take more from other servers. A shard that has more to do than it should waits for
    /// those perhaps: they are read all the same, or servers would wait for each other.
    pub(crate) async fn link_room(&self) {
        self.wait_while(|| self.bytes.load(Ordering::Acquire) > LINK_MAILBOX_BYTES).await;
    }

    async fn wait_while(&self, is_full: impl Fn() -> bool) {
        while is_full() {
            let room = self.has_room.notified();
            tokio::pin!(room);
            // Registered before the second look: what happens in between is not missed.
            room.as_mut().enable();
            if !is_full() {
                return;
            }
            room.await;
        }
    }

    fn is_full(&self) -> bool {
        self.congested.load(Ordering::Acquire) || self.bytes.load(Ordering::Acquire) > MAILBOX_BYTES
    }

    /// Says whether the shard has more to do than it should.
    pub(crate) fn set_congested(&self, congested: bool) {
        if self.congested.swap(congested, Ordering::AcqRel) && !congested {
            self.has_room.notify_waiters();
        }
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
        let mail = std::mem::take(&mut *self.queue.lock().unwrap_or_else(PoisonError::into_inner));
        let bytes = mail.iter().map(Mail::bytes).sum();
        if self.bytes.fetch_sub(bytes, Ordering::AcqRel) > MAILBOX_BYTES {
            self.has_room.notify_waiters();
        }
        mail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readers_wait_while_a_shard_is_congested() {
        let mailbox = std::sync::Arc::new(Mailbox::default());
        mailbox.room().await;
        mailbox.set_congested(true);
        let waiting = tokio::spawn({
            let mailbox = mailbox.clone();
            async move { mailbox.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        mailbox.set_congested(false);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn readers_wait_while_a_mailbox_is_full() {
        let mailbox = std::sync::Arc::new(Mailbox::default());
        mailbox.bytes.store(MAILBOX_BYTES + 1, Ordering::Release);
        let waiting = tokio::spawn({
            let mailbox = mailbox.clone();
            async move { mailbox.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        mailbox.bytes.store(0, Ordering::Release);
        mailbox.set_congested(true);
        mailbox.set_congested(false);
        waiting.await.unwrap();
    }
}
