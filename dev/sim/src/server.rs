//! One simulated server: its shards and its store on a virtual disk. It starts, runs, dies and starts again.

use std::collections::BTreeMap;
use std::sync::Arc;

use hw_auth::Directory;
use hw_hub::{CloseReason, HubConfig, HubLimits, Peer, PeerBatch};
use hw_kit::{ConnId, LinkId, NodeId, Rng, ShardId, Span, Time};
use hw_node::{ClusterConfig, DiskCompletion, JetStreamConfig, LinkFrame, Recovery, ReplicaView, Shard};
use hw_route::{LinkDown, Peer as LinkPeer};
use hw_store::index::Pages;
use hw_store::{DiskOp, RecoverError, Recovered, RecoveryReport, StorageOptions, Vault, recover};
use hw_testkit::disk::MemDisk;
use hw_wire::Info;

use crate::planted::Planted;
use crate::tamper::Tamper;
use crate::trace::Trace;
use crate::volume::Volume;

/// How servers are set up.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// How many shards a server has.
    pub shards: u16,
    /// A checkpoint is begun when the log grew by so many bytes.
    pub checkpoint_bytes: u64,
    /// Bytes of one log file.
    pub wal_bytes: u64,
    /// What is wrong on purpose.
    pub planted: Planted,
}

/// Something for a shard.
pub enum Input {
    /// A connection was accepted.
    Open(ConnId),
    /// Bytes came in.
    Bytes(ConnId, Vec<u8>),
    /// A connection is gone.
    Closed(ConnId),
    /// A batch of another shard.
    Peer(ShardId, PeerBatch),
    /// The disk finished something.
    Disk(DiskCompletion),
    /// About a link with another server; for the first shard.
    Link(LinkId, LinkInput),
}

/// What happens on a link.
pub enum LinkInput {
    /// It is there.
    Up(LinkPeer),
    /// It is gone.
    Down(LinkDown),
    /// Nothing is heard on it, or something again.
    Quiet(bool),
    /// The other server has heard what this one sent then, by the steady clock.
    Acked(Time),
    /// Something came.
    Frame(LinkFrame),
}

/// What one round of a shard gives to the world.
#[derive(Default)]
pub struct Output {
    /// Bytes for connections.
    pub bytes: Vec<(ConnId, Vec<u8>)>,
    /// Connections that the server ends, after their bytes.
    pub closed: Vec<ConnId>,
    /// Batches for other shards.
    pub peers: Vec<(ShardId, PeerBatch)>,
    /// Lines for the log.
    pub notices: Vec<String>,
    /// What other servers must hear.
    pub links: Vec<(LinkId, LinkFrame)>,
    /// When the shard wants to be woken at the latest.
    pub wake: Option<Time>,
}

/// A server that runs.
pub struct Server {
    shards: Vec<Running>,
    /// The store.
    pub volume: Volume,
    setup: Setup,
}

struct Running {
    shard: Shard,
    inbox: Vec<Input>,
    unread: BTreeMap<ConnId, Vec<u8>>,
}

/// Why a server did not start.
#[derive(Debug)]
pub enum BootError {
    /// The power failed in the middle of it.
    PowerCut,
    /// Anything else must not happen.
    Refused(String),
}

impl Server {
    /// Starts on a disk: recovers, and is ready.
    pub fn boot(
        now: Time,
        setup: Setup,
        disk: &mut MemDisk,
        seeds: &mut Boot<'_>,
    ) -> Result<Server, BootError> {
        // Few pages, so that they come and go.
        let pages = Pages::new(Box::new(disk.share()), 50_000, Vault::default());
        let mut recovery = Recovery::new(Some(Arc::new(pages)));
        let mut tamper = Tamper::new(setup.planted, seeds.rng.next_u64());
        let mut run = |op: DiskOp| {
            seeds.trace.disk(now, &op);
            disk.run(op)
        };
        let mut take = |piece: Recovered| tamper.pass(piece, &mut |piece| recovery.handle(piece));
        let options = StorageOptions {
            frame_bytes_max: 128 << 10,
            wal_first_bytes: setup.wal_bytes,
            wal_file_bytes: setup.wal_bytes * 2,
            reserve_bytes: 4096,
            ..StorageOptions::new(ShardId(0), seeds.rng.next_u64())
        };
        let (storage, report) = recover(options, &mut run, &mut take).map_err(|error| match error {
            RecoverError::Disk(error) if error == hw_testkit::disk::power_cut() => BootError::PowerCut,
            other => BootError::Refused(other.to_string()),
        })?;
        tamper.end(&mut |piece| recovery.handle(piece));
        if let Some(reason) = recovery.refusal() {
            return Err(BootError::Refused(reason.to_owned()));
        }
        if !seeds.tolerant {
            check_report(&report)?;
            if let Some((group, reason)) = recovery.quarantined().next() {
                return Err(BootError::Refused(format!("group {group} is quarantined: {reason}")));
            }
        }
        let directory = seeds.directory.clone();
        let mut recovery = Some((jetstream(setup, seeds), recovery));
        let shards = (0..setup.shards).map(|index| {
            let config = HubConfig {
                shard: ShardId(index),
                shards: setup.shards,
                seed: seeds.rng.next_u64(),
                info: Info {
                    server_id: seeds.name.to_owned(),
                    server_name: seeds.name.to_owned(),
                    headers: true,
                    jetstream: true,
                    ..Info::default()
                },
                limits: HubLimits::default(),
                directory: directory.clone(),
                exchange: None,
            };
            let shard = Shard::new(now, config, recovery.take());
            Running { shard, inbox: Vec::new(), unread: BTreeMap::new() }
        });
        let shards = shards.collect();
        Ok(Server { shards, volume: Volume::new(storage, setup.planted), setup })
    }

    /// Streams whose data the server knows to be damaged.
    pub fn damaged(&self) -> Vec<String> {
        let view = self.shards.first().and_then(|running| running.shard.jetstream());
        view.map(|view| view.health().damage.into_iter().map(|damage| damage.stream).collect())
            .unwrap_or_default()
    }

    /// Which server of its cluster it is.
    pub fn node(&self) -> NodeId {
        self.shards
            .first()
            .and_then(|running| running.shard.jetstream())
            .map_or(NodeId(0), |view| view.node())
    }

    /// What it has of replicated streams.
    pub fn replicas(&self) -> impl Iterator<Item = ReplicaView<'_>> {
        let view = self.shards.first().and_then(|running| running.shard.jetstream());
        view.into_iter().flat_map(|view| view.replicas())
    }

    /// Whether it was taken out of the cluster, and knows it.
    pub fn is_outside(&self) -> bool {
        let view = self.shards.first().and_then(|running| running.shard.jetstream());
        view.is_some_and(|view| view.is_outside())
    }

    /// Whether it leads the meta group.
    pub fn leads_meta(&self, now: Time) -> bool {
        let view = self.shards.first().and_then(|running| running.shard.jetstream());
        view.and_then(|view| view.meta_cluster(now)).is_some_and(|meta| meta.is_leader)
    }

    /// What it has of replicated groups, as monitoring shows it.
    pub fn groups(&self, now: Time) -> String {
        let view = self.shards.first().and_then(|running| running.shard.jetstream());
        view.map(|view| format!("{:#?}", view.raft_groups(now))).unwrap_or_default()
    }

    /// Streams that are lost, or stand still, without this server's disk.
    pub fn fragile(&self) -> Vec<String> {
        let view = self.shards.first().and_then(|running| running.shard.jetstream());
        view.map(|view| view.fragile()).unwrap_or_default()
    }

    /// Streams that need another server, as far as this one has heard.
    pub fn entrusted(&self, node: NodeId) -> Vec<String> {
        let view = self.shards.first().and_then(|running| running.shard.jetstream());
        view.map(|view| view.entrusted(node)).unwrap_or_default()
    }

    /// The clock was set forward by so much.
    pub fn handle_clock_step(&mut self, step: Span) {
        self.shards.iter_mut().for_each(|running| running.shard.handle_clock_step(step));
    }

    /// The shard that a connection belongs to.
    pub fn shard_of(&self, conn: ConnId) -> usize {
        (conn.0 % u64::from(self.setup.shards)) as usize
    }

    /// Something for a shard's next round.
    pub fn push(&mut self, shard: usize, input: Input) {
        self.shards[shard].inbox.push(input);
    }

    /// One shard's round: everything that waits, then what is due, then what that caused.
    pub fn round(&mut self, now: Time, steady: Time, shard: usize) -> Output {
        let deaf = self.setup.planted == Planted::DeafToTime;
        let running = &mut self.shards[shard];
        for input in std::mem::take(&mut running.inbox) {
            running.take((now, steady), input);
        }
        if !deaf && running.shard.next_deadline().is_some_and(|deadline| deadline <= now) {
            running.shard.handle_timeout(now);
        }
        running.shard.settle(now);
        for request in running.shard.take_disk() {
            self.volume.submit(request);
        }
        let mut output = Output {
            peers: running.shard.take_peer_batches(),
            links: running.shard.take_link_frames(),
            ..Output::default()
        };
        output.notices = running.shard.take_notices().into_iter().map(|notice| notice.text).collect();
        let mut dirty = Vec::new();
        running.shard.take_dirty(&mut dirty);
        for conn in dirty {
            let bytes = running.shard.swap_output(conn, Vec::new());
            if !bytes.is_empty() {
                output.bytes.push((conn, bytes));
            }
            if let Some(reason) = running.shard.closing(conn) {
                running.shard.handle_closed(now, conn, reason);
                running.unread.remove(&conn);
                output.closed.push(conn);
            }
        }
        output.wake = running.shard.next_deadline().filter(|_| !deaf);
        output
    }
}

/// Where a starting server's choices come from and where its operations are noted.
pub struct Boot<'a> {
    /// Seeds and salts.
    pub rng: &'a mut Rng,
    /// What happened.
    pub trace: &'a mut Trace,
    /// Damage is no reason not to start.
    pub tolerant: bool,
    /// Its name and its id.
    pub name: &'a str,
    /// The cluster that it belongs to.
    pub cluster: Option<ClusterConfig>,
    /// Its accounts and users.
    pub directory: Arc<Directory>,
}

impl Running {
    fn take(&mut self, (now, steady): (Time, Time), input: Input) {
        match input {
            Input::Open(conn) => {
                let peer = Peer { ip: "10.0.0.1".to_owned(), port: 4000, ..Peer::default() };
                self.shard.handle_open(now, conn, peer);
            }
            Input::Bytes(conn, bytes) => {
                let unread = self.unread.entry(conn).or_default();
                unread.extend_from_slice(&bytes);
                let used = self.shard.handle_bytes(now, conn, unread);
                unread.drain(..used);
            }
            Input::Closed(conn) => {
                self.unread.remove(&conn);
                self.shard.handle_closed(now, conn, CloseReason::ClientClosed);
            }
            Input::Peer(from, batch) => self.shard.handle_peer(now, from, batch),
            Input::Disk(completion) => self.shard.handle_disk(now, completion),
            Input::Link(link, LinkInput::Up(peer)) => self.shard.handle_link_up(now, link, peer),
            Input::Link(link, LinkInput::Down(why)) => self.shard.handle_link_down(now, link, why),
            Input::Link(link, LinkInput::Quiet(quiet)) => self.shard.handle_link_quiet(now, link, quiet),
            // How long ago that was, counted back from the shard's own time.
            Input::Link(link, LinkInput::Acked(at)) => {
                self.shard.handle_link_acked(now, link, now - steady.since(at));
            }
            Input::Link(link, LinkInput::Frame(frame)) => self.shard.handle_link(now, link, frame),
        }
    }
}

fn jetstream(setup: Setup, seeds: &mut Boot<'_>) -> JetStreamConfig {
    let name = if seeds.name.is_empty() { "sim" } else { seeds.name };
    JetStreamConfig {
        domain: String::new(),
        strict: true,
        long_acks: false,
        max_memory: -1,
        max_storage: -1,
        max_duplicate_window: Span::ZERO,
        max_ack_pending: 0,
        max_request_batch: 0,
        // Small, so that most batches need several commands.
        batch: hw_node::BatchLimits { command_bytes: 300, ..hw_node::BatchLimits::default() },
        max_buffered: (None, None),
        version: "sim".to_owned(),
        server_id: "SIM".to_owned(),
        server_name: name.to_owned(),
        checkpoint_bytes: setup.checkpoint_bytes,
        erase_after: Span::from_millis(150),
        scrub_bytes: 100_000,
        seed: seeds.rng.next_u64(),
        cluster: seeds.cluster.clone(),
    }
}

/// No fault here damages what was durable.
fn check_report(report: &RecoveryReport) -> Result<(), BootError> {
    let wrong = if let Some((group, reason)) = report.quarantined.first() {
        format!("group {group} is quarantined: {reason}")
    } else if let Some(damage) = report.damaged_segments.first() {
        format!("segment damaged: {damage}")
    } else if let Some(orphan) = report.orphans.first() {
        format!("segment {orphan:?} belongs to no group")
    } else {
        return Ok(());
    };
    Err(BootError::Refused(wrong))
}
