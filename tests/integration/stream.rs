//! Connections that are passed on byte by byte: TLS terminated before any protocol, and TLS passed
//! through by the name in its greeting.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::{
    Connection, HOST, Origin, PATIENCE, Port, Site, Staunch, TestCa, Tls, require, until,
};

/// A server that says hello at once, reads to the end, and answers with how much that was.
fn counting() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            thread::spawn(move || {
                client.write_all(b"220 ready\r\n").unwrap();
                let mut all = Vec::new();
                let _ = client.read_to_end(&mut all);
                let _ = write!(client, "{}", all.len());
            });
        }
    });
    address
}

fn raw(origin: &Origin) -> String {
    origin.url().replace("http://", "tcp://")
}

#[test]
fn any_protocol_is_behind_terminated_tls() {
    let origin = Origin::echo();
    let port = Port::free();
    let lines = format!("tls = true\nupstream = {:?}\n", raw(&origin));
    let proxy = Staunch::serving(&origin).stream(&port, &lines).start();
    let mut connection = Tls::to(port.address()).name(HOST).connect();
    connection.get(HOST, "/").expect(200);
    // What the client said, and nothing more.
    assert!(origin.last().all("x-forwarded-for").is_empty());
    drop(connection);
    let labels = [("outcome", "closed")];
    until("the connection is counted", || {
        proxy.count("staunch_stream_connections_total", &labels) == 1.0
    });
    assert!(proxy.count("staunch_stream_received_bytes_total", &[]) > 10.0);
    let listed = proxy.admin_get("/api/upstreams").expect(200).text();
    assert!(listed.contains("tcp://"), "{listed}");
}

#[test]
fn a_protocol_is_agreed_on_where_one_is_named() {
    let origin = Origin::echo();
    let port = Port::free();
    let upstream = raw(&origin);
    let lines = format!("tls = true\nalpn = [\"postgresql\"]\nupstream = {upstream:?}\n");
    let _proxy = Staunch::serving(&origin).stream(&port, &lines).start();
    let tls = || Tls::to(port.address()).name(HOST);
    let agreed = tls().alpn(&["postgresql"]).connect();
    assert_eq!(agreed.protocol().as_deref(), Some("postgresql"));
    assert!(tls().alpn(&["h2"]).try_connect().is_err());
    assert_eq!(tls().alpn(&[]).connect().protocol(), None);
}

#[test]
fn a_real_client_ends_its_side_and_still_hears_the_answer() {
    let server = counting();
    let (plain, tls) = (Port::free(), Port::free());
    let upstream = format!("upstream = \"tcp://{server}\"\n");
    let _proxy = Staunch::serving(&Origin::echo())
        .stream(&plain, &upstream)
        .stream(&tls, &format!("tls = true\n{upstream}"))
        .start();
    let mut client = TcpStream::connect(plain.address()).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(&vec![b'x'; 1 << 20]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "220 ready\r\n1048576");

    // The server speaks first, as those of SMTP do.
    let address = tls.address().to_string();
    let mut openssl = Command::new(require("openssl"))
        .args(["s_client", "-quiet", "-no_ign_eof", "-connect", &address])
        .args(["-servername", HOST])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut hello = [0; 11];
    let said = openssl.stdout.as_mut().unwrap();
    said.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"220 ready\r\n");
    drop(openssl.stdin.take());
    assert!(openssl.wait().unwrap().success());
}

#[test]
fn what_a_server_said_before_it_closed_still_arrives() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            // Closing with bytes unread resets the connection, and what is written to it breaks.
            let mut client = client.unwrap();
            client.write_all(b"421 go away\r\n").unwrap();
        }
    });
    let port = Port::free();
    let _proxy = Staunch::serving(&Origin::echo())
        .stream(&port, &format!("upstream = \"tcp://{address}\"\n"))
        .start();
    for _ in 0..20 {
        let mut client = TcpStream::connect(port.address()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = client.write_all(&vec![b'x'; 64 << 10]);
        let mut answer = [0; 13];
        client.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"421 go away\r\n");
    }
}

#[test]
fn a_server_that_is_down_costs_no_connection() {
    let origin = Origin::echo();
    let (port, dead) = (Port::free(), Port::free());
    let servers = [format!("tcp://{}", dead.address()), raw(&origin)];
    let servers: Vec<_> = servers.iter().map(String::as_str).collect();
    let proxy = Staunch::serving(&origin)
        .upstream("pool", &servers)
        .stream(&port, "upstream = \"pool\"\n")
        .start();
    for _ in 0..10 {
        let mut connection = Connection::plain(port.address()).unwrap();
        connection.get(HOST, "/").expect(200);
    }
    let refused = [("outcome", "connect")];
    assert!(proxy.count("staunch_upstream_requests_total", &refused) >= 1.0);
}

#[test]
fn silence_ends_a_connection() {
    let port = Port::free();
    let lines = format!("idle = \"100ms\"\nupstream = \"tcp://{}\"\n", counting());
    let proxy = Staunch::serving(&Origin::echo())
        .stream(&port, &lines)
        .start();
    let mut silent = TcpStream::connect(port.address()).unwrap();
    silent.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut said = String::new();
    silent.read_to_string(&mut said).unwrap();
    assert_eq!(said, "220 ready\r\n");
    until("it is counted", || {
        proxy.count("staunch_stream_connections_total", &[("outcome", "idle")]) == 1.0
    });
}

#[test]
fn clients_are_let_in_by_their_address() {
    let (open, shut) = (Port::free(), Port::free());
    let to = format!("upstream = \"tcp://{}\"\n", counting());
    let proxy = Staunch::serving(&Origin::echo())
        .stream(&open, &format!("{to}allow = [\"127.0.0.0/8\"]\n"))
        .stream(&shut, &format!("{to}deny = [\"127.0.0.1\"]\n"))
        .start();
    let said = |port: &Port| {
        let mut client = TcpStream::connect(port.address()).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        let mut said = String::new();
        let _ = client.read_to_string(&mut said);
        said
    };
    assert!(said(&open).starts_with("220 ready"));
    assert_eq!(said(&shut), "");
    until("it is counted", || {
        proxy.count("staunch_proxy_errors_total", &[("kind", "forbidden")]) == 1.0
    });
}

#[test]
fn tls_is_passed_through_by_name() {
    let ca = TestCa::new();
    let origin = Origin::echo();
    let behind = |name: &str| {
        let leaf = ca.issue(name);
        let staunch = Staunch::build().leaf(&leaf).site(name, &origin).start();
        (staunch, leaf.fingerprint)
    };
    let (one, first) = behind("one.test");
    let (two, second) = behind("a.two.test");
    let port = Port::free();
    let lines = format!(
        "tls = true\nupstream = {:?}\n\
         [[stream.route]]\nnames = [\"one.test\"]\nupstream = \"tcp://{}\"\n\
         [[stream.route]]\nnames = [\"*.two.test\"]\nupstream = \"tcp://{}\"\n",
        raw(&origin),
        one.https(),
        two.https()
    );
    let here = ca.issue(HOST);
    let proxy = Staunch::build()
        .leaf(&here)
        .site(HOST, &origin)
        .sites(Site::passed(
            &["one.test"],
            &format!("tcp://{}", one.https()),
        ))
        .stream(&port, &lines)
        .start();
    let tls = |name| Tls::to(port.address()).name(name);
    assert_eq!(tls("one.test").leaf(), first);
    assert_eq!(tls("ONE.test").leaf(), first);
    assert_eq!(tls("a.two.test").leaf(), second);
    assert_eq!(tls("other.test").leaf(), here.fingerprint);
    tls("one.test").connect().get("one.test", "/").expect(200);
    // And beside sites whose TLS is terminated, on the same port.
    assert_eq!(proxy.tls("one.test").leaf(), first);
    assert_eq!(proxy.tls(HOST).leaf(), here.fingerprint);
    let mut connection = proxy.tls("one.test").alpn(&["h2"]).connect();
    assert_eq!(connection.protocol().as_deref(), Some("h2"));
    connection.finish_sending();
}

#[test]
fn what_is_no_greeting_goes_nowhere() {
    let port = Port::free();
    let lines = format!(
        "[[stream.route]]\nnames = [\"a.test\"]\nupstream = \"tcp://{}\"\n",
        counting()
    );
    let proxy = Staunch::serving(&Origin::echo())
        .set("timeouts.tls_handshake", "\"300ms\"")
        .stream(&port, &lines)
        .start();
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02", b""] {
        let mut connection = Connection::plain(port.address()).unwrap();
        connection.send(bytes).unwrap();
        assert!(connection.gone());
    }
    assert!(
        Tls::to(port.address())
            .name("b.test")
            .try_connect()
            .is_err()
    );
    // On a busy machine the canary may be one of them too.
    assert!(proxy.count("staunch_timeouts_total", &[("timeout", "tls_handshake")]) >= 2.0);
}

#[test]
fn open_connections_outlive_a_reload_and_are_waited_for_at_the_end() {
    let origin = Origin::echo();
    let port = Port::free();
    let lines = format!("tls = true\nupstream = {:?}\n", raw(&origin));
    let mut proxy = Staunch::serving(&origin).stream(&port, &lines).start();
    let mut connection = Tls::to(port.address()).name(HOST).connect();
    connection.get(HOST, "/").expect(200);
    proxy.reconfigure(|config| config.clear_streams());
    proxy.reload().expect(200);
    connection.get(HOST, "/still").expect(200);
    until("nobody listens there", || {
        TcpStream::connect(port.address()).is_err()
    });
    proxy.term();
    until("it drains", || {
        proxy
            .try_admin_get("/readyz")
            .map_or(true, |r| r.status != 200)
    });
    connection.get(HOST, "/and-still").expect(200);
    drop(connection);
    assert!(proxy.wait_exit().success());
}

#[test]
fn servers_are_told_whose_connection_it_is() {
    const V1: &[u8] = b"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n";
    let origin = Origin::echo();
    let ca = TestCa::new();
    let second = Staunch::build()
        .leaf(&ca.issue("passed.test"))
        .site("passed.test", &origin)
        .set("listen.proxy_protocol_from", "[\"127.0.0.1\"]")
        .start();
    for version in ["v1", "v2", "v2-tls"] {
        let first = Staunch::build()
            .leaf(&ca.issue(HOST))
            .set("listen.proxy_protocol_from", "[\"127.0.0.1\"]")
            .upstream("second", &[&format!("tcp://{}", second.https())])
            .set("upstream.second.proxy_protocol", format!("{version:?}"))
            .site(HOST, &origin)
            .sites(Site::passed(&["passed.test"], "second"))
            .start();
        let mut connection = first.tls("passed.test").preamble(V1).connect();
        connection.get("passed.test", "/").expect(200);
        assert_eq!(origin.last().field("x-forwarded-for"), "192.0.2.7");
    }
}

#[test]
fn a_server_that_does_not_read_holds_its_client_and_not_the_memory() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let port = Port::free();
    let proxy = Staunch::serving(&Origin::echo())
        .stream(&port, &format!("upstream = \"tcp://{address}\"\n"))
        .start();
    let part = vec![b'x'; 1 << 20];
    let mut most = Vec::new();
    for _ in 0..4 {
        let mut client = TcpStream::connect(port.address()).unwrap();
        client
            .set_write_timeout(Some(Duration::from_millis(500)))
            .unwrap();
        let _server = listener.accept().unwrap();
        // What the kernel buffers on the way is a few times this.
        let taken = (0..100)
            .take_while(|_| client.write_all(&part).is_ok())
            .count();
        assert!(taken < 64, "{taken} MiB went nowhere");
        most.push(proxy.memory());
    }
    // The allocator takes large pages from the system as each thread begins; after that nothing.
    let grown = most[3].saturating_sub(most[1]);
    assert!(grown < 8 << 20, "{most:?}");
}
