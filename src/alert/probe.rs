//! The probe: connects to the server's own listeners as a client would, and compares the
//! certificate on the wire with what should be served.
//!
//! What looks fine from inside has been an outage before: a proxy that had the new certificate for
//! one protocol and the expired one for another, a listener that an old process still held. So each
//! listener, name and protocol is asked on its own, through the address that clients use.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_rustls::TlsConnector;

use super::board::Board;
use super::condition::{Code, Condition};
use super::{next_step, words};
use crate::cert::Fingerprint;
use crate::config::Severity;

/// For one connection and handshake; a healthy one takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Attempts before it is told.
const ATTEMPTS: usize = 3;
/// Targets probed at the same time, so that ten thousand names are no load.
const AT_ONCE: usize = 4;
/// Targets probed in one round; where there are more, they take turns.
const ROUND: usize = 200;

/// How often is probed.
#[derive(Clone, Copy, Debug)]
pub struct Rhythm {
    /// From the beginning of one round to the beginning of the next.
    pub every: Duration,
    /// Between two attempts at one target: a certificate may be swapped between asking what should
    /// be served and being served it, and a listener may be handed over.
    pub again: Duration,
}

impl Default for Rhythm {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(60),
            again: Duration::from_secs(1),
        }
    }
}

/// What is spoken after the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/2.
    H2,
    /// HTTP/1.1.
    Http11,
}

impl Protocol {
    /// Both.
    pub const ALL: [Self; 2] = [Self::H2, Self::Http11];

    /// As ALPN spells it (RFC 7301).
    const fn alpn(self) -> &'static [u8] {
        match self {
            Self::H2 => b"h2",
            Self::Http11 => b"http/1.1",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H2 => "HTTP/2",
            Self::Http11 => "HTTP/1.1",
        })
    }
}

/// The certificates any of which is right to serve for a name now.
pub type Expected = Arc<dyn Fn() -> Vec<Fingerprint> + Send + Sync>;

/// A listener, a name and a protocol.
#[derive(Clone)]
pub struct Target {
    /// Where clients connect; an unspecified address stands for this machine's loopback.
    pub address: SocketAddr,
    /// What they ask for.
    pub name: Arc<str>,
    /// What they speak.
    pub protocol: Protocol,
    /// Whether the listener wants a PROXY header from this machine.
    pub proxy_header: bool,
    /// What they should get. Empty: nothing is held for the name, which is told elsewhere.
    pub expected: Expected,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.subject())
    }
}

impl Target {
    /// What the condition is about.
    fn subject(&self) -> String {
        format!("{} on {} over {}", self.name, self.address, self.protocol)
    }
}

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No connection.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// No handshake.
    #[error("no handshake: {0}")]
    Handshake(io::Error),
    /// Too slow.
    #[error("no handshake within {0:?}")]
    Timeout(Duration),
    /// Not a name that can be asked for.
    #[error("{0} is no name that a client can ask for")]
    Name(Arc<str>),
    /// Another protocol, or none.
    #[error("the listener agreed to {0}")]
    Protocol(String),
    /// The listener sent no certificate.
    #[error("the listener sent no certificate")]
    Nothing,
    /// Another certificate.
    #[error("the listener serves the certificate {got}, and should serve {}", list(.expected))]
    Different {
        /// On the wire.
        got: Fingerprint,
        /// What is believed to be served.
        expected: Vec<Fingerprint>,
    },
    /// TLS could not be set up.
    #[error("TLS could not be set up: {0}")]
    Setup(#[from] rustls::Error),
}

fn list(fingerprints: &[Fingerprint]) -> String {
    let words: Vec<String> = fingerprints.iter().map(ToString::to_string).collect();
    words::list(&words, 2)
}

/// Probes every target in this rhythm, for ever, and pins what it finds to the board. A target
/// that is no longer there is forgotten.
pub async fn run(targets: impl Fn() -> Vec<Target>, board: Board, rhythm: Rhythm) {
    let mut ticks = interval(rhythm.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = 0;
    loop {
        ticks.tick().await;
        let targets = targets();
        let known: HashSet<String> = targets.iter().map(Target::subject).collect();
        board.clear_where(Code::ProbeFailed, |subject| !known.contains(subject));
        let count = targets.len();
        let round = targets
            .into_iter()
            .cycle()
            .skip(turn % count.max(1))
            .take(count.min(ROUND));
        turn = (turn + ROUND) % count.max(1);
        let mut under_way = tokio::task::JoinSet::new();
        for target in round {
            if under_way.len() >= AT_ONCE {
                under_way.join_next().await;
            }
            under_way.spawn(look(target, board.clone(), rhythm.again));
        }
        while under_way.join_next().await.is_some() {}
    }
}

/// Probes one target, more than once if need be, and pins the outcome.
async fn look(target: Target, board: Board, again: Duration) {
    let mut result = probe(&target).await;
    for _ in 1..ATTEMPTS {
        if result.is_ok() {
            break;
        }
        sleep(again).await;
        result = probe(&target).await;
    }
    match result {
        Ok(()) => board.clear(Code::ProbeFailed, &target.subject()),
        Err(error) => board.raise(condition(&target, &error)),
    }
}

fn condition(target: &Target, error: &ProbeError) -> Condition {
    let summary = format!(
        "A client that asks {} for {} over {} does not get what it should: {error}.",
        target.address, target.name, target.protocol
    );
    let different = matches!(error, ProbeError::Different { .. });
    let step = format!(
        "See for yourself: `{}`, and `openssl s_client -connect {} -servername {}`. {}",
        next_step::probe(&target.name),
        reachable(target.address),
        words::shell(&target.name),
        if different {
            "If another process listens there, `ss -ltnp` shows it. Reload staunch, and restart it \
             if that does not help."
        } else {
            "Is something between, a firewall or a full table of connections?"
        }
    );
    Condition::new(
        Code::ProbeFailed,
        target.subject(),
        Severity::Critical,
        summary,
        step,
    )
    .label("name", &*target.name)
    .label("listener", target.address.to_string())
    .label("protocol", target.protocol.to_string())
}

/// One handshake, and the certificate it brought compared with what should be served.
pub async fn probe(target: &Target) -> Result<(), ProbeError> {
    if (target.expected)().is_empty() {
        return Ok(());
    }
    let shaken = timeout(PATIENCE, handshake(target)).await;
    let leaf = shaken.unwrap_or(Err(ProbeError::Timeout(PATIENCE)))?;
    let got = fingerprint(&leaf);
    // Asked again: it may have been swapped meanwhile.
    let expected = (target.expected)();
    if expected.is_empty() || expected.contains(&got) {
        return Ok(());
    }
    Err(ProbeError::Different { got, expected })
}

async fn handshake(target: &Target) -> Result<CertificateDer<'static>, ProbeError> {
    let name = ServerName::try_from(target.name.to_string())
        .map_err(|_| ProbeError::Name(target.name.clone()))?;
    let address = reachable(target.address);
    let mut tcp = TcpStream::connect(address)
        .await
        .map_err(ProbeError::Connect)?;
    if target.proxy_header {
        tcp.write_all(b"PROXY UNKNOWN\r\n")
            .await
            .map_err(ProbeError::Connect)?;
    }
    let witness = Arc::new(Witness::default());
    let connector = TlsConnector::from(Arc::new(client(target.protocol, &witness)?));
    let mut tls = match connector.connect(name, tcp).await {
        Ok(tls) => tls,
        // Before TLS 1.3 who has no certificate is turned away within the handshake, after the
        // server has shown its own and signed with its key: all that was asked for.
        Err(error) => return witness.seen().ok_or(ProbeError::Handshake(error)),
    };
    let (_, session) = tls.get_ref();
    let agreed = session.alpn_protocol().map(<[u8]>::to_vec);
    let leaf = session.peer_certificates().and_then(<[_]>::first).cloned();
    // Whether it hears the good-bye says nothing of the certificate.
    let _ = tls.shutdown().await;
    match agreed {
        Some(agreed) if agreed == target.protocol.alpn() => leaf.ok_or(ProbeError::Nothing),
        Some(other) => Err(ProbeError::Protocol(words::clean(
            &String::from_utf8_lossy(&other),
        ))),
        None => Err(ProbeError::Protocol("no protocol".to_owned())),
    }
}

/// SHA-256 of a certificate's DER.
pub(super) fn fingerprint(der: &[u8]) -> Fingerprint {
    // The hash of this cipher suite, which every provider has.
    let suite = rustls::crypto::aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let hash = match suite {
        rustls::SupportedCipherSuite::Tls13(suite) => suite.common.hash_provider,
        rustls::SupportedCipherSuite::Tls12(suite) => suite.common.hash_provider,
    };
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.hash(der).as_ref());
    Fingerprint(bytes)
}

/// Where a client on this machine connects to reach this address: an unspecified one stands for
/// loopback.
pub const fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// A client that speaks one protocol, resumes nothing, and takes any certificate: which one it is
/// is the question, whether it is good is asked elsewhere.
fn client(protocol: Protocol, witness: &Arc<Witness>) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = AnyCertificate {
        provider: Arc::clone(&provider),
        witness: Arc::clone(witness),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(NoCertificate(Arc::clone(witness))));
    config.alpn_protocols = vec![protocol.alpn().to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

/// What was seen in a handshake, however it ended.
#[derive(Debug, Default)]
struct Witness {
    leaf: Mutex<Option<CertificateDer<'static>>>,
    /// Signed for with the leaf's key, as in TLS 1.2.
    signed: AtomicBool,
    /// The server asked for a certificate.
    asked: AtomicBool,
}

impl Witness {
    /// The server's certificate, where it was proved and all that failed can be our having none.
    fn seen(&self) -> Option<CertificateDer<'static>> {
        let proved = self.signed.load(Ordering::Relaxed) && self.asked.load(Ordering::Relaxed);
        let leaf = self.leaf.lock().unwrap_or_else(PoisonError::into_inner);
        leaf.clone().filter(|_| proved)
    }
}

/// Has no certificate for a server that asks for one.
#[derive(Debug)]
struct NoCertificate(Arc<Witness>);

impl ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.asked.store(true, Ordering::Relaxed);
        None
    }

    fn has_certs(&self) -> bool {
        // Or it would not be asked.
        true
    }
}

/// Takes any certificate, of which the listener holds the key.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
    witness: Arc<Witness>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let mut seen = self
            .witness
            .leaf
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *seen = Some(leaf.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        let valid = rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)?;
        self.witness.signed.store(true, Ordering::Relaxed);
        Ok(valid)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[cfg(test)]
mod tests;
