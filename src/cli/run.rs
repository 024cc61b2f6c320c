//! `staunch run`: serve in the foreground until told to stop.

use std::path::PathBuf;

use super::{DEFAULT_CONFIG, Exit};
use crate::config::{self, Config, Flags, Report};
use crate::server::{self, Debugging, Source, Start};

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,

    /// For debugging: write the secrets of all TLS sessions to this file. Anyone who has it can
    /// read all traffic
    #[arg(long, value_name = "FILE")]
    keylog: Option<PathBuf>,

    /// Without a configuration file: a PEM file with the certificate chain
    #[arg(
        long,
        value_name = "PEM",
        conflicts_with = "config",
        requires = "upstream"
    )]
    chain: Option<PathBuf>,

    /// A PEM file with the private key, unless the file of the chain holds it too
    #[arg(long, value_name = "PEM", requires = "chain")]
    key: Option<PathBuf>,

    /// The server behind, such as http://127.0.0.1:8080
    #[arg(long, value_name = "URL", requires = "chain")]
    upstream: Option<String>,

    /// An address that terminates TLS, such as 127.0.0.1:8443; may be repeated; port 443 of every address by default
    #[arg(long, value_name = "ADDR", requires = "chain")]
    https: Vec<String>,

    /// An address that redirects to HTTPS; may be repeated
    #[arg(long, value_name = "ADDR", requires = "chain")]
    http: Vec<String>,

    /// The admin address [default: 127.0.0.1:9180]
    #[arg(long, value_name = "ADDR", requires = "chain")]
    admin: Option<String>,
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    let start = match Start::look() {
        Ok(start) => start,
        Err(error) => {
            eprintln!("staunch: the process that was to be replaced is gone: {error}");
            return Exit::Failed;
        }
    };
    let debugging = Debugging {
        keylog: args.keylog.clone(),
    };
    let (config, source) = match load(args) {
        Ok(loaded) => loaded,
        Err(report) => {
            eprint!("{report}");
            start.refuse(&report.to_string());
            return Exit::Failed;
        }
    };
    if !config.warnings.is_empty() {
        eprint!("{}", config.warnings);
    }
    match server::run(config, source, &debugging, start) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            eprintln!("staunch: {error}");
            Exit::Failed
        }
    }
}

fn load(args: Args) -> Result<(Config, Source), Report> {
    match (args.chain, args.upstream) {
        (Some(chain), Some(upstream)) => {
            let flags = Flags {
                chain,
                key: args.key,
                upstream,
                https: args.https,
                http: args.http,
                admin: args.admin,
            };
            Ok((config::from_flags(&flags)?, Source::Flags))
        }
        _ => Ok((config::load(&args.config)?, Source::File(args.config))),
    }
}
