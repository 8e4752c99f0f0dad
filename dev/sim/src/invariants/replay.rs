//! A restart changes nothing: what is recovered twice from one disk is the same, and the same as before.

use serde_json::Value;

use crate::audit::{Dump, StreamDump};
use crate::history::Violation;
use crate::workload::is_schedule;

/// Compares what two servers show that opened the same disk one after the other.
pub fn compare(before: &Dump, after: &Dump, what: &str) -> Result<(), Violation> {
    let wrong = |text: String| Violation { invariant: "replay", text: format!("{what}: {text}") };
    let names = |dump: &Dump| -> Vec<String> {
        let kept = dump.streams.iter().filter(|(_, stream)| !is_volatile(stream));
        kept.map(|(name, _)| name.clone()).collect()
    };
    if names(before) != names(after) {
        return Err(wrong(format!("streams {:?} became {:?}", names(before), names(after))));
    }
    for name in names(before) {
        let (Some(old), Some(new)) = (before.streams.get(&name), after.streams.get(&name)) else { continue };
        // Time alone changes these.
        let ages = old.info["config"]["max_age"].as_i64().unwrap_or(0) > 0
            || old.messages.values().any(|stored| is_schedule(&stored.subject));
        if old.info["config"] != new.info["config"] || old.info["created"] != new.info["created"] {
            return Err(wrong(format!("{name}: {} became {}", old.info["config"], new.info["config"])));
        }
        if ages || !old.steady {
            continue;
        }
        if old.info["state"] != new.info["state"] {
            return Err(wrong(format!("{name}: {} became {}", old.info["state"], new.info["state"])));
        }
        if old.messages != new.messages {
            return Err(wrong(format!("{name}: its messages are others than before")));
        }
        for (consumer, info) in &old.consumers {
            let again = new.consumers.get(consumer).unwrap_or(&Value::Null);
            // Where no log follows them, checkpoints alone say how far those without acknowledgements have come.
            let is_followed = info["config"]["ack_policy"] != "none" || is_replicated(&old.info);
            if !is_followed && info["config"] == again["config"] {
                continue;
            }
            for field in ["config", "created", "num_pending", "num_ack_pending"] {
                if info[field] != again[field] {
                    return Err(wrong(format!("{name} {consumer} {field}: {info} became {again}")));
                }
            }
            for field in ["delivered", "ack_floor"] {
                for part in ["stream_seq", "consumer_seq"] {
                    if info[field][part] != again[field][part] {
                        return Err(wrong(format!(
                            "{name} {consumer} {field}.{part}: {info} became {again}"
                        )));
                    }
                }
            }
        }
    }
    Ok(())
}

fn is_replicated(info: &Value) -> bool {
    info["config"]["num_replicas"].as_u64().is_some_and(|replicas| replicas > 1)
}

fn is_volatile(stream: &StreamDump) -> bool {
    stream.info["config"]["storage"] == "memory"
}
