//! Embedded servers that form a cluster: TLS between them, made-up names, routes that change, a server that goes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use headwater::{Builder, Server};
use hw_conf::{ClusterOptions, Listen, Options, TlsOptions};
use hw_wire::Info;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};

const PATIENCE: Duration = Duration::from_secs(20);

fn options(name: &str, cluster: Option<&str>, routes: &[&Server]) -> Options {
    let mut options = Options::default();
    options.server.name = Some(name.to_owned());
    options.server.listen = Listen { host: "127.0.0.1".to_owned(), port: 0 };
    options.cluster = Some(ClusterOptions {
        name: cluster.map(str::to_owned),
        listen: Some(Listen { host: "127.0.0.1".to_owned(), port: 0 }),
        routes: routes.iter().map(|server| route_to(server)).collect(),
        ..ClusterOptions::default()
    });
    options
}

fn route_to(server: &Server) -> String {
    server.ports().cluster.first().cloned().expect("it is in a cluster")
}

fn start(options: &Options) -> Server {
    Builder::from_options(options.clone()).start().expect("it starts")
}

fn info(server: &Server) -> Info {
    let stream = TcpStream::connect(server.address()).expect("it listens");
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).expect("it speaks");
    Info::parse(line.trim().strip_prefix("INFO ").expect("INFO first").as_bytes()).expect("JSON")
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

fn until_members(server: &Server, count: usize) {
    until(&format!("{count} members"), || info(server).connect_urls.len() == count);
}

#[test]
fn made_up_names_become_one_and_members_come_and_go() {
    let first = start(&options("a", None, &[]));
    let second = start(&options("b", None, &[&first]));
    let third = start(&options("c", None, &[&second]));
    for server in [&first, &second, &third] {
        until_members(server, 3);
    }
    until("one name", || {
        let names = [&first, &second, &third].map(|server| info(server).cluster);
        !names[0].is_empty() && names.iter().all(|name| *name == names[0])
    });
    second.shutdown();
    until_members(&first, 2);
    until_members(&third, 2);
}

#[test]
fn routes_are_reloaded() {
    let first = start(&options("a", Some("c"), &[]));
    let second = start(&options("b", Some("c"), &[]));
    let mut set = options("d", Some("c"), &[&first]);
    let mut third = start(&set);
    until_members(&third, 2);
    assert_eq!(info(&second).connect_urls.len(), 1);
    if let Some(cluster) = &mut set.cluster {
        cluster.routes.push(route_to(&second));
    }
    third.reload(set.clone()).expect("routes can change");
    for server in [&first, &second, &third] {
        until_members(server, 3);
    }
    if let Some(cluster) = &mut set.cluster {
        cluster.no_advertise = true;
    }
    let refused = third.reload(set).expect_err("the rest cannot").to_string();
    assert_eq!(refused, "config reload not supported for cluster");
}

#[test]
fn who_hides_its_clients_addresses_names_none() {
    let mut shy = options("a", Some("c"), &[]);
    if let Some(cluster) = &mut shy.cluster {
        cluster.no_advertise = true;
    }
    let shy = start(&shy);
    let open = start(&options("b", Some("c"), &[&shy]));
    let other = start(&options("d", Some("c"), &[&shy]));
    until_members(&open, 2);
    until_members(&other, 2);
    let own = shy.address().to_string();
    assert!(!info(&open).connect_urls.contains(&own));
    assert_eq!(info(&shy).connect_urls, [""; 0], "nor does it name the others, or itself");
}

/// Certificates in a folder that goes with it.
struct Certificates(PathBuf);

impl Certificates {
    fn new(name: &str) -> Certificates {
        let folder = std::env::temp_dir().join(format!("headwater-cluster-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let mut authority = CertificateParams::new(Vec::new()).expect("no names");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(authority, key).expect("an authority");
        let key = KeyPair::generate().expect("a key");
        let names = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
        let certificate = names.signed_by(&key, &issuer).expect("a certificate");
        let files = [
            ("ca.pem", issuer.pem()),
            ("server.pem", certificate.pem()),
            ("server.key", key.serialize_pem()),
        ];
        for (name, text) in files {
            std::fs::write(folder.join(name), text).expect("a file");
        }
        Certificates(folder)
    }

    fn secure(&self, mut options: Options) -> Options {
        let file = |name: &str| Some(self.0.join(name));
        if let Some(cluster) = &mut options.cluster {
            cluster.tls = Some(TlsOptions {
                cert_file: file("server.pem"),
                key_file: file("server.key"),
                ca_file: file("ca.pem"),
                ..TlsOptions::default()
            });
        }
        options
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn servers_show_each_other_certificates() {
    let (ours, theirs) = (Certificates::new("ours"), Certificates::new("theirs"));
    let first = start(&ours.secure(options("a", Some("c"), &[])));
    let stranger = start(&theirs.secure(options("x", Some("c"), &[&first])));
    let plain = start(&options("p", Some("c"), &[&first]));
    let second = start(&ours.secure(options("b", Some("c"), &[&first])));
    let third = start(&ours.secure(options("d", Some("c"), &[&first])));
    for server in [&first, &second, &third] {
        until_members(server, 3);
    }
    assert_eq!(info(&stranger).connect_urls.len(), 1);
    assert_eq!(info(&plain).connect_urls.len(), 1);
    // Messages pass.
    let talk = |server: &Server, words: &str| {
        let mut stream = TcpStream::connect(server.address()).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a time");
        stream.write_all(words.as_bytes()).expect("it hears");
        stream
    };
    let mut listener = BufReader::new(talk(&second, "CONNECT {\"verbose\":false}\r\nSUB x 1\r\nPING\r\n"));
    let mut line = String::new();
    while !line.starts_with("PONG") {
        line.clear();
        listener.read_line(&mut line).expect("a line");
    }
    let _publisher = talk(&third, "CONNECT {\"verbose\":false}\r\nPUB x 2\r\nhi\r\n");
    let mut got = [0; 15];
    listener.read_exact(&mut got).expect("a message");
    assert_eq!(&got, b"MSG x 1 2\r\nhi\r\n");
    // Who does not begin TLS is told so.
    let address = route_to(&first);
    let mut stream = TcpStream::connect(address.trim_start_matches("nats://")).expect("it listens");
    stream.write_all(b"CONNECT {}\r\n").expect("it hears");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("it ends");
    assert!(said.starts_with("INFO ") && said.contains("-ERR 'Secure Connection - TLS Required'"), "{said}");
}
