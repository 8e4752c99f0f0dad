//! Two servers' links over real sockets.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hw_kit::{LinkId, Span};
use hw_node::LinkFrame;
use hw_route::{MeshConfig, RouteUrl};

use super::{Links, LinksConfig};
use crate::limits::LINK_AT_ONCE_BYTES;
use crate::mailbox::{LinkMail, Mail, Mailbox};

struct Server {
    links: Arc<Links>,
    mailbox: Arc<Mailbox>,
    thread: Option<std::thread::JoinHandle<()>>,
    address: String,
}

impl Server {
    fn start(name: &str, routes: &[&str]) -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let second = Span::from_secs(1);
        let mesh = MeshConfig {
            server_id: name.to_owned(),
            name: name.to_owned(),
            cluster: "C".to_owned(),
            address: address.clone(),
            auth_timeout: second,
            silent_after: Span::from_secs(30),
            routes: routes
                .iter()
                .map(|address| RouteUrl { address: (*address).to_owned(), ..RouteUrl::default() })
                .collect(),
            ..MeshConfig::default()
        };
        let (links, mailbox) = (Arc::<Links>::default(), Arc::<Mailbox>::default());
        let (served, letters) = (links.clone(), mailbox.clone());
        let thread = std::thread::spawn(move || {
            let write_deadline = Span::from_secs(10);
            let config = LinksConfig { mesh, listener, secure: None, write_deadline, mailbox: letters };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let local = tokio::task::LocalSet::new();
            local.block_on(&runtime, served.serve(config, Box::new(|_| {}))).unwrap();
        });
        Server { links, mailbox, thread: Some(thread), address }
    }

    /// Waits for mail that `wanted` makes something of.
    fn wait<T>(&self, mut wanted: impl FnMut(LinkId, LinkMail) -> Option<T>) -> T {
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            let mail = self.mailbox.take();
            let found = mail.into_iter().filter_map(|mail| match mail {
                Mail::Link(link, mail) => wanted(link, mail),
                _ => None,
            });
            if let Some(found) = found.last() {
                return found;
            }
            std::thread::yield_now();
        }
        panic!("it did not come");
    }

    fn linked(&self) -> LinkId {
        self.wait(|link, mail| matches!(mail, LinkMail::Up(_)).then_some(link))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.links.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Small frames are written by who sends them, large ones by the links' thread, and what a full socket leaves over by that
/// too: all arrive whole and in order.
#[test]
fn frames_arrive_in_order_whoever_writes_them() {
    let one = Server::start("A", &[]);
    let two = Server::start("B", &[&one.address]);
    let (link, _) = (one.linked(), two.linked());

    const FRAMES: usize = 4_000;
    let size = |at: usize| match at % 25 {
        24 => 300_000,
        23 => LINK_AT_ONCE_BYTES + 1,
        small => small * 7,
    };
    let body = |at: usize| {
        let mut body = at.to_le_bytes().to_vec();
        body.resize(8 + size(at), at as u8);
        Bytes::from(body)
    };
    // Nobody reads: the second server stops reading at some point, and the first one's socket is full.
    for at in (0..FRAMES).step_by(2) {
        let frames = [at, at + 1].map(|at| (link, LinkFrame::Js(body(at))));
        one.links.send(frames.into());
    }
    let mut next = 0;
    two.wait(|_, mail| {
        let LinkMail::Frame(LinkFrame::Js(got)) = mail else { return None };
        assert!(got == body(next), "frame {next} is another one");
        next += 1;
        (next == FRAMES).then_some(())
    });
    assert!(!one.links.are_full());
}

/// What is sent to a server that is gone is left out, and the sender hears that it is gone.
#[test]
fn a_link_that_is_gone_takes_frames_without_harm() {
    let one = Server::start("A", &[]);
    let two = Server::start("B", &[&one.address]);
    let link = one.linked();
    drop(two);
    one.wait(|down, mail| (down == link && matches!(mail, LinkMail::Down(_))).then_some(()));
    one.links.send(vec![(link, LinkFrame::Js(Bytes::from_static(b"late")))]);
    assert!(!one.links.are_full());
}
