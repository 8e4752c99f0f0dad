//! The JWTs of operators, accounts and users: what they say, and whether their issuer signed that.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use hw_kit::Time;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Why a text is no JWT that counts.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum JwtError {
    /// Not three parts in base64, or not the JSON of this kind.
    #[error("not a valid JWT")]
    Malformed,
    /// Another algorithm than that of version 2.
    #[error("unsupported JWT algorithm")]
    Algorithm,
    /// The issuer did not sign it.
    #[error("JWT signature not verified")]
    Signature,
    /// It is for something else.
    #[error("JWT of another type")]
    WrongType,
}

/// The claims of a JWT, signed by their issuer.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Claims<T> {
    pub iss: String,
    pub sub: String,
    pub name: String,
    /// Seconds since 1970; 0: never.
    pub exp: i64,
    pub nbf: i64,
    pub iat: i64,
    pub nats: T,
}

/// What a JWT is for.
pub(crate) trait Kind: DeserializeOwned {
    const TYPE: &str;
    fn type_name(&self) -> &str;
}

macro_rules! kind {
    ($name:ident, $text:literal) => {
        impl Kind for $name {
            const TYPE: &str = $text;
            fn type_name(&self) -> &str {
                &self.r#type
            }
        }
    };
}

kind!(Operator, "operator");
kind!(Account, "account");
kind!(User, "user");
kind!(Activation, "activation");

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Operator {
    r#type: String,
    pub signing_keys: Vec<String>,
    pub system_account: String,
    pub strict_signing_key_usage: bool,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Account {
    r#type: String,
    pub imports: Vec<Import>,
    pub exports: Vec<Export>,
    pub limits: Limits,
    pub signing_keys: Vec<SigningKey>,
    /// Users that were issued up to this second count no more; `*` is all.
    pub revocations: BTreeMap<String, i64>,
    pub default_permissions: Permissions,
    pub mappings: BTreeMap<String, Vec<Destination>>,
    pub tags: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Import {
    pub subject: String,
    pub account: String,
    pub token: String,
    pub to: String,
    pub local_subject: String,
    pub r#type: String,
    pub share: bool,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Export {
    pub subject: String,
    pub r#type: String,
    pub token_req: bool,
    pub revocations: BTreeMap<String, i64>,
    pub response_type: String,
    /// Nanoseconds.
    pub response_threshold: i64,
    pub account_token_position: usize,
    pub service_latency: Option<serde_json::Value>,
    pub allow_trace: bool,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Limits {
    pub subs: i64,
    pub payload: i64,
    pub conn: i64,
    pub leaf: i64,
    /// How many imports and exports the account may have; negative: no limit.
    pub imports: i64,
    pub exports: i64,
    pub disallow_bearer: bool,
    #[serde(flatten)]
    pub jetstream: JetStream,
    pub tiered_limits: BTreeMap<String, JetStream>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct JetStream {
    pub mem_storage: i64,
    pub disk_storage: i64,
    pub streams: i64,
    pub consumer: i64,
    pub max_ack_pending: i64,
    pub mem_max_stream_bytes: i64,
    pub disk_max_stream_bytes: i64,
    pub max_bytes_required: bool,
}

/// A key that may sign users in the account's stead, perhaps only such as the template says.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub(crate) enum SigningKey {
    Plain(String),
    Scoped { key: String, template: Box<UserLimits> },
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Destination {
    pub subject: String,
    pub weight: u8,
    pub cluster: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct User {
    r#type: String,
    pub issuer_account: String,
    pub tags: Vec<String>,
    #[serde(flatten)]
    pub limits: UserLimits,
}

/// What a user may do; a template's when its key signed the user.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct UserLimits {
    #[serde(flatten)]
    pub permissions: Permissions,
    pub src: Vec<String>,
    pub times: Vec<serde_json::Value>,
    pub subs: i64,
    pub payload: i64,
    pub bearer_token: bool,
    pub allowed_connection_types: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Permissions {
    pub r#pub: Lists,
    pub sub: Lists,
    pub resp: Option<Responses>,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Lists {
    pub allow: Vec<String>,
    pub deny: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Responses {
    pub max: i64,
    /// Nanoseconds.
    pub ttl: i64,
}

/// The permission to import what is not for everybody.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(crate) struct Activation {
    r#type: String,
    pub subject: String,
    pub kind: String,
    pub issuer_account: String,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

impl Default for UserLimits {
    fn default() -> UserLimits {
        UserLimits {
            permissions: Permissions::default(),
            src: vec![],
            times: vec![],
            subs: -1,
            payload: -1,
            bearer_token: false,
            allowed_connection_types: vec![],
        }
    }
}

impl<T> Claims<T> {
    /// Whether it counts at this time.
    pub fn counts_at(&self, now: Time) -> bool {
        let seconds = now.0.div_euclid(1_000_000_000);
        (self.exp == 0 || seconds < self.exp) && self.nbf <= seconds
    }

    /// When it counts no more.
    pub fn expires(&self) -> Option<Time> {
        (self.exp != 0).then(|| Time(self.exp.saturating_mul(1_000_000_000)))
    }
}

/// Reads a JWT and checks that its issuer signed it. Whether the issuer is trusted is another question.
pub(crate) fn decode<T: Kind + Default>(text: &str) -> Result<Claims<T>, JwtError> {
    let text = text.trim();
    let (signed, sig) = text.rsplit_once('.').ok_or(JwtError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(JwtError::Malformed)?;
    let bytes = |part: &str| BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| JwtError::Malformed);
    let header: Header = serde_json::from_slice(&bytes(header)?).map_err(|_| JwtError::Malformed)?;
    if header.alg != "ed25519-nkey" {
        return Err(JwtError::Algorithm);
    }
    let claims: Claims<T> = serde_json::from_slice(&bytes(claims)?).map_err(|_| JwtError::Malformed)?;
    let key = nkeys::KeyPair::from_public_key(&claims.iss).map_err(|_| JwtError::Signature)?;
    let sig = bytes(sig)?;
    if sig.len() != 64 || key.verify(signed.as_bytes(), &sig).is_err() {
        return Err(JwtError::Signature);
    }
    match claims.nats.type_name() == T::TYPE {
        true => Ok(claims),
        false => Err(JwtError::WrongType),
    }
}

/// The JWT in a text: the text itself, or the line between the marks of a decorated file.
pub fn jwt_in(text: &str) -> Option<&str> {
    text.lines().map(str::trim).find(|line| line.starts_with("eyJ"))
}
