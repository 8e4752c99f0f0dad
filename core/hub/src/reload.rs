//! A reload: other users and permissions while clients are connected.

use std::sync::Arc;

use hw_auth::Directory;

use crate::close::CloseReason;
use crate::hub::Hub;

impl Hub {
    /// Changes users and permissions. An account that was there before must have its number still. Clients that
    /// would not be let in any more are closed; subscriptions that are not permitted any more end.
    pub fn set_directory(&mut self, directory: Arc<Directory>) {
        self.clear_bridges();
        let before = std::mem::replace(&mut self.config.directory, directory.clone());
        self.build_bridges();
        self.name_far_accounts();
        let slots: Vec<u32> = self.sinks.sessions.iter().map(|(slot, _)| slot).collect();
        for slot in slots {
            let Some(session) = self.sinks.sessions.get_mut(slot) else { continue };
            let Some(identity) = session.identity.take() else { continue };
            let renewed = directory.renew(&before, &identity);
            let permissions_changed =
                renewed.as_ref().is_some_and(|renewed| renewed.permissions != identity.permissions);
            let moved = renewed.as_ref().is_some_and(|renewed| renewed.account != identity.account);
            session.permitted.clear();
            session.identity = Some(renewed.clone().unwrap_or(identity));
            if renewed.is_none() || moved {
                let account = session.account().and_then(|account| directory.account(account));
                let reason = match account.is_some_and(|account| account.gone) {
                    true => CloseReason::MissingAccount,
                    false if session.identity.as_ref().is_some_and(|who| directory.is_revoked(who)) => {
                        CloseReason::Revocation
                    }
                    false => CloseReason::AuthenticationFailure,
                };
                self.end(slot, reason, reason.err_text());
                continue;
            }
            if permissions_changed {
                self.check_subscriptions(slot);
            }
            self.apply_limits(slot);
            self.look_again(slot);
        }
        self.sweep();
    }

    /// Ends a session's subscriptions that its permissions do not allow, with a word to the client.
    fn check_subscriptions(&mut self, slot: u32) {
        let Some(session) = self.sinks.sessions.get(slot) else { return };
        let permissions = session.identity.as_ref().and_then(|identity| identity.permissions.clone());
        let subs: Vec<u32> = session.subs.values().copied().collect();
        for id in subs {
            let Some(sub) = self.sinks.subs.get_mut(id) else { continue };
            let (subject, queue) = (&sub.subject, sub.queue.as_deref());
            let Some(permissions) = &permissions else {
                sub.filtered = false;
                continue;
            };
            if permissions.may_subscribe(subject, queue) {
                sub.filtered = permissions.filters_deliveries(subject, queue);
                continue;
            }
            let text = [&b"Permissions Violation for Subscription to \""[..], subject, b"\""].concat();
            self.err(slot, text);
            self.sinks.expired.push(id);
        }
    }
}
