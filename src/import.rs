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

impl Imported {
    /// What is told, what is missed first: a line for each reason in each file, with all places
    /// that it is the reason for.
    pub fn told(&self) -> Vec<String> {
        let mut groups: Vec<Vec<&Note>> = Vec::new();
        for note in &self.notes {
            let alike = |group: &&mut Vec<&Note>| {
                group.first().is_some_and(|first| {
                    first.place.file == note.place.file
                        && (first.loss, &first.advice) == (note.loss, &note.advice)
                })
            };
            match groups.iter_mut().find(alike) {
                Some(group) => group.push(note),
                None => groups.push(vec![note]),
            }
        }
        groups.sort_by_key(|group| group.first().map(|first| first.loss));
        groups.iter().filter_map(|group| told(group)).collect()
    }
}

/// One reason with all its places: `FILE:3: not needed: sendfile (3), tcp_nopush (4, 9): …`
fn told(group: &[&Note]) -> Option<String> {
    let (first, rest) = group.split_first()?;
    if rest.is_empty() {
        return Some(first.to_string());
    }
    let mut pieces: Vec<(String, Vec<String>)> = Vec::new();
    for note in group {
        let (piece, line) = (note.short(), note.place.line.to_string());
        match pieces.iter_mut().find(|(known, _)| *known == piece) {
            Some((_, lines)) if lines.contains(&line) => {}
            Some((_, lines)) => lines.push(line),
            None => pieces.push((piece, vec![line])),
        }
    }
    let pieces = pieces.iter();
    let pieces = pieces.map(|(piece, lines)| format!("{piece} ({})", lines.join(", ")));
    let piece = pieces.collect::<Vec<_>>().join(", ");
    let all = Note {
        piece,
        ..(*first).clone()
    };
    Some(all.to_string())
}

impl Note {
    /// The piece; where nothing is missed, what it begins with is enough.
    fn short(&self) -> String {
        let count = match self.loss {
            Loss::None => 1,
            Loss::Real | Loss::Slight => return self.piece.clone(),
        };
        let general = [
            "option",
            "timeout",
            "stats",
            "http-request",
            "http-response",
            "map",
        ];
        let mut words = self.piece.split(' ');
        let more = general
            .iter()
            .any(|word| self.piece.split(' ').next() == Some(word));
        let taken: Vec<_> = words.by_ref().take(count + usize::from(more)).collect();
        taken.join(" ")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reason_is_told_once_with_all_its_places() {
        let note = |file: &str, line, piece: &str, loss, advice: &str| Note {
            place: Place {
                file: Path::new(file).into(),
                line,
            },
            piece: piece.to_owned(),
            loss,
            advice: advice.to_owned(),
        };
        let imported = Imported {
            text: String::new(),
            notes: vec![
                note("a", 1, "sendfile on", Loss::None, "x"),
                note("a", 2, "tcp_nopush on", Loss::None, "x"),
                note("a", 3, "alias /a", Loss::Real, "y"),
                note("a", 4, "sendfile off", Loss::None, "x"),
                note("a", 5, "alias /b", Loss::Real, "y"),
                note("b", 1, "sendfile on", Loss::None, "x"),
            ],
        };
        assert_eq!(
            imported.told(),
            [
                "a:3: not imported: alias /a (3), alias /b (5): y",
                "a:1: not needed: sendfile (1, 4), tcp_nopush (2): x",
                "b:1: not needed: sendfile on: x",
            ]
        );
    }
}
