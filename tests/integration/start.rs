//! Starting, and what can be wrong then.

use std::fs;
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::support::{HOST, Origin, Placed, Ran, Site, Staunch, TestCa, Way, until};

/// The whole of what a start that must fail says.
fn refused(builder: &crate::support::Builder) -> Ran {
    let ran = builder.run("run", &[]);
    assert_eq!(ran.status.code(), Some(1), "{ran:#?}");
    ran
}

#[test]
fn flags_alone_are_enough() {
    let origin = Origin::echo();
    let builder = Staunch::build();
    let leaf = TestCa::new().leaf(&[HOST, "also.test"]).issue();
    let placed = Placed::pair(&builder.path("pair"), &leaf);
    let mut command = builder.command();
    command
        .env("STATE_DIRECTORY", builder.path("state"))
        .arg("run")
        .arg("--chain")
        .arg(&placed.chain)
        .arg("--key")
        .arg(&placed.key)
        .args(["--upstream", &origin.url()])
        .args(["--https", &builder.https().to_string()])
        .args(["--http", &builder.http().to_string()])
        .args(["--admin", &builder.admin().to_string()]);
    let proxy = builder.spawn(command);
    proxy.wait_ready();
    for name in [HOST, "also.test"] {
        let mut client = proxy.tls(name).connect();
        assert_eq!(client.leaf(), leaf.fingerprint);
        client.get(name, "/").expect(200);
    }
}

#[test]
fn where_all_is_well_nothing_is_complained_of() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let proxy = Staunch::build()
        .trusting(&ca)
        .leaf(&ca.issue(HOST))
        .site(HOST, &origin)
        .start();
    proxy.get("/").expect(200);
    let rejections = proxy.count("staunch_certificate_rejections_total", &[]);
    proxy.term();
    assert_eq!(proxy.wait_exit().code(), Some(0));
    let log = proxy.log();
    for level in ["ERROR", "WARN"] {
        assert!(!log.contains(level), "{log}");
    }
    assert!(rejections == 0.0, "{rejections} rejections are counted");
}

#[test]
fn an_expired_certificate_is_served_and_told() {
    let origin = Origin::echo();
    let leaf = TestCa::new().leaf(&[HOST]).expired().issue();
    let proxy = Staunch::build().leaf(&leaf).site(HOST, &origin).start();
    assert_eq!(proxy.tls(HOST).leaf(), leaf.fingerprint);
    proxy.get("/").expect(200);
    let entry = proxy.certificate_for(&leaf);
    assert_eq!(entry["stage"], "expired");
    assert_eq!(entry["serving"], true);
    proxy.wait_log("expired");
}

#[test]
fn a_certificate_from_the_future_is_served_and_told() {
    let origin = Origin::echo();
    let leaf = TestCa::new().leaf(&[HOST]).days(2, 90).issue();
    let proxy = Staunch::build().leaf(&leaf).site(HOST, &origin).start();
    assert_eq!(proxy.tls(HOST).leaf(), leaf.fingerprint);
    assert_eq!(proxy.certificate_for(&leaf)["stage"], "not-yet-valid");
}

#[test]
fn a_site_whose_certificate_is_missing_or_broken_harms_no_other() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let good = ca.issue("good.test");
    let builder = Staunch::build();
    let broken = builder.path("broken.pem");
    fs::write(&broken, "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
    let missing = builder.path("missing.pem");
    let proxy = builder
        .pair(&missing, &missing)
        .pair(&broken, &broken)
        .leaf(&good)
        .site("missing.test", &origin)
        .site("broken.test", &origin)
        .site("good.test", &origin)
        .start();
    let mut client = proxy.tls("good.test").trusting(&good.root).connect();
    client.get("good.test", "/").expect(200);
    let entry = proxy.certificate(&missing);
    assert_eq!(entry["disk"]["state"], "missing");
    assert_eq!(entry["disk"]["reason"], "missing");
    let entry = proxy.certificate(&broken);
    assert_eq!(entry["disk"]["state"], "rejected");
    proxy.wait_log("missing.pem");
    proxy.wait_log("broken.pem");
}

#[test]
fn a_certificate_that_appears_after_the_start_is_served() {
    let origin = Origin::echo();
    let builder = Staunch::build();
    let folder = builder.path("later");
    let (chain, key) = (folder.join("fullchain.pem"), folder.join("privkey.pem"));
    let proxy = builder.pair(&chain, &key).site(HOST, &origin).start();
    assert!(proxy.tls(HOST).try_connect().is_err());
    let leaf = TestCa::new().issue(HOST);
    Placed::new(Way::InPlace, &folder, &leaf);
    until("it is served", || {
        let client = proxy.tls(HOST).try_connect();
        client.is_ok_and(|client| client.leaf() == leaf.fingerprint)
    });
}

#[test]
fn a_bundle_is_served() {
    let origin = Origin::echo();
    let leaf = TestCa::new().intermediate().issue(HOST);
    let builder = Staunch::build();
    let bundle = builder.path("bundle.pem");
    fs::write(&bundle, format!("{}{}", leaf.chain, leaf.key)).unwrap();
    let proxy = builder.bundle(&bundle).site(HOST, &origin).start();
    let client = proxy.tls(HOST).trusting(&leaf.root).connect();
    assert_eq!(client.leaf(), leaf.fingerprint);
}

#[test]
fn what_was_served_is_served_after_a_restart_with_broken_files() {
    let origin = Origin::echo();
    let leaf = TestCa::new().issue(HOST);
    let builder = Staunch::build();
    let placed = Placed::pair(&builder.path("pair"), &leaf);
    let builder = builder.certificate(&placed).site(HOST, &origin);
    let proxy = builder.clone().start();
    assert_eq!(proxy.tls(HOST).leaf(), leaf.fingerprint);
    proxy.term();
    proxy.wait_exit();
    drop(proxy);
    fs::write(&placed.chain, "").unwrap();
    fs::remove_file(&placed.key).unwrap();
    let proxy = builder.start();
    assert_eq!(proxy.tls(HOST).leaf(), leaf.fingerprint);
    let entry = proxy.certificate(&placed.chain);
    assert_eq!(entry["origin"], "last-good");
}

#[test]
fn a_port_in_use_is_named() {
    let origin = Origin::echo();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for key in ["listen.https", "listen.http", "listen.admin"] {
        let value = match key {
            "listen.admin" => format!("{address:?}"),
            _ => format!("[{address:?}]"),
        };
        let ran = refused(&Staunch::serving(&origin).set(key, value));
        assert!(ran.output().contains(&address), "{ran:#?}");
        assert!(ran.output().contains("in use"), "{ran:#?}");
    }
}

/// Although SO_REUSEPORT would let it in.
#[test]
fn a_second_staunch_on_the_same_ports_is_refused() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let second = Staunch::serving(&origin).set("listen.https", format!("[\"{}\"]", proxy.https()));
    let ran = refused(&second);
    assert!(
        ran.output().contains(&proxy.https().to_string()),
        "{ran:#?}"
    );
    proxy.get("/").expect(200);
}

#[test]
fn a_missing_configuration_is_named() {
    let builder = Staunch::build();
    let mut command = builder.command();
    command.args(["run", "--config", "/nowhere/staunch.toml"]);
    let ran = crate::support::run(&mut command);
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stderr.contains("/nowhere/staunch.toml"), "{ran:#?}");
}

/// Where it is, the line itself, what is wrong and what was meant; on standard error.
fn told(builder: &crate::support::Builder, expected: &[&str]) {
    for command in ["run", "check"] {
        let ran = builder.run(command, &[]);
        assert_eq!(ran.status.code(), Some(1), "{ran:#?}");
        let said = ran.output();
        for part in expected {
            assert!(said.contains(part), "no {part:?} in:\n{said}");
        }
        let (line, column) = place(builder, expected[0]);
        let place = format!("staunch.toml:{line}:{column}");
        assert!(said.contains(&place), "no {place:?} in:\n{said}");
    }
}

/// Where a text stands in the configuration.
fn place(builder: &crate::support::Builder, text: &str) -> (usize, usize) {
    let config = builder.text();
    let line = config.lines().position(|line| line.contains(text));
    let line = line.unwrap_or_else(|| panic!("{text:?} is not in {config}"));
    let column = config.lines().nth(line).unwrap().find(text).unwrap();
    (line + 1, column + 1)
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_the_nearest_one() {
    let builder = Staunch::build().set("timeouts.idel", "\"1s\"");
    told(&builder, &["idel", "idel = \"1s\"", "idle"]);
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_place() {
    let builder = Staunch::build().set("limits.connections", "\"many\"");
    told(&builder, &["\"many\"", "connections = \"many\""]);
}

#[test]
fn a_value_out_of_range_is_refused_with_its_place() {
    let builder = Staunch::build().set("alerts.overdue", "1.5");
    told(&builder, &["1.5", "overdue = 1.5"]);
}

#[test]
fn an_upstream_that_is_not_there_is_refused_with_its_place_and_the_nearest_one() {
    let builder = Staunch::build()
        .upstream("backend", &["http://127.0.0.1:1"])
        .sites(Site::new(&[HOST], "backand"));
    told(
        &builder,
        &["\"backand\"", "upstream = \"backand\"", "backend"],
    );
}

#[test]
fn every_fault_is_told_at_once() {
    let builder = Staunch::build()
        .set("timeouts.idel", "\"1s\"")
        .set("limits.stream", "7");
    let ran = builder.run("check", &[]);
    assert!(ran.output().contains("idel"), "{ran:#?}");
    assert!(ran.output().contains("stream = 7"), "{ran:#?}");
}

#[test]
fn check_is_content_with_what_is_well() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let ran = Staunch::build()
        .trusting(&ca)
        .leaf(&ca.issue(HOST))
        .site(HOST, &origin)
        .run("check", &[]);
    assert_eq!(ran.status.code(), Some(0), "{ran:#?}");
}

#[test]
fn check_tries_the_access_log_and_what_tls_goes_by() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let build = || {
        let builder = Staunch::build().trusting(&ca);
        builder.leaf(&ca.issue(HOST)).site(HOST, &origin)
    };
    let lost = "/nonexistent/access.log";
    for command in ["check", "run"] {
        let ran = build()
            .set("log.access.to", format!("{lost:?}"))
            .run(command, &[]);
        assert_eq!(ran.status.code(), Some(1), "{ran:#?}");
        assert!(ran.output().contains(lost), "{ran:#?}");
        assert!(ran.output().contains("log.access.to"), "{ran:#?}");
    }
    let keys = "/nonexistent/ticket.key";
    let ran = build()
        .set("tls.ticket_keys", format!("{keys:?}"))
        .run("check", &[]);
    assert_eq!(ran.status.code(), Some(2), "{ran:#?}");
    assert!(ran.output().contains(keys), "{ran:#?}");
}

#[test]
fn a_reader_that_goes_away_is_no_fault() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let builder = Staunch::build()
        .trusting(&ca)
        .leaf(&ca.issue(HOST))
        .site(HOST, &origin);
    builder.write();
    let mut command = builder.command();
    command.arg("check").arg("--config");
    let mut child = command
        .arg(builder.config_path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_state_directory_that_cannot_be_used_is_told() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let builder = Staunch::serving(&origin).trusting(&ca);
    let blocked = builder.path("a-file");
    fs::write(&blocked, "").unwrap();
    let folder = blocked.join("state");
    let proxy = builder.set("state_dir", format!("{folder:?}")).start();
    until("it is told", || {
        let alerts = proxy.admin_get("/api/alerts").text();
        alerts.contains("state_unwritable") && alerts.contains(folder.to_str().unwrap())
    });
    proxy.get("/").expect(200);
}

#[test]
fn check_tells_what_would_be_served_badly() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    // Each in a folder of its own.
    let build = || Staunch::build().trusting(&ca).site(HOST, &origin);
    let expired = build().leaf(&ca.leaf(&[HOST]).expired().issue());
    let other = build().leaf(&ca.issue("other.test"));
    let missing = build();
    let path = missing.path("missing.pem");
    let missing = missing.pair(&path, &path);
    for (builder, word) in [(expired, "expired"), (other, HOST), (missing, "missing")] {
        let ran = builder.run("check", &[]);
        assert_eq!(ran.status.code(), Some(2), "{ran:#?}");
        assert!(ran.output().contains(word), "{ran:#?}");
    }
}

#[test]
fn check_counts_what_was_kept_from_before() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let builder = Staunch::build().trusting(&ca).site(HOST, &origin);
    let (file, leaf) = (builder.path("bundle.pem"), ca.issue(HOST));
    fs::write(&file, format!("{}{}", leaf.chain, leaf.key)).unwrap();
    let builder = builder.bundle(&file);
    let copies = builder.path("state/last-good");
    let proxy = builder.clone().start();
    until("a copy is kept", || {
        // One that is being written has another name.
        let whole = |copy: fs::DirEntry| copy.path().extension() != Some("unfinished".as_ref());
        fs::read_dir(&copies).is_ok_and(|copies| copies.flatten().any(whole))
    });
    drop(proxy);
    fs::write(&file, "").unwrap();
    let ran = builder.run("check", &[]);
    assert_eq!(ran.status.code(), Some(2), "{ran:#?}");
    let kept = format!("{}, a copy kept from before", file.display());
    assert!(ran.stdout.contains(&kept), "{ran:#?}");
    assert!(ran.stdout.contains("no_certificate"), "{ran:#?}");
    let certs = builder.run("certs", &["--json"]);
    assert!(certs.stdout.contains("last-good"), "{certs:#?}");
}

#[test]
fn check_tells_programs_the_same() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let build = || Staunch::build().trusting(&ca).site(HOST, &origin);
    let document = |ran: &Ran| -> Value { serde_json::from_str(&ran.stdout).unwrap() };

    let ran = build().leaf(&ca.issue(HOST)).run("check", &["--json"]);
    assert_eq!(ran.status.code(), Some(0), "{ran:#?}");
    assert_eq!(ran.stderr, "");
    let well = document(&ran);
    assert_eq!(well["usable"], true, "{well:#}");
    let name = &well["names"][0];
    assert_eq!((&name["name"], &name["well"]), (&json!(HOST), &json!(true)));
    assert_eq!(name["certificate"]["origin"], "disk", "{well:#}");

    let missing = build();
    let path = missing.path("missing.pem");
    let ran = missing.pair(&path, &path).run("check", &["--json"]);
    assert_eq!(ran.status.code(), Some(2), "{ran:#?}");
    let unwell = document(&ran);
    assert_eq!(unwell["names"][0]["certificate"], Value::Null);
    let findings = unwell["findings"].as_array().unwrap();
    let mut findings = findings.iter();
    assert!(
        findings.any(|it| it["level"] == "error" && it["reason"] == "missing"),
        "{unwell:#}"
    );

    let ran = build()
        .set("timeouts.idel", "\"1s\"")
        .run("check", &["--json"]);
    assert_eq!(ran.status.code(), Some(1), "{ran:#?}");
    assert_eq!(ran.stderr, "");
    let refused = document(&ran);
    assert_eq!(refused["usable"], false, "{refused:#}");
    assert!(refused["findings"][0]["line"].is_number(), "{refused:#}");
}

#[test]
fn check_names_a_folder_in_which_it_found_nothing() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let builder = Staunch::build().trusting(&ca).site(HOST, &origin);
    let folder = builder.path("certificates");
    std::fs::create_dir(&folder).unwrap();
    let leaf = ca.issue(HOST);
    for (name, content) in [
        ("mine.certificate", &leaf.chain),
        ("mine.secret", &leaf.key),
    ] {
        std::fs::write(folder.join(name), content).unwrap();
    }
    let builder = builder.folder(&folder);
    let ran = builder.run("check", &[]);
    assert_eq!(ran.status.code(), Some(2), "{ran:#?}");
    let said = format!("{}: no certificate was found in it", folder.display());
    assert!(ran.stdout.contains(&said), "{ran:#?}");
    for (name, content) in [("mine.crt", &leaf.chain), ("mine.key", &leaf.key)] {
        std::fs::write(folder.join(name), content).unwrap();
    }
    let ran = builder.run("check", &[]);
    assert!(!ran.stdout.contains("was found in it"), "{ran:#?}");
}

#[test]
fn check_is_content_with_a_wildcard_site_whose_names_have_certificates() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let build = || {
        Staunch::build()
            .trusting(&ca)
            .site("*.example.test", &origin)
    };
    let ran = build().leaf(&ca.issue("a.example.test")).run("check", &[]);
    assert_eq!(ran.status.code(), Some(0), "{ran:#?}");
    assert!(ran.stdout.contains("only one name below it"), "{ran:#?}");
    let ran = build().leaf(&ca.issue("a.other.test")).run("check", &[]);
    assert_eq!(ran.status.code(), Some(2), "{ran:#?}");
    assert!(ran.stdout.contains("NOTHING"), "{ran:#?}");
}

#[test]
fn check_looks_at_another_day() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let builder = Staunch::build()
        .trusting(&ca)
        .leaf(&ca.issue(HOST))
        .site(HOST, &origin);
    let ran = builder.run("check", &["--at", "2100-01-01T00:00:00Z"]);
    assert_eq!(ran.status.code(), Some(2), "{ran:#?}");
}

#[test]
fn check_needs_no_port() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).trusting(&ca).start();
    let ran = proxy.config().run("check", &[]);
    assert_ne!(ran.status.code(), Some(1), "{ran:#?}");
}

#[test]
fn listeners_that_are_not_wanted_are_not_there() {
    let origin = Origin::echo();
    let builder = Staunch::serving(&origin)
        .set("listen.http", "[]")
        .set("listen.admin", "\"\"");
    builder.write();
    let mut command = builder.command();
    command
        .arg("run")
        .arg("--config")
        .arg(builder.config_path());
    let proxy = builder.spawn(command);
    until("it serves", || {
        assert!(proxy.is_running());
        proxy.tls(HOST).try_connect().is_ok()
    });
    proxy.get("/").expect(200);
    for address in [proxy.http(), proxy.admin()] {
        assert!(TcpStream::connect(address).is_err());
    }
}
