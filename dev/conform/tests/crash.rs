//! Killed without warning under load, again and again: what was acknowledged is there, once, in order, byte by byte, and
//! confirmed acknowledgements hold.
//!
//! `HEADWATER_CRASH_ROUNDS` says how often (default 5), `HEADWATER_CRASH_SEED` repeats a run.

use std::{process::ExitCode, sync::mpsc, time::Duration};

use hw_conform::{Case, Cases, Dice, Load, Outcome, Target, run_all, targets};
use hw_testkit::{Launch, Server};

fn main() -> ExitCode {
    let rounds: u64 =
        std::env::var("HEADWATER_CRASH_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let ours = targets().into_iter().filter(|target| target.name == "headwater");
    let encrypted = ours.map(|target| case(target, ", cipher: chacha, key: secret", rounds.div_ceil(2)));
    let cases = targets().into_iter().map(|target| case(target, "", rounds)).chain(encrypted).collect();
    run_all(Cases { cases, threads: 1 })
}

fn case(target: Target, settings: &'static str, rounds: u64) -> Case {
    let name = format!("{}: killed under load{settings}", target.name);
    let run = move || match &target.binary {
        Err(why) => Outcome::Skipped(why.clone()),
        Ok(binary) => {
            let ours = target.name == "headwater";
            // Small enough that most of what is read comes from segments and most restarts begin at a checkpoint.
            let config = ours.then(|| format!("jetstream {{ checkpoint_bytes: 400KB{settings} }}"));
            let launch = Launch { binary: binary.clone(), flags: vec!["-js".to_owned()], config };
            target.promised(Run::new(launch).and_then(|mut run| run.rounds(rounds)))
        }
    };
    Case { name, run: Box::new(run) }
}

struct Run {
    server: Server,
    load: Load,
}

impl Run {
    fn new(launch: Launch) -> Result<Run, String> {
        let server = Server::start(launch).map_err(|error| error.to_string())?;
        let load = Load::begin(server.port(), Dice::from_env("HEADWATER_CRASH_SEED"))?;
        Ok(Run { server, load })
    }

    fn rounds(&mut self, rounds: u64) -> Result<(), String> {
        for round in 1..=rounds {
            let whole = round % 10 == 0 || round == rounds;
            let done = self.load_and_kill().and_then(|()| self.load.check(self.server.port(), whole));
            done.map_err(|what| format!("round {round} of {rounds}: {what}\n{}", self.server.log_end()))?;
            if whole {
                println!("round {round}: {}", self.load.summary());
            }
        }
        self.load.drain(self.server.port())?;
        self.load.check(self.server.port(), true)
    }

    /// Clients work until the server dies in the middle of it.
    fn load_and_kill(&mut self) -> Result<(), String> {
        let (never, pause) = mpsc::sync_channel::<()>(1);
        let span = Duration::from_millis(30 + self.load.below(500));
        self.load.run(self.server.port(), || {
            // Nothing is ever sent: this is the time that the load lasts.
            let _ = pause.recv_timeout(span);
            let killed = self.server.signal("KILL").map_err(|error| error.to_string());
            drop(never);
            killed
        })?;
        self.server.kill9().map_err(|error| error.to_string())
    }
}
