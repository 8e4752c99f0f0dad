//! Operator mode: accounts are what trusted operators signed, users are what those accounts signed.

use std::net::IpAddr;
use std::sync::Arc;

use hw_kit::{AccountId, Map, Span};
use hw_subject::is_subset;

use crate::account::{AccountLimits, JsLimits, UNLIMITED};
use crate::claims::{
    Account, Activation, Claims, Export, Import, JetStream, Operator, SigningKey, User, UserLimits, decode,
};
use crate::directory::{AuthError, ConnectionKind, Credentials, Identity};
use crate::permissions::{Allowance, Permissions, ResponsePermission};
use crate::sharing::{ExportSpec, ImportSpec, MappingSpec, RESPONSE_THRESHOLD, ResponseType, Shared};
use crate::spec::{AccountSpec, PermissionsSpec, SpecError};
use crate::template;

/// Operators and the accounts that they signed, as JWTs.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct OperatorSpec {
    /// The operators' JWTs.
    pub operators: Vec<String>,
    /// Accounts: the public key, the JWT.
    pub accounts: Vec<(String, String)>,
    /// Whether the server has JetStream at all.
    pub jetstream: bool,
}

/// Whom to trust.
#[derive(Debug)]
pub(crate) struct Trust {
    /// By public key.
    accounts: Map<String, Trusted>,
}

#[derive(Debug)]
struct Trusted {
    id: AccountId,
    claims: Claims<Account>,
}

/// A user as its account signed it; asked again after a reload.
#[derive(Clone, Debug, PartialEq)]
pub struct UserToken(Claims<User>);

impl Eq for UserToken {}

impl UserToken {
    /// What people call the user.
    pub fn name(&self) -> &str {
        &self.0.name
    }
}

/// The system account that an operator's JWT names.
pub fn system_account_of(operator: &str) -> Option<String> {
    let claims = decode::<Operator>(operator).ok()?;
    Some(claims.nats.system_account).filter(|account| !account.is_empty())
}

/// What the operators' accounts are made of, with remarks about what is left out of them.
pub(crate) struct Signed {
    pub accounts: Vec<AccountSpec>,
    claims: Vec<Claims<Account>>,
    pub remarks: Vec<String>,
}

impl Signed {
    pub fn read(spec: &OperatorSpec) -> Result<Signed, SpecError> {
        let mut keys = vec![];
        for text in &spec.operators {
            let operator = decode::<Operator>(text).map_err(|why| SpecError::OperatorJwt { why })?;
            if !operator.nats.strict_signing_key_usage {
                keys.push(operator.sub);
            }
            keys.extend(operator.nats.signing_keys);
        }
        let (mut claims, mut remarks): (Vec<Claims<Account>>, Vec<String>) = (vec![], vec![]);
        for (key, text) in &spec.accounts {
            let account =
                decode::<Account>(text).map_err(|why| SpecError::AccountJwt { account: key.clone(), why })?;
            if account.sub != *key {
                let why = crate::claims::JwtError::WrongType;
                return Err(SpecError::AccountJwt { account: key.clone(), why });
            }
            if !keys.contains(&account.iss) {
                remarks.push(format!("account {key} is signed by {:?}: not trusted", account.iss));
            } else if let Some(flaw) = flaw(&account.nats) {
                remarks.push(format!("account {key} is left out: {flaw}"));
            } else {
                claims.push(account);
            }
        }
        let accounts = claims.iter().map(|account| spec_of(account, &claims, spec, &mut remarks)).collect();
        Ok(Signed { accounts, claims, remarks })
    }

    /// The accounts' keys and names.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.claims.iter().map(|account| (account.sub.as_str(), account.name.as_str()))
    }

    pub fn trust(self, id: impl Fn(&str) -> Option<AccountId>) -> Trust {
        let trusted =
            |claims: Claims<Account>| Some((claims.sub.clone(), Trusted { id: id(&claims.sub)?, claims }));
        Trust { accounts: self.claims.into_iter().filter_map(trusted).collect() }
    }
}

/// Why an account cannot be what its JWT says: then nobody gets in.
fn flaw(account: &Account) -> Option<String> {
    for (what, count, limit) in [
        ("imports", account.imports.len(), account.limits.imports),
        ("exports", account.exports.len(), account.limits.exports),
    ] {
        if usize::try_from(limit).is_ok_and(|limit| count > limit) {
            return Some(format!("it has {count} {what} and may have {limit}"));
        }
    }
    let subjects = account.exports.iter().map(|export| &export.subject);
    let mut subjects = subjects.chain(account.imports.iter().map(|import| &import.subject));
    let wrong = subjects.find(|subject| !hw_subject::is_valid_filter(subject.as_bytes()))?;
    Some(format!("{wrong:?} is no subject"))
}

fn spec_of(
    claims: &Claims<Account>,
    all: &[Claims<Account>],
    spec: &OperatorSpec,
    remarks: &mut Vec<String>,
) -> AccountSpec {
    let (account, key) = (&claims.nats, &claims.sub);
    let mut left_out = |what: &str| remarks.push(format!("account {key}: {what} is not supported yet"));
    if account.exports.iter().any(|export| export.service_latency.is_some()) {
        left_out("service_latency");
    }
    if account.exports.iter().any(|export| export.allow_trace) {
        left_out("allow_trace");
    }
    if account.mappings.values().flatten().any(|destination| !destination.cluster.is_empty()) {
        left_out("a mapping's cluster");
    }
    let tiers = &account.limits.tiered_limits;
    let tier = tiers.get("R1").copied().unwrap_or_default();
    let jetstream = if tiers.is_empty() { account.limits.jetstream } else { tier };
    let mappings = account.mappings.iter().map(|(source, to)| MappingSpec {
        source: source.clone(),
        destinations: to
            .iter()
            .filter(|destination| destination.cluster.is_empty())
            .map(|to| (to.subject.clone(), if to.weight == 0 { 100 } else { to.weight }))
            .collect(),
    });
    AccountSpec {
        name: key.clone(),
        jetstream: js_limits(&jetstream).filter(|_| spec.jetstream),
        limits: AccountLimits {
            max_connections: account.limits.conn,
            max_subscriptions: account.limits.subs,
            max_payload: account.limits.payload,
            max_leafnodes: account.limits.leaf,
        },
        exports: account.exports.iter().filter_map(export_of).collect(),
        imports: account.imports.iter().filter_map(|import| import_of(key, import, all)).collect(),
        mappings: mappings.collect(),
        ..AccountSpec::default()
    }
}

/// 0 bytes of both kinds is no JetStream; 0 of anything else is no limit.
fn js_limits(limits: &JetStream) -> Option<JsLimits> {
    let or_none = |limit: i64| if limit > 0 { limit } else { UNLIMITED };
    let enabled = limits.mem_storage != 0 || limits.disk_storage != 0;
    enabled.then(|| JsLimits {
        max_memory: limits.mem_storage.max(UNLIMITED),
        max_storage: limits.disk_storage.max(UNLIMITED),
        max_streams: or_none(limits.streams),
        max_consumers: or_none(limits.consumer),
        max_ack_pending: or_none(limits.max_ack_pending),
        memory_max_stream_bytes: or_none(limits.mem_max_stream_bytes),
        storage_max_stream_bytes: or_none(limits.disk_max_stream_bytes),
        max_bytes_required: limits.max_bytes_required,
    })
}

fn shared(kind: &str) -> Option<Shared> {
    match kind {
        "stream" => Some(Shared::Stream),
        "service" => Some(Shared::Service),
        _ => None,
    }
}

fn export_of(export: &Export) -> Option<ExportSpec> {
    Some(ExportSpec {
        shared: shared(&export.r#type)?,
        subject: export.subject.clone(),
        accounts: None,
        activation_required: export.token_req,
        account_token_position: export.account_token_position,
        response: match export.response_type.as_str() {
            "Stream" => ResponseType::Stream,
            "Chunked" => ResponseType::Chunked,
            _ => ResponseType::Single,
        },
        threshold: match export.response_threshold {
            0 => RESPONSE_THRESHOLD,
            nanos => Span(nanos),
        },
    })
}

fn import_of(importer: &str, import: &Import, all: &[Claims<Account>]) -> Option<ImportSpec> {
    let shared = shared(&import.r#type)?;
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let local = text(&import.local_subject);
    // Without a local subject, `to` is a prefix of messages, and of a service the subject there.
    let (subject, to, prefix) = match (shared, local) {
        (_, Some(local)) => (import.subject.clone(), Some(local), None),
        (Shared::Stream, None) => (import.subject.clone(), None, text(&import.to)),
        (Shared::Service, None) => {
            let there = text(&import.to).unwrap_or_else(|| import.subject.clone());
            (there, Some(import.subject.clone()), None)
        }
    };
    let activated = is_activated(importer, import, &subject, all);
    Some(ImportSpec {
        shared,
        account: import.account.clone(),
        subject,
        to,
        prefix,
        share: import.share,
        activated,
    })
}

/// Whether the exporter signed that this account may have it.
fn is_activated(importer: &str, import: &Import, subject: &str, all: &[Claims<Account>]) -> bool {
    let Some(exporter) = all.iter().find(|account| account.sub == import.account) else { return false };
    let Ok(activation) = decode::<Activation>(&import.token) else { return false };
    let of = if activation.nats.issuer_account.is_empty() {
        &activation.iss
    } else {
        &activation.nats.issuer_account
    };
    let signed = *of == exporter.sub && may_sign(exporter, &activation.iss).is_some();
    let revoked = exporter.nats.exports.iter().filter(|export| export.r#type == import.r#type);
    let revoked = revoked
        .flat_map(|export| &export.revocations)
        .any(|(key, until)| (key == importer || key == "*") && activation.iat <= *until);
    signed
        && !revoked
        && activation.sub == importer
        && activation.nats.kind == import.r#type
        && is_subset(subject.as_bytes(), activation.nats.subject.as_bytes())
}

/// Whether the key may sign for the account, and within which scope.
fn may_sign<'a>(account: &'a Claims<Account>, key: &str) -> Option<Option<&'a UserLimits>> {
    if account.sub == key {
        return Some(None);
    }
    account.nats.signing_keys.iter().find_map(|signing| match signing {
        SigningKey::Plain(plain) => (plain == key).then_some(None),
        SigningKey::Scoped { key: scoped, template } => (scoped == key).then_some(Some(&**template)),
    })
}

impl Trust {
    /// Who presents this JWT and signed the nonce.
    pub fn authenticate(&self, credentials: &Credentials<'_>, nonce: &[u8]) -> Result<Identity, AuthError> {
        let text = credentials.jwt.filter(|text| !text.is_empty()).ok_or(AuthError::NoJwt)?;
        let claims = decode::<User>(text).map_err(|_| AuthError::BadJwt)?;
        if !claims.counts_at(credentials.now) {
            return Err(AuthError::JwtExpired);
        }
        let (identity, limits, account) = self.admit(Arc::new(UserToken(claims)))?;
        if !account.claims.counts_at(credentials.now) {
            return Err(AuthError::AccountExpired);
        }
        match limits.bearer_token {
            true if account.claims.nats.limits.disallow_bearer => return Err(AuthError::BearerNotAllowed),
            true => {}
            false => {
                let sig = credentials.sig.unwrap_or_default();
                if !crate::directory::signed(&identity.user, nonce, sig) {
                    return Err(AuthError::BadSignature);
                }
            }
        }
        check_kind(&limits.allowed_connection_types, credentials.kind)?;
        match limits.src.is_empty() || limits.src.iter().any(|net| contains(net, credentials.host)) {
            true => Ok(identity),
            false => Err(AuthError::SourceNotAllowed),
        }
    }

    /// The same user, after a reload.
    pub fn renew(&self, token: &Arc<UserToken>) -> Option<Identity> {
        self.admit(token.clone()).ok().map(|(identity, ..)| identity)
    }

    /// Whether the account takes the user back.
    pub fn is_revoked(&self, token: &UserToken) -> bool {
        self.account_of(token).is_some_and(|account| is_revoked(&account.claims, &token.0))
    }

    fn account_of(&self, token: &UserToken) -> Option<&Trusted> {
        let user = &token.0;
        let named = if user.nats.issuer_account.is_empty() { &user.iss } else { &user.nats.issuer_account };
        self.accounts.get(named)
    }

    fn admit(&self, token: Arc<UserToken>) -> Result<(Identity, UserLimits, &Trusted), AuthError> {
        let user = &token.0;
        let account = self.account_of(&token).ok_or(AuthError::UnknownAccount)?;
        let scope = may_sign(&account.claims, &user.iss).ok_or(AuthError::UntrustedIssuer)?;
        if is_revoked(&account.claims, user) {
            return Err(AuthError::Revoked);
        }
        let limits = match scope {
            None => user.nats.limits.clone(),
            // The key decides: a user that says something itself is none of its.
            Some(_) if user.nats.limits != UserLimits::default() => return Err(AuthError::BadScope),
            Some(template) => template::fill(template, user, &account.claims).ok_or(AuthError::BadScope)?,
        };
        if !limits.times.is_empty() {
            return Err(AuthError::TimesNotSupported);
        }
        let mut permissions = permissions_of(&limits.permissions);
        if permissions == PermissionsSpec::default() {
            permissions = permissions_of(&account.claims.nats.default_permissions);
        }
        let permissions = match permissions == PermissionsSpec::default() {
            true => None,
            false => Some(Arc::new(Permissions::new(&permissions).map_err(|_| AuthError::BadJwt)?)),
        };
        let (own, of_account) = (user.expires(), account.claims.expires());
        let expires = own.into_iter().chain(of_account).min();
        let identity = Identity {
            account: account.id,
            user: user.sub.clone(),
            permissions,
            expires,
            expires_with_account: expires.is_some() && expires != own,
            max_subscriptions: limits.subs,
            max_payload: limits.payload,
            token: Some(token.clone()),
        };
        Ok((identity, limits, account))
    }
}

fn is_revoked(account: &Claims<Account>, user: &Claims<User>) -> bool {
    let revocations = &account.nats.revocations;
    [user.sub.as_str(), "*"].iter().any(|key| revocations.get(*key).is_some_and(|until| user.iat <= *until))
}

fn check_kind(allowed: &[String], kind: ConnectionKind) -> Result<(), AuthError> {
    let named = |name: &String| ConnectionKind::from_name(name) == Some(kind);
    match allowed.is_empty() || allowed.iter().any(named) {
        true => Ok(()),
        false => Err(AuthError::ConnectionKindNotAllowed),
    }
}

fn permissions_of(permissions: &crate::claims::Permissions) -> PermissionsSpec {
    let lists =
        |lists: &crate::claims::Lists| Allowance { allow: lists.allow.clone(), deny: lists.deny.clone() };
    let default = ResponsePermission::default();
    PermissionsSpec {
        publish: lists(&permissions.r#pub),
        subscribe: lists(&permissions.sub),
        allow_responses: permissions.resp.map(|responses| ResponsePermission {
            max: if responses.max == 0 { default.max } else { responses.max },
            expires: if responses.ttl == 0 { default.expires } else { Span(responses.ttl) },
        }),
    }
}

/// Whether a network such as `10.0.0.0/8` has this address.
fn contains(network: &str, host: &str) -> bool {
    let Some((net, bits)) = network.split_once('/') else { return false };
    let (Ok(net), Ok(host), Ok(bits)) = (net.parse::<IpAddr>(), host.parse::<IpAddr>(), bits.parse::<u32>())
    else {
        return false;
    };
    match (net, host.to_canonical()) {
        (IpAddr::V4(net), IpAddr::V4(host)) if bits <= 32 => {
            let mask = u32::MAX.checked_shl(32 - bits).unwrap_or(0);
            net.to_bits() & mask == host.to_bits() & mask
        }
        (IpAddr::V6(net), IpAddr::V6(host)) if bits <= 128 => {
            let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
            net.to_bits() & mask == host.to_bits() & mask
        }
        _ => false,
    }
}

#[cfg(test)]
#[path = "operator/tests.rs"]
mod tests;
