//! Sessions are taken where they do not belong, as in CVE-2025-23419: across sites, listeners,
//! reloads and upgrades, over both versions, by tickets and by pre-shared keys.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{Builder, HOST, Origin, Port, Site, Staunch, TestCa, python, run};
use crate::tls_policy::{Client, ClientCa, ClientCert, VERSIONS, client_auth, resumed, status};
use crate::upgrade::Line;

const OPEN: &str = "open.test";
const ONE: &str = "one.test";
const ONE_TOO: &str = "one-too.test";
const TWO: &str = "two.test";
const OPTIONAL: &str = "optional.test";
const SITES: [&str; 5] = [OPEN, ONE, ONE_TOO, TWO, OPTIONAL];

/// Two authorities for clients, and somebody of each.
struct Cards {
    folder: tempfile::TempDir,
    authorities: [PathBuf; 2],
    cards: [ClientCert; 2],
}

impl Cards {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (ClientCa::new("one"), ClientCa::new("two"));
        let write = |name: &str, ca: &ClientCa| {
            let path = folder.path().join(name);
            fs::write(&path, &ca.pem).unwrap();
            path
        };
        Self {
            authorities: [write("one.pem", &one), write("two.pem", &two)],
            cards: [
                one.issue(folder.path(), "wren", 1),
                two.issue(folder.path(), "robin", 2),
            ],
            folder,
        }
    }

    fn session(&self) -> PathBuf {
        self.folder.path().join("session")
    }

    /// The one that a site lets in.
    fn of(&self, name: &str) -> &ClientCert {
        &self.cards[usize::from(name == TWO)]
    }

    /// What a site says of clients.
    fn lines(&self, name: &str) -> String {
        let [one, two] = &self.authorities;
        match name {
            ONE | ONE_TOO => client_auth("required", one, ""),
            TWO => client_auth("required", two, ""),
            OPTIONAL => client_auth("optional", one, ""),
            _ => String::new(),
        }
    }

    /// One process with a site of each kind.
    fn sites(&self, origin: &Origin) -> Builder {
        let leaf = TestCa::new().leaf(&SITES).issue();
        SITES
            .iter()
            .fold(Staunch::build().leaf(&leaf), |builder, name| {
                builder.sites(Site::new(&[name], &origin.url()).also(&self.lines(name)))
            })
    }
}

/// Makes a session and shows it again, with no certificate. Whether it was taken, and the response.
fn carry(session: &Path, from: Client, to: Client) -> (bool, u16) {
    let _ = fs::remove_file(session);
    let first = from.file("-sess_out", session).run();
    assert_eq!(status(&first), 200, "{first:#?}");
    let second = to.file("-sess_in", session).run();
    (resumed(&second), status(&second))
}

#[test]
fn no_session_crosses_to_another_site_of_the_same_process() {
    let (cards, origin) = (Cards::new(), Origin::echo());
    let proxy = cards.sites(&origin).start();
    let mut crossed = String::new();
    for version in VERSIONS {
        for from in SITES {
            for to in SITES {
                let leave = Client::to(&proxy, from).asking(from, "");
                let leave = leave.with(&[version]).showing(cards.of(from));
                let enter = Client::to(&proxy, to).asking(to, "").with(&[version]);
                let (resumed, status) = carry(&cards.session(), leave, enter);
                let same = from == to;
                let open = [OPEN, OPTIONAL].contains(&to);
                if (resumed && !same) || (status == 200) != (same || open) {
                    writeln!(crossed, "{version}: {from} to {to}: {resumed} {status}").unwrap();
                }
            }
        }
    }
    assert!(crossed.is_empty(), "{crossed}");
}

#[test]
fn a_resumed_session_opens_no_other_site_by_its_host_field() {
    let (cards, origin) = (Cards::new(), Origin::echo());
    let proxy = cards.sites(&origin).start();
    for version in VERSIONS {
        for (from, host) in [(OPEN, ONE), (OPTIONAL, ONE), (ONE, TWO), (OPEN, TWO)] {
            let to = |host| Client::to(&proxy, from).asking(host, "").with(&[version]);
            let leave = to(from).showing(cards.of(from));
            let carried = carry(&cards.session(), leave, to(host));
            assert_eq!(carried, (true, 421), "{version}: {from} asks for {host}");
        }
    }
}

#[test]
fn who_was_let_in_is_still_told_when_the_session_is_resumed() {
    let (cards, origin) = (Cards::new(), Origin::echo());
    let lines = cards.lines(ONE) + "headers = [\"subject\"]\n";
    let leaf = TestCa::new().leaf(&[ONE]).issue();
    let site = Site::new(&[ONE], &origin.url()).also(&lines);
    let line = Line::start(Staunch::build().leaf(&leaf).sites(site));
    for version in VERSIONS {
        let to = || {
            Client::to(&line.staunch, ONE)
                .asking(ONE, "")
                .with(&[version])
        };
        let leave = to().showing(cards.of(ONE));
        assert_eq!(carry(&cards.session(), leave, to()), (true, 200));
        assert_eq!(origin.last().field("X-Client-Cert-Subject"), "CN=wren");
        line.upgraded();
        let again = to().file("-sess_in", &cards.session()).run();
        assert_eq!((resumed(&again), status(&again)), (true, 200), "{version}");
        assert_eq!(origin.last().field("X-Client-Cert-Subject"), "CN=wren");
    }
}

/// How a process comes to go by another configuration.
type Change = fn(&Line);

#[test]
fn no_session_from_before_enters_a_site_that_asks_for_more_since() {
    let (cards, origin) = (Cards::new(), Origin::echo());
    let keys = cards.folder.path().join("ticket.key");
    fs::write(&keys, (0..80_u8).map(|n| n | 0x80).collect::<Vec<_>>()).unwrap();
    let changes: [(&str, Change); 2] = [
        ("reload", |line| {
            line.staunch.reload();
        }),
        ("upgrade", |line| {
            line.upgraded();
        }),
    ];
    let leaf = TestCa::new().leaf(&[HOST]).issue();
    for (how, change) in changes {
        for shared in [false, true] {
            let mut builder = Staunch::build().leaf(&leaf).site(HOST, &origin);
            if shared {
                builder = builder.set("tls.ticket_keys", format!("[{keys:?}]"));
            }
            let mut line = Line::start(builder);
            let is_now = |line: &mut Line, kind: &str| {
                line.staunch.reconfigure(|config| {
                    config.clear_sites();
                    let site = Site::new(&[HOST], &origin.url());
                    config.add_site(site.also(&cards.lines(kind)));
                });
                change(line);
            };
            for version in VERSIONS {
                for (from, to) in [(OPEN, ONE), (OPTIONAL, ONE), (ONE, TWO), (TWO, ONE)] {
                    is_now(&mut line, from);
                    let client = |line: &Line| Client::to(&line.staunch, HOST).with(&[version]);
                    let _ = fs::remove_file(cards.session());
                    let first = client(&line).showing(cards.of(from));
                    let first = first.file("-sess_out", &cards.session()).run();
                    assert_eq!(status(&first), 200, "{first:#?}");
                    is_now(&mut line, to);
                    let second = client(&line).file("-sess_in", &cards.session()).run();
                    let what = format!("{version}, {how}, shared {shared}: {from} to {to}");
                    assert_eq!((resumed(&second), status(&second)), (false, 0), "{what}");
                }
            }
        }
    }
}

#[test]
fn a_session_of_one_listener_does_not_get_around_the_policy_of_another() {
    let (cards, origin) = (Cards::new(), Origin::echo());
    let builder = cards.sites(&origin);
    let strict = Port::free();
    let both = format!("[\"{}\", \"{}\"]", builder.https(), strict.address());
    let lines = format!(
        "[[tls.listener]]\naddress = \"{}\"\npolicy = \"modern\"\n",
        strict.address()
    );
    let unused = Site::new(&["unused.test"], &origin.url()).also(&lines);
    let proxy = builder.set("listen.https", both).sites(unused).start();
    for version in VERSIONS {
        for name in [OPEN, ONE] {
            let to = || Client::to(&proxy, name).asking(name, "").with(&[version]);
            let address = strict.address().to_string();
            let there = to().with(&["-connect", &address]);
            let leave = to().showing(cards.of(name));
            let (resumed, status) = carry(&cards.session(), leave, there);
            match version {
                "-tls1_2" => assert_eq!((resumed, status), (false, 0), "{name}"),
                // Those who were let in here were let in by the same authorities.
                _ => assert_eq!((resumed, status), (true, 200), "{name}"),
            }
        }
        // And not by another site's name there.
        let leave = Client::to(&proxy, OPEN).asking(OPEN, "").with(&[version]);
        let address = strict.address().to_string();
        let there = Client::to(&proxy, ONE).asking(ONE, "");
        let there = there.with(&[version, "-connect", &address]);
        assert_eq!(carry(&cards.session(), leave, there), (false, 0));
    }
}

/// The same with another client, which hands over its session object whatever name it asks for.
#[test]
fn python_does_not_get_across_either() {
    const SCRIPT: &str = r#"
import socket, ssl, sys
port, version, first, second, cert, key = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
if cert != "-":
    context.load_cert_chain(cert, key)
def ask(name, session):
    plain = socket.create_connection(("127.0.0.1", int(port)), timeout=20)
    with context.wrap_socket(plain, server_hostname=name or None, session=session) as tls:
        host = (name or second).encode()
        tls.sendall(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
        answer = b""
        while some := tls.recv(4096):
            answer += some
        return tls.session, tls.session_reused, answer[9:12].decode()
session, _, _ = ask(first, None)
try:
    _, reused, status = ask(second if second != "-" else "", session)
except (OSError, ssl.SSLError) as error:
    reused, status = False, "none"
print(reused, status)
"#;
    let (cards, origin) = (Cards::new(), Origin::echo());
    let proxy = cards.sites(&origin).start();
    let port = proxy.https().port().to_string();
    let ask = |version: &str, first: &str, second: &str, card: Option<&ClientCert>| {
        let mut command = python();
        command.args(["-c", SCRIPT, &port, version, first, second]);
        match card {
            Some(card) => command.arg(&card.cert).arg(&card.key),
            None => command.args(["-", "-"]),
        };
        let ran = run(&mut command);
        assert!(ran.status.success(), "{ran:#?}");
        ran.stdout.trim().to_owned()
    };
    for version in ["TLSv1_2", "TLSv1_3"] {
        assert_eq!(ask(version, OPEN, OPEN, None), "True 200");
        assert_eq!(ask(version, ONE, ONE, Some(cards.of(ONE))), "True 200");
        assert_eq!(ask(version, OPEN, ONE, None), "False none");
        assert_eq!(ask(version, OPTIONAL, ONE, None), "False none");
        assert_eq!(ask(version, ONE, TWO, Some(cards.of(ONE))), "False none");
        // With its card, but by a full handshake.
        assert_eq!(ask(version, ONE, ONE_TOO, Some(cards.of(ONE))), "False 200");
        // Without a name, it is nobody's session.
        assert_eq!(ask(version, ONE, "-", Some(cards.of(ONE))), "False 421");
    }
}
