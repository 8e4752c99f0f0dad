//! A look as text: lines about the server, and a row for each connection.

use super::{Look, ORDERS, View};
use crate::command::output::Table;
use crate::command::server::report::{self, Connection};
use crate::command::units::{bytes, comma};

/// The columns of connections.
pub const COLUMNS: [&str; 12] = [
    "CID",
    "Host",
    "Name",
    "Account",
    "Subs",
    "Pending",
    "Msgs To",
    "Msgs From",
    "Bytes To",
    "Bytes From",
    "Lang",
    "Uptime",
];

/// The connections to show, in order.
pub fn chosen(look: &Look, view: &View) -> Vec<Connection> {
    let mut all: Vec<_> =
        look.connections.iter().map(|connection| (Default::default(), connection.clone())).collect();
    report::sort(&mut all, ORDERS[view.sort], view.reverse);
    all.into_iter().take(view.most).map(|(_, connection)| connection).collect()
}

/// One connection's row.
pub fn row(connection: &Connection, view: &View) -> [String; 12] {
    let size = |count: u64| if view.raw { count.to_string() } else { bytes(count) };
    let c = connection;
    [
        c.cid.to_string(),
        format!("{}:{}", c.ip, c.port),
        c.name.clone(),
        c.account.clone(),
        comma(c.subscriptions),
        size(c.pending_bytes),
        comma(c.out_msgs),
        comma(c.in_msgs),
        size(c.out_bytes),
        size(c.in_bytes),
        format!("{} {}", c.lang, c.version).trim().to_owned(),
        c.uptime.clone(),
    ]
}

/// The lines about the server.
pub fn head(look: &Look, view: &View) -> [String; 4] {
    let size = |count: u64| if view.raw { count.to_string() } else { bytes(count) };
    let varz = &look.varz;
    let [in_msgs, out_msgs, in_bytes, out_bytes] = look.rates;
    let rate = |rate: f64| comma(rate.round() as u64);
    [
        format!("Server {} {} up {}", varz.server_name, varz.version, varz.uptime),
        format!(
            "Load: CPU {:.1}%  Memory {}  Connections {}  Slow Consumers {}",
            varz.cpu,
            size(varz.mem),
            comma(varz.connections),
            comma(varz.slow_consumers)
        ),
        format!(
            "In:   Msgs {}  Bytes {}  Msgs/s {}  Bytes/s {}",
            comma(varz.in_msgs),
            size(varz.in_bytes),
            rate(in_msgs),
            size(in_bytes.round() as u64)
        ),
        format!(
            "Out:  Msgs {}  Bytes {}  Msgs/s {}  Bytes/s {}",
            comma(varz.out_msgs),
            size(varz.out_bytes),
            rate(out_msgs),
            size(out_bytes.round() as u64)
        ),
    ]
}

/// All of it as text.
pub fn render(look: &Look, view: &View) -> String {
    let title = format!("Connections by {}", ORDERS[view.sort]);
    let mut table = Table::new(title, COLUMNS);
    chosen(look, view).iter().for_each(|connection| table.row(row(connection, view)));
    format!("{}\n{}\n", head(look, view).join("\n"), table.render())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::top::Varz;

    #[test]
    fn a_look_as_text() {
        let one =
            |cid, in_msgs| Connection { cid, in_msgs, name: format!("c{cid}"), ..Connection::default() };
        let varz = Varz { server_name: "S1".into(), in_bytes: 2048, ..Varz::default() };
        let look = Look { varz, connections: vec![one(1, 5), one(2, 9), one(3, 7)], ..Look::default() };
        let in_msgs = ORDERS.iter().position(|order| *order == "in-msgs").unwrap();
        let view = View { sort: in_msgs, reverse: false, raw: false, most: 2 };
        let text = render(&look, &view);
        assert!(text.starts_with("Server S1") && text.contains("Bytes 2.0 KiB"), "{text}");
        let (first, second) = (text.find("c2").unwrap(), text.find("c3").unwrap());
        assert!(first < second && !text.contains("c1"), "{text}");
        assert!(render(&look, &View { raw: true, ..view }).contains("Bytes 2048"));
    }
}
