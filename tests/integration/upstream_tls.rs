//! Kept connections over TLS to servers that speak HTTP/1.1: what they say unasked is for nobody.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustls::{ServerConfig, ServerConnection, Stream, SupportedProtocolVersion};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::{HOST, Leaf, Site, Staunch, TestCa};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
/// Of a whole TLS record: as much as is read at once, so that nothing of what follows is.
const LONG: usize = 16 << 10;
const POISON: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";

/// A server that says more than it should, in a record of its own, and sends all at once.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Server {
    fn start(leaf: &Leaf, version: &'static SupportedProtocolVersion) -> Self {
        let chain = CertificateDer::pem_slice_iter(leaf.chain.as_bytes());
        let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_protocol_versions(&[version])
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            connections: Arc::default(),
        };
        let connections = Arc::clone(&server.connections);
        thread::spawn(move || {
            for socket in listener.incoming() {
                connections.fetch_add(1, Ordering::SeqCst);
                let tls = ServerConnection::new(Arc::clone(&config)).unwrap();
                // That the proxy closes is what the tests are about.
                thread::spawn(move || drop(serve(tls, socket.unwrap())));
            }
        });
        server
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(mut tls: ServerConnection, mut socket: TcpStream) -> io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            Stream::new(&mut tls, &mut socket).read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let path = head.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
        let (begin, second) = match (path, &head[..4]) {
            (b"/not-modified", _) => (&b"HTTP/1.1 304 Not Modified\r\n"[..], POISON),
            (_, b"HEAD") => (&b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n"[..], POISON),
            _ => (OK, &b""[..]),
        };
        let mut first = begin.to_vec();
        if !second.is_empty() {
            let pad = LONG - first.len() - b"Pad: \r\n\r\n".len();
            write!(first, "Pad: {}\r\n\r\n", "a".repeat(pad))?;
        }
        tls.writer().write_all(&first)?;
        tls.writer().write_all(second)?;
        let leaves = path == b"/goodbye";
        if leaves {
            tls.send_close_notify();
        }
        let mut flight = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut flight)?;
        }
        socket.write_all(&flight)?;
        if leaves {
            // Answers nothing more, and leaves the socket open.
            io::copy(&mut socket, &mut io::sink())?;
        }
    }
}

/// The server, and what is before it, on one worker.
fn before(version: &'static SupportedProtocolVersion) -> (Server, Staunch) {
    let ca = TestCa::new();
    let server = Server::start(&ca.issue("127.0.0.1"), version);
    let proxy = Staunch::build()
        .trusting(&ca)
        .leaf(&ca.issue(HOST))
        .set("workers.threads", 1)
        .sites(Site::new(&[HOST], &format!("https://{}", server.address)))
        .start();
    (server, proxy)
}

#[test]
fn a_body_where_none_may_be_poisons_no_other_response() {
    let (_server, proxy) = before(&rustls::version::TLS13);
    let mut client = proxy.connect();
    for _ in 0..5 {
        client.ask("HEAD", HOST, "/", "").unwrap();
        client.read("HEAD").expect(200);
        assert_eq!(client.get(HOST, "/").expect(200).text(), "ok");
        client.get(HOST, "/not-modified").expect(304);
        assert_eq!(client.get(HOST, "/").expect(200).text(), "ok");
    }
}

#[test]
fn a_connection_that_the_server_has_ended_carries_no_further_request() {
    let (_server, proxy) = before(&rustls::version::TLS13);
    let mut client = proxy.connect();
    for _ in 0..5 {
        client.get(HOST, "/goodbye").expect(200);
        assert_eq!(client.post(HOST, "/", b"once").expect(200).text(), "ok");
    }
}

#[test]
fn one_connection_is_enough_whatever_tickets_come() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (server, proxy) = before(version);
        let mut client = proxy.connect();
        for _ in 0..20 {
            client.get(HOST, "/").expect(200);
        }
        assert_eq!(server.connections(), 1, "{version:?}");
    }
}
