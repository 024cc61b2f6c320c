//! Another server is asked about each request before it goes anywhere: `forward_auth`.
//!
//! Nothing but a 2xx lets a request in. What the server says to the client otherwise is passed on
//! where it is meant for one: that it has to sign in, that it may not, where to go. All else is a
//! failure, and no server that fails lets anybody in.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;

use super::basic::AUTHORIZATION;
use crate::config::{self, FieldRule, ForwardAuth, SignIn};
use crate::http::field::{Fields, Id, is_same_name};
use crate::http::{Framing, Method, RequestHead, ResponseHead};
use crate::metrics::ForwardOutcome;
use crate::proxy::account::Account;
use crate::proxy::error::{Failure, Undecided};
use crate::proxy::exchange::{self, Upload};
use crate::proxy::forward::{Answer, Forward};
use crate::proxy::own::{self, Own};
use crate::proxy::rules::{Random, change, location};
use crate::proxy::{Client, Exchange, headers, hop, identity};
use crate::upstream::connection::Connection;
use crate::upstream::health::Moment;
use crate::upstream::{Upstream, Upstreams};
use crate::wire::{Body, Deadline};

/// Who asks, on all the way here, so that nobody asks himself.
const ASKER: &[u8] = b"X-Staunch-Asks";

/// What an answer that lets a request in may have behind its head for its connection to be used
/// again, and how long that may take.
const REST: usize = 64 << 10;
const REST_TIME: Duration = Duration::from_millis(250);

/// Fields of the request that are not about who it is from, or that we say ourselves. Those that
/// begin with `Content-` and `If-` are others.
const WITHHELD: &[&str] = &[
    "Host",
    "Expect",
    "Range",
    "Max-Forwards",
    "TE",
    "X-Original-URL",
    "X-Original-Method",
    "X-Original-URI",
    "X-Forwarded-Method",
    "X-Forwarded-Uri",
];

/// Who is asked, and what is made of the answer.
#[derive(Debug)]
pub(super) struct Ask {
    upstream: Arc<Upstream>,
    path: Arc<str>,
    set: Box<[FieldRule]>,
    copy: Box<[Arc<str>]>,
    user: Option<Arc<str>>,
    sign_in: Option<SignIn>,
    timeout: Duration,
    except: Box<[IpNet]>,
    /// What it calls itself to those that it asks.
    asker: String,
}

impl Ask {
    pub fn new(rule: &ForwardAuth, upstreams: &Upstreams) -> Option<Self> {
        Some(Self {
            upstream: Arc::clone(upstreams.get(&rule.upstream)?),
            path: Arc::clone(&rule.path),
            set: rule.set.as_slice().into(),
            copy: rule.copy.as_slice().into(),
            user: rule.user.clone(),
            sign_in: rule.sign_in.clone(),
            timeout: rule.timeout,
            except: rule.except.as_slice().into(),
            asker: Random::new().name(),
        })
    }

    /// Asks. `Break`: the client has its answer.
    pub async fn admit<'w, C: Client>(
        &'w self,
        guest: &mut Exchange<'_, 'w, C>,
        vouched: &[Arc<str>],
    ) -> Result<ControlFlow<()>, Failure> {
        let is_asked = !config::contains(&self.except, guest.account.client);
        let question = is_asked.then(|| self.question(guest, vouched));
        for name in vouched {
            super::remove(&mut guest.head.fields, name);
        }
        let Some(question) = question else {
            return Ok(ControlFlow::Continue(()));
        };
        let (outcome, result) = self.ask(guest, &question).await;
        guest.client.deadline().reset();
        if !matches!(result, Err(Failure::ClientGone)) {
            guest.local.edge().forward_auth(outcome);
        }
        result
    }

    async fn ask<'w, C: Client>(
        &'w self,
        guest: &mut Exchange<'_, 'w, C>,
        question: &RequestHead,
    ) -> (ForwardOutcome, Result<ControlFlow<()>, Failure>) {
        let failed = |failure| (ForwardOutcome::Failed, Err(failure));
        if values(&guest.head.fields, ASKER).any(|who| who == self.asker.as_bytes()) {
            return failed(Undecided::Circle.into());
        }
        let (local, world, peer) = (guest.local, guest.world, guest.peer);
        let mut upload = Upload::new(Framing::None, None);
        let mut aside = Account::new(world, peer, question);
        aside.client = guest.account.client;
        let mut listener = Listener {
            client: &mut *guest.client,
        };
        let forward = Forward {
            local,
            world,
            peer,
            upstream: &self.upstream,
            timeouts: &self.upstream.timeouts,
            total: Some(self.timeout),
            head: question,
            upgrade: None,
        };
        let begin = Instant::now();
        let answer = forward.run(&mut listener, &mut upload, begin, &mut aside);
        let Answer {
            mut connection,
            head: mut answer,
            in_flight,
            server,
        } = match answer.await {
            Ok(answer) => answer,
            Err(failure) => {
                guest.account.server = aside.server;
                return failed(failure);
            }
        };
        match answer.status {
            200..=299 => {
                self.take(&answer, guest.head, &mut guest.account);
                if rest(&mut connection, guest.client.deadline()).await {
                    local.pool().put(connection, Instant::now());
                }
                drop(in_flight);
                return (ForwardOutcome::Accepted, Ok(ControlFlow::Continue(())));
            }
            401 | 403 | 429 => {}
            301 | 302 | 303 | 307 | 308 if value(&answer.fields, b"Location").is_some() => {}
            status => {
                guest.account.server = aside.server;
                return failed(Undecided::Answer(status).into());
            }
        }
        own::hear(guest.client, guest.head).await;
        let found = match (answer.status, &self.sign_in) {
            (401, Some(SignIn::To(template))) => {
                // What is copied may be in it: nobody else gets this request.
                copy(&self.copy, &answer, guest.head);
                let to = guest.knowing(|known| location(template, known));
                Some(to.map_err(Failure::from))
            }
            (401, Some(SignIn::Answered)) => {
                value(&answer.fields, b"Location").map(|to| Ok(to.to_vec()))
            }
            _ => None,
        };
        if let Some(to) = found {
            guest.client.deadline().unbound();
            let result = sign_in(guest, to, &answer).await;
            return (ForwardOutcome::Redirected, result);
        }
        let outcome = match answer.status {
            400.. => ForwardOutcome::Refused,
            _ => ForwardOutcome::Redirected,
        };
        headers::to_client(&mut answer, |out| out.extend_from_slice(&local.date()[..]));
        if let Some(rules) = guest.account.rules {
            guest.knowing(|known| rules.to_client(&mut answer, known));
        }
        guest.account.status = answer.status;
        let bodiless = guest.head.method == Method::Head;
        if bodiless {
            // It was asked with GET.
            answer.framing = Framing::None;
        }
        let mut listener = Listener {
            client: &mut *guest.client,
        };
        let result = match listener.start(answer, false) {
            Err(failure) => Err(failure),
            Ok(()) if bodiless => {
                guest.account.started = true;
                listener.finish(None);
                listener.deadline().unbound();
                let send = world.timeouts().send;
                flush(&mut listener, send).await
            }
            Ok(()) => {
                guest.account.started = true;
                let timeouts = &self.upstream.timeouts;
                let sent = &mut guest.account.sent;
                exchange::response(&mut listener, &mut connection, &mut upload, timeouts, sent)
                    .await
            }
        };
        if let Err(failure) = &result
            && failure.is_held_against_server()
        {
            self.upstream.failed(server, Moment::now(), failure);
        }
        drop(in_flight);
        let result = result.map(|()| {
            if !bodiless {
                local.pool().put(connection, Instant::now());
            }
            ControlFlow::Break(())
        });
        (outcome, result)
    }

    /// What the server is asked: the request without its body, and what it was.
    fn question<C: Client>(
        &self,
        guest: &Exchange<'_, '_, C>,
        vouched: &[Arc<str>],
    ) -> RequestHead {
        let (head, peer) = (&*guest.head, guest.peer);
        let mut question = RequestHead::unread();
        (question.method, question.version) = (Method::Get, head.version);
        question.keep_alive = true;
        let credentials =
            |name: &[u8]| Id::of(name) == Id::Cookie || name.eq_ignore_ascii_case(AUTHORIZATION);
        let begins = |name: &[u8], with: &[u8]| {
            (name.get(..with.len())).is_some_and(|start| start.eq_ignore_ascii_case(with))
        };
        for (_, name, value) in head.fields.iter() {
            let withheld = begins(name, b"Content-")
                || begins(name, b"If-")
                || WITHHELD.iter().any(|other| is_same_name(name, other))
                || !credentials(name) && vouched.iter().any(|other| is_same_name(name, other));
            if !withheld {
                question.fields.push(name, value);
            }
        }
        question.method_text = question.fields.store(b"GET");
        question.target = question.fields.store(self.path.as_bytes());
        question.authority = question.fields.store(head.authority());
        headers::to_upstream(&mut question, hop(guest.world, peer));
        identity::replace(&mut question.fields, guest.account.identity);
        let fields = &mut question.fields;
        let url = [
            peer.scheme.as_bytes(),
            b"://",
            head.authority(),
            head.target(),
        ];
        fields.push(b"X-Original-URL", &url.concat());
        fields.push(b"X-Original-URI", head.target());
        fields.push(b"X-Original-Method", head.method_text());
        fields.push(b"X-Forwarded-Method", head.method_text());
        fields.push(b"X-Forwarded-Uri", head.target());
        if !self.set.is_empty() {
            guest.knowing(|known| change(&self.set, known, fields));
        }
        fields.push(ASKER, self.asker.as_bytes());
        question
    }

    /// Takes from the answer what the upstream and the client are to get.
    fn take(&self, answer: &ResponseHead, head: &mut RequestHead, account: &mut Account<'_>) {
        copy(&self.copy, answer, head);
        let marks = account.marks.get_or_insert_default();
        let user = self.user.as_ref();
        let user = user.and_then(|name| value(&answer.fields, name.as_bytes()));
        if let Some(user) = user {
            marks.user = Some(user.into());
        }
        marks.cookies = (values(&answer.fields, b"Set-Cookie").map(Into::into)).collect();
    }
}

/// Sends the client to where it can sign in, with the cookies that the answer has for it.
async fn sign_in<C: Client>(
    guest: &mut Exchange<'_, '_, C>,
    to: Result<Vec<u8>, Failure>,
    answer: &ResponseHead,
) -> Result<ControlFlow<()>, Failure> {
    let mut own = Own::redirect(guest.local, 302, &to?, guest.head.method);
    for cookie in values(&answer.fields, b"Set-Cookie") {
        own.head().fields.push(b"Set-Cookie", cookie);
    }
    own.head().fields.push(b"Cache-Control", b"no-store");
    guest.answer(own).await?;
    Ok(ControlFlow::Break(()))
}

fn copy(names: &[Arc<str>], answer: &ResponseHead, head: &mut RequestHead) {
    for name in names {
        for value in values(&answer.fields, name.as_bytes()) {
            head.fields.push(name.as_bytes(), value);
        }
    }
}

fn values<'f>(fields: &'f Fields, name: &'f [u8]) -> impl Iterator<Item = &'f [u8]> {
    let named = fields.iter();
    named
        .filter(move |(_, found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, _, value)| value)
}

fn value<'f>(fields: &'f Fields, name: &'f [u8]) -> Option<&'f [u8]> {
    values(fields, name).next()
}

/// Sends what is gathered.
async fn flush<C: Client>(client: &mut C, send: Duration) -> Result<(), Failure> {
    client.deadline().set(send);
    poll_fn(|cx| match client.poll_flush(cx) {
        Poll::Ready(result) => Poll::Ready(result),
        Poll::Pending => own::poll_late(client, cx),
    })
    .await
}

/// Reads what nobody wants; whether the connection is as good as before.
async fn rest(server: &mut Connection, deadline: &mut Deadline) -> bool {
    deadline.set(REST_TIME);
    let mut seen = 0;
    poll_fn(|cx| {
        loop {
            match server.poll_body(cx) {
                Poll::Pending => return deadline.poll(cx).map(|()| false),
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Ready(Ok(Body::End)) => {
                    server.take_trailers();
                    return Poll::Ready(true);
                }
                Poll::Ready(Ok(Body::Data)) => {
                    let count = server.data().len();
                    seen += count;
                    if seen > REST {
                        return Poll::Ready(false);
                    }
                    server.consume(count);
                }
            }
        }
    })
    .await
}

/// The client while another server is asked: its body waits, and an interim response is not for it.
struct Listener<'c, C> {
    client: &'c mut C,
}

impl<C: Client> Client for Listener<'_, C> {
    fn poll_body(&mut self, _: &mut Context<'_>) -> Poll<Result<Body, Failure>> {
        Poll::Ready(Ok(Body::End))
    }

    fn data(&self) -> &[u8] {
        b""
    }

    fn consume(&mut self, _: usize) {}

    fn take_trailers(&mut self) -> Option<Box<Fields>> {
        None
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.client.poll_gone(cx)
    }

    fn interim(&mut self, _: ResponseHead) {}

    fn start(&mut self, head: ResponseHead, upgrade: bool) -> Result<(), Failure> {
        self.client.start(head, upgrade)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize, Failure>> {
        self.client.poll_send(cx, data)
    }

    fn finish(&mut self, trailers: Option<Box<Fields>>) {
        self.client.finish(trailers);
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.client.poll_flush(cx)
    }

    fn begin_tunnel(&mut self) {}

    fn poll_close(&mut self, _: &mut Context<'_>) -> Poll<()> {
        Poll::Ready(())
    }

    fn abort(&mut self) {
        self.client.abort();
    }

    fn last(&mut self) {
        self.client.last();
    }

    fn deadline(&mut self) -> &mut Deadline {
        self.client.deadline()
    }
}
