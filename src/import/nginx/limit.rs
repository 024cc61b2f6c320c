//! Bounds on clients: sizes, rates, connections.

use std::fmt::Write as _;

use super::rules::network;
use super::scope::Scope;
use super::value::Variables;
use super::{Directive, Import, map, unit};
use crate::import::site::Rules;
use crate::import::{array, quoted};

/// What nginx takes for a body where nothing is said.
const BODY: u64 = 1 << 20;

impl Import {
    /// `[limits]`
    pub(super) fn limits(&mut self, http: &Scope<'_>) {
        let body = http.nearest("client_max_body_size");
        let body = body
            .and_then(|directive| unit::bytes(directive.first()))
            .unwrap_or(BODY);
        self.request_body = Some(body);
        self.limits
            .insert("request_body", quoted(&unit::size(body)));
        let numbers = [
            ("keepalive_requests", "requests_per_connection"),
            ("http2_max_concurrent_streams", "streams"),
        ];
        for (name, key) in numbers {
            let Some(directive) = http.nearest(name) else {
                continue;
            };
            match directive.first().parse::<u32>() {
                Ok(number) if number > 0 => drop(self.limits.insert(key, number.to_string())),
                _ => self.lost(directive, format!("is not a number; see limits.{key}")),
            }
        }
        if let Some(directive) = http.nearest("large_client_header_buffers") {
            let sizes = directive.args.iter().map(|arg| unit::bytes(arg));
            let total = sizes.product::<Option<u64>>().unwrap_or(32 << 10);
            let head = total.clamp(8 << 10, 1 << 20);
            self.limits
                .insert("request_head", quoted(&unit::size(head)));
        }
    }

    /// `limit_req` and `limit_conn`, as quotas that a route names.
    pub(super) fn quotas(&mut self, scope: &Scope<'_>, variables: &Variables, rules: &mut Rules) {
        let dry = scope.is_on("limit_req_dry_run");
        let rates: Vec<_> = match dry {
            true => Vec::new(),
            false => scope.all("limit_req"),
        };
        let rates = rates
            .into_iter()
            .filter_map(|limit| self.rate(limit, scope, variables));
        let mut names: Vec<_> = rates.collect();
        for limit in scope.all("limit_conn") {
            names.extend(self.concurrent(limit, scope, variables));
        }
        if !names.is_empty() {
            rules.insert("quotas", array(&names));
        }
    }

    /// The quota of a `limit_req`.
    fn rate(
        &mut self,
        limit: &Directive,
        scope: &Scope<'_>,
        variables: &Variables,
    ) -> Option<String> {
        let zone = named(limit, "zone").unwrap_or_default();
        let found = defined(scope, "limit_req_zone", zone);
        let rate = found.and_then(|zone| named(zone, "rate")).and_then(rate);
        let (Some(found), Some(rate)) = (found, rate) else {
            let advice = "names a zone that is nowhere, or has no rate; see [quota.NAME]";
            self.lost(limit, advice);
            return None;
        };
        // nginx lets one through at once, and as many more as the burst says.
        let burst = named(limit, "burst").and_then(|burst| burst.parse::<u32>().ok());
        if !limit.args.iter().any(|arg| arg == "nodelay") && burst.is_some() {
            self.differs(
                limit,
                "nginx delayed what is above the rate; here it is let through, as far as the burst \
                 goes",
            );
        }
        let text = format!(
            "requests = {}\nburst = {}\n",
            quoted(&rate),
            burst.unwrap_or(0).saturating_add(1)
        );
        self.quota(limit, zone, found, &text, scope, variables)
    }

    /// The quota of a `limit_conn`.
    fn concurrent(
        &mut self,
        limit: &Directive,
        scope: &Scope<'_>,
        variables: &Variables,
    ) -> Option<String> {
        let found = defined(scope, "limit_conn_zone", limit.first());
        let most = limit.args.get(1).and_then(|most| most.parse::<u32>().ok());
        let (Some(found), Some(most)) = (found, most.filter(|most| *most > 0)) else {
            self.lost(
                limit,
                "names a zone that is nowhere, or no number; see [quota.NAME]",
            );
            return None;
        };
        let text = format!("concurrent = {most}\n");
        self.quota(limit, limit.first(), found, &text, scope, variables)
    }

    /// The name of a quota, written unless it is already.
    fn quota(
        &mut self,
        limit: &Directive,
        zone: &str,
        defined: &Directive,
        text: &str,
        scope: &Scope<'_>,
        variables: &Variables,
    ) -> Option<String> {
        let Some(Whose { by, except }) = whose(defined.first(), scope, variables) else {
            let advice = format!(
                "goes by {}, which is not known here: nothing is bounded; see [quota.NAME]",
                defined.first()
            );
            self.lost(limit, advice);
            return None;
        };
        let mut text = text.to_owned();
        if let Some(by) = by {
            let _ = writeln!(text, "by = {}", quoted(&by));
        }
        if !except.is_empty() {
            let _ = writeln!(text, "except = {}", array(&except));
        }
        let (name, new) = self.quotas.name(zone, &text);
        if new {
            let _ = write!(
                self.quotas.text,
                "\n[quota.{name}]  # from {}\n{text}",
                defined.place
            );
            if name.contains("--") {
                let advice = "is counted by itself: its zone is used with other settings elsewhere";
                self.differs(limit, advice);
            }
        }
        Some(name)
    }
}

/// Whose requests a zone counts together.
#[derive(Default)]
struct Whose {
    /// `None`: each client's.
    by: Option<String>,
    /// Clients that are not counted.
    except: Vec<String>,
}

fn whose(key: &str, scope: &Scope<'_>, variables: &Variables) -> Option<Whose> {
    if is_client(key) {
        return Some(Whose::default());
    }
    if let Ok(by) = variables.template(key) {
        return Some(Whose {
            by: Some(by),
            except: Vec::new(),
        });
    }
    exempted(key, scope)
}

/// A `map` of a `geo` that gives an empty key to some networks, and the client's address to all
/// others.
fn exempted(key: &str, scope: &Scope<'_>) -> Option<Whose> {
    let level = scope.outermost();
    let map = map::find(level, key)?;
    let geo = level.iter().find(|directive| {
        let name = directive.args.last().map(|name| map::bare(name));
        directive.name == "geo" && directive.args.len() == 1 && name == Some(map.source)
    })?;
    let of = |value: &str| {
        let mut entries = map.entries.iter();
        let entry = entries.find(|entry| map::key(entry) == value).copied();
        entry.or(map.default).map_or("", Directive::first)
    };
    let mut except = Vec::new();
    for entry in geo.inside() {
        let key = of(entry.first());
        match entry.name.as_str() {
            "default" if is_client(key) => {}
            "default" => return None,
            net if key.is_empty() => except.push(network(net)?),
            _ if is_client(key) => {}
            _ => return None,
        }
    }
    scope.mark_all(map.directive);
    scope.mark_all(geo);
    Some(Whose { by: None, except })
}

/// Where a zone is defined.
fn defined<'d>(scope: &Scope<'d>, directive: &str, zone: &str) -> Option<&'d Directive> {
    let is = |defined: &&Directive| {
        let name = named(defined, "zone").unwrap_or_default();
        name.split(':').next() == Some(zone)
    };
    scope.all(directive).into_iter().find(is)
}

/// The value of `name=value`.
fn named<'d>(directive: &'d Directive, name: &str) -> Option<&'d str> {
    let mut args = directive.args.iter();
    args.find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='))
}

fn is_client(key: &str) -> bool {
    matches!(key, "$binary_remote_addr" | "$remote_addr")
}

/// `10r/s` as `10/s`, `5r/m` as `5/m`.
fn rate(rate: &str) -> Option<String> {
    let (number, unit) = rate.split_once("r/")?;
    let number = number.parse::<u32>().ok().filter(|number| *number > 0)?;
    matches!(unit, "s" | "m").then(|| format!("{number}/{unit}"))
}
