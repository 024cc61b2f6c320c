//! Where a client is sent, and what an upstream is asked for.

use super::value::Known;
use crate::config::{Piece, Rewrite, Template, Variable};
use crate::proxy::error::Refusal;
use crate::proxy::path;

/// The URL to redirect to. The configuration lets nothing stand for its host but what cannot lead
/// elsewhere; what a client says of that is checked here.
pub fn location(template: &Template, known: &Known<'_>) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::with_capacity(128);
    let mut in_host = is_absolute(template);
    for (at, piece) in template.pieces().iter().enumerate() {
        let begin = out.len();
        match piece {
            Piece::Text(text) => {
                out.extend_from_slice(text.as_bytes());
                let scheme = match at {
                    0 => text.find("://").map_or(0, |end| end + 3),
                    1 if text.starts_with("://") => 3,
                    _ => 0,
                };
                in_host &= !text[scheme..].contains(['/', '?', '#']);
            }
            Piece::Variable(variable) => {
                known.append_url(variable, &mut out);
                let label = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._".contains(byte);
                let value = &out[begin..];
                if in_host
                    && matches!(variable, Variable::Capture(_))
                    && (value.is_empty() || !value.iter().all(label))
                {
                    return Err(Refusal::Path);
                }
                in_host &= !matches!(variable, Variable::Path | Variable::Uri);
            }
        }
    }
    at_root(&mut out);
    without_query(&mut out, known);
    Ok(out)
}

/// Takes away what would stand before the query of a request that has none.
fn without_query(out: &mut Vec<u8>, known: &Known<'_>) {
    let none = known.head.query().is_none_or(|query| query.is_empty());
    if out.ends_with(b"?") || none && out.ends_with(b"&") {
        out.pop();
    }
}

fn is_absolute(template: &Template) -> bool {
    match template.pieces() {
        [Piece::Text(text), ..] => !text.starts_with('/'),
        [Piece::Variable(Variable::Scheme), ..] => true,
        _ => false,
    }
}

/// The path and query to ask the upstream for.
pub fn rewritten(rewrite: &Rewrite, known: &Known<'_>) -> Result<Vec<u8>, Refusal> {
    let mut out = Vec::with_capacity(128);
    match rewrite {
        Rewrite::Prefix(prefix) | Rewrite::Start(prefix) => {
            let rest = &known.marks.rest[..];
            let (tail, query) = rest.split_at(memchr::memchr(b'?', rest).unwrap_or(rest.len()));
            out.extend_from_slice(prefix.as_bytes());
            if tail.starts_with(b"/") || !tail.is_empty() && matches!(rewrite, Rewrite::Prefix(_)) {
                let kept = out.len() - usize::from(out.ends_with(b"/"));
                out.truncate(kept);
                out.push(b'/');
                out.extend_from_slice(tail.strip_prefix(b"/").unwrap_or(tail));
            } else {
                out.extend_from_slice(tail);
            }
            out.extend_from_slice(query);
        }
        Rewrite::Path(template) => {
            for piece in template.pieces() {
                match piece {
                    Piece::Text(text) => out.extend_from_slice(text.as_bytes()),
                    Piece::Variable(variable) => known.append_url(variable, &mut out),
                }
            }
            match memchr::memchr(b'?', &out) {
                // A question mark at the end takes the query away.
                Some(at) if at + 1 == out.len() => out.truncate(at),
                Some(_) => without_query(&mut out, known),
                None => {
                    if let Some(query) = known.head.query() {
                        out.push(b'?');
                        out.extend_from_slice(query);
                    }
                }
            }
        }
    }
    at_root(&mut out);
    let end = memchr::memchr(b'?', &out).unwrap_or(out.len());
    // Put together from parts that had none.
    match path::has_dots(&out[..end]) {
        true => Err(Refusal::Path),
        false => Ok(out),
    }
}

/// Where it begins with several slashes, leaves one: the second would begin a host (RFC 3986,
/// section 4.2), and whoever asks could choose it.
fn at_root(target: &mut Vec<u8>) {
    let slashes = target.iter().take_while(|&&byte| byte == b'/').count();
    target.drain(..slashes.saturating_sub(1));
}

#[cfg(test)]
mod tests {
    use super::super::Marks;
    use super::super::value::tests::peer;
    use super::*;
    use crate::config::{self, Action};
    use crate::http::parse;

    fn action(lines: &str) -> Action {
        let file =
            format!("[[site]]\nnames=['a.test']\nupstream='http://u'\n[[site.route]]\n{lines}");
        let config = config::parse(&file, std::path::Path::new("/s.toml")).unwrap();
        config.sites[0].routes[0].action.clone()
    }

    /// Where a request for `target` goes, with this rest and these groups.
    fn goes(lines: &str, target: &str, rest: &str, groups: &[&str]) -> Result<String, Refusal> {
        let head = format!("GET {target} HTTP/1.1\r\nHost: A.test:8443\r\nX: ../a?b#c\\d\r\n\r\n");
        let head = parse::complete(parse::request(head.as_bytes(), 100)).unwrap();
        let peer = peer();
        let groups: Vec<_> = groups
            .iter()
            .map(|group| group.as_bytes().to_vec())
            .collect();
        let marks = match groups.is_empty() {
            true => Marks::of_rest(rest.into()),
            false => Marks::of_groups(groups),
        };
        let known = Known {
            peer: &peer,
            identity: None,
            client: peer.client.ip(),
            head: &head,
            marks: &marks,
        };
        let out = match action(lines) {
            Action::Redirect { location: to, .. } => location(&to, &known),
            Action::Forward {
                rewrite: Some(rewrite),
                ..
            } => rewritten(&rewrite, &known),
            other => panic!("{other:?}"),
        };
        out.map(|out| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_redirect_leads_nowhere_but_where_it_says() {
        for (to, target, rest, expected) in [
            (
                "https://b.test/new/{rest}",
                "/old/x%2Fy?z",
                "x%2Fy?z",
                "https://b.test/new/x%2Fy?z",
            ),
            (
                "https://b.test{uri}",
                "//evil.test/",
                "",
                "https://b.test//evil.test/",
            ),
            (
                "https://{host}:444{path}",
                "/x?y",
                "",
                "https://a.test:444/x",
            ),
            ("{scheme}://www.{host}/", "/", "", "https://www.a.test/"),
            ("{path}", "//evil.test/%2e", "", "/evil.test/%2e"),
            ("{uri}", "///evil.test", "", "/evil.test"),
            ("/{rest}", "/", "/evil.test", "/evil.test"),
            ("/{rest}", "/", "\\evil.test", "/%5Cevil.test"),
            ("/x?to={header:X}", "/", "", "/x?to=..%2Fa%3Fb%23c%5Cd"),
            ("/#{path}", "/a", "", "/#/a"),
        ] {
            let lines = format!("path='/old/'\nredirect='{to}'");
            assert_eq!(goes(&lines, target, rest, &[]).unwrap(), expected, "{to}");
        }
    }

    #[test]
    fn a_group_in_a_host_is_a_label_or_nothing() {
        let lines = "regex='^/(?<name>.*)$'\nredirect='https://{name}.b.test/'";
        let goes = |group| goes(lines, "/", "", &[group]);
        assert_eq!(goes("www").unwrap(), "https://www.b.test/");
        for group in ["", "evil.test/", "evil.test%2F", "a@b", "a:1", "evil.test?"] {
            assert_eq!(goes(group), Err(Refusal::Path), "{group}");
        }
    }

    #[test]
    fn a_prefix_is_replaced_with_one_slash_between() {
        for (prefix, rest, expected) in [
            ("/", "x?y=z", "/x?y=z"),
            ("/", "", "/"),
            ("/", "/x", "/x"),
            ("/v2", "x", "/v2/x"),
            ("/v2/", "/x/", "/v2/x/"),
            ("/v2", "", "/v2"),
            ("/v2", "/", "/v2/"),
            ("/v2", "?y", "/v2?y"),
        ] {
            let lines = format!("path='/api/'\nreplace_prefix='{prefix}'");
            assert_eq!(
                goes(&lines, "/", rest, &[]).unwrap(),
                expected,
                "{prefix} {rest}"
            );
        }
    }

    #[test]
    fn a_path_is_written_anew_and_stays_below_the_root() {
        for (to, target, group, expected) in [
            ("/assets/{name}", "/x?y", "a%20b/c", Ok("/assets/a%20b/c?y")),
            ("/a?b={name}", "/x?y", "c", Ok("/a?b=c")),
            ("/a?", "/x?y", "", Ok("/a")),
            ("/a?{query}&c", "/x?y", "", Ok("/a?y&c")),
            ("/a?b={name}&{query}", "/x?y", "c", Ok("/a?b=c&y")),
            ("/a?b={name}&{query}", "/x", "c", Ok("/a?b=c")),
            ("/{name}", "/x", "/evil", Ok("/evil")),
            ("/a/{name}/b", "/x", "..", Err(Refusal::Path)),
            ("/a/{header:X}", "/x", "", Err(Refusal::Path)),
            ("/a/.{name}", "/x", "%2e", Err(Refusal::Path)),
        ] {
            let lines = format!("regex='^/(?<name>.*)$'\nrewrite='{to}'");
            let expected = expected.map(str::to_owned);
            assert_eq!(goes(&lines, target, "", &[group]), expected, "{to}");
        }
    }
}
