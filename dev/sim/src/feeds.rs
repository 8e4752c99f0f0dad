//! Mirrors and sources through kills and power cuts: afterwards each copy is there once, in order, and nothing else.

use hw_kit::Span;
use serde_json::{Value, json};

use crate::asker::Asker;
use crate::client::publish;
use crate::world::Start;

const MESSAGES: u64 = 400;

impl Asker {
    /// Publishes without waiting, then the server dies at some instant of the copying.
    fn burst_and_fault(&mut self) {
        let mut bytes = Vec::new();
        for _ in 0..MESSAGES / 4 {
            let subject = format!("o.{}", self.rng.below(3));
            publish(&mut bytes, &subject, "", &[], b"a message");
        }
        self.world.send(self.client, bytes);
        let span = Span(self.rng.below(30_000_000) as i64);
        self.wait(span);
        match self.rng.chance(1, 2) {
            true => self.world.kill(0),
            false => self.world.power_cut(0),
        }
        self.wait(Span::from_millis(100));
        self.world.boot(0, Start { cuts: true, ..Start::default() }).expect("it starts again");
        self.world.connect(self.client);
    }

    fn message(&mut self, stream: &str, seq: u64) -> Value {
        self.api(&format!("STREAM.MSG.GET.{stream}"), &json!({"seq": seq}))["message"].take()
    }
}

fn origin_of(message: &Value) -> String {
    use base64::Engine as _;
    let header = message["hdrs"].as_str().expect("a sourced message has a header");
    let header = base64::engine::general_purpose::STANDARD.decode(header).expect("it is base64");
    String::from_utf8(header).expect("it is text")
}

#[test]
fn copies_are_exact_after_restarts() {
    for seed in 1..=12 {
        let mut run = Asker::new(seed);
        run.api("STREAM.CREATE.O", &json!({"name": "O", "subjects": ["o.*"]}));
        run.api("STREAM.CREATE.M", &json!({"name": "M", "mirror": {"name": "O"}}));
        run.api("STREAM.CREATE.S", &json!({"name": "S", "sources": [{"name": "O"}, {"name": "P"}]}));
        run.api(
            "STREAM.CREATE.F",
            &json!({"name": "F", "sources": [{"name": "O", "filter_subject": "o.1"}]}),
        );
        for _ in 0..4 {
            run.burst_and_fault();
        }
        run.wait(Span::from_secs(10));
        let count = run.messages("O");
        assert!(count > 0, "seed {seed}: some bursts arrive");
        assert_eq!((run.messages("M"), run.messages("S")), (count, count), "seed {seed}");
        let mut filtered = 0;
        for seq in 1..=count {
            let original = run.message("O", seq);
            assert_eq!(run.message("M", seq), original, "seed {seed}");
            let subject = original["subject"].as_str().expect("a subject").to_owned();
            let line = |filter: &str| format!("Nats-Stream-Source: O {seq} {filter} > {subject} ");
            let copy = run.message("S", seq);
            assert!(origin_of(&copy).contains(&line(">")), "seed {seed}: {copy}");
            if subject == "o.1" {
                filtered += 1;
                let copy = run.message("F", filtered);
                assert!(origin_of(&copy).contains(&line("o.1")), "seed {seed}: {copy}");
            }
        }
        assert_eq!(run.messages("F"), filtered, "seed {seed}");
    }
}
