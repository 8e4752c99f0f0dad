//! What a start finds on a disk that was full or cannot be read everywhere.

use std::collections::BTreeMap;

use hw_kit::Span;
use hw_store::FileId;
use serde_json::json;

use crate::asker::Asker;
use crate::world::Start;

impl Asker {
    fn publish(&mut self, subject: &str, count: usize) {
        for _ in 0..count {
            let ack = self.request(subject, &"x".repeat(500)).expect("the log has space");
            assert_eq!(ack.get("error"), None, "{ack}");
        }
    }

    /// Streams whose messages are in segments, in a checkpoint and in the log, one of them with a limit that replay must
    /// look up what is in segments for.
    fn fill(&mut self) {
        for name in ["A", "B"] {
            self.api(
                &format!("STREAM.CREATE.{name}"),
                &json!({"name": name, "subjects": [format!("{name}.*")]}),
            );
            self.publish(&format!("{name}.x"), 12);
        }
        let last = json!({"name": "L", "subjects": ["L.*"], "max_msgs_per_subject": 1});
        self.api("STREAM.CREATE.L", &last);
        (0..8).for_each(|key| self.publish(&format!("L.{key}"), 1));
        self.wait(Span::from_secs(5));
        self.publish("A.x", 2);
        self.publish("L.3", 1);
    }

    /// What is there, message by message.
    fn all(&mut self) -> BTreeMap<&'static str, Vec<String>> {
        let mut all = BTreeMap::new();
        for name in ["A", "B", "L"] {
            let info = self.api(&format!("STREAM.INFO.{name}"), &json!({}));
            let last = info["state"]["last_seq"].as_u64().expect("a number");
            let get = |seq| {
                let body = json!({"seq": seq}).to_string();
                let answer =
                    self.request(&format!("$JS.API.STREAM.MSG.GET.{name}"), &body).expect("an answer");
                let message = &answer["message"];
                let payload = message["data"].as_str().unwrap_or_default();
                format!("{seq} {} {} {}", message["subject"], payload.len(), answer["error"])
            };
            all.insert(name, (1..=last).map(get).collect());
        }
        all
    }

    fn files(&self) -> BTreeMap<FileId, Vec<u8>> {
        self.world.look_at_disk(0).contents().map(|(file, current, _)| (file, current.to_vec())).collect()
    }

    fn stop(&mut self) {
        self.world.kill(0);
        self.wait(Span::from_millis(100));
    }

    fn restart(&mut self) {
        self.world.kill(0);
        self.wait(Span::from_millis(100));
        self.world.boot(0, Start::default()).expect("it starts again");
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
        let used = run.world.disk(0).used();
        run.world.disk(0).capacity = Some(used + 3000);
        run.api("STREAM.CREATE.NEW", &json!({"name": "NEW", "subjects": ["new"]}));
        run.publish("new", 12);
        run.wait(Span::from_secs(5));
        assert!(run.world.checkpoints() > before, "seed {seed}: without messages, it fits");
        run.world.disk(0).capacity = None;
        run.restart();
        assert_eq!((run.messages("OLD"), run.messages("NEW")), (12, 12), "seed {seed}");
    }
}

/// The start fails as well, says which file it was and changes nothing.
fn assert_refused(run: &Asker, reason: &str, before: &BTreeMap<FileId, Vec<u8>>) {
    let named = reason.strip_suffix(": the device reports an error").expect(reason);
    let place = named.rsplit(": ").next().expect("a word");
    let is_folder = place == "." || place == "segments";
    assert!(is_folder || before.keys().any(|file| file.path() == place), "{reason}");
    let is_index = named.contains("the state of group");
    for (file, content) in before {
        // What replay needs is read when the log has its new session already.
        if !(is_index && matches!(file, FileId::Wal(_) | FileId::Witness)) {
            assert_eq!(run.world.look_at_disk(0).content(*file), Some(&content[..]), "{file:?}: {reason}");
        }
    }
}

#[test]
fn a_read_that_fails_while_a_server_starts_changes_nothing() {
    let mut run = Asker::new(3);
    run.fill();
    let all = run.all();
    run.stop();
    for read in 0.. {
        let before = run.files();
        run.world.disk(0).fail_read_in = Some(read);
        let booted = run.world.boot(0, Start::default());
        if run.world.disk(0).fail_read_in.take().is_some() {
            assert!(booted.is_ok() && read > 20, "all {read} reads went well");
            break;
        }
        assert_refused(&run, &booted.expect_err("a read failed"), &before);
    }
    run.world.connect(run.client);
    assert_eq!(run.world.damaged(0), Vec::<String>::new());
    assert_eq!(run.all(), all);
}

/// A file cannot be read for a whole run, with checkpoints in it, and then it can.
#[test]
fn a_file_that_cannot_be_read_for_a_while_is_there_afterwards() {
    let mut run = Asker::new(5);
    run.fill();
    let (all, _) = (run.all(), run.stop());
    let mut files = run.files();
    let mut refused = Vec::new();
    for file in files.clone().into_keys() {
        run.world.disk(0).set_unreadable(Some(file));
        let booted = run.world.boot(0, Start::default());
        run.world.disk(0).set_unreadable(None);
        match booted {
            // What nobody needs for a start is not read.
            Ok(()) => {
                assert_eq!(file, FileId::Reserve);
                run.stop();
                files = run.files();
            }
            Err(reason) => {
                assert_refused(&run, &reason, &files);
                assert!(reason.contains(&file.path()), "{reason}");
                refused.push(file);
            }
        }
    }
    let is_any = |is: fn(&FileId) -> bool| refused.iter().any(is);
    assert!(is_any(|file| matches!(file, FileId::Wal(_))));
    assert!(is_any(|file| matches!(file, FileId::Checkpoint(_))));
    assert!(is_any(|file| matches!(file, FileId::Segment(..))));
    run.world.boot(0, Start::default()).expect("the disk reads again");
    run.world.connect(run.client);
    assert_eq!(run.all(), all);
}

/// A page of an index that replay needs is refused as well: a command that does not find what it removes does something else
/// than it did.
#[test]
fn replay_does_not_go_on_without_an_index() {
    let mut run = Asker::new(7);
    run.fill();
    let all = run.all();
    run.stop();
    let segments: Vec<FileId> =
        run.files().into_keys().filter(|file| matches!(file, FileId::Segment(..))).collect();
    let mut refused = 0;
    for file in segments {
        let before = run.files();
        run.world.disk(0).set_unreadable_pages(Some(file));
        let booted = run.world.boot(0, Start::default());
        run.world.disk(0).set_unreadable_pages(None);
        if let Err(reason) = booted {
            assert_refused(&run, &reason, &before);
            assert!(reason.contains(&file.path()), "{reason}");
            refused += 1;
        }
        run.stop();
    }
    assert!(refused > 0, "the stream with a limit for each subject looks up what is in segments");
    run.restart();
    assert_eq!(run.all(), all);
}
