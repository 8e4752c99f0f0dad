//! What an entry costs three replicas, proposed in batches; what a write to each of many groups costs; what a replica weighs.
#![allow(clippy::disallowed_methods, clippy::disallowed_macros)] // A measurement needs a clock and tells its result.

use bytes::Bytes;
use hw_kit::{GroupId, LogIndex, NodeId};
use hw_raft::{Members, Message, Ready, Replica, Settings, Start};

struct Group {
    replicas: Vec<Replica>,
    mail: Vec<(NodeId, NodeId, Message)>,
    ready: Ready,
    applied: u64,
    is_encoded: bool,
}

impl Group {
    fn new(group: u64, is_encoded: bool) -> Group {
        let members = Members::voting((1..=3).map(NodeId));
        let replica = |node| {
            let start = Start { members: members.clone(), ..Start::default() };
            Replica::new(Settings::new(NodeId(node), GroupId(group)), start).expect("a fresh start")
        };
        let replicas = (1..=3).map(replica).collect();
        let mut group = Group { replicas, mail: Vec::new(), ready: Ready::default(), applied: 0, is_encoded };
        group.replicas[0].campaign();
        group.settle();
        assert!(group.replicas[0].is_leader());
        group
    }

    /// Until nobody has anything to do.
    fn settle(&mut self) {
        loop {
            let mut is_idle = true;
            for at in 0..self.replicas.len() {
                let from = NodeId(at as u64 + 1);
                let (replica, ready) = (&mut self.replicas[at], &mut self.ready);
                while replica.ready(ready) {
                    is_idle = false;
                    replica.handle_persisted(ready.number).expect("a number that was given");
                    let messages = ready.messages.drain(..).chain(ready.after.drain(..));
                    self.mail.extend(messages.map(|(to, message)| (from, to, message)));
                    if let Some(last) = ready.committed.last() {
                        self.applied += ready.committed.len() as u64;
                        replica.handle_applied(last.index).expect("what was given");
                        let keep = LogIndex(last.index.0.saturating_sub(4096));
                        replica.compact(keep).expect("what is applied");
                    }
                }
            }
            for (from, to, message) in std::mem::take(&mut self.mail) {
                is_idle = false;
                let message = if self.is_encoded { over_the_wire(&message) } else { message };
                self.replicas[to.0 as usize - 1].handle_message(from, message).expect("an honest message");
            }
            if is_idle {
                return;
            }
        }
    }
}

fn over_the_wire(message: &Message) -> Message {
    let mut bytes = Vec::with_capacity(message.body_bytes() + 64);
    message.encode(&mut bytes);
    Message::decode(bytes.into()).expect("what was encoded")
}

/// Processor time of this process in microseconds: a busy machine does not change it.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let rest = stat.rsplit(')').next().expect("a name in brackets");
    let ticks: f64 = rest.split_whitespace().skip(11).take(2).map(|n| n.parse::<f64>().expect("ticks")).sum();
    ticks * 10_000.0
}

fn resident() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    statm.split_whitespace().nth(1).expect("pages").parse::<f64>().expect("pages") * 4096.0
}

fn main() {
    let body = Bytes::from(vec![b'x'; 256]);
    for is_encoded in [false, true] {
        for batch in [1, 16, 64, 256, 1024] {
            let mut group = Group::new(1, is_encoded);
            let (from, mut entries) = (cpu(), 0u64);
            while cpu() - from < 1_500_000.0 {
                for _ in 0..(4096 / batch).max(1) {
                    for _ in 0..batch {
                        group.replicas[0].propose(body.clone()).expect("it leads");
                    }
                    group.settle();
                    entries += batch;
                }
            }
            let each = (cpu() - from) / entries as f64;
            assert_eq!(group.applied, 3 * (entries + 1));
            println!("batches of {batch}, encoded {is_encoded}: {each:.2} us an entry for 3 replicas");
        }
    }
    let before = resident();
    let mut groups: Vec<Group> = (0..5000).map(|group| Group::new(group, false)).collect();
    println!("a replica: {:.0} bytes", (resident() - before) / 15_000.0);
    let (from, mut writes) = (cpu(), 0u64);
    while cpu() - from < 1_500_000.0 {
        for group in groups.iter_mut().take(1000) {
            group.replicas[0].propose(body.clone()).expect("it leads");
            group.settle();
            writes += 1;
        }
    }
    println!("one write to each of 1000 groups: {:.2} us a write", (cpu() - from) / writes as f64);
}
