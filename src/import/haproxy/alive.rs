//! Rules that go by how many servers of a backend are up: `nbsrv`, which here is what backup servers
//! are for.

use std::collections::BTreeMap;

use super::Import;
use super::parse::{Line, Section};
use crate::import::Loss;

/// Whether some server of a backend is up, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Count {
    backend: String,
    up: bool,
}

impl Count {
    /// `nbsrv(NAME) lt 1` and what comes to the same. `None`: something else.
    fn of(words: &[String]) -> Option<Self> {
        let name = words.first()?.strip_prefix("nbsrv(")?.strip_suffix(')')?;
        let is_number = |word: &&String| !["-m", "int"].contains(&word.as_str());
        let rest: Vec<_> = (words[1..].iter()).filter(is_number).collect();
        let up = match rest.iter().map(|word| word.as_str()).collect::<Vec<_>>()[..] {
            ["gt", "0"] | ["ge", "1"] | ["ne", "0"] => true,
            ["lt", "1"] | ["le", "0"] | ["eq", "0"] | ["0"] => false,
            _ => return None,
        };
        Some(Self {
            backend: name.to_owned(),
            up,
        })
    }
}

/// A rule's counts, and its line without them.
struct Split {
    counts: Vec<Count>,
    rest: Line,
}

impl Split {
    /// `None`: it goes by no such count, or by alternatives of them.
    fn of(line: &Line, named: &BTreeMap<String, Count>) -> Option<Self> {
        let begin = (line.words.iter()).position(|word| word == "if" || word == "unless")?;
        let unless = line.words[begin] == "unless";
        let mut words = line.words[begin + 1..].iter().cloned();
        let (mut counts, mut rest, mut other) = (Vec::new(), Vec::new(), 0);
        while let Some(word) = words.next() {
            if word.eq_ignore_ascii_case("or") || word == "||" {
                return None;
            }
            let mut name = word.trim_start_matches('!').to_owned();
            let mut not = (word.len() - name.len()) % 2 == 1;
            let mut said = vec![word];
            if name.is_empty() {
                name = words.next()?;
                said.push(name.clone());
            }
            let count = match name.as_str() {
                "{" => {
                    let inner: Vec<_> = words.by_ref().take_while(|word| word != "}").collect();
                    said.extend(inner.iter().cloned());
                    said.push("}".to_owned());
                    Count::of(&inner)
                }
                name => named.get(name).cloned(),
            };
            match count {
                Some(mut count) => {
                    not ^= unless;
                    count.up ^= not;
                    counts.push(count);
                }
                None => {
                    other += 1;
                    rest.extend(said);
                }
            }
        }
        // What is not all of them is alternatives.
        let alone = !unless || counts.len() + other == 1;
        (alone && !counts.is_empty()).then(|| {
            let mut kept = line.clone();
            kept.words.truncate(begin);
            if !rest.is_empty() {
                kept.words.push(line.words[begin].clone());
                kept.words.extend(rest);
            }
            Self { counts, rest: kept }
        })
    }
}

impl Import {
    /// Writes `use_backend SPARE if { nbsrv(MAIN) lt 1 }` as backup servers of MAIN.
    pub(super) fn without_counts_of_servers(&mut self, sections: &mut [Section]) {
        for at in 0..sections.len() {
            if !matches!(sections[at].kind.as_str(), "frontend" | "listen") {
                continue;
            }
            let lines = std::mem::take(&mut sections[at].lines);
            let named = counts(&lines);
            let default = lines.iter().rfind(|line| line.word(0) == "default_backend");
            let default = default.map(|line| line.word(1).to_owned());
            let mut kept = Vec::new();
            for line in lines {
                let split = Split::of(&line, &named);
                let now = match (line.word(0), split) {
                    ("acl", _) if named.contains_key(line.word(1)) => {
                        self.seen(&line);
                        Some(line)
                    }
                    ("use_backend", Some(split)) => {
                        self.spared(&line, split, default.as_deref(), sections)
                    }
                    ("http-request", Some(split)) => self.refused(&line, &split).then_some(line),
                    _ => Some(line),
                };
                kept.extend(now);
            }
            sections[at].lines = kept;
        }
    }

    /// What is left of a `use_backend` where its counts are left to backup servers.
    fn spared(
        &mut self,
        line: &Line,
        split: Split,
        default: Option<&str>,
        sections: &mut [Section],
    ) -> Option<Line> {
        let to = line.word(1);
        let down: Vec<_> = (split.counts.iter()).filter(|count| !count.up).collect();
        let others = (split.counts.iter()).any(|count| count.up && count.backend != to);
        match down.as_slice() {
            [] if !others => {
                let spare = default.filter(|default| *default != to);
                let found = spare.is_none_or(|spare| lend(sections, to, spare));
                match (spare, found) {
                    (Some(spare), true) => {
                        self.spare.insert(spare.to_owned());
                        self.tell(line, Loss::Slight, backups(to, spare));
                    }
                    (Some(spare), false) => {
                        let advice = format!(
                            "goes there whether a server is up or not: where none is, {spare} is \
                             not asked instead; give [upstream.NAME] servers with backup = true"
                        );
                        self.tell(line, Loss::Real, advice);
                    }
                    (None, _) => {
                        let advice = "goes there whether a server is up or not; where none is, \
                                      clients are told so";
                        self.tell(line, Loss::Slight, advice);
                    }
                }
                Some(split.rest)
            }
            [main] if !others && main.backend != to && lend(sections, &main.backend, to) => {
                self.spare.insert(to.to_owned());
                self.tell(line, Loss::Slight, backups(&main.backend, to));
                None
            }
            _ => Some(line.clone()),
        }
    }

    /// Whether a rule has to stay; not so where it only says what is said anyway.
    fn refused(&mut self, line: &Line, split: &Split) -> bool {
        let status = line.after("deny_status").or_else(|| line.after("status"));
        let bare = matches!(line.word(1), "deny" | "return")
            && status.is_some_and(|status| status.starts_with('5'))
            && split.counts.iter().all(|count| !count.up);
        if bare {
            let advice = "where no server is up staunch says 502 or 503 itself; see error_pages";
            self.tell(line, Loss::Slight, advice);
        }
        !bare
    }
}

fn backups(main: &str, spare: &str) -> String {
    format!(
        "the servers of {spare} are backups of {main}, for all that goes there, and checked as those \
         are"
    )
}

/// The lists that are one count each.
fn counts(lines: &[Line]) -> BTreeMap<String, Count> {
    let mut found: BTreeMap<String, Option<Count>> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.word(0) == "acl") {
        let count = Count::of(&line.words[2.min(line.words.len())..]);
        (found.entry(line.word(1).to_owned()))
            .and_modify(|known| *known = None)
            .or_insert(count);
    }
    (found.into_iter())
        .filter_map(|(name, count)| Some((name, count?)))
        .collect()
}

/// Gives one backend the servers of another as backups. `false`: one of them does more than that.
fn lend(sections: &mut [Section], main: &str, spare: &str) -> bool {
    const PLAIN: [&str; 12] = [
        "server",
        "balance",
        "mode",
        "option",
        "http-check",
        "timeout",
        "log",
        "retries",
        "description",
        "hash-type",
        "fullconn",
        "id",
    ];
    let find = |name: &str| {
        let is = |section: &Section| section.kind == "backend" && section.name == name;
        sections.iter().position(is)
    };
    let (Some(at), Some(from)) = (find(main), find(spare)) else {
        return false;
    };
    let plain = |line: &Line| PLAIN.contains(&line.word(0)) && !line.has("backup");
    let servers: Vec<_> = sections[from].all("server").cloned().collect();
    let own: Vec<_> = sections[at].all("server").collect();
    // What is said of TLS is said of all servers of an upstream.
    let tls = |line: &Line| {
        let words = [
            "ssl",
            "verify",
            "ca-file",
            "crt",
            "sni",
            "send-proxy",
            "send-proxy-v2",
        ];
        words.map(|word| line.has(word).then(|| line.after(word).map(str::to_owned)))
    };
    let alike = (own.first()).is_some_and(|one| {
        servers
            .iter()
            .chain(own.iter().copied())
            .all(|other| tls(other) == tls(one))
    });
    let whole = sections[from].lines.iter().all(plain) && !own.iter().any(|own| own.has("backup"));
    if servers.is_empty() || !alike || !whole {
        return false;
    }
    let more = servers.iter().map(|server| {
        let mut server = server.clone();
        server.words.push("backup".to_owned());
        server
    });
    let together = Line {
        words: vec!["option".to_owned(), "allbackups".to_owned()],
        place: servers[0].place.clone(),
    };
    let more: Vec<_> = more.chain([together]).collect();
    sections[at].lines.extend(more);
    true
}
