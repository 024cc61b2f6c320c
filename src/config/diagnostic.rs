//! What is wrong with a configuration, where, and what to do about it.
//!
//! A [`Report`] reads like a compiler's: place, fault, the line itself with carets, help. It is
//! made to be shown to people and written to logs, so it is bounded, holds no control characters,
//! and hides what looks like a secret.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A part of the text, in bytes.
pub type Span = Range<usize>;

/// How many diagnostics of each level are kept; the rest is only counted.
const KEPT: usize = 100;

/// Characters of a line that are shown at most.
const WIDTH: usize = 100;

/// Whether the configuration can be used all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It cannot be used.
    Error,
    /// It can, though this is hardly what was meant.
    Warning,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
        })
    }
}

/// One fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub level: Level,
    /// Where it is, on character boundaries of the text; `None`: in no particular place.
    pub span: Option<Span>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at `span`.
    pub(super) fn error(span: Span, message: impl Into<String>) -> Self {
        Self {
            level: Level::Error,
            span: Some(span),
            message: message.into(),
            help: None,
        }
    }

    /// A warning of the whole file.
    pub(super) fn general_warning(message: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            ..Self::general(message)
        }
    }

    /// A warning at `span`.
    pub(super) fn warning(span: Span, message: impl Into<String>) -> Self {
        Self {
            level: Level::Warning,
            ..Self::error(span, message)
        }
    }

    /// An error of the whole file.
    pub(super) fn general(message: impl Into<String>) -> Self {
        Self {
            span: None,
            ..Self::error(0..0, message)
        }
    }

    /// With what to do about it.
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }
}

/// Why a text is not what it should be, before it is known where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// What is wrong, as in `must be …`.
    pub(super) message: String,
    /// What to write instead.
    pub(super) help: String,
}

impl Complaint {
    pub(super) fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            help: help.into(),
        }
    }
}

/// Everything that was found in one file, in the order of the text.
///
/// Its `Display` is what to show; nothing at all when it is empty.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Report {
    file: PathBuf,
    /// The text with secrets blanked, each byte in its place. Empty when nothing was found.
    text: Arc<str>,
    diagnostics: Vec<Diagnostic>,
    omitted: usize,
}

impl Report {
    /// Sorts and bounds what was found in `text`.
    pub(super) fn new(file: &Path, text: &str, diagnostics: Vec<Diagnostic>) -> Self {
        let (mut errors, mut warnings, found) = (0, 0, diagnostics.len());
        let mut kept: Vec<_> = diagnostics
            .into_iter()
            .filter(|diagnostic| {
                let count = match diagnostic.level {
                    Level::Error => &mut errors,
                    Level::Warning => &mut warnings,
                };
                *count += 1;
                *count <= KEPT
            })
            .map(|mut diagnostic| {
                diagnostic.span = diagnostic.span.map(|span| clamp(text, span));
                diagnostic
            })
            .collect();
        let omitted = found - kept.len();
        kept.sort_by_key(|d| d.span.as_ref().map(|span| (span.start, span.end)));
        kept.dedup();
        Self {
            file: file.to_path_buf(),
            text: match kept.is_empty() {
                true => Arc::default(),
                false => redacted(text).into(),
            },
            omitted,
            diagnostics: kept,
        }
    }

    /// One fault of the whole file.
    pub(super) fn general(file: &Path, diagnostic: Diagnostic) -> Self {
        Self::new(file, "", vec![diagnostic])
    }

    /// The file, as it was named.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What was found.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.diagnostics.is_empty()
    }

    /// Line and column of a diagnostic, both counted from 1, the column in characters.
    pub fn position(&self, diagnostic: &Diagnostic) -> Option<(usize, usize)> {
        let span = diagnostic.span.as_ref()?;
        let before = self.text.get(..span.start)?;
        let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
        let column = self.text[self.line_start(span)..span.start].chars().count() + 1;
        Some((line, column))
    }

    /// Where the line begins that `span` begins on; behind the byte order mark, which no editor
    /// shows.
    fn line_start(&self, span: &Span) -> usize {
        let mark = match self.text.starts_with('\u{feff}') {
            true => '\u{feff}'.len_utf8(),
            false => 0,
        };
        let newline = self.text[..span.start].rfind('\n');
        newline.map_or_else(|| mark.min(span.start), |newline| newline + 1)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, diagnostic: &Diagnostic) -> fmt::Result {
        let Diagnostic { level, message, .. } = diagnostic;
        let file = Shown(&self.file.to_string_lossy()).to_string();
        let mut gutter = 3;
        match (self.position(diagnostic), &diagnostic.span) {
            (Some((line, column)), Some(span)) => {
                writeln!(f, "{file}:{line}:{column}: {level}: {}", Shown(message))?;
                gutter = 2 + line.to_string().len();
                let (excerpt, indent, carets) = self.excerpt(span);
                writeln!(f, "  {line} | {excerpt}")?;
                writeln!(f, "{:gutter$} | {:indent$}{:^<carets$}", "", "", "")?;
            }
            _ if file.is_empty() => writeln!(f, "{level}: {}", Shown(message))?,
            _ => writeln!(f, "{file}: {level}: {}", Shown(message))?,
        }
        match &diagnostic.help {
            Some(help) => writeln!(f, "{:gutter$}   help: {}", "", Shown(help)),
            None => Ok(()),
        }
    }

    /// The part of the line to show, how far in the span begins there, and how long it is, in
    /// characters.
    fn excerpt(&self, span: &Span) -> (String, usize, usize) {
        let start = self.line_start(span);
        let end = self.text[span.start..]
            .find('\n')
            .map_or(self.text.len(), |newline| span.start + newline);
        let line = self.text[start..end].trim_end_matches('\r');
        let column = self.text[start..span.start].chars().count();
        let length = self.text[span.start..span.end.min(start + line.len()).max(span.start)]
            .chars()
            .count();
        let skipped = match column > WIDTH / 2 && line.chars().count() > WIDTH {
            true => column - WIDTH / 4,
            false => 0,
        };
        let shown = line.chars().skip(skipped).take(WIDTH);
        let excerpt: String = shown
            .map(|c| match c {
                '\t' => ' ',
                c if c.is_control() => '\u{fffd}',
                c => c,
            })
            .collect();
        let indent = column - skipped;
        (
            excerpt,
            indent,
            length.min(WIDTH - indent.min(WIDTH)).max(1),
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in &self.diagnostics {
            self.write(f, diagnostic)?;
        }
        match self.omitted {
            0 => Ok(()),
            omitted => writeln!(f, "{omitted} more of the like"),
        }
    }
}

/// As it is displayed: a failed `unwrap` in a test should be readable, and no log should get to
/// see the whole text.
impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n{self}")
    }
}

impl std::error::Error for Report {}

/// Text from the file, in a message: bounded, and on one line.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", short(text))
}

/// As much of `text` as a message has room for.
pub(super) fn short(text: &str) -> Cow<'_, str> {
    const LONGEST: usize = 80;
    match text.char_indices().nth(LONGEST) {
        None => text.into(),
        Some((end, _)) => format!("{}…", &text[..end]).into(),
    }
}

/// Text without control characters.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// `span`, within `text` and on its character boundaries.
fn clamp(text: &str, span: Span) -> Span {
    let floor = |mut at: usize| {
        at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        at
    };
    let start = floor(span.start);
    start..floor(span.end).max(start)
}

/// Keys, or ends of keys, whose value is not shown: no such key exists, and all the same somebody
/// may write one.
const SECRETS: [&str; 7] = [
    "token",
    "password",
    "passwd",
    "secret",
    "routing_key",
    "api_key",
    "authorization",
];

/// `text` with what looks like a secret replaced by asterisks, byte for byte: the values of
/// [`SECRETS`], and what stands before an `@` in a URL. This works on the text, not on what was
/// read from it, because a fault in the syntax may be right there.
fn redacted(text: &str) -> String {
    let mut secret: Vec<Span> = Vec::new();
    for word in SECRETS {
        let mut done = 0;
        for (at, _) in text.match_indices(word) {
            if at < done {
                continue;
            }
            let after = text[at + word.len()..].trim_start_matches(['"', '\'', ' ', '\t']);
            let Some(value) = after.strip_prefix('=') else {
                continue;
            };
            let value = value.trim_start_matches([' ', '\t']);
            let start = text.len() - value.len();
            let end = ["\"\"\"", "'''"]
                .into_iter()
                .find_map(|fence| Some((fence, value.strip_prefix(fence)?)))
                .map(|(fence, rest)| rest.find(fence).unwrap_or(rest.len()) + fence.len())
                .unwrap_or_else(|| value.find('\n').unwrap_or(value.len()));
            done = start + end;
            secret.push(start..done);
        }
    }
    for (at, _) in text.match_indices("://") {
        let start = at + "://".len();
        let authority = text[start..].split(['/', '"', '\'', '\n', ' ']).next();
        if let Some(end) = authority.and_then(|authority| authority.rfind('@')) {
            secret.push(start..start + end);
        }
    }

    let mut bytes = text.as_bytes().to_vec();
    for span in secret {
        let end = span.end.min(bytes.len());
        for byte in &mut bytes[span.start..end] {
            if *byte != b'\n' {
                *byte = b'*';
            }
        }
    }
    // Whole characters were replaced, so this never falls back; losing the excerpt would be the
    // right failure all the same.
    String::from_utf8(bytes).unwrap_or_default()
}
