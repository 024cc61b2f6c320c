//! Limits: what acts, what the client is told, what the metrics say, and that others go on.

use crate::corpus::frames::{self, END_HEADERS, END_STREAM, GOAWAY, HEADERS, RST_STREAM, SETTINGS};
use crate::corpus::wire::Wire;
use crate::support::{Gate, H2, HOST, Origin, Site, Staunch, TestCa, block_on, eventually, until};

fn hits(proxy: &Staunch, limit: &str) -> f64 {
    proxy.count("staunch_limits_hit_total", &[("limit", limit)])
}

#[test]
fn a_host_that_the_certificate_does_not_cover_is_misdirected() {
    let origin = Origin::echo();
    let ca = TestCa::new();
    let proxy = Staunch::build()
        .leaf(&ca.leaf(&[HOST, "same.test"]).issue())
        .leaf(&ca.issue("other.test"))
        .sites(Site::new(&[HOST, "same.test", "other.test"], &origin.url()))
        .start();
    let mut client = proxy.tls(HOST).connect();
    client.get("same.test", "/").expect(200);
    client.get("other.test", "/").expect(421);
    client.get("EXAMPLE.test.", "/").expect(200);
    proxy
        .tls("other.test")
        .connect()
        .get("other.test", "/")
        .expect(200);
    block_on(async {
        let h2 = H2::connect(&proxy.tls(HOST)).await.unwrap();
        assert_eq!(h2.get("same.test", "/").await.unwrap().status, 200);
        assert_eq!(h2.get("other.test", "/").await.unwrap().status, 421);
    });
}

#[test]
fn a_connection_ends_in_order_after_its_last_request() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin)
        .set("limits.requests_per_connection", 2)
        .start();
    let mut client = proxy.connect();
    assert_eq!(client.get(HOST, "/").expect(200).field("connection"), None);
    let last = client.get(HOST, "/").expect(200);
    assert_eq!(last.field("connection"), Some("close"));
    assert!(client.closed());
    block_on(async {
        let h2 = H2::connect(&proxy.tls(HOST)).await.unwrap();
        for _ in 0..2 {
            assert_eq!(h2.get(HOST, "/").await.unwrap().status, 200);
        }
        assert!(h2.driver.await.unwrap().is_ok());
    });
    assert!(hits(&proxy, "requests_per_connection") >= 2.0);
}

#[test]
fn a_client_has_so_many_connections_and_others_have_theirs() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin)
        .set("limits.connections_per_client", 2)
        .start();
    // What probes itself from the same address may be in at first.
    let mut first = eventually("the first is in", || proxy.tls(HOST).try_connect().ok());
    let _second = eventually("the second is in", || proxy.tls(HOST).try_connect().ok());
    assert!(proxy.tls(HOST).try_connect().is_err());
    assert!(hits(&proxy, "connections_per_client") >= 1.0);
    first.get(HOST, "/").expect(200);
    drop(first);
    until("there is room again", || {
        proxy.tls(HOST).try_connect().is_ok()
    });
}

#[test]
fn a_client_that_asks_too_often_is_told_to_wait() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin)
        .set("limits.client_rate", 1)
        .set("limits.client_burst", 3)
        .start();
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.get(HOST, "/").expect(200);
    }
    let refused = client.get(HOST, "/").expect(429);
    assert_eq!(refused.field("retry-after"), Some("1"));
    assert!(hits(&proxy, "client_rate") >= 1.0);
    until("it may ask again", || client.get(HOST, "/").status == 200);
}

#[test]
fn a_quota_bounds_the_routes_that_name_it_and_no_other() {
    let origin = Origin::echo();
    let site = Site::new(&[HOST], &origin.url()).also(
        "quotas = [\"all\"]\n[[site.route]]\npath = \"/login\"\nquotas = [\"login\"]\n\
         [[site.route]]\npath = \"/api/\"\nquotas = [\"login\", \"keys\"]\n\
         [[site.route]]\npath = \"/free/\"\nquotas = []\n",
    );
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(site)
        .set("quota.all.requests", "\"1/h\"")
        .set("quota.login.requests", "\"2/m\"")
        .set("quota.login.burst", 3)
        .set("quota.keys.requests", "\"1/h\"")
        .set("quota.keys.by", "\"{header:X-Api-Key}\"")
        .start();
    let mut client = proxy.connect();
    client.get(HOST, "/").expect(200);
    client.get(HOST, "/x").expect(429);
    // A reload gives nobody more than his share.
    proxy.reload().expect(200);
    client.get(HOST, "/x").expect(429);
    let mut keyed = |key: &str| {
        let fields = format!("X-Api-Key: {key}\r\n");
        client.ask("GET", HOST, "/api/", &fields).unwrap();
        client.incoming().response("GET").unwrap().status
    };
    assert_eq!([keyed("a"), keyed("b"), keyed("a")], [200, 200, 429]);
    // That was three of its kind, of which the last was refused by the other.
    let refused = client.get(HOST, "/login").expect(429);
    let wait: u32 = refused.field("retry-after").unwrap().parse().unwrap();
    assert!((20..=30).contains(&wait), "{wait}");
    for _ in 0..5 {
        client.get(HOST, "/free/").expect(200);
    }
    assert!(hits(&proxy, "quota") >= 3.0);
}

#[test]
fn a_quota_bounds_what_is_worked_on_at_once_and_some_are_exempt() {
    let gate = Gate::new();
    let origin = Origin::plan("slow").gated("/slow", &gate).start();
    let site = Site::new(&[HOST], &origin.url())
        .also("quotas = [\"few\"]\n[[site.route]]\npath = \"/exempt\"\nquotas = [\"others\"]\n");
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .sites(site)
        .set("quota.few.concurrent", 1)
        .set("quota.others.requests", "\"1/h\"")
        .set("quota.others.except", "[\"127.0.0.0/8\"]")
        .start();
    let mut busy = proxy.connect();
    busy.ask("GET", HOST, "/slow", "").unwrap();
    until("the server has it", || !origin.requests().is_empty());
    let mut other = proxy.connect();
    other.get(HOST, "/").expect(429);
    proxy.reload().expect(200);
    other.get(HOST, "/").expect(429);
    other.get(HOST, "/exempt").expect(200);
    other.get(HOST, "/exempt").expect(200);
    gate.open();
    busy.incoming().response("GET").unwrap().expect(200);
    until("its place is free", || other.get(HOST, "/").status == 200);
}

/// A connection that has said hello.
fn h2(proxy: &Staunch) -> Wire {
    let mut wire = Wire::connect(proxy.https(), "h2").unwrap();
    let mut out = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    frames::frame(&mut out, SETTINGS, 0, 0, &[]);
    wire.send(&out).unwrap();
    wire
}

fn ask(out: &mut Vec<u8>, stream: u32) {
    ask_for(out, stream, "/");
}

fn ask_for(out: &mut Vec<u8>, stream: u32, path: &str) {
    let field = |name: &str, value: &str| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
    let block = frames::block(&[
        field(":method", "GET"),
        field(":path", path),
        field(":scheme", "https"),
        field(":authority", HOST),
    ]);
    frames::frame(out, HEADERS, END_HEADERS | END_STREAM, stream, &block);
}

/// The code that the connection is ended with.
fn goaway(wire: &mut Wire) -> Option<u32> {
    while let Ok(Some((kind, _, _, payload))) = frames::next(wire) {
        let code = (kind == GOAWAY).then(|| payload[4..8].try_into().unwrap());
        if let Some(code @ 1..) = code.map(u32::from_be_bytes) {
            return Some(code);
        }
    }
    None
}

const PROTOCOL_ERROR: u32 = 1;
const STREAM_CLOSED: u32 = 5;
const ENHANCE_YOUR_CALM: u32 = 11;

#[test]
fn frames_that_carry_nothing_end_the_connection() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    for (n, (kind, flags, stream, payload)) in [
        (6, 0, 0, &[0; 8][..]),      // PING
        (4, 0, 0, &[]),              // SETTINGS
        (8, 0, 0, &[0, 0, 0, 1]),    // WINDOW_UPDATE
        (2, 0, 3, &[0, 0, 0, 0, 1]), // PRIORITY
        (0xfa, 0, 0, &[0; 16]),      // unknown
    ]
    .into_iter()
    .enumerate()
    {
        let mut wire = h2(&proxy);
        let mut out = Vec::new();
        for _ in 0..3000 {
            frames::frame(&mut out, kind, flags, stream, payload);
        }
        let _ = wire.send(&out);
        let code = goaway(&mut wire);
        assert!(
            code.is_none_or(|code| code == ENHANCE_YOUR_CALM),
            "{kind}: {code:?}"
        );
        until("it is counted", || hits(&proxy, "http2_frames") > n as f64);
    }
    proxy.get("/").expect(200);
}

#[test]
fn rapid_resets_end_the_connection() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut wire = h2(&proxy);
    let mut stream = 1;
    // In small pieces, so that each request is taken up before it is reset (CVE-2023-44487).
    for _ in 0..200 {
        let mut out = Vec::new();
        for _ in 0..5 {
            ask(&mut out, stream);
            frames::frame(&mut out, RST_STREAM, 0, stream, &[0, 0, 0, 8]);
            stream += 2;
        }
        if wire.send(&out).is_err() {
            break;
        }
    }
    let code = goaway(&mut wire);
    assert!(
        code.is_none_or(|code| code == ENHANCE_YOUR_CALM),
        "{code:?}"
    );
    until("it is counted", || {
        hits(&proxy, "http2_frames") + hits(&proxy, "streams") >= 1.0
    });
    proxy.get("/").expect(200);
}

#[test]
fn many_requests_may_be_taken_back_at_once() {
    const COUNT: usize = 80;
    let gate = Gate::new();
    let origin = Origin::plan("origin").gated("/slow", &gate).start();
    let proxy = Staunch::serving(&origin).start();
    let mut wire = h2(&proxy);
    let streams = || (1..).step_by(2).take(COUNT);
    let mut out = Vec::new();
    streams().for_each(|stream| ask_for(&mut out, stream, "/slow"));
    wire.send(&out).unwrap();
    until("all are with the server", || {
        origin.requests().len() == COUNT
    });
    // A page is left, and another one opened on the same connection.
    let mut out = Vec::new();
    streams().for_each(|stream| frames::frame(&mut out, RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    let next = 2 * u32::try_from(COUNT).unwrap() + 1;
    ask(&mut out, next);
    wire.send(&out).unwrap();
    let answered = loop {
        match frames::next(&mut wire) {
            Ok(Some((HEADERS, _, stream, _))) => break stream,
            Ok(Some((GOAWAY, .., payload))) => panic!("it is told to go: {payload:?}"),
            Ok(Some(_)) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(answered, next);
    gate.open();
}

#[test]
fn resets_that_the_client_provokes_end_the_connection() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut wire = h2(&proxy);
    for at in 0..150 {
        let mut out = Vec::new();
        ask(&mut out, 2 * at + 1);
        // CVE-2025-8671: a window that overflows makes the server reset the stream.
        for _ in 0..2 {
            frames::frame(&mut out, 8, 0, 2 * at + 1, &[0x7f, 0xff, 0xff, 0xff]);
        }
        let _ = wire.send(&out);
    }
    let code = goaway(&mut wire);
    assert!(
        code.is_none_or(|code| code == ENHANCE_YOUR_CALM),
        "{code:?}"
    );
    until("it is counted", || hits(&proxy, "streams") >= 1.0);
    proxy.get("/").expect(200);
}

#[test]
fn frames_that_must_not_be_end_the_connection() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut wire = h2(&proxy);
    let mut out = Vec::new();
    ask(&mut out, 1);
    wire.send(&out).unwrap();
    while !matches!(frames::next(&mut wire), Ok(Some((0, END_STREAM, 1, _)))) {}
    let mut out = Vec::new();
    frames::frame(&mut out, 0, 0, 1, b"behind the end");
    wire.send(&out).unwrap();
    assert_eq!(goaway(&mut wire), Some(STREAM_CLOSED));

    let mut wire = h2(&proxy);
    let mut out = Vec::new();
    // A setting that is neither 0 nor 1 (RFC 9218, section 2.1).
    frames::frame(&mut out, SETTINGS, 0, 0, &[0, 9, 0, 0, 0, 2]);
    wire.send(&out).unwrap();
    assert_eq!(goaway(&mut wire), Some(PROTOCOL_ERROR));
    proxy.get("/").expect(200);
}

#[test]
fn continuations_without_end_end_the_connection() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    let mut wire = h2(&proxy);
    let mut out = Vec::new();
    frames::frame(&mut out, HEADERS, 0, 1, &[]);
    for _ in 0..3000 {
        frames::frame(&mut out, 9, 0, 1, &[]); // CVE-2024-27316
    }
    let _ = wire.send(&out);
    goaway(&mut wire);
    assert!(wire.expect_end(true).is_ok() || wire.expect_end(false).is_ok());
    proxy.get("/").expect(200);
}

#[test]
fn honest_clients_run_into_no_limit() {
    let origin = Origin::echo();
    let proxy = Staunch::serving(&origin).start();
    block_on(async {
        let h2 = H2::connect(&proxy.tls(HOST)).await.unwrap();
        for _ in 0..1500 {
            assert_eq!(h2.get(HOST, "/").await.unwrap().status, 200);
        }
    });
    for limit in ["http2_frames", "streams", "connections_per_client"] {
        assert_eq!(hits(&proxy, limit), 0.0, "{limit}");
    }
}
