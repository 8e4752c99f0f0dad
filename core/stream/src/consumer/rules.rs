//! What an update may change, and the rules between the consumers of one stream.

use hw_subject::Filter;

use super::check::{Checked, refuse};
use crate::config::{ConsumerConfig, Retention, StreamConfig};

/// Whether `new` is a permitted change of `old`; both are complete.
pub(super) fn check_update(old: &ConsumerConfig, new: &ConsumerConfig) -> Checked {
    let fixed = [
        (old.deliver_policy == new.deliver_policy, "deliver policy can not be updated"),
        (old.opt_start_seq == new.opt_start_seq, "start sequence can not be updated"),
        (old.opt_start_time == new.opt_start_time, "start time can not be updated"),
        (old.ack_policy == new.ack_policy, "ack policy can not be updated"),
        (old.replay_policy == new.replay_policy, "replay policy can not be updated"),
        (old.idle_heartbeat == new.idle_heartbeat, "heart beats can not be updated"),
        (old.flow_control == new.flow_control, "flow control can not be updated"),
        (!old.is_pull() || new.is_pull(), "can not update pull consumer to push based"),
        (old.is_pull() || !new.is_pull(), "can not update push consumer to pull based"),
        (old.max_waiting == new.max_waiting, "max waiting can not be updated"),
        (old.mem_storage == new.mem_storage, "storage type can not be updated"),
        (old.direct == new.direct, "direct can not be updated"),
        (old.sourcing == new.sourcing, "sourcing can not be updated"),
        (old.durable == new.durable, "durable name can not be updated"),
    ];
    match fixed.iter().find(|(same, _)| !same) {
        Some((_, text)) => refuse(10012, *text),
        None => Ok(()),
    }
}

/// Whether a consumer can exist beside the `others` of its stream: on a work queue every message has one consumer.
pub fn check_siblings<'a>(
    config: &ConsumerConfig,
    stream: &StreamConfig,
    others: impl Iterator<Item = &'a ConsumerConfig>,
) -> Checked {
    if stream.retention != Retention::Workqueue || config.direct {
        return Ok(());
    }
    let filters = parsed(config);
    for other in others.filter(|other| !other.direct) {
        if filters.is_empty() {
            return refuse(10099, "multiple non-filtered consumers not allowed on workqueue stream");
        }
        let taken = parsed(other);
        let clash = taken.is_empty() || taken.iter().any(|theirs| filters.iter().any(|f| f.overlaps(theirs)));
        if clash {
            return refuse(10100, "filtered consumer not unique on workqueue stream");
        }
    }
    Ok(())
}

fn parsed(config: &ConsumerConfig) -> Vec<Filter> {
    config.filters().iter().filter_map(|filter| Filter::parse(filter).ok()).collect()
}
