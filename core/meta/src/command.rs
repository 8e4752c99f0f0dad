//! What can happen to the set of streams, and its bytes (docs/format.md, "Meta commands").

use bytes::Bytes;
use hw_kit::{GroupId, Time};
use serde::{Deserialize, Serialize};

/// A change to the set of streams. Meta commands are rare: they are JSON documents in the log.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MetaCommand {
    /// Create a stream, or confirm that it exists with this configuration.
    Create {
        /// The proposing server's clock, nanoseconds.
        ts: i64,
        /// The account's name.
        account: String,
        /// The configuration, already checked and completed.
        config: Box<hw_stream::StreamConfig>,
        /// The most streams that the account may have; negative means no limit.
        max_streams: i64,
        /// The servers that are to have it, the first to lead first; none on a server on its own.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        peers: Vec<u64>,
    },
    /// Replace a stream's configuration.
    Update {
        /// The proposing server's clock, nanoseconds.
        ts: i64,
        /// The account's name.
        account: String,
        /// The configuration, already checked against the old one.
        config: Box<hw_stream::StreamConfig>,
        /// The servers that are to have it from now on; none: as before.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        peers: Vec<u64>,
    },
    /// Delete a stream and what it holds.
    Delete {
        /// The proposing server's clock, nanoseconds.
        ts: i64,
        /// The account's name.
        account: String,
        /// The stream's name.
        name: String,
    },
    /// Begin to restore a stream from a backup: nobody sees it, but its name and subjects are taken.
    BeginRestore {
        /// The proposing server's clock, nanoseconds.
        ts: i64,
        /// The account's name.
        account: String,
        /// The configuration, already checked and completed.
        config: Box<hw_stream::StreamConfig>,
        /// The most streams that the account may have; negative means no limit.
        max_streams: i64,
    },
    /// Everything of a stream that is restored is in its group's log: it exists from now on.
    EndRestore {
        /// Its group.
        group: u64,
        /// The server that has it; 0: the only one.
        #[serde(default, skip_serializing_if = "is_zero")]
        node: u64,
        /// The servers that are to have it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        peers: Vec<u64>,
    },
    /// A restore failed, or its server stopped: nothing of it stays.
    AbandonRestore {
        /// Its group.
        group: u64,
    },
    /// The files of a deleted stream are gone; its tombstone may go too.
    Dropped {
        /// Whose.
        group: u64,
        /// On which server; 0 on a server on its own.
        #[serde(default, skip_serializing_if = "is_zero")]
        node: u64,
    },
    /// A server belongs to the cluster, or has another name than before.
    Join {
        /// Its number.
        node: u64,
        /// Its name.
        name: String,
        /// Its tags, in lower case.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tags: Vec<String>,
    },
    /// A server does not belong to the cluster any more.
    Leave {
        /// Its number.
        node: u64,
    },
    /// A server lost its store and came back with a new one: it gets a replica of what it had.
    Replace {
        /// The number of the store that is lost.
        old: u64,
        /// The number of the new one.
        new: u64,
    },
    /// A stream is on these servers, and on no others any more: says who leads it, after its servers changed.
    Placed {
        /// Its group.
        group: u64,
        /// The servers.
        peers: Vec<u64>,
    },
    /// Streams that were made before there was a cluster are on this server.
    Settle {
        /// Its number.
        node: u64,
    },
    /// A command that another server than the leader proposed: it answers its client when it has applied it.
    Asked {
        /// Which server.
        node: u64,
        /// What it calls the command.
        id: u64,
        /// The command.
        command: Box<MetaCommand>,
    },
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl MetaCommand {
    /// Appends the command's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        serde_json::to_writer(out, self).expect("plain data with text keys always encodes");
    }

    /// Reads a command; the error says what is wrong with the document.
    pub fn decode(bytes: &Bytes) -> Result<MetaCommand, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The proposing server's clock.
    pub fn time(&self) -> Option<Time> {
        match self {
            MetaCommand::Create { ts, .. }
            | MetaCommand::Update { ts, .. }
            | MetaCommand::Delete { ts, .. }
            | MetaCommand::BeginRestore { ts, .. } => Some(Time(*ts)),
            MetaCommand::Asked { command, .. } => command.time(),
            MetaCommand::EndRestore { .. }
            | MetaCommand::AbandonRestore { .. }
            | MetaCommand::Dropped { .. }
            | MetaCommand::Join { .. }
            | MetaCommand::Leave { .. }
            | MetaCommand::Replace { .. }
            | MetaCommand::Placed { .. }
            | MetaCommand::Settle { .. } => None,
        }
    }

    /// The group whose files are gone.
    pub fn dropped(group: GroupId) -> MetaCommand {
        MetaCommand::Dropped { group: group.0, node: 0 }
    }
}
