//! Looking at it, reloading it and stopping it while it serves.

use std::fs;
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::{
    Connection, Gate, HOST, Origin, Placed, Port, Site, Staunch, TestCa, Tls, Traffic, eventually,
    promtool, require, run, until,
};

#[test]
fn healthz_and_readyz_answer() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    proxy.admin_get("/healthz").expect(200);
    let ready = proxy.admin_get("/readyz").expect(200).json();
    assert_eq!(ready["status"], "ready");
    proxy.admin_get("/nothing").expect(404);
}

#[test]
fn a_certificate_problem_never_turns_readyz() {
    let origin = Origin::echo();
    let missing = std::path::Path::new("/nowhere.pem");
    let proxy = Staunch::build()
        .pair(missing, missing)
        .leaf(&TestCa::new().leaf(&[HOST]).expired().issue())
        .site(HOST, &origin)
        .start();
    proxy.admin_get("/readyz").expect(200);
    proxy.admin_get("/healthz").expect(200);
}

#[test]
fn the_admin_address_turns_away_other_methods() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = Connection::plain(proxy.admin()).unwrap();
    client.ask("GET", "localhost", "/api/reload", "").unwrap();
    client.read("GET").expect(405);
}

#[test]
fn the_metrics_are_as_prometheus_wants_them() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    proxy.get("/").expect(200);
    let text = proxy.admin_get("/metrics").expect(200).text();
    let file = proxy.config().path("metrics");
    fs::write(&file, &text).unwrap();
    let ran = promtool(&file);
    assert!(ran.status.success() && ran.output().is_empty(), "{ran:#?}");
    let metrics = proxy.metrics();
    for name in [
        "staunch_certificate_not_before_timestamp_seconds",
        "staunch_certificate_not_after_timestamp_seconds",
        "staunch_certificate_stale",
        "staunch_certificate_swaps_total",
        "staunch_certificate_rejections_total",
        "staunch_tls_handshakes_total",
        "staunch_connections_open",
        "staunch_requests_total",
        "staunch_request_duration_seconds_bucket",
        "staunch_request_duration_seconds_count",
        "staunch_upstream_up",
        "staunch_upstream_requests_total",
        "staunch_build_info",
    ] {
        assert!(metrics.get(name, &[]).is_some(), "no {name} in:\n{text}");
    }
    // Those it has one series for each alert of.
    assert!(
        text.contains("# TYPE staunch_alerts_firing gauge"),
        "{text}"
    );
}

#[test]
fn labels_are_bounded_whatever_clients_send() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    for number in 0..20 {
        let name = format!("made-up-{number}.test");
        let mut client = proxy.tls(&name).connect();
        client
            .ask(&format!("METHOD{number}"), &name, "/", "")
            .unwrap();
        client.read("GET");
        client
            .ask(&format!("METHOD{number}"), HOST, "/", "")
            .unwrap();
        client.read("GET");
    }
    let text = proxy.admin_get("/metrics").text();
    assert!(!text.contains("made-up"), "{text}");
    assert!(!text.contains("METHOD1"), "{text}");
}

#[test]
fn the_inventory_says_what_is_held() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let leaf = ca.leaf(&["Example.test", "*.example.test"]).issue();
    let proxy = Staunch::build().leaf(&leaf).site(HOST, &origin).start();
    let entry = proxy.certificate_for(&leaf);
    assert_eq!(entry["fingerprint_sha256"], leaf.fingerprint.as_str());
    let mut names: Vec<_> = entry["names"].as_array().unwrap().clone();
    names.sort_by_key(ToString::to_string);
    assert_eq!(names, ["*.example.test", "example.test"]);
    assert_eq!(entry["key_type"], "ECDSA P-256");
    assert_eq!(entry["stage"], "fresh");
    assert_eq!(entry["serving"], true);
    assert_eq!(entry["origin"], "disk");
    assert_eq!(entry["disk"]["state"], "same");
    assert!(entry["source"].to_string().contains("fullchain.pem"));
    assert!(entry["issuer"].to_string().contains("staunch test root"));
    let serial = entry["serial"].as_str().unwrap();
    let is_hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    assert!(!serial.is_empty() && serial.chars().all(is_hex), "{serial}");
    for time in ["not_before", "not_after"] {
        let time = entry[time].as_str().unwrap();
        assert!(time.len() == 20 && time.ends_with('Z'), "{time}");
    }
}

#[test]
fn a_reload_adds_and_removes_sites_without_touching_connections() {
    let ca = TestCa::new();
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let leaf = ca.leaf(&["one.test", "two.test"]).issue();
    let mut proxy = Staunch::build().leaf(&leaf).site("one.test", &one).start();
    let mut client = proxy.tls("one.test").connect();
    client.get("one.test", "/").expect(200);
    client.get("two.test", "/").expect(421);

    proxy.reconfigure(|config| config.add_site(Site::new(&["two.test"], &two.url())));
    proxy.hup();
    until("the new site is served", || {
        client.get("two.test", "/").status == 200
    });
    client.get("one.test", "/").expect(200);

    let url = two.url();
    proxy.reconfigure(|config| {
        config.clear_sites();
        config.add_site(Site::new(&["two.test"], &url));
    });
    proxy.hup();
    until("the old site is gone", || {
        client.get("one.test", "/").status == 421
    });
    client.get("two.test", "/").expect(200);
}

#[test]
fn a_reload_changes_an_upstream_and_lets_requests_finish() {
    let gate = Gate::new();
    let old = Origin::plan("old").gated("/slow", &gate).start();
    let new = Origin::named("new");
    let mut proxy = Staunch::serving(&old).start();
    let mut waiting = proxy.connect();
    waiting.ask("GET", HOST, "/slow", "").unwrap();
    until("it is in flight", || !old.requests().is_empty());
    let url = new.url();
    proxy.reconfigure(|config| {
        config.clear_sites();
        config.add_site(Site::new(&[HOST], &url));
    });
    proxy.reload().expect(200);
    assert_eq!(proxy.get("/").expect(200).json()["origin"], "new");
    gate.open();
    assert_eq!(waiting.read("GET").expect(200).json()["origin"], "old");
    assert_eq!(waiting.get(HOST, "/").expect(200).json()["origin"], "new");
}

#[test]
fn a_reload_brings_in_a_new_certificate() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let mut proxy = Staunch::build()
        .leaf(&ca.issue("one.test"))
        .site("one.test", &origin)
        .start();
    let two = ca.issue("two.test");
    let placed = Placed::pair(&proxy.config().path("two"), &two);
    let url = origin.url();
    proxy.reconfigure(|config| {
        *config = config.clone().certificate(&placed);
        config.add_site(Site::new(&["two.test"], &url));
    });
    proxy.reload().expect(200);
    let mut client = proxy.tls("two.test").connect();
    assert_eq!(client.leaf(), two.fingerprint);
    client.get("two.test", "/").expect(200);
}

#[test]
fn an_unusable_configuration_is_refused_whole_and_visibly() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut client = proxy.connect();
    client.get(HOST, "/").expect(200);
    let good = proxy.config().text();
    let other = good.replace(HOST, "other.test");
    proxy.write_config(&format!("{other}\n[timeouts]\nidel = \"1s\"\n"));

    let answer = proxy.reload();
    assert!(answer.status >= 400, "{answer:?}");
    assert!(answer.text().contains("idel"), "{}", answer.text());
    proxy.hup();
    until("it is counted", || {
        let metrics = proxy.metrics();
        metrics.count("staunch_reloads_total", &[]) >= 2.0
            && metrics.get("staunch_last_reload_successful", &[]) == Some(0.0)
    });
    proxy.wait_log("idel");
    client.get(HOST, "/").expect(200);
    client.get("other.test", "/").expect(421);
    proxy.get("/").expect(200);

    proxy.write_config(&good);
    proxy.reload().expect(200);
    let metrics = proxy.metrics();
    assert_eq!(
        metrics.get("staunch_last_reload_successful", &[]),
        Some(1.0)
    );
    client.get(HOST, "/").expect(200);
}

#[test]
fn an_empty_configuration_is_refused() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    // As a full disk leaves it.
    for empty in ["", "[limits]\nconnections = 100\n"] {
        proxy.write_config(empty);
        let answer = proxy.reload();
        assert!(answer.status >= 400, "{answer:?}");
        assert!(answer.text().contains("[[site]]"), "{}", answer.text());
        proxy.get("/").expect(200);
    }
}

#[test]
fn a_mistyped_path_does_not_take_the_certificate_from_a_site() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let leaf = proxy.connect().leaf();
    let good = proxy.config().text();
    proxy.write_config(&good.replace("chain = \"/", "chain = \"/mistyped/"));
    let answer = proxy.reload().expect(200).text();
    assert!(answer.contains("no longer names it"), "{answer}");
    assert_eq!(proxy.connect().leaf(), leaf);
    until("it is told", || {
        let alerts = proxy.admin_get("/api/alerts").expect(200).text();
        alerts.contains("is no longer in the configuration")
    });
    proxy.write_config(&good);
    let answer = proxy.reload().expect(200).text();
    assert!(!answer.contains("no longer names it"), "{answer}");
    assert_eq!(proxy.connect().leaf(), leaf);
}

#[test]
fn a_reload_that_cannot_bind_changes_nothing() {
    let origin = Origin::echo();
    let mut proxy = Staunch::serving(&origin).start();
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let both = [proxy.https().to_string(), taken.clone()];
    proxy.reconfigure(|config| {
        config.change("listen.https", format!("{both:?}"));
        config.clear_sites();
        config.add_site(Site::new(&["other.test"], &origin.url()));
    });
    let answer = proxy.reload();
    assert!(answer.status >= 400, "{answer:?}");
    assert!(answer.text().contains(&taken), "{}", answer.text());
    proxy.get("/").expect(200);
}

#[test]
fn listeners_come_and_go_while_it_runs() {
    let origin = Origin::echo();
    let mut proxy = Staunch::serving(&origin).start();
    let (first, second) = (proxy.https(), Port::free());
    let at = |address| Tls::to(address).name(HOST);
    let mut kept = proxy.connect();
    kept.get(HOST, "/").expect(200);

    let both = [first.to_string(), second.address().to_string()];
    proxy.reconfigure(|config| config.change("listen.https", format!("{both:?}")));
    proxy.reload().expect(200);
    for address in [first, second.address()] {
        at(address).connect().get(HOST, "/").expect(200);
    }

    let one = [second.address().to_string()];
    proxy.reconfigure(|config| config.change("listen.https", format!("{one:?}")));
    proxy.reload().expect(200);
    at(second.address()).connect().get(HOST, "/").expect(200);
    until("the first listener is closed", || {
        TcpStream::connect(first).is_err()
    });
    // Whoever came through it before is not sent away.
    kept.get(HOST, "/").expect(200);
}

#[test]
fn reloads_under_load_go_unnoticed() {
    let origin = Origin::echo();
    let leaf = TestCa::new().leaf(&[HOST, "*.test"]).issue();
    let mut proxy = Staunch::build().leaf(&leaf).site(HOST, &origin).start();
    let traffic = Traffic::start(&proxy);
    for number in 0..10 {
        let url = origin.url();
        let name = format!("{number}.test");
        proxy.reconfigure(|config| {
            config.add_site(Site::new(&[&name], &url));
            config.change("timeouts.idle", format!("\"{}s\"", 60 + number));
        });
        proxy.reload().expect(200);
        traffic.go_on_for(20);
    }
    let report = traffic.stop();
    report.assert_flawless();
    proxy.connect().get("9.test", "/").expect(200);
}

#[test]
fn a_drain_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let gate = Gate::new();
    let origin = Origin::plan("origin")
        .route("/slow", {
            let gate = gate.clone();
            move |exchange| {
                gate.pass();
                exchange.respond(200, "", b"finished")
            }
        })
        .start();
    let proxy = Staunch::serving(&origin).start();
    let mut idle = proxy.connect();
    idle.get(HOST, "/").expect(200);
    let mut waiting = proxy.connect();
    waiting.ask("GET", HOST, "/slow", "").unwrap();
    until("it is in flight", || origin.requests().len() == 2);

    proxy.term();
    assert!(idle.closed());
    until("no more connections are taken", || {
        TcpStream::connect(proxy.https()).is_err()
    });
    assert!(proxy.is_running());
    gate.open();
    let response = waiting.read("GET").expect(200);
    assert_eq!(response.text(), "finished");
    assert_eq!(response.field("connection"), Some("close"));
    assert!(waiting.closed());
    assert_eq!(proxy.wait_exit().code(), Some(0));
}

#[test]
fn a_drain_gives_notice_before_it_closes() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin)
        .set("drain.notice", "\"3s\"")
        .start();
    let begin = Instant::now();
    proxy.term();
    let answer = eventually("readyz says 503", || {
        let answer = proxy.admin_get("/readyz");
        (answer.status == 503).then_some(answer)
    });
    assert!(answer.text().contains("drain"), "{}", answer.text());
    proxy.admin_get("/healthz").expect(200);
    // A slow machine may have used the notice up.
    if begin.elapsed() < Duration::from_secs(2) {
        proxy.get("/").expect(200);
    }
    // In the last second each response says so, while others are still let in. A slow machine may
    // miss it.
    let mut kept = proxy.connect();
    let ask = || {
        kept.ask("GET", HOST, "/", "").ok()?;
        kept.incoming().response("GET").ok()
    };
    let told = std::iter::from_fn(ask).find(|it| it.field("connection") == Some("close"));
    assert!(told.is_none() || begin.elapsed() >= Duration::from_secs(2));
    assert_eq!(proxy.wait_exit().code(), Some(0));
    assert!(begin.elapsed() >= Duration::from_secs(3));
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let gate = Gate::new();
    let origin = Origin::plan("origin").gated("/", &gate).start();
    let proxy = Staunch::serving(&origin)
        .set("drain.deadline", "\"500ms\"")
        .start();
    let mut waiting = proxy.connect();
    waiting.ask("GET", HOST, "/", "").unwrap();
    until("it is in flight", || !origin.requests().is_empty());
    proxy.term();
    assert!(waiting.gone());
    proxy.wait_exit();
    gate.open();
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let gate = Gate::new();
    let origin = Origin::plan("origin").gated("/", &gate).start();
    let proxy = Staunch::serving(&origin)
        .set("drain.deadline", "\"1h\"")
        .start();
    let mut waiting = proxy.connect();
    waiting.ask("GET", HOST, "/", "").unwrap();
    until("it is in flight", || !origin.requests().is_empty());
    proxy.term();
    until(
        "it drains",
        || !matches!(proxy.try_admin_get("/readyz"), Ok(answer) if answer.status == 200),
    );
    assert!(proxy.is_running());
    proxy.term();
    proxy.wait_exit();
    gate.open();
}

#[test]
fn the_access_log_is_opened_again_when_asked() {
    let origin = Origin::echo();
    let builder = Staunch::serving(&origin);
    let log = builder.path("access.log");
    let proxy = builder.set("log.access.to", format!("{log:?}")).start();
    let lines = |file: &std::path::Path| fs::read_to_string(file).unwrap_or_default();
    proxy.get("/before");
    until("it is written", || lines(&log).contains("/before"));
    let moved = proxy.config().path("access.log.1");
    fs::rename(&log, &moved).unwrap();
    proxy.usr1();
    until("there is a new file", || log.exists());
    proxy.get("/after");
    until("it is written to the new file", || {
        lines(&log).contains("/after")
    });
    assert!(!lines(&moved).contains("/after"));
    let line = lines(&log);
    let record = crate::support::json(line.lines().last().unwrap().as_bytes());
    assert_eq!(record["method"], "GET");
    assert_eq!(record["target"], "/after");
    assert_eq!(record["status"], 200);
    assert_eq!(record["host"], HOST);
    assert_eq!(record["client"], "127.0.0.1");
}

#[test]
fn the_access_log_can_be_turned_off() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin)
        .set("log.access.to", "\"off\"")
        .start();
    proxy.get("/secret-path").expect(200);
    proxy.term();
    proxy.wait_exit();
    assert!(!proxy.log().contains("secret-path"));
}

#[test]
fn the_access_log_can_be_sampled_but_errors_stay() {
    let dead = crate::support::Port::free();
    let origin = Origin::echo();
    let builder = Staunch::serving(&origin);
    let log = builder.path("access.log");
    let site =
        Site::new(&[HOST], &origin.url()).route("/dead", &format!("http://{}", dead.address()));
    let mut builder = builder
        .set("log.access.to", format!("{log:?}"))
        .set("log.access.sample", "0.0");
    builder.clear_sites();
    let proxy = builder.sites(site).start();
    let mut client = proxy.connect();
    client.get(HOST, "/fine").expect(200);
    client.get(HOST, "/dead").expect(502);
    until("the error is written", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("/dead"))
    });
    assert!(!fs::read_to_string(&log).unwrap().contains("/fine"));
}

#[test]
fn the_log_is_json_where_there_is_no_terminal() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin)
        .set("log.access.to", "\"off\"")
        .start();
    proxy.term();
    proxy.wait_exit();
    let log = proxy.log();
    assert!(!log.is_empty());
    for line in log.lines() {
        crate::support::json(line.as_bytes());
    }
}

#[test]
fn the_admin_address_answers_under_load() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let port = proxy.https().port();
    let mut wrk = Command::new(require("wrk"))
        .args(["--threads", "1", "--connections", "64", "--duration", "2s"])
        .args(["--header", &format!("Host: {HOST}")])
        .arg(format!("https://127.0.0.1:{port}/"))
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut slowest = Duration::ZERO;
    let mut asked = 0;
    while wrk.try_wait().unwrap().is_none() {
        let begin = Instant::now();
        proxy.admin_get("/healthz").expect(200);
        proxy.admin_get("/api/certificates").expect(200);
        slowest = slowest.max(begin.elapsed());
        asked += 1;
    }
    println!("asked {asked} times under load, at most {slowest:.1?}");
    assert!(asked > 5);
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
}

#[test]
fn systemd_is_told_of_every_phase() {
    let origin = Origin::echo();
    let builder = Staunch::serving(&origin);
    let path = builder.path("notify.sock");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket
        .set_read_timeout(Some(crate::support::PATIENCE))
        .unwrap();
    let hears = |what: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).unwrap();
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if text.lines().any(|line| line == what) {
                return;
            }
        }
    };
    let proxy = builder.env("NOTIFY_SOCKET", path.to_str().unwrap()).start();
    hears("READY=1");
    proxy.hup();
    hears("RELOADING=1");
    hears("READY=1");
    proxy.term();
    hears("STOPPING=1");
    proxy.wait_exit();
}

#[test]
fn the_version_is_told() {
    let builder = Staunch::build();
    let ran = run(builder.command().arg("--version"));
    assert_eq!(
        ran.ok().trim(),
        concat!("staunch ", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_reload_that_waits_for_the_disk_keeps_it_from_nothing() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let _silent = proxy.reload_without_end();
    proxy.get("/").expect(200);
    proxy.admin_get("/healthz").expect(200);
    proxy.term();
    assert!(proxy.wait_exit().success());
}
