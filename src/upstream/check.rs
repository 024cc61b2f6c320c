//! Active checks: a server is asked whether it is well, and enough answers in a row decide.
//!
//! They run on the control plane, on connections of their own.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::connection::http1::Http1;
use super::connection::io::Io;
use super::health::{Change, Moment};
use super::pool::Speak;
use super::{Open, Server, balance, pool};
use crate::config::{Health, Protocol};
use crate::http::{Method, parse};
use crate::listen::proxy_header;
use crate::wire::Body;

/// How much sooner the next check comes while the answers say something else than before.
const HURRY: u32 = 5;
/// How much of an answer is searched.
const MAX_BODY: usize = 64 << 10;
/// Who asks.
const AGENT: &str = "staunch-health";
/// What a gRPC server is asked (the gRPC health checking protocol, v1).
const GRPC_CHECK: &str = "/grpc.health.v1.Health/Check";

/// Checks a server for ever.
pub async fn watch(upstream: Arc<str>, server: Arc<Server>, check: Health) {
    let (mut good, mut bad) = (0_u32, 0_u32);
    // A server that was down stays so until it was well as often as it has to be.
    sleep(jitter(check.interval) / 10).await;
    loop {
        let result = match timeout(check.timeout, ask(&server, &check)).await {
            Ok(result) => result,
            Err(_) => Err(format!("no answer within {} ms", check.timeout.as_millis())),
        };
        let now = Moment::now();
        let change = match result {
            Ok(()) => {
                (good, bad) = (good.saturating_add(1), 0);
                match !server.health.is_down() || good >= check.rise {
                    true => server.health.checked(true, None, now),
                    false => None,
                }
            }
            Err(why) => {
                (good, bad) = (0, bad.saturating_add(1));
                match server.health.is_down() || bad >= check.fall {
                    true => server.health.checked(false, Some(why), now),
                    false => server.health.checked(true, Some(why), now),
                }
            }
        };
        match change {
            Some(Change::Up) => info!(%upstream, server = %server.url, "the server is up"),
            Some(Change::Down) => warn!(
                %upstream,
                server = %server.url,
                error = server.health.complaint().unwrap_or_default(),
                "the server is down"
            ),
            None => {}
        }
        // What has begun to change is found out soon.
        let settled = match server.health.is_down() {
            true => good == 0,
            false => bad == 0,
        };
        let pause = match settled {
            true => check.interval,
            false => check.interval / HURRY,
        };
        sleep(jitter(pause)).await;
    }
}

/// The interval, give or take a tenth, so that checks of many servers do not march in step.
pub fn jitter(interval: Duration) -> Duration {
    let share = u32::try_from(balance::random() % 2001).unwrap_or(1000);
    interval * 9 / 10 + interval / 10_000 * share
}

/// What a server answered.
struct Answer {
    status: u16,
    body: Vec<u8>,
    /// `grpc-status`, of a gRPC server.
    grpc: Option<String>,
}

/// One check; what was wrong.
async fn ask(server: &Arc<Server>, check: &Health) -> Result<(), String> {
    let plain = server.protocol == Protocol::Http1 && check.grpc.is_none();
    let speak = match plain {
        true if check.tls => Speak::Checked,
        true => Speak::Http1,
        false => Speak::Agreed,
    };
    let preamble = server.proxy_protocol.map(proxy_header::own);
    let preamble = preamble.as_deref().unwrap_or_default();
    let io = pool::dial(server, check.port, check.timeout, speak, preamble)
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    if let Some(service) = &check.grpc {
        let answer = ask_http2(io, server, check, GRPC_CHECK, grpc_request(service)).await?;
        return grpc_serves(&answer);
    }
    let Some(path) = &check.path else {
        return Ok(());
    };
    let answer = match server.protocol == Protocol::Http2 || io.agreed_http2() {
        true => ask_http2(io, server, check, path, Bytes::new()).await?,
        false => ask_http1(io, server, check, path).await?,
    };
    if !check.status.contains(answer.status) {
        return Err(format!("the status is {}", answer.status));
    }
    match &check.body {
        Some(wanted) if memchr::memmem::find(&answer.body, wanted.as_bytes()).is_none() => {
            Err("the answer does not hold what it should".to_owned())
        }
        _ => Ok(()),
    }
}

/// The host that is asked for.
fn host(server: &Server, check: &Health) -> String {
    match &check.host {
        Some(host) => host.to_string(),
        None => server.host(),
    }
}

async fn ask_http1(
    io: Io,
    server: &Arc<Server>,
    check: &Health,
    path: &str,
) -> Result<Answer, String> {
    let mut connection = Http1::new(io, Open::new(server), None);
    let host = host(server, check);
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\nConnection: close\r\n\r\n"
    );
    let head =
        parse::complete(parse::request(head.as_bytes(), 10)).map_err(|error| error.to_string())?;
    connection.send_head(&head, None);
    connection.finish(None);
    poll_fn(|cx| connection.poll_flush(cx))
        .await
        .map_err(|error| error.to_string())?;
    let response = loop {
        let response = poll_fn(|cx| connection.poll_head(cx, Method::Get))
            .await
            .map_err(|error| error.to_string())?;
        if !response.is_interim() {
            break response;
        }
    };
    let mut body = Vec::new();
    while check.body.is_some() && body.len() < MAX_BODY {
        let part = poll_fn(|cx| connection.poll_body(cx)).await;
        if part.map_err(|error| error.to_string())? == Body::End {
            break;
        }
        body.extend_from_slice(connection.data());
        connection.consume(connection.data().len());
    }
    Ok(Answer {
        status: response.status,
        body,
        grpc: None,
    })
}

/// A `GET`; or, with a body, a `POST` as gRPC has it.
async fn ask_http2(
    io: Io,
    server: &Server,
    check: &Health,
    path: &str,
    body: Bytes,
) -> Result<Answer, String> {
    let scheme = if server.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let uri = format!("{scheme}://{}{path}", host(server, check));
    let mut request = http::Request::get(uri).header(http::header::USER_AGENT, AGENT);
    if !body.is_empty() {
        request = request
            .method(http::Method::POST)
            .header(http::header::CONTENT_TYPE, "application/grpc")
            .header(http::header::TE, "trailers");
    }
    let request = request.body(()).map_err(|error| error.to_string())?;
    let (mut sender, connection) = h2::client::handshake(io)
        .await
        .map_err(|error| error.to_string())?;
    let exchange = async {
        let (response, mut send) = sender.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            send.send_data(body, true)?;
        }
        let (parts, mut stream) = response.await?.into_parts();
        let mut body = Vec::new();
        let trailers = loop {
            // As much as is looked at: an answer need not have an end.
            if body.len() >= MAX_BODY {
                break None;
            }
            let Some(part) = stream.data().await.transpose()? else {
                break stream.trailers().await?;
            };
            stream.flow_control().release_capacity(part.len())?;
            body.extend_from_slice(&part);
        };
        // A server that fails at once puts the status into the head.
        let trailers = trailers.unwrap_or(parts.headers);
        let grpc = trailers.get("grpc-status");
        Ok::<_, h2::Error>(Answer {
            status: parts.status.as_u16(),
            body,
            grpc: grpc
                .and_then(|value| value.to_str().ok())
                .map(str::to_owned),
        })
    };
    tokio::select! {
        answer = exchange => answer.map_err(|error| error.to_string()),
        ended = connection => Err(match ended {
            Ok(()) => "the server closed the connection".to_owned(),
            Err(error) => error.to_string(),
        }),
    }
}

/// `grpc.health.v1.HealthCheckRequest { service }`, as one gRPC message.
fn grpc_request(service: &str) -> Bytes {
    let mut message = Vec::new();
    // The reader of the configuration keeps it below what one byte can say.
    if let (false, Ok(length)) = (service.is_empty(), u8::try_from(service.len())) {
        message.extend_from_slice(&[0x0a, length]);
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or_default();
    let mut framed = vec![0];
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend(message);
    framed.into()
}

/// Whether the answer is `HealthCheckResponse { status: SERVING }`.
fn grpc_serves(answer: &Answer) -> Result<(), String> {
    match (answer.status, answer.grpc.as_deref(), answer.body.get(5..)) {
        (200, Some("0"), Some([0x08, 1, ..])) => Ok(()),
        (200, Some("0"), _) => Err("it says that it does not serve".to_owned()),
        (200, Some("5"), _) => Err("it does not know the service".to_owned()),
        (200, Some("12"), _) => Err("it has no health service".to_owned()),
        (200, Some(status), _) => Err(format!("the gRPC status is {status}")),
        (status, ..) => Err(format!("the status is {status}, without a gRPC status")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_messages_are_said_and_understood() {
        assert_eq!(grpc_request("")[..], [0; 5]);
        assert_eq!(grpc_request("ab")[..], *b"\0\0\0\0\x04\x0a\x02ab");
        let answer = |body: &[u8], grpc: &str| Answer {
            status: 200,
            body: body.to_vec(),
            grpc: Some(grpc.to_owned()),
        };
        assert!(grpc_serves(&answer(b"\0\0\0\0\x02\x08\x01", "0")).is_ok());
        assert!(grpc_serves(&answer(b"\0\0\0\0\x02\x08\x02", "0")).is_err());
        assert!(grpc_serves(&answer(b"", "0")).is_err());
        assert!(grpc_serves(&answer(b"", "12")).is_err());
    }

    #[test]
    fn checks_do_not_march_in_step() {
        let interval = Duration::from_secs(10);
        let all: Vec<_> = (0..100).map(|_| jitter(interval)).collect();
        assert!(
            all.iter()
                .all(|one| one.as_secs_f64() >= 9.0 && one.as_secs_f64() <= 11.1)
        );
        assert!(all.iter().max() > all.iter().min());
    }
}
