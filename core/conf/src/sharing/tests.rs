//! Exports, imports and mappings as files have them, and what is refused.

use std::path::Path;

use hw_auth::{ExportSpec, ImportSpec, MappingSpec, RESPONSE_THRESHOLD, ResponseType, Shared};
use hw_kit::Span;

use crate::{ConfErrors, Options, Source};

fn load(text: &str) -> Result<Options, ConfErrors> {
    let mut source = Source { read: &mut |_: &Path| Ok(text.to_owned()), env: &|_: &str| None };
    Options::load(Path::new("c.conf"), &mut source)
}

#[test]
fn what_accounts_share_is_read() {
    let options = load(
        "accounts {
           A { exports [
             { stream: \"p.>\", accounts: [B] }
             { service: s.*, response_type: Chunked, threshold: 5s, account_token_position: 2 }
           ] }
           B {
             imports [
               { stream { account: A, subject: p.x }, prefix: from }
               { service { account: A, subject: s.B }, to: ours, share: true }
             ]
             mappings { a: b, c: [ { destination: d, weight: 30% }, { dest: e, weight: 20 } ] }
           }
         }
         mappings { w.*: { dest: \"x.$1\", weight: 50 } }",
    )
    .unwrap();
    let [a, b] = &options.auth.accounts[..] else { panic!("two accounts") };
    let stream = ExportSpec {
        shared: Shared::Stream,
        subject: "p.>".into(),
        accounts: Some(vec!["B".into()]),
        activation_required: false,
        account_token_position: 0,
        response: ResponseType::Single,
        threshold: RESPONSE_THRESHOLD,
    };
    let service = ExportSpec {
        shared: Shared::Service,
        subject: "s.*".into(),
        accounts: None,
        activation_required: false,
        account_token_position: 2,
        response: ResponseType::Chunked,
        threshold: Span::from_secs(5),
    };
    assert_eq!(a.exports, [stream, service]);
    let stream = ImportSpec {
        shared: Shared::Stream,
        account: "A".into(),
        subject: "p.x".into(),
        to: None,
        prefix: Some("from".into()),
        share: false,
        activated: false,
    };
    let service = ImportSpec {
        shared: Shared::Service,
        account: "A".into(),
        subject: "s.B".into(),
        to: Some("ours".into()),
        prefix: None,
        share: true,
        activated: false,
    };
    assert_eq!(b.imports, [stream, service]);
    let mapping = |source: &str, destinations: &[(&str, u8)]| MappingSpec {
        source: source.into(),
        destinations: destinations.iter().map(|(to, weight)| ((*to).to_owned(), *weight)).collect(),
    };
    assert_eq!(b.mappings, [mapping("a", &[("b", 100)]), mapping("c", &[("d", 30), ("e", 20)])]);
    assert_eq!(options.auth.mappings, [mapping("w.*", &[("x.$1", 50)])]);
    assert_eq!(options.validate(), Ok(()));
}

#[test]
fn what_cannot_be_shared_is_refused_with_place() {
    let cases = [
        ("exports {}", "exports: expected an array of exports, got a map"),
        ("exports [y]", "Export Items should be a map with type entry, got a string"),
        ("exports [{accounts: [A]}]", "an export needs a stream or a service"),
        ("exports [{stream: x, service: y}]", "Detected service \"y\" but already saw a stream"),
        ("exports [{stream: x, response_type: stream}]", "Detected response directive on non-service"),
        ("exports [{service: x, response_type: foo}]", "Unknown response type: \"foo\""),
        (
            "exports [{service: x, threshold: 5}]",
            "Expected response threshold to be a parseable time duration, got an integer",
        ),
        ("exports [{service: x, latency: l}]", "\"latency\" is not supported yet"),
        ("exports [{service: x, bogus: l}]", "unknown field \"bogus\""),
        ("imports [x]", "Import Items should be a map with type entry, got a string"),
        ("imports [{stream: {account: B}}]", "Expect an account name and a subject"),
        ("imports [{service: foo}]", "Service entry should be an account map, got a string"),
        (
            "imports [{stream: {account: B, subject: x}, prefix: a, to: b}]",
            "Stream import can not have a 'prefix' and a 'to' property",
        ),
        (
            "imports [{service: {account: B, subject: x}, to: k}, {service: {account: B, subject: y}, to: k}]",
            "Duplicate service import subject \"k\", previously used in import for account \"B\", subject \"x\"",
        ),
        (
            "imports [{stream: {account: B, subject: x}, allow_trace: true}]",
            "\"allow_trace\" is not supported yet",
        ),
        ("mappings {\"a..b\": c}", "Subject \"a..b\" is not a valid subject"),
        (
            "mappings {x: [{dest: y, weight: 1}, {dest: y, weight: 1}]}",
            "Error adding mapping for \"x\" : duplicate entry for \"y\"",
        ),
        (
            "mappings {x: [{dest: y, weight: 60}, {dest: z, weight: 60}]}",
            "Error adding mapping for \"x\" : total weight needs to be <= 100",
        ),
        (
            "mappings {w.*: \"q.$2\"}",
            "Error adding mapping for \"w.*\" to \"q.$2\" : invalid mapping destination: wildcard index out of range in $2: [2]",
        ),
        ("mappings {v: {dest: b}}", "Missing weight for mapping destination \"b\""),
        ("mappings {v: {dest: b, weight: 120}}", "Invalid weight 120 for mapping destination"),
        ("mappings {v: {dest: b, weight: x%}}", "Invalid weight \"x\" for mapping destination"),
        ("mappings {v: 5}", "Expected an entry for the mapping destination"),
        ("mappings {v: {foo: 1}}", "Unknown field \"foo\" for mapping destination"),
        (
            "mappings {v: {dest: b, weight: 1, cluster: c}}",
            "\"cluster\" is not supported yet: clustering is not built yet",
        ),
    ];
    for (text, message) in cases {
        let errors = load(&format!("accounts {{A {{{text}}}}}")).unwrap_err().to_string();
        let told = errors.splitn(4, ':').nth(3).map(str::trim_start);
        assert_eq!(told, Some(message), "{text}: {errors}");
    }
}
