//! The plain data that a directory is built from, and what may be wrong with it.

use std::fmt;

use crate::account::{AccountLimits, JsLimits};
use crate::claims::JwtError;
use crate::directory::ConnectionKind;
use crate::operator::OperatorSpec;
use crate::permissions::{Allowance, ResponsePermission};
use crate::sharing::{ExportSpec, ImportError, ImportSpec, MappingError, MappingSpec, Shared};

/// Permissions as configured.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PermissionsSpec {
    /// Publish lists.
    pub publish: Allowance,
    /// Subscribe lists; entries may be `subject queue`.
    pub subscribe: Allowance,
    /// The right to answer requests.
    pub allow_responses: Option<ResponsePermission>,
}

/// How a user is recognized.
#[derive(Clone, Eq, PartialEq)]
pub enum UserKey {
    /// By name and password; the password may be a bcrypt hash.
    Password {
        /// The name.
        user: String,
        /// The password; empty accepts a connection without one.
        pass: String,
    },
    /// By a public user nkey, `U...`, and a signature of the nonce.
    Nkey(String),
}

impl UserKey {
    /// The name or the nkey.
    pub fn name(&self) -> &str {
        match self {
            UserKey::Password { user, .. } => user,
            UserKey::Nkey(key) => key,
        }
    }
}

impl fmt::Debug for UserKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A user of an account.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserSpec {
    /// How it is recognized.
    pub key: UserKey,
    /// `None`: the account's `default_permissions`.
    pub permissions: Option<PermissionsSpec>,
    /// Kinds of connection that it may use; empty means all.
    pub connection_kinds: Vec<ConnectionKind>,
}

/// An account with its users.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AccountSpec {
    /// Its name; `$SYS` configures the system account.
    pub name: String,
    /// Its users.
    pub users: Vec<UserSpec>,
    /// For its users without permissions of their own.
    pub default_permissions: Option<PermissionsSpec>,
    /// `None`: JetStream is not enabled here.
    pub jetstream: Option<JsLimits>,
    /// Limits of its connections.
    pub limits: AccountLimits,
    /// What it lets others have.
    pub exports: Vec<ExportSpec>,
    /// What it has from others.
    pub imports: Vec<ImportSpec>,
    /// Where its clients' messages go.
    pub mappings: Vec<MappingSpec>,
}

/// The one user or token of a server without accounts.
#[derive(Clone, Eq, PartialEq)]
pub enum Login {
    /// A name and a password, which may be a bcrypt hash.
    User {
        /// The name.
        user: String,
        /// The password; empty accepts a connection without one.
        pass: String,
    },
    /// A token, which may be a bcrypt hash.
    Token(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Login::User { user, .. } => write!(f, "User({user})"),
            Login::Token(_) => f.write_str("Token"),
        }
    }
}

/// Everything a directory is built from.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct DirectorySpec {
    /// `$G`'s one user or token; excludes users of any account but the system account.
    pub login: Option<Login>,
    /// `$G`'s users.
    pub users: Vec<UserSpec>,
    /// For `$G`'s users without permissions of their own.
    pub default_permissions: Option<PermissionsSpec>,
    /// `$G`'s JetStream limits; `None`: not enabled.
    pub global_jetstream: Option<JsLimits>,
    /// Where the messages of `$G`'s clients go.
    pub global_mappings: Vec<MappingSpec>,
    /// The configured accounts, in their order.
    pub accounts: Vec<AccountSpec>,
    /// The user (name or nkey) that connections without credentials become.
    pub no_auth_user: Option<String>,
    /// Operators and their accounts: then nothing else has users.
    pub operators: Option<OperatorSpec>,
    /// The name of the system account; `None`: `$SYS`.
    pub system_account: Option<String>,
    /// Whether there is no system account at all.
    pub no_system_account: bool,
}

/// Why no directory can be built.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum SpecError {
    /// Two users have one name, perhaps in different accounts.
    #[error("Duplicate user {user:?} detected")]
    DuplicateUser {
        /// The name.
        user: String,
    },
    /// Two users have one nkey.
    #[error("Duplicate nkey {nkey:?} detected")]
    DuplicateNkey {
        /// The nkey.
        nkey: String,
    },
    /// Not a public user nkey.
    #[error("Not a valid public nkey for a user")]
    BadNkey {
        /// What was given.
        nkey: String,
    },
    /// Two accounts have one name.
    #[error("Duplicate Account Entry: {account}")]
    DuplicateAccount {
        /// The name.
        account: String,
    },
    /// The name belongs to the server.
    #[error("{account:?} is a Reserved Account")]
    ReservedAccount {
        /// The name.
        account: String,
    },
    /// A single user or token besides users.
    #[error("Can not have a single user/pass or a token and a users array")]
    LoginAndUsers,
    /// `no_auth_user` names nobody.
    #[error(
        "no_auth_user: {user:?} not present as user or nkey in authorization block or account configuration"
    )]
    NoAuthUserUnknown {
        /// The name.
        user: String,
    },
    /// `no_auth_user` without any users.
    #[error("no_auth_user: {user:?} present, but users/nkeys are not defined")]
    NoAuthUserWithoutUsers {
        /// The name.
        user: String,
    },
    /// `system_account` names no configured account.
    #[error("error resolving system account: account missing")]
    SystemAccountMissing {
        /// The name.
        account: String,
    },
    /// A permission's subject.
    #[error("subject {subject:?} is not a valid subject")]
    BadSubject {
        /// What was given.
        subject: String,
    },
    /// An operator's JWT.
    #[error("error parsing operator JWT: {why}")]
    OperatorJwt {
        /// Why not.
        why: JwtError,
    },
    /// An account's JWT.
    #[error("preload account error for {account:?}: {why}")]
    AccountJwt {
        /// The public key that it should be for.
        account: String,
        /// Why not.
        why: JwtError,
    },
    /// An export to, or an import from, an account that is not there.
    #[error("{account:?} account not defined for {shared} {what}")]
    AccountNotDefined {
        /// The name.
        account: String,
        /// Messages or a service.
        shared: Shared,
        /// Export or import.
        what: &'static str,
    },
    /// An export of no valid subject, or without the token that it names.
    #[error("Error adding {shared} export {subject:?}: sublist: invalid subject")]
    Export {
        /// Messages or a service.
        shared: Shared,
        /// The subject.
        subject: String,
    },
    /// An import that is not allowed or makes no sense.
    #[error("Error adding {shared} import {subject:?}: {reason}")]
    Import {
        /// Messages or a service.
        shared: Shared,
        /// The subject in the exporting account.
        subject: String,
        /// Why.
        reason: Box<ImportError>,
    },
    /// A mapping that makes no sense.
    #[error("Error adding mapping for {source_subject:?} : {reason}")]
    Mapping {
        /// What is mapped.
        source_subject: String,
        /// Why.
        reason: Box<MappingError>,
    },
    /// A permission's queue.
    #[error("queue {queue:?} is not a valid queue")]
    BadQueue {
        /// What was given.
        queue: String,
    },
}

/// Whether the text is a public user nkey.
pub fn is_user_nkey(text: &str) -> bool {
    text.starts_with('U') && nkeys::KeyPair::from_public_key(text).is_ok()
}
