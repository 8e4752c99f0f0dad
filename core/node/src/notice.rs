//! What operators should read: lines for the log, made from what happens to connections.

use hw_hub::ConnectionView;

/// How much a line matters.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum NoticeLevel {
    /// Something went wrong.
    #[default]
    Error,
    /// What operators want to know.
    Info,
    /// Connections come and go.
    Debug,
    /// Every operation of clients.
    Trace,
}

/// Which lines are wanted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct NoticeConfig {
    /// The least important lines that are.
    pub level: NoticeLevel,
    /// Operations of the system account's clients, too.
    pub system: bool,
    /// How many bytes of a message a line shows; 0: all.
    pub message_bytes: usize,
}

/// One line.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Notice {
    /// How much it matters.
    pub level: NoticeLevel,
    /// The line.
    pub text: String,
}

impl Notice {
    /// A line about a connection, which is named as operators know it: address, number, client and user.
    pub(crate) fn about(level: NoticeLevel, view: &ConnectionView, account: &str, text: &str) -> Notice {
        let host = if view.ip.contains(':') { format!("[{}]", view.ip) } else { view.ip.clone() };
        let mut line = format!("{host}:{} - cid:{}", view.port, view.conn.0);
        if view.account.is_some() {
            let mut client = format!("v{}", view.version);
            for part in [&view.lang, &view.name] {
                if !part.is_empty() {
                    client = client + ":" + part;
                }
            }
            if !view.version.is_empty() || !view.lang.is_empty() || !view.name.is_empty() {
                line += &format!(" - {client:?}");
            }
            if !view.user.is_empty() {
                line += &format!(" - \"{account}/user:{}\"", view.user);
            }
        }
        Notice { level, text: format!("{line} - {text}") }
    }
}

#[cfg(test)]
mod tests {
    use hw_hub::{HubConfig, HubLimits, Peer};
    use hw_kit::{ConnId, ShardId, Time};

    use super::*;

    fn connection(ip: &str, lines: &[u8]) -> ConnectionView {
        let directory = hw_auth::Directory::new(&hw_auth::DirectorySpec::default()).unwrap();
        let mut hub = hw_hub::Hub::new(HubConfig {
            shard: ShardId(0),
            shards: 1,
            seed: 1,
            info: hw_wire::Info { headers: true, ..Default::default() },
            limits: HubLimits::default(),
            directory: directory.into(),
            exchange: None,
        });
        hub.handle_open(Time(1), ConnId(7), Peer { ip: ip.to_owned(), port: 81, ..Peer::default() });
        hub.handle_bytes(Time(1), ConnId(7), lines, &mut ());
        hub.connection(ConnId(7)).unwrap()
    }

    #[test]
    fn connections_are_named() {
        let connect = b"CONNECT {\"name\":\"bb\",\"lang\":\"rust\",\"version\":\"1.2\"}\r\n";
        for (ip, lines, wanted) in [
            ("10.0.0.1", &b""[..], "10.0.0.1:81 - cid:7 - x"),
            ("::1", b"", "[::1]:81 - cid:7 - x"),
            ("10.0.0.1", b"PING\r\n", "10.0.0.1:81 - cid:7 - x"),
            ("10.0.0.1", connect, "10.0.0.1:81 - cid:7 - \"v1.2:rust:bb\" - x"),
        ] {
            let view = connection(ip, lines);
            assert_eq!(Notice::about(NoticeLevel::Debug, &view, "$G", "x").text, wanted);
        }
    }
}
