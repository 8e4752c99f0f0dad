//! The targets by name.

mod api;
mod archive;
mod commands;
mod conf;
mod raft;
mod recovery;
mod server;
mod wire;

/// A function of bytes that must not panic.
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// Runs one input.
    pub run: fn(&[u8]),
    /// Where inputs begin.
    pub corpus: fn() -> Vec<Vec<u8>>,
    /// What means something to it.
    pub words: &'static [&'static str],
    /// How many inputs a test runs: slow targets get fewer.
    pub tested: u64,
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "wire", run: wire::fuzz_wire, corpus: wire::corpus, words: wire::WORDS, tested: 8000 },
    Target { name: "conf", run: conf::fuzz_conf, corpus: conf::corpus, words: conf::WORDS, tested: 8000 },
    Target { name: "api", run: api::fuzz_api, corpus: api::corpus, words: api::WORDS, tested: 10_000 },
    Target {
        name: "archive",
        run: archive::fuzz_archive,
        corpus: archive::corpus,
        words: archive::WORDS,
        tested: 8000,
    },
    Target {
        name: "commands",
        run: commands::fuzz_commands,
        corpus: commands::corpus,
        words: api::WORDS,
        tested: 4000,
    },
    Target {
        name: "server",
        run: server::fuzz_server,
        corpus: server::corpus,
        words: api::WORDS,
        tested: 2500,
    },
    Target { name: "raft", run: raft::fuzz_raft, corpus: raft::corpus, words: &[], tested: 8000 },
    Target {
        name: "recovery",
        run: recovery::fuzz_recovery,
        corpus: recovery::corpus,
        words: &[],
        tested: 120,
    },
];
