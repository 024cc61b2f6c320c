//! A configuration without a file, for `staunch run --chain … --upstream …`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::{Complaint, Diagnostic, Report};
use super::load::{absolute, parse_in};
use super::section::Environment;
use super::{
    Action, CertificateSource, Conditions, Config, Listen, Location, Matcher, Route, Rules, Site,
    SiteName, address, check,
};

/// What `staunch run` can be told without a configuration file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--chain`: a PEM file with the chain, and the key too when there is no `key`.
    pub chain: PathBuf,
    /// `--key`: a PEM file with the private key.
    pub key: Option<PathBuf>,
    /// `--upstream`: the URL of the server behind.
    pub upstream: String,
    /// `--https`: addresses that terminate TLS; none: the default.
    pub https: Vec<String>,
    /// `--http`: addresses that redirect to HTTPS; none: no such address.
    pub http: Vec<String>,
    /// `--admin`: the admin address; `None`: the default; empty: no such address.
    pub admin: Option<String>,
}

/// A configuration of one certificate, one site for whatever name, and one upstream; everything
/// else as in a file that does not mention it.
///
/// # Errors
/// With every flag that is wrong.
pub fn from_flags(flags: &Flags) -> Result<Config, Report> {
    from_flags_in(flags, &Environment::current())
}

pub(super) fn from_flags_in(flags: &Flags, environment: &Environment) -> Result<Config, Report> {
    let base = parse_in("", Path::new("/"), environment)?;
    let mut faults = Faults(Vec::new());
    let listen = listen(flags, base.listen, &mut faults);
    let location = location(flags, &mut faults);
    let folder = absolute(Path::new("."));
    let server = faults.of("--upstream", address::server(&flags.upstream, &folder));
    let (Some(server), true) = (server, faults.0.is_empty()) else {
        return Err(Report::new(Path::new(""), "", faults.0));
    };
    let mut upstreams = base.upstreams;
    let upstream = check::single(server, &mut upstreams);
    Ok(Config {
        listen,
        certificates: vec![CertificateSource {
            location,
            accept_worse: false,
            keep: true,
            routine: false,
            line: 0,
        }],
        sites: vec![Site {
            names: vec![SiteName::Any],
            default: true,
            routes: vec![Route {
                matcher: Matcher::Prefix("/".into()),
                last: false,
                conditions: Conditions::default(),
                action: Action::Forward {
                    upstream,
                    rewrite: None,
                },
                rules: Rules::default(),
            }],
            rules: Rules::default(),
            tls: Arc::default(),
            rate: None,
        }],
        upstreams,
        warnings: Report::default(),
        ..base
    })
}

/// What was wrong so far.
struct Faults(Vec<Diagnostic>);

impl Faults {
    fn of<T>(&mut self, flag: &str, read: Result<T, Complaint>) -> Option<T> {
        read.map_err(|Complaint { message, help }| {
            let message = format!("`{flag}`: {message}");
            self.0.push(Diagnostic::general(message).help(help));
        })
        .ok()
    }
}

fn listen(flags: &Flags, default: Listen, faults: &mut Faults) -> Listen {
    let mut all = |flag, texts: &[String]| -> Vec<_> {
        let read = texts.iter().map(|text| address::listen_address(text));
        read.filter_map(|read| faults.of(flag, read)).collect()
    };
    let listen = Listen {
        https: match flags.https.is_empty() {
            true => default.https,
            false => all("--https", &flags.https),
        },
        http: all("--http", &flags.http),
        admin: match flags.admin.as_slice() {
            [] => default.admin,
            [none] if none.is_empty() => None,
            given => all("--admin", given).pop(),
        },
        ..default
    };
    let addresses: Vec<_> = [&listen.https, &listen.http]
        .into_iter()
        .flatten()
        .chain(&listen.admin)
        .collect();
    for (index, address) in addresses.iter().enumerate() {
        // Port 0 is another port each time.
        if address.port() != 0 && addresses[..index].contains(address) {
            let message = format!("the address `{address}` is there twice");
            faults.0.push(
                Diagnostic::general(message)
                    .help("give each of `--https`, `--http` and `--admin` its own"),
            );
        }
    }
    listen
}

fn location(flags: &Flags, faults: &mut Faults) -> Location {
    let mut path = |flag, path: &Path| {
        let given = match path.as_os_str().is_empty() {
            true => Err(Complaint::new("is empty", "name a PEM file")),
            false => Ok(absolute(path)),
        };
        faults.of(flag, given).unwrap_or_default()
    };
    let chain = path("--chain", &flags.chain);
    match &flags.key {
        Some(key) => Location::Pair {
            chain,
            key: path("--key", key),
            ocsp: None,
        },
        None => Location::Bundle {
            file: chain,
            ocsp: None,
        },
    }
}
