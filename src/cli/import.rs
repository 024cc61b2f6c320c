//! `staunch import`: the configuration of another program, written anew.

use std::path::PathBuf;

use clap::Subcommand;

use super::Exit;
use crate::config;
use crate::import::{Loss, haproxy, nginx};

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
    /// HAProxy's
    Haproxy {
        /// The file that it is started with
        file: PathBuf,
    },
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    let imported = match &args.from {
        From::Nginx { file } => nginx::import(file),
        From::Haproxy { file } => haproxy::import(file),
    };
    let imported = match imported {
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
