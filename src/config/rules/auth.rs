//! `basic_auth` and `forward_auth`: who has to show who it is, and to whom.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::fields::{self, Field, Fields};
use super::owned::{self, Side, Touch};
use super::template::{Scope, Template};
use super::{FieldRule, Setting, action};
use crate::config::default;
use crate::config::diagnostic::Complaint;
use crate::config::read::{At, FromToml, Table, Value};
use crate::config::section::{LONGEST, SHORTEST};
use crate::config::value::Target;

/// `basic_auth`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BasicAuth {
    /// The users, as htpasswd writes them.
    pub file: PathBuf,
    /// The realm, which browsers may show.
    pub realm: Arc<str>,
    /// Clients that are not asked.
    pub except: Vec<IpNet>,
    /// Whether the upstream sees `Authorization`.
    pub pass: bool,
}

/// `forward_auth`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardAuth {
    /// Key into [`Config::upstreams`](crate::config::Config::upstreams): who is asked.
    pub upstream: Arc<str>,
    /// What for.
    pub path: Arc<str>,
    /// Fields that it is told besides.
    pub set: Vec<FieldRule>,
    /// Fields of its answer that the upstream gets.
    pub copy: Vec<Arc<str>>,
    /// The field of its answer that says who the user is.
    pub user: Option<Arc<str>>,
    /// Where clients are sent that it does not know.
    pub sign_in: Option<SignIn>,
    /// How long it may take, with all tries.
    pub timeout: Duration,
    /// Clients that it is not asked about.
    pub except: Vec<IpNet>,
}

/// Where clients are sent that have to sign in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignIn {
    /// There.
    To(Template),
    /// Where the 401 itself says, in its `Location`. Without one, clients get the 401.
    Answered,
}

impl SignIn {
    /// What is written for [`Answered`](Self::Answered).
    pub const ANSWERED: &str = "location";

    /// What has variables in it.
    pub const fn template(&self) -> Option<&Template> {
        match self {
            Self::To(template) => Some(template),
            Self::Answered => None,
        }
    }
}

/// Reads the table, or `false`.
pub(super) fn basic(t: &mut Table<'_>, section: &'static str) -> Option<Setting<BasicAuth>> {
    t.alternative(
        "basic_auth",
        section,
        "Users and passwords (RFC 7617), as a table; `false`: nobody is asked.",
        |Off| Setting::Off,
        |t| {
            let file = t.required(
                "file",
                "The users, as `htpasswd` writes them: with bcrypt (`-B`), SHA-512 or SHA-256 \
                 (`-5`, `-2`), or MD5. Changes take effect within a second or two.",
            );
            let realm: At<Arc<str>> = t.or(
                "realm",
                At::nowhere(default::REALM.into()),
                "The realm, which browsers may show.",
            );
            if !realm.value.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
                let complaint = Complaint::new(
                    "`realm` has a character that a field cannot have",
                    "write it in plain letters, digits and signs",
                );
                t.complain(&realm.span, complaint);
            }
            let except = t.or("except", Vec::new(), "Clients that are not asked.");
            let pass = t.or(
                "pass",
                true,
                "Whether `Authorization`, with the password in it, is passed on to the upstream.",
            );
            Some(Setting::On(BasicAuth {
                file: file?,
                realm: realm.value,
                except,
                pass,
            }))
        },
    )
}

/// Reads the table, or `false`.
pub(super) fn forward(
    t: &mut Table<'_>,
    section: &'static str,
    scope: &Scope,
) -> Option<Setting<ForwardAuth>> {
    t.alternative(
        "forward_auth",
        section,
        "A server that is asked about each request, as a table; `false`: none is.",
        |Off| Setting::Off,
        |t| {
            let upstream: Option<At<Target>> = t.required(
                "upstream",
                "The server that is asked: a URL, or the NAME of an `[upstream.NAME]`.",
            );
            let path: Option<At<Arc<str>>> = t.required(
                "path",
                "The path to ask it for, with `GET`. A 2xx admits the request; 401, 403, 429 and \
                 redirects go to the client; all else is a 502.",
            );
            let set: Option<Fields> = t.optional(
                "set",
                "Fields that it is told besides, with variables: `{ \"X-Real-IP\" = \
                 \"{client_address}\" }`.",
            );
            let copy: Option<Vec<At<Arc<str>>>> = t.optional(
                "copy",
                "Fields of its answer that the upstream gets. Clients cannot send them.",
            );
            let user: Option<At<Arc<str>>> = t.optional(
                "user",
                "Field of its answer that names the user, for `{user}` and the access log.",
            );
            let sign_in: Option<At<Arc<str>>> = t.optional(
                "sign_in",
                "Where clients go instead of getting its 401, with variables: \
                 `\"/oauth2/start?rd={escaped_url}\"`; or `\"location\"`: where its 401 says.",
            );
            let timeout = t.or_within(
                "timeout",
                default::FORWARD_AUTH,
                SHORTEST..=LONGEST,
                "The time for its answer, all tries together.",
            );
            let except = t.or("except", Vec::new(), "Clients that it is not asked about.");
            let sign_in = sign_in.and_then(|text| sign_in_at(t, &text, scope));
            let set = set.into_iter().flat_map(|fields| fields.0);
            let set = set.filter_map(|Field { name, value }| told(t, scope, name, value));
            let set = set.collect();
            let copy = copy.into_iter().flatten();
            let copy = copy.filter_map(|name| field(t, name)).collect();
            let user = user.and_then(|name| field(t, name));
            let path = path.and_then(|path| self::path(t, path));
            let upstream = upstream.map(|target| t.cx.wants_target(target));
            Some(Setting::On(ForwardAuth {
                upstream: upstream?,
                path: path?,
                set,
                copy,
                user,
                sign_in,
                timeout,
                except,
            }))
        },
    )
}

fn sign_in_at(t: &Table<'_>, text: &At<Arc<str>>, scope: &Scope) -> Option<SignIn> {
    if *text.value == *SignIn::ANSWERED {
        return Some(SignIn::Answered);
    }
    let read = scope.read(&text.value, t.cx).and_then(|template| {
        action::location(&template)?;
        Ok(SignIn::To(template))
    });
    read.map_err(|Complaint { message, help }| {
        let message = format!("`sign_in` {message}");
        t.complain(&text.span, Complaint { message, help });
    })
    .ok()
}

/// A field that the server which is asked is told.
fn told(
    t: &Table<'_>,
    scope: &Scope,
    name: At<Arc<str>>,
    value: At<Arc<str>>,
) -> Option<FieldRule> {
    if is_host(&name.value) {
        t.complain(&name.span, of_host());
        return None;
    }
    fields::rule(
        t,
        scope,
        Side::Request,
        Touch::Set,
        name,
        Some(value),
        false,
    )
}

fn is_host(name: &str) -> bool {
    name.eq_ignore_ascii_case("host")
}

fn of_host() -> Complaint {
    Complaint::new("`Host` says whom a request is for", "leave it out")
}

/// A field that another server may decide on.
fn field(t: &Table<'_>, name: At<Arc<str>>) -> Option<Arc<str>> {
    let refused = match is_host(&name.value) {
        true => Err(of_host()),
        false => owned::refuse(&name.value, Side::Request, Touch::Set),
    };
    match refused {
        Ok(()) => Some(name.value),
        Err(complaint) => {
            t.complain(&name.span, complaint);
            None
        }
    }
}

fn path(t: &Table<'_>, path: At<Arc<str>>) -> Option<Arc<str>> {
    let fits = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte);
    if path.value.starts_with('/') && path.value.bytes().all(fits) {
        return Some(path.value);
    }
    let complaint = Complaint::new(
        "`path` is not a path",
        "write it as in `\"/oauth2/auth\"`; a query may follow",
    );
    t.complain(&path.span, complaint);
    None
}

/// `false`
struct Off;

impl FromToml for Off {
    const FORM: &'static str = "`false`, or a table";

    fn from_toml(value: Value<'_>) -> Option<Self> {
        if let DeValue::Boolean(false) = value.node.get_ref() {
            return Some(Self);
        }
        value.wrong_type(Self::FORM);
        None
    }
}
