//! The handshake, and what it showed.

use std::io::{Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ProtocolVersion, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

/// What one handshake showed.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) address: SocketAddr,
    /// As sent: leaf first, if the server is right.
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) staple: Vec<u8>,
    /// `TLS 1.3` or `TLS 1.2`.
    pub(super) version: &'static str,
    pub(super) cipher: String,
    pub(super) group: Option<String>,
    pub(super) alpn: Option<String>,
}

/// Connects and shakes hands, all of it before `timeout` is over.
pub(super) fn with(
    host: &str,
    port: u16,
    name: &ServerName<'static>,
    timeout: Duration,
) -> Result<Seen, String> {
    let mut session = Session::open(host, port, name, &[b"h2", b"http/1.1"], timeout)?;
    let connection = &mut session.connection;
    // A farewell is good manners; whether it arrives changes nothing.
    connection.send_close_notify();
    let _ = connection.complete_io(&mut session.socket);
    let recorded = session.recorder.take();
    Ok(Seen {
        address: session.address,
        chain: recorded.chain,
        staple: recorded.staple,
        version: match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLS 1.2",
            _ => "unknown",
        },
        cipher: connection
            .negotiated_cipher_suite()
            .map_or_else(String::new, |suite| format!("{:?}", suite.suite())),
        group: connection
            .negotiated_key_exchange_group()
            .map(|group| format!("{:?}", group.name())),
        alpn: connection
            .alpn_protocol()
            .map(|alpn| String::from_utf8_lossy(alpn).into_owned()),
    })
}

/// Sends a request in HTTP/1.1 that asks for the connection to be closed. The chain that was shown,
/// and what was answered, at most `most` bytes of it.
pub(in crate::cli) fn exchange(
    host: &str,
    port: u16,
    name: &ServerName<'static>,
    request: &[u8],
    most: u64,
    timeout: Duration,
) -> Result<(Vec<CertificateDer<'static>>, Vec<u8>), String> {
    let mut session = Session::open(host, port, name, &[b"http/1.1"], timeout)?;
    let chain = session.recorder.take().chain;
    let mut stream = rustls::Stream::new(&mut session.connection, &mut session.socket);
    stream
        .write_all(request)
        .map_err(|error| error.to_string())?;
    let answer = read(stream, most).map_err(|error| format!("no answer: {error}"))?;
    Ok((chain, answer))
}

/// The same in plain text.
pub(in crate::cli) fn exchange_plain(
    host: &str,
    port: u16,
    request: &[u8],
    most: u64,
    timeout: Duration,
) -> Result<Vec<u8>, String> {
    let deadline = Instant::now() + timeout;
    let (socket, _) = connect(host, port, deadline)?;
    let mut socket = Deadlined { socket, deadline };
    socket
        .write_all(request)
        .map_err(|error| error.to_string())?;
    read(socket, most).map_err(|error| format!("no answer: {error}"))
}

/// What comes until the end. A connection that is cut after something came has ended too.
fn read(stream: impl Read, most: u64) -> Result<Vec<u8>, Error> {
    let mut answer = Vec::new();
    match stream.take(most).read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(answer),
    }
}

/// A connection on which TLS is agreed.
struct Session {
    connection: ClientConnection,
    socket: Deadlined,
    address: SocketAddr,
    recorder: Arc<Recorder>,
}

impl Session {
    fn open(
        host: &str,
        port: u16,
        name: &ServerName<'static>,
        alpn: &[&[u8]],
        timeout: Duration,
    ) -> Result<Self, String> {
        let deadline = Instant::now() + timeout;
        let (socket, address) = connect(host, port, deadline)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let recorder = Arc::new(Recorder::new(Arc::clone(&provider)));
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&recorder) as Arc<dyn ServerCertVerifier>)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let mut connection = ClientConnection::new(Arc::new(config), name.clone())
            .map_err(|error| error.to_string())?;
        let mut socket = Deadlined { socket, deadline };
        while connection.is_handshaking() {
            if let Err(error) = connection.complete_io(&mut socket) {
                return Err(handshake_failed(&error, address, timeout));
            }
        }
        Ok(Self {
            connection,
            socket,
            address,
            recorder,
        })
    }
}

/// The first address that answers, in the resolver's order.
fn connect(host: &str, port: u16, deadline: Instant) -> Result<(TcpStream, SocketAddr), String> {
    let addresses = (host, port)
        .to_socket_addrs()
        .map_err(|error| format!("the name cannot be resolved: {error}"))?;
    let mut failures = Vec::new();
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            failures.push(format!("{address}: no time left"));
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(socket) => return Ok((socket, address)),
            Err(error) => failures.push(format!("{address}: {error}")),
        }
    }
    if failures.is_empty() {
        return Err("the name has no address".to_owned());
    }
    Err(format!("no connection: {}", failures.join("; ")))
}

fn handshake_failed(error: &Error, address: SocketAddr, timeout: Duration) -> String {
    let tls = error
        .get_ref()
        .and_then(|e| e.downcast_ref::<rustls::Error>());
    match (error.kind(), tls) {
        (_, Some(rustls::Error::InvalidMessage(_))) => {
            format!("{address} answers, but not with TLS")
        }
        (_, Some(rustls::Error::AlertReceived(alert))) => format!(
            "{address} refuses the handshake with the alert {alert:?}; it may hold no certificate \
             for this name"
        ),
        (_, Some(error)) => format!("the handshake with {address} fails: {error}"),
        (ErrorKind::TimedOut | ErrorKind::WouldBlock, _) => {
            let seconds = timeout.as_secs();
            format!(
                "{address} accepts the connection and does not finish a handshake in {seconds} s"
            )
        }
        (ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset, _) => {
            format!("{address} closes the connection during the handshake")
        }
        _ => format!("the handshake with {address} fails: {error}"),
    }
}

/// A socket all of whose reads and writes share one deadline; a timeout on the socket alone would
/// begin anew with each byte of a slow server.
struct Deadlined {
    socket: TcpStream,
    deadline: Instant,
}

impl Deadlined {
    fn left(&self) -> Result<Option<Duration>, Error> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        Ok(Some(left))
    }
}

impl Read for Deadlined {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.socket.set_read_timeout(self.left()?)?;
        self.socket.read(buffer)
    }
}

impl Write for Deadlined {
    fn write(&mut self, buffer: &[u8]) -> Result<usize, Error> {
        self.socket.set_write_timeout(self.left()?)?;
        self.socket.write(buffer)
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.socket.flush()
    }
}

/// Accepts every certificate and keeps it. Signatures over the handshake are checked as ever:
/// a server that does not hold the key is no finding but a failure.
#[derive(Debug)]
struct Recorder {
    provider: Arc<CryptoProvider>,
    recorded: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    chain: Vec<CertificateDer<'static>>,
    staple: Vec<u8>,
}

impl Recorder {
    fn new(provider: Arc<CryptoProvider>) -> Self {
        Self {
            provider,
            recorded: Mutex::default(),
        }
    }

    fn take(&self) -> Recorded {
        std::mem::take(&mut *self.recorded.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        staple: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(leaf).chain(intermediates);
        let recorded = Recorded {
            chain: chain.map(|der| der.clone().into_owned()).collect(),
            staple: staple.to_vec(),
        };
        *self.recorded.lock().unwrap_or_else(PoisonError::into_inner) = recorded;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
