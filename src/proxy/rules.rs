//! The rules of a site or route, ready to be applied: who is let in, what is done with fields, what
//! is said where staunch answers itself.
//!
//! A site without rules has none of this: an `Option` that is `None`.

mod cookies;
mod marks;
pub mod material;
mod target;
mod value;

#[cfg(test)]
pub(super) use value::tests as testing;

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use smallvec::SmallVec;

pub use marks::{Marks, Random, UNMARKED};
pub use target::{location, rewritten};
pub use value::{Known, encode_path};

use super::auth::Auth;
use super::error::Refusal;
use super::quota::Quota;
use crate::config::{self, Change, Cookies, FieldRule, Instead, Setting, Template, Trace};
use crate::http::field::Fields;
use crate::http::{RequestHead, ResponseHead};
use crate::tls::identity::Identity;
use crate::upstream::Upstreams;
use material::{Flag, Material, Page};

/// See the module.
#[derive(Debug)]
pub struct Rules {
    request: Box<[FieldRule]>,
    response: Box<[FieldRule]>,
    /// Another host to ask the upstream for.
    host: Option<Template>,
    locations: Box<[(Arc<str>, Template)]>,
    cookies: Option<Box<Cookies>>,
    hsts: Option<Arc<str>>,
    allow: Box<[IpNet]>,
    deny: Box<[IpNet]>,
    maintenance: Option<Maintenance>,
    /// As they stand in `Allow`.
    methods: Option<Box<str>>,
    quotas: Box<[Arc<Quota>]>,
    auth: Option<Box<Auth>>,
    pages: Box<[(u16, u16, Said)]>,
    /// Requests get an id.
    identify: bool,
    /// The field that carries it.
    request_id: Option<Arc<str>>,
    trace: Option<Trace>,
    /// Of a million.
    trace_sample: u32,
    plain_text: bool,
}

/// What is said in place of the built-in body of an error.
#[derive(Debug)]
pub enum Said {
    /// This.
    Page(Arc<Page>),
    /// Nothing: the client is sent there, with this status.
    Redirect(u16, Arc<str>),
}

#[derive(Debug)]
struct Maintenance {
    /// `None`: always.
    flag: Option<Arc<Flag>>,
    retry_after: u32,
    allow: Box<[IpNet]>,
}

/// All traces, where nothing is said: what begins here is looked for here.
const ALL: u32 = 1_000_000;

impl Rules {
    /// Makes them ready; `None` where there is nothing to do.
    pub(super) fn new(
        rules: &config::Rules,
        upstreams: &Upstreams,
        material: &Material,
    ) -> Option<Self> {
        let is_host = |rule: &&FieldRule| rule.name.eq_ignore_ascii_case("host");
        let host = rules.request.iter().rfind(is_host);
        let others = rules.request.iter().filter(|rule| !is_host(rule));
        let maintenance = on(&rules.maintenance).map(|maintenance| Maintenance {
            flag: (maintenance.file.as_ref()).map(|file| material.flag(file)),
            retry_after: u32::try_from(maintenance.retry_after.as_secs()).unwrap_or(u32::MAX),
            allow: maintenance.allow.as_slice().into(),
        });
        let pages = rules.error_pages.iter().filter_map(|page| {
            let said = match &page.instead {
                Instead::File(file) => Said::Page(material.page(file)?),
                Instead::Text { body, content_type } => Said::Page(Arc::new(Page {
                    content_type: content_type.to_string().into(),
                    body: body.as_bytes().into(),
                })),
                Instead::Redirect { to, status } => Said::Redirect(*status, Arc::clone(to)),
            };
            Some((page.from, page.to, said))
        });
        let rules = Self {
            request: others.cloned().collect(),
            response: rules.response.as_slice().into(),
            host: host.and_then(|rule| match &rule.change {
                Change::Set(template) => Some(template.clone()),
                Change::Remove | Change::Add(_) => None,
            }),
            locations: rules.locations.as_deref().unwrap_or_default().into(),
            cookies: (rules.cookies != Cookies::default()).then(|| rules.cookies.clone().into()),
            hsts: on(&rules.hsts).cloned(),
            allow: rules.allow.as_deref().unwrap_or_default().into(),
            deny: rules.deny.as_deref().unwrap_or_default().into(),
            maintenance,
            methods: (rules.methods.as_deref())
                .filter(|names| !names.is_empty())
                .map(|names| names.join(", ").into()),
            quotas: (rules.quotas.iter().flatten())
                .filter_map(|name| material.tally().quotas().get(name).cloned())
                .collect(),
            auth: Auth::new(rules, upstreams, material),
            pages: pages.collect(),
            identify: rules.identify(),
            request_id: on(&rules.request_id).cloned(),
            trace: on(&rules.trace).copied(),
            trace_sample: rules.trace_sample.unwrap_or(ALL),
            plain_text: rules.plain_text == Some(true),
        };
        (!rules.is_empty()).then_some(rules)
    }

    fn is_empty(&self) -> bool {
        self.request.is_empty()
            && self.response.is_empty()
            && self.host.is_none()
            && self.locations.is_empty()
            && self.cookies.is_none()
            && self.hsts.is_none()
            && self.allow.is_empty()
            && self.deny.is_empty()
            && self.maintenance.is_none()
            && self.methods.is_none()
            && self.quotas.is_empty()
            && self.auth.is_none()
            && self.pages.is_empty()
            && !self.identify
            && self.trace.is_none()
            && !self.plain_text
    }

    /// Lets a client in or not.
    pub fn admit(&self, client: IpAddr) -> Result<(), Refusal> {
        if config::contains(&self.deny, client)
            || !self.allow.is_empty() && !config::contains(&self.allow, client)
        {
            return Err(Refusal::Forbidden);
        }
        match &self.maintenance {
            Some(maintenance)
                if maintenance.is_on() && !config::contains(&maintenance.allow, client) =>
            {
                Err(Refusal::Maintenance(maintenance.retry_after))
            }
            _ => Ok(()),
        }
    }

    /// Lets a method through or not.
    pub(super) fn admit_method(&self, method: &[u8]) -> Result<(), Refusal> {
        let is = |name: &str| name.as_bytes() == method;
        match &self.methods {
            Some(names) if !names.split(", ").any(is) => Err(Refusal::Method),
            _ => Ok(()),
        }
    }

    /// The methods that are let through, where not all are.
    pub(super) fn methods(&self) -> Option<&str> {
        self.methods.as_deref()
    }

    /// Whom it asks who somebody is.
    pub(super) fn auth(&self) -> Option<&Auth> {
        self.auth.as_deref()
    }

    /// What its requests are taken from.
    pub(super) fn quotas(&self) -> &[Arc<Quota>] {
        &self.quotas
    }

    /// Whether requests in plain text are answered.
    pub(super) const fn is_plain(&self) -> bool {
        self.plain_text
    }

    /// Whether a request gets an id or a place in a trace.
    pub const fn name_requests(&self) -> bool {
        self.identify || self.trace.is_some()
    }

    /// Whether requests are answered with 503 now; `None` where that is never the case.
    pub fn maintenance(&self) -> Option<bool> {
        self.maintenance.as_ref().map(Maintenance::is_on)
    }

    /// What is said for a status, where that is written.
    pub fn page(&self, status: u16) -> Option<&Said> {
        let mut pages = self.pages.iter();
        let fits = |(from, to, _): &&(u16, u16, Said)| (*from..=*to).contains(&status);
        pages.find(fits).map(|(_, _, said)| said)
    }

    /// Changes a request on its way to its upstream.
    pub fn to_upstream(
        &self,
        head: &mut RequestHead,
        peer: &super::Peer,
        identity: Option<&Identity>,
        client: IpAddr,
        marks: &Marks,
    ) {
        let known = Known {
            peer,
            identity,
            client,
            head,
            marks,
        };
        // All values first: they are of the request as it came.
        let changes = Changes::of(&self.request, &known, true);
        let host = self.host.as_ref().map(|template| known.text(template));
        changes.apply(&mut head.fields);
        marks.to_upstream(self.request_id.as_deref(), &mut head.fields);
        // A host that is none would make the request ambiguous.
        if let Some(host) = host
            && crate::http::host::Host::parse(&host).is_some()
        {
            head.authority = head.fields.store(&host);
        }
    }

    /// Changes where a response of an upstream sends its client.
    pub(super) fn rewrite_location(&self, response: &mut ResponseHead, known: &Known<'_>) {
        const LOCATION: &[u8] = b"Location";
        if self.locations.is_empty() {
            return;
        }
        let mut fields = response.fields.iter();
        let Some((.., value)) = fields.find(|(_, name, _)| name.eq_ignore_ascii_case(LOCATION))
        else {
            return;
        };
        for (beginning, template) in &self.locations {
            let Some(rest) = value.strip_prefix(beginning.as_bytes()) else {
                continue;
            };
            // Where nothing can be put in its place, it stays as the upstream said it.
            if let Ok(mut written) = location(template, known) {
                // The slash that both have.
                let both = written.ends_with(b"/") && rest.starts_with(b"/");
                written.extend_from_slice(&rest[usize::from(both)..]);
                drop(fields);
                response.fields.remove_named(LOCATION);
                response.fields.push(LOCATION, &written);
            }
            return;
        }
    }

    /// Changes a response on its way to its client.
    pub fn to_client(&self, response: &mut ResponseHead, known: &Known<'_>) {
        let ok = (200..400).contains(&response.status);
        if let Some(cookies) = &self.cookies {
            cookies::rewrite(cookies, response);
        }
        let fields = &mut response.fields;
        // RFC 6797, section 7.2: never over plain text.
        if let Some(hsts) = &self.hsts
            && known.peer.scheme == "https"
        {
            fields.remove_named(b"Strict-Transport-Security");
            fields.push(b"Strict-Transport-Security", hsts.as_bytes());
        }
        if let (Some(name), Some(id)) = (&self.request_id, known.marks.request_id()) {
            fields.remove_named(name.as_bytes());
            fields.push(name.as_bytes(), id);
        }
        for cookie in &known.marks.cookies {
            fields.push(b"Set-Cookie", cookie);
        }
        Changes::of(&self.response, known, ok).apply(fields);
    }
}

impl Maintenance {
    fn is_on(&self) -> bool {
        self.flag.as_ref().is_none_or(|flag| flag.is_up())
    }
}

fn on<T>(setting: &Option<Setting<T>>) -> Option<&T> {
    setting.as_ref().and_then(Setting::on)
}

/// Rules for fields, with their values.
struct Changes<'r> {
    rules: &'r [FieldRule],
    values: Vec<u8>,
    /// Where the value of each rule ends.
    ends: SmallVec<[usize; 16]>,
    /// The message is no error.
    ok: bool,
}

impl<'r> Changes<'r> {
    fn of(rules: &'r [FieldRule], known: &Known<'_>, ok: bool) -> Self {
        let (mut values, mut ends) = (Vec::new(), SmallVec::new());
        for rule in rules {
            if let Change::Set(template) | Change::Add(template) = &rule.change {
                known.append_text(template, &mut values);
            }
            ends.push(values.len());
        }
        Self {
            rules,
            values,
            ends,
            ok,
        }
    }

    fn apply(self, fields: &mut Fields) {
        let mut begin = 0;
        for (rule, end) in self.rules.iter().zip(self.ends) {
            let (name, value) = (rule.name.as_bytes(), &self.values[begin..end]);
            begin = end;
            if rule.if_ok && !self.ok {
                continue;
            }
            if !matches!(rule.change, Change::Add(_)) {
                fields.remove_named(name);
            }
            if !value.is_empty() {
                fields.push(name, value);
            }
        }
    }
}
