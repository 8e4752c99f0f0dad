//! Between the disk and recovery: hands everything on as it is, unless a bug is planted here.

use bytes::Bytes;
use hw_cluster::ReplicaNote;
use hw_kit::{NodeId, Rng, Time};
use hw_store::{Frame, FrameBuilder, FrameKind, FrameMeta, Record, Recovered, Replay};
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
                | Planted::TornBatches
                | Planted::ForgottenDeliveries
                | Planted::SkippedCommands
                | Planted::RepeatedCommands,
                Recovered::Replay(replay),
            ) => next(Recovered::Replay(self.rewrite(replay))),
            (Planted::LostVotes | Planted::ForgottenMembers, Recovered::Replay(replay)) => {
                next(Recovered::Replay(self.rewrite_log(replay)));
            }
            (_, piece) => next(piece),
        }
    }

    /// The last piece has passed.
    pub fn end(&mut self, _next: Next<'_>) {
        self.held = None;
    }

    /// What belongs to a replica and not to its stream.
    fn rewrite_log(&mut self, replay: Replay) -> Replay {
        let meta = replay.frame.meta();
        let mut builder = FrameBuilder::new();
        match (self.planted, meta.kind) {
            (Planted::ForgottenMembers, FrameKind::Change) => {
                // As a leader's first entry, which does nothing.
                let nothing = Frame::from_log(FrameMeta { kind: FrameKind::Batch, ..meta }, Bytes::new());
                return Replay {
                    frame: nothing.expect("invariant: a leader's first entry is one"),
                    ..replay
                };
            }
            (Planted::LostVotes, FrameKind::Note) => {}
            _ => return replay,
        }
        for mut entry in replay.frame.entries() {
            match ReplicaNote::take(&mut entry) {
                Ok(mut note) => {
                    note.hard.vote = NodeId(0);
                    note.hard.term = note.hard.term.saturating_sub(1).max(note.base.1);
                    note.encode(builder.begin_entry());
                    builder.end_entry();
                }
                Err(_) => builder.push(&entry),
            }
        }
        Replay { frame: builder.finish(meta), skip: replay.skip }
    }

    fn rewrite(&mut self, replay: Replay) -> Replay {
        let meta = replay.frame.meta();
        // Group 0 holds no streams' commands.
        if meta.group.0 == 0 || meta.kind == FrameKind::Note {
            return replay;
        }
        let mut builder = FrameBuilder::new();
        for entry in replay.frame.entries() {
            if self.planted == Planted::RepeatedCommands && self.rng.chance(1, 10) {
                builder.push(&entry);
            }
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
            (Planted::ForgottenAcks, Command::Settled { .. })
            | (Planted::ForgottenDeliveries, Command::Delivered { .. }) => Some(nothing),
            (Planted::SkippedCommands, _) if self.rng.chance(1, 10) => Some(nothing),
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
