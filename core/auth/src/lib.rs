//! Accounts, users, permissions, and the answer to who a connection is.
//!
//! [`Directory`] is built once from plain data ([`DirectorySpec`], which core/conf fills), never changes, and is
//! shared as an `Arc`. A reload builds a new one.

mod account;
mod directory;
mod password;
mod permissions;
mod spec;

pub use account::{Account, AccountLimits, JsLimits, UNLIMITED};
pub use directory::{AuthError, ConnectionKind, Credentials, Directory, Identity};
pub use permissions::{Allowance, Permissions, ResponsePermission};
pub use spec::{
    AccountSpec, DirectorySpec, Login, PermissionsSpec, SpecError, UserKey, UserSpec, is_user_nkey,
};
