//! From a file or a text to a [`Config`].

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::diagnostic::{Diagnostic, Level, Report, Span};
use super::read::{Context, Table};
use super::section::Environment;
use super::{Config, check, section, syntax};

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
        let inside = path.join("staunch.toml");
        return Err(
            Diagnostic::general("is a folder, not a file").help(match inside.is_file() {
                true => format!("did you mean `{}`?", inside.display()),
                false => "name the file in it".to_owned(),
            }),
        );
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
    let mut found = syntax::faults(text, &errors);
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
pub(super) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}
