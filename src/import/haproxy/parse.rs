//! HAProxy's syntax: sections, and lines of words.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::words::{Environment, words};
use crate::import::{Error, Loss, Note, Place};

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
    /// Its names are passed through at the addresses of others.
    pub(super) passes: bool,
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

/// Reads a file; what is told of its lines comes with it.
pub(super) fn read(path: &Path) -> Result<(Vec<Section>, Vec<Note>), Error> {
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
    let (mut environment, mut notes) = (Environment::default(), Vec::new());
    let mut branches = Branches::default();
    for (at, line) in text.lines().enumerate() {
        let place = place(at + 1);
        let mut tell = |words: &[String], advice: String| {
            notes.push(Note {
                place: place.clone(),
                piece: words.join(" "),
                loss: Loss::Real,
                advice,
            });
        };
        let words = words(line, &environment);
        let mut words = words.ok_or_else(|| malformed(at + 1, "a quote is not closed"))?;
        let Some(first) = words.first() else { continue };
        if first.starts_with('.') {
            if let Some(unknown) = branches.take(&words, &environment) {
                tell(&words, unknown);
            }
            continue;
        }
        if !branches.is_taken() {
            continue;
        }
        if SECTIONS.contains(&first.as_str()) {
            let name = words.get(1).cloned().unwrap_or_default();
            sections.push(Section {
                kind: first.clone(),
                name,
                place,
                lines: Vec::new(),
                from: (words.get(2).filter(|word| *word == "from"))
                    .and_then(|_| words.get(3).cloned()),
                defaults: None,
                passes: false,
            });
            continue;
        }
        let address = match first.as_str() {
            "bind" => Some(1),
            "server" | "nameserver" => Some(2),
            "server-template" => Some(3),
            _ => None,
        };
        if let Some(address) = address.and_then(|at| words.get_mut(at)) {
            *address = environment.expanded(address);
        }
        let missing = environment.missing();
        if !missing.is_empty() {
            let names: Vec<_> = missing.into_iter().collect();
            let advice = format!(
                "{}: not set here; set what HAProxy is started with, and import again",
                names.join(", ")
            );
            tell(&words, advice);
        }
        environment.learn(&words);
        match sections.last_mut() {
            Some(section) => section.lines.push(Line { words, place }),
            None => return Err(malformed(at + 1, "stands before the first section")),
        }
    }
    inherit(&mut sections);
    Ok((sections, notes))
}

/// `.if` and its like: which lines hold.
#[derive(Default)]
struct Branches(Vec<Branch>);

/// One of them that is open.
#[derive(Clone, Copy)]
struct Branch {
    taken: bool,
    /// One before has been.
    over: bool,
}

impl Branches {
    fn is_taken(&self) -> bool {
        self.0.iter().all(|branch| branch.taken)
    }

    /// A line that begins with a dot; what is to be told of it.
    fn take(&mut self, words: &[String], environment: &Environment) -> Option<String> {
        let asked = words[1..].join(" ");
        let holds = || branch(&asked, environment);
        let unknown =
            || Some("what it asks is not known here: the lines behind it are left out".to_owned());
        match words[0].as_str() {
            ".if" => {
                let held = holds();
                let taken = held == Some(true);
                self.0.push(Branch { taken, over: taken });
                return if held.is_none() { unknown() } else { None };
            }
            ".elif" => {
                let held = holds();
                let last = self.0.last_mut()?;
                last.taken = !last.over && held == Some(true);
                last.over |= last.taken;
                return if held.is_none() { unknown() } else { None };
            }
            ".else" => {
                let last = self.0.last_mut()?;
                (last.taken, last.over) = (!last.over, true);
            }
            ".endif" => drop(self.0.pop()),
            _ => {}
        }
        None
    }
}

/// What a condition of `.if` comes to, for the version that Debian has; `None`: it is not known.
fn branch(text: &str, environment: &Environment) -> Option<bool> {
    let text = text.trim();
    if let Some((one, two)) = text.split_once("||") {
        return Some(branch(one, environment)? || branch(two, environment)?);
    }
    if let Some((one, two)) = text.split_once("&&") {
        return Some(branch(one, environment)? && branch(two, environment)?);
    }
    if let Some(rest) = text.strip_prefix('!') {
        return branch(rest, environment).map(|held| !held);
    }
    let (name, of) = text.split_once('(').unwrap_or((text, ""));
    let of = of.trim_end_matches(')');
    Some(match name {
        "" | "0" | "false" => false,
        "1" | "true" => true,
        "defined" => environment.known(of).is_some(),
        "streq" | "strneq" => {
            let (one, two) = of.split_once(',')?;
            (one.trim() == two.trim()) == (name == "streq")
        }
        "feature" => of == "OPENSSL",
        "version_atleast" | "version_before" => {
            let mut parts = of.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
            let (major, minor) = (parts.next()?, parts.next().unwrap_or(0));
            ((2, 6) >= (major, minor)) == (name == "version_atleast")
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn branches_are_taken_as_haproxy_does() {
        let environment = Environment::default();
        for (asked, expected) in [
            ("feature(QUIC)", Some(false)),
            ("version_atleast(2.4)", Some(true)),
            ("version_before(2.7-dev0)", Some(true)),
            ("!defined(STAUNCH_NONE) && streq(a,a)", Some(true)),
            ("enabled(POLL)", None),
        ] {
            assert_eq!(branch(asked, &environment), expected, "{asked}");
        }
    }
}
