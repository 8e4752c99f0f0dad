//! A server of a cluster stops while its clients are at work: others take what it leads, and its clients go to other servers
//! without losing what they sent, or the answers to it.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hw_hub::CloseReason;
use hw_kit::ConnId;
use hw_net::Mail;
use hw_node::Shard;

use crate::inner::Inner;

/// How long others may take to lead what this server led.
const HAND_OVER: Duration = Duration::from_secs(5);
/// How long the other servers may take to hear that nobody listens here any more.
const UNHEARD: Duration = Duration::from_millis(500);
/// How long clients may take to notice that the server has said its last word.
const NOTICED: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(2);

/// Whether somebody wants a server to stop sooner.
#[derive(Clone, Debug, Default)]
pub struct Departure(Arc<(Mutex<bool>, Condvar)>);

impl Departure {
    /// What [`crate::Server::lame_duck`] waits for is not waited for any longer.
    pub fn hurry(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Waits; says whether it is to be cut short.
    pub(crate) fn pause(&self, time: Duration) -> bool {
        let hurried = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(hurried, time, |hurried| !*hurried);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Before the shards end.
pub(crate) fn leave(inner: &Inner) {
    crate::cluster::lame_duck(inner);
    for mailbox in 0..inner.mailboxes.len() {
        on_shard(inner, mailbox, |shard, now| shard.handle_leaving(now));
    }
    let heirs =
        await_that(HAND_OVER, || on_shard(inner, 0, |shard, _| shard.has_handed_over()).unwrap_or(true));
    if !heirs {
        tracing::warn!("other servers did not take everything that this one leads");
    }
    close_gently(inner, &inner.connections());
    // What they sent last was taken, and goes on. What came for them, the answers to that as well, follows them to where they
    // will be.
    await_that(NOTICED, || on_shard(inner, 0, |shard, _| shard.has_settled()).unwrap_or(true));
    for mailbox in 0..inner.mailboxes.len() {
        let unheard = on_shard(inner, mailbox, |shard, _| shard.take_unheard()).unwrap_or_default();
        on_shard(inner, 0, move |shard, _| shard.hand_on_unheard(unheard));
    }
}

/// Ends connections: first nothing comes to them any more, which all servers know; then what they were told is written; then
/// what they sent is taken until they close, too.
pub(crate) fn close_gently(inner: &Inner, open: &[(usize, ConnId)]) {
    let mut marks = vec![0; inner.mailboxes.len()];
    for (mailbox, mark) in marks.iter_mut().enumerate() {
        let conns = of_shard(open, mailbox);
        let muted = on_shard(inner, mailbox, move |shard, _| {
            conns.into_iter().map(|conn| shard.hub_mut().mute(conn)).max().unwrap_or(0)
        });
        *mark = muted.unwrap_or(0);
    }
    let is_unheard = |(mailbox, mark): (usize, u64)| {
        on_shard(inner, mailbox, move |shard, _| shard.hub().interest_settled() >= mark).unwrap_or(true)
    };
    await_that(UNHEARD, || marks.iter().copied().enumerate().all(is_unheard));
    for mailbox in 0..inner.mailboxes.len() {
        let conns = of_shard(open, mailbox);
        on_shard(inner, mailbox, move |shard, _| {
            for conn in conns {
                shard.hub_mut().say_farewell(conn, CloseReason::ServerShutdown);
            }
        });
    }
    let is_open = |one: &(usize, ConnId)| open.contains(one);
    await_that(NOTICED, || !inner.connections().iter().any(is_open));
    for mailbox in 0..inner.mailboxes.len() {
        let conns = of_shard(open, mailbox);
        on_shard(inner, mailbox, move |shard, _| {
            for conn in conns {
                shard.hub_mut().close(conn, CloseReason::ServerShutdown);
            }
        });
    }
}

fn of_shard(open: &[(usize, ConnId)], shard: usize) -> Vec<ConnId> {
    open.iter().filter(|(mailbox, _)| *mailbox == shard).map(|(_, conn)| *conn).collect()
}

/// Does something on a shard's thread and waits for it; None when the shard has ended.
fn on_shard<T: Send + 'static>(
    inner: &Inner,
    shard: usize,
    act: impl FnOnce(&mut Shard, hw_kit::Time) -> T + Send + 'static,
) -> Option<T> {
    let (answer, answers) = std::sync::mpsc::sync_channel(1);
    inner.mailboxes.get(shard)?.post(Mail::Run(Box::new(move |shard, now| {
        let _ = answer.send(act(shard, now));
    })));
    answers.recv().ok()
}

impl Inner {
    /// The open connections, each with its shard.
    pub(crate) fn connections(&self) -> Vec<(usize, ConnId)> {
        let of_shard = |shard: usize| {
            let conns = on_shard(self, shard, |shard, _| {
                shard.hub().connections().map(|view| view.conn).collect::<Vec<ConnId>>()
            });
            conns.unwrap_or_default().into_iter().map(move |conn| (shard, conn))
        };
        (0..self.mailboxes.len()).flat_map(of_shard).collect()
    }
}

fn await_that(patience: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience;
    while !is_so() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(PAUSE);
    }
    true
}
