//! Active checks: a server is asked whether it is well, and enough answers in a row decide.
//!
//! They run on the control plane, on connections of their own.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::connection::http1::Http1;
use super::health::{Change, Moment};
use super::{Open, Server, balance, pool};
use crate::config::{Health, ServerAddress};
use crate::http::{Method, parse};
use crate::wire::Body;

/// How much of an answer is searched.
const MAX_BODY: usize = 64 << 10;

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
        sleep(jitter(check.interval)).await;
    }
}

/// The interval, give or take a tenth, so that checks of many servers do not march in step.
pub fn jitter(interval: Duration) -> Duration {
    let share = u32::try_from(balance::random() % 2001).unwrap_or(1000);
    interval * 9 / 10 + interval / 10_000 * share
}

/// One check; what was wrong.
async fn ask(server: &Arc<Server>, check: &Health) -> Result<(), String> {
    let io = pool::dial(server, check.port, check.timeout, true)
        .await
        .map_err(|error| format!("cannot connect: {error}"))?;
    let Some(path) = &check.path else {
        return Ok(());
    };
    let mut connection = Http1::new(io, Open::new(server));
    let host = match (&check.host, &server.address) {
        (Some(host), _) => host.to_string(),
        (None, ServerAddress::Ip(address)) => address.to_string(),
        (None, ServerAddress::Name(name, port)) => format!("{name}:{port}"),
        (None, ServerAddress::Unix(_)) => "localhost".to_owned(),
    };
    let head = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: staunch-health\r\n\
         Connection: close\r\n\r\n"
    );
    let head = parse::request(head.as_bytes(), 10).map_err(|error| error.to_string())?;
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
    if !check.status.contains(response.status) {
        return Err(format!("the status is {}", response.status));
    }
    let Some(wanted) = &check.body else {
        return Ok(());
    };
    let mut body = Vec::new();
    loop {
        let part = poll_fn(|cx| connection.poll_body(cx)).await;
        if part.map_err(|error| error.to_string())? == Body::End {
            break;
        }
        body.extend_from_slice(connection.data());
        connection.consume(connection.data().len());
        if body.len() > MAX_BODY {
            break;
        }
    }
    match memchr::memmem::find(&body, wanted.as_bytes()) {
        Some(_) => Ok(()),
        None => Err("the answer does not hold what it should".to_owned()),
    }
}
