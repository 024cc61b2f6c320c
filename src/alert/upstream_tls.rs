//! Certificates towards servers behind, as conditions: the one that servers are shown, and those
//! that they present.

use std::path::Path;

use super::condition::{Code, Condition};
use super::evaluate::threshold;
use super::{next_step, words};
use crate::cert::Validity;
use crate::cert::presented::PresentedCertificate;
use crate::clock::Timestamp;
use crate::config::{Alerts, Severity};
use crate::upstream::trust::Trust;
use crate::upstream::{Server, Upstream, Upstreams};

/// What is wrong with them now.
pub fn look(upstreams: &Upstreams, config: &Alerts, now: Timestamp) -> Vec<Condition> {
    let mut found: Vec<Condition> = Vec::new();
    for trust in upstreams.trusts() {
        found.extend(unusable(trust));
        // Several upstreams may show the same file.
        for condition in shown(trust, config, now) {
            if found.iter().all(|known| known.key() != condition.key()) {
                found.push(condition);
            }
        }
    }
    for upstream in upstreams.iter() {
        let servers = upstream.servers().iter();
        found.extend(servers.filter_map(|server| presented(upstream, server, config, now)));
    }
    found
}

fn validity(certificate: &PresentedCertificate) -> Validity {
    Validity {
        not_before: certificate.not_before,
        not_after: certificate.not_after,
    }
}

/// "expires in 3 days, on …" or "expired 2 hours ago, on …".
fn when(validity: Validity, now: Timestamp) -> String {
    let (span, at) = (
        words::span(validity.not_after.since(now)),
        words::moment(validity.not_after),
    );
    match validity.not_after < now {
        true => format!("expired {span} ago, on {at}"),
        false => format!("expires in {span}, on {at}"),
    }
}

/// Files that cannot be used.
fn unusable(trust: &Trust) -> Option<Condition> {
    let fault = trust.fault()?;
    let (severity, instead) = match trust.current() {
        Some(_) => (Severity::Warning, "what was read before goes on"),
        None => (
            Severity::Critical,
            "no connection to its servers can be made",
        ),
    };
    let file = words::clean(&fault.path.display().to_string());
    let upstream = words::clean(trust.upstream());
    let condition = Condition::new(
        Code::TlsFileUnusable,
        format!("{upstream}: {file}"),
        severity,
        format!(
            "{file} cannot be used for TLS to the upstream {upstream}: {}; {instead}.",
            words::clean(&fault.what)
        ),
        format!("Mend it: {}. It is read again by itself.", fault.help),
    );
    Some(condition.label("upstream", &**trust.upstream()))
}

/// The certificate that servers are shown: overdue, expiring, expired, each while the graver one
/// holds too.
fn shown(trust: &Trust, config: &Alerts, now: Timestamp) -> Vec<Condition> {
    let current = trust.current();
    let (Some(certificate), Some(file)) = (
        current.as_ref().and_then(|current| current.shown.as_ref()),
        trust.chain().map(Path::display),
    ) else {
        return Vec::new();
    };
    let validity = validity(certificate);
    let left = validity.share_left(now);
    let file = words::clean(&file.to_string());
    let upstream = words::clean(trust.upstream());
    let overdue = threshold(validity, config.overdue);
    let expiring = threshold(validity, config.expiring);
    let stages = [
        (
            left < config.overdue,
            Code::RenewalOverdue,
            Severity::Warning,
            overdue,
        ),
        (
            left < config.expiring,
            Code::Expiring,
            Severity::Critical,
            expiring,
        ),
        (
            left < 0.0,
            Code::Expired,
            Severity::Critical,
            validity.not_after.plus(1),
        ),
    ];
    let condition = |code, severity, since| {
        Condition::new(
            code,
            file.clone(),
            severity,
            format!(
                "The certificate that servers of the upstream {upstream} are shown {}: {} of its {} \
                 are left. Servers that ask for it refuse connections after that.",
                when(validity, now),
                words::percent(left.max(0.0)),
                words::span(validity.lifetime())
            ),
            next_step::renew(&file, None),
        )
        .since(since)
        .deadline(validity.not_after)
        .label("upstream", &**trust.upstream())
        .label("not_after", validity.not_after.to_string())
    };
    (stages.into_iter())
        .filter(|(holds, ..)| *holds)
        .map(|(_, code, severity, since)| condition(code, severity, since))
        .collect()
}

/// The certificate that a server presented last.
fn presented(
    upstream: &Upstream,
    server: &Server,
    config: &Alerts,
    now: Timestamp,
) -> Option<Condition> {
    let presented = server.presented.load_full()?;
    let certificate = &presented.certificate;
    let validity = validity(certificate);
    let left = validity.share_left(now);
    let (severity, share) = match left {
        _ if left < config.expiring => (Severity::Critical, config.expiring),
        _ if left < config.overdue => (Severity::Warning, config.overdue),
        _ => return None,
    };
    let (name, url) = (words::clean(&upstream.name), words::clean(&server.url));
    let subject = match name == url {
        true => url.clone(),
        false => format!("{name}: {url}"),
    };
    let condition = Condition::new(
        Code::UpstreamExpiring,
        subject,
        severity,
        format!(
            "The certificate of the server {url} of the upstream {name} ({}) {}: {} of its {} are \
             left. It is not used once it has expired.",
            words::clean(&certificate.subject),
            when(validity, now),
            words::percent(left.max(0.0)),
            words::span(validity.lifetime())
        ),
        "Have it renewed on that server, and see that the server presents the new one: \
         `openssl s_client -connect HOST:PORT </dev/null | openssl x509 -noout -dates`.",
    );
    Some(
        condition
            .since(threshold(validity, share))
            .deadline(validity.not_after)
            .label("upstream", &*upstream.name)
            .label("server", &*server.url)
            .label("not_after", validity.not_after.to_string()),
    )
}
