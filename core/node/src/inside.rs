//! The inside subscribers: which number means what. The hub knows only the number.

use hw_hub::InternalId;
use hw_kit::GroupId;

/// What a message on an inside subscription is for.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Target {
    /// A publish that a stream captures.
    Publish(GroupId),
    /// A consumer's acknowledgement.
    Ack(GroupId),
    /// A pull request.
    Pull(GroupId),
    /// A flow control reply.
    FlowControl(GroupId),
    /// A direct get.
    DirectGet(GroupId),
    /// A direct get from the origin of a mirror, which that mirror may answer.
    MirrorGet(GroupId),
    /// The acknowledgement of a piece of a backup, by the backup's number.
    Snapshot(GroupId),
    /// A piece of a backup that is restored.
    Restore(GroupId),
    /// A JetStream API request.
    Api,
    /// A request for the server itself (`$SYS.REQ...`).
    System,
}

const GROUP_BITS: u32 = 56;

impl Target {
    /// The number under which the hub delivers.
    pub(crate) fn id(self) -> InternalId {
        let (kind, group) = match self {
            Target::Publish(group) => (1, group.0),
            Target::Ack(group) => (2, group.0),
            Target::Pull(group) => (3, group.0),
            Target::FlowControl(group) => (4, group.0),
            Target::DirectGet(group) => (5, group.0),
            Target::Api => (6, 0),
            Target::System => (7, 0),
            Target::Snapshot(number) => (8, number.0),
            Target::Restore(group) => (9, group.0),
            Target::MirrorGet(group) => (10, group.0),
        };
        assert!(group < 1 << GROUP_BITS, "group numbers are drawn one by one");
        InternalId(kind << GROUP_BITS | group)
    }

    /// What a number means.
    pub(crate) fn of(id: InternalId) -> Option<Target> {
        let group = GroupId(id.0 & ((1 << GROUP_BITS) - 1));
        Some(match id.0 >> GROUP_BITS {
            1 => Target::Publish(group),
            2 => Target::Ack(group),
            3 => Target::Pull(group),
            4 => Target::FlowControl(group),
            5 => Target::DirectGet(group),
            6 => Target::Api,
            7 => Target::System,
            8 => Target::Snapshot(group),
            9 => Target::Restore(group),
            10 => Target::MirrorGet(group),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_both_ways() {
        let group = GroupId(77);
        for target in [
            Target::Publish(group),
            Target::Snapshot(group),
            Target::Restore(group),
            Target::MirrorGet(group),
            Target::Api,
            Target::System,
        ] {
            assert_eq!(Target::of(target.id()), Some(target));
        }
        assert_eq!(Target::of(InternalId(0)), None);
    }
}
