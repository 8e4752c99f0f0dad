//! From options to the directory of accounts and users.

use hw_auth::{Directory, DirectorySpec, JsLimits, OperatorSpec, SpecError, system_account_of};
use hw_kit::Span;

use crate::options::Options;

impl Options {
    /// The accounts and users, checked as a whole.
    pub fn directory(&self) -> Result<Directory, SpecError> {
        Directory::new(&self.directory_spec())
    }

    /// The accounts and users after a reload: every account keeps its number.
    pub fn directory_after(&self, before: &Directory) -> Result<Directory, SpecError> {
        before.after(&self.directory_spec())
    }

    /// The data for [`Directory::new`].
    pub fn directory_spec(&self) -> DirectorySpec {
        let auth = &self.auth;
        let signed = auth.operators.first().and_then(|operator| system_account_of(operator));
        let system_account = auth.system_account.clone().or(signed);
        let system = system_account.as_deref().unwrap_or("$SYS");
        let mut accounts = auth.accounts.clone();
        if !self.jetstream.enabled {
            accounts.iter_mut().for_each(|account| account.jetstream = None);
        }
        // As soon as there are accounts, JetStream is where they enable it.
        let only_global = accounts.iter().all(|account| account.name == system);
        DirectorySpec {
            login: auth.login.clone(),
            users: auth.users.clone(),
            default_permissions: auth.default_permissions.clone(),
            global_jetstream: (self.jetstream.enabled && only_global).then_some(JsLimits::NONE),
            global_mappings: auth.mappings.clone(),
            accounts,
            no_auth_user: auth.no_auth_user.clone(),
            operators: (!auth.operators.is_empty()).then(|| OperatorSpec {
                operators: auth.operators.clone(),
                accounts: auth.resolver_preload.clone(),
                jetstream: self.jetstream.enabled,
            }),
            system_account,
            no_system_account: auth.no_system_account,
        }
    }

    /// How long a client may take from INFO to a valid CONNECT.
    pub fn auth_timeout(&self) -> Span {
        match (self.auth.timeout, &self.tls) {
            (Some(timeout), _) => timeout,
            (None, Some(tls)) => tls.timeout + Span::from_secs(1),
            (None, None) => Span::from_secs(2),
        }
    }
}
