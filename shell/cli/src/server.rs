//! The server half of the binary: flags in `nats-server`'s manner.

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs a server until it is told to stop. The first argument is the program's name.
pub fn run(args: Vec<OsString>) -> ExitCode {
    let _ = args;
    eprintln!("headwater: error: this build has no server in it, only these commands:");
    eprintln!("{}", crate::command::overview());
    ExitCode::from(1)
}
