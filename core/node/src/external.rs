//! Origins of mirrors and sources in other accounts: found behind the imports that lead to their JetStream.

use bytes::Bytes;
use hw_kit::{AccountId, GroupId};
use hw_stream::config::StreamSource;

use crate::jetstream::JetStream;

impl JetStream {
    /// The account of an origin: where a request to create a consumer of it would arrive. None if that is nowhere.
    pub(crate) fn account_of_origin(&self, account: AccountId, origin: &StreamSource) -> Option<AccountId> {
        let Some(external) = origin.external.as_ref().filter(|external| !external.api.is_empty()) else {
            return Some(account);
        };
        let verb = format!("CONSUMER.CREATE.{}", origin.name);
        let subject = format!("{}.{verb}", external.api);
        let (at, subject) = self.directory.service_behind(account, subject.as_bytes());
        let subject = String::from_utf8_lossy(&subject);
        (self.api_verb(&subject) == Some(&verb) && self.limits_of(at).is_some()).then_some(at)
    }

    /// After a reload: other imports may lead to other origins.
    pub(crate) fn find_origins_again(&mut self) {
        let follows = |id: &GroupId| self.groups.get(id).is_some_and(|group| group.feeds.has_external());
        let followers: Vec<GroupId> = self.groups.keys().copied().filter(follows).collect();
        for id in followers {
            let Some(group) = self.groups.get(&id) else { continue };
            let account = group.account;
            let found: Vec<Option<(GroupId, Bytes)>> =
                group.feeds.origins().map(|origin| self.origin_named(id, account, origin)).collect();
            let Some(group) = self.groups.get_mut(&id) else { continue };
            let (gone, come) = group.feeds.reattach(found);
            for origin in gone {
                if let Some(origin) = self.groups.get_mut(&origin) {
                    origin.feeds.forget(id);
                }
            }
            for origin in come {
                if let Some(origin) = self.groups.get_mut(&origin) {
                    origin.feeds.note(id);
                }
            }
            self.touch(id);
        }
    }
}
