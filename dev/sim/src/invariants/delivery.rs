//! A consumer delivers what matches until it is settled, skips nothing, and never again what it has confirmed.

use crate::audit::Dump;
use crate::client::Msg;
use crate::history::{AckPolicy, Existence, History, Outcome, Violation};
use crate::workload::Delivery;

use super::{acked, check_content};

/// A message came from a consumer.
pub fn on_delivery(history: &mut History, delivery: &Delivery, msg: &Msg) {
    let Delivery { stream: name, consumer, count, seq, consumer_seq } = delivery;
    let index = match check_content(history, &msg.subject, &msg.payload) {
        Ok(index) => index,
        Err(text) => return history.violate("delivery", format!("{name} {consumer} sequence {seq}: {text}")),
    };
    let attempt = &history.attempts[index];
    let refused = attempt.outcome == Outcome::Refused;
    let mut loose = history.loose;
    let Some(stream) = history.streams.get_mut(name).filter(|stream| stream.generation == attempt.generation)
    else {
        return;
    };
    let Some(log) = stream.consumers.get_mut(consumer) else {
        return history.violate("delivery", format!("nobody made consumer {consumer} of {name}"));
    };
    // Without acknowledgements, what was delivered in the last second before a leader dies may come again, with the same numbers,
    // whenever somebody asks for it.
    loose |= log.ack == AckPolicy::None;
    let mut wrong = None;
    if log.is_confirmed(*seq) && !loose {
        wrong = Some("is delivered again after its acknowledgement was confirmed".to_owned());
    } else if !log.matches(&msg.subject) {
        wrong = Some(format!("on {} does not match {:?}", msg.subject, log.filter));
    } else if *consumer_seq <= log.last_delivery && !loose {
        wrong = Some(format!("has delivery number {consumer_seq} after {}", log.last_delivery));
    } else if log.max_deliver.is_some_and(|max| *count > max) {
        wrong = Some(format!("is delivered for the {count}th time, more than max_deliver"));
    } else if refused {
        wrong = Some("was refused when it was published".to_owned());
    }
    let times = log.deliveries.entry(*seq).or_default();
    // What a server that was stopped says when it goes on may be heard twice: a delivery with the same number is the same.
    *times += u64::from(*consumer_seq > log.last_delivery);
    // Deliveries that were lost on the way count, those that never happened do not.
    if wrong.is_none() && *count < *times && !loose {
        wrong = Some(format!("says it is delivered for the {count}th time, it is the {times}th"));
    }
    log.last_delivery = log.last_delivery.max(*consumer_seq);
    match wrong {
        Some(text) => history.violate("delivery", format!("{name} {consumer}: sequence {seq} {text}")),
        None => acked::note(history, name, *seq, index),
    }
}

/// After everything was pulled and settled for long enough: nothing is left, nothing was skipped.
pub fn check_drained(history: &History, dump: &Dump) -> Result<(), Violation> {
    for (name, stream) in &history.streams {
        let Some(found) = dump.streams.get(name) else { continue };
        for (consumer, log) in &stream.consumers {
            let Some(info) = found.consumers.get(consumer) else { continue };
            let wrong = |text: String| {
                Err(Violation { invariant: "delivery", text: format!("{name} {consumer}: {text}") })
            };
            if log.existence != Existence::Yes {
                continue;
            }
            let number = |field: &str| info[field].as_u64().unwrap_or(u64::MAX);
            let left = (number("num_pending"), number("num_ack_pending"));
            let exhausts = log.max_deliver.is_some();
            // What was on its way to a client that went is lost where nobody acknowledges.
            let may_be_lost = log.ack == AckPolicy::None;
            if left.0 != 0 || (left.1 != 0 && !exhausts) {
                return wrong(format!(
                    "{} pending and {} unacknowledged although pulls wait: {info}",
                    left.0, left.1
                ));
            }
            let skipped = found.messages.iter().find(|(seq, stored)| {
                let is_known =
                    log.deliveries.contains_key(seq) || (log.ack == AckPolicy::All && log.is_settled(**seq));
                log.matches(&stored.subject) && !is_known && !exhausts && !may_be_lost
            });
            if let Some((seq, _)) = skipped {
                return wrong(format!("sequence {seq} is stored, matches and was never delivered: {info}"));
            }
        }
    }
    Ok(())
}
