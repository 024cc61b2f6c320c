//! What one name of a site would be served with.

use serde::Serialize;

use crate::cert::inventory::Inventory;
use crate::cert::select::Choice;
use crate::cert::{Fingerprint, KeyType, Origin, Stage};
use crate::clock::Timestamp;
use crate::config::{Config, SiteName};

/// What one name of a site would be answered with.
pub(super) struct Served {
    pub(super) name: String,
    /// `None`: no certificate covers it.
    pub(super) choice: Option<Choice>,
    stage: Option<Stage>,
    /// Names that a wildcard without a certificate stands for and that have their own.
    below: usize,
}

impl Served {
    pub(super) fn is_well(&self) -> bool {
        if self.choice.is_none() {
            return self.below > 0;
        }
        matches!(self.stage, Some(stage) if !matches!(stage, Stage::Expired | Stage::NotYetValid))
    }

    pub(super) fn of(
        name: &SiteName,
        config: &Config,
        inventory: &Inventory,
        now: Timestamp,
    ) -> Self {
        let choice = match name {
            SiteName::Exact(host) => inventory.choice(host, now),
            // What covers the wildcard itself covers all that it stands for.
            SiteName::Wildcard(parent) => inventory.choice(&format!("*.{parent}"), now),
            SiteName::Any => inventory.default_choice(now),
        };
        let stage = choice.as_ref().map(|choice| {
            let validity = choice.certificate.facts().validity;
            validity.stage(now, config.alerts.overdue, config.alerts.expiring)
        });
        let below = match name {
            SiteName::Wildcard(parent) if choice.is_none() => inventory.covered_below(parent, now),
            _ => 0,
        };
        Self {
            name: name.to_string(),
            choice,
            stage,
            below,
        }
    }

    pub(super) fn sentence(&self, now: Timestamp) -> String {
        let Some(choice) = &self.choice else {
            match self.below {
                0 => {}
                1 => {
                    return "only one name below it has a certificate; others get the default one"
                        .to_owned();
                }
                more => {
                    return format!(
                        "only {more} names below it have certificates; others get the default one"
                    );
                }
            }
            return "NOTHING: no certificate covers this name; add one that does, or clients get the \
                    default certificate and refuse it"
                .to_owned();
        };
        let facts = choice.certificate.facts();
        let days = facts.validity.not_after.since(now).div_euclid(86_400);
        let state = match self.stage {
            Some(Stage::Expired) => "EXPIRED".to_owned(),
            Some(Stage::NotYetValid) => format!("NOT VALID before {}", facts.validity.not_before),
            Some(Stage::Expiring) => format!("expiring: {days} days left, renew it now"),
            Some(Stage::Overdue) => format!("renewal overdue: {days} days left"),
            _ => format!("{days} days left"),
        };
        let copy = match choice.origin {
            Origin::Disk => "",
            Origin::LastGood => ", a copy kept from before",
        };
        format!(
            "{}{copy} ({}, by {}), until {}: {state}",
            choice.source, facts.key_type, facts.issuer, facts.validity.not_after
        )
    }

    /// The same for programs.
    pub(super) fn document(&self) -> Document<'_> {
        Document {
            name: &self.name,
            well: self.is_well(),
            stage: self.stage,
            certificate: self.choice.as_ref().map(|choice| {
                let facts = choice.certificate.facts();
                Certificate {
                    source: &choice.source,
                    origin: choice.origin,
                    fingerprint_sha256: facts.fingerprint,
                    issuer: &facts.issuer,
                    key_type: facts.key_type,
                    not_before: facts.validity.not_before,
                    not_after: facts.validity.not_after,
                }
            }),
            names_below: self.below,
        }
    }
}

/// What a program is told of one name.
#[derive(Serialize)]
pub(super) struct Document<'a> {
    name: &'a str,
    well: bool,
    stage: Option<Stage>,
    certificate: Option<Certificate<'a>>,
    names_below: usize,
}

#[derive(Serialize)]
struct Certificate<'a> {
    source: &'a str,
    origin: Origin,
    fingerprint_sha256: Fingerprint,
    issuer: &'a str,
    key_type: KeyType,
    not_before: Timestamp,
    not_after: Timestamp,
}
