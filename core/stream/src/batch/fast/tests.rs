//! Fast batches: what their publisher is told. The expectations were asked from nats-server 2.15.1.

use super::*;

const LIMITS: BatchLimits =
    BatchLimits { messages: 1, per_stream: 1, total: 1, timeout: hw_kit::Span(10), command_bytes: 1 << 20 };

/// A stream that stores what is not marked, one run after the other.
struct Played {
    batches: FastBatches,
    last: Seq,
    says: Vec<FastSay>,
    /// Another server, which applies the same.
    followed: Option<FastBatches>,
}

impl Played {
    fn new() -> Played {
        Played { batches: FastBatches::default(), last: Seq(0), says: Vec::new(), followed: None }
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
            let message = FastMessage { subject: b"s", header: b"", payload: b"", reply: &reply, from: None };
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
                if let Some(followed) = &mut self.followed {
                    followed.follow(Time(1), (run.stop, &run.of), &results);
                }
                self.batches.handle_applied(&run.of.id, results, &mut self.says);
            }
        }
    }
}

fn show(say: &FastSay) -> String {
    let text = |to: &Bytes| String::from_utf8_lossy(to).into_owned();
    match say {
        FastSay::Flow { to, sequence, every } => format!("{}: {sequence}/{every}", text(to)),
        FastSay::Settled(on) => format!("settled {}", on.number),
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
        let message =
            FastMessage { subject: b"s", header: b"", payload: b"", reply: &Bytes::new(), from: None };
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

/// What a leader decides reaches another, which then leads.
#[test]
fn another_leader_goes_on() {
    let two = |mode: bool, first: &str, then: &str| {
        let (mut old, mut new) = (Played::new(), Played::new());
        old.followed = Some(FastBatches::default());
        let before = old.play("b", (2, mode), first);
        new.batches = old.followed.take().expect("it follows");
        new.batches.start_leading();
        new.last = old.last;
        format!("{before} | {}", new.play("b", (2, mode), then))
    };
    let unknown = "batch publish id is unknown";
    let rows = [
        (false, "1s 2a ; 3a", "4a 5c", "1s: 0/2, 2a: 2/2 | 4a: 4/2, 5c: seq 5 count 5".to_owned()),
        (false, "1s ; 2a", "3e", "1s: 0/2, 2a: 2/2 | 3e: seq 2 count 2".to_owned()),
        (false, "1s ; 2a", "2p 3e", "1s: 0/2, 2a: 2/2 | 2p: 2/1, 3e: seq 2 count 2".to_owned()),
        // Some were lost with the leader.
        (false, "1s ; 2a", "5a", "1s: 0/2, 2a: 2/2 | 5a: gap 3 5, 5a: seq 2 count 2".to_owned()),
        (true, "1s ; 2a", "5a ; 6c", "1s: 0/2, 2a: 2/2 | 5a: gap 3 5, 5a: 5/2, 6c: seq 4 count 6".to_owned()),
        (true, "1s ; 2a!", "3c", "1s: 0/2, 2a: err 2, 2a: 2/2 | 3c: seq 2 count 3".to_owned()),
        // It is over.
        (false, "1s ; 2a!", "3a", format!("1s: 0/2, 2a: err 2, 2a: seq 1 count 1 | 3a: {unknown}")),
        (false, "1s ; 2c", "3a", format!("1s: 0/2, 2c: seq 2 count 2 | 3a: {unknown}")),
        // Of that the log says nothing; one of the same name begins.
        (false, "1s ; 2e", "1s 2c", "1s: 0/2, 2e: seq 1 count 1 | 1s: 0/2, 2c: seq 3 count 2".to_owned()),
    ];
    for (mode, first, then, expected) in rows {
        assert_eq!(two(mode, first, then), expected, "{first} | {then}");
    }
}

#[test]
fn what_was_not_proposed_is_for_the_next_leader() {
    let give = |sequence: u64, op: FastOp, batches: &mut FastBatches, says: &mut Vec<FastSay>| {
        let slot = FastSlot { id: b"b", flow: 10, gaps: false, sequence, op };
        let reply = Bytes::from(format!("{sequence}"));
        let message = FastMessage { subject: b"s", header: b"", payload: b"", reply: &reply, from: None };
        batches.handle(Time(1), slot, &message, 0, says);
    };
    let stored = |seq| Ok(Stored { seq: Seq(seq), ..Stored::default() });
    for last in [FastOp::Commit, FastOp::End, FastOp::Append] {
        let (mut batches, mut says) = (FastBatches::default(), Vec::new());
        give(1, FastOp::Start, &mut batches, &mut says);
        let run = batches.take_runs(100).remove(0);
        give(2, FastOp::Append, &mut batches, &mut says);
        give(3, last, &mut batches, &mut says);
        let returned = batches.stop_leading();
        let replies = returned.iter().map(|one| String::from_utf8_lossy(&one.reply).into_owned());
        assert_eq!(replies.collect::<Vec<_>>(), ["2", "3"], "{last:?}");
        // What was proposed is decided yet, and what others then store comes after it.
        says.clear();
        batches.handle_applied(&run.of.id, vec![stored(1)], &mut says);
        assert_eq!(says, [], "{last:?}");
        let of = RunOf { id: run.of.id, flow: 10, first: 2, last: 2, ends: false };
        batches.follow(Time(1), (true, &of), &[stored(2)]);
        batches.start_leading();
        give(3, FastOp::Commit, &mut batches, &mut says);
        let run = batches.take_runs(100).remove(0);
        batches.handle_applied(&run.of.id, vec![stored(3)], &mut says);
        assert_eq!(says.iter().map(show).collect::<Vec<_>>(), ["3: seq 3 count 3"], "{last:?}");
    }
}

/// A run's first and last number, whether it ends the batch, and what became of its messages.
type Applied<'a> = (u64, u64, bool, &'a [Result<Stored, PublishError>]);

/// The last word, for those whose leader died before it could say it.
#[test]
fn who_follows_knows_how_a_batch_ended() {
    let stored = |seq| Ok(Stored { seq: Seq(seq), ..Stored::default() });
    let refused = || Err(PublishError::Sealed);
    let last_of = |stop: bool, runs: &[Applied<'_>]| {
        let mut batches = FastBatches::default();
        let mut words = runs.iter().filter_map(|(first, last, ends, results)| {
            let (id, flow, ends) = (Bytes::from_static(b"b"), 10, *ends);
            batches.follow(Time(1), (stop, &RunOf { id, flow, first: *first, last: *last, ends }), results)
        });
        let word = words.next();
        assert!(word.is_none() || words.next().is_none());
        word.map(|(number, result)| show(&FastSay::Last { to: Bytes::from(number.to_string()), result }))
    };
    assert_eq!(last_of(true, &[(1, 2, false, &[stored(1), stored(2)])]), None);
    let runs: [Applied<'_>; 2] = [(1, 1, false, &[stored(5)]), (2, 3, true, &[stored(6), stored(7)])];
    assert_eq!(last_of(true, &runs).as_deref(), Some("3: seq 7 count 3"));
    let runs: [Applied<'_>; 2] = [(1, 1, false, &[stored(5)]), (2, 9, false, &[stored(6), refused()])];
    assert_eq!(last_of(true, &runs).as_deref(), Some("3: seq 6 count 2"));
    assert_eq!(last_of(true, &[(1, 4, false, &[refused()])]).as_deref(), Some("1: stream is sealed"));
    assert_eq!(last_of(true, &[(1, 1, true, &[refused()])]).as_deref(), Some("1: seq 0 count 0"));
    assert_eq!(last_of(false, &[(1, 3, false, &[stored(1), refused()])]), None);
    assert_eq!(last_of(false, &[(1, 3, true, &[stored(1), refused()])]).as_deref(), Some("3: seq 1 count 2"));
    let again = Ok(Stored { seq: Seq(4), duplicate: true, ..Stored::default() });
    assert_eq!(last_of(true, &[(1, 1, true, &[again])]).as_deref(), Some("1: seq 4 count 1 dup"));
    // This replica has the state of a moment in which the batch was open.
    assert_eq!(last_of(true, &[(8, 9, false, &[refused()])]).as_deref(), Some("8: seq 0 count 7"));
}

#[test]
fn whoever_handed_a_message_on_hears_when_it_is_decided() {
    let mut batches = FastBatches::default();
    let give = |batches: &mut FastBatches, sequence: u64, op: FastOp| {
        let mut says = Vec::new();
        let slot = FastSlot { id: b"b", flow: 10, gaps: false, sequence, op };
        let reply = Bytes::from(format!("{sequence}"));
        let from = Some(HandedOn { by: NodeId(7), number: sequence });
        let message = FastMessage { subject: b"s", header: b"", payload: b"", reply: &reply, from };
        batches.handle(Time(1), slot, &message, 0, &mut says);
        says.iter().map(show).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(give(&mut batches, 1, FastOp::Start), "1: 0/10");
    assert_eq!(give(&mut batches, 1, FastOp::Ping), "1: 0/10, settled 1");
    assert_eq!(give(&mut batches, 2, FastOp::Append), "");
    let run = batches.take_runs(1000).remove(0);
    assert_eq!(give(&mut batches, 3, FastOp::Append), "");
    assert_eq!(give(&mut batches, 4, FastOp::End), "");
    assert_eq!(give(&mut batches, 5, FastOp::Append), "5: batch publish id is unknown, settled 5");
    let mut says = Vec::new();
    let results = vec![Ok(Stored { seq: Seq(1), ..Stored::default() }), Err(PublishError::Sealed)];
    batches.handle_applied(&run.of.id, results, &mut says);
    let said = says.iter().map(show).collect::<Vec<_>>().join(", ");
    assert_eq!(said, "settled 1, 2: err 2, settled 3, settled 4, settled 2, 2: seq 1 count 1");
    // Who does not lead any more leaves it to the next leader.
    give(&mut batches, 1, FastOp::Start);
    batches.take_runs(1000);
    give(&mut batches, 2, FastOp::Append);
    assert_eq!(batches.stop_leading(), []);
}

/// Those that another leader ended without a word in the log leave room for others.
#[test]
fn forgotten_batches_take_no_room() {
    let (mut batches, mut says) = (FastBatches::default(), Vec::new());
    let stored = [Ok(Stored { seq: Seq(1), ..Stored::default() })];
    for number in 0..FAST_PER_STREAM as u64 + 5 {
        let id = Bytes::from(number.to_string());
        let of = RunOf { id, flow: 10, first: 1, last: 1, ends: false };
        assert!(batches.follow(Time(number as i64), (true, &of), &stored).is_none());
    }
    assert_eq!(batches.len(), FAST_PER_STREAM);
    batches.start_leading();
    let mut begin = |batches: &mut FastBatches, id: &str| {
        let slot = FastSlot { id: id.as_bytes(), flow: 10, gaps: false, sequence: 1, op: FastOp::Start };
        let (reply, from) = (Bytes::from_static(b"r"), None);
        let message = FastMessage { subject: b"s", header: b"", payload: b"", reply: &reply, from };
        says.clear();
        batches.handle(Time(0), slot, &message, 0, &mut says);
        matches!(says[0], FastSay::Flow { .. })
    };
    assert!((0..FAST_PER_STREAM).all(|number| begin(&mut batches, &format!("new{number}"))));
    assert!(!begin(&mut batches, "one more"), "these are heard");
}
