//! The configuration of another program, written anew as one of staunch's.
//!
//! What is written does what the other did, or it is told: each piece that has no equivalent is a
//! [`Note`] with its place. Where a location cannot be carried over, its path is answered by nobody
//! rather than by a server that it was not meant for.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

mod formula;
pub mod haproxy;
pub mod nginx;
mod pattern;
mod site;

/// What came of it.
#[derive(Debug)]
pub struct Imported {
    /// A whole configuration.
    pub text: String,
    /// What has no equivalent, or needs none, in the order of the files.
    pub notes: Vec<Note>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// Counted from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Whether something has to be done about a piece that was not carried over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// What it did is not done any more, or is done otherwise.
    Real,
    /// It is done, in a way that differs where it hardly matters.
    Slight,
    /// It is of no concern here.
    None,
}

/// One piece that was not carried over.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Where it stands.
    pub place: Place,
    /// The piece, as written.
    pub piece: String,
    /// Whether it is missed.
    pub loss: Loss,
    /// What it did, and what to do instead.
    pub advice: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.loss {
            Loss::Real => "not imported",
            Loss::Slight => "differs",
            Loss::None => "not needed",
        };
        let Self {
            place,
            piece,
            advice,
            ..
        } = self;
        write!(f, "{place}: {word}: {piece}: {advice}")
    }
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{file}: cannot be read: {cause}")]
    Unreadable {
        /// Which.
        file: String,
        /// Why.
        cause: std::io::Error,
    },
    /// It is not what it should be.
    #[error("{place}: {message}")]
    Malformed {
        /// Where.
        place: Place,
        /// How, and what to do.
        message: String,
    },
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A TOML array of strings.
fn array<S: AsRef<str>>(items: impl IntoIterator<Item = S>) -> String {
    let items: Vec<_> = (items.into_iter())
        .map(|item| quoted(item.as_ref()))
        .collect();
    format!("[{}]", items.join(", "))
}

/// Leaves out what the IPv6 wildcard takes as well.
fn without_covered(addresses: &mut Vec<String>) {
    let all = addresses.clone();
    addresses.retain(|address| {
        let port = address.strip_prefix("0.0.0.0:");
        !port.is_some_and(|port| all.contains(&format!("[::]:{port}")))
    });
}
