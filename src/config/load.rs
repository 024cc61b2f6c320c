//! From a file, a text or flags to a [`Config`].

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::diagnostic::{Complaint, Diagnostic, Level, Report, Span};
use super::read::{Context, Table};
use super::section::Environment;
use super::{
    CertificateSource, Config, Listen, Location, Route, Site, SiteName, address, check, section,
};

/// The largest file that is read, in bytes: room for ten thousand sites, and no more memory than
/// a slip of the hand may cost.
pub const LARGEST: usize = 1024 * 1024;

/// Reads the configuration in `path`.
///
/// # Errors
/// When it cannot be read, or for every fault found in it.
pub fn load(path: &Path) -> Result<Config, Report> {
    let text = read(path).map_err(|diagnostic| Report::general(path, diagnostic))?;
    parse(&text, path)
}

fn read(path: &Path) -> Result<String, Diagnostic> {
    let cannot = |error: std::io::Error| {
        let diagnostic = Diagnostic::general(format!("cannot be read: {error}"));
        match error.kind() {
            ErrorKind::NotFound => diagnostic.help("name the configuration with `--config FILE`"),
            ErrorKind::PermissionDenied => {
                diagnostic.help("let the user that staunch runs as read it")
            }
            _ => diagnostic,
        }
    };
    let file = File::open(path).map_err(cannot)?;
    if file.metadata().map_err(cannot)?.is_dir() {
        return Err(Diagnostic::general("is a folder, not a file").help(format!(
            "did you mean `{}`?",
            path.join("staunch.toml").display()
        )));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(cannot)?;
    if bytes.len() > LARGEST {
        return Err(too_large());
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = good.iter().filter(|&&byte| byte == b'\n').count() + 1;
        Diagnostic::general(format!("is not UTF-8: the first fault is on line {line}"))
            .help("save it as UTF-8")
    })
}

fn too_large() -> Diagnostic {
    Diagnostic::general(format!("is larger than the {LARGEST} bytes that are read"))
        .help("certificates in a folder need one `[[certificate]]`, not one each")
}

/// Reads a configuration from its text. `file` is what messages call it, and relative paths are
/// below its folder.
///
/// # Errors
/// With every fault found.
pub fn parse(text: &str, file: &Path) -> Result<Config, Report> {
    parse_in(text, file, &Environment::current())
}

pub(super) fn parse_in(
    text: &str,
    file: &Path,
    environment: &Environment,
) -> Result<Config, Report> {
    if text.len() > LARGEST {
        return Err(Report::general(file, too_large()));
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut found: Vec<_> = errors
        .iter()
        .map(|error| {
            let span = error.span().unwrap_or(0..0);
            Diagnostic::error(span, error.message())
        })
        .collect();
    let starts = found.iter().flat_map(|error| &error.span);
    let damaged_from = starts.map(|span: &Span| span.start).min();

    let file_absolute = absolute(file);
    let folder = file_absolute.parent().unwrap_or_else(|| Path::new("/"));
    let cx = Context::new(text, folder, damaged_from);
    let config = Table::root(&cx, document.get_ref(), |t| section::file(t, environment));
    let config = check::config(config, &cx);
    found.extend(cx.into_found());

    let unusable = found.iter().any(|d| d.level == Level::Error);
    let report = Report::new(file, text, found);
    match unusable {
        true => Err(report),
        false => Ok(Config {
            warnings: report,
            ..config
        }),
    }
}

/// `path` from the root. The paths in a configuration must not depend on where the program
/// happens to stand.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

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
    let mut found = Vec::new();
    let mut complain = |flag: &str, complaint: Complaint| {
        let message = format!("`{flag}`: {}", complaint.message);
        found.push(Diagnostic::general(message).help(complaint.help));
    };
    let mut addresses = |flag: &str, texts: &[String]| -> Vec<_> {
        let mut read = Vec::new();
        for text in texts {
            match address::listen_address(text) {
                Ok(address) => read.push(address),
                Err(complaint) => complain(flag, complaint),
            }
        }
        read
    };
    let https = addresses("--https", &flags.https);
    let http = addresses("--http", &flags.http);
    let admin = match flags.admin.as_deref() {
        None => None,
        Some("") => Some(Vec::new()),
        Some(text) => Some(addresses("--admin", &[text.to_owned()])),
    };
    let folder = absolute(Path::new("."));
    let server = address::server(&flags.upstream, &folder);
    let server = server.map_err(|complaint| complain("--upstream", complaint));
    for (flag, path) in [
        ("--chain", Some(&flags.chain)),
        ("--key", flags.key.as_ref()),
    ] {
        if path.is_some_and(|path| path.as_os_str().is_empty()) {
            complain(flag, Complaint::new("is empty", "name a PEM file"));
        }
    }

    let base = parse_in("", Path::new("/"), environment)?;
    let Ok(server) = server else {
        return Err(Report::new(Path::new(""), "", found));
    };
    let mut upstreams = base.upstreams;
    let upstream = check::single(server, &mut upstreams);
    let listen = Listen {
        https: match flags.https.is_empty() {
            true => base.listen.https,
            false => https,
        },
        http,
        admin: admin.map_or(base.listen.admin, |given| given.first().copied()),
        ..base.listen
    };
    let all = || listen.https.iter().chain(&listen.http).chain(&listen.admin);
    for (index, address) in all().enumerate() {
        if address.port() != 0 && all().take(index).any(|earlier| earlier == address) {
            let message = format!("the address `{address}` is there twice");
            found.push(Diagnostic::general(message).help("a port can be listened on once"));
        }
    }
    if !found.is_empty() {
        return Err(Report::new(Path::new(""), "", found));
    }
    let chain = absolute(&flags.chain);
    Ok(Config {
        listen,
        certificates: vec![CertificateSource {
            location: match &flags.key {
                Some(key) => Location::Pair {
                    chain,
                    key: absolute(key),
                    ocsp: None,
                },
                None => Location::Bundle {
                    file: chain,
                    ocsp: None,
                },
            },
            accept_worse: false,
            keep: true,
            line: 0,
        }],
        sites: vec![Site {
            names: vec![SiteName::Any],
            default: true,
            routes: vec![Route {
                path: "/".into(),
                upstream,
            }],
        }],
        upstreams,
        warnings: Report::default(),
        ..base
    })
}
