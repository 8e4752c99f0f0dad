//! The `headwater` binary: a server with `nats-server`'s flags, or, when a command is named, a client of one.

mod command;
mod server;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let words = args.get(1..).unwrap_or_default();
    if command::wanted(words) {
        return command::run(args);
    }
    let asks_for_help = words.iter().any(|word| ["-h", "--help", "help"].iter().any(|help| word == help));
    let code = server::run(args);
    if asks_for_help {
        println!("\nClient commands (each has a --help):\n{}", command::overview());
    }
    code
}
