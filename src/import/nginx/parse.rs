//! nginx's syntax: words, quotes, blocks, and files that include others.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::import::{Error, Place};

/// Bytes of all files together.
const LARGEST: u64 = 32 * 1024 * 1024;
/// Files that include one another, and blocks inside one another.
const DEEPEST: usize = 32;

/// A directive, and what is in its braces.
#[derive(Clone, Debug)]
pub(super) struct Directive {
    /// Its own, even where a file is included twice.
    pub(super) id: usize,
    pub(super) name: String,
    pub(super) args: Vec<String>,
    pub(super) block: Option<Vec<Self>>,
    pub(super) place: Place,
}

impl Directive {
    /// As it was written, on one line.
    pub(super) fn shown(&self) -> String {
        const LONGEST: usize = 100;
        let mut shown = self.name.clone();
        for arg in &self.args {
            shown.push(' ');
            shown.extend(arg.chars().map(|c| if c.is_control() { ' ' } else { c }));
        }
        if let Some((end, _)) = shown.char_indices().nth(LONGEST) {
            shown.truncate(end);
            shown.push('…');
        }
        shown
    }

    /// The first argument, or nothing.
    pub(super) fn first(&self) -> &str {
        self.args.first().map_or("", String::as_str)
    }

    /// What is in its braces.
    pub(super) fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }
}

/// The folder of a file, from the root.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.parent().map(Path::to_owned).unwrap_or_default()
}

/// Reads a file and all that it includes.
pub(super) fn read(path: &Path) -> Result<Vec<Directive>, Error> {
    let folder = folder_of(path);
    let mut reader = Reader {
        folder,
        left: LARGEST,
        count: 0,
    };
    reader.file(path, 0)
}

struct Reader {
    /// Relative paths are below this folder.
    folder: PathBuf,
    /// Bytes that may still be read.
    left: u64,
    /// Directives so far.
    count: usize,
}

impl Reader {
    fn file(&mut self, path: &Path, depth: usize) -> Result<Vec<Directive>, Error> {
        let unreadable = |cause| Error::Unreadable {
            file: path.display().to_string(),
            cause,
        };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(unreadable)?;
        (file.take(self.left + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
        let place = Place {
            file: path.into(),
            line: 1,
        };
        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
            return Err(malformed(place, "the files are too large together"));
        };
        self.left = left;
        // Comments are often in another encoding; the rest is looked at again when it is used.
        let text = String::from_utf8_lossy(&bytes);
        let mut words = Words {
            text: &text,
            file: Arc::clone(&place.file),
            line: 1,
        };
        self.block(&mut words, depth, 0)
    }

    fn block(
        &mut self,
        words: &mut Words<'_>,
        depth: usize,
        nested: usize,
    ) -> Result<Vec<Directive>, Error> {
        let mut found = Vec::new();
        let mut line: Vec<String> = Vec::new();
        let mut place = words.place();
        if nested > DEEPEST {
            return Err(malformed(place, "too many blocks inside one another"));
        }
        loop {
            let word = words.next()?;
            match word {
                Some(Word::Text(text)) => {
                    if line.is_empty() {
                        place = words.place();
                    }
                    line.push(text);
                }
                Some(Word::End) if line.is_empty() => {
                    return Err(malformed(words.place(), "unexpected `;`"));
                }
                Some(Word::End) => {
                    let directive = self.directive(&mut line, None, place.clone());
                    match directive.name == "include" {
                        true => self.include(&directive, depth, &mut found)?,
                        false => found.push(directive),
                    }
                }
                Some(Word::Open) if line.is_empty() => {
                    return Err(malformed(words.place(), "unexpected `{`"));
                }
                Some(Word::Open) => {
                    let inside = self.block(words, depth, nested + 1)?;
                    found.push(self.directive(&mut line, Some(inside), place.clone()));
                }
                Some(Word::Close) if line.is_empty() && nested > 0 => return Ok(found),
                Some(Word::Close) => return Err(malformed(words.place(), "unexpected `}`")),
                None if line.is_empty() && nested == 0 => return Ok(found),
                None => return Err(malformed(place, "is not ended: `;` or `}` is missing")),
            }
        }
    }

    fn directive(
        &mut self,
        line: &mut Vec<String>,
        block: Option<Vec<Directive>>,
        place: Place,
    ) -> Directive {
        let mut words = std::mem::take(line).into_iter();
        self.count += 1;
        Directive {
            id: self.count,
            name: words.next().unwrap_or_default(),
            args: words.collect(),
            block,
            place,
        }
    }

    fn include(
        &mut self,
        directive: &Directive,
        depth: usize,
        found: &mut Vec<Directive>,
    ) -> Result<(), Error> {
        if depth >= DEEPEST {
            let message = "files include one another without end";
            return Err(malformed(directive.place.clone(), message));
        }
        let pattern = self.folder.join(directive.first());
        let text = pattern.to_string_lossy();
        let files = match text.contains(['*', '?', '[']) {
            true => expand(&pattern),
            false => vec![pattern],
        };
        for file in files {
            let read = self.file(&file, depth + 1);
            found.extend(read.map_err(|error| match error {
                Error::Unreadable { file, cause } => malformed(
                    directive.place.clone(),
                    format!("includes {file}, which cannot be read: {cause}"),
                ),
                other => other,
            })?);
        }
        Ok(())
    }
}

fn malformed(place: Place, message: impl Into<String>) -> Error {
    Error::Malformed {
        place,
        message: message.into(),
    }
}

enum Word {
    Text(String),
    End,
    Open,
    Close,
}

struct Words<'t> {
    text: &'t str,
    file: Arc<Path>,
    line: usize,
}

impl Words<'_> {
    fn place(&self) -> Place {
        Place {
            file: Arc::clone(&self.file),
            line: self.line,
        }
    }

    fn take(&mut self) -> Option<char> {
        let taken = self.text.chars().next()?;
        self.text = &self.text[taken.len_utf8()..];
        self.line += usize::from(taken == '\n');
        Some(taken)
    }

    fn next(&mut self) -> Result<Option<Word>, Error> {
        loop {
            match self.text.chars().next() {
                Some('#') => self.text = self.text.find('\n').map_or("", |end| &self.text[end..]),
                Some(c) if c.is_ascii_whitespace() => drop(self.take()),
                _ => break,
            }
        }
        let Some(first) = self.text.chars().next() else {
            return Ok(None);
        };
        Ok(Some(match first {
            ';' => self.single(Word::End),
            '{' => self.single(Word::Open),
            '}' => self.single(Word::Close),
            '"' | '\'' => Word::Text(self.quoted(first)?),
            _ => Word::Text(self.bare()),
        }))
    }

    fn single(&mut self, word: Word) -> Word {
        self.take();
        word
    }

    fn quoted(&mut self, quote: char) -> Result<String, Error> {
        let begin = self.place();
        self.take();
        let mut text = String::new();
        loop {
            match self.take() {
                Some('\\') => self.escaped(&mut text),
                Some(c) if c == quote => return Ok(text),
                Some(c) => text.push(c),
                None => return Err(malformed(begin, "a quote is not closed")),
            }
        }
    }

    /// A `{` ends a word, except the one of `${name}`; a `}` does not.
    fn bare(&mut self) -> String {
        let mut text = String::new();
        while let Some(c) = self.text.chars().next() {
            let ends = c.is_ascii_whitespace() || c == ';' || (c == '{' && !text.ends_with('$'));
            if ends {
                break;
            }
            self.take();
            match c {
                '\\' => self.escaped(&mut text),
                c => text.push(c),
            }
        }
        text
    }

    /// What nginx makes of a backslash: it stays, but for these.
    fn escaped(&mut self, text: &mut String) {
        match self.take() {
            Some(c @ ('"' | '\'' | '\\')) => text.push(c),
            Some('t') => text.push('\t'),
            Some('r') => text.push('\r'),
            Some('n') => text.push('\n'),
            Some(c) => text.extend(['\\', c]),
            None => text.push('\\'),
        }
    }
}

/// The files that a pattern stands for, sorted.
fn expand(pattern: &Path) -> Vec<PathBuf> {
    let mut paths = vec![PathBuf::new()];
    for part in pattern.components() {
        let part = part.as_os_str().to_string_lossy();
        paths = match part.contains(['*', '?', '[']) {
            false => paths.into_iter().map(|path| path.join(&*part)).collect(),
            true => (paths.iter())
                .filter_map(|path| path.read_dir().ok())
                .flat_map(|entries| entries.filter_map(Result::ok))
                .filter(|entry| {
                    let name = entry.file_name();
                    let name = name.to_string_lossy();
                    (part.starts_with('.') || !name.starts_with('.'))
                        && matches(part.as_bytes(), name.as_bytes())
                })
                .map(|entry| entry.path())
                .collect(),
        };
    }
    paths.retain(|path| path.exists());
    paths.sort();
    paths
}

/// `glob(7)` for one name.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern, name) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => (0..=name.len()).any(|from| matches(rest, &name[from..])),
        ([b'?', rest @ ..], [_, name @ ..]) => matches(rest, name),
        ([b'[', rest @ ..], [byte, name @ ..]) => {
            // The first `]` belongs to the set.
            let negated = rest.first() == Some(&b'!');
            let set = &rest[usize::from(negated)..];
            let Some(end) = set.iter().skip(1).position(|&c| c == b']') else {
                return false;
            };
            let (set, rest) = (&set[..=end], &set[end + 2..]);
            in_set(set, *byte) != negated && matches(rest, name)
        }
        ([literal, rest @ ..], [byte, name @ ..]) => literal == byte && matches(rest, name),
        _ => false,
    }
}

fn in_set(set: &[u8], byte: u8) -> bool {
    match set {
        [from, b'-', to, rest @ ..] => (*from..=*to).contains(&byte) || in_set(rest, byte),
        [one, rest @ ..] => *one == byte || in_set(rest, byte),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<Directive>, Error> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        read(&file)
    }

    #[test]
    fn words_quotes_and_variables() {
        let found = parsed("# one\nadd_header X \"a; b\" 'c\\'d';\nset $a ${b}c; # x\n").unwrap();
        assert_eq!(found[0].args, ["X", "a; b", "c'd"]);
        assert_eq!(found[0].place.line, 2);
        assert_eq!(found[1].args, ["$a", "${b}c"]);
    }

    #[test]
    fn what_is_not_ended_is_told_with_its_line() {
        for (text, line) in [("a;\nb", 2), ("a {\nb;", 2), ("a;\n}", 2), ("a \"x;\n", 1)] {
            let Err(Error::Malformed { place, .. }) = parsed(text) else {
                panic!("{text:?} was read");
            };
            assert!(place.line >= line, "{text:?}: {place}");
        }
    }

    #[test]
    fn patterns_match_as_the_shell_does() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", "a.conf~", false),
            ("?[0-9].conf", "a1.conf", true),
            ("[!a]*", "abc", false),
            ("[]x]", "]", true),
            ("[", "[", false),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern}"
            );
        }
    }
}
