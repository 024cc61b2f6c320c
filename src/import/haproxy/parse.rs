//! HAProxy's syntax: sections, and lines of words.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::import::{Error, Place};

/// Bytes of the file.
const LARGEST: u64 = 32 * 1024 * 1024;

/// Sections begin with one of these.
const SECTIONS: [&str; 16] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "userlist",
    "peers",
    "resolvers",
    "mailers",
    "cache",
    "program",
    "ring",
    "http-errors",
    "fcgi-app",
    "log-forward",
    "crt-store",
];

/// One line.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) words: Vec<String>,
    pub(super) place: Place,
}

impl Line {
    /// A word, or nothing.
    pub(super) fn word(&self, at: usize) -> &str {
        self.words.get(at).map_or("", String::as_str)
    }

    /// What follows a word.
    pub(super) fn after(&self, word: &str) -> Option<&str> {
        let at = self.words.iter().position(|w| w == word)?;
        self.words.get(at + 1).map(String::as_str)
    }

    pub(super) fn has(&self, word: &str) -> bool {
        self.words.iter().any(|w| w == word)
    }

    /// As it was written, on one line.
    pub(super) fn shown(&self) -> String {
        const LONGEST: usize = 100;
        let shown = self.words.join(" ");
        match shown.char_indices().nth(LONGEST) {
            Some((end, _)) => format!("{}…", &shown[..end]),
            None => shown,
        }
    }
}

/// One section.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) kind: String,
    pub(super) name: String,
    pub(super) place: Place,
    pub(super) lines: Vec<Line>,
    /// The `defaults` whose lines hold where it says nothing itself: by `from`, else those before it.
    from: Option<String>,
    pub(super) defaults: Option<Arc<Self>>,
}

impl Section {
    /// Its lines that begin with a word.
    pub(super) fn all<'s>(&'s self, word: &'s str) -> impl Iterator<Item = &'s Line> {
        self.lines.iter().filter(move |line| line.word(0) == word)
    }

    /// The last of them.
    pub(super) fn last<'s>(&'s self, word: &'s str) -> Option<&'s Line> {
        self.all(word).last()
    }

    /// Its last line that begins with a word, else that of its defaults.
    pub(super) fn nearest(&self, word: &str) -> Option<Line> {
        self.nearest_of(&|line| line.word(0) == word)
    }

    /// The same for two words.
    pub(super) fn nearest_two(&self, first: &str, second: &str) -> Option<Line> {
        self.nearest_of(&|line| line.word(0) == first && line.word(1) == second)
    }

    fn nearest_of(&self, is: &dyn Fn(&Line) -> bool) -> Option<Line> {
        let own = self.lines.iter().rfind(|line| is(line)).cloned();
        own.or_else(|| self.defaults.as_ref()?.nearest_of(is))
    }

    /// Whether an option is on.
    pub(super) fn option(&self, name: &str) -> Option<Line> {
        let about = |line: &Line| match line.word(0) {
            "option" => line.word(1) == name,
            "no" => line.word(1) == "option" && line.word(2) == name,
            _ => false,
        };
        self.nearest_of(&about)
            .filter(|line| line.word(0) == "option")
    }

    /// Whether it passes on bytes, not requests; without `mode` it does.
    pub(super) fn is_tcp(&self) -> bool {
        self.nearest("mode")
            .is_none_or(|mode| mode.word(1) == "tcp")
    }
}

/// Gives each section the `defaults` that are its own.
fn inherit(sections: &mut [Section]) {
    let mut last: Option<Arc<Section>> = None;
    let mut named: BTreeMap<String, Arc<Section>> = BTreeMap::new();
    for section in sections {
        let by_name = section.from.as_ref().and_then(|from| named.get(from));
        if section.kind == "defaults" {
            section.defaults = by_name.cloned();
            let shared = Arc::new(section.clone());
            named.insert(section.name.clone(), Arc::clone(&shared));
            last = Some(shared);
        } else {
            section.defaults = by_name.cloned().or_else(|| last.clone());
        }
    }
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Vec<Section>, Error> {
    let unreadable = |cause| Error::Unreadable {
        file: path.display().to_string(),
        cause,
    };
    let place = |line| Place {
        file: Arc::from(path),
        line,
    };
    let malformed = |line, message: &str| Error::Malformed {
        place: place(line),
        message: message.to_owned(),
    };
    if fs::metadata(path).map_err(unreadable)?.len() > LARGEST {
        return Err(malformed(1, "the file is too large"));
    }
    let bytes = fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut sections: Vec<Section> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let words = words(line).ok_or_else(|| malformed(at + 1, "a quote is not closed"))?;
        let Some(first) = words.first() else { continue };
        if SECTIONS.contains(&first.as_str()) {
            let name = words.get(1).cloned().unwrap_or_default();
            sections.push(Section {
                kind: first.clone(),
                name,
                place: place(at + 1),
                lines: Vec::new(),
                from: (words.get(2).filter(|word| *word == "from"))
                    .and_then(|_| words.get(3).cloned()),
                defaults: None,
            });
            continue;
        }
        let place = place(at + 1);
        match sections.last_mut() {
            Some(section) => section.lines.push(Line { words, place }),
            None => return Err(malformed(at + 1, "stands before the first section")),
        }
    }
    inherit(&mut sections);
    Ok(sections)
}

/// The words of a line; `None` where a quote is not closed.
fn words(line: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars();
    while let Some(c) = letters.next() {
        match c {
            '#' => break,
            c if c.is_whitespace() => found.extend(word.take()),
            '\'' => {
                let text = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '\'' => break,
                        c => text.push(c),
                    }
                }
            }
            '"' => {
                let text = word.get_or_insert_default();
                loop {
                    match letters.next()? {
                        '"' => break,
                        '\\' => text.push(letters.next()?),
                        c => text.push(c),
                    }
                }
            }
            '\\' => {
                let next = letters.next().unwrap_or('\\');
                let text = word.get_or_insert_default();
                match next {
                    ' ' | '#' | '\\' | '"' | '\'' => text.push(next),
                    c => text.extend(['\\', c]),
                }
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    found.extend(word);
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_haproxy_does() {
        for (line, expected) in [
            ("  bind :443 ssl # x", Some(vec!["bind", ":443", "ssl"])),
            (
                r#"a "b c" 'd "e' f\ g"#,
                Some(vec!["a", "b c", "d \"e", "f g"]),
            ),
            (r"path_reg ^/a\.php$", Some(vec!["path_reg", r"^/a\.php$"])),
            (r"a\#b", Some(vec!["a#b"])),
            ("", Some(vec![])),
            ("a \"b", None),
        ] {
            let found = words(line);
            let found = found
                .as_ref()
                .map(|w| w.iter().map(String::as_str).collect());
            assert_eq!(found, expected, "{line}");
        }
    }
}
