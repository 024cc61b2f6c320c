//! A small HTTP/1.1 client for the sinks: one request, one connection, one bounded answer.
//!
//! It follows no redirect: an alert that wanders off to a log-in page is an alert that was lost. It
//! sets no deadline of its own; the courier has one for each attempt. What it says of a URL, in an
//! error or to a debugger, is never more than where it leads, since webhook paths are secrets.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderValue, LOCATION, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use super::words;

/// Bytes of an answer that are read.
const ANSWER: usize = 16 * 1024;
/// Bytes of an answer's head, at most.
const HEAD: usize = 64 * 1024;

/// Why a request was not answered with success.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not a URL that can be called.
    #[error("the URL cannot be used: {0}")]
    Url(&'static str),
    /// No connection.
    #[error("no connection to {at}: {source}")]
    Connect {
        /// Where to.
        at: Endpoint,
        /// Why not.
        source: io::Error,
    },
    /// No TLS.
    #[error("no TLS with {at}: {source}")]
    Tls {
        /// With whom.
        at: Endpoint,
        /// Why not.
        source: io::Error,
    },
    /// This system's trusted roots could not be read.
    #[error("no trusted roots on this system, so no https: {0}")]
    Roots(String),
    /// What came back was not HTTP, or ended early.
    #[error("no usable answer from {at}: {source}")]
    Protocol {
        /// From whom.
        at: Endpoint,
        /// Why not.
        source: hyper::Error,
    },
    /// An answer that leads elsewhere.
    #[error(
        "{at} answered {status}, a redirect{}, and redirects are not followed: configure the \
         address it leads to", to.as_ref().map_or_else(String::new, |to| format!(" to {to}"))
    )]
    Redirect {
        /// Who answered.
        at: Endpoint,
        /// What.
        status: StatusCode,
        /// Where it leads, as far as that can be told.
        to: Option<Endpoint>,
    },
    /// An answer that is no success.
    #[error("{at} answered {status}: {body}")]
    Status {
        /// Who answered.
        at: Endpoint,
        /// What.
        status: StatusCode,
        /// The beginning of the body.
        body: String,
    },
}

impl HttpError {
    /// Whether trying again with the same request makes no sense.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Url(_) | Self::Redirect { .. } => true,
            Self::Status { status, .. } => {
                // Asked to slow down, or not yet: that is no judgement on the request.
                status.is_client_error() && !matches!(status.as_u16(), 408 | 425 | 429)
            }
            _ => false,
        }
    }

    /// Whether the body is what was refused. Any other refusal may be over in a moment: a token is
    /// renewed, or the receiver is put back in its place.
    pub fn blames_the_body(&self) -> bool {
        match self {
            // Bad request, content too large, unprocessable (RFC 9110, section 15.5).
            Self::Status { status, .. } => matches!(status.as_u16(), 400 | 413 | 422),
            _ => false,
        }
    }
}

/// Where a URL leads: scheme, host and port, without the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    https: bool,
    host: String,
    port: u16,
}

impl Endpoint {
    /// Reads it off a URL.
    pub fn of(url: &str) -> Result<Self, HttpError> {
        let uri: Uri = url.parse().map_err(|_| HttpError::Url("it is malformed"))?;
        Self::of_uri(&uri)
    }

    fn of_uri(uri: &Uri) -> Result<Self, HttpError> {
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => {
                return Err(HttpError::Url(
                    "it begins with neither http:// nor https://",
                ));
            }
        };
        let authority = uri.authority().ok_or(HttpError::Url("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(HttpError::Url("it holds a user name; give a token instead"));
        }
        Ok(Self {
            https,
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

/// How long the system's roots are believed: when they change, nobody has to be told.
const BELIEVED: Duration = Duration::from_secs(60);

/// Calls URLs. Clones share the trusted roots, which are read when needed.
#[derive(Clone, Debug, Default)]
pub struct Client {
    trust: Arc<Mutex<Trust>>,
}

/// Whom to believe.
#[derive(Debug, Default)]
enum Trust {
    /// The system's roots, not read yet.
    #[default]
    Unread,
    /// The system's roots, as they were at this moment.
    System(Instant, Arc<ClientConfig>),
    /// These roots, for good.
    Given(Arc<ClientConfig>),
}

impl Client {
    /// One that trusts this system's roots.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that trusts these roots.
    pub fn with_roots(roots: RootCertStore) -> Result<Self, rustls::Error> {
        let given = Trust::Given(Arc::new(client_config(roots)?));
        Ok(Self {
            trust: Arc::new(Mutex::new(given)),
        })
    }

    /// Sends a request, whose URI is absolute, and returns the beginning of a successful answer.
    pub async fn send(&self, mut request: Request<Bytes>) -> Result<Bytes, HttpError> {
        let at = Endpoint::of_uri(request.uri())?;
        prepare(&mut request)?;
        let connect = |source| HttpError::Connect {
            at: at.clone(),
            source,
        };
        let tcp = TcpStream::connect((at.host.as_str(), at.port))
            .await
            .map_err(connect)?;
        tcp.set_nodelay(true).map_err(connect)?;
        if !at.https {
            return exchange(at, tcp, request).await;
        }
        let name = ServerName::try_from(at.host.clone())
            .map_err(|_| HttpError::Url("its host is no name that a certificate can hold"))?;
        let connector = TlsConnector::from(self.tls().await?);
        match connector.connect(name, tcp).await {
            Ok(tls) => exchange(at, tls, request).await,
            Err(source) => Err(HttpError::Tls { at, source }),
        }
    }

    async fn tls(&self) -> Result<Arc<ClientConfig>, HttpError> {
        let mut trust = self.trust.lock().await;
        let before = match &*trust {
            Trust::Given(tls) => return Ok(Arc::clone(tls)),
            Trust::System(at, tls) if at.elapsed() < BELIEVED => return Ok(Arc::clone(tls)),
            Trust::System(_, tls) => Some(Arc::clone(tls)),
            Trust::Unread => None,
        };
        let tls = match (system_roots().await, before) {
            (Ok(tls), _) => tls,
            // They may just be being written.
            (Err(_), Some(before)) => before,
            (Err(error), None) => return Err(error),
        };
        *trust = Trust::System(Instant::now(), Arc::clone(&tls));
        Ok(tls)
    }
}

/// The request as it goes over the wire: the path alone, and the headers that every request has.
fn prepare(request: &mut Request<Bytes>) -> Result<(), HttpError> {
    let authority = request.uri().authority().map_or("", |it| it.as_str());
    let host = HeaderValue::from_str(authority).map_err(|_| HttpError::Url("it is malformed"))?;
    let path = request
        .uri()
        .path_and_query()
        .map_or("/", |it| it.as_str())
        .to_owned();
    *request.uri_mut() = path
        .parse()
        .map_err(|_| HttpError::Url("its path is malformed"))?;
    let headers = request.headers_mut();
    headers.insert(HOST, host);
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    let agent = concat!("staunch/", env!("CARGO_PKG_VERSION"));
    headers.insert(USER_AGENT, HeaderValue::from_static(agent));
    Ok(())
}

async fn exchange(
    at: Endpoint,
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Bytes>,
) -> Result<Bytes, HttpError> {
    let talk = async {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD);
        let (mut sender, connection) = builder.handshake(TokioIo::new(io)).await?;
        // Both halves in this task: an attempt that is given up leaves nothing behind.
        let answer = async {
            let response = sender.send_request(request.map(Full::new)).await?;
            let (head, body) = response.into_parts();
            let body = beginning(body).await?;
            Ok(Response::from_parts(head, body))
        };
        tokio::pin!(answer);
        tokio::pin!(connection);
        tokio::select! {
            answer = &mut answer => answer,
            // The connection may end with the answer already in hand.
            ended = &mut connection => match (ended, answer.await) {
                (Err(error), Err(_)) => Err(error),
                (_, answer) => answer,
            },
        }
    };
    match talk.await {
        Ok(response) => judge(at, &response),
        Err(source) => Err(HttpError::Protocol { at, source }),
    }
}

/// As much of a body as anybody will read.
async fn beginning(mut body: Incoming) -> Result<Bytes, hyper::Error> {
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            read.extend_from_slice(&data);
        }
        if read.len() >= ANSWER {
            read.truncate(ANSWER);
            break;
        }
    }
    Ok(read.into())
}

fn judge(at: Endpoint, response: &Response<Bytes>) -> Result<Bytes, HttpError> {
    const EXCERPT: usize = 300;
    let status = response.status();
    if status.is_success() {
        return Ok(response.body().clone());
    }
    if status.is_redirection() {
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|it| it.to_str().ok());
        let to = location.and_then(|it| Endpoint::of(it).ok());
        return Err(HttpError::Redirect { at, status, to });
    }
    let excerpt = &response.body()[..response.body().len().min(EXCERPT)];
    let body = words::clean(String::from_utf8_lossy(excerpt).trim());
    Err(HttpError::Status { at, status, body })
}

/// Trust as this system does.
async fn system_roots() -> Result<Arc<ClientConfig>, HttpError> {
    let load = || {
        let found = rustls_native_certs::load_native_certs();
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(found.certs);
        if usable == 0 {
            let why = found
                .errors
                .first()
                .map_or_else(|| "none found".to_owned(), ToString::to_string);
            return Err(HttpError::Roots(why));
        }
        client_config(roots)
            .map(Arc::new)
            .map_err(|error| HttpError::Roots(error.to_string()))
    };
    let loaded = tokio::task::spawn_blocking(load).await;
    loaded.unwrap_or_else(|error| Err(HttpError::Roots(error.to_string())))
}

fn client_config(roots: RootCertStore) -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_tells_no_path_and_no_token() {
        let endpoint = Endpoint::of("https://hooks.example/services/T0/SECRET?key=SECRET").unwrap();
        assert_eq!(endpoint.to_string(), "https://hooks.example:443");
        assert_eq!(
            Endpoint::of("http://[::1]:80/").unwrap().to_string(),
            "http://[::1]:80"
        );
        for bad in ["ftp://a/", "/path", "http://user:SECRET@a/", "http://a b/"] {
            let error = Endpoint::of(bad).unwrap_err();
            assert!(error.is_permanent());
            assert!(!error.to_string().contains("SECRET"));
        }
    }
}
