//! Between the disk and recovery: hands everything on as it is, unless a bug is planted here.

use hw_kit::{Rng, Time};
use hw_store::{FrameBuilder, FrameKind, Record, Recovered, Replay};
use hw_stream::Command;

use crate::planted::Planted;

/// What stands between the store's recovery and the shard's.
pub struct Tamper {
    planted: Planted,
    rng: Rng,
    held: Option<Recovered>,
}

type Next<'a> = &'a mut dyn FnMut(Recovered);

impl Tamper {
    /// Does what is planted and nothing else.
    pub fn new(planted: Planted, seed: u64) -> Tamper {
        Tamper { planted, rng: Rng::new(seed), held: None }
    }

    /// One piece on its way.
    pub fn pass(&mut self, piece: Recovered, next: Next<'_>) {
        match (self.planted, piece) {
            (Planted::LostLastFrame, piece @ Recovered::Replay(_)) => {
                if let Some(earlier) = self.held.replace(piece) {
                    next(earlier);
                }
            }
            (
                Planted::ForgottenAcks
                | Planted::ForgottenPurges
                | Planted::FlippedPayload
                | Planted::ForgottenIds
                | Planted::TornBatches,
                Recovered::Replay(replay),
            ) => next(Recovered::Replay(self.rewrite(replay))),
            (_, piece) => next(piece),
        }
    }

    /// The last piece has passed.
    pub fn end(&mut self, _next: Next<'_>) {
        self.held = None;
    }

    fn rewrite(&mut self, replay: Replay) -> Replay {
        let meta = replay.frame.meta();
        // Group 0 holds no streams' commands.
        if meta.group.0 == 0 || meta.kind == FrameKind::Note {
            return replay;
        }
        let mut builder = FrameBuilder::new();
        for entry in replay.frame.entries() {
            match Command::decode(&entry).ok().and_then(|command| self.replacement(command)) {
                Some(command) => {
                    command.encode(builder.begin_entry());
                    builder.end_entry();
                }
                None => builder.push(&entry),
            }
        }
        Replay { frame: builder.finish(meta), skip: replay.skip }
    }

    fn replacement(&mut self, command: Command) -> Option<Command> {
        // An expiry at the beginning of time removes nothing.
        let nothing = Command::Expire { ts: Time(1) };
        match (self.planted, command) {
            (Planted::ForgottenAcks, Command::Settled { .. }) => Some(nothing),
            (Planted::ForgottenPurges, Command::Purge { .. } | Command::DeleteMessage { .. }) => {
                Some(nothing)
            }
            (Planted::FlippedPayload, Command::Publish { ts, record }) if self.rng.chance(1, 8) => {
                let mut payload = record.payload().to_vec();
                *payload.last_mut()? ^= 1;
                let record = Record::join(record.subject(), record.header(), &payload)?;
                Some(Command::Publish { ts, record })
            }
            (Planted::TornBatches, Command::PublishBatch { ts, messages }) if messages.len() > 1 => {
                Some(Command::PublishBatch { ts, messages: messages[1..].to_vec() })
            }
            (Planted::TornBatches, Command::BatchPart { .. }) => Some(nothing),
            (Planted::ForgottenIds, Command::Publish { ts, record }) if !record.header().is_empty() => {
                let header = String::from_utf8_lossy(record.header()).replace("Nats-Msg-Id", "Nats-Old-Id");
                let record = Record::join(record.subject(), header.as_bytes(), record.payload())?;
                Some(Command::Publish { ts, record })
            }
            _ => None,
        }
    }
}
