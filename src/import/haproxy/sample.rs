//! Samples of a request that routes can look at: fields, cookies, parameters, methods.

use super::condition::Test;
use crate::import::formula;
use crate::import::pattern;

/// A criterion with its values, where routes can ask for it. `how`: the matching method of `-m`.
pub(super) fn test(
    criterion: &str,
    how: Option<&str>,
    caseless: bool,
    values: &[String],
) -> Option<Test> {
    if let Some(test) = certificate(criterion, how, caseless, values) {
        return Some(test);
    }
    let (sample, converters) = match criterion.split_once(',') {
        Some((sample, converters)) => (sample, converters),
        None => (criterion, ""),
    };
    let caseless = match converters {
        "" | "url_dec" => caseless,
        "lower" | "upper" => true,
        _ => return None,
    };
    let (kind, argument) = match sample.split_once('(') {
        Some((kind, rest)) => (kind, rest.strip_suffix(')')?),
        None => (sample, ""),
    };
    let kind = kind.strip_prefix("req.").unwrap_or(kind);
    let kind = kind.strip_prefix("req_").unwrap_or(kind);
    // `hdr_beg` is `hdr -m beg`.
    let (base, suffix) = match kind.rsplit_once('_') {
        Some((base, how)) if METHODS.contains(&how) => (base, Some(how)),
        _ => (kind, None),
    };
    let how = how.or(suffix).unwrap_or("str");
    if argument.contains([',', '{', '}']) {
        return None;
    }
    let named = |kind: &str| (!argument.is_empty()).then(|| format!("{{{kind}:{argument}}}"));
    let (of, list) = match base {
        "hdr" | "hdrs" => (named("header")?, true),
        "fhdr" => (named("header")?, false),
        "hdr_cnt" | "fhdr_cnt" => return counted(&named("header")?, values),
        "cook" | "cookie" => (named("cookie")?, false),
        "cook_cnt" => return counted(&named("cookie")?, values),
        "url_param" | "urlp" => (named("query")?, false),
        "query" => ("{query}".to_owned(), false),
        "url" | "pathq" => ("{uri}".to_owned(), false),
        "base" => ("{host}{path}".to_owned(), false),
        "method" => ("{method}".to_owned(), false),
        "ssl_fc_alpn" => return protocol(how, values),
        "dst_port" => return port(values),
        _ => return None,
    };
    let pattern = pattern_of(how, caseless, list, values)?;
    Some(Test::Value { of, pattern })
}

/// What the client's certificate says; only good ones are let in.
fn certificate(
    criterion: &str,
    how: Option<&str>,
    caseless: bool,
    values: &[String],
) -> Option<Test> {
    let value = |of: &str, pattern: &str| Test::Value {
        of: of.to_owned(),
        pattern: pattern.to_owned(),
    };
    let words: Vec<_> = values.iter().map(String::as_str).collect();
    match (criterion, words.as_slice()) {
        ("ssl_c_used" | "ssl_fc_has_crt", [] | ["1" | "true"]) => {
            Some(value("{client_fingerprint}", "."))
        }
        ("ssl_c_used" | "ssl_fc_has_crt", ["0" | "false"]) => {
            Some(value("{client_fingerprint}", "^$"))
        }
        ("ssl_c_verify", ["0"] | ["eq", "0"]) => Some(Test::Always),
        ("ssl_c_verify", ["gt", "0"]) => Some(Test::Never),
        ("ssl_c_s_dn(cn)" | "ssl_c_s_dn(CN)", _) => {
            let pattern = pattern_of(how.unwrap_or("str"), caseless, false, values)?;
            Some(value("{client_common_name}", &pattern))
        }
        _ => None,
    }
}

/// The port that a connection came in at is one of these.
fn port(values: &[String]) -> Option<Test> {
    let values: Vec<_> = (values.iter()).filter(|value| *value != "eq").collect();
    let is_number = |value: &&String| value.bytes().all(|byte| byte.is_ascii_digit());
    (!values.is_empty() && values.iter().all(is_number)).then(|| Test::Value {
        of: "{local_port}".to_owned(),
        pattern: format!(
            "^(?:{})$",
            values.into_iter().cloned().collect::<Vec<_>>().join("|")
        ),
    })
}

/// What was agreed on by ALPN, as what requests speak.
fn protocol(how: &str, values: &[String]) -> Option<Test> {
    let spoken = values.iter().map(|value| match value.as_str() {
        "h2" => Some("HTTP/2"),
        "http/1.1" => Some("HTTP/1"),
        _ => None,
    });
    let spoken = spoken.collect::<Option<Vec<_>>>()?.join("|");
    (how == "str" && !spoken.is_empty()).then(|| Test::Value {
        of: "{scheme} {protocol}".to_owned(),
        pattern: format!("^https (?:{spoken})"),
    })
}

/// What is there by a name of its own.
pub(super) fn predefined(name: &str) -> Option<Test> {
    let method = |pattern: &str| Test::Value {
        of: "{method}".to_owned(),
        pattern: format!("^{pattern}$"),
    };
    Some(match name {
        // HEAD is taken for one.
        "METH_GET" => method("(?:GET|HEAD)"),
        "METH_CONNECT" | "METH_DELETE" | "METH_HEAD" | "METH_OPTIONS" | "METH_POST"
        | "METH_PUT" | "METH_TRACE" => method(name.trim_start_matches("METH_")),
        "HTTP_1.0" => Test::Value {
            of: "{protocol}".to_owned(),
            pattern: "^HTTP/1[.]0$".to_owned(),
        },
        "HTTP_CONTENT" => Test::Value {
            of: "{header:Content-Length}".to_owned(),
            pattern: "[1-9]".to_owned(),
        },
        "LOCALHOST" => Test::Client(vec!["127.0.0.0/8".to_owned()]),
        _ => return None,
    })
}

/// The ways to match that may end a criterion's name.
const METHODS: [&str; 8] = ["str", "beg", "end", "sub", "dir", "dom", "reg", "len"];

/// One expression for any of some values. `list`: the value is a list, of which each is looked at.
pub(super) fn pattern_of(
    how: &str,
    caseless: bool,
    list: bool,
    values: &[String],
) -> Option<String> {
    let prefix = if caseless { "(?i)" } else { "" };
    let (begin, end) = match list {
        true => ("(?:^|,)[ \\t]*", "[ \\t]*(?:,|$)"),
        false => ("^", "$"),
    };
    if how == "found" {
        return values.is_empty().then(|| ".".to_owned());
    }
    if how == "reg" {
        let each = values
            .iter()
            .map(|value| pattern::convert(value, caseless, false).ok());
        return Some(formula::any(&each.collect::<Option<Vec<_>>>()?));
    }
    // Where a part begins and ends is not a part of it.
    let bounds: &[char] = match how {
        "dir" => &['/', '?'],
        "dom" => &['/', '?', ':', '.'],
        _ => &[],
    };
    let each = values.iter().map(|value| value.trim_matches(bounds));
    let each: Vec<_> = each.map(regex::escape).collect();
    let body = match each.as_slice() {
        [] => return None,
        [one] => one.clone(),
        several => format!("(?:{})", several.join("|")),
    };
    Some(match how {
        "str" => format!("{prefix}{begin}{body}{end}"),
        "beg" => format!("{prefix}{begin}{body}"),
        "end" => format!("{prefix}{body}{end}"),
        "sub" => format!("{prefix}{body}"),
        "dir" => format!("{prefix}(?:^|[/?]){body}(?:[/?]|$)"),
        "dom" => format!("{prefix}(?:^|[/?:.]){body}(?:[/?:.]|$)"),
        _ => return None,
    })
}

/// How many there are: none, or some.
fn counted(of: &str, values: &[String]) -> Option<Test> {
    let words: Vec<_> = values.iter().map(String::as_str).collect();
    let pattern = match words.as_slice() {
        ["0"] | ["eq", "0"] | ["lt", "1"] => "^$",
        ["gt", "0"] | ["ge", "1"] => ".",
        _ => return None,
    };
    Some(Test::Value {
        of: of.to_owned(),
        pattern: pattern.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_values_and_expressions() {
        let values = ["a.b".to_owned()];
        for (criterion, how, caseless, expected) in [
            (
                "req.hdr(X-A)",
                None,
                false,
                r"{header:X-A} (?:^|,)[ \t]*a\.b[ \t]*(?:,|$)",
            ),
            ("req.fhdr(X-A)", None, false, r"{header:X-A} ^a\.b$"),
            (
                "hdr_sub(user-agent)",
                None,
                true,
                r"{header:user-agent} (?i)a\.b",
            ),
            ("cook(id)", Some("beg"), false, r"{cookie:id} ^a\.b"),
            ("urlp(x)", Some("reg"), false, "{query:x} a.b"),
            (
                "url_param(x),url_dec",
                Some("end"),
                false,
                r"{query:x} a\.b$",
            ),
            ("base_beg", None, false, r"{host}{path} ^a\.b"),
            ("method", None, false, r"{method} ^a\.b$"),
            ("hdr(a,1)", None, false, ""),
            ("hdr(a),word(1)", None, false, ""),
            ("hdr_len(a)", None, false, ""),
            ("var(txn.a)", None, false, ""),
        ] {
            let found = match test(criterion, how, caseless, &values) {
                Some(Test::Value { of, pattern }) => format!("{of} {pattern}"),
                _ => String::new(),
            };
            assert_eq!(found, expected, "{criterion}");
        }
    }
}
