//! `staunch completions`: the script by which a shell completes this program's arguments.
//!
//! It comes from the definition of the command line itself, so that it cannot drift from it.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Exit, say};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "staunch", &mut script);
    say(String::from_utf8_lossy(&script), Exit::Ok)
}
