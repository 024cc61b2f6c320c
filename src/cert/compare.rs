//! Never worse: whether a certificate may take the place of another.
//!
//! A renewal is taken at once unless it would make some client fail that succeeds now. The question
//! is comparative: a certificate that is worse than a *good* one is held back, and the same
//! certificate is welcome where the old one is dead.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::faults::{days, shell};
use super::{Facts, Name, Reason, Rejection, Verified};
use crate::clock::Timestamp;
use crate::config::{Site, SiteName};

/// The names that the configured sites answer to: what a certificate must not lose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    exact: BTreeSet<Arc<str>>,
    /// `*.example.com`, holding `example.com`.
    wildcard: BTreeSet<Arc<str>>,
    /// Some site answers to any name.
    any: bool,
}

impl Needs {
    /// What these names need.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a SiteName>) -> Self {
        let mut needs = Self::default();
        for name in names {
            match name {
                SiteName::Exact(host) => drop(needs.exact.insert(Arc::clone(host))),
                SiteName::Wildcard(parent) => drop(needs.wildcard.insert(Arc::clone(parent))),
                SiteName::Any => needs.any = true,
            }
        }
        needs
    }

    /// What these sites need.
    pub fn of_sites(sites: &[Site]) -> Self {
        Self::new(sites.iter().flat_map(|site| &site.names))
    }

    /// The names of sites that this certificate covers, a wildcard as `*.example.com`. A site that
    /// answers to any name needs none in particular.
    pub fn covered_by(&self, certificate: &Verified) -> BTreeSet<String> {
        let mut covered = BTreeSet::new();
        // Looked up rather than gone through: there may be ten thousand certificates to ask about.
        for name in &*certificate.facts().names {
            match name {
                Name::Dns(host) => covered.extend(self.exact.get(host).map(ToString::to_string)),
                Name::Wildcard(parent) if self.wildcard.contains(parent) => {
                    covered.insert(name.to_string());
                }
                Name::Wildcard(_) | Name::Ip(_) => {}
            }
            if !matches!(name, Name::Dns(_)) {
                let exact = self.exact.iter().filter(|host| name.covers(host));
                covered.extend(exact.map(ToString::to_string));
            }
        }
        covered
    }

    /// Names that a site answers to, which `old` covers and `new` does not.
    pub fn lost(&self, old: &Verified, new: &Verified) -> Vec<String> {
        let mut lost = BTreeSet::new();
        for host in &self.exact {
            if old.covers(host) && !new.covers(host) {
                lost.insert(host.to_string());
            }
        }
        for name in &*old.facts().names {
            if self.wants(name) && !covers_all_of(new, name) {
                lost.insert(name.to_string());
            }
        }
        lost.into_iter().collect()
    }

    /// Whether a wildcard or catch-all site answers to all that this name stands for. Exact hosts
    /// are asked for one by one.
    fn wants(&self, name: &Name) -> bool {
        if self.any {
            return true;
        }
        match name {
            Name::Dns(host) => host
                .split_once('.')
                .is_some_and(|(_, parent)| self.wildcard.contains(parent)),
            Name::Wildcard(parent) => self.wildcard.contains(parent),
            Name::Ip(_) => false,
        }
    }
}

/// Whether the certificate covers everything that this name stands for.
fn covers_all_of(certificate: &Verified, name: &Name) -> bool {
    certificate.facts().names.contains(name)
        || match name {
            Name::Dns(host) => certificate.covers(host),
            Name::Wildcard(_) | Name::Ip(_) => false,
        }
}

/// Whether `new`, from the same source, may take the place of `old` at this moment.
///
/// # Errors
/// Why it is held back: the gravest reason, with what was expected, what was found, and what an
/// operator can do.
pub fn judge(
    old: &Verified,
    new: &Verified,
    needs: &Needs,
    now: Timestamp,
) -> Result<(), Rejection> {
    let comparison = Comparison {
        old,
        new,
        needs,
        now,
    };
    let verdict = if old.facts().validity.contains(now) {
        comparison.with_a_live_one()
    } else {
        comparison.with_a_dead_one()
    };
    verdict.map_err(|(reason, detail)| Rejection {
        reason,
        path: new.facts().path.to_path_buf(),
        detail: format!("held back: {detail}"),
        help: comparison.help(reason),
    })
}

struct Comparison<'a> {
    old: &'a Verified,
    new: &'a Verified,
    needs: &'a Needs,
    now: Timestamp,
}

type Verdict = Result<(), (Reason, String)>;

impl Comparison<'_> {
    /// The old one is valid: the new one must not be worse in anything.
    fn with_a_live_one(&self) -> Verdict {
        self.dates()?;
        self.names()?;
        self.usage()?;
        self.chain()?;
        self.weakness()?;
        self.age()
    }

    /// The old one has expired, or is not valid yet: clients refuse it anyhow, so that whatever is
    /// nearer to being valid is an improvement.
    fn with_a_dead_one(&self) -> Verdict {
        let (old, new) = (self.old.facts().validity, self.new.facts().validity);
        if new.contains(self.now) {
            return Ok(());
        }
        let new_is_past = self.now > new.not_after;
        let old_is_past = self.now > old.not_after;
        match (old_is_past, new_is_past) {
            (true, true) if new.not_after < old.not_after => Err((
                Reason::Expired,
                format!(
                    "it expired at {}, earlier than the expired one that is held, at {}",
                    new.not_after, old.not_after
                ),
            )),
            (false, true) => Err((
                Reason::Expired,
                format!(
                    "it expired at {}; the one that is held becomes valid at {}",
                    new.not_after, old.not_before
                ),
            )),
            (false, false) if new.not_before > old.not_before => Err((
                Reason::NotYetValid,
                format!(
                    "it is not valid before {}; the one that is held already at {}",
                    new.not_before, old.not_before
                ),
            )),
            _ => Ok(()),
        }
    }

    fn dates(&self) -> Verdict {
        let (old, new) = (self.old.facts().validity, self.new.facts().validity);
        let served = format!("the one that is served is valid until {}", old.not_after);
        if self.now > new.not_after {
            let ago = days(self.now.since(new.not_after));
            let detail = format!("it expired at {}, {ago} ago; {served}", new.not_after);
            return Err((Reason::Expired, detail));
        }
        if self.now < new.not_before {
            let ahead = days(new.not_before.since(self.now));
            let detail = format!(
                "it is not valid before {}, in {ahead}; {served}",
                new.not_before
            );
            return Err((Reason::NotYetValid, detail));
        }
        Ok(())
    }

    fn names(&self) -> Verdict {
        const SPELT_OUT: usize = 5;
        let lost = self.needs.lost(self.old, self.new);
        if lost.is_empty() {
            return Ok(());
        }
        let more = match lost.len().saturating_sub(SPELT_OUT) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let first = lost[..lost.len().min(SPELT_OUT)].join(", ");
        let has = match &*self.new.facts().names {
            [] => "no names at all".to_owned(),
            names => {
                let shown: Vec<_> = names.iter().take(SPELT_OUT).map(Name::to_string).collect();
                let rest = if names.len() > SPELT_OUT { ", …" } else { "" };
                format!("{}{rest}", shown.join(", "))
            }
        };
        Err((
            Reason::NamesLost,
            format!(
                "it does not cover {first}{more}, which a site answers to and the one that is \
                 served covers; it covers {has}"
            ),
        ))
    }

    fn usage(&self) -> Verdict {
        if self.old.facts().server_usage && !self.new.facts().server_usage {
            let detail = "its key usages leave out that of a TLS server, unlike those of the one \
                          that is served";
            return Err((Reason::WrongUsage, detail.to_owned()));
        }
        Ok(())
    }

    fn chain(&self) -> Verdict {
        let (old, new) = (self.old.facts(), self.new.facts());
        let why = || match &new.chain_shortcoming {
            Some(why) => format!(" ({why})"),
            None => String::new(),
        };
        if unexpired(old, self.now) && !unexpired(new, self.now) {
            return Err((
                Reason::BrokenChain,
                format!(
                    "'{}', which its chain goes through, expired at {}; the chain that is served \
                     is valid until {}",
                    new.first_to_expire, new.chain_not_after, old.chain_not_after
                ),
            ));
        }
        if old.chain_complete && !new.chain_complete {
            let detail = format!(
                "its chain has a gap{}; the chain that is served has none",
                why()
            );
            return Err((Reason::BrokenChain, detail));
        }
        if old.trusted && unexpired(old, self.now) && !new.trusted {
            let detail = format!(
                "its chain, issued by '{}', is not trusted{}; the one that is served, issued by \
                 '{}', is",
                new.issuer,
                why(),
                old.issuer
            );
            return Err((Reason::UntrustedChain, detail));
        }
        Ok(())
    }

    fn weakness(&self) -> Verdict {
        let (old, new) = (self.old.facts(), self.new.facts());
        if old.weaknesses.is_empty() && !new.weaknesses.is_empty() {
            let detail = format!(
                "{}; the one that is served has no such weakness",
                new.weaknesses.join("; ")
            );
            return Err((Reason::WeakKey, detail));
        }
        Ok(())
    }

    /// Issued before the one that is served: most often a backup put back, or a stale copy that
    /// arrived late. That it is *better* in something outweighs its age, as when a bought
    /// certificate takes the place of a self-signed one made a minute ago.
    fn age(&self) -> Verdict {
        let (old, new) = (self.old.facts().validity, self.new.facts().validity);
        if self.is_better() {
            return Ok(());
        }
        if new.not_before < old.not_before {
            let detail = format!(
                "it was issued at {}, before the one that is served, at {}",
                new.not_before, old.not_before
            );
            return Err((Reason::Older, detail));
        }
        if new.not_before == old.not_before && new.not_after < old.not_after {
            let detail = format!(
                "it was issued at the same time as the one that is served and expires earlier, at \
                 {} instead of {}",
                new.not_after, old.not_after
            );
            return Err((Reason::Older, detail));
        }
        Ok(())
    }

    fn is_better(&self) -> bool {
        let (old, new) = (self.old.facts(), self.new.facts());
        let sound = |facts: &Facts| facts.chain_complete && unexpired(facts, self.now);
        !sound(old) && sound(new)
            || !old.trusted && new.trusted
            || !old.server_usage && new.server_usage
            || !old.weaknesses.is_empty() && new.weaknesses.is_empty()
            || !self.needs.lost(self.new, self.old).is_empty()
    }

    fn help(&self, reason: Reason) -> String {
        let path = shell(&self.new.facts().path);
        let look = match reason {
            Reason::NamesLost => format!("openssl x509 -noout -ext subjectAltName -in {path}"),
            Reason::WrongUsage => {
                format!("openssl x509 -noout -ext extendedKeyUsage,keyUsage -in {path}")
            }
            Reason::BrokenChain | Reason::UntrustedChain => {
                format!("openssl verify -untrusted {path} {path}")
            }
            Reason::WeakKey => format!("openssl x509 -noout -text -in {path}"),
            _ => format!("openssl x509 -noout -dates -in {path}"),
        };
        format!(
            "see it with: {look}; put a better one in place, or, if it is meant: staunch accept \
             {path} --because \"…\""
        )
    }
}

/// Whether nothing on the way from the leaf to the root has expired, the leaf's own end aside.
fn unexpired(facts: &Facts, now: Timestamp) -> bool {
    facts.chain_not_after >= now || facts.chain_not_after >= facts.validity.not_after
}

#[cfg(test)]
mod tests;
