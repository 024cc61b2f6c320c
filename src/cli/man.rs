//! `staunch man`: the manual pages.
//!
//! They come from the definition of the command line itself, so that they cannot drift from it.

use std::io::{self, Write as _};
use std::path::PathBuf;

use clap::CommandFactory as _;

use super::{Cli, Exit};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the pages of all commands into this folder, instead of printing the first
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    let command = Cli::command();
    let done = match args.folder {
        Some(folder) => clap_mangen::generate_to(command, folder),
        None => {
            let mut page = Vec::new();
            let rendered = clap_mangen::Man::new(command).render(&mut page);
            rendered.and_then(|()| io::stdout().write_all(&page))
        }
    };
    match done {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("staunch man: {error}");
            Exit::Failed
        }
    }
}
