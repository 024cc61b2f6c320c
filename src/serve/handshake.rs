//! The TLS handshake with a client, and why it failed, in words.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::server::Acceptor;
use rustls::{
    AlertDescription, CertificateError, Error, HandshakeKind, PeerIncompatible, ProtocolVersion,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, LazyConfigAcceptor, StartHandshake};
use tracing::{debug, info};

use super::pace::{self, Turn};
use crate::cert::select::{Chosen, Resolver, take_chosen};
use crate::metrics::{ClientAlert, Handshake, HandshakeFailure, TlsVersion};
use crate::proxy::{Local, Peer};
use crate::telemetry::Throttle;
use crate::tls::{Current, Ja4, Policies, Session};
use crate::upstream::pool::ClientId;
use crate::wire::{Cork, Socket, cork};

/// TLS with a client.
pub type Tls = TlsStream<Cork<Socket>>;

/// A handshake that is done.
pub struct Done {
    /// The stream of plain bytes. It is large and handed on a few times, hence the box.
    pub stream: Box<Tls>,
    /// What the client was answered with.
    pub chosen: Option<Chosen>,
    /// What it was accepted under.
    pub policy: Arc<Current>,
    /// What the client's greeting looks like, where that is asked for.
    pub ja4: Option<Ja4>,
}

/// The two ends of a client's connection.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// Tells its connection from all others of this worker.
    pub id: ClientId,
    /// Who is at the other end.
    pub client: SocketAddr,
    /// Where it connected to, where a server is to be told.
    pub destination: Option<SocketAddr>,
    /// The port of the listener.
    pub port: u16,
}

impl Ends {
    /// What is known of a client that speaks no TLS here.
    pub fn plain(self, scheme: &'static str) -> Peer {
        Peer {
            id: self.id,
            client: self.client,
            destination: self.destination,
            local_port: self.port,
            scheme,
            sni: None,
            alpn: None,
            tls_version: None,
            session: None,
            ja4: None,
            policy: None,
            identity: None,
        }
    }

    /// The same, of one whose TLS is passed through.
    pub fn passed(self, name: Option<Box<str>>) -> Peer {
        Peer {
            sni: name,
            ..self.plain("tls")
        }
    }
}

/// A handshake that failed. `rustls` has sent the alert.
pub struct Failed {
    /// Why.
    pub error: io::Error,
    /// The name that the client asked for, where that is known.
    pub name: Option<Box<str>>,
}

/// The longest greeting that is kept for its [`Ja4`]: the library takes none of more than 64 KiB, and
/// a record has a head of five bytes.
const LONGEST: usize = 128 * 1024;

/// Carries it out, under the one deadline of whoever waits for this. The client's greeting is read
/// first: the name in it decides by which policy, and with which key, it is answered.
pub async fn accept(
    policies: &Policies,
    certificates: &Resolver,
    stream: TcpStream,
) -> Result<Done, Failed> {
    let nameless = |error| Failed { error, name: None };
    // Before it has said something, there is nothing to read, nor to keep room for.
    stream.readable().await.map_err(nameless)?;
    let stream = Cork::new(Socket::new(stream));
    let (start, ja4) = match policies.ja4 {
        true => greeting(stream).await.map_err(nameless)?,
        false => {
            let start = LazyConfigAcceptor::new(Acceptor::default(), stream);
            (start.await.map_err(nameless)?, None)
        }
    };
    let hello = start.client_hello();
    let name: Option<Box<str>> = hello.server_name().map(Into::into);
    let policy = policies.choose(name.as_deref()).current();
    let slow = certificates.signs_slowly(&hello);
    // The step that costs: the key exchange and the signature.
    let config = Arc::clone(&policy.config);
    let answer = move || (start.into_stream(config), take_chosen());
    let (turn, (mut accepting, mut chosen)) = match slow {
        true => (None, pace::aside(answer).await.map_err(nameless)?),
        false => (Some(Turn::wait().await), answer()),
    };
    let mut step = |accepting: &mut Accept<_>, cx: &mut Context<'_>| {
        let polled = Pin::new(accepting).poll(cx);
        // Asked to choose again, after a HelloRetryRequest.
        if let Some(now) = take_chosen() {
            chosen = Some(now);
        }
        polled
    };
    // What was answered goes out before others have their turn.
    let first = poll_fn(|cx| Poll::Ready(step(&mut accepting, cx))).await;
    if let Some(turn) = turn {
        turn.pass().await;
    }
    // Tickets go with what is said next, where the client has asked for that already.
    if let Some(cork) = accepting.get_mut() {
        cork.keep();
    }
    let mut stream = match first {
        Poll::Ready(result) => result,
        Poll::Pending => poll_fn(|cx| step(&mut accepting, cx)).await,
    };
    if let Ok(stream) = &mut stream {
        stream.get_mut().0.stop();
    }
    let done = finish(stream, policy, name, chosen)?;
    Ok(Done { ja4, ..done })
}

/// Counts how the client received the certificate.
fn finish(
    stream: io::Result<Tls>,
    policy: Arc<Current>,
    name: Option<Box<str>>,
    chosen: Option<Chosen>,
) -> Result<Done, Failed> {
    let tally = chosen.as_ref().map(|it| it.certificate.tally());
    match stream {
        Ok(stream) => {
            let resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
            if let Some(tally) = tally.filter(|_| !resumed) {
                tally.done();
            }
            Ok(Done {
                stream: Box::new(stream),
                chosen,
                policy,
                ja4: None,
            })
        }
        Err(error) => {
            let refused = classify(&error) == HandshakeFailure::CertificateRefused;
            if let Some(tally) = tally.filter(|_| refused) {
                tally.refused();
            }
            let name = name.or_else(|| chosen.and_then(|it| it.name));
            Err(Failed { error, name })
        }
    }
}

/// Reads the greeting, and keeps its bytes for as long as it takes to know them again.
async fn greeting(
    mut stream: Cork<Socket>,
) -> io::Result<(StartHandshake<Cork<Socket>>, Option<Ja4>)> {
    let mut acceptor = Acceptor::default();
    let mut seen = Vec::with_capacity(2048);
    loop {
        let before = seen.len();
        if before >= LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if stream.read_buf(&mut seen).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut fresh = &seen[before..];
        while !fresh.is_empty() {
            acceptor.read_tls(&mut fresh)?;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let ja4 = Ja4::of(&seen);
                return Ok((StartHandshake::from_parts(accepted, stream), ja4));
            }
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut bytes = Vec::new();
                alert.write_all(&mut bytes)?;
                // The handshake has failed, whether the client hears why or not.
                let _ = stream.write_all(&bytes).await;
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
    }
}

/// Whether HTTP/2 was agreed on (RFC 9113, section 3.2).
pub fn is_h2(stream: &Tls) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}

/// What was agreed on, and with whom.
///
/// # Errors
/// When the certificate that a resumed session was authenticated with is no longer good.
pub fn describe(done: &Done, ends: Ends, scheme: &'static str) -> Result<(Handshake, Peer), Error> {
    let tls = done.stream.get_ref().1;
    let (version, name) = match tls.protocol_version() {
        Some(ProtocolVersion::TLSv1_2) => (TlsVersion::Tls12, "1.2"),
        _ => (TlsVersion::Tls13, "1.3"),
    };
    let session = Session::of(tls);
    let resumed = session.resumed;
    let sni = tls.server_name().map(Into::into);
    let peer = Peer {
        id: ends.id,
        client: ends.client,
        destination: ends.destination,
        local_port: ends.port,
        scheme,
        sni,
        alpn: tls.alpn_protocol().map(Into::into),
        tls_version: Some(name),
        session: Some(session),
        ja4: done.ja4,
        identity: done.policy.identify(tls)?,
        policy: Some(Arc::clone(&done.policy)),
    };
    Ok((Handshake::Done { version, resumed }, peer))
}

/// The error of the library in an error of the stream.
fn of_tls(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// Why it failed, in one of the words that metrics know.
pub fn classify(error: &io::Error) -> HandshakeFailure {
    of_tls(error).map_or(HandshakeFailure::Closed, classify_tls)
}

/// The same, of an error of the library.
pub fn classify_tls(error: &Error) -> HandshakeFailure {
    match error {
        Error::AlertReceived(alert) => match client_alert(*alert) {
            ClientAlert::UnknownCa
            | ClientAlert::CertificateExpired
            | ClientAlert::CertificateRevoked
            | ClientAlert::BadCertificate
            | ClientAlert::UnsupportedCertificate
            | ClientAlert::CertificateUnknown
            | ClientAlert::BadStatusResponse => HandshakeFailure::CertificateRefused,
            _ => HandshakeFailure::ClientAlert,
        },
        Error::PeerIncompatible(what) => match what {
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled => HandshakeFailure::NoSharedVersion,
            PeerIncompatible::NoCipherSuitesInCommon
            | PeerIncompatible::NoKxGroupsInCommon
            | PeerIncompatible::NamedGroupsExtensionRequired
            | PeerIncompatible::NoSignatureSchemesInCommon => HandshakeFailure::NoSharedSuite,
            _ => HandshakeFailure::Incompatible,
        },
        Error::NoApplicationProtocol => HandshakeFailure::Incompatible,
        Error::InvalidMessage(_) => HandshakeFailure::NotTls,
        Error::NoCertificatesPresented => HandshakeFailure::ClientCertificateMissing,
        Error::InvalidCertificate(_) | Error::InvalidCertRevocationList(_) => {
            HandshakeFailure::ClientCertificateRefused
        }
        // rustls has no word of its own for a resolver that has nothing to offer.
        Error::General(text) if text.contains("certificate chain") => {
            HandshakeFailure::NoCertificate
        }
        _ => HandshakeFailure::Protocol,
    }
}

/// An alert, in one of the words that metrics know (RFC 8446, section 6.2).
const fn client_alert(alert: AlertDescription) -> ClientAlert {
    match alert {
        AlertDescription::UnknownCA => ClientAlert::UnknownCa,
        AlertDescription::CertificateExpired => ClientAlert::CertificateExpired,
        AlertDescription::CertificateRevoked => ClientAlert::CertificateRevoked,
        AlertDescription::BadCertificate => ClientAlert::BadCertificate,
        AlertDescription::UnsupportedCertificate => ClientAlert::UnsupportedCertificate,
        AlertDescription::CertificateUnknown => ClientAlert::CertificateUnknown,
        AlertDescription::BadCertificateStatusResponse => ClientAlert::BadStatusResponse,
        AlertDescription::HandshakeFailure | AlertDescription::InsufficientSecurity => {
            ClientAlert::HandshakeFailure
        }
        AlertDescription::ProtocolVersion => ClientAlert::ProtocolVersion,
        AlertDescription::BadRecordMac
        | AlertDescription::DecodeError
        | AlertDescription::DecryptError
        | AlertDescription::IllegalParameter
        | AlertDescription::UnexpectedMessage => ClientAlert::Undecodable,
        AlertDescription::UserCanceled => ClientAlert::UserCanceled,
        _ => ClientAlert::Other,
    }
}

/// What an operator makes of it.
const fn words(failure: HandshakeFailure) -> &'static str {
    match failure {
        HandshakeFailure::Timeout => "it took longer than timeouts.tls_handshake",
        HandshakeFailure::Closed => "the client closed the connection",
        HandshakeFailure::NotTls => "what came is not TLS",
        HandshakeFailure::ProxyHeader => {
            "no good PROXY header came from an address of listen.proxy_protocol_from"
        }
        HandshakeFailure::NoSharedVersion => {
            "no version in common: the client speaks none of those that are on"
        }
        HandshakeFailure::NoSharedSuite => {
            "no cipher suite, group or signature scheme in common with the client"
        }
        HandshakeFailure::Incompatible => "the client lacks something that TLS needs today",
        HandshakeFailure::NoCertificate => "no certificate is held that the client can use",
        HandshakeFailure::CertificateRefused => "the client does not like the certificate",
        HandshakeFailure::ClientAlert => "the client gave up with an alert",
        HandshakeFailure::ClientCertificateMissing => {
            "the site requires a client certificate, and the client showed none"
        }
        HandshakeFailure::ClientCertificateRefused => "the client's certificate is not good",
        HandshakeFailure::Protocol => "the client broke the protocol",
    }
}

/// Which alert it was, or what is wrong with the client's certificate.
fn detail(error: &io::Error) -> String {
    match of_tls(error) {
        Some(Error::AlertReceived(alert)) => {
            let mean = match client_alert(*alert) {
                ClientAlert::UnknownCa => "it does not know who issued the certificate",
                ClientAlert::CertificateExpired => "to it the certificate is expired",
                ClientAlert::CertificateRevoked => "to it the certificate is revoked",
                ClientAlert::BadCertificate => "to it the certificate is bad, or of another name",
                ClientAlert::BadStatusResponse => "to it the OCSP staple is bad",
                _ => return format!("alert {alert:?}"),
            };
            format!("alert {alert:?}: {mean}")
        }
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "it was issued by none of the authorities".to_owned()
        }
        Some(Error::InvalidCertificate(CertificateError::UnknownRevocationStatus)) => {
            "no revocation list of its authority is at hand".to_owned()
        }
        _ => error.to_string(),
    }
}

/// Lines about one kind of failure that are written in a minute: anybody can cause any number.
const LINES: u32 = 5;
const EACH: Duration = Duration::from_secs(60);

/// One for each kind, so that a scanner's noise does not drown what matters.
static THROTTLES: LazyLock<[Throttle; 16]> =
    LazyLock::new(|| std::array::from_fn(|_| Throttle::new(LINES, EACH)));

/// Counts a failure and says, not too often, why it came about.
pub fn failed(
    local: &Local,
    client: SocketAddr,
    name: Option<&str>,
    failure: HandshakeFailure,
    took: Duration,
    error: &io::Error,
) {
    local.edge().handshake(Handshake::Failed(failure), took);
    if let Some(Error::AlertReceived(alert)) = of_tls(error) {
        local.edge().client_alert(client_alert(*alert));
    }
    let (why, name) = (words(failure), name.unwrap_or_default());
    // Load balancers connect and close to see whether somebody is there.
    let throttle = THROTTLES.get(failure as usize);
    let quiet = failure == HandshakeFailure::Closed;
    match throttle.filter(|_| !quiet).and_then(Throttle::allow) {
        Some(suppressed) => {
            let detail = detail(error);
            let outcome = failure.code();
            info!(%client, name, outcome, why, detail, suppressed, "handshake failed");
        }
        None => debug!(%client, name, outcome = failure.code(), why, %error, "handshake failed"),
    }
}

/// A stream that tells of the alert which ends it before the client has said anything: over TLS
/// 1.3 a client may judge the certificate after the server is done (RFC 8446, section 4.4.2.4).
pub struct Listening {
    inner: Box<Tls>,
    /// Until something came.
    first: Option<Box<First>>,
}

/// Whom an alert tells something.
struct First {
    local: Rc<Local>,
    client: SocketAddr,
    chosen: Option<Chosen>,
}

impl Listening {
    /// Listens to this client.
    pub fn new(done: Done, local: Rc<Local>, client: SocketAddr) -> Self {
        let first = First {
            local,
            client,
            chosen: done.chosen,
        };
        Self {
            inner: done.stream,
            first: Some(Box::new(first)),
        }
    }
}

impl AsyncRead for Listening {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if let (Poll::Ready(result), Some(_)) = (&read, &self.first) {
            let first = self.first.take();
            match (result, first) {
                (Err(error), Some(first)) => told_after(&first, error),
                _ => self.inner.get_mut().0.wait(),
            }
        }
        read
    }
}

/// An alert that came after the handshake.
fn told_after(first: &First, error: &io::Error) {
    let Some(Error::AlertReceived(alert)) = of_tls(error) else {
        return;
    };
    first.local.edge().client_alert(client_alert(*alert));
    let failure = classify(error);
    let chosen = first.chosen.as_ref();
    let refused = failure == HandshakeFailure::CertificateRefused;
    if let Some(chosen) = chosen.filter(|_| refused) {
        chosen.certificate.tally().refused();
    }
    let throttle = THROTTLES.get(failure as usize);
    if let Some(suppressed) = throttle.and_then(Throttle::allow) {
        let (why, detail) = (words(failure), detail(error));
        let client = first.client;
        let name = chosen.and_then(|it| it.name.as_deref()).unwrap_or_default();
        info!(%client, name, why, detail, suppressed, "a client gave up after the handshake");
    }
}

impl cork::Stream for Listening {
    fn ends(&mut self) {
        self.inner.get_mut().0.keep();
    }

    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (io, session) = self.inner.get_mut();
        match session.wants_read() {
            true => io.poll_readable(cx),
            // There is plaintext already, or the end of it.
            false => Poll::Ready(()),
        }
    }
}

impl AsyncWrite for Listening {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
