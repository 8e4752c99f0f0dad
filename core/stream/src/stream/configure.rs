//! A changed configuration takes effect: limits that became smaller remove at once.

use bytes::Bytes;
use hw_kit::Seq;

use super::{Mappings, Stream};
use crate::config::StreamConfig;
use crate::outcome::Effect;

impl Stream {
    /// Takes over a configuration that [`super::check_update`] accepted. One that was applied already changes nothing,
    /// nor does one that is not readable: the meta group never proposes either.
    pub(super) fn configure(&mut self, revision: u64, config: &Bytes, fx: &mut Vec<Effect>) {
        if revision <= self.revision {
            return;
        }
        let Ok(config) = serde_json::from_slice::<StreamConfig>(config) else { return };
        if config.storage != self.config.storage || config.name != self.config.name {
            return;
        }
        self.revision = revision;
        let old = std::mem::replace(&mut self.config, config.into());
        self.mappings = Mappings::of(&self.config);
        self.dedupe.expire_all(self.clock, old.duplicate_window);
        if self.config.duplicate_window.is_zero() {
            self.dedupe.clear();
        }
        if self.config.retention != old.retention {
            for consumer in self.consumers.values_mut() {
                consumer.set_retention(self.config.retention);
            }
        }
        self.shrink_subjects(&old, fx);
        self.enforce_limits(fx);
    }

    fn shrink_subjects(&mut self, old: &StreamConfig, fx: &mut Vec<Effect>) {
        if old.max_msgs_per_subject <= 0 || old.max_msgs_per_subject > self.config.max_msgs_per_subject {
            self.drop_excess(fx);
        }
    }

    /// After a repair: messages that had left for a limit, and came back with a segment that was damaged when what removed
    /// them was replayed, leave again.
    pub fn enforce_again(&mut self) {
        let mut fx = Vec::new();
        self.drop_excess(&mut fx);
        self.enforce_limits(&mut fx);
    }

    fn drop_excess(&mut self, fx: &mut Vec<Effect>) {
        let Ok(limit @ 1..) = u64::try_from(self.config.max_msgs_per_subject) else { return };
        let mut large = Vec::new();
        self.messages.for_each_subject(">", |subject, count| {
            if count > limit {
                large.push((subject.clone(), count - limit));
            }
        });
        for (subject, excess) in large {
            for _ in 0..excess {
                let first = self.messages.first_of(&subject).unwrap_or(Seq(0));
                self.drop_message(first, fx);
            }
        }
    }
}
