//! Fast batches: what their publisher is told. The expectations were asked from nats-server 2.15.1.

use super::*;

const LIMITS: BatchLimits =
    BatchLimits { messages: 1, per_stream: 1, total: 1, timeout: hw_kit::Span(10), command_bytes: 1 << 20 };

/// A stream that stores what is not marked, one run after the other.
struct Played {
    batches: FastBatches,
    last: Seq,
    says: Vec<FastSay>,
}

impl Played {
    fn new() -> Played {
        Played { batches: FastBatches::default(), last: Seq(0), says: Vec::new() }
    }

    /// `sequence operation [mark]` each: `!` is refused, `=` is a duplicate of the first message; `;` settles.
    fn play(&mut self, id: &str, (flow, gaps): (i64, bool), text: &str) -> String {
        let mut marks: VecDeque<char> = VecDeque::new();
        for step in text.split(' ').filter(|step| !step.is_empty()) {
            if step == ";" {
                self.settle(&mut marks);
                continue;
            }
            let mark = step.chars().last().filter(|c| matches!(c, '!' | '=')).unwrap_or('.');
            let step = step.trim_end_matches(['!', '=']);
            let (sequence, op) = step.split_at(step.len() - 1);
            let op = match op {
                "s" => FastOp::Start,
                "a" => FastOp::Append,
                "c" => FastOp::Commit,
                "e" => FastOp::End,
                _ => FastOp::Ping,
            };
            if !matches!(op, FastOp::End | FastOp::Ping) {
                marks.push_back(mark);
            }
            let slot =
                FastSlot { id: id.as_bytes(), flow, gaps, sequence: sequence.parse().expect(step), op };
            let reply = Bytes::copy_from_slice(step.as_bytes());
            let message = FastMessage { subject: b"s", header: b"", payload: b"", reply: &reply };
            self.batches.handle(Time(1), slot, &message, 0, &mut self.says);
        }
        self.settle(&mut marks);
        std::mem::take(&mut self.says).iter().map(show).collect::<Vec<_>>().join(", ")
    }

    fn settle(&mut self, marks: &mut VecDeque<char>) {
        while self.batches.is_ready() {
            for run in self.batches.take_runs(LIMITS.command_bytes) {
                let mut results = Vec::new();
                for _ in 0..run.messages.len() / 11 {
                    let result = match marks.pop_front() {
                        Some('!') => Err(PublishError::Sealed),
                        Some('=') => Ok(Stored { seq: Seq(1), duplicate: true, ..Stored::default() }),
                        _ => {
                            self.last = self.last.next();
                            Ok(Stored { seq: self.last, ..Stored::default() })
                        }
                    };
                    let ends = run.stop && result.is_err();
                    results.push(result);
                    if ends {
                        break;
                    }
                }
                self.batches.handle_applied(&run.id, results, &mut self.says);
            }
        }
    }
}

fn show(say: &FastSay) -> String {
    let text = |to: &Bytes| String::from_utf8_lossy(to).into_owned();
    match say {
        FastSay::Flow { to, sequence, every } => format!("{}: {sequence}/{every}", text(to)),
        FastSay::Gap { to, expected, sequence } => format!("{}: gap {expected} {sequence}", text(to)),
        FastSay::Refused { to, sequence, .. } => format!("{}: err {sequence}", text(to)),
        FastSay::Last { to, result: Err(error) } => format!("{}: {error}", text(to)),
        FastSay::Last { to, result: Ok(stored) } => {
            let (count, dup) = (stored.batch.as_ref().map_or(0, |batch| batch.count), stored.duplicate);
            format!("{}: seq {} count {count}{}", text(to), stored.seq, if dup { " dup" } else { "" })
        }
    }
}

#[test]
fn what_publishers_are_told() {
    let unknown = "batch publish id is unknown";
    let rows = [
        ("fail", 10, "1c", "1c: seq 1 count 1".to_owned()),
        ("fail", 2, "1s 2a 3a 4a 5e", "1s: 0/2, 2a: 2/2, 4a: 4/2, 5e: seq 4 count 4".to_owned()),
        ("fail", 10, "1s 3a", "1s: 0/10, 3a: gap 2 3, 3a: seq 1 count 1".to_owned()),
        ("fail", 10, "1s 3a ; 4a", format!("1s: 0/10, 3a: gap 2 3, 3a: seq 1 count 1, 4a: {unknown}")),
        ("ok", 10, "1s 3a 4e", "1s: 0/10, 3a: gap 2 3, 4e: seq 2 count 3".to_owned()),
        ("ok", 10, "1s 9c", "1s: 0/10, 9c: gap 2 9, 9c: seq 2 count 9".to_owned()),
        ("fail", 10, "1s 9c", "1s: 0/10, 9c: gap 2 9, 9c: seq 1 count 1".to_owned()),
        ("ok", 10, "1s 5a 3a", "1s: 0/10, 5a: gap 2 5, 3a: gap 6 3, 3a: seq 2 count 5".to_owned()),
        ("fail", 10, "1s 1s", "1s: 0/10, 1s: gap 2 1, 1s: seq 1 count 1".to_owned()),
        ("fail", 10, "1p", format!("1p: {unknown}")),
        ("fail", 10, "2a", format!("2a: {unknown}")),
        ("fail", 10, "1s 2a 2p 1p", "1s: 0/10, 2p: 0/10, 1p: 0/10".to_owned()),
        ("fail", 10, "1s 2p", "1s: 0/10, 2p: gap 2 3, 2p: seq 1 count 1".to_owned()),
        ("ok", 10, "1s 2a 3a 5p 6a 7e", "1s: 0/10, 5p: gap 4 6, 5p: 0/10, 7e: seq 4 count 6".to_owned()),
        ("fail", 10, "1s!", "1s: 0/10, 1s: stream is sealed".to_owned()),
        ("ok", 10, "1s! ; 2a ; 3e", "1s: 0/10, 1s: err 1, 3e: seq 1 count 2".to_owned()),
        ("fail", 10, "1s ; 2a! ; 3e", format!("1s: 0/10, 2a: err 2, 2a: seq 1 count 1, 3e: {unknown}")),
        ("ok", 10, "1s ; 2a! ; 3e", "1s: 0/10, 2a: err 2, 3e: seq 1 count 2".to_owned()),
        ("fail", 10, "1s ; 2c!", "1s: 0/10, 2c: err 2, 2c: seq 1 count 1".to_owned()),
        ("ok", 10, "1s ; 2c!", "1s: 0/10, 2c: err 2, 2c: seq 1 count 1".to_owned()),
        ("ok", 10, "1c!", "1c: err 1, 1c: seq 0 count 0".to_owned()),
        ("fail", 10, "1s ; 2a= ; 3e", "1s: 0/10, 3e: seq 1 count 2".to_owned()),
        ("fail", 10, "1s ; 2a ; 3c=", "1s: 0/10, 3c: seq 2 count 3".to_owned()),
        ("fail", 10, "1c=", "1c: seq 1 count 1 dup".to_owned()),
        ("fail", 0, "1s 2e", "1s: 0/10, 2e: seq 1 count 1".to_owned()),
        ("fail", 9999, "1s 2e", "1s: 0/500, 2e: seq 1 count 1".to_owned()),
        // Nothing follows a refused message, even if it had come before the refusal.
        ("fail", 10, "1s ; 2a! 3a 4a 5e", "1s: 0/10, 2a: err 2, 2a: seq 1 count 1".to_owned()),
    ];
    for (mode, flow, text, expected) in rows {
        let told = Played::new().play("b", (flow, mode == "ok"), text);
        assert_eq!(told, expected, "{mode} {flow}: {text}");
    }
}

#[test]
fn with_others_about_it_begins_carefully() {
    let mut played = Played::new();
    assert_eq!(played.play("a", (100, false), "1s"), "1s: 0/100");
    let text = (2..=128).map(|n| format!("{n}a ")).collect::<String>();
    assert_eq!(
        played.play("b", (100, false), &format!("1s ; {text}")),
        "1s: 0/1, 1s: 1/2, 3a: 3/4, 7a: 7/8, 15a: 15/16, 31a: 31/32, 63a: 63/64, 127a: 127/100"
    );
    assert_eq!(played.batches.len(), 2);
    assert_eq!(played.batches.next_deadline(&LIMITS), Some(Time(11)));
    played.batches.handle_timeout(Time(11), &LIMITS);
    assert!(played.batches.is_empty());
}

#[test]
fn only_one_run_of_a_batch_is_on_its_way() {
    let (mut batches, mut says) = (FastBatches::default(), Vec::new());
    let send = |batches: &mut FastBatches, sequence, says: &mut Vec<FastSay>| {
        let op = if sequence == 1 { FastOp::Start } else { FastOp::Append };
        let slot = FastSlot { id: b"b", flow: 10, gaps: false, sequence, op };
        let message = FastMessage { subject: b"s", header: b"", payload: b"", reply: &Bytes::new() };
        batches.handle(Time(1), slot, &message, 0, says);
    };
    send(&mut batches, 1, &mut says);
    send(&mut batches, 2, &mut says);
    let runs = batches.take_runs(1 << 20);
    assert_eq!(runs.iter().map(|run| (run.stop, run.messages.len())).collect::<Vec<_>>(), [(true, 22)]);
    send(&mut batches, 3, &mut says);
    assert!(!batches.is_ready() && batches.take_runs(1 << 20).is_empty());
    let stored = |seq| Ok(Stored { seq: Seq(seq), ..Stored::default() });
    batches.handle_applied(&Bytes::from_static(b"b"), vec![stored(1), stored(2)], &mut says);
    assert_eq!(batches.take_runs(1 << 20).len(), 1);
    // Long runs are cut.
    for sequence in 4..8 {
        send(&mut batches, sequence, &mut says);
    }
    batches.handle_applied(&Bytes::from_static(b"b"), vec![stored(3)], &mut says);
    assert_eq!(batches.take_runs(12)[0].messages.len(), 22);
}
