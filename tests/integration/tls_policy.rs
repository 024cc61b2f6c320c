//! TLS as each site wants it: policies, tickets, client certificates; with OpenSSL as the witness.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevokedCertParams, SanType, SerialNumber,
};
use time::{Duration, OffsetDateTime};

use crate::support::{HOST, Leaf, Origin, Ran, Site, Staunch, TestCa, require, until};

/// The other site of most tests.
const OTHER: &str = "other.test";

/// One connection of `openssl s_client`.
pub struct Client {
    command: Command,
    input: String,
}

/// A connection that is kept.
struct Open(Child);

impl Open {
    /// Asks for `/` once more; what is answered.
    fn ask_again(mut self, host: &str) -> String {
        let stdin = self.0.stdin.as_mut().unwrap();
        stdin.write_all(request(host, "").as_bytes()).unwrap();
        let output = self.0.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// Both versions, as `s_client` has them.
pub const VERSIONS: [&str; 2] = ["-tls1_2", "-tls1_3"];

impl Client {
    /// To this proxy, asking for this name, and for `/` there.
    pub fn to(proxy: &Staunch, name: &str) -> Self {
        let mut command = Command::new(require("openssl"));
        command
            .args([
                "s_client",
                "-ign_eof",
                "-connect",
                &proxy.https().to_string(),
            ])
            .args(["-servername", name]);
        Self {
            command,
            input: request(name, ""),
        }
    }

    pub fn with(mut self, arguments: &[&str]) -> Self {
        self.command.args(arguments);
        self
    }

    pub fn file(mut self, option: &str, path: &Path) -> Self {
        self.command.arg(option).arg(path);
        self
    }

    /// Showing this certificate.
    pub fn showing(self, client: &ClientCert) -> Self {
        self.file("-cert", &client.cert).file("-key", &client.key)
    }

    /// Asking for another host, or with further fields.
    pub fn asking(mut self, host: &str, fields: &str) -> Self {
        self.input = request(host, fields);
        self
    }

    pub fn run(mut self) -> Ran {
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // It may have given up already.
        let _ = stdin.write_all(self.input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Ran {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Asks once, and keeps the connection.
    fn open(mut self) -> Open {
        let mut child = self
            .command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let kept = self.input.replace("Connection: close\r\n", "");
        let stdin = child.stdin.as_mut().unwrap();
        stdin.write_all(kept.as_bytes()).unwrap();
        let mut answers = Vec::new();
        let stdout = child.stdout.as_mut().unwrap();
        while !String::from_utf8_lossy(&answers).contains("HTTP/1.1 200 ") {
            let mut some = [0; 1024];
            let count = stdout.read(&mut some).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&answers));
            answers.extend_from_slice(&some[..count]);
        }
        Open(child)
    }

    /// The status of the response; 0 when there was none.
    fn status(self) -> u16 {
        status(&self.run())
    }
}

fn request(host: &str, fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{fields}\r\n")
}

pub fn status(ran: &Ran) -> u16 {
    let line = ran
        .stdout
        .lines()
        .find(|line| line.starts_with("HTTP/1.1 "));
    line.map_or(0, |line| line[9..12].parse().unwrap())
}

pub fn resumed(ran: &Ran) -> bool {
    ran.stdout.contains("\nReused, TLSv1.")
}

/// An authority for clients.
pub struct ClientCa {
    issuer: Issuer<'static, KeyPair>,
    pub pem: String,
}

/// A client's certificate and key, on disk.
pub struct ClientCert {
    pub cert: PathBuf,
    pub key: PathBuf,
}

fn in_days(days: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + Duration::days(days)
}

impl ClientCa {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub fn issue(&self, folder: &Path, name: &str, serial: u64) -> ClientCert {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = vec![SanType::URI(
            format!("spiffe://test/{name}").as_str().try_into().unwrap(),
        )];
        params.serial_number = Some(SerialNumber::from(serial));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = in_days(-1);
        params.not_after = in_days(10);
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        let client = ClientCert {
            cert: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        fs::write(&client.cert, signed.pem()).unwrap();
        fs::write(&client.key, key.serialize_pem()).unwrap();
        client
    }

    fn revocation_list(&self, until: i64, revoked: &[u64]) -> String {
        let one = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: in_days(-1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: in_days(-9),
            next_update: in_days(until),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(one).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn both_names() -> Leaf {
    TestCa::new().leaf(&[HOST, OTHER]).issue()
}

/// A proxy with a plain site and one with these lines.
fn two_sites(origin: &Origin, lines: &str) -> crate::support::Builder {
    Staunch::build()
        .leaf(&both_names())
        .site(HOST, origin)
        .sites(Site::new(&[OTHER], &origin.url()).also(lines))
}

/// `[site.client_certificates]`
pub fn client_auth(mode: &str, ca: &Path, more: &str) -> String {
    format!("[site.client_certificates]\nmode = {mode:?}\nca = {ca:?}\n{more}\n")
}

#[test]
fn each_site_has_its_own_policy() {
    let origin = Origin::echo();
    let proxy = two_sites(&origin, "[site.tls]\npolicy = \"modern\"\n").start();
    for version in VERSIONS {
        assert_eq!(Client::to(&proxy, HOST).with(&[version]).status(), 200);
    }
    assert_eq!(Client::to(&proxy, OTHER).with(&["-tls1_3"]).status(), 200);
    let refused = Client::to(&proxy, "OTHER.test").with(&["-tls1_2"]).run();
    assert_eq!(status(&refused), 0);
    assert!(
        refused.stderr.contains("alert protocol version"),
        "{refused:#?}"
    );
    proxy.wait_log("no version in common");
    let labels = [("outcome", "no_shared_version")];
    until("it is counted", || {
        proxy.count("staunch_tls_handshakes_total", &labels) >= 1.0
    });
}

#[test]
fn a_request_does_not_come_in_by_another_sites_door() {
    let origin = Origin::echo();
    let proxy = two_sites(&origin, "[site.tls]\npolicy = \"modern\"\n").start();
    let through = |name, host| Client::to(&proxy, name).asking(host, "").status();
    assert_eq!(through(HOST, OTHER), 421);
    assert_eq!(through("unknown.test", OTHER), 421);
    assert_eq!(through(OTHER, OTHER), 200);
    assert_eq!(through(OTHER, HOST), 200);
}

#[test]
fn a_listener_has_its_own_suites_and_groups() {
    let origin = Origin::echo();
    let builder = Staunch::serving(&origin);
    let mut listener = format!("[[tls.listener]]\naddress = \"{}\"\n", builder.https());
    listener.push_str("groups = [\"secp384r1\"]\nversions = [\"1.2\"]\n");
    listener.push_str("cipher_suites = [\"ECDHE-ECDSA-AES256-GCM-SHA384\"]\n");
    let site = Site::new(&["unused.test"], &origin.url()).also(&listener);
    let proxy = builder.sites(site).start();
    let ran = Client::to(&proxy, HOST).run();
    assert_eq!(status(&ran), 200);
    assert!(
        ran.stdout.contains("ECDHE-ECDSA-AES256-GCM-SHA384"),
        "{ran:#?}"
    );
    assert!(ran.stdout.contains("ECDH, secp384r1"), "{ran:#?}");
    for wrong in [
        ["-groups", "X25519"],
        ["-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"],
    ] {
        assert_eq!(Client::to(&proxy, HOST).with(&wrong).status(), 0);
    }
    proxy.wait_log("no cipher suite, group or signature scheme in common");
}

/// Lets one proxy make a session and the other take it up; whether it did, and the response.
fn carry_over(from: Client, to: Client, file: &Path) -> (bool, u16) {
    let _ = fs::remove_file(file);
    let first = from.file("-sess_out", file).run();
    assert_eq!(status(&first), 200, "{first:#?}");
    let second = to.file("-sess_in", file).run();
    (resumed(&second), status(&second))
}

fn key(seed: u8, length: u8) -> Vec<u8> {
    (0..length)
        .map(|n| n.wrapping_mul(31) ^ seed | 0x80)
        .collect()
}

#[test]
fn a_fleet_shares_its_ticket_keys() {
    let (ca, origin) = (TestCa::new(), Origin::echo());
    let build = || {
        let builder = Staunch::build().leaf(&ca.issue(HOST)).site(HOST, &origin);
        let files = [builder.path("new.key"), builder.path("old.key")];
        fs::write(&files[0], key(1, 80)).unwrap();
        fs::write(&files[1], key(2, 48)).unwrap();
        (builder.set("tls.ticket_keys", format!("{files:?}")), files)
    };
    let ((one, _), (two, files)) = (build(), build());
    let (one, two) = (one.start(), two.start());
    let session = two.config().path("session");
    let carried = |version| {
        let client = |proxy| Client::to(proxy, HOST).with(&[version]);
        carry_over(client(&one), client(&two), &session)
    };
    for version in VERSIONS {
        assert_eq!(carried(version), (true, 200), "{version}");
    }
    // A file that cannot be used changes nothing but what is told.
    fs::write(&files[0], b"too short").unwrap();
    two.wait_log("what was read before goes on");
    assert_eq!(
        two.count("staunch_tls_file_stale", &[("kind", "ticket_keys")]),
        1.0
    );
    assert_eq!(carried("-tls1_3"), (true, 200));
    // What took over elsewhere decrypts here for as long as it is held, and no longer.
    fs::write(&files[0], key(3, 80)).unwrap();
    two.wait_log("ticket keys changed");
    assert_eq!(
        two.count("staunch_tls_file_stale", &[("kind", "ticket_keys")]),
        0.0
    );
    assert_eq!(carried("-tls1_3"), (false, 200));
    fs::write(&files[1], key(1, 80)).unwrap();
    until("the old key is known", || carried("-tls1_3") == (true, 200));
}

#[test]
fn without_tickets_no_session_is_resumed() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).set("tls.tickets", false).start();
    let session = proxy.config().path("session");
    for version in VERSIONS {
        let client = Client::to(&proxy, HOST).with(&[version]);
        assert_eq!(status(&client.file("-sess_out", &session).run()), 200);
        assert!(!session.exists(), "{version}");
    }
}

#[test]
fn who_has_no_good_certificate_stays_outside_where_one_is_required() {
    let origin = Origin::echo();
    let (mine, strange) = (ClientCa::new("mine"), ClientCa::new("strange"));
    let builder = Staunch::build();
    let folder = builder.path("");
    let ca = folder.join("clients.pem");
    fs::write(&ca, &mine.pem).unwrap();
    let also = "[site.request_headers]\nset = { 'X-Who' = '{client_common_name} {client_subject} \
                {client_serial}', 'X-Whole' = '{client_certificate}', 'X-Print' = \
                '{client_fingerprint}' }\n";
    let other = Site::new(&[OTHER], &origin.url())
        .also(&client_auth("required", &ca, ""))
        .also(also);
    let beside = Site::new(&[HOST], &origin.url()).also(also).also(
        "[[site.route]]\npath = '/'\nwhen = { '{client_common_name}' = '.' }\nrespond = 204\n",
    );
    let proxy = builder
        .leaf(&both_names())
        .sites(beside)
        .sites(other)
        .start();
    let good = mine.issue(&folder, "wren", 1);
    let bad = strange.issue(&folder, "cuckoo", 2);
    for version in VERSIONS {
        let to = |name| Client::to(&proxy, name).with(&[version]);
        assert_eq!(to(OTHER).showing(&good).status(), 200, "{version}");
        let told = origin.last();
        assert_eq!(told.field("X-Client-Cert-Subject"), "CN=wren");
        assert_eq!(
            told.field("X-Client-Cert-SAN"),
            "\"URI:spiffe://test/wren\""
        );
        assert_eq!(told.field("X-Client-Cert-Verify"), "success");
        assert!(told.field("Client-Cert").starts_with(":MII"));
        assert_eq!(told.field("X-Client-Cert-Fingerprint").len(), 64);
        // The same under other names.
        assert_eq!(told.field("X-Who"), "wren CN=wren 01");
        assert_eq!(
            told.field("X-Print"),
            told.field("X-Client-Cert-Fingerprint")
        );
        assert_eq!(
            format!(":{}:", told.field("X-Whole")),
            told.field("Client-Cert")
        );
        assert_eq!(to(OTHER).status(), 0, "{version}: nothing shown");
        assert_eq!(to(OTHER).showing(&bad).status(), 0, "{version}: a stranger");
        // Not by the door of the site beside it either, with or without a certificate.
        assert_eq!(to(HOST).showing(&good).asking(OTHER, "").status(), 421);
        // The site beside it asks nobody.
        assert_eq!(to(HOST).showing(&good).status(), 200);
        assert!(origin.last().all("Client-Cert").is_empty());
        // And learns nothing of who somebody is to another site on the same connection.
        let wren = to(OTHER).showing(&good);
        assert_eq!(wren.asking(HOST, "").status(), 200, "{version}");
        let told = origin.last();
        assert!(told.all("X-Client-Cert-Subject").is_empty());
        for name in ["X-Who", "X-Whole", "X-Print"] {
            assert!(told.all(name).is_empty(), "{version}: {name}");
        }
    }
    proxy.wait_log("the site requires a client certificate, and the client showed none");
    proxy.wait_log("it was issued by none of the authorities");
    for outcome in ["client_certificate_missing", "client_certificate_refused"] {
        let labels = [("outcome", outcome)];
        // Others may have looked in meanwhile, to see what is served.
        assert!(proxy.count("staunch_tls_handshakes_total", &labels) >= 2.0);
    }
}

#[test]
fn nobody_can_claim_to_be_somebody() {
    let origin = Origin::echo();
    let mine = ClientCa::new("mine");
    let builder = Staunch::build();
    let folder = builder.path("");
    let ca = folder.join("clients.pem");
    fs::write(&ca, &mine.pem).unwrap();
    let proxy = builder
        .leaf(&both_names())
        .set("listen.forwarded_from", "[\"127.0.0.0/8\", \"::1/128\"]")
        .site(HOST, &origin)
        .sites(Site::new(&[OTHER], &origin.url()).also(&client_auth("optional", &ca, "")))
        .start();
    let claims = "Client-Cert: :AAAA:\r\nclient_cert: :AAAA:\r\nX-Client-Cert-Subject: CN=root\r\n\
        X_CLIENT_CERT_VERIFY: success\r\nClient-Cert-Chain: :AAAA:\r\nX-Client-Certificate: x\r\n";
    for name in [HOST, OTHER] {
        assert_eq!(Client::to(&proxy, name).asking(name, claims).status(), 200);
        let told = String::from_utf8(origin.last().head)
            .unwrap()
            .to_lowercase();
        let told = told.replace('_', "-");
        assert!(
            !told.contains("aaaa") && !told.contains("cn=root"),
            "{told}"
        );
        assert!(!told.contains("success"), "{told}");
        assert_eq!(told.contains("x-client-cert-verify: none"), name == OTHER);
    }
}

#[test]
fn what_is_only_requested_is_passed_on_with_a_word_on_it() {
    let origin = Origin::echo();
    let (mine, strange) = (ClientCa::new("mine"), ClientCa::new("strange"));
    let builder = Staunch::build();
    let folder = builder.path("");
    let ca = folder.join("clients.pem");
    fs::write(&ca, &mine.pem).unwrap();
    let lines = client_auth("request", &ca, "headers = [\"subject\", \"pem\"]");
    let proxy = builder
        .leaf(&TestCa::new().issue(HOST))
        .sites(Site::new(&[HOST], &origin.url()).also(&lines))
        .start();
    let session = folder.join("session");
    for (client, verdict) in [
        (mine.issue(&folder, "wren", 1), "success"),
        (strange.issue(&folder, "cuckoo", 2), "failed"),
    ] {
        for version in VERSIONS {
            let to = || Client::to(&proxy, HOST).with(&[version]).showing(&client);
            assert_eq!(carry_over(to(), to(), &session), (true, 200));
            let told = origin.last();
            assert_eq!(told.field("X-Client-Cert-Verify"), verdict, "{version}");
            assert!(told.field("X-Client-Cert-PEM").contains("BEGIN%20CERT"));
            assert!(told.all("Client-Cert").is_empty());
        }
    }
    assert_eq!(Client::to(&proxy, HOST).status(), 200);
    assert_eq!(origin.last().field("X-Client-Cert-Verify"), "none");
}

/// Servers that share name, certificate and ticket keys, and differ in whom they let in.
#[test]
fn no_session_crosses_into_another_kind_of_client_authentication() {
    let (server, origin) = (TestCa::new(), Origin::echo());
    let (one, two) = (ClientCa::new("one"), ClientCa::new("two"));
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let write = |name: &str, content: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, content).unwrap();
        path
    };
    let keys = write("ticket.key", &key(9, 80));
    let (ca_one, ca_two) = (
        write("one-ca.pem", one.pem.as_bytes()),
        write("two-ca.pem", two.pem.as_bytes()),
    );
    let start = |lines: &str| {
        Staunch::build()
            .leaf(&server.issue(HOST))
            .sites(Site::new(&[HOST], &origin.url()).also(lines))
            .set("tls.ticket_keys", format!("[{keys:?}]"))
            .start()
    };
    let servers = [
        ("nobody", start("")),
        ("one", start(&client_auth("required", &ca_one, ""))),
        ("one again", start(&client_auth("required", &ca_one, ""))),
        ("two", start(&client_auth("required", &ca_two, ""))),
        ("one or none", start(&client_auth("optional", &ca_one, ""))),
    ];
    let cards = [one.issue(folder, "wren", 1), two.issue(folder, "robin", 2)];
    let session = folder.join("session");
    let mut crossed = String::new();
    for version in VERSIONS {
        for (from, source) in &servers {
            // With nothing shown where it is taken to, nothing but the session could let it in.
            let card = &cards[usize::from(*from == "two")];
            for (to, target) in &servers {
                let leave = Client::to(source, HOST).with(&[version]).showing(card);
                let enter = Client::to(target, HOST).with(&[version]);
                let (resumed, status) = carry_over(leave, enter, &session);
                let same = from.trim_end_matches(" again") == to.trim_end_matches(" again");
                let open = ["nobody", "one or none"].contains(to);
                if resumed != same || (status == 200) != (same || open) {
                    writeln!(crossed, "{version}: {from} to {to}: {resumed} {status}").unwrap();
                }
            }
        }
    }
    assert!(crossed.is_empty(), "{crossed}");
}

#[test]
fn authorities_and_revocation_lists_are_swapped_like_certificates() {
    let origin = Origin::echo();
    let (old, new) = (ClientCa::new("old"), ClientCa::new("new"));
    let builder = Staunch::build();
    let folder = builder.path("");
    let (ca, crl) = (folder.join("clients.pem"), folder.join("clients.crl"));
    fs::write(&ca, &old.pem).unwrap();
    fs::write(&crl, old.revocation_list(5, &[])).unwrap();
    let lines = client_auth("required", &ca, &format!("crl = {crl:?}"));
    let proxy = builder
        .leaf(&TestCa::new().issue(HOST))
        .sites(Site::new(&[HOST], &origin.url()).also(&lines))
        .start();
    let (wren, robin) = (
        old.issue(&folder, "wren", 1),
        new.issue(&folder, "robin", 2),
    );
    let enters = |card: &ClientCert| Client::to(&proxy, HOST).showing(card).status() == 200;
    let stale = || proxy.count("staunch_tls_file_stale", &[("kind", "client_certificates")]);
    let session = folder.join("session");
    let keep = |file: &Path| {
        let client = Client::to(&proxy, HOST).showing(&wren);
        assert_eq!(status(&client.file("-sess_out", file).run()), 200);
    };
    assert!(enters(&wren) && !enters(&robin));
    keep(&session);

    // Broken in many ways, nothing changes but what is told.
    for broken in ["", "nonsense", &old.pem[..old.pem.len() / 2]] {
        fs::write(&ca, broken).unwrap();
        until("it is told", || stale() == 1.0);
        assert!(enters(&wren), "{broken:?}");
        fs::write(&ca, &old.pem).unwrap();
        until("it is told to be over", || stale() == 0.0);
    }
    fs::remove_file(&ca).unwrap();
    until("it is told", || stale() == 1.0);
    assert!(enters(&wren));
    proxy.wait_log("there is no such file");
    fs::write(&ca, &old.pem).unwrap();
    until("it is told to be over", || stale() == 0.0);
    let resume = |file: &Path| Client::to(&proxy, HOST).file("-sess_in", file).run();
    assert_eq!(status(&resume(&session)), 200, "the session lives on");

    // Revoked, she stays outside, with her session too, and with the connection that she has.
    let open = Client::to(&proxy, HOST).showing(&wren).open();
    fs::write(&crl, old.revocation_list(5, &[1])).unwrap();
    until("she is revoked", || !enters(&wren));
    let answers = open.ask_again(HOST);
    assert!(answers.contains("HTTP/1.1 421 "), "{answers}");
    assert_eq!(status(&resume(&session)), 0);
    fs::write(&crl, old.revocation_list(5, &[])).unwrap();
    until("she is let in again", || enters(&wren));

    // Past its time, the list lets nobody in, and that is said.
    fs::write(&crl, old.revocation_list(-1, &[])).unwrap();
    until("nobody is let in", || !enters(&wren));
    proxy.wait_log("a revocation list is past its time");
    proxy.wait_log("\"condition\":\"revocation_list_expired\"");

    // Other authorities: others come in, and the sessions of before are over.
    fs::write(&crl, old.revocation_list(5, &[])).unwrap();
    until("she is let in again", || enters(&wren));
    keep(&session);
    fs::write(&crl, new.revocation_list(5, &[])).unwrap();
    fs::write(&ca, &new.pem).unwrap();
    until("the new ones come in", || enters(&robin));
    assert!(!enters(&wren));
    assert_eq!(status(&resume(&session)), 0);
}

#[test]
fn where_no_authority_can_be_read_the_door_stays_shut_and_others_are_open() {
    let origin = Origin::echo();
    let mine = ClientCa::new("mine");
    let builder = Staunch::build();
    let folder = builder.path("");
    let ca = folder.join("later.pem");
    let card = mine.issue(&folder, "wren", 1);
    let proxy = builder
        .leaf(&both_names())
        .site(HOST, &origin)
        .sites(Site::new(&[OTHER], &origin.url()).also(&client_auth("required", &ca, "")))
        .start();
    assert_eq!(Client::to(&proxy, HOST).status(), 200);
    assert_eq!(Client::to(&proxy, OTHER).showing(&card).status(), 0);
    proxy.wait_log("no client certificate is believed");
    proxy.wait_log("\"condition\":\"tls_file_unusable\"");
    fs::write(&ca, &mine.pem).unwrap();
    until("it is opened", || {
        Client::to(&proxy, OTHER).showing(&card).status() == 200
    });
}

#[test]
fn a_reload_keeps_sessions_where_nothing_changed() {
    let origin = Origin::echo();
    let mine = ClientCa::new("mine");
    let builder = Staunch::build();
    let folder = builder.path("");
    let ca = folder.join("clients.pem");
    fs::write(&ca, &mine.pem).unwrap();
    let card = mine.issue(&folder, "wren", 1);
    let mut proxy = builder
        .leaf(&both_names())
        .site(HOST, &origin)
        .sites(Site::new(&[OTHER], &origin.url()).also(&client_auth("required", &ca, "")))
        .start();
    let keep = |name: &str| {
        let file = folder.join(name);
        let client = Client::to(&proxy, name).showing(&card);
        assert_eq!(status(&client.file("-sess_out", &file).run()), 200);
        file
    };
    let sessions = [HOST, OTHER].map(|name| (name, keep(name)));
    proxy.reconfigure(|config| {
        config.add_site(
            Site::new(&["third.test"], "http://127.0.0.1:9")
                .also("[site.tls]\npolicy = \"modern\"\n"),
        );
    });
    proxy.reload().expect(200);
    for (name, session) in sessions {
        let ran = Client::to(&proxy, name).file("-sess_in", &session).run();
        assert!(resumed(&ran) && status(&ran) == 200, "{name}");
    }
}

#[test]
fn a_client_that_does_not_like_the_certificate_is_counted_and_said() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    for version in VERSIONS {
        let ran = Client::to(&proxy, HOST)
            .with(&["-verify_return_error", version])
            .run();
        assert_eq!(status(&ran), 0);
    }
    until("both are counted", || {
        let labels = [("alert", "unknown_ca")];
        proxy.count("staunch_tls_client_alerts_total", &labels) >= 2.0
    });
    proxy.wait_log("it does not know who issued the certificate");
}

#[test]
fn secrets_are_written_only_when_a_flag_asks_for_it() {
    let origin = Origin::echo();
    let builder = Staunch::serving(&origin);
    let file = builder.path("keys.log");
    builder.write();
    let mut command = builder.command();
    command.args(["run", "--config"]).arg(builder.config_path());
    command.arg("--keylog").arg(&file);
    let proxy = builder.spawn(command);
    proxy.wait_ready();
    proxy.wait_log("the secrets of all sessions are written to a file");
    assert_eq!(Client::to(&proxy, HOST).status(), 200);
    until("they are there", || {
        let text = fs::read_to_string(&file).unwrap();
        text.lines()
            .any(|line| line.starts_with("CLIENT_TRAFFIC_SECRET_0 "))
    });
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn the_access_log_tells_kinds_of_clients_apart() {
    let origin = Origin::echo();
    let builder = two_sites(&origin, "[site.tls]\npolicy = \"modern\"\n");
    let log = builder.path("access.log");
    let proxy = (builder.set("log.access.to", format!("{log:?}")))
        .set("tls.ja4", true)
        .start();
    let one = &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"];
    let other = &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256"];
    assert_eq!(Client::to(&proxy, HOST).with(one).status(), 200);
    let elsewhere = Client::to(&proxy, OTHER).asking(OTHER, "").with(one);
    assert_eq!(elsewhere.status(), 200);
    let with_alpn = Client::to(&proxy, HOST)
        .with(other)
        .with(&["-alpn", "http/1.1"]);
    assert_eq!(with_alpn.status(), 200);
    // A greeting that takes several reads.
    let names: Vec<_> = (0..200).map(|n| format!("protocol-{n:050}")).collect();
    let names = format!("http/1.1,{}", names.join(","));
    let long = Client::to(&proxy, HOST).with(one).with(&["-alpn", &names]);
    assert_eq!(long.status(), 200);
    // What is no greeting is told so, as ever.
    assert_eq!(Client::to(&proxy, HOST).with(&["-tls1_1"]).status(), 0);

    let lines = || fs::read_to_string(&log).unwrap_or_default();
    until("all is logged", || lines().lines().count() == 4);
    let prints: Vec<String> = (lines().lines())
        .map(|line| {
            let record = crate::support::json(line.as_bytes());
            record["ja4"].as_str().unwrap_or_default().to_owned()
        })
        .collect();
    // Its suite, and OpenSSL's word that it knows of safe renegotiation:
    // printf 00ff,1301 | sha256sum
    assert!(prints[0].starts_with("t13d02"), "{prints:?}");
    assert!(prints[0].contains("_ec078ce24869_"), "{prints:?}");
    assert_eq!(prints[0], prints[1]);
    assert!(prints[2].starts_with("t12d02"), "{prints:?}");
    assert!(prints[2].contains("h1_6d4732649639_"), "{prints:?}");
    assert!(prints[3].contains("h1_ec078ce24869_"), "{prints:?}");
}
