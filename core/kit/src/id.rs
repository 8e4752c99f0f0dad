//! Numbers that must not be mixed up: each has a type of its own.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// A message's sequence in its stream. The first message has 1; 0 means "none".
    Seq(u64)
}
number! {
    /// A command's position in its group's log. The first command has 1; 0 means "none".
    LogIndex(u64)
}
number! {
    /// A replicated group: the meta group is 0, every stream has a number that is never reused.
    GroupId(u64)
}
number! {
    /// An account, numbered in the order in which the configuration names them.
    AccountId(u32)
}
number! {
    /// A client connection; never reused while the server runs. Clients see it as `client_id`.
    ConnId(u64)
}
number! {
    /// A shard: one thread in production, one slot in the simulator.
    ShardId(u16)
}
number! {
    /// The incarnation of a server's JetStream store: drawn once per store, kept in it. 0: a server without one.
    NodeId(u64)
}
number! {
    /// One link to another server; never reused while the server runs.
    LinkId(u64)
}

impl AccountId {
    /// `$G`, where connections live when no accounts are configured.
    pub const GLOBAL: AccountId = AccountId(0);
    /// `$SYS`, the system account.
    pub const SYSTEM: AccountId = AccountId(1);
}

impl Seq {
    /// The sequence after this one.
    pub fn next(self) -> Seq {
        Seq(self.0 + 1)
    }

    /// The sequence before this one; 0 stays 0.
    pub fn prev(self) -> Seq {
        Seq(self.0.saturating_sub(1))
    }
}

impl LogIndex {
    /// The index after this one.
    pub fn next(self) -> LogIndex {
        LogIndex(self.0 + 1)
    }
}
