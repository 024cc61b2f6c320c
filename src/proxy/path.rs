//! Paths, as an upstream would read them (RFC 3986, sections 3.3 and 5.2.4), so that no rule can be
//! walked around by `/a/../b` or `%61`.

use std::borrow::Cow;

use smallvec::SmallVec;

/// Percent-decodes, merges slashes and removes dot segments; `None` when the path leaves the root, or
/// has a NUL in it, where a server may see its end.
/// For comparison only: what is forwarded is what the client sent.
pub fn normalise(path: &[u8]) -> Option<Cow<'_, [u8]>> {
    rebuild(path, true)
}

/// The same, with what is percent-encoded left as the client wrote it.
pub fn clean(path: &[u8]) -> Option<Cow<'_, [u8]>> {
    rebuild(path, false)
}

/// What else a path may be to an upstream: servers of the Java world take what follows a `;` in a
/// segment for a parameter of it (RFC 3986, section 3.3), those of the Windows world a backslash for
/// a slash. None for nearly all paths.
pub fn other_readings(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let parameters = memchr::memchr(b';', path).is_some();
    let backslashes = backslash(path).is_some();
    [(true, false), (false, true), (true, true)]
        .into_iter()
        .filter(move |&(without, turned)| (!without || parameters) && (!turned || backslashes))
        .map(|(without, turned)| {
            let path = if turned { turn(path) } else { path.to_vec() };
            if without { strip(&path) } else { path }
        })
}

/// Where the first backslash is, and how long it is written.
fn backslash(path: &[u8]) -> Option<(usize, usize)> {
    memchr::memchr2_iter(b'\\', b'%', path).find_map(|at| match path[at..] {
        [b'\\', ..] => Some((at, 1)),
        [b'%', b'5', b'C' | b'c', ..] => Some((at, 3)),
        _ => None,
    })
}

/// Slashes for backslashes.
fn turn(mut path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    while let Some((at, length)) = backslash(path) {
        out.extend_from_slice(&path[..at]);
        out.push(b'/');
        path = &path[at + length..];
    }
    out.extend_from_slice(path);
    out
}

/// No parameters.
fn strip(path: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(path.len());
    for (slash, segment) in segments(path) {
        let end = memchr::memchr(b';', segment).unwrap_or(segment.len());
        out.extend_from_slice(slash);
        out.extend_from_slice(&segment[..end]);
    }
    out
}

/// A text that a path may begin with, as paths are compared: its last segment goes on, so that a dot
/// in it is no step elsewhere.
pub fn beginning(text: &[u8]) -> Option<Vec<u8>> {
    let (whole, open) = text.split_at(memchr::memrchr(b'/', text)? + 1);
    let mut path = normalise(whole)?.into_owned();
    path.extend_from_slice(&decode(open));
    Some(path)
}

/// What follows the first bytes of a path that is [`clean`]; of one that is percent-encoded each
/// counts once.
pub fn after(path: &[u8], length: usize) -> &[u8] {
    let mut at = 0;
    for _ in 0..length {
        at += match path.get(at) {
            Some(b'%') if decode(&path[at..path.len().min(at + 3)]).len() == 1 => 3,
            Some(_) => 1,
            None => return b"",
        };
    }
    &path[at..]
}

/// Whether a path has a segment that an upstream could take for a step elsewhere.
pub fn has_dots(path: &[u8]) -> bool {
    segments(path).any(|(_, segment)| matches!(&*decode(segment), b"." | b".."))
}

fn rebuild(path: &[u8], decoded: bool) -> Option<Cow<'_, [u8]>> {
    let plain = memchr::memchr(b'%', path).is_none()
        && memchr::memmem::find(path, b"/.").is_none()
        && memchr::memmem::find(path, b"//").is_none();
    if plain {
        return Some(Cow::Borrowed(path));
    }
    let mut kept: SmallVec<[(&[u8], &[u8]); 16]> = SmallVec::new();
    let mut ends_open = false;
    for (slash, segment) in segments(path) {
        let text = decode(segment);
        if text.contains(&0) {
            return None;
        }
        ends_open = matches!(&*text, b"" | b"." | b"..");
        match &*text {
            b"" | b"." => {}
            b".." => {
                kept.pop()?;
            }
            _ => kept.push((slash, segment)),
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for (slash, segment) in kept {
        match decoded {
            true => {
                out.push(b'/');
                out.extend_from_slice(&decode(segment));
            }
            false => {
                out.extend_from_slice(if out.is_empty() { b"/" } else { slash });
                out.extend_from_slice(segment);
            }
        }
    }
    if ends_open {
        out.push(b'/');
    }
    Some(Cow::Owned(out))
}

/// Where the slashes are and how long each is: one that is percent-encoded is one too.
fn slashes(path: &[u8]) -> impl Iterator<Item = (usize, usize)> {
    memchr::memchr2_iter(b'/', b'%', path).filter_map(|at| match path[at..] {
        [b'/', ..] => Some((at, 1)),
        [b'%', b'2', b'F' | b'f', ..] => Some((at, 3)),
        _ => None,
    })
}

/// Each segment, with the slash before it, as both are written. The first has none.
fn segments(path: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut begin = (0, 0);
    let end = (path.len(), 0);
    slashes(path).chain([end]).map(move |(at, length)| {
        let (before, slash) = std::mem::replace(&mut begin, (at, length));
        let from = before + slash;
        (&path[before..from], &path[from..at])
    })
}

/// Percent-decodes. What is not well encoded stays as it is.
pub fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', text).is_none() {
        return Cow::Borrowed(text);
    }
    let digit = |byte: Option<&u8>| byte.and_then(|&byte| (byte as char).to_digit(16));
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, digit(text.get(at + 1)), digit(text.get(at + 2))) {
            #[allow(clippy::cast_possible_truncation)] // two hexadecimal digits
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 3;
            }
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::is_below;

    fn text(path: Option<Cow<'_, [u8]>>) -> Option<String> {
        path.map(|path| String::from_utf8_lossy(&path).into_owned())
    }

    #[test]
    fn a_path_may_be_others_too() {
        for (path, readings) in [
            ("/a/b?", &[][..]),
            ("/a%20b", &[]),
            ("/admin;a=1/x;b", &["/admin/x"]),
            ("/..;/x", &["/../x"]),
            (r"/a\b%5cc%5C", &["/a/b/c/"]),
            (r"/a;x\b", &["/a", "/a;x/b", "/a/b"]),
        ] {
            let found: Vec<_> = other_readings(path.as_bytes())
                .map(|reading| String::from_utf8(reading).unwrap())
                .collect();
            assert_eq!(found, readings, "{path}");
        }
    }

    #[test]
    fn paths_are_compared_as_an_upstream_would_read_them() {
        for (path, normal, cleaned) in [
            ("/", Some("/"), Some("/")),
            ("/a/b", Some("/a/b"), Some("/a/b")),
            ("/a/./b", Some("/a/b"), Some("/a/b")),
            ("/a/../b", Some("/b"), Some("/b")),
            ("//a//b/", Some("/a/b/"), Some("/a/b/")),
            ("/%61pi/", Some("/api/"), Some("/%61pi/")),
            ("/a/%2e%2E/b", Some("/b"), Some("/b")),
            ("/a/%2fb", Some("/a/b"), Some("/a%2fb")),
            ("/%2Fa", Some("/a"), Some("/a")),
            ("/a%2F..%2Fb", Some("/b"), Some("/b")),
            ("/a/..", Some("/"), Some("/")),
            ("/..", None, None),
            ("/a%00b", None, None),
            ("/a%2500b", Some("/a%00b"), Some("/a%2500b")),
            ("/a/../../b", None, None),
            ("/100%", Some("/100%"), Some("/100%")),
            ("/%zz", Some("/%zz"), Some("/%zz")),
            ("/%252e%252e/", Some("/%2e%2e/"), Some("/%252e%252e/")),
        ] {
            assert_eq!(
                text(normalise(path.as_bytes())).as_deref(),
                normal,
                "{path}"
            );
            assert_eq!(text(clean(path.as_bytes())).as_deref(), cleaned, "{path}");
        }
    }

    #[test]
    fn what_follows_a_prefix_is_as_the_client_wrote_it() {
        for (prefix, path, expected) in [
            ("/", "/a%20b", "a%20b"),
            ("/old/", "/old/x%2Fy", "x%2Fy"),
            ("/old/", "//old//x/", "x/"),
            ("/old/", "/%6fld%2Fx", "x"),
            ("/old/", "/a/../old/x", "x"),
            ("/old", "/old", ""),
            ("/old", "/old/", "/"),
            ("/old", "/old/x", "/x"),
            ("/old/", "/old//evil.test", "evil.test"),
            ("/old", "/oldest/x", "est/x"),
            ("/old", "/%6f%6C%64%65st", "%65st"),
            ("/100%", "/100%25%zz", "%zz"),
        ] {
            let path = clean(path.as_bytes()).unwrap();
            let rest = String::from_utf8_lossy(after(&path, prefix.len()));
            assert_eq!(rest, expected, "{prefix}");
        }
    }

    #[test]
    fn a_beginning_is_read_up_to_its_open_end() {
        for (text, expected) in [
            ("/", Some("/")),
            ("/api", Some("/api")),
            ("/a/../b.", Some("/b.")),
            ("/.", Some("/.")),
            ("/a/..", Some("/a/..")),
            ("/caf%C3%A9", Some("/caf\u{e9}")),
            ("/../a", None),
        ] {
            let found = beginning(text.as_bytes()).map(|text| String::from_utf8(text).unwrap());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_clean_reads_as_the_whole_did(path in "/[a./%2fFeE]{0,24}") {
            let (normal, cleaned) = (normalise(path.as_bytes()), clean(path.as_bytes()));
            prop_assert_eq!(normal.is_some(), cleaned.is_some());
            if let (Some(normal), Some(cleaned)) = (normal, cleaned) {
                prop_assert_eq!(normalise(&cleaned).unwrap(), normal.clone());
                prop_assert!(!cleaned.starts_with(b"//"));
                prop_assert!(!has_dots(&cleaned));
                if is_below(b"/a/", &normal) {
                    let rest = after(&cleaned, 3);
                    prop_assert_eq!(&*decode(rest), &normal[3..]);
                }
            }
        }
    }
}
