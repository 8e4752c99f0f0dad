//! `consumer ls` and `consumer report`.

use jiff::Timestamp;
use serde_json::json;

use crate::command::connect::Session;
use crate::command::error::Failure;
use crate::command::output::{self, Table, say, title_case};
use crate::command::stream::{self, name};
use crate::command::units::{comma, local_time, nanoseconds, since};
use crate::command::view::ConsumerInfo;

/// Lists consumers.
pub async fn ls(session: &Session, stream: &str, names: bool, json: bool) -> Result<(), Failure> {
    let stream = name(stream)?;
    if names {
        let listing = session.api_list(&format!("CONSUMER.NAMES.{stream}"), json!({}), "consumers").await?;
        let mut names: Vec<String> = listing.read()?;
        names.sort();
        if json {
            return output::print_json(&names);
        }
        names.iter().for_each(|name| output::line(name));
        return Ok(());
    }
    let listing = session.api_list(&format!("CONSUMER.LIST.{stream}"), json!({}), "consumers").await?;
    if json {
        listing.print_json();
        return Ok(());
    }
    let mut consumers: Vec<ConsumerInfo> = listing.read()?;
    consumers.sort_by(|a, b| a.name.cmp(&b.name));
    if consumers.is_empty() {
        say!("No Consumers defined");
    } else {
        let now = Timestamp::now();
        let columns = ["Name", "Description", "Created", "Ack Pending", "Unprocessed", "Last Delivery"];
        let mut table = Table::new("Consumers", columns).right(3).right(4);
        for info in &consumers {
            table.row([
                info.name.clone(),
                info.config.description.clone(),
                local_time(&info.created),
                comma(info.num_ack_pending),
                comma(info.num_pending),
                since(info.delivered.last_active.as_deref().unwrap_or_default(), now),
            ]);
        }
        table.print();
    }
    listing.print_unavailable("Consumers");
    Ok(())
}

/// Reports on consumers.
pub async fn report(session: &Session, stream: &str, raw: bool, json: bool) -> Result<(), Failure> {
    let listing =
        session.api_list(&format!("CONSUMER.LIST.{}", name(stream)?), json!({}), "consumers").await?;
    if json {
        listing.print_json();
        return Ok(());
    }
    let mut consumers: Vec<ConsumerInfo> = listing.read()?;
    consumers.sort_by(|a, b| a.name.cmp(&b.name));
    let messages = stream::fetch(session, stream).await?.state.messages;
    let title = format!("Consumer report for {stream} with {} consumers", comma(consumers.len() as u64));
    let columns = [
        "Consumer",
        "Mode",
        "Ack Policy",
        "Ack Wait",
        "Ack Pending",
        "Redelivered",
        "Unprocessed",
        "Ack Floor",
        "API Level",
        "Cluster",
    ];
    let mut table = Table::new(title, columns);
    for info in &consumers {
        table.row(report_row(info, messages, raw));
    }
    table.print();
    listing.print_unavailable("Consumers");
    Ok(())
}

fn report_row(info: &ConsumerInfo, messages: u64, raw: bool) -> [String; 10] {
    let count = |n: u64| if raw { n.to_string() } else { comma(n) };
    let mode = if info.config.is_pull() { "Pull" } else { "Push" };
    let unprocessed = match info.num_pending {
        pending if pending > 0 && messages > 0 && !raw => {
            let share = (pending as f64 / messages as f64 * 100.0).min(100.0);
            format!("{} / {share:.0}%", comma(pending))
        }
        pending => count(pending),
    };
    [
        info.name.clone(),
        mode.to_owned(),
        title_case(&info.config.ack_policy),
        nanoseconds(info.config.ack_wait),
        count(info.num_ack_pending),
        count(info.num_redelivered),
        unprocessed,
        count(info.ack_floor.stream_seq),
        info.config.metadata.get("_nats.req.level").cloned().unwrap_or_default(),
        stream::replicas(info.cluster.as_ref()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_introductions_row() {
        let json = r#"{"name":"order_processor","num_pending":10,"config":{"ack_policy":"explicit",
            "ack_wait":30000000000,"metadata":{"_nats.req.level":"0"}}}"#;
        let info: ConsumerInfo = serde_json::from_str(json).unwrap();
        let row = report_row(&info, 10, false);
        let want = ["order_processor", "Pull", "Explicit", "30.00s", "0", "0", "10 / 100%", "0", "0", ""];
        assert_eq!(row, want);
        assert_eq!(report_row(&info, 10, true)[6], "10");
        assert_eq!(report_row(&info, 0, false)[6], "10", "an empty stream has no percentage");
    }
}
