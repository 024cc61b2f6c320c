//! The demo's upstream: a small web server that shows what the proxy made of a request.

use std::convert::Infallible;
use std::fmt::Write;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

const PAGE: &str = include_str!("page.html");

/// The longest answer of `/bytes/N`: enough for any measurement, and it ends.
const MAX_BYTES: u64 = 1 << 40;
/// The longest wait of `/slow`.
const MAX_SECONDS: f64 = 300.0;
/// What is sent at a time.
const CHUNK: &[u8] = &[b'.'; 64 * 1024];

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// Starts the server on a thread and a free port of its own; it ends with the process.
pub fn start() -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("demo-upstream".to_owned())
        .spawn(move || runtime.block_on(serve(listener)))?;
    Ok(address)
}

async fn serve(listener: std::net::TcpListener) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the demo's web server cannot start");
            return;
        }
    };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(crate::listen::ACCEPT_PAUSE).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service_fn(answer))
            .with_upgrades();
        // What goes wrong on one connection is for the proxy in front to tell.
        tokio::spawn(connection);
    }
}

async fn answer(request: Request<Incoming>) -> Result<Answer, Infallible> {
    let path = request.uri().path();
    Ok(match path {
        "/" => page(&request),
        "/json" => json(&request),
        "/slow" => slow(&request).await,
        "/echo" => echo(request),
        _ => match path.strip_prefix("/bytes/").map(str::parse) {
            Some(Ok(length)) if length <= MAX_BYTES => bytes(length, request.method()),
            Some(_) => plain(
                StatusCode::BAD_REQUEST,
                "/bytes/N: N is a number of bytes\n",
            ),
            None => plain(
                StatusCode::NOT_FOUND,
                "There are /, /json, /echo, /slow?seconds=N and /bytes/N.\n",
            ),
        },
    })
}

/// A page for people, with the request as it arrived here.
fn page(request: &Request<Incoming>) -> Answer {
    let mut rows = String::new();
    for (name, value) in headers(request.headers()) {
        let (name, value) = (escape(&name), escape(&value));
        let _ = writeln!(rows, "<tr><th>{name}</th><td>{value}</td></tr>");
    }
    let line = format!(
        "{} {} {:?}",
        request.method(),
        request.uri(),
        request.version()
    );
    let body = PAGE
        .replace("{{request}}", &escape(&line))
        .replace("{{rows}}", &rows);
    respond(StatusCode::OK, "text/html; charset=utf-8", body)
}

/// The same for programs.
fn json(request: &Request<Incoming>) -> Answer {
    let headers: Vec<_> = headers(request.headers())
        .map(|(name, value)| format!("{name}: {value}"))
        .collect();
    let body = serde_json::json!({
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "headers": headers,
    });
    respond(StatusCode::OK, "application/json", format!("{body:#}\n"))
}

/// Answers after `?seconds=N`, to try deadlines and drains.
async fn slow(request: &Request<Incoming>) -> Answer {
    let seconds = request
        .uri()
        .query()
        .and_then(|query| query.strip_prefix("seconds="))
        .map_or(Ok(3.0), str::parse::<f64>);
    match seconds {
        Ok(seconds) if (0.0..=MAX_SECONDS).contains(&seconds) => {
            tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
            plain(StatusCode::OK, &format!("after {seconds} s\n"))
        }
        _ => plain(
            StatusCode::BAD_REQUEST,
            &format!("/slow?seconds=N: N is 0 to {MAX_SECONDS}\n"),
        ),
    }
}

/// Sends the request's body back as it comes.
fn echo(request: Request<Incoming>) -> Answer {
    let content_type = request.headers().get(CONTENT_TYPE).cloned();
    let mut response = Response::new(request.into_body().boxed());
    if let Some(content_type) = content_type {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    response
}

/// So many bytes, made as they are sent.
fn bytes(length: u64, method: &Method) -> Answer {
    let body = match *method {
        Method::HEAD => Dots(0),
        _ => Dots(length),
    };
    let mut response = Response::new(body.map_err(|never| match never {}).boxed());
    let headers = response.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(CONTENT_LENGTH, length.into());
    response
}

/// A body of so many dots.
struct Dots(u64);

impl Body for Dots {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.0 == 0 {
            return Poll::Ready(None);
        }
        let length = usize::try_from(self.0).map_or(CHUNK.len(), |left| left.min(CHUNK.len()));
        self.0 -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&CHUNK[..length])))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0)
    }
}

fn plain(status: StatusCode, text: &str) -> Answer {
    respond(status, "text/plain; charset=utf-8", text.to_owned())
}

fn respond(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let body = Full::new(Bytes::from(body)).map_err(|never| match never {});
    let mut response = Response::new(body.boxed());
    *response.status_mut() = status;
    let content_type = http::HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

fn headers(headers: &HeaderMap) -> impl Iterator<Item = (String, String)> {
    headers.iter().map(|(name, value)| {
        let value = String::from_utf8_lossy(value.as_bytes());
        (name.to_string(), value.into_owned())
    })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write as _};
    use std::net::TcpStream;

    use super::*;

    fn get(address: SocketAddr, target: &str, more: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        write!(
            stream,
            "GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn it_shows_the_request_as_it_arrived() {
        let address = start().unwrap();
        let page = get(address, "/", "X-Tried: <b>&\r\n");
        assert!(page.starts_with("HTTP/1.1 200"), "{page}");
        assert!(
            page.contains("<th>x-tried</th><td>&lt;b&gt;&amp;</td>"),
            "{page}"
        );
        assert!(page.contains("GET / HTTP/1.1"), "{page}");
        let json = get(address, "/json?a=b", "X-Tried: yes\r\n");
        assert!(json.contains("\"target\": \"/json?a=b\""), "{json}");
        assert!(json.contains("\"x-tried: yes\""), "{json}");
    }

    #[test]
    fn it_sends_as_much_as_it_is_asked_for() {
        let address = start().unwrap();
        let answer = get(address, "/bytes/100000", "");
        assert!(
            answer
                .to_ascii_lowercase()
                .contains("content-length: 100000\r\n")
        );
        assert!(answer.ends_with(&format!("\r\n\r\n{}", ".".repeat(100_000))));
        for target in [
            "/bytes/x",
            "/bytes/-1",
            "/slow?seconds=inf",
            "/slow?seconds=-1",
        ] {
            let answer = get(address, target, "");
            assert!(answer.starts_with("HTTP/1.1 400"), "{target}: {answer}");
        }
        assert!(get(address, "/nowhere", "").starts_with("HTTP/1.1 404"));
        assert!(get(address, "/slow?seconds=0.01", "").contains("after 0.01 s"));
    }
}
