//! OCSP staples, fetched from real responders and from some that are none.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::{
    BINARY, HOST, Leaf, Origin, Port, Ran, Site, Staunch, TestCa, eventually, python, require, run,
    until,
};

const HOUR: i32 = 3600;

/// An authority with a folder of its own, as `openssl ca` has them.
struct Authority {
    ca: TestCa,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new(ca: TestCa) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = ca.signing();
        fs::write(folder.path().join("ca.pem"), certificate).unwrap();
        fs::write(folder.path().join("ca.key"), key).unwrap();
        Self { ca, folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Knows one leaf: `V` is valid, `R` revoked.
    fn knows(&self, leaf: &Leaf, status: char) {
        fs::write(self.path("leaf.pem"), &leaf.chain).unwrap();
        let ran = run(Command::new(require("openssl"))
            .args(["x509", "-noout", "-serial", "-in"])
            .arg(self.path("leaf.pem")));
        let serial = ran.stdout.trim().trim_start_matches("serial=").to_owned();
        let revoked = if status == 'R' { "261101000000Z" } else { "" };
        let line = format!("{status}\t400101000000Z\t{revoked}\t{serial}\tunknown\t/CN=leaf\n");
        // As a whole: a responder may be reading.
        fs::write(self.path("index.new"), line).unwrap();
        fs::rename(self.path("index.new"), self.path("index.txt")).unwrap();
    }

    fn openssl(&self) -> Command {
        let mut command = Command::new(require("openssl"));
        command.current_dir(self.folder.path()).arg("ocsp");
        command
    }

    fn signing(&self, signer: &str) -> Command {
        let mut command = self.openssl();
        command.args(["-index", "index.txt", "-CA", "ca.pem", "-rsigner"]);
        command.arg(format!("{signer}.pem")).arg("-rkey");
        command.arg(format!("{signer}.key"));
        command
    }

    /// A responder that signs with this certificate.
    fn respond(&self, port: &Port, signer: &str) -> Responder {
        let mut command = self.signing(signer);
        command.args(["-ndays", "4", "-port", &port.address().port().to_string()]);
        // It says when it listens; a connection that is closed at once would hold it up.
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut says = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        says.read_line(&mut line).unwrap();
        assert!(line.contains("ACCEPT"), "{line}");
        Responder { child, _says: says }
    }

    /// What a responder would say of the leaf, from and to so many seconds from now.
    fn answer(&self, seconds: (i32, i32)) -> Vec<u8> {
        const SCRIPT: &str = r#"
import sys
from datetime import datetime, timedelta
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp
def load(name):
    return x509.load_pem_x509_certificate(open(name, "rb").read())
key = serialization.load_pem_private_key(open("ca.key", "rb").read(), None)
start, end = (datetime.utcnow() + timedelta(seconds=int(it)) for it in sys.argv[1:])
answer = ocsp.OCSPResponseBuilder().add_response(
    cert=load("leaf.pem"), issuer=load("ca.pem"), algorithm=hashes.SHA256(),
    cert_status=ocsp.OCSPCertStatus.GOOD, this_update=start, next_update=end,
    revocation_time=None, revocation_reason=None,
).responder_id(ocsp.OCSPResponderEncoding.HASH, load("ca.pem")).sign(key, hashes.SHA256())
open("answer.der", "wb").write(answer.public_bytes(serialization.Encoding.DER))
"#;
        let mut command = python();
        command.current_dir(self.folder.path()).args(["-c", SCRIPT]);
        let ran = run(command.args([seconds.0.to_string(), seconds.1.to_string()]));
        assert!(ran.status.success(), "{ran:?}");
        fs::read(self.path("answer.der")).unwrap()
    }
}

struct Responder {
    child: Child,
    _says: BufReader<ChildStdout>,
}

impl Drop for Responder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What openssl sees of the staple, verified by what it trusts.
fn status(proxy: &Staunch, version: &str) -> Ran {
    let address = proxy.https().to_string();
    run(Command::new(require("openssl"))
        .args(["s_client", "-status", version, "-servername", HOST])
        .args(["-connect", &address])
        .stdin(Stdio::null()))
}

fn staples(proxy: &Staunch) -> bool {
    status(proxy, "-tls1_3")
        .stdout
        .contains("Cert Status: good")
}

fn of_certificate(proxy: &Staunch, leaf: &Leaf) -> Value {
    proxy.certificate_for(leaf)["staple"].clone()
}

fn firing(proxy: &Staunch, condition: &str) -> Option<Value> {
    let all = proxy.admin_get("/api/alerts").expect(200).json();
    let firing = all["firing"].as_array().cloned().unwrap_or_default();
    firing.into_iter().find(|it| it["condition"] == condition)
}

#[test]
fn a_staple_is_fetched_from_a_real_responder_and_kept_over_a_restart() {
    let root = TestCa::new();
    let origin = Origin::echo();
    // An issuer that is in the chain, and one that only this system's roots have.
    for authority in [Authority::new(root.intermediate()), Authority::new(root)] {
        let port = Port::free();
        let url = format!("http://{}", port.address());
        let leaf = authority
            .ca
            .leaf(&[HOST])
            .responder(&url)
            .must_staple()
            .issue();
        authority.knows(&leaf, 'V');
        let responder = authority.respond(&port, "ca");
        let builder = Staunch::build()
            .trusting(&authority.ca)
            .leaf(&leaf)
            .sites(Site::new(&[HOST], &origin.url()));
        let kept = builder.path("state").join("ocsp");
        let proxy = builder.clone().start();
        until("it is stapled", || staples(&proxy));
        for version in ["-tls1_2", "-tls1_3"] {
            let seen = status(&proxy, version);
            assert!(seen.stdout.contains("Cert Status: good"), "{seen:?}");
        }
        let staple = of_certificate(&proxy, &leaf);
        assert_eq!(staple["status"], "good", "{staple}");
        assert_eq!(staple["from"], "responder", "{staple}");
        assert_eq!(
            proxy.count("staunch_ocsp_staples", &[("status", "good")]),
            1.0
        );
        assert_eq!(firing(&proxy, "staple_missing"), None);
        let admin = format!("http://{}", proxy.admin());
        let listed = run(Command::new(BINARY).args(["certs", "--admin", &admin]));
        assert!(
            listed.stdout.contains("OCSP staple: good, until"),
            "{listed:?}"
        );
        // What is kept is what was sent, and openssl believes it.
        let name = format!("{}.der", leaf.fingerprint);
        let answer = eventually("it is kept", || fs::read(kept.join(&name)).ok());
        fs::write(authority.path("answer.der"), answer).unwrap();
        fs::write(authority.path("root.pem"), &leaf.root.pem).unwrap();
        let said = run(authority
            .openssl()
            .args(["-respin", "answer.der", "-issuer", "ca.pem"])
            .args(["-cert", "leaf.pem", "-CAfile", "root.pem"]));
        assert!(said.output().contains("Response verify OK"), "{said:?}");

        // The responder is gone, and staunch starts anew.
        drop(responder);
        proxy.term();
        proxy.wait_exit();
        drop(proxy);
        let proxy = builder.start();
        assert!(staples(&proxy), "from the first handshake on");
    }
}

#[test]
fn whatever_a_responder_does_handshakes_go_on() {
    let origin = Origin::echo();
    let authority = Authority::new(TestCa::new());
    let other = authority.ca.leaf(&["other.test"]).issue();
    authority.knows(&other, 'V');
    let of_another = authority.answer((-HOUR, 100 * HOUR));
    let somebody = Authority::new(TestCa::new());

    type Say<'a> = Box<dyn Fn(&Leaf) -> Option<Vec<u8>> + 'a>;
    let cases: Vec<(&str, Say<'_>)> = vec![
        ("no connection", Box::new(|_| None)),
        (
            "not an OCSP response",
            Box::new(|_| Some(b"what?".to_vec())),
        ),
        (
            "another certificate",
            Box::new(move |_| Some(of_another.clone())),
        ),
        (
            "good until",
            Box::new(|leaf| {
                authority.knows(leaf, 'V');
                Some(authority.answer((-9 * HOUR, -HOUR)))
            }),
        ),
        (
            "good from",
            Box::new(|leaf| {
                authority.knows(leaf, 'V');
                Some(authority.answer((HOUR, 9 * HOUR)))
            }),
        ),
        // It knows the certificate, and signs with a key of its own.
        (
            "another certificate",
            Box::new(move |leaf| {
                somebody.knows(leaf, 'V');
                Some(somebody.answer((-HOUR, 100 * HOUR)))
            }),
        ),
        ("tryLater", Box::new(|_| Some(vec![0x30, 3, 10, 1, 3]))),
    ];
    for (why, say) in cases {
        let dead = Port::free();
        let answer = Arc::new(Mutex::new(None::<Vec<u8>>));
        let server = {
            let answer = Arc::clone(&answer);
            Origin::plan("responder")
                .route("/ocsp", move |exchange| {
                    let answer = answer.lock().unwrap().clone().unwrap_or_default();
                    exchange.respond(200, "", &answer)
                })
                .start()
        };
        let mut url = format!("{}/ocsp", server.url());
        let probe = authority.ca.leaf(&[HOST]).issue();
        if say(&probe).is_none() {
            url = format!("http://{}", dead.address());
        }
        let leaf = authority
            .ca
            .leaf(&[HOST])
            .responder(&url)
            .must_staple()
            .issue();
        *answer.lock().unwrap() = say(&leaf);
        let proxy = Staunch::build()
            .trusting(&authority.ca)
            .leaf(&leaf)
            .sites(Site::new(&[HOST], &origin.url()))
            .start();
        let detail = || {
            of_certificate(&proxy, &leaf)["detail"]
                .as_str()
                .map(str::to_owned)
        };
        let detail = eventually("it was asked", detail);
        assert!(detail.contains(why), "{why}: {detail}");
        assert!(!staples(&proxy), "{why}");
        proxy.get("/").expect(200);
        if why == "good until" {
            let alert = eventually("it is told", || firing(&proxy, "staple_missing"));
            assert_eq!(alert["severity"], "critical");
            assert!(alert["summary"].as_str().unwrap().contains(why), "{alert}");
        }
        let failed = [("outcome", "failed")];
        assert!(proxy.count("staunch_ocsp_requests_total", &failed) >= 1.0);
    }
}

#[test]
fn a_staple_is_refreshed_at_half_of_its_life_and_never_by_an_older_one() {
    let origin = Origin::echo();
    let authority = Authority::new(TestCa::new());
    let said = Arc::new(Mutex::new(Vec::new()));
    let responder = {
        let said = Arc::clone(&said);
        Origin::plan("responder")
            .route("/ocsp", move |exchange| {
                let said = said.lock().unwrap().clone();
                exchange.respond(200, "", &said)
            })
            .start()
    };
    let url = format!("{}/ocsp", responder.url());
    let leaf = authority.ca.leaf(&[HOST]).responder(&url).issue();
    authority.knows(&leaf, 'V');
    let older = authority.answer((-HOUR, 100 * HOUR));
    let newer = authority.answer((-20, 100 * HOUR));
    *said.lock().unwrap() = authority.answer((-60, 70));
    let proxy = Staunch::build()
        .trusting(&authority.ca)
        .leaf(&leaf)
        .sites(Site::new(&[HOST], &origin.url()))
        .start();
    until("it is stapled", || staples(&proxy));
    let until_when = || of_certificate(&proxy, &leaf)["next_update"].clone();
    let first = until_when();
    *said.lock().unwrap() = older;
    let detail = || {
        let staple = of_certificate(&proxy, &leaf);
        staple["detail"].as_str().map(str::to_owned)
    };
    let detail = eventually("it was asked again", detail);
    assert!(detail.contains("older than the last one"), "{detail}");
    assert_eq!(until_when(), first);
    assert!(staples(&proxy), "the one that is there is sent on");

    // The other way round, with a process that has not failed yet.
    let again = proxy.config().clone();
    *said.lock().unwrap() = newer;
    proxy.term();
    proxy.wait_exit();
    drop(proxy);
    let proxy = again.start();
    assert!(staples(&proxy));
    until("it is refreshed", || {
        of_certificate(&proxy, &leaf)["next_update"] != first
    });
    assert!(of_certificate(&proxy, &leaf)["detail"].is_null());
}

#[test]
fn a_responder_that_never_ends_is_given_up_and_others_are_asked_meanwhile() {
    let origin = Origin::echo();
    let authority = Authority::new(TestCa::new());
    let port = Port::free();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let slow = format!("http://{}", silent.local_addr().unwrap());
    let url = format!("http://{}", port.address());
    let leaf = authority.ca.leaf(&[HOST]).responder(&url).issue();
    authority.knows(&leaf, 'V');
    let _responder = authority.respond(&port, "ca");
    let mut builder = Staunch::build().trusting(&authority.ca).leaf(&leaf);
    for n in 0..3 {
        let name = format!("slow{n}.test");
        builder = builder.leaf(&authority.ca.leaf(&[&name]).responder(&slow).issue());
    }
    let proxy = builder.sites(Site::new(&[HOST], &origin.url())).start();
    until("it is stapled", || staples(&proxy));
    proxy.get("/").expect(200);
    proxy.wait_log("no answer within 10s");
}

#[test]
fn a_revoked_certificate_is_told_and_its_answer_is_not_sent() {
    let origin = Origin::echo();
    let authority = Authority::new(TestCa::new());
    let port = Port::free();
    let url = format!("http://{}", port.address());
    let leaf = authority.ca.leaf(&[HOST]).responder(&url).issue();
    authority.knows(&leaf, 'R');
    let _responder = authority.respond(&port, "ca");
    let proxy = Staunch::build()
        .trusting(&authority.ca)
        .leaf(&leaf)
        .sites(Site::new(&[HOST], &origin.url()))
        .start();
    let alert = eventually("it is told", || firing(&proxy, "revoked"));
    assert!(
        alert["summary"]
            .as_str()
            .unwrap()
            .contains("OCSP responder"),
        "{alert}"
    );
    assert_eq!(of_certificate(&proxy, &leaf)["status"], "revoked");
    assert!(proxy.certificate_for(&leaf)["revoked"].is_string());
    let seen = status(&proxy, "-tls1_3");
    assert!(seen.stdout.contains("no response sent"), "{seen:?}");
    // It is the best there is, and served.
    proxy.get("/").expect(200);
}

#[test]
fn a_delegate_must_be_the_issuers_own_and_may_sign_nothing_else() {
    let origin = Origin::echo();
    for (allowed, detail) in [(true, None), (false, Some("no OCSPSigning"))] {
        let authority = Authority::new(TestCa::new());
        let port = Port::free();
        let url = format!("http://{}", port.address());
        let delegate = authority.ca.leaf(&["delegate.test"]);
        let delegate = if allowed {
            delegate.signs_status()
        } else {
            delegate
        }
        .issue();
        fs::write(authority.path("delegate.pem"), &delegate.chain).unwrap();
        fs::write(authority.path("delegate.key"), &delegate.key).unwrap();
        let leaf = authority.ca.leaf(&[HOST]).responder(&url).issue();
        authority.knows(&leaf, 'V');
        let _responder = authority.respond(&port, "delegate");
        let proxy = Staunch::build()
            .trusting(&authority.ca)
            .leaf(&leaf)
            .sites(Site::new(&[HOST], &origin.url()))
            .start();
        match detail {
            None => until("it is stapled", || staples(&proxy)),
            Some(why) => {
                let detail = || {
                    of_certificate(&proxy, &leaf)["detail"]
                        .as_str()
                        .map(str::to_owned)
                };
                let detail = eventually("it was asked", detail);
                assert!(detail.contains(why), "{detail}");
                assert!(!staples(&proxy));
            }
        }
    }
}

#[test]
fn a_responder_that_a_stranger_names_is_asked_only_where_that_is_wanted() {
    let origin = Origin::echo();
    let authority = Authority::new(TestCa::new());
    let port = Port::free();
    let url = format!("http://{}", port.address());
    let leaf = authority
        .ca
        .leaf(&[HOST])
        .responder(&url)
        .must_staple()
        .issue();
    authority.knows(&leaf, 'V');
    // The whole chain, so that its issuer is known although nobody trusts it.
    let whole = Leaf {
        chain: leaf.chain.clone() + &authority.ca.root().pem,
        ..leaf.clone()
    };
    let _responder = authority.respond(&port, "ca");
    let mut proxy = Staunch::build()
        .leaf(&whole)
        .env("SSL_CERT_FILE", "/dev/null")
        .sites(Site::new(&[HOST], &origin.url()))
        .start();
    let detail = eventually("it is said", || {
        of_certificate(&proxy, &leaf)["detail"]
            .as_str()
            .map(str::to_owned)
    });
    assert!(detail.contains("does not trust it"), "{detail}");
    assert_eq!(proxy.count("staunch_ocsp_requests_total", &[]), 0.0);
    proxy.reconfigure(|config| config.change("tls.ocsp", "\"all\""));
    proxy.reload();
    until("it is stapled", || staples(&proxy));
}
