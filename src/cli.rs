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

/// What the exit statuses of all commands mean.
const STATUS: &str = "\
Exit status: 0 done, and all is well; 1 it could not be done; 2 it was done, and what was found is \
not well, or the arguments are wrong.

The configuration is read from /etc/staunch/staunch.toml unless --config names another file.";

/// A TLS-terminating reverse proxy that never lets a certificate take a site down.
#[derive(Debug, Parser)]
#[command(name = "staunch", version, propagate_version = true, after_help = STATUS)]
#[command(max_term_width = 80)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve in the foreground until told to stop
    #[command(after_help = "Exit status: 0 after a clean stop; 1 if it could not start.")]
    Run(run::Args),
    /// Try it out: make a certificate, serve it, and say what to do next
    Demo(demo::Args),
    /// Read the configuration and all certificates, and say what is wrong
    #[command(
        after_help = "Exit status: 0 all is well; 1 `run` or a reload would refuse the \
                      configuration; 2 it can be used, but some name would be served badly or not \
                      at all, or some other file cannot be used."
    )]
    Check(check::Args),
    /// Show the certificates held
    Certs(certs::Args),
    /// Use the certificate on disk although it was held back as worse
    #[command(
        after_help = "Exit status: 0 it is served; 1 staunch was not reached, or knows no such \
                      source; 2 it cannot be served at all."
    )]
    Accept(accept::Args),
    /// Show what a client really gets from a server
    #[command(after_help = "Exit status: 0 trusted; 1 no connection; 2 not trusted.")]
    Probe(probe::Args),
    /// Show the servers behind: up, down, busy
    Upstreams(upstreams::Args),
    /// Let a new process take over without losing a connection
    #[command(
        after_help = "Exit status: 0 the new process serves; 1 it does not, and the old one goes \
                      on."
    )]
    Upgrade(upgrade::Args),
    /// Play time forward, and show which alerts would be sent
    #[command(
        after_help = "Exit status: 0 done; 1 the configuration cannot be used; 2 an alert could \
                      not be sent."
    )]
    Drill(drill::Args),
    /// Convert a configuration of nginx or HAProxy
    #[command(
        after_help = "The new configuration goes to standard output, what could not be carried \
                      over to standard error.\n\nExit status: 0 everything was carried over; 1 the \
                      file cannot be read; 2 something was left out, or --verify found a \
                      difference."
    )]
    Import(import::Args),
    /// Print the completion script for a shell
    Completions(completions::Args),
    /// Print the manual page, or write all of them into a folder
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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn help_fits_a_terminal_of_80_columns() {
        let mut staunch = Cli::command();
        staunch.build();
        let mut pages = vec![staunch.render_long_help()];
        pages.extend(
            staunch
                .get_subcommands_mut()
                .map(|it| it.render_long_help()),
        );
        for page in pages {
            for line in page.to_string().lines() {
                assert!(line.chars().count() <= 80, "{line}");
            }
        }
    }
}
