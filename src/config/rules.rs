//! What is done with the requests and responses of a site or route, beside passing them on:
//! `[defaults]`, `[[site]]` and `[[site.route]]`.
//!
//! Each of the three says something and leaves the rest to what is wider; [`Rules::over`] puts them
//! above each other. What stands in a [`Site`](super::Site) or a [`Route`] is all that holds there:
//! nobody has to look further.

mod action;
mod auth;
mod condition;
mod cookies;
mod fields;
mod owned;
mod pages;
mod pattern;
mod read;
mod template;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::compression::CompressionRules;
pub(super) use action::{RawAction, RawRoute, route, site};
pub use auth::{BasicAuth, ForwardAuth, SignIn};
pub use condition::{Condition, Conditions};
pub use cookies::Cookies;
use ipnet::IpNet;
pub use pattern::Pattern;
pub(super) use read::{TraceWord, defaults};
pub(super) use template::Scope;
pub use template::{Piece, Template, Variable};

/// What one of the three says. What is `None` or empty is left to what is wider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// For fields of requests on their way to the upstream, in this order.
    pub request: Vec<FieldRule>,
    /// For fields of responses on their way to the client, in this order.
    pub response: Vec<FieldRule>,
    /// What stands in place of the beginnings of `Location` in an upstream's responses; the first
    /// that fits.
    pub locations: Option<Vec<(Arc<str>, Template)>>,
    /// What becomes of cookies that an upstream sets.
    pub cookies: Cookies,
    /// The value of `Strict-Transport-Security` (RFC 6797).
    pub hsts: Option<Setting<Arc<str>>>,
    /// Whether requests are answered with 503.
    pub maintenance: Option<Setting<Maintenance>>,
    /// Bodies for responses that staunch makes itself; the first that fits.
    pub error_pages: Vec<ErrorPage>,
    /// The field that carries an id of the request.
    pub request_id: Option<Setting<Arc<str>>>,
    /// What is done with trace context.
    pub trace: Option<Setting<Trace>>,
    /// Of a million traces that begin here, how many are sampled.
    pub trace_sample: Option<u32>,
    /// The only clients that are let in; empty: all are.
    pub allow: Option<Vec<IpNet>>,
    /// Clients that are not let in.
    pub deny: Option<Vec<IpNet>>,
    /// The only methods that are let through.
    pub methods: Option<Vec<Arc<str>>>,
    /// The quotas that requests are taken from, by name.
    pub quotas: Option<Vec<Arc<str>>>,
    /// Whose users are let in.
    pub basic_auth: Option<Setting<BasicAuth>>,
    /// Who is asked whom to let in.
    pub forward_auth: Option<Setting<ForwardAuth>>,
    /// Fields that only a server that is asked may set, here or where the rules are wider: no
    /// client is believed them, even where nobody is asked.
    pub vouched: Vec<Arc<str>>,
    /// Bytes that a request's body may have.
    pub request_body: Option<Setting<u64>>,
    /// Whether requests in plain text are answered, where others are redirected to HTTPS.
    pub plain_text: Option<bool>,
    /// Deadlines.
    pub timeouts: RouteTimeouts,
    /// How responses are compressed.
    pub compression: CompressionRules,
}

/// Something that is off, or on with a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting<T> {
    /// Off, whatever is said more widely.
    Off,
    /// On.
    On(T),
}

impl<T> Setting<T> {
    /// The value, where it is on.
    pub const fn on(&self) -> Option<&T> {
        match self {
            Self::Off => None,
            Self::On(value) => Some(value),
        }
    }
}

/// One change to the fields of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRule {
    /// The field's name, as it is written.
    pub name: Arc<str>,
    /// What is done with it.
    pub change: Change,
    /// Only in responses with a status from 200 to 399.
    pub if_ok: bool,
}

/// What is done with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It goes, however often it is there.
    Remove,
    /// It is there once, with this value; or not at all where the value comes out empty.
    Set(Template),
    /// It is there once more; or not, where the value comes out empty.
    Add(Template),
}

/// `maintenance`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Maintenance {
    /// Only while this file exists; `None`: always.
    pub file: Option<PathBuf>,
    /// What clients are told to wait.
    pub retry_after: Duration,
    /// Clients that are served all the same.
    pub allow: Vec<IpNet>,
}

/// One of `error_pages`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// The first status that it is for.
    pub from: u16,
    /// The last.
    pub to: u16,
    /// What is said.
    pub instead: Instead,
}

/// What is said in place of the built-in body of an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instead {
    /// What is in this file.
    File(PathBuf),
    /// This text.
    Text {
        /// The body.
        body: Arc<str>,
        /// Its type.
        content_type: Arc<str>,
    },
    /// Nothing: the client is sent elsewhere.
    Redirect {
        /// A URL, or a path.
        to: Arc<str>,
        /// With which status.
        status: u16,
    },
}

/// `trace_context`: what is done with a client's `traceparent` (W3C Trace Context).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// It is passed on; a request without one begins a trace.
    Continue,
    /// Every request begins a trace.
    Restart,
}

/// `timeouts` of a site or route: `None` leaves what the upstream and `[timeouts]` say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteTimeouts {
    /// To the head of the response.
    pub response: Option<Duration>,
    /// Between two reads of the response's body.
    pub idle: Option<Duration>,
    /// For the whole request, all tries together.
    pub total: Option<Duration>,
    /// Between two reads of the request's body.
    pub request_body: Option<Duration>,
    /// Between two writes to the client.
    pub send: Option<Duration>,
    /// Silence on a tunnel.
    pub tunnel: Option<Duration>,
}

impl RouteTimeouts {
    fn over(self, wider: Self) -> Self {
        Self {
            response: self.response.or(wider.response),
            idle: self.idle.or(wider.idle),
            total: self.total.or(wider.total),
            request_body: self.request_body.or(wider.request_body),
            send: self.send.or(wider.send),
            tunnel: self.tunnel.or(wider.tunnel),
        }
    }
}

impl Rules {
    /// What this says, and where it is silent, what `wider` says. Rules for fields follow those that
    /// are wider, so that they have the last word.
    pub fn over(self, wider: &Self) -> Self {
        let behind = |narrow: Vec<FieldRule>, wide: &[FieldRule]| match narrow.is_empty() {
            true => wide.to_vec(),
            false => wide.iter().cloned().chain(narrow).collect(),
        };
        let mut vouched = self.vouched;
        for name in &wider.vouched {
            if !vouched.contains(name) {
                vouched.push(Arc::clone(name));
            }
        }
        let mut error_pages = self.error_pages;
        error_pages.extend(wider.error_pages.iter().cloned());
        Self {
            request: behind(self.request, &wider.request),
            response: behind(self.response, &wider.response),
            locations: self.locations.or_else(|| wider.locations.clone()),
            cookies: self.cookies.over(&wider.cookies),
            hsts: self.hsts.or_else(|| wider.hsts.clone()),
            maintenance: self.maintenance.or_else(|| wider.maintenance.clone()),
            error_pages,
            request_id: self.request_id.or_else(|| wider.request_id.clone()),
            trace: self.trace.or_else(|| wider.trace.clone()),
            trace_sample: self.trace_sample.or(wider.trace_sample),
            allow: self.allow.or_else(|| wider.allow.clone()),
            deny: self.deny.or_else(|| wider.deny.clone()),
            methods: self.methods.or_else(|| wider.methods.clone()),
            quotas: self.quotas.or_else(|| wider.quotas.clone()),
            basic_auth: self.basic_auth.or_else(|| wider.basic_auth.clone()),
            forward_auth: self.forward_auth.or_else(|| wider.forward_auth.clone()),
            vouched,
            request_body: self.request_body.or_else(|| wider.request_body.clone()),
            plain_text: self.plain_text.or(wider.plain_text),
            timeouts: self.timeouts.over(wider.timeouts),
            compression: self.compression.over(&wider.compression),
        }
    }

    /// The values of rules for fields, of `rewrite_location` and `sign_in`.
    pub fn templates(&self) -> impl Iterator<Item = &Template> {
        let asked = self.forward_auth.as_ref().and_then(Setting::on);
        let told = asked.into_iter().flat_map(|asked| &asked.set);
        let all = self.request.iter().chain(&self.response).chain(told);
        let of_fields = all.filter_map(|rule| match &rule.change {
            Change::Remove => None,
            Change::Set(template) | Change::Add(template) => Some(template),
        });
        let locations = self.locations.iter().flatten();
        of_fields
            .chain(locations.map(|(_, template)| template))
            .chain(asked.and_then(|asked| asked.sign_in.as_ref()?.template()))
    }

    /// Whether requests get an id: a field carries it, or a value has it.
    pub fn identify(&self) -> bool {
        let id = |template: &Template| template.variables().any(|it| *it == Variable::RequestId);
        matches!(self.request_id, Some(Setting::On(_))) || self.templates().any(id)
    }

    /// The files with error pages.
    pub fn page_files(&self) -> impl Iterator<Item = &PathBuf> {
        (self.error_pages.iter()).filter_map(|page| match &page.instead {
            Instead::File(file) => Some(file),
            Instead::Text { .. } | Instead::Redirect { .. } => None,
        })
    }

    /// The file with the users.
    pub fn users_file(&self) -> Option<&PathBuf> {
        let basic_auth = self.basic_auth.as_ref().and_then(Setting::on)?;
        Some(&basic_auth.file)
    }

    /// The file that maintenance goes by.
    pub fn maintenance_file(&self) -> Option<&PathBuf> {
        let maintenance = self.maintenance.as_ref().and_then(Setting::on)?;
        maintenance.file.as_ref()
    }
}

/// One `[[site.route]]`, or what a site says for the path `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The paths that it is for.
    pub matcher: Matcher,
    /// Where its path is the longest prefix, no expression is tried.
    pub last: bool,
    /// What it asks of requests, beside their paths.
    pub conditions: Conditions,
    /// What is done.
    pub action: Action,
    /// The rules that hold here, those of the site and the defaults among them.
    pub rules: Rules,
}

/// Which paths a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matcher {
    /// All of them: its conditions decide.
    Any,
    /// This one.
    Exact(Arc<str>),
    /// Those that an expression matches.
    Regex(Pattern),
    /// Those below it. `/api/` matches below it; `/api` matches itself and anything below `/api/`,
    /// not `/apiary`.
    Prefix(Arc<str>),
    /// Those that begin with it: `/api` matches `/apiary` too.
    StartsWith(Arc<str>),
}

/// Whether a prefix covers a path on the boundary of a segment. Both are normal.
pub fn is_below(prefix: &[u8], path: &[u8]) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || prefix.ends_with(b"/") || rest.starts_with(b"/"))
}

/// As it is written.
impl std::fmt::Display for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Any => f.write_str("*"),
            Self::Exact(path) | Self::Prefix(path) | Self::StartsWith(path) => f.write_str(path),
            Self::Regex(pattern) => f.write_str(pattern.as_str()),
        }
    }
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes to an upstream.
    Forward {
        /// Key into [`Config::upstreams`](super::Config::upstreams).
        upstream: Arc<str>,
        /// How its path is written anew.
        rewrite: Option<Rewrite>,
    },
    /// The client is sent elsewhere.
    Redirect {
        /// Where to.
        location: Template,
        /// With which status.
        status: u16,
    },
    /// It is answered as it is written.
    Respond {
        /// The status.
        status: u16,
        /// The body; `None`: one for the status.
        body: Option<Body>,
        /// Its type.
        content_type: Arc<str>,
    },
}

/// The body of a response that is written in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// As it is.
    Text(Arc<str>),
    /// With variables.
    Template(Template),
}

/// How a path is written anew for the upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// What stands before the rest of the path, in place of the route's prefix.
    Prefix(Arc<str>),
    /// The same for what the path starts with, which may end inside a segment.
    Start(Arc<str>),
    /// The whole of it.
    Path(Template),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_narrower_wins_and_rules_for_fields_follow_the_wider_ones() {
        let rule = |name: &str| FieldRule {
            name: name.into(),
            change: Change::Remove,
            if_ok: false,
        };
        let wide = Rules {
            request: vec![rule("a")],
            response: vec![rule("b")],
            hsts: Some(Setting::On("max-age=1".into())),
            deny: Some(vec!["10.0.0.0/8".parse().unwrap()]),
            ..Rules::default()
        };
        let narrow = Rules {
            request: vec![rule("c")],
            hsts: Some(Setting::Off),
            deny: Some(Vec::new()),
            ..Rules::default()
        };
        let both = narrow.over(&wide);
        assert_eq!(both.request, [rule("a"), rule("c")]);
        assert_eq!(both.response, [rule("b")]);
        assert_eq!(both.hsts, Some(Setting::Off));
        assert_eq!(both.deny, Some(Vec::new()));
    }

    #[test]
    fn a_prefix_ends_with_a_segment() {
        for (prefix, path, expected) in [
            ("/", "/x", true),
            ("/api", "/api", true),
            ("/api", "/api/x", true),
            ("/api", "/apiary", false),
            ("/api/", "/api/x", true),
            ("/api/", "/api", false),
        ] {
            let below = is_below(prefix.as_bytes(), path.as_bytes());
            assert_eq!(below, expected, "{prefix} {path}");
        }
    }
}
