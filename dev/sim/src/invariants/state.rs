//! What infos say is what is there.

use crate::history::{AckPolicy, Violation};

use super::Case;

/// At rest.
pub fn check(case: &Case<'_>) -> Result<(), Violation> {
    let dump = case.dump;
    if !dump.steady {
        return Ok(());
    }
    let state = &dump.info["state"];
    let number = |field: &str| state[field].as_u64().unwrap_or(0);
    let (first, last) = (number("first_seq"), number("last_seq"));
    let count = dump.messages.len() as u64;
    let lowest = dump.messages.keys().next().copied().unwrap_or(last + 1);
    let highest = dump.messages.keys().next_back().copied().unwrap_or(0);
    let mut subjects: Vec<&str> = dump.messages.values().map(|stored| stored.subject.as_str()).collect();
    subjects.sort_unstable();
    subjects.dedup();
    let checks = [
        (number("messages") == count, format!("{count} messages are there")),
        (count == 0 || first == lowest, format!("the first message is {lowest}")),
        (last >= highest, format!("there is a message at {highest}")),
        (last >= case.log.last_seq, format!("a client was told of sequence {}", case.log.last_seq)),
        (number("num_subjects") == subjects.len() as u64, format!("there are {} subjects", subjects.len())),
        (
            number("consumer_count") == dump.consumers.len() as u64,
            "that many consumers are not there".to_owned(),
        ),
        (count == 0 || number("num_deleted") == last + 1 - first - count, "num_deleted is wrong".to_owned()),
    ];
    if let Some((_, text)) = checks.iter().find(|(holds, _)| !holds) {
        return Err(case.violation("state", format!("{text}, but its state is {state}")));
    }
    check_consumers(case)
}

fn check_consumers(case: &Case<'_>) -> Result<(), Violation> {
    for (name, info) in &case.dump.consumers {
        let Some(log) = case.log.consumers.get(name) else {
            return Err(case.violation("state", format!("nobody made consumer {name}")));
        };
        let delivered = info["delivered"]["stream_seq"].as_u64().unwrap_or(0);
        let floor = info["ack_floor"]["stream_seq"].as_u64().unwrap_or(0);
        let matching = case
            .dump
            .messages
            .iter()
            .filter(|(seq, stored)| **seq > delivered && log.matches(&stored.subject));
        let pending = matching.count() as u64;
        if info["num_pending"].as_u64() != Some(pending) {
            return Err(case.violation("state", format!("{pending} messages are pending for {name}: {info}")));
        }
        if floor > delivered {
            return Err(case.violation("state", format!("the ack floor of {name} is ahead: {info}")));
        }
        let told = log.deliveries.keys().next_back().copied().unwrap_or(0);
        // The log is told once a second how far those without acknowledgements have come.
        if told > delivered && log.ack != AckPolicy::None {
            return Err(case.violation("state", format!("{name} delivered {told} and forgot it: {info}")));
        }
    }
    Ok(())
}
