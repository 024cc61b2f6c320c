//! The real certbot renews against a real ACME server, in its own layout; the renewal is served by
//! itself, and not one request fails meanwhile.

use std::fs;
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::support::{
    Origin, Port, Staunch, TestCa, Tls, Traffic, eventually, require, run, until,
};

const NAME: &str = "example.test";

/// pebble, the ACME server that Let's Encrypt tests clients with; ended with the test.
struct Pebble {
    child: Child,
    directory: String,
}

impl Drop for Pebble {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Pebble {
    fn start(folder: &std::path::Path) -> Self {
        let leaf = TestCa::new().issue("localhost");
        let (chain, key) = (folder.join("pebble.crt"), folder.join("pebble.key"));
        fs::write(&chain, &leaf.chain).unwrap();
        fs::write(&key, &leaf.key).unwrap();
        let (acme, management) = (Port::free(), Port::free());
        let config = json!({ "pebble": {
            "listenAddress": acme.address().to_string(),
            "managementListenAddress": management.address().to_string(),
            "certificate": chain,
            "privateKey": key,
            "httpPort": Port::free().address().port(),
            "tlsPort": Port::free().address().port(),
        }});
        let file = folder.join("pebble.json");
        fs::write(&file, config.to_string()).unwrap();
        let child = Command::new(require("pebble"))
            .arg("-config")
            .arg(&file)
            // No name resolves here. Whether a domain is ours is not what is tested.
            .env("PEBBLE_VA_ALWAYS_VALID", "1")
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_WFE_NONCEREJECT", "0")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("pebble answers", || {
            Tls::to(acme.address())
                .name("localhost")
                .try_connect()
                .is_ok()
        });
        Self {
            child,
            directory: format!("https://{}/dir", acme.address()),
        }
    }
}

#[test]
fn certbot_renews_and_nobody_notices() {
    let origin = Origin::echo();
    let builder = Staunch::build();
    let home = builder.path("letsencrypt");
    fs::create_dir(&home).unwrap();
    let pebble = Pebble::start(&home);
    let certbot = |arguments: &[&str]| {
        let mut command = Command::new(require("certbot"));
        for (flag, folder) in [
            ("--config-dir", "etc"),
            ("--work-dir", "lib"),
            ("--logs-dir", "log"),
        ] {
            command.arg(flag).arg(home.join(folder));
        }
        let port = Port::free().address().port().to_string();
        command.args([
            "--server",
            &pebble.directory,
            "--no-verify-ssl",
            "--non-interactive",
        ]);
        command.args(["--http-01-port", &port, "--http-01-address", "127.0.0.1"]);
        run(command.args(arguments)).ok()
    };
    let ask = [
        "certonly",
        "--standalone",
        "--agree-tos",
        "--register-unsafely-without-email",
    ];
    certbot(&[&ask[..], &["-d", NAME]].concat());

    let live = home.join("etc/live");
    let proxy = builder.folder(&live).site(NAME, &origin).start();
    let mut served = eventually("the first is served", || {
        let leaf = proxy.tls(NAME).leaf();
        let known = proxy.certificates();
        let from_live = known
            .iter()
            .any(|it| it["fingerprint_sha256"] == leaf.as_str() && it["names"][0] == NAME);
        from_live.then_some(leaf)
    });
    let traffic = Traffic::start(&proxy);
    for round in 0..3 {
        certbot(&["renew", "--force-renewal", "--no-random-sleep-on-renew"]);
        served = eventually(&format!("renewal {round} is served"), || {
            let leaf = proxy.tls(NAME).leaf();
            (leaf != served).then_some(leaf)
        });
    }
    traffic.stop().assert_flawless();
    let entry = proxy.certificate(&live.join(NAME).join("fullchain.pem"));
    assert_eq!(entry["fingerprint_sha256"], served.as_str());
    assert_eq!(entry["disk"]["state"], "same");
    let metrics = proxy.metrics();
    let rejected = metrics.count("staunch_certificate_rejections_total", &[]);
    assert_eq!(rejected, 0.0, "nothing half-written was told of");
}
