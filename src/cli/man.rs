//! `staunch man`: the manual pages.
//!
//! They come from the definition of the command line itself, so that they cannot drift from it.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory as _;

use super::{Cli, Exit, say};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the pages of all commands into this folder, instead of printing the main one
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    let command = Cli::command();
    let done = match args.folder {
        Some(folder) => fs::create_dir_all(&folder)
            .and_then(|()| clap_mangen::generate_to(command, &folder))
            .map(|()| Exit::Ok)
            .map_err(|error| format!("{}: {error}", folder.display())),
        None => {
            let mut page = Vec::new();
            let rendered = clap_mangen::Man::new(command).render(&mut page);
            rendered
                .map_err(|error| error.to_string())
                .map(|()| say(String::from_utf8_lossy(&page), Exit::Ok))
        }
    };
    match done {
        Ok(exit) => exit,
        Err(error) => {
            eprintln!("staunch man: {error}");
            Exit::Failed
        }
    }
}
