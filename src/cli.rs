//! The command line: one file a command, and the exit statuses.
//!
//! Human output goes to standard output, diagnostics to standard error.

pub mod accept;
pub mod certs;
pub mod check;
pub mod completions;
pub mod demo;
pub mod drill;
pub mod import;
pub mod man;
pub mod probe;
pub mod run;
pub mod upgrade;
pub mod upstreams;

use std::fmt::Display;
use std::io::{self, ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Where the configuration is when no `--config` says otherwise.
pub const DEFAULT_CONFIG: &str = "/etc/staunch/staunch.toml";

/// A TLS-terminating reverse proxy that never lets a certificate take a site down.
#[derive(Debug, Parser)]
#[command(name = "staunch", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve in the foreground until told to stop
    Run(run::Args),
    /// Make a development certificate, serve it, and say what to try next
    Demo(demo::Args),
    /// Read the configuration and every certificate, and say what is wrong
    Check(check::Args),
    /// Show the certificates held
    Certs(certs::Args),
    /// Use what is on disk although it was held back as worse
    Accept(accept::Args),
    /// Show what a client really gets from a server
    Probe(probe::Args),
    /// Show the servers behind, and how they stand
    Upstreams(upstreams::Args),
    /// Let a new process of the program on disk take over from the running one
    Upgrade(upgrade::Args),
    /// Play time forward and show the alerts that would be sent
    Drill(drill::Args),
    /// Write the configuration of another program as one of staunch's
    Import(import::Args),
    /// Print what makes a shell complete this program's arguments
    Completions(completions::Args),
    /// Print the manual page, or write those of all commands into a folder
    Man(man::Args),
}

/// How a command ends. The numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All well.
    Ok,
    /// It could not be done: no usable configuration, no start, no connection.
    Failed,
    /// It was done, and what was found is not well.
    Bad,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Ok => 0,
            Exit::Failed => 1,
            Exit::Bad => 2,
        })
    }
}

/// `--config FILE`, as several commands take it.
#[derive(Clone, Debug, clap::Args)]
pub struct ConfigArg {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    pub config: PathBuf,
}

/// Writes to standard output, and returns how the command ends. A reader that has gone (`| head`)
/// had enough, which is no fault; what could not be written for another reason is.
fn say(text: impl Display, exit: Exit) -> Exit {
    let mut out = io::stdout().lock();
    match write!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("staunch: standard output cannot be written: {error}");
            Exit::Failed
        }
        _ => exit,
    }
}

/// Reads the arguments and carries the command out.
pub fn main() -> ExitCode {
    let exit = match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Check(args) => check::run(args),
        Command::Certs(args) => certs::run(args),
        Command::Accept(args) => accept::run(args),
        Command::Probe(args) => probe::run(args),
        Command::Upstreams(args) => upstreams::run(args),
        Command::Upgrade(args) => upgrade::run(args),
        Command::Drill(args) => drill::run(args),
        Command::Import(args) => import::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
    };
    exit.into()
}
