//! From a snapshot of the world to the conditions that hold in it.
//!
//! [`evaluate`] reads no clock and no file. The same world gives the same conditions, in a drill as
//! in the night it matters: what it is lent to remember by ([`Known`]) only saves work.

mod folders;
mod known;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::condition::{Code, Condition};
use super::memory::Memory;
use super::{canary, next_step, words};
use crate::cert::ocsp::{State, Via};
use crate::cert::{
    Disk, DiskState, Fingerprint, Name, Origin, Reason, Report, ReportedCertificate, Validity,
};
use crate::clock::Timestamp;
use crate::config::{Alerts, Severity, SiteName};
use crate::priority;
pub use known::Known;

/// Files that were just written may be about to be written again.
const SETTLES: i64 = 10;
/// Chain and key may arrive one after the other; for this long that is no news.
const HALVES_SETTLE: i64 = 5 * 60;

/// What is to be judged.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The moment.
    pub now: Timestamp,
    /// Why the clock is doubted, when it is.
    pub clock: Option<&'a str>,
    /// The inventory at that moment.
    pub reports: &'a [Report],
    /// Which certificate answers for each name of a site.
    pub coverage: &'a [Coverage],
    /// The thresholds.
    pub config: &'a Alerts,
    /// Habits, and what recent renewals changed.
    pub memory: &'a Memory,
}

/// Which certificate answers for a name of a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// The name, as configured.
    pub name: Arc<str>,
    /// The certificate that a client asking for it would get.
    pub certificate: Option<Fingerprint>,
}

/// Which certificate covers each name of a site, judged by the reports alone: one that is valid
/// before one that is not, then the later expiry. `*` needs none.
pub fn coverage<'a>(
    names: impl IntoIterator<Item = &'a SiteName>,
    reports: &[Report],
    now: Timestamp,
) -> Vec<Coverage> {
    // Looked up by name, so that ten thousand sites against as many certificates stay cheap.
    let mut best: HashMap<&Name, &ReportedCertificate> = HashMap::new();
    let rank = |it: &ReportedCertificate| (validity(it).contains(now), it.not_after);
    for held in reports.iter().filter_map(|it| it.certificate.as_ref()) {
        for name in &*held.names {
            let known = best.entry(name).or_insert(held);
            if rank(held) > rank(known) {
                *known = held;
            }
        }
    }
    let covering = |names: &[Option<Name>]| {
        let held = names.iter().flatten().filter_map(|name| best.get(name));
        held.max_by_key(|it| rank(it))
            .map(|it| it.fingerprint_sha256)
    };
    let of = |name: &SiteName| match name {
        SiteName::Exact(host) => {
            let parent = host
                .split_once('.')
                .map(|(_, rest)| Name::Wildcard(rest.into()));
            let exact = host
                .parse()
                .map_or_else(|_| Name::Dns(host.clone()), Name::Ip);
            Some((host.clone(), covering(&[Some(exact), parent])))
        }
        SiteName::Wildcard(parent) => {
            let wildcard = Name::Wildcard(parent.clone());
            Some((wildcard.to_string().into(), covering(&[Some(wildcard)])))
        }
        SiteName::Any => None,
    };
    let covered = names.into_iter().filter_map(of);
    covered
        .map(|(name, certificate)| Coverage { name, certificate })
        .collect()
}

/// Every condition that holds in this world, at most one for each code and subject. `known` is what
/// an earlier look found, or nothing.
pub fn evaluate(world: &World<'_>, known: &mut Known) -> Vec<Arc<Condition>> {
    let mut all = Vec::new();
    known.begin(world);
    // One source may have several entries, side by side: what is served and what was kept.
    for reports in world.reports.chunk_by(|a, b| a.source == b.source) {
        all.extend_from_slice(known.of_source(world, reports));
        priority::breathe();
    }
    known.end();
    let mut found = Vec::new();
    folders::lost(world, &mut found);
    of_names(world, &mut found);
    found.extend(world.memory.differences(world.now).map(|(source, difference)| {
        Condition::new(
            Code::RenewalDiffers,
            words::clean(source),
            Severity::Information,
            format!(
                "The certificate renewed on {} differs from the one before: {}.",
                words::moment(difference.at),
                difference.changes.join("; ")
            ),
            "Nothing, if it was meant. Otherwise look at what the renewing program was told, before \
             clients that pin or compare notice.",
        )
        .since(difference.at)
        .label("changes", difference.kinds.join(","))
    }));
    found.extend(world.clock.map(|doubt| {
        Condition::new(
            Code::ClockSuspect,
            "clock",
            Severity::Critical,
            words::clean(doubt),
            "Compare `date -u` with another machine, and see `timedatectl` or `chronyc tracking`. \
             Dates of certificates cannot be judged rightly until it is mended.",
        )
    }));
    all.extend(found.into_iter().map(Arc::new));
    all
}

/// The file that a report is named after.
fn source_of(report: &Report) -> &str {
    report.source.first().map_or("", String::as_str)
}

/// What is wrong with one source.
fn of_source(world: &World<'_>, reports: &[Report]) -> Vec<Condition> {
    let mut found = Vec::new();
    let Some(first) = reports.first() else {
        return found;
    };
    // The canary is meant to be short of life and self-issued, and is watched over elsewhere.
    if first.is_folder || reports.iter().any(canary::is_canary) {
        return found;
    }
    let source = source_of(first);
    // The one that clients get, or would get, speaks for the source.
    let best = reports
        .iter()
        .filter_map(|report| report.certificate.as_ref().map(|it| (report, it)))
        .max_by_key(|(report, it)| {
            (
                report.serving,
                validity(it).contains(world.now),
                // It may answer for names that nobody configured, and hides nothing by that.
                !is_held_back(report),
                it.not_after,
            )
        });
    if let Some((report, held)) = best {
        let subject = Subject {
            source,
            report,
            held,
        };
        found.extend(subject.lifetime(world));
        found.extend(subject.chain());
        found.extend(subject.revoked());
        found.extend(subject.staple());
    }
    let before = reports.iter().filter(|report| !is_held_back(report));
    let held = before
        .filter_map(|report| report.certificate.as_ref())
        .max_by_key(|it| (validity(it).contains(world.now), it.not_after));
    found.extend(
        reports
            .iter()
            .find_map(|report| disk(world, source, &report.disk, held)),
    );
    found
}

/// Whether it is what is on disk and not taken, rather than what was there before.
fn is_held_back(report: &Report) -> bool {
    report.disk.state == DiskState::HeldBack && report.origin == Origin::Disk
}

/// A certificate that speaks for its source.
#[derive(Clone, Copy)]
struct Subject<'a> {
    source: &'a str,
    report: &'a Report,
    held: &'a ReportedCertificate,
}

impl Subject<'_> {
    /// Overdue, expiring, expired: each holds while the graver one does too.
    fn lifetime(self, world: &World<'_>) -> Vec<Condition> {
        let validity = validity(self.held);
        let now = world.now;
        let left = validity.share_left(now);
        let mut found = Vec::new();
        if let Some(overdue) = self.overdue(world, validity) {
            found.push(overdue);
        }
        if left >= world.config.expiring {
            return found;
        }
        let names = names(self.held);
        let at = threshold(validity, world.config.expiring);
        let summary = if left < 0.0 {
            format!(
                "The certificate for {names} expired on {}.",
                words::moment(validity.not_after)
            )
        } else {
            format!(
                "The certificate for {names} expires in {}, on {}: {} of its {} are left, and \
                 it has not been renewed.",
                words::span(validity.not_after.since(now)),
                words::moment(validity.not_after),
                words::percent(left),
                words::span(validity.lifetime())
            )
        };
        found.push(
            self.condition(Code::Expiring, Severity::Critical, summary)
                .since(at),
        );
        if now > validity.not_after {
            let summary = format!(
                "The certificate for {names} expired {} ago, on {}. {}",
                words::span(now.since(validity.not_after)),
                words::moment(validity.not_after),
                if self.report.serving {
                    "It is still served, since no better one is held: clients see a warning or \
                     refuse."
                } else {
                    "No name is answered with it."
                }
            );
            let expired = self.condition(Code::Expired, Severity::Critical, summary);
            found.push(expired.since(validity.not_after.plus(1)));
        }
        found
    }

    fn overdue(self, world: &World<'_>, validity: Validity) -> Option<Condition> {
        let now = world.now;
        let left = validity.share_left(now);
        let habit = habit_threshold(world.memory.habit(self.source), validity);
        let at = match habit {
            _ if left < world.config.overdue => world.config.overdue,
            Some(habit) if left < habit => habit,
            _ => return None,
        };
        let because = match habit {
            Some(habit) if habit > world.config.overdue => format!(
                "earlier renewals of this file came with at least {} left",
                words::percent(world.memory.habit(self.source).unwrap_or(habit))
            ),
            _ if left < 0.0 => {
                format!(
                    "nothing of its {} is left",
                    words::span(validity.lifetime())
                )
            }
            _ => format!(
                "{} of its {} are left",
                words::percent(left),
                words::span(validity.lifetime())
            ),
        };
        let when = if now > validity.not_after {
            format!("expired on {}", words::moment(validity.not_after))
        } else {
            format!(
                "expires in {}, on {}",
                words::span(validity.not_after.since(now)),
                words::moment(validity.not_after)
            )
        };
        let summary = format!(
            "The certificate for {} {when}, and should have been renewed by now: {because}.",
            names(self.held)
        );
        let overdue = self.condition(Code::RenewalOverdue, Severity::Warning, summary);
        Some(overdue.since(threshold(validity, at)))
    }

    /// What is known to be missing between the leaf and a root.
    fn chain(self) -> Option<Condition> {
        if !self.report.serving || (self.held.chain_complete && self.held.trusted) {
            return None;
        }
        let names = names(self.held);
        let sent = words::plural(
            i64::try_from(self.held.chain_length).unwrap_or(0),
            "certificate",
        );
        let (code, summary, step) = if self.held.chain_complete {
            (
                Code::UntrustedChain,
                format!(
                    "The chain of the certificate for {names} ({sent}, issued by {}) does not end \
                     at a root that this system trusts.",
                    words::clean(&self.held.issuer)
                ),
                "If the authority is your own, add its root to this system's trust store \
                 (`update-ca-certificates`), then reload (`systemctl reload staunch`); if not, clients \
                 refuse it: have it issued anew.",
            )
        } else {
            (
                Code::BrokenChain,
                format!(
                    "The chain of the certificate for {names} is incomplete: {sent} sent, and the \
                     issuer {} is not among them. Browsers may fetch it; other clients refuse.",
                    words::clean(&self.held.issuer)
                ),
                "Use the file with the whole chain (certbot: fullchain.pem, not cert.pem). If the \
                 authority is your own, add its root to this system's trust store \
                 (`update-ca-certificates`), then reload (`systemctl reload staunch`).",
            )
        };
        let mut condition = self.condition(code, Severity::Warning, summary);
        condition.deadline = None;
        condition.next_step = format!(
            "{step} Look: `openssl crl2pkcs7 -nocrl -certfile {} | openssl pkcs7 -print_certs -noout`.",
            words::shell(self.source)
        );
        Some(condition)
    }

    /// What its issuer says of it.
    fn revoked(self) -> Option<Condition> {
        let at = self.held.revoked?;
        let staple = self.held.staple.as_ref();
        let asked = staple.is_some_and(|staple| staple.from == Some(Via::Responder));
        let names = names(self.held);
        let summary = format!(
            "The certificate for {names} was revoked by its issuer {} on {}, so says {}: clients that \
             look refuse it.",
            words::clean(&self.held.issuer),
            words::moment(at),
            if asked {
                "its OCSP responder"
            } else {
                "the staple beside it"
            }
        );
        let mut condition = self
            .condition(Code::Revoked, Severity::Critical, summary)
            .since(at);
        condition.deadline = None;
        condition.next_step =
            "Have a new certificate issued, with a new key if the old one may have leaked."
                .to_owned();
        if !asked {
            let file = words::shell(&format!("{}.ocsp", self.source));
            let look = format!(" Look: `openssl ocsp -respin {file} -text -noverify`.");
            condition.next_step.push_str(&look);
        }
        Some(condition)
    }

    /// What clients that heed it refuse to do without (RFC 7633).
    fn staple(self) -> Option<Condition> {
        let staple = self
            .held
            .staple
            .as_ref()
            .filter(|_| self.held.must_staple)?;
        if staple.status != State::None {
            return None;
        }
        let why = staple.detail.as_ref().map_or_else(
            || "the last one has expired".to_owned(),
            |why| words::clean(why),
        );
        let summary = format!(
            "The certificate for {} must be presented with an OCSP staple (RFC 7633), and there is \
             none: {why}. Clients that heed this, such as Firefox, refuse it.",
            names(self.held)
        );
        let mut condition = self.condition(Code::StapleMissing, Severity::Critical, summary);
        condition.deadline = None;
        condition.next_step = format!(
            "See that staunch reaches the responder (`openssl x509 -noout -ocsp_uri -in {}`) and \
             that `tls.ocsp` lets it ask; or have the certificate issued without must-staple.",
            words::shell(self.source)
        );
        Some(condition)
    }

    /// A condition of this certificate. One that no client gets is nobody's emergency.
    fn condition(self, code: Code, severity: Severity, summary: String) -> Condition {
        let severity = if self.report.serving {
            severity
        } else {
            severity.min(Severity::Warning)
        };
        let first = self.held.names.first().map(ToString::to_string);
        Condition::new(
            code,
            words::clean(self.source),
            severity,
            summary,
            next_step::renew(self.source, first.as_deref()),
        )
        .deadline(self.held.not_after)
        .label("names", all_names(self.held))
        .label("issuer", words::clean(&self.held.issuer))
        .label("not_after", self.held.not_after.to_string())
        .label(
            "fingerprint_sha256",
            self.held.fingerprint_sha256.to_string(),
        )
    }
}

/// What the disk holds, where that is not what is held.
fn disk(
    world: &World<'_>,
    source: &str,
    disk: &Disk,
    held: Option<&ReportedCertificate>,
) -> Option<Condition> {
    let left = held.map_or(0.0, |it| validity(it).share_left(world.now));
    let code = match disk.state {
        DiskState::Same => return None,
        DiskState::Rejected if disk.reason == Some(Reason::Missing) => Code::CertificateMissing,
        DiskState::Rejected => Code::RenewalRejected,
        DiskState::HeldBack => Code::RenewalHeldBack,
        DiskState::Missing => Code::CertificateMissing,
        DiskState::Pinned => Code::CertificatePinned,
    };
    let patience = match disk.reason {
        Some(Reason::RefusedByClients) => 0,
        _ if disk.half => HALVES_SETTLE,
        _ => SETTLES,
    };
    // Where what is served is about to run out, there is no time to wait.
    if left >= world.config.expiring && settles(world, disk, patience) {
        return None;
    }
    let detail = disk
        .detail
        .as_deref()
        .map_or_else(String::new, words::clean);
    let file = disk.file.as_deref().unwrap_or(source);
    let summary = format!(
        "{} {}",
        headline(code, source, disk, held),
        sentence(&detail)
    );
    let step = match code {
        Code::RenewalHeldBack => next_step::accept(source),
        Code::CertificateMissing if disk.reason == Some(Reason::NotConfigured) => {
            "Name it in the configuration again, or one that takes its place, and reload. A restart \
             before that leaves its names without a certificate."
                .to_owned()
        }
        Code::CertificateMissing => {
            let after = match held {
                Some(_) => " After a restart, the copy kept in the state directory is served.",
                None => " Until then, nothing is served for its names by this certificate.",
            };
            format!(
                "Put it back, or take it out of the configuration: `ls -l {}`.{after}",
                words::shell(file)
            )
        }
        Code::CertificatePinned => "Mount the folder instead of the single file: a bind-mounted \
             file never shows a renewal that replaces it. Until then, restart the container after \
             each renewal."
            .to_owned(),
        _ => next_step::check(source),
    };
    let severity = if held.is_some() && left >= world.config.expiring {
        Severity::Warning
    } else {
        // Nothing good is held, or not for long: what is on disk is what is needed.
        Severity::Critical
    };
    let mut condition = Condition::new(code, words::clean(source), severity, summary.trim(), step)
        .since(disk.since);
    condition.deadline = held.map(|it| it.not_after);
    if let Some(reason) = disk.reason {
        condition = condition.label("reason", reason.code());
    }
    if let Some(held) = held {
        condition = condition.label("names", all_names(held));
    }
    Some(condition)
}

/// Whether it may still be about to change by itself.
fn settles(world: &World<'_>, disk: &Disk, patience: i64) -> bool {
    (0..patience).contains(&world.now.since(disk.since))
}

fn headline(code: Code, source: &str, disk: &Disk, held: Option<&ReportedCertificate>) -> String {
    let file = words::clean(source);
    // Of the two files it may be the key.
    let key = disk.file.as_deref().filter(|at_fault| *at_fault != source);
    let key = key.map(|key| {
        let key = words::clean(key);
        format!("{key}, the key of the certificate in {file},")
    });
    let what = match (code, key) {
        (Code::RenewalHeldBack, _) => {
            format!("{file} holds a new certificate that is worse than the one served")
        }
        (Code::CertificateMissing, _) if disk.reason == Some(Reason::NotConfigured) => {
            format!("{file} is no longer in the configuration")
        }
        (Code::CertificateMissing, None) => format!("{file} is not there"),
        (Code::CertificateMissing, Some(key)) => format!("{key} is not there"),
        (Code::CertificatePinned, _) => {
            format!("{file} was renewed on the host, where this container cannot see it")
        }
        (_, None) if disk.reason == Some(Reason::Unreadable) => format!("{file} cannot be read"),
        (_, None) => format!("{file} holds a certificate that cannot be served"),
        (_, Some(key)) => format!("{key} cannot be used"),
    };
    match held {
        Some(held) => format!(
            "{what}; the one from before is still served for {}, valid until {}.",
            names(held),
            words::moment(held.not_after)
        ),
        None => format!("{what}, and none is held from before."),
    }
}

/// Names that a client would be refused, or warned of.
fn of_names(world: &World<'_>, found: &mut Vec<Condition>) {
    if world.coverage.is_empty() {
        return;
    }
    // In order, to be found by halving: of several that hold the same, any will do.
    let held = world.reports.iter().filter_map(|report| {
        let held = report.certificate.as_ref()?;
        Some((report, held))
    });
    let mut held: Vec<_> = held.collect();
    held.sort_unstable_by_key(|(_, it)| it.fingerprint_sha256);
    let find = |wanted: Fingerprint| {
        let at = held.binary_search_by_key(&wanted, |(_, it)| it.fingerprint_sha256);
        held.get(at.ok()?)
    };
    for Coverage { name, certificate } in world.coverage {
        let covering = certificate.and_then(find);
        let mut severity = Severity::Critical;
        let below = match covering {
            None => covered_below(world, name),
            Some(_) => 0,
        };
        let summary = match covering {
            None if below > 0 => {
                // A site for whatever names there are certificates for.
                severity = Severity::Warning;
                format!(
                    "No certificate covers all of {name}, though {}: clients that ask for another \
                     get one for another name.",
                    match below {
                        1 => "one name below it has one".to_owned(),
                        more => format!("{more} names below it have one"),
                    }
                )
            }
            None => format!(
                "No certificate covers {name}: clients that ask for it get one for another name."
            ),
            Some((_, it)) if validity(it).contains(world.now) => continue,
            Some((report, it)) => {
                let when = if world.now > it.not_after {
                    format!("expired {} ago", words::span(world.now.since(it.not_after)))
                } else {
                    format!("is not valid before {}", words::moment(it.not_before))
                };
                format!(
                    "{name} is answered with a certificate that {when} ({}), since no other covers \
                     it.",
                    words::clean(source_of(report))
                )
            }
        };
        let step = format!(
            "Have a certificate issued that covers it, into a file or folder that a [[certificate]] \
             names; staunch takes it up by itself. See `staunch certs` and `{}`.",
            next_step::probe(name)
        );
        found.push(Condition::new(
            Code::NamesUncovered,
            &**name,
            severity,
            summary,
            step,
        ));
    }
}

/// How many names that a wildcard stands for have certificates of their own that are valid now.
fn covered_below(world: &World<'_>, name: &str) -> usize {
    let Some(parent) = name.strip_prefix("*.") else {
        return 0;
    };
    let certificates = world
        .reports
        .iter()
        .filter_map(|it| it.certificate.as_ref());
    let valid = certificates.filter(|it| validity(it).contains(world.now));
    let below: BTreeSet<&str> = valid
        .flat_map(|it| it.names.iter())
        .filter_map(|name| match name {
            Name::Dns(host) => host.split_once('.').filter(|(_, rest)| *rest == parent),
            _ => None,
        })
        .map(|(first, _)| first)
        .collect();
    below.len()
}

/// The share below which a source is clearly later than its own habit.
fn habit_threshold(habit: Option<f64>, validity: Validity) -> Option<f64> {
    const DAY: f64 = 86_400.0;
    #[allow(clippy::cast_precision_loss)] // seconds
    let lifetime = validity.lifetime() as f64;
    // A renewing job that runs daily may be a day late; a certificate of days has no day to spare.
    let margin = (0.05 * lifetime).max(DAY.min(0.10 * lifetime)) / lifetime;
    habit.map(|habit| habit - margin).filter(|at| *at > 0.0)
}

/// The moment when less than this share of the lifetime is left.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // seconds
pub(super) fn threshold(validity: Validity, share: f64) -> Timestamp {
    validity
        .not_after
        .plus(-((validity.lifetime() as f64 * share) as i64))
}

/// The moments from `after` on at which something is about to change for this certificate by the
/// mere passing of time.
pub fn turning_points(
    report: &Report,
    config: &Alerts,
    memory: &Memory,
    after: Timestamp,
) -> Vec<Timestamp> {
    let Some(held) = &report.certificate else {
        return Vec::new();
    };
    let validity = validity(held);
    let habit = habit_threshold(memory.habit(source_of(report)), validity);
    let shares = [Some(config.overdue), Some(config.expiring), habit];
    let mut points = vec![validity.not_before, validity.not_after.plus(1)];
    // One second into it, where "less than" holds whatever was rounded.
    points.extend(
        shares
            .into_iter()
            .flatten()
            .map(|share| threshold(validity, share).plus(1)),
    );
    points.retain(|at| *at > after);
    points
}

const fn validity(held: &ReportedCertificate) -> Validity {
    Validity {
        not_before: held.not_before,
        not_after: held.not_after,
    }
}

/// The names, as a sentence has them.
fn names(held: &ReportedCertificate) -> String {
    let names: Vec<String> = held.names.iter().take(3).map(ToString::to_string).collect();
    match held.names.len().saturating_sub(names.len()) {
        0 => words::list(&names, 3),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

/// The names, as a label has them; bounded, since a certificate may hold a hundred.
fn all_names(held: &ReportedCertificate) -> String {
    const MOST: usize = 20;
    let names: Vec<String> = held
        .names
        .iter()
        .take(MOST)
        .map(ToString::to_string)
        .collect();
    names.join(",")
}

/// With a full stop at its end.
fn sentence(text: &str) -> String {
    match text.trim() {
        "" => String::new(),
        text if text.starts_with(|c: char| c.is_ascii_lowercase()) => {
            let (first, rest) = text.split_at(1);
            sentence(&format!("{}{rest}", first.to_ascii_uppercase()))
        }
        text if text.ends_with(['.', '!', '?']) => text.to_owned(),
        text => format!("{text}."),
    }
}

#[cfg(test)]
mod tests;
