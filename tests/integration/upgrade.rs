//! One process takes over from another, and no client notices.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::{fs, thread};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde_json::Value;

use crate::support::{
    BINARY, Builder, Connection, Exchange, Gate, H2, HOST, Origin, PATIENCE, Port, Ran, Site,
    Staunch, TestCa, Tls, eventually, require, run, until,
};

/// A staunch whose program can be replaced; what takes over from it ends with it.
pub struct Line {
    pub staunch: Staunch,
    program: PathBuf,
    group: Pid,
}

impl Line {
    pub fn start(builder: Builder) -> Self {
        Self::start_by(builder, |program| Command::new(program))
    }

    /// Started by something else.
    fn start_by(builder: Builder, by: impl FnOnce(&Path) -> Command) -> Self {
        let program = builder.path("staunch");
        symlink(BINARY, &program).unwrap();
        builder.write();
        let mut command = by(&program);
        let usual = builder.command();
        command.current_dir(usual.get_current_dir().unwrap());
        for (name, value) in usual.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command
            .arg("run")
            .arg("--config")
            .arg(builder.config_path())
            .process_group(0);
        let staunch = builder.spawn(command);
        let group = staunch.pid();
        let line = Self {
            staunch,
            program,
            group,
        };
        line.staunch.wait_ready();
        line
    }

    /// Puts another program in its place, as a package manager does.
    fn replace(&self, write: impl FnOnce(&Path)) {
        let beside = self.program.with_extension("new");
        write(&beside);
        fs::rename(beside, &self.program).unwrap();
    }

    pub fn replace_with_script(&self, script: &str) {
        self.replace(|path| {
            fs::write(path, script).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        });
    }

    pub fn mend(&self) {
        self.replace(|path| symlink(BINARY, path).unwrap());
    }

    /// `staunch upgrade`
    fn upgrade(&self) -> Ran {
        let admin = format!("http://{}", self.staunch.admin());
        run(Command::new(BINARY).args(["upgrade", "--admin", &admin]))
    }

    /// `POST /api/upgrade`, which must succeed: the process that serves now.
    #[track_caller]
    pub fn upgraded(&self) -> u64 {
        let mut admin = Connection::plain(self.staunch.admin()).unwrap();
        let answer = admin.post("localhost", "/api/upgrade", b"");
        let process = answer.expect(200).json()["process"].as_u64();
        process.unwrap()
    }

    /// The threads that accept connections in a process.
    fn workers(process: u64) -> usize {
        let threads = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let name = |thread: &fs::DirEntry| fs::read_to_string(thread.path().join("comm"));
        let threads = threads.filter_map(|thread| name(&thread.ok()?).ok());
        threads.filter(|name| name.starts_with("worker-")).count()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = kill_process_group(self.group, Signal::KILL);
    }
}

/// How nice a process is to others (`proc_pid_stat(5)`, field 19).
fn nice(process: u64) -> String {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let (_, after_name) = status.rsplit_once(") ").unwrap();
    after_name.split(' ').nth(16).unwrap().to_owned()
}

#[test]
fn a_new_process_is_no_nicer_than_the_old_one() {
    let site = Site::new(&[HOST], "http://127.0.0.1:1");
    let line = Line::start(Staunch::build().sites(site));
    let first = line.upgraded();
    let second = line.upgraded();
    let own = nice(u64::from(std::process::id()));
    assert_eq!([nice(first), nice(second)], [own.clone(), own]);
}

fn is_alive(process: u64) -> bool {
    // A process that has ended and was not waited for is still listed.
    let status = fs::read_to_string(format!("/proc/{process}/stat"));
    status.is_ok_and(|text| !text.contains(") Z "))
}

/// Asks until it is to stop; what went wrong.
type Client = fn(&Tls, &AtomicBool, &AtomicUsize) -> Vec<String>;

/// Clients that ask without a pause, and reconnect only when they are told to.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    clients: Vec<thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(tls: &Tls) -> Self {
        Self::of(tls, &[new_connections, kept_connections, kept_http2])
    }

    /// Two clients of each kind.
    fn of(tls: &Tls, kinds: &[Client]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicUsize::new(0));
        let client = |kind: Client| {
            let (tls, stop, answered) = (tls.clone(), Arc::clone(&stop), Arc::clone(&answered));
            thread::spawn(move || kind(&tls, &stop, &answered))
        };
        let clients = [kinds, kinds].concat().into_iter().map(client).collect();
        Self {
            clients,
            stop,
            answered,
        }
    }

    #[track_caller]
    fn go_on_for(&self, requests: usize) {
        let until_then = self.answered.load(Ordering::Relaxed) + requests;
        until("requests are answered", || {
            self.answered.load(Ordering::Relaxed) >= until_then
        });
    }

    #[track_caller]
    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        let clients = self.clients.into_iter();
        let failures: Vec<_> = clients.flat_map(|client| client.join().unwrap()).collect();
        let answered = self.answered.load(Ordering::Relaxed);
        let few = &failures[..failures.len().min(8)];
        assert!(failures.is_empty(), "of {answered}: {few:#?}");
    }
}

fn new_connections(tls: &Tls, stop: &AtomicBool, answered: &AtomicUsize) -> Vec<String> {
    let mut failures = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let got = tls.try_connect().and_then(|mut it| it.try_get(HOST, "/"));
        match got {
            Ok(response) if response.status == 200 => {
                answered.fetch_add(1, Ordering::Relaxed);
            }
            other => failures.push(format!("new: {other:?}")),
        }
    }
    failures
}

fn kept_connections(tls: &Tls, stop: &AtomicBool, answered: &AtomicUsize) -> Vec<String> {
    let mut failures = Vec::new();
    let mut kept = None;
    while !stop.load(Ordering::Relaxed) {
        let mut client = match kept.take().map_or_else(|| tls.try_connect(), Ok) {
            Ok(client) => client,
            Err(error) => {
                failures.push(format!("kept: connect: {error}"));
                continue;
            }
        };
        match client.try_get(HOST, "/") {
            Ok(response) if response.status == 200 => {
                answered.fetch_add(1, Ordering::Relaxed);
                if response.field("connection") != Some("close") {
                    kept = Some(client);
                }
            }
            other => failures.push(format!("kept: {other:?}")),
        }
    }
    failures
}

fn kept_http2(tls: &Tls, stop: &AtomicBool, answered: &AtomicUsize) -> Vec<String> {
    let mut failures = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let client = match H2::connect(tls).await {
                Ok(client) => client,
                Err(error) => return failures.push(format!("HTTP/2: connect: {error}")),
            };
            while !stop.load(Ordering::Relaxed) {
                match client.get(HOST, "/").await {
                    Ok(response) if response.status == 200 => {
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    // It was told that this request is not taken, and to connect again.
                    Err(error)
                        if error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR) =>
                    {
                        return;
                    }
                    other => return failures.push(format!("HTTP/2: {other:?}")),
                }
            }
        });
    }
    failures
}

#[test]
fn processes_take_turns_under_load_and_no_request_is_lost() {
    let origin = Origin::echo();
    let mut line = Line::start(Staunch::serving(&origin));
    let load = Load::start(&line.staunch.tls(HOST));
    load.go_on_for(200);
    let mut before = None;
    for (turn, threads) in [2, 5, 1, 3, 3].into_iter().enumerate() {
        line.staunch
            .reconfigure(|config| config.change("workers.threads", threads));
        if turn == 2 {
            line.replace_with_script("#!/bin/sh\nexit 3\n");
            let ran = line.upgrade();
            assert_eq!(ran.status.code(), Some(1), "{ran:?}");
            line.mend();
        }
        load.go_on_for(100);
        let process = line.upgraded();
        assert_ne!(Some(process), before);
        assert_eq!(Line::workers(process), threads);
        load.go_on_for(200);
        if let Some(before) = before.replace(process) {
            until("the process before is gone", || !is_alive(before));
        }
    }
    assert!(line.staunch.wait_exit().success());
    load.go_on_for(100);
    load.stop();
    line.staunch.admin_get("/readyz").expect(200);
}

#[test]
fn whoever_connects_after_the_answer_reaches_the_new_process() {
    let origin = Origin::echo();
    let builder = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .set("workers.threads", 4)
        .sites(
            Site::new(&[HOST], &origin.url())
                .also("[site.response_headers]\nset = { X-Turn = 'turn 0' }\n"),
        );
    let line = Line::start(builder);
    let load = Load::start(&line.staunch.tls(HOST));
    let first = line.staunch.config().text();
    for turn in 1..=8 {
        let turn = format!("turn {turn}");
        line.staunch.write_config(&first.replace("turn 0", &turn));
        load.go_on_for(20);
        line.upgraded();
        for _ in 0..16 {
            let answer = line.staunch.get("/").expect(200);
            assert_eq!(answer.field("x-turn"), Some(&*turn));
            // Each process counts what it has given way to.
            assert_eq!(line.staunch.count("staunch_upgrades_total", &[]), 0.0);
        }
    }
    load.stop();
}

#[test]
fn wrk_sees_no_error_either() {
    let origin = Origin::echo();
    let line = Line::start(Staunch::serving(&origin));
    let address = line.staunch.https();
    let wrk = Command::new(require("wrk"))
        .args(["--threads=1", "--connections=24", "--duration=5s"])
        .args(["--header", &format!("Host: {HOST}")])
        .arg(format!("https://{address}/"))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let served = || line.staunch.count("staunch_requests_total", &[]) > 100.0;
    for _ in 0..3 {
        until("it is under load", served);
        line.upgraded();
    }
    let said = wrk.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&said.stdout);
    assert!(said.contains("Requests/sec"), "{said}");
    assert!(!said.contains("Socket errors"), "{said}");
    assert!(!said.contains("Non-2xx"), "{said}");
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing_and_says_why() {
    let origin = Origin::echo();
    let line = Line::start(Staunch::serving(&origin).set("upgrade.ready", "\"2s\""));
    let fails = |why: &str| {
        let ran = line.upgrade();
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        assert!(ran.stderr.contains(why), "{why}: {}", ran.stderr);
        line.staunch.wait_log(why);
        assert!(line.staunch.is_running());
        line.staunch.get("/").expect(200);
        line.staunch.admin_get("/readyz").expect(200);
    };
    line.replace_with_script("#!/bin/sh\nexit 3\n");
    fails("exit status: 3");
    line.replace_with_script("#!/bin/sh\nkill -9 $$\n");
    fails("signal: 9");
    line.replace_with_script("#!/bin/sh\nexec sleep 1000\n");
    fails("not ready within 2s");
    line.replace_with_script("no program at all");
    fails("cannot be started");
    fs::remove_file(&line.program).unwrap();
    fails("No such file");
    line.mend();
    let good = line.staunch.config().text();
    line.staunch.write_config("nonsense = true\n");
    fails("nonsense");
    line.staunch
        .write_config(&good.replace("[listen]", "[listen]\nhttp3 = 1"));
    fails("http3");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let taken_too = std::net::TcpListener::bind(taken);
    let other = format!("{}\", \"{taken}", line.staunch.http());
    let more = good.replace(&line.staunch.http().to_string(), &other);
    line.staunch.write_config(&more);
    if taken_too.is_ok() {
        fails("in use");
    }
    line.staunch.write_config(&good);
    let failed = [("outcome", "failed")];
    assert!(line.staunch.count("staunch_upgrades_total", &failed) >= 7.0);
    line.upgraded();
    line.staunch.get("/").expect(200);
}

/// A program that takes what it is handed, says that it is prepared, and then does something else.
fn impostor(then: &str) -> String {
    let python = require("python3");
    format!(
        r#"#!{python}
import json, os, signal, socket
link = socket.socket(fileno=0)
def hear():
    text, sockets, _, _ = socket.recv_fds(link, 1 << 17, 64)
    assert text, "the other one is gone"
    return json.loads(text)
while hear()["sockets"]["more"]:
    pass
link.send(json.dumps({{"prepared": {{"version": "9"}}}}).encode())
while "go" not in hear():
    pass
{then}
"#,
        python = python.display()
    )
}

#[test]
fn a_program_that_ends_or_hangs_at_the_last_moment_changes_nothing() {
    let origin = Origin::echo();
    let line = Line::start(Staunch::serving(&origin));
    let load = Load::start(&line.staunch.tls(HOST));
    for (then, why) in [
        ("os.kill(os.getpid(), 9)", "signal: 9"),
        (
            "link.send(b'nonsense'); signal.pause()",
            "cannot be understood",
        ),
        (r#"link.send(b'{"refused": "not today"}')"#, "not today"),
        ("signal.pause()", "not ready within"),
    ] {
        line.replace_with_script(&impostor(then));
        let ran = line.upgrade();
        assert_eq!(ran.status.code(), Some(1), "{ran:?}");
        assert!(ran.stderr.contains(why), "{why}: {}", ran.stderr);
        load.go_on_for(20);
        // It tells alerts again.
        line.staunch.admin_get("/api/alerts").expect(200);
    }
    line.mend();
    line.upgraded();
    load.go_on_for(50);
    load.stop();
}

#[test]
fn there_is_one_upgrade_at_a_time_and_none_while_the_process_ends() {
    let gate = Gate::new();
    let origin = Origin::plan("slow")
        .route("/slow", {
            let gate = gate.clone();
            move |exchange| {
                gate.pass();
                exchange.echo()
            }
        })
        .start();
    let line = Line::start(Staunch::serving(&origin).set("upgrade.ready", "\"3s\""));
    line.replace_with_script("#!/bin/sh\nexec sleep 1000\n");
    let ask = || {
        let mut admin = Connection::plain(line.staunch.admin()).unwrap();
        let answer = admin.post("localhost", "/api/upgrade", b"");
        (
            answer.status,
            answer.json()["error"].as_str().map(str::to_owned),
        )
    };
    thread::scope(|scope| {
        let first = scope.spawn(ask);
        line.staunch.wait_log("an upgrade begins");
        assert_eq!(ask(), (409, Some("under_way".to_owned())));
        assert_eq!(
            first.join().unwrap(),
            (422, Some("upgrade_failed".to_owned()))
        );
    });
    line.mend();
    let mut waiting = line.staunch.connect();
    waiting.ask("GET", HOST, "/slow", "").unwrap();
    until("it is in flight", || {
        origin.requests().iter().any(|it| it.target == "/slow")
    });
    line.staunch.term();
    line.staunch.wait_log("draining");
    assert_eq!(ask(), (409, Some("stopping".to_owned())));
    line.staunch.usr2();
    line.staunch.wait_log("no upgrade: this process is ending");
    gate.open();
    waiting.read("GET").expect(200);
    assert!(line.staunch.wait_exit().success());
}

#[test]
fn streams_go_on_and_new_ones_are_taken_by_the_new_process() {
    let origin = Origin::echo();
    let (tls, plain) = (Port::free(), Port::free());
    let upstream = format!(
        "upstream = {:?}\n",
        origin.url().replace("http://", "tcp://")
    );
    let builder = Staunch::serving(&origin)
        .set("workers.threads", 3)
        .stream(&tls, &format!("tls = true\n{upstream}"))
        .stream(&plain, &upstream);
    let mut line = Line::start(builder);
    let mut open = Tls::to(tls.address()).name(HOST).connect();
    open.get(HOST, "/").expect(200);
    let client = Tls::to(tls.address()).name(HOST).alpn(&[]);
    let encrypted = Load::of(&client, &[new_connections, kept_connections]);
    for threads in [1, 4] {
        line.staunch
            .reconfigure(|config| config.change("workers.threads", threads));
        encrypted.go_on_for(50);
        line.upgraded();
        for _ in 0..20 {
            let mut new = Connection::plain(plain.address()).unwrap();
            new.get(HOST, "/").expect(200);
        }
        encrypted.go_on_for(50);
    }
    encrypted.stop();
    open.get(HOST, "/").expect(200);
    drop(open);
    assert!(line.staunch.wait_exit().success());
}

#[test]
fn the_old_process_does_not_outlive_a_new_one_that_crashes() {
    let origin = Origin::echo();
    let line = Line::start(Staunch::serving(&origin).set("drain.deadline", "\"100ms\""));
    let mut resting = line.staunch.connect();
    resting.get(HOST, "/").expect(200);
    let process = line.upgraded();
    assert!(line.staunch.is_running(), "it has something to finish");
    let process = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
    kill_process(process, Signal::KILL).unwrap();
    line.staunch
        .wait_log("the process that took over has failed");
    assert!(line.staunch.wait_exit().success());
}

#[test]
fn usr2_does_the_same_and_the_service_manager_is_told_of_the_new_process() {
    let origin = Origin::echo();
    let builder = Staunch::serving(&origin);
    let path = builder.path("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let line = Line::start(builder.env("NOTIFY_SOCKET", path.to_str().unwrap()));
    let hear = || {
        let mut said = [0; 1024];
        let length = manager.recv(&mut said).unwrap();
        String::from_utf8_lossy(&said[..length]).into_owned()
    };
    assert!(hear().contains("READY=1"));
    line.staunch.usr2();
    let mut told = Vec::new();
    let process = loop {
        let said = hear();
        let main = said.lines().find_map(|it| it.strip_prefix("MAINPID="));
        if let Some(main) = main {
            break main.parse::<u64>().unwrap();
        }
        told.push(said);
    };
    assert!(
        told.iter().all(|said| !said.contains("STOPPING")),
        "{told:?}"
    );
    assert!(line.staunch.wait_exit().success());
    assert!(is_alive(process));
    line.staunch.get("/").expect(200);
}

#[test]
fn what_is_under_way_is_finished_by_the_old_process() {
    let gate = Gate::new();
    let origin = Origin::plan("slow")
        .route("/slow", {
            let gate = gate.clone();
            move |exchange| {
                gate.pass();
                exchange.echo()
            }
        })
        .start();
    let line = Line::start(Staunch::serving(&origin));
    let mut waiting = line.staunch.connect();
    waiting.ask("GET", HOST, "/slow", "").unwrap();
    let mut resting = line.staunch.connect();
    resting.get(HOST, "/").expect(200);
    until("it is in flight", || {
        origin.requests().iter().any(|it| it.target == "/slow")
    });
    line.upgraded();
    line.upgraded();
    assert!(line.staunch.is_running(), "it has something to finish");
    let told = resting.get(HOST, "/").expect(200);
    assert_eq!(told.field("connection"), Some("close"));
    gate.open();
    waiting.read("GET").expect(200);
    assert!(line.staunch.wait_exit().success());
}

#[test]
fn a_process_that_finishes_drains_when_it_is_told_to_end() {
    let gate = Gate::new();
    let origin = Origin::plan("slow")
        .route("/slow", {
            let gate = gate.clone();
            move |exchange| {
                gate.pass();
                exchange.echo()
            }
        })
        .start();
    let line = Line::start(Staunch::serving(&origin));
    let mut waiting = line.staunch.connect();
    waiting.ask("GET", HOST, "/slow", "").unwrap();
    let mut resting = line.staunch.connect();
    resting.get(HOST, "/").expect(200);
    until("it is in flight", || {
        origin.requests().iter().any(|it| it.target == "/slow")
    });
    line.upgraded();
    line.staunch.term();
    line.staunch.wait_log("told to end: draining");
    assert!(resting.closed(), "it rests, and there is no more time");
    assert!(line.staunch.is_running());
    gate.open();
    waiting.read("GET").expect(200);
    assert!(line.staunch.wait_exit().success());
}

#[test]
fn the_old_process_ends_at_its_deadline_whatever_is_open() {
    let origin = Origin::echo();
    let line = Line::start(Staunch::serving(&origin).set("upgrade.deadline", "\"100ms\""));
    let mut resting = line.staunch.connect();
    resting.get(HOST, "/").expect(200);
    line.upgraded();
    line.staunch.wait_log("the deadline has passed");
    assert!(line.staunch.wait_exit().success());
}

#[test]
fn sessions_are_resumed_with_the_new_process() {
    let origin = Origin::echo();
    let line = Line::start(Staunch::serving(&origin));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = line.staunch.tls(HOST).version(version).resuming();
        let mut first = client.connect();
        first.get(HOST, "/").expect(200);
        assert!(!first.resumed());
        line.upgraded();
        line.upgraded();
        let mut second = client.connect();
        second.get(HOST, "/").expect(200);
        assert!(second.resumed(), "{version:?}");
    }
}

#[test]
fn a_server_that_was_drained_stays_drained() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let builder = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .upstream("both", &[&one.url(), &two.url()])
        .sites(Site::new(&[HOST], "both"));
    let line = Line::start(builder);
    let body = serde_json::json!({ "upstream": "both", "server": one.url() }).to_string();
    let mut admin = Connection::plain(line.staunch.admin()).unwrap();
    admin
        .post("localhost", "/api/upstreams/drain", body.as_bytes())
        .expect(200);
    line.upgraded();
    for _ in 0..10 {
        assert_eq!(line.staunch.get("/").expect(200).json()["origin"], "two");
    }
}

#[test]
fn a_server_that_was_down_stays_down() {
    let ill = |exchange: &mut Exchange<'_>| exchange.respond(500, "", b"");
    let one = Origin::plan("one").route("/health", ill).start();
    let two = Origin::named("two");
    let builder = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .upstream("both", &[&one.url(), &two.url()])
        .set("upstream.both.health.path", "\"/health\"")
        .set("upstream.both.health.interval", "\"100ms\"")
        .sites(Site::new(&[HOST], "both"));
    let line = Line::start(builder);
    line.staunch.wait_log("the server is down");
    // The new process hears it from the old one, and not so soon from the server.
    let slowly = line.staunch.config().text().replace("100ms", "1h");
    line.staunch.write_config(&slowly);
    line.upgraded();
    line.staunch.wait_log("the server is down, as it was");
    for _ in 0..10 {
        assert_eq!(line.staunch.get("/").expect(200).json()["origin"], "two");
    }
}

#[test]
fn an_alert_is_told_once_by_both_together() {
    let hook = Origin::echo();
    let ca = TestCa::new();
    let leaf = ca.leaf(&[HOST]).days(-89, 1).issue();
    let site = Site::new(&[HOST], &hook.url()).also(&format!(
        "[[alerts.sink]]\ntype = \"webhook\"\nurl = \"{}/hook\"\n",
        hook.url()
    ));
    let line = Line::start(Staunch::build().trusting(&ca).leaf(&leaf).sites(site));
    let told = || {
        let all = hook.requests();
        all.iter().filter(|it| it.target == "/hook").count()
    };
    let first = eventually("it is told", || Some(told()).filter(|count| *count > 0));
    for _ in 0..2 {
        let process = line.upgraded();
        let firing = || {
            let answer = line.staunch.admin_get("/api/alerts").expect(200).json();
            let firing = answer["firing"].as_array().cloned().unwrap_or_default();
            firing
                .into_iter()
                .find(|it: &Value| it["condition"] == "expiring")
        };
        eventually("the new process knows of it", firing);
        assert!(is_alive(process));
    }
    assert_eq!(told(), first);
}

#[test]
fn a_service_manager_may_open_the_sockets() {
    let origin = Origin::echo();
    let builder = Staunch::serving(&origin).set("workers.threads", 3);
    let (https, http, admin) = (builder.https(), builder.http(), builder.admin());
    let line = Line::start_by(builder, |program| {
        let mut command = Command::new(require("systemd-socket-activate"));
        for address in [https, http, admin] {
            command.arg("--listen").arg(address.to_string());
        }
        // It starts the program with nothing of its own environment but what is named.
        for name in ["SSL_CERT_FILE", "NO_COLOR"] {
            command.arg("--setenv").arg(name);
        }
        command.arg("--fdname=https:http:admin").arg(program);
        command
    });
    line.staunch.get("/").expect(200);
    line.staunch
        .wait_log("the service manager holds this address open");
    let before = line.staunch.pid().as_raw_nonzero().get().unsigned_abs();
    let load = Load::start(&line.staunch.tls(HOST));
    let process = line.upgraded();
    assert_ne!(process, u64::from(before));
    load.go_on_for(100);
    line.upgraded();
    load.go_on_for(100);
    load.stop();
    line.staunch.get("/").expect(200);
}

#[test]
fn a_listener_can_be_left_behind_and_another_added() {
    let origin = Origin::echo();
    let mut line = Line::start(Staunch::serving(&origin));
    let http = line.staunch.http();
    Connection::plain(http).unwrap().get(HOST, "/").expect(308);
    line.staunch
        .reconfigure(|config| config.change("listen.http", "[]"));
    line.upgraded();
    until("nobody listens there", || Connection::plain(http).is_err());
    line.staunch
        .reconfigure(|config| config.change("listen.http", format!("[\"{http}\"]")));
    line.upgraded();
    Connection::plain(http).unwrap().get(HOST, "/").expect(308);
}
