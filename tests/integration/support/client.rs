//! A TLS client whose every choice can be made, and that tells what it was given.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, HandshakeKind, ProtocolVersion,
    RootCertStore, SignatureScheme, StreamOwned, SupportedProtocolVersion,
};

use super::ca::{Root, fingerprint};
use super::http::Incoming;
use super::{PATIENCE, Response};

/// A client to be configured; clones connect in the same way and share sessions.
#[derive(Clone)]
pub struct Tls {
    address: SocketAddr,
    preamble: Vec<u8>,
    name: Option<String>,
    alpn: Vec<Vec<u8>>,
    versions: Vec<&'static SupportedProtocolVersion>,
    schemes: Option<Vec<SignatureScheme>>,
    root: Option<Arc<Root>>,
    resumes: bool,
    config: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Tls {
    /// TLS 1.2 or 1.3, HTTP/1.1, and no name. Whom the certificate was issued by does not matter,
    /// but its key must sign the handshake: a pair that does not match is an error.
    pub fn to(address: SocketAddr) -> Self {
        Self {
            address,
            preamble: Vec::new(),
            name: None,
            alpn: vec![b"http/1.1".to_vec()],
            versions: vec![&rustls::version::TLS12, &rustls::version::TLS13],
            schemes: None,
            root: None,
            resumes: false,
            config: Arc::default(),
        }
    }

    /// Another client from now on, with sessions of its own.
    fn anew(self) -> Self {
        Self {
            config: Arc::default(),
            ..self
        }
    }

    /// Asks for this name (SNI).
    pub fn name(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    /// Sends these bytes before anything else.
    pub fn preamble(mut self, bytes: &[u8]) -> Self {
        self.preamble = bytes.to_vec();
        self
    }

    /// Offers these protocols.
    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.alpn = (protocols.iter())
            .map(|name| name.as_bytes().to_vec())
            .collect();
        self.anew()
    }

    /// Speaks this version only.
    pub fn version(mut self, version: &'static SupportedProtocolVersion) -> Self {
        self.versions = vec![version];
        self.anew()
    }

    /// Takes these signatures only.
    pub fn schemes(mut self, schemes: &[SignatureScheme]) -> Self {
        self.schemes = Some(schemes.to_vec());
        self.anew()
    }

    /// Takes only certificates for the name below this root, valid now.
    pub fn trusting(mut self, root: &Arc<Root>) -> Self {
        self.root = Some(Arc::clone(root));
        self.anew()
    }

    /// Resumes sessions where it can. What is said of the certificate is then what was said when
    /// the session began.
    pub fn resuming(mut self) -> Self {
        self.resumes = true;
        self.anew()
    }

    /// Where it connects to.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The name it verifies and asks for; an address, for which no name is sent, where it has none.
    pub fn server_name(&self) -> ServerName<'static> {
        match &self.name {
            Some(name) => ServerName::try_from(name.clone()).unwrap(),
            None => self.address.ip().into(),
        }
    }

    /// As rustls wants it; made once, because sessions belong to it.
    pub fn config(&self) -> Arc<ClientConfig> {
        let config = self.config.get_or_init(|| {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let witness = Witness::new(&provider, self.schemes.clone(), self.root.as_deref());
            let mut config = ClientConfig::builder_with_provider(provider)
                .with_protocol_versions(&self.versions)
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(witness))
                .with_no_client_auth();
            config.alpn_protocols.clone_from(&self.alpn);
            config.resumption = if self.resumes {
                Resumption::in_memory_sessions(8)
            } else {
                Resumption::disabled()
            };
            Arc::new(config)
        });
        Arc::clone(config)
    }

    /// Connects and completes the handshake.
    pub fn try_connect(&self) -> io::Result<Connection> {
        let tcp = tcp(self.address)?;
        let mut tls = ClientConnection::new(self.config(), self.server_name())
            .map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
        let mut socket = tcp.try_clone()?;
        socket.write_all(&self.preamble)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        let stream = Stream::Tls(Box::new(StreamOwned::new(tls, tcp)));
        Ok(Connection::new(stream))
    }

    /// The same, and it must succeed.
    #[track_caller]
    pub fn connect(&self) -> Connection {
        match self.try_connect() {
            Ok(connection) => connection,
            Err(error) => panic!("{self:?}: {error}"),
        }
    }

    /// The certificate that a new connection gets.
    #[track_caller]
    pub fn leaf(&self) -> String {
        self.connect().leaf()
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_deref().unwrap_or("no name");
        write!(f, "TLS to {} for {name}", self.address)
    }
}

/// Connects, with a limit to waiting so that a fault ends a test.
fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_write_timeout(Some(PATIENCE))?;
    Ok(tcp)
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    const fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(tls) => &tls.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(data),
            Self::Tls(stream) => stream.write(data),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

/// One connection, speaking HTTP/1.1 or anything else.
pub struct Connection {
    incoming: Incoming<Stream>,
}

impl Connection {
    const fn new(stream: Stream) -> Self {
        Self {
            incoming: Incoming::new(stream),
        }
    }

    /// Without TLS.
    pub fn plain(address: SocketAddr) -> io::Result<Self> {
        Ok(Self::new(Stream::Plain(tcp(address)?)))
    }

    fn tls(&self) -> &ClientConnection {
        match &self.incoming.inner {
            Stream::Tls(tls) => &tls.conn,
            Stream::Plain(_) => panic!("not a TLS connection"),
        }
    }

    /// The certificate served, as the inventory spells its fingerprint.
    pub fn leaf(&self) -> String {
        fingerprint(&self.tls().peer_certificates().unwrap()[0])
    }

    /// Certificates served, the leaf included.
    pub fn chain_length(&self) -> usize {
        self.tls().peer_certificates().unwrap().len()
    }

    /// What ALPN agreed on.
    pub fn protocol(&self) -> Option<String> {
        let protocol = self.tls().alpn_protocol()?;
        Some(String::from_utf8_lossy(protocol).into_owned())
    }

    pub fn version(&self) -> ProtocolVersion {
        self.tls().protocol_version().unwrap()
    }

    /// Name of the key exchange.
    pub fn group(&self) -> String {
        let group = self.tls().negotiated_key_exchange_group().unwrap();
        format!("{:?}", group.name())
    }

    /// Whether an earlier session was resumed.
    pub fn resumed(&self) -> bool {
        self.tls().handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.incoming.inner.write_all(bytes.as_ref())?;
        self.incoming.inner.flush()
    }

    /// Sends a request with the fields given and `Host`, and no body.
    pub fn ask(&mut self, method: &str, host: &str, target: &str, fields: &str) -> io::Result<()> {
        self.send(format!(
            "{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n"
        ))
    }

    /// Asks and reads the answer; `Err` where there is none.
    pub fn try_get(&mut self, host: &str, target: &str) -> io::Result<Response> {
        self.ask("GET", host, target, "")?;
        self.incoming.response("GET")
    }

    /// Asks and reads the answer.
    #[track_caller]
    pub fn get(&mut self, host: &str, target: &str) -> Response {
        match self.try_get(host, target) {
            Ok(response) => response,
            Err(error) => panic!("GET {target}: {error}"),
        }
    }

    /// Sends a request with a body of known length, and reads the answer.
    #[track_caller]
    pub fn post(&mut self, host: &str, target: &str, body: &[u8]) -> Response {
        let length = format!("Content-Length: {}\r\n", body.len());
        self.ask("POST", host, target, &length).unwrap();
        self.send(body).unwrap();
        self.read("POST")
    }

    /// Reads a response to a request with this method.
    #[track_caller]
    pub fn read(&mut self, method: &str) -> Response {
        match self.incoming.response(method) {
            Ok(response) => response,
            Err(error) => panic!("{method}: {error}; read {:?}", self.leftover()),
        }
    }

    fn leftover(&self) -> String {
        String::from_utf8_lossy(self.incoming.buffered()).into_owned()
    }

    /// For whoever reads piece by piece.
    pub fn incoming(&mut self) -> &mut Incoming<impl Read + Write> {
        &mut self.incoming
    }

    /// Whether the other side closes in order, having sent nothing more; waits for that.
    pub fn closed(&mut self) -> bool {
        matches!(self.incoming.rest(), Ok(rest) if rest.is_empty())
    }

    /// Whether the other side has gone, in whatever way, having sent nothing more; waits for that.
    pub fn gone(&mut self) -> bool {
        match self.incoming.rest() {
            Ok(rest) => rest.is_empty(),
            Err(error) => !is_timeout(&error),
        }
    }

    /// Whether it is open with nothing to read, at this moment.
    pub fn is_open(&mut self) -> bool {
        let socket = self.incoming.inner.socket();
        socket
            .set_read_timeout(Some(Duration::from_millis(1)))
            .unwrap();
        let result = self.incoming.fill();
        let socket = self.incoming.inner.socket();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        matches!(result, Err(error) if is_timeout(&error))
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&mut self) {
        if let Stream::Tls(tls) = &mut self.incoming.inner {
            tls.conn.send_close_notify();
            let _ = tls.flush();
        }
        let _ = self.incoming.inner.socket().shutdown(Shutdown::Write);
    }
}

pub fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// Verifies that the certificate's key signed the handshake, and more only where it has a root.
#[derive(Debug)]
struct Witness {
    provider: Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
    webpki: Option<Arc<dyn ServerCertVerifier>>,
}

impl Witness {
    fn new(
        provider: &Arc<CryptoProvider>,
        schemes: Option<Vec<SignatureScheme>>,
        root: Option<&Root>,
    ) -> Self {
        let all = provider.signature_verification_algorithms;
        let webpki = root.map(|root| {
            let mut roots = RootCertStore::empty();
            roots.add(root.der.clone()).unwrap();
            let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
                Arc::new(roots),
                Arc::clone(provider),
            );
            let verifier: Arc<dyn ServerCertVerifier> = verifier.build().unwrap();
            verifier
        });
        Self {
            provider: Arc::clone(provider),
            schemes: schemes.unwrap_or_else(|| all.supported_schemes()),
            webpki,
        }
    }
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match &self.webpki {
            Some(webpki) => webpki.verify_server_cert(leaf, intermediates, name, ocsp, now),
            None => Ok(ServerCertVerified::assertion()),
        }
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
        self.schemes.clone()
    }
}
