//! How much accounts and the server store, counted as it changes, so that every publish can be held to the limits. What is
//! proposed counts already: commands that wait for the disk must not fill an account twice.

use hw_kit::{AccountId, GroupId, Map};
use hw_stream::outcome::PublishError;

use crate::group::Group;
use crate::jetstream::JetStream;
use crate::limits::{BUFFERED_BYTES, BUFFERED_BYTES_ALL, BUFFERED_COUNT};

/// What streams hold, and what their `max_bytes` reserve: the sum of many of these is larger than any of them may be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Amount {
    used: u64,
    reserved: u128,
}

/// What one stream counts as.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Counted {
    used: u64,
    reserved: u64,
    /// What is proposed and not decided.
    pending: u64,
}

impl Counted {
    fn of(group: &Group) -> Counted {
        Counted {
            used: group.stream.messages().bytes() + group.log.pending_bytes(),
            reserved: group.stream.config().max_bytes.max(0).unsigned_abs(),
            pending: group.log.pending_bytes(),
        }
    }
}

/// In memory and on disk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Stored {
    memory: Amount,
    storage: Amount,
}

impl Stored {
    fn of(&mut self, memory: bool) -> &mut Amount {
        if memory { &mut self.memory } else { &mut self.storage }
    }
}

/// That of all streams, and of each account's.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    all: Stored,
    accounts: Map<AccountId, Stored>,
    /// What is proposed to all streams and not decided.
    pending: u64,
}

impl Usage {
    /// A stream that counted as `old` counts as `new`.
    fn change(&mut self, account: AccountId, memory: bool, (old, new): (Counted, Counted)) {
        self.pending = (self.pending + new.pending).saturating_sub(old.pending);
        for amount in [&mut self.all, self.accounts.entry(account).or_default()] {
            let amount = amount.of(memory);
            amount.used = (amount.used + new.used).saturating_sub(old.used);
            amount.reserved =
                (amount.reserved + u128::from(new.reserved)).saturating_sub(u128::from(old.reserved));
        }
    }

    fn in_account(&mut self, account: AccountId, memory: bool) -> u64 {
        self.accounts.entry(account).or_default().of(memory).used
    }

    /// What is reserved in one account or in all.
    pub(crate) fn reserved(&self, account: Option<AccountId>, memory: bool) -> i64 {
        let mut stored = match account {
            Some(account) => self.accounts.get(&account).copied().unwrap_or_default(),
            None => self.all,
        };
        i64::try_from(stored.of(memory).reserved).unwrap_or(i64::MAX)
    }
}

impl JetStream {
    /// A stream has changed, or something was proposed to it.
    pub(crate) fn recount(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let new = Counted::of(group);
        let old = std::mem::replace(&mut group.counted, new);
        if new != old {
            self.usage.change(group.account, group.is_volatile(), (old, new));
        }
    }

    /// A stream is about to go.
    pub(crate) fn uncount(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let old = std::mem::take(&mut group.counted);
        self.usage.change(group.account, group.is_volatile(), (old, Counted::default()));
    }

    /// Why a stream cannot take so many bytes more, if an account's or the server's limit says so.
    pub(crate) fn no_room(&mut self, id: GroupId, more: usize) -> Option<PublishError> {
        let group = self.groups.get(&id)?;
        self.no_room_for(group.account, group.is_volatile(), more as u64)
    }

    /// Whether so much waits to be decided that a stream takes nothing more: its leader does not reach the others, or they
    /// are slower than publishers are.
    pub(crate) fn is_overrun(&self, id: GroupId) -> bool {
        let Some(log) = self.groups.get(&id).map(|group| &group.log) else { return false };
        let waits = log.replicated.is_some() || log.is_held();
        let defaults = if waits { (BUFFERED_BYTES, BUFFERED_COUNT) } else { (u64::MAX, u64::MAX) };
        let bytes = self.config.max_buffered.0.unwrap_or(defaults.0);
        let count = self.config.max_buffered.1.unwrap_or(defaults.1);
        let is_full = log.pending_bytes() >= bytes || log.proposed() - log.settled() >= count;
        is_full || (waits && self.usage.pending >= BUFFERED_BYTES_ALL)
    }

    /// A stream that is being restored has grown; gives why it, or so much more, is too large.
    pub(crate) fn recount_restore(&mut self, id: GroupId, more: u64) -> Option<PublishError> {
        let restore = self.restores.running.get_mut(&id)?;
        let group = &mut restore.group;
        let (account, memory) = (group.account, group.is_volatile());
        let new = Counted::of(group);
        let old = std::mem::replace(&mut group.counted, new);
        self.usage.change(account, memory, (old, new));
        self.no_room_for(account, memory, more)
    }

    /// A restore is over before its stream exists.
    pub(crate) fn uncount_restore(&mut self, id: GroupId) {
        let Some(restore) = self.restores.running.get_mut(&id) else { return };
        let old = std::mem::take(&mut restore.group.counted);
        self.usage.change(restore.group.account, restore.group.is_volatile(), (old, Counted::default()));
    }

    fn no_room_for(&mut self, account: AccountId, memory: bool, more: u64) -> Option<PublishError> {
        let over = |used: u64, limit: i64| u64::try_from(limit).is_ok_and(|limit| used + more > limit);
        let limits = self.directory.account(account)?.jetstream.as_ref()?;
        let (of_account, of_server) = match memory {
            true => (limits.max_memory, self.config.max_memory),
            false => (limits.max_storage, self.config.max_storage),
        };
        if of_account >= 0 && over(self.usage.in_account(account, memory), of_account) {
            return Some(PublishError::AccountLimit);
        }
        over(self.usage.all.of(memory).used, of_server).then_some(PublishError::ServerLimit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_add_up() {
        let mut usage = Usage::default();
        let (a, b) = (AccountId(1), AccountId(2));
        let counted = |used, reserved| Counted { used, reserved, pending: 0 };
        for (account, memory, change) in [
            (a, false, (counted(0, 0), counted(100, 1000))),
            (b, false, (counted(0, 0), counted(30, u64::MAX >> 1))),
            (a, true, (counted(0, 0), counted(7, 0))),
            (a, false, (counted(100, 1000), counted(40, 1000))),
            (b, false, (counted(30, u64::MAX >> 1), counted(0, u64::MAX >> 1))),
        ] {
            usage.change(account, memory, change);
        }
        let used = (usage.all.memory.used, usage.all.storage.used);
        assert_eq!(used, (7, 40));
        let mut in_account = |account, memory| usage.in_account(account, memory);
        assert_eq!((in_account(a, false), in_account(a, true), in_account(b, false)), (40, 7, 0));
        let reserved = |usage: &Usage, account| usage.reserved(account, false);
        assert_eq!((reserved(&usage, Some(a)), reserved(&usage, Some(b))), (1000, i64::MAX));
        assert_eq!((reserved(&usage, None), usage.reserved(None, true)), (i64::MAX, 0));
        usage.change(b, false, (counted(0, u64::MAX >> 1), counted(0, 0)));
        assert_eq!(reserved(&usage, None), 1000, "no more than was added is taken off");
    }
}
