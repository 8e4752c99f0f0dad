//! Clients of operator mode: they stay as long as their JWTs count.

use data_encoding::BASE64URL_NOPAD;
use hw_auth::OperatorSpec;
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};

use super::*;

fn key(kind: KeyPairType, letter: u8) -> KeyPair {
    KeyPair::new_from_raw(kind, [letter; 32]).unwrap()
}

fn sign(by: &KeyPair, mut claims: Value) -> String {
    claims["iss"] = json!(by.public_key());
    let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
    let signed = format!("{}.{}", part(&json!({ "alg": "ed25519-nkey" })), part(&claims));
    let sig = BASE64URL_NOPAD.encode(&by.sign(signed.as_bytes()).unwrap());
    format!("{signed}.{sig}")
}

/// One account, which counts until that second.
fn spec(exp: i64, revocations: Value) -> DirectorySpec {
    let (operator, account) = (key(KeyPairType::Operator, 1), key(KeyPairType::Account, 2));
    let limits = json!({ "conn": -1, "subs": -1, "payload": -1 });
    let nats = json!({ "type": "account", "limits": limits, "revocations": revocations });
    let claims = json!({ "sub": account.public_key(), "exp": exp, "nats": nats });
    let trusted = json!({ "sub": operator.public_key(), "nats": { "type": "operator" } });
    let operators = OperatorSpec {
        operators: vec![sign(&operator, trusted)],
        accounts: vec![(account.public_key(), sign(&operator, claims))],
        jetstream: false,
    };
    DirectorySpec { operators: Some(operators), ..DirectorySpec::default() }
}

/// A bearer, who counts until that second.
fn bearer(letter: u8, exp: i64) -> String {
    let nats = json!({ "type": "user", "bearer_token": true, "subs": 1 });
    let sub = key(KeyPairType::User, letter).public_key();
    let claims = json!({ "sub": sub, "iat": 1, "exp": exp, "nats": nats });
    format!(r#","jwt":"{}""#, sign(&key(KeyPairType::Account, 2), claims))
}

#[test]
fn clients_go_when_their_time_is_over() {
    for (account, user, seconds, text) in [
        (0, 100, 99, "-ERR 'User Authentication Expired'\r\n"),
        (100, 0, 99, "-ERR 'Account Authentication Expired'\r\n"),
        (100, 50, 49, "-ERR 'User Authentication Expired'\r\n"),
    ] {
        let mut rig = Rig::new(config(Directory::new(&spec(account, json!({}))).unwrap()));
        let conn = rig.connect(1, &bearer(3, user));
        let started = rig.now;
        rig.pass(Span::from_secs(seconds) + Span(-1));
        assert_eq!(rig.hub.closing(conn), None, "{account} {user}");
        rig.read(conn);
        rig.pass(Span(1));
        assert_eq!(rig.read(conn), text);
        assert_eq!(rig.hub.closing(conn), Some(CloseReason::AuthenticationExpired));
        assert_eq!(rig.now.since(started), Span::from_secs(seconds));
    }
}

#[test]
fn a_reload_takes_users_back() {
    let mut rig = Rig::new(config(Directory::new(&spec(0, json!({}))).unwrap()));
    let (gone, stays) = (rig.connect(1, &bearer(3, 0)), rig.connect(2, &bearer(4, 0)));
    let revoked = json!({ key(KeyPairType::User, 3).public_key(): 1 });
    let next = rig.hub.config.directory.after(&spec(0, revoked)).unwrap();
    rig.hub.set_directory(Arc::new(next));
    assert_eq!(rig.read(gone), "-ERR 'User Authentication Revoked'\r\n");
    assert_eq!(rig.hub.closing(gone), Some(CloseReason::Revocation));
    assert_eq!(rig.ask(stays, "SUB a 1\r\nSUB b 2\r\n"), "-ERR 'maximum subscriptions exceeded'\r\n");
}
