//! Bytes both ways, after the two ends have switched protocols (RFC 9110, section 7.8).

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Client;
use super::error::Failure;
use crate::upstream::connection::Connection;
use crate::wire::Body;

/// Where one direction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// Its source has ended; the other end is still to be told.
    Ending,
    Closed,
}

/// Bytes that went through a tunnel.
#[derive(Clone, Copy, Debug, Default)]
pub struct Passed {
    /// From the client.
    pub up: u64,
    /// To the client.
    pub down: u64,
    /// It was closed because both ends were silent.
    pub silent: bool,
}

/// Passes bytes both ways until both ends have closed, one of them breaks, or both are silent for
/// `silence`. An end that closes only its sending side can still receive. What went through is in
/// `passed`, however it ends.
pub async fn run<C: Client>(
    client: &mut C,
    server: &mut Connection,
    silence: Duration,
    passed: &mut Passed,
) -> Result<(), Failure> {
    server.begin_tunnel();
    client.begin_tunnel();
    let (mut up, mut down) = (Way::Open, Way::Open);
    client.deadline().set(silence);
    poll_fn(|cx| {
        let before = (passed.up, passed.down);
        poll_up(cx, client, server, &mut up, &mut passed.up)?;
        poll_down(cx, client, server, &mut down, &mut passed.down)?;
        if up == Way::Closed && down == Way::Closed {
            return Poll::Ready(Ok(()));
        }
        if before != (passed.up, passed.down) {
            client.deadline().set(silence);
        }
        if client.deadline().poll(cx).is_ready() {
            passed.silent = true;
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    })
    .await
}

fn poll_up<C: Client>(
    cx: &mut Context<'_>,
    client: &mut C,
    server: &mut Connection,
    way: &mut Way,
    passed: &mut u64,
) -> Result<(), Failure> {
    let broken = |error: io::Error| Failure::BrokenBody(error.into());
    while *way == Way::Open {
        match client.poll_body(cx)? {
            Poll::Pending => break,
            Poll::Ready(Body::End) => *way = Way::Ending,
            Poll::Ready(Body::Data) => match server.poll_send(cx, client.data()) {
                Poll::Pending => break,
                Poll::Ready(count) => {
                    let count = count.map_err(broken)?;
                    client.consume(count);
                    *passed += count as u64;
                }
            },
        }
    }
    match *way {
        Way::Open => {
            let _ = server.poll_flush(cx).map_err(broken)?;
        }
        // The server may have closed already, which is no news.
        Way::Ending if server.poll_shutdown(cx).is_ready() => *way = Way::Closed,
        _ => {}
    }
    Ok(())
}

fn poll_down<C: Client>(
    cx: &mut Context<'_>,
    client: &mut C,
    server: &mut Connection,
    way: &mut Way,
    passed: &mut u64,
) -> Result<(), Failure> {
    while *way == Way::Open {
        match server.poll_body(cx) {
            Poll::Pending => break,
            Poll::Ready(Err(error)) => return Err(Failure::BrokenBody(error)),
            Poll::Ready(Ok(Body::End)) => *way = Way::Ending,
            Poll::Ready(Ok(Body::Data)) => match client.poll_send(cx, server.data())? {
                Poll::Pending => break,
                Poll::Ready(count) => {
                    server.consume(count);
                    *passed += count as u64;
                }
            },
        }
    }
    match *way {
        Way::Open => {
            if let Poll::Ready(Err(error)) = client.poll_flush(cx) {
                return Err(error);
            }
        }
        Way::Ending if client.poll_close(cx).is_ready() => *way = Way::Closed,
        _ => {}
    }
    Ok(())
}
