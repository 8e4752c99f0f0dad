//! Bridges between accounts: on one shard and over several.

use hw_auth::{AccountSpec, ExportSpec, ImportSpec, RESPONSE_THRESHOLD, ResponseType, Shared};

use super::shards::Cluster;
use super::*;

fn account(name: &str, exports: Vec<ExportSpec>, imports: Vec<ImportSpec>) -> AccountSpec {
    let key = UserKey::Password { user: name.to_lowercase(), pass: "p".into() };
    let users = vec![UserSpec { key, permissions: None, connection_kinds: vec![] }];
    AccountSpec { name: name.into(), users, exports, imports, ..AccountSpec::default() }
}

fn export(shared: Shared, subject: &str) -> ExportSpec {
    ExportSpec {
        shared,
        subject: subject.into(),
        accounts: None,
        activation_required: false,
        account_token_position: 0,
        response: ResponseType::Single,
        threshold: RESPONSE_THRESHOLD,
    }
}

fn import(shared: Shared, account: &str, subject: &str, to: &str) -> ImportSpec {
    let (account, subject, to) = (account.into(), subject.into(), Some(to.into()));
    ImportSpec { shared, account, subject, to, prefix: None, share: false, activated: false }
}

/// A exports the stream `s` and the service `svc`, B imports them as `b.s` and `b.svc`.
fn directory() -> Directory {
    let exports = vec![export(Shared::Stream, "s"), export(Shared::Service, "svc")];
    let imports = vec![import(Shared::Stream, "A", "s", "b.s"), import(Shared::Service, "A", "svc", "b.svc")];
    let accounts = vec![account("A", exports, vec![]), account("B", vec![], imports)];
    Directory::new(&DirectorySpec { accounts, ..DirectorySpec::default() }).unwrap()
}

fn login(user: &str) -> String {
    format!(r#","user":"{user}","pass":"p""#)
}

/// The second word of the first line.
fn reply_of(text: &str) -> String {
    text.split_whitespace().nth(3).unwrap_or_default().to_owned()
}

#[test]
fn an_answer_finds_back_over_other_shards() {
    let mut c = Cluster::with(3, config(directory()));
    let service = c.rigs[1].connect(1, &login("a"));
    let asker = c.rigs[2].connect(2, &login("b"));
    let other = c.rigs[0].connect(3, &login("b"));
    c.rigs[1].send(service, "SUB svc 1\r\n");
    c.rigs[2].send(asker, "SUB in 1\r\n");
    c.rigs[0].send(other, "SUB in 1\r\n");
    c.settle();
    c.rigs[2].send(asker, "PUB b.svc in 2\r\nhi\r\n");
    c.settle();
    let got = c.rigs[1].read(service);
    let reply = reply_of(&got);
    assert!(got.starts_with("HMSG svc 1 _R_.") || got.starts_with("MSG svc 1 _R_."), "{got}");
    c.rigs[1].send(service, format!("PUB {reply} 3\r\nyes\r\n"));
    c.settle();
    assert_eq!(c.rigs[2].read(asker), "MSG in 1 3\r\nyes\r\n");
    // Whoever listens in the asker's account hears it, wherever it is.
    assert_eq!(c.rigs[0].read(other), "MSG in 1 3\r\nyes\r\n");
    c.rigs[1].send(service, format!("PUB {reply} 3\r\nyes\r\n"));
    c.settle();
    assert_eq!(c.rigs[2].read(asker), "");
}

#[test]
fn a_stream_crosses_once() {
    let mut c = Cluster::with(3, config(directory()));
    let publisher = c.rigs[0].connect(1, &login("a"));
    let subs = [0, 1, 2].map(|shard| (shard, c.rigs[shard].connect(2 + shard as u64, &login("b"))));
    for (shard, conn) in subs {
        c.rigs[shard].send(conn, "SUB b.s 1\r\n");
    }
    c.settle();
    c.rigs[0].send(publisher, "PUB s 1\r\nx\r\n");
    c.settle();
    for (shard, conn) in subs {
        assert_eq!(c.rigs[shard].read(conn), "MSG b.s 1 1\r\nx\r\n", "shard {shard}");
    }
}

#[test]
fn interest_behind_a_bridge_counts() {
    let mut rig = Rig::new(config(directory()));
    let id = |name: &str| rig.hub.config.directory.account_id(name).unwrap();
    let (a, b) = (id("A"), id("B"));
    assert!(!rig.hub.has_interest(a, b"s"));
    // A service is there for whoever asks.
    assert!(rig.hub.has_interest(b, b"b.svc") && !rig.hub.has_interest(b, b"b.s"));
    let listener = rig.connect(1, &login("b"));
    rig.send(listener, "SUB b.s 1\r\nSUB in 2\r\n");
    assert!(rig.hub.has_interest(a, b"s"));
    let service = rig.connect(2, &login("a"));
    rig.send(service, "SUB svc 1\r\n");
    rig.send(listener, "PUB b.svc in 2\r\nhi\r\n");
    let reply = reply_of(&rig.read(service));
    assert!(rig.hub.has_interest(a, reply.as_bytes()));
    rig.send(listener, "UNSUB 1\r\nUNSUB 2\r\n");
    assert!(!rig.hub.has_interest(a, b"s") && !rig.hub.has_interest(a, reply.as_bytes()));
}

#[test]
fn a_reload_moves_the_bridges() {
    let mut rig = Rig::new(config(directory()));
    let (publisher, listener) = (rig.connect(1, &login("a")), rig.connect(2, &login("b")));
    rig.send(listener, "SUB b.> 1\r\n");
    // Another order of the accounts: their numbers stay.
    let exports = vec![export(Shared::Stream, "s")];
    let imports = vec![import(Shared::Stream, "A", "s", "b.t")];
    let accounts =
        vec![account("B", vec![], imports), account("C", vec![], vec![]), account("A", exports, vec![])];
    let next =
        rig.hub.config.directory.after(&DirectorySpec { accounts, ..DirectorySpec::default() }).unwrap();
    rig.hub.set_directory(Arc::new(next));
    rig.send(publisher, "PUB s 1\r\nx\r\n");
    assert_eq!(rig.read(listener), "MSG b.t 1 1\r\nx\r\n");
    let accounts = vec![account("A", vec![], vec![])];
    let next =
        rig.hub.config.directory.after(&DirectorySpec { accounts, ..DirectorySpec::default() }).unwrap();
    rig.hub.set_directory(Arc::new(next));
    assert_eq!(rig.hub.closing(listener), Some(CloseReason::MissingAccount));
    rig.send(publisher, "PUB s 1\r\nx\r\nPING\r\n");
    assert!(rig.read(publisher).starts_with("PONG\r\n"));
}
