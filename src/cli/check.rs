//! `staunch check`: what would be served, now or at another moment, and what is wrong.
//!
//! Certificates are read and judged by the same code as in `staunch run`. Only what is on disk
//! counts: last-good copies in the state directory are what is left when everything here has been
//! ignored.

mod files;
mod machine;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::{DEFAULT_CONFIG, Exit, say};
use crate::cert::inventory::Inventory;
use crate::cert::keeper::{self, Wanted};
use crate::cert::load::Roots;
use crate::cert::select::Choice;
use crate::cert::{DiskState, Report, Stage};
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Config, SiteName};
use crate::proxy::rules::material::{Fault, Material};
use crate::tls::file;

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,

    /// Judge as of this moment instead of now: RFC 3339, or a date
    #[arg(long, value_name = "RFC3339", value_parser = moment)]
    at: Option<Timestamp>,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .ok_or_else(|| "not a time like 2027-02-01T00:00:00Z or 2027-02-01".to_owned())
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(report) => {
            eprint!("{report}");
            return Exit::Failed;
        }
    };
    if !config.warnings.is_empty() {
        eprint!("{}", config.warnings);
    }
    let now = args.at.unwrap_or_else(|| Clock::system().now());
    let access_log = files::access_log(&config);
    let file = args.config.display();
    if let Some(files::Fault { path, what, help }) = &access_log {
        let path = path.display();
        eprintln!("{file}: error: {path}: {what}\n      help: {help}");
    }
    let roots = Arc::new(Roots::system());
    let inventory = keeper::survey(Wanted::of(&config), Clock::manual(now), Arc::clone(&roots));
    let mut verdict = Verdict::of(&config, &inventory, now);
    let (material, pages) = Material::read(&config, &Material::default());
    verdict.pages = pages;
    for users in material.all_users() {
        verdict.users.extend(users.faults().iter().cloned());
    }
    verdict.files = files::faults(&config, now, &roots);
    let (found, advice) = (verdict.text(now), machine::Machine::this().advice(&config));
    let (usable, exit) = match (access_log, verdict.is_well()) {
        (Some(_), _) => ("cannot be used as it is", Exit::Failed),
        (None, true) => ("is usable", Exit::Ok),
        (None, false) => ("is usable", Exit::Bad),
    };
    say(
        format_args!("{file}: the configuration {usable}\n{found}{advice}"),
        exit,
    )
}

/// Exposed keys that are named one by one.
const EXPOSED: usize = 10;

/// What was found.
struct Verdict {
    sites: Vec<Served>,
    /// Sources whose files are not what would be served.
    refused: Vec<Report>,
    /// Keys that everybody on this machine may read: no fault of what is served.
    exposed: BTreeSet<PathBuf>,
    /// Error pages that cannot be used.
    pages: Vec<Fault>,
    /// Files of `basic_auth`, and lines of them, that cannot be used.
    users: Vec<file::Fault>,
    /// Other files that cannot be used.
    files: Vec<files::Fault>,
}

/// What one name of a site would be answered with.
struct Served {
    name: String,
    /// `None`: no certificate covers it.
    choice: Option<Choice>,
    stage: Option<Stage>,
    /// Names that a wildcard without a certificate stands for and that have their own.
    below: usize,
}

impl Served {
    fn is_well(&self) -> bool {
        if self.choice.is_none() {
            return self.below > 0;
        }
        matches!(self.stage, Some(stage) if !matches!(stage, Stage::Expired | Stage::NotYetValid))
    }
}

impl Verdict {
    fn of(config: &Config, inventory: &Inventory, now: Timestamp) -> Self {
        // What is served in plain text only need not have one.
        let terminated = (config.sites.iter())
            .filter(|site| !config.listen.https.is_empty() && site.needs_certificate());
        let sites = (terminated.flat_map(|site| &site.names))
            .map(|name| Served::of(name, config, inventory, now))
            .collect();
        let refused = (inventory.report(now).into_iter())
            .filter(|report| report.disk.state != DiskState::Same)
            .collect();
        let exposed = inventory
            .sources()
            .filter_map(|source| source.exposed_key());
        let exposed = exposed.map(PathBuf::from).collect();
        Self {
            sites,
            refused,
            exposed,
            pages: Vec::new(),
            users: Vec::new(),
            files: Vec::new(),
        }
    }

    fn is_well(&self) -> bool {
        self.refused.is_empty()
            && self.pages.is_empty()
            && self.users.is_empty()
            && self.files.is_empty()
            && self.sites.iter().all(Served::is_well)
    }

    fn text(&self, now: Timestamp) -> String {
        let mut text = String::new();
        if !self.sites.is_empty() {
            let _ = writeln!(text, "at {now} each name would be served with:\n");
        }
        let width = self
            .sites
            .iter()
            .map(|site| site.name.len())
            .max()
            .unwrap_or(0);
        for site in &self.sites {
            let _ = writeln!(text, "  {:width$}  {}", site.name, site.sentence(now));
        }
        let mut said = BTreeSet::new();
        for choice in self.sites.iter().filter_map(|site| site.choice.as_ref()) {
            if !said.insert(Arc::clone(&choice.source)) {
                continue;
            }
            for fault in choice.certificate.faults(now) {
                let _ = write!(
                    text,
                    "\n{}: {}: {}\n  do: {}\n",
                    choice.source, fault.reason, fault.detail, fault.help
                );
            }
        }
        for report in &self.refused {
            let reason = report
                .disk
                .reason
                .map_or("not used", |reason| reason.code());
            let _ = write!(
                text,
                "\n{}: {reason}: {}\n",
                report.source.join(" + "),
                report
                    .disk
                    .detail
                    .as_deref()
                    .unwrap_or("it is not what would be served")
            );
        }
        for fault in &self.pages {
            let _ = write!(
                text,
                "\n{fault}\n  do: put it there, readable for the user that staunch runs as; until \
                 then errors have the built-in page\n"
            );
        }
        for file::Fault { path, what, help } in &self.users {
            let path = path.display();
            let _ = write!(text, "\n{path}: basic_auth: {what}\n  do: {help}\n");
        }
        for files::Fault { path, what, help } in &self.files {
            let path = path.display();
            let _ = write!(text, "\n{path}: {what}\n  do: {help}\n");
        }
        for key in self.exposed.iter().take(EXPOSED) {
            let key = key.display();
            let _ = write!(
                text,
                "\n{key}: warning: the private key is readable by everyone on this machine\n  \
                 do: chmod o-r {key}\n"
            );
        }
        if let Some(more) = self.exposed.len().checked_sub(EXPOSED + 1) {
            let _ = write!(text, "\nand {} more private keys like that\n", more + 1);
        }
        text
    }
}

impl Served {
    fn of(name: &SiteName, config: &Config, inventory: &Inventory, now: Timestamp) -> Self {
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

    fn sentence(&self, now: Timestamp) -> String {
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
            return "NOTHING: no certificate covers this name; add one that does, or clients get \
                    the default certificate and refuse it"
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
        format!(
            "{} ({}, by {}), until {}: {state}",
            choice.source, facts.key_type, facts.issuer, facts.validity.not_after
        )
    }
}
