//! Accounts, users, permissions, and the answer to who a connection is.
//!
//! [`Directory`] is built once from plain data ([`DirectorySpec`], which core/conf fills), never changes, and is
//! shared as an `Arc`. A reload builds a new one.

mod account;
mod bridge;
mod claims;
mod directory;
mod mapping;
mod operator;
mod password;
mod permissions;
mod rewrite;
mod sharing;
mod spec;
mod template;

pub use account::{Account, AccountLimits, JsLimits, UNLIMITED};
pub use bridge::{Bridge, BridgeKind};
pub use claims::{JwtError, jwt_in};
pub use directory::{AuthError, ConnectionKind, Credentials, Directory, Identity};
pub use mapping::{Mapped, Mappings};
pub use operator::{OperatorSpec, UserToken, system_account_of};
pub use permissions::{Allowance, Permissions, ResponsePermission};
pub use sharing::{
    ExportSpec, ImportError, ImportSpec, MappingError, MappingSpec, RESPONSE_THRESHOLD, ResponseType,
    RewriteError, Shared,
};
pub use spec::{
    AccountSpec, DirectorySpec, Login, PermissionsSpec, SpecError, UserKey, UserSpec, is_user_nkey,
};
