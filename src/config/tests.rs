//! What a configuration means, and what is said of one that means nothing.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::load::{from_flags_in, parse_in};
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
                line: 12,
            },
            CertificateSource {
                location: Location::Bundle {
                    file: "/etc/ssl/shop.pem".into(),
                    ocsp: Some("/etc/staunch/shop.ocsp".into())
                },
                accept_worse: false,
                keep: false,
                line: 16,
            },
            CertificateSource {
                location: Location::Folder {
                    folder: "/etc/letsencrypt/live".into()
                },
                accept_worse: false,
                keep: true,
                line: 20,
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
        .map(|r| (&*r.path, &*r.upstream))
        .collect();
    assert_eq!(
        routes,
        [
            ("/api/v2/", "https://v2.internal"),
            ("/api/", "api"),
            ("/", "http://127.0.0.1:8080"),
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
fn a_fault_is_shown_like_a_compiler_shows_it() {
    let text = with("[listen]\nhtps = [\"[::]:443\"]\n");
    assert_eq!(
        refused(&text),
        "\
/etc/staunch/staunch.toml:9:1: error: unknown key `htps` in [listen]
  9 | htps = [\"[::]:443\"]
    | ^^^^
      help: did you mean `https`?
"
    );
}

/// Each fault, and something of what must be said of it.
#[test]
fn every_fault_has_its_words() {
    for (text, words) in [
        ("lisen = 1", "did you mean `listen`?"),
        ("https = []", "`https` belongs in `listen`"),
        (
            "[listen]\nstate_dir = '/x'",
            "belongs at the top of the file",
        ),
        (
            "[drain]\nfrobnicate = 1",
            "what can be written here: notice, deadline",
        ),
        (
            "listen = 1",
            "expected a table, written [listen], found the number 1",
        ),
        ("[[listen]]", "in single brackets"),
        (
            "[site]\nnames = ['a.b']",
            "write `[[site]]`, in double brackets",
        ),
        ("site = ['a']", "expected a table, written [[site]]"),
        (
            "upstream = 'http://x'",
            "expected a table, written [upstream.NAME]",
        ),
        ("[timeouts]\nidle = 10", "`\"10s\"`"),
        ("[timeouts]\nidle = '10'", "add the unit: `\"10s\"`"),
        (
            "[timeouts]\nidle = '0s'",
            "write a value from \"1ms\" to \"1d\"",
        ),
        (
            "[timeouts]\nidle = true",
            "expected a duration such as \"10s\", found `true`",
        ),
        (
            "[limits]\nrequest_head = 65536",
            "put it in quotes: `\"65536\"`",
        ),
        (
            "[limits]\nrequest_head = '1KiB'",
            "from \"8KiB\" to \"1MiB\"",
        ),
        ("[limits]\nconnections = -1", "write a number from 0"),
        (
            "[limits]\nconnections = 1.5",
            "expected a whole number, found the number 1.5",
        ),
        ("[limits]\nstreams = 0", "write a value from 1 to 10000"),
        ("[workers]\nthreads = 0", "0 is out of range"),
        ("[workers]\nthreads = 5000", "write a value from 1 to 1024"),
        ("[listen]\nhttps = []", "nothing to listen on"),
        ("[listen]\nhttps = '[::]:443'", "put it in brackets"),
        (
            "[listen]\nhttps = [':443']",
            "`\"[::]:443\"` for every address",
        ),
        (
            "[listen]\nhttps = ['::']",
            "add the port, as in `\"[::]:443\"`",
        ),
        ("[listen]\nhttps = ['x']", "write an IP address and a port"),
        ("[listen]\nhttps = [443]", "expected an address and port"),
        (
            "[listen]\nhttp = ['[::]:443']",
            "the address `[::]:443` is there twice",
        ),
        (
            "[listen]\nforwarded_from = ['10.0.0.1/8']",
            "write `\"10.0.0.0/8\"` for the network",
        ),
        (
            "[listen]\nforwarded_from = ['::ffff:10.0.0.0/104']",
            "write it as IPv4",
        ),
        ("[listen]\nforwarded_from = ['all']", "is not a network"),
        ("[[certificate]]", "without `chain` and `folder`"),
        (
            "[[certificate]]\nkey = 'a'",
            "write `chain = …` beside `key`",
        ),
        (
            "[[certificate]]\nchain = 'a'\nfolder = 'b'",
            "write a `[[certificate]]` for each",
        ),
        (
            "[[certificate]]\nkey = 'a'\nfolder = 'b'",
            "does not go with `folder`",
        ),
        (
            "[[certificate]]\nocsp = 'a'\nfolder = 'b'",
            "does not go with `folder`",
        ),
        ("[[certificate]]\nchain = ''\nkey = 'b'", "is not a path"),
        (
            "[[certificate]]\nchain = 'a'\nkey = 7",
            "expected a path in quotes, found the number 7",
        ),
        ("[[site]]", "[[site]] has no `names`"),
        ("[[site]]\nnames = ['a.b']", "a site that leads nowhere"),
        (
            "[[site]]\nnames = []\nupstream = 'http://x'",
            "a site without a name",
        ),
        ("[alerts]\noverdue = 0.1", "is not below `alerts.overdue`"),
        (
            "[alerts]\noverdue = 1.5",
            "write a value from 0.001 to 0.999",
        ),
        ("[alerts]\noverdue = nan", "NaN is out of range"),
        (
            "[alerts]\nexpiring = 0",
            "write a value from 0.001 to 0.999",
        ),
        ("[[alerts.sink]]", "[[alerts.sink]] has no `type`"),
        (
            "[[alerts.sink]]\ntype = 'webhok'",
            "did you mean `\"webhook\"`?",
        ),
        ("[[alerts.sink]]\ntype = 'webhook'", "has no `url`"),
        (
            "[[alerts.sink]]\ntype = 'webhook'\nurl = 'x'",
            "is not a URL",
        ),
        (
            "[[alerts.sink]]\ntype = 'webhook'\nurl = 'http://u:p@x'",
            "name it with `token_file`",
        ),
        (
            "[[alerts.sink]]\ntype = 'webhook'\ntoken = 'x'",
            "name that with `token_file`",
        ),
        (
            "[[alerts.sink]]\ntype = 'email'\npassword = 'x'",
            "name that with `password_file`",
        ),
        (
            "[[alerts.sink]]\ntype = 'webhook'\nformat = 'pagerduty'",
            "needs a routing key",
        ),
        ("[[alerts.sink]]\ntype = 'command'", "has no `argv`"),
        (
            "[[alerts.sink]]\ntype = 'command'\nargv = []",
            "names no program",
        ),
        (
            "[[alerts.sink]]\ntype = 'command'\nevery = '1m'",
            "`every` belongs in `alerts.sink`",
        ),
        (
            "[[alerts.sink]]\ntype = 'email'\nto = []",
            "nobody to write to",
        ),
        (
            "[[alerts.sink]]\ntype = 'email'\nfrom = 'a <a@b.c>'",
            "write the address alone",
        ),
        (
            "[[alerts.sink]]\ntype = 'email'\nusername = 'a'",
            "a user name without a password",
        ),
        (
            "[[alerts.sink]]\ntype = 'email'\npassword_env = 'A'",
            "a password without a user name",
        ),
        (
            "[[alerts.sink]]\ntype = 'email'\nserver = 'mail:25'",
            "write `\"smtp://host:587\"`",
        ),
        (
            "[[alerts.sink]]\ntype = 'webhook'\ntoken_env = 'A'\ntoken_file = 'B'",
            "both `token_file` and `token_env` name the token",
        ),
        (
            "[log]\nlevel = 'inof'",
            "write one of off, error, warn, info, debug, trace",
        ),
        ("[log]\nformat = 'jsn'", "did you mean `\"json\"`?"),
        ("[log.access]\nto = 'stdot'", "is not a place to log to"),
        ("[log.access]\nsample = 2", "write a value from 0 to 1"),
        (
            "[log]\naccess = 'stdout'",
            "expected a table, written [log.access]",
        ),
    ] {
        let said = refused(text);
        assert!(said.contains(words), "{text}\n{said}");
    }
}

#[test]
fn a_name_has_to_be_one() {
    for (name, words) in [
        ("münchen.de", "begins with `xn--`"),
        ("w*.example.com", "a wildcard is the whole first label"),
        ("a.*.example.com", "a wildcard is the whole first label"),
        ("*.*.example.com", "only letters"),
        ("https://example.com", "write the host name only"),
        ("example.com:443", "write it without the port"),
        ("example.com/x", "write the host name only"),
        ("", "a label is empty"),
        (".", "a label is empty"),
        ("a..b", "a label is empty"),
        ("-a.b", "begins or ends with a hyphen"),
        ("a b", "only letters"),
        ("10.0.0.256", "the last label is a number"),
        (&"a".repeat(64), "longer than 63"),
        (&"a.".repeat(130), "longer than 253"),
    ] {
        let said = refused(&format!(
            "[[site]]\nnames = ['{name}']\nupstream = 'http://x'"
        ));
        assert!(said.contains(words), "{name}\n{said}");
    }
}

#[test]
fn an_upstream_has_to_be_one() {
    for (url, words) in [
        ("http://x/path", "write `\"http://x\"`"),
        ("http://x?q", "has a path or a query"),
        ("http://u:p@x", "has a user name or password in it"),
        ("ftp://x", "a scheme that is not spoken, `ftp`"),
        ("http://", "names no host"),
        ("http://:80", "names no host"),
        ("http://x:0", "a port is a number from 1 to 65535"),
        ("http://x:+80", "a port is a number from 1 to 65535"),
        ("http://x:65536", "a port is a number from 1 to 65535"),
        ("http://x:", "a port is a number from 1 to 65535"),
        ("http://::1:80", "without brackets"),
        ("http://a b", "only letters"),
        ("unix:", "names no socket"),
        ("127.0.0.1:8080", "write `\"http://127.0.0.1:8080\"`"),
        ("", "write `\"http://host:port\"`"),
        (
            &format!("unix:/{}", "x".repeat(107)),
            "longer than the 107 bytes",
        ),
        ("api", "write `[upstream.api]`"),
    ] {
        let said = refused(&format!("[[site]]\nnames = ['a.b']\nupstream = '{url}'"));
        assert!(said.contains(words), "{url}\n{said}");
    }
    // Some write a slash at the end, and it changes nothing.
    let config = parse("[[site]]\nnames = ['a.b']\nupstream = 'http://x/'").unwrap();
    assert!(config.upstreams.contains_key("http://x"));
}

#[test]
fn what_is_there_twice_says_where_else() {
    let said = refused(&with(
        r#"
[[site]]
names = ["EXAMPLE.com"]
default = true
upstream = "http://127.0.0.1:8080"
[[site.route]]
path = "/"
upstream = "http://127.0.0.1:8080"
[[site]]
names = ["b.example.com"]
default = true
upstream = "http://127.0.0.1:8080"
"#,
    ));
    for words in [
        "the name `example.com` is there twice",
        "the other one is on line 6",
        "the path `/` is there twice",
        "a second default site",
    ] {
        assert!(said.contains(words), "{words}\n{said}");
    }
}

#[test]
fn an_upstream_that_is_misspelt_or_unused_is_told_apart() {
    let text = "[[site]]\nnames = ['a.b']\nupstream = 'ap'\n[upstream.api]\nservers = ['http://x']";
    let said = refused(text);
    assert!(said.contains("there is no upstream `ap`") && said.contains("did you mean `api`?"));
    let config = parse(&with("[upstream.api]\nservers = ['http://x']")).unwrap();
    let said = config.warnings.to_string();
    assert!(
        said.contains("warning: nothing uses the upstream `api`"),
        "{said}"
    );
}

#[test]
fn an_upstream_with_a_fault_of_its_own_is_there_all_the_same() {
    for servers in ["['x']", "[]", "7"] {
        let text = format!(
            "[[site]]\nnames = ['a.b']\nupstream = 'api'\n[upstream.api]\nservers = {servers}"
        );
        let said = refused(&text);
        assert!(
            !said.contains("no upstream") && said.contains("server"),
            "{said}"
        );
    }
}

#[test]
fn all_faults_are_told_at_once_in_their_order() {
    let report = parse(
        r#"
colour = "red"
[listen]
https = ["x", "y"]
[timeouts]
idle = 1
[[site]]
names = ["a..b", "c.d"]
upstream = "nowhere"
"#,
    )
    .unwrap_err();
    let lines: Vec<_> = report
        .diagnostics()
        .iter()
        .filter_map(|d| report.position(d))
        .map(|(line, _)| line)
        .collect();
    assert_eq!(lines, [2, 4, 4, 6, 8, 9], "{report}");
}

#[test]
fn faults_of_the_syntax_hide_only_what_they_may_have_caused() {
    let said = refused("[listen]\nhtps = 1\n[limits\nstreams = 0\nconnections = = 1\n");
    assert!(said.contains("unknown key `htps`"), "{said}");
    assert!(said.contains(":3:"), "{said}");
    assert!(!said.contains("no `[[site]]`"), "{said}");
    let said = refused("a = 1\na = 2\n");
    assert!(said.contains("duplicate key"), "{said}");
}

#[test]
fn no_secret_is_shown() {
    for text in [
        "[[alerts.sink]]\ntype = 'webhook'\ntoken = 'hunter2'",
        "[[alerts.sink]]\ntype = 'webhook'\ntoken = 'hunter2",
        "[[alerts.sink]]\ntype = 'email'\n\"password\"='hunter2'",
        "alerts.sink = [{ type = 'webhook', bogus = 1, token = '''hunter2''' }]",
        "[[site]]\nnames = ['a.b']\nupstream = 'http://me:hunter2@x'",
        "[[alerts.sink]]\ntype = 'webhook'\nurl = 'https://hunter2@x/y'",
        "[[alerts.sink]]\ntype = 'email'\nserver = 'smtp://hunter2@x'",
    ] {
        let said = refused(text);
        assert!(!said.contains("hunter2"), "{text}\n{said}");
    }
}

#[test]
fn what_is_shown_is_bounded_and_on_one_line() {
    let many = format!("[listen]\nhttps = [{}]\n", "1, ".repeat(10_000));
    let said = refused(&many);
    assert!(
        said.len() < 100_000 && said.contains("9900 more of the like"),
        "{said}"
    );
    assert!(said.lines().all(|line| line.len() < 500));
    let said = refused("\"\\u001b[2J\\n\" = 1");
    assert!(!said.contains('\u{1b}'), "{said}");
    let said = refused("\tünknown\t=\t1");
    assert!(said.contains(":1:2:"), "{said}");
}

#[test]
fn what_is_too_large_is_not_read() {
    let said = refused(&"#".repeat(LARGEST + 1));
    assert!(said.contains("is larger than"), "{said}");
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
    assert!(said(folder.path().to_path_buf()).contains("is a folder, not a file"));
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
        &*config.sites[0].routes[0].upstream,
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
    for flag in ["`--https`", "`--upstream`", "`--chain`"] {
        assert!(said.contains(&format!("error: {flag}: ")), "{said}");
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
    assert_eq!(
        find("timeouts", "idle").default.as_deref(),
        Some("\"1m15s\"")
    );
    assert_eq!(
        find("limits", "request_head").default.as_deref(),
        Some("\"64KiB\"")
    );
    assert_eq!(
        find("listen", "https").default.as_deref(),
        Some("[\"[::]:443\"]")
    );
    assert_eq!(
        find("site.route", "path").default.as_deref(),
        Some("required")
    );
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

/// Whatever the text: no panic, places within it, and something to show.
fn hostile(text: &str) -> Result<(), TestCaseError> {
    let report = match parse(text) {
        Ok(config) => config.warnings,
        Err(report) => {
            prop_assert!(!report.is_empty());
            report
        }
    };
    for diagnostic in report.diagnostics() {
        let span = diagnostic.span.clone().unwrap_or(0..0);
        prop_assert!(text.get(span).is_some(), "{:?}", diagnostic);
        prop_assert!(!diagnostic.message.is_empty());
    }
    let _ = report.to_string();
    Ok(())
}

proptest! {
    #[test]
    fn arbitrary_text_is_survived(text in "\\PC*") {
        hostile(&text)?;
    }

    #[test]
    fn arbitrary_lines_are_survived(
        lines in proptest::collection::vec(
            "(\\[{0,2}(listen|site|site\\.route|upstream\\.a|alerts\\.sink|log)\\]{0,2}|\
             (type|names|upstream|https|path|servers|url|idle|token)( = |\\.)\
             ('[a-z:/.*@]{0,9}'|\\[('[a-z:/*]{0,5}',?){0,3}\\]|[0-9.a-z-]{1,4}|\\{ ?a ?= ?1 ?\\}))",
            0..12,
        )
    ) {
        hostile(&lines.join("\n"))?;
    }

    #[test]
    fn mutated_examples_are_survived(
        which in 0_usize..3,
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<char>(), 0_u8..4), 1..8),
    ) {
        let text = [
            include_str!("../../config/staunch.toml"),
            include_str!("../../config/load-balancer.toml"),
            COMPLETE,
        ][which];
        let mut chars: Vec<char> = text.chars().collect();
        for (at, c, kind) in edits {
            let at = at.index(chars.len());
            match kind {
                0 => chars[at] = c,
                1 => chars.insert(at, c),
                2 => { chars.remove(at); }
                _ => chars.truncate(at.max(1)),
            }
        }
        hostile(&chars.into_iter().collect::<String>())?;
    }
}
