//! Responses that staunch makes itself.

use std::borrow::Cow;
use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use super::error::{Failure, phrase};
use super::grpc;
use super::route::Respond;
use super::rules::{Known, Rules, Said};
use super::{Client, Local};
use crate::http::field::{Fields, Id};
use crate::http::{Framing, Method, RequestHead, ResponseHead, Version};
use crate::wire::Body;

/// The methods that are told to whoever asks; others pass too.
const ALLOW: &[u8] = b"GET, HEAD, POST, PUT, DELETE, PATCH, OPTIONS";

/// The type of the built-in bodies.
const PLAIN: &str = "text/plain; charset=utf-8";

/// How long a small request may take to be whole before it is answered all the same.
const HEARING: Duration = Duration::from_millis(250);

/// The largest body that is waited for, in bytes.
const HEARD: u64 = 64 << 10;

/// Hears a small request over HTTP/2 to its end before it is answered. An answer before that is
/// allowed (RFC 9113, section 8.1), but some clients fail on it, or wait for ever: curl 7.88 does.
/// Over HTTP/1.1 the connection is taken care of when it closes, and the answer says that it will.
pub(super) async fn hear<C: Client>(client: &mut C, head: &RequestHead) {
    let is_small = match head.framing {
        Framing::Length(length) => length <= HEARD,
        Framing::Chunked => true,
        Framing::None | Framing::UntilClose => false,
    };
    if head.version != Version::Http2 || !is_small || head.expects_continue {
        client.leave_body();
        return;
    }
    client.deadline().set(HEARING);
    let mut heard = 0;
    poll_fn(|cx| {
        loop {
            match client.poll_body(cx) {
                Poll::Ready(Ok(Body::Data)) if heard <= HEARD => {
                    let count = client.data().len();
                    heard += count as u64;
                    client.consume(count);
                }
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return client.deadline().poll(cx),
            }
        }
    })
    .await;
}

/// Ready once a client that takes nothing has had its time.
pub(super) fn poll_late<C: Client>(
    client: &mut C,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Failure>> {
    let late = client.deadline().poll(cx);
    late.map(|()| Err(Failure::ClientNotReading))
}

/// A response, and its body as far as it is sent.
pub(super) struct Own<'a> {
    /// What is counted and logged: gRPC has a status of its own in a response with 200.
    status: u16,
    head: ResponseHead,
    body: Cow<'a, [u8]>,
}

impl<'a> Own<'a> {
    fn new(local: &Local, status: u16, body: Option<(Cow<'a, [u8]>, &str)>, to: Method) -> Self {
        let mut fields = Fields::with_capacity(512);
        let (mut framing, mut sent) = (Framing::None, Cow::Borrowed(&b""[..]));
        match body {
            Some((body, content_type)) => {
                let length = body.len() as u64;
                fields.push(b"Content-Type", content_type.as_bytes());
                fields.push(b"Content-Length", length.to_string().as_bytes());
                if to != Method::Head && length > 0 {
                    framing = Framing::Length(length);
                    sent = body;
                }
            }
            // RFC 9110, section 8.6: these have no length.
            None if matches!(status, 204 | 304) => {}
            None => fields.push(b"Content-Length", b"0"),
        }
        fields.push_with(Id::Date, |out| out.extend_from_slice(&local.date()[..]));
        Self {
            status,
            head: ResponseHead::own(status, phrase(status), framing, fields),
            body: sent,
        }
    }

    /// What went wrong: small, and without a word on what is behind.
    pub(super) fn error(
        local: &Local,
        status: u16,
        retry_after: Option<u32>,
        rules: Option<&'a Rules>,
        method: Method,
    ) -> Self {
        let body = match rules.and_then(|rules| rules.page(status)) {
            Some(Said::Redirect(status, to)) => {
                return Self::redirect(local, *status, to.as_bytes(), method);
            }
            Some(Said::Page(page)) => (Cow::Borrowed(&page.body[..]), &*page.content_type),
            None => {
                let text = format!("{status} {}\n", phrase(status));
                (Cow::Owned(text.into_bytes()), PLAIN)
            }
        };
        let mut own = Self::new(local, status, Some(body), method);
        let fields = &mut own.head.fields;
        if status == 405 {
            let own = rules.and_then(Rules::methods).map(str::as_bytes);
            fields.push(b"Allow", own.unwrap_or(ALLOW));
        }
        if let Some(seconds) = retry_after {
            fields.push(b"Retry-After", seconds.to_string().as_bytes());
        }
        own
    }

    /// What went wrong, to a client of gRPC.
    pub(super) fn grpc(local: &Local, status: u16) -> Self {
        Self {
            status,
            head: grpc::failure(status, &local.date()[..]),
            body: Cow::Borrowed(b""),
        }
    }

    /// To somewhere else.
    pub(super) fn redirect(local: &Local, status: u16, location: &[u8], to: Method) -> Self {
        let mut own = Self::new(local, status, None, to);
        own.head.fields.push(b"Location", location);
        own
    }

    /// What the configuration says.
    pub(super) fn respond(
        local: &Local,
        respond: &'a Respond,
        body: Option<Cow<'a, [u8]>>,
        rules: Option<&'a Rules>,
        to: Method,
    ) -> Self {
        match body {
            Some(body) => {
                let body = Some((body, &*respond.content_type));
                Self::new(local, respond.status, body, to)
            }
            None if respond.status >= 400 => Self::error(local, respond.status, None, rules, to),
            None => Self::new(local, respond.status, None, to),
        }
    }

    /// To a request that may be forwarded no further (RFC 9110, section 7.6.2).
    pub(super) fn last_hop(local: &Local) -> Self {
        let mut own = Self::new(local, 204, None, Method::Options);
        own.head.fields.push(b"Allow", ALLOW);
        own
    }

    /// Changed by rules.
    pub(super) fn by(mut self, rules: Option<&Rules>, known: &Known<'_>) -> Self {
        if let Some(rules) = rules {
            rules.to_client(&mut self.head, known);
        }
        self
    }

    /// Its head, for what still changes it.
    pub(super) const fn head(&mut self) -> &mut ResponseHead {
        &mut self.head
    }

    /// The status that it stands for.
    pub(super) const fn status(&self) -> u16 {
        self.status
    }

    /// Bytes of the body that are sent.
    pub(super) fn length(&self) -> u64 {
        self.body.len() as u64
    }

    /// Sends it, within the time that any sending has.
    pub(super) async fn deliver<C: Client>(
        self,
        client: &mut C,
        send: Duration,
    ) -> Result<(), Failure> {
        client.start(self.head, false)?;
        client.deadline().set(send);
        let mut rest = &self.body[..];
        let mut finished = false;
        poll_fn(|cx| {
            while !rest.is_empty() {
                match client.poll_send(cx, rest)? {
                    Poll::Ready(count) => {
                        rest = &rest[count..];
                        client.deadline().set(send);
                    }
                    Poll::Pending => return poll_late(client, cx),
                }
            }
            if !finished {
                client.finish(None);
                finished = true;
            }
            match client.poll_flush(cx) {
                Poll::Ready(result) => Poll::Ready(result),
                Poll::Pending => poll_late(client, cx),
            }
        })
        .await
    }
}
