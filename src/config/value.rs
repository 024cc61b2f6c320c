//! The types a value can have in the file, and how each is read and written.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::address;
use super::compression::{self, Coding, Effort, MediaRange};
use super::diagnostic::{Complaint, Diagnostic, Span, quoted};
use super::quota::{self, Requests};
use super::read::Value;
use super::rules::{Pattern, TraceWord};
use super::units;
use super::upstream::{self, TlsMinimum, Within};
use super::{
    AccessLogTarget, Balance, HashKey, LogFormat, Protocol, ProxyProtocol, Server, Severity,
    SiteName, StartTls, StatusSet, WebhookFormat,
};

/// What can be read from a value.
pub(super) trait FromToml: Sized {
    /// What to write, with its article, as in `expected …`.
    const FORM: &'static str;

    /// `None` has been reported.
    fn from_toml(value: Value<'_>) -> Option<Self>;
}

/// What can be written the way it is read: whatever has a default or bounds.
pub(super) trait Show {
    fn show(&self) -> String;
}

/// A value, and where it is.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) span: Span,
}

impl<T> At<T> {
    /// A default: it stands nowhere.
    pub(super) fn nowhere(value: T) -> Self {
        let span = 0..0;
        Self { value, span }
    }
}

impl<T: Show> Show for At<T> {
    fn show(&self) -> String {
        self.value.show()
    }
}

impl<T: FromToml> FromToml for At<T> {
    const FORM: &'static str = T::FORM;

    fn from_toml(value: Value<'_>) -> Option<Self> {
        let span = value.span();
        T::from_toml(value).map(|value| Self { value, span })
    }
}

/// An array, each element of which is read for its faults.
impl<T: FromToml + ListForm> FromToml for Vec<T> {
    const FORM: &'static str = T::LIST;

    fn from_toml(value: Value<'_>) -> Option<Self> {
        let DeValue::Array(array) = value.node.get_ref() else {
            // What a single string would have been is the likeliest slip.
            let error = Diagnostic::error(
                value.span(),
                format!("`{}`: expected {}", value.name, Self::FORM),
            );
            value.cx.report(match value.node.get_ref() {
                DeValue::String(_) => error.help("put it in brackets: `[\"…\"]`"),
                _ => error,
            });
            return None;
        };
        // To the end, even when one is wrong already: each has its own fault to report.
        let mut read = Self::with_capacity(array.len());
        for node in array.iter() {
            read.extend(T::from_toml(value.with(node)));
        }
        Some(read).filter(|read| read.len() == array.len())
    }
}

/// How an array of these is called.
pub(super) trait ListForm {
    const LIST: &'static str;
}

impl<T: ListForm> ListForm for At<T> {
    const LIST: &'static str = T::LIST;
}

impl<T: Show> Show for Vec<T> {
    fn show(&self) -> String {
        let all: Vec<_> = self.iter().map(Show::show).collect();
        format!("[{}]", all.join(", "))
    }
}

impl FromToml for bool {
    const FORM: &'static str = "`true` or `false`";

    fn from_toml(value: Value<'_>) -> Option<Self> {
        match value.node.get_ref() {
            DeValue::Boolean(value) => Some(*value),
            _ => {
                value.wrong_type(Self::FORM);
                None
            }
        }
    }
}

impl Show for bool {
    fn show(&self) -> String {
        self.to_string()
    }
}

/// A share, as in 0.25.
impl FromToml for f64 {
    const FORM: &'static str = "a number";

    fn from_toml(value: Value<'_>) -> Option<Self> {
        let number = match value.node.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().parse().ok(),
            _ => None,
        };
        if number.is_none() {
            value.wrong_type(Self::FORM);
        }
        number
    }
}

impl Show for f64 {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Show for NameServer {
    fn show(&self) -> String {
        format!("\"{}\"", self.0)
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl FromToml for $type {
            const FORM: &'static str = "a whole number";

            fn from_toml(value: Value<'_>) -> Option<Self> {
                let DeValue::Integer(number) = value.node.get_ref() else {
                    value.wrong_type(Self::FORM);
                    return None;
                };
                let read = <$type>::from_str_radix(number.as_str(), number.radix());
                if read.is_err() {
                    let message = format!("`{}`: {number} is out of range", value.name);
                    value.cx.report(
                        Diagnostic::error(value.span(), message)
                            .help(format!("write {}", value.form)),
                    );
                }
                read.ok()
            }
        }

        impl Show for $type {
            fn show(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

whole_number!(u32, usize);

impl<T: FromToml> FromToml for Option<T> {
    const FORM: &'static str = T::FORM;

    fn from_toml(value: Value<'_>) -> Option<Self> {
        T::from_toml(value).map(Some)
    }
}

impl Show for NonZeroUsize {
    fn show(&self) -> String {
        self.to_string()
    }
}

impl FromToml for NonZeroUsize {
    const FORM: &'static str = "a whole number above 0";

    fn from_toml(value: Value<'_>) -> Option<Self> {
        let number = Self::new(usize::from_toml(value)?);
        if number.is_none() {
            value.complain(Complaint::new("0 is out of range", "write 1 or more"));
        }
        number
    }
}

/// Reads a string by a function, which says what is wrong with it.
macro_rules! text {
    ($($type:ty, $form:literal, $list:literal, $read:expr;)*) => {$(
        impl FromToml for $type {
            const FORM: &'static str = $form;

            fn from_toml(value: Value<'_>) -> Option<Self> {
                let text = value.text(Self::FORM)?;
                let read: fn(&str, Value<'_>) -> Result<Self, Complaint> = $read;
                read(text, value).map_err(|complaint| value.complain(complaint)).ok()
            }
        }

        impl ListForm for $type {
            const LIST: &'static str = $list;
        }
    )*};
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Size(pub(super) u64);

/// An address to listen on, or nothing.
pub(super) struct Address(pub(super) Option<SocketAddr>);

/// A name server.
pub(super) struct NameServer(pub(super) SocketAddr);

/// What a site or route names as its upstream.
#[derive(Clone, Debug)]
pub(super) enum Target {
    /// An `[upstream.NAME]`.
    Named(Arc<str>),
    /// A server.
    Url(Server),
}

/// The name of an upstream or sink.
pub(super) struct Label(pub(super) Arc<str>);
/// A route's path prefix.
#[derive(Clone)]
pub(super) struct RoutePath(pub(super) Arc<str>);
/// What the paths of a route begin with.
pub(super) struct PathStart(pub(super) Arc<str>);
/// What a check asks for.
pub(super) struct CheckPath(pub(super) Arc<str>);
/// A URL to call.
pub(super) struct CallUrl(pub(super) Arc<str>);
/// The URL of a mail server.
pub(super) struct MailServer(pub(super) Arc<str>);
/// A mail address.
pub(super) struct MailAddress(pub(super) Arc<str>);
/// The name of an environment variable.
pub(super) struct Variable(pub(super) Arc<str>);
/// A name to ask for in TLS.
pub(super) struct TlsName(pub(super) Arc<str>);
/// The name of a field.
pub(super) struct FieldName(pub(super) Arc<str>);
/// The name of a cookie.
pub(super) struct CookieName(pub(super) Arc<str>);
/// Filter directives of the log.
pub(super) struct LogLevel(pub(super) Arc<str>);

text! {
    Requests, "a rate in quotes, as in \"10/s\"", "an array of rates", |text, _| quota::requests(text);
    Duration, "a duration such as \"10s\"", "an array of durations", |t, _| units::duration(t);
    Size, "a size such as \"64KiB\"", "an array of sizes", |t, _| units::size(t).map(Size);
    PathBuf, "a path in quotes", "an array of paths", path;
    SocketAddr, "an address and port such as \"[::]:443\"",
        "an array of addresses such as [\"[::]:443\"]", |t, _| address::listen_address(t);
    NameServer, "the address of a name server such as \"192.0.2.53:53\"",
        "an array of name servers such as [\"192.0.2.53:53\"]",
        |t, _| address::name_server(t).map(NameServer);
    Address, "an address and port such as \"127.0.0.1:9180\", or \"\"",
        "an array of addresses", |t, _| match t {
            "" => Ok(Address(None)),
            t => address::listen_address(t).map(|a| Address(Some(a))),
        };
    IpNet, "a network such as \"10.0.0.0/8\"", "an array of networks such as [\"10.0.0.0/8\"]",
        |t, _| address::network(t);
    SiteName, "a host name such as \"example.com\"",
        "an array of host names such as [\"example.com\", \"*.example.com\"]",
        |t, _| address::site_name(t);
    Server, "the URL of a server such as \"http://127.0.0.1:8080\"",
        "an array of servers such as [\"http://127.0.0.1:8080\"]",
        |t, value| address::server(t, value.cx.folder);
    Target, "the URL of a server such as \"http://127.0.0.1:8080\", or the name of an upstream",
        "an array of upstreams", |t, value| match address::is_server_url(t) {
            true => address::server(t, value.cx.folder).map(Target::Url),
            false => address::label(t)
                .map(Target::Named)
                .or_else(|_| address::server(t, value.cx.folder).map(Target::Url)),
        };
    Label, "a name in quotes", "an array of names", |t, _| address::label(t).map(Label);
    RoutePath, "a path prefix such as \"/api/\"", "an array of paths",
        |t, _| address::route_path(t).map(RoutePath);
    PathStart, "the beginning of a path such as \"/api\"", "an array of beginnings",
        |t, _| address::path_start(t).map(PathStart);
    CheckPath, "a path such as \"/health\"", "an array of paths",
        |t, _| address::check_path(t).map(CheckPath);
    Pattern, "a regular expression such as '^/img/(?<name>.+)[.]png$'", "an array of expressions",
        |t, _| Pattern::new(t).map_err(|error| unreadable(&error));
    CallUrl, "a URL such as \"https://alerts.example.com/hook\"", "an array of URLs",
        |t, _| address::call_url(t).map(CallUrl);
    MailServer, "the URL of a mail server such as \"smtp://localhost:25\"",
        "an array of mail servers", |t, _| address::mail_server(t).map(MailServer);
    MailAddress, "a mail address such as \"ops@example.com\"",
        "an array of mail addresses such as [\"ops@example.com\"]",
        |t, _| address::mail_address(t).map(MailAddress);
    Variable, "the name of an environment variable, in quotes", "an array of variables",
        |t, _| address::variable(t).map(Variable);
    TlsName, "a host name such as \"api.internal\"", "an array of host names",
        |t, _| address::tls_name(t).map(TlsName);
    MediaRange, "a media type such as \"text/html\" or \"text/*\"",
        "an array of media types such as [\"text/html\", \"application/json\"]",
        |t, _| compression::media_range(t);
    FieldName, "the name of a field such as \"X-Api-Key\"", "an array of names",
        |t, _| upstream::token(t).map(FieldName);
    CookieName, "the name of a cookie, in quotes", "an array of names",
        |t, _| upstream::token(t).map(CookieName);
    HashKey, "\"client\", \"path\", \"header:NAME\" or \"cookie:NAME\"", "an array of hash keys",
        |t, _| upstream::hash_key(t);
    StatusSet, "status codes such as \"200-399\"", "an array of status codes",
        |t, _| upstream::status_set(t);
    Within, "a duration such as \"10s\"", "an array of durations",
        |t, _| units::duration(t).and_then(upstream::within);
    LogLevel, "a level such as \"info\"", "an array of levels",
        |t, _| address::log_level(t).map(LogLevel);
    Arc<str>, "text in quotes", "an array of strings",
        |t, _| match t.contains('\0') {
            true => Err(Complaint::new("holds a zero byte", "take it out")),
            false => Ok(t.into()),
        };
    AccessLogTarget, "\"off\", \"stdout\", or a path such as \"/var/log/staunch/access.log\"",
        "an array of targets", access_log_target;
}

/// Why an expression is none: the last line says it, the others draw it.
fn unreadable(error: &regex::Error) -> Complaint {
    let said = error.to_string();
    let last = said.lines().last().unwrap_or_default();
    Complaint::new(
        format!(
            "is no regular expression: {}",
            last.trim_start_matches("error: ")
        ),
        "the syntax is the one of Rust's regex crate, which has no look-around and no \
         back-references; in TOML, single quotes leave backslashes alone",
    )
}

fn path(text: &str, value: Value<'_>) -> Result<PathBuf, Complaint> {
    match text.is_empty() || text.contains('\0') {
        true => Err(Complaint::new(
            "is not a path",
            "write a path; a relative one is below the folder of this file",
        )),
        false => Ok(value.cx.folder.join(text)),
    }
}

fn access_log_target(text: &str, value: Value<'_>) -> Result<AccessLogTarget, Complaint> {
    match text {
        "off" => Ok(AccessLogTarget::Off),
        "stdout" => Ok(AccessLogTarget::Stdout),
        // A word alone is rather a misspelling than a file.
        _ if text.contains('/') => path(text, value).map(AccessLogTarget::File),
        _ => Err(Complaint::new(
            "is not a place to log to",
            "write `\"off\"`, `\"stdout\"`, or a path with a `/` in it",
        )),
    }
}

/// Reads and shows one of a few words.
macro_rules! words {
    ($($type:ty, $form:literal, { $($word:literal => $value:path),* $(,)? };)*) => {$(
        impl FromToml for $type {
            const FORM: &'static str = $form;

            fn from_toml(value: Value<'_>) -> Option<Self> {
                one_of(value, Self::FORM, &[$(($word, $value)),*])
            }
        }

        impl Show for $type {
            fn show(&self) -> String {
                match self { $($value => concat!("\"", $word, "\"").to_owned()),* }
            }
        }
    )*};
}

words! {
    Balance, "\"round-robin\", \"least-requests\", \"random\" or \"hash\"", {
        "round-robin" => Balance::RoundRobin,
        "least-requests" => Balance::LeastRequests,
        "random" => Balance::Random,
        "hash" => Balance::Hash,
    };
    StartTls, "\"postgresql\", \"smtp\", \"imap\" or \"pop3\"", {
        "postgresql" => StartTls::PostgreSql,
        "smtp" => StartTls::Smtp,
        "imap" => StartTls::Imap,
        "pop3" => StartTls::Pop3,
    };
    Protocol, "\"http1\", \"http2\" or \"auto\"", {
        "http1" => Protocol::Http1,
        "http2" => Protocol::Http2,
        "auto" => Protocol::Auto,
    };
    Coding, "\"zstd\", \"br\" or \"gzip\"", {
        "zstd" => Coding::Zstd,
        "br" => Coding::Brotli,
        "gzip" => Coding::Gzip,
    };
    Effort, "\"low\", \"medium\" or \"high\"", {
        "low" => Effort::Low,
        "medium" => Effort::Medium,
        "high" => Effort::High,
    };
    ProxyProtocol, "\"v1\", \"v2\" or \"v2-tls\"", {
        "v1" => ProxyProtocol::V1,
        "v2" => ProxyProtocol::V2,
        "v2-tls" => ProxyProtocol::V2Tls,
    };
    TlsMinimum, "\"1.2\" or \"1.3\"", {
        "1.2" => TlsMinimum::Tls12,
        "1.3" => TlsMinimum::Tls13,
    };
    Severity, "\"information\", \"warning\" or \"critical\"", {
        "information" => Severity::Information,
        "warning" => Severity::Warning,
        "critical" => Severity::Critical,
    };
    TraceWord, "\"off\", \"continue\" or \"restart\"", {
        "off" => TraceWord::Off,
        "continue" => TraceWord::Continue,
        "restart" => TraceWord::Restart,
    };
    LogFormat, "\"human\" or \"json\"", {
        "human" => LogFormat::Human,
        "json" => LogFormat::Json,
    };
    WebhookFormat, "\"json\", \"slack\" or \"pagerduty\"", {
        "json" => WebhookFormat::Json,
        "slack" => WebhookFormat::Slack,
        "pagerduty" => WebhookFormat::PagerDuty,
    };
    SinkType, "\"webhook\", \"alertmanager\", \"email\", \"command\" or \"heartbeat\"", {
        "webhook" => SinkType::Webhook,
        "alertmanager" => SinkType::Alertmanager,
        "email" => SinkType::Email,
        "command" => SinkType::Command,
        "heartbeat" => SinkType::Heartbeat,
    };
}

impl ListForm for Coding {
    const LIST: &'static str = "an array of content codings such as [\"zstd\", \"br\", \"gzip\"]";
}

/// The `type` of an `[[alerts.sink]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SinkType {
    Webhook,
    Alertmanager,
    Email,
    Command,
    Heartbeat,
}

fn one_of<T: Copy>(value: Value<'_>, form: &str, words: &[(&str, T)]) -> Option<T> {
    let text = value.text(form)?;
    let found = words.iter().find(|(word, _)| *word == text);
    if found.is_none() {
        let message = format!(
            "`{}`: {} is none of what it can be",
            value.name,
            quoted(text)
        );
        let help = match value.cx.nearest(text, words.iter().map(|(word, _)| *word)) {
            Some(near) => format!("did you mean `\"{near}\"`?"),
            None => format!("write {form}"),
        };
        value
            .cx
            .report(Diagnostic::error(value.span(), message).help(help));
    }
    found.map(|(_, value)| *value)
}

/// Text that shows itself in quotes.
macro_rules! show_quoted {
    ($($type:ty, $text:expr;)*) => {$(
        impl Show for $type {
            fn show(&self) -> String {
                let text: fn(&Self) -> String = $text;
                format!("\"{}\"", text(self))
            }
        }
    )*};
}

show_quoted! {
    Duration, |d| units::show_duration(*d);
    Size, |s| units::show_size(s.0);
    SocketAddr, ToString::to_string;
    Address, |a| a.0.map(|a| a.to_string()).unwrap_or_default();
    IpNet, ToString::to_string;
    Arc<str>, ToString::to_string;
    LogLevel, |l| l.0.to_string();
    HashKey, upstream::show_hash_key;
    StatusSet, ToString::to_string;
    AccessLogTarget, |target| match target {
        AccessLogTarget::Off => "off".to_owned(),
        AccessLogTarget::Stdout => "stdout".to_owned(),
        AccessLogTarget::File(path) => path.display().to_string(),
    };
}
