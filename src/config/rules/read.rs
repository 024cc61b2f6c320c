//! Reading rules: the keys that `[defaults]`, `[[site]]` and `[[site.route]]` have in common.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use toml::de::DeValue;

use super::auth;
use super::fields::{self, Field, Fields};
use super::owned::{self, Side, Touch};
use super::pages::Pages;
use super::template::Scope;
use super::{FieldRule, Maintenance, RouteTimeouts, Rules, Setting, Template, Trace};
use crate::config::compression::compression;
use crate::config::default;
use crate::config::diagnostic::Complaint;
use crate::config::read::Value;
use crate::config::read::{At, FromToml, Size, Table};
use crate::config::section::{LONGEST, SHORTEST};
use crate::config::upstream;

/// Which of the three sections is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Defaults,
    Site,
    Route,
}

/// The name of a section inside another.
macro_rules! inside {
    ($place:expr, $name:literal) => {
        match $place {
            Place::Defaults => concat!("defaults.", $name),
            Place::Site => concat!("site.", $name),
            Place::Route => concat!("site.route.", $name),
        }
    };
}

/// `[defaults]`
pub(in crate::config) fn defaults(t: &mut Table<'_>) -> Rules {
    t.refuse(
        "timeouts",
        "deadlines for all sites have a section of their own",
        "write them in `[timeouts]`",
    );
    t.refuse(
        "request_body",
        "the limit for all sites has a section of its own",
        "write it in `[limits]`",
    );
    rules(t, Place::Defaults, &Scope::default())
}

/// The keys that all three have.
pub(super) fn rules(t: &mut Table<'_>, place: Place, scope: &Scope) -> Rules {
    let allow: Option<Vec<IpNet>> = t.optional(
        "allow",
        "Clients that are admitted, by address; all others get 403.",
    );
    let deny: Option<Vec<IpNet>> = t.optional(
        "deny",
        "Clients that get 403, by address, even if `allow` names them.",
    );
    let methods: Option<Vec<At<Arc<str>>>> = t.optional(
        "methods",
        "Methods that are allowed, as in `[\"GET\", \"POST\"]`; others get 405. `GET` includes \
         `HEAD`; `[]` allows all.",
    );
    let quotas: Option<Vec<At<Arc<str>>>> = t.optional(
        "quotas",
        "The NAMEs of each `[quota.NAME]` that requests count against. Those of a route replace \
         the site's; `[]`: none.",
    );
    let request_id: Option<IdField> = t.optional(
        "request_id",
        "Field that carries an id of the request: to the upstream, back to the client, and in the \
         access log. One that comes from a client in `listen.forwarded_from` is kept. `\"\"`: none.",
    );
    let trace: Option<TraceWord> = t.optional(
        "trace_context",
        "W3C Trace Context: `\"continue\"` passes a client's `traceparent` on and begins a trace \
         where there is none, `\"restart\"` always begins one, `\"off\"` leaves it as it is.",
    );
    let share: Option<Share> = t.optional(
        "trace_sample",
        "Share of the traces begun here that are marked as sampled; 1 by default.",
    );
    let pages: Option<Pages> = t.optional(
        "error_pages",
        "Files with bodies for responses that staunch makes itself, by status: `404`, `5xx`. If a \
         file begins with a head of HTTP/1.x, as HAProxy's do, only the type is taken from it. In \
         place of a file: `{ body = \"…\", content_type = \"…\" }`, or `{ redirect = \"…\" }`.",
    );
    let plain_text: Option<bool> = t.optional(
        "plain_text",
        "Whether requests that arrive in plain text, at an address in `listen.http`, are answered \
         instead of being redirected to https.",
    );
    let (request_body, timeouts) = match place {
        Place::Defaults => (None, RouteTimeouts::default()),
        Place::Site | Place::Route => (
            t.optional::<Size>(
                "request_body",
                "Size of a request's body, instead of the one in `[limits]`; `\"0\"`: no limit.",
            ),
            t.section("timeouts", inside!(place, "timeouts"), timeouts),
        ),
    };
    let forward_auth = auth::forward(t, inside!(place, "forward_auth"), scope);
    Rules {
        basic_auth: auth::basic(t, inside!(place, "basic_auth")),
        vouched: match &forward_auth {
            Some(Setting::On(asked)) => asked.copy.clone(),
            Some(Setting::Off) | None => Vec::new(),
        },
        forward_auth,
        request: t.section("request_headers", inside!(place, "request_headers"), |t| {
            fields(t, Side::Request, scope)
        }),
        response: t.section(
            "response_headers",
            inside!(place, "response_headers"),
            |t| fields(t, Side::Response, scope),
        ),
        locations: locations(t, scope),
        cookies: t.section(
            "cookies",
            inside!(place, "cookies"),
            super::cookies::cookies,
        ),
        hsts: hsts(t, place),
        maintenance: maintenance(t, place),
        error_pages: pages.map(|pages| pages.0).unwrap_or_default(),
        request_id: request_id.map(|field| field.0),
        trace: trace.map(|word| match word {
            TraceWord::Off => Setting::Off,
            TraceWord::Continue => Setting::On(Trace::Continue),
            TraceWord::Restart => Setting::On(Trace::Restart),
        }),
        trace_sample: share.map(|share| share.0),
        allow,
        deny,
        methods: methods.map(|names| self::methods(t, names)),
        quotas: quotas.map(|names| {
            let names = names.into_iter().map(|name| t.cx.wants_quota(name));
            names.collect()
        }),
        request_body: request_body.map(|size| match size.0 {
            0 => Setting::Off,
            bytes => Setting::On(bytes),
        }),
        plain_text,
        timeouts,
        compression: compression(t),
    }
}

fn timeouts(t: &mut Table<'_>) -> RouteTimeouts {
    let mut within = |key, meaning| t.optional_within(key, SHORTEST..=LONGEST, meaning);
    RouteTimeouts {
        response: within(
            "response",
            "From the end of the request to the head of the response.",
        ),
        idle: within(
            "idle",
            "Between two reads of the response's body that make progress.",
        ),
        total: within("total", "For the whole request, all tries together."),
        request_body: within(
            "request_body",
            "Between two reads of the request's body that make progress.",
        ),
        send: within(
            "send",
            "Between two writes to the client that make progress.",
        ),
        tunnel: within(
            "tunnel",
            "How long a tunnel (WebSocket and other upgrades) may be silent.",
        ),
    }
}

/// Rules for fields: what goes, then what is set, then what is added.
fn fields(t: &mut Table<'_>, side: Side, scope: &Scope) -> Vec<FieldRule> {
    let remove: Option<Vec<At<Arc<str>>>> = t.optional(
        "remove",
        "Fields that are taken out. First this, then `set`, then `add`.",
    );
    let set: Option<Fields> = t.optional(
        "set",
        "Fields with their values, in place of those of the same name.",
    );
    let add: Option<Fields> = t.optional(
        "add",
        "Fields with their values, beside those of the same name; several values in brackets.",
    );
    let (mut set_if_ok, mut add_if_ok): (Option<Fields>, Option<Fields>) = (None, None);
    if side == Side::Response {
        set_if_ok = t.optional(
            "set_if_ok",
            "As `set`, in responses with a status from 200 to 399 only: how long caches may keep them, for \
             one, is not for errors.",
        );
        add_if_ok = t.optional(
            "add_if_ok",
            "As `add`, in responses with a status from 200 to 399 only.",
        );
    }
    let mut rules = Vec::new();
    let mut push = |name, touch, value, if_ok| {
        rules.extend(fields::rule(t, scope, side, touch, name, value, if_ok));
    };
    for name in remove.into_iter().flatten() {
        push(name, Touch::Remove, None, false);
    }
    for (fields, touch, if_ok) in [
        (set, Touch::Set, false),
        (set_if_ok, Touch::Set, true),
        (add, Touch::Add, false),
        (add_if_ok, Touch::Add, true),
    ] {
        for Field { name, value } in fields.into_iter().flat_map(|fields| fields.0) {
            push(name, touch, Some(value), if_ok);
        }
    }
    rules
}

/// Names of methods, which are tokens (RFC 9110, section 9.1).
fn methods(t: &Table<'_>, names: Vec<At<Arc<str>>>) -> Vec<Arc<str>> {
    let mut all: Vec<Arc<str>> = Vec::new();
    for At { value, span } in names {
        match upstream::token(&value) {
            Ok(name) => {
                // RFC 9110, section 9.3.2.
                let head = (&*name == "GET").then(|| "HEAD".into());
                all.extend([Some(name), head].into_iter().flatten());
            }
            Err(_) => t.complain(
                &span,
                Complaint::new(
                    "`methods`: not a method",
                    "write them as in `[\"GET\", \"POST\"]`",
                ),
            ),
        }
    }
    let mut known = std::collections::HashSet::new();
    all.retain(|name| known.insert(Arc::clone(name)));
    all
}

fn locations(t: &mut Table<'_>, scope: &Scope) -> Option<Vec<(Arc<str>, Template)>> {
    let given: Option<Fields> = t.optional(
        "rewrite_location",
        "Beginnings of `Location` in responses of the upstream and what stands in their place, \
         where it redirects to itself by a name that clients do not know: \
         `{ \"http://127.0.0.1:8080/\" = \"/\" }`. The longest that fits.",
    );
    let mut all = Vec::new();
    for Field { name, value } in given?.0 {
        let read = scope.read(&value.value, t.cx).and_then(|template| {
            // A scheme in place of another.
            let is_scheme = matches!(&*value.value, "http://" | "https://");
            if !is_scheme {
                super::action::location(&template)?;
            }
            Ok(template)
        });
        match read {
            _ if name.value.is_empty() => t.complain(
                &name.span,
                Complaint::new(
                    "`rewrite_location`: an empty beginning",
                    "write a URL or a path",
                ),
            ),
            Ok(template) => all.push((name.value, template)),
            Err(complaint) => t.complain(&value.span, complaint),
        }
    }
    all.sort_by_key(|(beginning, _)| std::cmp::Reverse(beginning.len()));
    Some(all)
}

fn hsts(t: &mut Table<'_>, place: Place) -> Option<Setting<Arc<str>>> {
    t.alternative(
        "hsts",
        inside!(place, "hsts"),
        "How long browsers are told to ask over HTTPS only (RFC 6797), or a table; `false`: they are \
         not told.",
        |word: HstsWord| match word {
            HstsWord::Off => Setting::Off,
            HstsWord::For(age) => Setting::On(format!("max-age={}", age.as_secs()).into()),
        },
        |t| {
            let age: Option<Duration> = t.required(
                "max_age",
                "How long browsers remember; two years are usual.",
            );
            let subdomains = t.or(
                "subdomains",
                false,
                "Whether it holds for all names below this one too.",
            );
            let preload = t.or(
                "preload",
                At::nowhere(false),
                "Whether the name may be put on the browsers' own lists.",
            );
            let age = age?.as_secs();
            let year = 365 * 24 * 3600;
            if preload.value && !(subdomains && age >= year) {
                t.complain(
                    &preload.span,
                    Complaint::new(
                        "`preload` wants `subdomains = true` and a `max_age` of a year",
                        "the lists take no name without both; and taking one out again takes months",
                    ),
                );
                return None;
            }
            let also = |on, word| if on { word } else { "" };
            Some(Setting::On(
                format!(
                    "max-age={age}{}{}",
                    also(subdomains, "; includeSubDomains"),
                    also(preload.value, "; preload")
                )
                .into(),
            ))
        },
    )
}

fn maintenance(t: &mut Table<'_>, place: Place) -> Option<Setting<Maintenance>> {
    let on = |file| {
        Setting::On(Maintenance {
            file,
            retry_after: default::MAINTENANCE_RETRY,
            allow: Vec::new(),
        })
    };
    t.alternative(
        "maintenance",
        inside!(place, "maintenance"),
        "Whether requests are answered with 503; a path: while there is a file, looked for every \
         second; or a table.",
        |word: MaintenanceWord| match word {
            MaintenanceWord::Off => Setting::Off,
            MaintenanceWord::Always => on(None),
            MaintenanceWord::While(file) => on(Some(file)),
        },
        |t| {
            Some(Setting::On(Maintenance {
                file: t.optional("file", "Only while this file exists; without: always."),
                retry_after: t.or_within(
                    "retry_after",
                    default::MAINTENANCE_RETRY,
                    Duration::from_secs(1)..=LONGEST,
                    "How long clients are told to wait, as `Retry-After`.",
                ),
                allow: t.or(
                    "allow",
                    Vec::new(),
                    "Clients that are served all the same, by address.",
                ),
            }))
        },
    )
}

enum HstsWord {
    Off,
    For(Duration),
}

impl FromToml for HstsWord {
    const FORM: &'static str = "a duration such as \"730d\", or `false`";

    fn from_toml(value: Value<'_>) -> Option<Self> {
        match value.node.get_ref() {
            DeValue::Boolean(false) => Some(Self::Off),
            DeValue::Boolean(true) => {
                value.complain(Complaint::new(
                    "does not say how long",
                    "write how long browsers remember, as in `\"730d\"`",
                ));
                None
            }
            DeValue::String(_) => Duration::from_toml(value).map(Self::For),
            _ => {
                value.wrong_type(Self::FORM);
                None
            }
        }
    }
}

enum MaintenanceWord {
    Off,
    Always,
    While(PathBuf),
}

impl FromToml for MaintenanceWord {
    const FORM: &'static str = "`true`, `false` or a path in quotes";

    fn from_toml(value: Value<'_>) -> Option<Self> {
        match value.node.get_ref() {
            DeValue::Boolean(false) => Some(Self::Off),
            DeValue::Boolean(true) => Some(Self::Always),
            DeValue::String(_) => PathBuf::from_toml(value).map(Self::While),
            _ => {
                value.wrong_type(Self::FORM);
                None
            }
        }
    }
}

struct IdField(Setting<Arc<str>>);

impl FromToml for IdField {
    const FORM: &'static str = "the name of a field such as \"X-Request-Id\", or \"\"";

    fn from_toml(value: Value<'_>) -> Option<Self> {
        let name = value.text(Self::FORM)?;
        if name.is_empty() {
            return Some(Self(Setting::Off));
        }
        let allowed = owned::refuse(name, Side::Request, Touch::Set)
            .and_then(|()| owned::refuse(name, Side::Response, Touch::Set));
        match allowed {
            Ok(()) if !name.eq_ignore_ascii_case("host") => Some(Self(Setting::On(name.into()))),
            Ok(()) => {
                value.complain(Complaint::new(
                    "`Host` says something else",
                    "write `\"X-Request-Id\"`",
                ));
                None
            }
            Err(complaint) => {
                value.complain(complaint);
                None
            }
        }
    }
}

/// Of a million.
struct Share(u32);

impl FromToml for Share {
    const FORM: &'static str = "a number from 0 to 1";

    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // it is from 0 to 1
    fn from_toml(value: Value<'_>) -> Option<Self> {
        let share = f64::from_toml(value)?;
        if !(0.0..=1.0).contains(&share) {
            value.complain(Complaint::new(
                format!("{share} is out of range"),
                "write a value from 0 to 1",
            ));
            return None;
        }
        Some(Self((share * 1e6).round() as u32))
    }
}

/// The words of `trace_context`.
#[derive(Clone, Copy)]
pub(in crate::config) enum TraceWord {
    Off,
    Continue,
    Restart,
}
