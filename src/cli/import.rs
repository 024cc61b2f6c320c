//! `staunch import`: the configuration of another program, written anew.

mod verify;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

use super::{Exit, say};
use crate::cert::presented;
use crate::config;
use crate::import::{Loss, haproxy, nginx};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    from: From,

    /// Send the same requests to the server that runs at this address and to staunch with the
    /// imported configuration, and show where their answers differ
    #[arg(long, value_name = "URL", global = true)]
    verify: Option<String>,
}

#[derive(Debug, Subcommand)]
enum From {
    /// A configuration of nginx, or a single file of `sites-enabled`
    Nginx {
        /// The main file, often /etc/nginx/nginx.conf; files that it includes are read too
        file: PathBuf,
    },
    /// A configuration of HAProxy
    Haproxy {
        /// The file, often /etc/haproxy/haproxy.cfg
        file: PathBuf,
    },
}

/// The names that the certificate in a file is for; none where it cannot be read.
fn names_of(file: &Path) -> Vec<String> {
    let leaf = CertificateDer::pem_file_iter(file)
        .ok()
        .and_then(|mut found| found.next()?.ok());
    let described = leaf.and_then(|leaf| presented::describe(&leaf));
    let names = described.map(|certificate| certificate.names);
    names.iter().flatten().map(ToString::to_string).collect()
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    let imported = match &args.from {
        From::Nginx { file } => nginx::import(file, names_of),
        From::Haproxy { file } => haproxy::import(file),
    };
    let imported = match imported {
        Ok(imported) => imported,
        Err(error) => {
            eprintln!("error: {error}");
            return Exit::Failed;
        }
    };
    if say(&imported.text, Exit::Ok) == Exit::Failed {
        return Exit::Failed;
    }
    for line in imported.told() {
        eprintln!("{line}");
    }
    if let Err(report) = config::parse(&imported.text, &PathBuf::from("(imported)")) {
        eprintln!("what was written needs a hand before it can be used:\n{report}");
        return Exit::Bad;
    }
    let alike = match &args.verify {
        None => true,
        Some(url) => match verify::run(url, &imported.text) {
            Ok(found) => {
                eprint!("{found}");
                found.is_alike()
            }
            Err(why) => {
                eprintln!("staunch import --verify {url}: {why}");
                return Exit::Failed;
            }
        },
    };
    match alike && !imported.notes.iter().any(|note| note.loss == Loss::Real) {
        true => Exit::Ok,
        false => Exit::Bad,
    }
}
