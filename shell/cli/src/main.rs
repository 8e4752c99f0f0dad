//! The `headwater` binary: a server with `nats-server`'s flags, or, when a command is named, a client of one.

mod command;
mod server;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if command::wanted(&args[1..]) { command::run(args) } else { server::run(args) }
}
