//! Operators, accounts and users as JWTs: who is let in, and who is not.

use data_encoding::BASE64URL_NOPAD;
use hw_kit::Time;
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};

use super::*;
use crate::directory::Directory;
use crate::spec::DirectorySpec;

/// The same key for the same letter.
fn key(kind: KeyPairType, letter: u8) -> KeyPair {
    KeyPair::new_from_raw(kind, [letter; 32]).unwrap()
}

fn operator() -> KeyPair {
    key(KeyPairType::Operator, 1)
}

fn account(letter: u8) -> KeyPair {
    key(KeyPairType::Account, letter)
}

fn user() -> KeyPair {
    key(KeyPairType::User, 9)
}

fn sign_as(alg: &str, by: &KeyPair, mut claims: Value) -> String {
    claims["iss"] = json!(by.public_key());
    let header = json!({ "typ": "JWT", "alg": alg });
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let sig = by.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", BASE64URL_NOPAD.encode(&sig))
}

fn sign(by: &KeyPair, claims: Value) -> String {
    sign_as("ed25519-nkey", by, claims)
}

fn account_jwt(letter: u8, name: &str, exp: i64, mut nats: Value) -> (String, String) {
    let key = account(letter).public_key();
    nats["type"] = json!("account");
    if nats.get("limits").is_none() {
        nats["limits"] =
            json!({ "conn": -1, "subs": -1, "payload": -1, "leaf": -1, "imports": -1, "exports": -1 });
    }
    (key.clone(), sign(&operator(), json!({ "sub": key, "name": name, "exp": exp, "nats": nats })))
}

fn directory(accounts: Vec<(String, String)>) -> Directory {
    let nats = json!({ "type": "operator" });
    let operators = vec![sign(&operator(), json!({ "sub": operator().public_key(), "nats": nats }))];
    let operators = Some(OperatorSpec { operators, accounts, jetstream: true });
    Directory::new(&DirectorySpec { operators, ..DirectorySpec::default() }).unwrap()
}

/// A bearer of the account with letter 2.
fn user_claims(mut nats: Value) -> Value {
    (nats["type"], nats["bearer_token"]) = (json!("user"), json!(true));
    json!({ "sub": user().public_key(), "name": "bob", "iat": 100, "nats": nats })
}

fn enter(directory: &Directory, jwt: &str, now: i64) -> Result<Identity, AuthError> {
    let now = Time(now * 1_000_000_000);
    let credentials = Credentials { jwt: Some(jwt), now, host: "10.1.2.3", ..Credentials::default() };
    directory.authenticate(&credentials, b"nonce")
}

#[test]
fn users_are_let_in_while_they_count() {
    let open = directory(vec![account_jwt(2, "APP", 0, json!({}))]);
    let ending = directory(vec![account_jwt(2, "APP", 300, json!({}))]);
    let plain = user_claims(json!({}));
    let mut until = plain.clone();
    until["exp"] = json!(250);
    let mut later = plain.clone();
    later["nbf"] = json!(150);
    let by = account(2);
    let cases = [
        (&open, &plain, 200, Ok(None)),
        (&open, &until, 200, Ok(Some(250))),
        (&open, &until, 250, Err(AuthError::JwtExpired)),
        (&open, &later, 149, Err(AuthError::JwtExpired)),
        (&open, &later, 150, Ok(None)),
        (&ending, &plain, 299, Ok(Some(300))),
        (&ending, &until, 200, Ok(Some(250))),
        (&ending, &plain, 300, Err(AuthError::AccountExpired)),
    ];
    for (directory, claims, now, want) in cases {
        let got = enter(directory, &sign(&by, claims.clone()), now).map(|identity| identity.expires);
        assert_eq!(got, want.map(|at| at.map(|at| Time(at * 1_000_000_000))), "{claims} at {now}");
    }
    let identity = enter(&open, &sign(&by, plain), 200).unwrap();
    let account = open.account(identity.account).unwrap();
    assert_eq!((account.name.as_str(), account.label.as_str()), (by.public_key().as_str(), "APP"));
    assert_eq!(identity.token.as_ref().map(|token| token.name()), Some("bob"));
}

#[test]
fn what_is_no_users_jwt_is_refused() {
    let open = directory(vec![account_jwt(2, "APP", 0, json!({}))]);
    let by = account(2);
    let good = sign(&by, user_claims(json!({})));
    let (signed, sig) = good.rsplit_once('.').unwrap();
    let other = sign(&by, user_claims(json!({ "subs": 1 })));
    let cases = [
        (String::new(), AuthError::NoJwt),
        ("a.b.c".to_owned(), AuthError::BadJwt),
        (signed.to_owned(), AuthError::BadJwt),
        (format!("{}.{sig}", other.rsplit_once('.').unwrap().0), AuthError::BadJwt),
        (sign_as("none", &by, user_claims(json!({}))), AuthError::BadJwt),
        (account_jwt(2, "APP", 0, json!({})).1, AuthError::BadJwt),
        (sign(&account(3), user_claims(json!({}))), AuthError::UnknownAccount),
        (
            sign(&account(3), user_claims(json!({ "issuer_account": by.public_key() }))),
            AuthError::UntrustedIssuer,
        ),
        (sign(&by, user_claims(json!({ "src": ["10.2.0.0/16"] }))), AuthError::SourceNotAllowed),
        (sign(&by, user_claims(json!({ "times": [{ "start": "a" }] }))), AuthError::TimesNotSupported),
        (
            sign(&by, user_claims(json!({ "allowed_connection_types": ["WEBSOCKET"] }))),
            AuthError::ConnectionKindNotAllowed,
        ),
    ];
    for (jwt, want) in cases {
        assert_eq!(enter(&open, &jwt, 200).err(), Some(want), "{jwt}");
    }
    assert_eq!(enter(&open, &good, 200).err(), None);
}

#[test]
fn a_user_that_is_no_bearer_signs_the_nonce() {
    let open = directory(vec![account_jwt(2, "APP", 0, json!({}))]);
    let strict = directory(vec![account_jwt(2, "APP", 0, json!({ "limits": { "disallow_bearer": true } }))]);
    let mut claims = user_claims(json!({}));
    let bearer = sign(&account(2), claims.clone());
    claims["nats"]["bearer_token"] = json!(false);
    let jwt = sign(&account(2), claims);
    let try_with = |directory: &Directory, key: &KeyPair, nonce: &[u8]| {
        let sig = BASE64URL_NOPAD.encode(&key.sign(b"nonce").unwrap());
        let credentials = Credentials { jwt: Some(&jwt), sig: Some(&sig), ..Credentials::default() };
        directory.authenticate(&credentials, nonce).err()
    };
    assert_eq!(try_with(&open, &user(), b"nonce"), None);
    assert_eq!(try_with(&strict, &user(), b"nonce"), None);
    assert_eq!(try_with(&open, &user(), b"another"), Some(AuthError::BadSignature));
    assert_eq!(try_with(&open, &account(2), b"nonce"), Some(AuthError::BadSignature));
    assert_eq!(enter(&open, &jwt, 1).err(), Some(AuthError::BadSignature));
    assert_eq!(enter(&strict, &bearer, 1).err(), Some(AuthError::BearerNotAllowed));
}

#[test]
fn users_are_taken_back() {
    let open = directory(vec![account_jwt(2, "APP", 0, json!({}))]);
    let identity = enter(&open, &sign(&account(2), user_claims(json!({}))), 200).unwrap();
    for (revocations, revoked) in [
        (json!({}), false),
        (json!({ user().public_key(): 99 }), false),
        (json!({ user().public_key(): 100 }), true),
        (json!({ "*": 100 }), true),
    ] {
        let next = directory(vec![account_jwt(2, "APP", 0, json!({ "revocations": revocations }))]);
        assert_eq!(next.is_revoked(&identity), revoked, "{revocations}");
        assert_eq!(next.renew(&open, &identity).is_none(), revoked, "{revocations}");
    }
    let gone = directory(vec![account_jwt(3, "OTHER", 0, json!({}))]);
    assert!(gone.renew(&open, &identity).is_none() && !gone.is_revoked(&identity));
}

#[test]
fn a_scoped_key_decides_what_its_users_may() {
    let template = json!({
        "pub": { "allow": ["t.{{tag(team)}}.{{name()}}"], "deny": ["x.{{account-name()}}"] },
        "sub": { "allow": ["u.{{subject()}}"] },
        "bearer_token": true,
    });
    let scope = json!({ "kind": "user_scope", "key": account(5).public_key(), "template": template });
    let open = directory(vec![account_jwt(2, "APP", 0, json!({ "signing_keys": [scope] }))]);
    let claims = |tags: &[&str]| {
        let of = account(2).public_key();
        let nats = json!({ "type": "user", "issuer_account": of, "tags": tags });
        json!({ "sub": user().public_key(), "name": "bob", "nats": nats })
    };
    let identity = enter(&open, &sign(&account(5), claims(&["team:blue", "team:red"])), 1).unwrap();
    let permissions = identity.permissions.unwrap();
    assert_eq!(permissions.publish.allow, ["t.blue.bob", "t.red.bob"]);
    assert_eq!(permissions.publish.deny, ["x.APP"]);
    assert_eq!(permissions.subscribe.allow, [format!("u.{}", user().public_key())]);
    // Without the tag nothing would be left to allow, and that would be everything.
    assert_eq!(enter(&open, &sign(&account(5), claims(&[])), 1).err(), Some(AuthError::BadScope));
    let mut own = claims(&["team:blue"]);
    own["nats"]["pub"] = json!({ "allow": ["mine"] });
    assert_eq!(enter(&open, &sign(&account(5), own), 1).err(), Some(AuthError::BadScope));
}

#[test]
fn a_private_export_needs_a_signed_permission() {
    let exporter = json!({ "exports": [{ "subject": "p.>", "type": "stream", "token_req": true }] });
    let importer = account(3).public_key();
    let permission = |to: &str, subject: &str, by: &KeyPair| {
        let nats = json!({ "type": "activation", "subject": subject, "kind": "stream" });
        sign(by, json!({ "sub": to, "iat": 100, "nats": nats }))
    };
    let bridges = |token: String, revocations: Value| {
        let mut exporter = exporter.clone();
        exporter["exports"][0]["revocations"] = revocations;
        let of = account(2).public_key();
        let import = json!({ "subject": "p.x", "account": of, "type": "stream", "token": token });
        let importer = json!({ "imports": [import] });
        let both = vec![account_jwt(2, "A", 0, exporter), account_jwt(3, "B", 0, importer)];
        directory(both).bridges().len()
    };
    let good = permission(&importer, "p.*", &account(2));
    assert_eq!(bridges(good.clone(), json!({})), 1);
    assert_eq!(bridges(good.clone(), json!({ importer.as_str(): 99 })), 1);
    assert_eq!(bridges(good, json!({ importer.as_str(): 100 })), 0);
    assert_eq!(bridges(String::new(), json!({})), 0);
    assert_eq!(bridges(permission(&importer, "q.*", &account(2)), json!({})), 0);
    assert_eq!(bridges(permission(&importer, "p.*", &account(4)), json!({})), 0);
    assert_eq!(bridges(permission(&account(4).public_key(), "p.*", &account(2)), json!({})), 0);
}

#[test]
fn accounts_count_when_an_operator_signed_them() {
    let (key, _) = account_jwt(2, "APP", 0, json!({}));
    let nats = json!({ "type": "account" });
    let stranger = sign(&key_of_stranger(), json!({ "sub": key, "nats": nats }));
    let untrusted = directory(vec![(key.clone(), stranger)]);
    assert_eq!(untrusted.account_id(&key), None);
    assert_eq!(untrusted.remarks().len(), 1);
    let jwt = sign(&account(2), user_claims(json!({})));
    assert_eq!(enter(&untrusted, &jwt, 1).err(), Some(AuthError::UnknownAccount));
    let spec = |accounts| DirectorySpec {
        operators: Some(OperatorSpec { operators: vec![], accounts, jetstream: true }),
        ..DirectorySpec::default()
    };
    let wrong = Directory::new(&spec(vec![(key.clone(), account_jwt(3, "OTHER", 0, json!({})).1)]));
    assert!(matches!(wrong.map(|_| ()), Err(SpecError::AccountJwt { account, .. }) if account == key));
}

#[test]
fn accounts_share_as_much_as_they_may() {
    let export = |subject: &str| json!({ "subject": subject, "type": "stream" });
    let import = json!({ "subject": "x", "account": account(3).public_key(), "type": "stream" });
    let cases = [
        (json!({ "exports": [export("a"), export("b.>")], "limits": { "exports": 2 } }), true),
        (json!({ "exports": [export("a"), export("b")], "limits": { "exports": 1 } }), false),
        (json!({ "exports": [export("a"), export("b")], "limits": { "exports": -1 } }), true),
        (json!({ "exports": [export("a")], "limits": {} }), false),
        (json!({ "imports": [import], "limits": { "imports": 1 } }), true),
        (json!({ "imports": [import], "limits": { "imports": 0 } }), false),
        (json!({ "exports": [export("a..b")] }), false),
        (json!({ "limits": { "data": 1, "wildcards": false }, "exports": [] }), true),
    ];
    for (nats, is_there) in cases {
        let text = nats.to_string();
        let (key, jwt) = account_jwt(2, "APP", 0, nats);
        let directory = directory(vec![(key.clone(), jwt)]);
        assert_eq!(directory.account_id(&key).is_some(), is_there, "{text}");
        assert!(is_there || directory.remarks().len() == 1, "{text}: {:?}", directory.remarks());
    }
}

fn key_of_stranger() -> KeyPair {
    key(KeyPairType::Operator, 8)
}

#[test]
fn jetstream_is_for_accounts_with_storage() {
    let limits = |limits: Value| {
        let (key, jwt) = account_jwt(2, "APP", 0, json!({ "limits": limits }));
        let directory = directory(vec![(key.clone(), jwt)]);
        directory.account(directory.account_id(&key).unwrap()).unwrap().jetstream
    };
    assert_eq!(limits(json!({})), None);
    let some = limits(json!({ "disk_storage": 10, "streams": 3 })).unwrap();
    assert_eq!((some.max_storage, some.max_memory, some.max_streams, some.max_consumers), (10, 0, 3, -1));
    let tiered = json!({ "tiered_limits": { "R1": { "mem_storage": -1 }, "R3": { "disk_storage": 5 } } });
    let tiered = limits(tiered).unwrap();
    assert_eq!((tiered.max_memory, tiered.max_storage), (-1, 0));
}

#[test]
fn networks_have_addresses() {
    for (network, host, want) in [
        ("10.0.0.0/8", "10.1.2.3", true),
        ("10.0.0.0/8", "11.1.2.3", false),
        ("0.0.0.0/0", "11.1.2.3", true),
        ("10.1.2.3/32", "10.1.2.3", true),
        ("10.1.2.3/33", "10.1.2.3", false),
        ("10.0.0.0/8", "::ffff:10.1.2.3", true),
        ("fe80::/10", "fe80::1", true),
        ("fe80::/10", "10.1.2.3", false),
        ("::/0", "fe80::1", true),
        ("10.0.0.0", "10.0.0.0", false),
        ("10.0.0.0/8", "", false),
    ] {
        assert_eq!(contains(network, host), want, "{network} {host}");
    }
}
