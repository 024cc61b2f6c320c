//! Values with variables in braces, read once.

use std::sync::Arc;

use super::super::diagnostic::{Complaint, quoted};
use super::super::read::Context;
use super::super::upstream::token;

/// A text with variables in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

/// A part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// As it is.
    Text(Box<str>),
    /// What this stands for.
    Variable(Variable),
}

impl Template {
    /// Its parts, in order; no two texts are beside each other, and none is empty.
    pub fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// Its variables.
    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Variable(variable) => Some(variable),
        })
    }
}

/// Something that is known of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The client's IP address.
    ClientAddress,
    /// The client's port.
    ClientPort,
    /// The host that the client asks for, in lower case and without port.
    Host,
    /// The port that the client asks for.
    Port,
    /// The port of the listener that the connection came in at.
    LocalPort,
    /// The method.
    Method,
    /// The path as the client wrote it.
    Path,
    /// What follows the question mark.
    Query,
    /// Path and query.
    Uri,
    /// Path and query, percent-encoded as a whole.
    EscapedUri,
    /// The whole URL, percent-encoded as a whole.
    EscapedUrl,
    /// `https` or `http`.
    Scheme,
    /// `HTTP/1.1`, `HTTP/2.0`.
    Protocol,
    /// The name that the TLS handshake asked for.
    Sni,
    /// The TLS version.
    TlsVersion,
    /// The cipher suite.
    TlsCipher,
    /// The group of the key exchange.
    TlsGroup,
    /// `true` where a TLS session was resumed, else `false`.
    TlsResumed,
    /// The JA4 fingerprint of the client's greeting, where it is taken.
    Ja4,
    /// The client's certificate in base64, where it was verified.
    ClientCertificate,
    /// Whose it is.
    ClientSubject,
    /// The common name in that.
    ClientCommonName,
    /// Who signed it.
    ClientIssuer,
    /// Its serial number in hexadecimal.
    ClientSerial,
    /// Its SHA-256 in hexadecimal.
    ClientFingerprint,
    /// Who the client has shown to be.
    User,
    /// The id of the request.
    RequestId,
    /// The id of the trace.
    TraceId,
    /// The values of a field of the request, joined.
    Header(Arc<str>),
    /// The value of a cookie.
    Cookie(Arc<str>),
    /// The value of a parameter of the query, decoded.
    Parameter(Arc<str>),
    /// What follows the route's path, with the query.
    Rest,
    /// A named group of the route's expression.
    Capture(usize),
}

/// Variables that are one word.
const WORDS: &[(&str, Variable)] = &[
    ("client_address", Variable::ClientAddress),
    ("client_port", Variable::ClientPort),
    ("host", Variable::Host),
    ("port", Variable::Port),
    ("local_port", Variable::LocalPort),
    ("method", Variable::Method),
    ("path", Variable::Path),
    ("query", Variable::Query),
    ("uri", Variable::Uri),
    ("escaped_uri", Variable::EscapedUri),
    ("escaped_url", Variable::EscapedUrl),
    ("scheme", Variable::Scheme),
    ("protocol", Variable::Protocol),
    ("sni", Variable::Sni),
    ("tls_version", Variable::TlsVersion),
    ("tls_cipher", Variable::TlsCipher),
    ("tls_group", Variable::TlsGroup),
    ("tls_resumed", Variable::TlsResumed),
    ("ja4", Variable::Ja4),
    ("client_certificate", Variable::ClientCertificate),
    ("client_subject", Variable::ClientSubject),
    ("client_common_name", Variable::ClientCommonName),
    ("client_issuer", Variable::ClientIssuer),
    ("client_serial", Variable::ClientSerial),
    ("client_fingerprint", Variable::ClientFingerprint),
    ("user", Variable::User),
    ("request_id", Variable::RequestId),
    ("trace_id", Variable::TraceId),
];

/// The one that only a route with a path has.
const REST: &str = "rest";

/// What can be named where a value stands.
#[derive(Clone, Default)]
pub(in crate::config) struct Scope {
    /// The groups of the route's expression.
    pub(super) captures: Vec<Arc<str>>,
    /// The route has a path.
    pub(super) rest: bool,
    /// The route is not known yet.
    early: bool,
}

impl Scope {
    /// What follows the path of a route, or is in the groups of its expression.
    pub(super) fn of_route(captures: Vec<Arc<str>>, rest: bool) -> Self {
        Self {
            captures,
            rest,
            early: false,
        }
    }

    /// What is known before it is known which route a request is for.
    pub(super) fn of_conditions() -> Self {
        Self {
            early: true,
            ..Self::default()
        }
    }

    /// Whether this is a variable, without its braces.
    pub(super) fn is_word(name: &str) -> bool {
        WORDS.iter().any(|(word, _)| *word == name)
    }

    /// Reads a value.
    pub(in crate::config) fn read(
        &self,
        text: &str,
        cx: &Context<'_>,
    ) -> Result<Template, Complaint> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut left = text;
        while let Some(at) = left.find(['{', '}']) {
            plain.push_str(&left[..at]);
            let (brace, behind) = left[at..].split_at(1);
            if behind.starts_with(brace) {
                plain.push_str(brace);
                left = &behind[1..];
                continue;
            }
            let end = behind.find(['{', '}']);
            let (true, Some(end)) = (
                brace == "{",
                end.filter(|end| behind[*end..].starts_with('}')),
            ) else {
                return Err(Complaint::new(
                    format!("has a `{brace}` without its other half"),
                    format!("write `{brace}{brace}` for the brace itself"),
                ));
            };
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(Piece::Variable(self.variable(&behind[..end], cx)?));
            left = &behind[end + 1..];
        }
        plain.push_str(left);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Template(pieces))
    }

    fn variable(&self, name: &str, cx: &Context<'_>) -> Result<Variable, Complaint> {
        if let Some((_, variable)) = WORDS.iter().find(|(word, _)| *word == name) {
            return Ok(variable.clone());
        }
        if let Some(index) = self.captures.iter().position(|capture| **capture == *name) {
            return Ok(Variable::Capture(index));
        }
        match name.split_once(':') {
            Some(("header", field)) => return token(field).map(Variable::Header),
            Some(("cookie", cookie)) => return token(cookie).map(Variable::Cookie),
            Some(("query", "")) => {
                return Err(Complaint::new(
                    "has `{query:}` without a name",
                    "write the name of a parameter, as in `{query:page}`; all of it is `{query}`",
                ));
            }
            Some(("query", parameter)) => return Ok(Variable::Parameter(parameter.into())),
            _ => {}
        }
        match name {
            REST if self.rest => Ok(Variable::Rest),
            REST if self.early => Err(Complaint::new(
                "has `{rest}`, which is known only behind the conditions",
                "write `{path}` or `{uri}`",
            )),
            REST => Err(Complaint::new(
                "has `{rest}`, which only a route with `path` or `exact` has",
                "write `{uri}` for path and query, or name a group of the `regex`",
            )),
            _ => Err(self.unknown(name, cx)),
        }
    }

    fn unknown(&self, name: &str, cx: &Context<'_>) -> Complaint {
        let words = WORDS.iter().map(|(word, _)| *word);
        let captures = self.captures.iter().map(|capture| &**capture);
        let rest = self.rest.then_some(REST);
        let all = || words.clone().chain(captures.clone()).chain(rest);
        let help = match cx.nearest(name, all()) {
            Some(near) => format!("did you mean `{{{near}}}`?"),
            None => format!(
                "there are {}, header:NAME, cookie:NAME and query:NAME; `{{{{` is a brace",
                all().collect::<Vec<_>>().join(", ")
            ),
        };
        let message = format!("there is no variable {}", quoted(&format!("{{{name}}}")));
        Complaint::new(message, help)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn read(text: &str) -> Result<Template, Complaint> {
        let scope = Scope::of_route(vec!["name".into()], true);
        scope.read(text, &Context::new("", Path::new(""), None))
    }

    #[test]
    fn a_value_is_split_into_its_parts() {
        let text = |text: &str| Piece::Text(text.into());
        for (value, pieces) in [
            ("", vec![]),
            ("plain", vec![text("plain")]),
            ("{{a}}", vec![text("{a}")]),
            ("{host}", vec![Piece::Variable(Variable::Host)]),
            (
                "a{path}b{name}",
                vec![
                    text("a"),
                    Piece::Variable(Variable::Path),
                    text("b"),
                    Piece::Variable(Variable::Capture(0)),
                ],
            ),
            (
                "{header:X-Y}{{{rest}}}",
                vec![
                    Piece::Variable(Variable::Header("X-Y".into())),
                    text("{"),
                    Piece::Variable(Variable::Rest),
                    text("}"),
                ],
            ),
        ] {
            assert_eq!(read(value).unwrap().pieces(), pieces, "{value}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_said_with_what_may_have_been_meant() {
        for (value, words) in [
            ("{client_adress}", "did you mean `{client_address}`?"),
            ("{nam}", "did you mean `{name}`?"),
            ("{frobnicate}", "header:NAME"),
            ("{header:}", "letters, digits"),
            ("{query:}", "`{query:page}`"),
            ("{", "`{{`"),
            ("a}b", "`}}`"),
            ("{a{b}", "`{{`"),
            ("{}", "there are"),
        ] {
            let complaint = read(value).unwrap_err();
            assert!(complaint.help.contains(words), "{value}: {complaint:?}");
        }
    }
}
