//! Reload: all or nothing.
//!
//! Everything that can fail is prepared beside the running world, which does not notice; what is
//! committed then cannot fail.

use std::sync::{Arc, PoisonError};

use tracing::{error, info, warn};

use super::{Server, Source, alerting, listeners, material, world};
use crate::admin::{ReloadOutcome, logs};
use crate::cert::load::Roots;
use crate::config::{self, CertificateSource, Config};
use crate::metrics::ReloadResult;
use crate::telemetry::Level;
use crate::telemetry::access::{AccessLog, Prepared};
use crate::tls;
use crate::upstream::dns::Dns;

/// What was prepared.
struct Plan {
    config: Config,
    sockets: listeners::Sockets,
    access: Prepared,
    level: Level,
    tls: tls::Prepared,
    roots: Arc<Roots>,
    changed: Vec<String>,
}

impl Server {
    /// Reads the configuration and all certificates again. Blocks while it reads.
    pub fn reload(&self) -> ReloadOutcome {
        let _turn = self.turn();
        let current = self.config();
        let plan = match self.plan(&current) {
            Ok(plan) => plan,
            Err(refused) => {
                for reason in &refused {
                    error!(%reason, "the configuration is refused; the old one goes on");
                }
                self.alerting.refused(&refused);
                self.reloads.record(ReloadResult::Refused);
                return ReloadOutcome {
                    ok: false,
                    changed: Vec::new(),
                    refused,
                };
            }
        };
        let outcome = self.commit(&current, plan);
        self.reloads.record(ReloadResult::Taken);
        info!(changed = ?outcome.changed, refused = ?outcome.refused, "reloaded");
        outcome
    }

    fn plan(&self, current: &Config) -> Result<Plan, Vec<String>> {
        let config = match &self.source {
            Source::Flags => current.clone(),
            Source::File(path) => config::load(path).map_err(|report| vec![report.to_string()])?,
        };
        if !config.warnings.is_empty() {
            warn!(warnings = %config.warnings, "the configuration");
        }
        let level = Level::parse(&config.log.level).map_err(|error| vec![error.to_string()])?;
        let access = AccessLog::prepare(&logs::access_settings(&config.log))
            .map_err(|error| vec![format!("the access log cannot be opened: {error}")])?;
        let threads = current.workers.threads.get();
        let sockets =
            listeners::open_new(&current.listen, &config.listen, threads, &self.inherited)
                .map_err(|error| vec![error.to_string()])?;
        let tls = (self.tls.prepare(&config)).map_err(|error| vec![error.to_string()])?;
        let before = self.roots.load();
        let roots = before.again();
        let mut changed = differences(current, &config);
        if !Arc::ptr_eq(&before, &roots) {
            changed.push("the system's trusted roots".to_owned());
        }
        Ok(Plan {
            config,
            sockets,
            access,
            level,
            tls,
            roots,
            changed,
        })
    }

    /// Nothing here can fail.
    fn commit(&self, current: &Config, plan: Plan) -> ReloadOutcome {
        let Plan {
            config,
            sockets,
            access,
            level,
            tls,
            roots,
            mut changed,
        } = plan;
        // Certificates first: a new site must not be asked for before what it answers with is held.
        let wanted = alerting::wanted(&config, self.state.as_ref());
        let certificates = self.keeper.reload(wanted, Arc::clone(&roots));
        changed.extend(
            certificates
                .changed
                .iter()
                .map(|source| format!("certificate {source}")),
        );
        changed.extend(
            certificates
                .removed
                .iter()
                .map(|source| format!("certificate {source} let go")),
        );
        let refused = certificates
            .refused
            .iter()
            .map(|refusal| {
                let detail = refusal.detail.as_deref().unwrap_or("it is not used");
                format!("certificate {}: {detail}", refusal.source)
            })
            .collect();
        if self.dns.load().servers() != config.dns {
            self.dns.store(Arc::new(Dns::new(&config.dns)));
        }
        let previous = self.shared.world.load();
        let material = material(&config, &previous.material);
        let world = world(
            &config,
            &roots,
            &self.shared.clock,
            &self.services,
            &previous.upstreams,
            material,
            &self.spans,
        );
        self.roots.store(roots);
        self.shared.world.store(Arc::new(world));
        self.reloaded.notify_one();
        {
            let workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            listeners::update(&workers, &current.listen, &config.listen, &tls);
            listeners::give(&workers, sockets, &config.listen, &tls);
        }
        self.tls.commit(tls);
        self.access.commit(access);
        self.telemetry.set_level(level);
        self.alerting.taken(&config);
        self.config.store(Arc::new(config));
        ReloadOutcome {
            ok: true,
            changed,
            refused,
        }
    }
}

/// What changed, a phrase each; and what changes only with the next start, said as such.
fn differences(old: &Config, new: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    let mut note = |differs: bool, what: &str| {
        if differs {
            changed.push(what.to_owned());
        }
    };
    note(
        old.listen.https != new.listen.https || old.listen.http != new.listen.http,
        "listeners",
    );
    note(old.listen.streams != new.listen.streams, "streams");
    note(
        old.listen.passthrough != new.listen.passthrough,
        "passthrough",
    );
    note(old.tls != new.tls, "tls");
    note(old.sites != new.sites, "sites");
    note(old.upstreams != new.upstreams, "upstreams");
    note(old.quotas != new.quotas, "quotas");
    note(old.dns != new.dns, "dns");
    note(old.timeouts != new.timeouts, "timeouts");
    note(old.limits != new.limits, "limits");
    note(old.drain != new.drain, "drain");
    note(old.upgrade != new.upgrade, "upgrade");
    note(old.alerts != new.alerts, "alerts");
    note(old.log != new.log, "log");
    note(old.traces != new.traces, "traces");
    // A line that was put in before them changes nothing of them.
    let sources = |config: &Config| -> Vec<CertificateSource> {
        let all = config.certificates.iter().cloned();
        all.map(|source| CertificateSource { line: 0, ..source })
            .collect()
    };
    note(
        sources(old) != sources(new) || old.keep_last_good != new.keep_last_good,
        "certificate sources",
    );
    for (differs, what) in [
        (old.workers != new.workers, "workers.threads"),
        (old.listen.admin != new.listen.admin, "listen.admin"),
        (old.state_dir != new.state_dir, "state_dir"),
    ] {
        if differs {
            changed.push(format!("{what} changes only with a restart or an upgrade"));
        }
    }
    changed
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_changed_is_named_and_nothing_else() {
        const BARE: &str = "[[certificate]]\nfolder = \"/certificates\"\n";
        let changed = |new: &str| {
            let parse = |text: &str| config::parse(text, Path::new("/staunch.toml")).unwrap();
            differences(&parse(BARE), &parse(new))
        };
        let with = |text: &str| changed(&format!("{text}\n{BARE}"));
        assert!(changed(BARE).is_empty());
        assert!(with("# A line before them.").is_empty());
        assert_eq!(with("[tls]\ntickets = false"), ["tls"]);
        assert_eq!(with("keep_last_good = false"), ["certificate sources"]);
        assert_eq!(
            with("[traces]\nendpoint = \"http://127.0.0.1:4318\""),
            ["traces"]
        );
        assert_eq!(changed(""), ["certificate sources"]);
        assert_eq!(
            with("state_dir = \"/elsewhere\""),
            ["state_dir changes only with a restart or an upgrade"]
        );
    }
}
