//! A shard: the sessions of its connections, the interest it needs, and on shard 0 JetStream.

use std::sync::Arc;

use bytes::Bytes;
use hw_auth::{Directory, Permissions};
use hw_hub::{CloseReason, Hub, HubConfig, HubLimits, Inside, InternalId, Message, Origin, Peer, PeerBatch};
use hw_kit::{AccountId, ConnId, LinkId, ShardId, Span, Time};
use hw_route::{LinkDown, Peer as LinkPeer};

use crate::completion::DiskCompletion;
use crate::inside::Target;
use crate::jetstream::{DiskRequest, JetStream, JetStreamConfig};
use crate::links::{LinkFrame, Linked, Links};
use crate::notice::{Notice, NoticeConfig, NoticeLevel};
use crate::outbox::Outgoing;
use crate::recover::Recovery;
use crate::system::{Question, System};
use crate::unheard::{AllUnheard, Unheard};
use crate::view::JetStreamView;

/// One shard of a server.
pub struct Shard {
    hub: Hub,
    rooms: Rooms,
    links: Links,
    unheard: AllUnheard,
    scratch: Vec<u8>,
}

/// What lives behind the hub's inside subscriptions.
pub(crate) struct Rooms {
    pub(crate) js: Option<JetStream>,
    pub(crate) system: System,
}

impl Rooms {
    fn is_in_cluster(&self) -> bool {
        self.js.as_ref().is_some_and(|js| js.cluster.is_some())
    }
}

impl Inside for Rooms {
    fn deliver(&mut self, now: Time, to: InternalId, from: Origin, msg: &Message<'_>) {
        match (Target::of(to), &mut self.js) {
            (Some(Target::System), _) => self.system.handle_request(from, msg),
            (Some(target), Some(js)) => js.deliver(now, target, from, msg),
            _ => {}
        }
    }
}

impl Shard {
    /// A shard without connections; `js` comes with what was recovered, on shard 0 of a server with JetStream.
    pub fn new(now: Time, config: HubConfig, js: Option<(JetStreamConfig, Recovery)>) -> Shard {
        let directory: Arc<Directory> = config.directory.clone();
        let first = config.shard == ShardId(0);
        let seed = config.seed.rotate_left(17);
        let mut hub = Hub::new(config);
        let system = System::new(directory.clone(), seed);
        if first {
            system.subscribe(&mut hub);
        }
        let js = js.map(|(config, recovery)| recovery.finish(now, config, directory, &mut hub));
        let mut shard = Shard {
            hub,
            rooms: Rooms { js, system },
            links: Links::default(),
            unheard: AllUnheard::default(),
            scratch: Vec::new(),
        };
        shard.settle(now);
        shard
    }

    /// A connection was accepted.
    pub fn handle_open(&mut self, now: Time, conn: ConnId, peer: Peer) {
        self.hub.handle_open(now, conn, peer);
        self.rooms.system.opened(&self.hub, conn);
    }

    /// Bytes came in; says how many were used. The rest must be offered again, with more.
    pub fn handle_bytes(&mut self, now: Time, conn: ConnId, bytes: &[u8]) -> usize {
        self.hub.handle_bytes(now, conn, bytes, &mut self.rooms)
    }

    /// A connection is gone.
    pub fn handle_closed(&mut self, now: Time, conn: ConnId, reason: CloseReason) {
        self.hub.handle_closed(now, conn, reason);
    }

    /// So many bytes of a connection's taken output are not written yet.
    pub fn set_in_flight(&mut self, conn: ConnId, bytes: usize) {
        self.hub.set_in_flight(conn, bytes);
    }

    /// Asked before each read of a connection: until when it should wait, because it publishes faster than others read.
    pub fn stalled_until(&mut self, now: Time, conn: ConnId) -> Option<Time> {
        self.hub.stalled_until(now, conn)
    }

    /// Whether somebody who was stalled need not wait any longer; asked once.
    pub fn take_resumed(&mut self) -> bool {
        self.hub.take_resumed()
    }

    /// A batch from another shard.
    pub fn handle_peer(&mut self, now: Time, from: ShardId, batch: PeerBatch) {
        self.hub.handle_peer(now, from, batch, &mut self.rooms);
    }

    /// The disk finished something.
    pub fn handle_disk(&mut self, now: Time, completion: DiskCompletion) {
        if let Some(js) = &mut self.rooms.js {
            js.handle_disk(now, &mut self.hub, completion);
        }
    }

    /// There is a link with another server. Links are shard 0's.
    pub fn handle_link_up(&mut self, now: Time, link: LinkId, peer: LinkPeer) {
        self.hub.handle_link_up(link);
        if let Some(js) = &mut self.rooms.js {
            js.handle_link_up(now, link, (peer.node, &peer.name));
        }
        self.links.up(now, link, peer);
    }

    /// A link is gone. With [`LinkDown::Refused`] it was told before that it is, and now that the server's process is.
    pub fn handle_link_down(&mut self, now: Time, link: LinkId, why: LinkDown) {
        self.hub.handle_link_down(link);
        if let Some(js) = &mut self.rooms.js {
            js.handle_link_down(now, &mut self.hub, link, why);
        }
        self.links.down(link, why);
    }

    /// Nothing was heard of another server for [`hw_route::QUIET_AFTER`], or something was, after that. The link stands.
    pub fn handle_link_quiet(&mut self, now: Time, link: LinkId, quiet: bool) {
        self.hub.handle_link_quiet(link, quiet);
        if let Some(js) = &mut self.rooms.js {
            js.handle_link_quiet(now, &mut self.hub, link, quiet);
        }
        self.links.quiet(link, quiet);
    }

    /// Another server has heard what this one sent at `at`.
    pub fn handle_link_acked(&mut self, now: Time, link: LinkId, at: Time) {
        if let Some(js) = &mut self.rooms.js {
            js.handle_link_acked(now, link, at);
        }
        self.links.acked(link, at);
    }

    /// The times that this shard is told from now on are ahead by so much, which has not passed.
    pub fn handle_clock_step(&mut self, by: Span) {
        if let Some(js) = &mut self.rooms.js {
            js.handle_clock_step(by);
        }
    }

    /// Something came from another server.
    pub fn handle_link(&mut self, now: Time, link: LinkId, frame: LinkFrame) {
        match frame {
            LinkFrame::Hub(batch) => self.hub.handle_remote(now, link, &batch, &mut self.rooms),
            LinkFrame::Js(body) => {
                if let Some(js) = &mut self.rooms.js {
                    js.handle_peer_frame(now, &mut self.hub, link, &body);
                }
            }
        }
    }

    /// What other servers must hear.
    pub fn take_link_frames(&mut self) -> Vec<(LinkId, LinkFrame)> {
        let hub = self.hub.take_remote_batches().into_iter();
        let hub = hub.map(|(link, batch)| (link, LinkFrame::Hub(batch)));
        let js = self.rooms.js.as_mut().map(JetStream::take_peer_frames).unwrap_or_default();
        let (first, last) = js;
        let frame = |(link, body)| (link, LinkFrame::Js(body));
        // What was decided, then the answers to it, then requests: who hears an answer knows of the stream that it is about, and
        // who is handed a request knows of the inbox that it names.
        first.into_iter().map(frame).chain(hub).chain(last.into_iter().map(frame)).collect()
    }

    /// The other servers that there is a link with.
    pub fn links(&self) -> impl Iterator<Item = (LinkId, &Linked)> {
        self.links.all()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Time) {
        self.hub.handle_timeout(now);
        if let Some(js) = &mut self.rooms.js {
            js.handle_timeout(now);
        }
    }

    /// When [`Shard::handle_timeout`] should be called at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        let js = self.rooms.js.as_ref().and_then(JetStream::next_deadline);
        self.hub.next_deadline().into_iter().chain(js).min()
    }

    /// Ends a round: everything that the inputs since the last call caused is carried out or handed over.
    pub fn settle(&mut self, now: Time) {
        for late in self.hub.take_unclaimed() {
            let (to, header, payload) = (late.to.into(), late.header.into(), late.payload.into());
            self.unheard.keep(Unheard::new(now, (late.account, to), header, payload));
        }
        for Unheard { account, to, header, payload, .. } in self.unheard.heard(now, &self.hub) {
            let message = Message { subject: &to, reply: b"", header: &header, payload: &payload };
            self.hub.publish(now, account, &to, &message, &mut self.rooms);
        }
        loop {
            let Rooms { js, system } = &mut self.rooms;
            let mut outgoing = system.answers(now, &mut self.hub);
            if let Some(js) = js {
                js.settle(now, &mut self.hub);
                outgoing.append(&mut js.outbox.ready);
            }
            if outgoing.is_empty() {
                break;
            }
            for message in outgoing {
                self.publish(now, message);
            }
        }
        if let Some(js) = &mut self.rooms.js {
            js.cut_frames();
        }
    }

    /// What the disk should do.
    pub fn take_disk(&mut self) -> Vec<DiskRequest> {
        self.rooms.js.as_mut().map(|js| std::mem::take(&mut js.disk.requests)).unwrap_or_default()
    }

    /// Whether input should wait because the disk or another shard is behind.
    pub fn is_congested(&self) -> bool {
        self.rooms.js.as_ref().is_some_and(JetStream::is_congested)
    }

    /// Which lines operators want to read.
    pub fn set_notices(&mut self, wanted: NoticeConfig) {
        self.rooms.system.set_notices(&mut self.hub, wanted);
    }

    /// The configuration was changed: users and permissions, accounts and what they share, limits. An account that was
    /// there before must have its number still.
    pub fn handle_reload(&mut self, now: Time, directory: Arc<Directory>, limits: HubLimits) {
        self.hub.set_limits(limits);
        self.hub.set_directory(directory.clone());
        let first = self.hub.shard() == ShardId(0);
        self.rooms.system.set_directory(directory.clone(), first.then_some(&mut self.hub));
        if let Some(js) = &mut self.rooms.js {
            js.set_directory(now, &mut self.hub, directory);
        }
    }

    /// Exchanges something else with other servers from now on.
    pub fn set_exchange(&mut self, exchange: Option<Arc<Permissions>>) {
        self.hub.set_exchange(exchange);
    }

    /// Lines for the log.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        let mut notices = std::mem::take(&mut self.rooms.system.notices);
        notices.append(&mut self.links.notices);
        notices.extend(self.rooms.js.as_mut().map(JetStream::take_cluster_notices).unwrap_or_default());
        let found = self.rooms.js.as_mut().map(JetStream::take_damage_lines).unwrap_or_default();
        notices.extend(found.into_iter().map(|text| Notice { level: NoticeLevel::Error, text }));
        notices
    }

    /// Requests that need to know more than one shard.
    pub fn take_questions(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.rooms.system.questions)
    }

    /// The answer to a [`Question`].
    pub fn handle_answer(&mut self, now: Time, to: (AccountId, Bytes), payload: Bytes) {
        let answer = self.rooms.system.reply(to, payload);
        self.publish(now, answer);
    }

    /// Batches for other shards.
    pub fn take_peer_batches(&mut self) -> Vec<(ShardId, PeerBatch)> {
        self.hub.take_peer_ops()
    }

    /// Connections with output or a reason to close, appended to `into`.
    pub fn take_dirty(&mut self, into: &mut Vec<ConnId>) {
        self.hub.take_dirty(into);
    }

    /// Takes a connection's output and leaves `spare` in its place.
    pub fn swap_output(&mut self, conn: ConnId, spare: Vec<u8>) -> Vec<u8> {
        self.hub.swap_output(conn, spare)
    }

    /// Why a connection must be closed once its output is written.
    pub fn closing(&self, conn: ConnId) -> Option<CloseReason> {
        self.hub.closing(conn)
    }

    /// Whether nothing more is to be written to a connection that is read further.
    pub fn is_leaving(&self, conn: ConnId) -> bool {
        self.hub.is_leaving(conn)
    }

    /// The sessions, for monitoring and for what an operator does.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// The sessions, to change what clients are told or to close connections.
    pub fn hub_mut(&mut self) -> &mut Hub {
        &mut self.hub
    }

    /// JetStream as monitoring sees it; None where this shard has none.
    pub fn jetstream(&self) -> Option<JetStreamView<'_>> {
        self.rooms.js.as_ref().map(JetStreamView::new)
    }

    /// The server sends its clients away: they are told, and other servers take what it leads.
    pub fn handle_lame_duck(&mut self, now: Time) {
        self.hub.lame_duck();
        self.hub.begin_leaving();
        self.depart(now, "LAMEDUCK");
        if let Some(js) = &mut self.rooms.js {
            js.hand_over_all(now);
        }
    }

    /// The server stops: waiting pulls are told, whoever watches in the system account is too, and the store is made quick
    /// to open.
    pub fn handle_shutdown(&mut self, now: Time) {
        self.depart(now, "SHUTDOWN");
        if let Some(js) = &mut self.rooms.js {
            js.tell_progress(now);
            js.handle_shutdown();
        }
        self.settle(now);
        if let Some(js) = &mut self.rooms.js {
            js.checkpoint_at_end();
        }
    }

    /// The server is about to stop: others take what it leads, and it leads nothing more.
    pub fn handle_leaving(&mut self, now: Time) {
        self.hub.begin_leaving();
        if let Some(js) = &mut self.rooms.js {
            js.hand_over_all(now);
        }
    }

    /// Whether nobody waits for what this server alone can say: see [`Shard::handle_leaving`].
    pub fn has_handed_over(&self) -> bool {
        self.rooms.js.as_ref().is_none_or(JetStream::has_handed_over)
    }

    /// The same when its clients are gone: whether everything that they sent is answered.
    pub fn has_settled(&self) -> bool {
        self.rooms.js.as_ref().is_none_or(JetStream::has_settled)
    }

    /// Answers that nobody hears so far, before the shard ends.
    pub fn take_unheard(&mut self) -> Vec<Unheard> {
        self.unheard.take()
    }

    /// Has another server keep answers that nobody hears so far. For shard 0.
    pub fn hand_on_unheard(&mut self, unheard: Vec<Unheard>) {
        if let Some(js) = &mut self.rooms.js {
            js.hand_on_unheard(unheard);
        }
    }

    fn depart(&mut self, now: Time, how: &str) {
        let first = self.hub.shard() == ShardId(0);
        let said = first.then(|| self.rooms.system.depart(now, &self.hub, how)).flatten();
        if let Some(said) = said {
            self.publish(now, said);
        }
    }

    fn publish(&mut self, now: Time, outgoing: Outgoing) {
        let (hub, rooms) = (&mut self.hub, &mut self.rooms);
        match outgoing {
            Outgoing::PubAck { account, group, reply, result } => {
                let Some(js) = &rooms.js else { return };
                self.scratch.clear();
                js.pub_ack(group, &result, &mut self.scratch);
                let message = Message { subject: &reply, reply: b"", header: b"", payload: &self.scratch };
                let count = hub.publish(now, account, &reply, &message, rooms);
                if count == 0 && rooms.is_in_cluster() {
                    let payload = owned(&self.scratch);
                    self.unheard.keep(Unheard::new(now, (account, reply), Bytes::new(), payload));
                }
            }
            Outgoing::Answer { account, to, header, payload } => {
                let message = Message { subject: &to, reply: b"", header: &header, payload: &payload };
                if hub.publish(now, account, &to, &message, rooms) == 0 && rooms.is_in_cluster() {
                    self.unheard.keep(Unheard::new(now, (account, to), header, payload));
                }
            }
            Outgoing::Deliver { account, to, reply, record } => {
                let message = Message {
                    subject: record.subject(),
                    reply: &reply,
                    header: record.header(),
                    payload: record.payload(),
                };
                hub.publish(now, account, &to, &message, rooms);
            }
            Outgoing::Send { account, to, reply, header, payload } => {
                let message = Message { subject: &to, reply: &reply, header: &header, payload: &payload };
                hub.publish(now, account, &to, &message, rooms);
            }
        }
    }
}

/// An owned copy of a message's part.
pub(crate) fn owned(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}
