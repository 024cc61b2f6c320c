//! Deadlines of sites and routes: each is shorter than the ones of `[timeouts]`, which no test waits
//! for.

use std::time::{Duration, Instant};

use crate::support::{Builder, Exchange, Gate, HOST, Origin, Site, Staunch, TestCa, until};

/// A site whose routes each have one deadline of their own.
fn impatient(origin: &Origin) -> Builder {
    let site = [
        "response",
        "idle",
        "total",
        "request_body",
        "send",
        "tunnel",
    ]
    .iter()
    .fold(Site::new(&[HOST], &origin.url()), |site, key| {
        site.also(&format!(
            "[[site.route]]\npath = '/{key}'\ntimeouts.{key} = '300ms'\n"
        ))
    });
    Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(site)
}

/// Half of a response, and the other half once the gate is open.
fn halves(gate: &Gate) -> impl Fn(&mut Exchange<'_>) -> std::io::Result<()> + use<> {
    let gate = gate.clone();
    move |exchange| {
        exchange.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")?;
        gate.pass();
        exchange.send("cd")
    }
}

fn in_time(begin: Instant) {
    assert!(begin.elapsed() < Duration::from_secs(8), "{begin:?}");
}

#[test]
fn a_response_has_time_to_begin_and_to_end_and_all_of_it() {
    let gate = Gate::new();
    let origin = Origin::plan("o")
        .gated("/response", &gate)
        .route("/idle", halves(&gate))
        .route("/total", halves(&gate))
        .start();
    let proxy = impatient(&origin).start();
    let begin = Instant::now();
    proxy.connect().get(HOST, "/response").expect(504);
    for target in ["/idle", "/total"] {
        let mut client = proxy.connect();
        client.ask("GET", HOST, target, "").unwrap();
        client.incoming().response_head().unwrap();
        // Broken off, so that nobody takes it for whole.
        assert!(client.incoming().exactly(4).is_err(), "{target}");
    }
    in_time(begin);
    assert!(proxy.count("staunch_timeouts_total", &[]) >= 3.0);
    gate.open();
    let mut client = proxy.connect();
    assert_eq!(client.get(HOST, "/idle").expect(200).text(), "abcd");
}

#[test]
fn a_request_has_time_to_arrive() {
    let origin = Origin::echo();
    let proxy = impatient(&origin).start();
    let begin = Instant::now();
    let mut client = proxy.connect();
    let fields = "Content-Length: 100\r\n";
    client.ask("POST", HOST, "/request_body", fields).unwrap();
    client.send("some").unwrap();
    let late = client.read("POST").expect(408);
    assert_eq!(late.field("connection"), Some("close"));
    in_time(begin);
}

#[test]
fn a_client_has_time_to_read() {
    let origin = Origin::plan("o")
        .route("/", |exchange| {
            let length = 1_u64 << 30;
            exchange.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
            ))?;
            loop {
                exchange.send([b'a'; 65536])?;
            }
        })
        .start();
    let proxy = impatient(&origin).start();
    let begin = Instant::now();
    let mut client = proxy.connect();
    client.ask("GET", HOST, "/send", "").unwrap();
    until("it is cut", || {
        origin.connections() == 1 && origin.open() == 0
    });
    in_time(begin);
}

#[test]
fn a_tunnel_may_be_silent_for_so_long() {
    let origin = Origin::plan("o")
        .route("/", |exchange| {
            exchange.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            )?;
            while !exchange.read_some()?.is_empty() {}
            exchange.close();
            Ok(())
        })
        .start();
    let proxy = impatient(&origin).start();
    let begin = Instant::now();
    let mut client = proxy.connect();
    let fields = "Connection: Upgrade\r\nUpgrade: x\r\n";
    client.ask("GET", HOST, "/tunnel", fields).unwrap();
    client.read("GET").expect(101);
    assert!(client.gone());
    in_time(begin);
}
