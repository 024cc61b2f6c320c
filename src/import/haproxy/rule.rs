//! Rules: what each does, wherever it holds.

use super::Import;
use super::format::{line, template};
use super::parse::{Line, Section};
use crate::import::site::{Change, Matcher, Rules, Side};
use crate::import::{Loss, array, quoted};

/// What a rule does where it holds.
#[derive(Clone)]
pub(super) enum Act {
    /// The request goes to a backend.
    Use(String),
    /// It is answered.
    Answer(Vec<String>, Rules),
    /// It is refused.
    Deny(u16),
    /// A change to fields.
    Fields(Rules),
}

/// Whether a sample is a count of what clients do.
pub(super) fn counted(what: &str) -> bool {
    const COUNTS: [&str; 8] = [
        "sc_", "sc0_", "sc1_", "sc2_", "src_", "be_conn", "fe_", "nbsrv",
    ];
    let what = what.trim_start_matches('!');
    COUNTS.iter().any(|count| what.starts_with(count))
}

impl Import {
    /// A rule that refuses by a count, as the bound of each client where there is such a one.
    pub(super) fn bounded(&mut self, rule: &Line, what: &str) {
        let mut words = what.split_whitespace();
        let sample = words.next().unwrap_or_default();
        let most = words.last().and_then(|most| most.parse::<u32>().ok());
        let name = sample.split('(').next().unwrap_or_default();
        match most.filter(|most| *most > 0 && name.ends_with("_conn_cur")) {
            Some(most) => {
                self.limits
                    .insert("connections_per_client", most.to_string());
                let advice = "holds for all addresses here: limits.connections_per_client";
                self.tell(rule, Loss::Slight, advice);
            }
            None => {
                let advice = "bounded connections by a count; see limits.connections_per_client";
                self.tell(rule, Loss::Real, advice);
            }
        }
    }

    /// How responses are compressed, by a section or by `defaults`.
    pub(super) fn compression(&mut self, section: &Section) -> Rules {
        let defaults = section.defaults.clone();
        let lines = |what: &str| {
            let of = |section: &Section| {
                let lines = section.all("compression");
                lines
                    .filter(|line| line.word(1) == what)
                    .cloned()
                    .collect::<Vec<_>>()
            };
            let own = of(section);
            match own.is_empty() {
                true => defaults.as_deref().map(of).unwrap_or_default(),
                false => own,
            }
        };
        let (algorithms, types) = (lines("algo"), lines("type"));
        let mut rules = Rules::default();
        for line in algorithms.iter().chain(&types) {
            self.seen(line);
        }
        let gzip = |line: &Line| line.has("gzip");
        match algorithms.last() {
            None => return rules,
            Some(line) if !algorithms.iter().any(gzip) => {
                let advice = "is no coding that is known here; see compression";
                self.tell(line, Loss::Slight, advice);
                return rules;
            }
            Some(_) => rules.insert("compression", array(["gzip"])),
        }
        // Without any it is for all.
        let mut kinds: Vec<_> = types.iter().flat_map(|line| &line.words[2..]).collect();
        let all = "*/*".to_owned();
        if kinds.is_empty() {
            kinds.push(&all);
        }
        rules.insert("compression_types", array(kinds));
        rules.insert("compression_minimum", quoted("1"));
        rules
    }

    /// What a line says is done.
    pub(super) fn request_rule(&mut self, rule: &Line) -> Option<Act> {
        let side = match rule.word(0) {
            "http-request" => Side::Request,
            _ => Side::Response,
        };
        let action = rule.word(1);
        match action {
            "deny" | "reject" | "tarpit" | "silent-drop" => {
                let status = rule.after("deny_status").or_else(|| rule.after("status"));
                Some(Act::Deny(
                    status.and_then(|s| s.parse().ok()).unwrap_or(403),
                ))
            }
            "auth" => Some(Act::Deny(0)),
            "redirect" => self.redirect(rule, 2),
            "return" => {
                let mut lines = vec![format!(
                    "respond = {}",
                    rule.after("status").unwrap_or("200")
                )];
                match (
                    rule.after("string"),
                    rule.has("file") || rule.has("lf-string"),
                ) {
                    (_, true) => {
                        self.tell(rule, Loss::Real, "its body is not carried over; see body");
                        return Some(Act::Deny(0));
                    }
                    (Some(text), false) => {
                        lines.push(line("body", text));
                        let kind = rule.after("content-type");
                        lines.extend(kind.map(|kind| line("content_type", kind)));
                    }
                    (None, false) => {}
                }
                Some(Act::Answer(lines, self.returned_fields(rule)))
            }
            "set-header" | "add-header" | "del-header" => {
                self.field(rule, side, rule.word(2)).map(Act::Fields)
            }
            "sc-inc-gpc0" | "set-var" | "capture" | "set-log-level" | "disable-l7-retry"
            | "wait-for-body" => {
                self.tell(rule, Loss::Slight, "what used it is told by itself");
                None
            }
            _ => None,
        }
    }

    /// The fields that a `return` writes: `hdr NAME VALUE`.
    fn returned_fields(&mut self, rule: &Line) -> Rules {
        let mut rules = Rules::default();
        let end = (rule.words.iter()).position(|word| word == "if" || word == "unless");
        let words = &rule.words[..end.unwrap_or(rule.words.len())];
        let at = (0..words.len()).filter(|at| words[*at] == "hdr");
        for (name, value) in at.filter_map(|at| Some((words.get(at + 1)?, words.get(at + 2)?))) {
            match template(value) {
                Ok(value) => {
                    rules.change(Side::Response, Change::Add, name, quoted(value.trim()));
                }
                Err(variable) => {
                    let advice =
                        format!("{variable} is not known here; see docs/rules.md for variables");
                    self.tell(rule, Loss::Real, advice);
                }
            }
        }
        rules
    }

    /// One change to a field.
    fn field(&mut self, rule: &Line, side: Side, name: &str) -> Option<Rules> {
        let mut rules = Rules::default();
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let anyway = [
            "X-Forwarded-For",
            "X-Forwarded-Proto",
            "X-Forwarded-Host",
            "Forwarded",
        ];
        if side == Side::Request && anyway.iter().any(|other| is(other)) {
            self.tell(rule, Loss::None, "staunch writes this field by itself");
            return None;
        }
        let value = rule.word(3);
        if side == Side::Response && is("Strict-Transport-Security") {
            rules.change(Side::Response, Change::Set, name, quoted(value));
            return Some(rules);
        }
        let change = match rule.word(1) {
            "del-header" => {
                rules.change(side, Change::Remove, name, String::new());
                return Some(rules);
            }
            "set-header" => Change::Set,
            _ => Change::Add,
        };
        match template(value) {
            Ok(value) => {
                if value.contains("{request_id}") {
                    rules.insert("request_id", quoted(name));
                    return Some(rules);
                }
                rules.change(side, change, name, quoted(value.trim()));
                Some(rules)
            }
            Err(variable) => {
                let advice =
                    format!("{variable} is not known here; see docs/rules.md for variables");
                self.tell(rule, Loss::Real, advice);
                None
            }
        }
    }

    pub(super) fn redirect(&mut self, rule: &Line, at: usize) -> Option<Act> {
        let code = rule.after("code").unwrap_or("302").to_owned();
        let to = match rule.word(at) {
            "scheme" => {
                self.tell(
                    rule,
                    Loss::None,
                    "requests come by https here, and others are redirected",
                );
                return None;
            }
            "location" => template(rule.word(at + 1)),
            "prefix" => template(rule.word(at + 1)).map(|to| {
                let what = if rule.has("drop-query") {
                    "{path}"
                } else {
                    "{uri}"
                };
                let to = to.trim_end_matches('/').to_owned();
                format!("{to}{what}")
            }),
            _ => return None,
        };
        match to {
            Ok(to) => Some(Act::Answer(
                vec![line("redirect", &to), format!("status = {code}")],
                Rules::default(),
            )),
            Err(variable) => {
                self.tell(
                    rule,
                    Loss::Real,
                    format!("{variable} is not known here: it is closed"),
                );
                Some(Act::Deny(0))
            }
        }
    }
}

/// `replace-path ^/api/(.*) /\1` and `set-path`, where they are for a route's path.
pub(super) fn rewritten(rule: &Line, matcher: &Matcher) -> Option<String> {
    if matches!(rule.word(1), "set-path" | "set-uri") {
        let to = rule.word(2);
        let inner = to.strip_prefix("%[path,regsub(")?.strip_suffix(")]")?;
        let (from, to) = inner.split_once(',')?;
        let from = from.trim_start_matches('^');
        let Matcher::Prefix(path) = matcher else {
            return None;
        };
        let same = from.trim_end_matches('/') == path.trim_end_matches('/');
        return (same && to.starts_with('/')).then(|| line("replace_prefix", to));
    }
    let (Matcher::Prefix(path), from, to) = (matcher, rule.word(2), rule.word(3)) else {
        return None;
    };
    let head = from.trim_start_matches('^').trim_end_matches('$');
    let head = head
        .strip_suffix("(.*)")
        .or_else(|| head.strip_suffix("(/)?(.*)"))?;
    let head = head.trim_end_matches("(/)?").trim_end_matches("/?");
    let before = to.strip_suffix("\\1").or_else(|| to.strip_suffix("\\2"))?;
    let same = head.trim_end_matches('/') == path.trim_end_matches('/');
    let before = if before.is_empty() { "/" } else { before };
    (same && before.starts_with('/')).then(|| line("replace_prefix", before))
}
