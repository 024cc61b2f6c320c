//! Asking the admin address of a running staunch.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cli::DEFAULT_CONFIG;
use crate::config;

/// Where a staunch on this machine is asked where nothing says otherwise.
const DEFAULT_ADMIN: &str = "http://127.0.0.1:9180";

/// The admin address to ask: the one that was named, else the one that the configuration of this
/// machine has, else the usual one. A configuration with a fault says nothing of what runs.
pub(in crate::cli) fn admin_of(named: Option<String>) -> String {
    named.unwrap_or_else(|| {
        let config = config::load(Path::new(DEFAULT_CONFIG)).ok();
        let admin = config.and_then(|config| config.listen.admin);
        admin.map_or_else(|| DEFAULT_ADMIN.to_owned(), local)
    })
}

/// How an address that is listened on is reached from this machine.
fn local(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        // Where that is an IPv6 address, it takes IPv4 too.
        address.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{address}")
}

/// For the whole of one question.
const DEADLINE: Duration = Duration::from_secs(30);

/// Bytes of an answer: ten thousand certificates are about ten million.
const LONGEST: usize = 256 * 1024 * 1024;

/// What was answered.
#[derive(Debug)]
pub(in crate::cli) struct Answer {
    pub(in crate::cli) status: StatusCode,
    pub(in crate::cli) body: serde_json::Value,
}

/// Asks; `body` makes it a `POST` of JSON. An error says in words what went wrong.
pub(in crate::cli) fn ask(
    admin: &str,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<Answer, String> {
    ask_within(DEADLINE, admin, path, body)
}

/// The same, with so much time for the whole of it.
pub(in crate::cli) fn ask_within(
    deadline: Duration,
    admin: &str,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<Answer, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime: {error}"))?;
    let authority = authority(admin)?;
    runtime.block_on(async {
        match timeout(deadline, exchange(&authority, path, body)).await {
            Ok(answer) => answer.map_err(|error| format!("{authority}: {error}")),
            Err(_) => Err(format!("{authority}: no answer within {deadline:?}")),
        }
    })
}

/// `host:port` of an admin URL, with or without `http://`.
fn authority(admin: &str) -> Result<String, String> {
    let wrong = |why: &str| format!("--admin {admin}: {why}, such as {DEFAULT_ADMIN}");
    let uri: Uri = match admin.contains("://") {
        true => admin.parse(),
        false => format!("http://{admin}").parse(),
    }
    .map_err(|_| wrong("not a URL"))?;
    if uri.scheme_str() != Some("http") {
        return Err(wrong("the admin address is plain HTTP"));
    }
    let authority = uri.authority().ok_or_else(|| wrong("not a URL"))?;
    let port = authority.port_u16().unwrap_or(9180);
    Ok(format!("{}:{port}", authority.host()))
}

async fn exchange(
    authority: &str,
    path: &str,
    body: Option<&serde_json::Value>,
) -> Result<Answer, String> {
    let stream = TcpStream::connect(authority)
        .await
        .map_err(|error| error.to_string())?;
    let no_answer = |error: hyper::Error| match error.is_parse() {
        true => "what answers there speaks no plain HTTP: it is not the admin address".to_owned(),
        false => error.to_string(),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(no_answer)?;
    // It ends with the runtime; what fails on it fails the request as well.
    tokio::spawn(connection);
    let (method, bytes) = match body {
        Some(body) => (Method::POST, body.to_string()),
        None => (Method::GET, String::new()),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, authority)
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(bytes)))
        .map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await.map_err(no_answer)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), LONGEST)
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    let body = serde_json::from_slice(&body)
        .map_err(|_| format!("answered {status} with something other than JSON"))?;
    Ok(Answer { status, body })
}

/// What an answer that is no success says.
pub(in crate::cli) fn complaint(answer: &Answer) -> String {
    match answer.body.get("detail").and_then(|detail| detail.as_str()) {
        Some(detail) => detail.to_owned(),
        None => format!("answered {}", answer.status),
    }
}

#[cfg(test)]
pub(in crate::cli) mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// Answers one request, and returns it.
    pub(in crate::cli) fn answer_once(
        status: &'static str,
        body: &'static str,
    ) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !is_whole(&request) {
                let length = stream.read(&mut buffer).unwrap();
                assert!(length > 0);
                request.extend_from_slice(&buffer[..length]);
            }
            let length = body.len();
            write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}"
            )
            .unwrap();
            String::from_utf8(request).unwrap()
        });
        (address, served)
    }

    fn is_whole(request: &[u8]) -> bool {
        let text = String::from_utf8_lossy(request).to_ascii_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            return false;
        };
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        body.len() >= length
    }

    #[test]
    fn an_answer_and_a_complaint_are_read() {
        let (address, served) = answer_once("200 OK", r#"{"certificates":[]}"#);
        let answer = ask(&address, "/api/certificates", None).unwrap();
        assert!(answer.status.is_success() && answer.body["certificates"].is_array());
        assert!(
            served
                .join()
                .unwrap()
                .starts_with("GET /api/certificates HTTP/1.1")
        );
        let (address, _served) = answer_once("404 Not Found", r#"{"error":"x","detail":"no"}"#);
        let answer = ask(&format!("http://{address}/"), "/x", None).unwrap();
        assert_eq!(complaint(&answer), "no");
    }

    #[test]
    fn what_speaks_something_else_is_not_taken_for_the_admin_address() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tls = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(b"\x15\x03\x03\x00\x02\x02\x16").unwrap();
        });
        let why = ask(&address, "/x", None).unwrap_err();
        assert!(why.contains("it is not the admin address"), "{why}");
        tls.join().unwrap();
    }

    #[test]
    fn the_admin_address_of_the_configuration_is_asked_on_this_machine() {
        let cases = [
            ("127.0.0.1:9999", "http://127.0.0.1:9999"),
            ("10.0.0.7:9180", "http://10.0.0.7:9180"),
            ("0.0.0.0:9180", "http://127.0.0.1:9180"),
            ("[::]:9180", "http://127.0.0.1:9180"),
            ("[::1]:9181", "http://[::1]:9181"),
        ];
        for (listens, asked) in cases {
            assert_eq!(local(listens.parse().unwrap()), asked);
            assert!(authority(asked).is_ok());
        }
        assert_eq!(admin_of(Some("x:1".to_owned())), "x:1");
    }

    #[test]
    fn what_cannot_be_asked_is_said() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert!(ask(&address, "/", None).unwrap_err().contains(&address));
        assert!(
            ask("https://a", "/", None)
                .unwrap_err()
                .contains("plain HTTP")
        );
        assert!(ask("a b", "/", None).unwrap_err().contains("not a URL"));
        let (address, _served) = answer_once("200 OK", "hello");
        assert!(
            ask(&address, "/", None)
                .unwrap_err()
                .contains("other than JSON")
        );
    }

    #[test]
    fn the_port_may_be_left_out() {
        assert_eq!(authority("localhost").as_deref(), Ok("localhost:9180"));
        assert_eq!(authority("http://[::1]:1/").as_deref(), Ok("[::1]:1"));
    }
}
