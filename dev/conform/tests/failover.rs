//! Leaders of streams die, or are stopped, or links break, while async-nats publishes through another server, without message ids and without
//! trying twice: every publish is acknowledged, stored once, and in order, and so soon that no client gives up.

use std::{
    collections::VecDeque,
    process::ExitCode,
    time::{Duration, Instant},
};

use async_nats::jetstream;
use hw_conform::trio::{Fault, Flow, Trio, api, open, outcome, replicated, want};
use hw_conform::{Case, Cases, Outcome, Target, run_all, targets};
use hw_testkit::Parted;
use serde_json::json;

/// Publishes under way at a time.
const WINDOW: usize = 64;
/// How many each failure comes into the middle of.
const MESSAGES: usize = 1_000;
/// How often links break, and for how long nothing gets through before.
const ROUNDS: usize = 5;
const STOPPED: Duration = Duration::from_millis(100);
/// A publish may take this long: half of the shortest time that the clients' libraries wait.
const LONGEST: Duration = Duration::from_millis(2_500);

type Run = fn(&Target) -> Flow;

fn main() -> ExitCode {
    let own: [(&str, Run); 6] = [
        ("the leader is killed", |target| under(target, 3, &kill(), WINDOW)),
        ("the leader is killed while one publish is under way at a time", |target| {
            under(target, 3, &kill(), 1)
        }),
        ("the leader is stopped, and goes on later", |target| under(target, 3, &pause(), WINDOW)),
        ("two of five are killed", |target| under(target, 5, &kill_two(), WINDOW)),
        ("all links break, and what was on its way to the leader is lost", |target| {
            links_break(target, true)
        }),
        ("all links break, and what the leader has answered is lost", |target| links_break(target, false)),
    ];
    let mut cases = Vec::new();
    for target in targets().into_iter().filter(|target| target.name == "headwater") {
        for (name, run) in own {
            let (name, target) = (format!("{}: {name}", target.name), target.clone());
            let run = move || match &target.binary {
                Err(why) => Outcome::Skipped(why.clone()),
                Ok(_) => outcome(run(&target)),
            };
            cases.push(Case { name, run: Box::new(run) });
        }
    }
    run_all(Cases { cases, threads: 2 })
}

/// What happens to a leader, and what makes it good.
#[derive(Clone, Copy)]
struct Failure {
    strike: fn(&mut Trio, usize) -> Flow,
    mend: fn(&mut Trio, usize) -> Flow,
}

fn strike_dead(trio: &mut Trio, at: usize) -> Flow {
    trio.servers[at].kill();
    Ok(())
}

fn kill() -> Failure {
    Failure { strike: strike_dead, mend: |trio, at| Ok(trio.servers[at].start_again()?) }
}

fn kill_two() -> Failure {
    fn both(trio: &mut Trio, at: usize, mut act: impl FnMut(&mut Trio, usize) -> Flow) -> Flow {
        let other = (at + 2) % trio.servers.len();
        act(trio, at)?;
        act(trio, other)
    }
    Failure {
        strike: |trio, at| both(trio, at, strike_dead),
        mend: |trio, at| both(trio, at, |trio, at| Ok(trio.servers[at].start_again()?)),
    }
}

fn pause() -> Failure {
    Failure {
        strike: |trio, at| Ok(trio.servers[at].signal("STOP")?),
        mend: |trio, at| Ok(trio.servers[at].signal("CONT")?),
    }
}

/// What a publisher was told.
struct Told {
    /// The sequences, in the order of the publishes.
    seqs: Vec<u64>,
    longest: Duration,
}

/// Publishes so many messages with `window` under way; calls `halfway` in the middle.
async fn publish(
    url: &str,
    first: usize,
    window: usize,
    halfway: impl FnOnce() -> Flow,
) -> Result<Told, Fault> {
    let mut js = jetstream::new(async_nats::connect(url).await?);
    js.set_timeout(LONGEST);
    let (mut told, mut halfway) = (Told { seqs: Vec::new(), longest: Duration::ZERO }, Some(halfway));
    let mut open = VecDeque::new();
    for number in first..first + MESSAGES {
        if number == first + MESSAGES / 2
            && let Some(halfway) = halfway.take()
        {
            halfway()?;
        }
        open.push_back((number, Instant::now(), js.publish("s", number.to_string().into()).await?));
        while open.len() >= window {
            settle(&mut open, &mut told).await?;
        }
    }
    while !open.is_empty() {
        settle(&mut open, &mut told).await?;
    }
    Ok(told)
}

type Open = VecDeque<(usize, Instant, jetstream::context::PublishAckFuture)>;

async fn settle(open: &mut Open, told: &mut Told) -> Flow {
    let Some((number, begun, ack)) = open.pop_front() else { return Ok(()) };
    let ack = ack.await.map_err(|error| format!("publish {number}: {error} after {:?}", begun.elapsed()))?;
    told.longest = told.longest.max(begun.elapsed());
    told.seqs.push(ack.sequence);
    Ok(())
}

/// Three failures, one after the other, each of the leader of then.
fn under(target: &Target, servers: usize, failure: &Failure, window: usize) -> Flow {
    let mut trio = Trio::start_with(target, servers, |_| String::new())?;
    api(&mut open(&trio.servers[0])?, "STREAM.CREATE.S", &replicated("S", servers))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut asked = 0;
    for round in 0..3 {
        let leader = trio.leader(asked, "S")?;
        asked = (leader + 1) % servers;
        let url = trio.servers[asked].url();
        let first = round * MESSAGES;
        let told = runtime.block_on(publish(&url, first, window, || (failure.strike)(&mut trio, leader)))?;
        println!("{MESSAGES} acknowledged, the slowest after {:?}", told.longest);
        let expected: Vec<u64> = (first as u64 + 1..=(first + MESSAGES) as u64).collect();
        want(told.seqs == expected, || "publishes were stored twice, or in another order".to_owned())?;
        (failure.mend)(&mut trio, leader)?;
        trio.await_health()?;
    }
    let mut js = open(&trio.servers[asked])?;
    let info = api(&mut js, "STREAM.INFO.S", &json!({}))?;
    want(info["state"]["messages"] == 3 * MESSAGES, || format!("{}", info["state"]))
}

/// Nothing gets through to the leader, or from it, for a moment, too short for anybody to elect another one; then all links break
/// with what was on its way on them.
fn links_break(target: &Target, to_the_leader: bool) -> Flow {
    let parted = Parted::default();
    let trio = Trio::start_behind(target, &parted)?;
    api(&mut open(&trio.servers[0])?, "STREAM.CREATE.S", &replicated("S", 3))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for round in 0..ROUNDS {
        let leader = trio.leader(0, "S")?;
        let asked = (leader + 1) % 3;
        let (from, to) = (format!("n{}", asked + 1), format!("n{}", leader + 1));
        let breaking = || {
            match to_the_leader {
                true => parted.part(&from, &to),
                false => parted.part(&to, &from),
            }
            let parted = parted.clone();
            std::thread::spawn(move || {
                std::thread::park_timeout(STOPPED);
                parted.cut();
            });
            Ok(())
        };
        let first = round * MESSAGES;
        let told = runtime.block_on(publish(&trio.servers[asked].url(), first, WINDOW, breaking))?;
        println!("{MESSAGES} acknowledged, the slowest after {:?}", told.longest);
        let expected: Vec<u64> = (first as u64 + 1..=(first + MESSAGES) as u64).collect();
        want(told.seqs == expected, || "publishes were stored twice, or in another order".to_owned())?;
        trio.await_health()?;
    }
    let info = api(&mut open(&trio.servers[0])?, "STREAM.INFO.S", &json!({}))?;
    want(info["state"]["messages"] == ROUNDS * MESSAGES, || format!("{}", info["state"]))
}
