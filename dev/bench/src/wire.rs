//! What a client sends, read; and who wants it.

use std::hint::black_box;

use hw_subject::{Interest, Matched};
use hw_wire::headers::Headers;
use hw_wire::{ClientOp, Limits, Step};

use crate::subject;

/// A read of 2,000 publishes, every fourth with headers.
pub(crate) fn parse() -> Box<dyn FnMut()> {
    let mut input = Vec::new();
    for at in 0..2_000 {
        let (subject, payload) = (subject(at), "x".repeat(128));
        let text = match at % 4 {
            0 => {
                let head = format!("NATS/1.0\r\nNats-Msg-Id: {at}\r\n\r\n");
                let (first, all) = (head.len(), head.len() + payload.len());
                format!("HPUB {subject} _INBOX.x.{at} {first} {all}\r\n{head}{payload}\r\n")
            }
            _ => format!("PUB {subject} _INBOX.x.{at} {}\r\n{payload}\r\n", payload.len()),
        };
        input.extend_from_slice(text.as_bytes());
    }
    Box::new(move || {
        let (mut rest, mut count) = (&input[..], 0);
        while let Ok(Step::Op(op, used)) = hw_wire::parse(rest, &Limits::default()) {
            count += usize::from(matches!(black_box(op), ClientOp::Pub(_)));
            rest = &rest[used..];
        }
        assert_eq!((count, rest.len()), (2_000, 0));
    })
}

/// 2,000 header blocks, three values of each.
pub(crate) fn headers() -> Box<dyn FnMut()> {
    let block = |at: usize| {
        format!(
            "NATS/1.0\r\nNats-Msg-Id: {at}\r\nNats-Expected-Stream: S\r\nTrace: 4711\r\nNats-TTL: 5s\r\n\r\n"
        )
    };
    let blocks: Vec<String> = (0..2_000).map(block).collect();
    Box::new(move || {
        for block in &blocks {
            let Some(headers) = Headers::parse(block.as_bytes()) else { unreachable!("the block is whole") };
            for name in ["Nats-Msg-Id", "Nats-TTL", "Nats-Rollup"] {
                black_box(headers.get(name));
            }
        }
    })
}

/// 5,000 subjects among 10,000 subscriptions, 2,000 of them with wildcards.
pub(crate) fn interest() -> Box<dyn FnMut()> {
    let mut interest: Interest<u64> = Interest::new();
    for at in 0..8_000 {
        interest.insert(subject(at).as_bytes(), None, at);
    }
    for at in 0..1_000 {
        interest.insert(format!("plant.*.device.{at}.>").as_bytes(), None, at);
        interest.insert(format!("plant.{}.*.{at}.state", at % 7).as_bytes(), Some(b"workers"), at);
    }
    let subjects: Vec<String> = (0..5_000).map(subject).collect();
    Box::new(move || {
        let mut matched = Matched::new();
        for subject in &subjects {
            interest.matches(subject.as_bytes(), &mut matched);
            assert!(!black_box(&matched).is_empty());
        }
    })
}
