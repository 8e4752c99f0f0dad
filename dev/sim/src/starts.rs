//! What a start finds on a disk that was full or cannot be read everywhere.

use hw_kit::Span;
use serde_json::json;

use crate::asker::Asker;

impl Asker {
    fn publish(&mut self, subject: &str, count: usize) {
        for _ in 0..count {
            let ack = self.request(subject, &"x".repeat(500)).expect("the log has space");
            assert_eq!(ack.get("error"), None, "{ack}");
        }
    }

    fn restart(&mut self) {
        self.world.kill();
        self.wait(Span::from_millis(100));
        self.world.boot(false).expect("it starts again");
        self.world.connect(self.client);
    }
}

/// A checkpoint on a full disk leaves out streams whose messages it cannot write, and holds the list of all streams.
#[test]
fn a_stream_that_a_full_disk_kept_out_of_the_checkpoint_is_in_the_log() {
    for seed in 1..=8 {
        let mut run = Asker::new(seed);
        run.api("STREAM.CREATE.OLD", &json!({"name": "OLD", "subjects": ["old"]}));
        run.publish("old", 12);
        run.wait(Span::from_secs(5));
        let before = run.world.checkpoints();
        assert!(before > 0, "seed {seed}: it makes checkpoints");
        // The log has its files already: there is space for a list of streams, and none for a segment.
        run.world.disk.capacity = Some(run.world.disk.used() + 3000);
        run.api("STREAM.CREATE.NEW", &json!({"name": "NEW", "subjects": ["new"]}));
        run.publish("new", 12);
        run.wait(Span::from_secs(5));
        assert!(run.world.checkpoints() > before, "seed {seed}: without messages, it fits");
        run.world.disk.capacity = None;
        run.restart();
        assert_eq!((run.messages("OLD"), run.messages("NEW")), (12, 12), "seed {seed}");
    }
}
