//! Reading cases.

use crate::support::HOST;

/// What is done or expected, in the order of the file.
#[derive(Debug)]
pub enum Step {
    /// The client sends this.
    Client(Vec<u8>),
    /// The client must get this.
    Back(Vec<u8>),
    /// The upstream must get this.
    Upstream(Vec<u8>),
    /// The upstream may get this, or a part of it, or data behind it, but never a whole request.
    Cut(Vec<u8>),
    /// The upstream sends this, and closes or not.
    Reply(Vec<u8>, bool),
    /// The client sends this as the head of a stream, and data behind it.
    H2(Vec<(Vec<u8>, Vec<u8>)>, Option<Vec<u8>>),
    /// The client ends the stream with these trailers.
    H2Trailers(Vec<(Vec<u8>, Vec<u8>)>),
    /// One of these must come of the stream: `400`, `reset`, `goaway`.
    H2Back(Vec<String>),
}

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It carries another request.
    Open,
    /// It is closed in order.
    Closed,
    /// It is broken off, so that nothing can be taken for whole.
    Cut,
}

#[derive(Debug)]
pub struct Case {
    pub file: String,
    pub title: String,
    pub rfc: String,
    pub steps: Vec<Step>,
    pub then: Then,
}

impl Case {
    pub fn is_h2(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::H2(..)))
    }
}

/// The name of a site of the file's own and its lines in the configuration, where it has one: what
/// stands above the cases behind a bar.
pub fn site(file: &str, text: &str) -> Option<(String, String)> {
    let above = text.lines().take_while(|line| !line.starts_with("=== "));
    let lines: Vec<_> = above.filter_map(|line| line.strip_prefix("| ")).collect();
    let name = format!("{}.test", file.trim_end_matches(".case"));
    (!lines.is_empty()).then(|| (name, lines.join("\n") + "\n"))
}

/// Reads the cases of a file. One that is not well written ends the test.
pub fn read(file: &str, text: &str) -> Vec<Case> {
    let mut cases: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("=== "), cases.last_mut()) {
            (Some(title), _) => cases.push((title, Vec::new())),
            (None, Some((_, lines))) => lines.push(line),
            (None, None) => {} // what the file is about
        }
    }
    let one = |(title, lines): &(&str, Vec<&str>)| one(file, title, lines);
    cases.iter().map(one).collect()
}

fn one(file: &str, title: &str, lines: &[&str]) -> Case {
    let mut rfc = String::new();
    let mut then = Then::Open;
    let mut steps = Vec::new();
    let mut section: Option<(&str, Vec<&str>)> = None;
    for line in lines.iter().copied().chain(["---"]) {
        if let Some(next) = line.strip_prefix("---") {
            if let Some((name, mut lines)) = section.replace((next.trim(), Vec::new())) {
                // An empty line before the next section or case is for the eye.
                if lines.last().is_some_and(|line| line.is_empty()) {
                    lines.pop();
                }
                steps.push(step(file, title, name, &lines));
            }
        } else if let Some((_, lines)) = &mut section {
            lines.push(line);
        } else if let Some(value) = line.strip_prefix("rfc: ") {
            value.clone_into(&mut rfc);
        } else if let Some(value) = line.strip_prefix("then: ") {
            then = match value {
                "open" => Then::Open,
                "closed" => Then::Closed,
                "cut" => Then::Cut,
                _ => panic!("{file}: {title}: then: {value}"),
            };
        } else {
            assert!(
                line.is_empty() || line.starts_with('#'),
                "{file}: {title}: {line}"
            );
        }
    }
    assert!(
        !rfc.is_empty(),
        "{file}: {title}: names no section of an RFC"
    );
    let (file, title) = (file.to_owned(), title.to_owned());
    Case {
        file,
        title,
        rfc,
        steps,
        then,
    }
}

fn step(file: &str, title: &str, name: &str, lines: &[&str]) -> Step {
    match name {
        "client" => Step::Client(bytes(lines)),
        "back" => Step::Back(bytes(lines)),
        "upstream" => Step::Upstream(bytes(lines)),
        "upstream, cut" => Step::Cut(bytes(lines)),
        "reply" => Step::Reply(bytes(lines), false),
        "reply, close" => Step::Reply(bytes(lines), true),
        "h2" => {
            let end = lines.iter().position(|line| line.is_empty());
            let (head, body) = lines.split_at(end.unwrap_or(lines.len()));
            Step::H2(fields(head), end.map(|_| bytes(&body[1..])))
        }
        "h2 trailers" => Step::H2Trailers(fields(lines)),
        "h2 back" => Step::H2Back(
            lines
                .join(" ")
                .split_whitespace()
                .map(str::to_owned)
                .collect(),
        ),
        _ => panic!("{file}: {title}: --- {name}"),
    }
}

fn fields(lines: &[&str]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let split = |line: &&str| {
        let colon = line[1..].find(':').unwrap() + 1;
        let (name, value) = line.split_at(colon);
        let value = value[1..].strip_prefix(' ').unwrap_or_else(|| &value[1..]);
        (unescape(name), unescape(value))
    };
    lines.iter().map(split).collect()
}

/// Lines end with CR LF, unless a backslash is their last character.
fn bytes(lines: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in lines {
        if *line == "{added}" {
            out.extend_from_slice(super::ADDED.as_bytes());
            out.extend_from_slice(b"Via: 1.1 staunch\r\n");
        } else if let Some(host) = line.strip_prefix("{added for ") {
            let host = host.trim_end_matches('}');
            out.extend_from_slice(super::ADDED.replace(HOST, host).as_bytes());
            out.extend_from_slice(b"Via: 1.1 staunch\r\n");
        } else if *line == "{added h2}" {
            out.extend_from_slice(super::ADDED.as_bytes());
            out.extend_from_slice(b"Via: 2.0 staunch\r\n");
        } else if let Some(refused) = line.strip_prefix("{refused ") {
            out.extend_from_slice(&page(
                refused.trim_end_matches('}'),
                "Connection: close\r\n",
            ));
        } else if let Some(answered) = line.strip_prefix("{answered ") {
            out.extend_from_slice(&page(answered.trim_end_matches('}'), ""));
        } else if let Some((text, times)) = line.split_once("{times ") {
            let times: usize = times.trim_end_matches('}').parse().unwrap();
            out.extend_from_slice(&unescape(text).repeat(times));
        } else if let Some(open) = line.strip_suffix('\\') {
            out.extend_from_slice(&unescape(open));
        } else {
            out.extend_from_slice(&unescape(line));
            out.extend_from_slice(b"\r\n");
        }
    }
    out
}

/// A page of staunch's own.
fn page(status: &str, connection: &str) -> Vec<u8> {
    let allow = match &status[..3] {
        "405" => "Allow: GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS\r\n",
        _ => "",
    };
    let length = status.len() + 1;
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nDate: {{date}}\r\n{allow}{connection}\r\n{status}\n"
    )
    .into_bytes()
}

fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let (byte, length) = match rest {
            [b'r', ..] => (b'\r', 1),
            [b'n', ..] => (b'\n', 1),
            [b't', ..] => (b'\t', 1),
            [b'0', ..] => (0, 1),
            [b's', ..] => (b' ', 1),
            [b'\\', ..] => (b'\\', 1),
            [b'x', high, low, ..] => {
                let digits = [*high, *low];
                let digits = std::str::from_utf8(&digits).unwrap();
                (u8::from_str_radix(digits, 16).unwrap(), 3)
            }
            _ => panic!("an escape in {text:?}"),
        };
        out.push(byte);
        rest = &rest[length..];
    }
    out
}
