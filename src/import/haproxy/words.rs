//! Lines of words, as HAProxy splits them: quotes, escapes, variables of the environment.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Variables of the environment: those that the file sets itself, else those that are set here.
#[derive(Default)]
pub(super) struct Environment {
    set: BTreeMap<String, Option<String>>,
    missing: RefCell<BTreeSet<String>>,
}

impl Environment {
    /// `setenv`, `presetenv`, `unsetenv`, in `global`.
    pub(super) fn learn(&mut self, words: &[String]) {
        let word = |at: usize| words.get(at).cloned().unwrap_or_default();
        match word(0).as_str() {
            "setenv" => drop(self.set.insert(word(1), Some(word(2)))),
            "presetenv" if self.known(&word(1)).is_none() => {
                self.set.insert(word(1), Some(word(2)));
            }
            "unsetenv" => self
                .set
                .extend(words[1..].iter().map(|name| (name.clone(), None))),
            _ => {}
        }
    }

    /// The value of one.
    pub(super) fn known(&self, name: &str) -> Option<String> {
        match self.set.get(name) {
            Some(value) => value.clone(),
            None => std::env::var(name).ok(),
        }
    }

    fn value(&self, name: &str, default: Option<&str>) -> String {
        let value = self.known(name).or_else(|| default.map(str::to_owned));
        value.unwrap_or_else(|| {
            self.missing.borrow_mut().insert(name.to_owned());
            String::new()
        })
    }

    /// Those that there was no value for, since this was asked last.
    pub(super) fn missing(&self) -> BTreeSet<String> {
        std::mem::take(&mut self.missing.borrow_mut())
    }

    /// An address, in which variables need no quotes.
    pub(super) fn expanded(&self, text: &str) -> String {
        let (mut out, mut letters) = (String::new(), text);
        while let Some((before, behind)) = letters.split_once('$') {
            out.push_str(before);
            letters = self.expand(behind, &mut out).unwrap_or_else(|| {
                out.push('$');
                behind
            });
        }
        out.push_str(letters);
        out
    }

    /// Writes the variable that a text begins with; what follows it.
    fn expand<'t>(&self, text: &'t str, out: &mut String) -> Option<&'t str> {
        let inner = text.strip_prefix('{');
        let name = inner.unwrap_or(text);
        let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let (name, rest) = name.split_at(end.unwrap_or(name.len()));
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let Some(_) = inner else {
            out.push_str(&self.value(name, None));
            return Some(rest);
        };
        let (more, rest) = rest.split_once('}')?;
        let default = more.trim_start_matches("[*]").strip_prefix('-');
        out.push_str(&self.value(name, default));
        Some(rest)
    }
}

/// The words of a line; `None` where a quote is not closed.
pub(super) fn words(line: &str, environment: &Environment) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let mut word: Option<String> = None;
    let (mut left, mut quoted) = (line, false);
    while let Some(c) = left.chars().next() {
        left = &left[c.len_utf8()..];
        match c {
            '"' => {
                word.get_or_insert_default();
                quoted = !quoted;
            }
            '\\' => {
                let text = word.get_or_insert_default();
                let next = left.chars().next();
                let hex = || u8::from_str_radix(left.get(1..3)?, 16).ok();
                let (meant, taken) = match next {
                    Some(c @ (' ' | '\\' | '#' | '\'' | '"')) => (c, 1),
                    Some('$') if quoted => ('$', 1),
                    Some('n') => ('\n', 1),
                    Some('r') => ('\r', 1),
                    Some('t') => ('\t', 1),
                    Some('x') => match hex() {
                        Some(byte) => (char::from(byte), 3),
                        None => ('\\', 0),
                    },
                    // Nothing is meant by any other, as in `\1` and `\.`.
                    _ => ('\\', 0),
                };
                text.push(meant);
                left = &left[taken..];
            }
            '$' if quoted => {
                let text = word.get_or_insert_default();
                match environment.expand(left, text) {
                    Some(rest) => left = rest,
                    None => text.push('$'),
                }
            }
            c if quoted => word.get_or_insert_default().push(c),
            '#' => break,
            c if c.is_whitespace() => found.extend(word.take()),
            '\'' => {
                let (inside, rest) = left.split_once('\'')?;
                word.get_or_insert_default().push_str(inside);
                left = rest;
            }
            c => word.get_or_insert_default().push(c),
        }
    }
    found.extend(word);
    (!quoted).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_haproxy_does() {
        let mut environment = Environment::default();
        for line in [["setenv", "NAME", "v"], ["presetenv", "NAME", "w"]] {
            environment.learn(&line.map(str::to_owned));
        }
        for (line, expected) in [
            ("  bind :443 ssl # x", Some(vec!["bind", ":443", "ssl"])),
            (
                r#"a "b c" 'd "e' f\ g"#,
                Some(vec!["a", "b c", "d \"e", "f g"]),
            ),
            (r"path_reg ^/a\.php$", Some(vec!["path_reg", r"^/a\.php$"])),
            (
                r#""^/a\.php$" "\1; x\n""#,
                Some(vec![r"^/a\.php$", "\\1; x\n"]),
            ),
            (r"a\#b", Some(vec!["a#b"])),
            (
                r#""${NAME}/$NAME" $NAME "\$NAME""#,
                Some(vec!["v/v", "$NAME", "$NAME"]),
            ),
            (r#""${STAUNCH_NONE-w}""#, Some(vec!["w"])),
            (r"\x41\xg", Some(vec![r"A\xg"])),
            (r#"a "it's""#, Some(vec!["a", "it's"])),
            ("", Some(vec![])),
            ("a \"b", None),
        ] {
            let found = words(line, &environment);
            let found = found
                .as_ref()
                .map(|w| w.iter().map(String::as_str).collect());
            assert_eq!(found, expected, "{line}");
        }
        assert_eq!(environment.expanded("*:$NAME"), "*:v");
        assert!(environment.missing().is_empty());
        assert_eq!(environment.expanded(":${STAUNCH_NONE}"), ":");
        assert_eq!(environment.missing().len(), 1);
    }
}
