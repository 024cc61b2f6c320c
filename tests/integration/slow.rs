//! Clients that stall: closed at their timeout, at nobody else's cost.

use std::time::{Duration, Instant};

use crate::support::{Connection, HOST, Origin, Staunch, until};

/// Short, so that the tests are; all else keeps its default.
fn impatient(origin: &Origin, timeout: &str) -> Staunch {
    Staunch::serving(origin)
        .set("workers.threads", 1)
        .set(&format!("timeouts.{timeout}"), "\"400ms\"")
        .start()
}

/// Not before it should, and not much later: the deadline is generous for slow machines, and far
/// below the timeouts that were not set.
fn in_time(begin: Instant) {
    let elapsed = begin.elapsed();
    assert!(elapsed >= Duration::from_millis(300), "{elapsed:?}");
    assert!(elapsed < Duration::from_secs(8), "{elapsed:?}");
}

#[test]
fn a_client_that_does_not_begin_its_handshake_is_closed() {
    let origin = Origin::echo();
    let proxy = impatient(&origin, "tls_handshake");
    let begin = Instant::now();
    let mut stalling = Connection::plain(proxy.https()).unwrap();
    proxy.get("/").expect(200);
    assert!(stalling.gone());
    in_time(begin);
    until("it is counted", || {
        proxy.count("staunch_timeouts_total", &[]) >= 1.0
    });
}

#[test]
fn a_client_that_stops_within_its_handshake_is_closed() {
    let origin = Origin::echo();
    let proxy = impatient(&origin, "tls_handshake");
    let begin = Instant::now();
    let mut stalling = Connection::plain(proxy.https()).unwrap();
    // The head of a record with a ClientHello of 512 bytes, and some of it.
    stalling
        .send([0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0, 0])
        .unwrap();
    proxy.get("/").expect(200);
    stalling.gone();
    in_time(begin);
}

#[test]
fn a_client_that_sends_no_request_is_closed() {
    let origin = Origin::echo();
    let proxy = impatient(&origin, "request_head");
    let begin = Instant::now();
    let mut stalling = proxy.connect();
    assert!(stalling.gone());
    in_time(begin);
}

#[test]
fn a_client_that_stops_within_the_head_is_closed() {
    let origin = Origin::echo();
    let proxy = impatient(&origin, "request_head");
    let begin = Instant::now();
    let mut stalling = proxy.connect();
    stalling.send("GET / HTTP/1.1\r\nHost: exam").unwrap();
    proxy.get("/").expect(200);
    stalling.read("GET").expect(408);
    assert!(stalling.closed());
    in_time(begin);
    assert_eq!(origin.requests().len(), 1);
}

/// The deadline is for the whole head: one byte now and then does not push it back.
#[test]
fn a_client_that_trickles_its_head_is_closed() {
    let origin = Origin::echo();
    let proxy = impatient(&origin, "request_head");
    let begin = Instant::now();
    let mut stalling = proxy.connect();
    stalling.send("GET / HTTP/1.1\r\n").unwrap();
    until("it is cut", || {
        stalling.send("X: 1\r\n").is_err() || !stalling.is_open()
    });
    in_time(begin);
}

#[test]
fn a_client_that_stops_within_its_body_is_closed() {
    let origin = Origin::echo();
    let proxy = impatient(&origin, "request_body");
    let begin = Instant::now();
    let mut stalling = proxy.connect();
    stalling
        .ask("POST", HOST, "/", "Content-Length: 100\r\n")
        .unwrap();
    stalling.send("some").unwrap();
    proxy.get("/").expect(200);
    stalling.read("POST").expect(408);
    assert!(stalling.closed());
    in_time(begin);
    until("the origin is not left waiting", || origin.open() <= 1);
}

#[test]
fn a_kept_connection_that_is_idle_is_closed() {
    let origin = Origin::echo();
    let proxy = impatient(&origin, "idle");
    let mut idle = proxy.connect();
    idle.get(HOST, "/").expect(200);
    let begin = Instant::now();
    assert!(idle.closed());
    in_time(begin);
}

#[test]
fn a_client_that_does_not_read_is_closed() {
    let origin = Origin::plan("origin")
        .route("/", |exchange| {
            exchange.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n",
                1_u64 << 30
            ))?;
            loop {
                exchange.send([b'a'; 65536])?;
            }
        })
        .start();
    let proxy = impatient(&origin, "send");
    let mut stalling = proxy.connect();
    stalling.ask("GET", HOST, "/", "").unwrap();
    until("it is cut", || {
        origin.connections() == 1 && origin.open() == 0
    });
}

#[test]
fn a_hundred_stalling_clients_harm_nobody() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).set("workers.threads", 1).start();
    let stalling: Vec<_> = (0..100)
        .map(|number| {
            if number % 2 == 0 {
                return Connection::plain(proxy.https()).unwrap();
            }
            let mut client = proxy.connect();
            client.send("GET / HT").unwrap();
            client
        })
        .collect();
    let begin = Instant::now();
    proxy.get("/").expect(200);
    assert!(begin.elapsed() < Duration::from_secs(5));
    drop(stalling);
}

#[test]
fn connections_over_the_limit_wait_or_are_turned_away_and_those_within_go_on() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin)
        .set("limits.connections", 4)
        .start();
    let mut within: Vec<_> = (0..4).map(|_| proxy.connect()).collect();
    let mut over = Connection::plain(proxy.https()).unwrap();
    for client in &mut within {
        client.get(HOST, "/").expect(200);
    }
    drop(within);
    let _ = over.is_open();
    until("there is room again", || {
        let client = proxy.tls(HOST).try_connect();
        client.is_ok_and(|mut client| client.try_get(HOST, "/").is_ok())
    });
}
