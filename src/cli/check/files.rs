//! Files besides certificates that the configuration names, tried as `run` would try them: what
//! TLS goes by, what alerts are sent with, where the access log goes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Access, access};

use super::finding::{Finding, Level};
use crate::cert::load::Roots;
use crate::clock::{Clock, Timestamp};
use crate::config::{AccessLogTarget, Alerts, Config, Secret, SinkKind};
use crate::tls;
use crate::upstream::trust::Trust;

/// What is wrong with one of them, and what it is for.
pub(super) struct Fault {
    pub(super) path: PathBuf,
    pub(super) what: String,
    pub(super) help: String,
}

impl From<Fault> for Finding {
    fn from(fault: Fault) -> Self {
        let Fault { path, what, help } = fault;
        Self::new(Level::Error, path.display(), what, &help)
    }
}

impl Fault {
    fn new(path: &Path, what: String, help: &str) -> Self {
        Self {
            path: path.to_owned(),
            what,
            help: help.to_owned(),
        }
    }
}

/// Every fault, each once.
pub(super) fn faults(config: &Config, now: Timestamp, roots: &Arc<Roots>) -> Vec<Fault> {
    let mut faults = of_tls(config, now, roots);
    faults.extend(of_alerts(&config.alerts));
    let token = config
        .traces
        .as_ref()
        .and_then(|traces| traces.token.as_ref());
    faults.extend(token.and_then(|token| unreadable("[traces]", token)));
    let mut said = BTreeSet::new();
    faults.retain(|fault| said.insert((fault.path.clone(), fault.what.clone())));
    faults
}

fn of_tls(config: &Config, now: Timestamp, roots: &Arc<Roots>) -> Vec<Fault> {
    let listeners = tls::faults(config, now).into_iter().map(|(what, fault)| {
        let shown = format!("{what}: {}", fault.what);
        Fault::new(&fault.path, shown, &fault.help)
    });
    let upstreams = config.upstreams.iter().filter_map(|(name, upstream)| {
        if !upstream.servers.iter().any(|server| server.tls) {
            return None;
        }
        let trust = Trust::load(
            name,
            &upstream.tls,
            upstream.protocol,
            roots,
            &Clock::manual(now),
            None,
        );
        let fault = trust.fault()?;
        let shown = format!(
            "TLS to the upstream {name}: {}; no connection to its servers can be made",
            fault.what
        );
        Some(Fault::new(&fault.path, shown, &fault.help))
    });
    listeners.chain(upstreams).collect()
}

fn of_alerts(alerts: &Alerts) -> Vec<Fault> {
    let sinks = alerts.sinks.iter();
    sinks
        .filter_map(|sink| {
            let name = format!("the alert sink {}", sink.name);
            match &sink.kind {
                SinkKind::Webhook { token, .. } | SinkKind::Alertmanager { token, .. } => {
                    unreadable(&name, token.as_ref()?)
                }
                SinkKind::Email { password, .. } => unreadable(&name, password.as_ref()?),
                SinkKind::Command { argv } => not_a_program(&name, Path::new(&**argv.first()?)),
                SinkKind::Heartbeat { .. } => None,
            }
        })
        .collect()
}

/// A variable of the environment is the service's business, not this shell's.
fn unreadable(whose: &str, secret: &Secret) -> Option<Fault> {
    let Secret::File(path) = secret else {
        return None;
    };
    let what = match fs::read(path) {
        Err(error) => format!("{whose}: its secret cannot be read: {error}"),
        Ok(bytes) if bytes.trim_ascii().is_empty() => {
            format!("{whose}: there is no secret in it")
        }
        Ok(_) => return None,
    };
    let help = "write it there, readable for the user that staunch runs as; it is read at each use";
    Some(Fault::new(path, what, help))
}

/// A program without a folder is searched for in the service's `PATH`, which is not this shell's.
fn not_a_program(whose: &str, path: &Path) -> Option<Fault> {
    if !path.as_os_str().as_encoded_bytes().contains(&b'/') {
        return None;
    }
    let what = match fs::metadata(path) {
        Err(error) => format!("{whose}: its program cannot be run: {error}"),
        Ok(meta) if !meta.is_file() => format!("{whose}: its program is not a file"),
        Ok(_) => {
            let error = access(path, Access::EXEC_OK).err()?;
            format!("{whose}: its program cannot be run: {error}")
        }
    };
    let help = "put it there, executable for the user that staunch runs as";
    Some(Fault::new(path, what, help))
}

/// Why the access log could not be opened, which would end a start. Nothing is made for this.
pub(super) fn access_log(config: &Config) -> Option<Fault> {
    let AccessLogTarget::File(path) = &config.log.access.to else {
        return None;
    };
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let error = match path.exists() {
        true if path.is_dir() => "it is a folder".to_owned(),
        // Opened for appending, which changes nothing.
        true => File::options().append(true).open(path).err()?.to_string(),
        false => match fs::metadata(folder) {
            Err(error) => format!("its folder {}: {error}", folder.display()),
            Ok(_) => {
                let error = access(folder, Access::WRITE_OK | Access::EXEC_OK).err()?;
                format!("its folder {}: {error}", folder.display())
            }
        },
    };
    let what = format!("the access log cannot be opened: {error}");
    let help = "make its folder, writable for the user that staunch runs as, or change \
                `log.access.to`; `staunch run` would not start";
    Some(Fault::new(path, what, help))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    /// What is said of a configuration in which `DIR` stands for a folder of the test's own.
    fn said(text: &str) -> Vec<String> {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("empty"), "\n").unwrap();
        fs::write(at("secret"), "hunter2\n").unwrap();
        fs::write(at("garbage"), "garbage").unwrap();
        let folder = dir.path().display().to_string();
        let config = config::parse(&text.replace("DIR", &folder), &at("staunch.toml")).unwrap();
        let now = Timestamp::from_unix(1_800_000_000);
        let mut faults = faults(&config, now, &Arc::default());
        faults.extend(access_log(&config));
        let faults = faults.into_iter();
        faults
            .map(|it| format!("{}: {}", it.path.display(), it.what).replace(&folder, "DIR"))
            .collect()
    }

    #[test]
    fn files_that_tls_goes_by_are_tried() {
        let text = r#"
            [tls]
            ticket_keys = ["DIR/garbage"]
            [[site]]
            names = ["a.test"]
            upstream = "up"
            [site.client_certificates]
            mode = "required"
            ca = "DIR/none.pem"
            [[site]]
            names = ["b.test"]
            upstream = "up"
            [site.client_certificates]
            mode = "required"
            ca = "DIR/none.pem"
            [upstream.up]
            servers = ["https://127.0.0.1:1"]
            [upstream.up.tls]
            ca = "DIR/garbage"
        "#;
        let said = said(text);
        assert_eq!(said.len(), 3, "{said:#?}");
        assert!(
            said[0].starts_with("DIR/garbage: ticket keys: "),
            "{said:#?}"
        );
        assert!(
            said[1].starts_with("DIR/none.pem: client certificates: there is no such file"),
            "{said:#?}"
        );
        assert!(
            said[2].starts_with("DIR/garbage: TLS to the upstream up: "),
            "{said:#?}"
        );
    }

    #[test]
    fn what_alerts_are_sent_with_is_tried() {
        let text = r#"
            [[alerts.sink]]
            type = "webhook"
            url = "http://127.0.0.1:1"
            token_file = "DIR/secret"
            [[alerts.sink]]
            type = "webhook"
            url = "http://127.0.0.1:1"
            token_file = "DIR/empty"
            [[alerts.sink]]
            type = "alertmanager"
            url = "http://127.0.0.1:1"
            token_file = "DIR/none"
            [[alerts.sink]]
            type = "command"
            argv = ["/bin/sh"]
            [[alerts.sink]]
            type = "command"
            argv = ["DIR/secret"]
            [[alerts.sink]]
            type = "command"
            argv = ["in-the-path"]
        "#;
        let said = said(text);
        assert_eq!(said.len(), 3, "{said:#?}");
        assert!(said[0].contains("webhook-2: there is no secret in it"));
        assert!(said[1].contains("DIR/none: the alert sink alertmanager-3: its secret cannot"));
        assert!(
            said[2].contains("DIR/secret: the alert sink command-5: its program cannot be run")
        );
    }

    #[test]
    fn the_access_log_is_tried_without_making_it() {
        let log = |to: &str| said(&format!("[log.access]\nto = \"{to}\"\n"));
        assert!(log("DIR/access.log").is_empty());
        assert!(log("DIR/garbage").is_empty());
        assert!(log("stdout").is_empty());
        let lost = log("DIR/none/access.log");
        assert!(lost[0].contains("the access log cannot be opened: its folder DIR/none"));
        assert!(log("DIR")[0].contains("it is a folder"));
    }
}
