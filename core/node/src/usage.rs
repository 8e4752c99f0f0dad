//! How much accounts and the server store, counted as it changes, so that every publish can be held to the limits. What is
//! proposed counts already: commands that wait for the disk must not fill an account twice.

use hw_kit::{AccountId, GroupId, Map};
use hw_stream::outcome::PublishError;

use crate::jetstream::JetStream;

/// Bytes in memory and on disk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Stored {
    memory: u64,
    storage: u64,
}

impl Stored {
    fn of(&mut self, memory: bool) -> &mut u64 {
        if memory { &mut self.memory } else { &mut self.storage }
    }
}

/// The bytes of all streams, and of each account's.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    all: Stored,
    accounts: Map<AccountId, Stored>,
}

impl Usage {
    /// A stream that counted as `old` bytes counts as `new`.
    fn change(&mut self, account: AccountId, memory: bool, (old, new): (u64, u64)) {
        for bytes in [&mut self.all, self.accounts.entry(account).or_default()] {
            let bytes = bytes.of(memory);
            *bytes = (*bytes + new).saturating_sub(old);
        }
    }

    fn in_account(&mut self, account: AccountId, memory: bool) -> u64 {
        *self.accounts.entry(account).or_default().of(memory)
    }
}

impl JetStream {
    /// A stream has changed, or something was proposed to it.
    pub(crate) fn recount(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let bytes = group.stream.messages().bytes() + group.log.pending_bytes();
        let old = std::mem::replace(&mut group.counted, bytes);
        if bytes != old {
            self.usage.change(group.account, group.is_volatile(), (old, bytes));
        }
    }

    /// A stream is about to go.
    pub(crate) fn uncount(&mut self, id: GroupId) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let old = std::mem::replace(&mut group.counted, 0);
        self.usage.change(group.account, group.is_volatile(), (old, 0));
    }

    /// Why a stream cannot take so many bytes more, if an account's or the server's limit says so.
    pub(crate) fn no_room(&mut self, id: GroupId, more: usize) -> Option<PublishError> {
        let group = self.groups.get(&id)?;
        self.no_room_for(group.account, group.is_volatile(), more as u64)
    }

    /// A stream that is being restored has grown; gives why it, or so much more, is too large.
    pub(crate) fn recount_restore(&mut self, id: GroupId, more: u64) -> Option<PublishError> {
        let restore = self.restores.running.get_mut(&id)?;
        let group = &mut restore.group;
        let (account, memory) = (group.account, group.is_volatile());
        let bytes = group.stream.messages().bytes() + group.log.pending_bytes();
        let old = std::mem::replace(&mut group.counted, bytes);
        self.usage.change(account, memory, (old, bytes));
        self.no_room_for(account, memory, more)
    }

    /// A restore is over before its stream exists.
    pub(crate) fn uncount_restore(&mut self, id: GroupId) {
        let Some(restore) = self.restores.running.get_mut(&id) else { return };
        let old = std::mem::replace(&mut restore.group.counted, 0);
        self.usage.change(restore.group.account, restore.group.is_volatile(), (old, 0));
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
        over(*self.usage.all.of(memory), of_server).then_some(PublishError::ServerLimit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_add_up() {
        let mut usage = Usage::default();
        let (a, b) = (AccountId(1), AccountId(2));
        for (account, memory, change) in [
            (a, false, (0, 100)),
            (b, false, (0, 30)),
            (a, true, (0, 7)),
            (a, false, (100, 40)),
            (b, false, (30, 0)),
        ] {
            usage.change(account, memory, change);
        }
        assert_eq!(usage.all, Stored { memory: 7, storage: 40 });
        assert_eq!(
            (usage.in_account(a, false), usage.in_account(a, true), usage.in_account(b, false)),
            (40, 7, 0)
        );
    }
}
