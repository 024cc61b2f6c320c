//! `staunch probe`: what a client really gets.
//!
//! One full handshake with a verifier that records and accepts everything, so that a broken server
//! is described instead of refused; then the same questions that a strict client asks, answered in
//! words. The deadline covers all of it, from the address to the last byte of the handshake.

pub(super) mod handshake;
mod report;

use std::path::PathBuf;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};

use super::{Exit, say};
use crate::cert::chain::Roots;
use crate::clock::Clock;

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to connect; the port is 443 unless given
    #[arg(value_name = "HOST[:PORT]")]
    target: String,

    /// Ask for this name instead of HOST
    #[arg(long, value_name = "SNI")]
    name: Option<String>,

    /// Trust the certificates in this file instead of this system's roots
    #[arg(long, value_name = "PEM")]
    roots: Option<PathBuf>,

    /// Give up after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    match probe(&args) {
        Ok(report) => {
            let exit = match report.trusted() {
                true => Exit::Ok,
                false => Exit::Bad,
            };
            match args.json {
                true => say(format_args!("{}\n", report.json()), exit),
                false => say(report, exit),
            }
        }
        Err(why) => {
            eprintln!("staunch probe: {}: {why}", args.target);
            Exit::Failed
        }
    }
}

fn probe(args: &Args) -> Result<report::Report, String> {
    let target = Target::parse(&args.target)?;
    let name = args.name.as_deref().unwrap_or(&target.host);
    let name = ServerName::try_from(name.trim_end_matches('.').to_ascii_lowercase())
        .map_err(|_| format!("'{name}' is neither a host name nor an address"))?;
    let roots = match &args.roots {
        Some(path) => roots(path)?,
        None => Roots::system(),
    };
    let timeout = Duration::from_secs(args.timeout);
    let seen = handshake::with(&target.host, target.port, &name, timeout)?;
    Ok(report::Report::new(
        seen,
        &name,
        &roots,
        Clock::system().now(),
    ))
}

fn roots(path: &PathBuf) -> Result<Roots, String> {
    let shown = path.display();
    let certificates: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| format!("--roots {shown}: {error}"))?;
    let roots = Roots::from_ders(certificates);
    if roots.is_empty() {
        return Err(format!("--roots {shown}: it holds no certificate"));
    }
    Ok(roots)
}

/// Where to connect.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Target {
    pub(super) const PORT: u16 = 443;

    /// Reads `host`, `host:port`, `[v6]`, `[v6]:port`, a bare IPv6 address, and, since it is what
    /// people have at hand, a URL.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("https://").unwrap_or(text);
        let rest = rest.split(['/', '?', '#']).next().unwrap_or(rest);
        let (host, port) = if let Some(bracketed) = rest.strip_prefix('[') {
            let (host, port) = bracketed
                .split_once(']')
                .ok_or("a bracket is not closed: [ADDRESS]:PORT was expected")?;
            (host, port)
        } else if rest.matches(':').count() > 1 {
            (rest, "")
        } else {
            rest.split_at(rest.find(':').unwrap_or(rest.len()))
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port
                .parse()
                .ok()
                .filter(|port| *port != 0)
                .ok_or_else(|| format!("'{port}' is not a port"))?,
            None if port.is_empty() => Self::PORT,
            None => return Err(format!("'{port}' behind the address: :PORT was expected")),
        };
        if host.is_empty() {
            return Err("HOST or HOST:PORT was expected".to_owned());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

#[cfg(test)]
mod tests;
