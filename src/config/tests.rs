//! What a configuration means.

mod faults;
mod hostile;
mod rules;
mod tls;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::flags::from_flags_in;
use super::load::parse_in;
use super::section::Environment;
use super::*;

fn environment() -> Environment {
    Environment {
        state_directory: None,
        threads: NonZeroUsize::new(3).unwrap(),
    }
}

fn parse(text: &str) -> Result<Config, Report> {
    parse_in(text, Path::new("/etc/staunch/staunch.toml"), &environment())
}

/// What is said of `text`, which must not be usable.
fn refused(text: &str) -> String {
    parse(text).expect_err(text).to_string()
}

/// Where a route leads.
fn upstream_of(route: &Route) -> &str {
    match &route.action {
        Action::Forward { upstream, .. } => upstream,
        other => panic!("{other:?}"),
    }
}

/// A site and a certificate, so that there is nothing to warn of.
const COMPLETE: &str = r#"
[[certificate]]
chain = "a.pem"
key = "a.key"
[[site]]
names = ["example.com"]
upstream = "http://127.0.0.1:8080"
"#;

/// `text` after [`COMPLETE`].
fn with(text: &str) -> String {
    format!("{COMPLETE}{text}")
}

#[test]
fn every_example_loads_without_a_word() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let config = load(&path).unwrap();
        assert!(config.warnings.is_empty(), "{}", config.warnings);
        seen += 1;
    }
    assert!(seen >= 3);
}

#[test]
fn the_commented_example_says_the_defaults() {
    let text = include_str!("../../config/staunch.toml");
    let (given, bare) = (parse(text).unwrap(), parse("").unwrap());
    assert_eq!(given.state_dir, bare.state_dir);
    assert_eq!(given.keep_last_good, bare.keep_last_good);
    assert_eq!(given.listen, bare.listen);
    assert_eq!(given.tls.choice.settle(), bare.tls.choice.settle());
    assert_eq!(given.tls.tickets, bare.tls.tickets);
    assert_eq!(given.tls.ja4, bare.tls.ja4);
    assert_eq!(given.defaults, bare.defaults);
    assert_eq!(given.workers, bare.workers);
    assert_eq!(given.timeouts, bare.timeouts);
    assert_eq!(given.limits, bare.limits);
    assert_eq!(given.drain, bare.drain);
    assert_eq!(given.alerts, bare.alerts);
    assert_eq!(given.log, bare.log);
}

/// What is commented out there must be right too, and every key must be mentioned.
#[test]
fn the_commented_example_is_right_and_complete_with_its_comments_taken_off() {
    let text = include_str!("../../config/staunch.toml");
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(code) if code.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => code,
            _ => line,
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    let config = parse(&uncommented).unwrap();
    assert_eq!(config.alerts.sinks.len(), 5);
    assert_eq!(config.certificates.len(), 3);
    for doc in reference() {
        let line = format!("{} = ", doc.key);
        let mentioned = uncommented.lines().any(|l| l.starts_with(&line))
            || ["name", "token_env", "password_env"].contains(&doc.key);
        assert!(mentioned, "{}.{}", doc.section, doc.key);
    }
}

#[test]
fn nothing_at_all_is_usable_and_warned_of() {
    let config = parse("").unwrap();
    assert_eq!(config.listen.https, ["[::]:443".parse().unwrap()]);
    assert_eq!(config.listen.http, []);
    assert_eq!(config.listen.admin, Some("127.0.0.1:9180".parse().unwrap()));
    assert_eq!(config.state_dir, Path::new("/var/lib/staunch"));
    assert_eq!(config.workers.threads.get(), 3);
    assert_eq!(config.limits.connections, NonZeroUsize::new(20_000));
    assert_eq!(config.limits.request_body, None);
    assert_eq!(config.log.access.to, AccessLogTarget::Off);
    assert_eq!(config.warnings.diagnostics().len(), 2);
    assert!(
        config
            .warnings
            .diagnostics()
            .iter()
            .all(|d| d.level == Level::Warning)
    );
}

#[test]
fn the_ways_of_other_systems_to_end_lines_and_begin_files_are_taken() {
    let text = COMPLETE.replace('\n', "\r\n");
    assert_eq!(parse(&text), parse(COMPLETE));
    assert_eq!(parse(&format!("\u{feff}{COMPLETE}")), parse(COMPLETE));
    let said = parse("\u{feff}x = 1\r\n").unwrap_err().to_string();
    assert!(said.contains(":1:1: error: unknown key `x`"), "{said}");
}

#[test]
fn the_state_directory_of_systemd_is_used_unless_the_file_names_one() {
    let environment = Environment {
        state_directory: Some("/run/a:/run/b".into()),
        ..environment()
    };
    let parse = |text| parse_in(text, Path::new("/etc/s.toml"), &environment).unwrap();
    assert_eq!(parse("").state_dir, Path::new("/run/a"));
    assert_eq!(parse("state_dir = 'x'").state_dir, Path::new("/etc/x"));
}

#[test]
fn everything_that_the_interface_shows_is_understood() {
    let config = parse(
        r#"
state_dir = "/state"
keep_last_good = false
[listen]
https = ["[::]:443", "192.0.2.1:8443"]
http = ["[::]:80"]
admin = ""
proxy_protocol_from = ["10.0.0.0/8", "192.0.2.7"]
proxy_protocol_at = ["192.0.2.1:8443"]
forwarded_from = ["fd00::/8"]
[workers]
threads = 2
[[certificate]]
chain = "live/fullchain.pem"
key = "/abs/privkey.pem"
accept = true
[[certificate]]
chain = "/etc/ssl/shop.pem"
keep = false
ocsp = "shop.ocsp"
[[certificate]]
folder = "/etc/letsencrypt/live"
[[site]]
names = ["Example.COM.", "*.example.com", "[2001:DB8::1]", "_x.example.com"]
default = true
upstream = "http://127.0.0.1:8080"
[[site.route]]
path = "/api/"
upstream = "api"
[[site.route]]
path = "/api/v2/"
upstream = "https://v2.internal"
[upstream.api]
servers = ["http://10.0.0.5:9000", "https://[::1]", "unix:/run/api.sock", "unix:api.sock"]
balance = "least-requests"
[timeouts]
idle = "1h30m"
[limits]
request_body = "1MiB"
connections = 0
[log]
level = "warn,staunch::cert=debug"
format = "json"
access = { to = "/var/log/access", sample = 0 }
[alerts]
overdue = 0.3
expiring = 0.2
[[alerts.sink]]
type = "webhook"
url = "https://hooks.example.com/x?y=z"
format = "slack"
minimum = "critical"
token_env = "TOKEN"
[[alerts.sink]]
type = "webhook"
format = "pagerduty"
token_file = "key"
name = "pager"
[[alerts.sink]]
type = "email"
server = "smtps://mail.example.com"
from = "a@example.com"
to = ["b@example.com"]
username = "a"
password_file = "/p"
[[alerts.sink]]
type = "command"
argv = ["bin/tell", "x"]
[[alerts.sink]]
type = "heartbeat"
url = "http://[::1]:9/x"
every = "5m"
"#,
    )
    .unwrap();
    assert!(config.warnings.is_empty(), "{}", config.warnings);
    assert!(!config.keep_last_good);
    assert_eq!(config.listen.admin, None);
    assert_eq!(
        config.listen.proxy_protocol_from,
        [
            "10.0.0.0/8".parse().unwrap(),
            "192.0.2.7/32".parse().unwrap()
        ]
    );
    assert_eq!(
        config.certificates,
        [
            CertificateSource {
                location: Location::Pair {
                    chain: "/etc/staunch/live/fullchain.pem".into(),
                    key: "/abs/privkey.pem".into(),
                    ocsp: None
                },
                accept_worse: true,
                keep: true,
                routine: false,
                line: 13,
            },
            CertificateSource {
                location: Location::Bundle {
                    file: "/etc/ssl/shop.pem".into(),
                    ocsp: Some("/etc/staunch/shop.ocsp".into())
                },
                accept_worse: false,
                keep: false,
                routine: false,
                line: 17,
            },
            CertificateSource {
                location: Location::Folder {
                    folder: "/etc/letsencrypt/live".into()
                },
                accept_worse: false,
                keep: true,
                routine: false,
                line: 21,
            },
        ]
    );
    let site = &config.sites[0];
    assert_eq!(
        site.names,
        [
            SiteName::Exact("example.com".into()),
            SiteName::Wildcard("example.com".into()),
            SiteName::Exact("2001:db8::1".into()),
            SiteName::Exact("_x.example.com".into()),
        ]
    );
    assert!(site.default);
    let routes: Vec<_> = site
        .routes
        .iter()
        .map(|r| (r.matcher.to_string(), upstream_of(r)))
        .collect();
    assert_eq!(
        routes,
        [
            ("/api/v2/".to_owned(), "https://v2.internal"),
            ("/api/".to_owned(), "api"),
            ("/".to_owned(), "http://127.0.0.1:8080"),
        ]
    );
    let v2 = &config.upstreams["https://v2.internal"].servers[0];
    assert_eq!(v2.address, ServerAddress::Name("v2.internal".into(), 443));
    assert!(v2.tls);
    let api = &config.upstreams["api"];
    assert_eq!(api.balance, Balance::LeastRequests);
    let addresses: Vec<_> = api.servers.iter().map(|s| s.address.clone()).collect();
    assert_eq!(
        addresses,
        [
            ServerAddress::Ip("10.0.0.5:9000".parse().unwrap()),
            ServerAddress::Ip("[::1]:443".parse().unwrap()),
            ServerAddress::Unix("/run/api.sock".into()),
            ServerAddress::Unix("/etc/staunch/api.sock".into()),
        ]
    );
    assert_eq!(config.timeouts.idle, Duration::from_secs(5400));
    assert_eq!(config.limits.request_body, Some(1 << 20));
    assert_eq!(config.limits.connections, None);
    assert_eq!(
        config.log.access,
        AccessLog {
            to: AccessLogTarget::File("/var/log/access".into()),
            sample: 0.0
        }
    );
    let names: Vec<_> = config.alerts.sinks.iter().map(|s| &*s.name).collect();
    assert_eq!(
        names,
        ["webhook-1", "pager", "email-3", "command-4", "heartbeat-5"]
    );
    assert_eq!(
        config.alerts.sinks[1].kind,
        SinkKind::Webhook {
            url: "https://events.pagerduty.com/v2/enqueue".into(),
            format: WebhookFormat::PagerDuty,
            token: Some(Secret::File("/etc/staunch/key".into())),
        }
    );
    assert_eq!(
        config.alerts.sinks[3].kind,
        SinkKind::Command {
            argv: vec!["/etc/staunch/bin/tell".into(), "x".into()]
        }
    );
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let said = |path: PathBuf| load(&path).unwrap_err().to_string();
    let missing = said(folder.path().join("none.toml"));
    assert!(
        missing.contains("none.toml: error: cannot be read: No such file"),
        "{missing}"
    );
    let no_file = said(folder.path().to_path_buf());
    assert!(no_file.contains("is a folder, not a file"), "{no_file}");
    assert!(no_file.contains("name the file in it"), "{no_file}");
    std::fs::write(folder.path().join("staunch.toml"), b"").unwrap();
    assert!(said(folder.path().to_path_buf()).contains("did you mean `"));
    let path = folder.path().join("latin1.toml");
    std::fs::write(&path, b"# ok\n# caf\xe9\n").unwrap();
    assert!(said(path.clone()).contains("is not UTF-8: the first fault is on line 2"));
    std::fs::write(&path, vec![b'#'; LARGEST + 1]).unwrap();
    assert!(said(path).contains("is larger than"));
}

#[test]
fn flags_make_one_site_for_whatever_name() {
    let flags = Flags {
        chain: "/c.pem".into(),
        key: Some("/k.pem".into()),
        upstream: "http://127.0.0.1:8080".into(),
        ..Flags::default()
    };
    let config = from_flags_in(&flags, &environment()).unwrap();
    assert_eq!(config.listen, parse("").unwrap().listen);
    assert_eq!(config.sites[0].names, [SiteName::Any]);
    assert_eq!(
        upstream_of(&config.sites[0].routes[0]),
        "http://127.0.0.1:8080"
    );
    assert_eq!(config.upstreams.len(), 1);
    assert!(config.warnings.is_empty());
    assert_eq!(config.certificates[0].line, 0);

    let flags = Flags {
        https: vec!["127.0.0.1:0".into(), "127.0.0.1:0".into()],
        http: vec!["127.0.0.1:8081".into()],
        admin: Some(String::new()),
        key: None,
        ..flags
    };
    let config = from_flags_in(&flags, &environment()).unwrap();
    assert_eq!(config.listen.https.len(), 2);
    assert_eq!(config.listen.http, ["127.0.0.1:8081".parse().unwrap()]);
    assert_eq!(config.listen.admin, None);
    assert!(matches!(
        config.certificates[0].location,
        Location::Bundle { .. }
    ));
}

#[test]
fn every_wrong_flag_is_told() {
    let said = from_flags_in(
        &Flags {
            upstream: "x/y".into(),
            https: vec!["443".into()],
            admin: Some("[::]:1".into()),
            http: vec!["[::]:1".into()],
            ..Flags::default()
        },
        &environment(),
    )
    .unwrap_err()
    .to_string();
    for words in [
        "error: `--https`: ",
        "error: `--upstream`: ",
        "error: `--chain`: ",
        "error: the address `[::]:1` is there twice",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn the_reference_has_every_key_with_its_meaning() {
    let docs = reference();
    for doc in &docs {
        assert!(!doc.meaning.is_empty() && !doc.form.is_empty(), "{doc:?}");
    }
    let find = |section: &str, key: &str| {
        let mut found = docs.iter().filter(|d| d.section == section && d.key == key);
        found
            .next()
            .unwrap_or_else(|| panic!("{section}.{key}"))
            .clone()
    };
    assert_eq!(find("timeouts", "idle").default.as_deref(), Some("\"75s\""));
    assert_eq!(
        find("limits", "request_head").default.as_deref(),
        Some("\"64KiB\"")
    );
    assert_eq!(
        find("listen", "https").default.as_deref(),
        Some("[\"[::]:443\"]")
    );
    assert_eq!(find("site", "names").default.as_deref(), Some("required"));
    assert_eq!(
        find("upstream.NAME", "balance").default.as_deref(),
        Some("\"round-robin\"")
    );
    for key in [
        "url",
        "format",
        "server",
        "argv",
        "every",
        "token_file",
        "password_env",
    ] {
        find("alerts.sink", key);
    }
    for (at, doc) in docs.iter().enumerate() {
        let again = docs[..at]
            .iter()
            .any(|d| (d.section, d.key) == (doc.section, doc.key));
        assert!(!again, "{}.{} is documented twice", doc.section, doc.key);
    }
}
