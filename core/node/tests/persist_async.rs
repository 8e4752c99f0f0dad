//! `persist_mode: async`: what such a stream acknowledges before its disk has synced, and what it hands on only then.

use std::sync::Arc;

use hw_auth::Directory;
use hw_hub::{HubConfig, HubLimits, Peer};
use hw_kit::{ConnId, ShardId, Span, Time};
use hw_node::{BatchLimits, DiskCompletion, DiskRequest, JetStreamConfig, Recovery, Shard};
use hw_wire::Info;

const CONN: ConnId = ConnId(1);
const NOW: Time = Time(1_000_000_000);

/// A server of one shard whose disk syncs when it is told to.
struct Machine {
    shard: Shard,
    unsynced: Vec<u64>,
}

impl Machine {
    fn new() -> Machine {
        let hub = HubConfig {
            shard: ShardId(0),
            shards: 1,
            seed: 1,
            info: Info { headers: true, ..Info::default() },
            limits: HubLimits::default(),
            directory: Arc::new(Directory::default()),
            exchange: None,
        };
        let js = JetStreamConfig {
            cluster: None,
            domain: String::new(),
            strict: true,
            long_acks: false,
            max_memory: -1,
            max_storage: -1,
            max_duplicate_window: Span::ZERO,
            max_ack_pending: 0,
            max_request_batch: 0,
            batch: BatchLimits::default(),
            max_buffered: (None, None),
            version: "test".to_owned(),
            server_id: "TEST".to_owned(),
            server_name: "test".to_owned(),
            checkpoint_bytes: 1 << 30,
            erase_after: hw_node::ERASE_AFTER,
            scrub_bytes: 0,
            seed: 1,
        };
        let mut machine =
            Machine { shard: Shard::new(NOW, hub, Some((js, Recovery::new(None)))), unsynced: Vec::new() };
        machine.shard.handle_open(NOW, CONN, Peer::default());
        machine.says("CONNECT {\"verbose\":false,\"headers\":true}\r\nSUB _I.> 1\r\n");
        machine
    }

    /// What the server says to these bytes before the disk has synced anything.
    fn says(&mut self, text: &str) -> String {
        let used = self.shard.handle_bytes(NOW, CONN, text.as_bytes());
        assert_eq!(used, text.len(), "{text}");
        self.settle()
    }

    fn settle(&mut self) -> String {
        self.shard.settle(NOW);
        for request in self.shard.take_disk() {
            if let DiskRequest::Append { ticket, .. } = request {
                self.unsynced.push(ticket);
            }
        }
        let output = self.shard.swap_output(CONN, Vec::new());
        String::from_utf8_lossy(&output).into_owned()
    }

    /// The disk syncs everything, and what that causes.
    fn sync(&mut self) -> String {
        let mut said = String::new();
        while let Some(ticket) = std::mem::take(&mut self.unsynced).last().copied() {
            self.shard.handle_disk(NOW, DiskCompletion::Synced { ticket });
            said += &self.settle();
        }
        said
    }

    fn create(&mut self, name: &str, more: &str) {
        let config = format!("{{\"name\":\"{name}\"{more}}}");
        self.says(&format!("PUB $JS.API.STREAM.CREATE.{name} _I.c {}\r\n{config}\r\n", config.len()));
        assert!(self.sync().contains("did_create"), "{config}");
    }

    fn messages(&mut self, name: &str) -> String {
        let answer = self.says(&format!("PUB $JS.API.STREAM.INFO.{name} _I.i 0\r\n\r\n"));
        let (_, rest) = answer.split_once("\"messages\":").unwrap_or_default();
        rest.split(',').next().unwrap_or_default().to_owned()
    }
}

#[test]
fn acknowledgements_do_not_wait_for_the_disk() {
    let mut machine = Machine::new();
    machine.create("A", ",\"persist_mode\":\"async\"");
    machine.create("D", "");
    assert!(machine.says("PUB A _I.a 1\r\nx\r\n").contains("{\"stream\":\"A\",\"seq\":1}"));
    assert_eq!(machine.messages("A"), "1");
    assert_eq!(machine.says("PUB D _I.a 1\r\nx\r\n"), "", "the default waits");
    assert_eq!(machine.unsynced.len(), 2, "the disk gets both");
    let synced = machine.sync();
    assert!(synced.contains("{\"stream\":\"D\",\"seq\":1}") && !synced.contains("\"A\""), "{synced}");
    assert_eq!((machine.messages("A"), machine.messages("D")), ("1".to_owned(), "1".to_owned()));
    // Nothing is taken twice, nothing is left out.
    assert!(machine.says("PUB A _I.a 1\r\nx\r\nPUB A _I.a 1\r\nx\r\n").contains("\"seq\":3"));
    machine.sync();
    assert_eq!(machine.messages("A"), "3");
}

#[test]
fn followers_get_what_lasts() {
    let mut machine = Machine::new();
    machine.create("A", ",\"persist_mode\":\"async\"");
    machine.create("M", ",\"mirror\":{\"name\":\"A\"}");
    assert!(machine.says("PUB A _I.a 1\r\nx\r\n").contains("\"seq\":1"));
    let ticket = machine.unsynced.clone();
    assert_eq!(ticket.len(), 1, "only the origin has written");
    machine.sync();
    assert_eq!(machine.messages("M"), "1");
}

#[test]
fn a_failed_disk_ends_acknowledgements() {
    let mut machine = Machine::new();
    machine.create("A", ",\"persist_mode\":\"async\"");
    machine.shard.handle_disk(NOW, DiskCompletion::Failed { reason: "it broke".to_owned() });
    let refused = machine.says("PUB A _I.a 1\r\nx\r\n");
    assert!(refused.contains("\"err_code\":10077") && refused.contains("it broke"), "{refused}");
}
