//! `completion`: scripts for shells.

use clap::CommandFactory;
use clap_complete::Shell;

use super::error::Failure;
use super::output;

/// What to write a script for.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell: bash, zsh, fish, elvish or powershell
    shell: Shell,
}

/// Writes the script to standard output.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "headwater", &mut script);
    output::raw(&script);
    Ok(())
}
