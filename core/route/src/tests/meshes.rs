//! Who gets linked with whom, and how links end.

use super::*;

fn second(seconds: i64) -> Span {
    Span::from_secs(seconds)
}

#[test]
fn all_find_each_other_through_one() {
    let mut world = World::cluster(4);
    world.run(second(2));
    for (at, wanted) in
        [(0, ["s1", "s2", "s3"]), (1, ["s0", "s2", "s3"]), (2, ["s0", "s1", "s3"]), (3, ["s0", "s1", "s2"])]
    {
        assert_eq!(world.peers(at), wanted, "{}", world.remarks(at));
        assert_eq!(world.servers[at].downs, [], "nothing was linked twice");
    }
    let (urls, _) = world.servers[3].mesh.client_urls();
    assert_eq!(urls.len(), 3);
    assert!(world.servers[0].links.values().any(|peer| peer.node == NodeId(102)));
}

#[test]
fn those_who_dial_each_other_have_one_link() {
    let configs = vec![config("c", 0, &[0, 1, 2]), config("c", 1, &[0, 1, 2]), config("c", 2, &[0, 1, 2])];
    let mut world = World::new(configs);
    world.run(second(3));
    for at in 0..3 {
        assert_eq!(world.peers(at).len(), 2);
        assert_eq!(world.servers[at].downs, []);
        let views = world.servers[at].mesh.links();
        assert!(views.iter().all(|view| view.configured), "{views:?}");
    }
}

#[test]
fn bodies_of_any_size_arrive_in_order() {
    let mut world = World::cluster(2);
    world.run(second(1));
    let link = *world.servers[0].links.keys().next().unwrap();
    let sizes = [0, 1, 131_072, 131_073, 1_000_000];
    for (at, size) in sizes.iter().enumerate() {
        let channel = if at % 2 == 0 { Channel::Hub } else { Channel::Js };
        let now = world.now;
        world.servers[0].mesh.handle_send(now, link, channel, vec![at as u8; *size].into());
    }
    world.run(second(1));
    let got: Vec<(usize, Channel)> =
        world.servers[1].received.iter().map(|(_, channel, body)| (body.len(), *channel)).collect();
    let wanted = [Channel::Hub, Channel::Js, Channel::Hub, Channel::Js, Channel::Hub];
    assert_eq!(got, sizes.into_iter().zip(wanted).collect::<Vec<_>>());
    assert!(
        world.servers[1]
            .received
            .iter()
            .enumerate()
            .all(|(at, (_, _, body))| body.iter().all(|b| *b == at as u8))
    );
}

#[test]
fn links_are_compressed_where_one_side_wants_it_and_the_other_lets_it() {
    for (first, second_one, wanted) in [
        (Compression::Accept, Compression::Accept, ["off", "off"]),
        (Compression::Accept, Compression::Best, ["s2_best", "s2_best"]),
        (Compression::Off, Compression::Best, ["off", "off"]),
    ] {
        let with = |number, compression| MeshConfig { compression, ..config("c", number, &[0]) };
        let mut world = World::new(vec![with(0, first), with(1, second_one)]);
        world.run(second(1));
        let sent = |world: &World| world.servers[0].mesh.links()[0].out_bytes;
        let before = sent(&world);
        let link = *world.servers[0].links.keys().next().unwrap();
        let body = bytes::Bytes::from(b"orders.new ".repeat(30_000));
        let now = world.now;
        world.servers[0].mesh.handle_send(now, link, Channel::Hub, body.clone());
        world.settle();
        assert_eq!(world.servers[1].received.last().unwrap().2, body);
        assert_eq!([0, 1].map(|at| world.servers[at].mesh.links()[0].compression.name()), wanted);
        assert_eq!(sent(&world) - before < body.len() as u64 / 4, wanted[0] != "off");
    }
}

#[test]
fn too_much_that_waits_breaks_the_link() {
    let mut world = World::cluster(2);
    world.run(second(1));
    let link = *world.servers[0].links.keys().next().unwrap();
    let now = world.now;
    for _ in 0..65 {
        world.servers[0].mesh.handle_send(now, link, Channel::Hub, vec![0; 1 << 20].into());
    }
    world.settle();
    assert_eq!(world.servers[0].downs, [(link, LinkDown::Closed)]);
    world.run(second(1));
    assert_eq!(world.peers(0), ["s1"], "it is dialled again");
}

#[test]
fn a_dead_process_is_told_from_a_lost_connection() {
    let mut world = World::cluster(3);
    world.run(second(1));
    let link = *world.servers[1].links.iter().find(|(_, peer)| peer.name == "s2").unwrap().0;
    world.kill(2);
    world.run(Span::from_millis(1));
    assert_eq!(world.servers[1].downs, [(link, LinkDown::Closed), (link, LinkDown::Refused)]);
    assert_eq!(world.servers[0].downs.len(), 2);
    assert_eq!(world.peers(1), ["s0"]);
}

/// A machine that lost its power says no farewell: its server comes back before the others noticed.
#[test]
fn a_server_that_was_started_again_replaces_its_last_life() {
    let mut world = World::new(vec![config("c", 0, &[]), config("c", 1, &[0]), config("c", 2, &[0])]);
    world.servers[2].alive = false;
    world.run(second(1));
    let old = *world.servers[0].links.keys().next().unwrap();
    world.servers[1].alive = false;
    let mut third = config("c", 1, &[0]);
    third.server_id = "N1again".to_owned();
    world.servers[2].mesh = Mesh::new(world.now, third);
    world.servers[2].alive = true;
    world.run(Span::from_millis(300));
    assert_eq!(world.peers(0), ["s1"]);
    assert_eq!(world.servers[0].downs[0], (old, LinkDown::Closed));
    assert_eq!(world.servers[0].links.values().next().unwrap().server_id, "N1again");
}

#[test]
fn silence_is_suspected_and_then_ends_the_link() {
    let mut world = World::cluster(2);
    world.run(second(1));
    let link = *world.servers[0].links.keys().next().unwrap();
    world.servers[1].cut_off = true;
    world.run(Span::from_millis(600));
    assert_eq!(world.servers[0].quiet, [(link, true)]);
    assert_eq!(world.servers[0].downs, []);
    world.servers[1].cut_off = false;
    world.run(Span::from_millis(300));
    assert_eq!(world.servers[0].quiet, [(link, true), (link, false)]);
    world.servers[1].cut_off = true;
    world.run(second(6));
    assert_eq!(world.servers[0].downs, [(link, LinkDown::Silent)]);
    world.servers[1].cut_off = false;
    world.run(second(3));
    assert_eq!((world.peers(0), world.peers(1)), (vec!["s1"], vec!["s0"]));
}

#[test]
fn beats_are_answered_with_their_time() {
    let mut world = World::cluster(2);
    world.run(second(1));
    for _ in 0..20 {
        world.run(Span::from_millis(100));
        for server in &world.servers {
            let acked = *server.acked.values().next().unwrap();
            assert!(world.now.since(acked) <= Span::from_millis(101), "{:?}", world.now.since(acked));
        }
    }
}

#[test]
fn wrong_clusters_names_and_credentials_are_refused() {
    let with = |user: &str, pass: &str, number, routes: &[usize]| MeshConfig {
        user: user.to_owned(),
        pass: pass.to_owned(),
        ..config("c", number, routes)
    };
    let same_name = MeshConfig { name: "s0".to_owned(), ..config("c", 1, &[0]) };
    let mut shown = config("c", 1, &[]);
    shown.routes = vec![RouteUrl { address: "h:0".into(), user: "u".into(), pass: "p".into() }];
    for (first, second, wanted) in [
        (config("a", 0, &[]), config("b", 1, &[0]), Some("cluster name \\\"b\\\" does not match \\\"a\\\"")),
        (config("c", 0, &[]), same_name, Some("Duplicate Server Name: s0")),
        (with("u", "p", 0, &[]), with("u", "x", 1, &[0]), Some("authentication error")),
        (with("u", "p", 0, &[]), config("c", 1, &[0]), Some("authentication error")),
        (with("u", "p", 0, &[]), with("u", "p", 1, &[0]), None),
        (with("u", "p", 0, &[]), shown, None),
        (with("u", "p", 0, &[1]), with("u", "p", 1, &[]), None),
    ] {
        let mut world = World::new(vec![first, second]);
        world.run(Span::from_secs(1));
        match wanted {
            None => assert_eq!((world.peers(0), world.peers(1)), (vec!["s1"], vec!["s0"])),
            Some(text) => {
                assert_eq!((world.peers(0), world.peers(1)), (vec![], vec![]));
                assert!(world.remarks(0).contains(text), "{}", world.remarks(0));
                assert!(world.remarks(1).contains(text), "{}", world.remarks(1));
            }
        }
    }
}

#[test]
fn made_up_names_give_way() {
    let dynamic =
        |name: &str, number, routes: &[usize]| MeshConfig { dynamic: true, ..config(name, number, routes) };
    for (configs, wanted) in [
        (vec![dynamic("x", 0, &[]), config("real", 1, &[0])], "real"),
        (vec![config("real", 0, &[]), dynamic("x", 1, &[0])], "real"),
        (vec![dynamic("a", 0, &[]), dynamic("b", 1, &[0]), dynamic("c", 2, &[0])], "c"),
        (vec![dynamic("z", 0, &[]), dynamic("b", 1, &[0]), config("a", 2, &[1])], "a"),
    ] {
        let mut world = World::new(configs);
        world.run(second(3));
        for server in &world.servers {
            assert_eq!(server.mesh.cluster(), wanted);
            assert_eq!(server.links.len(), world.servers.len() - 1);
        }
    }
}

#[test]
fn strangers_get_a_clear_answer() {
    for (says, wanted) in [
        (None, "INFO {}\r\n-ERR 'attempted to connect to route port'\r\n"),
        (Some("GET / HTTP/1.1\r\n"), "INFO {}\r\n-ERR 'attempted to connect to route port'\r\n"),
        (
            Some("CONNECT {\"cluster\":\"c\"}\r\n"),
            "INFO {}\r\n-ERR 'this is a Headwater cluster: a nats-server cannot join it'\r\n",
        ),
    ] {
        let mut world = World::cluster(1);
        let now = world.now;
        let mesh = &mut world.servers[0].mesh;
        let socket = mesh.handle_accepted(now, "h:5".to_owned());
        if let Some(says) = says {
            mesh.handle_bytes(now, socket, says.as_bytes());
        }
        for millis in [1001, 2002] {
            mesh.handle_timeout(now + Span::from_millis(millis));
        }
        let mut out = Vec::new();
        mesh.take_output(now, socket, &mut out);
        assert_eq!(String::from_utf8_lossy(&out), wanted);
        assert!(mesh.take_actions().contains(&Action::Close(socket)));
    }
}

#[test]
fn what_is_dialled_by_mistake_is_named() {
    for (says, wanted) in [
        ("INFO {\"client_id\":5}\r\n", "attempted to connect to a client port"),
        ("INFO {\"server_id\":\"x\"}\r\n", "a nats-server answers there"),
        ("SSH-2.0\r\n", "no Headwater server"),
    ] {
        let mut mesh = Mesh::new(Time(1), config("c", 0, &[7]));
        mesh.handle_timeout(Time(2));
        let Some(Action::Dial { socket, .. }) = mesh.take_actions().pop() else {
            panic!("nothing is dialled")
        };
        mesh.handle_dialled(Time(3), socket, Ok(()));
        mesh.handle_bytes(Time(4), socket, says.as_bytes());
        let actions = format!("{:?}", mesh.take_actions());
        assert!(actions.contains(wanted) && actions.contains("Close"), "{actions}");
    }
}

/// A server of tomorrow: what both speak is spoken, and where there is nothing of that kind both are told so by name.
#[test]
fn servers_of_other_versions_are_taken_in_or_told_why_not() {
    let news = crate::hello::News { cluster: "c".into(), ..Default::default() };
    let hello = |versions| Hello { versions, server_id: "N5".into(), news: news.clone(), ..Hello::default() };
    let frame = |magic: &[u8], body: &[u8]| {
        let mut bytes = magic.to_vec();
        crate::frame::put(&mut bytes, crate::frame::Kind::Hello, body, false);
        bytes
    };
    const NEXT: u16 = crate::hello::VERSION + 1;
    let of_tomorrow = [&hello((NEXT - 1, NEXT)).encode()[..], b"and more"].concat();
    let two = [NEXT.to_le_bytes(), (NEXT + 1).to_le_bytes()].concat();
    let (only, other) =
        (format!("speaks versions {NEXT} to {NEXT}"), format!("speaks versions {NEXT} to {}", NEXT + 1));
    let table = [
        ("both speak this one", frame(MAGIC, &of_tomorrow), None),
        ("only the next", frame(MAGIC, &hello((NEXT, NEXT)).encode()), Some(only.as_str())),
        // What follows the versions may be anything.
        ("only later ones, in another form", frame(MAGIC, &[&two[..], &[255, 255]].concat()), Some(&other)),
        ("other frames", frame(b"HWLINK2\n", b"who knows"), Some("another version of the frames")),
    ];
    for (what, bytes, refused) in table {
        for dials in [false, true] {
            let mut mesh = Mesh::new(Time(1), config("c", 0, &[7]));
            let socket = match dials {
                false => mesh.handle_accepted(Time(1), "h:5".to_owned()),
                true => {
                    mesh.handle_timeout(Time(2));
                    let Some(Action::Dial { socket, .. }) = mesh.take_actions().pop() else {
                        panic!("nothing is dialled")
                    };
                    mesh.handle_dialled(Time(3), socket, Ok(()));
                    socket
                }
            };
            mesh.handle_bytes(Time(4), socket, &bytes);
            let (mut said, actions) = (Vec::new(), format!("{:?}", mesh.take_actions()));
            mesh.take_output(Time(5), socket, &mut said);
            let said = String::from_utf8_lossy(&said).into_owned();
            match refused {
                None => assert!(!actions.contains("Close"), "{what}: {actions}"),
                Some(why) => {
                    assert!(actions.contains("Close") && actions.contains(why), "{what}: {actions}");
                    assert!(said.contains("HWLINK1") && said.contains(why), "{what}: {said}");
                }
            }
        }
    }
}

#[test]
fn routes_come_and_go() {
    let mut world = World::new(vec![config("c", 0, &[]), config("c", 1, &[0]), config("c", 2, &[])]);
    world.run(second(1));
    assert_eq!(world.peers(1), ["s0"]);
    let now = world.now;
    let route = RouteUrl { address: "h:2".into(), ..RouteUrl::default() };
    world.servers[1].mesh.set_routes(now, vec![route]);
    world.run(Span::from_millis(5));
    assert!(world.peers(1).contains(&"s2"), "{:?}", world.peers(1));
    assert_eq!(world.servers[1].mesh.routes(), ["h:2"]);
}

/// Bytes that are no frames, at every point of the handshake: nothing panics, the connection ends.
#[test]
fn garbage_ends_a_connection() {
    let mut rng = Rng::new(3);
    for round in 0..2000u64 {
        let mut mesh = Mesh::new(Time(1), config("c", 0, &[]));
        let socket = mesh.handle_accepted(Time(1), "h:5".to_owned());
        let mut bytes = MAGIC.to_vec();
        let hello = Hello {
            versions: (crate::hello::VERSION, crate::hello::VERSION),
            server_id: "N5".into(),
            ..Hello::default()
        };
        let mut hello =
            Hello { news: crate::hello::News { cluster: "c".into(), ..Default::default() }, ..hello }
                .encode();
        if round % 3 == 0 {
            let at = rng.below(hello.len() as u64) as usize;
            hello[at] ^= 1 << rng.below(8);
        }
        crate::frame::put(&mut bytes, crate::frame::Kind::Hello, &hello, false);
        for _ in 0..rng.below(60) {
            bytes.push(rng.next_u64() as u8);
        }
        if round % 2 == 0 {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << rng.below(8);
        }
        mesh.handle_bytes(Time(2), socket, &bytes);
        mesh.handle_timeout(Time(2) + second(10));
        mesh.handle_timeout(Time(2) + second(20));
        assert!(mesh.take_actions().contains(&Action::Close(socket)), "round {round}");
    }
}
