//! HTTP/2 and TLS towards servers.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use futures_util::future::join_all;
use h2::{Reason, RecvStream, client, server};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use rustix::process::Signal;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use crate::support::h2::request;
use crate::support::{Builder, H2, HOST, Leaf, Site, Staunch, TestCa, block_on, until};

/// What a server allows on one connection.
const STREAMS: u32 = 100;

/// A server that speaks HTTP/2 only.
struct Server {
    address: SocketAddr,
    tls: bool,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
    /// What gRPC's health protocol is told: 0 is well.
    ill: AtomicUsize,
}

impl Server {
    /// Without TLS, or with this configuration.
    fn start(tls: Option<rustls::ServerConfig>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let server = Self {
            address,
            tls: tls.is_some(),
            seen: Arc::clone(&seen),
        };
        let acceptor = tls.map(|mut config| {
            config.alpn_protocols = vec![b"h2".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let (seen, acceptor) = (Arc::clone(&seen), acceptor.clone());
                    tokio::spawn(async move {
                        seen.connections.fetch_add(1, Ordering::SeqCst);
                        match acceptor {
                            None => serve(stream, seen).await,
                            Some(acceptor) => {
                                if let Ok(stream) = acceptor.accept(stream).await {
                                    serve(stream, seen).await;
                                }
                            }
                        }
                    });
                }
            });
        });
        server
    }

    fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    fn requests(&self) -> usize {
        self.seen.requests.load(Ordering::SeqCst)
    }

    fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, seen: Arc<Seen>) {
    let handshake = server::Builder::new()
        .max_concurrent_streams(STREAMS)
        .handshake(stream);
    let Ok(mut connection) = handshake.await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let number = seen.requests.fetch_add(1, Ordering::SeqCst);
        match request.uri().path() {
            "/refused-once" if number == 0 => {
                respond.send_reset(Reason::REFUSED_STREAM);
                continue;
            }
            "/last" => connection.graceful_shutdown(),
            _ => {}
        }
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let now = seen.at_once.fetch_add(1, Ordering::SeqCst) + 1;
            seen.most_at_once.fetch_max(now, Ordering::SeqCst);
            let _ = answer(request, respond, &seen).await;
            seen.at_once.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

/// Echoes; a path that begins with `/grpc.` is answered as gRPC does, `/together` only when several
/// are asked for at once, `/crowd` when the connection is full. `/early` begins before the request's
/// body has come; `/empty` and `/nothing` have nothing but a head. Of a body to `/early` or
/// `/stalled`, nothing is read.
async fn answer(
    request: Request<RecvStream>,
    mut respond: server::SendResponse<Bytes>,
    seen: &Seen,
) -> Result<(), h2::Error> {
    let (parts, mut stream) = request.into_parts();
    let path = parts.uri.path();
    if path == "/early" {
        let mut send = respond.send_response(Response::new(()), false)?;
        send.send_data(Bytes::from_static(b"early"), false)?;
        return pending().await;
    }
    if path == "/stalled" {
        return pending().await;
    }
    if path == "/empty" || path == "/nothing" {
        let mut response = Response::new(());
        if path == "/nothing" {
            *response.status_mut() = StatusCode::NO_CONTENT;
            response.headers_mut().insert("content-length", 0.into());
        }
        return respond.send_response(response, true).map(drop);
    }
    let enough = match path {
        "/together" => 4,
        "/crowd" => STREAMS as usize,
        _ => 0,
    };
    let mut body = BytesMut::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        stream.flow_control().release_capacity(data.len())?;
        body.extend_from_slice(&data);
    }
    let trailers = stream.trailers().await?;
    while seen.most_at_once.load(Ordering::SeqCst) < enough {
        tokio::task::yield_now().await;
    }
    let mut response = Response::new(());
    let headers = response.headers_mut();
    for (name, under) in [("te", "x-te"), ("content-type", "content-type")] {
        if let Some(value) = parts.headers.get(name) {
            headers.insert(under, value.clone());
        }
    }
    if parts.uri.path() == "/grpc.health.v1.Health/Check" {
        let serves = seen.ill.load(Ordering::SeqCst) == 0;
        body = BytesMut::from(&[0, 0, 0, 0, 2, 8, if serves { 1 } else { 2 }][..]);
    }
    let head_only = parts.method == Method::HEAD;
    let mut send = respond.send_response(response, head_only)?;
    if head_only {
        return Ok(());
    }
    if body.is_empty() {
        body.extend_from_slice(parts.uri.to_string().as_bytes());
    }
    send.send_data(body.freeze(), false)?;
    let mut out = HeaderMap::new();
    out.insert("grpc-status", HeaderValue::from_static("0"));
    out.extend(trailers.unwrap_or_default());
    match parts.uri.path().starts_with("/grpc.") {
        true => send.send_trailers(out),
        false => send.send_data(Bytes::new(), true),
    }
}

/// One site before a server that is known to speak HTTP/2, on one worker.
fn before(server: &Server) -> Builder {
    Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .upstream("h2", &[&server.url()])
        .set("upstream.h2.protocol", "\"http2\"")
        .set("workers.threads", 1)
        .sites(Site::new(&[HOST], "h2"))
}

#[test]
fn a_server_that_is_known_to_speak_http2_is_spoken_to_on_one_connection() {
    let server = Server::start(None);
    let proxy = before(&server).start();
    let mut client = proxy.connect();
    for _ in 0..5 {
        let echo = client.get(HOST, "/path?query").expect(200);
        assert_eq!(echo.text(), format!("http://{HOST}/path?query"));
    }
    assert_eq!(client.post(HOST, "/", b"hello").expect(200).text(), "hello");
    let large = vec![b'a'; 3 << 20];
    assert_eq!(client.post(HOST, "/", &large).expect(200).body, large);
    client.ask("HEAD", HOST, "/", "").unwrap();
    client.read("HEAD").expect(200);
    client.get(HOST, "/").expect(200);
    assert_eq!(server.connections(), 1);
}

#[test]
fn many_requests_are_on_their_way_at_once() {
    let server = Server::start(None);
    let proxy = before(&server).start();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| proxy.get("/together").expect(200));
        }
    });
    assert_eq!(server.connections(), 1);
}

#[test]
fn grpc_goes_through_from_end_to_end() {
    let server = Server::start(None);
    let proxy = before(&server).start();
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let mut asked = request(Method::POST, HOST, "/grpc.Echo/Say");
        asked
            .headers_mut()
            .insert("content-type", HeaderValue::from_static("application/grpc"));
        asked
            .headers_mut()
            .insert("te", HeaderValue::from_static("trailers"));
        let mut trailers = HeaderMap::new();
        trailers.insert("x-checksum", HeaderValue::from_static("42"));
        let body = Bytes::from_static(b"\0\0\0\0\x03abc");
        let answer = client
            .request(asked, body.clone(), Some(trailers))
            .await
            .unwrap();
        assert_eq!(answer.status, 200);
        assert_eq!(answer.body, body);
        assert_eq!(answer.headers["content-type"], "application/grpc");
        assert_eq!(
            answer.headers["x-te"], "trailers",
            "gRPC servers insist on it"
        );
        let trailers = answer.trailers.unwrap();
        assert_eq!(trailers["grpc-status"], "0");
        assert_eq!(trailers["x-checksum"], "42");
    });
}

#[test]
fn what_a_server_says_it_has_not_touched_is_sent_to_another() {
    let (one, two) = (Server::start(None), Server::start(None));
    let proxy = before(&one)
        .upstream("h2", &[&one.url(), &two.url()])
        .start();
    for _ in 0..2 {
        let mut client = proxy.connect();
        let echo = client.post(HOST, "/refused-once", b"only once").expect(200);
        assert_eq!(echo.text(), "only once");
    }
    assert_eq!(one.requests() + two.requests(), 4, "each refused one");
}

#[test]
fn a_server_that_says_goodbye_is_spoken_to_anew() {
    let server = Server::start(None);
    let proxy = before(&server).start();
    let mut client = proxy.connect();
    for _ in 0..5 {
        client.get(HOST, "/last").expect(200);
        client.post(HOST, "/", b"more").expect(200);
    }
    assert!(server.connections() > 1);
}

#[test]
fn a_client_that_goes_away_ends_its_stream_and_nobody_elses() {
    let server = Server::start(None);
    let proxy = before(&server).start();
    let mut other = proxy.connect();
    let mut gone = proxy.connect();
    gone.ask("GET", HOST, "/together", "").unwrap();
    until("it is on its way", || server.requests() == 1);
    drop(gone);
    other.get(HOST, "/").expect(200);
    until("it is let go", || {
        let labels = [("upstream", "h2"), ("server", &*server.url())];
        proxy.count("staunch_upstream_requests_in_flight", &labels) == 0.0
    });
    other.get(HOST, "/").expect(200);
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_grpc_server_is_asked_how_it_is() {
    let (one, two) = (Server::start(None), Server::start(None));
    let proxy = before(&one)
        .upstream("h2", &[&one.url(), &two.url()])
        .set("upstream.h2.health.grpc", "\"test.Service\"")
        .set("upstream.h2.health.interval", "\"20ms\"")
        .start();
    let is_up = |server: &Server| {
        let labels = [("upstream", "h2"), ("server", &*server.url())];
        proxy.count("staunch_upstream_up", &labels) == 1.0
    };
    until("it was asked", || one.requests() > 3);
    assert!(is_up(&one) && is_up(&two));
    one.seen.ill.store(1, Ordering::SeqCst);
    until("it is left alone", || !is_up(&one));
    assert!(is_up(&two));
    one.seen.ill.store(0, Ordering::SeqCst);
    until("it is used again", || is_up(&one));
}

#[test]
fn a_check_speaks_what_the_server_speaks() {
    let server = Server::start(None);
    let proxy = before(&server)
        .set("upstream.h2.health.path", "\"/well\"")
        .set("upstream.h2.health.body", "\"/well\"")
        .set("upstream.h2.health.fall", 1)
        .set("upstream.h2.health.interval", "\"20ms\"")
        .start();
    until("it was asked", || server.requests() > 3);
    let labels = [("upstream", "h2"), ("server", &*server.url())];
    assert_eq!(proxy.count("staunch_upstream_up", &labels), 1.0);
}

fn tls(leaf: &Leaf) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(leaf.chain.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    (chain.map(Result::unwrap).collect(), key)
}

#[test]
fn tls_agrees_on_http2_under_another_name_and_by_another_authority() {
    let ca = TestCa::new();
    let (chain, key) = tls(&ca.issue("api.internal"));
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let server = Server::start(Some(config));
    let mut builder = before(&server).set("upstream.h2.protocol", "\"auto\"");
    let authority = builder.path("upstream-ca.pem");
    std::fs::write(&authority, &ca.root().pem).unwrap();
    builder.change("upstream.h2.tls.ca", format!("{authority:?}"));
    let wrong = builder.clone().start();
    wrong.get("/").expect(502);
    drop(wrong);
    let proxy = builder
        .set("upstream.h2.tls.name", "\"api.internal\"")
        .set("upstream.h2.tls.minimum", "\"1.3\"")
        .start();
    assert_eq!(
        proxy.get("/").expect(200).text(),
        format!("https://{HOST}/")
    );
    assert_eq!(
        proxy.get("/").expect(200).body.len(),
        proxy.get("/").body.len()
    );
}

#[test]
fn a_grpc_server_that_nobody_verifies_is_asked_how_it_is() {
    let strange = TestCa::new().leaf(&["strange.test"]).days(-89, -1).issue();
    let (chain, key) = tls(&strange);
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let server = Server::start(Some(config));
    let builder = before(&server)
        .set("upstream.h2.health.grpc", "\"test.Service\"")
        .set("upstream.h2.health.interval", "\"20ms\"");
    let is_up = |proxy: &Staunch| {
        let labels = [("upstream", "h2"), ("server", &*server.url())];
        proxy.count("staunch_upstream_up", &labels) == 1.0
    };
    let mut proxy = builder.start();
    until("the check refuses it", || !is_up(&proxy));
    assert_eq!(server.requests(), 0);
    proxy.reconfigure(|config| config.change("upstream.h2.tls.verify", false));
    proxy.reload().expect(200);
    until("it was asked", || server.requests() > 3 && is_up(&proxy));
    server.seen.ill.store(1, Ordering::SeqCst);
    until("it is left alone", || !is_up(&proxy));
}

/// A certificate for a client that vouches for itself.
fn client_certificate() -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["staunch.test".to_owned()]).unwrap();
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem())
}

#[test]
fn a_certificate_is_shown_to_a_server_that_asks_for_one() {
    let ca = TestCa::new();
    let (client, key) = client_certificate();
    let mut roots = RootCertStore::empty();
    let der = CertificateDer::from_pem_slice(client.as_bytes()).unwrap();
    roots.add(der).unwrap();
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
        .build()
        .unwrap();
    let placed = tls(&ca.issue("127.0.0.1"));
    let config = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(placed.0, placed.1)
        .unwrap();
    let server = Server::start(Some(config));
    let builder = before(&server).trusting(&ca);
    let (chain_file, key_file) = (builder.path("client.pem"), builder.path("client.key"));
    let mut proxy = builder
        .set("upstream.h2.tls.chain", format!("{chain_file:?}"))
        .set("upstream.h2.tls.key", format!("{key_file:?}"))
        .start();
    // Its files are not there: that is this upstream's trouble, and it starts.
    proxy.get("/").expect(502);
    proxy.wait_log("client.pem");
    std::fs::write(&chain_file, &client).unwrap();
    std::fs::write(&key_file, &key).unwrap();
    until("they are taken up", || proxy.get("/").status == 200);
    // A file that cannot be used leaves the one before in use.
    std::fs::write(&chain_file, "garbage").unwrap();
    proxy.reconfigure(|builder| builder.change("upstream.h2.retries", 1));
    proxy.reload().expect(200);
    proxy.get("/").expect(200);
}

#[test]
fn a_connection_on_which_nobody_answers_holds_no_request_for_long() {
    let nginx = |name: &str| {
        let body = format!("return 200 {name:?};");
        crate::support::Server::nginx(|port, _| {
            format!("server {{ listen {} http2; {body} }}", port.address())
        })
    };
    let (one, two) = (nginx("one"), nginx("two"));
    let proxy = Staunch::build()
        .leaf(&TestCa::new().issue(HOST))
        .upstream("pool", &[&one.http(), &two.http()])
        .set("upstream.pool.protocol", "\"http2\"")
        .set("upstream.pool.eject_after", 0)
        .set("timeouts.upstream_ping", "\"1s\"")
        .set("workers.threads", 1)
        .sites(Site::new(&[HOST], "pool"))
        .start();
    let mut client = proxy.connect();
    for _ in 0..4 {
        client.get(HOST, "/").expect(200);
    }
    one.signal(Signal::STOP);
    let begin = Instant::now();
    for _ in 0..4 {
        let answer = client.get(HOST, "/").expect(200).text();
        assert_eq!(answer, "two");
    }
    // Well before `timeouts.upstream_response`.
    assert!(
        begin.elapsed() < Duration::from_secs(30),
        "{:?}",
        begin.elapsed()
    );
    let given_up = [("timeout", "upstream_ping")];
    assert!(proxy.count("staunch_timeouts_total", &given_up) >= 1.0);
    one.signal(Signal::CONT);
    until("it is used again", || {
        client.get(HOST, "/").expect(200).text() == "one"
    });
}

#[test]
fn an_empty_response_has_an_end_in_both_versions() {
    let server = Server::start(None);
    let proxy = before(&server).start();
    let mut client = proxy.connect();
    let empty = client.get(HOST, "/empty").expect(200);
    assert_eq!(empty.field("content-length"), Some("0"));
    // How long the answer to a GET would be is not known.
    client.ask("HEAD", HOST, "/empty", "").unwrap();
    let head = client.read("HEAD").expect(200);
    assert_eq!(head.field("content-length"), None);
    let nothing = client.get(HOST, "/nothing").expect(204);
    assert_eq!(nothing.field("content-length"), None);
    client.get(HOST, "/").expect(200);
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        for path in ["/empty", "/nothing"] {
            let mut ready = client.send.clone().ready().await.unwrap();
            let asked = request(Method::GET, HOST, path);
            let response = ready.send_request(asked, true).unwrap().0.await.unwrap();
            assert!(!response.headers().contains_key("content-length"));
            // gRPC's trailers alone are nothing else.
            assert!(response.body().is_end_stream(), "{path}");
        }
    });
}

#[test]
fn what_http2_has_no_words_for_costs_no_connection() {
    let server = Server::start(None);
    let proxy = before(&server).start();
    let mut client = proxy.connect();
    client.get(HOST, "/").expect(200);
    for (asked, told) in [
        ("/<", "/%3C"),
        ("/?q=<x>", "/?q=%3Cx%3E"),
        ("/`?`", "/%60?%60"),
        ("/a%20b?\"c%22", "/a%20b?%22c%22"),
    ] {
        let echo = client.get(HOST, asked).expect(200).text();
        assert_eq!(echo, format!("http://{HOST}{told}"));
    }
    // It becomes longer than any target may be there.
    let endless = format!("/{}", "<".repeat(30_000));
    for _ in 0..5 {
        proxy.connect().get(HOST, &endless).expect(400);
    }
    let mut old = proxy.connect();
    old.send("GET /old HTTP/1.0\r\n\r\n").unwrap();
    let echo = old.read("GET").expect(200).text();
    assert_eq!(echo, format!("{}/old", server.url()));
    client.get(HOST, "/").expect(200);
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_thousand_at_once_find_room() {
    let ca = TestCa::new();
    let (chain, key) = tls(&ca.issue("127.0.0.1"));
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let server = Server::start(Some(config));
    let proxy = before(&server)
        .trusting(&ca)
        .set("limits.streams", 1000)
        .start();
    block_on(async {
        let mut settings = client::Builder::new();
        settings.initial_max_send_streams(1000);
        let client = H2::with(&proxy.tls(HOST), &settings).await.unwrap();
        let all = join_all((0..1000).map(|_| client.get(HOST, "/crowd"))).await;
        let answered = all
            .into_iter()
            .filter(|answer| (answer.as_ref()).is_ok_and(|answer| answer.status == StatusCode::OK));
        assert_eq!(answered.count(), 1000);
    });
    assert_eq!(server.requests(), 1000, "none was refused");
}

/// More than a client may reset that somebody is still at work on.
const RESETS: usize = 50;

#[test]
fn a_client_may_think_better_of_uploads_that_nobody_reads() {
    let server = Server::start(None);
    let proxy = before(&server).start();
    let labels = [("upstream", "h2"), ("server", &*server.url())];
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        for number in 1..=RESETS {
            let path = if number % 2 == 0 {
                "/stalled"
            } else {
                "/early"
            };
            let mut ready = client.send.clone().ready().await.unwrap();
            let asked = request(Method::POST, HOST, path);
            let (response, mut send) = ready.send_request(asked, false).unwrap();
            // The first fills the window of the connection to the server.
            let length = if number == 1 { 100_000 } else { 1000 };
            send.send_data(vec![b'a'; length].into(), false).unwrap();
            if path == "/early" {
                response.await.unwrap();
            } else {
                while server.requests() < number {
                    tokio::task::yield_now().await;
                }
            }
            send.send_reset(Reason::CANCEL);
        }
        while proxy.count("staunch_upstream_requests_in_flight", &labels) > 0.0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(client.get(HOST, "/").await.unwrap().status, 200);
    });
    assert_eq!(server.connections(), 1);
}

#[test]
fn a_client_that_thinks_better_of_it_leaves_the_queue() {
    let server = Server::start(None);
    let proxy = before(&server)
        .set("upstream.h2.connections", 1)
        .set("upstream.h2.queue", 10)
        .set("upstream.h2.queue_timeout", "\"5m\"")
        .set("timeouts.upstream_response", "\"5m\"")
        .start();
    let mut first = proxy.connect();
    first.ask("GET", HOST, "/together", "").unwrap();
    until("it is on its way", || server.requests() == 1);
    let labels = [("upstream", "h2"), ("server", &*server.url())];
    let queued = || proxy.count("staunch_upstream_queued", &labels);
    block_on(async {
        let client = H2::connect(&proxy.tls(HOST)).await.unwrap();
        let mut ready = client.send.clone().ready().await.unwrap();
        let asked = request(Method::POST, HOST, "/");
        let (_response, mut send) = ready.send_request(asked, false).unwrap();
        while queued() < 1.0 {
            tokio::task::yield_now().await;
        }
        send.send_reset(Reason::CANCEL);
        while queued() > 0.0 {
            tokio::task::yield_now().await;
        }
    });
}
