//! Which imports are let in, and where their bridges lead.

use super::*;

fn account(name: &str, exports: Vec<ExportSpec>, imports: Vec<ImportSpec>) -> AccountSpec {
    AccountSpec { name: name.into(), exports, imports, ..AccountSpec::default() }
}

fn export(shared: Shared, subject: &str) -> ExportSpec {
    ExportSpec {
        shared,
        subject: subject.into(),
        accounts: None,
        activation_required: false,
        account_token_position: 0,
        response: ResponseType::Single,
        threshold: Span::ZERO,
    }
}

fn import(shared: Shared, account: &str, subject: &str, to: Option<&str>) -> ImportSpec {
    let to = to.map(str::to_owned);
    let (account, subject) = (account.into(), subject.into());
    ImportSpec { shared, account, subject, to, prefix: None, share: false, activated: false }
}

fn build(accounts: &[AccountSpec]) -> Result<Vec<Bridge>, String> {
    let number = |name: &str| {
        let at = accounts.iter().position(|account| account.name == name)?;
        Some(AccountId(at as u32))
    };
    bridges(accounts, number, Err).map_err(|error| error.to_string())
}

/// A exports, B has the import; the other accounts stand by.
fn refusal(import: ImportSpec) -> String {
    let exports = vec![
        export(Shared::Stream, "p.>"),
        export(Shared::Service, "s"),
        export(Shared::Service, "w.*.*"),
        ExportSpec { accounts: Some(vec!["C".into()]), ..export(Shared::Stream, "private") },
        ExportSpec { account_token_position: 2, ..export(Shared::Service, "tok.*") },
    ];
    let accounts =
        [account("A", exports, vec![]), account("B", vec![], vec![import]), account("C", vec![], vec![])];
    build(&accounts).err().unwrap_or_default()
}

#[test]
fn bridges_lead_from_where_messages_are_published() {
    let exports = vec![export(Shared::Stream, "p.>"), export(Shared::Service, "s.*")];
    let imports = vec![
        ImportSpec { prefix: Some("from".into()), ..import(Shared::Stream, "A", "p.>", None) },
        import(Shared::Service, "A", "s.x", Some("their.s")),
    ];
    let bridges = build(&[account("A", exports, vec![]), account("B", vec![], imports)]).unwrap();
    let [stream, service] = &bridges[..] else { panic!("{bridges:?}") };
    assert_eq!((stream.from, stream.to, stream.kind), (AccountId(0), AccountId(1), BridgeKind::Stream));
    assert_eq!(stream.subject(b"p.a").as_deref(), Some(&b"from.p.a"[..]));
    assert_eq!((service.from, service.to), (AccountId(1), AccountId(0)));
    assert_eq!(service.filter.as_str(), "their.s");
    assert_eq!(service.subject(b"their.s").as_deref(), Some(&b"s.x"[..]));
    let single = ResponseType::Single;
    let kind = BridgeKind::Service { share: false, response: single, threshold: RESPONSE_THRESHOLD };
    assert_eq!(service.kind, kind);
}

#[test]
fn imports_are_refused_in_the_words_of_nats() {
    use Shared::{Service, Stream};
    let cases = [
        (import(Stream, "A", "p.x", None), ""),
        (import(Service, "A", "w.*.*", Some("b.$2.$1")), ""),
        (import(Service, "A", "tok.B", None), ""),
        (import(Stream, "Z", "p.x", None), r#""Z" account not defined for stream import"#),
        (import(Service, "Z", "p.x", None), r#""Z" account not defined for service import"#),
        (
            import(Stream, "A", "q.x", None),
            r#"Error adding stream import "q.x": stream import not authorized"#,
        ),
        (
            import(Service, "A", "p.x", None),
            r#"Error adding service import "p.x": service import not authorized"#,
        ),
        (
            import(Stream, "A", "private", None),
            r#"Error adding stream import "private": stream import not authorized"#,
        ),
        (
            import(Service, "A", "tok.C", None),
            r#"Error adding service import "tok.C": service import not authorized"#,
        ),
        (
            ImportSpec { prefix: Some("a.*".into()), ..import(Stream, "A", "p.x", None) },
            r#"Error adding stream import "p.x": stream import prefix can not contain wildcard tokens"#,
        ),
        (
            import(Stream, "A", "p.*", Some("b")),
            r#"Error adding stream import "p.*": failed to create mapping transform for stream import subject from "p.*" to "b": invalid mapping destination: not using all of the token wildcard(s) in b"#,
        ),
        (
            import(Service, "A", "w.*.*", Some("b.$1")),
            r#"Error adding service import "w.*.*": failed to create mapping transform for service import subject from "b.$1" to "w.*.*": invalid mapping destination: not using all of the token wildcard(s) in b.$1"#,
        ),
    ];
    for (import, want) in cases {
        let name = format!("{import:?}");
        assert_eq!(refusal(import), want, "{name}");
    }
}

#[test]
fn circles_are_refused() {
    use Shared::{Service, Stream};
    let two = |shared| {
        let a = account("A", vec![export(shared, "a")], vec![import(shared, "B", "b", Some("a"))]);
        let b = account("B", vec![export(shared, "b")], vec![import(shared, "A", "a", Some("b"))]);
        build(&[a, b]).err().unwrap_or_default()
    };
    assert_eq!(two(Stream), r#"Error adding stream import "a": import forms a cycle"#);
    assert_eq!(two(Service), r#"Error adding service import "a": import forms a cycle"#);
    // One's own export under another name leads nowhere else.
    let own = account("A", vec![export(Service, "a")], vec![import(Service, "A", "a", Some("x"))]);
    assert_eq!(build(&[own]).err(), None);
}

#[test]
fn exports_are_checked() {
    let to = |accounts: &[&str]| ExportSpec {
        accounts: Some(accounts.iter().map(|name| (*name).to_owned()).collect()),
        ..export(Shared::Stream, "x")
    };
    let position =
        |at, subject| ExportSpec { account_token_position: at, ..export(Shared::Service, subject) };
    let cases = [
        (to(&["A"]), ""),
        (to(&["Q"]), r#""Q" account not defined for stream export"#),
        (position(2, "a.*"), ""),
        (position(2, "a.b"), r#"Error adding service export "a.b": sublist: invalid subject"#),
        (position(5, "a.*"), r#"Error adding service export "a.*": sublist: invalid subject"#),
    ];
    for (export, want) in cases {
        let name = format!("{export:?}");
        assert_eq!(build(&[account("A", vec![export], vec![])]).err().unwrap_or_default(), want, "{name}");
    }
}
