//! The directory: tables of specs and credentials.

use hw_kit::Time;
use nkeys::KeyPair;

use super::*;
use crate::permissions::Allowance;

fn user(name: &str, pass: &str) -> UserSpec {
    let key = UserKey::Password { user: name.into(), pass: pass.into() };
    UserSpec { key, permissions: None, connection_kinds: vec![] }
}

fn nkey(key: &str) -> UserSpec {
    UserSpec { key: UserKey::Nkey(key.into()), permissions: None, connection_kinds: vec![] }
}

fn account(name: &str, users: Vec<UserSpec>) -> AccountSpec {
    AccountSpec { name: name.into(), users, ..AccountSpec::default() }
}

fn userpass<'a>(user: &'a str, pass: &'a str) -> Credentials<'a> {
    Credentials { user: Some(user), pass: Some(pass), ..Credentials::default() }
}

fn token(token: &str) -> Credentials<'_> {
    Credentials { token: Some(token), ..Credentials::default() }
}

const NONE: Credentials<'static> = Credentials {
    user: None,
    pass: None,
    token: None,
    nkey: None,
    sig: None,
    jwt: None,
    now: Time(0),
    host: "",
    kind: ConnectionKind::Standard,
};

fn ask(directory: &Directory, credentials: &Credentials<'_>) -> Result<(u32, String), AuthError> {
    directory.authenticate(credentials, b"nonce").map(|identity| (identity.account.0, identity.user))
}

fn who(account: u32, user: &str) -> Result<(u32, String), AuthError> {
    Ok((account, user.to_owned()))
}

#[test]
fn without_authorization_everybody_is_in_the_global_account() {
    let directory = Directory::default();
    assert!(!directory.auth_required());
    assert!(!directory.needs_nonce());
    assert_eq!(ask(&directory, &NONE), who(0, ""));
    assert_eq!(ask(&directory, &userpass("uu", "x")), who(0, "uu"));
    assert_eq!(ask(&directory, &token("x")), who(0, ""));
    assert_eq!(directory.account(AccountId::GLOBAL).unwrap().name, "$G");
    assert!(directory.account(AccountId::GLOBAL).unwrap().jetstream.is_some());
    assert_eq!(directory.account(AccountId::SYSTEM).unwrap().name, "$SYS");
    assert_eq!(directory.account(AccountId(2)), None);
}

#[test]
fn single_user() {
    let login = Some(Login::User { user: "a".into(), pass: "b".into() });
    let directory = Directory::new(&DirectorySpec { login, ..DirectorySpec::default() }).unwrap();
    assert!(directory.auth_required());
    assert_eq!(ask(&directory, &userpass("a", "b")), who(0, "a"));
    assert_eq!(ask(&directory, &Credentials { token: Some("zz"), ..userpass("a", "b") }), who(0, "a"));
    assert_eq!(ask(&directory, &NONE), Err(AuthError::NoCredentials));
    assert_eq!(ask(&directory, &userpass("", "b")), Err(AuthError::NoCredentials));
    assert_eq!(ask(&directory, &userpass("c", "b")), Err(AuthError::UnknownUser));
    assert_eq!(ask(&directory, &userpass("a", "")), Err(AuthError::WrongPassword));
    assert_eq!(ask(&directory, &token("b")), Err(AuthError::NoCredentials));

    let login = Some(Login::User { user: "a".into(), pass: String::new() });
    let directory = Directory::new(&DirectorySpec { login, ..DirectorySpec::default() }).unwrap();
    assert_eq!(ask(&directory, &Credentials { user: Some("a"), ..NONE }), who(0, "a"));
    assert_eq!(ask(&directory, &userpass("a", "x")), Err(AuthError::WrongPassword));
}

#[test]
fn single_token() {
    for secret in ["tt".to_owned(), bcrypt::hash("tt", 4).unwrap()] {
        let login = Some(Login::Token(secret.clone()));
        let directory = Directory::new(&DirectorySpec { login, ..DirectorySpec::default() }).unwrap();
        assert_eq!(directory.takes_long(&token("tt")), secret != "tt");
        assert_eq!(ask(&directory, &token("tt")), who(0, "[REDACTED]"));
        assert_eq!(ask(&directory, &token("t")), Err(AuthError::WrongToken));
        assert_eq!(ask(&directory, &NONE), Err(AuthError::NoCredentials));
        assert_eq!(ask(&directory, &userpass("tt", "tt")), Err(AuthError::NoCredentials));
    }
}

#[test]
fn users_of_accounts() {
    let spec = DirectorySpec {
        users: vec![user("x", "q")],
        accounts: vec![
            account("A", vec![user("a", "b"), user("h", &bcrypt::hash("pw", 4).unwrap())]),
            account("$SYS", vec![user("s", "s")]),
            account("B", vec![]),
        ],
        ..DirectorySpec::default()
    };
    let directory = Directory::new(&spec).unwrap();
    assert!(directory.auth_required());
    let names: Vec<&str> = directory.accounts().map(|(_, account)| account.name.as_str()).collect();
    assert_eq!(names, ["$G", "$SYS", "A", "B"]);
    assert_eq!(directory.account_id("B"), Some(AccountId(3)));
    assert_eq!(directory.system_account(), Some(AccountId(1)));
    let cases = [
        (userpass("x", "q"), who(0, "x")),
        (userpass("s", "s"), who(1, "s")),
        (userpass("a", "b"), who(2, "a")),
        (userpass("h", "pw"), who(2, "h")),
        (userpass("h", "pv"), Err(AuthError::WrongPassword)),
        (userpass("a", "q"), Err(AuthError::WrongPassword)),
        (userpass("z", "q"), Err(AuthError::UnknownUser)),
        (userpass("", "q"), Err(AuthError::UnknownUser)),
        (token("q"), Err(AuthError::UnknownUser)),
        (NONE, Err(AuthError::NoCredentials)),
    ];
    for (credentials, answer) in cases {
        assert_eq!(ask(&directory, &credentials), answer, "{credentials:?}");
    }
    assert!(directory.takes_long(&userpass("h", "")));
    assert!(!directory.takes_long(&userpass("a", "")));
}

#[test]
fn no_auth_user() {
    let spec = DirectorySpec {
        accounts: vec![account("A", vec![user("a", "b")])],
        no_auth_user: Some("a".into()),
        ..DirectorySpec::default()
    };
    let directory = Directory::new(&spec).unwrap();
    assert!(!directory.auth_required());
    let cases = [
        (NONE, who(2, "a")),
        (Credentials { nkey: Some("x"), ..NONE }, who(2, "a")),
        (Credentials { jwt: Some("x"), ..NONE }, who(2, "a")),
        (Credentials { sig: Some("x"), ..NONE }, who(2, "a")),
        (userpass("a", "c"), Err(AuthError::WrongPassword)),
        (Credentials { user: Some("a"), ..NONE }, Err(AuthError::WrongPassword)),
        (Credentials { pass: Some("q"), ..NONE }, Err(AuthError::UnknownUser)),
        (token("x"), Err(AuthError::UnknownUser)),
    ];
    for (credentials, answer) in cases {
        assert_eq!(ask(&directory, &credentials), answer, "{credentials:?}");
    }
}

#[test]
fn system_users_alone_leave_the_server_open() {
    for system in ["$SYS", "A"] {
        let spec = DirectorySpec {
            accounts: vec![account(system, vec![user("s", "s")])],
            system_account: (system != "$SYS").then(|| system.to_owned()),
            ..DirectorySpec::default()
        };
        let directory = Directory::new(&spec).unwrap();
        assert!(!directory.auth_required());
        assert_eq!(directory.account(AccountId::SYSTEM).unwrap().name, system);
        assert_eq!(ask(&directory, &NONE), who(0, ""));
        assert_eq!(ask(&directory, &userpass("s", "s")), who(1, "s"));
        assert_eq!(ask(&directory, &userpass("s", "t")), Err(AuthError::WrongPassword));
    }
}

#[test]
fn no_system_account() {
    let spec = DirectorySpec { no_system_account: true, ..DirectorySpec::default() };
    assert_eq!(Directory::new(&spec).unwrap().system_account(), None);
}

#[test]
fn nkey_users_sign_the_nonce() {
    let (key, other) = (KeyPair::new_user(), KeyPair::new_user());
    let public = key.public_key();
    let spec = DirectorySpec {
        accounts: vec![account("A", vec![nkey(&public), user("a", "b")])],
        ..DirectorySpec::default()
    };
    let directory = Directory::new(&spec).unwrap();
    assert!(directory.needs_nonce());
    let sign = |key: &KeyPair, nonce: &[u8]| key.sign(nonce).unwrap();
    let good = BASE64URL_NOPAD.encode(&sign(&key, b"nonce"));
    let padded = BASE64.encode(&sign(&key, b"nonce"));
    let old = BASE64URL_NOPAD.encode(&sign(&key, b"other nonce"));
    let foreign = BASE64URL_NOPAD.encode(&sign(&other, b"nonce"));
    let cases = [
        (Some(good.as_str()), who(2, &public)),
        (Some(padded.as_str()), who(2, &public)),
        (Some(old.as_str()), Err(AuthError::BadSignature)),
        (Some(foreign.as_str()), Err(AuthError::BadSignature)),
        (Some("AAAA"), Err(AuthError::BadSignature)),
        (Some("not base64 ☃"), Err(AuthError::BadSignature)),
        (None, Err(AuthError::BadSignature)),
    ];
    for (sig, answer) in cases {
        assert_eq!(ask(&directory, &Credentials { nkey: Some(&public), sig, ..NONE }), answer, "{sig:?}");
    }
    let unknown = other.public_key();
    let stranger = Credentials { nkey: Some(&unknown), sig: Some(&foreign), ..NONE };
    assert_eq!(ask(&directory, &stranger), Err(AuthError::UnknownNkey));
    assert_eq!(ask(&directory, &userpass("a", "b")), who(2, "a"));
}

#[test]
fn permissions_come_from_the_user_else_the_account() {
    let publish = |subject: &str| {
        let publish = Allowance { allow: vec![subject.to_owned()], deny: vec![] };
        Some(PermissionsSpec { publish, ..PermissionsSpec::default() })
    };
    let own = UserSpec { permissions: publish("own"), ..user("own", "p") };
    let spec = DirectorySpec {
        users: vec![user("global", "p")],
        default_permissions: publish("server"),
        accounts: vec![
            AccountSpec {
                default_permissions: publish("account"),
                ..account("A", vec![own, user("plain", "p")])
            },
            account("B", vec![user("bare", "p")]),
        ],
        ..DirectorySpec::default()
    };
    let directory = Directory::new(&spec).unwrap();
    let cases =
        [("own", Some("own")), ("plain", Some("account")), ("bare", None), ("global", Some("server"))];
    for (name, subject) in cases {
        let identity = directory.authenticate(&userpass(name, "p"), b"").unwrap();
        let allowed = identity.permissions.map(|permissions| permissions.publish.allow.clone());
        assert_eq!(allowed, subject.map(|subject| vec![subject.to_owned()]), "{name}");
    }
}

#[test]
fn connection_kinds() {
    let spec = DirectorySpec {
        users: vec![UserSpec { connection_kinds: vec![ConnectionKind::Websocket], ..user("w", "p") }],
        ..DirectorySpec::default()
    };
    let directory = Directory::new(&spec).unwrap();
    assert_eq!(ask(&directory, &userpass("w", "p")), Err(AuthError::ConnectionKindNotAllowed));
    let websocket = Credentials { kind: ConnectionKind::Websocket, ..userpass("w", "p") };
    assert_eq!(ask(&directory, &websocket), who(0, "w"));
}

#[test]
fn specs_that_are_refused() {
    let a = || account("A", vec![user("a", "b")]);
    let login = || Some(Login::User { user: "l".into(), pass: "p".into() });
    let account_key = KeyPair::new_account().public_key();
    let key = KeyPair::new_user().public_key();
    let cases = [
        (
            DirectorySpec { users: vec![user("a", "c")], accounts: vec![a()], ..DirectorySpec::default() },
            SpecError::DuplicateUser { user: "a".into() },
        ),
        (
            DirectorySpec { users: vec![nkey(&key), nkey(&key)], ..DirectorySpec::default() },
            SpecError::DuplicateNkey { nkey: key.clone() },
        ),
        (
            DirectorySpec { users: vec![nkey("UBAD")], ..DirectorySpec::default() },
            SpecError::BadNkey { nkey: "UBAD".into() },
        ),
        (
            DirectorySpec { users: vec![nkey(&account_key)], ..DirectorySpec::default() },
            SpecError::BadNkey { nkey: account_key.clone() },
        ),
        (
            DirectorySpec { login: login(), accounts: vec![a()], ..DirectorySpec::default() },
            SpecError::LoginAndUsers,
        ),
        (
            DirectorySpec {
                accounts: vec![account("A", vec![]), account("A", vec![])],
                ..DirectorySpec::default()
            },
            SpecError::DuplicateAccount { account: "A".into() },
        ),
        (
            DirectorySpec { accounts: vec![account("$G", vec![])], ..DirectorySpec::default() },
            SpecError::ReservedAccount { account: "$G".into() },
        ),
        (
            DirectorySpec { accounts: vec![a()], no_auth_user: Some("z".into()), ..DirectorySpec::default() },
            SpecError::NoAuthUserUnknown { user: "z".into() },
        ),
        (
            DirectorySpec { login: login(), no_auth_user: Some("l".into()), ..DirectorySpec::default() },
            SpecError::NoAuthUserWithoutUsers { user: "l".into() },
        ),
        (
            DirectorySpec {
                accounts: vec![a()],
                system_account: Some("B".into()),
                ..DirectorySpec::default()
            },
            SpecError::SystemAccountMissing { account: "B".into() },
        ),
    ];
    for (spec, error) in cases {
        assert_eq!(Directory::new(&spec).err(), Some(error));
    }
}
