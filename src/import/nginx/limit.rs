//! Bounds on clients: sizes, rates, connections.

use super::scope::Scope;
use super::{Directive, Import, unit};
use crate::import::quoted;

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
        self.rates(http);
    }

    /// `limit_req` and `limit_conn` for all of a client's requests.
    fn rates(&mut self, http: &Scope<'_>) {
        for limit in http.all("limit_req") {
            let zone = named(limit, "zone").unwrap_or_default();
            let found = (http.all("limit_req_zone").into_iter()).find(|defined| {
                let name = named(defined, "zone").unwrap_or_default();
                name.split(':').next() == Some(zone) && is_client(defined.first())
            });
            let rate = found
                .and_then(|zone| named(zone, "rate"))
                .and_then(per_second);
            let Some(rate) = rate else {
                self.lost(
                    limit,
                    "is not so many requests of a client each second; see limits.client_rate",
                );
                continue;
            };
            // nginx lets one through at once, and as many more as the burst says.
            let burst = named(limit, "burst").and_then(|burst| burst.parse::<u32>().ok());
            self.limits.insert("client_rate", rate.to_string());
            self.limits
                .insert("client_burst", (burst.unwrap_or(0) + 1).to_string());
            if !limit.args.iter().any(|arg| arg == "nodelay") && burst.is_some() {
                self.differs(
                    limit,
                    "nginx delayed what is above the rate; here it is let through",
                );
            }
        }
        for limit in http.all("limit_conn") {
            let zone = limit.first();
            let found = (http.all("limit_conn_zone").into_iter()).any(|defined| {
                let name = named(defined, "zone").unwrap_or_default();
                name.split(':').next() == Some(zone) && is_client(defined.first())
            });
            match limit
                .args
                .get(1)
                .filter(|number| found && number.parse::<u32>().is_ok())
            {
                Some(number) => {
                    self.limits.insert("connections_per_client", number.clone());
                    self.differs(
                        limit,
                        "nginx counted requests in progress, of which HTTP/2 has many on one \
                         connection; here connections are counted",
                    );
                }
                None => self.lost(limit, "see limits.connections_per_client"),
            }
        }
    }

    /// Limits of a part of the requests, which there are not.
    pub(super) fn inner_limits(&mut self, scope: &Scope<'_>) {
        let own = scope.own();
        for limit in own.all("limit_req") {
            self.lost(
                limit,
                "bounded the rate of some requests; limits.client_rate is for all of a client, a \
                 site's rate for all clients together",
            );
        }
        for limit in own.all("limit_conn") {
            self.lost(
                limit,
                "bounded connections of some requests; limits.connections_per_client is for all",
            );
        }
    }
}

/// The value of `name=value`.
fn named<'d>(directive: &'d Directive, name: &str) -> Option<&'d str> {
    let mut args = directive.args.iter();
    args.find_map(|arg| arg.strip_prefix(name)?.strip_prefix('='))
}

fn is_client(key: &str) -> bool {
    matches!(key, "$binary_remote_addr" | "$remote_addr")
}

/// `10r/s`, and `120r/m` where it is a whole number each second.
fn per_second(rate: &str) -> Option<u32> {
    match rate.split_once("r/")? {
        (number, "s") => number.parse().ok(),
        (number, "m") => {
            let number: u32 = number.parse().ok()?;
            number.is_multiple_of(60).then_some(number / 60)
        }
        _ => None,
    }
    .filter(|rate| *rate > 0)
}
