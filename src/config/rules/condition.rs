//! What a route asks of a request beside its path: `when`, `unless`, `clients` and
//! `except_clients`.

use std::sync::Arc;

use ipnet::IpNet;
use toml::de::DeValue;

use super::template::Scope;
use super::{Pattern, Piece, Template, Variable};
use crate::config::diagnostic::{Complaint, Diagnostic, Span, quoted};
use crate::config::read::{At, FromToml, Table, Value};

/// The keys of conditions.
pub(super) const KEYS: [&str; 4] = ["when", "unless", "clients", "except_clients"];

/// What must hold of a request, beside its path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// Networks, in one of which the client is; empty: any client will do.
    pub clients: Vec<IpNet>,
    /// Networks, in none of which the client is.
    pub except_clients: Vec<IpNet>,
    /// All of these hold.
    pub when: Vec<Condition>,
    /// None of these holds.
    pub unless: Vec<Condition>,
}

/// A value of a request, and what is looked for in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The value.
    pub value: Template,
    /// It holds where this matches.
    pub pattern: Pattern,
}

impl Conditions {
    /// Whether nothing is asked for.
    pub const fn is_empty(&self) -> bool {
        self.clients.is_empty()
            && self.except_clients.is_empty()
            && self.when.is_empty()
            && self.unless.is_empty()
    }

    /// What is looked at.
    pub(in crate::config) fn templates(&self) -> impl Iterator<Item = &Template> {
        let all = self.when.iter().chain(&self.unless);
        all.map(|condition| &condition.value)
    }

    /// Whether a client that meets them meets them wherever it is sent: they ask only for what it is.
    pub(in crate::config) fn are_of_client(&self) -> bool {
        let mut variables = self.templates().flat_map(Template::variables);
        variables.all(|variable| match variable {
            Variable::ClientAddress | Variable::TlsVersion | Variable::Ja4 => true,
            Variable::Header(name) => ["user-agent", "accept-language"]
                .into_iter()
                .any(|steady| name.eq_ignore_ascii_case(steady)),
            _ => false,
        })
    }
}

/// Reads them.
pub(super) fn conditions(t: &mut Table<'_>) -> Conditions {
    let when: Option<Tests> = t.optional(
        "when",
        "Only for requests of which all of these hold: values, as variables, and what is looked for \
         in them. A route with conditions and no path is for all paths and goes before all others.",
    );
    let unless: Option<Tests> = t.optional(
        "unless",
        "Only for requests of which none of these holds; written like `when`.",
    );
    let clients: Option<Vec<IpNet>> =
        t.optional("clients", "Only for requests of these clients, by address.");
    let except: Option<Vec<IpNet>> = t.optional(
        "except_clients",
        "Only for requests of other clients than these; also those that `clients` has.",
    );
    for (key, list) in [("clients", &clients), ("except_clients", &except)] {
        if list.as_ref().is_some_and(Vec::is_empty) {
            empty(t, key, "[\"10.0.0.0/8\"]");
        }
    }
    Conditions {
        clients: clients.unwrap_or_default(),
        except_clients: except.unwrap_or_default(),
        when: tests(t, "when", when),
        unless: tests(t, "unless", unless),
    }
}

fn empty(t: &Table<'_>, key: &str, example: &str) {
    let span = t.place(key).unwrap_or(0..0);
    let help = format!("take it out, or write what is asked for, as in `{key} = {example}`");
    t.complain(
        &span,
        Complaint::new(format!("`{key}`: there is nothing in it"), help),
    );
}

fn tests(t: &Table<'_>, key: &'static str, given: Option<Tests>) -> Vec<Condition> {
    let Some(Tests(given)) = given else {
        return Vec::new();
    };
    if given.is_empty() {
        empty(t, key, "{ \"{method}\" = '^POST$' }");
    }
    let mut all = Vec::new();
    for Test { value, patterns } in given {
        let Some(template) = subject(t, key, &value) else {
            continue;
        };
        for At {
            value: pattern,
            span,
        } in patterns
        {
            doubt(t, key, &template, &pattern, &span);
            all.push(Condition {
                value: template.clone(),
                pattern,
            });
        }
    }
    all
}

/// What is looked at, where it can be.
fn subject(t: &Table<'_>, key: &str, text: &At<Arc<str>>) -> Option<Template> {
    let read = Scope::of_conditions().read(&text.value, t.cx);
    let read = read.and_then(|template| {
        let variables: Vec<_> = template.variables().collect();
        if variables.is_empty() {
            return Err(Complaint::new(
                format!("there is no variable in {}", quoted(&text.value)),
                likely(&text.value),
            ));
        }
        if variables.contains(&&Variable::User) {
            return Err(Complaint::new(
                "who asks is found out by the route",
                "write a field of the request, as in `{header:X-User}`, or `clients`",
            ));
        }
        if variables.contains(&&Variable::RequestId) || variables.contains(&&Variable::TraceId) {
            return Err(Complaint::new(
                "a request gets its ids from its route",
                "write a field of the request, as in `{header:X-Request-Id}`",
            ));
        }
        Ok(template)
    });
    match read {
        Ok(template) => Some(template),
        Err(Complaint { message, help }) => {
            let message = format!("`{key}`: {message}");
            t.complain(&text.span, Complaint { message, help });
            None
        }
    }
}

/// What may have been meant by a name without braces.
fn likely(name: &str) -> String {
    match Scope::is_word(name) {
        true => format!("write `{{{name}}}`"),
        false if crate::config::upstream::token(name).is_ok() => {
            format!("write `{{header:{name}}}`, or cookie or query instead of header")
        }
        false => "write one in braces, as in `{header:User-Agent}`".to_owned(),
    }
}

/// What some variables can be.
fn values(variable: &Variable) -> Option<&'static [&'static str]> {
    Some(match variable {
        Variable::Scheme => &["https", "http"],
        Variable::Protocol => &["HTTP/1.0", "HTTP/1.1", "HTTP/2.0"],
        Variable::TlsVersion => &["1.2", "1.3", ""],
        Variable::TlsResumed => &["true", "false", ""],
        _ => return None,
    })
}

/// Warns of conditions that hold for all requests, or for none.
fn doubt(t: &Table<'_>, key: &str, value: &Template, pattern: &Pattern, span: &Span) {
    let only = match value.pieces() {
        [Piece::Variable(variable)] => Some(variable),
        _ => None,
    };
    let of_values = || {
        let mut found =
            (only.and_then(values)?.iter()).map(|value| pattern.regex().is_match(value.as_bytes()));
        let first = found.next()?;
        found.all(|other| other == first).then_some(first)
    };
    let is_upper = only == Some(&Variable::Host) && pattern.has_upper_case();
    let upper = || is_upper.then_some(false);
    let Some(always) = pattern.verdict().or_else(of_values).or_else(upper) else {
        return;
    };
    let message = match always {
        true => "a condition that matches everything",
        false => "a condition that nothing matches",
    };
    let help = match (always == (key == "when"), is_upper) {
        (_, true) => "`{host}` is in lower case; write `(?i)` before it",
        (true, _) => "take it out: it says nothing",
        (false, _) => "so nothing reaches this route",
    };
    t.cx.report(Diagnostic::warning(span.clone(), message).help(help));
}

/// Values and what is looked for in them.
struct Tests(Vec<Test>);

struct Test {
    value: At<Arc<str>>,
    patterns: Vec<At<Pattern>>,
}

impl FromToml for Tests {
    const FORM: &'static str =
        "a table of variables and expressions such as { \"{method}\" = '^POST$' }";

    fn from_toml(value: Value<'_>) -> Option<Self> {
        let entries = value.entries(Self::FORM)?;
        let all = entries.map(|(name, node)| {
            let value = value.with(node);
            let patterns = match node.get_ref() {
                DeValue::Array(_) => Vec::from_toml(value).unwrap_or_default(),
                _ => Vec::from_iter(At::from_toml(value)),
            };
            Test {
                value: name,
                patterns,
            }
        });
        Some(Self(all.collect()))
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    fn read(lines: &str) -> String {
        let text = format!(
            "[listen]\nhttps = ['[::]:443']\n[[certificate]]\nfolder = '/c'\n[[site]]\nnames = ['a.test']\n\
             upstream = 'http://u'\n[[site.route]]\n{lines}\n"
        );
        match parse(&text, std::path::Path::new("/s.toml")) {
            Ok(config) => config.warnings.to_string(),
            Err(report) => report.to_string(),
        }
    }

    #[test]
    fn a_condition_that_cannot_be_read_is_said_with_what_may_have_been_meant() {
        for (lines, words) in [
            ("when = { method = 'a' }", "write `{method}`"),
            ("when = { User-Agent = 'a' }", "`{header:User-Agent}`"),
            ("when = { '{metod}' = 'a' }", "did you mean `{method}`?"),
            ("when = { '{method' = 'a' }", "`{{`"),
            ("when = { '{method}' = '(' }", "unclosed group"),
            ("when = { '{method}' = ['a', '('] }", "unclosed group"),
            ("when = { '{method}' = 1 }", "expected a regular expression"),
            (
                "when = 'a'",
                "expected a table of variables and expressions",
            ),
            ("when = {}", "nothing in it"),
            ("clients = []", "nothing in it"),
            ("clients = ['10.0.0']", "clients"),
            ("when = { '{user}' = 'a' }", "found out by the route"),
            (
                "when = { '{request_id}' = 'a' }",
                "gets its ids from its route",
            ),
            (
                "path = '/'\nwhen = { '{rest}' = 'a' }",
                "write `{path}` or `{uri}`",
            ),
            (
                "when = { '{host}' = 'a' }\nfinal = true",
                "goes only with `path`",
            ),
            (
                "when = { '{host}' = 'a' }\nreplace_prefix = '/'",
                "goes only with `path`",
            ),
            (
                "wen = { '{host}' = 'a' }\npath = '/'",
                "did you mean `when`?",
            ),
            ("respond = 403", "or `when`"),
        ] {
            let said = read(lines);
            assert!(
                said.contains("error:") && said.contains(words),
                "{lines}\n{said}"
            );
        }
    }

    #[test]
    fn a_condition_that_holds_always_or_never_is_told() {
        for (lines, words) in [
            ("when = { '{method}' = '' }", "it says nothing"),
            ("when = { '{method}' = ['^G', '.*'] }", "it says nothing"),
            (
                "unless = { '{header:X}' = '^' }",
                "nothing reaches this route",
            ),
            (
                "when = { '{header:X}' = '[a&&b]' }",
                "nothing reaches this route",
            ),
            ("unless = { '{header:X}' = 'a^b' }", "it says nothing"),
            (
                "when = { '{scheme}' = 'HTTPS' }",
                "nothing reaches this route",
            ),
            ("when = { '{scheme}' = '^https?$' }", "it says nothing"),
            (
                "when = { '{protocol}' = '^HTTP/2$' }",
                "nothing reaches this route",
            ),
            ("when = { '{host}' = '^WWW[.]' }", "in lower case"),
            ("when = { '{ja4}' = '^t13' }", "write `ja4 = true`"),
        ] {
            let said = read(&format!("{lines}\nrespond = 403"));
            assert!(
                said.contains("warning:") && said.contains(words),
                "{lines}\n{said}"
            );
        }
        for lines in [
            "when = { '{header:X}' = '^$' }",
            "when = { '{scheme}' = '^http$' }",
            "when = { '{host}' = '(?i)^WWW[.]' }",
            "when = { '{header:X}/{method}' = '^a/GET$' }\nunless = { '{query:a}' = 'b' }",
            "clients = ['10.0.0.0/8']\nexcept_clients = ['10.1.0.0/16', '::1']",
        ] {
            assert_eq!(read(&format!("{lines}\nrespond = 403")), "", "{lines}");
        }
    }
}
