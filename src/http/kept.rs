//! Responses that are kept in files as they would be sent, head and all: HAProxy's error pages.

/// What is in such a file. Without a head of HTTP/1 in front, all of it is the body.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept<'t> {
    /// The status that the head names.
    pub status: Option<u16>,
    /// What the head says of the body.
    pub content_type: Option<&'t str>,
    /// Whether there is a head.
    pub has_head: bool,
    /// What is behind it.
    pub body: &'t [u8],
}

impl<'t> Kept<'t> {
    /// Takes it apart.
    pub fn read(text: &'t [u8]) -> Self {
        let Some((head, body)) = parts(text) else {
            return Self {
                body: text,
                ..Self::default()
            };
        };
        let mut lines = head.split(|&byte| byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let status = first.split(|&byte| byte == b' ').nth(1);
        let content_type = lines.find_map(|line| {
            let (name, value) = line.split_at(memchr::memchr(b':', line)?);
            let value = str::from_utf8(value[1..].trim_ascii()).ok()?;
            name.eq_ignore_ascii_case(b"Content-Type").then_some(value)
        });
        Self {
            status: status
                .and_then(|status| str::from_utf8(status.trim_ascii()).ok()?.parse().ok()),
            content_type: content_type.filter(|value| !value.contains(char::is_control)),
            has_head: true,
            body,
        }
    }
}

/// Head and body, where there is a head.
fn parts(text: &[u8]) -> Option<(&[u8], &[u8])> {
    text.strip_prefix(b"HTTP/1.")?;
    let end = |sign: &[u8]| memchr::memmem::find(text, sign).map(|at| (at, at + sign.len()));
    let (head, body) = end(b"\r\n\r\n").or_else(|| end(b"\n\n"))?;
    Some((&text[..head], &text[body..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_told_from_a_body() {
        let with = |status, content_type, body| Kept {
            status,
            content_type,
            has_head: true,
            body,
        };
        let without = |body| Kept {
            body,
            ..Kept::default()
        };
        for (text, expected) in [
            ("<p>", without(&b"<p>"[..])),
            ("HTTP/1.1 is old", without(b"HTTP/1.1 is old")),
            (
                "HTTP/1.0 503 No\r\nX: y\r\ncontent-type: text/plain\r\n\r\nno\r\n\r\nnever",
                with(Some(503), Some("text/plain"), b"no\r\n\r\nnever"),
            ),
            ("HTTP/1.1 503 No\n\nno", with(Some(503), None, b"no")),
            ("HTTP/1.1\r\n\r\n", with(None, None, b"")),
            (
                "HTTP/1.1 200\r\nContent-Type: a\x07b\r\n\r\n",
                with(Some(200), None, b""),
            ),
        ] {
            assert_eq!(Kept::read(text.as_bytes()), expected, "{text}");
        }
    }
}
