//! Cookies that servers set, as clients get them (RFC 6265, section 4.1).

use crate::config::Cookies;
use crate::http::ResponseHead;

const NAME: &[u8] = b"Set-Cookie";

/// Changes those of a response.
pub(super) fn rewrite(cookies: &Cookies, response: &mut ResponseHead) {
    let written: Vec<_> = (response.fields.iter())
        .filter(|(_, name, _)| name.eq_ignore_ascii_case(NAME))
        .map(|(.., value)| one(cookies, value))
        .collect();
    if written.is_empty() {
        return;
    }
    response.fields.remove_named(NAME);
    for value in written {
        response.fields.push(NAME, &value);
    }
}

fn one(cookies: &Cookies, value: &[u8]) -> Vec<u8> {
    let same_site = cookies.same_site.as_deref().filter(|word| !word.is_empty());
    let (mut secure, mut http_only) = (cookies.secure, cookies.http_only);
    let mut parts = value.split(|byte| *byte == b';');
    let mut out = parts.next().unwrap_or_default().to_vec();
    for part in parts {
        let attribute = part.trim_ascii();
        let (name, given) = match attribute.iter().position(|byte| *byte == b'=') {
            Some(at) => (
                attribute[..at].trim_ascii(),
                attribute[at + 1..].trim_ascii(),
            ),
            None => (attribute, &b""[..]),
        };
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("SameSite") && same_site.is_some() {
            continue;
        }
        out.extend_from_slice(b"; ");
        if is("Secure") {
            secure = None;
        } else if is("HttpOnly") {
            http_only = None;
        }
        let paths = cookies.paths.as_deref().unwrap_or_default();
        let domains = cookies.domains.as_deref().unwrap_or_default();
        let path = (paths.iter().filter(|_| is("Path")))
            .find_map(|(from, to)| Some((to, given.strip_prefix(from.as_bytes())?)));
        // A dot before it says nothing.
        let bare = given.strip_prefix(b".").unwrap_or(given);
        let domain = (domains.iter().filter(|_| is("Domain"))).find(|(from, _)| {
            let from = from.strip_prefix('.').unwrap_or(from);
            bare.eq_ignore_ascii_case(from.as_bytes())
        });
        match (path, domain) {
            (Some((to, rest)), _) => {
                out.extend_from_slice(b"Path=");
                out.extend_from_slice(to.as_bytes());
                // The slash that both have.
                let both = to.ends_with('/') && rest.starts_with(b"/");
                out.extend_from_slice(&rest[usize::from(both)..]);
            }
            (None, Some((_, to))) if to.is_empty() => out.truncate(out.len() - 2),
            (None, Some((_, to))) => {
                out.extend_from_slice(b"Domain=");
                out.extend_from_slice(to.as_bytes());
            }
            (None, None) => out.extend_from_slice(attribute),
        }
    }
    if secure == Some(true) {
        out.extend_from_slice(b"; Secure");
    }
    if http_only == Some(true) {
        out.extend_from_slice(b"; HttpOnly");
    }
    if let Some(word) = same_site {
        out.extend_from_slice(b"; SameSite=");
        out.extend_from_slice(word.as_bytes());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_changed_and_the_rest_stays() {
        let pair = |from: &str, to: &str| (from.into(), to.into());
        let cookies = Cookies {
            secure: Some(true),
            http_only: Some(true),
            same_site: Some("Lax".into()),
            paths: Some(vec![pair("/app/x/", "/y/"), pair("/app", "/")]),
            domains: Some(vec![
                pair("app.internal", "example.com"),
                pair("gone.test", ""),
            ]),
        };
        let all = "; Secure; HttpOnly; SameSite=Lax";
        for (value, expected) in [
            ("a=b", format!("a=b{all}")),
            ("a=b; Path=/app/z", format!("a=b; Path=/z{all}")),
            ("a=b;path=/app/x/z", format!("a=b; Path=/y/z{all}")),
            ("a=b; Path=/other", format!("a=b; Path=/other{all}")),
            (
                "a=b; Domain=.App.Internal; Max-Age=1",
                format!("a=b; Domain=example.com; Max-Age=1{all}"),
            ),
            ("a=b; Domain=gone.test; Path=/", format!("a=b; Path=/{all}")),
            (
                "a=b; HttpOnly; SameSite=None; secure",
                "a=b; HttpOnly; secure; SameSite=Lax".to_owned(),
            ),
            ("a=; ; b", format!("a=; ; b{all}")),
        ] {
            let written = String::from_utf8(one(&cookies, value.as_bytes())).unwrap();
            assert_eq!(written, expected, "{value}");
        }
        let nothing = Cookies::default();
        let value = b"a=b; Path=/; Secure; SameSite=None";
        assert_eq!(one(&nothing, value), value);
    }
}
