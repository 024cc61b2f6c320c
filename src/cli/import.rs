//! `staunch import`: the configuration of another program, written anew.

use std::path::PathBuf;

use clap::Subcommand;

use super::Exit;
use crate::config;
use crate::import::{Loss, nginx};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    /// nginx's: the file that it is started with, or a file of `sites-enabled` alone
    Nginx {
        /// What it includes is read too, relative to its folder
        file: PathBuf,
    },
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    let From::Nginx { file } = args.from;
    let imported = match nginx::import(&file) {
        Ok(imported) => imported,
        Err(error) => {
            eprintln!("error: {error}");
            return Exit::Failed;
        }
    };
    print!("{}", imported.text);
    for note in &imported.notes {
        eprintln!("{note}");
    }
    if let Err(report) = config::parse(&imported.text, &PathBuf::from("(imported)")) {
        eprintln!("what was written needs a hand before it can be used:\n{report}");
        return Exit::Bad;
    }
    match imported.notes.iter().any(|note| note.loss == Loss::Real) {
        true => Exit::Bad,
        false => Exit::Ok,
    }
}
