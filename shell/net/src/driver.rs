//! Runs one shard: reads, timers and mail go in; output, disk requests and peers' batches go out, once per round.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use hw_hub::{CloseReason, PeerBatch};
use hw_kit::{ConnId, LinkId, ShardId, Span, Time};
use hw_node::{DiskCompletion, DiskRequest, LinkFrame, Notice, Question, Shard};
use tokio::sync::Notify;

use crate::limits::{READS_AT_ONCE_MAX, SPARE_BYTES_MAX, SPARES_MAX};
use crate::mailbox::{Adopted, LinkMail, Mail, Mailbox, Socket};
use crate::{Clock, steady_now, stream, tcp, upgrade};

/// How often the other tasks run after a shard was told to stop: enough to take the last output and write it once.
const LAST_TURNS: usize = 4;

/// What a shard wants done outside its thread.
pub trait Outside {
    /// Hand a batch to another shard.
    fn post(&mut self, to: ShardId, batch: PeerBatch);
    /// Have the disk do something. `now`: what takes next to no time here, a small append included, may be done, and comes
    /// back.
    fn disk(&mut self, request: DiskRequest, now: bool) -> Option<DiskCompletion>;
    /// Send something to other servers, in this order.
    fn send(&mut self, frames: Vec<(LinkId, LinkFrame)>);
    /// Whether so much waits for other servers that clients should wait.
    fn links_are_full(&self) -> bool;
    /// A connection is gone.
    fn closed(&mut self, conn: ConnId);
    /// A line for the log.
    fn notice(&mut self, notice: Notice);
    /// A request that needs to know more than one shard.
    fn question(&mut self, question: Question);
}

/// Settings of a driver.
#[derive(Clone)]
pub struct DriverConfig {
    /// A connection whose peer takes no bytes for this long is closed as a slow consumer.
    pub write_deadline: Span,
    /// The mailboxes of all shards: clients are not read while one of them is full.
    pub mailboxes: Vec<Arc<Mailbox>>,
}

/// One shard and its sockets, on one thread.
pub struct Driver {
    pub(crate) state: RefCell<State>,
    pub(crate) config: DriverConfig,
    mailbox: Arc<Mailbox>,
    round: Notify,
    timer: Notify,
    resumed: Notify,
}

pub(crate) struct State {
    pub(crate) shard: Shard,
    pub(crate) clock: Clock,
    pub(crate) lines: HashMap<ConnId, Line>,
    outside: Box<dyn Outside>,
    spares: Vec<Vec<u8>>,
    pub(crate) scratch: Vec<u8>,
    dirty: Vec<ConnId>,
    armed: Option<Time>,
}

/// How a connection's output leaves.
pub(crate) enum Line {
    Tcp(tcp::Line),
    Stream(Rc<Notify>),
}

impl Driver {
    /// Joins a shard with its mailbox and the outside.
    pub fn new(
        shard: Shard,
        mailbox: Arc<Mailbox>,
        outside: Box<dyn Outside>,
        config: DriverConfig,
    ) -> Rc<Driver> {
        let state = State {
            shard,
            clock: Clock::default(),
            lines: HashMap::new(),
            outside,
            spares: Vec::new(),
            scratch: Vec::new(),
            dirty: Vec::new(),
            armed: None,
        };
        Rc::new(Driver {
            state: RefCell::new(state),
            config,
            mailbox,
            round: Notify::new(),
            timer: Notify::new(),
            resumed: Notify::new(),
        })
    }

    /// Runs until the mailbox says stop. Must be polled inside a `LocalSet`.
    pub async fn run(self: Rc<Self>) {
        let rounds = tokio::task::spawn_local(self.clone().rounds());
        let timers = tokio::task::spawn_local(self.clone().timers());
        self.end_round();
        loop {
            self.mailbox.arrived().await;
            if self.read_mail() {
                break;
            }
            self.settle();
            // More mail must not keep the sockets waiting: they take what this round wrote.
            tokio::task::yield_now().await;
        }
        self.settle();
        // Connections that are no sockets write in tasks of their own: they get a last turn.
        for _ in 0..LAST_TURNS {
            tokio::task::yield_now().await;
        }
        rounds.abort();
        timers.abort();
    }

    /// Waits while any shard has more to do than it should: nothing more is then read from clients.
    pub(crate) async fn may_read(&self) {
        for mailbox in &self.config.mailboxes {
            mailbox.room().await;
        }
    }

    /// Waits while a connection publishes faster than others read.
    pub(crate) async fn unstalled(&self, conn: ConnId) {
        loop {
            let resumed = self.resumed.notified();
            let wait = {
                let mut state = self.state.borrow_mut();
                let now = state.now();
                match state.shard.stalled_until(now, conn) {
                    Some(until) => state.clock.until(until),
                    None => return,
                }
            };
            // Either way: what the shard says then holds.
            let _ = tokio::time::timeout(wait, resumed).await;
        }
    }

    /// Says that something was handled: what it causes leaves when every ready connection was read.
    pub(crate) fn end_round(&self) {
        self.round.notify_one();
    }

    /// A connection is gone.
    pub(crate) fn closed(&self, conn: ConnId, reason: CloseReason) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if state.lines.remove(&conn).is_some() {
            let now = state.now();
            state.shard.handle_closed(now, conn, reason);
            state.outside.closed(conn);
        }
        self.round.notify_one();
    }

    fn read_mail(self: &Rc<Self>) -> bool {
        for mail in self.mailbox.take() {
            if matches!(mail, Mail::Stop) {
                return true;
            }
            let mut state = self.state.borrow_mut();
            let state = &mut *state;
            let now = state.now();
            match mail {
                Mail::Peer(from, batch) => state.shard.handle_peer(now, from, batch),
                Mail::Disk(completion) => state.shard.handle_disk(now, completion),
                Mail::Run(question) => question(&mut state.shard, now),
                Mail::Link(link, mail) => state.link(now, link, mail),
                Mail::Adopt(adopted) => self.adopt(state, now, adopted),
                Mail::Stop => return true,
            }
        }
        false
    }

    fn adopt(self: &Rc<Self>, state: &mut State, now: Time, adopted: Adopted) {
        let Adopted { conn, socket, peer } = adopted;
        match socket {
            Socket::Tcp(socket) => match tcp::Line::new(socket) {
                Ok(line) => {
                    tokio::task::spawn_local(tcp::read(self.clone(), conn, line.socket.clone()));
                    state.lines.insert(conn, Line::Tcp(line));
                }
                Err(error) => {
                    tracing::debug!(%conn, %error, "connection was lost before it was read");
                    return;
                }
            },
            Socket::Other(socket) => {
                let output = Rc::new(Notify::new());
                tokio::task::spawn_local(stream::serve(self.clone(), conn, socket, output.clone()));
                state.lines.insert(conn, Line::Stream(output));
            }
            Socket::Upgrade(socket, upgrade) => {
                let output = Rc::new(Notify::new());
                tokio::task::spawn_local(upgrade::serve(
                    self.clone(),
                    conn,
                    (socket, upgrade),
                    output.clone(),
                ));
                state.lines.insert(conn, Line::Stream(output));
            }
        }
        state.shard.handle_open(now, conn, peer);
    }

    async fn rounds(self: Rc<Self>) {
        loop {
            self.round.notified().await;
            self.settle();
        }
    }

    async fn timers(self: Rc<Self>) {
        loop {
            let deadline = self.state.borrow().armed;
            let wait = {
                let mut state = self.state.borrow_mut();
                deadline.map(|deadline| state.clock.until(deadline))
            };
            match wait {
                None => self.timer.notified().await,
                Some(wait) => {
                    if tokio::time::timeout(wait, self.timer.notified()).await.is_err() {
                        let mut state = self.state.borrow_mut();
                        let state = &mut *state;
                        state.armed = None;
                        let now = state.now();
                        state.shard.handle_timeout(now);
                        self.round.notify_one();
                    }
                }
            }
        }
    }

    /// Ends a round: everything that the inputs caused leaves the shard. An append that can be made at once is made when all
    /// else has left, and what it causes leaves as well.
    fn settle(self: &Rc<Self>) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let append = self.settle_most(state);
        if let Some(append) = append
            && let Some(done) = state.outside.disk(append, true)
        {
            let now = state.now();
            state.shard.handle_disk(now, done);
            // One in a round: the sockets have waited for it.
            if let Some(append) = self.settle_most(state) {
                state.outside.disk(append, false);
            }
        }
        let deadline = state.shard.next_deadline();
        if let Some(deadline) = deadline
            && state.armed.is_none_or(|armed| deadline < armed)
        {
            state.armed = Some(deadline);
            self.timer.notify_one();
        }
    }

    /// Everything but an append that is the only thing for the log: that comes back.
    fn settle_most(self: &Rc<Self>, state: &mut State) -> Option<DiskRequest> {
        let now = state.now();
        let append = state.work_disk(now);
        for (to, batch) in state.shard.take_peer_batches() {
            state.outside.post(to, batch);
        }
        state.outside.send(state.shard.take_link_frames());
        self.mailbox.set_congested(state.shard.is_congested() || state.outside.links_are_full());
        for notice in state.shard.take_notices() {
            state.outside.notice(notice);
        }
        for question in state.shard.take_questions() {
            state.outside.question(question);
        }
        let mut dirty = std::mem::take(&mut state.dirty);
        state.shard.take_dirty(&mut dirty);
        for conn in dirty.drain(..) {
            self.flush(state, conn);
        }
        state.dirty = dirty;
        if state.shard.take_resumed() {
            self.resumed.notify_waiters();
            // Other shards' publishers are told with the next batch.
            self.round.notify_one();
        }
        append
    }

    fn flush(self: &Rc<Self>, state: &mut State, conn: ConnId) {
        match state.lines.get(&conn) {
            None => {}
            Some(Line::Stream(output)) => output.notify_one(),
            Some(Line::Tcp(_)) => tcp::flush(self, state, conn),
        }
    }
}

impl State {
    /// The current time. A shard hears of a clock that was set before it sees the time.
    pub(crate) fn now(&mut self) -> Time {
        let now = self.clock.now();
        if let Some(step) = self.clock.take_step() {
            self.shard.handle_clock_step(step);
        }
        now
    }

    /// Settles the shard and hands its requests to the disk, in their order; an append that no other request but reads
    /// follows comes back.
    fn work_disk(&mut self, now: Time) -> Option<DiskRequest> {
        let (mut append, mut at_once) = (None, READS_AT_ONCE_MAX);
        loop {
            self.shard.settle(now);
            let before = at_once;
            for request in self.shard.take_disk() {
                if !matches!(request, DiskRequest::Load { .. })
                    && let Some(earlier) = append.take()
                {
                    self.outside.disk(earlier, false);
                }
                if matches!(request, DiskRequest::Append { .. }) {
                    append = Some(request);
                } else if let Some(done) = self.outside.disk(request, at_once > 0) {
                    at_once -= 1;
                    self.shard.handle_disk(now, done);
                }
            }
            if at_once == before {
                return append;
            }
        }
    }

    fn link(&mut self, now: Time, link: LinkId, mail: LinkMail) {
        match mail {
            LinkMail::Up(peer) => self.shard.handle_link_up(now, link, peer),
            LinkMail::Down(why) => self.shard.handle_link_down(now, link, why),
            LinkMail::Quiet(quiet) => self.shard.handle_link_quiet(now, link, quiet),
            // How long ago that was, counted back from the shard's own time.
            LinkMail::Acked(at) => {
                let age = steady_now().since(at);
                self.shard.handle_link_acked(now, link, now - age);
            }
            LinkMail::Frame(frame) => self.shard.handle_link(now, link, frame),
        }
    }

    /// Takes a connection's output, leaving an empty buffer.
    pub(crate) fn take_output(&mut self, conn: ConnId) -> Vec<u8> {
        let spare = self.spares.pop().unwrap_or_default();
        self.shard.swap_output(conn, spare)
    }

    /// Keeps a buffer for later, unless it is large or there are enough.
    pub(crate) fn keep(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= SPARE_BYTES_MAX && self.spares.len() < SPARES_MAX {
            buffer.clear();
            self.spares.push(buffer);
        }
    }
}
