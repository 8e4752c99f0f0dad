//! Operator mode in files, and what does not go together with it.

use std::path::Path;

use crate::{ConfErrors, Options, Source};

/// Signed by nobody: whether it counts is another crate's question.
const JWT: &str = "eyJhIjoxfQ.eyJiIjoxfQ.c2ln";

fn load(text: &str) -> Result<Options, ConfErrors> {
    let file = format!("-----BEGIN NATS OPERATOR JWT-----\n{JWT}\n------END NATS OPERATOR JWT------\n");
    let mut read = |path: &Path| match path.to_str() {
        Some("c.conf") => Ok(text.to_owned()),
        Some("op.jwt") => Ok(file.clone()),
        Some("empty.jwt") => Ok(String::new()),
        _ => Err("no such file".to_owned()),
    };
    Options::load(Path::new("c.conf"), &mut Source { read: &mut read, env: &|_: &str| None })
}

#[test]
fn operators_are_jwts_or_files() {
    for text in [format!("operator: {JWT}"), "operator: op.jwt".into(), format!("operators: [ \"{JWT}\" ]")] {
        let options = load(&format!("{text}\nresolver: MEMORY\nresolver_preload {{ ABC: {JWT} }}")).unwrap();
        assert_eq!(options.auth.operators, [JWT], "{text}");
        assert!(options.auth.resolver);
        assert_eq!(options.auth.resolver_preload, [("ABC".to_owned(), JWT.to_owned())]);
    }
}

#[test]
fn what_makes_no_operator_is_refused_with_place() {
    let cases = [
        ("operator: none.jwt", "1:1: error parsing operator JWT: no such file"),
        ("operator: empty.jwt", "1:1: error parsing operator JWT: not a valid JWT"),
        (
            "resolver: URL(http://x)",
            "1:1: \"resolver\" is not supported yet other than MEMORY: put the accounts into resolver_preload",
        ),
        (
            "resolver { type: full }",
            "1:1: \"resolver\" is not supported yet other than MEMORY: put the accounts into resolver_preload",
        ),
        ("resolver_preload: x", "1:1: preload should be a map of account_public_key:account_jwt"),
        ("resolver_preload { A: 1 }", "1:20: preload map value should be a string JWT"),
    ];
    for (text, message) in cases {
        let errors = load(text).unwrap_err();
        assert_eq!(errors.to_string(), format!("c.conf:{message}"), "{text}");
    }
}

#[test]
fn operators_stand_alone() {
    let with =
        |more: &str| load(&format!("operator: {JWT}\n{more}")).unwrap().validate().unwrap_err().to_string();
    let resolver = "operators require an account resolver to be configured";
    let accounts = "operators do not allow Accounts to be configured directly";
    let users = "operators do not allow users to be configured directly";
    for (text, message) in [
        ("", resolver),
        ("resolver: MEMORY\naccounts { A {} }", accounts),
        ("resolver: MEMORY\nmappings { a: b }", accounts),
        ("resolver: MEMORY\nauthorization { users [ { user: a, password: b } ] }", users),
        ("resolver: MEMORY\nauthorization { token: a }", users),
    ] {
        let errors = with(text);
        assert!(errors.lines().any(|line| line == message), "{text}: {errors}");
    }
    let without = load("resolver: MEMORY").unwrap().validate().unwrap_err().to_string();
    assert_eq!(without, "resolver_preload has no effect without an operator");
}
