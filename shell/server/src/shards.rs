//! The shards' threads: each runs one shard on a runtime of its own.

use std::sync::Arc;
use std::thread::JoinHandle;

use hw_disk::ShardDisk;
use hw_hub::{HubConfig, PeerBatch};
use hw_kit::{ConnId, LinkId, ShardId, Span};
use hw_net::{Clock, Driver, DriverConfig, Mail, Outside};
use hw_node::{
    DiskCompletion, DiskRequest, JetStreamConfig, LinkFrame, Notice, NoticeConfig, NoticeLevel, Question,
    Recovery, Shard,
};

use crate::StartError;
use crate::inner::Inner;

/// What each shard's thread starts with.
pub(crate) struct Plan {
    pub(crate) hubs: Vec<HubConfig>,
    pub(crate) jetstream: Option<(JetStreamConfig, Recovery, Arc<ShardDisk>)>,
    pub(crate) write_deadline: Span,
    pub(crate) notices: NoticeConfig,
}

/// Starts a thread for each shard; returns when all of them have their shard ready.
pub(crate) fn spawn(inner: &Arc<Inner>, plan: Plan) -> Result<Vec<JoinHandle<()>>, StartError> {
    let Plan { hubs, mut jetstream, write_deadline, notices } = plan;
    let (ready, is_ready) = std::sync::mpsc::sync_channel(hubs.len());
    let mut threads = Vec::new();
    for (index, hub) in hubs.into_iter().enumerate() {
        let (inner, ready) = (inner.clone(), ready.clone());
        let mut js = if index == 0 { jetstream.take() } else { None };
        let run = move || {
            let disk = js.as_ref().map(|(_, _, disk)| disk.clone());
            let recovery = js.take().map(|(config, recovery, _)| (config, recovery));
            let mut shard = Shard::new(Clock::default().now(), hub, recovery);
            shard.set_notices(notices);
            // What it listens to is in front of the first client in every other shard's mailbox.
            for (to, batch) in shard.take_peer_batches() {
                inner.mailboxes[usize::from(to.0)].post(Mail::Peer(ShardId(index as u16), batch));
            }
            let outside = Wires { inner: inner.clone(), index, disk };
            let config = DriverConfig { write_deadline, mailboxes: inner.mailboxes.clone() };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            let local = tokio::task::LocalSet::new();
            let mailbox = inner.mailboxes[index].clone();
            local.block_on(&runtime, async move {
                let driver = Driver::new(shard, mailbox, Box::new(outside), config);
                let _ = ready.send(());
                driver.run().await;
            });
        };
        let thread = std::thread::Builder::new().name(format!("shard-{index}")).spawn(run);
        threads.push(thread.map_err(StartError::system("starting a shard's thread"))?);
    }
    drop(ready);
    // A shard that cannot start drops its end unused: then this does not wait for it.
    let started = threads.iter().filter(|_| is_ready.recv().is_ok()).count();
    match started == threads.len() {
        true => Ok(threads),
        false => Err(StartError::Config("a shard could not start".to_owned())),
    }
}

/// A shard's way to the other shards and to the disk.
struct Wires {
    inner: Arc<Inner>,
    index: usize,
    disk: Option<Arc<ShardDisk>>,
}

impl Outside for Wires {
    fn post(&mut self, to: ShardId, batch: PeerBatch) {
        let from = ShardId(self.index as u16);
        self.inner.mailboxes[usize::from(to.0)].post(Mail::Peer(from, batch));
    }

    fn disk(&mut self, request: DiskRequest, now: bool) -> Option<DiskCompletion> {
        let disk = self.disk.as_ref()?;
        let mailbox = &self.inner.mailboxes[self.index];
        let request = match request {
            // To check all of a block takes a while, and those who want it can wait.
            DiskRequest::Load { group, block, check: false } if now => {
                let read = crate::store::read_cached(disk, group, block);
                if read.is_some() {
                    return read;
                }
                request
            }
            DiskRequest::Append { ticket, frames } if now => {
                match crate::store::append_at_once(disk, mailbox, frames, ticket) {
                    Ok(done) => return done,
                    Err(frames) => DiskRequest::Append { ticket, frames },
                }
            }
            request => request,
        };
        crate::store::perform(disk, mailbox, request);
        None
    }

    fn send(&mut self, frames: Vec<(LinkId, LinkFrame)>) {
        if let Some(links) = &self.inner.links {
            links.send(frames);
        }
    }

    fn links_are_full(&self) -> bool {
        self.index == 0 && self.inner.links.as_ref().is_some_and(|links| links.are_full())
    }

    fn closed(&mut self, _: ConnId) {
        self.inner.connection_closed(self.index);
    }

    fn notice(&mut self, notice: Notice) {
        match notice.level {
            NoticeLevel::Error => tracing::error!("{}", notice.text),
            NoticeLevel::Info => tracing::info!("{}", notice.text),
            NoticeLevel::Debug => tracing::debug!("{}", notice.text),
            NoticeLevel::Trace => tracing::trace!("{}", notice.text),
        }
    }

    fn question(&mut self, question: Question) {
        self.inner.ask(self.index, question);
    }
}
