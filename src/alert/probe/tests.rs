//! The probe against a listener that serves one certificate for HTTP/2 and another for HTTP/1.1.

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::alert::testing::until;

fn certificate() -> Arc<CertifiedKey> {
    let made = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let chain = vec![made.cert.der().clone()];
    Arc::new(CertifiedKey::from_der(chain, key.into(), &provider).unwrap())
}

/// Serves the first over HTTP/2, the second over HTTP/1.1.
#[derive(Debug)]
struct TwoFaced(Arc<CertifiedKey>, Arc<CertifiedKey>);

impl ResolvesServerCert for TwoFaced {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let h2 = hello
            .alpn()
            .is_some_and(|mut it| it.any(|protocol| protocol == b"h2"));
        Some(Arc::clone(if h2 { &self.0 } else { &self.1 }))
    }
}

async fn listen(resolver: TwoFaced, alpn: &[&[u8]], proxy_header: bool) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(resolver));
    serve(config, alpn, proxy_header).await
}

/// The same where clients must show a certificate, and TLS is of this version.
async fn listen_to_clients_it_knows(
    resolver: TwoFaced,
    version: &'static rustls::SupportedProtocolVersion,
) -> SocketAddr {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(resolver.0.cert[0].clone()).unwrap();
    let known = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[version])
        .unwrap()
        .with_client_cert_verifier(known.build().unwrap())
        .with_cert_resolver(Arc::new(resolver));
    serve(config, &[b"h2", b"http/1.1"], false).await
}

async fn serve(mut config: ServerConfig, alpn: &[&[u8]], proxy_header: bool) -> SocketAddr {
    config.alpn_protocols = alpn.iter().map(|it| it.to_vec()).collect();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            if proxy_header {
                let mut header = [0; 15];
                tcp.read_exact(&mut header).await.unwrap();
                assert_eq!(&header, b"PROXY UNKNOWN\r\n");
            }
            if let Ok(mut tls) = acceptor.accept(tcp).await {
                let _ = tls.read(&mut [0]).await;
            }
        }
    });
    address
}

fn target(address: SocketAddr, protocol: Protocol, expected: &CertifiedKey) -> Target {
    let expected = vec![fingerprint(&expected.cert[0])];
    Target {
        address,
        name: "a.example".into(),
        protocol,
        proxy_header: false,
        expected: Arc::new(move || expected.clone()),
    }
}

#[tokio::test]
async fn one_protocol_with_the_old_certificate_is_found() {
    let (new, old) = (certificate(), certificate());
    let resolver = TwoFaced(Arc::clone(&new), Arc::clone(&old));
    let address = listen(resolver, &[b"h2", b"http/1.1"], false).await;
    probe(&target(address, Protocol::H2, &new)).await.unwrap();
    let error = probe(&target(address, Protocol::Http11, &new))
        .await
        .unwrap_err();
    let words = error.to_string();
    assert!(
        words.contains(&fingerprint(&old.cert[0]).to_string()),
        "{words}"
    );
    assert!(
        words.contains(&fingerprint(&new.cert[0]).to_string()),
        "{words}"
    );
}

#[tokio::test]
async fn a_listener_that_wants_a_proxy_header_gets_one() {
    let it = certificate();
    let address = listen(TwoFaced(Arc::clone(&it), Arc::clone(&it)), &[b"h2"], true).await;
    let mut target = target(address, Protocol::H2, &it);
    target.proxy_header = true;
    probe(&target).await.unwrap();
}

#[tokio::test]
async fn no_listener_no_protocol_and_no_name_are_failures_in_words() {
    let it = certificate();
    let address = listen(TwoFaced(Arc::clone(&it), Arc::clone(&it)), &[], false).await;
    let none = probe(&target(address, Protocol::H2, &it))
        .await
        .unwrap_err();
    assert!(none.to_string().contains("agreed to no protocol"), "{none}");
    let nobody = target("127.0.0.1:1".parse().unwrap(), Protocol::H2, &it);
    assert!(matches!(probe(&nobody).await, Err(ProbeError::Connect(_))));
    let mut nameless = target(address, Protocol::H2, &it);
    nameless.name = "not a name".into();
    assert!(matches!(probe(&nameless).await, Err(ProbeError::Name(_))));
    let mut nothing = nameless;
    nothing.expected = Arc::new(Vec::new);
    probe(&nothing).await.unwrap();
}

#[tokio::test]
async fn what_a_probe_finds_is_pinned_until_it_is_mended_or_gone() {
    let (right, wrong) = (certificate(), certificate());
    let address = listen(
        TwoFaced(Arc::clone(&wrong), right),
        &[b"h2", b"http/1.1"],
        false,
    )
    .await;
    let board = Board::new();
    let targets = vec![target(address, Protocol::H2, &certificate())];
    let subject = targets[0].subject();
    let (change, targets) = {
        let (change, receiver) = tokio::sync::watch::channel(targets);
        (change, move || receiver.borrow().clone())
    };
    let every = Duration::from_millis(10);
    let rhythm = Rhythm {
        every,
        again: every,
    };
    let probing = tokio::spawn(run(targets, board.clone(), rhythm));
    until(|| board.holds(Code::ProbeFailed, &subject)).await;
    let found = board.conditions().remove(0);
    assert!(
        found
            .next_step
            .contains(&format!("-connect {address} -servername a.example"))
    );
    assert_eq!(found.labels["protocol"], "HTTP/2");
    change.send_replace(vec![target(address, Protocol::H2, &wrong)]);
    until(|| board.conditions().is_empty()).await;
    change.send_replace(vec![target(address, Protocol::Http11, &wrong)]);
    until(|| !board.conditions().is_empty()).await;
    change.send_replace(Vec::new());
    until(|| board.conditions().is_empty()).await;
    probing.abort();
}

#[test]
fn an_unspecified_address_is_reached_over_loopback() {
    let reached = |text: &str| reachable(text.parse().unwrap()).to_string();
    assert_eq!(reached("0.0.0.0:443"), "127.0.0.1:443");
    assert_eq!(reached("[::]:443"), "[::1]:443");
    assert_eq!(reached("192.0.2.1:443"), "192.0.2.1:443");
}

#[tokio::test]
async fn a_listener_that_wants_client_certificates_is_probed_without_one() {
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (new, old) = (certificate(), certificate());
        let resolver = TwoFaced(Arc::clone(&new), Arc::clone(&old));
        let address = listen_to_clients_it_knows(resolver, version).await;
        probe(&target(address, Protocol::H2, &new)).await.unwrap();
        let error = probe(&target(address, Protocol::Http11, &new)).await;
        assert!(
            matches!(error, Err(ProbeError::Different { .. })),
            "{version:?}: {error:?}"
        );
    }
}
