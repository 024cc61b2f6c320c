//! People are told: by the real program, through real receivers.

use std::fs;
use std::io::Read as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::{
    Connection, Gate, HOST, Origin, Placed, Port, Site, Staunch, TestCa, curl, eventually, python,
    require, until,
};

/// The alert that fires for this condition.
fn firing(proxy: &Staunch, condition: &str) -> Option<Value> {
    let all = proxy.admin_get("/api/alerts").expect(200).json();
    let firing = all["firing"].as_array().cloned().unwrap_or_default();
    firing.into_iter().find(|it| it["condition"] == condition)
}

#[test]
fn a_server_that_is_down_is_told() {
    let dead = Port::free();
    let url = format!("http://{}", dead.address());
    let ca = TestCa::new();
    let proxy = Staunch::build()
        .leaf(&ca.issue(HOST))
        .sites(Site::new(&[HOST], &url))
        .start();
    assert_eq!(firing(&proxy, "upstream_down"), None, "nobody asked it yet");
    for _ in 0..20 {
        proxy.get("/").expect(502);
    }
    let alert = eventually("it is told", || firing(&proxy, "upstream_down"));
    assert_eq!(alert["severity"], "critical", "there is no other: {alert}");
    assert_eq!(alert["labels"]["server"], url.as_str());
    let said = alert["summary"].as_str().unwrap();
    assert!(said.contains("refused"), "it says why: {said}");
    let labels = [("condition", "upstream_down"), ("severity", "critical")];
    assert_eq!(proxy.count("staunch_alerts_firing", &labels), 1.0);
}

#[test]
fn one_server_of_several_is_a_warning_and_a_drained_one_is_none() {
    let (good, idle) = (Origin::echo(), Origin::echo());
    let dead = Port::free();
    let url = format!("http://{}", dead.address());
    let ca = TestCa::new();
    let proxy = Staunch::build()
        .leaf(&ca.issue(HOST))
        .upstream("api", &[&good.url(), &url, &idle.url()])
        .set("upstream.api.health.path", "\"/\"")
        .set("upstream.api.health.interval", "\"1s\"")
        .sites(Site::new(&[HOST], "api"))
        .start();
    let body = format!("{{\"upstream\":\"api\",\"server\":\"{}\"}}", idle.url());
    let mut admin = Connection::plain(proxy.admin()).unwrap();
    admin
        .post("localhost", "/api/upstreams/drain", body.as_bytes())
        .expect(200);
    let alert = eventually("it is told", || firing(&proxy, "upstream_down"));
    assert_eq!(alert["severity"], "warning", "{alert}");
    assert_eq!(alert["subject"], format!("api: {url}"));
    assert!(
        alert["summary"].as_str().unwrap().contains("health check"),
        "{alert}"
    );
}

#[test]
fn a_certificate_that_a_staple_calls_revoked_is_told() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/certificates");
    let origin = Origin::echo();
    let builder = Staunch::build();
    let file = builder.path("site.pem");
    fs::copy(fixtures.join("ocsp.pem"), &file).unwrap();
    let proxy = builder.bundle(&file).site("fixture.test", &origin).start();
    assert_eq!(firing(&proxy, "revoked"), None);
    // The staple comes later than the certificate, as revocations do.
    let staple = proxy.config().path("site.pem.ocsp");
    fs::copy(fixtures.join("ocsp.revoked.der"), &staple).unwrap();
    let alert = eventually("it is told", || firing(&proxy, "revoked"));
    assert_eq!(alert["severity"], "critical", "{alert}");
    assert_eq!(alert["subject"], file.to_str().unwrap());
    assert!(proxy.certificate(&file)["revoked"].is_string());
    fs::copy(fixtures.join("ocsp.good.der"), &staple).unwrap();
    until("it is over", || firing(&proxy, "revoked").is_none());
}

/// Real clients that know one authority; a renewal from another one passes every check here.
#[test]
fn what_clients_refuse_after_a_renewal_is_told_and_taken_back_where_that_is_wanted() {
    for go_back in [false, true] {
        let origin = Origin::echo();
        let (known, unknown) = (TestCa::new(), TestCa::new());
        let builder = Staunch::build().set("alerts.go_back", go_back);
        let folder = builder.path("site");
        let first = known.issue(HOST);
        let mut placed = Placed::pair(&folder, &first);
        let other = builder.path("other");
        let mut bystander = Placed::pair(&other, &known.issue("other.test"));
        let authority = builder.path("known.pem");
        fs::write(&authority, &known.root().pem).unwrap();
        let proxy = builder
            .certificate(&placed)
            .certificate(&bystander)
            .site(HOST, &origin)
            .site("other.test", &origin)
            .start();
        let resolve = format!("{HOST}:{}:127.0.0.1", proxy.https().port());
        let url = format!("https://{HOST}:{}/", proxy.https().port());
        let visit = || {
            let trust = ["--cacert", authority.to_str().unwrap()];
            curl(&[&trust[..], &["--resolve", &resolve, &url]].concat())
        };
        visit().ok();

        let renewed = unknown.issue(HOST);
        placed.write(&renewed);
        bystander.write(&known.issue("other.test"));
        until("it is served", || {
            proxy.tls(HOST).leaf() == renewed.fingerprint
        });
        for _ in 0..25 {
            assert_eq!(
                visit().status.code(),
                Some(60),
                "it verifies, and does not know the issuer"
            );
        }
        let subject = placed.chain.to_str().unwrap();
        if go_back {
            until("the one before is served", || visit().status.success());
            assert_eq!(proxy.tls(HOST).leaf(), first.fingerprint);
            let disk = &proxy.certificate(&placed.chain)["disk"];
            assert_eq!(disk["reason"], "refused_by_clients", "{disk}");
            assert_eq!(proxy.certificate(&bystander.chain)["disk"]["state"], "same");
            let alert = eventually("it is told", || firing(&proxy, "renewal_held_back"));
            assert_eq!(alert["subject"], subject);
        } else {
            let alert = eventually("it is told", || firing(&proxy, "clients_refuse"));
            assert_eq!(alert["severity"], "critical", "{alert}");
            assert_eq!(alert["subject"], subject);
            assert_eq!(proxy.tls(HOST).leaf(), renewed.fingerprint);
        }
    }
}

#[test]
fn hundreds_that_expire_together_are_a_few_messages_and_a_restart_sends_none_again() {
    const MANY: usize = 300;
    let (origin, hook) = (Origin::echo(), Origin::echo());
    let ca = TestCa::new();
    let mut builder = Staunch::build().trusting(&ca);
    let folder = builder.path("certificates");
    for n in 0..MANY {
        let leaf = ca.leaf(&[&format!("{n}.many.test")]).days(-89, 1).issue();
        Placed::pair(&folder.join(n.to_string()), &leaf);
    }
    let url = hook.url();
    builder = builder.folder(&folder).site("1.many.test", &origin).sites(
        Site::new(&["2.many.test"], &origin.url()).also(&format!(
            "[[alerts.sink]]\ntype = \"webhook\"\nurl = \"{url}\"\n"
        )),
    );
    let proxy = builder.clone().start();
    let grouped = eventually("they are told", || {
        let told = hook.requests();
        (!told.is_empty()).then_some(told.len())
    });
    let all = eventually("all fire", || {
        let all = proxy.admin_get("/api/alerts").expect(200).json();
        let firing = all["firing"].as_array().unwrap().clone();
        let expiring = firing
            .iter()
            .filter(|it| it["condition"] == "expiring")
            .count();
        (expiring == MANY).then_some(expiring)
    });
    assert!(grouped <= 5, "{grouped} messages for {all} alerts");
    until("it is remembered", || {
        proxy.term();
        !proxy.is_running()
    });
    let before = hook.requests().len();
    assert!(before <= 5, "{before} messages");
    let again = builder.start();
    eventually("all fire again", || firing(&again, "expiring"));
    crate::support::continually("nothing is told again", Duration::from_secs(3), || {
        hook.requests().len() == before
    });
}

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_real_alertmanager_shows_the_alert_until_it_is_over() {
    let (origin, ca, port) = (Origin::echo(), TestCa::new(), Port::free());
    let builder = Staunch::build().trusting(&ca);
    let folder = builder.path("alertmanager");
    fs::create_dir(&folder).unwrap();
    let config = folder.join("config.yml");
    fs::write(
        &config,
        "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n",
    )
    .unwrap();
    let program = Command::new(require("prometheus-alertmanager"))
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.path={}", folder.display()))
        .arg(format!("--web.listen-address={}", port.address()))
        .arg("--cluster.listen-address=")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _running = Running(program);
    let known = || -> Vec<Value> {
        let asked = Connection::plain(port.address())
            .and_then(|mut it| it.try_get("localhost", "/api/v2/alerts"));
        let Ok(answer) = asked else { return Vec::new() };
        if answer.status != 200 {
            return Vec::new();
        }
        answer.json().as_array().cloned().unwrap_or_default()
    };
    let old = ca.leaf(&[HOST]).days(-80, 10).issue();
    let mut placed = Placed::pair(&builder.path("certificate"), &old);
    let sink = format!(
        "[[alerts.sink]]\ntype = \"alertmanager\"\nurl = \"http://{}\"\n",
        port.address()
    );
    let proxy = builder
        .certificate(&placed)
        .sites(Site::new(&[HOST], &origin.url()).also(&sink))
        .start();
    let alert = eventually("Alertmanager has it", || {
        known()
            .into_iter()
            .find(|it| it["labels"]["alertname"] == "renewal_overdue")
    });
    assert_eq!(alert["labels"]["severity"], "warning", "{alert}");
    assert!(
        alert["annotations"]["summary"]
            .as_str()
            .unwrap()
            .contains(HOST),
        "{alert}"
    );
    placed.write(&ca.issue(HOST));
    until("Alertmanager knows that it is over", || {
        let overdue = |it: &Value| it["labels"]["alertname"] == "renewal_overdue";
        !known().iter().any(overdue)
    });
    assert!(proxy.is_running());
}

/// A mail server that takes mail only after STARTTLS and a password, and prints what it took.
const MAIL_SERVER: &str = r#"
import asyncio, ssl, sys
from aiosmtpd.smtp import SMTP, AuthResult

class Handler:
    async def handle_DATA(self, server, session, envelope):
        print("TLS", session.ssl is not None, "AS", session.auth_data.login.decode(), flush=True)
        print(envelope.content.decode(), flush=True)
        return "250 taken"

def known(server, session, envelope, mechanism, auth):
    return AuthResult(success=auth.password == b"open sesame", auth_data=auth)

async def main(port, chain, key):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    make = lambda: SMTP(Handler(), tls_context=context, require_starttls=True,
                        authenticator=known, auth_required=True, loop=loop)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(make, "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main(int(sys.argv[1]), sys.argv[2], sys.argv[3]))
"#;

#[test]
fn a_test_goes_out_by_mail_with_starttls_and_a_password() {
    let (origin, ca, port) = (Origin::echo(), TestCa::new(), Port::free());
    let builder = Staunch::serving(&origin).trusting(&ca);
    let server = Placed::pair(&builder.path("mail"), &ca.issue("localhost"));
    let (said, password) = (builder.path("mail/said"), builder.path("mail/password"));
    fs::write(&password, "open sesame\n").unwrap();
    let program = python()
        .args(["-c", MAIL_SERVER, &port.address().port().to_string()])
        .args([&server.chain, &server.key])
        .stdout(fs::File::create(&said).unwrap())
        .spawn()
        .unwrap();
    let _running = Running(program);
    let has = |text: &str| fs::read_to_string(&said).unwrap().contains(text);
    until("the mail server is ready", || has("ready"));
    let sink = format!(
        "[[alerts.sink]]\ntype = \"email\"\nserver = \"smtp://localhost:{}\"\n\
         from = \"staunch@example.test\"\nto = [\"ops@example.test\"]\nusername = \"staunch\"\n\
         password_file = {password:?}\ntest_every = \"7d\"\nname = \"mail\"\n",
        port.address().port()
    );
    let proxy = builder
        .sites(Site::new(&["other.test"], &origin.url()).also(&sink))
        .start();
    until("the test has arrived", || has("TLS True AS staunch"));
    until("it is whole", || has("This is a test of the sink mail"));
    assert!(has("Auto-Submitted: auto-generated") && has("every 7 days"));
    assert!(!proxy.log().contains("open sesame"), "no secret in a log");
}

#[test]
fn certificates_towards_servers_are_watched_over_too() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let old = ca.leaf(&["behind.test"]).days(-85, 4).issue();
    let behind = Staunch::build()
        .leaf(&old)
        .site("behind.test", &origin)
        .start();
    let builder = Staunch::build().leaf(&ca.issue(HOST));
    let file = builder.path("client.pem");
    let place = |days: (i64, i64)| {
        let leaf = ca.leaf(&["client.test"]).days(days.0, days.1).issue();
        fs::write(&file, leaf.chain + &leaf.key).unwrap();
    };
    place((-75, 14));
    let url = format!("https://{}", behind.https());
    let proxy = builder
        .trusting(&ca)
        .upstream("behind", &[&url])
        .set("upstream.behind.tls.name", "\"behind.test\"")
        .set("upstream.behind.tls.chain", format!("{file:?}"))
        .sites(Site::new(&[HOST], "behind"))
        .start();
    let alert = eventually("the one that is shown", || {
        firing(&proxy, "renewal_overdue")
    });
    assert_eq!(alert["subject"], file.display().to_string(), "{alert}");
    let ask = || {
        let mut client = proxy.connect();
        client
            .send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .unwrap();
        client.read("GET").status
    };
    // No site of its goes by that host; what counts is that it was asked.
    assert_eq!(ask(), 421);
    let alert = eventually("the one that is presented", || {
        firing(&proxy, "upstream_expiring")
    });
    assert_eq!(alert["severity"], "critical", "{alert}");
    assert_eq!(alert["subject"], format!("behind: {url}"), "{alert}");

    // What cannot be used changes nothing but what is told.
    fs::write(&file, "garbage").unwrap();
    eventually("the file is told of", || {
        firing(&proxy, "tls_file_unusable")
    });
    assert_eq!(ask(), 421);
    place((-1, 89));
    until("all is well", || {
        let told = ["renewal_overdue", "tls_file_unusable"];
        told.iter().all(|code| firing(&proxy, code).is_none())
    });
}

/// Its listeners are closed then, which is no outage.
#[test]
fn a_drain_ends_the_probe() {
    let gate = Gate::new();
    let origin = Origin::plan("origin").gated("/", &gate).start();
    // It never answers, so that a look is under way when the drain begins.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Staunch::serving(&origin)
        .set(
            "alerts.probe",
            format!("['{}']", silent.local_addr().unwrap()),
        )
        .start();
    let (mut look, _) = silent.accept().unwrap();
    let mut waiting = proxy.connect();
    waiting.ask("GET", HOST, "/", "").unwrap();
    until("it is in flight", || !origin.requests().is_empty());
    proxy.term();
    // Less than the look's own deadline.
    look.set_read_timeout(Some(Duration::from_secs(7))).unwrap();
    let ended = look.read_to_end(&mut Vec::new());
    assert!(ended.is_ok(), "it goes on: {ended:?}");
    assert!(proxy.is_running(), "a request is in flight");
    gate.open();
    waiting.read("GET").expect(200);
    assert!(proxy.wait_exit().success());
    let log = proxy.log();
    assert!(
        !log.contains("probe_failed") && !log.contains("canary_failed"),
        "{log}"
    );
}

/// The certificate that is made for a test of the way is nobody's, wherever it lies.
#[test]
fn the_canary_is_nobodys_certificate() {
    let origin = Origin::echo();
    let all_is_well = |proxy: &Staunch, expected: &[&str]| {
        let all = proxy.admin_get("/api/alerts").expect(200).json();
        let firing = all["firing"].as_array().unwrap();
        let firing: Vec<_> = firing.iter().map(|it| &it["condition"]).collect();
        assert_eq!(firing, expected, "{all}");
        assert_eq!(proxy.certificates().len(), 1, "{:?}", proxy.certificates());
    };

    // What a reload says of the state directory holds from the next start on.
    let mut proxy = Staunch::serving(&origin).start();
    let elsewhere = proxy.config().path("elsewhere");
    proxy.reconfigure(|builder| builder.change("state_dir", format!("{elsewhere:?}")));
    proxy.reload().expect(200);
    all_is_well(&proxy, &[]);

    // It cannot be written: told as what it is.
    let builder = Staunch::serving(&origin);
    let state = builder.path("state");
    fs::create_dir_all(&state).unwrap();
    fs::write(state.join("canary"), "in the way").unwrap();
    let proxy = builder.set("state_dir", format!("{state:?}")).start();
    eventually("it is told", || firing(&proxy, "canary_failed"));
    all_is_well(&proxy, &["canary_failed"]);
}
