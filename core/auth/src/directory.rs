//! The directory: who a connection is, from what it presents.

use std::fmt;
use std::sync::Arc;

use data_encoding::{BASE64, BASE64URL, BASE64URL_NOPAD};
use hw_kit::{AccountId, Map, Time};

use crate::account::{Account, AccountLimits, UNLIMITED};
use crate::bridge::{self, Bridge};
use crate::mapping::Mappings;
use crate::operator::{Signed, Trust, UserToken};
use crate::password::Password;
use crate::permissions::Permissions;
use crate::spec::{
    AccountSpec, DirectorySpec, Login, PermissionsSpec, SpecError, UserKey, UserSpec, is_user_nkey,
};

/// How a connection came in; a user may be restricted to some kinds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum ConnectionKind {
    /// The client protocol over TCP or TLS.
    #[default]
    Standard,
    /// The client protocol in websocket frames.
    Websocket,
    /// A leaf node.
    Leafnode,
    /// A leaf node in websocket frames.
    LeafnodeWs,
    /// MQTT.
    Mqtt,
    /// MQTT in websocket frames.
    MqttWs,
    /// Inside the process.
    InProcess,
}

impl ConnectionKind {
    /// The name in `allowed_connection_types`, in any case.
    pub fn from_name(name: &str) -> Option<ConnectionKind> {
        Some(match name.to_ascii_uppercase().as_str() {
            "STANDARD" => ConnectionKind::Standard,
            "WEBSOCKET" => ConnectionKind::Websocket,
            "LEAFNODE" => ConnectionKind::Leafnode,
            "LEAFNODE_WS" => ConnectionKind::LeafnodeWs,
            "MQTT" => ConnectionKind::Mqtt,
            "MQTT_WS" => ConnectionKind::MqttWs,
            "IN_PROCESS" => ConnectionKind::InProcess,
            _ => return None,
        })
    }
}

/// What a CONNECT presents. An empty text counts as absent.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// `user`.
    pub user: Option<&'a str>,
    /// `pass`.
    pub pass: Option<&'a str>,
    /// `auth_token`.
    pub token: Option<&'a str>,
    /// `nkey`, the public key.
    pub nkey: Option<&'a str>,
    /// `sig`, base64 of the nonce's signature.
    pub sig: Option<&'a str>,
    /// `jwt`; not used without operator mode, as in nats-server.
    pub jwt: Option<&'a str>,
    /// The time: what expires is looked at.
    pub now: Time,
    /// The client's address: some users may come from certain networks only.
    pub host: &'a str,
    /// How the connection came in.
    pub kind: ConnectionKind,
}

impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .field("nkey", &self.nkey)
            .finish_non_exhaustive()
    }
}

/// Who a connection is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// Its account.
    pub account: AccountId,
    /// The user's name or nkey, `[REDACTED]` for a token, empty if it has none.
    pub user: String,
    /// `None`: everything is permitted.
    pub permissions: Option<Arc<Permissions>>,
    /// When it must be disconnected.
    pub expires: Option<Time>,
    /// Whether that is because its account's time is over.
    pub expires_with_account: bool,
    /// The user's own limit of subscriptions; -1: none.
    pub max_subscriptions: i64,
    /// The user's own limit of a message's bytes; -1: none.
    pub max_payload: i64,
    /// What its account signed, in operator mode.
    pub token: Option<Arc<UserToken>>,
}

/// Why a connection is refused. Clients are told `Authorization Violation` for all of them, so that they cannot
/// guess names.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum AuthError {
    /// Nothing was presented, and there is no `no_auth_user`.
    #[error("no credentials")]
    NoCredentials,
    /// No user has this name.
    #[error("unknown user")]
    UnknownUser,
    /// The password is not the user's.
    #[error("wrong password")]
    WrongPassword,
    /// The token is not the server's.
    #[error("wrong token")]
    WrongToken,
    /// No user has this nkey.
    #[error("unknown nkey")]
    UnknownNkey,
    /// The signature is not one of the nonce by the nkey.
    #[error("nkey signature not verified")]
    BadSignature,
    /// In operator mode every user has a JWT.
    #[error("a user JWT is required")]
    NoJwt,
    /// The JWT is none of a user, or its issuer did not sign it.
    #[error("user JWT not valid")]
    BadJwt,
    /// The JWT is not valid yet, or no longer.
    #[error("user JWT no longer valid")]
    JwtExpired,
    /// No trusted account has this key.
    #[error("account not found")]
    UnknownAccount,
    /// The account's time is over.
    #[error("account JWT has expired")]
    AccountExpired,
    /// The account does not know the key that signed the user.
    #[error("user JWT issuer is not known")]
    UntrustedIssuer,
    /// The user does not fit the key that signed it.
    #[error("user JWT is not valid for its scoped signing key")]
    BadScope,
    /// The account took the user back.
    #[error("user authentication revoked")]
    Revoked,
    /// The account wants signatures of all its users.
    #[error("account disallows bearer tokens")]
    BearerNotAllowed,
    /// The user may not come from there.
    #[error("bad source address")]
    SourceNotAllowed,
    /// The user may connect at certain times only: that is not built.
    #[error("users with times of the day are not supported yet")]
    TimesNotSupported,
    /// The user may not use this kind of connection.
    #[error("connection type not allowed for this user")]
    ConnectionKindNotAllowed,
}

/// Accounts and users: immutable, shared as an `Arc`.
#[derive(Debug)]
pub struct Directory {
    accounts: Vec<Account>,
    system: Option<AccountId>,
    users: Map<String, User>,
    nkeys: Map<String, User>,
    login: Option<Secret>,
    anonymous: Option<Identity>,
    /// Whom operators trust; then nobody else is let in.
    trust: Option<Trust>,
    remarks: Vec<String>,
    bridges: Vec<Bridge>,
    /// By account.
    mappings: Vec<Mappings>,
}

#[derive(Debug)]
struct User {
    /// `None` for an nkey.
    password: Option<Password>,
    identity: Identity,
    kinds: Vec<ConnectionKind>,
}

#[derive(Debug, Eq, PartialEq)]
enum Secret {
    User { user: String, password: Password },
    Token(Password),
}

impl Default for Directory {
    /// `$G` with JetStream and without authorization, and `$SYS`.
    fn default() -> Directory {
        let spec =
            DirectorySpec { global_jetstream: Some(crate::JsLimits::NONE), ..DirectorySpec::default() };
        Directory::new(&spec).expect("invariant: a spec without users and names has nothing to refuse")
    }
}

impl Directory {
    /// Checks the spec and numbers the accounts: `$G` 0, the system account 1, the others in their order.
    pub fn new(spec: &DirectorySpec) -> Result<Directory, SpecError> {
        Directory::build(spec, &[])
    }

    /// The directory after a reload: every account keeps the number that it had before.
    pub fn after(&self, spec: &DirectorySpec) -> Result<Directory, SpecError> {
        Directory::build(spec, &self.accounts)
    }

    fn build(spec: &DirectorySpec, before: &[Account]) -> Result<Directory, SpecError> {
        let Some(operators) = &spec.operators else { return Directory::configured(spec, before) };
        let mut signed = Signed::read(operators)?;
        let accounts = std::mem::take(&mut signed.accounts);
        let spec = DirectorySpec { accounts, global_jetstream: None, ..spec.clone() };
        let mut directory = Directory::configured(&spec, before)?;
        directory.remarks.append(&mut signed.remarks);
        for (name, label) in signed.labels() {
            let account = directory.accounts.iter_mut().find(|account| account.name == name);
            if let Some(account) = account.filter(|_| !label.is_empty()) {
                account.label = label.to_owned();
            }
        }
        directory.trust = Some(signed.trust(|name| directory.account_id(name)));
        directory.anonymous = None;
        Ok(directory)
    }

    fn configured(spec: &DirectorySpec, before: &[Account]) -> Result<Directory, SpecError> {
        let system_name = system_name(spec)?;
        let mut directory = Directory {
            accounts: numbered(spec, system_name, before)?,
            system: (!spec.no_system_account).then_some(AccountId::SYSTEM),
            users: Map::default(),
            nkeys: Map::default(),
            login: spec.login.as_ref().map(|login| match login {
                Login::User { user, pass } => {
                    Secret::User { user: user.clone(), password: Password::new(pass) }
                }
                Login::Token(token) => Secret::Token(Password::new(token)),
            }),
            anonymous: None,
            trust: None,
            remarks: vec![],
            bridges: vec![],
            mappings: vec![],
        };
        directory.share(spec)?;
        for user in &spec.users {
            directory.add(user, AccountId::GLOBAL, spec.default_permissions.as_ref())?;
        }
        for account in &spec.accounts {
            let id =
                directory.account_id(&account.name).expect("invariant: numbered() has named every account");
            for user in &account.users {
                directory.add(user, id, account.default_permissions.as_ref())?;
            }
        }
        let ordinary = |user: &User| user.identity.account != AccountId::SYSTEM;
        let only_system = !directory.users.values().any(ordinary) && !directory.nkeys.values().any(ordinary);
        if directory.login.is_some() && !(directory.users.is_empty() && directory.nkeys.is_empty()) {
            return Err(SpecError::LoginAndUsers);
        }
        directory.anonymous = match &spec.no_auth_user {
            Some(name) => Some(directory.no_auth_user(name)?),
            // Users of the system account alone do not close the server for everybody else.
            None if only_system && directory.login.is_none() => Some(Identity::nobody()),
            None => None,
        };
        Ok(directory)
    }

    /// Bridges and mappings.
    fn share(&mut self, spec: &DirectorySpec) -> Result<(), SpecError> {
        // What operators' accounts import may come later or never: that is no fault of this server's.
        let mut remarks = vec![];
        let wrong = |error: SpecError| match spec.operators {
            None => Err(error),
            Some(_) => {
                remarks.push(error.to_string());
                Ok(())
            }
        };
        self.bridges = bridge::bridges(&spec.accounts, |name| self.account_id(name), wrong)?;
        self.remarks = remarks;
        for account in &self.accounts {
            let configured = spec.accounts.iter().find(|configured| configured.name == account.name);
            let specs = match configured {
                Some(configured) => &configured.mappings[..],
                None if account.name == "$G" => &spec.global_mappings,
                None => &[],
            };
            let mappings = Mappings::new(specs).map_err(|(source_subject, reason)| SpecError::Mapping {
                source_subject,
                reason: Box::new(reason),
            })?;
            self.mappings.push(mappings);
        }
        Ok(())
    }

    fn add(
        &mut self,
        spec: &UserSpec,
        account: AccountId,
        default: Option<&PermissionsSpec>,
    ) -> Result<(), SpecError> {
        let permissions =
            spec.permissions.as_ref().or(default).map(Permissions::new).transpose()?.map(Arc::new);
        let name = spec.key.name().to_owned();
        let identity = Identity { account, user: name.clone(), permissions, ..Identity::nobody() };
        let kinds = spec.connection_kinds.clone();
        match &spec.key {
            UserKey::Password { pass, .. } => {
                let user = User { password: Some(Password::new(pass)), identity, kinds };
                match self.users.insert(name.clone(), user) {
                    Some(_) => Err(SpecError::DuplicateUser { user: name }),
                    None => Ok(()),
                }
            }
            UserKey::Nkey(nkey) if !is_user_nkey(nkey) => Err(SpecError::BadNkey { nkey: name }),
            UserKey::Nkey(_) => {
                match self.nkeys.insert(name.clone(), User { password: None, identity, kinds }) {
                    Some(_) => Err(SpecError::DuplicateNkey { nkey: name }),
                    None => Ok(()),
                }
            }
        }
    }

    fn no_auth_user(&self, name: &str) -> Result<Identity, SpecError> {
        if self.users.is_empty() && self.nkeys.is_empty() {
            return Err(SpecError::NoAuthUserWithoutUsers { user: name.into() });
        }
        let user = self.users.get(name).or_else(|| self.nkeys.get(name));
        user.map(|user| user.identity.clone())
            .ok_or_else(|| SpecError::NoAuthUserUnknown { user: name.into() })
    }

    /// The same client in this directory, after a reload; None when it would have to show anew who it is.
    pub fn renew(&self, before: &Directory, identity: &Identity) -> Option<Identity> {
        if let (Some(trust), Some(token)) = (&self.trust, &identity.token) {
            return trust.renew(token);
        }
        let name = identity.user.as_str();
        let known = before.users.get(name).zip(self.users.get(name));
        let known = known.or_else(|| before.nkeys.get(name).zip(self.nkeys.get(name)));
        if let Some((old, new)) = known
            && old.password == new.password
            && old.identity.account == identity.account
        {
            return Some(new.identity.clone());
        }
        if before.login.is_some() && before.login == self.login {
            return Some(identity.clone());
        }
        let was_anonymous = before.anonymous.as_ref() == Some(identity);
        self.anonymous.clone().filter(|_| was_anonymous)
    }

    /// Whether the user's account has taken it back.
    pub fn is_revoked(&self, identity: &Identity) -> bool {
        self.trust.as_ref().zip(identity.token.as_ref()).is_some_and(|(trust, token)| trust.is_revoked(token))
    }

    /// What the log should say about accounts that operators signed: what is left out of them.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Whether INFO must ask for credentials: nobody gets in without.
    pub fn auth_required(&self) -> bool {
        self.anonymous.is_none()
    }

    /// Whether there is anybody who has to say who he is, also where others need not.
    pub fn has_credentials(&self) -> bool {
        self.login.is_some() || !self.users.is_empty() || !self.nkeys.is_empty() || self.trust.is_some()
    }

    /// Whether INFO must carry a nonce.
    pub fn needs_nonce(&self) -> bool {
        !self.nkeys.is_empty() || self.trust.is_some()
    }

    /// The account with this number.
    pub fn account(&self, id: AccountId) -> Option<&Account> {
        self.accounts.get(id.0 as usize)
    }

    /// The number of the account with this name.
    pub fn account_id(&self, name: &str) -> Option<AccountId> {
        self.accounts().find(|(_, account)| account.name == name).map(|(id, _)| id)
    }

    /// All accounts with their numbers.
    pub fn accounts(&self) -> impl Iterator<Item = (AccountId, &Account)> {
        (0..).map(AccountId).zip(&self.accounts)
    }

    /// The bridges between accounts.
    pub fn bridges(&self) -> &[Bridge] {
        &self.bridges
    }

    /// Where a request on this subject arrives when nobody in the account itself takes it: over every bridge that an
    /// import of a service makes, one after the other.
    pub fn service_behind(&self, account: AccountId, subject: &[u8]) -> (AccountId, Vec<u8>) {
        let mut at = (account, subject.to_vec());
        // No bridge leads anywhere twice.
        for _ in 0..self.bridges.len() {
            let leads =
                |bridge: &&Bridge| bridge.from == at.0 && bridge.is_service() && bridge.filter.matches(&at.1);
            let next = self.bridges.iter().find(leads);
            let Some((to, subject)) = next.and_then(|bridge| Some((bridge.to, bridge.subject(&at.1)?)))
            else {
                break;
            };
            at = (to, subject.into_owned());
        }
        at
    }

    /// The mappings of an account, if it has any.
    #[inline]
    pub fn mappings(&self, account: AccountId) -> Option<&Mappings> {
        self.mappings.get(account.0 as usize).filter(|mappings| !mappings.is_empty())
    }

    /// The account that gets the server's events: 1, or none with `no_system_account`.
    pub fn system_account(&self) -> Option<AccountId> {
        self.system
    }

    /// Whether [`Directory::authenticate`] must compute a password hash, which takes tens of milliseconds: the
    /// caller may then want to ask on a thread of its own.
    pub fn takes_long(&self, credentials: &Credentials<'_>) -> bool {
        match &self.login {
            Some(Secret::User { password, .. } | Secret::Token(password)) => password.is_hashed(),
            None => present(credentials.user)
                .and_then(|user| self.users.get(user)?.password.as_ref())
                .is_some_and(Password::is_hashed),
        }
    }

    /// Who presents these credentials. `nonce` is the one that this connection's INFO carried.
    pub fn authenticate(&self, credentials: &Credentials<'_>, nonce: &[u8]) -> Result<Identity, AuthError> {
        if let Some(trust) = &self.trust {
            return trust.authenticate(credentials, nonce);
        }
        if let Some(login) = &self.login {
            return self.log_in(login, credentials);
        }
        let (user, pass) = (present(credentials.user), present(credentials.pass));
        // An nkey is looked at only where nkeys are configured.
        if let Some(nkey) = present(credentials.nkey).filter(|_| !self.nkeys.is_empty()) {
            let found = self.nkeys.get(nkey).ok_or(AuthError::UnknownNkey)?;
            let sig = present(credentials.sig).ok_or(AuthError::BadSignature)?;
            if !signed(nkey, nonce, sig) {
                return Err(AuthError::BadSignature);
            }
            return found.admit(credentials.kind);
        }
        if self.users.is_empty() && self.nkeys.is_empty() {
            return Ok(Identity { user: user.unwrap_or_default().to_owned(), ..Identity::nobody() });
        }
        if user.is_none() && pass.is_none() && present(credentials.token).is_none() {
            return self.anonymous.clone().ok_or(AuthError::NoCredentials);
        }
        let found = user.and_then(|user| self.users.get(user)).ok_or(AuthError::UnknownUser)?;
        match &found.password {
            Some(password) if password.accepts(pass.unwrap_or_default()) => found.admit(credentials.kind),
            _ => Err(AuthError::WrongPassword),
        }
    }

    fn log_in(&self, login: &Secret, credentials: &Credentials<'_>) -> Result<Identity, AuthError> {
        let user = match login {
            Secret::User { user, password } => {
                let given = present(credentials.user).ok_or(AuthError::NoCredentials)?;
                if given != user {
                    return Err(AuthError::UnknownUser);
                }
                if !password.accepts(present(credentials.pass).unwrap_or_default()) {
                    return Err(AuthError::WrongPassword);
                }
                user.clone()
            }
            Secret::Token(token) => {
                let given = present(credentials.token).ok_or(AuthError::NoCredentials)?;
                if !token.accepts(given) {
                    return Err(AuthError::WrongToken);
                }
                "[REDACTED]".to_owned()
            }
        };
        Ok(Identity { user, ..Identity::nobody() })
    }
}

impl Identity {
    /// A connection of `$G` without a name or restrictions.
    fn nobody() -> Identity {
        Identity {
            account: AccountId::GLOBAL,
            user: String::new(),
            permissions: None,
            expires: None,
            expires_with_account: false,
            max_subscriptions: UNLIMITED,
            max_payload: UNLIMITED,
            token: None,
        }
    }
}

impl User {
    fn admit(&self, kind: ConnectionKind) -> Result<Identity, AuthError> {
        match self.kinds.is_empty() || self.kinds.contains(&kind) {
            true => Ok(self.identity.clone()),
            false => Err(AuthError::ConnectionKindNotAllowed),
        }
    }
}

fn present(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

pub(crate) fn signed(nkey: &str, nonce: &[u8], sig: &str) -> bool {
    let Ok(key) = nkeys::KeyPair::from_public_key(nkey) else {
        return false;
    };
    // Clients send base64url without padding; old ones the standard alphabet with it.
    let bytes =
        [&BASE64URL_NOPAD, &BASE64URL, &BASE64].iter().find_map(|base| base.decode(sig.as_bytes()).ok());
    bytes.is_some_and(|bytes| bytes.len() == 64 && key.verify(nonce, &bytes).is_ok())
}

fn system_name(spec: &DirectorySpec) -> Result<&str, SpecError> {
    let Some(name) = spec.system_account.as_deref() else {
        return Ok("$SYS");
    };
    match spec.accounts.iter().any(|account| account.name == name) {
        true => Ok(name),
        false => Err(SpecError::SystemAccountMissing { account: name.into() }),
    }
}

fn numbered(spec: &DirectorySpec, system: &str, before: &[Account]) -> Result<Vec<Account>, SpecError> {
    let account = |spec: &AccountSpec| Account {
        name: spec.name.clone(),
        label: spec.name.clone(),
        jetstream: spec.jetstream,
        limits: spec.limits,
        gone: false,
    };
    let bare = |name: &str| Account {
        name: name.into(),
        label: name.into(),
        jetstream: None,
        limits: AccountLimits::default(),
        gone: false,
    };
    let mut accounts = vec![Account { jetstream: spec.global_jetstream, ..bare("$G") }, bare(system)];
    accounts.extend(before.iter().skip(2).map(|known| Account { gone: true, ..bare(&known.name) }));
    let mut seen: Vec<&str> = vec![];
    for configured in &spec.accounts {
        let name = configured.name.as_str();
        if name == "$G" {
            return Err(SpecError::ReservedAccount { account: name.into() });
        }
        if seen.contains(&name) {
            return Err(SpecError::DuplicateAccount { account: name.into() });
        }
        seen.push(name);
        match accounts.iter_mut().skip(1).find(|known| known.name == name) {
            Some(known) => *known = account(configured),
            None => accounts.push(account(configured)),
        }
    }
    Ok(accounts)
}

#[cfg(test)]
#[path = "directory/tests.rs"]
mod tests;
