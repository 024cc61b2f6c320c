//! `staunch completions`: what makes a shell complete this program's arguments.
//!
//! It comes from the definition of the command line itself, so that it cannot drift from it.

use std::io::{self, Write as _};

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Exit};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which shell
    shell: Shell,
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "staunch", &mut script);
    match io::stdout().write_all(&script) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("staunch completions: {error}");
            Exit::Failed
        }
    }
}
