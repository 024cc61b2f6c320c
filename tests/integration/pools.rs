//! Several servers behind one name: the servers may fail, the site does not.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{
    Builder, Connection, Exchange, Gate, HOST, Origin, Port, Response, Site, Staunch, TestCa,
    Traffic, require, run, until,
};

/// A web server in a process of its own, which can be killed, stopped and started again.
struct Process {
    port: Port,
    child: Child,
}

const PYTHON: &str = "
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body at once: killed in between, it would have answered by half
    def do_GET(self):
        body = b'{}'
        self.send_response(200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
ThreadingHTTPServer.request_queue_size = 128
ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
";

impl Process {
    fn start() -> Self {
        require("python3");
        let port = Port::free();
        let child = Self::spawn(&port);
        Self { port, child }
    }

    fn spawn(port: &Port) -> Child {
        let address = port.address();
        let child = Command::new("python3")
            .args(["-c", PYTHON, &address.port().to_string()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the server listens", || {
            std::net::TcpStream::connect(address).is_ok()
        });
        child
    }

    fn url(&self) -> String {
        format!("http://{}", self.port.address())
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn restart(&mut self) {
        self.child = Self::spawn(&self.port);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One site before these servers.
fn pool(servers: &[&str]) -> Builder {
    Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .upstream("pool", servers)
        .sites(Site::new(&[HOST], "pool"))
}

fn admin_post(proxy: &Staunch, target: &str, body: &Value) -> Response {
    let mut admin = Connection::plain(proxy.admin()).unwrap();
    admin.post("localhost", target, body.to_string().as_bytes())
}

/// What `staunch upstreams` prints.
fn table(proxy: &Staunch) -> String {
    let admin = format!("http://{}", proxy.admin());
    let mut command = Command::new(env!("CARGO_BIN_EXE_staunch"));
    run(command.args(["upstreams", "--admin", &admin])).ok()
}

fn is_up(proxy: &Staunch, server: &str) -> bool {
    let labels = [("upstream", "pool"), ("server", server)];
    proxy.count("staunch_upstream_up", &labels) == 1.0
}

/// How many answers came from each of two origins.
fn counts(one: &Origin, two: &Origin) -> (usize, usize) {
    (one.requests().len(), two.requests().len())
}

#[test]
fn a_server_that_is_killed_costs_no_request() {
    let (mut one, two) = (Process::start(), Process::start());
    let proxy = pool(&[&one.url(), &two.url()])
        .set("upstream.pool.eject_time", "\"200ms\"")
        .start();
    let traffic = Traffic::start(&proxy);
    traffic.go_on_for(50);
    one.kill();
    until("it is left alone", || !is_up(&proxy, &one.url()));
    traffic.go_on_for(100);
    one.restart();
    until("it is used again", || is_up(&proxy, &one.url()));
    traffic.go_on_for(50);
    traffic.stop().assert_flawless();
}

#[test]
fn a_server_that_is_stopped_costs_no_request() {
    let (one, two) = (Process::start(), Process::start());
    let proxy = pool(&[&one.url(), &two.url()])
        .set("upstream.pool.eject_time", "\"300ms\"")
        .set("upstream.pool.timeouts.response", "\"300ms\"")
        .start();
    let traffic = Traffic::start(&proxy);
    traffic.go_on_for(50);
    one.signal(Signal::STOP);
    until("it is left alone", || !is_up(&proxy, &one.url()));
    traffic.go_on_for(100);
    one.signal(Signal::CONT);
    until("it is used again", || is_up(&proxy, &one.url()));
    traffic.go_on_for(50);
    traffic.stop().assert_flawless();
}

#[test]
fn what_waits_for_a_server_that_goes_down_is_answered_by_another() {
    let (one, two) = (Process::start(), Process::start());
    let proxy = pool(&[&one.url(), &two.url()])
        .set("upstream.pool.health.path", "\"/\"")
        .set("upstream.pool.health.interval", "\"200ms\"")
        .set("upstream.pool.health.timeout", "\"200ms\"")
        .start();
    until("both are checked", || {
        is_up(&proxy, &one.url()) && is_up(&proxy, &two.url())
    });
    one.signal(Signal::STOP);
    let begin = Instant::now();
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let mut client = proxy.connect();
            thread::spawn(move || client.get(HOST, "/").expect(200))
        })
        .collect();
    clients
        .into_iter()
        .for_each(|client| drop(client.join().unwrap()));
    // Long before `timeouts.upstream_response`.
    assert!(
        begin.elapsed() < Duration::from_secs(20),
        "{:?}",
        begin.elapsed()
    );
    one.signal(Signal::CONT);
}

#[test]
fn an_answer_that_comes_byte_by_byte_is_whole() {
    const ANSWER: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n\
                          Transfer-Encoding: chunked\r\nTrailer: X\r\n\r\n3;e=1\r\nabc\r\n\
                          1\r\nd\r\n0\r\nX: y\r\n\r\n";
    let slow = Origin::plan("slow").route("/", |exchange| {
        for byte in ANSWER.bytes() {
            exchange.send([byte])?;
            thread::yield_now();
        }
        Ok(())
    });
    let slow = slow.start();
    let proxy = pool(&[&slow.url()]).start();
    let mut client = proxy.connect();
    for _ in 0..3 {
        client
            .send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .unwrap();
        let answer = client.read("GET").expect(200);
        assert_eq!((answer.interim.len(), answer.text().as_str()), (1, "abcd"));
    }
    assert_eq!(slow.connections(), 1, "and the connection is kept");
}

/// Ways not to answer a request.
type Misdeed = fn(&mut Exchange<'_>) -> std::io::Result<()>;
const MISDEEDS: [(&str, Misdeed); 6] = [
    ("closes", |exchange| {
        exchange.close();
        Ok(())
    }),
    ("half a head", |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Le")?;
        exchange.close();
        Ok(())
    }),
    ("garbage", |exchange| {
        exchange.send("\x16\x03\x01 what is this?\r\n\r\n")?;
        exchange.close();
        Ok(())
    }),
    ("two lengths", |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx")
    }),
    ("too many fields", |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\n")?;
        for n in 0..20_000 {
            exchange.send(format!("X-Field-{n}: value\r\n"))?;
        }
        exchange.send("\r\n")
    }),
    ("an upgrade nobody asked for", |exchange| {
        exchange.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
    }),
];

#[test]
fn whatever_a_server_does_instead_of_answering_another_one_answers() {
    for (what, misdeed) in MISDEEDS {
        let bad = Origin::plan("bad").route("/", misdeed).start();
        let good = Origin::named("good");
        let proxy = pool(&[&bad.url(), &good.url()])
            .set("upstream.pool.eject_after", 0)
            .start();
        let mut client = proxy.connect();
        for n in 0..6 {
            let response = client.get(HOST, "/").expect(200);
            assert_eq!(response.json()["origin"], "good", "{what}");
            client
                .send(format!(
                    "PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 7\r\n\r\nbody {n:02}"
                ))
                .unwrap();
            let echo = client.read("PUT").expect(200).json();
            assert_eq!(echo["body"], format!("body {n:02}"), "{what}");
        }
        assert!(bad.requests().len() > 3, "{what}");
    }
}

#[test]
fn what_is_not_idempotent_is_delivered_once_or_not_at_all() {
    for (what, misdeed) in MISDEEDS {
        let bad = Origin::plan("bad").route("/", misdeed).start();
        let good = Origin::named("good");
        let proxy = pool(&[&bad.url(), &good.url()])
            .set("upstream.pool.eject_after", 0)
            .start();
        let (mut answered, mut failed) = (0, 0);
        for n in 0..10 {
            let mut client = proxy.connect();
            match client.post(HOST, &format!("/{n}"), b"once").status {
                200 => answered += 1,
                502 => failed += 1,
                status => panic!("{what}: {status}"),
            }
        }
        assert_eq!((answered, failed), (5, 5), "{what}");
        let mut targets: Vec<_> = [bad.requests(), good.requests()]
            .concat()
            .into_iter()
            .map(|request| request.target)
            .collect();
        targets.sort();
        targets.dedup();
        assert_eq!(targets.len(), 10, "{what}");
        assert_eq!(counts(&bad, &good), (5, 5), "{what}");
    }
}

#[test]
fn what_reached_nobody_is_sent_to_another_whatever_it_is() {
    let nobody = Port::free();
    let nobody = format!("http://{}", nobody.address());
    let good = Origin::named("good");
    let proxy = pool(&[&nobody, &good.url()])
        .set("upstream.pool.eject_after", 0)
        .start();
    for _ in 0..6 {
        let mut client = proxy.connect();
        client.post(HOST, "/", b"once").expect(200);
    }
    assert_eq!(good.requests().len(), 6);
}

#[test]
fn a_request_is_not_tried_beyond_its_own_deadline() {
    let gate = Arc::new(Gate::new());
    let slow = |name| {
        let gate = Arc::clone(&gate);
        Origin::plan(name)
            .route("/", move |exchange| {
                gate.pass();
                exchange.echo()
            })
            .start()
    };
    let (one, two) = (slow("one"), slow("two"));
    let proxy = pool(&[&one.url(), &two.url()])
        .set("upstream.pool.timeouts.response", "\"700ms\"")
        .set("upstream.pool.timeouts.total", "\"1200ms\"")
        .start();
    let begin = Instant::now();
    proxy.get("/").expect(504);
    assert!(begin.elapsed() >= Duration::from_millis(1200));
    assert_eq!(counts(&one, &two), (1, 1));
    gate.open();
}

#[test]
fn a_server_that_a_check_finds_ill_is_left_alone_until_it_is_well() {
    let well = Arc::new(AtomicBool::new(true));
    let checked = Arc::clone(&well);
    let ill = Origin::plan("ill")
        .route("/healthz", move |exchange| {
            match checked.load(Ordering::SeqCst) {
                true => exchange.respond(200, "", b"all is well"),
                false => exchange.respond(200, "", b"oh dear"),
            }
        })
        .start();
    let other = Origin::plan("other")
        .route("/healthz", |exchange| {
            exchange.respond(200, "", b"all is well")
        })
        .start();
    let proxy = pool(&[&ill.url(), &other.url()])
        .set("upstream.pool.health.path", "\"/healthz\"")
        .set("upstream.pool.health.host", "\"checked.test\"")
        .set("upstream.pool.health.body", "\"well\"")
        .set("upstream.pool.health.interval", "\"20ms\"")
        .start();
    until("it was checked", || ill.requests().len() > 3);
    assert_eq!(ill.last().field("host"), "checked.test");
    assert!(is_up(&proxy, &ill.url()));
    well.store(false, Ordering::SeqCst);
    until("it is left alone", || !is_up(&proxy, &ill.url()));
    for _ in 0..6 {
        assert_eq!(proxy.get("/").expect(200).json()["origin"], "other");
    }
    let table = table(&proxy);
    assert!(table.contains("does not hold what it should"), "{table}");
    well.store(true, Ordering::SeqCst);
    until("it is used again", || is_up(&proxy, &ill.url()));
    until("it answers", || {
        proxy.get("/").expect(200).json()["origin"] == "ill"
    });
}

#[test]
fn a_connection_is_check_enough_where_no_path_is_given() {
    let (mut one, two) = (Process::start(), Process::start());
    let proxy = pool(&[&one.url(), &two.url()])
        .set("upstream.pool.health.interval", "\"20ms\"")
        .start();
    one.kill();
    until("it is found dead", || !is_up(&proxy, &one.url()));
    let labels = [("upstream", "pool"), ("server", &*one.url())];
    assert_eq!(
        proxy.count("staunch_upstream_ejections_total", &labels),
        0.0
    );
    one.restart();
    until("it is found well", || is_up(&proxy, &one.url()));
}

#[test]
fn when_all_are_down_they_are_tried() {
    let ill = Origin::plan("ill")
        .route("/healthz", |exchange| exchange.respond(500, "", b""))
        .start();
    let proxy = pool(&[&ill.url()])
        .set("upstream.pool.health.path", "\"/healthz\"")
        .set("upstream.pool.health.interval", "\"20ms\"")
        .start();
    until("it is down", || !is_up(&proxy, &ill.url()));
    proxy.get("/").expect(200);
}

#[test]
fn a_server_is_drained_and_used_again() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = pool(&[&one.url(), &two.url()]).start();
    let which = json!({ "upstream": "pool", "server": one.url() });
    admin_post(&proxy, "/api/upstreams/drain", &which).expect(200);
    for _ in 0..6 {
        proxy.get("/").expect(200);
    }
    assert_eq!(counts(&one, &two), (0, 6));
    assert!(!is_up(&proxy, &one.url()));
    proxy.reload().expect(200);
    proxy.get("/").expect(200);
    assert_eq!(counts(&one, &two), (0, 7), "a reload forgets nothing");
    let last = json!({ "upstream": "pool", "server": two.url() });
    let refused = admin_post(&proxy, "/api/upstreams/drain", &last).expect(409);
    assert_eq!(refused.json()["error"], "last_server");
    let nobody = json!({ "upstream": "pool", "server": "http://nobody" });
    admin_post(&proxy, "/api/upstreams/drain", &nobody).expect(404);
    assert!(table(&proxy).contains("drained"));
    admin_post(&proxy, "/api/upstreams/undrain", &which).expect(200);
    for _ in 0..6 {
        proxy.get("/").expect(200);
    }
    assert_eq!(one.requests().len(), 3);
}

#[test]
fn a_full_server_has_a_queue_and_then_says_so() {
    let gate = Arc::new(Gate::new());
    let passed = Arc::clone(&gate);
    let busy = Arc::new(AtomicUsize::new(0));
    let (most, counted) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&busy));
    let seen = Arc::clone(&most);
    let origin = Origin::plan("origin")
        .route("/", move |exchange| {
            let now = counted.fetch_add(1, Ordering::SeqCst) + 1;
            seen.fetch_max(now, Ordering::SeqCst);
            passed.pass();
            counted.fetch_sub(1, Ordering::SeqCst);
            exchange.echo()
        })
        .start();
    let proxy = pool(&[&origin.url()])
        .set("upstream.pool.connections", 2)
        .set("upstream.pool.queue", 3)
        .start();
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| proxy.get("/").expect(200));
        }
        let url = origin.url();
        let labels = [("upstream", "pool"), ("server", url.as_str())];
        until("two are answered and three wait", || {
            busy.load(Ordering::SeqCst) == 2
                && proxy.count("staunch_upstream_queued", &labels) == 3.0
        });
        let refused = proxy.get("/").expect(503);
        assert_eq!(refused.field("retry-after"), Some("1"));
        gate.open();
    });
    assert_eq!(most.load(Ordering::SeqCst), 2);
    assert_eq!(origin.requests().len(), 5);
}

#[test]
fn a_cookie_brings_a_client_back_to_its_server() {
    let (one, two) = (Origin::named("one"), Origin::named("two"));
    let proxy = pool(&[&one.url(), &two.url()])
        .set("upstream.pool.sticky", "\"server\"")
        .start();
    let first = proxy.get("/").expect(200);
    let cookie = first.field("set-cookie").unwrap();
    assert!(
        cookie.starts_with("server=") && cookie.contains("HttpOnly"),
        "{cookie}"
    );
    let pair = cookie.split(';').next().unwrap().to_owned();
    for _ in 0..6 {
        let mut client = proxy.connect();
        let fields = format!("Cookie: a=b; {pair}\r\n");
        client.ask("GET", HOST, "/", &fields).unwrap();
        let again = client.read("GET").expect(200);
        assert_eq!(again.json()["origin"], first.json()["origin"]);
        assert_eq!(again.field("set-cookie"), None);
    }
}

#[test]
fn weights_and_backups_are_minded() {
    let (heavy, light) = (Origin::named("heavy"), Origin::named("light"));
    let backup = Origin::named("backup");
    let servers = format!(
        "[{{ url = {:?}, weight = 3 }}, {:?}, {{ url = {:?}, backup = true }}]",
        heavy.url(),
        light.url(),
        backup.url()
    );
    let proxy = pool(&[]).set("upstream.pool.servers", servers).start();
    for _ in 0..20 {
        proxy.get("/").expect(200);
    }
    assert_eq!(counts(&heavy, &light), (15, 5));
    drop((heavy, light));
    until("the backup is used", || proxy.get("/").status == 200);
    assert!(!backup.requests().is_empty());
}

#[test]
fn names_are_resolved_and_used() {
    let origin = Origin::named("origin");
    let url = origin.url().replace("127.0.0.1", "localhost");
    let proxy = pool(&[&url]).start();
    proxy.get("/").expect(200);
    until("the name is resolved", || {
        let report = proxy.admin_get("/api/upstreams").expect(200).json();
        let addresses = &report["upstreams"][0]["servers"][0]["addresses"];
        addresses.as_array().unwrap().contains(&json!("127.0.0.1"))
    });
    proxy.get("/").expect(200);
}

#[test]
fn what_lasts_at_a_server_keeps_it_from_nothing() {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = Arc::clone(&fails);
    let one = Origin::plan("one")
        .route("/tunnel", |exchange| {
            exchange.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
            )?;
            exchange.send_back()
        })
        .route("/", move |exchange| match failing.load(Ordering::SeqCst) {
            true => Err(std::io::ErrorKind::Other.into()),
            false => exchange.respond(200, "", b"one"),
        })
        .start();
    let two = Origin::named("two");
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(Site::new(&[HOST], "pool"))
        .upstream("pool", &[&one.url(), &two.url()])
        .set("upstream.pool.eject_after", 1)
        .set("upstream.pool.eject_time", "\"100ms\"")
        .start();
    let mut tunnel = proxy.connect();
    until("it has a tunnel to the first", || {
        tunnel = proxy.connect();
        let ask = "Connection: Upgrade\r\nUpgrade: echo\r\n";
        tunnel.ask("GET", HOST, "/tunnel", ask).unwrap();
        tunnel.read("GET").status == 101
    });
    let mut client = proxy.connect();
    fails.store(true, Ordering::SeqCst);
    until("the first is left alone", || {
        client.get(HOST, "/").expect(200);
        proxy.log().contains("left alone for a while")
    });
    fails.store(false, Ordering::SeqCst);
    until("the first is used again", || {
        client.get(HOST, "/").expect(200).text() == "one"
    });
    tunnel.send("still there").unwrap();
    assert_eq!(tunnel.incoming().exactly(11).unwrap(), b"still there");
}

/// A stream of events on which nothing happens.
#[test]
fn a_server_whose_bodies_pause_is_not_ejected() {
    let gate = Gate::new();
    let quiet = |name: &str| {
        let gate = gate.clone();
        Origin::plan(name)
            .route("/events", move |exchange| {
                exchange.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")?;
                gate.pass();
                Ok(())
            })
            .start()
    };
    let (one, two) = (quiet("one"), quiet("two"));
    let proxy = pool(&[&one.url(), &two.url()])
        .set("upstream.pool.eject_after", 1)
        .set("timeouts.upstream_idle", "\"100ms\"")
        .start();
    for _ in 0..4 {
        proxy.connect().try_get(HOST, "/events").unwrap_err();
    }
    let cut = [("timeout", "upstream_idle")];
    until("all were cut", || {
        proxy.count("staunch_timeouts_total", &cut) == 4.0
    });
    assert_eq!(counts(&one, &two), (2, 2));
    assert!(is_up(&proxy, &one.url()) && is_up(&proxy, &two.url()));
    gate.open();
}
