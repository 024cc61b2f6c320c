//! An HTTP/2 client over the `h2` crate.

use std::future::Future;
use std::io;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::{PATIENCE, Tls};

/// Runs to its end, in time.
#[track_caller]
pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let in_time = async { tokio::time::timeout(2 * PATIENCE, future).await };
    runtime.block_on(in_time).expect("it takes too long")
}

/// One connection.
pub struct H2 {
    pub send: SendRequest<Bytes>,
    /// Ends when the connection does.
    pub driver: JoinHandle<Result<(), h2::Error>>,
    leaf: String,
}

/// A response, with its body read to the end.
#[derive(Debug)]
pub struct H2Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub trailers: Option<HeaderMap>,
}

impl H2 {
    /// Connects; must be within [`block_on`].
    pub async fn connect(tls: &Tls) -> io::Result<Self> {
        Self::with(tls, &h2::client::Builder::new()).await
    }

    /// Connects, with settings of its own.
    pub async fn with(tls: &Tls, settings: &h2::client::Builder) -> io::Result<Self> {
        let tls = tls.clone().alpn(&["h2"]);
        let tcp = TcpStream::connect(tls.address()).await?;
        tcp.set_nodelay(true)?;
        let connector = TlsConnector::from(tls.config());
        let stream = connector.connect(tls.server_name(), tcp).await?;
        let session = stream.get_ref().1;
        assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
        let leaf = super::ca::fingerprint(&session.peer_certificates().unwrap()[0]);
        let (send, connection) = settings.handshake(stream).await.map_err(io::Error::other)?;
        let driver = tokio::spawn(connection);
        Ok(Self { send, driver, leaf })
    }

    /// The certificate served.
    pub fn leaf(&self) -> &str {
        &self.leaf
    }

    /// `GET https://HOST/PATH`
    pub async fn get(&self, host: &str, path: &str) -> Result<H2Response, h2::Error> {
        self.request(request(Method::GET, host, path), Bytes::new(), None)
            .await
    }

    /// Sends a request with its body and trailers, and reads the response to its end.
    pub async fn request(
        &self,
        request: Request<()>,
        body: Bytes,
        trailers: Option<HeaderMap>,
    ) -> Result<H2Response, h2::Error> {
        let mut ready = self.send.clone().ready().await?;
        let no_body = body.is_empty() && trailers.is_none();
        let (response, mut stream) = ready.send_request(request, no_body)?;
        if !no_body {
            // h2 holds what the window has no room for; bodies here are small enough for that.
            stream.send_data(body, trailers.is_none())?;
            if let Some(trailers) = trailers {
                stream.send_trailers(trailers)?;
            }
        }
        read(response.await?).await
    }
}

/// Reads a response to its end.
pub async fn read(response: http::Response<h2::RecvStream>) -> Result<H2Response, h2::Error> {
    let (parts, mut stream) = response.into_parts();
    let mut body = BytesMut::new();
    while let Some(data) = stream.data().await {
        let data = data?;
        body.extend_from_slice(&data);
        stream.flow_control().release_capacity(data.len())?;
    }
    let trailers = stream.trailers().await?;
    Ok(H2Response {
        status: parts.status,
        headers: parts.headers,
        body: body.freeze(),
        trailers,
    })
}

/// A request without fields of its own.
pub fn request(method: Method, host: &str, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("https://{host}{path}"))
        .body(())
        .unwrap()
}
