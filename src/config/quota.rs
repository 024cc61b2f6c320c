//! `[quota.NAME]`: what a client may ask for in the sites and routes that name it.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::Rate;
use super::diagnostic::{Complaint, Diagnostic, Span};
use super::read::{At, Table};
use super::rules::{Scope, Template};

/// One `[quota.NAME]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Requests in a time.
    pub rate: Option<Rate>,
    /// Requests that are worked on at once.
    pub concurrent: Option<NonZeroUsize>,
    /// Whom it is for: requests with the same value share one; `None`: those of one client.
    pub by: Option<Template>,
    /// Clients that it is not for.
    pub except: Vec<IpNet>,
}

/// One `[quota.NAME]`, as it was read.
pub(super) struct RawQuota {
    pub(super) name: Arc<str>,
    pub(super) span: Span,
    pub(super) quota: Quota,
}

/// `10/s`, `30/m`, `100/h`
#[derive(Clone, Copy, Debug)]
pub(super) struct Requests {
    count: NonZeroU32,
    within: Duration,
}

/// Reads `10/s`.
pub(super) fn requests(text: &str) -> Result<Requests, Complaint> {
    const MOST: u32 = 1_000_000;
    let read = text.split_once('/').and_then(|(count, unit)| {
        let seconds = match unit.trim() {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            _ => return None,
        };
        let count = count.trim().parse().ok().filter(|count| *count <= MOST)?;
        Some(Requests {
            count: NonZeroU32::new(count)?,
            within: Duration::from_secs(seconds),
        })
    });
    read.ok_or_else(|| {
        Complaint::new(
            "is not a rate",
            "write a number of 1 to 1000000 for each second, minute or hour: `\"10/s\"`, \
             `\"30/m\"`, `\"100/h\"`",
        )
    })
}

/// Reads one.
pub(super) fn quota(t: &mut Table<'_>, name: &str, span: Span) -> Option<RawQuota> {
    let requests: Option<Requests> = t.optional(
        "requests",
        "Requests for each second, minute or hour: `\"10/s\"`, `\"30/m\"`, `\"100/h\"`. More are \
         answered with 429.",
    );
    let burst: Option<u32> = t.optional_within(
        "burst",
        1..=1_000_000,
        "Requests that may come at once, after a time with fewer; without: as many as `requests` \
         says.",
    );
    let concurrent: Option<NonZeroUsize> = t.optional(
        "concurrent",
        "Requests that are worked on at once, tunnels among them. More are answered with 429.",
    );
    let by: Option<At<Arc<str>>> = t.optional(
        "by",
        "Whose requests are counted together, with variables: `\"{header:X-Api-Key}\"`, \
         `\"{host}\"`; a text without any counts all together, and where it comes out empty, nothing \
         is counted. Without: those of one client address (in IPv6: one /64).",
    );
    let except: Vec<IpNet> = t.or("except", Vec::new(), "Clients that it is not for.");
    if burst.is_some() && !t.has("requests") {
        let place = t.place("burst").unwrap_or_else(|| t.span.clone());
        t.cx.report_missing(
            Diagnostic::error(place, "`burst` without `requests`")
                .help("write `requests = \"10/s\"` beside it, or take it out"),
        );
    }
    if !t.has("requests") && !t.has("concurrent") {
        t.cx.report_missing(
            Diagnostic::error(t.span.clone(), format!("{} bounds nothing", t.label))
                .help("write `requests = \"10/s\"`, or `concurrent = 10`"),
        );
    }
    let by = by.and_then(|by| {
        let read = Scope::default().read(&by.value, t.cx);
        read.map_err(|complaint| t.complain(&by.span, complaint))
            .ok()
    });
    Some(RawQuota {
        name: name.into(),
        span,
        quota: Quota {
            rate: requests.map(|requests| Rate {
                requests: requests.count,
                within: requests.within,
                burst: burst.and_then(NonZeroU32::new).unwrap_or(requests.count),
            }),
            concurrent,
            by,
            except,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_for_a_second_a_minute_or_an_hour() {
        for (text, expected) in [("10/s", (10, 1)), ("30/m", (30, 60)), ("1 / h", (1, 3600))] {
            let read = requests(text).unwrap();
            assert_eq!((read.count.get(), read.within.as_secs()), expected);
        }
        for text in ["", "10", "0/s", "-1/s", "10/d", "2000000/s", "1.5/s"] {
            assert!(requests(text).is_err(), "{text}");
        }
    }
}
