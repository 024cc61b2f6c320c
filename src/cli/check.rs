//! `staunch check`: what would be served, now or at another moment, and what is wrong.
//!
//! Certificates are read and judged by the same code as in `staunch run`, and the copies in the state
//! directory count as they would there. What is on disk and cannot be used is told all the same: a
//! copy is what is left when that was ignored.

mod files;
mod finding;
mod machine;
mod served;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::{DEFAULT_CONFIG, Exit, say};
use crate::cert::DiskState;
use crate::cert::inventory::Inventory;
use crate::cert::keeper::{self, Wanted};
use crate::cert::load::Roots;
use crate::clock::{Clock, Timestamp};
use crate::config::{self, Config, Location};
use crate::proxy::rules::material::Material;
use finding::{Finding, Level};
use served::Served;

/// The command's arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,

    /// Judge as of this moment instead of now: RFC 3339, or a date
    #[arg(long, value_name = "RFC3339", value_parser = moment)]
    at: Option<Timestamp>,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

fn moment(text: &str) -> Result<Timestamp, String> {
    Timestamp::parse(text)
        .ok_or_else(|| "not a time like 2027-02-01T00:00:00Z or 2027-02-01".to_owned())
}

/// Carries the command out.
pub fn run(args: Args) -> Exit {
    let now = args.at.unwrap_or_else(|| Clock::system().now());
    let config = match config::load(&args.config) {
        Ok(config) => config,
        Err(report) if args.json => {
            let verdict = Verdict {
                usable: false,
                sites: Vec::new(),
                findings: Finding::of_configuration(&report),
            };
            return say(verdict.json(&args, now), Exit::Failed);
        }
        Err(report) => {
            eprint!("{report}");
            return Exit::Failed;
        }
    };
    let access_log = files::access_log(&config);
    if !args.json {
        eprint!("{}", config.warnings);
        if let Some(files::Fault { path, what, help }) = &access_log {
            let (file, path) = (args.config.display(), path.display());
            eprintln!("{file}: error: {path}: {what}\n      help: {help}");
        }
    }
    let roots = Arc::new(Roots::system());
    let clock = Clock::manual(now);
    let state = &config.state_dir;
    let inventory = keeper::survey(Wanted::of(&config), state, clock, Arc::clone(&roots));
    let mut verdict = Verdict::of(&config, &inventory, now);
    verdict.read_files(&config, now, &roots);
    verdict
        .findings
        .extend(machine::Machine::this().advice(&config));
    let exit = match (&access_log, verdict.is_well()) {
        (Some(_), _) => Exit::Failed,
        (None, true) => Exit::Ok,
        (None, false) => Exit::Bad,
    };
    verdict.usable = access_log.is_none();
    if args.json {
        let more = Finding::of_configuration(&config.warnings);
        verdict.findings.splice(0..0, more);
        verdict.findings.extend(access_log.map(files::Fault::into));
        return say(verdict.json(&args, now), exit);
    }
    say(verdict.text(&args, now), exit)
}

/// Exposed keys that are named one by one.
const EXPOSED: usize = 10;

/// What was found.
struct Verdict {
    /// `run` would start with it.
    usable: bool,
    sites: Vec<Served>,
    findings: Vec<Finding>,
}

impl Verdict {
    /// What certificates there are, and what is wrong with them.
    fn of(config: &Config, inventory: &Inventory, now: Timestamp) -> Self {
        // What is served in plain text only need not have one.
        let terminated = (config.sites.iter())
            .filter(|site| !config.listen.https.is_empty() && site.needs_certificate());
        let sites = (terminated.flat_map(|site| &site.names))
            .map(|name| Served::of(name, config, inventory, now))
            .collect();
        let mut verdict = Self {
            usable: true,
            sites,
            findings: Vec::new(),
        };
        verdict.look_at_served(now);
        verdict.look_for_barren(config, inventory);
        let reports = inventory.report(now).into_iter();
        let refused = reports.filter(|report| report.disk.state != DiskState::Same);
        (verdict.findings).extend(refused.map(|report| Finding::refused(&report)));
        verdict.look_at_keys(inventory);
        let copies = fs::read_dir(&config.state_dir);
        if copies.is_err_and(|error| error.kind() == ErrorKind::PermissionDenied) {
            verdict.findings.push(Finding::new(
                Level::Advice,
                config.state_dir.display(),
                "it may not be read, so copies of certificates in it are not counted".to_owned(),
                "run this as the user that staunch runs as: sudo -u staunch staunch check",
            ));
        }
        verdict
    }

    fn look_at_served(&mut self, now: Timestamp) {
        let mut said = BTreeSet::new();
        for choice in self.sites.iter().filter_map(|site| site.choice.as_ref()) {
            if !said.insert(Arc::clone(&choice.source)) {
                continue;
            }
            for fault in choice.certificate.faults(now) {
                let (detail, help) = (fault.detail, &fault.help);
                let finding = Finding::new(Level::Warning, &choice.source, detail, help);
                self.findings.push(finding.because(fault.reason.code()));
            }
        }
    }

    /// Searched folders in which no certificate was found: no fault where nothing is missing.
    fn look_for_barren(&mut self, config: &Config, inventory: &Inventory) {
        if self.sites.iter().all(|site| site.choice.is_some()) {
            return;
        }
        for source in &config.certificates {
            let Location::Folder { folder } = &source.location else {
                continue;
            };
            let mut sources = inventory.sources();
            if sources.any(|source| source.folder.as_deref() == Some(&**folder)) {
                continue;
            }
            self.findings.push(Finding::new(
                Level::Warning,
                folder.display(),
                "no certificate was found in it".to_owned(),
                "call the files fullchain.pem and privkey.pem, NAME.crt and NAME.key, or NAME.pem \
                 with both in it; or name them by chain and key in [[certificate]]",
            ));
        }
    }

    /// Keys that everybody on this machine may read: no fault of what is served.
    fn look_at_keys(&mut self, inventory: &Inventory) {
        let exposed = inventory
            .sources()
            .filter_map(|source| source.exposed_key());
        let exposed: BTreeSet<_> = exposed.collect();
        for key in exposed.iter().take(EXPOSED) {
            let key = key.display();
            self.findings.push(Finding::new(
                Level::Warning,
                &key,
                "warning: the private key is readable by everyone on this machine".to_owned(),
                &format!("chmod o-r {key}"),
            ));
        }
        if let Some(more) = exposed.len().checked_sub(EXPOSED + 1) {
            self.findings.push(Finding::new(
                Level::Warning,
                format_args!("{} more private keys", more + 1),
                "warning: they are readable by everyone on this machine".to_owned(),
                "chmod o-r, as for those above",
            ));
        }
    }

    /// Tries the other files that the configuration names.
    fn read_files(&mut self, config: &Config, now: Timestamp, roots: &Arc<Roots>) {
        let (material, pages) = Material::read(config, &Material::default());
        for page in pages {
            self.findings.push(Finding::new(
                Level::Error,
                page.path.display(),
                format!("the error page cannot be used: {}", page.error),
                "put it there, readable for the user that staunch runs as; until then errors have \
                 the built-in page",
            ));
        }
        for users in material.all_users() {
            self.findings.extend(users.faults().iter().map(|fault| {
                let what = format!("basic_auth: {}", fault.what);
                Finding::new(Level::Error, fault.path.display(), what, &fault.help)
            }));
        }
        let faults = files::faults(config, now, roots).into_iter();
        self.findings.extend(faults.map(Finding::from));
    }

    fn is_well(&self) -> bool {
        let mut findings = self.findings.iter();
        findings.all(|finding| finding.level != Level::Error)
            && self.sites.iter().all(Served::is_well)
    }

    fn json(&self, args: &Args, now: Timestamp) -> String {
        let names: Vec<_> = self.sites.iter().map(Served::document).collect();
        let document = json!({
            "file": args.config.display().to_string(),
            "at": now,
            "usable": self.usable,
            "names": names,
            "findings": self.findings,
        });
        format!("{document:#}\n")
    }

    fn text(&self, args: &Args, now: Timestamp) -> String {
        let usable = match self.usable {
            true => "is usable",
            false => "cannot be used as it is",
        };
        let mut text = format!("{}: the configuration {usable}\n", args.config.display());
        if !self.sites.is_empty() {
            let _ = writeln!(text, "at {now} each name would be served with:\n");
        }
        let names = self.sites.iter().map(|site| site.name.len());
        let width = names.max().unwrap_or(0);
        for site in &self.sites {
            let _ = writeln!(text, "  {:width$}  {}", site.name, site.sentence(now));
        }
        for finding in &self.findings {
            let _ = write!(text, "{finding}");
        }
        text
    }
}
