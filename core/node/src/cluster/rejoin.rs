//! A replica whose log or state on disk cannot be used, where others have the group: it begins with nothing, says nothing in
//! elections, and gets everything from a leader. It may have voted, and does not know it: so it goes on in a term in which it
//! cannot have.

use hw_cluster::{Cause, ReplicaNote};
use hw_kit::{GroupId, LogIndex, Time};
use hw_meta::Asset;
use hw_raft::{Entry, EntryKind, Members};

use super::Replicated;
use super::replicated::{frame_of, note_frame};
use crate::commit::META;
use crate::group::Group;
use crate::jetstream::JetStream;
use crate::log::Log;
use crate::notice::NoticeLevel;

impl JetStream {
    /// The list of streams on this server cannot be used: it comes from the other servers.
    pub(crate) fn rejoin(&mut self, reason: &str) {
        let Some(cluster) = &mut self.cluster else { return };
        let Ok(blank) = Replicated::blank((cluster.me, META)) else { return };
        cluster.frames.push(blank.note_again(META));
        self.meta_log.replicate(0, blank);
        self.meta_changed = true;
        let text = format!("the list of streams cannot be read, and comes from the other servers: {reason}");
        self.say(NoticeLevel::Error, text);
    }

    /// What is on disk of a stream cannot be used, and others have it: gives the group that is to be filled.
    pub(crate) fn blank_group(&mut self, asset: &Asset) -> Option<Box<Group>> {
        let (me, id) = (self.cluster.as_ref()?.me, asset.group());
        if asset.is_only_on(me) || !self.is_placed_here(asset) {
            return None;
        }
        let blank = Replicated::blank((me, id)).ok()?;
        let frame = blank.note_again(id);
        let mut log = Log::new(id, LogIndex(0));
        log.replicate(0, blank);
        self.cluster.as_mut()?.frames.push(frame);
        let stream = self.stream(id, asset.config.clone(), asset.created());
        Some(Box::new(Group::new(id, crate::recover::NOBODY, 1, stream, log)))
    }

    /// A replica that began with nothing has a state that is durable: it takes part again.
    pub(super) fn speak_again(
        &mut self,
        now: Time,
        id: GroupId,
        (base, members): ((LogIndex, u64), Members),
    ) {
        let Some(me) = self.cluster.as_ref().map(|cluster| cluster.me) else { return };
        let Some(hard) = self.replica(id).map(|replicated| replicated.first_hard(base.0)) else { return };
        let note = ReplicaNote { hard, base, members, ..ReplicaNote::default() };
        let voids = Entry { index: base.0, term: base.1, kind: EntryKind::Batch, body: bytes::Bytes::new() };
        let frames = frame_of(id, &voids).into_iter().chain([note_frame(id, &note)]);
        let opened = Replicated::open((me, id), note.clone(), base.0, &[]);
        let Some(cluster) = &mut self.cluster else { return };
        // What the log has from there on is of a time that is forgotten.
        cluster.frames.extend(frames);
        match opened {
            Ok(replicated) => {
                if let Some(log) = self.log_mut(id) {
                    log.replicate(base.1, replicated);
                }
                let text = format!("{}: this replica takes part again", self.raft_group(id));
                self.say(NoticeLevel::Info, text);
                self.mended(id);
                self.plan_election(now, id, Cause::Undecided);
                self.wake_replica(id);
            }
            Err(error) => {
                let text =
                    format!("{}: the state that was fetched cannot be used: {error}", self.raft_group(id));
                self.say(NoticeLevel::Error, text);
            }
        }
    }
}
