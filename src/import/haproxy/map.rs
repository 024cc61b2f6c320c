//! `use_backend %[…]`: backends whose names are looked up, or made from what is asked for.

use super::Import;
use super::condition::{All, Lists, Term, Test, merged, term};
use super::host;
use super::parse::Line;
use super::route::Rule;
use super::rule::Act;
use super::sample;
use crate::import::Loss;
use crate::import::pattern;

/// Entries of a map that become rules.
const MOST: usize = 2000;

/// What is looked up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Host,
    Path,
    /// Host and path.
    Base,
}

/// `%[SAMPLE,map_HOW(FILE,DEFAULT)]`, with what stands around it.
struct LookUp<'w> {
    before: &'w str,
    behind: &'w str,
    key: Key,
    caseless: bool,
    /// How, in which file, and what else.
    map: Option<(&'w str, &'w str, Option<&'w str>)>,
}

impl<'w> LookUp<'w> {
    fn of(text: &'w str, over_tls: bool) -> Option<Self> {
        let (before, rest) = text.split_once("%[")?;
        let (inner, behind) = rest.rsplit_once(']')?;
        let (sample, map) = match inner.find(",map") {
            Some(at) => (&inner[..at], Some(&inner[at + 4..])),
            None => (inner, None),
        };
        let mut parts = sample.split(',');
        let name = parts
            .next()?
            .trim_start_matches("req.")
            .to_ascii_lowercase();
        let key = match name.as_str() {
            "hdr(host)" | "fhdr(host)" => Key::Host,
            "ssl_fc_sni" | "ssl_sni" | "req_ssl_sni" if over_tls => Key::Host,
            "path" => Key::Path,
            "base" => Key::Base,
            _ => return None,
        };
        let mut caseless = key == Key::Host;
        // `field(1,:)` has a comma of its own.
        for part in parts {
            match part {
                "lower" => caseless = true,
                "host_only" | "field(1" | ":)" if key == Key::Host => {}
                _ => return None,
            }
        }
        let map = match map {
            None => None,
            Some(map) => {
                let (how, of) = map.strip_suffix(')')?.split_once('(')?;
                let how = how.trim_start_matches('_').trim_end_matches("_str");
                let (file, other) = match of.split_once(',') {
                    Some((file, other)) => (file, Some(other)),
                    None => (of, None),
                };
                Some((if how.is_empty() { "str" } else { how }, file, other))
            }
        };
        Some(Self {
            before,
            behind,
            key,
            caseless,
            map,
        })
    }

    /// Which requests an entry is for.
    fn test(&self, how: &str, value: &str) -> Option<Test> {
        let values = [value.to_owned()];
        let asked = |of: &str| {
            sample::pattern_of(how, self.caseless, false, &values).map(|pattern| Test::Value {
                of: of.to_owned(),
                pattern,
            })
        };
        match (self.key, how) {
            (Key::Host, _) => host::test(how, &values),
            (Key::Path, "str" | "beg") if !value.starts_with('/') => Some(Test::Never),
            (Key::Path, "str") => Some(Test::Exact(values.to_vec())),
            (Key::Path, "beg") => Some(Test::Prefix(values.to_vec())),
            (Key::Path, "end" | "sub" | "dir" | "reg") => asked("{path}"),
            (Key::Path, _) => None,
            (Key::Base, _) => asked("{host}{path}"),
        }
    }
}

/// Which requests there is an entry for: `SAMPLE,map_HOW(FILE) -m found`.
pub(super) fn found(criterion: &str, lists: &Lists) -> Option<Test> {
    let text = format!("%[{criterion}]");
    let look_up = LookUp::of(&text, true)?;
    let (how, file, None) = look_up.map? else {
        // Where nothing is found there is something else.
        return None;
    };
    let mut tests = Vec::new();
    for (value, _) in entries(&lists.values(file)?, how)? {
        tests.push(look_up.test(how, &value)?);
    }
    match merged(tests).as_slice() {
        [] => Some(Test::Never),
        [one] => Some(one.clone()),
        _ => None,
    }
}

impl Import {
    /// A rule for each backend that it may lead to, in the order in which they are found.
    pub(super) fn by_look_up<'s>(
        &mut self,
        line: &'s Line,
        alternatives: &[All],
        lists: &Lists,
        default: Option<&str>,
    ) -> Vec<Rule<'s>> {
        let text = line.word(1).to_owned();
        let found = LookUp::of(&text, self.over_tls)
            .and_then(|look_up| self.looked_up(&look_up, lists, default));
        let Some(found) = found else {
            let advice = "the backend depends on what is looked up: what it may have been for is \
                          closed until you have written a [[site]] or route for each";
            self.tell(line, Loss::Real, advice);
            return vec![Rule {
                line,
                alternatives: alternatives.to_vec(),
                act: Act::Deny(0),
            }];
        };
        let rule = |(test, backend): (Option<Test>, String)| {
            let with = |all: &All| {
                let term = test.as_ref().map(|test| term(false, test));
                all.iter().cloned().chain(term).collect()
            };
            Rule {
                line,
                alternatives: alternatives.iter().map(with).collect(),
                act: Act::Use(backend),
            }
        };
        found.into_iter().map(rule).collect()
    }

    /// A rule for each entry of a map that says where clients are sent. `None`: it is none of these.
    pub(super) fn redirects<'s>(&mut self, line: &'s Line, lists: &Lists) -> Option<Vec<Rule<'s>>> {
        let word = ["location", "prefix"]
            .into_iter()
            .find(|word| line.has(word))?;
        let at = line.words.iter().position(|it| it == word)? + 1;
        let look_up = LookUp::of(line.word(at), self.over_tls)?;
        let (how, file, other) = look_up.map?;
        let mut targets = Vec::new();
        for (value, target) in entries(&lists.values(file)?, how)? {
            targets.push((Some(look_up.test(how, &value)?), target));
        }
        targets.extend(other.map(|other| (None, other.to_owned())));
        // That there is an entry is what its own rule asks for.
        let found = |term: &Term| {
            matches!(&term.test, Test::Unknown(what)
                if !term.not && what.contains(",map") && what.ends_with("-m found"))
        };
        let asked = self.asked(line, lists);
        let is_found = asked.iter().flatten().any(found);
        let mut rules = Vec::new();
        for (test, target) in targets
            .into_iter()
            .filter(|(test, _)| test.is_some() || !is_found)
        {
            let mut said = line.clone();
            said.words[at] = format!("{}{target}{}", look_up.before, look_up.behind);
            let act = self.redirect(&said)?;
            let with = |all: &All| {
                let term = test.as_ref().map(|test| term(false, test));
                let others = all.iter().filter(|term| !found(term)).cloned();
                others.chain(term).collect()
            };
            rules.push(Rule {
                line,
                alternatives: asked.iter().map(with).collect(),
                act,
            });
        }
        self.seen(line);
        Some(rules)
    }

    /// Tests with the backends they lead to: where there is none of that name, to the default one.
    fn looked_up(
        &self,
        look_up: &LookUp<'_>,
        lists: &Lists,
        default: Option<&str>,
    ) -> Option<Vec<(Option<Test>, String)>> {
        let LookUp { before, behind, .. } = look_up;
        let mut found = Vec::new();
        let Some((how, file, other)) = look_up.map else {
            // The name is what is asked for.
            for backend in self.backends.keys() {
                let value = backend
                    .strip_prefix(before)
                    .and_then(|v| v.strip_suffix(behind));
                if let Some(value) = value.filter(|value| !value.is_empty()) {
                    found.push((Some(look_up.test("str", value)?), backend.clone()));
                }
            }
            return Some(found);
        };
        for (value, backend) in entries(&lists.values(file)?, how)? {
            let test = match how {
                "reg" => {
                    pattern::convert(&value, look_up.caseless, false).ok()?;
                    look_up.test(how, &value)?
                }
                how => look_up.test(how, &value)?,
            };
            let backend = format!("{before}{backend}{behind}");
            let known = self.backends.contains_key(&backend).then_some(backend);
            let backend = known.or_else(|| default.map(str::to_owned));
            found.extend(backend.map(|backend| (Some(test), backend)));
        }
        let other = other.map(|other| format!("{before}{other}{behind}"));
        found.extend(
            other
                .filter(|other| self.backends.contains_key(other))
                .map(|other| (None, other)),
        );
        Some(found)
    }
}

/// What is looked up, and what is found for it, in the order in which it is asked.
fn entries(lines: &[String], how: &str) -> Option<Vec<(String, String)>> {
    // What is found for a value alone is nothing.
    let both = |entry: &String| match entry.split_once(char::is_whitespace) {
        Some((value, found)) => (value.to_owned(), found.trim().to_owned()),
        None => (entry.clone(), String::new()),
    };
    let mut entries: Vec<_> = lines.iter().map(both).collect();
    // The longest beginning is taken, whatever its place.
    if how == "beg" {
        entries.sort_by_key(|(value, _)| std::cmp::Reverse(value.len()));
    }
    (entries.len() <= MOST).then_some(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_up_is_taken_apart() {
        let of = |text| {
            LookUp::of(text, true).map(|l| {
                (
                    l.before.to_owned(),
                    l.key == Key::Host,
                    l.map.map(|m| (m.0.to_owned(), m.2.map(str::to_owned))),
                )
            })
        };
        let found = |before: &str, host, map: Option<(&str, Option<&str>)>| {
            let map = map.map(|(how, other)| (how.to_owned(), other.map(str::to_owned)));
            Some((before.to_owned(), host, map))
        };
        assert_eq!(
            of("%[req.hdr(host),lower,map_dom(/a,b)]"),
            found("", true, Some(("dom", Some("b"))))
        );
        assert_eq!(
            of("be_%[base,map_beg(/a)]"),
            found("be_", false, Some(("beg", None)))
        );
        assert_eq!(of("%[hdr(host),field(1,:),lower]"), found("", true, None));
        assert_eq!(of("%[path,map(/a)]"), found("", false, Some(("str", None))));
        assert_eq!(of("%[lua.choose]"), None);
        assert_eq!(of("%[path,word(1,/),map(/a)]"), None);
    }
}
